//! Small pictures of the hits.

use tintype::image::{DecodeOptions, Photo, Thumbnail};
use tintype::{Engine, Key, Result};

/// A picture of the library, upright, no larger than `width × height` and never enlarged.
pub(super) fn thumbnail(engine: &Engine, key: Key, width: u32, height: u32) -> Result<Thumbnail> {
    let bytes = engine.open_image(key)?;
    let photo = Photo::decode_for_thumbnail(&bytes, &DecodeOptions::default(), width.max(height))?;
    let (full_width, full_height) = (f64::from(photo.width()), f64::from(photo.height()));
    let scale = (f64::from(width) / full_width).min(f64::from(height) / full_height);
    Ok(photo.thumbnail((full_width.max(full_height) * scale) as u32))
}
