//! Towers on the CPU, close to the machine's limit: packed weights, fused epilogues, no allocation per layer.
//!
//! Everything multiplies through one register tile (`tile`) and one set of loops around it (`product`), whether numbers
//! are f32, bf16 or bytes: weights are laid out once for the tile, and bias, activation and residual are applied on the way
//! from registers to memory. A 1 × 1 convolution in channels-last layout is the same product with a pixel as a row, so the
//! built-in model's two towers share it with transformers of any size.
//!
//! Trunks of convolutions (`trunk`) work on pixels whose channels lie side by side (`pixels`), so that a 1 × 1 convolution is a
//! product as it stands, a larger one a product over gathered pixels (`conv`), and a depthwise one a kernel over vectors of
//! channels (`channelwise`).
//!
//! Invariant: this is the only part of the engine with `unsafe` arithmetic. Every function that other modules call is safe
//! and checks its lengths once per call, outside the loops.

#[cfg(target_arch = "aarch64")]
mod aarch64;
mod aligned;
mod attention;
mod blocks;
mod bytes;
mod channelwise;
mod conv;
mod dense;
mod depthwise;
mod exercise;
mod feed;
mod finish;
mod head;
mod linear;
mod mapped;
mod norm;
mod packed;
mod parts;
mod passes;
mod pixels;
#[cfg(test)]
mod plain;
mod portable;
mod product;
mod rotation;
mod rows;
mod simd;
mod source;
mod text;
mod tile;
mod trunk;
mod vision;
#[cfg(target_arch = "x86_64")]
mod x86_64;

pub(crate) use aligned::{Aligned, Plain};
pub(crate) use attention::attention;
pub(crate) use bytes::{ByteLinear, ByteRows, Out, Scale, quantise};
pub(crate) use depthwise::{ByteDepthwise, Depthwise};
pub(crate) use finish::{Activation, Epilogue};
pub(crate) use linear::Linear;
pub(crate) use mapped::MappedFile;
pub(crate) use norm::LayerNorm;
pub use packed::remove_packed;
pub(crate) use packed::{Packer, hex, resolve, supports_image, supports_text, supports_trunk};
pub use simd::Isa;
pub(crate) use text::TextTower;
pub(crate) use trunk::TrunkTower;
pub(crate) use vision::VisionTower;
