//! The first pass over RGB rows with AVX2: the one loop that decides how long a large photo takes.
//!
//! Three interleaved channels do not fit vectors; compilers make of them a good product and a bad sum. Here four pixels at
//! a time are shuffled into pairs per channel, multiplied and added pairwise. The instruction takes 16-bit weights, so a
//! weight is split into two, and the halves of the sum are put together at the end: the result is exact.

use std::arch::x86_64::{__m128i, __m256i};

use pulp::NullaryFnOnce;
use pulp::bytemuck::cast;
use pulp::x86::V3;

use super::{HALF, PRECISION_BITS};

/// A weight is `high × 2^LOW_BITS + low`, `low` never negative.
const LOW_BITS: i32 = 11;
/// Pixels in a step; a step reads 16 bytes.
const STEP: usize = 4;
/// Rows that share the weights while they are at hand.
const ROWS: usize = 4;

/// Weights in the order of the shuffled pixels: pairs, one for each channel and one unused, in two lanes.
type StepWeights = [i16; 16];

/// Resamples rows of `data`; `weights` are `taps` for each of `starts`.
pub(super) struct RgbRows<'a> {
    pub(super) simd: V3,
    pub(super) data: &'a [u8],
    /// Bytes of a row.
    pub(super) stride: usize,
    /// First byte of each output pixel's window.
    pub(super) starts: &'a [usize],
    pub(super) weights: &'a [i32],
    pub(super) taps: usize,
    pub(super) out: &'a mut [u8],
}

/// The high and low halves of a row of weights, padded with zeros to whole steps.
fn split(weights: &[i32], taps: usize) -> Vec<[StepWeights; 2]> {
    let step = |weights: &[i32]| {
        let at = |i: usize| weights.get(i).copied().unwrap_or(0);
        let lanes: [usize; 16] = std::array::from_fn(|i| i / 8 * 2 + i % 2);
        let low_mask = (1 << LOW_BITS) - 1;
        [lanes.map(|i| (at(i) >> LOW_BITS) as i16), lanes.map(|i| (at(i) & low_mask) as i16)]
    };
    weights.chunks_exact(taps).flat_map(|weights| weights.chunks(STEP).map(step)).collect()
}

impl NullaryFnOnce for RgbRows<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        // A zero byte above each sample makes sixteen bits of it; index 128 gives zero.
        const Z: u8 = 128;
        const PAIRS: [u8; 32] = [
            0, Z, 3, Z, 1, Z, 4, Z, 2, Z, 5, Z, Z, Z, Z, Z, //
            6, Z, 9, Z, 7, Z, 10, Z, 8, Z, 11, Z, Z, Z, Z, Z,
        ];
        let (sse2, avx, avx2) = (self.simd.sse2, self.simd.avx, self.simd.avx2);
        let pairs: __m256i = cast(PAIRS);
        let half = sse2._mm_set1_epi32(HALF);
        let weights = split(self.weights, self.taps);
        let steps = self.taps.div_ceil(STEP);
        let window = steps * STEP * 3 + STEP;
        let reach = self.starts.iter().max().map_or(0, |start| start + window);
        // Steps may read past the last pixel of a row, where the weights are zero: into the next row, or the last ones are copied to
        // places with room.
        let padded_stride = self.stride + window;
        let mut padded = vec![0; ROWS * padded_stride];
        let out_stride = self.starts.len() * 3;
        for (first, out) in (0..).step_by(ROWS).zip(self.out.chunks_mut(out_stride * ROWS)) {
            let mut rows = &self.data[first * self.stride..];
            let mut stride = self.stride;
            if rows.len() < (ROWS - 1) * stride + reach {
                for (row, place) in rows.chunks_exact(stride).zip(padded.chunks_exact_mut(padded_stride)) {
                    place[..stride].copy_from_slice(row);
                }
                (rows, stride) = (&padded, padded_stride);
            }
            for (j, (&start, weights)) in self.starts.iter().zip(weights.chunks_exact(steps)).enumerate() {
                let windows: [&[u8]; ROWS] = std::array::from_fn(|r| &rows[r * stride + start..][..window]);
                let mut sums = [[avx._mm256_setzero_si256(); 2]; ROWS];
                for (i, halves) in weights.iter().enumerate() {
                    let halves: [__m256i; 2] = [cast(halves[0]), cast(halves[1])];
                    for r in 0..ROWS {
                        let Some(bytes) = windows[r][i * STEP * 3..].first_chunk::<16>() else { break };
                        let bytes: __m128i = cast(*bytes);
                        let samples = avx2._mm256_shuffle_epi8(avx2._mm256_broadcastsi128_si256(bytes), pairs);
                        for half in 0..2 {
                            let products = avx2._mm256_madd_epi16(samples, halves[half]);
                            sums[r][half] = avx2._mm256_add_epi32(sums[r][half], products);
                        }
                    }
                }
                // Loops and no closures: what is called from here is compiled without vectors.
                let mut rounded = [half; ROWS];
                for (rounded, [high, low]) in rounded.iter_mut().zip(sums) {
                    let sum = avx2._mm256_add_epi32(avx2._mm256_slli_epi32::<LOW_BITS>(high), low);
                    let lanes = (avx._mm256_castsi256_si128(sum), avx2._mm256_extracti128_si256::<1>(sum));
                    let sum = sse2._mm_add_epi32(sse2._mm_add_epi32(lanes.0, lanes.1), half);
                    *rounded = sse2._mm_srai_epi32::<{ PRECISION_BITS as i32 }>(sum);
                }
                let [a, b, c, d] = rounded;
                // Packing cuts off what is no byte, as [`super::clip`] does.
                let (ab, cd) = (sse2._mm_packs_epi32(a, b), sse2._mm_packs_epi32(c, d));
                let pixels: [[u8; 4]; ROWS] = cast(sse2._mm_packus_epi16(ab, cd));
                for (out, pixel) in out.chunks_exact_mut(out_stride).zip(&pixels) {
                    out[j * 3..][..3].copy_from_slice(&pixel[..3]);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Span, Weights, rows, rows_portable};
    use crate::image::Interpolation;

    #[test]
    fn fast_rows_equal_plain_ones() {
        let mut state = 1_u32;
        let mut random = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        for (from, to, height) in
            [(1, 1, 1), (1, 9, 3), (5, 2, 4), (97, 31, 5), (300, 7, 9), (31, 97, 2), (640, 224, 6)]
        {
            // Black and white besides noise: the largest overshoots.
            let data: Vec<u8> =
                (0..from * height * 3).map(|i| if i % 2 == 0 { random() } else { random() / 128 * 255 }).collect();
            for flip in [false, true] {
                let span = Span { from, reduction: 1, to, start: to / 4, len: to - to / 4 };
                let weights = Weights::new(span, Interpolation::Bicubic, flip);
                let plain = rows_portable::<3>(&data, from, 0..height, &weights, 0);
                assert_eq!(rows::<3>(&data, from, 0..height, &weights, 0), plain, "{from} to {to}, flip {flip}");
            }
        }
    }
}
