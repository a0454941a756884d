//! How a picture must be turned to stand upright: the eight values of EXIF's orientation tag.

/// A rotation by quarter turns, mirrored or not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Orientation {
    /// Rows of the stored picture are columns of the upright one.
    transposed: bool,
    /// The upright picture's x axis runs against the stored axis that it lies on.
    flip_x: bool,
    /// The same for its y axis.
    flip_y: bool,
}

impl Orientation {
    /// From the EXIF tag's value, 1 to 8; anything else means upright.
    pub fn from_exif(value: u32) -> Self {
        let (transposed, flip_x, flip_y) = match value {
            2 => (false, true, false),
            3 => (false, true, true),
            4 => (false, false, true),
            5 => (true, false, false),
            6 => (true, true, false),
            7 => (true, true, true),
            8 => (true, false, true),
            _ => (false, false, false),
        };
        Self { transposed, flip_x, flip_y }
    }

    /// Whether width and height change places.
    pub fn is_transposed(self) -> bool {
        self.transposed
    }

    /// Whether the upright picture's x and y axes run against the stored axes that they lie on.
    pub(crate) fn flips(self) -> (bool, bool) {
        (self.flip_x, self.flip_y)
    }

    /// Width and height after turning. Its own inverse.
    pub(crate) fn apply_to_size<T>(self, (width, height): (T, T)) -> (T, T) {
        if self.transposed { (height, width) } else { (width, height) }
    }

    /// Where the upright picture's pixel lies in the stored one of `size` (width, height).
    pub(crate) fn stored_position(self, (x, y): (usize, usize), size: (usize, usize)) -> (usize, usize) {
        let (width, height) = self.apply_to_size(size);
        let x = if self.flip_x { width - 1 - x } else { x };
        let y = if self.flip_y { height - 1 - y } else { y };
        if self.transposed { (y, x) } else { (x, y) }
    }
}
