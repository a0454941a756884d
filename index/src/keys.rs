//! A set of keys to search among.

use crate::Key;

/// A set of keys, to search among them alone: [`Search::among`](crate::Search::among). Made from any iterator of keys; twice the
/// same key is once. Where keys lie close together it is a bitmap, otherwise a sorted list.
#[derive(Clone, Debug, Default)]
pub struct KeySet {
    /// Sorted, each once.
    keys: Vec<Key>,
    /// One bit per key from the first on; empty where that would be larger than the list.
    bits: Vec<u64>,
}

impl FromIterator<Key> for KeySet {
    fn from_iter<I: IntoIterator<Item = Key>>(keys: I) -> KeySet {
        let mut keys: Vec<Key> = keys.into_iter().collect();
        keys.sort_unstable();
        keys.dedup();
        let mut bits = Vec::new();
        if let (Some(&first), Some(&last)) = (keys.first(), keys.last()) {
            let words = (last - first) / 64 + 1;
            if words <= keys.len() as u64 {
                bits.resize(words as usize, 0);
                for key in &keys {
                    bits[((key - first) / 64) as usize] |= 1 << ((key - first) % 64);
                }
            }
        }
        KeySet { keys, bits }
    }
}

impl KeySet {
    /// Whether the key is in the set.
    pub fn contains(&self, key: Key) -> bool {
        if self.bits.is_empty() {
            return self.keys.binary_search(&key).is_ok();
        }
        let Some(at) = self.keys.first().and_then(|first| key.checked_sub(*first)) else { return false };
        usize::try_from(at / 64)
            .ok()
            .and_then(|word| self.bits.get(word))
            .is_some_and(|word| word >> (at % 64) & 1 == 1)
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The keys, in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = Key> + '_ {
        self.keys.iter().copied()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_set_holds_what_it_was_made_of(
            near in proptest::collection::vec(1000u64..1400, 0..200), far in proptest::collection::vec(any::<u64>(), 0..3),
        ) {
            let model: BTreeSet<Key> = near.iter().chain(&far).copied().collect();
            let set: KeySet = near.iter().chain(&far).copied().collect();
            prop_assert!(set.iter().eq(model.iter().copied()) && set.len() == model.len());
            for key in (900..1500).chain([0, u64::MAX]).chain(far) {
                prop_assert_eq!(set.contains(key), model.contains(&key));
            }
        }
    }
}
