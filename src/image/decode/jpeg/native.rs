//! Sound JPEGs through libjpeg-turbo itself.

use libjpeg_turbo_rs::PixelFormat;
use turbojpeg::{Decompressor, Image, ScalingFactor};

/// Pixels of a picture of `size` after reduction; none if libjpeg-turbo finds anything to complain of.
pub(super) fn decode(bytes: &[u8], size: (usize, usize), format: PixelFormat, reduction: u32) -> Option<Vec<u8>> {
    let (format, channels) = match format {
        PixelFormat::Grayscale => (turbojpeg::PixelFormat::GRAY, 1),
        PixelFormat::Cmyk => (turbojpeg::PixelFormat::CMYK, 4),
        _ => (turbojpeg::PixelFormat::RGB, 3),
    };
    let mut decompressor = Decompressor::new().ok()?;
    let factor = ScalingFactor::new(1, reduction as usize);
    let header = decompressor.read_header(bytes).ok()?.scaled(factor);
    if (header.width, header.height) != size {
        return None;
    }
    decompressor.set_scaling_factor(factor).ok()?;
    let (width, height) = size;
    let mut image =
        Image { pixels: vec![0; width * height * channels], width, pitch: width * channels, height, format };
    decompressor.decompress(bytes, image.as_deref_mut()).ok()?;
    Some(image.pixels)
}
