//! Attention of all pixels to each other, as the last stages of FastViT have it.

use candle_core::Tensor;

use super::super::attention::{Attention, Scratch, Sequence};
use super::super::conv::{numbers, raw};
use super::super::dense::Raw;
use super::super::finish::Epilogue;
use super::super::linear::Linear;
use super::super::norm::LayerNorm;
use super::super::parts::Parts;
use super::super::simd::Isa;
use super::Room;
use super::convnext::{norm as layer_norm, raw_linear};
use super::mix::scaled;
use crate::Result;
use crate::model::linear;
use crate::model::trunk::fastvit::{BeforeAttention, HEAD};

/// Packed weights.
pub(super) struct Attend {
    width: usize,
    attention: Attention,
    /// A norm of each pixel. That of a batch is in the weights.
    norm: Option<LayerNorm>,
    qkv: Linear,
    out: Linear,
}

impl Attend {
    /// Attention from the next parts of a store: queries, keys and values, what comes out, and factors for that.
    pub(super) fn take(
        parts: &mut Parts,
        isa: Isa,
        width: usize,
        before: &BeforeAttention,
        (qkv, out, scale): (&linear::Linear, &linear::Linear, &Tensor),
    ) -> Result<Self> {
        let norm = match before {
            BeforeAttention::Channels(from) => Some(layer_norm(parts, isa, width, from)?),
            BeforeAttention::Batch(_) => None,
        };
        let qkv = Linear::take(parts, isa, (width, 3 * width), || {
            let mut weights = raw_linear(qkv)?.weights;
            // Queries are scaled there; attention does so itself.
            weights[..width * width].iter_mut().for_each(|w| *w *= (HEAD as f32).sqrt());
            let mut bias = Vec::new();
            if let BeforeAttention::Batch(norm) = before {
                let Raw { weights: factors, bias: shift } = raw(norm)?;
                let dot = |row: &[f32]| row.iter().zip(&shift).map(|(w, s)| w * s).sum();
                bias = weights.chunks_exact(width).map(dot).collect();
                for row in weights.chunks_exact_mut(width) {
                    row.iter_mut().zip(&factors).for_each(|(w, factor)| *w *= factor);
                }
            }
            Ok(Raw { weights, bias })
        })?;
        let out = Linear::take(parts, isa, (width, width), || Ok(scaled(raw_linear(out)?, &numbers(scale)?)))?;
        let attention = Attention { isa, width, heads: width / HEAD, causal: false };
        Ok(Self { width, attention, norm, qkv, out })
    }

    /// Adds what pixels find in each other to `x`.
    pub(super) fn apply(&self, room: &mut Room) {
        let Room { x, y, inner, .. } = room;
        let (size, width) = (x.size(), self.width);
        let (pixels, tokens, stride) = (size.pixels(), size.rows * size.columns, size.stride());
        y.shape(size);
        let rows = match &self.norm {
            Some(norm) => {
                let normed = y.numbers().chunks_exact_mut(stride);
                for (to, pixel) in normed.zip(x.view().numbers().chunks_exact(stride)) {
                    norm.apply(&pixel[..width], &mut to[..width]);
                }
                y.view().numbers()
            }
            None => x.view().numbers(),
        };
        let joint = inner.at_least(pixels * 3 * width);
        self.qkv.apply(pixels, (rows, stride), (joint, 3 * width), Epilogue::STORE); // (pixels, 3 · width)
        let mut scratch = Scratch::default();
        let pictures = y.numbers().chunks_exact_mut(tokens * stride).zip(joint.chunks_exact(tokens * 3 * width));
        for (out, joint) in pictures {
            self.attention.apply(Sequence::joint(joint, tokens, width), (out, stride), &mut scratch);
        }
        self.out.apply(pixels, (y.view().numbers(), stride), (x.numbers(), stride), Epilogue::ADD); // (pixels, width)
    }
}
