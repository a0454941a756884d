//! Where a tower's parts come from, and how they are computed.

use super::dense::{Dense, Raw};
use super::norm::LayerNorm;
use super::parts::Parts;
use super::rows::Number;
use super::simd::Isa;
use crate::Result;
use crate::model::weights::Weights;

/// A checkpoint's weights on their way into a packed tower.
pub(super) struct Source<'a> {
    pub(super) isa: Isa,
    pub(super) number: Number,
    pub(super) weights: &'a Weights,
    pub(super) parts: Parts,
}

impl Source<'_> {
    /// What stands at the door of a tower is multiplied in no less than bf16: rounding pixels to bytes is exact, rounding
    /// these weights to bytes is not, and they are a few percent of the arithmetic.
    pub(super) fn fine(&self) -> Number {
        match self.number {
            Number::F32 => Number::F32,
            _ if self.isa.multiplies_pairs() => Number::Bf16,
            _ => Number::F32,
        }
    }

    /// A layer with the bias that the model has for it.
    pub(super) fn dense(&mut self, name: &str, number: Number, inputs: usize, outputs: usize) -> Result<Dense> {
        self.part(name, number, (inputs, outputs), (inputs, outputs), 0, None)
    }

    /// Outputs from `first` on of a layer, up to the shape (inputs, outputs), and then zeros, up to `padded`. `scale` names
    /// factors of the outputs.
    pub(super) fn part(
        &mut self,
        name: &str,
        number: Number,
        (inputs, outputs): (usize, usize),
        padded: (usize, usize),
        first: usize,
        scale: Option<String>,
    ) -> Result<Dense> {
        let weights = self.weights;
        Dense::take(&mut self.parts, self.isa, number, padded, || {
            let mut raw = Raw { weights: vec![0.0; padded.0 * padded.1], bias: vec![0.0; padded.1] };
            let bias = format!("{name}.bias");
            if weights.contains(&bias) {
                raw.bias[..outputs].copy_from_slice(&weights.get(&bias)?.0[first..first + outputs]);
            }
            let all = weights.get(&format!("{name}.weight"))?.0;
            let rows = all.chunks_exact(inputs).skip(first).take(outputs);
            raw.weights.chunks_exact_mut(padded.0).zip(rows).for_each(|(to, row)| to[..inputs].copy_from_slice(row));
            if let Some(scale) = scale {
                let scale = weights.get(&scale)?.0;
                for ((row, bias), scale) in raw.weights.chunks_exact_mut(padded.0).zip(&mut raw.bias).zip(&scale) {
                    row.iter_mut().for_each(|w| *w *= scale);
                    *bias *= scale;
                }
            }
            weights.release();
            Ok(raw)
        })
    }

    /// A norm; one without a bias divides by the root mean square.
    pub(super) fn norm(&mut self, name: &str, width: usize, eps: f64) -> Result<LayerNorm> {
        let weights = self.weights;
        let biased = weights.contains(&format!("{name}.bias"));
        let norm = LayerNorm::take(&mut self.parts, self.isa, (width, eps as f32), |part| match part {
            "bias" if !biased => Ok(vec![0.0; width]),
            part => Ok(weights.get(&format!("{name}.{part}"))?.0),
        })?;
        Ok(if biased { norm } else { norm.root_mean_square() })
    }
}
