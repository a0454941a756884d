//! One task on one dataset, and its result.

use std::fmt;

use serde_json::{Map, Value, json};

use super::dataset::{Dataset, Picture, Truth, bad};
use super::embed::{BadSample, Embedder, Pictures, Work};
use super::learn::draw;
use super::metrics::{Accuracy, accuracy, mean_average_precision, recall, selection};
use super::probe::{Probe, ProbeOptions};
use super::prompts::Prompts;
use crate::{Embeddings, Encode, Encoder, Result};

/// What is measured; named as CLIP_benchmark names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Task {
    /// Pictures are named by prompts alone: `zeroshot_classification`.
    ZeroShotClassification,
    /// Captions find their pictures, and pictures their captions: `zeroshot_retrieval`.
    ZeroShotRetrieval,
    /// Pictures are named by what was learnt from others: `linear_probe`.
    LinearProbe,
    /// Captions that differ in little are told apart: `image_caption_selection`.
    CaptionSelection,
}

impl Task {
    /// All of them.
    pub const ALL: [Task; 4] =
        [Task::ZeroShotClassification, Task::ZeroShotRetrieval, Task::LinearProbe, Task::CaptionSelection];

    /// CLIP_benchmark's name.
    pub fn name(self) -> &'static str {
        match self {
            Task::ZeroShotClassification => "zeroshot_classification",
            Task::ZeroShotRetrieval => "zeroshot_retrieval",
            Task::LinearProbe => "linear_probe",
            Task::CaptionSelection => "image_caption_selection",
        }
    }

    /// What a dataset is made for.
    pub fn of(dataset: &Dataset) -> Task {
        match dataset.truth {
            Truth::Classes { .. } | Truth::Multilabel { .. } => Task::ZeroShotClassification,
            Truth::Captions(_) => Task::ZeroShotRetrieval,
            Truth::Groups(_) => Task::CaptionSelection,
        }
    }
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What was measured.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Evaluation {
    /// The dataset's name.
    pub dataset: String,
    /// The model's name, as open_clip has it where it is known there.
    pub model: String,
    /// Which weights: open_clip's tag.
    pub pretrained: String,
    /// The task.
    pub task: Task,
    /// Language of captions or class names.
    pub language: String,
    /// Measures by CLIP_benchmark's name; shares are between 0 and 1.
    pub metrics: Map<String, Value>,
    /// Pictures that were measured with.
    pub pictures: usize,
    /// Captions, or classes.
    pub texts: usize,
    /// What was left out.
    pub skipped: Vec<BadSample>,
}

impl Evaluation {
    /// CLIP_benchmark's result file: `{"dataset", "model", "pretrained", "task", "metrics", "language"}`. `clip_benchmark build`
    /// makes tables of such files. What is no number there is `null` here.
    pub fn to_json(&self) -> Value {
        json!({
            "dataset": self.dataset,
            "model": self.model,
            "pretrained": self.pretrained,
            "task": self.task.name(),
            "metrics": self.metrics,
            "language": self.language,
        })
    }
}

/// Measures one encoder on any number of datasets. A picture that several of them share is embedded once.
pub struct Evaluator<'a> {
    embedder: Embedder<'a>,
    model: String,
    pretrained: String,
    recall_at: Vec<usize>,
    probe: ProbeOptions,
}

impl<'a> Evaluator<'a> {
    /// With the defaults: recall at 1, 5 and 10.
    pub fn new(encoder: Encoder) -> Self {
        let (model, pretrained) = (encoder.space().model.clone(), String::new());
        let (recall_at, probe) = (vec![1, 5, 10], ProbeOptions::default());
        Self { embedder: Embedder::new(encoder), model, pretrained, recall_at, probe }
    }

    /// What results call the model and its weights.
    pub fn called(mut self, model: impl Into<String>, pretrained: impl Into<String>) -> Self {
        (self.model, self.pretrained) = (model.into(), pretrained.into());
        self
    }

    /// Depths of `recall@k`.
    pub fn recall_at(mut self, depths: &[usize]) -> Self {
        self.recall_at = depths.to_vec();
        self
    }

    /// How a linear probe learns.
    pub fn probe(mut self, options: ProbeOptions) -> Self {
        self.probe = options;
        self
    }

    /// Hears how far the work is.
    pub fn on_progress(mut self, progress: impl FnMut(Work) + 'a) -> Self {
        self.embedder.progress = Box::new(progress);
        self
    }

    /// Asked often; `true` ends with [`Error::Cancelled`](crate::Error::Cancelled).
    pub fn cancel(mut self, cancel: impl FnMut() -> bool + 'a) -> Self {
        self.embedder.cancel = Box::new(cancel);
        self
    }

    /// Measures. Costs an embedding of every picture and text; scores are made in blocks, so memory is that of the vectors.
    ///
    /// Samples that cannot be read are left out, with what belongs to them, and named in the result.
    ///
    /// # Errors
    /// [`Error::BadCollection`](crate::Error::BadCollection) if the dataset is not made for the task, or too small for it; errors
    /// of the encoder.
    pub fn run(&mut self, dataset: &Dataset, task: Task) -> Result<Evaluation> {
        let mut skipped = dataset.bad.clone();
        let (metrics, pictures, texts) = match (&dataset.truth, task) {
            (Truth::Classes { prompts, labels }, Task::ZeroShotClassification) => {
                let images = self.embedder.pictures(&dataset.pictures, &mut skipped)?;
                let classes = self.classes(prompts)?;
                let labels: Vec<usize> = kept(labels, &images).copied().collect();
                let metrics = of_accuracy("", accuracy(&images.vectors, &classes, &labels)?);
                (metrics, labels.len(), prompts.classes.len())
            }
            (Truth::Multilabel { prompts, has }, Task::ZeroShotClassification) => {
                let images = self.embedder.pictures(&dataset.pictures, &mut skipped)?;
                let classes = self.classes(prompts)?;
                let has: Vec<Vec<bool>> = kept(has, &images).cloned().collect();
                let precision = mean_average_precision(&images.vectors, &classes, &has)?;
                (map([("mean_average_precision", json!(precision))]), has.len(), prompts.classes.len())
            }
            (Truth::Classes { prompts, labels }, Task::LinearProbe) => {
                let (metrics, tested) = self.learn(dataset, prompts.classes.len(), labels, &mut skipped)?;
                (metrics, tested, prompts.classes.len())
            }
            (Truth::Captions(captions), Task::ZeroShotRetrieval) => {
                let images = self.embedder.pictures(&dataset.pictures, &mut skipped)?;
                let (metrics, texts) = self.retrieve(&images, captions)?;
                (metrics, images.vectors.rows().len(), texts)
            }
            (Truth::Groups(groups), Task::CaptionSelection) => {
                let images = self.embedder.pictures(&dataset.pictures, &mut skipped)?;
                let (metrics, texts) = self.select(&images, groups)?;
                (metrics, images.vectors.rows().len(), texts)
            }
            _ => {
                let reason = format!("made for {}, and {task} was asked for", Task::of(dataset));
                return Err(bad(&dataset.path, reason));
            }
        };
        Ok(Evaluation {
            dataset: dataset.name.clone(),
            model: self.model.clone(),
            pretrained: self.pretrained.clone(),
            task,
            language: dataset.language.clone(),
            metrics,
            pictures,
            texts,
            skipped,
        })
    }

    fn classes(&mut self, prompts: &Prompts) -> Result<Embeddings> {
        let encoder = self.embedder.encoder.clone();
        prompts.embed(&encoder, |done, total| self.embedder.at(Work::Texts(done, total)))
    }

    fn retrieve(&mut self, images: &Pictures, captions: &[(usize, String)]) -> Result<(Map<String, Value>, usize)> {
        let kept = captions.iter().filter_map(|(picture, caption)| Some((images.rows[*picture]?, caption.as_str())));
        let (image_of, texts): (Vec<usize>, Vec<&str>) = kept.unzip();
        let texts = self.embedder.texts(&texts)?;
        let ks = &self.recall_at;
        let of_images = recall(&texts, &images.vectors, ks, |text, image| image_of[text] == image)?;
        let of_texts = recall(&images.vectors, &texts, ks, |image, text| image_of[text] == image)?;
        let mut metrics = Map::new();
        for ((k, image), text) in ks.iter().zip(of_images).zip(of_texts) {
            metrics.insert(format!("image_retrieval_recall@{k}"), json!(image));
            metrics.insert(format!("text_retrieval_recall@{k}"), json!(text));
        }
        Ok((metrics, image_of.len()))
    }

    fn select(
        &mut self,
        images: &Pictures,
        groups: &[(Vec<usize>, Vec<String>)],
    ) -> Result<(Map<String, Value>, usize)> {
        let rows =
            |pictures: &[usize]| pictures.iter().map(|&picture| images.rows[picture]).collect::<Option<Vec<_>>>();
        let groups: Vec<(Vec<usize>, &[String])> =
            groups.iter().filter_map(|(pictures, texts)| Some((rows(pictures)?, texts.as_slice()))).collect();
        let texts: Vec<&str> = groups.iter().flat_map(|(_, texts)| texts.iter()).map(String::as_str).collect();
        let vectors = self.embedder.texts(&texts)?;
        let (dim, mut at, mut pairs) = (vectors.dim(), 0, Vec::new());
        for (pictures, texts) in &groups {
            let captions = Embeddings::new(dim, vectors.as_slice()[at * dim..][..texts.len() * dim].to_vec());
            at += texts.len();
            pairs.push((picked(&images.vectors, pictures), captions));
        }
        let found = selection(pairs.iter().map(|(images, texts)| (images, texts)))?;
        let metrics =
            [("image_acc", json!(found.image_acc)), ("text_acc", json!(found.text_acc)), ("acc", json!(found.acc))];
        Ok((map(metrics), texts.len()))
    }

    /// From the split to learn from, or, where there is none, from a few pictures of each class, tested on the others.
    fn learn(
        &mut self,
        dataset: &Dataset,
        classes: usize,
        labels: &[usize],
        skipped: &mut Vec<BadSample>,
    ) -> Result<(Map<String, Value>, usize)> {
        let options = self.probe.clone();
        let few = |labels: &[usize], shots| {
            draw(labels, classes, shots, options.seed).ok_or_else(|| {
                bad(&dataset.path, format!("there are classes with fewer than {shots} pictures to learn from"))
            })
        };
        let images = self.embedder.pictures(&dataset.pictures, skipped)?;
        let labels: Vec<usize> = kept(labels, &images).copied().collect();
        let (train, test) = match (dataset.train.is_empty(), options.shots) {
            (false, shots) => {
                let (pictures, all): (Vec<Picture>, Vec<usize>) = dataset.train.iter().cloned().unzip();
                let learnt = self.embedder.pictures(&pictures, skipped)?;
                let all: Vec<usize> = kept(&all, &learnt).copied().collect();
                let chosen = match shots {
                    Some(shots) => few(&all, shots)?.0,
                    None => (0..all.len()).collect(),
                };
                (sample(&learnt.vectors, &all, &chosen), (images.vectors, labels))
            }
            (true, Some(shots)) => {
                let (shot, rest) = few(&labels, shots)?;
                (sample(&images.vectors, &labels, &shot), sample(&images.vectors, &labels, &rest))
            }
            (true, None) => {
                let reason = "there is no split to learn from (train); a number of shots draws them from what there is";
                return Err(bad(&dataset.path, reason));
            }
        };
        if test.1.is_empty() {
            return Err(bad(&dataset.path, "nothing is left to test with; ask for fewer shots"));
        }
        let embedder = &mut self.embedder;
        let probe =
            Probe::train(&train.0, &train.1, classes, &options, |done, all| embedder.at(Work::Rounds(done, all)))?;
        let mut metrics = of_accuracy("lp_", probe.accuracy(&test.0, &test.1)?);
        metrics.extend(map([
            ("weight_decay", json!(options.weight_decay)),
            ("epochs", json!(options.epochs)),
            ("seed", json!(options.seed)),
            ("fewshot_k", json!(options.shots.map_or(-1, |shots| shots as i64))),
            ("normalized", json!(true)),
        ]));
        Ok((metrics, test.1.len()))
    }
}

/// What belongs to pictures that could be read.
fn kept<'a, T>(list: &'a [T], images: &'a Pictures) -> impl Iterator<Item = &'a T> {
    list.iter().zip(&images.rows).filter(|(_, row)| row.is_some()).map(|(item, _)| item)
}

fn picked(vectors: &Embeddings, rows: &[usize]) -> Embeddings {
    let dim = vectors.dim();
    Embeddings::new(dim, rows.iter().flat_map(|&row| &vectors.as_slice()[row * dim..][..dim]).copied().collect())
}

fn sample(vectors: &Embeddings, labels: &[usize], rows: &[usize]) -> (Embeddings, Vec<usize>) {
    (picked(vectors, rows), rows.iter().map(|&row| labels[row]).collect())
}

fn of_accuracy(prefix: &str, found: Accuracy) -> Map<String, Value> {
    let values = [
        ("acc1", json!(found.acc1)),
        ("acc5", json!(found.acc5)),
        ("mean_per_class_recall", json!(found.mean_per_class_recall)),
    ];
    values.into_iter().map(|(name, value)| (format!("{prefix}{name}"), value)).collect()
}

fn map<const N: usize>(values: [(&str, Value); N]) -> Map<String, Value> {
    values.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}
