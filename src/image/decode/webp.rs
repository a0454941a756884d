//! WebP through `image-webp`; of an animation the first frame on its canvas.

use std::io::Cursor;

use image_webp::WebPDecoder;

use super::{Frame, Limit, MADE, bad, damaged};
use crate::Result;
use crate::image::Format;
use crate::image::pixels::Pixels;

pub(super) fn decode(bytes: &[u8], limit: Limit<'_>) -> Result<Frame> {
    let mut decoder = WebPDecoder::new(Cursor::new(bytes)).map_err(damaged(Format::WebP))?;
    let size = decoder.dimensions();
    limit.check(size)?;
    // Animations keep a second canvas; damaged chunks must not ask for more than that.
    limit.admit(size, MADE + if decoder.is_animated() { 8 } else { 4 });
    let len = decoder.output_buffer_size().ok_or_else(|| bad("more pixels than memory has addresses"))?;
    decoder.set_memory_limit(len.saturating_mul(4).saturating_add(64 << 20));
    let mut data = vec![0; len];
    if decoder.is_animated() {
        decoder.read_frame(&mut data).map_err(damaged(Format::WebP))?;
    } else {
        decoder.read_image(&mut data).map_err(damaged(Format::WebP))?;
    }
    let pixels = if decoder.has_alpha() { Pixels::Rgba(data) } else { Pixels::Rgb(data) };
    Ok(Frame::whole(pixels, size))
}
