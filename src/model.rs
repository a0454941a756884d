//! Dual encoders: images and texts to vectors of one space.

mod builtin;
mod config;
pub mod cpu;
mod declared;
mod dual;
mod encoder;
#[cfg(feature = "hub")]
pub mod hub;
mod import;
mod linear;
#[cfg(feature = "hub")]
pub mod registry;
mod text;
mod tokenizer;
mod transformer;
mod vision;
mod weights;

pub use encoder::{Device, EmbeddingSpace, Embeddings, Encode, Encoder, EncoderOptions, PixelBatch, Precision};
