//! A linear layer of a transformer in the precision that was asked for.
//!
//! bf16 weights are rounded; int8 weights have a scale per output, and a second byte behind the point that is read for
//! outliers only.

use rayon::prelude::*;

use super::finish::{Epilogue, Place, Steps};
use super::linear::pack;
use super::parts::{Part, Parts};
use super::product::{Job, Panels, packed_bytes};
use super::rows::{Number, Rows};
use super::simd::{Isa, QUAD};
use super::tile::Format;
use crate::Result;

/// Weights and bias of a layer, row by row as checkpoints store them; the bias may be empty.
pub(super) struct Raw {
    pub(super) weights: Vec<f32>,
    pub(super) bias: Vec<f32>,
}

/// Packed weights.
pub(super) struct Dense {
    isa: Isa,
    inputs: usize,
    outputs: usize,
    weights: Weights,
    // (panel, 2 × lanes)
    bias: Part<f32>,
}

enum Weights {
    // (panel, input, 2 × lanes)
    Floats(Part<f32>),
    // (panel, input / 2, 2 × lanes, 2)
    Pairs(Part<u16>),
    Bytes {
        // (panel, input / 4, 2 × lanes, 4)
        high: Part<i8>,
        /// In 256ths of `high`.
        low: Part<i8>,
        // (panel, 2 × lanes)
        scales: Part<f32>,
        /// Scale times the sum of the weights.
        sums: Part<f32>,
    },
}

/// Where results go: rows of f32, or the rows of the next product.
pub(super) enum Out<'a> {
    Floats(&'a mut [f32], usize),
    /// bf16, in whole vectors.
    Pairs(&'a mut [u16], usize),
    Rows(&'a mut Rows),
}

impl Dense {
    /// The layer from the next parts of a store; `read` is asked for the weights where they have to be packed.
    pub(super) fn take(
        parts: &mut Parts,
        isa: Isa,
        number: Number,
        (inputs, outputs): (usize, usize),
        read: impl FnOnce() -> Result<Raw>,
    ) -> Result<Self> {
        assert!(inputs.is_multiple_of(8), "{inputs} inputs");
        let padded = outputs.next_multiple_of(2 * isa.lanes());
        let mut raw = None;
        let bias = parts.take(padded, |to: &mut [f32]| {
            let read = read()?;
            assert!(read.weights.len() == inputs * outputs, "weights of {outputs} × {inputs}");
            to[..read.bias.len()].copy_from_slice(&read.bias);
            raw = Some(read);
            Ok(())
        })?;
        // Nothing was read if nothing has to be made.
        let rows = raw.map_or_else(Vec::new, |raw| raw.weights);
        let len = packed_bytes(isa, inputs * number.size() / 4, outputs) / number.size();
        let weights = match number {
            Number::F32 => Weights::Floats(parts.take(len, packed(&|to| pack(isa, inputs, &rows, to, |&x| x)))?),
            Number::Bf16 => {
                let round = |&x: &f32| half::bf16::from_f32(x).to_bits();
                Weights::Pairs(parts.take(len, packed(&|to| pack(isa, inputs, &rows, to, round)))?)
            }
            Number::Int8 => {
                let (scale, digits) = digits(isa, &rows, inputs);
                let high = parts.take(len, packed(&|to| pack(isa, inputs, &digits, to, |d| d.0)))?;
                let low = parts.take(len, packed(&|to| pack(isa, inputs, &digits, to, |d| d.1)))?;
                let scales = parts.take(padded, packed(&|to: &mut [f32]| to[..outputs].copy_from_slice(&scale)))?;
                let sums = parts.take(padded, |to: &mut [f32]| {
                    for ((to, row), scale) in to.iter_mut().zip(digits.chunks_exact(inputs)).zip(&scale) {
                        *to = scale * row.iter().map(|d| i32::from(d.0)).sum::<i32>() as f32;
                    }
                    Ok(())
                })?;
                Weights::Bytes { high, low, scales, sums }
            }
        };
        Ok(Self { isa, inputs, outputs, weights, bias })
    }

    /// The kind of rows that it multiplies.
    pub(super) fn number(&self) -> Number {
        match self.weights {
            Weights::Floats(_) => Number::F32,
            Weights::Pairs(_) => Number::Bf16,
            Weights::Bytes { .. } => Number::Int8,
        }
    }

    /// Numbers per row, zeros at the end included.
    pub(super) fn inputs(&self) -> usize {
        self.inputs
    }

    /// Numbers per result.
    pub(super) fn outputs(&self) -> usize {
        self.outputs
    }

    /// Multiplies the first `count` rows.
    ///
    /// # Panics
    /// If the rows are of another kind or width, or there is no room for the results.
    pub(super) fn apply(&self, count: usize, rows: &Rows, out: Out<'_>, epilogue: Epilogue) {
        if count == 0 {
            return;
        }
        assert!(rows.number() == self.number() && rows.width() == self.inputs, "rows of {}", self.inputs);
        assert!(count * rows.stride() <= rows.bytes().len(), "{count} rows");
        let (out, out_stride) = match out {
            Out::Floats(out, stride) => {
                assert!((count - 1) * stride + self.outputs <= out.len(), "{count} results of {}", self.outputs);
                assert!(count == 1 || stride >= self.outputs, "results may not overlap");
                (Place::Floats(out.as_mut_ptr()), stride)
            }
            Out::Pairs(out, stride) => {
                assert!((count - 1) * stride + self.outputs <= out.len(), "{count} results of {}", self.outputs);
                assert!(count == 1 || stride >= self.outputs, "results may not overlap");
                assert!(self.outputs.is_multiple_of(self.isa.lanes()) && !epilogue.add, "whole vectors of bf16");
                (Place::Pairs(out.as_mut_ptr()), stride)
            }
            Out::Rows(to) => {
                assert!(to.width() == self.outputs && !epilogue.add, "rows of {}", self.outputs);
                let (number, stride) = (to.number(), to.stride());
                let bytes = to.reserve(count).as_mut_ptr();
                match number {
                    Number::F32 => (Place::Floats(bytes.cast()), stride / 4),
                    Number::Bf16 => {
                        assert!(self.outputs.is_multiple_of(self.isa.lanes()), "bf16 results come in whole vectors");
                        (Place::Pairs(bytes.cast()), stride / 2)
                    }
                    Number::Int8 => unreachable!("the scale of a row is known when all of it is"),
                }
            }
        };
        let (format, weights, steps) = match &self.weights {
            Weights::Floats(weights) => (Format::Floats, weights.as_ptr().cast(), None),
            Weights::Pairs(weights) => (Format::Pairs, weights.as_ptr().cast(), None),
            Weights::Bytes { high, low, scales, sums } => {
                let (row_scales, row_zeros, outliers, first) = rows.steps();
                assert!(row_scales.len().min(row_zeros.len()) >= count && first.len() > count, "{count} scales");
                let steps = Steps {
                    row_scale: row_scales.as_ptr(),
                    row_scale_step: 1,
                    row_zero: row_zeros.as_ptr(),
                    row_zero_step: 1,
                    scales: scales.as_ptr(),
                    sums: sums.as_ptr(),
                    outliers,
                    first,
                    row: 0,
                    panel: std::ptr::null(),
                    low: low.as_ptr().cast(),
                };
                (Format::LowBytes, high.as_ptr().cast(), Some(steps))
            }
        };
        let panels = Panels {
            isa: self.isa,
            format,
            words: self.inputs * self.number().size() / 4,
            outputs: self.outputs,
            weights,
            bias: self.bias.as_ptr(),
        };
        let job = Job { count, rows: rows.bytes().as_ptr(), stride: rows.stride(), out, out_stride, epilogue, steps };
        // SAFETY: rows and results have the room that was asserted, weights and biases were padded to whole panels, and
        // outliers lie within their rows, which are as wide as the weights.
        unsafe { panels.multiply(job) }
    }
}

/// Packing cannot fail.
fn packed<T>(pack: &dyn Fn(&mut [T])) -> impl FnOnce(&mut [T]) -> Result<()> + '_ {
    |to| {
        pack(to);
        Ok(())
    }
}

/// A scale per row, and the numbers of each in steps of it: whole steps, and 256ths of a step.
///
/// Where four products are added up in 16 bits, a row that has four large numbers of one sign side by side gets larger steps. Of
/// normally distributed rows that is one in five, and its steps grow by a tenth.
fn digits(isa: Isa, rows: &[f32], inputs: usize) -> (Vec<f32>, Vec<(i8, i8)>) {
    let largest = |row: &[f32]| row.iter().fold(1e-20_f32, |most, x| most.max(x.abs()));
    let quad = |row: &[f32]| {
        let quads =
            row.as_chunks().0.iter().flat_map(|&[a, b, c, d, e, f, g, h]: &[f32; 8]| [[a, b, e, f], [c, d, g, h]]);
        let sums = quads.flat_map(|quad| [1.0, -1.0].map(|sign| quad.map(|x| (x * sign).max(0.0)).iter().sum::<f32>()));
        sums.fold(0.0, f32::max)
    };
    let narrow = isa.largest_byte() < 255;
    // Rounding adds half a step to each of four numbers.
    let scale = |row: &[f32]| (largest(row) / 127.0).max(if narrow { quad(row) / (QUAD - 2) as f32 } else { 0.0 });
    let scales: Vec<f32> = rows.par_chunks_exact(inputs).map(scale).collect();
    // Adding and taking off 1.5 · 2²³ leaves the nearest whole number, without a call.
    let nearest = |x: f32| (x + 12_582_912.0) - 12_582_912.0;
    let mut digits = vec![(0, 0); rows.len()];
    let all = digits.par_chunks_exact_mut(inputs).zip(rows.par_chunks_exact(inputs)).zip(&scales);
    all.for_each(|((digits, row), scale)| {
        for (digit, x) in digits.iter_mut().zip(row) {
            let whole = nearest(x / scale);
            *digit = (whole as i8, nearest((x / scale - whole) * 256.0) as i8);
        }
    });
    (scales, digits)
}

/// One layer of its own, not part of a store.
#[cfg(test)]
impl Dense {
    pub(super) fn of(isa: Isa, number: Number, inputs: usize, weights: &[f32], bias: &[f32]) -> Self {
        let raw = Raw { weights: weights.to_vec(), bias: bias.to_vec() };
        Self::take(&mut Parts::making(), isa, number, (inputs, weights.len() / inputs), || Ok(raw)).unwrap()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::finish::Activation;
    use super::super::plain::{activated, numbers};
    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]
        #[test]
        fn equals_the_plain_product_in_every_precision(
            count in 1usize..20, inputs in 1usize..14, outputs in 1usize..70, add: bool, seed: u32, long: bool, outliers in 0usize..4,
            activation in prop_oneof![Just(Activation::None), Just(Activation::QuickGelu), Just(Activation::GeluTanh)],
        ) {
            let inputs = if long { 1024 + 8 * inputs } else { 8 * inputs };
            let (w, b) = (numbers(inputs * outputs, seed), numbers(outputs, seed ^ 7));
            let (mut x, before) = (numbers(count * inputs, seed ^ 1), numbers(count * outputs, seed ^ 2));
            for o in 0..outliers {
                // In every row but the first, hundreds of times the rest.
                x[inputs..].iter_mut().skip((seed as usize + o * 13) % inputs).step_by(inputs).for_each(|x| *x *= 300.0);
            }
            for isa in Isa::available() {
                for number in [Number::F32, Number::Bf16, Number::Int8] {
                    let dense = Dense::of(isa, number, inputs, &w, &b);
                    let mut rows = Rows::new(isa, number, inputs);
                    rows.convert(&x, inputs, count);
                    let mut out = before.clone();
                    dense.apply(count, &rows, Out::Floats(&mut out, outputs), Epilogue { activation, add, last: false });
                    for i in 0..count {
                        let row = &x[i * inputs..][..inputs];
                        let total: f64 = row.iter().map(|x| f64::from(x.abs())).sum();
                        // Numbers without outliers have one scale, outliers a precision of their own.
                        let is_outlier = |x: f64| x > 12.0 * total / inputs as f64;
                        let scale = row.iter().map(|x| f64::from(x.abs())).filter(|&x| !is_outlier(x)).fold(0.0, f64::max) / 63.0;
                        // What rounding may cost at most.
                        let error = |x: f64, w: f64| match number {
                            Number::F32 => 4e-6 * x * w,
                            Number::Bf16 => x * w / 127.0,
                            Number::Int8 if is_outlier(x) => x / 127.0 / 500.0,
                            Number::Int8 => scale / 2.0 * w + (x + scale / 2.0) / 254.0,
                        };
                        for j in 0..outputs {
                            let dot: f64 = row.iter().zip(&w[j * inputs..]).map(|(x, w)| f64::from(*x) * f64::from(*w)).sum();
                            let allowed: f64 = row.iter().zip(&w[j * inputs..]).map(|(x, w)| error(x.abs().into(), w.abs().into())).sum();
                            let old = f64::from(before[i * outputs + j]);
                            let want = activated(dot + f64::from(b[j]), activation) + if add { old } else { 0.0 };
                            let got = f64::from(out[i * outputs + j]);
                            // Activations are at most 1.2 times as steep as the identity.
                            prop_assert!(
                                (got - want).abs() <= 2e-5 + 1.2 * allowed,
                                "{} {number:?} {inputs}: {got} is not {want} within {allowed}", isa.name()
                            );
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn one_huge_channel_does_not_coarsen_the_others() {
        let (inputs, outputs) = (768, 96);
        let (w, mut x) = (numbers(inputs * outputs, 3), numbers(inputs, 5));
        let cosine = |x: &[f32], isa| {
            let dense = Dense::of(isa, Number::Int8, inputs, &w, &[]);
            let mut rows = Rows::new(isa, Number::Int8, inputs);
            rows.convert(x, inputs, 1);
            let mut out = vec![0.0; outputs];
            dense.apply(1, &rows, Out::Floats(&mut out, outputs), Epilogue::STORE);
            // The huge channel's own part is taken off: what is left is what the other channels say.
            let rest = |j: usize| w[j * inputs + 100] * x[100];
            let truth: Vec<f32> = w
                .chunks(inputs)
                .enumerate()
                .map(|(j, w)| w.iter().zip(x).map(|(w, x)| w * x).sum::<f32>() - rest(j))
                .collect();
            let out: Vec<f32> = out.iter().enumerate().map(|(j, o)| o - rest(j)).collect();
            let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(a * b)).sum::<f64>();
            dot(&out, &truth) / (dot(&out, &out) * dot(&truth, &truth)).sqrt()
        };
        for isa in Isa::available() {
            let without = cosine(&x, isa);
            x[100] = 300.0;
            let with = cosine(&x, isa);
            x[100] = 0.5;
            assert!(without > 0.9995 && with > 0.9995, "{}: {without} {with}", isa.name());
        }
    }

    #[test]
    fn large_weights_side_by_side_do_not_overflow() {
        let (inputs, outputs, count) = (768, 40, 5);
        // Each output has the largest weights of one sign in the places of one of the sums of four, and small ones elsewhere.
        let sign = |j: usize| if j.is_multiple_of(2) { 1.0 } else { -1.0 };
        let large = |j: usize, k: usize| j / 4 == 9 || [[0, 1, 4, 5], [2, 3, 6, 7]][j / 2 % 2].contains(&(k % 8));
        let w: Vec<f32> = (0..outputs * inputs)
            .map(|at| (at / inputs, at % inputs))
            .map(|(j, k)| sign(j) * if large(j, k) { 1.0 } else { 0.125 })
            .collect();
        let x = vec![3.0; count * inputs];
        for isa in Isa::available() {
            let dense = Dense::of(isa, Number::Int8, inputs, &w, &[]);
            let mut rows = Rows::new(isa, Number::Int8, inputs);
            rows.convert(&x, inputs, count);
            let mut out = vec![0.0; count * outputs];
            dense.apply(count, &rows, Out::Floats(&mut out, outputs), Epilogue::STORE);
            for (at, got) in out.iter().enumerate() {
                let want: f32 = w[at % outputs * inputs..][..inputs].iter().map(|w| 3.0 * w).sum();
                assert!((got - want).abs() < 0.02 * want.abs(), "{} {}: {got} is not {want}", isa.name(), at % outputs);
            }
        }
    }

    #[test]
    fn a_row_alone_and_among_others_gives_the_same_bits() {
        let (inputs, outputs, count) = (1032, 40, 15);
        let (w, b, x) = (numbers(inputs * outputs, 1), numbers(outputs, 2), numbers(count * inputs, 3));
        for isa in Isa::available() {
            for number in [Number::F32, Number::Bf16, Number::Int8] {
                let dense = Dense::of(isa, number, inputs, &w, &b);
                let mut rows = Rows::new(isa, number, inputs);
                rows.convert(&x, inputs, count);
                let mut all = vec![0.0; count * outputs];
                dense.apply(count, &rows, Out::Floats(&mut all, outputs), Epilogue::STORE);
                for i in 0..count {
                    rows.convert(&x[i * inputs..], inputs, 1);
                    let mut one = vec![0.0; outputs];
                    dense.apply(1, &rows, Out::Floats(&mut one, outputs), Epilogue::STORE);
                    assert_eq!(one, all[i * outputs..(i + 1) * outputs], "{} {number:?}", isa.name());
                }
            }
        }
    }
}
