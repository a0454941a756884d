//! Convolutions and pooling over pictures `(batch, channels, height, width)`.
//!
//! A 1 × 1 convolution is a product, and the others are candle's, but for depthwise ones: candle splits those into as many
//! convolutions as there are channels. Trunks run on the kernels of [`cpu`](super::cpu) instead; this is their reference.

use candle_core::{CpuStorage, CustomOp2, Layout, Result as TensorResult, Shape as TensorShape, Tensor};
use rayon::prelude::*;

/// Sizes of a convolution with a square kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) inputs: usize,
    pub(super) outputs: usize,
    pub(super) kernel: usize,
    pub(super) stride: usize,
    pub(super) padding: usize,
    pub(super) groups: usize,
}

impl Shape {
    /// One group, padded so that a step of one keeps the size.
    pub(super) fn new(inputs: usize, outputs: usize, kernel: usize) -> Self {
        Self { inputs, outputs, kernel, stride: 1, padding: kernel / 2, groups: 1 }
    }

    /// Each channel by itself; `outputs` is a multiple of `inputs`.
    pub(super) fn depthwise(inputs: usize, outputs: usize, kernel: usize) -> Self {
        Self { groups: inputs, ..Self::new(inputs, outputs, kernel) }
    }

    /// The same with steps of `stride`.
    pub(super) fn stride(self, stride: usize) -> Self {
        Self { stride, ..self }
    }

    /// The same with `padding` zeros on each side.
    pub(super) fn padding(self, padding: usize) -> Self {
        Self { padding, ..self }
    }

    /// The shape of its weights.
    pub(super) fn weights(&self) -> [usize; 4] {
        [self.outputs, self.inputs / self.groups.max(1), self.kernel, self.kernel]
    }
}

/// A convolution.
#[derive(Debug)]
pub(super) struct Conv {
    pub(super) shape: Shape,
    pub(super) weight: Tensor,
    pub(super) bias: Option<Tensor>,
}

impl Conv {
    /// `(batch, inputs, height, width)` to `(batch, outputs, …)`.
    pub(super) fn forward(&self, x: &Tensor) -> TensorResult<Tensor> {
        let Shape { inputs, outputs, kernel, stride, padding, groups } = self.shape;
        let out = if kernel == 1 && stride == 1 && groups == 1 {
            let (batch, _, height, width) = x.dims4()?;
            let x = x.contiguous()?.reshape((batch, inputs, height * width))?;
            let weight = self.weight.reshape((outputs, inputs))?;
            weight.broadcast_matmul(&x)?.reshape((batch, outputs, height, width))?
        } else if groups == inputs && groups > 1 && x.device().is_cpu() {
            x.contiguous()?.apply_op2_no_bwd(&self.weight, &Depthwise(self.shape))?
        } else {
            x.contiguous()?.conv2d(&self.weight, padding, stride, 1, groups)?
        };
        match &self.bias {
            Some(bias) => out.broadcast_add(&bias.reshape((1, outputs, 1, 1))?),
            None => Ok(out),
        }
    }
}

/// A convolution of each channel by itself, as sums of shifted rows.
struct Depthwise(Shape);

impl CustomOp2 for Depthwise {
    fn name(&self) -> &'static str {
        "depthwise"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
    ) -> TensorResult<(CpuStorage, TensorShape)> {
        let (Some((from, to)), Some((weight_from, weight_to))) =
            (x_layout.contiguous_offsets(), weight_layout.contiguous_offsets())
        else {
            candle_core::bail!("depthwise convolution works on contiguous tensors");
        };
        let (x, weight) = (&x.as_slice::<f32>()?[from..to], &weight.as_slice::<f32>()?[weight_from..weight_to]);
        let (batch, channels, height, width) = x_layout.shape().dims4()?;
        let Shape { outputs, kernel, stride, padding, .. } = self.0;
        let out = |size: usize| (size + 2 * padding - kernel) / stride + 1;
        let (rows, columns) = (out(height), out(width));
        let mut all = vec![0.0; batch * outputs * rows * columns];
        let each = outputs / channels;
        all.par_chunks_exact_mut(rows * columns).enumerate().for_each(|(plane, all)| {
            let (picture, output) = (plane / outputs, plane % outputs);
            let x = &x[(picture * channels + output / each) * height * width..][..height * width];
            let weight = &weight[output * kernel * kernel..][..kernel * kernel];
            for (row, to) in all.chunks_exact_mut(columns).enumerate() {
                for ky in 0..kernel {
                    let Some(y) = (row * stride + ky).checked_sub(padding).filter(|&y| y < height) else { continue };
                    let from = &x[y * width..][..width];
                    for kx in 0..kernel {
                        // The columns whose source lies in the row.
                        let first = padding.saturating_sub(kx).div_ceil(stride);
                        let end = (width + padding).saturating_sub(kx).div_ceil(stride).min(columns);
                        if first >= end {
                            continue;
                        }
                        let w = weight[ky * kernel + kx];
                        let from = &from[first * stride + kx - padding..];
                        if stride == 1 {
                            to[first..end].iter_mut().zip(from).for_each(|(to, x)| *to += w * x);
                        } else {
                            to[first..end].iter_mut().zip(from.iter().step_by(stride)).for_each(|(to, x)| *to += w * x);
                        }
                    }
                }
            }
        });
        Ok((CpuStorage::F32(all), (batch, outputs, rows, columns).into()))
    }
}

/// The mean over height and width: `(batch, channels, height, width)` to `(batch, channels)`.
pub(super) fn mean(x: &Tensor) -> TensorResult<Tensor> {
    x.flatten_from(2)?.mean(2)
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn depthwise_convolutions_are_those_of_the_definition() {
        for (inputs, each, kernel, stride, padding, size) in
            [(3, 1, 3, 1, 1, (5, 7)), (2, 2, 7, 2, 3, (9, 6)), (4, 1, 3, 2, 1, (2, 3)), (2, 1, 5, 3, 0, (8, 11))]
        {
            let shape = Shape { inputs, outputs: inputs * each, kernel, stride, padding, groups: inputs };
            let x = Tensor::randn(0.0_f32, 1.0, (2, inputs, size.0, size.1), &Device::Cpu).unwrap();
            let weight = Tensor::randn(0.0_f32, 1.0, &shape.weights(), &Device::Cpu).unwrap();
            let expected = x.conv2d(&weight, padding, stride, 1, inputs).unwrap();
            let found = Conv { shape, weight, bias: None }.forward(&x).unwrap();
            assert_eq!(found.dims(), expected.dims());
            let off = (found - expected).unwrap().abs().unwrap().flatten_all().unwrap().max(0).unwrap();
            assert!(off.to_scalar::<f32>().unwrap() < 1e-4, "{shape:?}");
        }
    }
}
