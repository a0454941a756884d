//! A model made better at what somebody's photos show, from a few of them.
//!
//! Only the last map of the image tower is learnt anew, pulled towards the one that it was (ProLIP: Fahes et al., "CLIP's Visual
//! Embedding Projector is a Few-shot Cornucopia", arXiv 2410.05270). Adapters beside the tower would change what a vector is; this
//! leaves text vectors and every query as they are, is learnt in seconds, and a library whose features are kept moves over without
//! its photos. Where a tower ends with no such map, or if asked for ([`Encoder::without_features`]), the map begins as the identity on
//! embeddings: the paper's regularised linear adapter.

mod fit;

use std::collections::HashMap;

pub use fit::FitOptions;

use crate::eval::learn::draw;
use crate::eval::metrics::{accuracy, recall};
use crate::eval::{BadSample, Dataset, Embedder, Truth, Work, bad};
use crate::model::Head;
use crate::{Embeddings, Encode, Encoder, Result};

/// Learns heads for one encoder from any number of datasets, or choices of shots; a picture is read once.
pub struct Adapter<'a> {
    embedder: Embedder<'a>,
    options: FitOptions,
}

/// A head, and what it is worth.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Adapted {
    /// The new last map.
    pub head: Head,
    /// Pictures that it was learnt from.
    pub learnt: usize,
    /// Classes, or captions.
    pub classes: usize,
    /// What it does to pictures that it was not learnt from, if any are left.
    pub held_out: Option<HeldOut>,
    /// Pictures that could not be read.
    pub skipped: Vec<BadSample>,
}

/// A measure on pictures that nothing was learnt from.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct HeldOut {
    /// `acc1` for classes, `image_retrieval_recall@5` for captions.
    pub metric: &'static str,
    /// How many pictures.
    pub pictures: usize,
    /// With the present map.
    pub before: f64,
    /// With the new one.
    pub after: f64,
}

impl<'a> Adapter<'a> {
    /// For the last map of an encoder.
    pub fn new(encoder: Encoder) -> Self {
        Self { embedder: Embedder::of_features(encoder), options: FitOptions::default() }
    }

    /// How to learn.
    pub fn options(mut self, options: FitOptions) -> Self {
        self.options = options;
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

    /// Learns from `shots` pictures of each class, drawn by `seed`, or as many pictures with captions; from all without. Costs an
    /// embedding of every picture, once, and a few seconds for each head.
    ///
    /// # Errors
    /// [`Error::BadCollection`](crate::Error::BadCollection) if the dataset has neither classes nor captions, or fewer pictures than
    /// asked for; errors of the encoder.
    pub fn run(&mut self, dataset: &Dataset, shots: Option<usize>, seed: u64) -> Result<Adapted> {
        let mut skipped = dataset.bad.clone();
        let images = self.embedder.pictures(&dataset.pictures, &mut skipped)?;
        let encoder = self.embedder.encoder.clone();
        let count = images.vectors.rows().len();
        let few = |labels: &[usize], classes: usize, what: &str| match shots {
            None => Ok(((0..labels.len()).collect(), Vec::new())),
            Some(shots) => draw(labels, classes, shots, seed)
                .ok_or_else(|| bad(&dataset.path, format!("fewer than {shots} pictures {what}"))),
        };
        match &dataset.truth {
            Truth::Classes { prompts, labels } => {
                let texts = prompts.embed(&encoder, |done, all| self.embedder.at(Work::Texts(done, all)))?;
                let rows = labels.iter().zip(&images.rows).filter(|(_, row)| row.is_some());
                let labels: Vec<usize> = rows.map(|(label, _)| *label).collect();
                let (taken, rest) = few(&labels, prompts.classes.len(), "of one of the classes")?;
                let samples = picked(&images.vectors, &labels, &taken);
                let head = self.fit(&samples, &texts, shots)?;
                let (features, labels) = picked(&images.vectors, &labels, &rest);
                let measure = |head: &Head| Ok(accuracy(&head.project(features.as_slice())?, &texts, &labels)?.acc1);
                let held_out = held_out("acc1", labels.len(), &*encoder.head()?, &head, measure)?;
                Ok(Adapted { head, learnt: taken.len(), classes: prompts.classes.len(), held_out, skipped })
            }
            Truth::Captions(captions) => {
                let (taken, rest) = few(&vec![0; count], 1, "with captions")?;
                let kept = captions.iter().filter_map(|(picture, text)| Some((images.rows[*picture]?, text.as_str())));
                let is_rest: Vec<bool> = {
                    let mut is = vec![false; count];
                    rest.iter().for_each(|&row| is[row] = true);
                    is
                };
                let (tests, learnt): (Vec<_>, Vec<_>) = kept.partition(|(row, _)| is_rest[*row]);
                // Equal captions are one class.
                let (mut numbers, mut sentences) = (HashMap::new(), Vec::new());
                let mut number = |text| {
                    *numbers.entry(text).or_insert_with(|| {
                        sentences.push(text);
                        sentences.len() - 1
                    })
                };
                let (rows, labels): (Vec<usize>, Vec<usize>) =
                    learnt.iter().map(|(row, text)| (*row, number(*text))).unzip();
                let texts = self.embedder.texts(&sentences)?;
                let samples = (picked(&images.vectors, &vec![0; count], &rows).0, labels);
                let head = self.fit(&samples, &texts, shots)?;
                let (rows, sentences_left): (Vec<usize>, Vec<&str>) = tests.into_iter().unzip();
                let texts = self.embedder.texts(&sentences_left)?;
                let (features, _) = picked(&images.vectors, &vec![0; count], &rest);
                let image_of: Vec<usize> = rows.iter().map(|row| rest.binary_search(row).unwrap_or_default()).collect();
                let measure = |head: &Head| {
                    let images = head.project(features.as_slice())?;
                    Ok(recall(&texts, &images, &[5], |text, image| image_of[text] == image)?[0])
                };
                let held_out = held_out("image_retrieval_recall@5", rest.len(), &*encoder.head()?, &head, measure)?;
                Ok(Adapted { head, learnt: taken.len(), classes: sentences.len(), held_out, skipped })
            }
            _ => Err(bad(&dataset.path, "neither a folder per class nor pictures with captions")),
        }
    }

    fn fit(
        &mut self,
        (features, labels): &(Embeddings, Vec<usize>),
        texts: &Embeddings,
        shots: Option<usize>,
    ) -> Result<Head> {
        let (head, options) = (self.embedder.encoder.head()?, self.options.clone());
        // The more there is to learn from, the less the old map is held on to: a pull of 1 / N.
        let shots = shots.unwrap_or_else(|| (labels.len() / texts.rows().len().max(1)).max(1));
        let embedder = &mut self.embedder;
        fit::fit(&head, features, labels, texts, shots, &options, |done, all| embedder.at(Work::Rounds(done, all)))
    }
}

/// Nothing is measured where nothing is left.
fn held_out(
    metric: &'static str,
    pictures: usize,
    old: &Head,
    new: &Head,
    measure: impl Fn(&Head) -> Result<f64>,
) -> Result<Option<HeldOut>> {
    if pictures == 0 {
        return Ok(None);
    }
    Ok(Some(HeldOut { metric, pictures, before: measure(old)?, after: measure(new)? }))
}

fn picked(vectors: &Embeddings, labels: &[usize], rows: &[usize]) -> (Embeddings, Vec<usize>) {
    let dim = vectors.dim();
    let numbers = rows.iter().flat_map(|&row| &vectors.as_slice()[row * dim..][..dim]).copied().collect();
    (Embeddings::new(dim, numbers), rows.iter().map(|&row| labels[row]).collect())
}
