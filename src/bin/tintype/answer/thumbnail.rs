//! Small pictures of the hits.

use std::path::Path;

use tintype::Result;
use tintype::image::{DecodeOptions, Photo, Thumbnail};

/// The picture at `path`, upright, no larger than `width × height` and never enlarged.
pub(super) fn thumbnail(path: &Path, width: u32, height: u32) -> Result<Thumbnail> {
    let bytes = std::fs::read(path).map_err(|source| tintype::Error::Io { path: path.to_path_buf(), source })?;
    let photo = Photo::decode(&bytes, &DecodeOptions::default())?;
    let (full_width, full_height) = (f64::from(photo.width()), f64::from(photo.height()));
    let scale = (f64::from(width) / full_width).min(f64::from(height) / full_height);
    Ok(photo.thumbnail((full_width.max(full_height) * scale) as u32))
}
