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
use super::reduction::reduction;
use super::{Format, Orientation, Preprocess, metadata};
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
    /// Cut greys of more than eight bits off at 255, as Pillow's conversion to RGB does. Off by default; evaluators turn it on.
    /// Models have hardly seen such pictures: what that makes of a scan or an X-ray is a white page. Instead the model sees what
    /// a thumbnail shows: the upper eight of sixteen bits, or the range that the picture uses.
    pub clip_deep: bool,
}

impl Default for DecodeOptions {
    fn default() -> Self {
        Self { orient: true, max_pixels: 512_000_000, clip_deep: false }
    }
}

/// A decoded picture in the pixel mode of its file.
#[derive(Clone, Debug)]
pub struct Photo {
    format: Format,
    pixels: Pixels,
    /// Width and height as stored.
    stored: (u32, u32),
    /// Pixels of the file, along each axis, per pixel in hand.
    reduction: u32,
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
        Photo::reduced(bytes, Limit::new(options, &|_| {}), options, &|_| 1)
    }

    /// Decodes no more of a picture than a model needs: a large JPEG at a half, a quarter or an eighth of its size, in less than
    /// half of the time and with a sixteenth of the memory or less.
    ///
    /// [`Preprocess::apply`] gives nearly the same pixels then: with embeddings of photos the cosine to those of the whole
    /// picture is above 0.9995, if the model computes in f32. Width and height are still those of the file.
    ///
    /// # Errors
    /// As [`Photo::decode`].
    pub fn decode_for(bytes: &[u8], options: &DecodeOptions, preprocess: &Preprocess) -> Result<Photo> {
        Photo::decode_within(bytes, options, preprocess, &|_| {})
    }

    /// As [`Photo::decode_for`], and says to `admit` how many bytes of memory it takes at its peak, about, before it takes them.
    /// What is said later counts instead of what was said before: a damaged JPEG may need all of its pixels after all.
    ///
    /// # Errors
    /// As [`Photo::decode`].
    pub(crate) fn decode_within(
        bytes: &[u8],
        options: &DecodeOptions,
        preprocess: &Preprocess,
        admit: &dyn Fn(u64),
    ) -> Result<Photo> {
        Photo::reduced(bytes, Limit::new(options, admit), options, &|upright| preprocess.reduction(upright))
    }

    /// Decodes no more of a picture than [`Photo::thumbnail`] needs for a longer side of `max_side` pixels.
    ///
    /// # Errors
    /// As [`Photo::decode`].
    pub fn decode_for_thumbnail(bytes: &[u8], options: &DecodeOptions, max_side: u32) -> Result<Photo> {
        Photo::decode_for_thumbnail_within(bytes, options, max_side, &|_| {})
    }

    /// [`Photo::decode_for_thumbnail`] as [`Photo::decode_within`] does it.
    ///
    /// # Errors
    /// As [`Photo::decode`].
    pub(crate) fn decode_for_thumbnail_within(
        bytes: &[u8],
        options: &DecodeOptions,
        max_side: u32,
        admit: &dyn Fn(u64),
    ) -> Result<Photo> {
        Photo::reduced(bytes, Limit::new(options, admit), options, &|(width, height)| {
            reduction(f64::from(width.max(height)) / f64::from(max_side.max(1)))
        })
    }

    fn reduced(
        bytes: &[u8],
        limit: Limit<'_>,
        options: &DecodeOptions,
        reduction: &dyn Fn((u32, u32)) -> u32,
    ) -> Result<Photo> {
        let no_picture = || Error::BadImage { reason: "no known picture format".into() };
        let format = Format::sniff(bytes).ok_or_else(no_picture)?;
        let is_turned = options.orient || format == Format::Tiff;
        let orientation = if is_turned { metadata::orientation(bytes) } else { Orientation::default() };
        let frame = match format {
            Format::Jpeg => jpeg::decode(bytes, limit, &|stored| reduction(orientation.apply_to_size(stored)))?,
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
        let pixels = if options.clip_deep { frame.pixels } else { frame.pixels.into_bytes() };
        Ok(Photo { format, pixels, stored: frame.size, reduction: frame.reduction, orientation })
    }

    /// The format that the bytes were in.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Width of the whole picture in pixels, after orientation.
    pub fn width(&self) -> u32 {
        self.orientation.apply_to_size(self.stored).0
    }

    /// Height of the whole picture in pixels, after orientation.
    pub fn height(&self) -> u32 {
        self.orientation.apply_to_size(self.stored).1
    }

    /// Width and height of the stored pixels, reduced ones where they are.
    pub(crate) fn stored_size(&self) -> (usize, usize) {
        (self.stored.0.div_ceil(self.reduction) as usize, self.stored.1.div_ceil(self.reduction) as usize)
    }

    /// Pixels of the file, along each axis, per pixel that was decoded: 1, 2, 4 or 8.
    pub fn reduction(&self) -> u32 {
        self.reduction
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
    /// Width and height of the whole picture.
    size: (u32, u32),
    /// Pixels of it, along each axis, per pixel in hand; a rest makes one more.
    reduction: u32,
}

impl Frame {
    /// All of a picture.
    fn whole(pixels: Pixels, size: (u32, u32)) -> Frame {
        Frame { pixels, size, reduction: 1 }
    }
}

/// The limit on pixels, asked before they are allocated, and who hears of the memory that they take.
#[derive(Clone, Copy)]
struct Limit<'a> {
    pixels: u64,
    admit: &'a dyn Fn(u64),
}

impl<'a> Limit<'a> {
    fn new(options: &DecodeOptions, admit: &'a dyn Fn(u64)) -> Limit<'a> {
        Limit { pixels: options.max_pixels, admit }
    }

    /// Announces `bytes` of memory for each pixel of a whole picture.
    fn admit(self, (width, height): (u32, u32), bytes: usize) {
        // Later the pixels lie there twice, to be multiplied with their alpha or turned before they are resized.
        const RESIZED: usize = 8;
        (self.admit)(u64::from(width) * u64::from(height) * bytes.max(RESIZED) as u64);
    }

    fn check(self, (width, height): (u32, u32)) -> Result<()> {
        if width == 0 || height == 0 {
            return Err(Error::BadImage { reason: format!("{width} × {height} pixels") });
        }
        if u64::from(width) * u64::from(height) > self.pixels {
            return Err(Error::ImageTooLarge { width, height, limit: self.pixels });
        }
        Ok(())
    }
}

/// Bytes of a pixel, at most, that are made of what a decoder hands over.
const MADE: usize = 4;

/// Why a file is damaged where its end is missing.
const ENDS_EARLY: &str = "it ends too early; part of it is missing, as after an interrupted copy";

/// Wraps what a decoder crate says, and says it in words that do not need the format's specification.
fn damaged<E: Into<Source>>(format: Format) -> impl Fn(E) -> Error {
    move |source| {
        let source = source.into();
        let reason = if ends_early(&*source) { ENDS_EARLY } else { "its picture data makes no sense" };
        Error::DamagedImage { format: format.label(), reason, source }
    }
}

/// Whether a decoder stopped because the file did.
fn ends_early(error: &(dyn std::error::Error + 'static)) -> bool {
    std::iter::successors(Some(error), |error| error.source())
        .filter_map(|error| error.downcast_ref::<std::io::Error>())
        .any(|error| error.kind() == std::io::ErrorKind::UnexpectedEof)
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
fn other<D: ImageDecoder>(format: Format, decoder: Result<D, ::image::ImageError>, limit: Limit<'_>) -> Result<Frame> {
    let decoder = decoder.map_err(damaged(format))?;
    let (size, color) = (decoder.dimensions(), decoder.color_type());
    limit.check(size)?;
    limit.admit(size, usize::from(color.bytes_per_pixel()) + MADE);
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
    Ok(Frame::whole(pixels, size))
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
fn bmp(bytes: &[u8], limit: Limit<'_>) -> Result<Frame> {
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
    Ok(Frame::whole(pixels, frame.size))
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::path::Path;

    use super::*;
    use crate::image::{Interpolation, ResizeMode};

    fn pictures() -> Vec<(String, Vec<u8>)> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/image/pictures");
        let read = |path: std::path::PathBuf| {
            (path.file_name().unwrap().to_string_lossy().into_owned(), std::fs::read(&path).unwrap())
        };
        std::fs::read_dir(folder).unwrap().map(|entry| read(entry.unwrap().path())).collect()
    }

    /// The picture for a model of ten pixels, and what was announced of it.
    fn announced(bytes: &[u8]) -> (Result<Photo>, Vec<u64>) {
        let preprocess = Preprocess {
            size: (10, 10),
            mean: [0.0; 3],
            std: [1.0; 3],
            interpolation: Interpolation::Bicubic,
            resize_mode: ResizeMode::Shortest,
            fill: 0,
            rgb_first: false,
        };
        let said = RefCell::new(Vec::new());
        let admit = |amount| said.borrow_mut().push(amount);
        let photo = Photo::decode_within(bytes, &DecodeOptions::default(), &preprocess, &admit);
        (photo, said.into_inner())
    }

    #[test]
    fn every_picture_is_announced_before_it_takes_memory() {
        for (name, bytes) in pictures() {
            let (photo, said) = announced(&bytes);
            let photo = photo.unwrap();
            let (width, height) = photo.stored_size();
            let pixels = match &photo.pixels {
                Pixels::Gray(_) | Pixels::Indexed(..) => 1,
                Pixels::GrayAlpha(_) | Pixels::Gray16(_) => 2,
                Pixels::Rgb(_) => 3,
                _ => 4,
            };
            let held = (width * height * pixels) as u64;
            assert!(said.last().is_some_and(|amount| *amount >= 2 * held), "{name}: {said:?}, {held} are held");
        }
    }

    #[test]
    fn a_damaged_jpeg_is_announced_again_with_all_its_pixels() {
        let bytes = pictures().into_iter().find(|(name, _)| name == "baseline.jpg").unwrap().1;
        let (photo, said) = announced(&bytes);
        let photo = photo.unwrap();
        let all = u64::from(photo.width()) * u64::from(photo.height()) * 9;
        assert!(photo.reduction() > 1 && said.len() == 1 && said[0] < all / 4, "{said:?} of {all}");
        // A restart where none was announced: the first decoder gives up in the middle of the picture.
        let mut damaged = bytes.clone();
        let middle = bytes.len() / 2;
        damaged[middle..middle + 2].copy_from_slice(b"\xFF\xD0");
        let (photo, said) = announced(&damaged);
        assert_eq!((photo.unwrap().reduction(), said.len(), said.last()), (1, 2, Some(&all)), "{said:?}");
    }
}
