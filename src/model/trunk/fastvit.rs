//! FastViT: stages of depthwise mixing, whose last stages attend instead.
//!
//! Checkpoints hold what was trained, several branches for each convolution. Branches are linear, so a mixing step is one
//! convolution with another kernel; they are folded when the tower is built, in single precision, which moves vectors by less
//! than rounding does.

use candle_core::{Result as TensorResult, Tensor};

use crate::Result;
use crate::model::config::Activation;
use crate::model::conv::{Conv, Shape, mean};
use crate::model::linear::{Linear, Norm, activate};
use crate::model::loader::Loader;
use crate::model::transformer::attend;

/// Width of an attention head, whatever the network's.
pub(crate) const HEAD: usize = 32;

/// Sizes of the network.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct FastVitConfig {
    /// Blocks of each stage.
    pub(crate) depths: Vec<usize>,
    /// Channels of each stage.
    pub(crate) widths: Vec<usize>,
    /// Width inside the feed-forward half for each of a stage's channels.
    pub(crate) ratio: usize,
    /// Whether a stage attends.
    pub(crate) attends: Vec<bool>,
    /// Whether a stage's entry weighs its channels.
    pub(crate) weighs: Vec<bool>,
    /// Whether the entry's convolutions have a 1 × 1 branch.
    pub(crate) stem_branch: bool,
    /// Norm before attention: over channels with this epsilon, or the running one of a batch.
    pub(crate) layer_norm: Option<f64>,
}

impl FastVitConfig {
    /// Width of the pooled vector.
    pub(crate) fn features(&self) -> usize {
        2 * self.widths.last().copied().unwrap_or(0)
    }
}

/// The network.
#[derive(Debug)]
pub(crate) struct FastVit {
    pub(crate) stem: Vec<Conv>,
    pub(crate) stages: Vec<Stage>,
    pub(crate) last: Conv,
    pub(crate) last_weigher: Weigher,
}

#[derive(Debug)]
pub(crate) struct Stage {
    pub(crate) entry: Option<(Conv, Option<Weigher>, Conv)>,
    pub(crate) place: Option<Conv>,
    pub(crate) blocks: Vec<Block>,
}

#[derive(Debug)]
pub(crate) struct Block {
    pub(crate) mixer: Mixer,
    pub(crate) around: Conv,
    pub(crate) up: Conv,
    pub(crate) down: Conv,
    pub(crate) scale: Tensor,
}

#[derive(Debug)]
pub(crate) enum Mixer {
    Depthwise { branches: Conv, norm: Conv, scale: Tensor },
    Attention { norm: BeforeAttention, qkv: Linear, out: Linear, scale: Tensor },
}

#[derive(Debug)]
pub(crate) enum BeforeAttention {
    Batch(Conv),
    Channels(Norm),
}

/// Factors for each channel, from the means of all.
#[derive(Debug)]
pub(crate) struct Weigher {
    pub(crate) down: Conv,
    pub(crate) up: Conv,
}

impl FastVit {
    pub(crate) fn load(loader: &Loader, config: &FastVitConfig) -> Result<Self> {
        let name = |part: &str| format!("image.trunk.{part}");
        let first = config.widths[0];
        let branch = config.stem_branch;
        let stem = vec![
            branches(loader, &name("stem.0"), Shape::new(3, first, 3).stride(2), branch, true)?,
            branches(loader, &name("stem.1"), Shape::depthwise(first, first, 3).stride(2), branch, true)?,
            branches(loader, &name("stem.2"), Shape::new(first, first, 1), branch, true)?,
        ];
        let mut stages = Vec::new();
        let mut inputs = first;
        for (i, &width) in config.widths.iter().enumerate() {
            stages.push(Stage::load(loader, &name(&format!("stages.{i}")), config, i, inputs)?);
            inputs = width;
        }
        let outputs = config.features();
        Ok(Self {
            stem,
            stages,
            last: branches(loader, &name("final_conv"), Shape::depthwise(inputs, outputs, 3), true, true)?,
            last_weigher: Weigher::load(loader, &name("final_conv.se"), outputs, (outputs + 8) / 16)?,
        })
    }

    /// `(batch, 3, height, width)` to `(batch, features)`.
    pub(super) fn forward(&self, x: &Tensor) -> TensorResult<Tensor> {
        let mut x = x.clone();
        for conv in &self.stem {
            x = gelu(&conv.forward(&x)?)?;
        }
        for stage in &self.stages {
            x = stage.forward(&x)?;
        }
        mean(&gelu(&self.last_weigher.forward(&self.last.forward(&x)?)?)?)
    }
}

impl Stage {
    fn load(loader: &Loader, name: &str, config: &FastVitConfig, stage: usize, inputs: usize) -> Result<Self> {
        let width = config.widths[stage];
        let entry = if stage > 0 {
            let proj = |part: &str| format!("{name}.downsample.proj.{part}");
            let (large, large_norm) = (proj("0.large_conv.conv"), proj("0.large_conv.bn"));
            let (small, small_norm) = (proj("0.small_conv.conv"), proj("0.small_conv.bn"));
            let shape = Shape { groups: inputs, ..Shape::new(inputs, width, 7) }.stride(2);
            let conv = loader.conv_sum(
                shape,
                &[(Some((large.as_str(), 7)), large_norm.as_str()), (Some((small.as_str(), 3)), small_norm.as_str())],
            )?;
            let weigher = if config.weighs[stage] {
                // A quarter of the channels, as the nearest multiple of eight.
                let inner = ((width / 4 + 4) / 8 * 8).max(8);
                Some(Weigher::load(loader, &proj("0.se"), width, inner)?)
            } else {
                None
            };
            Some((conv, weigher, branches(loader, &proj("1"), Shape::new(width, width, 1), false, true)?))
        } else {
            None
        };
        let place = if config.attends[stage] {
            Some(loader.conv(&format!("{name}.pos_emb.pos_enc"), Shape::depthwise(width, width, 7), true)?)
        } else {
            None
        };
        let block = |i: usize| Block::load(loader, &format!("{name}.blocks.{i}"), config, width, config.attends[stage]);
        Ok(Self { entry, place, blocks: (0..config.depths[stage]).map(block).collect::<Result<_>>()? })
    }

    fn forward(&self, x: &Tensor) -> TensorResult<Tensor> {
        let mut x = match &self.entry {
            Some((large, weigher, mix)) => {
                let mut x = large.forward(x)?;
                if let Some(weigher) = weigher {
                    x = weigher.forward(&x)?;
                }
                gelu(&mix.forward(&gelu(&x)?)?)?
            }
            None => x.clone(),
        };
        if let Some(place) = &self.place {
            x = (place.forward(&x)? + x)?;
        }
        self.blocks.iter().try_fold(x, |x, block| block.forward(&x))
    }
}

impl Block {
    fn load(loader: &Loader, name: &str, config: &FastVitConfig, width: usize, attends: bool) -> Result<Self> {
        let part = |part: &str| format!("{name}.{part}");
        let scale = |name: &str| loader.tensor(&part(name), &[width, 1, 1]);
        let depthwise = |kernel| Shape::depthwise(width, width, kernel);
        let mixer = if attends {
            let norm = match config.layer_norm {
                Some(eps) => BeforeAttention::Channels(loader.norm(&part("norm"), width, eps)?),
                None => BeforeAttention::Batch(loader.conv_sum(depthwise(1), &[(None, part("norm").as_str())])?),
            };
            let factor = 1.0 / (HEAD as f32).sqrt();
            Mixer::Attention {
                norm,
                qkv: loader.linear_scaled(&part("token_mixer.qkv"), 3 * width, &[width], false, width, factor)?,
                out: loader.linear(&part("token_mixer.proj"), width, width, true)?,
                scale: scale("layer_scale_1.gamma")?,
            }
        } else {
            Mixer::Depthwise {
                branches: branches(loader, &part("token_mixer.mixer"), depthwise(3), true, true)?,
                norm: loader.conv_sum(depthwise(1), &[(None, part("token_mixer.norm.identity").as_str())])?,
                scale: scale("token_mixer.layer_scale.gamma")?,
            }
        };
        let hidden = config.ratio * width;
        Ok(Self {
            mixer,
            around: loader.conv_norm(&part("mlp.conv.conv"), &part("mlp.conv.bn"), depthwise(7))?,
            up: loader.conv(&part("mlp.fc1"), Shape::new(width, hidden, 1), true)?,
            down: loader.conv(&part("mlp.fc2"), Shape::new(hidden, width, 1), true)?,
            scale: scale(if attends { "layer_scale_2.gamma" } else { "layer_scale.gamma" })?,
        })
    }

    fn forward(&self, x: &Tensor) -> TensorResult<Tensor> {
        let x = match &self.mixer {
            Mixer::Depthwise { branches, norm, scale } => {
                (x + (branches.forward(x)? - norm.forward(x)?)?.broadcast_mul(scale)?)?
            }
            Mixer::Attention { norm, qkv, out, scale } => {
                let normed = match norm {
                    BeforeAttention::Batch(norm) => norm.forward(x)?,
                    BeforeAttention::Channels(norm) => norm.forward_channels(x)?,
                };
                let (batch, width, rows, columns) = x.dims4()?;
                let (tokens, heads) = (rows * columns, width / HEAD);
                let qkv = qkv.forward(&normed.flatten_from(2)?.transpose(1, 2)?)?; // (batch, tokens, 3 · width)
                let qkv = qkv.reshape((batch, tokens, 3, heads, HEAD))?.permute((2, 0, 3, 1, 4))?.contiguous()?;
                let attended = attend(&qkv.get(0)?, &qkv.get(1)?, &qkv.get(2)?, None)?;
                let attended = out.forward(&attended.transpose(1, 2)?.reshape((batch, tokens, width))?)?;
                let attended = attended.transpose(1, 2)?.reshape((batch, width, rows, columns))?;
                (x + attended.broadcast_mul(scale)?)?
            }
        };
        let inner = gelu(&self.up.forward(&self.around.forward(&x)?)?)?;
        &x + self.down.forward(&inner)?.broadcast_mul(&self.scale)?
    }
}

impl Weigher {
    fn load(loader: &Loader, name: &str, width: usize, inner: usize) -> Result<Self> {
        Ok(Self {
            down: loader.conv(&format!("{name}.fc1"), Shape::new(width, inner, 1), true)?,
            up: loader.conv(&format!("{name}.fc2"), Shape::new(inner, width, 1), true)?,
        })
    }

    fn forward(&self, x: &Tensor) -> TensorResult<Tensor> {
        let (batch, channels, ..) = x.dims4()?;
        let means = mean(x)?.reshape((batch, channels, 1, 1))?;
        let weights = candle_nn::ops::sigmoid(&self.up.forward(&self.down.forward(&means)?.relu()?)?)?;
        x.broadcast_mul(&weights)
    }
}

/// A convolution of the branches that a checkpoint has for it: the kernel itself, a 1 × 1 one, and none where the shape stays.
fn branches(loader: &Loader, name: &str, shape: Shape, branch: bool, kernel: bool) -> Result<Conv> {
    let part = |part: &str| format!("{name}.{part}");
    let (own, own_norm) = (part("conv_kxk.0.conv"), part("conv_kxk.0.bn"));
    let (one, one_norm) = (part("conv_scale.conv"), part("conv_scale.bn"));
    let identity = part("identity");
    let mut list: Vec<(Option<(&str, usize)>, &str)> = Vec::new();
    if kernel {
        list.push((Some((own.as_str(), shape.kernel)), own_norm.as_str()));
    }
    if branch && shape.kernel > 1 {
        list.push((Some((one.as_str(), 1)), one_norm.as_str()));
    }
    if shape.inputs == shape.outputs && shape.stride == 1 {
        list.push((None, identity.as_str()));
    }
    loader.conv_sum(shape, &list)
}

fn gelu(x: &Tensor) -> TensorResult<Tensor> {
    activate(x, Activation::Gelu)
}
