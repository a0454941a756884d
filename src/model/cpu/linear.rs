//! Matrix product with constant f32 weights: `out = epilogue(rows × weightsᵀ + bias)`.
//!
//! Weights are stored in panels two vectors wide, `[panel][k][2 × lanes]`, so that the inner loop reads them straight through
//! and broadcasts one number per row; the loops are those of [`product`](super::product).

use super::aligned::Aligned;
use super::dense::Raw;
use super::finish::{Epilogue, Place};
use super::parts::{Part, Parts};
use super::product::{Job, Panels};
use super::simd::Isa;
use super::tile::Format;
use crate::Result;

/// Packed weights of one linear layer, or of one 1 × 1 convolution.
pub(crate) struct Linear {
    isa: Isa,
    inputs: usize,
    outputs: usize,
    // (panel, input, 2 × lanes)
    weights: Part<f32>,
    // (panel, 2 × lanes), or nothing
    bias: Part<f32>,
}

impl Linear {
    /// Packs `outputs × inputs` weights, row by row as checkpoints store them. `bias` is empty or has `outputs` numbers.
    ///
    /// # Panics
    /// If the lengths do not fit.
    pub(crate) fn new(isa: Isa, inputs: usize, outputs: usize, weights: &[f32], bias: &[f32]) -> Self {
        assert_eq!(weights.len(), inputs * outputs, "weights of {outputs} × {inputs}");
        assert!(bias.is_empty() || bias.len() == outputs, "{outputs} biases");
        let padded = outputs.next_multiple_of(2 * isa.lanes());
        let mut packed = Aligned::zeroed(padded * inputs);
        pack(isa, inputs, weights, &mut packed, |&x| x);
        let mut padded = Aligned::zeroed(if bias.is_empty() { 0 } else { padded });
        padded[..bias.len()].copy_from_slice(bias);
        Self { isa, inputs, outputs, weights: packed.into(), bias: padded.into() }
    }

    /// The layer from the next parts of a store; `read` is asked for the weights where they have to be packed.
    pub(super) fn take(
        parts: &mut Parts,
        isa: Isa,
        (inputs, outputs): (usize, usize),
        read: impl FnOnce() -> Result<Raw>,
    ) -> Result<Self> {
        let padded = outputs.next_multiple_of(2 * isa.lanes());
        let mut bias = Vec::new();
        let weights = parts.take(padded * inputs, |to: &mut [f32]| {
            let raw = read()?;
            assert!(raw.weights.len() == inputs * outputs, "weights of {outputs} × {inputs}");
            pack(isa, inputs, &raw.weights, to, |&x| x);
            bias = raw.bias;
            Ok(())
        })?;
        let bias = parts.take(padded, |to: &mut [f32]| {
            to[..bias.len()].copy_from_slice(&bias);
            Ok(())
        })?;
        Ok(Self { isa, inputs, outputs, weights, bias })
    }

    /// Numbers per row.
    pub(crate) fn inputs(&self) -> usize {
        self.inputs
    }

    /// Numbers per result.
    pub(crate) fn outputs(&self) -> usize {
        self.outputs
    }

    /// Multiplies `count` rows that start `stride` numbers apart; results start `out_stride` numbers apart.
    ///
    /// # Panics
    /// If a row or a result would lie outside its slice.
    pub(crate) fn apply(
        &self,
        count: usize,
        (rows, stride): (&[f32], usize),
        (out, out_stride): (&mut [f32], usize),
        epilogue: Epilogue,
    ) {
        if count == 0 {
            return;
        }
        assert!((count - 1) * stride + self.inputs <= rows.len(), "{count} rows of {}", self.inputs);
        assert!((count - 1) * out_stride + self.outputs <= out.len(), "{count} results of {}", self.outputs);
        assert!(count == 1 || out_stride >= self.outputs, "results may not overlap");
        let panels = Panels {
            isa: self.isa,
            format: Format::Floats,
            words: self.inputs,
            outputs: self.outputs,
            weights: self.weights.as_ptr().cast(),
            bias: if self.bias.is_empty() { std::ptr::null() } else { self.bias.as_ptr() },
        };
        let job = Job {
            count,
            rows: rows.as_ptr().cast(),
            stride: 4 * stride,
            out: Place::Floats(out.as_mut_ptr()),
            out_stride,
            epilogue,
            steps: None,
        };
        // SAFETY: rows and results lie inside their slices by the assertions above; weights and biases were padded.
        unsafe { panels.multiply(job) }
    }
}

/// Writes `outputs × inputs` numbers into zeroed panels, `[panel][input / group][2 × lanes][group]` with as many numbers in a
/// group as `packed` has room for.
pub(super) fn pack<T: Sync, U: Send>(
    isa: Isa,
    inputs: usize,
    rows: &[T],
    packed: &mut [U],
    convert: impl Fn(&T) -> U + Sync,
) {
    use rayon::prelude::*;
    let wide = 2 * isa.lanes();
    let group = 4 / size_of::<U>();
    let panel = inputs.next_multiple_of(group) * wide;
    packed.par_chunks_exact_mut(panel).zip(rows.par_chunks(inputs * wide)).for_each(|(panel, rows)| {
        for (j, row) in rows.chunks_exact(inputs).enumerate() {
            for (k, x) in row.iter().enumerate() {
                panel[k / group * group * wide + j * group + k % group] = convert(x);
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::finish::Activation;
    use super::super::plain::{activated, numbers};
    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn equals_the_plain_product(
            count in 1usize..40, inputs in 1usize..70, outputs in 1usize..80, gap in 0usize..5, add: bool, seed: u32, long: bool, last: bool,
            activation in prop_oneof![Just(Activation::None), Just(Activation::Relu6), Just(Activation::GeluTanh)],
        ) {
            let inputs = if long { 1024 + 16 * inputs } else { inputs };
            let (stride, out_stride) = (inputs + gap, outputs + gap);
            let (w, b) = (numbers(inputs * outputs, seed), numbers(outputs, seed ^ 7));
            let (rows, before) = (numbers(count * stride, seed ^ 1), numbers(count * out_stride, seed ^ 2));
            for isa in Isa::available() {
                let mut out = before.clone();
                let linear = Linear::new(isa, inputs, outputs, &w, &b);
                linear.apply(count, (&rows, stride), (&mut out, out_stride), Epilogue { activation, add, last });
                for i in 0..count {
                    for j in 0..out_stride {
                        let (got, old) = (out[i * out_stride + j], before[i * out_stride + j]);
                        if j >= outputs {
                            prop_assert_eq!(got, old, "{} wrote past its row", isa.name());
                            continue;
                        }
                        let dot: f64 = (0..inputs).map(|k| f64::from(rows[i * stride + k]) * f64::from(w[j * inputs + k])).sum();
                        let (sum, old) = (dot + f64::from(b[j]), if add { f64::from(old) } else { 0.0 });
                        let want = if last { activated(sum + old, activation) } else { activated(sum, activation) + old };
                        let allowed = if long { 2e-4 + 4e-6 * want.abs() } else { 2e-5 };
                        prop_assert!((f64::from(got) - want).abs() < allowed, "{}: {got} is not {want}", isa.name());
                    }
                }
            }
        }
    }

    #[test]
    fn a_row_alone_and_among_others_gives_the_same_bits() {
        let (inputs, outputs) = (48, 40);
        let (w, b, rows) = (numbers(inputs * outputs, 1), numbers(outputs, 2), numbers(29 * inputs, 3));
        for isa in Isa::available() {
            let linear = Linear::new(isa, inputs, outputs, &w, &b);
            let mut all = vec![0.0; 29 * outputs];
            linear.apply(29, (&rows, inputs), (&mut all, outputs), Epilogue::STORE);
            for i in 0..29 {
                let mut one = vec![0.0; outputs];
                linear.apply(1, (&rows[i * inputs..], inputs), (&mut one, outputs), Epilogue::STORE);
                assert_eq!(one, all[i * outputs..(i + 1) * outputs]);
            }
        }
    }
}
