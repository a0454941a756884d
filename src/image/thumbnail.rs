//! Small upright RGB pictures for people to look at.

use ::image::codecs::jpeg::JpegEncoder;
use ::image::{ExtendedColorType, ImageEncoder};

use super::Photo;
use super::pixels::Pixels;
use super::preprocess::Interpolation;
use super::resample::{Span, resize};
use crate::{Error, Result};

/// A small upright RGB picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Thumbnail {
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// `height × width × 3` RGB bytes, row by row.
    pub rgb: Vec<u8>,
}

impl Photo {
    /// The picture with its longer side at most `max_side` pixels; smaller ones are not enlarged.
    ///
    /// Unlike what models see, transparent pixels lie on white, and deep greys are scaled into view.
    pub fn thumbnail(&self, max_side: u32) -> Thumbnail {
        let (width, height) = (self.width(), self.height());
        let longer = width.max(height);
        let shrink = |edge: u32| {
            let exact = f64::from(edge) * f64::from(max_side.clamp(1, longer)) / f64::from(longer);
            (exact.round() as u32).max(1)
        };
        let (to_width, to_height) = (shrink(width), shrink(height));
        let spans = [(width, to_width), (height, to_height)].map(|(from, to)| {
            let (from, to) = (from as usize, to as usize);
            Span { from, reduction: self.reduction() as usize, to, start: 0, len: to }
        });
        let scale =
            |data: &[u8]| resize::<3>(data, self.stored_size(), self.orientation(), spans, Interpolation::Bicubic);
        let rgb = match self.pixels() {
            deep @ (Pixels::Gray16(_) | Pixels::Int(_) | Pixels::Float(_)) => {
                scale(&deep.clone().into_bytes().to_rgb_on_white())
            }
            pixels => scale(&pixels.to_rgb_on_white()),
        };
        Thumbnail { width: to_width, height: to_height, rgb }
    }
}

impl Thumbnail {
    /// As a JPEG file. `quality` is 1 to 100.
    ///
    /// # Errors
    /// [`Error::DamagedImage`] for sides longer than the 65,535 pixels that JPEG can say.
    pub fn to_jpeg(&self, quality: u8) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let encoder = JpegEncoder::new_with_quality(&mut bytes, quality.clamp(1, 100));
        let written = encoder.write_image(&self.rgb, self.width, self.height, ExtendedColorType::Rgb8);
        let reason = "its sides are longer than 65,535 pixels";
        written.map_err(|source| Error::DamagedImage { format: "JPEG", reason, source: source.into() })?;
        Ok(bytes)
    }
}
