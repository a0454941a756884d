//! The best places of a walk so far: one list sorted by score.

use crate::kernel::Kernels;

/// Mark of an expanded entry; places are below it.
const EXPANDED: u32 = 1 << 31;

/// Places and their scores, best first; of equal scores the one that came first.
#[derive(Default)]
pub(crate) struct Pool {
    /// The entries, in the front; what follows is room.
    scores: Vec<f32>,
    places: Vec<u32>,
    len: usize,
}

impl Pool {
    pub(crate) fn clear(&mut self) {
        self.len = 0;
    }

    /// Entries, best first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (f32, u32)> + '_ {
        self.scores[..self.len].iter().copied().zip(self.places[..self.len].iter().map(|place| place & !EXPANDED))
    }

    /// The score of an entry, if there are so many.
    #[inline]
    pub(super) fn score(&self, at: usize) -> Option<f32> {
        self.scores[..self.len].get(at).copied()
    }

    /// The place of an entry, and whether it is expanded.
    #[inline]
    pub(super) fn entry(&self, at: usize) -> Option<(u32, bool)> {
        self.places[..self.len].get(at).map(|&place| (place & !EXPANDED, place & EXPANDED != 0))
    }

    /// Marks an entry as expanded.
    #[inline]
    pub(super) fn expand(&mut self, at: usize) {
        self.places[at] |= EXPANDED;
    }

    /// Lets those in that are among the best `keep`, and returns where the best of them stands, or [`usize::MAX`]. A score that is
    /// not a number stays out.
    #[inline]
    pub(crate) fn merge(&mut self, kernels: &Kernels, keep: usize, places: &[u32], scores: &[f32]) -> usize {
        let room = (self.len + scores.len()).min(keep);
        if self.scores.len() < room {
            self.scores.resize(2 * room, 0.0);
            self.places.resize(2 * room, 0);
        }
        let (first, len) = kernels.merge((&mut self.scores, &mut self.places), self.len, keep, places, scores);
        self.len = len;
        first
    }

    /// Gives the entries, in their order, other scores, and sorts them by these. One whose score is not a number goes to the end.
    pub(super) fn settle(&mut self, scores: &[f32]) {
        let order = |a: &(f32, u32), b: &(f32, u32)| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1));
        let real = |score: f32| if score.is_nan() { f32::NEG_INFINITY } else { score };
        let places = self.places[..self.len].iter().map(|place| place & !EXPANDED);
        let mut entries: Vec<(f32, u32)> = scores.iter().map(|&score| real(score)).zip(places).collect();
        entries.sort_unstable_by(order);
        for ((score, place), entry) in self.scores.iter_mut().zip(&mut self.places).zip(entries) {
            (*score, *place) = entry;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_pool_holds_what_sorting_everything_would(
            batches in proptest::collection::vec(proptest::collection::vec(-20i8..20, 0..80), 0..12), keep in 1usize..200,
        ) {
            for kernels in Kernels::all() {
                let mut pool = Pool::default();
                let mut all: Vec<(f32, u32)> = Vec::new();
                for batch in &batches {
                    let from = all.len() as u32;
                    let scores: Vec<f32> = batch.iter().map(|&s| f32::from(s)).collect();
                    let places: Vec<u32> = (from..from + batch.len() as u32).collect();
                    let before: Vec<_> = pool.iter().collect();
                    let first = pool.merge(&kernels, keep, &places, &scores);
                    all.extend(scores.into_iter().zip(places));
                    let mut best = all.clone();
                    best.sort_by(|a, b| b.0.total_cmp(&a.0));
                    best.truncate(keep);
                    prop_assert_eq!(pool.iter().collect::<Vec<_>>(), best, "{}", kernels.name);
                    let changed = pool.iter().position(|entry| entry.1 >= from);
                    prop_assert_eq!(changed, Some(first).filter(|&first| first < usize::MAX), "before {:?}", before);
                }
            }
        }
    }

    #[test]
    fn other_scores_make_another_order() {
        let mut pool = Pool::default();
        pool.merge(&Kernels::detect(), 9, &[1, 2, 3, 4], &[0.5, 0.25, 1.0, 0.0]);
        pool.expand(0);
        pool.settle(&[0.5, f32::NAN, 0.75, 0.5]);
        assert_eq!(pool.iter().collect::<Vec<_>>(), [(0.75, 2), (0.5, 3), (0.5, 4), (f32::NEG_INFINITY, 1)]);
    }

    #[test]
    fn what_is_not_a_number_stays_out_and_marks_move_along() {
        for keep in [4, 100] {
            let kernels = Kernels::detect();
            let mut pool = Pool::default();
            pool.merge(&kernels, keep, &[1, 2, 3], &[0.5, f32::NAN, -1.0]);
            pool.expand(0);
            assert_eq!(pool.merge(&kernels, keep, &[4, 5], &[0.75, f32::NAN]), 0);
            assert_eq!(pool.iter().collect::<Vec<_>>(), [(0.75, 4), (0.5, 1), (-1.0, 3)]);
            assert_eq!([0, 1, 2].map(|at| pool.entry(at)), [Some((4, false)), Some((1, true)), Some((3, false))]);
            assert_eq!((pool.entry(3), pool.score(2)), (None, Some(-1.0)));
        }
    }
}
