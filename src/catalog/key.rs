//! Keys and sets of them.

/// Identifies a photo's vector in the index.
pub type Key = tintype_index::Key;

/// A set of keys: one bit per key ever handed out.
///
/// Keys rise from 1 without gaps worth speaking of, so 100,000 photos are 12 KiB and a look-up is one load; a hash set would
/// cost forty times that and a binary search seventeen misses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Keys {
    words: Vec<u64>,
    len: usize,
}

impl Keys {
    /// Adds a key; false if it was there.
    pub(crate) fn insert(&mut self, key: Key) -> bool {
        let (word, bit) = ((key / 64) as usize, 1_u64 << (key % 64));
        if word >= self.words.len() {
            self.words.resize(word + 1, 0);
        }
        let new = self.words[word] & bit == 0;
        self.words[word] |= bit;
        self.len += usize::from(new);
        new
    }

    /// Takes a key out; false if it was not there.
    pub(crate) fn remove(&mut self, key: Key) -> bool {
        if !self.contains(key) {
            return false;
        }
        self.words[(key / 64) as usize] &= !(1 << (key % 64));
        self.len -= 1;
        true
    }

    /// Whether the key is in the set.
    pub(crate) fn contains(&self, key: Key) -> bool {
        self.words.get((key / 64) as usize).is_some_and(|word| word & (1 << (key % 64)) != 0)
    }

    /// Number of keys.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The keys, rising.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Key> + '_ {
        self.words.iter().enumerate().flat_map(|(at, &word)| {
            std::iter::successors((word != 0).then_some(word), |w| Some(w & (w - 1)).filter(|w| *w != 0))
                .map(move |w| at as u64 * 64 + u64::from(w.trailing_zeros()))
        })
    }
}

impl FromIterator<Key> for Keys {
    fn from_iter<I: IntoIterator<Item = Key>>(keys: I) -> Self {
        let mut set = Keys::default();
        for key in keys {
            set.insert(key);
        }
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn behaves_like_a_set(steps in proptest::collection::vec((any::<bool>(), 0_u64..300), 0..200)) {
            let (mut keys, mut model) = (Keys::default(), BTreeSet::new());
            for (add, key) in steps {
                if add {
                    prop_assert_eq!(keys.insert(key), model.insert(key));
                } else {
                    prop_assert_eq!(keys.remove(key), model.remove(&key));
                }
                prop_assert_eq!(keys.len(), model.len());
            }
            prop_assert!(keys.iter().eq(model.iter().copied()));
            for key in 0..400 {
                prop_assert_eq!(keys.contains(key), model.contains(&key));
            }
        }
    }
}
