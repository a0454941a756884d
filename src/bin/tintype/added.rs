//! Models of the user's own: names for directories and repositories that the table of known models lacks.
//!
//! They stand in `models.json` in the configuration directory of this system, a file that people may edit:
//! `{"clothes": {"repository": "owner/name@main"}, "mine": {"directory": "/models/mine"}}`. A name never hides one of the
//! known models.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use tintype::model::registry::{self, Source};

use crate::library::BUILTIN;
use crate::output::replace;

/// Where an added model lies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Place {
    /// On this machine: a directory, or a file of OpenAI's kind.
    Directory(PathBuf),
    /// On the hub: `owner/name`, with `@revision` where it is not the main branch.
    Repository(String),
}

impl Place {
    /// What the user means: something that is on this machine, or else a repository.
    pub(crate) fn of(text: &str) -> anyhow::Result<Self> {
        if Path::new(text).exists() {
            return Ok(Place::Directory(std::path::absolute(text)?));
        }
        let plain = |part: &str| {
            let plain = |c: char| c.is_ascii_alphanumeric() || ['-', '_', '.'].contains(&c);
            !part.is_empty() && !part.starts_with('.') && part.chars().all(plain)
        };
        let (repository, revision) = text.split_once('@').unwrap_or((text, "main"));
        match repository.split_once('/') {
            Some((owner, name)) if plain(owner) && plain(name) && plain(revision) => {
                Ok(Place::Repository(text.to_owned()))
            }
            _ => bail!("{text}: neither a directory nor a repository's name (OWNER/NAME, or OWNER/NAME@REVISION)"),
        }
    }

    /// Its last part, as a name on the command line is written.
    pub(crate) fn default_name(&self) -> String {
        let name = match self {
            Place::Directory(path) => path.file_stem().unwrap_or_default().to_string_lossy().into_owned(),
            Place::Repository(name) => {
                name.split('@').next().and_then(|n| n.rsplit('/').next()).unwrap_or(name).to_owned()
            }
        };
        let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
        name.chars().map(plain).collect::<String>().trim_matches('-').to_owned()
    }

    /// Where a hub has it.
    pub(crate) fn sources(&self) -> Option<[Source; 2]> {
        match self {
            Place::Directory(_) => None,
            Place::Repository(name) => Some(Source::of(name)),
        }
    }
}

/// All of them, by name.
pub(crate) fn all() -> anyhow::Result<BTreeMap<String, Place>> {
    let path = file()?;
    match std::fs::read(&path) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .with_context(|| format!("{} is no list of models; mend it or delete it", path.display())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(BTreeMap::new()),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

/// The one with this name.
pub(crate) fn find(name: &str) -> anyhow::Result<Option<Place>> {
    Ok(all()?.remove(&name.to_ascii_lowercase()))
}

/// Gives a place a name, unless another has it.
pub(crate) fn add(name: &str, place: Place) -> anyhow::Result<()> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if name.is_empty() || !name.chars().all(plain) {
        bail!("{name:?} is no name for a model: say one of small letters, digits and hyphens with --name");
    }
    if name == BUILTIN || registry::find(name).is_ok() {
        bail!("{name} is a known model already; say another name with --name");
    }
    let mut models = all()?;
    if models.get(name).is_some_and(|other| *other != place) {
        bail!("{name} is another model already; `tintype models remove {name}` forgets it, or say another --name");
    }
    models.insert(name.to_owned(), place);
    write(&models)
}

/// Forgets a name; the files stay where they are. Whether there was one.
pub(crate) fn remove(name: &str) -> anyhow::Result<bool> {
    let mut models = all()?;
    if models.remove(name).is_none() {
        return Ok(false);
    }
    write(&models)?;
    Ok(true)
}

fn write(models: &BTreeMap<String, Place>) -> anyhow::Result<()> {
    replace(&file()?, &serde_json::to_vec_pretty(models)?)
}

fn file() -> anyhow::Result<PathBuf> {
    let directory = dirs::config_dir().context("this system does not say where programs keep their settings")?;
    Ok(directory.join("tintype").join("models.json"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_path_that_exists_or_a_repository() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("My Model_v1.5");
        std::fs::create_dir(&folder).unwrap();
        let place = Place::of(folder.to_str().unwrap()).unwrap();
        assert_eq!((place.clone(), place.default_name()), (Place::Directory(folder), "my-model-v1".to_owned()));
        let place = Place::of("Marqo/marqo-fashionSigLIP@v2").unwrap();
        assert_eq!(place.default_name(), "marqo-fashionsiglip");
        assert_eq!(place.sources().unwrap()[0].revision, "v2");
        for wrong in ["nowhere", "a/b/c", "../etc", "a/..", "owner/name@", "owner/na me", "/nowhere/at/all"] {
            assert!(Place::of(wrong).is_err(), "{wrong}");
        }
    }
}
