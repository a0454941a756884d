//! Activations as a product wants to read them: f32, bf16, or bytes with a scale and a zero per row and the outliers apart.
//!
//! Rows lie an odd number of cache lines apart. A tile reads the same column of 13 rows; were rows a multiple of 4 KiB apart,
//! as they are for most models, those would fall into one set of the first-level cache and push each other out.
//!
//! **Outliers.** Trained transformers have a few channels that are hundreds of times as large as the rest (Dettmers et al.
//! 2022, LLM.int8(); Sun et al. 2024, Massive Activations, for CLIP). One such number would stretch the scale of its row until
//! all the others round to zero. So numbers that are far above their row's mean magnitude are taken out, and multiplied in
//! f32 with weights of 16 bits. Which they are is seen in the row itself: no calibration is needed, and a picture's vector
//! does not depend on its batch.

use super::aligned::Aligned;
use super::finish::Outlier;
use super::norm::LayerNorm;
use super::simd::{Isa, Kernel, Simd};

/// How numbers are multiplied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Number {
    F32,
    Bf16,
    Int8,
}

impl Number {
    /// Bytes of one.
    pub(super) fn size(self) -> usize {
        match self {
            Number::F32 => 4,
            Number::Bf16 => 2,
            Number::Int8 => 1,
        }
    }
}

/// A number is an outlier if it is so many times as large as the mean of its row. Normally distributed rows have none, and
/// rows behind a GELU seldom.
const OUTLIER: f32 = 12.0;

/// Most outliers of a row.
const MOST_OUTLIERS: usize = 24;

/// Rows of one width.
pub(super) struct Rows {
    isa: Isa,
    number: Number,
    width: usize,
    /// Bytes from row to row.
    stride: usize,
    bytes: Aligned<u8>,
    scales: Aligned<f32>,
    /// The byte of each row that means zero.
    zeros: Aligned<f32>,
    outliers: Vec<Outlier>,
    /// Where each row's outliers begin, and the end.
    first: Vec<u32>,
    /// One row of f32, before it is converted.
    row: Aligned<f32>,
}

impl Rows {
    /// Rows of `width` numbers, a multiple of 8.
    pub(super) fn new(isa: Isa, number: Number, width: usize) -> Self {
        assert!(width.is_multiple_of(8), "rows of {width}");
        let lines = (width * number.size()).div_ceil(64);
        Self {
            isa,
            number,
            width,
            stride: 64 * (lines + usize::from(lines.is_multiple_of(2))),
            bytes: Aligned::default(),
            scales: Aligned::default(),
            zeros: Aligned::default(),
            outliers: Vec::new(),
            first: Vec::new(),
            row: Aligned::zeroed(width),
        }
    }

    pub(super) fn number(&self) -> Number {
        self.number
    }

    pub(super) fn width(&self) -> usize {
        self.width
    }

    /// Bytes from row to row.
    pub(super) fn stride(&self) -> usize {
        self.stride
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Scales of the rows, the bytes that mean zero, outliers, and where each row's begin.
    pub(super) fn steps(&self) -> (&[f32], &[f32], &[Outlier], &[u32]) {
        (&self.scales, &self.zeros, &self.outliers, &self.first)
    }

    /// Makes room for `count` rows, whose numbers are unspecified.
    pub(super) fn reserve(&mut self, count: usize) -> &mut [u8] {
        self.bytes.at_least(count * self.stride)
    }

    /// Room for `count` rows of f32, and how many numbers lie between them.
    ///
    /// # Panics
    /// If these are no rows of f32.
    pub(super) fn floats(&mut self, count: usize) -> (&mut [f32], usize) {
        assert_eq!(self.number, Number::F32, "rows of f32");
        let stride = self.stride / 4;
        let bytes = self.bytes.at_least(count * 4 * stride);
        // SAFETY: the bytes are aligned to a cache line, and any bits are an f32.
        (unsafe { std::slice::from_raw_parts_mut(bytes.as_mut_ptr().cast(), count * stride) }, stride)
    }

    /// `count` rows of `x`, normalised.
    pub(super) fn normalise(&mut self, norm: &LayerNorm, x: &[f32], count: usize) {
        self.fill(count, |i, row| norm.apply(&x[i * row.len()..][..row.len()], row));
    }

    /// `count` rows that begin `stride` numbers apart.
    pub(super) fn convert(&mut self, x: &[f32], stride: usize, count: usize) {
        let width = self.width;
        if self.number == Number::F32 {
            let (rows, to) = self.floats(count);
            rows.chunks_exact_mut(to)
                .take(count)
                .enumerate()
                .for_each(|(i, row)| row[..width].copy_from_slice(&x[i * stride..][..width]));
            return;
        }
        self.clear(count);
        (0..count).for_each(|i| self.round(i, &x[i * stride..][..width]));
        self.first.push(self.outliers.len() as u32);
    }

    /// `count` rows of bf16 that begin `stride` numbers apart.
    pub(super) fn convert_pairs(&mut self, x: &[u16], stride: usize, count: usize) {
        let isa = self.isa;
        self.fill(count, |i, row| {
            let from = &x[i * stride..][..row.len()];
            // SAFETY: both have the same number of numbers.
            unsafe { isa.run(FromPairs { from, to: row }) }
        });
    }

    /// `count` rows that `make` writes as f32.
    pub(super) fn fill(&mut self, count: usize, mut make: impl FnMut(usize, &mut [f32])) {
        let width = self.width;
        if self.number == Number::F32 {
            let (rows, stride) = self.floats(count);
            rows.chunks_exact_mut(stride).enumerate().for_each(|(i, row)| make(i, &mut row[..width]));
            return;
        }
        self.clear(count);
        let mut row = std::mem::take(&mut self.row);
        for i in 0..count {
            make(i, &mut row);
            self.round(i, &row);
        }
        self.row = row;
        self.first.push(self.outliers.len() as u32);
    }

    /// Room for `count` rows, and no outliers.
    fn clear(&mut self, count: usize) {
        self.reserve(count);
        self.outliers.clear();
        self.first.clear();
        if self.number == Number::Int8 {
            self.scales.at_least(count);
            self.zeros.at_least(count);
        }
    }

    /// Writes row `i` as bf16 or bytes; rows come in order.
    fn round(&mut self, i: usize, row: &[f32]) {
        let to = &mut self.bytes[i * self.stride..][..self.stride];
        if self.number == Number::Bf16 {
            assert!(2 * row.len().next_multiple_of(self.isa.lanes()) <= to.len(), "whole vectors");
            // SAFETY: the place has room for whole vectors.
            unsafe { self.isa.run(ToPairs { from: row, to: to.as_mut_ptr().cast() }) }
        } else {
            self.first.push(self.outliers.len() as u32);
            (self.scales[i], self.zeros[i]) = quantise_row(self.isa, row, &mut to[..self.width], &mut self.outliers);
        }
    }
}

/// A row of a multiple of 8 numbers as bytes, without its outliers, which are appended to `outliers`. Gives scale and zero: a byte
/// means `scale × (byte - zero)`, and the zero is a whole number, so that nothing is exactly nothing.
///
/// The bytes reach from the row's smallest number to its largest. Behind a GELU that is half of what they would reach if zero
/// stood in the middle, and a bit more precision; it matters most where the set's products take seven bits.
pub(super) fn quantise_row(isa: Isa, row: &[f32], bytes: &mut [u8], outliers: &mut Vec<Outlier>) -> (f32, f32) {
    assert_eq!(row.len(), bytes.len(), "as many bytes as numbers");
    // SAFETY: a slice is what it says.
    let Extent { mut least, mut most, total } = unsafe { isa.run(Extents(row)) };
    let before = outliers.len();
    let mut limit = OUTLIER * total / row.len() as f32;
    if most.max(-least) > limit {
        while row.iter().filter(|x| x.abs() > limit).count() > MOST_OUTLIERS {
            limit *= 1.5;
        }
        (least, most) = (0.0, 0.0);
        for (at, &value) in row.iter().enumerate() {
            if value.abs() > limit {
                outliers.push(Outlier { at: at as u32, value });
            } else {
                (least, most) = (value.min(least), value.max(most));
            }
        }
    }
    // One step less than there are: the zero is rounded.
    let steps = f32::from(isa.largest_byte() - 1);
    let scale = (most - least).max(1e-12) / steps;
    let zero = (-least / scale).round_ties_even();
    // SAFETY: the lengths were compared.
    unsafe { isa.run(ToBytes { from: row, to: bytes.as_mut_ptr(), factor: 1.0 / scale, zero }) };
    outliers[before..].iter().for_each(|outlier| bytes[outlier.at as usize] = zero as u8);
    (scale, zero)
}

/// The smallest and the largest number, and the sum of magnitudes.
struct Extent {
    least: f32,
    most: f32,
    total: f32,
}

struct Extents<'a>(&'a [f32]);

impl Kernel for Extents<'_> {
    type Output = Extent;

    #[inline(always)]
    unsafe fn run<S: Simd>(self) -> Extent {
        // SAFETY: no access goes past the slice.
        unsafe {
            let none = S::splat(0.0);
            let (mut least, mut most, mut total) = (none, none, none);
            for i in (0..self.0.len()).step_by(S::LANES) {
                let x = S::load_first(self.0.as_ptr().add(i), S::LANES.min(self.0.len() - i));
                least = S::min(least, x);
                most = S::max(most, x);
                total = S::add(total, S::abs(x));
            }
            Extent { least: -S::largest(S::sub(none, least)), most: S::largest(most), total: S::sum(total) }
        }
    }
}

/// `x × factor + zero` as bytes; at least 8 numbers.
struct ToBytes<'a> {
    from: &'a [f32],
    to: *mut u8,
    factor: f32,
    zero: f32,
}

impl Kernel for ToBytes<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let n = self.from.len();
        // SAFETY: `to` has as many bytes as `from` has numbers; the last vector overlaps the one before.
        unsafe {
            if n < S::LANES {
                for (i, &x) in self.from.iter().enumerate() {
                    *self.to.add(i) = x.mul_add(self.factor, self.zero).round_ties_even() as u8;
                }
                return;
            }
            for i in (0..n).step_by(S::LANES) {
                let i = i.min(n - S::LANES);
                let x = S::fma(S::load(self.from.as_ptr().add(i)), S::splat(self.factor), S::splat(self.zero));
                S::store_bytes(self.to.add(i), x);
            }
        }
    }
}

/// f32 from bf16, of as many numbers.
struct FromPairs<'a> {
    from: &'a [u16],
    to: &'a mut [f32],
}

impl Kernel for FromPairs<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let whole = self.from.len() / S::LANES * S::LANES;
        for i in (0..whole).step_by(S::LANES) {
            // SAFETY: whole vectors of both.
            unsafe { S::store(self.to.as_mut_ptr().add(i), S::load_pairs(self.from.as_ptr().add(i))) };
        }
        for (to, &from) in self.to[whole..].iter_mut().zip(&self.from[whole..]) {
            *to = f32::from_bits(u32::from(from) << 16);
        }
    }
}

/// bf16, in a place with room for whole vectors.
struct ToPairs<'a> {
    from: &'a [f32],
    to: *mut u16,
}

impl Kernel for ToPairs<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let n = self.from.len();
        // SAFETY: `to` has room for whole vectors by its maker's promise.
        unsafe {
            for i in (0..n).step_by(S::LANES) {
                let x = S::load_first(self.from.as_ptr().add(i), S::LANES.min(n - i));
                S::store_pairs(self.to.add(i), x);
            }
        }
    }
}
