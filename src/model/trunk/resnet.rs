//! The residual network of the first CLIP models: three convolutions at the entry, strides behind an average (which keeps them
//! from aliasing), and a query of the mean that looks at all places instead of an average.

use candle_core::{Result as TensorResult, Tensor};

use crate::Result;
use crate::model::conv::{Conv, Shape};
use crate::model::linear::Linear;
use crate::model::loader::Loader;
use crate::model::transformer::attend;

/// Channels of a block's result for each of its own.
const EXPANSION: usize = 4;

/// Sizes of the network.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ResNetConfig {
    /// Blocks of each stage.
    pub(crate) layers: [usize; 4],
    /// Channels of the first stage's blocks.
    pub(crate) width: usize,
    /// Heads of the attention at the end.
    pub(crate) heads: usize,
    /// Numbers that it puts out.
    pub(crate) dim: usize,
}

impl ResNetConfig {
    /// Width of the pooled vector.
    pub(crate) fn features(&self) -> usize {
        self.dim
    }
}

/// The network.
#[derive(Debug)]
pub(crate) struct ResNet {
    pub(crate) stem: [Conv; 3],
    pub(crate) blocks: Vec<Bottleneck>,
    pub(crate) heads: usize,
    pub(crate) position: Tensor,
    pub(crate) q: Linear,
    pub(crate) k: Linear,
    pub(crate) v: Linear,
    pub(crate) out: Linear,
}

#[derive(Debug)]
pub(crate) struct Bottleneck {
    pub(crate) stride: usize,
    pub(crate) convs: [Conv; 3],
    pub(crate) shortcut: Option<Conv>,
}

impl ResNet {
    pub(crate) fn load(loader: &Loader, config: &ResNetConfig, image: (usize, usize)) -> Result<Self> {
        let width = config.width;
        let name = |part: &str| format!("image.trunk.{part}");
        let stem = |i: usize, shape| loader.conv_norm(&name(&format!("conv{i}")), &name(&format!("bn{i}")), shape);
        let stem = [
            stem(1, Shape::new(3, width / 2, 3).stride(2))?,
            stem(2, Shape::new(width / 2, width / 2, 3))?,
            stem(3, Shape::new(width / 2, width, 3))?,
        ];
        let mut blocks = Vec::new();
        let mut inputs = width;
        for (stage, &layers) in config.layers.iter().enumerate() {
            let planes = width << stage;
            for i in 0..layers {
                let stride = if stage > 0 && i == 0 { 2 } else { 1 };
                let name = name(&format!("layer{}.{i}", stage + 1));
                blocks.push(Bottleneck::load(loader, &name, inputs, planes, stride)?);
                inputs = planes * EXPANSION;
            }
        }
        let scale = 1.0 / ((inputs / config.heads) as f32).sqrt();
        let places = (image.0 / 32) * (image.1 / 32);
        Ok(Self {
            stem,
            blocks,
            heads: config.heads,
            position: loader.tensor(&name("attnpool.positional_embedding"), &[places + 1, inputs])?,
            q: loader.linear_scaled(&name("attnpool.q_proj"), inputs, &[inputs], true, inputs, scale)?,
            k: loader.linear(&name("attnpool.k_proj"), inputs, inputs, true)?,
            v: loader.linear(&name("attnpool.v_proj"), inputs, inputs, true)?,
            out: loader.linear(&name("attnpool.c_proj"), config.dim, inputs, true)?,
        })
    }

    /// `(batch, 3, height, width)` to `(batch, dim)`.
    pub(super) fn forward(&self, x: &Tensor) -> TensorResult<Tensor> {
        let x = self.stem.iter().try_fold(x.clone(), |x, conv| conv.forward(&x)?.relu())?.avg_pool2d(2)?;
        let x = self.blocks.iter().try_fold(x, |x, block| block.forward(&x))?; // (batch, channels, rows, columns)
        let x = x.flatten_from(2)?.transpose(1, 2)?; // (batch, places, channels)
        let x = Tensor::cat(&[&x.mean_keepdim(1)?, &x], 1)?.broadcast_add(&self.position)?;
        let (batch, tokens, width) = x.dims3()?;
        let split =
            |x: Tensor, tokens: usize| x.reshape((batch, tokens, self.heads, width / self.heads))?.transpose(1, 2);
        let q = split(self.q.forward(&x.narrow(1, 0, 1)?.contiguous()?)?, 1)?;
        let attended = attend(&q, &split(self.k.forward(&x)?, tokens)?, &split(self.v.forward(&x)?, tokens)?, None)?;
        self.out.forward(&attended.reshape((batch, width))?)
    }
}

impl Bottleneck {
    fn load(loader: &Loader, name: &str, inputs: usize, planes: usize, stride: usize) -> Result<Self> {
        let conv = |i: usize, shape| loader.conv_norm(&format!("{name}.conv{i}"), &format!("{name}.bn{i}"), shape);
        let outputs = planes * EXPANSION;
        let convs = [
            conv(1, Shape::new(inputs, planes, 1))?,
            conv(2, Shape::new(planes, planes, 3))?,
            conv(3, Shape::new(planes, outputs, 1))?,
        ];
        let shortcut = if stride > 1 || inputs != outputs {
            let (conv, norm) = (format!("{name}.downsample.0"), format!("{name}.downsample.1"));
            Some(loader.conv_norm(&conv, &norm, Shape::new(inputs, outputs, 1))?)
        } else {
            None
        };
        Ok(Self { stride, convs, shortcut })
    }

    fn forward(&self, x: &Tensor) -> TensorResult<Tensor> {
        let pooled = |x: Tensor| if self.stride > 1 { x.avg_pool2d(self.stride) } else { Ok(x) };
        let inner = self.convs[1].forward(&self.convs[0].forward(x)?.relu()?)?.relu()?;
        let out = self.convs[2].forward(&pooled(inner)?)?;
        let shortcut = match &self.shortcut {
            Some(conv) => conv.forward(&pooled(x.clone())?)?,
            None => x.clone(),
        };
        (out + shortcut)?.relu()
    }
}
