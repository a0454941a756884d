//! The measures of CLIP_benchmark, equal to its functions: `tests/eval.rs` compares them, ties included.
//!
//! They take vectors, not scores: a matrix of 25,000 captions and 5,000 pictures would be half a gigabyte. Scores are made a block
//! of rows at a time.

use candle_core::{Device, Tensor};

use super::topk::{TopK, sorted};
use crate::error::Error;
use crate::{Embeddings, Result};

/// Rows of scores that are in memory at a time.
const BLOCK: usize = 256;

/// Inner products of all `rows` with all `columns`, handed over row by row.
fn scores(rows: &Embeddings, columns: &Embeddings, mut each: impl FnMut(usize, &[f32])) -> Result<()> {
    let tensor = |error| Error::Tensor(Box::new(error));
    let (dim, count) = (columns.dim(), columns.rows().len());
    if count == 0 {
        return Ok(());
    }
    // (dim, columns)
    let columns = Tensor::from_slice(columns.as_slice(), (count, dim), &Device::Cpu).and_then(|c| c.t());
    let columns = columns.and_then(|c| c.contiguous()).map_err(tensor)?;
    for (block, part) in rows.as_slice().chunks(BLOCK * dim).enumerate() {
        let part = Tensor::from_slice(part, (part.len() / dim, dim), &Device::Cpu); // (block, dim)
        let product = part.and_then(|part| part.matmul(&columns)).and_then(|product| product.flatten_all());
        let product: Vec<f32> = product.and_then(|product| product.to_vec1()).map_err(tensor)?; // (block · columns)
        for (i, row) in product.chunks_exact(count).enumerate() {
            each(block * BLOCK + i, row);
        }
    }
    Ok(())
}

/// The share of rows that have at least one relevant column among their `k` best, for each `k`.
///
/// With texts as rows and pictures as columns this is `image_retrieval_recall@k`, with the two exchanged `text_retrieval_recall@k`.
///
/// # Errors
/// [`Error::Tensor`] if the two have vectors of different length.
pub fn recall(
    rows: &Embeddings,
    columns: &Embeddings,
    ks: &[usize],
    relevant: impl Fn(usize, usize) -> bool,
) -> Result<Vec<f64>> {
    let (mut hits, mut top) = (vec![0usize; ks.len()], TopK::default());
    scores(rows, columns, |row, scores| {
        for (hits, &k) in hits.iter_mut().zip(ks) {
            *hits += usize::from(top.of(scores, k).any(|column| relevant(row, column)));
        }
    })?;
    Ok(hits.into_iter().map(|hits| share(hits, rows.rows().len())).collect())
}

/// How well pictures are named.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Accuracy {
    /// Share of pictures whose class has the highest score.
    pub acc1: f64,
    /// Share of pictures whose class is among the five highest; none if there are fewer than five classes.
    pub acc5: Option<f64>,
    /// `acc1` of each class that has pictures, averaged over those classes.
    pub mean_per_class_recall: f64,
}

/// Compares pictures with the vectors of classes; `labels` holds the class of each picture.
///
/// # Errors
/// [`Error::Tensor`] if the two have vectors of different length, or there is not one of the classes for each picture.
pub fn accuracy(images: &Embeddings, classes: &Embeddings, labels: &[usize]) -> Result<Accuracy> {
    let (pictures, count) = (images.rows().len(), classes.rows().len());
    if labels.len() != pictures || labels.iter().any(|&label| label >= count) {
        let reason = format!("{} labels for {pictures} pictures and {count} classes", labels.len());
        return Err(Error::Tensor(reason.into()));
    }
    accuracy_of(classes.rows().len(), labels, |each| scores(images, classes, each))
}

/// The same of scores that are there, one row for each picture.
pub(super) fn accuracy_of(
    classes: usize,
    labels: &[usize],
    rows: impl FnOnce(&mut dyn FnMut(usize, &[f32])) -> Result<()>,
) -> Result<Accuracy> {
    let (mut first, mut five, mut top) = (0, 0, TopK::default());
    let mut per_class = vec![(0usize, 0usize); classes]; // right, all
    rows(&mut |picture, scores| {
        let label = labels[picture];
        let k = if classes >= 5 { 5 } else { 1 };
        for (rank, class) in top.of(scores, k).enumerate() {
            first += usize::from(rank == 0 && class == label);
            five += usize::from(class == label);
        }
        per_class[label].1 += 1;
        per_class[label].0 += usize::from(first_of_largest(scores) == label);
    })?;
    let recalls: Vec<f64> =
        per_class.iter().filter(|(_, all)| *all > 0).map(|&(right, all)| share(right, all)).collect();
    Ok(Accuracy {
        acc1: share(first, labels.len()),
        acc5: (classes >= 5).then(|| share(five, labels.len())),
        mean_per_class_recall: recalls.iter().sum::<f64>() / recalls.len().max(1) as f64,
    })
}

/// The mean over classes of the average precision with which pictures are found by the vector of a class, where pictures have
/// several classes: `has[picture][class]`. A class without pictures counts as 0.
///
/// # Errors
/// [`Error::Tensor`] if the two have vectors of different length, or `has` is no such table.
pub fn mean_average_precision(images: &Embeddings, classes: &Embeddings, has: &[Vec<bool>]) -> Result<f64> {
    let (pictures, count) = (images.rows().len(), classes.rows().len());
    if has.len() != pictures || has.iter().any(|row| row.len() != count) {
        return Err(Error::Tensor(format!("no table of {pictures} pictures and {count} classes").into()));
    }
    let mut sum = 0.0;
    scores(classes, images, |class, scores| {
        let (mut found, mut precisions) = (0usize, 0.0);
        for (rank, picture) in sorted(scores).into_iter().enumerate() {
            if has[picture][class] {
                found += 1;
                precisions += share(found, rank + 1);
            }
        }
        sum += precisions / found.max(1) as f64;
    })?;
    Ok(sum / classes.rows().len().max(1) as f64)
}

/// How often pictures and captions that differ in little find each other.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Selection {
    /// Share of groups in which every caption finds its picture. Winoground calls it the image score; it is 1 where there is one
    /// picture.
    pub image_acc: f64,
    /// Share of groups in which every picture finds its caption: Winoground's text score, SugarCrepe's accuracy.
    pub text_acc: f64,
    /// Share of groups in which both is so: Winoground's group score.
    pub acc: f64,
}

/// Compares the pictures and the captions of each group. The first caption belongs to the first picture, and so on; what is left
/// over of the longer list belongs to none.
///
/// # Errors
/// [`Error::Tensor`] if the two have vectors of different length.
pub fn selection<'a>(groups: impl IntoIterator<Item = (&'a Embeddings, &'a Embeddings)>) -> Result<Selection> {
    let (mut image, mut text, mut both, mut all) = (0, 0, 0, 0);
    for (images, texts) in groups {
        let pairs = images.rows().len().min(texts.rows().len());
        let finds = |rows: &Embeddings, columns: &Embeddings| {
            let mut right = true;
            scores(rows, columns, |row, scores| right &= row >= pairs || first_of_largest(scores) == row)
                .map(|()| right)
        };
        let (of_text, of_image) = (finds(texts, images)?, finds(images, texts)?);
        image += usize::from(of_text);
        text += usize::from(of_image);
        both += usize::from(of_text && of_image);
        all += 1;
    }
    Ok(Selection { image_acc: share(image, all), text_acc: share(text, all), acc: share(both, all) })
}

fn first_of_largest(scores: &[f32]) -> usize {
    let largest = |best: usize, (i, &score): (usize, &f32)| if score > scores[best] { i } else { best };
    scores.iter().enumerate().fold(0, largest)
}

fn share(part: usize, all: usize) -> f64 {
    part as f64 / all.max(1) as f64
}
