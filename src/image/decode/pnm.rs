//! Netpbm pictures: PBM, PGM and PPM, plain or binary, and grey PFM.
//!
//! Read here and not by a crate, because every value of `maxval` is scaled and rounded in Pillow's own way. (PAM, which
//! Pillow does not read, is left to `image`.)

use super::{Frame, Limit, MADE, bad};
use crate::Result;
use crate::image::pixels::Pixels;

pub(super) fn decode(bytes: &[u8], limit: Limit<'_>) -> Result<Frame> {
    let kind = bytes.get(1).copied().unwrap_or_default();
    let mut tokens = Tokens { bytes, at: 2 };
    let size = (tokens.number()?, tokens.number()?);
    limit.check(size)?;
    let (width, height) = (size.0 as usize, size.1 as usize);
    let channels = if matches!(kind, b'3' | b'6') { 3 } else { 1 };
    let len = width * height * channels;
    // Samples are scaled in 32 bits each.
    limit.admit(size, 4 * channels + MADE);
    let pixels = match kind {
        // In bitmaps 1 is black.
        b'1' => {
            let bits: Vec<u8> = tokens.bits().take(len).collect::<Result<_>>()?;
            complete(bits.len(), len)?;
            let rows = bits.chunks_exact(width).flat_map(|row| row.chunks(8).map(|b| pack(b) ^ 0xFF));
            Pixels::bilevel(&rows.collect::<Vec<_>>(), width)
        }
        b'4' => {
            let packed = tokens.payload(width.div_ceil(8) * height)?;
            Pixels::bilevel(&packed.iter().map(|byte| byte ^ 0xFF).collect::<Vec<_>>(), width)
        }
        b'f' => {
            let scale: f32 = tokens.text()?.parse().map_err(|_| bad("the scale of a PFM is not a number"))?;
            let value = |b: &[u8; 4]| if scale < 0.0 { f32::from_le_bytes(*b) } else { f32::from_be_bytes(*b) };
            let rows = tokens.payload(len * 4)?.chunks_exact(width * 4).rev();
            Pixels::Float(rows.flat_map(|row| row.as_chunks::<4>().0).map(value).collect())
        }
        b'F' => return Err(bad("colour PFM pictures are not supported")),
        _ => {
            let maxval = tokens.number()?;
            if !(1..=65535).contains(&maxval) {
                return Err(bad(format!("a largest value of {maxval}, not of 1 to 65535")));
            }
            let samples: Vec<u32> = match (kind, maxval) {
                (b'2' | b'3', _) => {
                    // A sample takes two characters at least: a short file cannot ask for much memory.
                    complete((bytes.len() - tokens.at).div_ceil(2), len)?;
                    (0..len).map(|_| tokens.number()).collect::<Result<_>>()?
                }
                (_, ..=255) => tokens.payload(len)?.iter().map(|v| u32::from(*v)).collect(),
                _ => {
                    let pairs = tokens.payload(len * 2)?.as_chunks::<2>().0;
                    pairs.iter().map(|v| u32::from(u16::from_be_bytes(*v))).collect()
                }
            };
            let scaled = |sample: u32, out: f64| {
                ((f64::from(sample) / f64::from(maxval) * out).round_ties_even()).min(out) as i32
            };
            match channels {
                1 if maxval > 255 => Pixels::Int(samples.into_iter().map(|v| scaled(v, 65535.0)).collect()),
                1 => Pixels::Gray(samples.into_iter().map(|v| scaled(v, 255.0) as u8).collect()),
                _ => Pixels::Rgb(samples.into_iter().map(|v| scaled(v, 255.0) as u8).collect()),
            }
        }
    };
    Ok(Frame::whole(pixels, size))
}

fn complete(found: usize, wanted: usize) -> Result<()> {
    if found < wanted { Err(bad("the PNM file is truncated")) } else { Ok(()) }
}

/// Up to eight bits, the first one most significant.
fn pack(bits: &[u8]) -> u8 {
    bits.iter().enumerate().fold(0, |byte, (i, bit)| byte | bit << (7 - i))
}

/// White space separates tokens, comments run from `#` to the end of the line.
struct Tokens<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Tokens<'a> {
    fn skip_space(&mut self) {
        while let Some(byte) = self.bytes.get(self.at) {
            if *byte == b'#' {
                let rest = &self.bytes[self.at..];
                self.at += rest.iter().position(|b| matches!(b, b'\n' | b'\r')).unwrap_or(rest.len());
            } else if byte.is_ascii_whitespace() {
                self.at += 1;
            } else {
                break;
            }
        }
    }

    fn text(&mut self) -> Result<&'a str> {
        self.skip_space();
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let len = rest.iter().position(|b| b.is_ascii_whitespace() || *b == b'#').unwrap_or(rest.len());
        self.at += len;
        complete(len, 1)?;
        std::str::from_utf8(&rest[..len.min(32)]).map_err(|_| bad("the PNM header is no text"))
    }

    fn number(&mut self) -> Result<u32> {
        let text = self.text()?;
        text.parse().map_err(|_| bad(format!("{text:?} where a PNM file has a number")))
    }

    /// The digits 0 and 1, with or without space between them.
    fn bits(&mut self) -> impl Iterator<Item = Result<u8>> {
        std::iter::from_fn(|| {
            self.skip_space();
            let digit = *self.bytes.get(self.at)?;
            self.at += 1;
            Some(match digit {
                b'0' | b'1' => Ok(digit - b'0'),
                _ => Err(bad("a plain bitmap holds more than zeros and ones")),
            })
        })
    }

    /// The binary part: `len` bytes after the single white space that ends the header.
    fn payload(&self, len: usize) -> Result<&'a [u8]> {
        let rest = self.bytes.get(self.at + 1..).unwrap_or_default();
        complete(rest.len(), len)?;
        Ok(&rest[..len])
    }
}
