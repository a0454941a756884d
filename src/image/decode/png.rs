//! PNG through `png`, with palettes, bilevel pictures and deep greys kept.

use std::io::Cursor;

use png::{BitDepth, ColorType, Decoder, Limits, Transformations};

use super::{Frame, Limit, MADE, bad, damaged, palette_of};
use crate::Result;
use crate::image::Format;
use crate::image::pixels::{Pixels, unpack_bits};

/// Memory that everything beside the pixels may take: text, profiles, a row of pixels.
const SIDE_BYTES: usize = 64 << 20;

pub(super) fn decode(bytes: &[u8], limit: Limit<'_>) -> Result<Frame> {
    let mut decoder = Decoder::new_with_limits(Cursor::new(bytes), Limits { bytes: SIDE_BYTES });
    decoder.set_ignore_text_chunk(true);
    decoder.set_ignore_iccp_chunk(true);
    decoder.set_transformations(Transformations::IDENTITY);
    let header = decoder.read_header_info().map_err(damaged(Format::Png))?;
    let size = (header.width, header.height);
    limit.check(size)?;
    limit.admit(size, header.bytes_per_pixel() + MADE);
    let mut reader = decoder.read_info().map_err(damaged(Format::Png))?;
    let (color, depth) = (reader.info().color_type, reader.info().bit_depth);
    let (palette, alphas) = (reader.info().palette.clone(), reader.info().trns.clone());
    let len = reader.output_buffer_size().ok_or_else(|| bad("more pixels than memory has addresses"))?;
    let mut data = vec![0; len];
    let frame = reader.next_frame(&mut data).map_err(damaged(Format::Png))?;
    if (frame.width, frame.height) != size {
        return Err(bad("the first frame does not fill the picture"));
    }
    let width = size.0 as usize;
    let pixels = match (color, depth) {
        (ColorType::Grayscale, BitDepth::One) => Pixels::bilevel(&data, width),
        (ColorType::Grayscale, BitDepth::Two) => Pixels::Gray(scaled(unpack_bits(&data, width, 2), 85)),
        (ColorType::Grayscale, BitDepth::Four) => Pixels::Gray(scaled(unpack_bits(&data, width, 4), 17)),
        (ColorType::Grayscale, BitDepth::Eight) => Pixels::Gray(data),
        (ColorType::Grayscale, BitDepth::Sixteen) => {
            Pixels::Gray16(data.chunks_exact(2).map(|v| u16::from_be_bytes([v[0], v[1]])).collect())
        }
        (ColorType::Indexed, depth) => {
            let colours = palette.ok_or_else(|| bad("a PNG with a palette, but without it"))?;
            let indices = match depth {
                BitDepth::Eight => data,
                depth => unpack_bits(&data, width, depth as usize),
            };
            let mut palette = palette_of(colours.as_chunks::<3>().0.iter().copied());
            palette
                .iter_mut()
                .zip(alphas.iter().flat_map(|alphas| alphas.iter()))
                .for_each(|(colour, alpha)| colour[3] = *alpha);
            Pixels::Indexed(indices, palette)
        }
        (ColorType::Rgb, BitDepth::Sixteen) => Pixels::Rgb(high_bytes(&data)),
        (ColorType::Rgb, _) => Pixels::Rgb(data),
        // Pillow has no deep grey with alpha: it is RGBA there, and resized to the same numbers.
        (ColorType::GrayscaleAlpha, BitDepth::Sixteen) => Pixels::GrayAlpha(high_bytes(&data)),
        (ColorType::GrayscaleAlpha, _) => Pixels::GrayAlpha(data),
        (ColorType::Rgba, BitDepth::Sixteen) => Pixels::Rgba(high_bytes(&data)),
        (ColorType::Rgba, _) => Pixels::Rgba(data),
    };
    Ok(Frame::whole(pixels, size))
}

fn scaled(mut data: Vec<u8>, factor: u8) -> Vec<u8> {
    data.iter_mut().for_each(|value| *value *= factor);
    data
}

fn high_bytes(data: &[u8]) -> Vec<u8> {
    data.iter().copied().step_by(2).collect()
}
