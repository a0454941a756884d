//! The bytes of a picture of the library, and small versions of it.

use std::path::Path;

use super::Fetch;
use super::failure::Failure;
use super::metrics::Step;
use super::service::Service;
use super::view::View;
use crate::catalog::{COPY_SIDE, is_address};
use crate::image::{DecodeOptions, Format, Photo};
use crate::{Error, Record};

/// Sides of thumbnails in pixels; others are rounded up, so that a cache holds few of each picture.
pub(super) const SIDES: [u32; 5] = [160, 320, 640, 1280, 2560];
/// A picture file.
pub(super) struct Picture {
    pub(super) bytes: Vec<u8>,
    pub(super) format: Format,
    /// Whether the library keeps these bytes in place of the picture's own.
    is_copy: bool,
}

/// Whether there may be a file to read: not for what is on the web, nor for a vector that came without a picture.
pub(super) fn is_at_hand(record: &Record) -> bool {
    !is_address(record.place_of_picture()) && (record.link.is_some() || !record.format.is_empty())
}

impl Picture {
    /// Reads the file of a record.
    pub(super) fn read(view: &View, record: &Record) -> Result<Picture, Failure> {
        let absent = |error: Error| match error {
            error @ (Error::Io { .. }
            | Error::NoPicture { .. }
            | Error::BadImage { .. }
            | Error::FileTooLarge { .. }) => Failure::absent(format!("photo {} cannot be shown: {error}", record.key)),
            error => error.into(),
        };
        let bytes = view.engine.open_image(record.key).map_err(absent)?;
        Picture::of(bytes, record)
    }

    /// The bytes, if they are a picture.
    fn of(bytes: Vec<u8>, record: &Record) -> Result<Picture, Failure> {
        let format = Format::sniff(&bytes[..bytes.len().min(Format::SNIFF_LEN)]);
        let format = format.ok_or_else(|| Failure::absent(format!("photo {} is no picture any more", record.key)))?;
        Ok(Picture { bytes, format, is_copy: is_address(&record.path) })
    }

    /// The media type, as registered.
    pub(super) fn media_type(&self) -> &'static str {
        match self.format {
            Format::Jpeg => "image/jpeg",
            Format::Png => "image/png",
            Format::WebP => "image/webp",
            Format::Gif => "image/gif",
            Format::Tiff => "image/tiff",
            Format::Bmp => "image/bmp",
            Format::Heic => "image/heic",
            Format::Avif => "image/avif",
            Format::JpegXl => "image/jxl",
            Format::Jpeg2000 => "image/jp2",
            _ => "application/octet-stream",
        }
    }
}

impl Service {
    /// The small copy of a picture whose own bytes cost more to reach, where that is large enough.
    fn small_copy(&self, view: &View, record: &Record, side: u32) -> Option<Picture> {
        if side > COPY_SIDE || record.source.is_none() {
            return None;
        }
        let bytes = view.engine.small_copy(record)?;
        let format = Format::sniff(&bytes)?;
        Some(Picture { bytes, format, is_copy: true })
    }

    /// The address that has to be fetched before there can be a thumbnail.
    pub(super) fn address_of_thumbnail(&self, view: &View, record: &Record, side: u32) -> Option<String> {
        let address = only_address(record).filter(|_| self.options.fetch != Fetch::Never)?;
        let side = rounded(side);
        let at_hand = self.thumbnails.find(&hash(address.as_bytes()), side).is_some()
            || self.small_copy(view, record, side).is_some();
        (!at_hand).then(|| address.to_owned())
    }

    /// A JPEG of a photo whose longer side has at most the next of [`SIDES`] pixels: from the cache, or made; `fetched` is what was
    /// at its address.
    pub(super) fn thumbnail(
        &self,
        view: &View,
        record: &Record,
        side: u32,
        fetched: Option<Vec<u8>>,
    ) -> Result<Vec<u8>, Failure> {
        let side = rounded(side);
        self.metrics.time(Step::Thumbnail, || {
            let address = only_address(record);
            // What is known by its address only is kept under that.
            let name = address.map_or_else(|| record.hash.clone(), |address| hash(address.as_bytes()));
            if let Some(found) = self.thumbnails.find(&name, side) {
                return Ok(found);
            }
            let picture = match (self.small_copy(view, record, side), fetched) {
                (Some(copy), _) => copy,
                (None, Some(bytes)) => Picture::of(bytes, record)?,
                (None, None) => Picture::read(view, record)?,
            };
            // A photo that was changed since it was taken in is shown as it is, and not kept as what it was.
            let name = if picture.is_copy || address.is_some() { name } else { hash(&picture.bytes) };
            if record.hash.is_empty()
                && let Some(found) = self.thumbnails.find(&name, side)
            {
                return Ok(found);
            }
            let options = DecodeOptions { max_pixels: self.options.max_pixels, ..DecodeOptions::default() };
            let photo = Photo::decode_for_thumbnail(&picture.bytes, &options, side)
                .map_err(|error| Failure::absent(format!("photo {} cannot be shown: {error}", record.key)))?;
            let made = photo.thumbnail(side).to_jpeg(82)?;
            self.thumbnails.keep(&name, side, &made);
            Ok(made)
        })
    }
}

/// The address of a picture of the web that is known by nothing else.
fn only_address(record: &Record) -> Option<&str> {
    record.link.as_deref().filter(|link| record.hash.is_empty() && is_address(Path::new(link)))
}

/// The next of [`SIDES`].
fn rounded(side: u32) -> u32 {
    SIDES.into_iter().find(|known| *known >= side).unwrap_or(SIDES[SIDES.len() - 1])
}

fn hash(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex().to_string()
}
