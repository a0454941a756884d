//! Layer normalisation of rows.

use super::aligned::Aligned;
use super::simd::{Isa, Kernel, Simd};

/// `(x - mean) / √(variance + ε) × weight + bias`, row by row.
pub(crate) struct LayerNorm {
    isa: Isa,
    eps: f32,
    weight: Aligned<f32>,
    bias: Aligned<f32>,
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
            to
        };
        Self { isa, eps, weight: copy(weight), bias: copy(bias) }
    }

    /// Normalises whole rows of `rows` into `out`.
    ///
    /// # Panics
    /// If the slices differ in length or are no whole rows.
    pub(crate) fn apply(&self, rows: &[f32], out: &mut [f32]) {
        let width = self.weight.len();
        assert_eq!(rows.len(), out.len(), "as many results as numbers");
        for (row, out) in rows.chunks_exact(width).zip(out.chunks_exact_mut(width)) {
            // SAFETY: the kernel's slices all have `width` numbers.
            unsafe { self.isa.run(NormRow { row, out, weight: &self.weight, bias: &self.bias, eps: self.eps }) }
        }
    }
}

struct NormRow<'a> {
    row: &'a [f32],
    out: &'a mut [f32],
    weight: &'a [f32],
    bias: &'a [f32],
    eps: f32,
}

impl Kernel for NormRow<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let width = self.row.len();
        let at = |i: usize| S::LANES.min(width - i);
        // SAFETY: all four slices have `width` numbers; no access goes past them.
        unsafe {
            let mut sum = S::splat(0.0);
            for i in (0..width).step_by(S::LANES) {
                sum = S::add(sum, S::load_first(self.row.as_ptr().add(i), at(i)));
            }
            let mean = S::sum(sum) / width as f32;
            let mut squares = S::splat(0.0);
            for i in (0..width).step_by(S::LANES) {
                // Lanes past the end must not count, so the mean is read under the same mask.
                let means = [mean; 16];
                let d = S::sub(S::load_first(self.row.as_ptr().add(i), at(i)), S::load_first(means.as_ptr(), at(i)));
                squares = S::fma(d, d, squares);
            }
            let inverse = S::splat(1.0 / (S::sum(squares) / width as f32 + self.eps).sqrt());
            for i in (0..width).step_by(S::LANES) {
                let n = at(i);
                let x = S::mul(S::sub(S::load_first(self.row.as_ptr().add(i), n), S::splat(mean)), inverse);
                let (w, b) =
                    (S::load_first(self.weight.as_ptr().add(i), n), S::load_first(self.bias.as_ptr().add(i), n));
                S::store_first(self.out.as_mut_ptr().add(i), S::fma(x, w, b), n);
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
                LayerNorm::new(isa, &weight, &bias, 1e-5).apply(&row, &mut out);
                for (row, out) in row.chunks(width).zip(out.chunks(width)) {
                    let mean = row.iter().map(|&x| f64::from(x)).sum::<f64>() / width as f64;
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
