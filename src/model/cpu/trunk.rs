//! Image towers of convolutions on packed weights, in f32.
//!
//! What a trunk consists of is said once, by the code that loads it for tensors (`model/trunk`): here that structure is packed part
//! by part, and where the packed parts are found in a file it is loaded as an outline, without numbers. Norms of batches, branches
//! and factors of channels are multiplied into the weights.
//!
//! The first stages take one picture at a time and the last ones as many as make a few hundred pixels, so that what one layer
//! leaves is in the caches for the next, and weights are fetched for more than a handful of rows.

mod attend;
mod convnext;
mod fastvit;
mod look;
mod mix;
mod resnet;
mod weigher;

use std::sync::Mutex;

use candle_core::Device;

use self::convnext::ConvNext;
use self::fastvit::FastVit;
use self::resnet::ResNet;
use super::aligned::Aligned;
use super::conv::Photos;
use super::head::Head;
use super::passes::spread;
use super::pixels::{Pixels, View};
use super::rows::{Number, Rows};
use super::simd::Isa;
use super::source::Source;
use crate::image::Preprocess;
use crate::model::loader::Loader;
use crate::model::trunk::{self, Trunk, TrunkKind};
use crate::{Error, Result};

/// Most pictures of a pass: enough for the last stages, which have few pixels.
const PICTURES: usize = 8;

/// Pixels that a stage takes at a time, about.
const PIXELS: usize = 208;

/// A trunk and the map after it.
pub(crate) struct TrunkTower {
    isa: Isa,
    image: (usize, usize),
    dim: usize,
    features: usize,
    /// Value of each byte in each channel, normalised.
    levels: Box<[[f32; 256]; 3]>,
    kind: Kind,
    head: Head,
    free: Mutex<Vec<Room>>,
}

enum Kind {
    ConvNext(ConvNext),
    ResNet(ResNet),
    FastVit(FastVit),
}

/// Working memory of one thread.
struct Room {
    /// What a stage leaves for the next, of all pictures.
    before: Pixels,
    after: Pixels,
    /// The pictures that a stage works on, and its layers' results.
    x: Pixels,
    y: Pixels,
    z: Pixels,
    w: Pixels,
    gathered: Aligned<f32>,
    inner: Aligned<f32>,
    features: Aligned<f32>,
    pooled: Rows,
}

impl TrunkTower {
    /// The tower from the next parts of a store.
    pub(super) fn take(source: &mut Source<'_>, config: &Trunk, preprocess: &Preprocess, dim: usize) -> Result<Self> {
        let isa = source.isa;
        let loader = match source.parts.is_stored() {
            true => Loader::outline(),
            false => Loader::new(source.weights, &Device::Cpu),
        };
        let parts = &mut source.parts;
        let (kind, features) = match &config.kind {
            TrunkKind::ConvNext(c) => (
                Kind::ConvNext(ConvNext::take(parts, isa, trunk::convnext::ConvNext::load(&loader, c)?)?),
                c.features(),
            ),
            TrunkKind::ResNet(c) => {
                let tokens = config.image.0 / 32 * (config.image.1 / 32) + 1;
                let from = trunk::resnet::ResNet::load(&loader, c, config.image)?;
                (Kind::ResNet(ResNet::take(parts, isa, from, (tokens, c.features()))?), c.features())
            }
            TrunkKind::FastVit(c) => {
                (Kind::FastVit(FastVit::take(parts, isa, trunk::fastvit::FastVit::load(&loader, c)?)?), c.features())
            }
            TrunkKind::EfficientNet(_) => {
                return Err(Error::Tensor("an EfficientNet is evaluated on tensors".into()));
            }
        };
        source.weights.release();
        let head = Head::take(source, "image.projection", config.projection, features, dim)?;
        let level = |c: usize, byte: usize| (byte as f32 / 255.0 - preprocess.mean[c]) / preprocess.std[c];
        let levels = Box::new(std::array::from_fn(|c| std::array::from_fn(|byte| level(c, byte))));
        Ok(Self { isa, image: config.image, dim, features, levels, kind, head, free: Mutex::default() })
    }

    /// One row per picture of RGB bytes, not normalised; pictures are spread over the threads of rayon.
    ///
    /// # Errors
    /// None in practice.
    pub(crate) fn encode(&self, pictures: &[u8]) -> Result<Vec<f32>> {
        let (rows, columns) = self.image;
        spread(pictures, rows * columns * 3, self.dim, PICTURES, |bytes, out| {
            let lock = || self.free.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            let free = lock().pop();
            let mut room = free.unwrap_or_else(|| self.room());
            self.forward(Photos { bytes, rows, columns, levels: &self.levels }, out, &mut room);
            lock().push(room);
            Ok(())
        })
    }

    fn room(&self) -> Room {
        Room {
            before: Pixels::default(),
            after: Pixels::default(),
            x: Pixels::default(),
            y: Pixels::default(),
            z: Pixels::default(),
            w: Pixels::default(),
            gathered: Aligned::default(),
            inner: Aligned::default(),
            features: Aligned::default(),
            pooled: Rows::new(self.isa, Number::F32, self.features),
        }
    }

    fn forward(&self, photos: Photos<'_>, out: &mut [f32], room: &mut Room) {
        let count = photos.size().pictures;
        if count == 0 {
            return;
        }
        let mut features = std::mem::take(&mut room.features);
        let rows = features.at_least(count * self.features); // (count, features)
        match &self.kind {
            Kind::ConvNext(trunk) => trunk.forward(photos, rows, room),
            Kind::ResNet(trunk) => trunk.forward(photos, rows, room),
            Kind::FastVit(trunk) => trunk.forward(photos, rows, room),
        }
        room.pooled.convert(rows, self.features, count);
        room.features = features;
        self.head.apply(self.isa, &mut room.pooled, count, out, self.dim); // (count, dim)
    }
}

/// What a stage works on.
#[derive(Clone, Copy)]
enum Input<'a> {
    /// The first.
    Photos(Photos<'a>),
    /// The others: what the one before left.
    Pixels(View<'a>),
}

impl Room {
    /// Runs a stage over all pictures, a few at a time: `stage` makes its result in `x` of the pictures it is given. What it makes
    /// of one picture has `pixels` pixels.
    fn stage(&mut self, photos: Option<Photos<'_>>, count: usize, pixels: usize, stage: impl Fn(Input<'_>, &mut Room)) {
        let passes = count.div_ceil((PIXELS + PIXELS / 4).div_ceil(pixels.max(1)).max(1));
        let before = std::mem::take(&mut self.before);
        for pass in 0..passes {
            let (from, to) = (count * pass / passes, count * (pass + 1) / passes);
            let input = match photos {
                Some(photos) => Input::Photos(photos.part(from, to - from)),
                None => Input::Pixels(before.pictures(from, to - from)),
            };
            stage(input, self);
            let mut size = self.x.size();
            size.pictures = count;
            if pass == 0 {
                self.after.shape(size);
            }
            self.after.put(from, self.x.view());
        }
        // What comes next reads it there.
        self.before = std::mem::replace(&mut self.after, before);
    }
}
