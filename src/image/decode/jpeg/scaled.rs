//! Sound JPEGs through `libjpeg-turbo-rs`, at full size or reduced.

use libjpeg_turbo_rs::{DecodeLimits, Decoder, PixelFormat, ScalingFactor};

use super::super::{Frame, Limit};
use super::{has_end, ink};
use crate::image::pixels::Pixels;
use crate::{Error, Result};

/// None for whatever is not sound.
pub(super) fn decode(bytes: &[u8], limit: Limit<'_>, reduction: &dyn Fn((u32, u32)) -> u32) -> Result<Option<Frame>> {
    let Some(header) = Header::read(bytes) else { return Ok(None) };
    if header.decoder.header().precision == 12 {
        return Err(Error::UnsupportedImage { format: "12-bit JPEG" });
    }
    limit.check(header.size)?;
    // Most files end where the picture ends; phones append videos.
    if !bytes.ends_with(b"\xFF\xD9") && !has_end(bytes) {
        return Ok(None);
    }
    let reduction = reduction(header.size);
    (limit.admit)(header.memory(reduction));
    let (size, format) = (header.size, header.format);
    let Some(data) = header.decode(bytes, reduction) else { return Ok(None) };
    let pixels = match format {
        PixelFormat::Grayscale => Pixels::Gray(data),
        PixelFormat::Cmyk => ink(data),
        _ => Pixels::Rgb(data),
    };
    Ok(Some(Frame { pixels, size, reduction }))
}

struct Header<'a> {
    decoder: Decoder<'a>,
    /// Width and height.
    size: (u32, u32),
    /// What to decode to.
    format: PixelFormat,
}

impl<'a> Header<'a> {
    fn read(bytes: &'a [u8]) -> Option<Header<'a>> {
        let mut limits = DecodeLimits::default();
        // Limits are the caller's.
        (limits.max_width, limits.max_height, limits.max_pixels) = (usize::MAX, usize::MAX, u64::MAX);
        let mut decoder = Decoder::new_with_limits(bytes, limits).ok()?;
        decoder.set_limits(limits);
        let header = decoder.header();
        let format = match header.components.len() {
            1 => PixelFormat::Grayscale,
            3 => PixelFormat::Rgb,
            4 => PixelFormat::Cmyk,
            _ => return None,
        };
        let is_usual = matches!(header.precision, 8 | 12) && !header.is_lossless;
        let size = (header.width.into(), header.height.into());
        is_usual.then_some(Header { decoder, size, format })
    }

    /// Bytes of memory that decoding takes at its peak, about.
    fn memory(&self, reduction: u32) -> u64 {
        let (width, height, reduction) = (u64::from(self.size.0), u64::from(self.size.1), u64::from(reduction));
        let components = self.decoder.header().components.len() as u64;
        // Planes as stored, planes of equal size, and the result.
        let reduced = width.div_ceil(reduction) * height.div_ceil(reduction) * components * 3;
        // A picture in several passes is kept as coefficients of two bytes until the last of them.
        let coefficients = if self.decoder.has_multiple_scans() { width * height * components * 2 } else { 0 };
        reduced + coefficients
    }

    /// The pixels, reduced.
    #[cfg_attr(not(feature = "turbojpeg"), allow(unused_variables))]
    fn decode(mut self, bytes: &[u8], reduction: u32) -> Option<Vec<u8>> {
        let size = (self.size.0.div_ceil(reduction) as usize, self.size.1.div_ceil(reduction) as usize);
        #[cfg(feature = "turbojpeg")]
        if let Some(data) = super::native::decode(bytes, size, self.format, reduction) {
            return Some(data);
        }
        self.decoder.set_output_format(self.format);
        self.decoder.set_scale(ScalingFactor::try_new(1, reduction).ok()?);
        let image = self.decoder.decode_image().ok()?;
        let fits = (image.width, image.height) == size && image.pixel_format == self.format;
        (fits && image.data.len() == size.0 * size.1 * self.format.bytes_per_pixel()).then_some(image.data)
    }
}
