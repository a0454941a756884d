//! The new last map: least cross-entropy of classes by cosine, and least distance from the old map.

use candle_core::{Device, Result as TensorResult, Tensor};

use crate::eval::learn::{Adam, softmax};
use crate::model::Head;
use crate::{Embeddings, Error, Result};

/// How a head is learnt. The defaults were set beforehand; `docs/adapt.md` says what was tried beside them.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct FitOptions {
    /// What cosines are multiplied by before the softmax.
    pub scale: f32,
    /// Pull towards the old map, for one shot of each class: `pull / shots` times the squared distance, relative to the old map.
    pub pull: f32,
    /// Step size at the beginning, relative to the old weights.
    pub rate: f32,
    /// Steps, each over all pictures.
    pub steps: usize,
}

impl Default for FitOptions {
    fn default() -> Self {
        Self { scale: 30.0, pull: 10.0, rate: 0.02, steps: 200 }
    }
}

/// Learns a map of the form of `old`: full-batch Adam with a cosine schedule on
/// `cross-entropy(scale · cos(W x + b, texts)) + pull / shots · |W - W0|² / |W0|²`.
pub(super) fn fit(
    old: &Head,
    features: &Embeddings,
    labels: &[usize],
    texts: &Embeddings,
    shots: usize,
    options: &FitOptions,
    mut round: impl FnMut(usize, usize) -> Result<()>,
) -> Result<Head> {
    let tensor = |error: candle_core::Error| Error::Tensor(Box::new(error));
    let (count, width, dim, classes) = (labels.len(), old.inputs(), old.outputs(), texts.rows().len());
    if count == 0 {
        return Ok(old.clone());
    }
    let norm = old.weights().iter().map(|x| x * x).sum::<f32>().max(1e-12);
    let (pull, typical) = (options.pull / shots as f32 / norm, (norm / old.weights().len() as f32).sqrt());
    // The identity is nearly all zeros; its few ones say what a weight is like.
    let typical = typical.max(1e-6);
    let x = Tensor::from_slice(features.as_slice(), (count, width), &Device::Cpu).map_err(tensor)?; // (count, width)
    let t = Tensor::from_slice(texts.as_slice(), (classes, dim), &Device::Cpu).map_err(tensor)?; // (classes, dim)
    let t_across = t.t().and_then(|t| t.contiguous()).map_err(tensor)?; // (dim, classes)
    let mut adam = Adam::new(old.weights().to_vec());
    for step in 0..options.steps {
        round(step, options.steps)?;
        let z = product(&x, &adam.values, dim).map_err(tensor)?; // (count · dim)
        let (mut e, mut lengths) = (z, Vec::with_capacity(count));
        for row in e.chunks_exact_mut(dim) {
            row.iter_mut().zip(old.bias()).for_each(|(x, bias)| *x += bias);
            let length = row.iter().map(|x| x * x).sum::<f32>().sqrt().max(1e-12);
            row.iter_mut().for_each(|x| *x /= length);
            lengths.push(length);
        }
        let embedded = Tensor::from_slice(&e, (count, dim), &Device::Cpu).map_err(tensor)?; // (count, dim)
        let logits = embedded.matmul(&t_across).and_then(|logits| logits.flatten_all()?.to_vec1::<f32>());
        let mut slopes = logits.map_err(tensor)?; // (count · classes)
        for (row, &label) in slopes.chunks_exact_mut(classes).zip(labels) {
            row.iter_mut().for_each(|x| *x *= options.scale);
            softmax(row);
            row[label] -= 1.0;
            row.iter_mut().for_each(|x| *x *= options.scale / count as f32);
        }
        let slopes = Tensor::from_vec(slopes, (count, classes), &Device::Cpu).map_err(tensor)?;
        let of_e = slopes.matmul(&t).and_then(|g| g.flatten_all()?.to_vec1::<f32>());
        let mut of_z = of_e.map_err(tensor)?; // (count · dim)
        // Through the normalisation: what points along the embedding changes nothing.
        for ((g, e), length) in of_z.chunks_exact_mut(dim).zip(e.chunks_exact(dim)).zip(&lengths) {
            let along: f32 = g.iter().zip(e).map(|(g, e)| g * e).sum();
            g.iter_mut().zip(e).for_each(|(g, e)| *g = (*g - along * e) / length);
        }
        let of_z = Tensor::from_vec(of_z, (count, dim), &Device::Cpu).map_err(tensor)?;
        let of_w = of_z.t().and_then(|g| g.contiguous()?.matmul(&x)?.flatten_all()?.to_vec1::<f32>()); // (dim · width)
        let mut of_w = of_w.map_err(tensor)?;
        for ((slope, now), old) in of_w.iter_mut().zip(&adam.values).zip(old.weights()) {
            *slope += 2.0 * pull * (now - old);
        }
        let rate = 0.5 * (1.0 + (std::f64::consts::PI * step as f64 / options.steps as f64).cos()) as f32;
        adam.step(&of_w, rate * options.rate * typical, 0.0);
    }
    Ok(Head::new(width, adam.values, old.bias().to_vec()))
}

/// `x · wᵀ`, row by row.
fn product(x: &Tensor, weights: &[f32], dim: usize) -> TensorResult<Vec<f32>> {
    let weights = Tensor::from_slice(weights, (dim, weights.len() / dim), &Device::Cpu)?;
    x.matmul(&weights.t()?.contiguous()?)?.flatten_all()?.to_vec1()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Features that a turned map would tell apart, and one that does not.
    #[test]
    fn a_few_samples_turn_the_map_and_the_pull_holds_it() {
        let texts = Embeddings::new(4, vec![1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0]);
        let sample = |class: usize, n: usize| {
            let mut x = vec![0.3, 0.3, 0.0, 0.0, 0.0, 0.05 * n as f32];
            x[2 + class] = 1.0;
            x
        };
        let labels: Vec<usize> = (0..8).map(|i| i % 2).collect();
        let features = Embeddings::new(6, labels.iter().enumerate().flat_map(|(n, &l)| sample(l, n)).collect());
        let weights: Vec<f32> = (0..24).map(|i| if i % 7 == 0 { 1.0 } else { 0.0 }).collect();
        let old = Head::new(6, weights, vec![0.0; 4]);
        let fitted = |pull: f32| {
            let options = FitOptions { pull, ..FitOptions::default() };
            fit(&old, &features, &labels, &texts, 4, &options, |_, _| Ok(())).unwrap()
        };
        let distance =
            |head: &Head| head.weights().iter().zip(old.weights()).map(|(a, b)| (a - b) * (a - b)).sum::<f32>().sqrt();
        let right = |head: &Head| {
            let rows = head.project(features.as_slice()).unwrap();
            rows.rows().zip(&labels).filter(|(row, label)| (row[0] < row[1]) == (**label == 1)).count()
        };
        let (free, held) = (fitted(0.1), fitted(1e6));
        assert_eq!(right(&free), 8);
        assert!(right(&old) < 8);
        assert!(distance(&free) > 10.0 * distance(&held), "{} {}", distance(&free), distance(&held));
        let empty = Embeddings::new(6, Vec::new());
        assert_eq!(fit(&old, &empty, &[], &texts, 1, &FitOptions::default(), |_, _| Ok(())).unwrap(), old);
    }
}
