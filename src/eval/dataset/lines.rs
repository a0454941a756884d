//! Caption files of one picture a line: JSON lines in every spelling, and Flickr's lists.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::{Dataset, DatasetOptions, Picture, Truth, annotations, bad};
use crate::eval::BadSample;
use crate::{Error, Result};

/// Columns that name the picture.
const FILES: &[&str] =
    &["file", "image", "filename", "file_name", "path", "image_path", "filepath", "img", "image/key"];

/// Columns that hold captions: strings, lists of them, or objects with the text as `raw`.
const TEXTS: &[&str] = &["captions", "caption", "sentences", "text", "texts"];

pub(super) fn open(path: &Path, options: &DatasetOptions) -> Result<Vec<Dataset>> {
    let extension = path.extension().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    let mut found = Collected::new(path, options);
    match extension.as_str() {
        "json" => return annotations::open(path, options),
        "jsonl" | "ndjson" => {
            for (number, line) in read(path)?.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
                match serde_json::from_str(line) {
                    Ok(Value::Object(row)) => found.row(&row, || format!("line {}", number + 1)),
                    Ok(_) => found.trouble(format!("line {}", number + 1), "no JSON object"),
                    Err(error) => found.trouble(format!("line {}", number + 1), format!("no JSON ({error})")),
                }
            }
        }
        // The first line is a header. Captions hold commas, and are not quoted.
        "txt" | "csv" => {
            for (number, line) in read(path)?.lines().enumerate().skip(1) {
                let line = line.trim();
                match line.split_once(".jpg,") {
                    Some((image, caption)) => found.captions("en", &format!("{image}.jpg"), [caption.to_owned()]),
                    None if line.is_empty() => {}
                    None => found.trouble(format!("line {}", number + 1), "expected NAME.jpg,CAPTION"),
                }
            }
        }
        _ => {
            let reason = "no list of captions that is known: expected .jsonl, .json, or Flickr's .txt";
            return Err(bad(path, reason));
        }
    }
    found.finish()
}

pub(super) fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).map_err(Error::io(path))
}

/// Captions on their way to a dataset for each language, in the order in which languages are met.
pub(super) struct Collected<'a> {
    path: &'a Path,
    options: &'a DatasetOptions,
    languages: Vec<(String, Captioned)>,
    groups: Vec<(Vec<usize>, Vec<String>)>,
    grouped: Pictures,
    bad: Vec<BadSample>,
}

/// The captions of one language.
#[derive(Default)]
struct Captioned {
    pictures: Pictures,
    captions: Vec<(usize, String)>,
}

/// Pictures, each once.
#[derive(Default)]
struct Pictures {
    list: Vec<Picture>,
    numbers: HashMap<PathBuf, usize>,
}

impl Pictures {
    fn number(&mut self, path: PathBuf) -> usize {
        *self.numbers.entry(path).or_insert_with_key(|path| {
            self.list.push(Picture::File(path.clone()));
            self.list.len() - 1
        })
    }
}

impl<'a> Collected<'a> {
    pub(super) fn new(path: &'a Path, options: &'a DatasetOptions) -> Self {
        let (languages, groups, bad) = (Vec::new(), Vec::new(), Vec::new());
        Self { path, options, languages, groups, grouped: Pictures::default(), bad }
    }

    /// One object: a picture with captions, in one language or in several, or a group to be told apart.
    pub(super) fn row(&mut self, row: &Map<String, Value>, place: impl Fn() -> String) {
        let string = |name: &str| row.get(name).and_then(Value::as_str).map(str::to_owned);
        let numbered = |name: &str| (0..).map_while(|i| string(&format!("{name}_{i}"))).collect::<Vec<_>>();
        let images = match row.get("images") {
            Some(Value::Array(images)) => images.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
            _ => numbered("image"),
        };
        let file = FILES.iter().find_map(|name| string(name));
        if images.len() > 1 {
            let captions = row.get("captions").map(texts).unwrap_or_else(|| numbered("caption"));
            return self.group(&images, captions, place());
        }
        let Some(file) = file else {
            return self.trouble(place(), format!("no picture: none of {}", FILES.join(", ")));
        };
        if let (Some(right), Some(wrong)) = (string("caption"), string("negative_caption")) {
            return self.group(&[file], vec![right, wrong], place());
        }
        if row.contains_key("image/key") {
            for (language, value) in row {
                // CLIP_benchmark takes the first of Crossmodal-3600's captions.
                if let Some(first) = value.get("caption").and_then(|captions| texts(captions).into_iter().next()) {
                    self.captions(language, &file, [first]);
                }
            }
            return;
        }
        let captions: Vec<String> = TEXTS.iter().find_map(|name| row.get(*name)).map(texts).unwrap_or_default();
        if captions.is_empty() {
            return self.trouble(place(), format!("no caption: none of {}", TEXTS.join(", ")));
        }
        let language = string("language").or_else(|| string("lang")).unwrap_or_else(|| "en".to_owned());
        self.captions(&language, &file, captions);
    }

    /// Captions of one picture.
    pub(super) fn captions(&mut self, language: &str, file: &str, captions: impl IntoIterator<Item = String>) {
        let at = match self.languages.iter().position(|(known, _)| known == language) {
            Some(at) => at,
            None => {
                self.languages.push((language.to_owned(), Captioned::default()));
                self.languages.len() - 1
            }
        };
        match self.find(file) {
            Some(path) => {
                let captioned = &mut self.languages[at].1;
                let number = captioned.pictures.number(path);
                captioned.captions.extend(captions.into_iter().map(|caption| (number, caption)));
            }
            None => self.missing(file),
        }
    }

    fn group(&mut self, files: &[String], captions: Vec<String>, place: String) {
        if captions.len() < 2 {
            return self.trouble(place, "fewer than two captions to tell apart");
        }
        let mut numbers = Vec::new();
        for file in files {
            match self.find(file) {
                Some(path) => numbers.push(self.grouped.number(path)),
                None => return self.missing(file),
            }
        }
        self.groups.push((numbers, captions));
    }

    /// What is wrong with one sample.
    pub(super) fn trouble(&mut self, place: String, reason: impl Into<String>) {
        let path = PathBuf::from(format!("{}, {place}", self.path.display()));
        let reason = reason.into();
        self.bad.push(BadSample { error: bad(self.path, format!("{place}: {reason}")), path });
    }

    fn missing(&mut self, file: &str) {
        let path = PathBuf::from(file);
        // Five captions of a picture that is not there are one line.
        if self.bad.last().is_none_or(|last| last.path != path) {
            let reason = "not there; --images names the folder of the pictures";
            self.bad.push(BadSample { error: bad(&path, reason), path });
        }
    }

    /// The picture called so: in the folder of pictures, beside the captions, or in a folder `images` there; with or without the
    /// folders and the extension of the name.
    fn find(&self, name: &str) -> Option<PathBuf> {
        let beside = self.path.parent().unwrap_or(Path::new("."));
        let folders = match &self.options.images {
            Some(images) => vec![images.clone()],
            None => vec![beside.to_path_buf(), beside.join("images")],
        };
        let last = Path::new(name).file_name().unwrap_or_default().to_string_lossy().into_owned();
        let names =
            [name.to_owned(), last.clone(), format!("{name}.jpg"), format!("{name}.png"), format!("{last}.jpg")];
        names.iter().flat_map(|name| folders.iter().map(move |folder| folder.join(name))).find(|path| path.is_file())
    }

    pub(super) fn finish(self) -> Result<Vec<Dataset>> {
        let Collected { path, options, mut languages, groups, grouped, mut bad } = self;
        if !groups.is_empty() {
            let mut dataset = Dataset::new(path, options, Truth::Groups(groups));
            (dataset.pictures, dataset.bad) = (grouped.list, bad);
            return Ok(vec![dataset]);
        }
        if languages.is_empty() {
            languages.push(("en".to_owned(), Captioned::default()));
        }
        let datasets = languages.into_iter().map(|(language, Captioned { pictures, captions })| {
            let mut dataset = Dataset::new(path, options, Truth::Captions(captions)).in_language(language);
            (dataset.pictures, dataset.bad) = (pictures.list, std::mem::take(&mut bad));
            dataset
        });
        Ok(datasets.collect())
    }
}

/// Captions as a string, a list of strings, or a list of objects with the text as `raw`.
pub(super) fn texts(value: &Value) -> Vec<String> {
    match value {
        Value::String(text) => vec![text.clone()],
        Value::Array(list) => {
            let raw = |value: &Value| value.as_str().or_else(|| value.get("raw")?.as_str()).map(str::to_owned);
            list.iter().filter_map(raw).collect()
        }
        _ => Vec::new(),
    }
}
