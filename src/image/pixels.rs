//! Pixels in the mode of their file, and Pillow's conversions between modes.
//!
//! Models were trained on what Pillow made of a file, and Pillow resizes palettes, alpha, ink and deep greys each in its
//! own way before it converts to RGB. So a decoded picture keeps its mode; reducing everything to RGB at the decoder would
//! be simpler, and wrong for one picture in a hundred.

use std::borrow::Cow;

use super::Orientation;

/// A table of 256 RGBA colours; those that a file does not define are black.
pub(crate) type Palette = Box<[[u8; 4]; 256]>;

/// The pixels of a picture, row by row, in stored order. Comments name Pillow's modes.
#[derive(Clone, Debug)]
pub(crate) enum Pixels {
    /// `L`.
    Gray(Vec<u8>),
    /// `LA`, straight alpha.
    GrayAlpha(Vec<u8>),
    /// `RGB`.
    Rgb(Vec<u8>),
    /// `RGBA`, straight alpha.
    Rgba(Vec<u8>),
    /// `CMYK`, 0 is no ink.
    Cmyk(Vec<u8>),
    /// `P`, and `1` with a palette of black and white.
    Indexed(Vec<u8>, Palette),
    /// `I;16`.
    Gray16(Vec<u16>),
    /// `I`.
    Int(Vec<i32>),
    /// `F`.
    Float(Vec<f32>),
}

impl Pixels {
    /// Packed bilevel rows (most significant bit first, rows padded to bytes) as `1`, with 1 bits white.
    pub(crate) fn bilevel(packed: &[u8], width: usize) -> Pixels {
        let mut palette = Box::new([[255; 4]; 256]);
        palette[0] = [0, 0, 0, 255];
        Pixels::Indexed(unpack_bits(packed, width, 1), palette)
    }

    /// Number of pixels.
    pub(crate) fn len(&self) -> usize {
        match self {
            Pixels::Gray(data) | Pixels::Indexed(data, _) => data.len(),
            Pixels::GrayAlpha(data) => data.len() / 2,
            Pixels::Rgb(data) => data.len() / 3,
            Pixels::Rgba(data) | Pixels::Cmyk(data) => data.len() / 4,
            Pixels::Gray16(data) => data.len(),
            Pixels::Int(data) => data.len(),
            Pixels::Float(data) => data.len(),
        }
    }

    /// As RGB bytes, by the rules of Pillow's `convert("RGB")`: alpha is dropped, deep greys are clipped, not scaled.
    pub(crate) fn to_rgb(&self) -> Cow<'_, [u8]> {
        let spread = |gray: u8| [gray; 3];
        Cow::Owned(match self {
            Pixels::Rgb(data) => return Cow::Borrowed(data),
            Pixels::Gray(data) => data.iter().flat_map(|v| spread(*v)).collect(),
            Pixels::GrayAlpha(data) => data.chunks_exact(2).flat_map(|p| spread(p[0])).collect(),
            Pixels::Rgba(data) => data.chunks_exact(4).flat_map(|p| [p[0], p[1], p[2]]).collect(),
            Pixels::Cmyk(data) => data.chunks_exact(4).flat_map(|p| cmyk_to_rgb([p[0], p[1], p[2], p[3]])).collect(),
            Pixels::Indexed(data, palette) => {
                let rgb = palette.map(|[r, g, b, _]| [r, g, b]);
                data.iter().flat_map(|i| rgb[usize::from(*i)]).collect()
            }
            Pixels::Gray16(data) => data.iter().flat_map(|v| spread((*v).min(255) as u8)).collect(),
            Pixels::Int(data) => data.iter().flat_map(|v| spread((*v).clamp(0, 255) as u8)).collect(),
            // `as` clips floats, rounds towards zero and takes NaN as 0: what Pillow does, where that is defined.
            Pixels::Float(data) => data.iter().flat_map(|v| spread(*v as u8)).collect(),
        })
    }

    /// As RGB bytes, with transparent pixels laid on white.
    pub(crate) fn to_rgb_on_white(&self) -> Cow<'_, [u8]> {
        Cow::Owned(match self {
            Pixels::GrayAlpha(data) => data.as_chunks().0.iter().flat_map(|[v, a]| [over_white(*v, *a); 3]).collect(),
            Pixels::Rgba(data) => data.as_chunks().0.iter().flat_map(rgba_over_white).collect(),
            Pixels::Indexed(data, palette) => {
                let rgb = palette.map(|colour| rgba_over_white(&colour));
                data.iter().flat_map(|i| rgb[usize::from(*i)]).collect()
            }
            other => return other.to_rgb(),
        })
    }

    /// Deep greys as bytes: the upper eight of sixteen bits; integers and floats, whose range nobody states, from the darkest to
    /// the lightest in the picture.
    pub(crate) fn into_bytes(self) -> Pixels {
        match self {
            Pixels::Gray16(data) => Pixels::Gray(data.into_iter().map(|v| (v >> 8) as u8).collect()),
            Pixels::Int(data) => Pixels::Gray(stretch(data.into_iter().map(|v| v as f32).collect())),
            Pixels::Float(data) => Pixels::Gray(stretch(data)),
            other => other,
        }
    }

    /// Turned physically, for the modes that the resampler does not read in place.
    pub(crate) fn oriented(self, (width, height): (usize, usize), orientation: Orientation) -> Pixels {
        if orientation == Orientation::default() {
            return self;
        }
        let size = (width, height);
        match self {
            Pixels::Gray(data) => Pixels::Gray(orient::<u8, 1>(&data, size, orientation)),
            Pixels::GrayAlpha(data) => Pixels::GrayAlpha(orient::<u8, 2>(&data, size, orientation)),
            Pixels::Rgb(data) => Pixels::Rgb(orient::<u8, 3>(&data, size, orientation)),
            Pixels::Rgba(data) => Pixels::Rgba(orient::<u8, 4>(&data, size, orientation)),
            Pixels::Cmyk(data) => Pixels::Cmyk(orient::<u8, 4>(&data, size, orientation)),
            Pixels::Indexed(data, palette) => Pixels::Indexed(orient::<u8, 1>(&data, size, orientation), palette),
            Pixels::Gray16(data) => Pixels::Gray16(orient::<u16, 1>(&data, size, orientation)),
            Pixels::Int(data) => Pixels::Int(orient::<i32, 1>(&data, size, orientation)),
            Pixels::Float(data) => Pixels::Float(orient::<f32, 1>(&data, size, orientation)),
        }
    }
}

fn orient<T: Copy, const C: usize>(data: &[T], size: (usize, usize), orientation: Orientation) -> Vec<T> {
    let (out_width, out_height) = orientation.apply_to_size(size);
    let mut out = Vec::with_capacity(data.len());
    for y in 0..out_height {
        for x in 0..out_width {
            let (sx, sy) = orientation.stored_position((x, y), size);
            out.extend_from_slice(&data[(sy * size.0 + sx) * C..][..C]);
        }
    }
    out
}

/// Bits to bytes, most significant first; every row starts at a new byte.
pub(crate) fn unpack_bits(packed: &[u8], width: usize, bits: usize) -> Vec<u8> {
    let per_byte = 8 / bits;
    let mask = (0xFF_u8) >> (8 - bits);
    let row = |row: &[u8]| -> Vec<u8> {
        (0..width).map(|x| row[x / per_byte] >> (8 - bits - (x % per_byte) * bits) & mask).collect()
    };
    packed.chunks_exact(width.div_ceil(per_byte).max(1)).flat_map(row).collect()
}

/// `a × b ÷ 255`, rounded to nearest without a division: Pillow's MULDIV255.
fn mul_div_255(a: u8, b: u8) -> u8 {
    let product = u32::from(a) * u32::from(b) + 128;
    (((product >> 8) + product) >> 8) as u8
}

/// Pillow's `alpha_composite` over opaque white: seven more bits than the bytes have, rounded to nearest.
fn over_white(value: u8, alpha: u8) -> u8 {
    let (value, alpha) = (u32::from(value), u32::from(alpha));
    let blended = (value * alpha + 255 * (255 - alpha)) * 128 + 0x4000;
    ((((blended >> 8) + blended) >> 8) >> 7) as u8
}

fn rgba_over_white(&[r, g, b, alpha]: &[u8; 4]) -> [u8; 3] {
    [r, g, b].map(|value| over_white(value, alpha))
}

fn cmyk_to_rgb([c, m, y, k]: [u8; 4]) -> [u8; 3] {
    let light = 255 - k;
    [c, m, y].map(|ink| light.saturating_sub(mul_div_255(ink, light)))
}

/// Multiplies the colours of `C - 1` channels with the alpha in the last one.
pub(crate) fn premultiply<const C: usize>(data: &mut [u8]) {
    for pixel in data.chunks_exact_mut(C) {
        let alpha = pixel[C - 1];
        pixel[..C - 1].iter_mut().for_each(|value| *value = mul_div_255(*value, alpha));
    }
}

/// Undoes [`premultiply`], as far as eight bits allow.
pub(crate) fn unpremultiply<const C: usize>(data: &mut [u8]) {
    for pixel in data.chunks_exact_mut(C) {
        let alpha = u32::from(pixel[C - 1]);
        if alpha != 0 && alpha != 255 {
            pixel[..C - 1].iter_mut().for_each(|value| *value = (255 * u32::from(*value) / alpha).min(255) as u8);
        }
    }
}

/// Scales numbers of any range to 0..255.
fn stretch(data: Vec<f32>) -> Vec<u8> {
    let finite = || data.iter().copied().filter(|v| v.is_finite());
    let (low, high) = finite().fold((f32::MAX, f32::MIN), |(low, high), v| (low.min(v), high.max(v)));
    let scale = if high > low { 255.0 / (high - low) } else { 0.0 };
    data.iter().map(|v| ((v - low) * scale) as u8).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_unpacked_row_by_row() {
        assert_eq!(unpack_bits(&[0b1010_0000, 0b0100_0000], 3, 1), [1, 0, 1, 0, 1, 0]);
        assert_eq!(unpack_bits(&[0x12, 0x30], 3, 4), [1, 2, 3]);
    }

    #[test]
    fn every_orientation_shows_the_same_picture() {
        // A 2 × 3 picture, stored as each of the eight orientations says, comes out the same.
        let upright = [1_u8, 2, 3, 4, 5, 6];
        for code in 1..=8 {
            let orientation = Orientation::from_exif(code);
            let stored_size = orientation.apply_to_size((2, 3));
            let mut stored = [0; 6];
            for y in 0..3 {
                for x in 0..2 {
                    let (sx, sy) = orientation.stored_position((x, y), stored_size);
                    stored[sy * stored_size.0 + sx] = upright[y * 2 + x];
                }
            }
            assert_eq!(orient::<u8, 1>(&stored, stored_size, orientation), upright, "orientation {code}");
        }
    }

    #[test]
    fn ink_becomes_light() {
        assert_eq!(cmyk_to_rgb([0, 0, 0, 0]), [255; 3]);
        assert_eq!(cmyk_to_rgb([255, 0, 0, 0]), [0, 255, 255]);
        assert_eq!(cmyk_to_rgb([0, 0, 0, 255]), [0; 3]);
    }
}
