//! The first page of a TIFF through `tiff`: strips and tiles, every depth that Pillow has a mode for.

use std::borrow::Cow;
use std::io::Cursor;

use tiff::ColorType;
use tiff::decoder::{Decoder, DecodingResult, Limits};
use tiff::tags::Tag;

use super::{Frame, Limit, MADE, bad, damaged, palette_of};
use crate::Result;
use crate::image::Format;
use crate::image::ifd::Ifd;
use crate::image::pixels::{Palette, Pixels, unpack_bits, unpremultiply};

const PHOTOMETRIC: u16 = 262;
const COLOR_MAP: u16 = 320;
const PALETTE: u32 = 3;
const BLACK_IS_ZERO: u8 = 1;

pub(super) fn decode(bytes: &[u8], limit: Limit<'_>) -> Result<Frame> {
    let (bytes, is_indexed) = without_palette(bytes);
    let mut decoder = Decoder::new(Cursor::new(&*bytes)).map_err(damaged(Format::Tiff))?;
    let size = decoder.dimensions().map_err(damaged(Format::Tiff))?;
    limit.check(size)?;
    let color = decoder.colortype().map_err(damaged(Format::Tiff))?;
    // The limit on pixels has spoken; what is left to guard are values that the file merely claims. Deep colours take
    // up to sixteen bytes a pixel.
    let mut limits = Limits::default();
    limits.decoding_buffer_size = size.0 as usize * size.1 as usize * 16 + 1024;
    limits.intermediate_buffer_size = limits.decoding_buffer_size.max(limits.intermediate_buffer_size);
    decoder = decoder.with_limits(limits);
    let palette = if is_indexed { Some(read_palette(&mut decoder)?) } else { None };
    let white_is_zero = decoder.find_tag_unsigned::<u16>(Tag::PhotometricInterpretation).ok().flatten() == Some(0);
    let extra = decoder.find_tag_unsigned_vec::<u16>(Tag::ExtraSamples).ok().flatten().unwrap_or_default();
    let layout = decoder.image_buffer_layout().map_err(damaged(Format::Tiff))?;
    if layout.planes > 1 {
        return Err(bad("TIFF pictures with separate colour planes are not supported"));
    }
    // Strips of some kinds are decoded apart before they are put together.
    limit.admit(size, (2 * layout.len).div_ceil(size.0 as usize * size.1 as usize) + MADE);
    let data = decoder.read_image().map_err(damaged(Format::Tiff))?;
    let width = size.0 as usize;
    let pixels = match (color, data) {
        (ColorType::Gray(bits @ (1 | 2 | 4 | 8)), DecodingResult::U8(data)) => match (bits, palette) {
            (1, None) => Pixels::bilevel(&data, width),
            (8, None) => Pixels::Gray(data),
            (8, Some(palette)) => Pixels::Indexed(data, palette),
            (_, Some(palette)) => Pixels::Indexed(unpack_bits(&data, width, bits.into()), palette),
            (_, None) => {
                let scale = 255 / ((1 << bits) - 1) as u8;
                Pixels::Gray(unpack_bits(&data, width, bits.into()).into_iter().map(|v| v * scale).collect())
            }
        },
        (_, _) if is_indexed => return Err(bad("TIFF palettes of more than 8 bits are not supported")),
        // Pillow takes deep greys as they are; the crate has turned those where white is zero.
        (ColorType::Gray(16), DecodingResult::U16(data)) => {
            Pixels::Gray16(data.into_iter().map(|v| if white_is_zero { 65535 - v } else { v }).collect())
        }
        (ColorType::Gray(16), DecodingResult::I16(data)) => Pixels::Int(data.into_iter().map(i32::from).collect()),
        (ColorType::Gray(32), DecodingResult::U32(data)) => Pixels::Int(data.into_iter().map(|v| v as i32).collect()),
        (ColorType::Gray(32), DecodingResult::I32(data)) => Pixels::Int(data),
        (ColorType::Gray(32), DecodingResult::F32(data)) => {
            Pixels::Float(data.into_iter().map(|v| if white_is_zero { 1.0 - v } else { v }).collect())
        }
        (ColorType::Gray(64), DecodingResult::F64(data)) => Pixels::Float(data.into_iter().map(|v| v as f32).collect()),
        (color, data) => {
            let data = eight_bits(data).ok_or_else(|| bad(format!("TIFF colours {color:?} are not supported")))?;
            colours(color, data, size, &extra)?
        }
    };
    let expected = size.0 as usize * size.1 as usize;
    if pixels.len() != expected {
        return Err(bad("the TIFF file holds fewer pixels than it says"));
    }
    Ok(Frame::whole(pixels, size))
}

/// Eight-bit samples of several channels, with extra channels dropped.
fn colours(color: ColorType, data: Vec<u8>, size: (u32, u32), extra: &[u16]) -> Result<Pixels> {
    let samples = data.len() / (size.0 as usize * size.1 as usize);
    let first = |wanted: usize| -> Vec<u8> {
        if samples == wanted {
            data.clone()
        } else {
            data.chunks_exact(samples).flat_map(|p| &p[..wanted]).copied().collect()
        }
    };
    // ExtraSamples: 0 means nothing in particular, 1 that colours are already multiplied with alpha.
    let (is_alpha, is_premultiplied) = (extra.first() != Some(&0), extra.first() == Some(&1));
    let straight = |mut data: Vec<u8>| {
        if is_premultiplied {
            unpremultiply::<4>(&mut data);
        }
        data
    };
    match color {
        ColorType::RGB(_) if samples >= 3 => Ok(Pixels::Rgb(first(3))),
        ColorType::RGBA(_) if samples >= 4 && is_alpha => Ok(Pixels::Rgba(straight(first(4)))),
        ColorType::RGBA(_) if samples >= 4 => Ok(Pixels::Rgb(first(3))),
        ColorType::CMYK(_) | ColorType::CMYKA(_) if samples >= 4 => Ok(Pixels::Cmyk(first(4))),
        ColorType::GrayA(_) | ColorType::Multiband { num_samples: 2, .. } if samples == 2 && is_alpha => {
            Ok(Pixels::GrayAlpha(data))
        }
        ColorType::Multiband { num_samples: 2, .. } if samples == 2 => Ok(Pixels::Gray(first(1))),
        // The crate leaves uncompressed YCbCr as it is and has JPEG strips decoded to it.
        ColorType::YCbCr(_) if samples == 3 => {
            Ok(Pixels::Rgb(data.as_chunks::<3>().0.iter().flat_map(ycc_to_rgb).collect()))
        }
        other => Err(bad(format!("TIFF colours {other:?} are not supported"))),
    }
}

/// JPEG's colours, with libjpeg's 16-bit fixed-point coefficients.
fn ycc_to_rgb(&[y, cb, cr]: &[u8; 3]) -> [u8; 3] {
    let [y, cb, cr] = [i32::from(y), i32::from(cb) - 128, i32::from(cr) - 128];
    let half = 1 << 15;
    let red = y + ((91_881 * cr + half) >> 16);
    let green = y + ((-22_554 * cb - 46_802 * cr + half) >> 16);
    let blue = y + ((116_130 * cb + half) >> 16);
    [red, green, blue].map(|v| v.clamp(0, 255) as u8)
}

/// Sixteen bits are cut to their high byte, as Pillow does with colours.
fn eight_bits(data: DecodingResult) -> Option<Vec<u8>> {
    match data {
        DecodingResult::U8(data) => Some(data),
        DecodingResult::U16(data) => Some(data.into_iter().map(|v| (v >> 8) as u8).collect()),
        _ => None,
    }
}

/// The crate refuses palettes, and decodes the same file if it is called grey: the indices are what is wanted.
fn without_palette(bytes: &[u8]) -> (Cow<'_, [u8]>, bool) {
    let entry = Ifd::first(bytes).and_then(|ifd| ifd.find(PHOTOMETRIC)).filter(|entry| entry.inline_uint() == PALETTE);
    let Some(entry) = entry else { return (Cow::Borrowed(bytes), false) };
    let mut patched = bytes.to_vec();
    patched[entry.offset + 8..entry.offset + 12].copy_from_slice(&entry.encode_uint(BLACK_IS_ZERO));
    (Cow::Owned(patched), true)
}

/// All reds, then all greens, then all blues, of sixteen bits each.
fn read_palette(decoder: &mut Decoder<Cursor<&[u8]>>) -> Result<Palette> {
    let map = decoder.get_tag_u16_vec(Tag::from_u16_exhaustive(COLOR_MAP)).map_err(damaged(Format::Tiff))?;
    let third = map.len() / 3;
    Ok(palette_of((0..third).map(|i| [i, third + i, 2 * third + i].map(|k| (map[k] >> 8) as u8))))
}
