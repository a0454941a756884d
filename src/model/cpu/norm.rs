//! Layer normalisation of rows.

use super::aligned::Aligned;
use super::parts::{Part, Parts};
use super::simd::{Isa, Kernel, Simd};
use crate::Result;

/// `(x - mean) / √(variance + ε) × weight + bias`, row by row; or `x / √(mean square + ε) × weight`.
pub(crate) struct LayerNorm {
    isa: Isa,
    eps: f32,
    /// Whether the mean is taken away first.
    centred: bool,
    weight: Part<f32>,
    bias: Part<f32>,
}

impl LayerNorm {
    /// Takes the weights and biases of a checkpoint.
    ///
    /// # Panics
    /// If the lengths differ.
    pub(crate) fn new(isa: Isa, weight: &[f32], bias: &[f32], eps: f32) -> Self {
        assert_eq!(weight.len(), bias.len(), "one bias per weight");
        let copy = |from: &[f32]| {
            let mut to = Aligned::zeroed(from.len());
            to.copy_from_slice(from);
            to.into()
        };
        Self { isa, eps, centred: true, weight: copy(weight), bias: copy(bias) }
    }

    /// The norm from the next parts of a store; `read` is asked for weights and biases where they have to be packed.
    pub(super) fn take(
        parts: &mut Parts,
        isa: Isa,
        (width, eps): (usize, f32),
        read: impl Fn(&str) -> Result<Vec<f32>>,
    ) -> Result<Self> {
        let mut part = |name: &str| {
            parts.take(width, |to: &mut [f32]| {
                to.copy_from_slice(&read(name)?);
                Ok(())
            })
        };
        Ok(Self { isa, eps, centred: true, weight: part("weight")?, bias: part("bias")? })
    }

    /// The same with zero for the mean, that is divided by the root mean square.
    pub(super) fn root_mean_square(self) -> Self {
        Self { centred: false, ..self }
    }

    /// Normalises whole rows of `rows` into `out`.
    ///
    /// # Panics
    /// If the slices differ in length or are no whole rows.
    pub(crate) fn apply(&self, rows: &[f32], out: &mut [f32]) {
        let width = self.weight.len();
        assert!(
            rows.len() == out.len() && rows.len().is_multiple_of(width),
            "as many results as numbers, in whole rows"
        );
        for (row, out) in rows.chunks_exact(width).zip(out.chunks_exact_mut(width)) {
            // SAFETY: row, result, weights and biases have `width` numbers.
            unsafe { self.isa.run(self.row(row.as_ptr(), out.as_mut_ptr())) }
        }
    }

    /// The same in place.
    ///
    /// # Panics
    /// If these are no whole rows.
    pub(super) fn apply_in_place(&self, rows: &mut [f32]) {
        let width = self.weight.len();
        assert!(rows.len().is_multiple_of(width), "whole rows");
        for row in rows.chunks_exact_mut(width) {
            let out = row.as_mut_ptr();
            // SAFETY: all have `width` numbers; the kernel reads a number for the last time before it writes it.
            unsafe { self.isa.run(self.row(out, out)) }
        }
    }

    fn row(&self, row: *const f32, out: *mut f32) -> NormRow {
        let Self { eps, centred, ref weight, ref bias, .. } = *self;
        NormRow { row, out, weight: weight.as_ptr(), bias: bias.as_ptr(), width: weight.len(), eps, centred }
    }
}

struct NormRow {
    row: *const f32,
    out: *mut f32,
    weight: *const f32,
    bias: *const f32,
    width: usize,
    eps: f32,
    centred: bool,
}

impl Kernel for NormRow {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let width = self.width;
        let whole = width / S::LANES * S::LANES;
        let rest = width - whole;
        // SAFETY: row, result, weights and biases have `width` numbers; no access goes past them.
        unsafe {
            let mut sum = S::splat(0.0);
            for i in (0..whole).step_by(S::LANES) {
                sum = S::add(sum, S::load(self.row.add(i)));
            }
            if rest > 0 {
                sum = S::add(sum, S::load_first(self.row.add(whole), rest));
            }
            let mean = if self.centred { S::sum(sum) / width as f32 } else { 0.0 };
            let middle = S::splat(mean);
            let mut squares = S::splat(0.0);
            for i in (0..whole).step_by(S::LANES) {
                let d = S::sub(S::load(self.row.add(i)), middle);
                squares = S::fma(d, d, squares);
            }
            if rest > 0 {
                // Lanes past the end must not count, so the mean is read under the same mask.
                let means = [mean; 16];
                let d = S::sub(S::load_first(self.row.add(whole), rest), S::load_first(means.as_ptr(), rest));
                squares = S::fma(d, d, squares);
            }
            let inverse = S::splat(1.0 / (S::sum(squares) / width as f32 + self.eps).sqrt());
            let scaled = |x: S::F, w: S::F, b: S::F| S::fma(S::mul(S::sub(x, middle), inverse), w, b);
            for i in (0..whole).step_by(S::LANES) {
                let x = scaled(S::load(self.row.add(i)), S::load(self.weight.add(i)), S::load(self.bias.add(i)));
                S::store(self.out.add(i), x);
            }
            if rest > 0 {
                let load = |p: *const f32| S::load_first(p.add(whole), rest);
                let x = scaled(load(self.row), load(self.weight), load(self.bias));
                S::store_first(self.out.add(whole), x, rest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equals_the_formula_at_any_width() {
        for isa in Isa::available() {
            for width in [1, 5, 8, 16, 19, 192, 200] {
                let row: Vec<f32> = (0..2 * width).map(|i| ((i * 37) % 23) as f32 * 0.3 - 2.0).collect();
                let weight: Vec<f32> = (0..width).map(|i| 0.5 + (i % 3) as f32).collect();
                let bias: Vec<f32> = (0..width).map(|i| (i % 5) as f32 - 2.0).collect();
                let mut out = vec![0.0; 2 * width];
                let norm = LayerNorm::new(isa, &weight, &bias, 1e-5);
                norm.apply(&row, &mut out);
                let mut by_root = row.clone();
                norm.root_mean_square().apply_in_place(&mut by_root);
                let both = out.chunks(width).map(|out| (out, true));
                let both = both.chain(by_root.chunks(width).map(|out| (out, false)));
                for (row, (out, centred)) in row.chunks(width).cycle().zip(both) {
                    let mean = row.iter().map(|&x| f64::from(x)).sum::<f64>() / width as f64;
                    let mean = if centred { mean } else { 0.0 };
                    let variance = row.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / width as f64;
                    for i in 0..width {
                        let want = (f64::from(row[i]) - mean) / (variance + 1e-5).sqrt() * f64::from(weight[i])
                            + f64::from(bias[i]);
                        assert!((f64::from(out[i]) - want).abs() < 1e-4, "{} width {width}", isa.name());
                    }
                }
            }
        }
    }
}
