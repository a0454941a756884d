//! Attention over the tokens of one sequence, head by head.
//!
//! Scores and mixtures are products with the keys and the values of a head as packed weights, so they run in the same
//! register tile as everything else. Queries go through in blocks of two tiles, and the scores of a block stay in the first
//! cache: no matrix of scores is ever stored. A single query (the last block of a tower has no other) takes one pass over
//! the keys with a running maximum and sum instead (Milakov and Gimelshein 2018), since packing would cost more than it saves.

use super::aligned::Aligned;
use super::finish::{Epilogue, Place};
use super::product::{Job, Panels, packed_bytes};
use super::simd::{Isa, Kernel, Simd};
use super::tile::Format;

/// Widest head.
pub(super) const WIDEST: usize = 256;

/// Queries, keys and values of one sequence, in f32 or bf16: rows of all heads side by side.
#[derive(Clone, Copy)]
pub(super) struct Sequence<'a, T> {
    /// Queries and numbers from one to the next.
    pub(super) queries: (&'a [T], usize),
    /// Number of queries, and the token of the first.
    pub(super) count: usize,
    pub(super) first: usize,
    /// Keys and values, and numbers from one to the next.
    pub(super) keys: &'a [T],
    pub(super) values: &'a [T],
    pub(super) stride: usize,
    pub(super) tokens: usize,
}

impl<'a, T> Sequence<'a, T> {
    /// All tokens, whose queries, keys and values stand side by side: rows of 3 × `width`.
    pub(super) fn joint(rows: &'a [T], tokens: usize, width: usize) -> Self {
        Sequence {
            queries: (rows, 3 * width),
            count: tokens,
            first: 0,
            keys: &rows[width..],
            values: &rows[2 * width..],
            stride: 3 * width,
            tokens,
        }
    }
}

/// Working memory.
#[derive(Default)]
pub(super) struct Scratch {
    keys: Aligned<u8>,
    values: Aligned<u8>,
    scores: Aligned<f32>,
    /// Weights of a block as bf16.
    pairs: Aligned<u16>,
}

/// `out = softmax(q kᵀ / √width_of_a_head) v` for each head.
#[derive(Clone, Copy)]
pub(super) struct Attention {
    pub(super) isa: Isa,
    /// Numbers of all heads together.
    pub(super) width: usize,
    pub(super) heads: usize,
    /// Whether a token sees only itself and those before it.
    pub(super) causal: bool,
}

/// For tokens whose queries, keys and values stand side by side (3 × `width`); `out` gets rows of `width`.
///
/// # Panics
/// If the slices are shorter than that, or `heads` does not divide `width` into heads of at most 256.
pub(crate) fn attention(isa: Isa, qkv: &[f32], out: &mut [f32], tokens: usize, width: usize, heads: usize) {
    if tokens == 0 {
        return;
    }
    let sequence = Sequence::joint(qkv, tokens, width);
    let attention = Attention { isa, width, heads, causal: false };
    attention.apply(sequence, (out, width), &mut Scratch::default());
}

impl Attention {
    /// Mixes the values for each query. Results begin `stride` numbers apart.
    ///
    /// # Panics
    /// If a slice is too short, or the heads do not divide the width into heads of at most 256.
    pub(super) fn apply(&self, s: Sequence<'_, f32>, out: (&mut [f32], usize), scratch: &mut Scratch) {
        if s.count != 1 || s.tokens == 0 {
            return self.blocks(Format::Floats, s, out, scratch, pack_floats);
        }
        let head = self.check(&s, &out);
        for h in 0..self.heads {
            let query = Query {
                query: s.queries.0[h * head..].as_ptr(),
                keys: s.keys[h * head..].as_ptr(),
                values: s.values[h * head..].as_ptr(),
                tokens: if self.causal { s.first + 1 } else { s.tokens },
                stride: s.stride,
                head,
                out: out.0[h * head..].as_mut_ptr(),
            };
            // SAFETY: the kernel reads head `h` of the tokens and writes head `h` of the result, inside the slices.
            unsafe { self.isa.run(query) };
        }
    }

    /// The same, multiplied in bf16, for heads of an even width.
    ///
    /// # Panics
    /// As [`Attention::apply`], and if the width of a head is odd.
    pub(super) fn apply_pairs(&self, s: Sequence<'_, u16>, out: (&mut [f32], usize), scratch: &mut Scratch) {
        assert!((self.width / self.heads).is_multiple_of(2), "two numbers to a word");
        self.blocks(Format::Pairs, s, out, scratch, pack_pairs);
    }

    /// The width of a head.
    fn check<T>(&self, s: &Sequence<'_, T>, (out, stride): &(&mut [f32], usize)) -> usize {
        let (width, head) = (self.width, self.width / self.heads);
        assert!(head * self.heads == width && head <= WIDEST, "{} heads of at most {WIDEST}", self.heads);
        assert!(s.queries.0.len() >= (s.count - 1) * s.queries.1 + width, "{} queries of {width}", s.count);
        assert!(s.keys.len().min(s.values.len()) >= (s.tokens - 1) * s.stride + width, "{} tokens", s.tokens);
        assert!(out.len() >= (s.count - 1) * stride + width, "{} results of {width}", s.count);
        assert!(s.first + s.count <= s.tokens, "queries are tokens");
        head
    }

    /// Head by head, with keys and values as packed weights and queries in blocks.
    fn blocks<T>(
        &self,
        format: Format,
        s: Sequence<'_, T>,
        out: (&mut [f32], usize),
        scratch: &mut Scratch,
        pack: impl Fn(&Sequence<'_, T>, usize, usize, usize, &mut [u8], &mut [u8]),
    ) {
        if s.count == 0 || s.tokens == 0 {
            return;
        }
        let head = self.check(&s, &out);
        let (out, stride) = out;
        let (isa, wide) = (self.isa, 2 * self.isa.lanes());
        let (size, pairs) = (size_of::<T>(), format == Format::Pairs);
        let group = 4 / size;
        // Whole vectors, and whole words of the mixture.
        let padded = s.tokens.next_multiple_of(wide);
        let block = 2 * isa.rows();
        let scores = scratch.scores.at_least(block * padded);
        let weight_pairs = scratch.pairs.at_least(if pairs { block * padded } else { 0 });
        let keys = scratch.keys.at_least(packed_bytes(isa, head / group, padded));
        let values = scratch.values.at_least(packed_bytes(isa, padded / group, head));
        let panels = |words, outputs, weights: &[u8]| Panels {
            isa,
            format,
            words,
            outputs,
            weights: weights.as_ptr(),
            bias: std::ptr::null(),
        };
        // Number `at` of the rows is where a head begins.
        for at in (0..self.width).step_by(head) {
            pack(&s, at, head, wide, keys, values);
            for start in (0..s.count).step_by(block) {
                let count = block.min(s.count - start);
                // Tokens that the last query of the block sees.
                let seen = if self.causal { s.first + start + count } else { s.tokens };
                let job = Job {
                    count,
                    rows: s.queries.0[start * s.queries.1 + at..].as_ptr().cast(),
                    stride: size * s.queries.1,
                    out: Place::Floats(scores.as_mut_ptr()),
                    out_stride: padded,
                    epilogue: Epilogue::STORE,
                    steps: None,
                };
                // SAFETY: `count` queries of `head` numbers lie in the slice, and as many rows of scores in the scratch.
                unsafe { panels(head / group, seen, keys).multiply(job) };
                // Words of the mixture: an odd token is joined by one of weight zero.
                let words = seen.div_ceil(group);
                for i in 0..count {
                    let softmax = Softmax {
                        scores: scores[i * padded..].as_mut_ptr(),
                        scale: 1.0 / (head as f32).sqrt(),
                        visible: if self.causal { s.first + start + i + 1 } else { s.tokens },
                        end: (words * group).next_multiple_of(isa.lanes()),
                        pairs: if pairs { weight_pairs[i * padded..].as_mut_ptr() } else { std::ptr::null_mut() },
                    };
                    // SAFETY: a row of scores has `padded` numbers, whole vectors.
                    unsafe { isa.run(softmax) };
                }
                let job = Job {
                    count,
                    rows: if pairs { weight_pairs.as_ptr().cast() } else { scores.as_ptr().cast() },
                    stride: size * padded,
                    out: Place::Floats(out[start * stride + at..].as_mut_ptr()),
                    out_stride: stride,
                    epilogue: Epilogue::STORE,
                    steps: None,
                };
                // SAFETY: as many results of `head` numbers lie in `out`; panels of values are `padded / group` words
                // long, of which the first are used.
                unsafe { panels(words, head, values).multiply_part(job, padded / group) };
            }
        }
    }
}

/// Keys to `(panel of tokens, number, token)` and values to `(panel of numbers, token, number)`, for the head at number `at`.
fn pack_floats(s: &Sequence<'_, f32>, at: usize, head: usize, wide: usize, keys: &mut [u8], values: &mut [u8]) {
    let (keys, values) = (keys.as_chunks_mut().0, values.as_chunks_mut().0);
    let padded = s.tokens.next_multiple_of(wide);
    for t in 0..s.tokens {
        let key = &s.keys[t * s.stride + at..][..head];
        let to = &mut keys[t / wide * head * wide + t % wide..];
        for (to, x) in to.iter_mut().step_by(wide).zip(key) {
            *to = x.to_ne_bytes();
        }
        for (panel, value) in s.values[t * s.stride + at..][..head].chunks(wide).enumerate() {
            let to: &mut [[u8; 4]] = &mut values[(panel * padded + t) * wide..][..value.len()];
            to.iter_mut().zip(value).for_each(|(to, x)| *to = x.to_ne_bytes());
        }
    }
}

/// The same in bf16, two numbers or two tokens to a word.
fn pack_pairs(s: &Sequence<'_, u16>, at: usize, head: usize, wide: usize, keys: &mut [u8], values: &mut [u8]) {
    let (keys, values) = (keys.as_chunks_mut().0, values.as_chunks_mut::<4>().0);
    let words = s.tokens.next_multiple_of(wide) / 2;
    let join = |low: u16, high: u16| (u32::from(low) | u32::from(high) << 16).to_ne_bytes();
    for t in 0..s.tokens {
        let key = &s.keys[t * s.stride + at..][..head];
        let to: &mut [[u8; 4]] = &mut keys[t / wide * (head / 2) * wide + t % wide..];
        for (to, pair) in to.iter_mut().step_by(wide).zip(key.as_chunks::<2>().0) {
            *to = join(pair[0], pair[1]);
        }
    }
    for t in (0..s.tokens).step_by(2) {
        let value = &s.values[t * s.stride + at..][..head];
        let next = if t + 1 < s.tokens { &s.values[(t + 1) * s.stride + at..][..head] } else { &[0; WIDEST][..head] };
        for (panel, (low, high)) in value.chunks(wide).zip(next.chunks(wide)).enumerate() {
            let to = &mut values[(panel * words + t / 2) * wide..][..low.len()];
            to.iter_mut().zip(low).zip(high).for_each(|((to, low), high)| *to = join(*low, *high));
        }
    }
}

/// Scores, times `scale`, to weights that sum to one; numbers from `visible` to `end` become zero.
struct Softmax {
    scores: *mut f32,
    scale: f32,
    visible: usize,
    end: usize,
    /// Where weights go as bf16; null if they replace the scores.
    pairs: *mut u16,
}

impl Kernel for Softmax {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        // SAFETY: the maker vouches for whole vectors up to `end`, which is beyond `visible`.
        unsafe {
            let vectors = self.visible.div_ceil(S::LANES);
            for i in self.visible..vectors * S::LANES {
                *self.scores.add(i) = f32::NEG_INFINITY;
            }
            let mut largest = S::splat(f32::NEG_INFINITY);
            for i in 0..vectors {
                largest = S::max(largest, S::load(self.scores.add(i * S::LANES)));
            }
            let (largest, scale) = (S::splat(S::largest(largest)), S::splat(self.scale));
            let mut total = S::splat(0.0);
            for i in 0..vectors {
                let p = self.scores.add(i * S::LANES);
                let weight = S::exp(S::mul(S::sub(S::load(p), largest), scale));
                S::store(p, weight);
                total = S::add(total, weight);
            }
            let inverse = S::splat(1.0 / S::sum(total));
            for i in 0..self.end.div_ceil(S::LANES) {
                let p = self.scores.add(i * S::LANES);
                let weight = if i < vectors { S::mul(S::load(p), inverse) } else { S::splat(0.0) };
                if self.pairs.is_null() {
                    S::store(p, weight);
                } else {
                    S::store_pairs(self.pairs.add(i * S::LANES), weight);
                }
            }
        }
    }
}

/// One query against the keys.
struct Query {
    query: *const f32,
    keys: *const f32,
    values: *const f32,
    tokens: usize,
    stride: usize,
    head: usize,
    out: *mut f32,
}

impl Kernel for Query {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        // Vectors of the widest head on the narrowest set.
        const MOST: usize = WIDEST / 4;
        const { assert!(MOST * S::LANES >= WIDEST, "the widest head fits") };
        let vectors = self.head.div_ceil(S::LANES);
        let lanes = |i: usize| S::LANES.min(self.head - i * S::LANES);
        // SAFETY: the maker vouches for `tokens` keys and values of `head` numbers, and for the result.
        unsafe {
            let scale = S::splat(1.0 / (self.head as f32).sqrt());
            let mut q = [S::splat(0.0); MOST];
            for (i, q) in q.iter_mut().enumerate().take(vectors) {
                *q = S::mul(S::load_first(self.query.add(i * S::LANES), lanes(i)), scale);
            }
            let mut mixed = [S::splat(0.0); MOST];
            let (mut largest, mut total) = (f32::NEG_INFINITY, 0.0f32);
            for t in 0..self.tokens {
                let (key, value) = (self.keys.add(t * self.stride), self.values.add(t * self.stride));
                let mut dot = S::splat(0.0);
                for (i, &q) in q.iter().enumerate().take(vectors) {
                    dot = S::fma(q, S::load_first(key.add(i * S::LANES), lanes(i)), dot);
                }
                let score = S::sum(dot);
                if score > largest {
                    let shrink = (largest - score).exp();
                    total *= shrink;
                    for m in mixed.iter_mut().take(vectors) {
                        *m = S::mul(*m, S::splat(shrink));
                    }
                    largest = score;
                }
                let weight = (score - largest).exp();
                total += weight;
                for (i, m) in mixed.iter_mut().enumerate().take(vectors) {
                    *m = S::fma(S::splat(weight), S::load_first(value.add(i * S::LANES), lanes(i)), *m);
                }
            }
            for (i, &m) in mixed.iter().enumerate().take(vectors) {
                S::store_first(self.out.add(i * S::LANES), S::mul(m, S::splat(1.0 / total)), lanes(i));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]
        #[test]
        fn equals_the_formula(
            tokens in 1usize..90, first in 0usize..90, heads in 1usize..4, head in 1usize..=WIDEST / 8, causal: bool, one: bool,
        ) {
            let (head, first) = (8 * head, first % tokens);
            let (width, count) = (heads * head, if one { 1 } else { tokens - first });
            let noise = |i: usize, salt: usize| ((i * 7919 + salt * 31) % 1009) as f32 / 500.0 - 1.0;
            let keys: Vec<f32> = (0..tokens * 2 * width).map(|i| noise(i, 1)).collect();
            let queries: Vec<f32> = (0..count * width).map(|i| 3.0 * noise(i, 2)).collect();
            let sequence = Sequence {
                queries: (&queries, width), count, first, keys: &keys, values: &keys[width..], stride: 2 * width, tokens,
            };
            let mut expected = vec![0.0; count * width];
            for (i, at) in (0..count).flat_map(|i| (0..width).step_by(head).map(move |at| (i, at))) {
                let visible = if causal { first + i + 1 } else { tokens };
                let score = |t: usize| -> f64 {
                    (0..head).map(|d| f64::from(queries[i * width + at + d] * keys[t * 2 * width + at + d])).sum()
                };
                let weights: Vec<f64> = (0..visible).map(|t| (score(t) / (head as f64).sqrt()).exp()).collect();
                for j in at..at + head {
                    let mixed: f64 =
                        (0..visible).map(|t| weights[t] * f64::from(keys[t * 2 * width + width + j])).sum();
                    expected[i * width + j] = mixed / weights.iter().sum::<f64>();
                }
            }
            let short = |x: &[f32]| -> Vec<u16> { x.iter().map(|&x| half::bf16::from_f32(x).to_bits()).collect() };
            let (short_queries, short_keys) = (short(&queries), short(&keys));
            let short = Sequence {
                queries: (&short_queries, width), count, first, keys: &short_keys, values: &short_keys[width..],
                stride: 2 * width, tokens,
            };
            for (isa, pairs) in Isa::available().into_iter().flat_map(|isa| [(isa, false), (isa, true)]) {
                let mut out = vec![7.0; count * width];
                let mut scratch = Scratch::default();
                // What an earlier sequence left must not show.
                scratch.keys.at_least(1 << 18).fill(0xff);
                scratch.values.at_least(1 << 18).fill(0x42);
                let attention = Attention { isa, width, heads, causal };
                if pairs {
                    attention.apply_pairs(short, (&mut out, width), &mut scratch);
                } else {
                    attention.apply(sequence, (&mut out, width), &mut scratch);
                }
                for (i, j) in (0..count).flat_map(|i| (0..width).map(move |j| (i, j))) {
                    let (want, got) = (expected[i * width + j], f64::from(out[i * width + j]));
                    let allowed = if pairs { 0.12 } else { 2e-5 };
                    prop_assert!((got - want).abs() <= allowed, "{} {pairs}: {got} is not {want}", isa.name());
                }
            }
        }
    }
}
