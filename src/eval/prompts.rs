//! Classes as sentences: the prompts with which models are published.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::OnceLock;

use serde_json::Value;

use crate::{Embeddings, Encode, Error, Result};

/// Prompts by dataset, as OpenAI published them for CLIP and CLIP_benchmark keeps them (both MIT).
static PUBLISHED: &str = include_str!("templates.json");

/// Where nothing better is known.
const PLAIN: &str = "a photo of a {c}.";

/// Texts per call of the encoder.
pub(crate) const BATCH: usize = 64;

/// The prompts of every class.
#[derive(Clone, Debug)]
pub(crate) struct Prompts {
    pub(crate) classes: Vec<String>,
    kind: Kind,
}

#[derive(Clone, Debug)]
enum Kind {
    /// `{c}` stands for the class.
    Templates(Vec<String>),
    /// Prompts of each class of their own.
    PerClass(Vec<Vec<String>>),
}

impl Prompts {
    /// The prompts of `dataset`: those of a file, else those that came with it, else the published ones, else a plain sentence.
    pub(crate) fn new(
        classes: Vec<String>,
        dataset: &str,
        file: Option<&Path>,
        own: Option<Vec<String>>,
    ) -> Result<Prompts> {
        let kind = match (file, own.filter(|own| !own.is_empty())) {
            (Some(file), _) => read(file, dataset, &classes)?,
            (None, Some(own)) => Kind::Templates(own),
            (None, None) => Kind::Templates(published(dataset)),
        };
        Ok(Prompts { classes, kind })
    }

    /// The sentences of one class.
    fn of(&self, class: usize) -> Vec<String> {
        match &self.kind {
            Kind::Templates(templates) => templates.iter().map(|t| t.replace("{c}", &self.classes[class])).collect(),
            Kind::PerClass(prompts) => prompts[class].clone(),
        }
    }

    /// One vector per class: the mean of those of its sentences, of length 1 (Radford et al. 2021, §3.1.4).
    pub(crate) fn embed(
        &self,
        encoder: &dyn Encode,
        mut each: impl FnMut(usize, usize) -> Result<()>,
    ) -> Result<Embeddings> {
        let (dim, mut vectors) = (encoder.space().dim, Vec::new());
        for class in 0..self.classes.len() {
            each(class, self.classes.len())?;
            let mut sum = vec![0.0f32; dim];
            for sentences in self.of(class).chunks(BATCH) {
                let sentences: Vec<&str> = sentences.iter().map(String::as_str).collect();
                for row in encoder.encode_texts(&sentences)?.rows() {
                    sum.iter_mut().zip(row).for_each(|(sum, x)| *sum += x);
                }
            }
            let length = sum.iter().map(|x| x * x).sum::<f32>().sqrt().max(1e-12);
            vectors.extend(sum.iter().map(|x| x / length));
        }
        Ok(Embeddings::new(dim, vectors))
    }
}

fn published(dataset: &str) -> Vec<String> {
    static TABLE: OnceLock<BTreeMap<String, Vec<String>>> = OnceLock::new();
    let table = TABLE.get_or_init(|| serde_json::from_str(PUBLISHED).expect("a test reads the table"));
    let name = match dataset {
        "imagenetv2" | "imagenet_sketch" | "imagenet-a" | "imagenet-r" | "objectnet" => "imagenet1k",
        name => name,
    };
    table.get(name).cloned().unwrap_or_else(|| vec![PLAIN.to_owned()])
}

/// Lines of a text, or strings of a JSON file: a list, or the list of this name in an object.
pub(crate) fn names(file: &Path, dataset: &str) -> Result<Vec<String>> {
    let text = std::fs::read_to_string(file).map_err(Error::io(file))?;
    if file.extension().is_none_or(|extension| !extension.eq_ignore_ascii_case("json")) {
        return Ok(text.lines().map(|line| line.trim().to_owned()).collect());
    }
    let value = json(file, &text)?;
    let list = if value.is_object() { value.get(dataset) } else { Some(&value) };
    list.and_then(strings).ok_or_else(|| {
        super::dataset::bad(
            file,
            format!("neither a list of strings nor an object with such a list called {dataset:?}"),
        )
    })
}

fn read(file: &Path, dataset: &str, classes: &[String]) -> Result<Kind> {
    if file.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json")) {
        let value = json(file, &std::fs::read_to_string(file).map_err(Error::io(file))?)?;
        let own = value.get(dataset).filter(|value| value.is_object()).unwrap_or(&value);
        if let Value::Object(by_class) = own
            && by_class.get(dataset).is_none()
        {
            let prompts = classes.iter().map(|class| {
                by_class
                    .get(class)
                    .and_then(strings)
                    .filter(|prompts| !prompts.is_empty())
                    .ok_or_else(|| super::dataset::bad(file, format!("no prompts for the class {class:?}")))
            });
            return Ok(Kind::PerClass(prompts.collect::<Result<_>>()?));
        }
    }
    let templates: Vec<String> = names(file, dataset)?.into_iter().filter(|template| !template.is_empty()).collect();
    match templates.iter().find(|template| !template.contains("{c}")) {
        Some(without) => Err(super::dataset::bad(file, format!("{without:?} has no {{c}} for the class to stand in"))),
        None if templates.is_empty() => Err(super::dataset::bad(file, "there are no templates in it")),
        None => Ok(Kind::Templates(templates)),
    }
}

fn json(file: &Path, text: &str) -> Result<Value> {
    serde_json::from_str(text).map_err(|error| super::dataset::bad(file, format!("no JSON: {error}")))
}

fn strings(value: &Value) -> Option<Vec<String>> {
    value.as_array()?.iter().map(|name| name.as_str().map(str::to_owned)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_prompts_are_there() {
        assert_eq!(published("imagenet1k").len(), 80);
        assert_eq!(published("imagenet-r").len(), 80);
        assert_eq!(published("cifar10").len(), 18);
        assert_eq!(published("my photos"), [PLAIN]);
        let table: BTreeMap<String, Vec<String>> = serde_json::from_str(PUBLISHED).unwrap();
        assert!(table.values().flatten().all(|template| template.contains("{c}")));
    }

    #[test]
    fn files_of_prompts_come_in_every_form() {
        let dir = tempfile::tempdir().unwrap();
        let classes = vec!["cat".to_owned(), "dog".to_owned()];
        let sentences = |name: &str, text: &str| {
            let file = dir.path().join(name);
            std::fs::write(&file, text).unwrap();
            Prompts::new(classes.clone(), "pets", Some(&file), None).map(|prompts| prompts.of(1))
        };
        assert_eq!(sentences("a.txt", "a {c}.\nthe {c}.\n").unwrap(), ["a dog.", "the dog."]);
        assert_eq!(sentences("a.json", r#"["a {c}."]"#).unwrap(), ["a dog."]);
        assert_eq!(sentences("b.json", r#"{"pets": ["one {c}"], "cars": []}"#).unwrap(), ["one dog"]);
        let per_class = r#"{"cat": ["purrs"], "dog": ["barks", "bites"]}"#;
        assert_eq!(sentences("c.json", per_class).unwrap(), ["barks", "bites"]);
        assert_eq!(sentences("d.json", &format!(r#"{{"pets": {per_class}}}"#)).unwrap(), ["barks", "bites"]);
        let error = sentences("e.json", r#"{"cat": ["purrs"]}"#).unwrap_err().to_string();
        assert!(error.contains("\"dog\""), "{error}");
        let error = sentences("f.txt", "a photo\n").unwrap_err().to_string();
        assert!(error.contains("{c}"), "{error}");
    }
}
