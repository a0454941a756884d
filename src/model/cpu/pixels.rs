//! Pictures on their way through a trunk: channels last, a pixel as a row.
//!
//! With channels innermost a 1 × 1 convolution is a product whose rows lie there already, the place of a larger kernel is a few
//! such rows, and a depthwise one works on whole vectors of channels. As in [`Rows`](super::rows::Rows), pixels lie an odd number of
//! cache lines apart, because trunks have widths that are powers of two; a line holds whole vectors of every set, so that kernels
//! may read and write to the end of a pixel's last line.

use super::aligned::Aligned;

/// Numbers in a cache line.
const LINE: usize = 16;

/// Numbers from a row of `width` to the next.
pub(super) fn stride(width: usize) -> usize {
    let lines = width.div_ceil(LINE);
    LINE * (lines + usize::from(lines.is_multiple_of(2)))
}

/// How many pictures, and how large.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Size {
    pub(super) pictures: usize,
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) channels: usize,
}

impl Size {
    /// Pixels of all pictures.
    pub(super) fn pixels(&self) -> usize {
        self.pictures * self.rows * self.columns
    }

    /// Numbers from pixel to pixel.
    pub(super) fn stride(&self) -> usize {
        stride(self.channels)
    }
}

/// Pictures, kept for the next ones.
#[derive(Default)]
pub(super) struct Pixels {
    size: Size,
    numbers: Aligned<f32>,
}

/// Some of them.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    size: Size,
    numbers: &'a [f32],
}

impl Pixels {
    /// Room for pictures of this size, whose numbers are unspecified.
    pub(super) fn shape(&mut self, size: Size) -> &mut [f32] {
        self.size = size;
        self.numbers.at_least(size.pixels() * size.stride())
    }

    pub(super) fn size(&self) -> Size {
        self.size
    }

    pub(super) fn view(&self) -> View<'_> {
        self.pictures(0, self.size.pictures)
    }

    /// `count` pictures from `first` on.
    pub(super) fn pictures(&self, first: usize, count: usize) -> View<'_> {
        let size = Size { pictures: count, ..self.size };
        let each = Size { pictures: 1, ..size }.pixels() * size.stride();
        View { size, numbers: &self.numbers[first * each..][..count * each] }
    }

    /// All numbers: pixels [`Size::stride`] apart.
    pub(super) fn numbers(&mut self) -> &mut [f32] {
        let len = self.size.pixels() * self.size.stride();
        &mut self.numbers[..len]
    }

    /// Puts pictures in the place of those from `first` on.
    pub(super) fn put(&mut self, first: usize, from: View<'_>) {
        assert_eq!(Size { pictures: from.size.pictures, ..self.size }, from.size, "pictures of one size");
        let each = Size { pictures: 1, ..self.size }.pixels() * self.size.stride();
        self.numbers[first * each..][..from.numbers.len()].copy_from_slice(from.numbers);
    }
}

impl<'a> View<'a> {
    pub(super) fn size(&self) -> Size {
        self.size
    }

    /// All numbers: pixels [`Size::stride`] apart.
    pub(super) fn numbers(&self) -> &'a [f32] {
        self.numbers
    }

    /// The mean of each picture's pixels: rows of as many numbers as there are channels.
    pub(super) fn means(&self, out: &mut [f32]) {
        let Size { rows, columns, channels, .. } = self.size;
        let stride = self.size.stride();
        let pictures = self.numbers.chunks_exact(rows * columns * stride);
        for (out, picture) in out.chunks_exact_mut(channels).zip(pictures) {
            out.fill(0.0);
            for pixel in picture.chunks_exact(stride) {
                out.iter_mut().zip(pixel).for_each(|(sum, x)| *sum += x);
            }
            out.iter_mut().for_each(|sum| *sum /= (rows * columns) as f32);
        }
    }
}
