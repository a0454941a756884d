//! Dual encoders: images and texts to vectors of one space.

mod builtin;
mod config;
mod conv;
pub mod cpu;
mod declared;
mod dual;
mod encoder;
mod head;
#[cfg(feature = "hub")]
pub mod hub;
mod import;
mod linear;
mod loader;
mod positions;
mod project;
#[cfg(feature = "hub")]
pub mod registry;
mod spread;
mod text;
mod tokenizer;
mod tower;
mod transformer;
mod trunk;
mod vision;
mod weights;

pub use encoder::{Device, EmbeddingSpace, Embeddings, Encode, Encoder, EncoderOptions, PixelBatch, Precision};
pub use head::{Adaptation, Features, Head};
