//! JPEGs that something is wrong with, at full size through `zune-jpeg`.

use zune_jpeg::JpegDecoder;
use zune_jpeg::errors::DecodeErrors;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

use super::super::{ENDS_EARLY, Frame, Limit, bad, damaged};
use super::{has_end, ink};
use crate::error::Source;
use crate::image::Format;
use crate::image::pixels::Pixels;
use crate::{Error, Result};

pub(super) fn decode(bytes: &[u8], limit: Limit<'_>) -> Result<Frame> {
    let options = DecoderOptions::default().set_strict_mode(false).set_max_width(usize::MAX).set_max_height(usize::MAX);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
    decoder.decode_headers().map_err(in_words)?;
    let (width, height) = decoder.dimensions().ok_or_else(|| bad("a JPEG without a frame header"))?;
    let size = (width as u32, height as u32);
    limit.check(size)?;
    if !has_end(bytes) {
        return Err(ends_early("no end marker"));
    }
    let stored = decoder.input_colorspace().ok_or_else(|| bad("a JPEG without colour components"))?;
    let wanted = match stored {
        ColorSpace::Luma | ColorSpace::CMYK | ColorSpace::YCCK => stored,
        _ => ColorSpace::RGB,
    };
    decoder.set_options(options.jpeg_set_out_colorspace(wanted));
    // The result, and coefficients of two bytes, which are kept of a picture in several passes.
    limit.admit(size, 3 * stored.num_components());
    let mut data = decoder.decode().map_err(in_words)?;
    // A file may declare colours that its components do not bear out; the decoder then settles for others.
    let channels = data.len() / (width * height);
    let pixels = match (decoder.output_colorspace(), channels) {
        (Some(ColorSpace::Luma), 1) => Pixels::Gray(data),
        (Some(ColorSpace::RGB), 3) => Pixels::Rgb(data),
        (Some(ColorSpace::CMYK), 4) => ink(data),
        (Some(ColorSpace::YCCK), 4) => {
            data.as_chunks_mut::<4>().0.iter_mut().for_each(ycck_to_cmyk);
            Pixels::Cmyk(data)
        }
        (found, _) => return Err(bad(format!("JPEG colours {found:?} are not supported"))),
    };
    Ok(Frame { pixels, size, reduction: 1 })
}

/// What `zune-jpeg` says.
fn in_words(error: DecodeErrors) -> Error {
    match error {
        DecodeErrors::ExhaustedData | DecodeErrors::IoErrors(_) => ends_early(error),
        other => damaged(Format::Jpeg)(other),
    }
}

fn ends_early(source: impl Into<Source>) -> Error {
    Error::DamagedImage { format: Format::Jpeg.label(), reason: ENDS_EARLY, source: source.into() }
}

/// Inverted YCbCr over inverted ink, with libjpeg's 16-bit fixed-point coefficients.
fn ycck_to_cmyk(pixel: &mut [u8; 4]) {
    let [y, cb, cr] = [i32::from(pixel[0]), i32::from(pixel[1]) - 128, i32::from(pixel[2]) - 128];
    let half = 1 << 15;
    let red = y + ((91_881 * cr + half) >> 16);
    let green = y + ((-22_554 * cb - 46_802 * cr + half) >> 16);
    let blue = y + ((116_130 * cb + half) >> 16);
    *pixel = [red.clamp(0, 255) as u8, green.clamp(0, 255) as u8, blue.clamp(0, 255) as u8, 255 - pixel[3]];
}
