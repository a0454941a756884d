//! Near duplicates among results.
//!
//! Two rules, for two callers. clip-retrieval joins every pair above its threshold and keeps the best of each connected
//! group, so a chain of similar pictures collapses into one. Our own answers hide a picture only if it is close to one that
//! is shown: the result does not depend on how many follow, which pages of a long list need.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use rayon::prelude::*;

/// Cosine above which clip-retrieval takes two pictures for one.
pub(super) const THRESHOLD: f32 = 0.94;

/// Results that near duplicates are looked for among: the work grows with the square of it.
pub(super) const EXAMINED: usize = 10_000;

/// Below this many rows threads cost more than they save.
const PARALLEL: usize = 256;

/// Rows of length one, each of `dim` numbers.
pub(super) struct Rows {
    dim: usize,
    numbers: Vec<f32>,
}

impl Rows {
    pub(super) fn new(dim: usize) -> Self {
        Rows { dim: dim.max(1), numbers: Vec::new() }
    }

    pub(super) fn push(&mut self, row: &[f32]) {
        debug_assert_eq!(row.len(), self.dim);
        self.numbers.extend_from_slice(row);
    }

    pub(super) fn len(&self) -> usize {
        self.numbers.len() / self.dim
    }

    fn row(&self, at: usize) -> &[f32] {
        &self.numbers[at * self.dim..][..self.dim]
    }
}

/// Positions that are left when each group of rows that `threshold` connects keeps its first.
pub(super) fn best_of_groups(rows: &Rows, threshold: f32) -> Vec<usize> {
    let count = rows.len();
    let arch = pulp::Arch::new();
    let groups = Groups((0..count).map(AtomicUsize::new).collect());
    let join = |at: usize| {
        let row = rows.row(at);
        arch.dispatch(|| {
            for other in (at + 1..count).filter(|&other| dot(row, rows.row(other)) > threshold) {
                groups.join(at, other);
            }
        });
    };
    if count < PARALLEL {
        (0..count).for_each(join);
    } else {
        (0..count).into_par_iter().for_each(join);
    }
    (0..count).filter(|&at| groups.root(at) == at).collect()
}

/// Which rows are in one group, joined pair by pair from any thread. Each row points to an earlier one of its group, the first
/// to itself; so the root of a group is its first row, in whatever order pairs are found.
struct Groups(Vec<AtomicUsize>);

impl Groups {
    fn root(&self, mut at: usize) -> usize {
        loop {
            let parent = self.0[at].load(Relaxed);
            if parent == at {
                return at;
            }
            // Only roots are ever compared and swapped, and what is none never becomes one: this store disturbs nobody.
            let beyond = self.0[parent].load(Relaxed);
            self.0[at].store(beyond, Relaxed);
            at = beyond;
        }
    }

    fn join(&self, a: usize, b: usize) {
        loop {
            let (a, b) = (self.root(a), self.root(b));
            let (first, later) = (a.min(b), a.max(b));
            // Fails where another thread has just put the later one below something else.
            if first == later || self.0[later].compare_exchange(later, first, Relaxed, Relaxed).is_ok() {
                return;
            }
        }
    }
}

/// What is shown so far, for the rule of our own answers.
pub(super) struct Shown {
    rows: Rows,
    threshold: f32,
}

impl Shown {
    pub(super) fn new(dim: usize, threshold: f32) -> Self {
        Shown { rows: Rows::new(dim), threshold }
    }

    /// Whether the row is like nothing that is shown; then it is shown, too.
    pub(super) fn admit(&mut self, row: &[f32]) -> bool {
        let (rows, threshold) = (&self.rows, self.threshold);
        let near = pulp::Arch::new().dispatch(|| (0..rows.len()).any(|at| dot(row, rows.row(at)) > threshold));
        if !near {
            self.rows.push(row);
        }
        !near
    }
}

#[inline(always)]
fn dot(a: &[f32], b: &[f32]) -> f32 {
    // Sixteen sums, so that the compiler may use vectors without changing the order of any one sum.
    let mut sums = [0.0_f32; 16];
    let (a, a_rest) = a.as_chunks::<16>();
    let (b, b_rest) = b.as_chunks::<16>();
    for (a, b) in a.iter().zip(b) {
        for lane in 0..16 {
            sums[lane] += a[lane] * b[lane];
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    sums.iter().sum::<f32>() + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Unit vectors of the plane at these angles in degrees; 20° apart is a cosine of 0.940.
    fn at_angles(angles: &[f32]) -> Rows {
        let mut rows = Rows::new(2);
        for angle in angles {
            rows.push(&[angle.to_radians().cos(), angle.to_radians().sin()]);
        }
        rows
    }

    #[test]
    fn groups_are_joined_by_chains() {
        let rows = at_angles(&[0.0, 90.0, 38.0, 19.0, 95.0, 180.0]);
        assert_eq!(best_of_groups(&rows, THRESHOLD), [0, 1, 5]);
        assert_eq!(best_of_groups(&at_angles(&[]), THRESHOLD), [0; 0]);
    }

    #[test]
    fn many_rows_give_what_few_give() {
        let angles: Vec<f32> = (0..PARALLEL + 44).map(|n| (n * 7919 % 360) as f32).collect();
        let rows = at_angles(&angles);
        assert_eq!(best_of_groups(&rows, 0.9), [0], "a full circle is one chain");
    }

    #[test]
    fn rows_that_are_all_alike_are_one_group() {
        // Every thread joins every row to the same group.
        assert_eq!(best_of_groups(&at_angles(&[30.0; 4000]), THRESHOLD), [0]);
    }

    #[test]
    fn a_chain_is_not_hidden_from_what_is_shown() {
        let (rows, mut shown) = (at_angles(&[0.0, 19.0, 38.0]), Shown::new(2, THRESHOLD));
        let kept: Vec<bool> = (0..3).map(|at| shown.admit(rows.row(at))).collect();
        assert_eq!(kept, [true, false, true]);
    }

    #[test]
    fn rows_of_any_length_are_multiplied() {
        for dim in [1, 15, 16, 17, 512] {
            let row: Vec<f32> = (0..dim).map(|n| n as f32 * 0.5).collect();
            let plain: f32 = row.iter().map(|x| x * x).sum();
            assert!((dot(&row, &row) - plain).abs() <= plain * 1e-5, "{dim}");
        }
    }
}
