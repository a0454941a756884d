//! Affine maps and norms on candle tensors: the arithmetic that every tower is made of.
//!
//! Weights are kept `(in, out)`. candle's product packs a transposed operand anew on each call, which for a query of eight
//! tokens costs ten times the product itself; transposing once when a tower is built costs less than one such call. On the
//! processor bias and activation are one pass in place over the product instead of up to five tensors of its size.
//!
//! Weights in bf16 are multiplied with rows rounded to bf16; what comes out is f32 again, and so are biases, norms and
//! everything else between two products.

use candle_core::{CpuStorage, DType, InplaceOp2, Layout, Result as TensorResult, Tensor};
use rayon::prelude::*;

use super::config::Activation;
use crate::Error;

/// A failed tensor operation as this crate's error.
pub(super) fn tensor_error(error: candle_core::Error) -> Error {
    Error::Tensor(Box::new(error))
}

/// A norm over the last dimension.
#[derive(Debug)]
pub(super) struct Norm {
    pub(super) weight: Tensor,
    /// Without one it is a root-mean-square norm, which subtracts no mean either.
    pub(super) bias: Option<Tensor>,
    pub(super) eps: f32,
}

impl Norm {
    /// `x` of any shape whose last dimension is the width.
    pub(super) fn forward(&self, x: &Tensor) -> TensorResult<Tensor> {
        let x = x.contiguous()?;
        match &self.bias {
            Some(bias) => candle_nn::ops::layer_norm(&x, &self.weight, bias, self.eps),
            None => candle_nn::ops::rms_norm(&x, &self.weight, self.eps),
        }
    }

    /// The same over the channels of pictures `(batch, channels, height, width)`.
    pub(super) fn forward_channels(&self, x: &Tensor) -> TensorResult<Tensor> {
        self.forward(&x.permute((0, 2, 3, 1))?)?.permute((0, 3, 1, 2))?.contiguous()
    }
}

/// `x · W + b`, with or without an activation after it.
#[derive(Debug)]
pub(super) struct Linear {
    /// `(in, out)`, in f32 or bf16.
    pub(super) weight: Tensor,
    pub(super) bias: Option<Tensor>,
}

impl Linear {
    /// `(…, in)` to `(…, out)`.
    pub(super) fn forward(&self, x: &Tensor) -> TensorResult<Tensor> {
        self.apply(x, None)
    }

    /// The same, and then `activation`.
    pub(super) fn forward_activated(&self, x: &Tensor, activation: Activation) -> TensorResult<Tensor> {
        self.apply(x, Some(activation))
    }

    fn apply(&self, x: &Tensor, activation: Option<Activation>) -> TensorResult<Tensor> {
        let x = x.to_dtype(self.weight.dtype())?.contiguous()?;
        let product = match *x.dims() {
            [_, _] => x.matmul(&self.weight)?, // (rows, out)
            // One product of all rows, not one for each sequence.
            _ => {
                let mut shape = x.dims().to_vec();
                let inputs = shape.pop().unwrap_or(0);
                shape.push(self.weight.dim(1)?);
                x.reshape(((), inputs))?.matmul(&self.weight)?.reshape(shape)?
            }
        };
        let product = product.to_dtype(DType::F32)?;
        let Some(bias) = &self.bias else {
            return match activation {
                None => Ok(product),
                Some(activation) => activate(&product, activation),
            };
        };
        if product.device().is_cpu() {
            product.inplace_op2(bias, &AddBias(activation))?;
            return Ok(product);
        }
        let sum = product.broadcast_add(bias)?;
        match activation {
            None => Ok(sum),
            Some(activation) => activate(&sum, activation),
        }
    }
}

/// The activation in tensor operations, for devices without a kernel of our own.
pub(super) fn activate(x: &Tensor, activation: Activation) -> TensorResult<Tensor> {
    match activation {
        Activation::Gelu => x.gelu_erf(),
        Activation::GeluTanh => x.gelu(),
        Activation::QuickGelu => x * candle_nn::ops::sigmoid(&(x * 1.702)?)?,
        Activation::Silu => candle_nn::ops::silu(x),
        Activation::Relu => x.relu(),
    }
}

/// Adds a bias to each row in place, and applies the activation in the same pass.
struct AddBias(Option<Activation>);

impl InplaceOp2 for AddBias {
    fn name(&self) -> &'static str {
        "add-bias"
    }

    fn cpu_fwd(
        &self,
        x: &mut CpuStorage,
        layout: &Layout,
        bias: &CpuStorage,
        bias_layout: &Layout,
    ) -> TensorResult<()> {
        let (Some((from, to)), Some((bias_from, bias_to))) =
            (layout.contiguous_offsets(), bias_layout.contiguous_offsets())
        else {
            candle_core::bail!("add-bias works on contiguous tensors");
        };
        let (CpuStorage::F32(x), CpuStorage::F32(bias)) = (x, bias) else {
            candle_core::bail!("add-bias works on {:?}", DType::F32);
        };
        let bias = &bias[bias_from..bias_to];
        let rows = x[from..to].par_chunks_exact_mut(bias.len().max(1));
        match self.0 {
            None => rows.for_each(|row| each(row, bias, |x| x)),
            Some(Activation::Gelu) => rows.for_each(|row| each(row, bias, gelu)),
            Some(Activation::GeluTanh) => rows.for_each(|row| each(row, bias, gelu_tanh)),
            Some(Activation::QuickGelu) => rows.for_each(|row| each(row, bias, |x| x / (1.0 + exp(-1.702 * x)))),
            Some(Activation::Silu) => rows.for_each(|row| each(row, bias, |x| x / (1.0 + exp(-x)))),
            Some(Activation::Relu) => rows.for_each(|row| each(row, bias, |x| x.max(0.0))),
        }
        Ok(())
    }
}

#[inline(always)]
fn each(row: &mut [f32], bias: &[f32], f: impl Fn(f32) -> f32) {
    row.iter_mut().zip(bias).for_each(|(x, b)| *x = f(*x + b));
}

/// `x · Φ(x)`, with the error function of Abramowitz and Stegun 7.1.26: off by at most 1.5e-7.
#[inline(always)]
fn gelu(x: f32) -> f32 {
    let z = x.abs() * std::f32::consts::FRAC_1_SQRT_2;
    let t = 1.0 / (1.0 + 0.327_591_1 * z);
    let poly = t * (0.254_829_6 + t * (-0.284_496_72 + t * (1.421_413_8 + t * (-1.453_152_1 + t * 1.061_405_4))));
    // Φ(|x|) on the far side, mirrored on the near one.
    let tail = 0.5 * poly * exp(-z * z);
    if x < 0.0 { x * tail } else { x - x * tail }
}

/// GELU with tanh, which is a logistic function in disguise.
#[inline(always)]
fn gelu_tanh(x: f32) -> f32 {
    let inner = 2.0 * 0.797_884_6 * (x + 0.044_715 * x * x * x);
    x / (1.0 + exp(-inner))
}

/// `eˣ` without a call, so that the loops around it become vector code: within 2e-7 of the true value, relatively, on
/// ±87, where f32 begins to leave its normal numbers.
#[inline(always)]
fn exp(x: f32) -> f32 {
    let x = x.clamp(-87.0, 87.0);
    // Adding 1.5 · 2²³ leaves the nearest whole number in the low bits.
    const ROUND: f32 = 12_582_912.0;
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    // ln 2 in two parts keeps the remainder exact.
    let r = (x - n * 0.693_359_4) + n * 2.121_944_4e-4;
    let series =
        1.0 + r * (1.0 + r * (0.5 + r * (1.0 / 6.0 + r * (1.0 / 24.0 + r * (1.0 / 120.0 + r * (1.0 / 720.0))))));
    let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(1.0_f32.to_bits()));
    series * power
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn our_exponential_is_the_true_one() {
        for i in -87_000..=87_000 {
            let x = i as f32 / 1000.0;
            let truth = f64::from(x).exp();
            assert!((f64::from(exp(x)) / truth - 1.0).abs() < 5e-7, "exp({x})");
        }
        assert_eq!(exp(0.0), 1.0);
        assert!(exp(-1e30) < 1e-37 && exp(f32::NAN).is_nan());
    }

    #[test]
    fn in_place_activations_are_those_of_the_tensor_operations() {
        let x: Vec<f32> = (-1200..1200).map(|i| i as f32 / 100.0).collect();
        let tensor = Tensor::from_vec(x.clone(), x.len(), &Device::Cpu).unwrap();
        for (activation, ours) in [
            (Activation::Gelu, gelu as fn(f32) -> f32),
            (Activation::GeluTanh, gelu_tanh),
            (Activation::QuickGelu, |x| x / (1.0 + exp(-1.702 * x))),
            (Activation::Silu, |x| x / (1.0 + exp(-x))),
            (Activation::Relu, |x| x.max(0.0)),
        ] {
            let theirs = activate(&tensor, activation).unwrap().to_vec1::<f32>().unwrap();
            for (&x, theirs) in x.iter().zip(theirs) {
                assert!(
                    (ours(x) - theirs).abs() <= 1e-6 * (1.0 + x.abs()),
                    "{activation:?}({x}): {} {theirs}",
                    ours(x)
                );
            }
        }
    }
}
