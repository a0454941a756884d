//! Caption files that are one JSON value, COCO's and Karpathy's among them, and XTD10's folder of texts.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use serde_json::{Map, Value};

use super::lines::{Collected, read, texts};
use super::{Dataset, DatasetOptions, bad};
use crate::Result;

/// The list of pictures of XTD10 and multilingual COCO; captions lie beside it, a file per language.
pub(super) const XTD_IMAGES: &str = "test_image_names.txt";

pub(super) fn open(path: &Path, options: &DatasetOptions) -> Result<Vec<Dataset>> {
    let value: Value = serde_json::from_str(&read(path)?).map_err(|error| bad(path, format!("no JSON: {error}")))?;
    let mut found = Collected::new(path, options);
    match &value {
        Value::Array(rows) => each_row(rows.iter(), &mut found),
        Value::Object(object) => match (object.get("images"), object.get("annotations"), object.get("image_paths")) {
            // What CLIP_benchmark writes for a language: `crossmodal3600_captions-de.json`.
            (None, Some(Value::Array(annotations)), Some(Value::Array(paths))) => {
                let stem = path.file_stem().unwrap_or_default().to_string_lossy();
                let language = stem.rsplit_once('-').map_or("en", |(_, language)| language).to_owned();
                for (image, captions) in paths.iter().zip(annotations) {
                    found.captions(&language, image.as_str().unwrap_or_default(), texts(captions));
                }
            }
            (Some(Value::Array(images)), Some(Value::Array(annotations)), _) => coco(images, annotations, &mut found),
            (Some(Value::Array(images)), None, _) => karpathy(path, images, options, &mut found)?,
            // SugarCrepe: an object by number.
            _ if object.values().all(Value::is_object) => each_row(object.values(), &mut found),
            _ => {
                return Err(bad(path, "no captions that are known: neither COCO's, Karpathy's, nor SugarCrepe's form"));
            }
        },
        _ => return Err(bad(path, "neither an object nor a list")),
    }
    found.finish()
}

fn each_row<'a>(rows: impl Iterator<Item = &'a Value>, found: &mut Collected<'_>) {
    for (number, row) in rows.enumerate() {
        match row {
            Value::Object(row) => found.row(row, || format!("entry {number}")),
            _ => found.trouble(format!("entry {number}"), "no object"),
        }
    }
}

/// `images` and `annotations`, joined by id; pictures in the order of their ids, as the COCO tools have them.
fn coco(images: &[Value], annotations: &[Value], found: &mut Collected<'_>) {
    let mut captions: HashMap<i64, Vec<String>> = HashMap::new();
    for annotation in annotations {
        if let (Some(image), Some(text)) = (annotation["image_id"].as_i64(), annotation["caption"].as_str()) {
            captions.entry(image).or_default().push(text.to_owned());
        }
    }
    let name = |image: &Value| Some((image["id"].as_i64()?, image["file_name"].as_str()?.to_owned()));
    let named: BTreeMap<i64, String> = images.iter().filter_map(name).collect();
    if named.len() < images.len() {
        found.trouble("images".to_owned(), format!("{} without id or file_name", images.len() - named.len()));
    }
    for (id, file) in named {
        match captions.remove(&id) {
            Some(captions) => found.captions("en", &file, captions),
            None => found.trouble(file, "no caption"),
        }
    }
}

/// `dataset_flickr30k.json`: all splits in one list.
fn karpathy(path: &Path, images: &[Value], options: &DatasetOptions, found: &mut Collected<'_>) -> Result<()> {
    let wanted = options.split.as_deref().unwrap_or("test");
    let is_wanted = |row: &&Map<String, Value>| row.get("split").is_none_or(|split| split.as_str() == Some(wanted));
    let rows: Vec<_> = images.iter().filter_map(Value::as_object).filter(is_wanted).collect();
    if rows.is_empty() {
        return Err(bad(path, format!("no pictures of the split {wanted:?}; --split names another")));
    }
    for (number, row) in rows.into_iter().enumerate() {
        // COCO's lie in a folder of their own: `val2014`.
        let folder = row.get("filepath").and_then(Value::as_str);
        match (folder, row.get("filename").and_then(Value::as_str)) {
            (Some(folder), Some(name)) => {
                let captions = row.get("sentences").map(texts).unwrap_or_default();
                found.captions("en", &format!("{folder}/{name}"), captions);
            }
            _ => found.row(row, || format!("image {number}")),
        }
    }
    Ok(())
}

/// The language of a file of captions, if it is one: `test_1kcaptions_de` or `de`.
fn language(file: &Path) -> Option<String> {
    let stem = file.file_stem()?.to_str().filter(|_| file.extension().is_some_and(|end| end == "txt"))?;
    let is_code = |code: &str| (2..=3).contains(&code.len()) && code.bytes().all(|c| c.is_ascii_lowercase());
    match stem.rsplit_once("captions_") {
        Some((_, language)) => Some(language.to_owned()),
        None => stem.split(['-', '_']).next().is_some_and(is_code).then(|| stem.to_owned()),
    }
}

/// `test_image_names.txt`, and `test_1kcaptions_de.txt` or `de.txt` for each language, line for line. Other texts are none of it.
pub(super) fn xtd(path: &Path, options: &DatasetOptions) -> Result<Vec<Dataset>> {
    let images = read(&path.join(XTD_IMAGES))?;
    let images: Vec<&str> = images.lines().map(str::trim).collect();
    let mut files: Vec<_> = std::fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    files.sort();
    let list = path.join(XTD_IMAGES);
    let mut found = Collected::new(&list, options);
    for file in &files {
        let Some(language) = language(file) else { continue };
        let text = read(file)?;
        let captions: Vec<&str> = text.lines().map(str::trim).collect();
        if captions.len() != images.len() {
            return Err(bad(file, format!("{} captions for {} pictures", captions.len(), images.len())));
        }
        for (image, caption) in images.iter().zip(captions) {
            found.captions(&language, image, [caption.to_owned()]);
        }
    }
    let mut found = found.finish()?;
    if options.name.is_none() {
        found.iter_mut().for_each(|dataset| dataset.name = super::name_of(path));
    }
    Ok(found)
}
