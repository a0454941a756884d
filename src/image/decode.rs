//! Bytes to pixels: the format by content, a size check before any pixel memory, the orientation of the camera.
//!
//! The decoders are those of the `image` family of crates, called one by one and not through `image`'s own front door,
//! which reduces palettes, ink and bilevel pictures to RGB; models have seen them resized first.
//!
//! Damaged files are errors, truncated JPEGs too, as in Pillow: half a grey picture finds nothing.

mod gif;
mod jpeg;
mod png;
mod pnm;
mod tiff;
mod webp;

use std::collections::HashMap;
use std::io::Cursor;

use ::image::codecs::bmp::BmpDecoder;
use ::image::codecs::pnm::PnmDecoder;
use ::image::codecs::qoi::QoiDecoder;
use ::image::{ColorType, ImageDecoder};

use super::pixels::{Palette, Pixels};
use super::{Format, Orientation, metadata};
use crate::error::Source;
use crate::{Error, Result};

/// How to decode.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DecodeOptions {
    /// Turn the picture as its EXIF orientation says. On by default; evaluators turn it off, because the training code
    /// did not look at it. TIFF files are turned in any case, as Pillow does on loading them.
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
    format: Format,
    pixels: Pixels,
    /// Width and height as stored.
    stored: (u32, u32),
    orientation: Orientation,
}

impl Photo {
    /// Decodes the bytes of a picture file; the first frame of an animation, the first page of a TIFF.
    ///
    /// Memory: up to four bytes per pixel. A picture is turned while it is resized, not here.
    ///
    /// # Errors
    /// - [`Error::UnsupportedImage`] for formats that are recognised and not decoded yet.
    /// - [`Error::ImageTooLarge`] for more pixels than `options.max_pixels`, before memory is taken for them.
    /// - [`Error::BadImage`] for bytes that are no picture, [`Error::DamagedImage`] for those that a decoder gave up on.
    pub fn decode(bytes: &[u8], options: &DecodeOptions) -> Result<Photo> {
        let no_picture = || Error::BadImage { reason: "no known picture format".into() };
        let format = Format::sniff(bytes).ok_or_else(no_picture)?;
        let limit = Limit(options.max_pixels);
        let frame = match format {
            Format::Jpeg => jpeg::decode(bytes, limit)?,
            Format::Png => png::decode(bytes, limit)?,
            Format::WebP => webp::decode(bytes, limit)?,
            Format::Gif => gif::decode(bytes, limit)?,
            Format::Tiff => tiff::decode(bytes, limit)?,
            Format::Pnm if bytes.starts_with(b"P7") => other(format, PnmDecoder::new(Cursor::new(bytes)), limit)?,
            Format::Pnm => pnm::decode(bytes, limit)?,
            Format::Bmp => bmp(bytes, limit)?,
            Format::Qoi => other(format, QoiDecoder::new(Cursor::new(bytes)), limit)?,
            unsupported => return Err(Error::UnsupportedImage { format: unsupported.label() }),
        };
        let is_turned = options.orient || format == Format::Tiff;
        let orientation = if is_turned { metadata::orientation(bytes) } else { Orientation::default() };
        Ok(Photo { format, pixels: frame.pixels, stored: frame.size, orientation })
    }

    /// The format that the bytes were in.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Width in pixels, after orientation.
    pub fn width(&self) -> u32 {
        self.orientation.apply_to_size(self.stored).0
    }

    /// Height in pixels, after orientation.
    pub fn height(&self) -> u32 {
        self.orientation.apply_to_size(self.stored).1
    }

    /// Width and height of the stored pixels.
    pub(crate) fn stored_size(&self) -> (usize, usize) {
        (self.stored.0 as usize, self.stored.1 as usize)
    }

    /// How the stored pixels are to be turned.
    pub(crate) fn orientation(&self) -> Orientation {
        self.orientation
    }

    /// The stored pixels.
    pub(crate) fn pixels(&self) -> &Pixels {
        &self.pixels
    }
}

/// What a decoder hands over.
struct Frame {
    pixels: Pixels,
    /// Width and height.
    size: (u32, u32),
}

/// The limit on pixels, asked before they are allocated.
#[derive(Clone, Copy)]
struct Limit(u64);

impl Limit {
    fn check(self, (width, height): (u32, u32)) -> Result<()> {
        if width == 0 || height == 0 {
            return Err(Error::BadImage { reason: format!("{width} × {height} pixels") });
        }
        if u64::from(width) * u64::from(height) > self.0 {
            return Err(Error::ImageTooLarge { width, height, limit: self.0 });
        }
        Ok(())
    }
}

/// Wraps what a decoder crate says.
fn damaged<E: Into<Source>>(format: Format) -> impl Fn(E) -> Error {
    move |source| Error::DamagedImage { format: format.label(), source: source.into() }
}

/// A reason of our own.
fn bad(reason: impl Into<String>) -> Error {
    Error::BadImage { reason: reason.into() }
}

/// A palette from its first entries.
fn palette_of(colours: impl Iterator<Item = [u8; 3]>) -> Palette {
    let mut palette = Box::new([[0, 0, 0, 255]; 256]);
    palette.iter_mut().zip(colours).for_each(|(entry, [r, g, b])| *entry = [r, g, b, 255]);
    palette
}

/// Formats without surprises, through the interface that the decoders of `image` share.
fn other<D: ImageDecoder>(format: Format, decoder: Result<D, ::image::ImageError>, limit: Limit) -> Result<Frame> {
    let decoder = decoder.map_err(damaged(format))?;
    let (size, color) = (decoder.dimensions(), decoder.color_type());
    limit.check(size)?;
    let data = read_all(format, decoder)?;
    let high_bytes = || data.chunks_exact(2).map(|v| u16::from_ne_bytes([v[0], v[1]]).to_be_bytes()[0]).collect();
    let pixels = match color {
        ColorType::L8 => Pixels::Gray(data),
        ColorType::La8 => Pixels::GrayAlpha(data),
        ColorType::Rgb8 => Pixels::Rgb(data),
        ColorType::Rgba8 => Pixels::Rgba(data),
        ColorType::L16 => Pixels::Gray16(data.chunks_exact(2).map(|v| u16::from_ne_bytes([v[0], v[1]])).collect()),
        ColorType::La16 => Pixels::GrayAlpha(high_bytes()),
        ColorType::Rgb16 => Pixels::Rgb(high_bytes()),
        ColorType::Rgba16 => Pixels::Rgba(high_bytes()),
        other => return Err(bad(format!("{other:?} pixels are not supported"))),
    };
    Ok(Frame { pixels, size })
}

fn read_all(format: Format, decoder: impl ImageDecoder) -> Result<Vec<u8>> {
    let too_large = || bad("more pixels than memory has addresses");
    let mut data = vec![0; usize::try_from(decoder.total_bytes()).map_err(|_| too_large())?];
    decoder.read_image(&mut data).map_err(damaged(format))?;
    Ok(data)
}

/// BMP with its palette kept; a palette that is a ramp of greys is none, as in Pillow.
///
/// The decoder can hand out indices, but panics on fewer than eight bits: they are found again by their colours.
fn bmp(bytes: &[u8], limit: Limit) -> Result<Frame> {
    let decoder = BmpDecoder::new(Cursor::new(bytes)).map_err(damaged(Format::Bmp))?;
    let palette = decoder.get_palette().map(<[_]>::to_vec);
    let frame = other(Format::Bmp, Ok(decoder), limit)?;
    let (Some(colours), Pixels::Rgb(data)) = (palette, &frame.pixels) else { return Ok(frame) };
    let is_ramp = colours.len() > 2 && (0_u8..=255).zip(&colours).all(|(i, colour)| *colour == [i; 3]);
    let pixels = data.as_chunks::<3>().0.iter();
    let pixels = if is_ramp {
        Pixels::Gray(pixels.map(|pixel| pixel[0]).collect())
    } else {
        // The first of equal colours; indices that point behind the palette are black, as are its unused entries.
        let mut indices = HashMap::new();
        for (i, colour) in (0_u8..=255).zip(&colours) {
            indices.entry(*colour).or_insert(i);
        }
        let unused = colours.len().min(255) as u8;
        let indices = pixels.map(|pixel| indices.get(pixel).copied().unwrap_or(unused)).collect();
        // One bit a pixel in black and white is Pillow's mode 1, where every number but zero is white.
        let bits_at = if bytes.get(14) == Some(&12) { 24 } else { 28 };
        let is_bilevel = bytes.get(bits_at) == Some(&1) && colours.starts_with(&[[0; 3], [255; 3]]);
        let colours = colours.into_iter().enumerate().map(|(i, rgb)| if is_bilevel && i > 0 { [255; 3] } else { rgb });
        let white = std::iter::repeat_n([255; 3], if is_bilevel { 256 } else { 0 });
        Pixels::Indexed(indices, palette_of(colours.chain(white)))
    };
    Ok(Frame { pixels, size: frame.size })
}
