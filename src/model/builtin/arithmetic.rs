//! The two arithmetics of the image tower: f32, the reference, and bytes with int8 weights, several times as fast.
//!
//! Bytes suit this network. Everything behind a ReLU6 lies in 0..=6 and is stored in steps of 6 / 255; the narrow maps between
//! blocks stay f32 and are quantised pixel by pixel where a block reads them. The int8 weights of the file are used as they
//! are, so the sums are exact and only the activations are rounded.

use super::Weights;
use crate::Result;
use crate::model::cpu::{
    Activation, Aligned, ByteDepthwise, ByteLinear, ByteRows, Depthwise, Epilogue, Isa, Linear, Out, Plain, Scale,
    quantise,
};

/// Step of the bytes behind a ReLU6.
const STEP: f32 = 6.0 / 255.0;

const RELU6: Epilogue = Epilogue::activate(Activation::Relu6);

/// How expanded pixels are stored and multiplied.
pub(super) trait Arithmetic: 'static {
    /// A number of an expanded pixel.
    type Number: Plain + Send;
    /// A linear layer or 1 × 1 convolution.
    type Dense: Send + Sync;
    /// A depthwise 3 × 3 convolution.
    type Depthwise: Send + Sync;

    /// The first convolution, 3 × 3 with stride 2.
    fn stem(isa: Isa, weights: &Weights<'_>) -> Result<Self::Dense>;
    /// The layer `image.NAME`, with `image.NAME.bias` if there is one.
    fn dense(isa: Isa, weights: &Weights<'_>, name: &str) -> Result<Self::Dense>;
    fn depthwise(isa: Isa, weights: &Weights<'_>, name: &str, stride: usize) -> Result<Self::Depthwise>;
    /// Numbers from one expanded pixel to the next.
    fn pixel(layer: &Self::Depthwise) -> usize;

    /// Row `y` of the first convolution over `size × size` RGB bytes, ReLU6 included.
    fn stem_row(
        layer: &Self::Dense,
        image: (&[u8], usize),
        y: usize,
        out: (&mut [Self::Number], usize),
        work: &mut Work<Self::Number>,
    );
    /// Expands `count` pixels of f32, ReLU6 included.
    fn expand(
        layer: &Self::Dense,
        count: usize,
        pixels: &[f32],
        out: (&mut [Self::Number], usize),
        work: &mut Work<Self::Number>,
    );
    /// One row of the depthwise convolution, ReLU6 included.
    fn filter(layer: &Self::Depthwise, rows: [Option<&[Self::Number]>; 3], width: usize, out: &mut [Self::Number]);
    /// Back from `count` expanded pixels to f32.
    fn project(layer: &Self::Dense, count: usize, rows: (&[Self::Number], usize), out: &mut [f32], epilogue: Epilogue);
    /// `count` rows of f32 to rows of f32.
    fn apply(
        layer: &Self::Dense,
        count: usize,
        rows: &[f32],
        out: &mut [f32],
        epilogue: Epilogue,
        work: &mut Work<Self::Number>,
    );
}

/// Working memory of one thread.
pub(super) struct Work<T> {
    patches: Aligned<T>,
    lines: Aligned<T>,
    bytes: Aligned<u8>,
    scales: Aligned<f32>,
}

impl<T> Default for Work<T> {
    fn default() -> Self {
        Self {
            patches: Aligned::default(),
            lines: Aligned::default(),
            bytes: Aligned::default(),
            scales: Aligned::default(),
        }
    }
}

/// Single precision.
pub(super) struct F32;

impl Arithmetic for F32 {
    type Number = f32;
    type Dense = Linear;
    type Depthwise = Depthwise;

    fn stem(isa: Isa, weights: &Weights<'_>) -> Result<Linear> {
        let (weight, bias) = (weights.floats("image.stem.weight")?, weights.floats("image.stem.bias")?);
        // From (output, colour, tap) to (output, tap, colour).
        let taps_first: Vec<f32> =
            weight.chunks_exact(27).flat_map(|filter| (0..27).map(|i| filter[i % 3 * 9 + i / 3])).collect();
        Ok(Linear::new(isa, 27, bias.len(), &taps_first, &bias))
    }

    fn dense(isa: Isa, weights: &Weights<'_>, name: &str) -> Result<Linear> {
        let (weight, outputs) = (weights.floats(&format!("image.{name}.weight"))?, weights.outputs(name)?);
        Ok(Linear::new(isa, weight.len() / outputs, outputs, &weight, &weights.bias(name)?))
    }

    fn depthwise(isa: Isa, weights: &Weights<'_>, name: &str, stride: usize) -> Result<Depthwise> {
        Ok(Depthwise::new(isa, stride, &weights.floats(&format!("image.{name}.weight"))?, &weights.bias(name)?))
    }

    fn pixel(layer: &Depthwise) -> usize {
        layer.channels()
    }

    fn stem_row(
        layer: &Linear,
        (image, size): (&[u8], usize),
        y: usize,
        (out, pixel): (&mut [f32], usize),
        work: &mut Work<f32>,
    ) {
        let line = (size + 1) * 3;
        // (3, size + 1, 3); the last pixel, and a line below the picture, are zero
        let lines = work.lines.at_least(3 * line);
        lines.fill(0.0);
        for (to, from) in lines.chunks_exact_mut(line).zip(image.chunks_exact(size * 3).skip(2 * y)) {
            to.iter_mut().zip(from).for_each(|(to, &byte)| *to = f32::from(byte) / 127.5 - 1.0);
        }
        // (size / 2, 3 × 3 taps × 3 colours)
        let patches = work.patches.at_least(size / 2 * 27);
        for (x, patch) in patches.chunks_exact_mut(27).enumerate() {
            for (to, from) in patch.chunks_exact_mut(9).zip(lines.chunks_exact(line)) {
                to.copy_from_slice(&from[6 * x..6 * x + 9]);
            }
        }
        layer.apply(size / 2, (patches, 27), (out, pixel), RELU6);
    }

    fn expand(layer: &Linear, count: usize, pixels: &[f32], out: (&mut [f32], usize), _: &mut Work<f32>) {
        layer.apply(count, (pixels, layer.inputs()), out, RELU6);
    }

    fn filter(layer: &Depthwise, rows: [Option<&[f32]>; 3], width: usize, out: &mut [f32]) {
        layer.row(rows, width, out);
    }

    fn project(layer: &Linear, count: usize, rows: (&[f32], usize), out: &mut [f32], epilogue: Epilogue) {
        layer.apply(count, rows, (out, layer.outputs()), epilogue);
    }

    fn apply(layer: &Linear, count: usize, rows: &[f32], out: &mut [f32], epilogue: Epilogue, _: &mut Work<f32>) {
        layer.apply(count, (rows, layer.inputs()), (out, layer.outputs()), epilogue);
    }
}

/// Bytes and int8 weights.
pub(super) struct Int8;

/// Bytes of a stem patch per line: three pixels, and three bytes with weight zero that make whole quads.
const PATCH: usize = 12;

impl Arithmetic for Int8 {
    type Number = u8;
    type Dense = ByteLinear;
    type Depthwise = ByteDepthwise;

    fn stem(isa: Isa, weights: &Weights<'_>) -> Result<ByteLinear> {
        let (weight, scales) = weights.rows("image.stem.weight")?;
        // From (output, colour, line, column) to (output, line, column, colour), padded.
        let mut padded = vec![0; scales.len() * 3 * PATCH];
        for (to, from) in padded.chunks_exact_mut(3 * PATCH).zip(weight.chunks_exact(27)) {
            for (i, &w) in from.iter().enumerate() {
                let (colour, line, column) = (i / 9, i / 3 % 3, i % 3);
                to[line * PATCH + column * 3 + colour] = w;
            }
        }
        Ok(ByteLinear::new(isa, 3 * PATCH, &padded, &scales, &weights.bias("stem")?))
    }

    fn dense(isa: Isa, weights: &Weights<'_>, name: &str) -> Result<ByteLinear> {
        let (weight, scales) = weights.rows(&format!("image.{name}.weight"))?;
        Ok(ByteLinear::new(isa, weight.len() / scales.len(), weight, &scales, &weights.bias(name)?))
    }

    fn depthwise(isa: Isa, weights: &Weights<'_>, name: &str, stride: usize) -> Result<ByteDepthwise> {
        let (weight, scales) = weights.rows(&format!("image.{name}.weight"))?;
        Ok(ByteDepthwise::new(isa, stride, weight, &scales, &weights.bias(name)?))
    }

    fn pixel(layer: &ByteDepthwise) -> usize {
        layer.pixel()
    }

    /// The picture's own bytes: their scale is 1 / 127.5 and their zero 127.5. Padding should be that zero; 127 and 128 in
    /// turn are as near to it as a picture's rounding is to the scene.
    fn stem_row(
        layer: &ByteLinear,
        (image, size): (&[u8], usize),
        y: usize,
        (out, pixel): (&mut [u8], usize),
        work: &mut Work<u8>,
    ) {
        let line = (size + 2) * 3;
        // (3, size + 2, 3)
        let lines = work.lines.at_least(3 * line);
        for (i, to) in lines.chunks_exact_mut(line).enumerate() {
            to.iter_mut().enumerate().for_each(|(i, to)| *to = 127 + (i % 2) as u8);
            if let Some(from) = image.chunks_exact(size * 3).nth(2 * y + i) {
                to[..size * 3].copy_from_slice(from);
            }
        }
        // (size / 2, 3 lines, PATCH)
        let patches = work.patches.at_least(size / 2 * 3 * PATCH);
        for (x, patch) in patches.chunks_exact_mut(3 * PATCH).enumerate() {
            for (to, from) in patch.chunks_exact_mut(PATCH).zip(lines.chunks_exact(line)) {
                to.copy_from_slice(&from[6 * x..6 * x + PATCH]);
            }
        }
        let rows = ByteRows { bytes: patches, stride: 3 * PATCH, scale: Scale::Same(1.0 / 127.5), zero: 127.5 };
        layer.apply(size / 2, rows, Out::Bytes(out, STEP), pixel, Epilogue::STORE);
    }

    fn expand(layer: &ByteLinear, count: usize, pixels: &[f32], (out, pixel): (&mut [u8], usize), work: &mut Work<u8>) {
        let rows = quantised(layer, count, pixels, &mut work.bytes, &mut work.scales);
        layer.apply(count, rows, Out::Bytes(out, STEP), pixel, Epilogue::STORE);
    }

    fn filter(layer: &ByteDepthwise, rows: [Option<&[u8]>; 3], width: usize, out: &mut [u8]) {
        layer.row(rows, width, out);
    }

    fn project(layer: &ByteLinear, count: usize, rows: (&[u8], usize), out: &mut [f32], epilogue: Epilogue) {
        let rows = ByteRows { bytes: rows.0, stride: rows.1, scale: Scale::Same(STEP), zero: 0.0 };
        layer.apply(count, rows, Out::Floats(out), layer.outputs(), epilogue);
    }

    fn apply(layer: &ByteLinear, count: usize, rows: &[f32], out: &mut [f32], epilogue: Epilogue, work: &mut Work<u8>) {
        let rows = quantised(layer, count, rows, &mut work.bytes, &mut work.scales);
        layer.apply(count, rows, Out::Floats(out), layer.outputs(), epilogue);
    }
}

/// `count` rows for `layer`, each in steps of its own.
fn quantised<'a>(
    layer: &ByteLinear,
    count: usize,
    rows: &[f32],
    bytes: &'a mut Aligned<u8>,
    scales: &'a mut Aligned<f32>,
) -> ByteRows<'a> {
    let width = layer.inputs();
    let (bytes, scales) = (bytes.at_least(count * width), scales.at_least(count));
    quantise(layer.isa(), &rows[..count * width], width, bytes, scales);
    ByteRows { bytes, stride: width, scale: Scale::PerRow(scales), zero: 128.0 }
}
