//! The catalog: what is known of each photo besides its vector.

use std::path::PathBuf;

/// Identifies a photo's vector in the index.
pub type Key = tintype_index::Key;

/// A point on the globe, in degrees.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Place {
    /// North positive.
    pub latitude: f64,
    /// East positive.
    pub longitude: f64,
}

/// One photo.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Record {
    /// Its key in the index.
    pub key: Key,
    /// Absolute path.
    pub path: PathBuf,
    /// Bytes.
    pub size: u64,
    /// Modification time, nanoseconds since 1970.
    pub mtime: i64,
    /// Content hash, hexadecimal.
    pub hash: String,
    /// Lower-case name of the format: `jpeg`.
    pub format: String,
    /// Pixels, after orientation.
    pub width: u32,
    /// Pixels, after orientation.
    pub height: u32,
    /// When it was taken, civil time of the camera.
    pub taken: Option<jiff::civil::DateTime>,
    /// Maker and model.
    pub camera: Option<String>,
    /// Lens model.
    pub lens: Option<String>,
    /// Where it was taken.
    pub place: Option<Place>,
}
