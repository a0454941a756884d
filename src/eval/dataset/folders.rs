//! Folders: webdatasets, a folder of them for each language, a folder per class, or pictures with their captions beside them.

use std::path::{Path, PathBuf};

use super::{Dataset, DatasetOptions, Picture, Truth, annotations, bad, lines, webdataset};
use crate::eval::prompts::{Prompts, names};
use crate::{Error, Result};

/// Caption files that a folder is taken by.
const CAPTIONS: &[&str] = &["captions.jsonl", "captions.json", "captions.txt"];

pub(super) fn open(path: &Path, options: &DatasetOptions) -> Result<Vec<Dataset>> {
    if webdataset::is(path) {
        return Ok(vec![webdataset::open(path, options)?]);
    }
    if path.join(annotations::XTD_IMAGES).is_file() {
        return annotations::xtd(path, options);
    }
    if let Some(captions) = CAPTIONS.iter().map(|name| path.join(name)).find(|file| file.is_file()) {
        let mut found = lines::open(&captions, options)?;
        if options.name.is_none() {
            found.iter_mut().for_each(|dataset| dataset.name = super::name_of(path));
        }
        return Ok(found);
    }
    let inside = folders(path)?;
    let languages: Vec<&PathBuf> = inside.iter().filter(|folder| webdataset::is(folder)).collect();
    if !languages.is_empty() {
        let options =
            DatasetOptions { name: Some(options.name.clone().unwrap_or(super::name_of(path))), ..options.clone() };
        let language = |folder: &PathBuf| folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let wanted = |folder: &&PathBuf| options.languages.is_empty() || options.languages.contains(&language(folder));
        let found = languages.into_iter().filter(wanted);
        return found.map(|folder| Ok(webdataset::open(folder, &options)?.in_language(language(folder)))).collect();
    }
    Ok(vec![classes(path, options)?])
}

/// A folder per class, perhaps below folders called `train` and `test`.
fn classes(path: &Path, options: &DatasetOptions) -> Result<Dataset> {
    let split = match &options.split {
        Some(split) => {
            let split = path.join(split);
            if !split.is_dir() {
                return Err(bad(&split, "there is no such split"));
            }
            split
        }
        None => ["test", "val", "validation"]
            .iter()
            .map(|name| path.join(name))
            .find(|split| folders(split).is_ok_and(|inside| !inside.is_empty()))
            .unwrap_or_else(|| path.to_path_buf()),
    };
    let inside = folders(&split)?;
    if inside.is_empty() {
        return Err(bad(
            path,
            "no dataset here that is known: neither shards (test/0.tar), nor a folder per class, nor captions.jsonl",
        ));
    }
    let folder_name = |folder: &PathBuf| folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let keys: Vec<String> = inside.iter().map(folder_name).collect();
    let mut dataset = Dataset::new(path, options, Truth::Captions(Vec::new()));
    let beside = path.join("classnames.txt");
    let classes = match &options.class_names {
        Some(file) => names(file, &dataset.name)?,
        None if beside.is_file() => names(&beside, &dataset.name)?,
        None => keys.iter().map(|key| key.replace('_', " ")).collect(),
    };
    if classes.len() != keys.len() {
        let reason = format!("{} names for {} folders of {}", classes.len(), keys.len(), split.display());
        return Err(bad(options.class_names.as_deref().unwrap_or(&beside), reason));
    }
    let templates = path.join("zeroshot_classification_templates.txt");
    let file = options.templates.as_deref().or(Some(&*templates).filter(|file| file.is_file()));
    let prompts = Prompts::new(classes, &dataset.name, file, None)?;
    let mut labels = Vec::new();
    for (class, folder) in inside.iter().enumerate() {
        for picture in pictures(folder)? {
            dataset.pictures.push(Picture::File(picture));
            labels.push(class);
        }
    }
    let train = path.join(options.train.as_deref().unwrap_or("train"));
    if train.is_dir() && train != split && !split.starts_with(&train) {
        for folder in folders(&train)? {
            let name = folder_name(&folder);
            let class = keys
                .iter()
                .position(|key| *key == name)
                .ok_or_else(|| bad(&folder, format!("a class that {} does not have", split.display())))?;
            dataset.train.extend(pictures(&folder)?.into_iter().map(|picture| (Picture::File(picture), class)));
        }
    }
    dataset.truth = Truth::Classes { prompts, labels };
    Ok(dataset)
}

/// The folders in a folder, by name; hidden ones are left out.
fn folders(path: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(path).map_err(Error::io(path))? {
        let entry = entry.map_err(Error::io(path))?;
        if entry.path().is_dir() && !entry.file_name().to_string_lossy().starts_with('.') {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}

/// All pictures below a folder, by path; told by their names, as everywhere in datasets.
fn pictures(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in ignore::WalkBuilder::new(folder).standard_filters(false).hidden(true).follow_links(true).build() {
        let entry = entry.map_err(|error| bad(folder, error.to_string()))?;
        let extension = entry.path().extension().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
        if crate::collection::PICTURES.contains(&extension.as_str()) && entry.path().is_file() {
            found.push(entry.into_path());
        }
    }
    found.sort();
    Ok(found)
}
