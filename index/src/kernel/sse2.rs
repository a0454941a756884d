//! Kernels for x86-64 without AVX2: SSE2, which every one has.
//!
//! The portable kernels do not do here: compilers widen their products to 32 bits before they multiply, which is several times
//! the instructions. Halves are converted by the portable code; there is no instruction for it.

use std::arch::x86_64::*;

use super::{CodeQuery, Kernels, portable, prefetch_line};
use crate::vectors::Shape;

pub(super) const KERNELS: Kernels = Kernels { name: "sse2", rough, scores, pair, dot_f32, l2_f32, ..portable::KERNELS };

/// Sixteen codes less 128, as 16-bit numbers.
///
/// # Safety
/// 16 bytes can be read at `at`.
#[inline(always)]
unsafe fn load_code(at: *const u8) -> [__m128i; 2] {
    // SAFETY: the caller's; every x86-64 has SSE2.
    unsafe {
        let (raw, zero, middle) = (_mm_loadu_si128(at.cast()), _mm_setzero_si128(), _mm_set1_epi16(128));
        [_mm_unpacklo_epi8(raw, zero), _mm_unpackhi_epi8(raw, zero)].map(|wide| _mm_sub_epi16(wide, middle))
    }
}

/// Sixteen codes of a query, as 16-bit numbers.
///
/// # Safety
/// 16 bytes can be read at `at`.
#[inline(always)]
unsafe fn load_query(at: *const i8) -> [__m128i; 2] {
    // SAFETY: the caller's; every x86-64 has SSE2.
    unsafe {
        let raw = _mm_loadu_si128(at.cast());
        // Each byte twice, shifted down with its sign.
        [_mm_unpacklo_epi8(raw, raw), _mm_unpackhi_epi8(raw, raw)].map(|twice| _mm_srai_epi16(twice, 8))
    }
}

#[inline(always)]
fn add_products(sums: &mut [__m128i; 2], a: [__m128i; 2], b: [__m128i; 2]) {
    for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
        // SAFETY: every x86-64 has SSE2.
        *sum = unsafe { _mm_add_epi32(*sum, _mm_madd_epi16(a, b)) };
    }
}

#[inline(always)]
fn add_up(sums: [__m128i; 2]) -> i32 {
    // SAFETY: every x86-64 has SSE2.
    unsafe {
        let four = _mm_add_epi32(sums[0], sums[1]);
        let two = _mm_add_epi32(four, _mm_shuffle_epi32(four, 0b01_00_11_10));
        _mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32(two, 0b10_11_00_01)))
    }
}

/// # Safety
/// As [`portable`]'s `halves`.
#[inline(always)]
unsafe fn halves(query: &CodeQuery, plane: *const u8, len: usize, next: *const u8) -> i32 {
    // SAFETY: 16 bytes lie at every multiple of 16 below `len`, and as many numbers of the query in each of its halves; every x86-64
    // has SSE2.
    unsafe {
        let q = query.lines.as_ptr().cast::<i8>();
        let (zero, mask) = (_mm_setzero_si128(), _mm_set1_epi8(0x0f));
        let wide = |halves| [_mm_unpacklo_epi8(halves, zero), _mm_unpackhi_epi8(halves, zero)];
        let mut sums = [zero; 2];
        for at in (0..len).step_by(16) {
            if at.is_multiple_of(64) {
                prefetch_line(next.wrapping_add(at));
            }
            let raw = _mm_loadu_si128(plane.add(at).cast());
            add_products(&mut sums, wide(_mm_and_si128(raw, mask)), load_query(q.add(at)));
            add_products(&mut sums, wide(_mm_and_si128(_mm_srli_epi16(raw, 4), mask)), load_query(q.add(len + at)));
        }
        add_up(sums)
    }
}

code_kernels!(rough, scores, halves);

/// # Safety
/// Equal lengths, a multiple of 64.
unsafe fn pair(a: &[u8], b: &[u8]) -> i32 {
    // SAFETY: 16 bytes lie at every multiple of 16 below the length.
    unsafe {
        let mut sums = [_mm_setzero_si128(); 2];
        for at in (0..a.len()).step_by(16) {
            add_products(&mut sums, load_code(a.as_ptr().add(at)), load_code(b.as_ptr().add(at)));
        }
        add_up(sums)
    }
}

#[inline(always)]
fn float_at(row: &[u8], at: usize) -> f32 {
    f32::from_le_bytes([row[4 * at], row[4 * at + 1], row[4 * at + 2], row[4 * at + 3]])
}

#[inline(always)]
fn sum(q: &[f32], row: &[u8], step: impl Fn(__m128, __m128) -> __m128, tail: impl Fn(f32, f32) -> f32) -> f32 {
    let whole = q.len() / 16 * 16;
    let mut four = [0.0; 4];
    // SAFETY: four numbers lie at every place below `whole` in both; every x86-64 has SSE2.
    unsafe {
        let mut sums = [_mm_setzero_ps(); 4];
        for i in (0..whole).step_by(16) {
            for (lane, sum) in sums.iter_mut().enumerate() {
                let at = i + 4 * lane;
                let (a, b) = (_mm_loadu_ps(q.as_ptr().add(at)), _mm_loadu_ps(row.as_ptr().add(4 * at).cast()));
                *sum = _mm_add_ps(*sum, step(a, b));
            }
        }
        let all = _mm_add_ps(_mm_add_ps(sums[0], sums[1]), _mm_add_ps(sums[2], sums[3]));
        _mm_storeu_ps(four.as_mut_ptr(), all);
    }
    four.iter().sum::<f32>() + (whole..q.len()).map(|i| tail(q[i], float_at(row, i))).sum::<f32>()
}

/// # Safety
/// The row is as long as the query.
unsafe fn dot_f32(q: &[f32], row: &[u8]) -> f32 {
    // SAFETY: every x86-64 has SSE2.
    sum(q, row, |a, b| unsafe { _mm_mul_ps(a, b) }, |a, b| a * b)
}

/// # Safety
/// The row is as long as the query.
unsafe fn l2_f32(q: &[f32], row: &[u8]) -> f32 {
    let square = |a, b| {
        // SAFETY: every x86-64 has SSE2.
        unsafe {
            let d = _mm_sub_ps(a, b);
            _mm_mul_ps(d, d)
        }
    };
    sum(q, row, square, |a, b| (a - b).powi(2))
}
