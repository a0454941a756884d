//! A segment file whose every byte is checked before it is first used.
//!
//! Each block of 4 KiB has a checksum; a bit per block remembers that it was checked. So damage is an error at the moment it
//! would shape an answer, and opening a file of any size costs nothing: checking everything at open would read it all, and
//! checking nothing would answer from damaged bytes. In a walk the price is a bit test beside a cache miss.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use xxhash_rust::xxh3::xxh3_64;

use crate::error::{Error, Result};
use crate::format::{ALIGN, BLOCK, FOOTER, Footer};
use crate::storage::{Bytes, NewFile};

/// A mapped segment.
pub(crate) struct Sealed {
    path: PathBuf,
    bytes: Bytes,
    /// Where the checksums begin, which is where the checked bytes end.
    sums: usize,
    sums_checksum: u64,
    sums_sound: AtomicBool,
    checked: Vec<AtomicU64>,
}

impl Sealed {
    /// `sums..end` are the checksums of the blocks before them, and lie inside `bytes` (the caller has compared the lengths).
    pub(crate) fn new(path: PathBuf, bytes: Bytes, sums: usize, sums_checksum: u64) -> Sealed {
        let words = sums.div_ceil(BLOCK).div_ceil(64);
        let checked = (0..words).map(|_| AtomicU64::new(0)).collect();
        Sealed { path, bytes, sums, sums_checksum, sums_sound: AtomicBool::new(false), checked }
    }

    /// The bytes, unchecked.
    #[inline]
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.sums]
    }

    /// Checks the blocks that a range touches, those that were not checked before.
    #[inline]
    pub(crate) fn check(&self, range: Range<usize>) -> Result<()> {
        for block in range.start / BLOCK..range.end.div_ceil(BLOCK) {
            // Relaxed is enough: the bit only says that bytes which never change were once found sound.
            if self.checked[block / 64].load(Ordering::Relaxed) >> (block % 64) & 1 == 0 {
                self.check_block(block)?;
            }
        }
        Ok(())
    }

    /// Whether ranges of `length` bytes from each of `starts` are known to be sound. No branch per range: nearly all are.
    #[inline]
    pub(crate) fn all_checked(&self, starts: impl Iterator<Item = usize>, length: usize) -> bool {
        if length > BLOCK {
            return false;
        }
        let sound = |at: usize| {
            let block = at / BLOCK;
            self.checked[block / 64].load(Ordering::Relaxed) >> (block % 64)
        };
        starts.fold(1, |all, start| all & sound(start) & sound(start + length - 1)) & 1 == 1
    }

    #[cold]
    fn check_block(&self, block: usize) -> Result<()> {
        let blocks = self.sums.div_ceil(BLOCK);
        let table = &self.bytes[self.sums..self.sums + 8 * blocks];
        if !self.sums_sound.load(Ordering::Relaxed) {
            if xxh3_64(table) != self.sums_checksum {
                return Err(Error::corrupt(&self.path, "wrong checksum of the table of checksums"));
            }
            self.sums_sound.store(true, Ordering::Relaxed);
        }
        let start = block * BLOCK;
        let end = self.sums.min(start + BLOCK);
        if xxh3_64(&self.bytes[start..end]).to_le_bytes() != table[8 * block..8 * block + 8] {
            return Err(Error::corrupt(&self.path, format!("wrong checksum of bytes {start} to {end}")));
        }
        self.checked[block / 64].fetch_or(1 << (block % 64), Ordering::Relaxed);
        Ok(())
    }

    /// A checked range.
    pub(crate) fn get(&self, range: Range<usize>) -> Result<&[u8]> {
        self.check(range.clone())?;
        Ok(&self.bytes()[range])
    }

    pub(crate) fn path(&self) -> &PathBuf {
        &self.path
    }

    /// Length of the whole file.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// The footer, unchecked: what follows the checksums.
    pub(crate) fn footer(&self) -> &[u8] {
        &self.bytes[self.bytes.len().saturating_sub(FOOTER)..]
    }

    /// Checks every byte before the footer anew, whatever was checked before.
    pub(crate) fn verify(&self) -> Vec<Error> {
        self.sums_sound.store(false, Ordering::Relaxed);
        self.checked.iter().for_each(|word| word.store(0, Ordering::Relaxed));
        let blocks = 0..self.sums.div_ceil(BLOCK);
        let mut problems = Vec::new();
        for block in blocks {
            problems.extend(self.check_block(block).err());
            if !self.sums_sound.load(Ordering::Relaxed) {
                // Nothing can be said of any block, and each would look at the whole table again.
                break;
            }
        }
        problems
    }
}

/// Bytes that are gathered before they are handed to the file: a huge page. Linux keeps a file that was written so in huge pages, on
/// file systems that can, and maps it in them, so that a walk all over it misses the TLB less often.
pub(crate) const BUFFER: usize = 2 << 20;

/// The checksums of the blocks of some bytes.
fn sums_of(bytes: &[u8]) -> Vec<u8> {
    bytes.chunks(BLOCK).flat_map(|block| xxh3_64(block).to_le_bytes()).collect()
}

/// Writes a segment file from front to back and keeps its checksums.
pub(crate) struct Sealer {
    file: Box<dyn NewFile>,
    path: PathBuf,
    /// A whole number of blocks is written and taken out whenever it is full.
    buffer: Vec<u8>,
    sums: Vec<u8>,
    written: usize,
}

impl Sealer {
    pub(crate) fn new(file: Box<dyn NewFile>, path: PathBuf) -> Sealer {
        Sealer { file, path, buffer: Vec::new(), sums: Vec::new(), written: 0 }
    }

    /// Bytes so far.
    pub(crate) fn position(&self) -> usize {
        self.written + self.buffer.len()
    }

    pub(crate) fn write(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(BUFFER - self.buffer.len()));
            self.buffer.extend_from_slice(now);
            if self.buffer.len() == BUFFER {
                self.flush()?;
            }
            bytes = later;
        }
        Ok(())
    }

    /// Fills with zeros up to the next place where a section may start.
    pub(crate) fn align(&mut self) -> Result<()> {
        let at = self.position();
        self.write(&[0; ALIGN][..at.next_multiple_of(ALIGN) - at])
    }

    fn flush(&mut self) -> Result<()> {
        self.file.write_all(&self.buffer).map_err(Error::io(&self.path, "write"))?;
        self.sums.extend(sums_of(&self.buffer));
        self.written += self.buffer.len();
        self.buffer.clear();
        Ok(())
    }

    /// Has the system bring what was written so far to the medium, beside what comes next.
    pub(crate) fn begin_sync(&mut self) {
        if self.written > 0 {
            self.file.begin_sync();
        }
    }

    /// Writes the checksums and the footer. Returns the checksum of the footer, and the file.
    pub(crate) fn finish(mut self, footer: &mut Footer) -> Result<(u64, Unsynced)> {
        self.align()?;
        self.sums.extend(sums_of(&self.buffer));
        footer.sums_checksum = xxh3_64(&self.sums);
        let footer = footer.encode();
        // One write for what is left, so that a small segment is one write in all.
        self.buffer.extend_from_slice(&self.sums);
        self.buffer.extend_from_slice(&footer);
        self.file.write_all(&self.buffer).map_err(Error::io(&self.path, "write"))?;
        Ok((Footer::checksum(&footer), Unsynced { file: self.file, path: self.path }))
    }
}

/// A whole file that is not known to be on the medium.
pub(crate) struct Unsynced {
    file: Box<dyn NewFile>,
    path: PathBuf,
}

impl Unsynced {
    /// See [`NewFile::begin_sync`].
    pub(crate) fn begin_sync(&mut self) {
        self.file.begin_sync();
    }

    pub(crate) fn sync(mut self) -> Result<()> {
        self.file.sync().map_err(Error::io(&self.path, "sync"))
    }
}
