//! NEON as [`Simd`], with the byte dot product that every processor of the last years has.
//!
//! Proven under emulation (qemu), operation by operation and layer by layer; how fast it is has not been measured for want of the
//! hardware. `sdot`, `usdot` and `bfdot` are written as instructions, since their intrinsics are not stable. A processor without
//! `sdot` takes the portable path, which the compiler maps onto NEON.

use std::arch::aarch64::*;
use std::arch::asm;

use super::simd::{Kernel, Rich, Simd};

/// 128-bit vectors with the dot product of signed bytes.
#[derive(Clone, Copy)]
pub(crate) struct Neon;

impl Neon {
    pub(crate) fn present() -> bool {
        std::arch::is_aarch64_feature_detected!("neon") && std::arch::is_aarch64_feature_detected!("dotprod")
    }

    /// Products of bf16 and of unsigned with signed bytes, where there are both.
    pub(crate) fn rich() -> Vec<Rich> {
        let both = std::arch::is_aarch64_feature_detected!("bf16") && std::arch::is_aarch64_feature_detected!("i8mm");
        if both { vec![Rich::Both] } else { Vec::new() }
    }
}

/// # Safety
/// As [`Kernel::run`].
#[target_feature(enable = "neon,dotprod")]
pub(crate) unsafe fn run_neon<K: Kernel>(kernel: K) -> K::Output {
    // SAFETY: the features are enabled here; the rest is the caller's promise.
    unsafe { kernel.run::<Neon>() }
}

/// For kernels of `dot_rich` and `dot_pairs_rich`.
///
/// # Safety
/// As [`Kernel::run`].
#[target_feature(enable = "neon,dotprod,bf16,i8mm")]
pub(crate) unsafe fn run_neon_rich<K: Kernel>(kernel: K) -> K::Output {
    // SAFETY: the features are enabled here; the rest is the caller's promise.
    unsafe { kernel.run::<Neon>() }
}

/// One-line wrappers around intrinsics.
macro_rules! wrap {
    ($($name:ident($($arg:ident: $kind:ty),*) -> $out:ty = $body:expr;)*) => {$(
        #[inline(always)]
        unsafe fn $name($($arg: $kind),*) -> $out {
            // SAFETY: the caller vouches for the instruction set and for the pointers.
            #[allow(unused_unsafe, reason = "some intrinsics are safe where NEON is part of the target")]
            unsafe { $body }
        }
    )*};
}

/// An instruction that adds dot products to a vector of sums.
macro_rules! dot {
    ($instruction:literal, $lanes:literal, $sum:expr, $a:expr, $b:expr) => {{
        let mut sum = $sum;
        asm!(
            concat!($instruction, " {sum:v}.4s, {a:v}.", $lanes, ", {b:v}.", $lanes),
            sum = inout(vreg) sum, a = in(vreg) $a, b = in(vreg) $b,
            options(pure, nomem, nostack, preserves_flags)
        );
        sum
    }};
}

/// Numbers with bf16, rounded to nearest and ties to even, in their upper halves.
#[inline(always)]
unsafe fn rounded(v: float32x4_t) -> uint32x4_t {
    // SAFETY: arithmetic only; the caller vouches for the instruction set.
    #[allow(unused_unsafe, reason = "these intrinsics are safe where NEON is part of the target")]
    unsafe {
        let bits = vreinterpretq_u32_f32(v);
        let odd = vandq_u32(vshrq_n_u32::<16>(bits), vdupq_n_u32(1));
        vaddq_u32(vaddq_u32(bits, vdupq_n_u32(0x7fff)), odd)
    }
}

/// The nearest whole numbers, within 0..=65535.
#[inline(always)]
unsafe fn whole(v: float32x4_t) -> uint16x4_t {
    // SAFETY: arithmetic only; the caller vouches for the instruction set.
    #[allow(unused_unsafe, reason = "these intrinsics are safe where NEON is part of the target")]
    unsafe {
        vqmovun_s32(vcvtnq_s32_f32(v))
    }
}

impl Simd for Neon {
    type F = float32x4_t;
    type I = int32x4_t;
    const LANES: usize = 4;
    // 12 × 2 accumulators, two weight vectors, one broadcast: 27 of 32 registers.
    const ROWS: usize = 12;
    const RICH: Rich = Rich::Both;

    wrap! {
        splat(x: f32) -> float32x4_t = vdupq_n_f32(x);
        load(p: *const f32) -> float32x4_t = vld1q_f32(p);
        store(p: *mut f32, v: float32x4_t) -> () = vst1q_f32(p, v);
        fma(a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t = vfmaq_f32(c, a, b);
        add(a: float32x4_t, b: float32x4_t) -> float32x4_t = vaddq_f32(a, b);
        sub(a: float32x4_t, b: float32x4_t) -> float32x4_t = vsubq_f32(a, b);
        mul(a: float32x4_t, b: float32x4_t) -> float32x4_t = vmulq_f32(a, b);
        div(a: float32x4_t, b: float32x4_t) -> float32x4_t = vdivq_f32(a, b);
        min(a: float32x4_t, b: float32x4_t) -> float32x4_t = vminq_f32(a, b);
        max(a: float32x4_t, b: float32x4_t) -> float32x4_t = vmaxq_f32(a, b);
        abs(v: float32x4_t) -> float32x4_t = vabsq_f32(v);
        round(v: float32x4_t) -> float32x4_t = vrndnq_f32(v);
        exp2_whole(n: float32x4_t) -> float32x4_t = vreinterpretq_f32_s32(vshlq_n_s32::<23>(
            vaddq_s32(vcvtq_s32_f32(n), vdupq_n_s32(127))));
        sum(v: float32x4_t) -> f32 = vaddvq_f32(v);
        largest(v: float32x4_t) -> f32 = vmaxvq_f32(v);
        zero() -> int32x4_t = vdupq_n_s32(0);
        splat_bytes(p: *const u8) -> int32x4_t = vdupq_n_s32(p.cast::<i32>().read_unaligned());
        load_quads(p: *const i8) -> int32x4_t = vreinterpretq_s32_s8(vld1q_s8(p));
        // Bytes of at most 127 are the same signed.
        dot_low(unsigned: [int32x4_t; 2], signed: [int32x4_t; 2], sum: int32x4_t) -> int32x4_t =
            dot!("sdot", "16b", dot!("sdot", "16b", sum, unsigned[0], signed[0]), unsigned[1], signed[1]);
        dot_rich(unsigned: int32x4_t, signed: int32x4_t, sum: int32x4_t) -> int32x4_t =
            dot!("usdot", "16b", sum, unsigned, signed);
        dot_pairs_rich(a: int32x4_t, b: int32x4_t, sum: float32x4_t) -> float32x4_t = dot!("bfdot", "8h", sum, a, b);
        to_float(v: int32x4_t) -> float32x4_t = vcvtq_f32_s32(v);
        signed_byte(v: int32x4_t, which: usize) -> int32x4_t =
            vshrq_n_s32::<24>(vshlq_s32(v, vdupq_n_s32(24 - 8 * which as i32)));
        halves(v: int32x4_t) -> (float32x4_t, float32x4_t) = (
            vreinterpretq_f32_s32(vandq_s32(v, vdupq_n_s32(-65536))),
            vreinterpretq_f32_s32(vshlq_n_s32::<16>(v)));
        store_pairs(p: *mut u16, v: float32x4_t) -> () = vst1_u16(p, vshrn_n_u32::<16>(rounded(v)));
        load_pairs(p: *const u16) -> float32x4_t = vreinterpretq_f32_u32(vshll_n_u16::<16>(vld1_u16(p)));
        prefetch(p: *const u8) -> () =
            asm!("prfm pldl1keep, [{at}]", at = in(reg) p, options(readonly, nostack, preserves_flags));
    }
    #[inline(always)]
    unsafe fn store_first(p: *mut f32, v: float32x4_t, n: usize) {
        debug_assert!(n <= 4);
        let mut all = [0.0; 4];
        // SAFETY: the caller vouches for n ≤ 4 numbers.
        unsafe {
            vst1q_f32(all.as_mut_ptr(), v);
            std::ptr::copy_nonoverlapping(all.as_ptr(), p, n);
        }
    }
    #[inline(always)]
    unsafe fn load_first(p: *const f32, n: usize) -> float32x4_t {
        debug_assert!(n <= 4);
        let mut all = [0.0; 4];
        // SAFETY: the caller vouches for n ≤ 4 numbers.
        unsafe {
            std::ptr::copy_nonoverlapping(p, all.as_mut_ptr(), n);
            vld1q_f32(all.as_ptr())
        }
    }
    #[inline(always)]
    unsafe fn store_bytes(p: *mut u8, v: float32x4_t) {
        // SAFETY: arithmetic, and a store of the four bytes that the caller vouches for.
        unsafe {
            let words = whole(v);
            let bytes = vqmovn_u16(vcombine_u16(words, words));
            p.cast::<u32>().write_unaligned(vget_lane_u32::<0>(vreinterpret_u32_u8(bytes)));
        }
    }
    /// Unsigned bytes less 128 are signed ones; what that takes off is added again: 2 × 64 times the signed side.
    #[inline(always)]
    unsafe fn dot(unsigned: int32x4_t, signed: int32x4_t, sum: int32x4_t) -> int32x4_t {
        // SAFETY: arithmetic only; the caller vouches for the instruction set.
        unsafe {
            let shifted = veorq_s32(unsigned, vreinterpretq_s32_u8(vdupq_n_u8(0x80)));
            let half = vreinterpretq_s32_u8(vdupq_n_u8(64));
            let sum = dot!("sdot", "16b", sum, shifted, signed);
            let sum = dot!("sdot", "16b", sum, half, signed);
            dot!("sdot", "16b", sum, half, signed)
        }
    }
    #[inline(always)]
    unsafe fn interleave(p: [*const u8; 3]) -> [int32x4_t; 4] {
        // SAFETY: loads of the bytes that the caller vouches for, then arithmetic.
        unsafe {
            let (a, b, c, zero) = (vld1q_u8(p[0]), vld1q_u8(p[1]), vld1q_u8(p[2]), vdupq_n_u8(0));
            let words = |ab: uint8x16_t, cz: uint8x16_t| {
                let (ab, cz) = (vreinterpretq_u16_u8(ab), vreinterpretq_u16_u8(cz));
                [vreinterpretq_s32_u16(vzip1q_u16(ab, cz)), vreinterpretq_s32_u16(vzip2q_u16(ab, cz))]
            };
            let [first, second] = words(vzip1q_u8(a, b), vzip1q_u8(c, zero));
            let [third, fourth] = words(vzip2q_u8(a, b), vzip2q_u8(c, zero));
            [first, second, third, fourth]
        }
    }
    #[inline(always)]
    unsafe fn store_interleaved(p: *mut u8, v: [float32x4_t; 4]) {
        // SAFETY: arithmetic, then a store to the bytes that the caller vouches for.
        unsafe {
            let low = vqmovn_u16(vcombine_u16(whole(v[0]), whole(v[1])));
            let high = vqmovn_u16(vcombine_u16(whole(v[2]), whole(v[3])));
            vst1q_u8(p, vcombine_u8(low, high));
        }
    }
}
