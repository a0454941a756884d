//! Small pictures of the hits.

use std::path::Path;

use anyhow::Context;
use image::RgbImage;
use tintype::image::{DecodeOptions, Interpolation, Photo, Preprocess, ResizeMode};

/// The picture at `path`, no larger than `width × height`, upright. Pictures are never enlarged.
pub(super) fn thumbnail(path: &Path, width: u32, height: u32) -> anyhow::Result<RgbImage> {
    let bytes = std::fs::read(path)?;
    let photo = Photo::decode(&bytes, &DecodeOptions::default())?;
    let (full_width, full_height) = (f64::from(photo.width()), f64::from(photo.height()));
    let scale = (f64::from(width) / full_width).min(f64::from(height) / full_height).min(1.0);
    let to = |full: f64| ((full * scale).round() as usize).max(1);
    let (width, height) = (to(full_width), to(full_height));
    let shape = Preprocess {
        size: (height, width),
        mean: [0.0; 3],
        std: [1.0; 3],
        interpolation: Interpolation::Bilinear,
        resize_mode: ResizeMode::Squash,
        fill: 0,
        rgb_first: true,
    };
    let pixels = shape.apply(&photo)?;
    RgbImage::from_raw(width as u32, height as u32, pixels).context("a thumbnail of another size than asked for")
}

/// The picture as a JPEG file.
pub(super) fn jpeg(picture: &RgbImage, quality: u8) -> anyhow::Result<Vec<u8>> {
    let mut file = Vec::new();
    image::codecs::jpeg::JpegEncoder::new_with_quality(&mut file, quality).encode_image(picture)?;
    Ok(file)
}
