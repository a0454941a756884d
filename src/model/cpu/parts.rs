//! Packed numbers as parts of a store: made from a checkpoint, or found in a file that was made before.
//!
//! A tower asks for its parts one after the other and says how each is made. [`Parts::making`] makes them and remembers them
//! for the file; [`Parts::stored`] hands out the same parts from a mapped file and makes nothing. So there is one description
//! of a tower's layout, its loading code, and a file cannot disagree with it unnoticed: lengths are checked to the end.

use std::any::Any;
use std::ops::Deref;
use std::sync::Arc;

use super::aligned::{Aligned, Plain};
use super::mapped::{MappedFile, Pages};
use crate::{Error, Result};

/// Parts begin on cache lines.
pub(super) const LINE: usize = 64;

/// Numbers that live as long as whoever holds them: on the heap or in a mapped file.
pub(crate) struct Part<T> {
    start: *const T,
    len: usize,
    keeper: Arc<dyn Any + Send + Sync>,
}

// SAFETY: a part is a shared, read-only slice of plain numbers, and its keeper may be shared.
unsafe impl<T: Plain> Send for Part<T> {}
// SAFETY: as above.
unsafe impl<T: Plain> Sync for Part<T> {}

impl<T: Plain> Part<T> {
    fn bytes(&self) -> Part<u8> {
        Part { start: self.start.cast(), len: self.len * size_of::<T>(), keeper: Arc::clone(&self.keeper) }
    }
}

impl<T: Plain> From<Aligned<T>> for Part<T> {
    fn from(numbers: Aligned<T>) -> Self {
        let keeper = Arc::new(numbers);
        Self { start: keeper.as_ptr(), len: keeper.len(), keeper }
    }
}

impl<T: Plain> Deref for Part<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        // SAFETY: the keeper holds `len` numbers at `start`, aligned and never written again.
        unsafe { std::slice::from_raw_parts(self.start, self.len) }
    }
}

/// Where parts come from.
pub(crate) enum Parts {
    /// Made, in these pages; all so far are kept to be written.
    Making(Vec<Part<u8>>, Pages),
    /// Taken from a file, from this byte on.
    Stored(Arc<MappedFile>, usize),
}

impl Parts {
    /// Makes every part.
    pub(crate) fn making() -> Self {
        Self::Making(Vec::new(), Pages::default())
    }

    /// Takes parts from a file that was checked, from byte `start` on.
    pub(super) fn stored(file: Arc<MappedFile>, start: usize) -> Self {
        Self::Stored(file, start)
    }

    /// Whether every part is there already, and nothing will be made.
    pub(super) fn is_stored(&self) -> bool {
        matches!(self, Parts::Stored(..))
    }

    /// The next part: `len` numbers, which `make` would fill in; it finds zeros.
    ///
    /// # Errors
    /// Those of `make`; [`Error::Tensor`] if there is no memory or the file is too short for the part.
    pub(crate) fn take<T: Plain>(&mut self, len: usize, make: impl FnOnce(&mut [T]) -> Result<()>) -> Result<Part<T>> {
        match self {
            Parts::Making(made, pages) => {
                let (start, keeper) = pages.take((len * size_of::<T>()).next_multiple_of(LINE))?;
                let start: *mut T = start.cast();
                // SAFETY: so many zeros on a cache line, which are any number's, and which nobody else has.
                make(unsafe { std::slice::from_raw_parts_mut(start, len) })?;
                let part = Part { start: start.cast_const(), len, keeper };
                made.push(part.bytes());
                Ok(part)
            }
            Parts::Stored(file, at) => {
                let start = at.next_multiple_of(LINE);
                let end = len.checked_mul(size_of::<T>()).and_then(|bytes| start.checked_add(bytes));
                let end = end.filter(|&end| end <= file.len()).ok_or_else(|| Error::Tensor("a short file".into()))?;
                *at = end;
                // Files are mapped on page boundaries and parts begin on lines, which is alignment enough for any number.
                Ok(Part { start: file[start..].as_ptr().cast(), len, keeper: Arc::clone(file) as _ })
            }
        }
    }

    /// Whether a stored file has been used up exactly, up to the padding of its last line.
    pub(super) fn is_done(&self) -> bool {
        match self {
            Parts::Making(..) => true,
            Parts::Stored(file, at) => at.next_multiple_of(LINE) == file.len(),
        }
    }

    /// What was made.
    pub(super) fn made(&self) -> &[Part<u8>] {
        match self {
            Parts::Making(made, _) => made,
            Parts::Stored(..) => &[],
        }
    }
}
