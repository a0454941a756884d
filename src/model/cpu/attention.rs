//! Attention over the tokens of one sequence, head by head.
//!
//! One pass over the keys per query with a running maximum and sum ("online softmax", Milakov and Gimelshein 2018), so no
//! matrix of scores is ever stored.

use super::simd::{Isa, Kernel, Simd};

/// `out = softmax(q kᵀ / √width_of_a_head) v` for each head.
///
/// `qkv` holds `tokens` rows of queries, keys and values side by side (3 × `width`); `out` gets `tokens` rows of `width`.
///
/// # Panics
/// If the slices are shorter than that, or `heads` does not divide `width` into multiples of 8 up to 128.
pub(crate) fn attention(isa: Isa, qkv: &[f32], out: &mut [f32], tokens: usize, width: usize, heads: usize) {
    assert!(qkv.len() >= tokens * 3 * width && out.len() >= tokens * width, "{tokens} tokens of {width}");
    let head = width / heads;
    assert!(head * heads == width && head <= 128, "{heads} heads of at most 128");
    for h in 0..heads {
        for t in 0..tokens {
            // SAFETY: the kernel reads head `h` of `tokens` rows and writes head `h` of row `t`, inside the slices.
            unsafe {
                isa.run(Query {
                    query: qkv.as_ptr().add(t * 3 * width + h * head),
                    keys: qkv.as_ptr().add(width + h * head),
                    values: qkv.as_ptr().add(2 * width + h * head),
                    tokens,
                    stride: 3 * width,
                    head,
                    out: out.as_mut_ptr().add(t * width + h * head),
                });
            }
        }
    }
}

/// One query against all keys.
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
        let vectors = self.head.div_ceil(S::LANES);
        let lanes = |i: usize| S::LANES.min(self.head - i * S::LANES);
        // SAFETY: the maker vouches for `tokens` keys and values of `head` numbers, and for the result.
        unsafe {
            let scale = S::splat(1.0 / (self.head as f32).sqrt());
            let mut q = [S::splat(0.0); 16];
            for (i, q) in q.iter_mut().enumerate().take(vectors) {
                *q = S::mul(S::load_first(self.query.add(i * S::LANES), lanes(i)), scale);
            }
            let mut mixed = [S::splat(0.0); 16];
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
