//! From the pictures and texts of a dataset to vectors, each once.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

use rayon::prelude::*;

use super::dataset::Picture;
use super::prompts::BATCH as TEXTS;
use crate::image::{DecodeOptions, Photo, Preprocess};
use crate::model::PixelBatch;
use crate::{Embeddings, Encode, Encoder, Error, Result};

/// Pictures that are decoded, and then encoded, together.
const BATCH: usize = 64;

/// A sample that could not be used.
#[derive(Debug)]
#[non_exhaustive]
pub struct BadSample {
    /// Its picture, or its place in a list.
    pub path: PathBuf,
    /// What is wrong with it.
    pub error: Error,
}

/// For a copy of a dataset. The source of the error is a thing of its own and becomes part of the words.
impl Clone for BadSample {
    fn clone(&self) -> Self {
        let error = Error::BadCollection { path: self.path.clone(), reason: self.error.to_string() };
        Self { path: self.path.clone(), error }
    }
}

/// How far an evaluation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Work {
    /// So many pictures are encoded, of so many.
    Pictures(usize, usize),
    /// So many texts, or classes with all their prompts.
    Texts(usize, usize),
    /// So many rounds over what is learnt from.
    Rounds(usize, usize),
}

/// An encoder that remembers pictures.
pub(crate) struct Embedder<'a> {
    pub(crate) encoder: Encoder,
    pub(crate) progress: Box<dyn FnMut(Work) + 'a>,
    pub(crate) cancel: Box<dyn FnMut() -> bool + 'a>,
    /// Features instead of embeddings.
    features: bool,
    /// None for those that cannot be read.
    seen: HashMap<Picture, Option<Vec<f32>>>,
}

/// Vectors of pictures, without those that cannot be read.
pub(crate) struct Pictures {
    pub(crate) vectors: Embeddings,
    /// The row of each picture.
    pub(crate) rows: Vec<Option<usize>>,
}

impl<'a> Embedder<'a> {
    pub(crate) fn new(encoder: Encoder) -> Self {
        let (progress, cancel) = (Box::new(|_| {}), Box::new(|| false));
        Self { encoder, progress, cancel, features: false, seen: HashMap::new() }
    }

    /// One that has what comes before the last map.
    pub(crate) fn of_features(encoder: Encoder) -> Self {
        Self { features: true, ..Self::new(encoder) }
    }

    /// Numbers per picture.
    fn width(&self) -> usize {
        if self.features { self.encoder.features().width } else { self.encoder.space().dim }
    }

    /// Says how far the work is, and hears whether it goes on.
    pub(crate) fn at(&mut self, work: Work) -> Result<()> {
        (self.progress)(work);
        if (self.cancel)() { Err(Error::Cancelled) } else { Ok(()) }
    }

    pub(crate) fn pictures(&mut self, pictures: &[Picture], bad: &mut Vec<BadSample>) -> Result<Pictures> {
        let preprocess = self.encoder.preprocess().clone();
        let new: Vec<&Picture> = pictures.iter().filter(|picture| !self.seen.contains_key(*picture)).collect();
        let mut batch = PixelBatch::new(preprocess.size.0, preprocess.size.1);
        for (number, part) in new.chunks(BATCH).enumerate() {
            self.at(Work::Pictures(number * BATCH, new.len()))?;
            let pixels: Vec<Result<Vec<u8>>> = part.par_iter().map(|picture| pixels(picture, &preprocess)).collect();
            batch.clear();
            pixels.iter().flatten().for_each(|pixels| batch.push(pixels));
            let vectors = match self.features {
                true => self.encoder.encode_features(&batch)?,
                false => self.encoder.encode_images(&batch)?,
            };
            let mut vectors = vectors.rows();
            for (picture, pixels) in part.iter().zip(pixels) {
                let vector = match pixels {
                    Ok(_) => vectors.next().map(<[f32]>::to_vec),
                    Err(error) => {
                        bad.push(BadSample { path: picture.place(), error });
                        None
                    }
                };
                self.seen.insert((*picture).clone(), vector);
            }
        }
        let (mut data, mut rows, mut count) = (Vec::new(), Vec::new(), 0);
        for picture in pictures {
            let vector = self.seen.get(picture).and_then(Option::as_deref);
            rows.push(vector.map(|vector| {
                data.extend_from_slice(vector);
                count += 1;
                count - 1
            }));
        }
        if count == 0 && !pictures.is_empty() {
            // Nothing to measure: the first reason is the one to read.
            return Err(bad.pop().map_or(Error::Cancelled, |sample| sample.error));
        }
        Ok(Pictures { vectors: Embeddings::new(self.width(), data), rows })
    }

    pub(crate) fn texts(&mut self, texts: &[&str]) -> Result<Embeddings> {
        let mut data = Vec::new();
        for (number, part) in texts.chunks(TEXTS).enumerate() {
            self.at(Work::Texts(number * TEXTS, texts.len()))?;
            data.extend_from_slice(self.encoder.encode_texts(part)?.as_slice());
        }
        Ok(Embeddings::new(self.encoder.space().dim, data))
    }
}

/// What the model sees of a picture, as its training code prepared it.
fn pixels(picture: &Picture, preprocess: &Preprocess) -> Result<Vec<u8>> {
    let bytes = picture.read()?;
    let options = DecodeOptions { orient: false, clip_deep: true, ..DecodeOptions::default() };
    // Decoders are other people's code: a panic there is one bad picture.
    let decoded = catch_unwind(AssertUnwindSafe(|| preprocess.apply(&Photo::decode(&bytes, &options)?)));
    decoded.map_err(|_| Error::BadImage { reason: "its decoder gave up".to_owned() }).flatten()
}
