//! From the bytes of a file to the pixels that a model was trained on.
//!
//! [`Photo::decode`] keeps a picture in the mode of its file, [`Preprocess::apply`] resizes, crops and converts it exactly
//! as the model's training code did (bit for bit what Pillow computes), [`Metadata::read`] says what the camera wrote.

pub mod decode;
pub mod format;
mod ifd;
pub mod metadata;
pub mod orientation;
pub(crate) mod patches;
mod pixels;
pub mod preprocess;
mod reduction;
mod resample;
pub mod thumbnail;

pub use decode::{DecodeOptions, Photo};
pub use format::Format;
pub use metadata::{Exposure, Metadata};
pub use orientation::Orientation;
pub use preprocess::{Interpolation, Preprocess, ResizeMode};
pub use thumbnail::Thumbnail;
