//! The first frame of a GIF through `gif`, as palette indices.

use gif::{ColorOutput, DecodeOptions, MemoryLimit};

use super::{Frame, Limit, MADE, bad, damaged, palette_of};
use crate::Result;
use crate::image::Format;
use crate::image::pixels::Pixels;

pub(super) fn decode(bytes: &[u8], limit: Limit<'_>) -> Result<Frame> {
    let mut options = DecodeOptions::new();
    options.set_color_output(ColorOutput::Indexed);
    // Frames are checked below, by pixels and before they are decoded.
    options.set_memory_limit(MemoryLimit::Unlimited);
    let mut decoder = options.read_info(bytes).map_err(damaged(Format::Gif))?;
    let screen = (u32::from(decoder.width()), u32::from(decoder.height()));
    let frame = decoder.next_frame_info().map_err(damaged(Format::Gif))?;
    let frame = frame.ok_or_else(|| bad("a GIF without a picture"))?.clone();
    let (left, top) = (usize::from(frame.left), usize::from(frame.top));
    let (width, height) = (usize::from(frame.width), usize::from(frame.height));
    // Frames may reach over the screen; the screen grows, as in Pillow.
    let size = (screen.0.max((left + width) as u32), screen.1.max((top + height) as u32));
    limit.check(size)?;
    limit.check((width as u32, height as u32))?;
    limit.admit(size, 1 + MADE);
    let palette = frame.palette.as_deref().or(decoder.global_palette());
    // A palette that maps every index to the same grey is none.
    let is_needed = |palette: &&[u8]| (0_u8..=255).zip(palette.as_chunks::<3>().0).any(|(i, colour)| *colour != [i; 3]);
    let mut palette = palette.filter(is_needed).map(|p| palette_of(p.as_chunks::<3>().0.iter().copied()));
    if let (Some(palette), Some(index)) = (&mut palette, frame.transparent) {
        palette[usize::from(index)][3] = 0;
    }
    let mut indices = vec![0; width * height];
    decoder.read_into_buffer(&mut indices).map_err(damaged(Format::Gif))?;
    let canvas = (size.0 as usize, size.1 as usize);
    if canvas != (width, height) {
        let mut screen = vec![frame.transparent.unwrap_or(0); canvas.0 * canvas.1];
        for (row, line) in indices.chunks_exact(width).zip(screen.chunks_exact_mut(canvas.0).skip(top)) {
            line[left..left + width].copy_from_slice(row);
        }
        indices = screen;
    }
    let pixels = match palette {
        Some(palette) => Pixels::Indexed(indices, palette),
        None => Pixels::Gray(indices),
    };
    Ok(Frame::whole(pixels, size))
}
