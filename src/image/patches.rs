//! Pictures that keep their shape, cut into as many patches as a model takes.
//!
//! Everything else carries pictures of one size, and so do these: one row of bytes for each patch that there may be, and a last
//! one that says how many patches stand below and beside each other. The alternative, a size beside each picture, would be a
//! second path through every batch for the one family of models that has it.

use super::preprocess::{Preprocess, ResizeMode};
use crate::{Error, Result};

/// Bytes at the head of the last row: rows and columns of patches.
const GRID: usize = 4;

/// The patches of one picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Patches<'a> {
    /// Patches below each other and beside each other.
    pub(crate) grid: (usize, usize),
    /// Patch after patch, each row by row as RGB.
    pub(crate) bytes: &'a [u8],
}

/// Height and width of what carries such a picture.
pub(crate) fn carrier(edge: usize, most: usize) -> (usize, usize) {
    (most + 1, edge * edge)
}

/// Patches below and beside each other for a picture of `height × width`: the largest scale at which there are at most `most`,
/// found by halving as the original finds it, so that both stop at the same one.
pub(crate) fn grid((height, width): (usize, usize), edge: usize, most: usize) -> (usize, usize) {
    const EPS: f64 = 1e-5;
    let patches = |size: usize, scale: f64| ((size as f64 * scale / edge as f64).ceil() as usize).max(1);
    let (mut least, mut largest) = (EPS / 10.0, 100.0);
    while largest - least >= EPS {
        let scale = (least + largest) / 2.0;
        let fits = patches(height, scale).checked_mul(patches(width, scale)).is_some_and(|count| count <= most);
        if fits { least = scale } else { largest = scale }
    }
    (patches(height, least), patches(width, least))
}

/// Rows of RGB pixels as patches in their carrier.
pub(crate) fn cut(pixels: &[u8], (rows, columns): (usize, usize), edge: usize, most: usize) -> Result<Vec<u8>> {
    let (row, line) = (edge * edge * 3, edge * 3);
    // The scale ends a little above zero: only pictures of millions of pixels across have more patches even then.
    if rows * columns > most || row < GRID || rows.max(columns) > usize::from(u16::MAX) {
        return Err(Error::BadImage { reason: format!("no shape of at most {most} patches fits the picture") });
    }
    let mut bytes = vec![0; (most + 1) * row];
    for (y, pixels) in pixels.chunks_exact(columns * line).enumerate() {
        for (column, pixels) in pixels.chunks_exact(line).enumerate() {
            let patch = y / edge * columns + column;
            bytes[patch * row + y % edge * line..][..line].copy_from_slice(pixels);
        }
    }
    let grid = [rows as u16, columns as u16].map(u16::to_le_bytes);
    bytes[most * row..][..GRID].copy_from_slice(grid.as_flattened());
    Ok(bytes)
}

impl<'a> Patches<'a> {
    /// What a carrier holds; `None` if nothing of the kind.
    pub(crate) fn read(carrier: &'a [u8], edge: usize, most: usize) -> Option<Self> {
        let row = edge * edge * 3;
        let grid = carrier.get(most * row..)?.get(..GRID)?;
        let [rows, columns] = [0, 2].map(|i| usize::from(u16::from_le_bytes([grid[i], grid[i + 1]])));
        let count = Some(rows * columns).filter(|count| (1..=most).contains(count))?;
        Some(Self { grid: (rows, columns), bytes: &carrier[..count * row] })
    }

    /// The same, or an error.
    pub(crate) fn read_or_refuse(carrier: &'a [u8], edge: usize, most: usize) -> Result<Self> {
        let refusal = || Error::Tensor("no patches, as Preprocess::apply makes them".into());
        Self::read(carrier, edge, most).ok_or_else(refusal)
    }
}

impl Preprocess {
    /// A picture of nothing in particular in the form that the model takes, made of the bytes that `noise` gives: for
    /// measurements of speed.
    pub fn noise(&self, mut noise: impl FnMut() -> u8) -> Vec<u8> {
        let (height, width) = self.size;
        let mut bytes: Vec<u8> = (0..height * width * 3).map(|_| noise()).collect();
        if let ResizeMode::Patches { edge, most } = self.resize_mode {
            let (rows, columns) = grid((3, 4), edge, most);
            let grid = [rows as u16, columns as u16].map(u16::to_le_bytes);
            if let Some(to) = bytes.get_mut(most * edge * edge * 3..).and_then(|last| last.get_mut(..GRID)) {
                to.copy_from_slice(grid.as_flattened());
            }
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grids_are_those_of_the_original() {
        // get_image_size_for_max_num_patches of transformers 5.23, in patches of 16.
        let cases = [
            ((480, 640), 256, (14, 18)),
            ((640, 480), 256, (18, 14)),
            ((1, 1), 256, (7, 7)),
            ((1, 5000), 256, (1, 256)),
            ((333, 500), 1024, (26, 39)),
            ((100, 100), 1, (1, 1)),
        ];
        for (size, most, expected) in cases {
            assert_eq!(grid(size, 16, most), expected, "{size:?}");
        }
    }

    #[test]
    fn patches_come_back_from_their_carrier() {
        let (edge, most, (rows, columns)) = (2, 9, (2, 3));
        let pixels: Vec<u8> = (0..(rows * edge * columns * edge * 3) as u8).collect();
        let bytes = cut(&pixels, (rows, columns), edge, most).unwrap();
        let (height, width) = carrier(edge, most);
        assert_eq!(bytes.len(), height * width * 3);
        let patches = Patches::read(&bytes, edge, most).unwrap();
        assert_eq!((patches.grid, patches.bytes.len()), ((rows, columns), rows * columns * edge * edge * 3));
        // The second patch: pixels 2 and 3 of the first line and of the second.
        assert_eq!(patches.bytes[12..24], [6, 7, 8, 9, 10, 11, 24, 25, 26, 27, 28, 29]);
        assert!(
            cut(&pixels, (4, 3), edge, most).is_err() && Patches::read(&vec![0; bytes.len()], edge, most).is_none()
        );
    }
}
