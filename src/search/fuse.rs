//! Several rankings of the same photos as one.
//!
//! Reciprocal rank fusion (Cormack, Clarke and Büttcher, 2009): a photo gets 1 ÷ (60 + rank) from each ranking that has it.
//! Cosines of pictures, cosines of captions and BM25 have no common scale; weights that would give them one have to be learnt
//! for each collection, and ranks need none.

use std::collections::HashMap;

use crate::catalog::Key;

/// The constant of the paper, which found the exact value to matter little.
const K: f64 = 60.0;

/// The fused ranking, best first; equal scores are ordered by key. Then comes what is only in `deep`, which goes on where the
/// first of the rankings ends: the scores are those of its ranks there, so none is above any that was fused.
pub(super) fn fuse(rankings: &[Vec<Key>], deep: &[Key]) -> Vec<(Key, f32)> {
    let share = |at: usize| 1.0 / (K + 1.0 + at as f64);
    let mut scores: HashMap<Key, f64> = HashMap::new();
    for ranking in rankings {
        for (at, key) in ranking.iter().enumerate() {
            *scores.entry(*key).or_default() += share(at);
        }
    }
    let rest = deep.iter().enumerate().filter(|(_, key)| !scores.contains_key(key));
    let rest: Vec<(Key, f64)> = rest.map(|(at, key)| (*key, share(at))).collect();
    let mut fused: Vec<(Key, f64)> = scores.into_iter().collect();
    fused.sort_unstable_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    fused.into_iter().chain(rest).map(|(key, score)| (key, score as f32)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_photo_that_two_rankings_have_beats_the_first_of_one() {
        let fused = fuse(&[vec![1, 2, 3], vec![4, 2], vec![]], &[]);
        let keys: Vec<Key> = fused.iter().map(|(key, _)| *key).collect();
        assert_eq!(keys, [2, 1, 4, 3]);
        assert_eq!(fused[0].1, (2.0 / 62.0) as f32);
        assert_eq!(fused[1].1, fused[2].1);
    }

    #[test]
    fn what_no_ranking_has_follows_and_changes_nothing_before_it() {
        let rankings = [vec![1, 2, 3], vec![4, 2]];
        let (short, long) = (fuse(&rankings, &[]), fuse(&rankings, &[1, 2, 3, 4, 9, 8]));
        assert_eq!(long[..4], short);
        let keys: Vec<Key> = long.iter().map(|(key, _)| *key).collect();
        assert_eq!(keys, [2, 1, 4, 3, 9, 8]);
        assert!(long.is_sorted_by(|a, b| a.1 >= b.1), "{long:?}");
    }
}
