//! Kernels for aarch64: NEON, which every such processor has, and the dot product instruction where there is one.
//!
//! Their tests have run under emulation (qemu), so what they compute is known; how fast they are is not, for want of the hardware.
//! `sdot` and `fcvtl` are written as instructions, since their intrinsics came late to stable Rust.

use std::arch::aarch64::*;
use std::arch::asm;

use super::{CodeQuery, Kernels, Lanes, half_at, portable, prefetch_line};
use crate::vectors::Shape;

const NEON: Kernels = Kernels {
    name: "neon",
    lanes: Lanes::Base,
    rough: rough_neon,
    scores: scores_neon,
    merge: portable::merge,
    pair: pair_neon,
    dot_f32: dot_f32_neon,
    dot_f16: dot_f16_neon,
    l2_f32: l2_f32_neon,
    l2_f16: l2_f16_neon,
};

const DOTPROD: Kernels =
    Kernels { name: "neon-dotprod", rough: rough_dotprod, scores: scores_dotprod, pair: pair_dotprod, ..NEON };

/// Kernels that this processor runs, slowest first.
pub(super) fn available() -> Vec<Kernels> {
    let mut all = Vec::new();
    if std::arch::is_aarch64_feature_detected!("neon") {
        all.push(NEON);
        if std::arch::is_aarch64_feature_detected!("dotprod") {
            all.push(DOTPROD);
        }
    }
    all
}

/// 16 codes, moved from 0..=255 to -128..=127.
///
/// # Safety
/// 16 bytes can be read at `at`.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn load_signed(at: *const u8) -> int8x16_t {
    // SAFETY: the caller's; no alignment is asked for.
    let raw = unsafe { vld1q_u8(at) };
    vreinterpretq_s8_u8(veorq_u8(raw, vdupq_n_u8(0x80)))
}

/// Adds sums of products of a code with the codes of a query, which are never -128: two products are 2·128·127 < 2¹⁵ at most,
/// so they are summed in 16 bits first.
#[inline]
#[target_feature(enable = "neon")]
fn add_products(sum: int32x4_t, code: int8x16_t, query: int8x16_t) -> int32x4_t {
    let low = vmull_s8(vget_low_s8(code), vget_low_s8(query));
    vpadalq_s16(sum, vmlal_s8(low, vget_high_s8(code), vget_high_s8(query)))
}

/// As [`add_products`], where both sides may hold -128.
#[inline]
#[target_feature(enable = "neon")]
fn add_wide_products(sum: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
    let sum = vpadalq_s16(sum, vmull_s8(vget_low_s8(a), vget_low_s8(b)));
    vpadalq_s16(sum, vmull_s8(vget_high_s8(a), vget_high_s8(b)))
}

/// Adds sums of four neighbouring products, in 32 bits throughout.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn add_dots(sum: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
    let mut sum = sum;
    // SAFETY: register to register; the processor has the instruction, as the feature says.
    unsafe {
        asm!(
            "sdot {sum:v}.4s, {a:v}.16b, {b:v}.16b",
            sum = inout(vreg) sum, a = in(vreg) a, b = in(vreg) b,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    sum
}

macro_rules! integer_kernels {
    ($feature:literal, $rough:ident, $scores:ident, $halves:ident, $pair:ident, $add_query:ident, $add_pair:ident) => {
        /// # Safety
        /// As [`super::portable`]'s `halves`; the processor has the features.
        #[inline]
        #[target_feature(enable = $feature)]
        unsafe fn $halves(query: &CodeQuery, plane: *const u8, len: usize, next: *const u8) -> i32 {
            let (mask, q) = (vdupq_n_u8(0x0f), query.lines.as_ptr().cast::<i8>());
            let mut sums = [vdupq_n_s32(0); 4];
            for at in (0..len).step_by(32) {
                if at.is_multiple_of(64) {
                    prefetch_line(next.wrapping_add(at));
                }
                for (part, sums) in sums.chunks_exact_mut(2).enumerate() {
                    let at = at + 16 * part;
                    // SAFETY: 16 bytes lie at every multiple of 16 below `len`, and as many numbers of the query in each of its halves.
                    unsafe {
                        let raw = vld1q_u8(plane.add(at));
                        let (low, high) = (vandq_u8(raw, mask), vshrq_n_u8::<4>(raw));
                        sums[0] = $add_query(sums[0], vreinterpretq_s8_u8(low), vld1q_s8(q.add(at)));
                        sums[1] = $add_query(sums[1], vreinterpretq_s8_u8(high), vld1q_s8(q.add(len + at)));
                    }
                }
            }
            add_up(sums)
        }

        code_kernels!(
            #[target_feature(enable = $feature)]
            $rough,
            $scores,
            $halves
        );

        /// # Safety
        /// Equal lengths, a multiple of 64; the processor has the features.
        #[target_feature(enable = $feature)]
        unsafe fn $pair(a: &[u8], b: &[u8]) -> i32 {
            let mut sums = [vdupq_n_s32(0); 4];
            for at in (0..a.len()).step_by(64) {
                for (quarter, sum) in sums.iter_mut().enumerate() {
                    // SAFETY: 64 bytes lie at `at` in both.
                    let (x, y) = unsafe {
                        (load_signed(a.as_ptr().add(at + 16 * quarter)), load_signed(b.as_ptr().add(at + 16 * quarter)))
                    };
                    *sum = $add_pair(*sum, x, y);
                }
            }
            add_up(sums)
        }
    };
}

integer_kernels!("neon", rough_neon, scores_neon, halves_neon, pair_neon, add_products, add_wide_products);
integer_kernels!("neon,dotprod", rough_dotprod, scores_dotprod, halves_dotprod, pair_dotprod, add_dots, add_dots);

#[inline]
#[target_feature(enable = "neon")]
fn add_up(sums: [int32x4_t; 4]) -> i32 {
    vaddvq_s32(vaddq_s32(vaddq_s32(sums[0], sums[1]), vaddq_s32(sums[2], sums[3])))
}

#[inline(always)]
fn float_at(row: &[u8], at: usize) -> f32 {
    f32::from_le_bytes([row[4 * at], row[4 * at + 1], row[4 * at + 2], row[4 * at + 3]])
}

/// # Safety
/// 16 bytes can be read at `at`.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn load_float(at: *const u8) -> float32x4_t {
    // SAFETY: the caller's; read as bytes, which need no alignment.
    vreinterpretq_f32_u8(unsafe { vld1q_u8(at) })
}

/// # Safety
/// 8 bytes can be read at `at`.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn load_half(at: *const u8) -> float32x4_t {
    // SAFETY: the caller's; the conversion goes from register to register and is part of NEON.
    unsafe {
        let (halves, numbers): (uint8x8_t, float32x4_t);
        halves = vld1_u8(at);
        asm!(
            "fcvtl {numbers:v}.4s, {halves:v}.4h",
            numbers = lateout(vreg) numbers, halves = in(vreg) halves,
            options(pure, nomem, nostack, preserves_flags)
        );
        numbers
    }
}

#[inline]
#[target_feature(enable = "neon")]
fn product_step(sum: float32x4_t, a: float32x4_t, b: float32x4_t) -> float32x4_t {
    vfmaq_f32(sum, a, b)
}

#[inline]
#[target_feature(enable = "neon")]
fn square_step(sum: float32x4_t, a: float32x4_t, b: float32x4_t) -> float32x4_t {
    let d = vsubq_f32(a, b);
    vfmaq_f32(sum, d, d)
}

macro_rules! exact_kernel {
    ($name:ident, $width:literal, $load:ident, $step:ident, $tail:expr) => {
        /// # Safety
        /// The row is as long as the query.
        #[target_feature(enable = "neon")]
        unsafe fn $name(q: &[f32], row: &[u8]) -> f32 {
            let mut sums = [vdupq_n_f32(0.0); 4];
            let whole = q.len() / 16 * 16;
            for i in (0..whole).step_by(16) {
                for (lane, sum) in sums.iter_mut().enumerate() {
                    let at = i + 4 * lane;
                    // SAFETY: four numbers lie at `at` in both.
                    let (a, b) = unsafe { (vld1q_f32(q.as_ptr().add(at)), $load(row.as_ptr().add($width * at))) };
                    *sum = $step(*sum, a, b);
                }
            }
            let tail: f32 = (whole..q.len()).map(|i| $tail(q[i], row, i)).sum();
            vaddvq_f32(vaddq_f32(vaddq_f32(sums[0], sums[1]), vaddq_f32(sums[2], sums[3]))) + tail
        }
    };
}

exact_kernel!(dot_f32_neon, 4, load_float, product_step, |q: f32, row, i| q * float_at(row, i));
exact_kernel!(dot_f16_neon, 2, load_half, product_step, |q: f32, row, i| q * half_at(row, i));
exact_kernel!(l2_f32_neon, 4, load_float, square_step, |q: f32, row, i| (q - float_at(row, i)).powi(2));
exact_kernel!(l2_f16_neon, 2, load_half, square_step, |q: f32, row, i| (q - half_at(row, i)).powi(2));
