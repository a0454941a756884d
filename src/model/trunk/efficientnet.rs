//! EfficientNet: blocks that widen with a 1 × 1 convolution, look around with a depthwise one, weigh their channels by what all
//! places say, and narrow again. The mean of the last map is the picture's vector.

use candle_core::{Result as TensorResult, Tensor};

use crate::Result;
use crate::model::conv::{Conv, Shape, mean};
use crate::model::loader::Loader;

/// Sizes of the network.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct EfficientNetConfig {
    /// Channels of the first convolution.
    pub(crate) stem: usize,
    /// The blocks one after the other.
    pub(crate) blocks: Vec<BlockConfig>,
    /// Added to the variance in batch norms.
    pub(crate) norm_eps: f64,
}

/// Sizes of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BlockConfig {
    /// Channels that go in.
    pub(crate) inputs: usize,
    /// Channels inside; where they are those that go in, nothing widens them.
    pub(crate) inner: usize,
    /// Channels between the two maps that weigh the inner ones.
    pub(crate) squeezed: usize,
    /// Channels that come out.
    pub(crate) outputs: usize,
    /// Edge of the depthwise kernel.
    pub(crate) kernel: usize,
    /// Steps of it: 1 or 2.
    pub(crate) stride: usize,
    /// With steps of 2, whether as many zeros stand before the picture as after it, or one less.
    pub(crate) even: bool,
    /// Whether what went in is added.
    pub(crate) residual: bool,
}

impl EfficientNetConfig {
    /// Width of the pooled vector.
    pub(crate) fn features(&self) -> usize {
        self.blocks.last().map_or(self.stem, |block| block.outputs)
    }
}

/// The network.
#[derive(Debug)]
pub(super) struct EfficientNet {
    stem: Conv,
    blocks: Vec<Block>,
}

#[derive(Debug)]
struct Block {
    config: BlockConfig,
    widen: Option<Conv>,
    around: Conv,
    reduce: Conv,
    expand: Conv,
    narrow: Conv,
}

impl EfficientNet {
    pub(super) fn load(loader: &Loader, config: &EfficientNetConfig) -> Result<Self> {
        let eps = config.norm_eps;
        let conv = |conv: &str, norm: &str, shape: Shape| {
            loader.conv_norm_with(&format!("image.trunk.{conv}"), &format!("image.trunk.{norm}"), shape, eps)
        };
        let halves = Shape::new(3, config.stem, 3).stride(2).padding(0);
        let stem = conv("embeddings.convolution", "embeddings.batchnorm", halves)?;
        let block = |(i, block): (usize, &BlockConfig)| {
            let BlockConfig { inputs, inner, squeezed, outputs, kernel, stride, .. } = *block;
            let name = |part: &str| format!("encoder.blocks.{i}.{part}");
            let conv = |first: &str, second: &str, shape: Shape| conv(&name(first), &name(second), shape);
            let weigh = |part: &str, from: usize, to: usize| {
                loader.conv(&format!("image.trunk.{}", name(part)), Shape::new(from, to, 1), true)
            };
            let around = Shape::depthwise(inner, inner, kernel).stride(stride);
            Ok(Block {
                config: *block,
                widen: match inner != inputs {
                    true => Some(conv("expansion.expand_conv", "expansion.expand_bn", Shape::new(inputs, inner, 1))?),
                    false => None,
                },
                around: conv(
                    "depthwise_conv.depthwise_conv",
                    "depthwise_conv.depthwise_norm",
                    if stride == 1 { around } else { around.padding(0) },
                )?,
                reduce: weigh("squeeze_excite.reduce", inner, squeezed)?,
                expand: weigh("squeeze_excite.expand", squeezed, inner)?,
                narrow: conv("projection.project_conv", "projection.project_bn", Shape::new(inner, outputs, 1))?,
            })
        };
        Ok(Self { stem, blocks: config.blocks.iter().enumerate().map(block).collect::<Result<_>>()? })
    }

    /// `(batch, 3, height, width)` to `(batch, features)`.
    pub(super) fn forward(&self, x: &Tensor) -> TensorResult<Tensor> {
        let x = self.stem.forward(&bordered(x, 0, 1)?)?.silu()?;
        let x = self.blocks.iter().try_fold(x, |x, block| block.forward(&x))?;
        mean(&x)
    }
}

impl Block {
    fn forward(&self, x: &Tensor) -> TensorResult<Tensor> {
        let mut inner = match &self.widen {
            Some(widen) => widen.forward(x)?.silu()?,
            None => x.clone(),
        }; // (batch, inner, height, width)
        if self.config.stride != 1 {
            let after = self.config.kernel / 2;
            inner = bordered(&inner, after - usize::from(!self.config.even), after)?;
        }
        let inner = self.around.forward(&inner)?.silu()?;
        let (batch, channels, _, _) = inner.dims4()?;
        let means = mean(&inner)?.reshape((batch, channels, 1, 1))?;
        let weights = candle_nn::ops::sigmoid(&self.expand.forward(&self.reduce.forward(&means)?.silu()?)?)?;
        let out = self.narrow.forward(&inner.broadcast_mul(&weights)?)?;
        if self.config.residual { out + x } else { Ok(out) }
    }
}

/// Zeros around a picture: above and at the left, below and at the right.
fn bordered(x: &Tensor, before: usize, after: usize) -> TensorResult<Tensor> {
    x.pad_with_zeros(2, before, after)?.pad_with_zeros(3, before, after)
}
