//! One vocabulary of vector instructions, so that each kernel is written once.
//!
//! A kernel is generic over [`Simd`] and is compiled for each instruction set inside a `#[target_feature]` function
//! ([`Isa::run`]). The alternative, one hand-written copy per architecture, triples the code that has to be proven. The price:
//! everything below a kernel is `#[inline(always)]`, or the instructions would not be available where they land.
//!
//! A vector of weights is [`Simd::LANES`] words of four bytes whatever the numbers are: one f32, two bf16 or four int8.

#[cfg(target_arch = "aarch64")]
use super::aarch64::{Neon, run_neon, run_neon_rich};
use super::portable::Portable;
#[cfg(target_arch = "x86_64")]
use super::x86_64::{Avx2, Avx512, run_avx2, run_avx2_bytes, run_avx512, run_avx512_bytes, run_avx512_pairs};

/// What four signed bytes may come to whose products with bytes of at most 127 are added up in 16 bits: 127 × 258 < 2¹⁵.
pub(crate) const QUAD: i32 = 258;

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
    /// The most that [`Isa::run_rich`] adds to this set.
    const RICH: Rich = Rich::Nothing;

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
    unsafe fn abs(v: Self::F) -> Self::F;
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
    /// Two steps of that where unsigned bytes are at most 127 and, of the first two signed bytes and of the last two of a lane, what
    /// both steps have above zero comes to at most [`QUAD`], as does what they have below: this lets AVX2 and NEON multiply them as
    /// bytes, and AVX2 add four products up in 16 bits.
    #[inline(always)]
    unsafe fn dot_low(unsigned: [Self::I; 2], signed: [Self::I; 2], sum: Self::I) -> Self::I {
        // SAFETY: the caller's promise is passed on.
        unsafe { Self::dot(unsigned[1], signed[1], Self::dot(unsigned[0], signed[0], sum)) }
    }
    /// The same as [`Simd::dot`] with an instruction that only some machines of this set have: see [`Isa::run_rich`].
    #[inline(always)]
    unsafe fn dot_rich(unsigned: Self::I, signed: Self::I, sum: Self::I) -> Self::I {
        // SAFETY: the caller's promise is passed on.
        unsafe { Self::dot(unsigned, signed, sum) }
    }
    unsafe fn to_float(v: Self::I) -> Self::F;
    /// Byte `which` of each lane, counted from the lowest, with its sign.
    unsafe fn signed_byte(v: Self::I, which: usize) -> Self::I;
    /// Per lane: the bf16 in the upper half as f32, and the one in the lower half.
    unsafe fn halves(v: Self::I) -> (Self::F, Self::F);
    /// The same as [`Simd::dot_pairs`] with an instruction that only some machines of this set have: see [`Isa::run_rich`].
    #[inline(always)]
    unsafe fn dot_pairs_rich(a: Self::I, b: Self::I, sum: Self::F) -> Self::F {
        // SAFETY: the caller's promise is passed on.
        unsafe { Self::dot_pairs(a, b, sum) }
    }
    /// Per lane: the sum plus the products of two bf16 with two others.
    #[inline(always)]
    unsafe fn dot_pairs(a: Self::I, b: Self::I, sum: Self::F) -> Self::F {
        // SAFETY: arithmetic only; the caller vouches for the instruction set.
        unsafe {
            let ((a1, a0), (b1, b0)) = (Self::halves(a), Self::halves(b));
            Self::fma(a1, b1, Self::fma(a0, b0, sum))
        }
    }
    /// Writes `LANES` numbers as bf16, rounded to the nearest, ties to even.
    unsafe fn store_pairs(p: *mut u16, v: Self::F);
    /// The same with an instruction that only some machines of this set have, which may take numbers nearer to zero than 2⁻¹²⁶ for
    /// zero: see [`Isa::run_rich`].
    #[inline(always)]
    unsafe fn store_pairs_rich(p: *mut u16, v: Self::F) {
        // SAFETY: the caller's promise is passed on.
        unsafe { Self::store_pairs(p, v) }
    }
    /// Reads `LANES` numbers of bf16.
    unsafe fn load_pairs(p: *const u16) -> Self::F;
    /// Asks for a cache line that will be read soon; any address is allowed.
    #[inline(always)]
    unsafe fn prefetch(p: *const u8) {
        let _ = p;
    }
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

/// Instructions that only some machines of a set have.
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, reason = "elsewhere there are both or neither"))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rich {
    Nothing,
    /// Sums of products of four bytes (AVX-VNNI beside AVX2, VNNI beside AVX-512).
    Bytes,
    /// And sums of products of two bf16 (VNNI and BF16 beside AVX-512, I8MM and BF16 beside NEON).
    Both,
}

impl Rich {
    /// Whether sums of products of four bytes, unsigned with signed, are in it.
    pub(crate) const fn bytes(self) -> bool {
        !matches!(self, Rich::Nothing)
    }

    /// Whether sums of products of two bf16 are in it.
    pub(crate) const fn pairs(self) -> bool {
        matches!(self, Rich::Both)
    }
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
pub struct Isa {
    level: Level,
    /// What [`Isa::run_rich`] has on this machine that [`Isa::run`] has not.
    rich: Rich,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "aarch64")]
    Neon,
}

impl Isa {
    /// Every set of this machine, the best first.
    pub fn available() -> Vec<Isa> {
        let mut sets = Vec::new();
        #[cfg(target_arch = "x86_64")]
        let levels = [(Level::Avx512, Avx512::present(), Avx512::rich()), (Level::Avx2, Avx2::present(), Avx2::rich())];
        #[cfg(target_arch = "aarch64")]
        let levels = [(Level::Neon, Neon::present(), Neon::rich())];
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        let levels: [(Level, bool, [Rich; 0]); 0] = [];
        for (level, _, rich) in levels.into_iter().filter(|level| level.1) {
            sets.extend(rich.iter().map(|&rich| Isa { level, rich }));
            sets.push(Isa { level, rich: Rich::Nothing });
        }
        sets.push(Isa { level: Level::Portable, rich: Rich::Nothing });
        sets
    }

    /// The best set of this machine.
    pub fn detect() -> Isa {
        Self::available()[0]
    }

    /// The set of this name, if this machine has it.
    pub fn named(name: &str) -> Option<Isa> {
        Self::available().into_iter().find(|isa| isa.name() == name)
    }

    /// Name for people: `avx512-bf16`, `avx512-vnni`, `avx512`, `avx2-vnni`, `avx2`, `neon-bf16`, `neon`, `portable`.
    pub fn name(self) -> &'static str {
        match (self.level, self.rich) {
            (Level::Portable, _) => "portable",
            #[cfg(target_arch = "x86_64")]
            (Level::Avx2, Rich::Nothing) => "avx2",
            #[cfg(target_arch = "x86_64")]
            (Level::Avx2, _) => "avx2-vnni",
            #[cfg(target_arch = "x86_64")]
            (Level::Avx512, Rich::Nothing) => "avx512",
            #[cfg(target_arch = "x86_64")]
            (Level::Avx512, Rich::Bytes) => "avx512-vnni",
            #[cfg(target_arch = "x86_64")]
            (Level::Avx512, Rich::Both) => "avx512-bf16",
            #[cfg(target_arch = "aarch64")]
            (Level::Neon, Rich::Nothing) => "neon",
            #[cfg(target_arch = "aarch64")]
            (Level::Neon, _) => "neon-bf16",
        }
    }

    /// What [`Isa::run_rich`] has on this machine that [`Isa::run`] has not.
    pub(crate) fn rich(self) -> Rich {
        self.rich
    }

    /// Whether there are instructions for sums of products of bf16. Without them bf16 costs more than f32.
    pub(crate) fn multiplies_pairs(self) -> bool {
        self.rich().pairs()
    }

    /// The largest byte that [`Simd::dot_low`] may meet where byte products need it; 255 where any bytes will do, of weights too.
    pub(crate) fn largest_byte(self) -> u8 {
        match self.level {
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 | Level::Avx512 if !self.rich.bytes() => 127,
            #[cfg(target_arch = "aarch64")]
            Level::Neon if !self.rich.bytes() => 127,
            _ => 255,
        }
    }

    /// Numbers per vector.
    pub(crate) fn lanes(self) -> usize {
        match self.level {
            Level::Portable => Portable::LANES,
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => Avx2::LANES,
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => Avx512::LANES,
            #[cfg(target_arch = "aarch64")]
            Level::Neon => Neon::LANES,
        }
    }

    /// Rows of a register tile.
    pub(crate) fn rows(self) -> usize {
        match self.level {
            Level::Portable => Portable::ROWS,
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => Avx2::ROWS,
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => Avx512::ROWS,
            #[cfg(target_arch = "aarch64")]
            Level::Neon => Neon::ROWS,
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
            match self.level {
                Level::Portable => kernel.run::<Portable>(),
                #[cfg(target_arch = "x86_64")]
                Level::Avx2 => run_avx2(kernel),
                #[cfg(target_arch = "x86_64")]
                Level::Avx512 => run_avx512(kernel),
                #[cfg(target_arch = "aarch64")]
                Level::Neon => run_neon(kernel),
            }
        }
    }

    /// Runs a kernel of `dot_rich`, `dot_pairs_rich` or `store_pairs_rich`.
    ///
    /// # Safety
    /// [`Isa::rich`] says what the kernel uses, and the kernel's pointers are valid, as its type demands.
    #[inline]
    pub(crate) unsafe fn run_rich<K: Kernel>(self, kernel: K) -> K::Output {
        debug_assert!(self.rich.bytes());
        // SAFETY: the instructions were found; the rest is the caller's promise.
        unsafe {
            match self.level {
                Level::Portable => kernel.run::<Portable>(),
                #[cfg(target_arch = "x86_64")]
                Level::Avx2 => run_avx2_bytes(kernel),
                #[cfg(target_arch = "x86_64")]
                Level::Avx512 if self.rich.pairs() => run_avx512_pairs(kernel),
                #[cfg(target_arch = "x86_64")]
                Level::Avx512 => run_avx512_bytes(kernel),
                #[cfg(target_arch = "aarch64")]
                Level::Neon => run_neon_rich(kernel),
            }
        }
    }
}
