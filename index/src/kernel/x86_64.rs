//! Kernels for x86-64 with AVX2, and with AVX-512 and VNNI.

use std::arch::x86_64::*;

use super::{CodeQuery, Kernels, Lanes, Wide, half_at, prefetch_line};
use crate::vectors::Shape;

const AVX2: Kernels = Kernels {
    name: "avx2",
    lanes: Lanes::Avx2,
    rough: rough_avx2,
    scores: scores_avx2,
    merge: merge_avx2,
    pair: pair_avx2,
    dot_f32: dot_f32_avx2,
    dot_f16: dot_f16_avx2,
    l2_f32: l2_f32_avx2,
    l2_f16: l2_f16_avx2,
};

/// The exact rows stay with AVX2 when they are f16: converting them costs the same at either width.
const AVX512: Kernels = Kernels {
    name: "avx512-vnni",
    lanes: Lanes::Avx512,
    rough: rough_avx512,
    scores: scores_avx512,
    merge: merge_avx512,
    pair: pair_avx512,
    dot_f32: dot_f32_avx512,
    dot_f16: dot_f16_avx2,
    l2_f32: l2_f32_avx512,
    l2_f16: l2_f16_avx2,
};

/// Kernels that this processor runs, slowest first.
pub(super) fn available() -> Vec<Kernels> {
    let mut all = Vec::new();
    let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c");
    if avx2 {
        all.push(AVX2);
    }
    if avx2
        && is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vnni")
    {
        all.push(AVX512);
    }
    all
}

/// # Safety
/// The processor has AVX2, FMA and F16C.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn wide_avx2<W: Wide>(work: W) -> W::Output {
    work.run()
}

/// # Safety
/// The processor has AVX-512 F and BW.
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) unsafe fn wide_avx512<W: Wide>(work: W) -> W::Output {
    work.run()
}

/// Bytes of a plane whose products fit into 16-bit sums: eight times two of them, each at most 15·127.
const NARROW: usize = 256;

/// # Safety
/// As [`super::portable`]'s `halves`; the processor has AVX2.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn halves_avx2(query: &CodeQuery, plane: *const u8, len: usize, next: *const u8) -> i32 {
    let (mask, ones) = (_mm256_set1_epi8(0x0f), _mm256_set1_epi16(1));
    let q = query.lines.as_ptr().cast::<i8>();
    let mut sums = _mm256_setzero_si256();
    for start in (0..len).step_by(NARROW) {
        let mut narrow = [_mm256_setzero_si256(); 2];
        for at in (start..len.min(start + NARROW)).step_by(32) {
            if at.is_multiple_of(64) {
                prefetch_line(next.wrapping_add(at));
            }
            // SAFETY: 32 bytes lie at every multiple of 32 below `len`, and as many numbers of the query in each of its halves.
            let (raw, first, second) = unsafe {
                (
                    _mm256_loadu_si256(plane.add(at).cast()),
                    _mm256_loadu_si256(q.add(at).cast()),
                    _mm256_loadu_si256(q.add(len + at).cast()),
                )
            };
            let (low, high) = (_mm256_and_si256(raw, mask), _mm256_and_si256(_mm256_srli_epi16(raw, 4), mask));
            narrow[0] = _mm256_add_epi16(narrow[0], _mm256_maddubs_epi16(low, first));
            narrow[1] = _mm256_add_epi16(narrow[1], _mm256_maddubs_epi16(high, second));
        }
        for narrow in narrow {
            sums = _mm256_add_epi32(sums, _mm256_madd_epi16(narrow, ones));
        }
    }
    reduce_avx2(sums)
}

code_kernels!(
    #[target_feature(enable = "avx2,fma,f16c")]
    rough_avx2,
    scores_avx2,
    halves_avx2
);

/// 32 codes, moved from 0..=255 to -128..=127.
///
/// # Safety
/// 32 bytes can be read at `at`.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn load_signed(at: *const u8) -> __m256i {
    // SAFETY: the caller's.
    let raw = unsafe { _mm256_loadu_si256(at.cast()) };
    _mm256_xor_si256(raw, _mm256_set1_epi8(-128))
}

/// Sums of four neighbouring products. The magnitude of one side times the other side with its sign: at most 128·127·2 < 2¹⁵,
/// so the 16-bit sums of `maddubs` never saturate, whatever `c` holds (|−128| is 128 as an unsigned byte). `q` is never -128.
#[inline]
#[target_feature(enable = "avx2")]
fn multiply_signed(c: __m256i, q: __m256i) -> __m256i {
    let pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(c), _mm256_sign_epi8(q, c));
    _mm256_madd_epi16(pairs, _mm256_set1_epi16(1))
}

#[inline]
#[target_feature(enable = "avx2")]
fn reduce_avx2(sums: __m256i) -> i32 {
    let four = _mm_add_epi32(_mm256_castsi256_si128(sums), _mm256_extracti128_si256(sums, 1));
    let two = _mm_add_epi32(four, _mm_shuffle_epi32(four, 0b01_00_11_10));
    _mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32(two, 0b10_11_00_01)))
}

/// # Safety
/// Equal lengths, a multiple of 64; the processor has AVX2. A code of 0 in `b`, which is -128, makes the product wrong.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn pair_avx2(a: &[u8], b: &[u8]) -> i32 {
    let mut sums = [_mm256_setzero_si256(); 2];
    for at in (0..a.len()).step_by(64) {
        for (half, sum) in sums.iter_mut().enumerate() {
            let at = at + 32 * half;
            // SAFETY: 32 bytes lie at `at` in both.
            let (x, y) = unsafe { (load_signed(a.as_ptr().add(at)), load_signed(b.as_ptr().add(at))) };
            *sum = _mm256_add_epi32(*sum, multiply_signed(x, y));
        }
    }
    reduce_avx2(_mm256_add_epi32(sums[0], sums[1]))
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn add_lanes(sums: [__m256; 4]) -> f32 {
    let eight = _mm256_add_ps(_mm256_add_ps(sums[0], sums[1]), _mm256_add_ps(sums[2], sums[3]));
    let four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps(two, two, 1)))
}

macro_rules! exact_avx2 {
    ($name:ident, $width:literal, $load:expr, $step:expr, $tail:expr) => {
        /// # Safety
        /// The row is as long as the query; the processor has AVX2, FMA and F16C.
        #[target_feature(enable = "avx2,fma,f16c")]
        unsafe fn $name(q: &[f32], row: &[u8]) -> f32 {
            let mut sums = [_mm256_setzero_ps(); 4];
            let whole = q.len() / 32 * 32;
            for i in (0..whole).step_by(32) {
                for (lane, sum) in sums.iter_mut().enumerate() {
                    let at = i + 8 * lane;
                    // SAFETY: eight numbers lie at `at` in both.
                    let (a, b) = unsafe { (_mm256_loadu_ps(q.as_ptr().add(at)), $load(row.as_ptr().add($width * at))) };
                    *sum = $step(a, b, *sum);
                }
            }
            let tail: f32 = (whole..q.len()).map(|i| $tail(q[i], row, i)).sum();
            add_lanes(sums) + tail
        }
    };
}

#[inline(always)]
fn float_at(row: &[u8], at: usize) -> f32 {
    f32::from_le_bytes([row[4 * at], row[4 * at + 1], row[4 * at + 2], row[4 * at + 3]])
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn square_step(a: __m256, b: __m256, sum: __m256) -> __m256 {
    let d = _mm256_sub_ps(a, b);
    _mm256_fmadd_ps(d, d, sum)
}

/// # Safety
/// 16 bytes can be read at `at`.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn load_half(at: *const u8) -> __m256 {
    // SAFETY: the caller's.
    unsafe { _mm256_cvtph_ps(_mm_loadu_si128(at.cast())) }
}

/// # Safety
/// 32 bytes can be read at `at`.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn load_float(at: *const u8) -> __m256 {
    // SAFETY: the caller's.
    unsafe { _mm256_loadu_ps(at.cast()) }
}

exact_avx2!(dot_f32_avx2, 4, load_float, _mm256_fmadd_ps, |q: f32, row, i| q * float_at(row, i));
exact_avx2!(dot_f16_avx2, 2, load_half, _mm256_fmadd_ps, |q: f32, row, i| q * half_at(row, i));
exact_avx2!(l2_f32_avx2, 4, load_float, square_step, |q: f32, row, i| (q - float_at(row, i)).powi(2));
exact_avx2!(l2_f16_avx2, 2, load_half, square_step, |q: f32, row, i| (q - half_at(row, i)).powi(2));

/// # Safety
/// As [`super::portable`]'s `halves`; the processor has AVX-512 F, BW and VNNI.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn halves_avx512(query: &CodeQuery, plane: *const u8, len: usize, next: *const u8) -> i32 {
    let mask = _mm512_set1_epi8(0x0f);
    let q = query.lines.as_ptr().cast::<i8>();
    let mut sums = [_mm512_setzero_si512(); 2];
    let whole = len / 64 * 64;
    for at in (0..whole).step_by(64) {
        prefetch_line(next.wrapping_add(at));
        // SAFETY: 64 bytes lie at `at`, and as many numbers of the query in each of its halves.
        let (raw, first, second) = unsafe {
            (
                _mm512_loadu_si512(plane.add(at).cast()),
                _mm512_loadu_si512(q.add(at).cast()),
                _mm512_loadu_si512(q.add(len + at).cast()),
            )
        };
        let (low, high) = (_mm512_and_si512(raw, mask), _mm512_and_si512(_mm512_srli_epi16(raw, 4), mask));
        sums[0] = _mm512_dpbusd_epi32(sums[0], low, first);
        sums[1] = _mm512_dpbusd_epi32(sums[1], high, second);
    }
    if whole < len {
        prefetch_line(next.wrapping_add(whole));
        // SAFETY: a plane is a multiple of 32 bytes, so 32 are left, and as many numbers of the query in each of its halves.
        let (raw, first, second) = unsafe {
            (
                _mm512_zextsi256_si512(_mm256_loadu_si256(plane.add(whole).cast())),
                _mm512_zextsi256_si512(_mm256_loadu_si256(q.add(whole).cast())),
                _mm512_zextsi256_si512(_mm256_loadu_si256(q.add(len + whole).cast())),
            )
        };
        let (low, high) = (_mm512_and_si512(raw, mask), _mm512_and_si512(_mm512_srli_epi16(raw, 4), mask));
        sums[0] = _mm512_dpbusd_epi32(sums[0], low, first);
        sums[1] = _mm512_dpbusd_epi32(sums[1], high, second);
    }
    _mm512_reduce_add_epi32(_mm512_add_epi32(sums[0], sums[1]))
}

code_kernels!(
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    rough_avx512,
    scores_avx512,
    halves_avx512
);

macro_rules! merge {
    ($name:ident, $features:literal, $lanes:literal, $move_on:ident) => {
        /// From the end, a block of entries at a time, what is worse moves on by one: finding the place and making room are one
        /// pass, over as much of the list as has to move anyway.
        ///
        /// # Safety
        /// The lists have room for `keep` entries, or for all that there will be, and hold `len`; there are as many places as
        /// scores; the processor has the features.
        #[target_feature(enable = $features)]
        unsafe fn $name(
            list: &mut [f32],
            list_places: &mut [u32],
            mut len: usize,
            keep: usize,
            places: &[u32],
            scores: &[f32],
        ) -> (usize, usize) {
            let mut first = usize::MAX;
            let (list, list_places) = (list.as_mut_ptr(), list_places.as_mut_ptr());
            for (&score, &place) in scores.iter().zip(places) {
                // SAFETY: the list holds `len` entries.
                if score.is_nan() || len == keep && (len == 0 || score <= unsafe { *list.add(len - 1) }) {
                    continue;
                }
                len -= usize::from(len == keep);
                let mut to = len;
                // SAFETY: entries below `to` are inside the list, and with `len` less than `keep` so is one more.
                unsafe {
                    while to >= $lanes && $move_on(list.add(to - $lanes), list_places.add(to - $lanes), score) {
                        to -= $lanes;
                    }
                    while to > 0 && *list.add(to - 1) < score {
                        *list.add(to) = *list.add(to - 1);
                        *list_places.add(to) = *list_places.add(to - 1);
                        to -= 1;
                    }
                    *list.add(to) = score;
                    *list_places.add(to) = place;
                }
                len += 1;
                first = first.min(to);
            }
            (first, len)
        }
    };
}

/// Moves eight entries on by one if all are worse.
///
/// # Safety
/// Nine entries lie at both places.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn move_on_avx2(list: *mut f32, places: *mut u32, score: f32) -> bool {
    // SAFETY: the caller's.
    unsafe {
        let (block, block_places) = (_mm256_loadu_ps(list), _mm256_loadu_si256(places.cast()));
        let worse = _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_GE_OQ>(block, _mm256_set1_ps(score))) == 0;
        if worse {
            _mm256_storeu_ps(list.add(1), block);
            _mm256_storeu_si256(places.add(1).cast(), block_places);
        }
        worse
    }
}

/// Moves sixteen entries on by one if all are worse.
///
/// # Safety
/// Seventeen entries lie at both places.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn move_on_avx512(list: *mut f32, places: *mut u32, score: f32) -> bool {
    // SAFETY: the caller's.
    unsafe {
        let (block, block_places) = (_mm512_loadu_ps(list), _mm512_loadu_si512(places.cast()));
        let worse = _mm512_cmp_ps_mask::<_CMP_GE_OQ>(block, _mm512_set1_ps(score)) == 0;
        if worse {
            _mm512_storeu_ps(list.add(1), block);
            _mm512_storeu_si512(places.add(1).cast(), block_places);
        }
        worse
    }
}

merge!(merge_avx2, "avx2,fma,f16c", 8, move_on_avx2);
merge!(merge_avx512, "avx512f,avx512bw,avx512vnni", 16, move_on_avx512);

/// # Safety
/// Equal lengths, a multiple of 64; the processor has AVX-512 F, BW and VNNI.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn pair_avx512(a: &[u8], b: &[u8]) -> i32 {
    let (mut sums, mut total) = (_mm512_setzero_si512(), _mm512_setzero_si512());
    let flip = _mm512_set1_epi8(-128);
    let ones = _mm512_set1_epi8(1);
    for at in (0..a.len()).step_by(64) {
        // SAFETY: 64 bytes lie at `at` in both.
        let (x, y) =
            unsafe { (_mm512_loadu_si512(a.as_ptr().add(at).cast()), _mm512_loadu_si512(b.as_ptr().add(at).cast())) };
        let y = _mm512_xor_si512(y, flip);
        sums = _mm512_dpbusd_epi32(sums, x, y);
        total = _mm512_dpbusd_epi32(total, ones, y);
    }
    // Σ x·y' - 128·Σ y' with y' = y - 128.
    _mm512_reduce_add_epi32(_mm512_sub_epi32(sums, _mm512_slli_epi32(total, 7)))
}

macro_rules! exact_avx512 {
    ($name:ident, $step:expr, $tail:expr) => {
        /// # Safety
        /// The row is as long as the query; the processor has AVX-512 F.
        #[target_feature(enable = "avx512f")]
        unsafe fn $name(q: &[f32], row: &[u8]) -> f32 {
            let mut sums = [_mm512_setzero_ps(); 4];
            let whole = q.len() / 64 * 64;
            for i in (0..whole).step_by(64) {
                for (lane, sum) in sums.iter_mut().enumerate() {
                    let at = i + 16 * lane;
                    // SAFETY: sixteen numbers lie at `at` in both.
                    let (a, b) = unsafe {
                        (_mm512_loadu_ps(q.as_ptr().add(at)), _mm512_loadu_ps(row.as_ptr().add(4 * at).cast()))
                    };
                    *sum = $step(a, b, *sum);
                }
            }
            let tail: f32 = (whole..q.len()).map(|i| $tail(q[i], float_at(row, i))).sum();
            _mm512_reduce_add_ps(_mm512_add_ps(_mm512_add_ps(sums[0], sums[1]), _mm512_add_ps(sums[2], sums[3]))) + tail
        }
    };
}

#[inline]
#[target_feature(enable = "avx512f")]
fn square_step_512(a: __m512, b: __m512, sum: __m512) -> __m512 {
    let d = _mm512_sub_ps(a, b);
    _mm512_fmadd_ps(d, d, sum)
}

exact_avx512!(dot_f32_avx512, _mm512_fmadd_ps, |a: f32, b: f32| a * b);
exact_avx512!(l2_f32_avx512, square_step_512, |a: f32, b: f32| (a - b).powi(2));
