//! ConvNeXt: four stages of blocks that look around with a depthwise 7 × 7 convolution and then mix channels as a transformer's
//! feed-forward half does.

use candle_core::{Result as TensorResult, Tensor};

use crate::Result;
use crate::model::config::Activation;
use crate::model::conv::{Conv, Shape, mean};
use crate::model::linear::{Linear, Norm};
use crate::model::loader::Loader;

/// Sizes of the network.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ConvNextConfig {
    /// Blocks of each stage.
    pub(crate) depths: [usize; 4],
    /// Channels of each stage.
    pub(crate) widths: [usize; 4],
    /// Added to the variance in norms.
    pub(crate) norm_eps: f64,
}

impl ConvNextConfig {
    /// Width of the pooled vector.
    pub(crate) fn features(&self) -> usize {
        self.widths[3]
    }
}

/// The network.
#[derive(Debug)]
pub(crate) struct ConvNext {
    pub(crate) stem: (Conv, Norm),
    pub(crate) stages: Vec<Stage>,
    pub(crate) norm: Norm,
}

#[derive(Debug)]
pub(crate) struct Stage {
    pub(crate) smaller: Option<(Norm, Conv)>,
    pub(crate) blocks: Vec<Block>,
}

#[derive(Debug)]
pub(crate) struct Block {
    pub(crate) around: Conv,
    pub(crate) norm: Norm,
    pub(crate) up: Linear,
    pub(crate) down: Linear,
    pub(crate) gamma: Tensor,
}

impl ConvNext {
    pub(crate) fn load(loader: &Loader, config: &ConvNextConfig) -> Result<Self> {
        let eps = config.norm_eps;
        let name = |part: &str| format!("image.trunk.{part}");
        let first = config.widths[0];
        let patches = Shape::new(3, first, 4).stride(4).padding(0);
        let stem = (loader.conv(&name("stem.0"), patches, true)?, loader.norm(&name("stem.1"), first, eps)?);
        let mut stages = Vec::new();
        let mut inputs = first;
        for (stage, (&depth, &width)) in config.depths.iter().zip(&config.widths).enumerate() {
            let name = name(&format!("stages.{stage}"));
            let smaller = if stage > 0 {
                let halves = Shape::new(inputs, width, 2).stride(2).padding(0);
                let norm = loader.norm(&format!("{name}.downsample.0"), inputs, eps)?;
                Some((norm, loader.conv(&format!("{name}.downsample.1"), halves, true)?))
            } else {
                None
            };
            let block = |i: usize| {
                let name = |part: &str| format!("{name}.blocks.{i}.{part}");
                Ok(Block {
                    around: loader.conv(&name("conv_dw"), Shape::depthwise(width, width, 7), true)?,
                    norm: loader.norm(&name("norm"), width, eps)?,
                    up: loader.linear(&name("mlp.fc1"), 4 * width, width, true)?,
                    down: loader.linear(&name("mlp.fc2"), width, 4 * width, true)?,
                    gamma: loader.tensor(&name("gamma"), &[width])?,
                })
            };
            stages.push(Stage { smaller, blocks: (0..depth).map(block).collect::<Result<_>>()? });
            inputs = width;
        }
        Ok(Self { stem, stages, norm: loader.norm(&name("head.norm"), inputs, eps)? })
    }

    /// `(batch, 3, height, width)` to `(batch, features)`.
    pub(super) fn forward(&self, x: &Tensor) -> TensorResult<Tensor> {
        let mut x = self.stem.1.forward_channels(&self.stem.0.forward(x)?)?;
        for stage in &self.stages {
            if let Some((norm, conv)) = &stage.smaller {
                x = conv.forward(&norm.forward_channels(&x)?)?;
            }
            x = stage.blocks.iter().try_fold(x, |x, block| block.forward(&x))?;
        }
        self.norm.forward(&mean(&x)?)
    }
}

impl Block {
    fn forward(&self, x: &Tensor) -> TensorResult<Tensor> {
        let inner = self.around.forward(x)?.permute((0, 2, 3, 1))?.contiguous()?; // (batch, rows, columns, width)
        let inner = self.up.forward_activated(&self.norm.forward(&inner)?, Activation::Gelu)?;
        let inner = self.down.forward(&inner)?.broadcast_mul(&self.gamma)?;
        x + inner.permute((0, 3, 1, 2))?
    }
}
