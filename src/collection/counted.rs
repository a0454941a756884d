//! How far a file is read, which says how much of it is left: packed or not, and whatever its lines are.
//!
//! Counted are the bytes before the block that is being read. What was made of the file so far came of them alone, while
//! the block in hand may hold thousands of rows that nobody has seen yet.

use std::fs::File;
use std::io::{BufReader, Read, Result};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes that are read from a file at a time. Small beside most lists, so that the count moves.
const BLOCK: usize = 64 << 10;

/// Bytes of a file that were read and dealt with.
#[derive(Clone, Debug, Default)]
pub(crate) struct Passed(Arc<AtomicU64>);

impl Passed {
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(super) fn set(&self, bytes: u64) {
        self.0.store(bytes, Ordering::Relaxed);
    }
}

/// A file, read in blocks that are counted.
pub(super) struct Counted {
    file: File,
    read: u64,
    passed: Passed,
}

impl Counted {
    /// The file from its beginning, and the count.
    pub(super) fn open(file: File) -> (BufReader<Counted>, Passed) {
        let passed = Passed::default();
        let counted = Counted { file, read: 0, passed: passed.clone() };
        (BufReader::with_capacity(BLOCK, counted), passed)
    }
}

impl Read for Counted {
    fn read(&mut self, into: &mut [u8]) -> Result<usize> {
        self.passed.set(self.read);
        let read = self.file.read(into)?;
        self.read += read as u64;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::BufRead;

    #[test]
    fn the_block_in_hand_is_not_passed() {
        let mut file = tempfile::tempfile().unwrap();
        std::io::Write::write_all(&mut file, "123456789\n".repeat(BLOCK / 5).as_bytes()).unwrap();
        std::io::Seek::rewind(&mut file).unwrap();
        let (reader, passed) = Counted::open(file);
        let (mut bytes, mut met) = (0, Vec::new());
        for line in reader.lines() {
            bytes += line.unwrap().len() as u64 + 1;
            assert!(passed.get() <= bytes);
            met.push(passed.get());
        }
        met.dedup();
        assert_eq!(met, [0, BLOCK as u64, 2 * BLOCK as u64][..met.len()]);
        assert!(met.len() > 1);
    }
}
