//! One query of the mean, which looks at the mean and at all pixels: what pools the residual network.
//!
//! Keys and values are never made. A score is `q · (K x)`, which is `(Kᵀ q) · x`, and the mixture of `V x` is `V` of the mixture of
//! `x`: for one query that is a fiftieth of the products. What a bias of the keys adds is the same for every token, so it does
//! not count.

use candle_core::Tensor;

use super::super::aligned::Aligned;
use super::super::conv::numbers;
use super::super::dense::Raw;
use super::super::finish::Epilogue;
use super::super::linear::Linear;
use super::super::parts::{Part, Parts};
use super::super::pixels::View;
use super::super::simd::{Isa, Kernel, Simd};
use super::convnext::raw_linear;
use crate::Result;
use crate::model::linear;

/// Packed weights.
pub(super) struct Look {
    isa: Isa,
    width: usize,
    heads: usize,
    dim: usize,
    // (1 + pixels, width)
    position: Part<f32>,
    query: Linear,
    /// Of each head: from its part of the query to what pixels are compared with.
    keys: Vec<Linear>,
    /// Of each head: from a mixture of pixels to its part of the result.
    values: Vec<Linear>,
    out: Linear,
}

impl Look {
    /// The pool from the next parts of a store, over pixels of `width` channels; queries are scaled already.
    pub(super) fn take(
        parts: &mut Parts,
        isa: Isa,
        (width, heads, dim): (usize, usize, usize),
        tokens: usize,
        [q, k, v, out]: [&linear::Linear; 4],
        position: &Tensor,
    ) -> Result<Self> {
        let head = width / heads;
        let query = Linear::take(parts, isa, (width, width), || raw_linear(q))?;
        let mut all = None;
        let keys = (0..heads).map(|h| {
            Linear::take(parts, isa, (head, width), || {
                if all.is_none() {
                    all = Some(numbers(&k.weight)?);
                }
                // (inputs, outputs) on tensors: what a head's part of a key is made of stands in columns.
                let rows = all.iter().flat_map(|all| all.chunks_exact(width));
                let weights = rows.flat_map(|row| row[h * head..(h + 1) * head].iter().copied()).collect();
                Ok(Raw { weights, bias: Vec::new() })
            })
        });
        let keys = keys.collect::<Result<_>>()?;
        let mut all = None;
        let values = (0..heads).map(|h| {
            Linear::take(parts, isa, (width, head), || {
                if all.is_none() {
                    all = Some(raw_linear(v)?);
                }
                let Some(Raw { weights, bias }) = &all else {
                    return Ok(Raw { weights: Vec::new(), bias: Vec::new() });
                };
                let weights = weights[h * head * width..(h + 1) * head * width].to_vec();
                Ok(Raw { weights, bias: bias[h * head..(h + 1) * head].to_vec() })
            })
        });
        let values = values.collect::<Result<_>>()?;
        let out = Linear::take(parts, isa, (width, dim), || raw_linear(out))?;
        let position = parts.take(tokens * width, |to: &mut [f32]| {
            to.copy_from_slice(&numbers(position)?);
            Ok(())
        })?;
        Ok(Self { isa, width, heads, dim, position, query, keys, values, out })
    }

    /// Rows of `dim` numbers, one for each picture.
    pub(super) fn apply(&self, x: View<'_>, out: &mut [f32]) {
        let (size, width, heads) = (x.size(), self.width, self.heads);
        let (count, pixels) = (size.pictures, size.rows * size.columns);
        let (tokens, apart, head) = (pixels + 1, size.stride(), width / heads);
        // The mean and the pixels, with their positions: (count · tokens, width).
        let mut seen = Aligned::<f32>::zeroed(count * tokens * apart);
        let mut means = vec![0.0; count * width];
        x.means(&mut means);
        let pictures = seen.chunks_exact_mut(tokens * apart).zip(x.numbers().chunks_exact(pixels * apart));
        for ((seen, pixels), mean) in pictures.zip(means.chunks_exact(width)) {
            seen[..width].copy_from_slice(mean);
            seen[apart..].copy_from_slice(pixels);
            for (row, position) in seen.chunks_exact_mut(apart).zip(self.position.chunks_exact(width)) {
                row.iter_mut().zip(position).for_each(|(x, position)| *x += position);
            }
        }
        let mut query = Aligned::<f32>::zeroed(count * apart);
        self.query.apply(count, (&seen, tokens * apart), (&mut query, apart), Epilogue::STORE); // (count, width)
        let mut compared = Aligned::<f32>::zeroed(count * heads * apart); // (count, heads, width)
        for (h, keys) in self.keys.iter().enumerate() {
            let to = (&mut compared[h * apart..], heads * apart);
            keys.apply(count, (&query[h * head..], apart), to, Epilogue::STORE);
        }
        // Each head's mixture takes the place of what it compared with.
        for (compared, seen) in compared.chunks_exact_mut(heads * apart).zip(seen.chunks_exact(tokens * apart)) {
            for row in compared.chunks_exact_mut(apart) {
                // SAFETY: the row and each token have `apart` numbers, whole lines.
                unsafe { self.isa.run(Mixture { row, seen, width }) };
            }
        }
        let mut mixed = Aligned::<f32>::zeroed(count * apart);
        for (h, values) in self.values.iter().enumerate() {
            let to = (&mut mixed[h * head..], apart);
            values.apply(count, (&compared[h * apart..], heads * apart), to, Epilogue::STORE); // (count, width)
        }
        self.out.apply(count, (&mixed, apart), (out, self.dim), Epilogue::STORE); // (count, dim)
    }
}

/// The mixture of tokens by their products with a row, in its place.
struct Mixture<'a> {
    row: &'a mut [f32],
    seen: &'a [f32],
    width: usize,
}

impl Kernel for Mixture<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        const AT_ONCE: usize = 4;
        let (apart, width) = (self.row.len(), self.width);
        let row = self.row.as_mut_ptr();
        // SAFETY: the row and each token have `apart` numbers, of which `width` are read, and rows of whole lines are written
        // in whole vectors.
        unsafe {
            let mut weights = Vec::with_capacity(self.seen.len() / apart);
            // No closure around vectors: one that is not inlined would be compiled without the instructions.
            for token in self.seen.chunks_exact(apart) {
                let mut sums = [S::splat(0.0); AT_ONCE];
                for i in (0..width).step_by(S::LANES * AT_ONCE) {
                    for (j, sum) in sums.iter_mut().enumerate() {
                        let at = i + j * S::LANES;
                        if at < width {
                            let lanes = S::LANES.min(width - at);
                            let (a, b) = (row.add(at), token.as_ptr().add(at));
                            *sum = S::fma(S::load_first(a, lanes), S::load_first(b, lanes), *sum);
                        }
                    }
                }
                weights.push(S::sum(S::add(S::add(sums[0], sums[1]), S::add(sums[2], sums[3]))));
            }
            let largest = weights.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            weights.iter_mut().for_each(|w| *w = (*w - largest).exp());
            let total: f32 = weights.iter().sum();
            weights.iter_mut().for_each(|w| *w /= total);
            for i in (0..width).step_by(S::LANES) {
                let mut sums = [S::splat(0.0); AT_ONCE];
                for (tokens, weights) in self.seen.chunks(AT_ONCE * apart).zip(weights.chunks(AT_ONCE)) {
                    for ((token, &weight), sum) in tokens.chunks_exact(apart).zip(weights).zip(&mut sums) {
                        *sum = S::fma(S::splat(weight), S::load(token.as_ptr().add(i)), *sum);
                    }
                }
                S::store(row.add(i), S::add(S::add(sums[0], sums[1]), S::add(sums[2], sums[3])));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::super::pixels::stride;
    use super::super::super::plain::numbers;
    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn a_mixture_is_that_of_the_definition(tokens in 1usize..60, width in 1usize..150, seed: u32) {
            let apart = stride(width);
            let (row, seen) = (numbers(apart, seed), numbers(tokens * apart, seed ^ 5));
            let score = |t: usize| (0..width).map(|c| f64::from(row[c]) * f64::from(seen[t * apart + c])).sum::<f64>();
            let weights: Vec<f64> = (0..tokens).map(|t| score(t).exp()).collect();
            for isa in Isa::available() {
                let mut found = row.clone();
                // SAFETY: the row and each token have `apart` numbers, whole lines.
                unsafe { isa.run(Mixture { row: &mut found, seen: &seen, width }) };
                for c in 0..width {
                    let mixed: f64 = weights.iter().enumerate().map(|(t, w)| w * f64::from(seen[t * apart + c])).sum();
                    let want = mixed / weights.iter().sum::<f64>();
                    prop_assert!((f64::from(found[c]) - want).abs() < 2e-5, "{} {} is not {want}", isa.name(), found[c]);
                }
            }
        }
    }
}
