//! AVX2 and AVX-512 as [`Simd`].

use std::arch::x86_64::*;

use super::simd::{Kernel, Rich, Simd};

/// 256-bit vectors with fused multiply-add.
#[derive(Clone, Copy)]
pub(crate) struct Avx2;

/// 512-bit vectors.
#[derive(Clone, Copy)]
pub(crate) struct Avx512;

impl Avx2 {
    pub(crate) fn present() -> bool {
        is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")
    }

    /// The byte dot product, where there is one.
    pub(crate) fn rich() -> Vec<Rich> {
        if is_x86_feature_detected!("avxvnni") { vec![Rich::Bytes] } else { Vec::new() }
    }
}

impl Avx512 {
    pub(crate) fn present() -> bool {
        Avx2::present()
            && is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
    }

    /// The byte dot product alone and with products of bf16, the best first.
    pub(crate) fn rich() -> Vec<Rich> {
        match (is_x86_feature_detected!("avx512vnni"), is_x86_feature_detected!("avx512bf16")) {
            (true, true) => vec![Rich::Both, Rich::Bytes],
            (true, false) => vec![Rich::Bytes],
            (false, _) => Vec::new(),
        }
    }
}

/// # Safety
/// As [`Kernel::run`].
#[target_feature(enable = "avx2,fma")]
pub(crate) unsafe fn run_avx2<K: Kernel>(kernel: K) -> K::Output {
    // SAFETY: the features are enabled here; the rest is the caller's promise.
    unsafe { kernel.run::<Avx2>() }
}

/// # Safety
/// As [`Kernel::run`].
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")]
pub(crate) unsafe fn run_avx512<K: Kernel>(kernel: K) -> K::Output {
    // SAFETY: the features are enabled here; the rest is the caller's promise.
    unsafe { kernel.run::<Avx512>() }
}

/// For kernels of `dot_rich`.
///
/// # Safety
/// As [`Kernel::run`].
#[target_feature(enable = "avx2,fma,avxvnni")]
pub(crate) unsafe fn run_avx2_bytes<K: Kernel>(kernel: K) -> K::Output {
    // SAFETY: the features are enabled here; the rest is the caller's promise.
    unsafe { kernel.run::<Avx2>() }
}

/// For kernels of `dot_rich`.
///
/// # Safety
/// As [`Kernel::run`].
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(crate) unsafe fn run_avx512_bytes<K: Kernel>(kernel: K) -> K::Output {
    // SAFETY: the features are enabled here; the rest is the caller's promise.
    unsafe { kernel.run::<Avx512>() }
}

/// For kernels of `dot_rich`, `dot_pairs_rich` and `store_pairs_rich`.
///
/// # Safety
/// As [`Kernel::run`].
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16")]
pub(crate) unsafe fn run_avx512_pairs<K: Kernel>(kernel: K) -> K::Output {
    // SAFETY: the features are enabled here; the rest is the caller's promise.
    unsafe { kernel.run::<Avx512>() }
}

/// One-line wrappers around intrinsics.
macro_rules! wrap {
    ($($name:ident($($arg:ident: $kind:ty),*) -> $out:ty = $body:expr;)*) => {$(
        #[inline(always)]
        unsafe fn $name($($arg: $kind),*) -> $out {
            // SAFETY: the caller vouches for the instruction set and for the pointers.
            unsafe { $body }
        }
    )*};
}

/// Lane mask of AVX2's masked moves: all ones in the first `n` lanes.
#[inline(always)]
unsafe fn first(n: usize) -> __m256i {
    const ONES_THEN_ZEROS: [i32; 16] = [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0];
    debug_assert!(n <= 8);
    // SAFETY: n ≤ 8, so the eight numbers from 8 - n lie inside the table.
    unsafe { _mm256_loadu_si256(ONES_THEN_ZEROS.as_ptr().add(8 - n).cast()) }
}

/// Numbers with bf16, rounded to nearest and ties to even, in their upper halves.
#[inline(always)]
unsafe fn rounded8(v: __m256) -> __m256i {
    // SAFETY: arithmetic only; the caller vouches for the instruction set.
    unsafe {
        let bits = _mm256_castps_si256(v);
        let odd = _mm256_and_si256(_mm256_srli_epi32::<16>(bits), _mm256_set1_epi32(1));
        _mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7fff)), odd)
    }
}

impl Simd for Avx2 {
    type F = __m256;
    type I = __m256i;
    const LANES: usize = 8;
    const ROWS: usize = 6;
    const RICH: Rich = Rich::Bytes;

    wrap! {
        splat(x: f32) -> __m256 = _mm256_set1_ps(x);
        load(p: *const f32) -> __m256 = _mm256_loadu_ps(p);
        store(p: *mut f32, v: __m256) -> () = _mm256_storeu_ps(p, v);
        store_first(p: *mut f32, v: __m256, n: usize) -> () = _mm256_maskstore_ps(p, first(n), v);
        load_first(p: *const f32, n: usize) -> __m256 = _mm256_maskload_ps(p, first(n));
        fma(a: __m256, b: __m256, c: __m256) -> __m256 = _mm256_fmadd_ps(a, b, c);
        add(a: __m256, b: __m256) -> __m256 = _mm256_add_ps(a, b);
        sub(a: __m256, b: __m256) -> __m256 = _mm256_sub_ps(a, b);
        mul(a: __m256, b: __m256) -> __m256 = _mm256_mul_ps(a, b);
        div(a: __m256, b: __m256) -> __m256 = _mm256_div_ps(a, b);
        min(a: __m256, b: __m256) -> __m256 = _mm256_min_ps(a, b);
        max(a: __m256, b: __m256) -> __m256 = _mm256_max_ps(a, b);
        abs(v: __m256) -> __m256 = _mm256_andnot_ps(_mm256_set1_ps(-0.0), v);
        round(v: __m256) -> __m256 = _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(v);
        exp2_whole(n: __m256) -> __m256 = _mm256_castsi256_ps(_mm256_slli_epi32::<23>(
            _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127))));
        zero() -> __m256i = _mm256_setzero_si256();
        splat_bytes(p: *const u8) -> __m256i = _mm256_set1_epi32(p.cast::<i32>().read_unaligned());
        load_quads(p: *const i8) -> __m256i = _mm256_loadu_si256(p.cast());
        dot_low(unsigned: [__m256i; 2], signed: [__m256i; 2], sum: __m256i) -> __m256i = _mm256_add_epi32(
            sum, _mm256_madd_epi16(_mm256_add_epi16(
                _mm256_maddubs_epi16(unsigned[0], signed[0]), _mm256_maddubs_epi16(unsigned[1], signed[1])),
                _mm256_set1_epi16(1)));
        dot_rich(unsigned: __m256i, signed: __m256i, sum: __m256i) -> __m256i =
            _mm256_dpbusd_avx_epi32(sum, unsigned, signed);
        to_float(v: __m256i) -> __m256 = _mm256_cvtepi32_ps(v);
        signed_byte(v: __m256i, which: usize) -> __m256i = _mm256_srai_epi32::<24>(
            _mm256_sll_epi32(v, _mm_cvtsi32_si128(24 - 8 * which as i32)));
        halves(v: __m256i) -> (__m256, __m256) = (
            _mm256_castsi256_ps(_mm256_and_si256(v, _mm256_set1_epi32(-65536))),
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(v)));
        load_pairs(p: *const u16) -> __m256 = _mm256_castsi256_ps(_mm256_slli_epi32::<16>(
            _mm256_cvtepu16_epi32(_mm_loadu_si128(p.cast()))));
        prefetch(p: *const u8) -> () = _mm_prefetch::<_MM_HINT_T0>(p.cast());
    }
    #[inline(always)]
    unsafe fn store_bytes(p: *mut u8, v: __m256) {
        // SAFETY: arithmetic, and a store of the eight bytes that the caller vouches for.
        unsafe {
            let v = _mm256_cvtps_epi32(v);
            let words = _mm_packs_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256::<1>(v));
            _mm_storel_epi64(p.cast(), _mm_packus_epi16(words, words));
        }
    }
    /// In 16-bit steps: the byte multiply-add of AVX2 saturates, and its results would differ from other machines'.
    #[inline(always)]
    unsafe fn dot(unsigned: __m256i, signed: __m256i, sum: __m256i) -> __m256i {
        // SAFETY: arithmetic only; the caller vouches for the instruction set.
        unsafe {
            let even = _mm256_and_si256(unsigned, _mm256_set1_epi16(255));
            let odd = _mm256_srli_epi16::<8>(unsigned);
            let evens = _mm256_madd_epi16(even, _mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(signed)));
            let odds = _mm256_madd_epi16(odd, _mm256_srai_epi16::<8>(signed));
            _mm256_add_epi32(sum, _mm256_add_epi32(evens, odds))
        }
    }
    #[inline(always)]
    unsafe fn store_pairs(p: *mut u16, v: __m256) {
        // SAFETY: arithmetic, and a store of the eight numbers that the caller vouches for.
        unsafe {
            let high = _mm256_srli_epi32::<16>(rounded8(v));
            let packed = _mm_packus_epi32(_mm256_castsi256_si128(high), _mm256_extracti128_si256::<1>(high));
            _mm_storeu_si128(p.cast(), packed);
        }
    }
    #[inline(always)]
    unsafe fn sum(v: __m256) -> f32 {
        // SAFETY: arithmetic only; the caller vouches for the instruction set.
        unsafe {
            let v = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
            let v = _mm_add_ps(v, _mm_movehl_ps(v, v));
            _mm_cvtss_f32(_mm_add_ss(v, _mm_movehdup_ps(v)))
        }
    }
    #[inline(always)]
    unsafe fn largest(v: __m256) -> f32 {
        // SAFETY: arithmetic only; the caller vouches for the instruction set.
        unsafe {
            let v = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
            let v = _mm_max_ps(v, _mm_movehl_ps(v, v));
            _mm_cvtss_f32(_mm_max_ss(v, _mm_movehdup_ps(v)))
        }
    }
    #[inline(always)]
    unsafe fn interleave(p: [*const u8; 3]) -> [__m256i; 4] {
        // SAFETY: loads of the bytes that the caller vouches for, then arithmetic.
        unsafe {
            let [a, b, c] =
                [Self::load_quads(p[0].cast()), Self::load_quads(p[1].cast()), Self::load_quads(p[2].cast())];
            let zero = Self::zero();
            let (ab, cz) = (_mm256_unpacklo_epi8(a, b), _mm256_unpacklo_epi8(c, zero));
            let (ab_high, cz_high) = (_mm256_unpackhi_epi8(a, b), _mm256_unpackhi_epi8(c, zero));
            [
                _mm256_unpacklo_epi16(ab, cz),
                _mm256_unpackhi_epi16(ab, cz),
                _mm256_unpacklo_epi16(ab_high, cz_high),
                _mm256_unpackhi_epi16(ab_high, cz_high),
            ]
        }
    }
    #[inline(always)]
    unsafe fn store_interleaved(p: *mut u8, v: [__m256; 4]) {
        // SAFETY: arithmetic, then a store to the bytes that the caller vouches for.
        unsafe {
            let low = _mm256_packs_epi32(_mm256_cvtps_epi32(v[0]), _mm256_cvtps_epi32(v[1]));
            let high = _mm256_packs_epi32(_mm256_cvtps_epi32(v[2]), _mm256_cvtps_epi32(v[3]));
            _mm256_storeu_si256(p.cast(), _mm256_packus_epi16(low, high));
        }
    }
}

/// Lane mask of the first `n` ≤ 16 lanes.
#[inline(always)]
fn first16(n: usize) -> __mmask16 {
    ((1u32 << n) - 1) as u16
}

/// As [`rounded8`].
#[inline(always)]
unsafe fn rounded16(v: __m512) -> __m512i {
    // SAFETY: arithmetic only; the caller vouches for the instruction set.
    unsafe {
        let bits = _mm512_castps_si512(v);
        let odd = _mm512_and_si512(_mm512_srli_epi32::<16>(bits), _mm512_set1_epi32(1));
        _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), odd)
    }
}

impl Simd for Avx512 {
    type F = __m512;
    type I = __m512i;
    const LANES: usize = 16;
    // 13 × 2 accumulators, two weight vectors, one broadcast: 29 of 32 registers.
    const ROWS: usize = 13;
    const RICH: Rich = Rich::Both;

    wrap! {
        splat(x: f32) -> __m512 = _mm512_set1_ps(x);
        load(p: *const f32) -> __m512 = _mm512_loadu_ps(p);
        store(p: *mut f32, v: __m512) -> () = _mm512_storeu_ps(p, v);
        store_first(p: *mut f32, v: __m512, n: usize) -> () = _mm512_mask_storeu_ps(p, first16(n), v);
        load_first(p: *const f32, n: usize) -> __m512 = _mm512_maskz_loadu_ps(first16(n), p);
        fma(a: __m512, b: __m512, c: __m512) -> __m512 = _mm512_fmadd_ps(a, b, c);
        add(a: __m512, b: __m512) -> __m512 = _mm512_add_ps(a, b);
        sub(a: __m512, b: __m512) -> __m512 = _mm512_sub_ps(a, b);
        mul(a: __m512, b: __m512) -> __m512 = _mm512_mul_ps(a, b);
        div(a: __m512, b: __m512) -> __m512 = _mm512_div_ps(a, b);
        min(a: __m512, b: __m512) -> __m512 = _mm512_min_ps(a, b);
        max(a: __m512, b: __m512) -> __m512 = _mm512_max_ps(a, b);
        abs(v: __m512) -> __m512 = _mm512_abs_ps(v);
        round(v: __m512) -> __m512 = _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT }>(v);
        exp2_whole(n: __m512) -> __m512 = _mm512_scalef_ps(_mm512_set1_ps(1.0), n);
        sum(v: __m512) -> f32 = _mm512_reduce_add_ps(v);
        largest(v: __m512) -> f32 = _mm512_reduce_max_ps(v);
        store_bytes(p: *mut u8, v: __m512) -> () = _mm_storeu_si128(p.cast(), _mm512_cvtusepi32_epi8(
            _mm512_cvtps_epi32(_mm512_max_ps(v, _mm512_setzero_ps()))));
        zero() -> __m512i = _mm512_setzero_si512();
        splat_bytes(p: *const u8) -> __m512i = _mm512_set1_epi32(p.cast::<i32>().read_unaligned());
        load_quads(p: *const i8) -> __m512i = _mm512_loadu_si512(p.cast());
        dot_low(unsigned: [__m512i; 2], signed: [__m512i; 2], sum: __m512i) -> __m512i = _mm512_add_epi32(
            sum, _mm512_madd_epi16(_mm512_add_epi16(
                _mm512_maddubs_epi16(unsigned[0], signed[0]), _mm512_maddubs_epi16(unsigned[1], signed[1])),
                _mm512_set1_epi16(1)));
        dot_rich(unsigned: __m512i, signed: __m512i, sum: __m512i) -> __m512i =
            _mm512_dpbusd_epi32(sum, unsigned, signed);
        to_float(v: __m512i) -> __m512 = _mm512_cvtepi32_ps(v);
        signed_byte(v: __m512i, which: usize) -> __m512i = _mm512_srai_epi32::<24>(
            _mm512_sll_epi32(v, _mm_cvtsi32_si128(24 - 8 * which as i32)));
        halves(v: __m512i) -> (__m512, __m512) = (
            _mm512_castsi512_ps(_mm512_and_si512(v, _mm512_set1_epi32(-65536))),
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(v)));
        dot_pairs_rich(a: __m512i, b: __m512i, sum: __m512) -> __m512 = _mm512_dpbf16_ps(
            sum, std::mem::transmute::<__m512i, __m512bh>(a), std::mem::transmute::<__m512i, __m512bh>(b));
        store_pairs(p: *mut u16, v: __m512) -> () = _mm256_storeu_si256(
            p.cast(), _mm512_cvtepi32_epi16(_mm512_srli_epi32::<16>(rounded16(v))));
        store_pairs_rich(p: *mut u16, v: __m512) -> () = _mm256_storeu_si256(
            p.cast(), std::mem::transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(v)));
        load_pairs(p: *const u16) -> __m512 = _mm512_castsi512_ps(_mm512_slli_epi32::<16>(
            _mm512_cvtepu16_epi32(_mm256_loadu_si256(p.cast()))));
        prefetch(p: *const u8) -> () = _mm_prefetch::<_MM_HINT_T0>(p.cast());
    }
    /// As on AVX2.
    #[inline(always)]
    unsafe fn dot(unsigned: __m512i, signed: __m512i, sum: __m512i) -> __m512i {
        // SAFETY: arithmetic only; the caller vouches for the instruction set.
        unsafe {
            let even = _mm512_and_si512(unsigned, _mm512_set1_epi16(255));
            let odd = _mm512_srli_epi16::<8>(unsigned);
            let evens = _mm512_madd_epi16(even, _mm512_srai_epi16::<8>(_mm512_slli_epi16::<8>(signed)));
            let odds = _mm512_madd_epi16(odd, _mm512_srai_epi16::<8>(signed));
            _mm512_add_epi32(sum, _mm512_add_epi32(evens, odds))
        }
    }
    #[inline(always)]
    unsafe fn interleave(p: [*const u8; 3]) -> [__m512i; 4] {
        // SAFETY: loads of the bytes that the caller vouches for, then arithmetic.
        unsafe {
            let [a, b, c] =
                [Self::load_quads(p[0].cast()), Self::load_quads(p[1].cast()), Self::load_quads(p[2].cast())];
            let zero = Self::zero();
            let (ab, cz) = (_mm512_unpacklo_epi8(a, b), _mm512_unpacklo_epi8(c, zero));
            let (ab_high, cz_high) = (_mm512_unpackhi_epi8(a, b), _mm512_unpackhi_epi8(c, zero));
            [
                _mm512_unpacklo_epi16(ab, cz),
                _mm512_unpackhi_epi16(ab, cz),
                _mm512_unpacklo_epi16(ab_high, cz_high),
                _mm512_unpackhi_epi16(ab_high, cz_high),
            ]
        }
    }
    #[inline(always)]
    unsafe fn store_interleaved(p: *mut u8, v: [__m512; 4]) {
        // SAFETY: arithmetic, then a store to the bytes that the caller vouches for.
        unsafe {
            let low = _mm512_packs_epi32(_mm512_cvtps_epi32(v[0]), _mm512_cvtps_epi32(v[1]));
            let high = _mm512_packs_epi32(_mm512_cvtps_epi32(v[2]), _mm512_cvtps_epi32(v[3]));
            _mm512_storeu_si512(p.cast(), _mm512_packus_epi16(low, high));
        }
    }
}
