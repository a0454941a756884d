//! JPEG: whole or reduced, with ink kept as ink.
//!
//! Three decoders, in this order. libjpeg-turbo in C, where it is compiled in; it must have nothing to complain of. The same in
//! Rust, equal to it bit for bit, and so to Pillow. What that refuses goes to `zune-jpeg`, which reads on behind damage, as Pillow
//! does, and whose judgement on a file is final. So the pixels of a sound file never depend on how the program was built.

#[cfg(feature = "turbojpeg")]
mod native;
mod scaled;
mod tolerant;

use super::{Frame, Limit};
use crate::Result;
use crate::image::pixels::Pixels;

/// Decodes as much of a picture as is needed: `reduction` is asked with its width and height as stored.
pub(super) fn decode(bytes: &[u8], limit: Limit<'_>, reduction: &dyn Fn((u32, u32)) -> u32) -> Result<Frame> {
    match scaled::decode(bytes, limit, reduction)? {
        Some(frame) => Ok(frame),
        None => tolerant::decode(bytes, limit),
    }
}

/// Ink in JPEG is stored inverted, whoever wrote it: Photoshop set the custom and Pillow relies on it.
fn ink(mut data: Vec<u8>) -> Pixels {
    data.iter_mut().for_each(|ink| *ink = 255 - *ink);
    Pixels::Cmyk(data)
}

/// Whether an end marker follows the first scan. Decoders fill what is missing with grey and are content.
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
