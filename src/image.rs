//! From the bytes of a file to the pixels that a model was trained on.

pub mod decode;
pub mod metadata;
pub mod preprocess;

pub use decode::{DecodeOptions, Format, Photo};
pub use metadata::Metadata;
pub use preprocess::{Interpolation, Preprocess, ResizeMode};
