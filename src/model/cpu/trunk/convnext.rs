//! ConvNeXt: depthwise 7 × 7, a norm of each pixel, and a feed-forward half, whose layer scale is multiplied into its last map.

use super::super::channelwise::Channelwise;
use super::super::conv::{Conv, Photos, numbers, raw};
use super::super::dense::Raw;
use super::super::finish::{Activation, Epilogue};
use super::super::norm::LayerNorm;
use super::super::parts::Parts;
use super::super::simd::Isa;
use super::mix::{Mix, scaled};
use super::{Input, Room};
use crate::Result;
use crate::model::linear::{Linear, Norm, tensor_error};
use crate::model::trunk::convnext;

/// The network.
pub(super) struct ConvNext {
    stages: Vec<Stage>,
    norm: LayerNorm,
}

struct Stage {
    channels: usize,
    entry: Entry,
    blocks: Vec<Block>,
}

/// How a stage's pictures become smaller than those before.
enum Entry {
    /// Of photos: patches, and a norm after them.
    Patches(Conv, LayerNorm),
    /// A norm and a convolution.
    Smaller(LayerNorm, Conv),
    /// Not at all.
    Same,
}

struct Block {
    around: Channelwise,
    norm: LayerNorm,
    mix: Mix,
}

impl ConvNext {
    /// Packs the network, or takes it packed.
    pub(super) fn take(parts: &mut Parts, isa: Isa, from: convnext::ConvNext) -> Result<Self> {
        let mut channels = from.stem.0.shape.outputs;
        let mut entry = Entry::Patches(
            Conv::take(parts, isa, from.stem.0.shape, || raw(&from.stem.0))?,
            norm(parts, isa, channels, &from.stem.1)?,
        );
        let mut stages = Vec::new();
        for stage in from.stages {
            if let Some((before, conv)) = &stage.smaller {
                let before = norm(parts, isa, conv.shape.inputs, before)?;
                entry = Entry::Smaller(before, Conv::take(parts, isa, conv.shape, || raw(conv))?);
                channels = conv.shape.outputs;
            }
            let blocks = stage.blocks.into_iter().map(|block| Block::take(parts, isa, channels, &block));
            let blocks = blocks.collect::<Result<_>>()?;
            stages.push(Stage { channels, entry: std::mem::replace(&mut entry, Entry::Same), blocks });
        }
        Ok(Self { stages, norm: norm(parts, isa, channels, &from.norm)? })
    }

    /// Rows of the last stage's width.
    pub(super) fn forward(&self, photos: Photos<'_>, out: &mut [f32], room: &mut Room) {
        let count = photos.size().pictures;
        for (i, stage) in self.stages.iter().enumerate() {
            let photos = (i == 0).then_some(photos);
            let size = photos.map_or(room.before.size(), |photos| photos.size());
            let pixels = stage.entry.pixels(size.rows * size.columns);
            room.stage(photos, count, pixels, |input, room| stage.forward(input, room));
        }
        room.before.view().means(out); // (count, features)
        self.norm.apply_in_place(out);
    }
}

impl Entry {
    /// Pixels that it makes of so many, about.
    fn pixels(&self, pixels: usize) -> usize {
        match self {
            Entry::Patches(..) => pixels / 16,
            Entry::Smaller(..) => pixels / 4,
            Entry::Same => pixels,
        }
    }
}

impl Stage {
    fn forward(&self, input: Input<'_>, room: &mut Room) {
        let Room { x, y, gathered, inner, .. } = room;
        match (&self.entry, input) {
            (Entry::Patches(conv, norm), Input::Photos(photos)) => {
                conv.apply_bytes(photos, x, gathered, Epilogue::STORE);
                let size = x.size();
                x.numbers()
                    .chunks_exact_mut(size.stride())
                    .for_each(|pixel| norm.apply_in_place(&mut pixel[..self.channels]));
            }
            (Entry::Smaller(norm, conv), Input::Pixels(view)) => {
                let size = view.size();
                let to = y.shape(size).chunks_exact_mut(size.stride());
                for (to, pixel) in to.zip(view.numbers().chunks_exact(size.stride())) {
                    norm.apply(&pixel[..size.channels], &mut to[..size.channels]);
                }
                conv.apply(y.view(), x, gathered, Epilogue::STORE);
            }
            (_, Input::Pixels(view)) => {
                x.shape(view.size());
                x.put(0, view);
            }
            (_, Input::Photos(_)) => unreachable!("photos are what the first stage sees"),
        }
        for block in &self.blocks {
            block.around.apply(x.view(), y, Activation::None);
            block.mix.apply(y, x, inner, |pixel| block.norm.apply_in_place(pixel));
        }
    }
}

impl Block {
    fn take(parts: &mut Parts, isa: Isa, channels: usize, from: &convnext::Block) -> Result<Self> {
        let around = Channelwise::take(parts, isa, from.around.shape, || {
            let Raw { weights, bias } = raw(&from.around)?;
            Ok((weights, bias))
        })?;
        let down = || Ok(scaled(raw_linear(&from.down)?, &numbers(&from.gamma)?));
        Ok(Self {
            around,
            norm: norm(parts, isa, channels, &from.norm)?,
            mix: Mix::take(parts, isa, (channels, 4 * channels), || raw_linear(&from.up), down)?,
        })
    }
}

/// A norm on tensors, packed.
pub(super) fn norm(parts: &mut Parts, isa: Isa, width: usize, from: &Norm) -> Result<LayerNorm> {
    LayerNorm::take(parts, isa, (width, from.eps), |part| match (part, &from.bias) {
        ("bias", Some(bias)) => numbers(bias),
        ("bias", None) => Ok(vec![0.0; width]),
        _ => numbers(&from.weight),
    })
}

/// Weights `(outputs, inputs)` and bias of a map on tensors, which are transposed there.
pub(super) fn raw_linear(from: &Linear) -> Result<Raw> {
    let weights = numbers(&from.weight.t().and_then(|t| t.contiguous()).map_err(tensor_error)?)?;
    Ok(Raw { weights, bias: from.bias.as_ref().map_or(Ok(Vec::new()), numbers)? })
}
