//! One vocabulary of vector instructions, so that each kernel is written once.
//!
//! A kernel is generic over [`Simd`] and is compiled for each instruction set inside a `#[target_feature]` function
//! ([`Isa::run`]). The alternative, one hand-written copy per architecture, triples the code that has to be proven. The price:
//! everything below a kernel is `#[inline(always)]`, or the instructions would not be available where they land.
//!
//! The portable set is plain arrays: the oracle of the tests, and also the NEON path, because NEON belongs to every aarch64
//! and the compiler maps the arrays onto it.

#[cfg(target_arch = "x86_64")]
use super::x86_64::{Avx2, Avx512, run_avx2, run_avx512};

/// Vectors of `f32` and of `i32`, `LANES` numbers each.
///
/// # Safety of every function
/// The instruction set is present on this machine; pointers are valid for the lanes that are read or written.
pub(crate) trait Simd: Copy {
    /// A vector of `f32`.
    type F: Copy;
    /// A vector of `i32`.
    type I: Copy;
    /// Numbers per vector.
    const LANES: usize;
    /// Rows of a register tile two vectors wide.
    const ROWS: usize;

    unsafe fn splat(x: f32) -> Self::F;
    unsafe fn load(p: *const f32) -> Self::F;
    unsafe fn store(p: *mut f32, v: Self::F);
    /// Writes the first `n` lanes.
    unsafe fn store_first(p: *mut f32, v: Self::F, n: usize);
    /// Reads the first `n` lanes; the others are zero.
    unsafe fn load_first(p: *const f32, n: usize) -> Self::F;
    /// `a × b + c`.
    unsafe fn fma(a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    unsafe fn add(a: Self::F, b: Self::F) -> Self::F;
    unsafe fn sub(a: Self::F, b: Self::F) -> Self::F;
    unsafe fn mul(a: Self::F, b: Self::F) -> Self::F;
    unsafe fn div(a: Self::F, b: Self::F) -> Self::F;
    unsafe fn min(a: Self::F, b: Self::F) -> Self::F;
    unsafe fn max(a: Self::F, b: Self::F) -> Self::F;
    /// To the nearest integer, as a float.
    unsafe fn round(v: Self::F) -> Self::F;
    /// `2ⁿ` for whole `n` in -126..=127.
    unsafe fn exp2_whole(n: Self::F) -> Self::F;
    unsafe fn sum(v: Self::F) -> f32;
    unsafe fn largest(v: Self::F) -> f32;
    /// Writes the nearest integers in 0..=255 as bytes.
    unsafe fn store_bytes(p: *mut u8, v: Self::F);

    unsafe fn zero() -> Self::I;
    /// Four bytes, in every lane.
    unsafe fn splat_bytes(p: *const u8) -> Self::I;
    /// `4 × LANES` bytes.
    unsafe fn load_quads(p: *const i8) -> Self::I;
    /// Per lane: the sum plus the products of four unsigned bytes with four signed ones. Exact.
    unsafe fn dot(unsigned: Self::I, signed: Self::I, sum: Self::I) -> Self::I;
    unsafe fn to_float(v: Self::I) -> Self::F;
    /// `4 × LANES` bytes of each of three pointers, interleaved: lane e of vector j holds the bytes number
    /// [`quad_channel`]`(j, e)` of the three, and a zero. That is the order in which 128-bit unpack instructions leave them.
    unsafe fn interleave(p: [*const u8; 3]) -> [Self::I; 4];
    /// Writes `4 × LANES` bytes from vectors in the order of [`Simd::interleave`]: nearest integers, clamped to 0..=255.
    unsafe fn store_interleaved(p: *mut u8, v: [Self::F; 4]);

    /// `eˣ`, relative error below 2e-7; x is clamped to what f32 can hold.
    ///
    /// Cody–Waite reduction by ln 2 in two parts, then the degree-5 polynomial of Cephes' `expf`.
    #[inline(always)]
    unsafe fn exp(x: Self::F) -> Self::F {
        // SAFETY: arithmetic only; the caller vouches for the instruction set.
        unsafe {
            let x = Self::min(Self::max(x, Self::splat(-87.0)), Self::splat(88.0));
            let n = Self::round(Self::mul(x, Self::splat(std::f32::consts::LOG2_E)));
            let r = Self::fma(n, Self::splat(-0.693_359_4), x);
            let r = Self::fma(n, Self::splat(2.121_944_4e-4), r);
            let mut p = Self::splat(1.987_569_1e-4);
            for c in [1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
                p = Self::fma(p, r, Self::splat(c));
            }
            let e = Self::add(Self::fma(p, Self::mul(r, r), r), Self::splat(1.0));
            Self::mul(e, Self::exp2_whole(n))
        }
    }
}

/// Which of `4 × LANES` neighbouring bytes lane `lane` of vector `vector` belongs to, in [`Simd::interleave`].
pub(crate) const fn quad_channel(vector: usize, lane: usize) -> usize {
    lane / 4 * 16 + vector * 4 + lane % 4
}

/// Something to compute with whichever instructions the machine has.
pub(crate) trait Kernel {
    /// The result.
    type Output;

    /// The computation; `#[inline(always)]` in every implementation.
    ///
    /// # Safety
    /// `S` is present on this machine, and the implementation's own pointers are valid.
    unsafe fn run<S: Simd>(self) -> Self::Output;
}

/// An instruction set that this machine has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Isa(Level);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl Isa {
    /// Every set of this machine, the best first.
    pub fn available() -> Vec<Isa> {
        let mut sets = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            if Avx512::present() {
                sets.push(Isa(Level::Avx512));
            }
            if Avx2::present() {
                sets.push(Isa(Level::Avx2));
            }
        }
        sets.push(Isa(Level::Portable));
        sets
    }

    /// The best set of this machine.
    pub fn detect() -> Isa {
        Self::available()[0]
    }

    /// Name for people: `avx512`, `avx2`, `portable`.
    pub fn name(self) -> &'static str {
        match self.0 {
            Level::Portable => "portable",
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => "avx512",
        }
    }

    /// Numbers per vector.
    pub(crate) fn lanes(self) -> usize {
        match self.0 {
            Level::Portable => Portable::LANES,
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => Avx2::LANES,
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => Avx512::LANES,
        }
    }

    /// Rows of a register tile.
    pub(crate) fn rows(self) -> usize {
        match self.0 {
            Level::Portable => Portable::ROWS,
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => Avx2::ROWS,
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => Avx512::ROWS,
        }
    }

    /// Runs `kernel` with this set.
    ///
    /// # Safety
    /// The kernel's pointers are valid, as its type demands.
    #[inline]
    pub(crate) unsafe fn run<K: Kernel>(self, kernel: K) -> K::Output {
        // SAFETY: an `Isa` is only made after its instructions were found; the rest is the caller's promise.
        unsafe {
            match self.0 {
                Level::Portable => kernel.run::<Portable>(),
                #[cfg(target_arch = "x86_64")]
                Level::Avx2 => run_avx2(kernel),
                #[cfg(target_arch = "x86_64")]
                Level::Avx512 => run_avx512(kernel),
            }
        }
    }
}

/// Plain arrays.
#[derive(Clone, Copy)]
pub(crate) struct Portable;

const N: usize = 8;

#[inline(always)]
fn zip(a: [f32; N], b: [f32; N], f: impl Fn(f32, f32) -> f32) -> [f32; N] {
    std::array::from_fn(|i| f(a[i], b[i]))
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
