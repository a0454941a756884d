//! Plain arrays as [`Simd`]: the oracle of the tests, and what machines without a set of their own run.

use super::simd::{Simd, quad_channel};

/// Plain arrays.
#[derive(Clone, Copy)]
pub(crate) struct Portable;

const N: usize = 8;

#[inline(always)]
fn zip(a: [f32; N], b: [f32; N], f: impl Fn(f32, f32) -> f32) -> [f32; N] {
    std::array::from_fn(|i| f(a[i], b[i]))
}

/// A number with bf16, rounded to nearest and ties to even, in its upper half.
#[inline(always)]
fn rounded(x: f32) -> u32 {
    let bits = x.to_bits();
    bits.wrapping_add(0x7fff + (bits >> 16 & 1))
}

impl Simd for Portable {
    type F = [f32; N];
    type I = [i32; N];
    const LANES: usize = N;
    const ROWS: usize = 6;

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self::F {
        [x; N]
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self::F {
        // SAFETY: the caller vouches for N numbers.
        unsafe { p.cast::<Self::F>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, v: Self::F) {
        // SAFETY: the caller vouches for N numbers.
        unsafe { p.cast::<Self::F>().write_unaligned(v) }
    }
    #[inline(always)]
    unsafe fn store_first(p: *mut f32, v: Self::F, n: usize) {
        // SAFETY: the caller vouches for n ≤ N numbers.
        unsafe { std::ptr::copy_nonoverlapping(v.as_ptr(), p, n) }
    }
    #[inline(always)]
    unsafe fn load_first(p: *const f32, n: usize) -> Self::F {
        let mut v = [0.0; N];
        // SAFETY: the caller vouches for n ≤ N numbers.
        unsafe { std::ptr::copy_nonoverlapping(p, v.as_mut_ptr(), n) };
        v
    }
    #[inline(always)]
    unsafe fn fma(a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        // Fused where it is one instruction; elsewhere `mul_add` would be a function call.
        #[cfg(any(target_arch = "aarch64", target_feature = "fma"))]
        return std::array::from_fn(|i| a[i].mul_add(b[i], c[i]));
        #[cfg(not(any(target_arch = "aarch64", target_feature = "fma")))]
        return std::array::from_fn(|i| a[i] * b[i] + c[i]);
    }
    #[inline(always)]
    unsafe fn add(a: Self::F, b: Self::F) -> Self::F {
        zip(a, b, |a, b| a + b)
    }
    #[inline(always)]
    unsafe fn sub(a: Self::F, b: Self::F) -> Self::F {
        zip(a, b, |a, b| a - b)
    }
    #[inline(always)]
    unsafe fn mul(a: Self::F, b: Self::F) -> Self::F {
        zip(a, b, |a, b| a * b)
    }
    #[inline(always)]
    unsafe fn div(a: Self::F, b: Self::F) -> Self::F {
        zip(a, b, |a, b| a / b)
    }
    #[inline(always)]
    unsafe fn min(a: Self::F, b: Self::F) -> Self::F {
        zip(a, b, |a, b| if a < b { a } else { b })
    }
    #[inline(always)]
    unsafe fn max(a: Self::F, b: Self::F) -> Self::F {
        zip(a, b, |a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    unsafe fn abs(v: Self::F) -> Self::F {
        v.map(f32::abs)
    }
    #[inline(always)]
    unsafe fn round(v: Self::F) -> Self::F {
        v.map(f32::round_ties_even)
    }
    #[inline(always)]
    unsafe fn exp2_whole(n: Self::F) -> Self::F {
        n.map(|n| f32::from_bits(((n as i32 + 127) as u32) << 23))
    }
    #[inline(always)]
    unsafe fn sum(v: Self::F) -> f32 {
        v.iter().sum()
    }
    #[inline(always)]
    unsafe fn largest(v: Self::F) -> f32 {
        v.into_iter().fold(f32::NEG_INFINITY, f32::max)
    }
    #[inline(always)]
    unsafe fn store_bytes(p: *mut u8, v: Self::F) {
        // SAFETY: the caller vouches for N bytes.
        unsafe { p.cast::<[u8; N]>().write(v.map(|x| x.round_ties_even() as u8)) }
    }
    #[inline(always)]
    unsafe fn zero() -> Self::I {
        [0; N]
    }
    #[inline(always)]
    unsafe fn splat_bytes(p: *const u8) -> Self::I {
        // SAFETY: the caller vouches for four bytes.
        [i32::from_le_bytes(unsafe { p.cast::<[u8; 4]>().read() }); N]
    }
    #[inline(always)]
    unsafe fn load_quads(p: *const i8) -> Self::I {
        // SAFETY: the caller vouches for 4 × N bytes.
        unsafe { p.cast::<[[u8; 4]; N]>().read() }.map(i32::from_le_bytes)
    }
    #[inline(always)]
    unsafe fn dot(unsigned: Self::I, signed: Self::I, sum: Self::I) -> Self::I {
        let product = |i: usize, shift: usize| ((unsigned[i] >> shift) & 255) * i32::from((signed[i] >> shift) as i8);
        std::array::from_fn(|i| sum[i] + product(i, 0) + product(i, 8) + product(i, 16) + product(i, 24))
    }
    #[inline(always)]
    unsafe fn to_float(v: Self::I) -> Self::F {
        v.map(|x| x as f32)
    }
    #[inline(always)]
    unsafe fn signed_byte(v: Self::I, which: usize) -> Self::I {
        v.map(|x| i32::from((x >> (8 * which)) as i8))
    }
    #[inline(always)]
    unsafe fn halves(v: Self::I) -> (Self::F, Self::F) {
        (v.map(|x| f32::from_bits(x as u32 & 0xffff_0000)), v.map(|x| f32::from_bits((x as u32) << 16)))
    }
    #[inline(always)]
    unsafe fn store_pairs(p: *mut u16, v: Self::F) {
        // SAFETY: the caller vouches for N numbers.
        unsafe { p.cast::<[u16; N]>().write_unaligned(v.map(|x| (rounded(x) >> 16) as u16)) }
    }
    #[inline(always)]
    unsafe fn load_pairs(p: *const u16) -> Self::F {
        // SAFETY: the caller vouches for N numbers.
        let pairs: [u16; N] = unsafe { p.cast::<[u16; N]>().read_unaligned() };
        pairs.map(|x| f32::from_bits(u32::from(x) << 16))
    }
    #[inline(always)]
    unsafe fn interleave(p: [*const u8; 3]) -> [Self::I; 4] {
        // SAFETY: the caller vouches for 4 × N bytes at each pointer; `quad_channel` is below that.
        let byte = |p: *const u8, j: usize, e: usize| unsafe { *p.add(quad_channel(j, e)) };
        std::array::from_fn(|j| {
            std::array::from_fn(|e| i32::from_le_bytes([byte(p[0], j, e), byte(p[1], j, e), byte(p[2], j, e), 0]))
        })
    }
    #[inline(always)]
    unsafe fn store_interleaved(p: *mut u8, v: [Self::F; 4]) {
        for (j, v) in v.iter().enumerate() {
            for (e, x) in v.iter().enumerate() {
                // SAFETY: the caller vouches for 4 × N bytes.
                unsafe { *p.add(quad_channel(j, e)) = x.round_ties_even() as u8 };
            }
        }
    }
}
