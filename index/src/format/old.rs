//! Records of versions 1 and 2: the code in one piece and not rotated, then the terms, then the links.

use super::Footer;
use crate::Key;
use crate::vectors::{NONE, padded};

const KEY: usize = 0;
const TWIN: usize = 20;
const COUNT: usize = 24;
const LINKS: usize = 28;

/// Where things lay in a record.
#[derive(Clone, Copy)]
pub(crate) struct OldShape {
    /// Bytes of the code.
    code: usize,
    /// Room for links.
    links: usize,
    /// Bytes from one record to the next.
    pub(crate) stride: usize,
}

impl OldShape {
    pub(crate) fn new(footer: &Footer) -> OldShape {
        let (code, links) = (padded(footer.dim), footer.links);
        OldShape { code, links, stride: (code + LINKS + 4 * links).next_multiple_of(64) }
    }
}

/// A record, without its code: that is made anew from the exact row.
pub(crate) struct OldRecord {
    pub(crate) key: Key,
    pub(crate) links: Vec<u32>,
    pub(crate) twin: Option<u32>,
}

impl OldRecord {
    /// `None` if it has more links than there is room for.
    pub(crate) fn decode(record: &[u8], shape: OldShape) -> Option<OldRecord> {
        let (words, _) = record[shape.code..].as_chunks::<4>();
        let word = |at: usize| u32::from_le_bytes(words[at / 4]);
        let count = word(COUNT) as usize;
        (count <= shape.links).then(|| OldRecord {
            key: Key::from(word(KEY)) | Key::from(word(KEY + 4)) << 32,
            links: (0..count).map(|link| word(LINKS + 4 * link)).collect(),
            twin: Some(word(TWIN)).filter(|&twin| twin != NONE),
        })
    }
}
