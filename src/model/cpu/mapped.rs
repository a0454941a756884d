//! A weight file as a slice of bytes, mapped into memory.
//!
//! Mapping rather than reading: a query needs the text tower alone, a quarter of a usual checkpoint, and pages that nobody
//! touches are never read from the disk.

use std::fs::File;
use std::ops::Deref;
use std::path::Path;

use crate::{Error, Result};

/// A file mapped for reading.
#[derive(Debug)]
pub(crate) struct MappedFile(memmap2::Mmap);

impl MappedFile {
    /// Maps the whole file.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(Error::io(path))?;
        // SAFETY: the map is read-only and its bytes are plain numbers, so any content is a valid value. A file that is
        // rewritten in place while it is mapped would change under us, and one that is truncated would end the process on
        // access; model files are downloaded under another name and renamed, and the documentation asks for no less.
        let map = unsafe { memmap2::Mmap::map(&file) }.map_err(Error::io(path))?;
        Ok(Self(map))
    }

    /// Gives the memory of the pages read so far back; they are read again when they are touched again.
    pub(crate) fn release(&self) {
        #[cfg(unix)]
        {
            // SAFETY: the map is shared, read-only and backed by its file, so there is nothing in it to lose.
            // A system that refuses has more memory in use, and nothing else.
            let _ = unsafe { self.0.unchecked_advise(memmap2::UncheckedAdvice::DontNeed) };
        }
    }
}

impl Deref for MappedFile {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.0
    }
}
