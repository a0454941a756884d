//! Weights in mapped memory: a file as a slice of bytes, and pages for numbers that are made.
//!
//! Mapping rather than reading: a query needs the text tower alone, a quarter of a usual checkpoint, and pages that nobody
//! touches are never read from the disk.
//!
//! Made numbers lie in few large mappings, which the system is asked to back with large pages: a tower reads all of its weights
//! once per pass, and on a virtual machine looking up pages of 4 KiB cost a third of the speed of memory (20 GB/s instead of 30).

use std::any::Any;
use std::fs::File;
use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;

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

/// Memory that is handed out from the front and given back when nobody holds any of it.
#[derive(Default)]
pub(crate) struct Pages {
    map: Option<Arc<memmap2::MmapRaw>>,
    used: usize,
}

/// Bytes of a mapping; what is not used of it takes no memory.
const MAPPING: usize = 64 << 20;

impl Pages {
    /// `bytes` zeros that follow the last ones or begin a mapping, and who keeps them.
    pub(super) fn take(&mut self, bytes: usize) -> Result<(*mut u8, Arc<dyn Any + Send + Sync>)> {
        let map = match self.map.take() {
            Some(map) if map.len() - self.used >= bytes => map,
            _ => {
                self.used = 0;
                let map = memmap2::MmapMut::map_anon(bytes.max(MAPPING)).map_err(|e| Error::Tensor(Box::new(e)))?;
                // A system that refuses has slower memory, and nothing else.
                #[cfg(target_os = "linux")]
                let _ = map.advise(memmap2::Advice::HugePage);
                Arc::new(map.into())
            }
        };
        let start = map.as_mut_ptr().wrapping_add(self.used);
        self.used += bytes;
        self.map = Some(Arc::clone(&map));
        Ok((start, map))
    }
}
