//! The kernels in plain Rust: the oracle of all others, and the path of every processor without its own.

use super::{CodeQuery, Kernels, Lanes, half_at, prefetch_line};
use crate::vectors::Shape;

pub(super) const KERNELS: Kernels =
    Kernels { name: "portable", lanes: Lanes::Base, rough, scores, merge, pair, dot_f32, dot_f16, l2_f32, l2_f16 };

/// Σ q·half over a plane: the low halves of its bytes are the first half of the numbers, the high halves the second. Asks for the plane
/// at `next` meanwhile.
///
/// # Safety
/// `len` bytes can be read at `plane`; the query has twice as many numbers.
unsafe fn halves(query: &CodeQuery, plane: *const u8, len: usize, next: *const u8) -> i32 {
    // SAFETY: the caller's; a query is one run of numbers, cut into lines.
    let (plane, q) = unsafe {
        (std::slice::from_raw_parts(plane, len), std::slice::from_raw_parts(query.lines.as_ptr().cast::<i8>(), 2 * len))
    };
    (0..len).step_by(64).for_each(|at| prefetch_line(next.wrapping_add(at)));
    let (first, second) = q.split_at(len);
    // i16 products summed in pairs: the shape that compilers turn into multiply-add instructions.
    let product = |(&q, half): (&i8, u8)| i32::from(i16::from(q) * i16::from(half));
    let low: i32 = first.iter().zip(plane.iter().map(|byte| byte & 0x0f)).map(product).sum();
    let high: i32 = second.iter().zip(plane.iter().map(|byte| byte >> 4)).map(product).sum();
    low + high
}

code_kernels!(rough, scores, halves);

unsafe fn pair(a: &[u8], b: &[u8]) -> i32 {
    a.iter().zip(b).map(|(&x, &y)| i32::from((i16::from(x) - 128) * (i16::from(y) - 128))).sum()
}

/// Sixteen partial sums, so that the compiler may use vector registers without changing the order of a sum.
#[inline(always)]
fn sum(len: usize, term: impl Fn(usize) -> f32) -> f32 {
    let mut sums = [0f32; 16];
    let whole = len / 16 * 16;
    for i in (0..whole).step_by(16) {
        for (lane, sum) in sums.iter_mut().enumerate() {
            *sum += term(i + lane);
        }
    }
    let tail: f32 = (whole..len).map(term).sum();
    sums.iter().sum::<f32>() + tail
}

#[inline(always)]
fn float_at(row: &[u8], at: usize) -> f32 {
    f32::from_le_bytes([row[4 * at], row[4 * at + 1], row[4 * at + 2], row[4 * at + 3]])
}

unsafe fn dot_f32(q: &[f32], row: &[u8]) -> f32 {
    sum(q.len(), |i| q[i] * float_at(row, i))
}

unsafe fn dot_f16(q: &[f32], row: &[u8]) -> f32 {
    sum(q.len(), |i| q[i] * half_at(row, i))
}

unsafe fn l2_f32(q: &[f32], row: &[u8]) -> f32 {
    sum(q.len(), |i| (q[i] - float_at(row, i)).powi(2))
}

unsafe fn l2_f16(q: &[f32], row: &[u8]) -> f32 {
    sum(q.len(), |i| (q[i] - half_at(row, i)).powi(2))
}

/// # Safety
/// None: everything is checked. The lists have room for `keep` entries, or for all that there will be.
pub(super) unsafe fn merge(
    list: &mut [f32],
    list_places: &mut [u32],
    mut len: usize,
    keep: usize,
    places: &[u32],
    scores: &[f32],
) -> (usize, usize) {
    let mut first = usize::MAX;
    for (&score, &place) in scores.iter().zip(places) {
        if score.is_nan() || len == keep && (len == 0 || score <= list[len - 1]) {
            continue;
        }
        len -= usize::from(len == keep);
        let to = list[..len].partition_point(|&other| other >= score);
        list.copy_within(to..len, to + 1);
        list_places.copy_within(to..len, to + 1);
        (list[to], list_places[to]) = (score, place);
        len += 1;
        first = first.min(to);
    }
    (first, len)
}
