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
    /// The same for a dataset that came without any: in English.
    Published(Vec<String>),
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
            (None, None) => Kind::Published(published(dataset)),
        };
        Ok(Prompts { classes, kind })
    }

    /// The prompts of classes whose names are in this language: no name is put into a sentence of another.
    pub(crate) fn in_language(&mut self, language: &str) {
        if language.split(['-', '_']).next() != Some("en") && matches!(self.kind, Kind::Published(_)) {
            self.kind = Kind::Templates(vec!["{c}".to_owned()]);
        }
    }

    /// The sentences of one class.
    fn of(&self, class: usize) -> Vec<String> {
        match &self.kind {
            Kind::Published(templates) | Kind::Templates(templates) => {
                templates.iter().map(|t| t.replace("{c}", &self.classes[class])).collect()
            }
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
        "imagenetv2" | "imagenet_sketch" | "imagenet-a" | "imagenet-r" | "imagenet-o" | "objectnet" => "imagenet1k",
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
    use crate::image::Preprocess;
    use crate::{EmbeddingSpace, PixelBatch};

    #[test]
    fn the_published_prompts_are_there() {
        assert_eq!(published("imagenet1k").len(), 80);
        assert_eq!([published("imagenet-r").len(), published("imagenet-o").len()], [80; 2]);
        assert_eq!(published("cifar10").len(), 18);
        assert_eq!(published("my photos"), [PLAIN]);
        let table: BTreeMap<String, Vec<String>> = serde_json::from_str(PUBLISHED).unwrap();
        assert!(table.values().flatten().all(|template| template.contains("{c}")));
    }

    /// Answers with vectors that are known, brought to length 1.
    struct Known {
        space: EmbeddingSpace,
        rows: BTreeMap<String, Vec<f32>>,
    }

    impl Encode for Known {
        fn space(&self) -> &EmbeddingSpace {
            &self.space
        }

        fn preprocess(&self) -> &Preprocess {
            unreachable!("there are no pictures")
        }

        fn encode_images(&self, _: &PixelBatch) -> Result<Embeddings> {
            unreachable!("there are no pictures")
        }

        fn encode_texts(&self, texts: &[&str]) -> Result<Embeddings> {
            let rows = texts.iter().flat_map(|&text| {
                let row = &self.rows[text];
                let length = row.iter().map(|x| x * x).sum::<f32>().sqrt();
                row.iter().map(move |x| x / length)
            });
            Ok(Embeddings::new(self.space.dim, rows.collect()))
        }
    }

    #[test]
    fn vectors_of_classes_are_those_of_clip_benchmark() {
        let cases: Value = serde_json::from_str(include_str!("../../tests/fixtures/eval/metrics.json")).unwrap();
        for case in cases["classifier"].as_array().unwrap() {
            let rows = |key: &str| serde_json::from_value::<Vec<Vec<f32>>>(case[key].clone()).unwrap();
            let (names, templates) = (strings(&case["names"]).unwrap(), strings(&case["templates"]).unwrap());
            let prompts = Prompts::new(names, "", None, Some(templates)).unwrap();
            let sentences: Vec<String> = (0..prompts.classes.len()).flat_map(|class| prompts.of(class)).collect();
            let rows_of = sentences.into_iter().zip(rows("sentences"));
            let encoder =
                Known { space: EmbeddingSpace::declared("known", rows("sentences")[0].len()), rows: rows_of.collect() };
            let found = prompts.embed(&encoder, |_, _| Ok(())).unwrap();
            assert_eq!(found.rows().len(), rows("vectors").len());
            for (ours, theirs) in found.rows().zip(rows("vectors")) {
                assert!(ours.iter().zip(&theirs).all(|(a, b)| (a - b).abs() < 1e-6), "{ours:?} and {theirs:?}");
            }
        }
    }

    #[test]
    fn names_in_another_language_are_put_into_no_english_sentence() {
        let names = vec!["猫".to_owned()];
        let sentences = |own: Option<&str>, language: &str| {
            let own = own.map(|template| vec![template.to_owned()]);
            let mut prompts = Prompts::new(names.clone(), "imagenet1k", None, own).unwrap();
            prompts.in_language(language);
            prompts.of(0)
        };
        assert_eq!(sentences(None, "zh"), ["猫"]);
        assert_eq!([sentences(None, "en").len(), sentences(None, "en-GB").len()], [80; 2]);
        assert_eq!(sentences(Some("一张{c}的照片"), "zh"), ["一张猫的照片"]);
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
