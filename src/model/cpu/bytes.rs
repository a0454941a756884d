//! Matrix product of byte rows with int8 weights: sums are exact integers, so every machine gives the same.
//!
//! A row stands for `scale × (byte - zero)`. Weights are symmetric with a scale per output; the zero point of the rows is
//! taken off afterwards with the sum of the weights, which is known in advance. Panels as in [`Linear`](super::Linear), four
//! inputs to a lane: `[panel][input / 4][2 × lanes][4]`.

use super::aligned::Aligned;
use super::finish::{Epilogue, Place, Steps};
use super::linear::pack;
use super::parts::Part;
use super::product::{Job, Panels};
use super::simd::{Isa, Kernel, Simd};
use super::tile::Format;

/// What the bytes of a row mean.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Scale<'a> {
    /// One scale for all rows.
    Same(f32),
    /// A scale per row.
    PerRow(&'a [f32]),
}

/// Byte rows `scale × (byte - zero)` that start `stride` bytes apart.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ByteRows<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) stride: usize,
    pub(crate) scale: Scale<'a>,
    pub(crate) zero: f32,
}

/// Where results go.
#[derive(Debug)]
pub(crate) enum Out<'a> {
    /// As they are.
    Floats(&'a mut [f32]),
    /// Divided by the scale, rounded, and clamped to 0..=255: with a scale of 6 / 255 this is ReLU6.
    Bytes(&'a mut [u8], f32),
}

/// Packed int8 weights of one linear layer, or of one 1 × 1 convolution.
pub(crate) struct ByteLinear {
    isa: Isa,
    inputs: usize,
    outputs: usize,
    // (panel, input / 4, 2 × lanes, 4)
    weights: Part<i8>,
    // (panel, 2 × lanes) each
    scales: Part<f32>,
    /// Scale times the sum of the weights.
    sums: Part<f32>,
    bias: Part<f32>,
}

impl ByteLinear {
    /// Packs `outputs × inputs` weights in two's complement with a scale per output. `bias` is empty or has `outputs` numbers.
    ///
    /// # Panics
    /// If the lengths do not fit or `inputs` is no multiple of 4.
    pub(crate) fn new(isa: Isa, inputs: usize, weights: &[u8], scales: &[f32], bias: &[f32]) -> Self {
        let outputs = scales.len();
        assert!(inputs.is_multiple_of(4) && weights.len() == inputs * outputs, "weights of {outputs} × {inputs}");
        assert!(bias.is_empty() || bias.len() == outputs, "{outputs} biases");
        let wide = outputs.next_multiple_of(2 * isa.lanes());
        let mut packed = Aligned::<i8>::zeroed(wide * inputs);
        pack(isa, inputs, weights, &mut packed, |&w| w as i8);
        let [mut scale, mut sums, mut padded] = [(); 3].map(|()| Aligned::<f32>::zeroed(wide));
        scale[..outputs].copy_from_slice(scales);
        padded[..bias.len()].copy_from_slice(bias);
        for ((sum, row), scale) in sums.iter_mut().zip(weights.chunks_exact(inputs)).zip(scales) {
            *sum = scale * row.iter().map(|&w| i32::from(w as i8)).sum::<i32>() as f32;
        }
        Self {
            isa,
            inputs,
            outputs,
            weights: packed.into(),
            scales: scale.into(),
            sums: sums.into(),
            bias: padded.into(),
        }
    }

    /// The instructions that the weights are packed for.
    pub(crate) fn isa(&self) -> Isa {
        self.isa
    }

    /// Numbers per row.
    pub(crate) fn inputs(&self) -> usize {
        self.inputs
    }

    /// Numbers per result.
    pub(crate) fn outputs(&self) -> usize {
        self.outputs
    }

    /// Multiplies `count` rows; results start `out_stride` numbers apart.
    ///
    /// # Panics
    /// If a row or a result would lie outside its slice, or byte results are no whole vectors.
    pub(crate) fn apply(&self, count: usize, rows: ByteRows<'_>, out: Out<'_>, out_stride: usize, epilogue: Epilogue) {
        if count == 0 {
            return;
        }
        let len = match &out {
            Out::Floats(out) => out.len(),
            Out::Bytes(out, _) => out.len(),
        };
        assert!((count - 1) * rows.stride + self.inputs <= rows.bytes.len(), "{count} rows of {}", self.inputs);
        assert!((count - 1) * out_stride + self.outputs <= len, "{count} results of {}", self.outputs);
        assert!(count == 1 || out_stride >= self.outputs, "results may not overlap");
        let (row_scale, row_scale_step) = match &rows.scale {
            Scale::Same(scale) => (std::ptr::from_ref(scale), 0),
            Scale::PerRow(scales) => {
                assert!(scales.len() >= count, "{count} scales");
                (scales.as_ptr(), 1)
            }
        };
        let out = match out {
            Out::Floats(out) => Place::Floats(out.as_mut_ptr()),
            Out::Bytes(out, scale) => {
                assert!(self.outputs.is_multiple_of(self.isa.lanes()), "byte results come in whole vectors");
                Place::Bytes(out.as_mut_ptr(), 1.0 / scale)
            }
        };
        let steps = Steps {
            row_scale,
            row_scale_step,
            row_zero: &raw const rows.zero,
            row_zero_step: 0,
            scales: self.scales.as_ptr(),
            sums: self.sums.as_ptr(),
            outliers: &[],
            first: &[],
            row: 0,
            panel: std::ptr::null(),
            low: std::ptr::null(),
        };
        let panels = Panels {
            isa: self.isa,
            format: Format::Bytes,
            words: self.inputs / 4,
            outputs: self.outputs,
            weights: self.weights.as_ptr().cast(),
            bias: self.bias.as_ptr(),
        };
        let job = Job {
            count,
            rows: rows.bytes.as_ptr(),
            stride: rows.stride,
            out,
            out_stride,
            epilogue,
            steps: Some(steps),
        };
        // SAFETY: rows and results lie inside their slices by the assertions above; weights, scales, sums and biases are
        // padded to whole panels.
        unsafe { panels.multiply(job) }
    }
}

/// Quantises rows of `width` numbers, each by its own largest magnitude: byte 128 is zero. Scales go to `scales`.
///
/// # Panics
/// If the lengths do not fit or `width` is no multiple of 8.
pub(crate) fn quantise(isa: Isa, rows: &[f32], width: usize, bytes: &mut [u8], scales: &mut [f32]) {
    assert!(width.is_multiple_of(8), "rows of {width}");
    assert!(rows.len() == bytes.len() && rows.len() == width * scales.len(), "as many bytes as numbers");
    // SAFETY: the lengths were compared.
    unsafe { isa.run(Quantise { rows, width, bytes, scales }) }
}

struct Quantise<'a> {
    rows: &'a [f32],
    width: usize,
    bytes: &'a mut [u8],
    scales: &'a mut [f32],
}

impl Kernel for Quantise<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        for (row, scale) in self.scales.iter_mut().enumerate() {
            // SAFETY: row < scales.len(), and all rows have `width` numbers.
            unsafe {
                let (from, to) =
                    (self.rows.as_ptr().add(row * self.width), self.bytes.as_mut_ptr().add(row * self.width));
                let mut largest = S::splat(1e-12);
                for i in (0..self.width).step_by(S::LANES) {
                    let x = S::load_first(from.add(i), S::LANES.min(self.width - i));
                    largest = S::max(largest, S::max(x, S::sub(S::splat(0.0), x)));
                }
                let largest = S::largest(largest);
                *scale = largest / 127.0;
                let inverse = 127.0 / largest;
                if self.width < S::LANES {
                    for i in 0..self.width {
                        *to.add(i) = (*from.add(i) * inverse + 128.0).round_ties_even() as u8;
                    }
                    continue;
                }
                for i in (0..self.width).step_by(S::LANES) {
                    // The last vector overlaps the one before.
                    let i = i.min(self.width - S::LANES);
                    S::store_bytes(to.add(i), S::fma(S::load(from.add(i)), S::splat(inverse), S::splat(128.0)));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::finish::Activation;
    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn equals_the_plain_product(
            count in 1usize..30, quads in 1usize..20, outputs in 1usize..6, uneven in 0usize..16, add: bool, relu6: bool,
            bytes in prop::collection::vec(any::<u8>(), 64), per_row: bool,
        ) {
            let (inputs, outputs) = (4 * quads, 16 * outputs - uneven);
            let noise = |n: usize, salt: usize| -> Vec<u8> {
                (0..n).map(|i| bytes[(i * 7 + i / 64 + salt) % 64].wrapping_mul((i / 5 + salt) as u8 | 1)).collect()
            };
            // The extremes of both types, next to each other, where byte instructions saturate.
            let mut weights = noise(inputs * outputs, 3);
            let mut rows = noise(count * inputs, 5);
            weights[..4].fill(127);
            rows[..4].fill(255);
            let scales: Vec<f32> = (0..outputs).map(|j| 0.001 * (1 + j % 7) as f32).collect();
            let bias: Vec<f32> = (0..outputs).map(|j| j as f32 * 0.1 - 2.0).collect();
            let row_scales: Vec<f32> = (0..count).map(|i| 0.01 * (1 + i % 3) as f32).collect();
            let activation = if relu6 { Activation::Relu6 } else { Activation::None };
            let zero = 128.0;
            let scale = if per_row { Scale::PerRow(&row_scales) } else { Scale::Same(0.02) };
            for isa in Isa::available() {
                let linear = ByteLinear::new(isa, inputs, &weights, &scales, &bias);
                let from = ByteRows { bytes: &rows, stride: inputs, scale, zero };
                let mut out = vec![1.5; count * outputs];
                linear.apply(count, from, Out::Floats(&mut out), outputs, Epilogue { activation, add, last: false });
                let mut small = vec![0; count * outputs];
                let whole = outputs.is_multiple_of(16);
                if whole {
                    linear.apply(count, from, Out::Bytes(&mut small, 6.0 / 255.0), outputs, Epilogue::STORE);
                }
                for i in 0..count {
                    for j in 0..outputs {
                        let dot: i32 = (0..inputs)
                            .map(|k| (i32::from(rows[i * inputs + k]) - 128) * i32::from(weights[j * inputs + k] as i8))
                            .sum();
                        let row_scale = if per_row { row_scales[i] } else { 0.02 };
                        let exact = f64::from(dot) * f64::from(scales[j]) * f64::from(row_scale) + f64::from(bias[j]);
                        let want = if relu6 { exact.clamp(0.0, 6.0) } else { exact } + if add { 1.5 } else { 0.0 };
                        let got = f64::from(out[i * outputs + j]);
                        prop_assert!((got - want).abs() < 1e-3 + 1e-5 * want.abs(), "{}: {got} is not {want}", isa.name());
                        if whole {
                            let want = (exact * 42.5).clamp(0.0, 255.0);
                            prop_assert!((f64::from(small[i * outputs + j]) - want).abs() < 0.51 + 1e-2, "{}", isa.name());
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn rows_come_back_from_bytes_within_half_a_step() {
        for isa in Isa::available() {
            for width in [8, 16, 24, 104] {
                let rows: Vec<f32> = (0..3 * width).map(|i| ((i * 31) % 17) as f32 * 0.37 - 3.0).collect();
                let (mut bytes, mut scales) = (vec![0; rows.len()], vec![0.0; 3]);
                quantise(isa, &rows, width, &mut bytes, &mut scales);
                for (i, &x) in rows.iter().enumerate() {
                    let back = scales[i / width] * (f32::from(bytes[i]) - 128.0);
                    assert!((x - back).abs() <= scales[i / width] * 0.501, "{} {x} {back}", isa.name());
                }
            }
        }
    }
}
