//! A linear probe: logistic regression on vectors of pictures, from all that there is to learn from or from a few of each class.
//!
//! CLIP_benchmark's recipe: AdamW at 0.1 with a cosine schedule, ten rounds in batches of 64, weights of a fresh `Linear`. Its
//! random numbers are torch's and ours are not, so figures agree within the spread of seeds and not to the digit.

use candle_core::{Device, Tensor};

use super::learn::{Adam, Random, softmax};
use super::metrics::{Accuracy, accuracy_of};
use crate::{Embeddings, Error, Result};

/// How to learn.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ProbeOptions {
    /// Pictures of each class to learn from; all of them if none.
    pub shots: Option<usize>,
    /// Rounds over them.
    pub epochs: usize,
    /// Step size at the beginning.
    pub learning_rate: f32,
    /// Pull of the weights towards 0.
    pub weight_decay: f32,
    /// Which pictures are drawn, and where the weights begin.
    pub seed: u64,
}

impl Default for ProbeOptions {
    fn default() -> Self {
        Self { shots: None, epochs: 10, learning_rate: 0.1, weight_decay: 0.0, seed: 0 }
    }
}

/// Pictures per step.
const BATCH: usize = 64;

/// One layer: `(classes, width)` and a bias.
pub(super) struct Probe {
    weights: Vec<f32>,
    bias: Vec<f32>,
    width: usize,
}

impl Probe {
    pub(super) fn train(
        features: &Embeddings,
        labels: &[usize],
        classes: usize,
        options: &ProbeOptions,
        mut round: impl FnMut(usize, usize) -> Result<()>,
    ) -> Result<Probe> {
        let (width, count) = (features.dim(), labels.len());
        let mut random = Random::new(options.seed ^ 0x70_726f_6265);
        let bound = 1.0 / (width as f32).sqrt();
        let mut draw = |n: usize| (0..n).map(|_| random.uniform() * bound).collect::<Vec<f32>>();
        let (mut weights, mut bias) = (Adam::new(draw(classes * width)), Adam::new(draw(classes)));
        let steps = options.epochs * count.div_ceil(BATCH);
        let mut step = 0;
        let mut order: Vec<usize> = (0..count).collect();
        for epoch in 0..options.epochs {
            round(epoch, options.epochs)?;
            random.shuffle(&mut order);
            for batch in order.chunks(BATCH) {
                let rate = 0.5 * (1.0 + (std::f64::consts::PI * step as f64 / steps as f64).cos());
                let rate = rate as f32 * options.learning_rate;
                step += 1;
                let rows = batch.iter().flat_map(|&i| &features.as_slice()[i * width..][..width]).copied().collect();
                let x = Tensor::from_vec(rows, (batch.len(), width), &Device::Cpu).map_err(tensor)?; // (batch, width)
                let mut slopes = logits(&x, &weights.values, &bias.values, classes)?; // (batch, classes)
                for (row, &i) in slopes.chunks_exact_mut(classes).zip(batch) {
                    softmax(row);
                    row[labels[i]] -= 1.0;
                    row.iter_mut().for_each(|slope| *slope /= batch.len() as f32);
                }
                let mut of_bias = vec![0.0; classes];
                for row in slopes.chunks_exact(classes) {
                    of_bias.iter_mut().zip(row).for_each(|(sum, x)| *sum += x);
                }
                let slopes = Tensor::from_vec(slopes, (batch.len(), classes), &Device::Cpu);
                let of_weights = slopes.and_then(|slopes| slopes.t()?.contiguous()?.matmul(&x)); // (classes, width)
                let of_weights: Vec<f32> = of_weights.and_then(|w| w.flatten_all()?.to_vec1()).map_err(tensor)?;
                weights.step(&of_weights, rate, options.weight_decay);
                bias.step(&of_bias, rate, options.weight_decay);
            }
        }
        Ok(Probe { weights: weights.values, bias: bias.values, width })
    }

    pub(super) fn accuracy(&self, features: &Embeddings, labels: &[usize]) -> Result<Accuracy> {
        let (classes, mut at) = (self.bias.len(), 0);
        accuracy_of(classes, labels, |each| {
            for part in features.as_slice().chunks(1024 * self.width) {
                let x =
                    Tensor::from_slice(part, (part.len() / self.width, self.width), &Device::Cpu).map_err(tensor)?;
                for row in logits(&x, &self.weights, &self.bias, classes)?.chunks_exact(classes) {
                    each(at, row);
                    at += 1;
                }
            }
            Ok(())
        })
    }
}

/// `(batch, width)` to `batch · classes` logits.
fn logits(x: &Tensor, weights: &[f32], bias: &[f32], classes: usize) -> Result<Vec<f32>> {
    let weights = Tensor::from_slice(weights, (classes, weights.len() / classes), &Device::Cpu).map_err(tensor)?;
    let product = weights.t().and_then(|w| x.matmul(&w.contiguous()?)?.flatten_all()?.to_vec1::<f32>());
    let mut product = product.map_err(tensor)?;
    for row in product.chunks_exact_mut(classes) {
        row.iter_mut().zip(bias).for_each(|(x, b)| *x += b);
    }
    Ok(product)
}

fn tensor(error: candle_core::Error) -> Error {
    Error::Tensor(Box::new(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_divided_is_learnt() {
        let mut random = Random::new(3);
        let labels: Vec<usize> = (0..300).map(|i| i % 6).collect();
        let noisy = |(i, &label): (usize, &usize)| {
            (0..8).map(|j| f32::from(j == label) + 0.3 * random.uniform() + (i % 2) as f32 * 0.1).collect::<Vec<_>>()
        };
        let features = Embeddings::new(8, labels.iter().enumerate().flat_map(noisy).collect());
        let probe = Probe::train(&features, &labels, 6, &ProbeOptions::default(), |_, _| Ok(())).unwrap();
        let accuracy = probe.accuracy(&features, &labels).unwrap();
        assert!(accuracy.acc1 > 0.98 && accuracy.acc5 >= Some(0.99), "{accuracy:?}");
        let blank = ProbeOptions { epochs: 0, ..ProbeOptions::default() };
        let blank = Probe::train(&features, &labels, 6, &blank, |_, _| Ok(())).unwrap();
        assert!(blank.accuracy(&features, &labels).unwrap().acc1 < 0.6);
    }
}
