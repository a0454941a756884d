//! A part of a collection, so that several machines can each take in one.

use std::fmt;
use std::path::{Component, Path};

/// A part of a collection, so that several machines can each take in one.
///
/// Files of a collection are dealt out by their number in the order of the request where there are at least as many files as parts;
/// rows and samples by their number in the file otherwise. Photos of a folder are dealt out by their path in it, together with what
/// stands beside them. The same request gives the same parts on every machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Part {
    index: u64,
    count: u64,
}

impl Part {
    /// Part `index` of `count`, counted from 0. None if there is no such part.
    pub fn new(index: u64, count: u64) -> Option<Part> {
        (index < count).then_some(Part { index, count })
    }

    /// Whether a number is of this part.
    pub(crate) fn takes(self, number: u64) -> bool {
        number % self.count == self.index
    }

    /// Whether a file is of this part: by its path from `root` on, up to the first dot of its name, so that `a.jpg`, `a.txt` and
    /// `a.jpg.json` stay together wherever the folder lies.
    pub(crate) fn takes_file(self, root: &Path, file: &Path) -> bool {
        let below = file.strip_prefix(root).unwrap_or(file);
        let name = below.file_name().unwrap_or_default().as_encoded_bytes();
        let stem = name.iter().skip(1).position(|byte| *byte == b'.').map_or(name, |dot| &name[..=dot]);
        let mut place = Vec::new();
        for part in below.parent().into_iter().flat_map(Path::components) {
            if let Component::Normal(part) = part {
                place.extend_from_slice(part.as_encoded_bytes());
                place.push(b'/');
            }
        }
        place.extend_from_slice(stem);
        let hash = blake3::hash(&place);
        self.takes(hash.as_bytes().iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    /// How many parts there are.
    pub(crate) fn count(self) -> u64 {
        self.count
    }

    /// All parts that belong together with this one, itself included.
    pub(crate) fn all(self) -> impl Iterator<Item = Part> {
        (0..self.count).map(move |index| Part { index, count: self.count })
    }

    /// The part that is written as `0/4`.
    pub(super) fn from_name(name: &str) -> Option<Part> {
        let (index, count) = name.split_once('/')?;
        Part::new(index.parse().ok()?, count.parse().ok()?)
    }
}

/// As stored and as it is written on the command line: `0/4`.
impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.index, self.count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_beside_a_photo_is_of_its_part() {
        let whose = |root: &str, file: &str| {
            let takes = |index: u64| Part::new(index, 7).unwrap().takes_file(Path::new(root), Path::new(file));
            let owners: Vec<u64> = (0..7).filter(|index| takes(*index)).collect();
            assert_eq!(owners.len(), 1, "{file}");
            owners[0]
        };
        for n in 0..20 {
            let photo = whose("/here", &format!("/here/a/{n}.jpg"));
            for beside in [format!("/here/a/{n}.txt"), format!("/here/a/{n}.jpg.json")] {
                assert_eq!(whose("/here", &beside), photo, "{beside}");
            }
            assert_eq!(whose("/mnt/elsewhere", &format!("/mnt/elsewhere/a/{n}.jpg")), photo);
        }
        assert!((0..20).any(|n| whose("/r", &format!("/r/{n}.jpg")) != whose("/r", "/r/0.jpg")));
        assert!((0..20).any(|n| whose("/r", &format!("/r/.{n}.jpg")) != whose("/r", "/r/.0.jpg")));
        assert_eq!(Part::from_name(&Part::new(3, 16).unwrap().to_string()), Part::new(3, 16));
        assert_eq!(Part::from_name("4/4"), None);
    }
}
