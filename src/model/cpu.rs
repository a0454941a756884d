//! Towers on the CPU, close to the machine's limit: packed weights, fused epilogues, no allocation per layer.
//!
//! Everything multiplies through one packed layer, `Linear` in f32 or `ByteLinear` in int8: weights are laid out once for the
//! register tile, and bias, activation and residual are applied while a tile is still in registers. A 1 × 1 convolution in
//! channels-last layout is the same product with a pixel as a row, so the built-in model's two towers share it, and a
//! transformer of any size can.
//!
//! Invariant: this is the only part of the engine with `unsafe` arithmetic. Every function that other modules call is safe
//! and checks its lengths once per call, outside the loops.

mod aligned;
mod attention;
mod bytes;
mod depthwise;
mod linear;
mod mapped;
mod norm;
mod simd;
#[cfg(target_arch = "x86_64")]
mod x86_64;

pub(crate) use aligned::{Aligned, Plain};
pub(crate) use attention::attention;
pub(crate) use bytes::{ByteLinear, ByteRows, Out, Scale, quantise};
pub(crate) use depthwise::{ByteDepthwise, Depthwise};
pub(crate) use linear::{Activation, Epilogue, Linear};
pub(crate) use mapped::MappedFile;
pub(crate) use norm::LayerNorm;
pub use simd::Isa;
