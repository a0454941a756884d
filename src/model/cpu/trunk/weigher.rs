//! Factors for each channel, from the means of all.

use super::super::aligned::Aligned;
use super::super::conv::raw;
use super::super::dense::Raw;
use super::super::finish::{Activation, Epilogue};
use super::super::linear::Linear;
use super::super::parts::Parts;
use super::super::pixels::Pixels;
use super::super::simd::{Isa, Kernel, Simd};
use super::fastvit::reordered;
use crate::Result;
use crate::model::trunk::fastvit;

/// Packed weights.
pub(super) struct Weigher {
    isa: Isa,
    down: Linear,
    up: Linear,
}

impl Weigher {
    /// The weigher from the next parts of a store, for channels that stand in `order`.
    pub(super) fn take(parts: &mut Parts, isa: Isa, from: &fastvit::Weigher, order: &[usize]) -> Result<Self> {
        let (width, inner) = (from.down.shape.inputs, from.down.shape.outputs);
        let down = Linear::take(parts, isa, (width, inner), || Ok(reordered(raw(&from.down)?, order)))?;
        let up = Linear::take(parts, isa, (inner, width), || {
            let Raw { weights, bias } = raw(&from.up)?;
            let rows = order.iter().flat_map(|&at| weights[at * inner..(at + 1) * inner].iter().copied());
            Ok(Raw { weights: rows.collect(), bias: order.iter().map(|&at| bias[at]).collect() })
        })?;
        Ok(Self { isa, down, up })
    }

    /// Weighs the channels of each picture, then activates.
    pub(super) fn apply(&self, x: &mut Pixels, activation: Activation) {
        let size = x.size();
        let (count, width, inner) = (size.pictures, size.channels, self.down.outputs());
        let mut means = vec![0.0; count * width];
        x.view().means(&mut means);
        let mut narrow = vec![0.0; count * inner];
        self.down.apply(count, (&means, width), (&mut narrow, inner), Epilogue::activate(Activation::Relu));
        let stride = size.stride();
        let mut factors = Aligned::<f32>::zeroed(count * stride);
        self.up.apply(count, (&narrow, inner), (&mut factors, stride), Epilogue::STORE); // (count, width)
        factors.iter_mut().for_each(|x| *x = 1.0 / (1.0 + (-*x).exp()));
        let pictures = x.numbers().chunks_exact_mut(size.rows * size.columns * stride);
        for (pixels, factors) in pictures.zip(factors.chunks_exact(stride)) {
            // SAFETY: pixels and factors are whole lines.
            unsafe { self.isa.run(Weigh { pixels, factors, activation }) };
        }
    }
}

/// Pixels as long as the factors, whole lines.
struct Weigh<'a> {
    pixels: &'a mut [f32],
    factors: &'a [f32],
    activation: Activation,
}

impl Kernel for Weigh<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        for pixel in self.pixels.chunks_exact_mut(self.factors.len()) {
            for i in (0..self.factors.len()).step_by(S::LANES) {
                // SAFETY: both are as long, and whole vectors.
                unsafe {
                    let at = pixel.as_mut_ptr().add(i);
                    let x = S::mul(S::load(at), S::load(self.factors.as_ptr().add(i)));
                    S::store(at, self.activation.apply::<S>(x));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::pixels::stride;
    use super::super::super::plain::{activated, numbers};
    use super::*;

    #[test]
    fn pixels_are_weighed_and_activated() {
        for width in [3, 16, 40, 70] {
            let apart = stride(width);
            let (before, factors) = (numbers(5 * apart, 1), numbers(apart, 2));
            for isa in Isa::available() {
                let mut pixels = before.clone();
                // SAFETY: whole lines.
                unsafe { isa.run(Weigh { pixels: &mut pixels, factors: &factors, activation: Activation::Gelu }) };
                for (i, (&x, &got)) in before.iter().zip(&pixels).enumerate() {
                    let want = activated(f64::from(x) * f64::from(factors[i % apart]), Activation::Gelu);
                    assert!((f64::from(got) - want).abs() < 1e-6, "{} {got} is not {want}", isa.name());
                }
            }
        }
    }
}
