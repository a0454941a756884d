//! Tensors on their way from a checkpoint into a tower.
//!
//! A tower's loading code is also the one description of what it consists of: the same code runs against a [`Loader`] that
//! only takes notes ([`Loader::list`]), and what it asks for is the list against which a checkpoint is checked before anything
//! is read. A second list, kept by hand beside the code, would sooner or later differ from it.

use std::cell::RefCell;

use candle_core::{DType, Device, Tensor};

use super::config::TensorSpec;
use super::conv::{Conv, Shape};
use super::linear::{Linear, Norm, tensor_error};
use super::weights::Weights;
use crate::Result;

/// Added to the variances of a batch norm by default.
const NORM_EPS: f64 = 1e-5;

/// Where a tower's tensors come from and where they go.
pub(super) struct Loader<'a> {
    source: Source<'a>,
    device: Device,
    /// What the weights of products are kept in.
    products: DType,
}

enum Source<'a> {
    Weights(&'a Weights),
    List(RefCell<Vec<TensorSpec>>),
}

impl<'a> Loader<'a> {
    /// Reads from `weights`.
    pub(super) fn new(weights: &'a Weights, device: &Device) -> Self {
        Self { source: Source::Weights(weights), device: device.clone(), products: DType::F32 }
    }

    /// The same with products in `products`: the weights of linear maps, which are most of a tower. Everything else stays in f32.
    pub(super) fn products(self, products: DType) -> Self {
        Self { products, ..self }
    }

    /// Reads nothing: what it loads has the structure of a tower, and stand-ins for its tensors.
    pub(super) fn outline() -> Self {
        Self { source: Source::List(RefCell::default()), device: Device::Cpu, products: DType::F32 }
    }

    /// What `load` asks for.
    pub(super) fn list(load: impl FnOnce(&Loader) -> Result<()>) -> Result<Vec<TensorSpec>> {
        let loader = Loader::outline();
        load(&loader)?;
        match loader.source {
            Source::List(list) => Ok(list.into_inner()),
            Source::Weights(_) => Ok(Vec::new()),
        }
    }

    /// The device that tensors go to.
    pub(super) fn device(&self) -> &Device {
        &self.device
    }

    /// Asks for a tensor that is read later, row by row.
    pub(super) fn expect(&self, name: &str, shape: &[usize]) {
        if let Source::List(list) = &self.source {
            list.borrow_mut().push(TensorSpec { name: name.to_owned(), shape: shape.to_vec() });
        }
    }

    /// All numbers of a tensor; none while a list is made.
    fn numbers(&self, name: &str, shape: &[usize]) -> Result<Option<Vec<f32>>> {
        self.expect(name, shape);
        match self.source {
            Source::Weights(weights) => Ok(Some(weights.get(name)?.0)),
            Source::List(_) => Ok(None),
        }
    }

    /// Numbers as a tensor of `shape`, or a stand-in.
    fn place(&self, numbers: Option<Vec<f32>>, shape: &[usize]) -> Result<Tensor> {
        match numbers {
            Some(numbers) => Tensor::from_vec(numbers, shape, &self.device).map_err(tensor_error),
            None => Tensor::zeros(1, DType::F32, &self.device).map_err(tensor_error),
        }
    }

    /// A tensor as it is.
    pub(super) fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        let numbers = self.numbers(name, shape)?;
        self.place(numbers, shape)
    }

    /// A layer norm.
    pub(super) fn norm(&self, name: &str, width: usize, eps: f64) -> Result<Norm> {
        let weight = self.tensor(&format!("{name}.weight"), &[width])?;
        let bias = Some(self.tensor(&format!("{name}.bias"), &[width])?);
        Ok(Norm { weight, bias, eps: eps as f32 })
    }

    /// A root-mean-square norm.
    pub(super) fn rms_norm(&self, name: &str, width: usize, eps: f64) -> Result<Norm> {
        Ok(Norm { weight: self.tensor(&format!("{name}.weight"), &[width])?, bias: None, eps: eps as f32 })
    }

    /// An affine map, or a linear one.
    pub(super) fn linear(&self, name: &str, outputs: usize, inputs: usize, biased: bool) -> Result<Linear> {
        self.linear_scaled(name, outputs, &[inputs], biased, 0, 1.0)
    }

    /// The map that a convolution without overlap is: of patches of the shape `inputs`.
    pub(super) fn linear_of(&self, name: &str, outputs: usize, inputs: &[usize], biased: bool) -> Result<Linear> {
        self.linear_scaled(name, outputs, inputs, biased, 0, 1.0)
    }

    /// An affine map whose first `scaled` outputs are multiplied by `factor`.
    pub(super) fn linear_scaled(
        &self,
        name: &str,
        outputs: usize,
        inputs: &[usize],
        biased: bool,
        scaled: usize,
        factor: f32,
    ) -> Result<Linear> {
        let (weight_name, columns) = (format!("{name}.weight"), inputs.iter().product());
        let weight = match self.source {
            Source::Weights(weights) => {
                let (mut weight, _) = weights.transposed(&weight_name)?;
                if factor != 1.0 {
                    weight
                        .chunks_exact_mut(outputs)
                        .for_each(|row| row[..scaled].iter_mut().for_each(|w| *w *= factor));
                }
                Some(weight)
            }
            Source::List(_) => {
                let shape: Vec<usize> = std::iter::once(outputs).chain(inputs.iter().copied()).collect();
                self.expect(&weight_name, &shape);
                None
            }
        };
        let weight = self.place(weight, &[columns, outputs])?.to_dtype(self.products).map_err(tensor_error)?;
        let bias = if biased {
            let mut bias = self.numbers(&format!("{name}.bias"), &[outputs])?;
            bias.iter_mut().for_each(|bias| bias[..scaled].iter_mut().for_each(|b| *b *= factor));
            Some(self.place(bias, &[outputs])?)
        } else {
            None
        };
        Ok(Linear { weight, bias })
    }

    /// A convolution.
    pub(super) fn conv(&self, name: &str, shape: Shape, biased: bool) -> Result<Conv> {
        let dims = shape.weights();
        let weight = self.tensor(&format!("{name}.weight"), &dims)?;
        let bias = if biased { Some(self.tensor(&format!("{name}.bias"), &[shape.outputs])?) } else { None };
        Ok(Conv { shape, weight, bias })
    }

    /// A convolution without bias and the batch norm after it, as one convolution.
    pub(super) fn conv_norm(&self, conv: &str, norm: &str, shape: Shape) -> Result<Conv> {
        self.conv_norm_with(conv, norm, shape, NORM_EPS)
    }

    /// The same with another number added to the variances.
    pub(super) fn conv_norm_with(&self, conv: &str, norm: &str, shape: Shape, eps: f64) -> Result<Conv> {
        let (weight, bias) = self.folded(Some(conv), norm, &shape, eps)?;
        self.folded_conv(shape, weight, bias)
    }

    /// A convolution that is the sum of branches, each a convolution of `(name, kernel)` without bias followed by the batch norm
    /// of the second name, or a batch norm alone. Kernels lie on each other's centres.
    pub(super) fn conv_sum(&self, shape: Shape, branches: &[(Option<(&str, usize)>, &str)]) -> Result<Conv> {
        let (outputs, kernel) = (shape.outputs, shape.kernel);
        let per_group = shape.inputs / shape.groups;
        let mut weight = vec![0.0; outputs * per_group * kernel * kernel];
        let mut bias = vec![0.0; outputs];
        let mut is_list = false;
        for (conv, norm) in branches {
            let own = Shape { kernel: conv.map_or(1, |(_, kernel)| kernel), ..shape };
            let (Some(part), Some(shift)) = self.folded(conv.map(|(name, _)| name), norm, &own, NORM_EPS)? else {
                is_list = true;
                continue;
            };
            let border = (kernel - own.kernel) / 2;
            for (row, part) in part.chunks_exact(own.kernel).enumerate() {
                let (plane, y) = (row / own.kernel, row % own.kernel + border);
                let to = &mut weight[(plane * kernel + y) * kernel + border..][..own.kernel];
                to.iter_mut().zip(part).for_each(|(to, part)| *to += part);
            }
            bias.iter_mut().zip(shift).for_each(|(bias, shift)| *bias += shift);
        }
        if is_list { self.folded_conv(shape, None, None) } else { self.folded_conv(shape, Some(weight), Some(bias)) }
    }

    fn folded_conv(&self, shape: Shape, weight: Option<Vec<f32>>, bias: Option<Vec<f32>>) -> Result<Conv> {
        let weight = self.place(weight, &shape.weights())?;
        let bias = self.place(bias, &[shape.outputs])?;
        Ok(Conv { shape, weight, bias: Some(bias) })
    }

    /// Weights and bias of a convolution, or of none, with the batch norm after it.
    #[expect(clippy::type_complexity, reason = "two lists of numbers, or none while a list of names is made")]
    fn folded(
        &self,
        conv: Option<&str>,
        norm: &str,
        shape: &Shape,
        eps: f64,
    ) -> Result<(Option<Vec<f32>>, Option<Vec<f32>>)> {
        let eps = eps as f32;
        let (outputs, dims) = (shape.outputs, shape.weights());
        let weight = match conv {
            Some(conv) => self.numbers(&format!("{conv}.weight"), &dims)?,
            None => Some(identity(shape)),
        };
        let [scale, shift, mean, variance] = ["weight", "bias", "running_mean", "running_var"]
            .map(|part| self.numbers(&format!("{norm}.{part}"), &[outputs]));
        let (Some(mut weight), Some(scale), Some(mut shift), Some(mean), Some(variance)) =
            (weight, scale?, shift?, mean?, variance?)
        else {
            return Ok((None, None));
        };
        let each = weight.len() / outputs.max(1);
        for (o, row) in weight.chunks_exact_mut(each.max(1)).enumerate() {
            let factor = scale[o] / (variance[o] + eps).sqrt();
            row.iter_mut().for_each(|w| *w *= factor);
            shift[o] -= mean[o] * factor;
        }
        Ok((Some(weight), Some(shift)))
    }
}

/// The 1 × 1 convolution that changes nothing.
fn identity(shape: &Shape) -> Vec<f32> {
    let per_group = shape.inputs / shape.groups;
    let at = |i: usize| if i % per_group == (i / per_group) % per_group { 1.0 } else { 0.0 };
    (0..shape.outputs * per_group).map(at).collect()
}
