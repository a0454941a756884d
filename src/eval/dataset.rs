//! Labelled and captioned pictures in one form, whatever the files.
//!
//! [`Dataset::open`] tells the layout by what is there, so that a command line needs no word for it: CLIP_benchmark's webdatasets,
//! a folder per class, and the caption files of Flickr, COCO, XTD10, Crossmodal-3600, SugarCrepe and Winoground. Nothing is
//! decoded here: a picture is a place.

mod annotations;
mod folders;
mod lines;
mod webdataset;

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::prompts::Prompts;
use crate::{Error, Result};

/// What is known of a dataset besides its files. Everything has a default.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct DatasetOptions {
    /// The split to measure on; `test` by default, and `val` where there is no `test`.
    pub split: Option<String>,
    /// The split to learn from; `train` by default. Only a linear probe needs it.
    pub train: Option<String>,
    /// The folder of pictures, where it is not beside the captions.
    pub images: Option<PathBuf>,
    /// What the dataset is called, where its path does not say it: CLIP_benchmark's name, such as `cifar10`, brings the published
    /// prompts and scores.
    pub name: Option<String>,
    /// Names of the classes: one a line; or JSON: a list, or CLIP_benchmark's object of lists by dataset.
    pub class_names: Option<PathBuf>,
    /// Prompts with `{c}` for the class: one a line; or JSON: a list, CLIP_benchmark's object of lists by dataset, or an object of
    /// prompts by class.
    pub templates: Option<PathBuf>,
    /// Languages to take of a multilingual set; all of them if there are none here.
    pub languages: Vec<String>,
}

/// Pictures with what is true of them.
#[derive(Clone, Debug)]
pub struct Dataset {
    pub(crate) path: PathBuf,
    pub(crate) name: String,
    pub(crate) language: String,
    pub(crate) pictures: Vec<Picture>,
    pub(crate) truth: Truth,
    /// Pictures to learn from, with their classes.
    pub(crate) train: Vec<(Picture, usize)>,
    /// Samples that could not be used.
    pub(crate) bad: Vec<super::BadSample>,
}

/// What is true of the pictures of a dataset.
#[derive(Clone, Debug)]
pub(crate) enum Truth {
    /// Each has one class.
    Classes { prompts: Prompts, labels: Vec<usize> },
    /// Each has several classes.
    Multilabel { prompts: Prompts, has: Vec<Vec<bool>> },
    /// Captions, each with its picture.
    Captions(Vec<(usize, String)>),
    /// Pictures and captions to be told apart from each other.
    Groups(Vec<(Vec<usize>, Vec<String>)>),
}

/// Where the bytes of a picture are.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Picture {
    File(PathBuf),
    Member { shard: Arc<Path>, name: String, start: u64, size: u64 },
}

impl Picture {
    pub(crate) fn read(&self) -> Result<Vec<u8>> {
        match self {
            Picture::File(path) => std::fs::read(path).map_err(Error::io(path)),
            Picture::Member { shard, start, size, .. } => {
                let mut file = File::open(shard).map_err(Error::io(shard))?;
                file.seek(SeekFrom::Start(*start)).map_err(Error::io(shard))?;
                let mut bytes = Vec::new();
                file.take(*size).read_to_end(&mut bytes).map_err(Error::io(shard))?;
                Ok(bytes)
            }
        }
    }

    /// For people: `test/0.tar!s0000017.webp`.
    pub(crate) fn place(&self) -> PathBuf {
        match self {
            Picture::File(path) => path.clone(),
            Picture::Member { shard, name, .. } => PathBuf::from(format!("{}!{name}", shard.display())),
        }
    }
}

impl Dataset {
    /// Opens what lies at a path: one dataset, or one for each language.
    ///
    /// Reads all captions and labels, and of pictures nothing but where they are.
    ///
    /// # Errors
    /// [`Error::Io`] and [`Error::BadCollection`], which names the file and says what was expected.
    pub fn open(path: impl AsRef<Path>, options: &DatasetOptions) -> Result<Vec<Dataset>> {
        let path = path.as_ref();
        let metadata = std::fs::metadata(path).map_err(Error::io(path))?;
        let mut found = if metadata.is_dir() { folders::open(path, options)? } else { lines::open(path, options)? };
        if !options.languages.is_empty() {
            let there: Vec<String> = found.iter().map(|dataset| dataset.language.clone()).collect();
            let wanted = |dataset: &Dataset| options.languages.contains(&dataset.language);
            if let Some(missing) = options.languages.iter().find(|language| !there.contains(language)) {
                // A set of one language does not say which: the user does.
                let [only] = &mut found[..] else {
                    return Err(bad(path, format!("no {missing} in it; there are: {}", there.join(", "))));
                };
                only.set_language(missing);
            } else {
                found.retain(wanted);
            }
        }
        match found.iter().find(|dataset| dataset.pictures.is_empty()) {
            Some(empty) => Err(bad(&empty.path, empty.nothing())),
            None => Ok(found),
        }
    }

    /// What it is called: CLIP_benchmark's name for it where that is known.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The language of captions or class names; `en` where nothing says otherwise.
    pub fn language(&self) -> &str {
        &self.language
    }

    /// How many pictures there are.
    pub fn len(&self) -> usize {
        self.pictures.len()
    }

    /// Whether there are no pictures.
    pub fn is_empty(&self) -> bool {
        self.pictures.is_empty()
    }

    /// A dataset of this path, still without pictures.
    fn new(path: &Path, options: &DatasetOptions, truth: Truth) -> Dataset {
        let name = options.name.clone().unwrap_or_else(|| name_of(path));
        let (pictures, train, bad) = (Vec::new(), Vec::new(), Vec::new());
        Dataset { path: path.to_path_buf(), name, language: "en".to_owned(), pictures, truth, train, bad }
    }

    fn in_language(mut self, language: impl AsRef<str>) -> Dataset {
        self.set_language(language.as_ref());
        self
    }

    fn set_language(&mut self, language: &str) {
        self.language = language.to_owned();
        if let Truth::Classes { prompts, .. } | Truth::Multilabel { prompts, .. } = &mut self.truth {
            prompts.in_language(language);
        }
    }

    /// Why there is nothing to measure.
    fn nothing(&self) -> String {
        match self.bad.first() {
            Some(first) => format!(
                "none of {} samples can be used; the first, {}: {}",
                self.bad.len(),
                first.path.display(),
                first.error
            ),
            None => "no pictures in it".to_owned(),
        }
    }
}

/// CLIP_benchmark's name of a dataset, from the name of its folder or file: `wds_vtab-cifar10` is `cifar10`.
fn name_of(path: &Path) -> String {
    let path = path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
    let stem = if path.is_dir() { path.file_name() } else { path.file_stem() };
    let name = stem.unwrap_or_default().to_string_lossy().into_owned();
    let plain = name.strip_prefix("wds_").unwrap_or(&name);
    let plain = plain.strip_prefix("vtab-").unwrap_or(plain);
    for (start, known) in [
        ("flickr30k", "flickr30k"),
        ("dataset_flickr30k", "flickr30k"),
        ("flickr8k", "flickr8k"),
        ("dataset_flickr8k", "flickr8k"),
        ("coco_test_karpathy", "mscoco_captions"),
        ("dataset_coco", "mscoco_captions"),
    ] {
        if plain.starts_with(start) && !plain.starts_with("flickr30k-200") {
            return known.to_owned();
        }
    }
    plain.to_owned()
}

pub(crate) fn bad(path: &Path, reason: impl Into<String>) -> Error {
    Error::BadCollection { path: path.to_path_buf(), reason: reason.into() }
}
