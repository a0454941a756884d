//! Resize, crop and pad, exactly as the model was trained (equal to Pillow).

use super::Photo;
use crate::Result;

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
}

/// What a model expects of its pictures.
#[derive(Clone, Debug, PartialEq)]
pub struct Preprocess {
    /// Height and width in pixels.
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
    /// Convert to RGB before resizing (Hugging Face processors) instead of after it (open_clip, OpenAI).
    pub rgb_first: bool,
}

impl Preprocess {
    /// The picture as `height × width × 3` RGB bytes, row by row. Normalisation is the encoder's.
    pub fn apply(&self, _photo: &Photo) -> Result<Vec<u8>> {
        todo!()
    }
}
