//! FastViT: everything that is linear between two activations is one convolution, a block's own entry included.

use super::super::channelwise::Channelwise;
use super::super::conv::{Conv, Photos, numbers, raw};
use super::super::dense::Raw;
use super::super::finish::{Activation, Epilogue};
use super::super::parts::Parts;
use super::super::simd::Isa;
use super::attend::Attend;
use super::mix::{Mix, scaled};
use super::weigher::Weigher;
use super::{Input, Room};
use crate::Result;
use crate::model::conv;
use crate::model::trunk::fastvit;

/// Bias, then GELU.
const GELU: Epilogue = Epilogue::activate(Activation::Gelu);

/// The network.
pub(super) struct FastVit {
    stem: (Conv, Channelwise, Conv),
    stages: Vec<Stage>,
    last: Channelwise,
    last_weigher: Weigher,
    /// Where the features stand in what the last layer leaves.
    order: Vec<usize>,
}

struct Stage {
    entry: Option<(Channelwise, Option<Weigher>, Conv)>,
    place: Option<Channelwise>,
    blocks: Vec<Block>,
}

struct Block {
    mixer: Mixer,
    around: Channelwise,
    mix: Mix,
}

enum Mixer {
    /// With the block's input, factors and norms in its weights.
    Around(Channelwise),
    Attention(Attend),
}

impl FastVit {
    /// Packs the network, or takes it packed.
    pub(super) fn take(parts: &mut Parts, isa: Isa, from: fastvit::FastVit) -> Result<Self> {
        let [first, second, third] = [&from.stem[0], &from.stem[1], &from.stem[2]];
        let stem = (
            Conv::take(parts, isa, first.shape, || raw(first))?,
            channelwise(parts, isa, second)?,
            Conv::take(parts, isa, third.shape, || raw(third))?,
        );
        let stages = from.stages.into_iter().map(|stage| Stage::take(parts, isa, &stage)).collect::<Result<_>>()?;
        let order = Channelwise::order(&from.last.shape);
        let last = channelwise(parts, isa, &from.last)?;
        let last_weigher = Weigher::take(parts, isa, &from.last_weigher, &order)?;
        Ok(Self { stem, stages, last, last_weigher, order })
    }

    /// Rows of twice the last stage's width.
    pub(super) fn forward(&self, photos: Photos<'_>, out: &mut [f32], room: &mut Room) {
        let count = photos.size().pictures;
        let mut pixels = photos.rows * photos.columns / 16;
        for (i, stage) in self.stages.iter().enumerate() {
            room.stage((i == 0).then_some(photos), count, pixels, |input, room| {
                self.enter(stage, input, room);
                stage.forward(room);
            });
            pixels /= 4;
        }
        let Room { before, y, .. } = room;
        self.last.apply(before.view(), y, Activation::None);
        self.last_weigher.apply(y, Activation::Gelu);
        let mut means = vec![0.0; out.len()];
        y.view().means(&mut means); // (count, features), in the order of the layer
        let width = self.order.len();
        for (out, means) in out.chunks_exact_mut(width).zip(means.chunks_exact(width)) {
            means.iter().zip(&self.order).for_each(|(mean, &at)| out[at] = *mean);
        }
    }

    /// Makes in `x` what the first block of a stage sees.
    fn enter(&self, stage: &Stage, input: Input<'_>, room: &mut Room) {
        let Room { x, y, gathered, .. } = room;
        match input {
            Input::Photos(photos) => {
                let (first, second, third) = &self.stem;
                first.apply_bytes(photos, x, gathered, GELU);
                second.apply(x.view(), y, Activation::Gelu);
                third.apply(y.view(), x, gathered, GELU);
            }
            Input::Pixels(view) => match &stage.entry {
                Some((around, weigher, mix)) => {
                    let activation = if weigher.is_some() { Activation::None } else { Activation::Gelu };
                    around.apply(view, y, activation);
                    if let Some(weigher) = weigher {
                        weigher.apply(y, Activation::Gelu);
                    }
                    mix.apply(y.view(), x, gathered, GELU);
                }
                None => {
                    x.shape(view.size());
                    x.put(0, view);
                }
            },
        }
        if let Some(place) = &stage.place {
            place.apply(x.view(), y, Activation::None);
            std::mem::swap(x, y);
        }
    }
}

impl Stage {
    fn take(parts: &mut Parts, isa: Isa, from: &fastvit::Stage) -> Result<Self> {
        let entry = match &from.entry {
            Some((around, weigher, mix)) => {
                let order = Channelwise::order(&around.shape);
                let around = channelwise(parts, isa, around)?;
                let weigher = weigher.as_ref().map(|w| Weigher::take(parts, isa, w, &order)).transpose()?;
                let mix = Conv::take(parts, isa, mix.shape, || Ok(reordered(raw(mix)?, &order)))?;
                Some((around, weigher, mix))
            }
            None => None,
        };
        let place = match &from.place {
            Some(conv) => Some(Channelwise::take(parts, isa, conv.shape, || {
                let Raw { mut weights, bias } = raw(conv)?;
                add_centre(&mut weights, conv.shape.kernel, |_| 1.0);
                Ok((weights, bias))
            })?),
            None => None,
        };
        let blocks = from.blocks.iter().map(|block| Block::take(parts, isa, block)).collect::<Result<_>>()?;
        Ok(Self { entry, place, blocks })
    }

    /// The blocks, from `x` to `x`.
    fn forward(&self, room: &mut Room) {
        for block in &self.blocks {
            match &block.mixer {
                Mixer::Around(around) => {
                    around.apply(room.x.view(), &mut room.y, Activation::None);
                    std::mem::swap(&mut room.x, &mut room.y);
                }
                Mixer::Attention(attend) => attend.apply(room),
            }
            let Room { x, y, inner, .. } = room;
            block.around.apply(x.view(), y, Activation::None);
            block.mix.apply(y, x, inner, |_| {});
        }
    }
}

impl Block {
    fn take(parts: &mut Parts, isa: Isa, from: &fastvit::Block) -> Result<Self> {
        let mixer = match &from.mixer {
            fastvit::Mixer::Depthwise { branches, norm, scale } => {
                Mixer::Around(Channelwise::take(parts, isa, branches.shape, || {
                    // x + scale · (branches - norm), which is one kernel.
                    let (branches_raw, norm, scale) = (raw(branches)?, raw(norm)?, numbers(scale)?);
                    let kernel = branches.shape.kernel;
                    let mut weights = branches_raw.weights;
                    for (taps, scale) in weights.chunks_exact_mut(kernel * kernel).zip(&scale) {
                        taps.iter_mut().for_each(|w| *w *= scale);
                    }
                    add_centre(&mut weights, kernel, |c| 1.0 - scale[c] * norm.weights[c]);
                    let bias = branches_raw.bias.iter().zip(&norm.bias).zip(&scale).map(|((b, n), s)| s * (b - n));
                    Ok((weights, bias.collect()))
                })?)
            }
            fastvit::Mixer::Attention { norm, qkv, out, scale } => {
                Mixer::Attention(Attend::take(parts, isa, from.around.shape.inputs, norm, (qkv, out, scale))?)
            }
        };
        let around = channelwise(parts, isa, &from.around)?;
        let sizes = (from.up.shape.inputs, from.up.shape.outputs);
        let down = || Ok(scaled(raw(&from.down)?, &numbers(&from.scale)?));
        Ok(Self { mixer, around, mix: Mix::take(parts, isa, sizes, || raw(&from.up), down)? })
    }
}

fn channelwise(parts: &mut Parts, isa: Isa, from: &conv::Conv) -> Result<Channelwise> {
    Channelwise::take(parts, isa, from.shape, || {
        let Raw { weights, bias } = raw(from)?;
        Ok((weights, bias))
    })
}

/// Adds to the middle of each channel's kernel.
fn add_centre(weights: &mut [f32], kernel: usize, value: impl Fn(usize) -> f32) {
    for (c, taps) in weights.chunks_exact_mut(kernel * kernel).enumerate() {
        taps[kernel * kernel / 2] += value(c);
    }
}

/// Weights for inputs that stand in another order.
pub(super) fn reordered(raw: Raw, order: &[usize]) -> Raw {
    let weights = raw.weights.chunks_exact(order.len()).flat_map(|row| order.iter().map(|&at| row[at])).collect();
    Raw { weights, bias: raw.bias }
}
