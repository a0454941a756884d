//! Convolutions over all channels, in channels-last layout: packed products.
//!
//! A 1 × 1 convolution multiplies pixels where they lie. For a larger kernel the pixels that it covers are put side by side, a
//! block of places at a time that stays in the caches: never the whole picture, which would be nine times as large.

use candle_core::Tensor;

use super::aligned::Aligned;
use super::dense::Raw;
use super::finish::Epilogue;
use super::linear::Linear;
use super::parts::Parts;
use super::pixels::{Pixels, Size, View, stride};
use super::simd::{Isa, Kernel, Simd};
use crate::Result;
use crate::model::conv::{self, Shape};
use crate::model::linear::tensor_error;

/// Bytes of the places of a block, about.
const BLOCK_BYTES: usize = 512 << 10;

/// Packed weights.
pub(super) struct Conv {
    isa: Isa,
    shape: Shape,
    // (outputs, row, column, inputs)
    weights: Linear,
}

/// RGB bytes, and what each means in each channel.
#[derive(Clone, Copy)]
pub(super) struct Photos<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) levels: &'a [[f32; 256]; 3],
}

impl<'a> Photos<'a> {
    /// `count` photos from `first` on.
    pub(super) fn part(self, first: usize, count: usize) -> Self {
        let each = 3 * self.rows * self.columns;
        Self { bytes: &self.bytes[first * each..][..count * each], ..self }
    }

    /// How many, and how large.
    pub(super) fn size(&self) -> Size {
        let pictures = self.bytes.len() / (3 * self.rows * self.columns);
        Size { pictures, rows: self.rows, columns: self.columns, channels: 3 }
    }
}

impl Conv {
    /// The layer from the next parts of a store; `read` is asked for weights `(outputs, inputs, kernel, kernel)`.
    pub(super) fn take(parts: &mut Parts, isa: Isa, shape: Shape, read: impl FnOnce() -> Result<Raw>) -> Result<Self> {
        let Shape { inputs, outputs, kernel, .. } = shape;
        assert_eq!(shape.groups, 1, "all channels");
        let area = kernel * kernel;
        let weights = Linear::take(parts, isa, (area * inputs, outputs), || {
            let raw = read()?;
            let mut weights = vec![0.0; raw.weights.len()];
            for (to, from) in weights.chunks_exact_mut(area * inputs).zip(raw.weights.chunks_exact(area * inputs)) {
                for (i, plane) in from.chunks_exact(area).enumerate() {
                    to[i..].iter_mut().step_by(inputs).zip(plane).for_each(|(to, w)| *to = *w);
                }
            }
            Ok(Raw { weights, bias: raw.bias })
        })?;
        Ok(Self { isa, shape, weights })
    }

    /// What comes of pictures of this size.
    pub(super) fn size(&self, from: Size) -> Size {
        let Shape { outputs, kernel, stride, padding, .. } = self.shape;
        let edge = |edge: usize| (edge + 2 * padding - kernel) / stride + 1;
        Size { rows: edge(from.rows), columns: edge(from.columns), channels: outputs, ..from }
    }

    /// Convolves; if the epilogue adds, to what `out` holds.
    ///
    /// # Panics
    /// If the pictures have other channels or are smaller than the kernel, or what is added to has another size.
    pub(super) fn apply(&self, x: View<'_>, out: &mut Pixels, gathered: &mut Aligned<f32>, epilogue: Epilogue) {
        let (from, to) = (x.size(), self.size(x.size()));
        assert_eq!(from.channels, self.shape.inputs, "channels");
        assert!(!epilogue.add || out.size() == to, "what is added to");
        if self.shape.kernel == 1 && self.shape.stride == 1 {
            let rows = (x.numbers(), from.stride());
            self.weights.apply(to.pixels(), rows, (out.shape(to), to.stride()), epilogue);
            return;
        }
        let each = from.rows * from.columns * from.stride();
        assert_eq!(x.numbers().len(), from.pictures * each, "whole pictures");
        self.blocks(to, out, gathered, epilogue, |first, rows, stride| {
            let gather = Gather { shape: &self.shape, x: x.numbers().as_ptr(), from, to, first, rows, stride };
            // SAFETY: the pictures have the size that the kernel is told, and the rows that of the kernel's places.
            unsafe { self.isa.run(gather) };
        });
    }

    /// The same from photos; outside of them is what the preprocessing makes zero.
    pub(super) fn apply_bytes(&self, x: Photos<'_>, out: &mut Pixels, gathered: &mut Aligned<f32>, epilogue: Epilogue) {
        let Shape { kernel, stride: step, padding, .. } = self.shape;
        let (from, to) = (x.size(), self.size(x.size()));
        self.blocks(to, out, gathered, epilogue, |first, rows, stride| {
            for (i, place) in rows.chunks_exact_mut(stride).enumerate() {
                let at = first + i;
                let (picture, row, column) = (at / to.columns / to.rows, at / to.columns % to.rows, at % to.columns);
                for (y, place) in place.chunks_exact_mut(3 * kernel).take(kernel).enumerate() {
                    let line = (row * step + y).wrapping_sub(padding);
                    let start = (picture * from.rows + line.min(from.rows)) * from.columns;
                    for (x_, pixel) in place.as_chunks_mut::<3>().0.iter_mut().enumerate() {
                        let column = (column * step + x_).wrapping_sub(padding);
                        *pixel = if line < from.rows && column < from.columns {
                            let bytes = &x.bytes[3 * (start + column)..][..3];
                            std::array::from_fn(|c| x.levels[c][usize::from(bytes[c])])
                        } else {
                            [0.0; 3]
                        };
                    }
                }
            }
        });
    }

    /// Block by block: `gather` fills rows for the places from the first on, so many numbers apart.
    fn blocks(
        &self,
        to: Size,
        out: &mut Pixels,
        gathered: &mut Aligned<f32>,
        epilogue: Epilogue,
        gather: impl Fn(usize, &mut [f32], usize),
    ) {
        let (width, pixels) = (self.weights.inputs(), to.pixels());
        let stride = stride(width);
        let tile = self.isa.rows();
        // At least four tiles for each time that the weights pass.
        let most = (BLOCK_BYTES / (4 * stride)).max(4 * tile);
        let blocks = pixels.div_ceil(most);
        let block = pixels.div_ceil(blocks).next_multiple_of(tile);
        let out = out.shape(to);
        for first in (0..pixels).step_by(block) {
            let count = block.min(pixels - first);
            let rows = gathered.at_least(count * stride);
            gather(first, rows, stride);
            self.weights.apply(count, (rows, stride), (&mut out[first * to.stride()..], to.stride()), epilogue);
        }
    }
}

/// Weights and bias of a convolution on tensors.
pub(super) fn raw(conv: &conv::Conv) -> Result<Raw> {
    let bias = conv.bias.as_ref().map_or(Ok(Vec::new()), numbers)?;
    Ok(Raw { weights: numbers(&conv.weight)?, bias })
}

/// All numbers of a tensor.
pub(super) fn numbers(tensor: &Tensor) -> Result<Vec<f32>> {
    tensor.flatten_all().and_then(|t| t.to_vec1()).map_err(tensor_error)
}

/// The pixels that a kernel covers, side by side, for one place after the other.
struct Gather<'a> {
    shape: &'a Shape,
    x: *const f32,
    from: Size,
    to: Size,
    first: usize,
    rows: &'a mut [f32],
    stride: usize,
}

impl Kernel for Gather<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Shape { inputs, kernel, stride: step, padding, .. } = *self.shape;
        let (from, to) = (self.from, self.to);
        let whole = inputs.is_multiple_of(S::LANES);
        for (i, place) in self.rows.chunks_exact_mut(self.stride).enumerate() {
            let at = self.first + i;
            let (picture, row, column) = (at / to.columns / to.rows, at / to.columns % to.rows, at % to.columns);
            let mut out = place.as_mut_ptr();
            for y in 0..kernel {
                let line = (row * step + y).wrapping_sub(padding);
                for x in 0..kernel {
                    let column = (column * step + x).wrapping_sub(padding);
                    let inside = line < from.rows && column < from.columns;
                    let pixel = if inside { (picture * from.rows + line) * from.columns + column } else { 0 };
                    // SAFETY: pixels inside are read, `inputs` numbers of each; a place has room for all of the kernel.
                    unsafe {
                        let pixel = self.x.add(pixel * from.stride());
                        for c in (0..inputs).step_by(S::LANES) {
                            let lanes = S::LANES.min(inputs - c);
                            let v = match (inside, whole) {
                                (false, _) => S::splat(0.0),
                                (true, true) => S::load(pixel.add(c)),
                                (true, false) => S::load_first(pixel.add(c), lanes),
                            };
                            if whole { S::store(out.add(c), v) } else { S::store_first(out.add(c), v, lanes) }
                        }
                        out = out.add(inputs);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::finish::Activation;
    use super::super::plain::{activated, numbers};
    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn equals_the_definition(
            pictures in 1usize..3, rows in 1usize..10, columns in 1usize..18, inputs in 1usize..40, outputs in 1usize..40,
            (kernel, padding) in prop_oneof![Just((1, 0)), Just((3, 1)), Just((2, 0)), Just((4, 0))], step in 1usize..5,
            add: bool, seed: u32, photos: bool,
        ) {
            prop_assume!(rows + 2 * padding >= kernel && columns + 2 * padding >= kernel);
            let inputs = if photos { 3 } else { inputs };
            let size = Size { pictures, rows, columns, channels: inputs };
            let shape = Shape { inputs, outputs, kernel, stride: step, padding, groups: 1 };
            let raw = || Raw { weights: numbers(outputs * inputs * kernel * kernel, seed), bias: numbers(outputs, seed ^ 3) };
            let Raw { weights, bias } = raw();
            let levels: [[f32; 256]; 3] = std::array::from_fn(|c| std::array::from_fn(|b| (b as f32 - 100.0) / (80.0 + c as f32)));
            let bytes: Vec<u8> = numbers(size.pixels() * 3, seed ^ 9).iter().map(|x| (127.0 * (x + 1.0)) as u8).collect();
            let values = numbers(size.pixels() * size.stride(), seed ^ 5);
            let value = |pixel: usize, c: usize| match photos {
                true => levels[c][usize::from(bytes[3 * pixel + c])],
                false => values[pixel * size.stride() + c],
            };
            for isa in Isa::available() {
                let layer = Conv::take(&mut Parts::making(), isa, shape, || Ok(raw())).unwrap();
                let (mut x, mut out, mut room) = (Pixels::default(), Pixels::default(), Aligned::default());
                x.shape(size).copy_from_slice(&values);
                let to = layer.size(size);
                out.shape(to).fill(0.25);
                let epilogue = if add { Epilogue::add_activate(Activation::Relu) } else { Epilogue::activate(Activation::Relu) };
                match photos {
                    true => layer.apply_bytes(Photos { bytes: &bytes, rows, columns, levels: &levels }, &mut out, &mut room, epilogue),
                    false => layer.apply(x.view(), &mut out, &mut room, epilogue),
                }
                prop_assert_eq!(out.size(), to);
                let found = out.numbers();
                for i in 0..to.pixels() {
                    let (picture, row, column) = (i / to.columns / to.rows, i / to.columns % to.rows, i % to.columns);
                    for o in 0..outputs {
                        let mut sum = f64::from(bias[o]) + if add { 0.25 } else { 0.0 };
                        for (ky, kx) in (0..kernel).flat_map(|ky| (0..kernel).map(move |kx| (ky, kx))) {
                            let (y, x) = ((row * step + ky).wrapping_sub(padding), (column * step + kx).wrapping_sub(padding));
                            if y < rows && x < columns {
                                for c in 0..inputs {
                                    let w = weights[((o * inputs + c) * kernel + ky) * kernel + kx];
                                    sum += f64::from(w) * f64::from(value((picture * rows + y) * columns + x, c));
                                }
                            }
                        }
                        let (want, got) = (activated(sum, Activation::Relu), f64::from(found[i * to.stride() + o]));
                        prop_assert!((got - want).abs() < 1e-4, "{} {i} {o}: {got} is not {want}", isa.name());
                    }
                }
            }
        }
    }
}
