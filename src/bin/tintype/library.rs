//! The library that a command works on, and the model that answers in it.
//!
//! A library knows the fingerprint of its model, not how to load it. `models.json` inside the library says that: fingerprint →
//! name or path. An entry is written before its vectors are, so that an interruption at any point leaves a library that
//! can be opened; a library without the file was made with the built-in model.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use tintype::model::{Adaptation, EncoderOptions, Precision, registry};
use tintype::{Encode, Encoder, Engine, Error};

use crate::added;
use crate::args::{Arithmetic, Common};
use crate::fetch::{fetch, fetch_added, hub};
use crate::output::{Talk, printable, replace};

const MODELS: &str = "models.json";

/// The name of the model that is compiled in, on the command line.
pub(crate) const BUILTIN: &str = "builtin";

/// Where the library is.
pub(crate) fn directory(common: &Common) -> anyhow::Result<PathBuf> {
    match &common.library {
        Some(dir) => Ok(dir.clone()),
        None => dirs::data_dir()
            .map(|data| data.join("tintype"))
            .context("this system does not say where programs keep their data; say it with --library DIR"),
    }
}

/// Opens the library; none if there is none.
pub(crate) fn open(common: &Common, talk: &Talk) -> anyhow::Result<Option<Engine>> {
    let dir = directory(common)?;
    let space = match Engine::space(&dir) {
        Ok(space) => space,
        Err(Error::NoLibrary { .. }) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let noted = noted(&dir)?;
    if common.model.is_none() && space.is_declared() && !noted.contains_key(&space.fingerprint) {
        let model = registry::find(&space.model).ok();
        let encoder = match model {
            Some(model) if is_here(model)? => load(model.alias, &options(common), talk)?,
            _ => Encoder::declared(space),
        };
        return Ok(Some(Engine::open(&dir, encoder)?));
    }
    let choice = common.model.as_ref().or_else(|| noted.get(&space.fingerprint)).map_or(BUILTIN, String::as_str);
    let mut options = options(common);
    if options.precision == Precision::Auto {
        options.precision = space.precision();
    }
    match Engine::open(&dir, load(choice, &options, talk)?) {
        Ok(engine) => Ok(Some(engine)),
        Err(error @ Error::SpaceMismatch { .. }) if common.model.is_some() => {
            Err(anyhow::Error::new(error).context(format!("`tintype models use {choice}` switches the library")))
        }
        Err(error @ Error::SpaceMismatch { .. }) if common.precision != Arithmetic::Auto => {
            let advice = format!("`tintype models use {choice}` with the same --precision switches the library");
            Err(anyhow::Error::new(error).context(advice))
        }
        // Another process has just finished switching the library.
        Err(Error::SpaceMismatch { .. }) if Engine::space(&dir)?.fingerprint != space.fingerprint => open(common, talk),
        Err(error @ Error::SpaceMismatch { .. }) => {
            Err(anyhow::Error::new(error).context(format!("say with --model how to load {}", space.model)))
        }
        Err(error) => Err(error.into()),
    }
}

/// Opens the library, or makes it for the photos of `paths`, with the model of `--model` or the built-in one. Paths that are
/// not there make no library.
pub(crate) fn open_or_create(paths: &[PathBuf], common: &Common, talk: &Talk) -> anyhow::Result<Engine> {
    if let Some(engine) = open(common, talk)? {
        return Ok(engine);
    }
    if let Some(path) = paths.iter().find(|path| !path.exists()) {
        anyhow::bail!("{}: not found", path.display());
    }
    let dir = directory(common)?;
    let choice = common.model.as_deref().unwrap_or(BUILTIN);
    let encoder = load(choice, &options(common), talk)?;
    note(&dir, &encoder, choice)?;
    Ok(Engine::open_or_create(&dir, encoder)?)
}

/// Opens the library, or says how to make one.
pub(crate) fn open_existing(common: &Common, talk: &Talk) -> anyhow::Result<Engine> {
    open(common, talk)?.with_context(|| no_library(common))
}

/// As [`open_existing`], for what asks nothing of a model: none is fetched or loaded.
pub(crate) fn open_without_model(common: &Common) -> anyhow::Result<Engine> {
    let dir = directory(common)?;
    match Engine::space(&dir) {
        Ok(space) => Ok(Engine::open(&dir, Encoder::declared(space))?),
        Err(Error::NoLibrary { .. }) => anyhow::bail!(no_library(common)),
        Err(error) => Err(error.into()),
    }
}

/// What to do where there is no library.
pub(crate) fn no_library(common: &Common) -> String {
    let dir = directory(common).map(|dir| dir.display().to_string()).unwrap_or_default();
    format!("there is no library in {dir} yet; `tintype index FOLDER` makes one of your photos")
}

/// How a model is loaded: as the command line says, with packed weights kept in the cache directory of this system.
pub(crate) fn options(common: &Common) -> EncoderOptions {
    let mut options = EncoderOptions::default().precision(common.precision.precision()).device(common.device);
    options.lenient = common.lenient;
    match dirs::cache_dir() {
        Some(cache) => options.cache(cache.join("tintype").join("packed")),
        None => options,
    }
}

/// Whether a model is on this machine.
pub(crate) fn is_here(model: &registry::Model) -> anyhow::Result<bool> {
    Ok(tintype::model::hub::locate(model, &hub()?).is_some())
}

/// Whether a choice is a file that `tintype adapt` has written.
pub(crate) fn is_head(choice: &str) -> bool {
    choice.ends_with(".safetensors") && Path::new(choice).is_file()
}

/// Reads such a file. `tintype adapt` learns no head of a head, and one that names itself would be loaded without end.
pub(crate) fn head(choice: &str) -> anyhow::Result<Adaptation> {
    let adaptation = Adaptation::load(choice)?;
    if is_head(&adaptation.model) {
        let below = printable(&adaptation.model);
        bail!("{choice}: made for {below}, which is such a file too and no model; let `tintype adapt` learn it anew");
    }
    Ok(adaptation)
}

/// Whether a choice is a path: a model's directory or one of its weight files, or a head. Names of models are no paths.
pub(crate) fn is_path(choice: &str) -> bool {
    let path = Path::new(choice);
    path.is_dir() || (path.is_file() && path.extension().is_some())
}

/// A choice as it is noted for later, when the current directory may be another.
pub(crate) fn lasting(choice: &str) -> String {
    match std::path::absolute(choice) {
        Ok(path) if choice != BUILTIN && is_path(choice) => path.display().to_string(),
        _ => choice.to_owned(),
    }
}

/// Loads a model: `builtin`, a directory or a file, or a name, known or added, which is downloaded first where it is not on
/// this machine.
pub(crate) fn load(choice: &str, options: &EncoderOptions, talk: &Talk) -> anyhow::Result<Encoder> {
    if choice == BUILTIN {
        return Ok(Encoder::builtin_with(options)?);
    }
    if is_head(choice) {
        let adaptation = head(choice)?;
        let precision = if options.precision == Precision::Auto { adaptation.precision() } else { options.precision };
        let base = load(&adaptation.model, &options.clone().precision(precision), talk)?;
        return Ok(Encoder::adapted(base, &adaptation)?);
    }
    if is_path(choice) {
        return Ok(Encoder::load_with(choice, options)?);
    }
    if let Some(place) = added::find(choice)? {
        let directory = fetch_added(choice, &place, &hub()?, talk)?;
        return Ok(Encoder::load_with(directory, options)?.under_name(choice));
    }
    let (model, hub) = (registry::find(choice)?, hub()?);
    fetch(model, &hub, talk)?;
    Ok(Encoder::named_with(model.alias, &hub, options, |_| {})?)
}

/// The model that the library answers with, as it was chosen: a name or a path. None if there is no library.
pub(crate) fn chosen(common: &Common) -> anyhow::Result<Option<String>> {
    let dir = directory(common)?;
    match Engine::space(&dir) {
        Ok(space) => Ok(Some(noted(&dir)?.remove(&space.fingerprint).unwrap_or_else(|| BUILTIN.to_owned()))),
        Err(Error::NoLibrary { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Notes in the library how to load a model. `choice` is a name or a path.
///
/// To be called before the library is made with, or switched to, the model.
pub(crate) fn note(library: &Path, encoder: &Encoder, choice: &str) -> anyhow::Result<()> {
    let mut models = noted(library)?;
    let choice = lasting(choice);
    if models.insert(encoder.space().fingerprint.clone(), choice.clone()) == Some(choice) {
        return Ok(());
    }
    replace(&library.join(MODELS), &serde_json::to_vec_pretty(&models)?)
}

/// Takes over from another library how its models are loaded.
pub(crate) fn copy_notes(from: &Path, to: &Path) -> anyhow::Result<()> {
    let from = from.join(MODELS);
    if from.exists() && !to.join(MODELS).exists() {
        std::fs::create_dir_all(to).with_context(|| format!("cannot create {}", to.display()))?;
        std::fs::copy(&from, to.join(MODELS)).with_context(|| format!("cannot copy {}", from.display()))?;
    }
    Ok(())
}

fn noted(library: &Path) -> anyhow::Result<BTreeMap<String, String>> {
    let path = library.join(MODELS);
    match std::fs::read(&path) {
        Ok(bytes) => serde_json::from_slice(&bytes).with_context(|| format!("{} cannot be read", path.display())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(BTreeMap::new()),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}
