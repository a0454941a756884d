//! Convolutions that make the tokens of a vision transformer.

use candle_core::{Result as TensorResult, Tensor};

use crate::Result;
use crate::model::config::Activation;
use crate::model::conv::{Conv, Shape};
use crate::model::linear::{Norm, activate};
use crate::model::loader::Loader;

/// A stem.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum StemConfig {
    /// Three convolutions without overlap, of 4 × 4 and twice 2 × 2, with batch norms between them.
    Tiles {
        /// Channels of each.
        widths: [usize; 3],
    },
    /// Two stages of inverted bottlenecks with layer norms, halving the picture four times in all.
    Bottlenecks {
        /// Channels of the entry and of the two stages.
        widths: [usize; 3],
        /// Channels that come out.
        out: usize,
        /// Blocks of the stages.
        depths: [usize; 2],
    },
}

impl StemConfig {
    /// Rows and columns of tokens.
    pub(crate) fn grid(&self, image: (usize, usize)) -> (usize, usize) {
        let edge = |edge: usize| match self {
            StemConfig::Tiles { .. } => edge / 4 / 2 / 2,
            StemConfig::Bottlenecks { .. } => (0..4).fold(edge, |edge, _| edge.div_ceil(2)),
        };
        (edge(image.0), edge(image.1))
    }
}

/// A loaded stem.
#[derive(Debug)]
pub(crate) enum Stem {
    Tiles([Conv; 3]),
    Bottlenecks { entry: (Conv, Norm, Conv), blocks: Vec<Bottleneck>, last: (Norm, Conv) },
}

#[derive(Debug)]
pub(crate) struct Bottleneck {
    /// Whether it halves the picture.
    halves: bool,
    shortcut: Option<Conv>,
    norm: Norm,
    wide: Conv,
    around: Conv,
    narrow: Conv,
}

impl Stem {
    /// Reads the stem.
    pub(crate) fn load(loader: &Loader, config: &StemConfig) -> Result<Self> {
        const EPS: f64 = 1e-6;
        let name = |part: &str| format!("image.trunk.patch_embed.backbone.{part}");
        match *config {
            StemConfig::Tiles { widths: [a, b, c] } => {
                let tile = |inputs, outputs, kernel| Shape::new(inputs, outputs, kernel).stride(kernel).padding(0);
                let with_norm =
                    |i: usize, shape| loader.conv_norm(&name(&format!("{i}.conv")), &name(&format!("{i}.bn")), shape);
                Ok(Stem::Tiles([
                    with_norm(0, tile(3, a, 4))?,
                    with_norm(1, tile(a, b, 2))?,
                    loader.conv(&name("2.conv"), tile(b, c, 2), true)?,
                ]))
            }
            StemConfig::Bottlenecks { widths: [first, one, two], out, depths } => {
                let entry = (
                    loader.conv(&name("stem.conv1"), Shape::new(3, first, 3).stride(2), true)?,
                    loader.norm(&name("stem.norm1"), first, EPS)?,
                    loader.conv(&name("stem.conv2"), Shape::new(first, first, 3), true)?,
                );
                let mut blocks = Vec::new();
                let mut inputs = first;
                for (stage, (depth, width)) in depths.into_iter().zip([one, two]).enumerate() {
                    for i in 0..depth {
                        let name = name(&format!("stages.{stage}.{i}"));
                        blocks.push(Bottleneck::load(loader, &name, inputs, width, i == 0, EPS)?);
                        inputs = width;
                    }
                }
                let last = (
                    loader.norm(&name("pool.norm"), inputs, EPS)?,
                    loader.conv(&name("pool.proj"), Shape::new(inputs, out, 3).stride(2), true)?,
                );
                Ok(Stem::Bottlenecks { entry, blocks, last })
            }
        }
    }

    /// `(batch, 3, height, width)` to `(batch, channels, rows, columns)`.
    pub(crate) fn forward(&self, x: &Tensor) -> TensorResult<Tensor> {
        match self {
            Stem::Tiles([a, b, c]) => c.forward(&gelu(&b.forward(&gelu(&a.forward(x)?)?)?)?),
            Stem::Bottlenecks { entry: (first, norm, second), blocks, last: (last_norm, last) } => {
                let x = second.forward(&gelu(&norm.forward_channels(&first.forward(x)?)?)?)?;
                let x = blocks.iter().try_fold(x, |x, block| block.forward(&x))?;
                last.forward(&last_norm.forward_channels(&x)?)
            }
        }
    }
}

impl Bottleneck {
    fn load(loader: &Loader, name: &str, inputs: usize, outputs: usize, halves: bool, eps: f64) -> Result<Self> {
        let part = |part: &str| format!("{name}.{part}");
        let inner = 4 * outputs;
        let step = if halves { 2 } else { 1 };
        let shortcut = if inputs != outputs {
            let name = part(if halves { "shortcut.expand" } else { "shortcut" });
            Some(loader.conv(&name, Shape::new(inputs, outputs, 1), true)?)
        } else {
            None
        };
        Ok(Self {
            halves,
            shortcut,
            norm: loader.norm(&part("pre_norm"), inputs, eps)?,
            wide: loader.conv(&part("conv1_1x1"), Shape::new(inputs, inner, 1), true)?,
            around: loader.conv(&part("conv2_kxk"), Shape::depthwise(inner, inner, 3).stride(step), true)?,
            narrow: loader.conv(&part("conv3_1x1"), Shape::new(inner, outputs, 1), true)?,
        })
    }

    fn forward(&self, x: &Tensor) -> TensorResult<Tensor> {
        let mut shortcut = if self.halves { halve(x)? } else { x.clone() };
        if let Some(conv) = &self.shortcut {
            shortcut = conv.forward(&shortcut)?;
        }
        let inner = gelu(&self.wide.forward(&self.norm.forward_channels(x)?)?)?;
        let inner = gelu(&self.around.forward(&inner)?)?;
        self.narrow.forward(&inner)? + shortcut
    }
}

/// The average of 3 × 3 places at every second one, over those of the nine that lie in the picture.
fn halve(x: &Tensor) -> TensorResult<Tensor> {
    let (_, channels, height, width) = x.dims4()?;
    let ones = Tensor::ones((channels, 1, 3, 3), x.dtype(), x.device())?;
    let sums =
        Conv { shape: Shape::depthwise(channels, channels, 3).stride(2), weight: ones, bias: None }.forward(x)?;
    let one = Tensor::ones((1, 1, height, width), x.dtype(), x.device())?;
    let counts = one.conv2d(&Tensor::ones((1, 1, 3, 3), x.dtype(), x.device())?, 1, 2, 1, 1)?;
    sums.broadcast_div(&counts)
}

fn gelu(x: &Tensor) -> TensorResult<Tensor> {
    activate(x, Activation::Gelu)
}
