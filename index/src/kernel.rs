//! Distances, and the only `unsafe` arithmetic.
//!
//! One table of function pointers, filled once for the processor at hand. A kernel scores a whole list of records per call, so
//! that the call through a pointer is paid once per visited node and the loop inside is compiled with the right instructions;
//! a generic walk per instruction set would compile everything three times, and a call per distance costs as much as the distance.
//!
//! Invariants: the integer products are equal, bit for bit, to those of [`portable`] on every path, and the float correction is
//! the same sequence of operations, so code scores do not depend on the processor. Sums of exact f32 rows may differ in the last
//! bits.

/// Scores of a list of records, with the way of one instruction set to sum up the products of a plane.
macro_rules! code_kernels {
    ($(#[$attribute:meta])* $rough:ident, $scores:ident, $halves:ident) => {
        /// # Safety
        /// Every row lies inside `records`, whose records are whole; the query is as long as a code; the processor has the features.
        $(#[$attribute])*
        unsafe fn $rough(query: &CodeQuery, records: &[u8], shape: Shape, rows: &[u32], out: &mut [f32]) {
            use crate::kernel::{AHEAD, FAR_AHEAD, correct_rough, later, prefetch_line};
            let record_of = |row: u32| records.as_ptr().wrapping_add(row as usize * shape.stride);
            for (at, (&row, out)) in rows.iter().zip(out).enumerate() {
                prefetch_line(record_of(later(rows, at, FAR_AHEAD)));
                // SAFETY: the record lies inside `records`, and the plane inside the record.
                unsafe {
                    let high = $halves(query, record_of(row), shape.plane, record_of(later(rows, at, AHEAD)));
                    *out = correct_rough(query, record_of(row), high);
                }
            }
        }

        /// # Safety
        /// As above.
        $(#[$attribute])*
        unsafe fn $scores(query: &CodeQuery, records: &[u8], shape: Shape, rows: &[u32], out: &mut [f32]) {
            use crate::kernel::{AHEAD, correct, later, prefetch_line};
            let record_of = |row: u32| records.as_ptr().wrapping_add(row as usize * shape.stride);
            for (at, (&row, out)) in rows.iter().zip(out).enumerate() {
                let (record, next) = (record_of(row), record_of(later(rows, at, AHEAD)));
                // SAFETY: as above, for both planes.
                unsafe {
                    let high = $halves(query, record, shape.plane, next);
                    prefetch_line(next.wrapping_add(shape.plane));
                    let low = $halves(query, record.add(shape.low()), shape.plane, next.wrapping_add(shape.low()));
                    *out = correct(query, record, shape, high, low);
                }
            }
        }
    };
}

#[cfg(all(target_arch = "aarch64", target_endian = "little"))]
mod aarch64;
mod portable;
#[cfg(target_arch = "x86_64")]
mod sse2;
#[cfg(target_arch = "x86_64")]
mod x86_64;

use half::f16;

use crate::config::Rows;
use crate::vectors::{HIGH_MIDDLE, LENT, Records, Shape, Terms};

/// Codes of a query, 64 to a cache line.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Line(pub(crate) [i8; 64]);

/// A query in the form that the walk needs: `score(x) = offset + bias(x) + scale * scale(x) * Σ q·(c(x) - 128)`. By the high halves h of
/// the codes alone it is about `offset + bias(x) + scale * rough(x) * Σ q·(16·h(x) - 120.5)`.
#[derive(Clone, Debug, Default)]
pub(crate) struct CodeQuery {
    pub(crate) lines: Vec<Line>,
    /// Sum of the codes.
    pub(crate) sum: i32,
    pub(crate) scale: f32,
    pub(crate) offset: f32,
}

type Scores = unsafe fn(&CodeQuery, &[u8], Shape, &[u32], &mut [f32]);
type Merge = unsafe fn(&mut [f32], &mut [u32], usize, usize, &[u32], &[f32]) -> (usize, usize);
type Pair = unsafe fn(&[u8], &[u8]) -> i32;
type Exact = unsafe fn(&[f32], &[u8]) -> f32;

/// Instructions that plain code can be compiled for; see [`Kernels::wide`].
#[derive(Clone, Copy, Debug)]
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, reason = "one width fits all there"))]
enum Lanes {
    Base,
    Avx2,
    Avx512,
}

/// Loops that need no intrinsics, only a compiler that may use the vector instructions at hand. The order of float operations, and so
/// the result, is the same everywhere.
pub(crate) trait Wide {
    type Output;
    /// Must be `#[inline(always)]`, and so must be all that it calls: what is compiled by itself is compiled for the oldest processor.
    fn run(self) -> Self::Output;
}

/// The kernels for this processor.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kernels {
    /// Name of the instruction set, for reports.
    pub(crate) name: &'static str,
    lanes: Lanes,
    rough: Scores,
    scores: Scores,
    merge: Merge,
    pair: Pair,
    dot_f32: Exact,
    dot_f16: Exact,
    l2_f32: Exact,
    l2_f16: Exact,
}

impl Kernels {
    /// The fastest kernels that this processor runs.
    pub(crate) fn detect() -> Kernels {
        *Kernels::all().last().expect("the portable kernels are always there")
    }

    /// Every set of kernels that this processor runs, the oracle first, the fastest last.
    pub(crate) fn all() -> Vec<Kernels> {
        #[allow(unused_mut, reason = "other architectures have the portable kernels only")]
        let mut all = vec![portable::KERNELS];
        #[cfg(target_arch = "x86_64")]
        {
            all.push(sse2::KERNELS);
            all.extend(x86_64::available());
        }
        #[cfg(all(target_arch = "aarch64", target_endian = "little"))]
        all.extend(aarch64::available());
        all
    }

    /// Does `work`, compiled for the instructions at hand.
    #[inline]
    pub(crate) fn wide<W: Wide>(&self, work: W) -> W::Output {
        match self.lanes {
            // SAFETY: the table holds only kernels that this processor runs.
            #[cfg(target_arch = "x86_64")]
            Lanes::Avx512 => unsafe { x86_64::wide_avx512(work) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Lanes::Avx2 => unsafe { x86_64::wide_avx2(work) },
            _ => work.run(),
        }
    }

    /// Rough scores of the records `rows` against a query, into the front of `out`: from the high halves of their codes, or from whole
    /// codes where these are short ([`Shape::rough`]). Codes are fetched ahead, but for the first few
    /// ([`prefetch_fronts`]).
    #[inline]
    pub(crate) fn rough(&self, query: &CodeQuery, records: &Records<'_>, rows: &[u32], out: &mut [f32]) {
        let shape = records.shape;
        if !shape.rough() {
            return self.scores(query, records, rows, out);
        }
        assert!(query.lines.len() * 32 == shape.plane && out.len() >= rows.len());
        assert!(rows.iter().all(|&row| row < records.count));
        debug_assert!(records.bytes.len() >= records.count as usize * shape.stride);
        // SAFETY: as in `scores`.
        unsafe { (self.rough)(query, records.bytes, shape, rows, out) }
    }

    /// Scores of the records `rows` against a query, into the front of `out`. Codes are fetched ahead, but for the first few
    /// ([`prefetch_codes`]).
    #[inline]
    pub(crate) fn scores(&self, query: &CodeQuery, records: &Records<'_>, rows: &[u32], out: &mut [f32]) {
        let shape = records.shape;
        assert!(query.lines.len() * 32 == shape.plane && out.len() >= rows.len());
        assert!(rows.iter().all(|&row| row < records.count));
        debug_assert!(records.bytes.len() >= records.count as usize * shape.stride);
        // SAFETY: every row lies inside the records (asserted; whoever makes `Records` has sized the bytes by their layout), the
        // query is as long as the codes, `out` has room, and the table holds only kernels that this processor runs.
        unsafe { (self.scores)(query, records.bytes, shape, rows, out) }
    }

    /// Inserts places by score into a list that is sorted by falling score, behind equals, and drops what falls behind the best
    /// `keep`. The first `len` entries of `list` are taken. Returns where the best newcomer stands ([`usize::MAX`] if none got in) and
    /// how many entries there are now. A score that is not a number stays out.
    #[inline]
    pub(crate) fn merge(
        &self,
        list: (&mut [f32], &mut [u32]),
        len: usize,
        keep: usize,
        places: &[u32],
        scores: &[f32],
    ) -> (usize, usize) {
        let room = (len + scores.len()).min(keep);
        assert!(len <= keep && list.0.len() >= room && list.1.len() >= room && places.len() == scores.len());
        // SAFETY: the list has room for all that can be in it; the table holds only kernels that this processor runs.
        unsafe { (self.merge)(list.0, list.1, len, keep, places, scores) }
    }

    /// Σ (a - 128)·(b - 128) over two codes of equal length, a multiple of 64. Of codes that were made and not read from a file: none
    /// of their bytes is 0.
    #[inline]
    pub(crate) fn pair(&self, a: &[u8], b: &[u8]) -> i32 {
        assert!(a.len() == b.len() && a.len().is_multiple_of(64));
        // SAFETY: equal lengths, a multiple of 64; the table holds only kernels that this processor runs. A byte of 0 makes the
        // product wrong on some of them, and nothing else.
        unsafe { (self.pair)(a, b) }
    }

    /// Dot product of a query with a stored row.
    #[inline]
    pub(crate) fn dot(&self, query: &[f32], row: &[u8], rows: Rows) -> f32 {
        assert!(row.len() == query.len() * rows.bytes());
        // SAFETY: the row is as long as the query; the table holds only kernels that this processor runs.
        unsafe { if rows == Rows::F32 { (self.dot_f32)(query, row) } else { (self.dot_f16)(query, row) } }
    }

    /// Squared distance of a query to a stored row.
    #[inline]
    pub(crate) fn l2(&self, query: &[f32], row: &[u8], rows: Rows) -> f32 {
        assert!(row.len() == query.len() * rows.bytes());
        // SAFETY: as in `dot`.
        unsafe { if rows == Rows::F32 { (self.l2_f32)(query, row) } else { (self.l2_f16)(query, row) } }
    }
}

/// Asks the processor to fetch these bytes; a hint without effect on any result.
#[inline(always)]
pub(crate) fn prefetch(bytes: &[u8]) {
    for line in (0..bytes.len()).step_by(64) {
        prefetch_line(bytes.as_ptr().wrapping_add(line));
    }
}

/// As [`prefetch`], for the links of a row.
#[inline(always)]
pub(crate) fn prefetch_links(records: &Records<'_>, row: u32) {
    prefetch(&records.record(row)[records.shape.plane..records.shape.low()]);
}

/// As [`prefetch`], for what [`Kernels::rough`] reads of the rows with which it begins, `asked` of which were asked for already; it asks
/// for those that follow.
#[inline(always)]
pub(crate) fn prefetch_fronts(records: &Records<'_>, rows: &[u32], asked: usize) {
    let front = if records.shape.rough() { records.shape.plane } else { records.shape.stride };
    let near = first(rows, asked, AHEAD);
    let far = &first(rows, asked, FAR_AHEAD)[near.len()..];
    near.iter().for_each(|&row| prefetch(&records.record(row)[..front]));
    far.iter().for_each(|&row| prefetch(&records.record(row)[..1]));
}

/// As [`prefetch_fronts`], for [`Kernels::scores`].
#[inline(always)]
pub(crate) fn prefetch_codes(records: &Records<'_>, rows: &[u32]) {
    for &row in first(rows, 0, AHEAD) {
        let (front, low) = records.record(row).split_at(records.shape.low());
        prefetch(&front[..records.shape.plane + Shape::TWIN]);
        prefetch(low);
    }
}

/// Into the second cache: the first has room for fewer misses under way, and what else is to be read would wait for them. On a Zen 4 a
/// walk takes a fifth less time so.
#[inline(always)]
fn prefetch_line(at: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch never faults.
    unsafe {
        std::arch::x86_64::_mm_prefetch(at.cast(), std::arch::x86_64::_MM_HINT_T1);
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: as above.
    unsafe {
        std::arch::asm!("prfm pldl1keep, [{at}]", at = in(reg) at, options(readonly, nostack, preserves_flags));
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let _ = at;
}

/// Records that are fetched ahead of the one that is scored. Few, so that memory and arithmetic are busy at the same time: when all of
/// a step were asked for at once the processor did nothing else until most had come, which took a quarter to a third longer on a
/// Zen 3, where four to eight are equally good.
const AHEAD: usize = 6;

/// The rows that nothing before them asks for.
#[inline(always)]
fn first(rows: &[u32], asked: usize, ahead: usize) -> &[u32] {
    &rows[..rows.len().min(ahead.saturating_sub(asked))]
}

/// Records whose first line is fetched ahead of the one that is scored, for the sake of its page: few pages of an index are in the TLB, and
/// a processor that asks for line after line of a page whose place it does not know has no room left to do anything else. Walks take 5 to
/// 6 % less time; eight to twelve are equally good.
const FAR_AHEAD: usize = 10;

/// The row that is fetched while the one at `at` is scored.
#[inline(always)]
fn later(rows: &[u32], at: usize, ahead: usize) -> u32 {
    rows[(at + ahead).min(rows.len() - 1)]
}

/// The lowest bits of the first [`LENT`] bytes.
///
/// # Safety
/// So many bytes can be read at `plane`.
#[inline(always)]
unsafe fn lowest_bits(plane: *const u8) -> u32 {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the caller's; every x86-64 has SSE2.
    unsafe {
        use std::arch::x86_64::{_mm_loadu_si128, _mm_movemask_epi8, _mm_slli_epi16};
        let half = |at: usize| _mm_movemask_epi8(_mm_slli_epi16(_mm_loadu_si128(plane.add(at).cast()), 7)) as u32;
        half(0) | half(16) << 16
    }
    #[cfg(not(target_arch = "x86_64"))]
    // SAFETY: the caller's.
    unsafe {
        (0..LENT).fold(0, |bits, at| bits | u32::from(*plane.add(at) & 1) << at)
    }
}

/// The rough score of one record from the integer product of its high halves, which hold scale and bias too: with [`correct`] the one
/// place where the order of the float operations is fixed. Nobody minds that their lowest bits are not those of the code: by
/// reckoning that is a sixth more error at 512 numbers.
///
/// # Safety
/// `record` points at a record.
#[inline(always)]
unsafe fn correct_rough(query: &CodeQuery, record: *const u8, high: i32) -> f32 {
    // SAFETY: a plane has at least so many bytes.
    let Terms { scale, bias } = Terms::of(unsafe { lowest_bits(record) });
    let twice = 32 * high - (2.0 * HIGH_MIDDLE) as i32 * query.sum;
    query.offset + bias + query.scale * scale * 0.5 * twice as f32
}

/// The score of one record from the integer products of its two planes.
///
/// # Safety
/// `record` points at a record of `shape`.
#[inline(always)]
unsafe fn correct(query: &CodeQuery, record: *const u8, shape: Shape, high: i32, low: i32) -> f32 {
    // SAFETY: the record holds these words at these offsets, and a plane at least so many bytes.
    let ([scale, bias, lent], held) = unsafe {
        let word = |at| u32::from_le(record.add(shape.plane + at).cast::<u32>().read_unaligned());
        ([Shape::SCALE, Shape::BIAS, Shape::LENT].map(word), lowest_bits(record))
    };
    // What the bits that were lent would have added, less what those that stand in their place did.
    let bit = |bits: u32, at: usize| (bits >> at & 1) as i32;
    let front = &query.lines[0].0[..LENT];
    let mended: i32 = (0..LENT).map(|at| i32::from(front[at]) * (bit(lent, at) - bit(held, at))).sum();
    let product = 16 * (high + mended) + low - 128 * query.sum;
    query.offset + f32::from_bits(bias) + query.scale * f32::from_bits(scale) * product as f32
}

/// One number of a stored f16 row.
#[inline(always)]
fn half_at(row: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([row[2 * at], row[2 * at + 1]]).to_f32()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::vectors::Records;

    fn query(codes: &[i8], scale: f32, offset: f32) -> CodeQuery {
        let lines = codes.chunks(64).map(|c| Line(c.try_into().unwrap())).collect();
        CodeQuery { lines, sum: codes.iter().map(|&c| i32::from(c)).sum(), scale, offset }
    }

    fn code() -> impl Strategy<Value = i8> {
        prop_oneof![4 => -127i8..=127, 1 => Just(127i8), 1 => Just(-127i8)]
    }

    const ROUGH: Terms = Terms { scale: 0.375, bias: -1.5 };

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn every_kernel_scores_codes_as_the_oracle_does(
            lines in 1usize..65, shift in 0usize..64, seed in any::<u64>(), q in proptest::collection::vec(code(), 64 * 64),
        ) {
            let shape = Shape::new(lines * 64, 4);
            let count = 5;
            let mut state = seed | 1;
            let mut bytes = vec![0u8; shift + count * shape.stride];
            for b in &mut bytes {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                // The extremes too: a damaged file may hold any byte.
                *b = match state >> 61 { 0 => 0, 1 => 255, _ => (state >> 33) as u8 };
            }
            // Terms that are numbers, so that sums can be compared.
            for row in 0..count {
                let record = &mut bytes[shift + row * shape.stride..][..shape.stride];
                record[shape.plane + Shape::SCALE..][..4].copy_from_slice(&0.37f32.to_le_bytes());
                record[shape.plane + Shape::BIAS..][..4].copy_from_slice(&(-1.5f32).to_le_bytes());
                let terms = ROUGH.bits();
                (0..LENT).for_each(|at| record[at] = record[at] & !1 | (terms >> at & 1) as u8);
            }
            let records = Records::new(&bytes[shift..], shape, count as u32).unwrap();
            let q = query(&q[..lines * 64], 0.01, 2.0);
            let rows = [4u32, 0, 2, 2, 1, 3];
            let codes = |row| {
                let mut code = Vec::new();
                records.code(row, &mut code);
                code
            };
            let products = |value: &dyn Fn(u8) -> f64| {
                let product = |&row: &u32| q.lines.iter().flat_map(|l| l.0).zip(codes(row)).map(|(a, c)| f64::from(a) * value(c)).sum();
                rows.iter().map(product).collect::<Vec<f64>>()
            };
            let whole = products(&|c| f64::from(c) - 128.0);
            let high = products(&|c| f64::from(c & 0xf0) - 120.5);
            let oracle = Kernels::all()[0];
            let scored = |kernels: &Kernels, scores: Scores| {
                let mut found = [0f32; 6];
                // SAFETY: as in `Kernels::scores`.
                unsafe { scores(&q, records.bytes, shape, &rows, &mut found) };
                (found, kernels.name)
            };
            let exact = |product: f64, scale: f32| 0.5 + 0.01 * f64::from(scale) * product;
            let (expected, _) = scored(&oracle, oracle.scores);
            for (score, product) in expected.iter().zip(whole) {
                prop_assert!((f64::from(*score) - exact(product, 0.37)).abs() < 1e-6 * (1.0 + product.abs()));
            }
            // Up to the bits that stand in the place of the code's, 16 each.
            let (rough, _) = scored(&oracle, oracle.rough);
            let lent: f64 = q.lines[0].0[..LENT].iter().map(|&q| 16.0 * f64::from(q).abs()).sum();
            for (score, product) in rough.iter().zip(high) {
                prop_assert!((f64::from(*score) - exact(product, ROUGH.scale)).abs() < 0.004 * lent + 1e-6 * (1.0 + product.abs()));
            }
            for kernels in Kernels::all() {
                let (found, name) = scored(&kernels, kernels.scores);
                prop_assert_eq!(found.map(f32::to_bits), expected.map(f32::to_bits), "{}", name);
                let (found, name) = scored(&kernels, kernels.rough);
                prop_assert_eq!(found.map(f32::to_bits), rough.map(f32::to_bits), "rough, {}", name);
                for (a, b) in [(0u32, 1u32), (3, 3), (4, 2)] {
                    let made = |row| codes(row).into_iter().map(|x| x.max(1)).collect::<Vec<u8>>();
                    let (a, b) = (made(a), made(b));
                    let plain: i32 = a.iter().zip(&b).map(|(&x, &y)| (i32::from(x) - 128) * (i32::from(y) - 128)).sum();
                    prop_assert_eq!(kernels.pair(&a, &b), plain, "{}", kernels.name);
                }
            }
        }

        #[test]
        fn every_kernel_scores_rows_to_within_rounding(
            values in proptest::collection::vec((-2.0f32..2.0, -2.0f32..2.0), 1..700), shift in 0usize..8,
        ) {
            let q: Vec<f32> = values.iter().map(|v| v.0).collect();
            let mut wide = vec![0u8; shift];
            let mut narrow = vec![0u8; shift];
            for v in &values {
                wide.extend(v.1.to_le_bytes());
                narrow.extend(f16::from_f32(v.1).to_le_bytes());
            }
            for kernels in Kernels::all() {
                for (rows, bytes) in [(Rows::F32, &wide[shift..]), (Rows::F16, &narrow[shift..])] {
                    let x: Vec<f64> = (0..q.len()).map(|i| match rows { Rows::F32 => values[i].1.into(), Rows::F16 => half_at(bytes, i).into() }).collect();
                    let dot: f64 = q.iter().zip(&x).map(|(&a, b)| f64::from(a) * b).sum();
                    let l2: f64 = q.iter().zip(&x).map(|(&a, b)| (f64::from(a) - b).powi(2)).sum();
                    prop_assert!((f64::from(kernels.dot(&q, bytes, rows)) - dot).abs() < 1e-3, "{} {rows:?}", kernels.name);
                    prop_assert!((f64::from(kernels.l2(&q, bytes, rows)) - l2).abs() < 1e-2, "{} {rows:?}", kernels.name);
                }
            }
        }
    }
}
