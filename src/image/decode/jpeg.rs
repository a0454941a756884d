//! JPEG through `zune-jpeg`, with ink kept as ink.

use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

use super::{Frame, Limit, bad, damaged};
use crate::Result;
use crate::image::Format;
use crate::image::pixels::Pixels;

pub(super) fn decode(bytes: &[u8], limit: Limit) -> Result<Frame> {
    let options = DecoderOptions::default().set_strict_mode(false).set_max_width(usize::MAX).set_max_height(usize::MAX);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
    decoder.decode_headers().map_err(damaged(Format::Jpeg))?;
    let (width, height) = decoder.dimensions().ok_or_else(|| bad("a JPEG without a frame header"))?;
    let size = (width as u32, height as u32);
    limit.check(size)?;
    if !has_end(bytes) {
        return Err(bad("the JPEG file is truncated"));
    }
    let stored = decoder.input_colorspace().ok_or_else(|| bad("a JPEG without colour components"))?;
    let wanted = match stored {
        ColorSpace::Luma | ColorSpace::CMYK | ColorSpace::YCCK => stored,
        _ => ColorSpace::RGB,
    };
    decoder.set_options(options.jpeg_set_out_colorspace(wanted));
    let mut data = decoder.decode().map_err(damaged(Format::Jpeg))?;
    // A file may declare colours that its components do not bear out; the decoder then settles for others.
    let channels = data.len() / (width * height);
    let pixels = match (decoder.output_colorspace(), channels) {
        (Some(ColorSpace::Luma), 1) => Pixels::Gray(data),
        (Some(ColorSpace::RGB), 3) => Pixels::Rgb(data),
        // Ink in JPEG is stored inverted, whoever wrote it: Photoshop set the custom and Pillow relies on it.
        (Some(ColorSpace::CMYK), 4) => {
            data.iter_mut().for_each(|ink| *ink = 255 - *ink);
            Pixels::Cmyk(data)
        }
        (Some(ColorSpace::YCCK), 4) => {
            data.as_chunks_mut::<4>().0.iter_mut().for_each(ycck_to_cmyk);
            Pixels::Cmyk(data)
        }
        (found, _) => return Err(bad(format!("JPEG colours {found:?} are not supported"))),
    };
    Ok(Frame { pixels, size })
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

/// Whether an end marker follows the first scan. The decoder fills what is missing with grey and is content.
fn has_end(bytes: &[u8]) -> bool {
    let mut at = 2;
    let mut in_scan = false;
    while let Some(offset) = bytes.get(at..).and_then(|rest| rest.iter().position(|byte| *byte == 0xFF)) {
        at += offset + 1;
        match bytes.get(at) {
            Some(0xD9) if in_scan => return true,
            // Stuffed bytes, fill bytes, restarts and the like have no length.
            Some(0xFF) => {}
            Some(0x00 | 0x01 | 0xD0..=0xD9) => at += 1,
            Some(marker) => {
                in_scan |= *marker == 0xDA;
                let Some(length) = bytes.get(at + 1..at + 3) else { return false };
                at += 1 + usize::from(u16::from_be_bytes([length[0], length[1]])).max(2);
            }
            None => return false,
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_marker_counts_after_a_scan_only() {
        let with_thumbnail = b"\xFF\xD8\xFF\xE1\x00\x06\xFF\xD9\xFF\xD9\xFF\xDA\x00\x02\x01\xFF\x00\xFF\xD0\x05";
        assert!(!has_end(with_thumbnail));
        let mut whole = with_thumbnail.to_vec();
        whole.extend(b"\xFF\xD9");
        assert!(has_end(&whole));
    }
}
