//! Distances, and the only `unsafe` arithmetic.
//!
//! One table of function pointers, filled once for the processor at hand. A kernel scores a whole list of records per call, so
//! that the call through a pointer is paid once per visited node and the loop inside is compiled with the right instructions;
//! a generic walk per instruction set would compile everything three times, and a call per distance costs as much as the distance.
//!
//! Invariants: the integer products are equal, bit for bit, to those of [`portable`] on every path, and the float correction is
//! the same sequence of operations, so code scores do not depend on the processor. Sums of exact f32 rows may differ in the last
//! bits.

#[cfg(all(target_arch = "aarch64", target_endian = "little"))]
mod aarch64;
mod portable;
#[cfg(target_arch = "x86_64")]
mod sse2;
#[cfg(target_arch = "x86_64")]
mod x86_64;

use half::f16;

use crate::config::Rows;
use crate::vectors::{Records, Shape};

/// Codes of a query, 64 to a cache line.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Line(pub(crate) [i8; 64]);

/// A query in the form that the walk needs: `score(x) = offset + bias(x) + scale * scale(x) * Σ q·(c(x) - 128)`.
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

    /// Scores of the records `rows` against a query, into the front of `out`. Codes are fetched ahead, but for the first few
    /// ([`prefetch_first`]).
    #[inline]
    pub(crate) fn scores(&self, query: &CodeQuery, records: &Records<'_>, rows: &[u32], out: &mut [f32]) {
        let shape = records.shape;
        assert!(query.lines.len() * 64 == shape.code && out.len() >= rows.len());
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

/// Asks for the codes with which [`Kernels::scores`] begins, of which there are `asked` already; it asks for those that follow.
#[inline(always)]
pub(crate) fn prefetch_first(records: &Records<'_>, rows: &[u32], asked: usize) {
    let first = rows.iter().take(AHEAD.saturating_sub(asked));
    first.for_each(|&row| prefetch(&records.record(row)[..records.shape.code + Shape::ERROR]));
}

/// The row that is fetched while the one at `at` is scored.
#[inline(always)]
fn later(rows: &[u32], at: usize) -> u32 {
    rows[(at + AHEAD).min(rows.len() - 1)]
}

/// The score of one record from its integer product: the one place where the order of the float operations is fixed.
///
/// # Safety
/// `record` points at a record of `shape`.
#[inline(always)]
unsafe fn correct(query: &CodeQuery, record: *const u8, shape: Shape, product: i32) -> f32 {
    // SAFETY: the record holds scale and bias at these offsets.
    let (scale, bias) = unsafe {
        let at = record.add(shape.code);
        (at.add(Shape::SCALE).cast::<u32>().read_unaligned(), at.add(Shape::BIAS).cast::<u32>().read_unaligned())
    };
    let (scale, bias) = (f32::from_bits(u32::from_le(scale)), f32::from_bits(u32::from_le(bias)));
    query.offset + bias + query.scale * scale * product as f32
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
            for row in 0..count {
                let at = shift + row * shape.stride + shape.code;
                bytes[at + Shape::SCALE..][..4].copy_from_slice(&0.37f32.to_le_bytes());
                bytes[at + Shape::BIAS..][..4].copy_from_slice(&(-1.5f32).to_le_bytes());
            }
            let records = Records::new(&bytes[shift..], shape, count as u32).unwrap();
            let q = query(&q[..lines * 64], 0.01, 2.0);
            let rows = [4u32, 0, 2, 2, 1, 3];
            let mut expected = [0f32; 6];
            portable_scores(&q, &records, &rows, &mut expected);
            for kernels in Kernels::all() {
                let mut found = [0f32; 6];
                kernels.scores(&q, &records, &rows, &mut found);
                prop_assert_eq!(found.map(f32::to_bits), expected.map(f32::to_bits), "{}", kernels.name);
                for (a, b) in [(0u32, 1u32), (3, 3), (4, 2)] {
                    let made = |row| records.code(row).iter().map(|&x| x.max(1)).collect::<Vec<u8>>();
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

    fn portable_scores(q: &CodeQuery, records: &Records<'_>, rows: &[u32], out: &mut [f32]) {
        for (&row, out) in rows.iter().zip(out) {
            let codes = q.lines.iter().flat_map(|l| l.0);
            let product: i32 = codes.zip(records.code(row)).map(|(a, &c)| i32::from(a) * (i32::from(c) - 128)).sum();
            *out = q.offset + records.bias(row) + q.scale * records.scale(row) * product as f32;
        }
    }
}
