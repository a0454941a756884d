//! Convolution of each channel by itself, in channels-last layout: any kernel, stride and padding.
//!
//! A vector holds neighbouring channels of one pixel, and up to eight neighbouring results are added up in registers while the
//! kernel passes over them: a weight is read once for all of them, and each number of the picture comes from the first cache as
//! often as there are columns in the kernel. Weights lie in the order in which they are read.
//!
//! Where a layer makes several channels of each one, results are all of the first kind, then all of the second; the layers
//! after it are packed for that order ([`Channelwise::order`]).

use super::finish::Activation;
use super::parts::{Part, Parts};
use super::pixels::{Pixels, Size, View};
use super::simd::{Isa, Kernel, Simd};
use crate::Result;
use crate::model::conv::Shape;

/// Results that are added up at once: as many as an addition and a multiplication take to finish, twice.
const WIDEST: usize = 8;

/// Packed weights.
pub(super) struct Channelwise {
    isa: Isa,
    shape: Shape,
    // (kind, vector of channels, row, column, lanes)
    weights: Part<f32>,
    // (kind, vector of channels, lanes)
    bias: Part<f32>,
    zeros: [f32; 16],
}

impl Channelwise {
    /// The layer from the next parts of a store; `read` is asked for weights `(outputs, kernel, kernel)` and biases.
    pub(super) fn take(
        parts: &mut Parts,
        isa: Isa,
        shape: Shape,
        read: impl FnOnce() -> Result<(Vec<f32>, Vec<f32>)>,
    ) -> Result<Self> {
        let Shape { inputs, outputs, kernel, .. } = shape;
        assert!(shape.groups == inputs && outputs.is_multiple_of(inputs), "each channel by itself");
        let (lanes, taps, kinds) = (isa.lanes(), kernel * kernel, outputs / inputs);
        let vectors = inputs.div_ceil(lanes);
        let mut biases = Vec::new();
        let weights = parts.take(kinds * vectors * taps * lanes, |to: &mut [f32]| {
            let (weights, bias) = read()?;
            assert!(weights.len() == outputs * taps && bias.len() == outputs, "weights of {shape:?}");
            for (output, from) in weights.chunks_exact(taps).enumerate() {
                let (channel, kind) = (output / kinds, output % kinds);
                let start = (kind * vectors + channel / lanes) * taps * lanes + channel % lanes;
                to[start..].iter_mut().step_by(lanes).zip(from).for_each(|(to, w)| *to = *w);
            }
            biases = bias;
            Ok(())
        })?;
        let bias = parts.take(kinds * vectors * lanes, |to: &mut [f32]| {
            for (output, bias) in biases.iter().enumerate() {
                to[output % kinds * vectors * lanes + output / kinds] = *bias;
            }
            Ok(())
        })?;
        Ok(Self { isa, shape, weights, bias, zeros: [0.0; 16] })
    }

    /// Which of a checkpoint's outputs stands where: the first kind of every channel first.
    pub(super) fn order(shape: &Shape) -> Vec<usize> {
        let kinds = shape.outputs / shape.inputs;
        (0..kinds).flat_map(|kind| (0..shape.inputs).map(move |channel| channel * kinds + kind)).collect()
    }

    /// Convolves, adds the bias and activates.
    ///
    /// # Panics
    /// If the pictures have other channels or are smaller than the kernel.
    pub(super) fn apply(&self, x: View<'_>, out: &mut Pixels, activation: Activation) {
        let from = x.size();
        assert_eq!(from.channels, self.shape.inputs, "channels");
        let Shape { outputs, kernel, stride, padding, .. } = self.shape;
        let edge = |edge: usize| (edge + 2 * padding - kernel) / stride + 1;
        let to = Size { rows: edge(from.rows), columns: edge(from.columns), channels: outputs, ..from };
        let (each, out_each) = (from.rows * from.columns * from.stride(), to.rows * to.columns * to.stride());
        assert_eq!(x.numbers().len(), from.pictures * each, "whole pictures");
        let numbers = out.shape(to);
        for (x, out) in x.numbers().chunks_exact(each).zip(numbers.chunks_exact_mut(out_each)) {
            let picture = Picture { layer: self, x: x.as_ptr(), from, to, out: out.as_mut_ptr(), activation };
            // SAFETY: the picture and the result have the sizes that the kernel is told, weights and biases those of the layer.
            unsafe { self.isa.run(picture) };
        }
    }
}

/// One picture. A vector of channels passes over all of it before the next: the rows that a kernel covers are small enough for
/// the first cache then, and each number comes from farther away once.
struct Picture<'a> {
    layer: &'a Channelwise,
    x: *const f32,
    from: Size,
    to: Size,
    out: *mut f32,
    activation: Activation,
}

impl Kernel for Picture<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Shape { inputs, outputs, kernel, .. } = self.layer.shape;
        let vectors = inputs.div_ceil(S::LANES);
        let tiles = self.to.columns.div_ceil(WIDEST);
        for at in 0..outputs / inputs * vectors {
            let (kind, channel) = (at / vectors, at % vectors * S::LANES);
            for row in 0..self.to.rows {
                let mut column = 0;
                for t in 0..tiles {
                    // Tiles of almost equal width: one of a single column would wait for each sum.
                    let wide = self.to.columns / tiles + usize::from(t < self.to.columns % tiles);
                    // SAFETY: the weights and biases of this vector; the columns lie within the row.
                    unsafe {
                        let weights = self.layer.weights.as_ptr().add(at * kernel * kernel * S::LANES);
                        let bias = self.layer.bias.as_ptr().add(at * S::LANES);
                        let place = Place { weights, bias, row, column, kind, channel };
                        match wide {
                            1 => self.tile::<S, 1>(place),
                            2 => self.tile::<S, 2>(place),
                            3 => self.tile::<S, 3>(place),
                            4 => self.tile::<S, 4>(place),
                            5 => self.tile::<S, 5>(place),
                            6 => self.tile::<S, 6>(place),
                            7 => self.tile::<S, 7>(place),
                            _ => self.tile::<S, 8>(place),
                        }
                    }
                    column += wide;
                }
            }
        }
    }
}

/// Neighbouring results of one vector of channels.
struct Place {
    weights: *const f32,
    bias: *const f32,
    row: usize,
    column: usize,
    kind: usize,
    channel: usize,
}

impl Picture<'_> {
    #[inline(always)]
    unsafe fn tile<S: Simd, const WIDE: usize>(&self, place: Place) {
        let Shape { inputs, kernel, stride: step, padding, .. } = self.layer.shape;
        let (height, width, stride) = (self.from.rows, self.from.columns, self.from.stride());
        // Rows of the kernel that lie in the picture.
        let top = place.row * step;
        let (from, to) = (padding.saturating_sub(top), (height + padding - top).min(kernel));
        // Columns count from the left border of the padding.
        let left = place.column * step;
        let inside = left >= padding && left + (WIDE - 1) * step + kernel <= width + padding;
        let zeros = self.layer.zeros.as_ptr();
        // SAFETY: rows and columns that are read lie in the picture, channels in a pixel's lines; weights, bias and results
        // are those of the place by the caller's promise.
        unsafe {
            let mut sums = [S::load(place.bias); WIDE];
            for y in from..to {
                let row = self.x.add((top + y - padding) * width * stride + place.channel);
                let weights = place.weights.add(y * kernel * S::LANES);
                if inside {
                    let mut pixel = row.add((left - padding) * stride);
                    for x in 0..kernel {
                        let w = S::load(weights.add(x * S::LANES));
                        for (j, sum) in sums.iter_mut().enumerate() {
                            *sum = S::fma(S::load(pixel.add(j * step * stride)), w, *sum);
                        }
                        pixel = pixel.add(stride);
                    }
                } else {
                    for x in 0..kernel {
                        let w = S::load(weights.add(x * S::LANES));
                        for (j, sum) in sums.iter_mut().enumerate() {
                            let column = (left + x + j * step).wrapping_sub(padding);
                            let pixel = if column < width { row.add(column * stride) } else { zeros };
                            *sum = S::fma(S::load(pixel), w, *sum);
                        }
                    }
                }
            }
            let lanes = S::LANES.min(inputs - place.channel);
            let out = self.out.add(
                (place.row * self.to.columns + place.column) * self.to.stride() + place.kind * inputs + place.channel,
            );
            for (j, &sum) in sums.iter().enumerate() {
                let (out, sum) = (out.add(j * self.to.stride()), self.activation.apply::<S>(sum));
                if lanes == S::LANES { S::store(out, sum) } else { S::store_first(out, sum, lanes) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::plain::{activated, numbers};
    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn equals_the_definition(
            pictures in 1usize..3, rows in 1usize..11, columns in 1usize..21, channels in 1usize..40, kinds in 1usize..3,
            (kernel, padding) in prop_oneof![Just((3, 1)), Just((7, 3)), Just((2, 0)), Just((5, 1))], stride in 1usize..3,
            activation in prop_oneof![Just(Activation::None), Just(Activation::Gelu)], seed: u32,
        ) {
            prop_assume!(rows + 2 * padding >= kernel && columns + 2 * padding >= kernel);
            let size = Size { pictures, rows, columns, channels };
            let shape = Shape { inputs: channels, outputs: kinds * channels, kernel, stride, padding, groups: channels };
            let (weights, bias) = (numbers(shape.outputs * kernel * kernel, seed), numbers(shape.outputs, seed ^ 3));
            let values = numbers(size.pixels() * size.stride(), seed ^ 5);
            let order = Channelwise::order(&shape);
            for isa in Isa::available() {
                let mut x = Pixels::default();
                x.shape(size).copy_from_slice(&values);
                let read = || Ok((weights.clone(), bias.clone()));
                let layer = Channelwise::take(&mut Parts::making(), isa, shape, read).unwrap();
                let mut out = Pixels::default();
                layer.apply(x.view(), &mut out, activation);
                let to = out.size();
                let found = out.numbers();
                for i in 0..to.pixels() {
                    let (picture, row, column) = (i / to.columns / to.rows, i / to.columns % to.rows, i % to.columns);
                    for (at, &output) in order.iter().enumerate() {
                        let mut sum = f64::from(bias[output]);
                        for (ky, kx) in (0..kernel).flat_map(|ky| (0..kernel).map(move |kx| (ky, kx))) {
                            let (y, x) = ((row * stride + ky).wrapping_sub(padding), (column * stride + kx).wrapping_sub(padding));
                            if y < rows && x < columns {
                                let pixel = ((picture * rows + y) * columns + x) * size.stride();
                                let w = weights[(output * kernel + ky) * kernel + kx];
                                sum += f64::from(w) * f64::from(values[pixel + output / kinds]);
                            }
                        }
                        let (want, got) = (activated(sum, activation), f64::from(found[i * to.stride() + at]));
                        prop_assert!((got - want).abs() < 2e-5, "{} {i} {at}: {got} is not {want}", isa.name());
                    }
                }
            }
        }
    }
}
