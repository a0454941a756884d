//! The half of a block that mixes channels: up, activated, down, added.

use super::super::aligned::Aligned;
use super::super::dense::Raw;
use super::super::finish::{Activation, Epilogue};
use super::super::linear::Linear;
use super::super::parts::Parts;
use super::super::pixels::{Pixels, stride};
use super::super::simd::Isa;
use super::PIXELS;
use crate::Result;

/// Packed weights.
pub(super) struct Mix {
    up: Linear,
    down: Linear,
}

impl Mix {
    /// The half from the next parts of a store, of `width` channels; `up` and `down` are asked for weights `(outputs, inputs)`.
    pub(super) fn take(
        parts: &mut Parts,
        isa: Isa,
        (width, hidden): (usize, usize),
        up: impl FnOnce() -> Result<Raw>,
        down: impl FnOnce() -> Result<Raw>,
    ) -> Result<Self> {
        Ok(Self {
            up: Linear::take(parts, isa, (width, hidden), up)?,
            down: Linear::take(parts, isa, (hidden, width), down)?,
        })
    }

    /// Adds to `x` what comes of `y`, a block of pixels at a time, which `enter` may change first.
    pub(super) fn apply(&self, y: &mut Pixels, x: &mut Pixels, inner: &mut Aligned<f32>, enter: impl Fn(&mut [f32])) {
        let (size, hidden) = (x.size(), self.up.outputs());
        let (from, inside) = (size.stride(), stride(hidden));
        let blocks = size.pixels().div_ceil(PIXELS);
        let block = size.pixels().div_ceil(blocks);
        let inner = inner.at_least(block * inside);
        for (y, x) in y.numbers().chunks_mut(block * from).zip(x.numbers().chunks_mut(block * from)) {
            let count = y.len() / from;
            y.chunks_exact_mut(from).for_each(|pixel| enter(&mut pixel[..size.channels]));
            self.up.apply(count, (y, from), (inner, inside), Epilogue::activate(Activation::Gelu)); // (count, hidden)
            self.down.apply(count, (inner, inside), (x, from), Epilogue::ADD); // (count, width)
        }
    }
}

/// Multiplies each output's weights and bias by a factor.
pub(super) fn scaled(mut raw: Raw, factors: &[f32]) -> Raw {
    let each = raw.weights.len() / factors.len().max(1);
    for ((row, bias), factor) in raw.weights.chunks_exact_mut(each.max(1)).zip(&mut raw.bias).zip(factors) {
        row.iter_mut().for_each(|w| *w *= factor);
        *bias *= factor;
    }
    raw
}
