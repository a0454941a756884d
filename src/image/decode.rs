//! Bytes to pixels: sniffed format, EXIF orientation, size limits.

use crate::Result;

/// A picture format, recognised by content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Format {
    /// JPEG.
    Jpeg,
}

/// How to decode.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DecodeOptions {
    /// Turn the picture as its EXIF orientation says. On by default; evaluators turn it off.
    pub orient: bool,
    /// Refuse pictures with more pixels than this.
    pub max_pixels: u64,
}

impl Default for DecodeOptions {
    fn default() -> Self {
        Self { orient: true, max_pixels: 512_000_000 }
    }
}

/// A decoded picture in the pixel mode of its file.
#[derive(Clone, Debug)]
pub struct Photo {
    width: u32,
    height: u32,
}

impl Photo {
    /// Decodes the bytes of a picture file.
    pub fn decode(_bytes: &[u8], _options: &DecodeOptions) -> Result<Photo> {
        todo!()
    }

    /// Width in pixels, after orientation.
    pub fn width(&self) -> u32 {
        self.width
    }

    /// Height in pixels, after orientation.
    pub fn height(&self) -> u32 {
        self.height
    }
}
