//! The register tile that every product is made of: up to 13 rows against a panel two vectors wide.
//!
//! A panel is words of four bytes, `[step][2 × lanes]`: one f32, two bf16 or four int8, so one tile serves all three. What
//! follows a product (bias, activation, residual, scales) is a second, small kernel over the tile's sums, because those of
//! 26 shapes of tiles would be 26 copies of it; the sums go through a buffer of 26 cache lines that never leaves the first
//! level.

use std::marker::PhantomData;

use super::simd::{Isa, Kernel, Simd};

/// Rows of the tallest tile of any machine.
const TALLEST: usize = 13;

/// How the four bytes of a row that meet a word of weights are multiplied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// One f32.
    Floats,
    /// Two bf16.
    Pairs,
    /// Four bytes with four int8.
    Bytes,
    /// The same, where bytes of rows are at most [`Isa::largest_byte`], weights are as [`Simd::dot_low`] needs them for that, and
    /// words come in twos.
    LowBytes,
}

impl Format {
    /// Rows of a tile.
    pub(super) fn rows(self, isa: Isa) -> usize {
        match self {
            // Two words at once take more registers for weights, and AVX2 has sixteen.
            Format::LowBytes if isa.largest_byte() < 255 && isa.lanes() == 8 => 4,
            _ => isa.rows(),
        }
    }

    /// Whether a word is multiplied and added with one instruction.
    pub(super) fn is_one_step(self, isa: Isa) -> bool {
        match self {
            Format::Floats => true,
            Format::Pairs => isa.rich().pairs(),
            Format::Bytes | Format::LowBytes => isa.rich().bytes(),
        }
    }
}

/// What a tile adds up, as f32 or as i32.
#[repr(C, align(64))]
pub(super) struct Sums(pub(super) [[[u8; 64]; 2]; TALLEST]);

impl Sums {
    pub(super) const ZERO: Self = Self([[[0; 64]; 2]; TALLEST]);
}

/// Some rows against a panel.
#[derive(Clone, Copy)]
pub(super) struct Tile {
    pub(super) rows: *const u8,
    /// Bytes from row to row.
    pub(super) stride: usize,
    pub(super) panel: *const u8,
    /// Words of a row, and of a column of the panel.
    pub(super) words: usize,
    /// What to fetch into the cache meanwhile, and how many bytes to go on per word.
    pub(super) ahead: *const u8,
    pub(super) ahead_step: usize,
    /// Where results will go, bytes from one row of them to the next, and to the last of a row.
    pub(super) out: *const u8,
    pub(super) out_stride: usize,
    pub(super) out_last: usize,
    pub(super) sums: *mut Sums,
}

impl Tile {
    /// Adds up the products. `wide` says whether the second vector counts.
    ///
    /// # Safety
    /// `height` is at most the set's rows; rows, panel and sums are valid for it.
    #[inline]
    pub(super) unsafe fn run(self, isa: Isa, format: Format, height: usize, wide: bool) {
        macro_rules! pick {
            ($run:ident, $dot:ty) => { pick!($run, $dot, 1 2 3 4 5 6 7 8 9 10 11 12 13) };
            ($run:ident, $dot:ty, $($n:literal)*) => {
                match (height, wide) {
                    // SAFETY: passed on from the caller; rich kernels are run where the set is rich.
                    $(($n, false) => unsafe { isa.$run(Tall::<$dot, $n, 1>(self, PhantomData)) },
                    // SAFETY: as above.
                    ($n, true) => unsafe { isa.$run(Tall::<$dot, $n, 2>(self, PhantomData)) },)*
                    _ => unreachable!("tiles are at most 13 rows high"),
                }
            };
        }
        match format {
            Format::Floats => pick!(run, Floats),
            Format::Pairs if isa.rich().pairs() => pick!(run_rich, RichPairs),
            Format::Pairs => pick!(run, Pairs),
            Format::Bytes | Format::LowBytes if isa.rich().bytes() => pick!(run_rich, RichBytes),
            Format::LowBytes if isa.largest_byte() < 255 => pick!(run, LowBytes),
            Format::Bytes | Format::LowBytes => pick!(run, Bytes),
        }
    }
}

/// A step of the sum: what a word of a row, or two, is multiplied with, and how.
trait Dot {
    const WORDS: usize;
    type Word<S: Simd>: Copy;
    type Sum<S: Simd>: Copy;
    /// Whether there is a use for it on this set.
    fn used<S: Simd>() -> bool;
    unsafe fn zero<S: Simd>() -> Self::Sum<S>;
    /// Words of a row, in every lane.
    unsafe fn splat<S: Simd>(row: *const u8) -> Self::Word<S>;
    unsafe fn load<S: Simd>(panel: *const u8) -> Self::Word<S>;
    unsafe fn add<S: Simd>(row: Self::Word<S>, weights: Self::Word<S>, sum: Self::Sum<S>) -> Self::Sum<S>;
}

/// `name(words, word, sum, zero, splat, load, step, where it is used)`
macro_rules! dots {
    ($($(#[$doc:meta])* $name:ident($words:literal, $word:ty, $sum:ident, $zero:expr, $splat:expr, $load:expr, $step:expr, $used:expr);)*) => {$(
        $(#[$doc])*
        struct $name;
        impl Dot for $name {
            const WORDS: usize = $words;
            type Word<S: Simd> = $word;
            type Sum<S: Simd> = S::$sum;
            #[inline(always)]
            fn used<S: Simd>() -> bool {
                $used
            }
            #[inline(always)]
            unsafe fn zero<S: Simd>() -> S::$sum {
                // SAFETY: the caller vouches for the instruction set.
                unsafe { $zero }
            }
            #[inline(always)]
            unsafe fn splat<S: Simd>(row: *const u8) -> $word {
                // SAFETY: the caller vouches for so many words.
                unsafe { $splat(row.cast()) }
            }
            #[inline(always)]
            unsafe fn load<S: Simd>(panel: *const u8) -> $word {
                // SAFETY: the caller vouches for a vector of each word.
                unsafe { $load(panel.cast()) }
            }
            #[inline(always)]
            unsafe fn add<S: Simd>(row: $word, weights: $word, sum: S::$sum) -> S::$sum {
                // SAFETY: arithmetic only; the caller vouches for the instruction set.
                unsafe { $step(row, weights, sum) }
            }
        }
    )*};
}

dots! {
    Floats(1, S::F, F, S::splat(0.0), |p: *const f32| S::splat(p.read_unaligned()), S::load, S::fma, true);
    Pairs(1, S::I, F, S::splat(0.0), S::splat_bytes, S::load_quads, S::dot_pairs, true);
    RichPairs(1, S::I, F, S::splat(0.0), S::splat_bytes, S::load_quads, S::dot_pairs_rich, S::RICH.pairs());
    Bytes(1, S::I, I, S::zero(), S::splat_bytes, S::load_quads, S::dot, true);
    LowBytes(2, [S::I; 2], I, S::zero(), |p: *const u8| [S::splat_bytes(p), S::splat_bytes(p.add(4))],
        |p: *const i8| [S::load_quads(p), S::load_quads(p.add(8 * S::LANES))], S::dot_low, S::RICH.bytes());
    RichBytes(1, S::I, I, S::zero(), S::splat_bytes, S::load_quads, S::dot_rich, S::RICH.bytes());
}

/// A tile of `ROWS` rows and `WIDE` vectors.
struct Tall<D, const ROWS: usize, const WIDE: usize>(Tile, PhantomData<D>);

impl<D: Dot, const ROWS: usize, const WIDE: usize> Kernel for Tall<D, ROWS, WIDE> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let t = self.0;
        if ROWS > S::ROWS || !D::used::<S>() {
            return;
        }
        // SAFETY: `t` describes valid memory by its maker's promise; offsets stay within the tile.
        unsafe {
            for i in 0..ROWS {
                let out = t.out.wrapping_add(i * t.out_stride);
                S::prefetch(out);
                S::prefetch(out.wrapping_add(t.out_last));
            }
            let mut sums = [[D::zero::<S>(); WIDE]; ROWS];
            let (mut panel, mut row, mut ahead) = (t.panel, t.rows, t.ahead);
            for _ in 0..t.words / D::WORDS {
                for word in 0..D::WORDS {
                    S::prefetch(ahead.wrapping_add(word * t.ahead_step));
                }
                let mut column = [D::load::<S>(panel); WIDE];
                if WIDE == 2 {
                    column[WIDE - 1] = D::load::<S>(panel.add(4 * S::LANES));
                }
                for (i, sums) in sums.iter_mut().enumerate() {
                    let x = D::splat::<S>(row.add(i * t.stride));
                    for (sum, &c) in sums.iter_mut().zip(&column) {
                        *sum = D::add::<S>(x, c, *sum);
                    }
                }
                panel = panel.add(8 * S::LANES * D::WORDS);
                row = row.add(4 * D::WORDS);
                ahead = ahead.wrapping_add(t.ahead_step * D::WORDS);
            }
            for (i, sums) in sums.iter().enumerate() {
                for (j, &sum) in sums.iter().enumerate() {
                    (&raw mut (*t.sums).0[i][j]).cast::<D::Sum<S>>().write(sum);
                }
            }
        }
    }
}
