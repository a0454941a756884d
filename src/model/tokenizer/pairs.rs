//! The byte pairs of CLIP's own vocabulary, without a string: what merges is looked up by the ids of its two parts.
//!
//! The `tokenizers` crate makes two maps of 49,408 strings at every start, which takes longer than a query.

/// The merges in order, each two little-endian ids of the parts. The n-th makes token 512 + n.
pub(super) const MERGES: &[u8] = include_bytes!("vocabulary.bin");

/// Ids of single bytes, and of single bytes that end a word.
const BYTES: u16 = 256;

/// Slots of the table: a power of two, less than half of them used.
const SLOTS: usize = 1 << 17;

/// Bytes of a word that are looked at: no token is longer than 100, and no context longer than 77 tokens.
const LONGEST: usize = 8192;

/// Ready to merge.
pub(super) struct Pairs {
    /// The id of each byte.
    bytes: [u16; 256],
    /// Number of a merge plus one, at the first free slot from the hash of its parts on.
    slots: Vec<u16>,
}

impl Pairs {
    /// `bytes` in the order of their ids.
    pub(super) fn new(order: impl Iterator<Item = u8>) -> Self {
        let mut bytes = [0; 256];
        order.zip(0..).for_each(|(byte, id)| bytes[usize::from(byte)] = id);
        let mut slots = vec![0_u16; SLOTS];
        for (number, parts) in MERGES.as_chunks().0.iter().enumerate() {
            let mut slot = hash(*parts);
            while slots[slot] != 0 {
                slot = (slot + 1) % SLOTS;
            }
            slots[slot] = number as u16 + 1;
        }
        Self { bytes, slots }
    }

    /// Number of tokens.
    pub(super) fn len() -> u32 {
        2 * u32::from(BYTES) + (MERGES.len() / 4) as u32
    }

    /// Appends the ids of a word: of all neighbours that merge, those that merge first do so first.
    pub(super) fn encode(&self, word: &str, ids: &mut Vec<u32>) {
        let mut parts: Vec<u16> = word.bytes().take(LONGEST).map(|byte| self.bytes[usize::from(byte)]).collect();
        if let Some(last) = parts.last_mut() {
            *last += BYTES;
        }
        let numbers = |parts: &[u16]| -> Vec<u16> {
            parts.windows(2).map(|pair| self.merge(pair[0], pair[1]).unwrap_or(u16::MAX)).collect()
        };
        let mut merges = numbers(&parts);
        while let Some((at, &number)) = merges.iter().enumerate().min_by_key(|(_, number)| **number)
            && number < u16::MAX
        {
            parts[at] = 2 * BYTES + number;
            parts.remove(at + 1);
            merges.remove(at);
            for i in at.saturating_sub(1)..(at + 1).min(merges.len()) {
                merges[i] = self.merge(parts[i], parts[i + 1]).unwrap_or(u16::MAX);
            }
        }
        ids.extend(parts.into_iter().map(u32::from));
    }

    /// The number of the merge of two tokens.
    fn merge(&self, left: u16, right: u16) -> Option<u16> {
        let parts = (u32::from(left) | u32::from(right) << 16).to_le_bytes();
        let mut slot = hash(parts);
        loop {
            let number = self.slots[slot].checked_sub(1)?;
            if MERGES.as_chunks().0[usize::from(number)] == parts {
                return Some(number);
            }
            slot = (slot + 1) % SLOTS;
        }
    }
}

fn hash(parts: [u8; 4]) -> usize {
    (u32::from_le_bytes(parts).wrapping_mul(0x9e37_79b1) >> 15) as usize
}
