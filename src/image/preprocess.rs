//! Resize, crop and pad, exactly as the model was trained (equal to Pillow and torchvision).
//!
//! Every mode of pixels is resized as Pillow resizes it, and converted to RGB where the model's code converted it: after
//! the crop (OpenAI, open_clip) or before the resize (Hugging Face processors). The integer geometry is part of it: half
//! a pixel of shift moves embeddings more than a worse filter does.

use super::patches;
use super::pixels::{Pixels, premultiply, unpremultiply};
use super::reduction::reduction;
use super::resample::{Span, nearest, resize, resize_deep};
use super::{Orientation, Photo};
use crate::{Error, Result};

/// Resampling filter, antialiased as Pillow does it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interpolation {
    /// Triangle filter.
    Bilinear,
    /// Keys' cubic with a = -0.5.
    Bicubic,
}

/// How a picture of any shape becomes one of the model's shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResizeMode {
    /// Shortest edge to size, then the centre.
    Shortest,
    /// Longest edge to size, then padding.
    Longest,
    /// Both edges to size, whatever the shape.
    Squash,
    /// Both edges to a larger size, whatever the shape, then the centre.
    Centre {
        /// Height before the cut.
        height: usize,
        /// Width before the cut.
        width: usize,
    },
    /// As many square patches as the model takes, in a grid of the picture's own shape. The result is no picture but one row for
    /// each patch that there may be, and one more that says how many are below and beside each other.
    Patches {
        /// Height and width of a patch.
        edge: usize,
        /// Most patches.
        most: usize,
    },
}

/// What a model expects of its pictures.
#[derive(Clone, Debug, PartialEq)]
pub struct Preprocess {
    /// Height and width in pixels; with [`ResizeMode::Patches`] of what carries them, which is `(most + 1, edge · edge)`.
    pub size: (usize, usize),
    /// Subtracted from each channel scaled to 0..1.
    pub mean: [f32; 3],
    /// Divides each channel after the mean.
    pub std: [f32; 3],
    /// Resampling filter.
    pub interpolation: Interpolation,
    /// Shape rule.
    pub resize_mode: ResizeMode,
    /// Padding value of [`ResizeMode::Longest`].
    pub fill: u8,
    /// Convert to RGB before resizing (Hugging Face processors) instead of after it (open_clip, OpenAI). Those processors
    /// also lay transparent pictures on white where the others drop alpha, and round the offset of the crop down where
    /// torchvision rounds to even.
    pub rgb_first: bool,
}

/// Where the resized picture lies in the model's picture, along one axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Placement {
    span: Span,
    /// Padding before the span.
    before: usize,
    /// The model's size.
    size: usize,
}

impl Preprocess {
    /// The picture as `height × width × 3` RGB bytes, row by row. Normalisation is the encoder's.
    ///
    /// # Errors
    /// [`Error::BadImage`] if the model asks for pictures without pixels.
    pub fn apply(&self, photo: &Photo) -> Result<Vec<u8>> {
        let is_empty = matches!(self.resize_mode, ResizeMode::Patches { edge, most } if edge * most == 0);
        if self.size.0 == 0 || self.size.1 == 0 || is_empty {
            return Err(Error::BadImage { reason: "the model asks for pictures without pixels".into() });
        }
        let upright = (photo.width() as usize, photo.height() as usize);
        let placements = self.placements(upright);
        let spans = placements.map(|placement| Span { reduction: photo.reduction() as usize, ..placement.span });
        let is_resized = spans.iter().any(|span| span.from != span.to);
        let part = Part { photo, spans, is_resized, interpolation: self.effective_interpolation() };
        let pixels = photo.pixels();
        let pixels = match pixels {
            Pixels::Rgb(_) | Pixels::Gray(_) => part.resize(pixels),
            _ if self.rgb_first => Pixels::Rgb(part.bytes::<3>(&pixels.to_rgb_on_white())),
            _ => part.resize(pixels),
        };
        let padded = placements.iter().any(|placement| placement.span.len != placement.size);
        let pixels = if padded { pad(pixels, placements, self.fill) } else { pixels };
        let pixels = match pixels {
            Pixels::Rgb(data) => data,
            other => other.to_rgb().into_owned(),
        };
        let ResizeMode::Patches { edge, most } = self.resize_mode else { return Ok(pixels) };
        patches::cut(&pixels, (placements[1].size / edge, placements[0].size / edge), edge, most)
    }

    /// How far a picture of this upright size may be reduced before it is resized.
    pub(crate) fn reduction(&self, (width, height): (u32, u32)) -> u32 {
        let spans = self.placements((width as usize, height as usize)).map(|placement| placement.span);
        reduction(spans.map(|span| span.from as f64 / span.to as f64).into_iter().fold(f64::INFINITY, f64::min))
    }

    /// Target size and place along both axes (x, y) of an upright picture of `width × height`.
    fn placements(&self, (width, height): (usize, usize)) -> [Placement; 2] {
        let (target_height, target_width) = match self.resize_mode {
            ResizeMode::Patches { edge, most } => {
                let (rows, columns) = patches::grid((height, width), edge, most);
                (rows * edge, columns * edge)
            }
            _ => self.size,
        };
        let resized = match self.resize_mode {
            ResizeMode::Squash | ResizeMode::Patches { .. } => [target_width, target_height],
            ResizeMode::Centre { height, width } => [width.max(1), height.max(1)],
            ResizeMode::Shortest if target_width == target_height => {
                let (short, long) = (width.min(height), width.max(height));
                let long = (target_width as f64 * long as f64 / short as f64) as usize;
                if width <= height { [target_width, long] } else { [long, target_width] }
            }
            mode => {
                let ratios = [width as f64 / target_width as f64, height as f64 / target_height as f64];
                let ratio =
                    if mode == ResizeMode::Longest { ratios[0].max(ratios[1]) } else { ratios[0].min(ratios[1]) };
                // Python rounds halves to even. The original fails where an edge vanishes; here one pixel of it is left.
                [width, height].map(|edge| ((edge as f64 / ratio).round_ties_even() as usize).max(1))
            }
        };
        let place = |from, to: usize, size: usize| {
            if to < size {
                return Placement {
                    span: Span { from, reduction: 1, to, start: 0, len: to },
                    before: (size - to) / 2,
                    size,
                };
            }
            let half = (to - size) as f64 / 2.0;
            let start = if self.rgb_first { half.floor() } else { half.round_ties_even() } as usize;
            Placement { span: Span { from, reduction: 1, to, start, len: size }, before: 0, size }
        };
        [place(width, resized[0], target_width), place(height, resized[1], target_height)]
    }

    /// open_clip forgets the filter where targets are not square and the shortest edge leads: bicubic it is.
    fn effective_interpolation(&self) -> Interpolation {
        match self.resize_mode {
            ResizeMode::Shortest if self.size.0 != self.size.1 && !self.rgb_first => Interpolation::Bicubic,
            _ => self.interpolation,
        }
    }
}

/// The wanted part of a resized photo.
struct Part<'a> {
    photo: &'a Photo,
    /// Along x and y of the upright picture.
    spans: [Span; 2],
    is_resized: bool,
    interpolation: Interpolation,
}

impl Part<'_> {
    fn resize(&self, pixels: &Pixels) -> Pixels {
        match pixels {
            Pixels::Gray(data) => Pixels::Gray(self.bytes::<1>(data)),
            Pixels::Rgb(data) => Pixels::Rgb(self.bytes::<3>(data)),
            Pixels::Cmyk(data) => Pixels::Cmyk(self.bytes::<4>(data)),
            Pixels::GrayAlpha(data) => Pixels::GrayAlpha(self.with_alpha::<2>(data)),
            Pixels::Rgba(data) => Pixels::Rgba(self.with_alpha::<4>(data)),
            Pixels::Indexed(indices, palette) => Pixels::Indexed(self.nearest(indices), palette.clone()),
            deep => match deep.clone().oriented(self.photo.stored_size(), self.photo.orientation()) {
                Pixels::Gray16(data) => Pixels::Gray16(resize_deep(&data, self.spans, self.interpolation)),
                Pixels::Int(data) => Pixels::Int(resize_deep(&data, self.spans, self.interpolation)),
                Pixels::Float(data) => Pixels::Float(resize_deep(&data, self.spans, self.interpolation)),
                other => other,
            },
        }
    }

    fn bytes<const C: usize>(&self, data: &[u8]) -> Vec<u8> {
        resize::<C>(data, self.photo.stored_size(), self.photo.orientation(), self.spans, self.interpolation)
    }

    /// Colours are weighted with their alpha, so that invisible ones do not bleed into their neighbours.
    fn with_alpha<const C: usize>(&self, data: &[u8]) -> Vec<u8> {
        if !self.is_resized {
            return self.bytes::<C>(data);
        }
        let mut premultiplied = data.to_vec();
        premultiply::<C>(&mut premultiplied);
        let mut resized = self.bytes::<C>(&premultiplied);
        unpremultiply::<C>(&mut resized);
        resized
    }

    /// Palettes cannot be interpolated: Pillow takes the nearest pixel whatever filter was asked for.
    fn nearest(&self, indices: &[u8]) -> Vec<u8> {
        let (stored, orientation): (_, Orientation) = (self.photo.stored_size(), self.photo.orientation());
        let [columns, rows] = self.spans.map(nearest);
        let index = |x, y| {
            let (x, y) = orientation.stored_position((x, y), stored);
            indices[y * stored.0 + x]
        };
        rows.iter().flat_map(|&y| columns.iter().map(move |&x| index(x, y))).collect()
    }
}

/// Puts a picture smaller than the model's into the middle of it, in its own mode.
fn pad(pixels: Pixels, [x, y]: [Placement; 2], fill: u8) -> Pixels {
    fn embed<T: Copy, const C: usize>(data: &[T], [x, y]: [Placement; 2], fill: T) -> Vec<T> {
        let mut out = vec![fill; x.size * y.size * C];
        for (row, line) in data.chunks_exact(x.span.len * C).enumerate() {
            out[((row + y.before) * x.size + x.before) * C..][..line.len()].copy_from_slice(line);
        }
        out
    }
    let axes = [x, y];
    match pixels {
        Pixels::Gray(data) => Pixels::Gray(embed::<_, 1>(&data, axes, fill)),
        Pixels::GrayAlpha(data) => Pixels::GrayAlpha(embed::<_, 2>(&data, axes, fill)),
        Pixels::Rgb(data) => Pixels::Rgb(embed::<_, 3>(&data, axes, fill)),
        Pixels::Rgba(data) => Pixels::Rgba(embed::<_, 4>(&data, axes, fill)),
        Pixels::Cmyk(data) => Pixels::Cmyk(embed::<_, 4>(&data, axes, fill)),
        Pixels::Indexed(data, palette) => Pixels::Indexed(embed::<_, 1>(&data, axes, fill), palette),
        Pixels::Gray16(data) => Pixels::Gray16(embed::<_, 1>(&data, axes, fill.into())),
        Pixels::Int(data) => Pixels::Int(embed::<_, 1>(&data, axes, fill.into())),
        Pixels::Float(data) => Pixels::Float(embed::<_, 1>(&data, axes, fill.into())),
    }
}
