//! The image tower on packed weights.
//!
//! Pixels go into the patch embedding as bytes less 128, which every precision holds exactly; mean and deviation of the
//! preprocessing are part of its weights and bias. A patch is read line by line as it lies in the picture, so the weights
//! are brought into that order when they are packed.

use std::sync::Mutex;

use candle_core::{Device, Result as TensorResult, Tensor};

use super::aligned::Aligned;
use super::blocks::{Blocks, Length, Scratch};
use super::dense::{Dense, Out, Raw};
use super::finish::Epilogue;
use super::head::{Head, Query, QueryRoom, Spread};
use super::norm::LayerNorm;
use super::parts::Part;
use super::passes;
use super::rotation::Rotation;
use super::rows::{Number, Rows};
use super::simd::Isa;
use super::source::Source;
use crate::Result;
use crate::image::Preprocess;
use crate::image::patches::Patches;
use crate::model::config::{Pool, Positions, Stem, VitConfig};
use crate::model::linear::tensor_error;
use crate::model::loader::Loader;
use crate::model::positions::stretched;
use crate::model::project::Depth;
use crate::model::spread::{self, Side};
use crate::model::trunk::stem;
use crate::model::vision::angles;

/// Most tokens of one pass, but for one picture that has more: enough rows for the products to make use of their weights, few
/// enough for what one product leaves to be still in the caches when the next one reads it.
const TOKENS: usize = 200;

/// A vision transformer and its projection.
pub(crate) struct VisionTower {
    isa: Isa,
    config: VitConfig,
    dim: usize,
    entry: Entry,
    /// What stands at each token before the patches are added: the position, and at the first ones those that are learned; where
    /// pictures have grids of their own, the table from which positions are made.
    // (tokens, width)
    position: Part<f32>,
    norm_patch: Option<LayerNorm>,
    norm_pre: Option<LayerNorm>,
    rotation: Option<Rotation>,
    blocks: Blocks,
    pool: Option<Query>,
    norm_post: Option<LayerNorm>,
    head: Head,
    spread: Option<Spread>,
    free: Mutex<Vec<Room>>,
}

/// How pictures become tokens.
enum Entry {
    Patches {
        size: (usize, usize),
        weights: Dense,
    },
    /// Of pictures that keep their shape.
    Loose {
        edge: usize,
        most: usize,
        weights: Dense,
    },
    /// On tensors: a few percent of the tower.
    Convolutions {
        stem: Box<stem::Stem>,
        levels: Box<[[f32; 256]; 3]>,
    },
}

/// Working memory of one thread.
struct Room {
    patches: Option<Rows>,
    embedded: Aligned<f32>,
    pooled: Rows,
    query: Option<QueryRoom>,
    vectors: Aligned<f32>,
    scratch: Scratch,
}

impl VisionTower {
    /// The tower from the next parts of a store.
    pub(super) fn take(
        source: &mut Source<'_>,
        config: &VitConfig,
        preprocess: &Preprocess,
        dim: usize,
    ) -> Result<Self> {
        let (width, eps) = (config.blocks.width, config.blocks.norm_eps);
        let (rows, columns) = config.grid();
        let (prefix, patches) = (config.prefix(), rows * columns);
        let weights = source.weights;
        let entry = Entry::take(source, config, preprocess)?;
        let position = source.parts.take((patches + prefix) * width, |to: &mut [f32]| {
            match config.positions {
                Positions::All => to.copy_from_slice(&weights.get("image.position")?.0),
                Positions::Patches => to[prefix * width..].copy_from_slice(&weights.get("image.position")?.0),
                Positions::None => {}
            }
            let tokens = [("image.class", config.class), ("image.uncertain", config.spread)];
            for (to, (name, _)) in to.chunks_exact_mut(width).zip(tokens.iter().filter(|token| token.1)) {
                to.iter_mut().zip(&weights.get(name)?.0).for_each(|(to, token)| *to += token);
            }
            Ok(())
        })?;
        let norm_patch = match config.stem {
            Stem::Patches { norm: true, .. } => Some(source.norm("image.norm_patch", width, eps)?),
            _ => None,
        };
        let norm_pre = if config.norm_pre { Some(source.norm("image.norm_pre", width, eps)?) } else { None };
        let rotation = config.rotation.as_ref().map(|grid| {
            let head = width / config.blocks.heads;
            Rotation::new(head / 2, &angles(grid, (rows, columns), prefix, head))
        });
        // Two tokens are asked for where there is a spread.
        let pooled = config.pool == Pool::Token && !config.spread;
        let blocks = Blocks::take(source, "image", &config.blocks, false, pooled)?;
        let pool = match &config.pool {
            Pool::Attention(pool) => Some(Query::take(source, pool, width, eps)?),
            Pool::Token | Pool::Average => None,
        };
        let normed = if config.norm_tokens { width } else { config.pooled_width() };
        let norm_post = if config.norm_tokens || config.norm_pooled {
            Some(source.norm("image.norm_post", normed, eps)?)
        } else {
            None
        };
        let mean = config.spread.then(|| dim.saturating_sub(spread::EXTRA));
        let head =
            Head::take(source, "image.projection", config.projection, config.pooled_width(), mean.unwrap_or(dim))?;
        let spread = match mean {
            Some(mean) => Some(Spread::take(source, "image.variance", (width, mean), Side::Picture)?),
            None => None,
        };
        Ok(Self {
            isa: source.isa,
            config: config.clone(),
            dim,
            entry,
            position,
            norm_patch,
            norm_pre,
            rotation,
            blocks,
            pool,
            norm_post,
            head,
            spread,
            free: Mutex::default(),
        })
    }

    /// One row per picture of RGB bytes, not normalised: embeddings, or what the last map is applied to. Pictures are spread over
    /// the threads of rayon.
    ///
    /// # Errors
    /// [`Error::Tensor`] where pictures should keep their shape and do not say which; those of a stem of convolutions, which is
    /// evaluated on tensors.
    pub(crate) fn encode(&self, pictures: &[u8], depth: Depth) -> Result<Vec<f32>> {
        let size = self.config.image.0 * self.config.image.1 * 3;
        let (head, dim) = match depth {
            Depth::Features => (&Head::None, self.config.pooled_width()),
            Depth::Embeddings => (&self.head, self.dim),
        };
        let (down, across) = self.config.grid();
        let most = match self.entry {
            // Each has a number of tokens of its own.
            Entry::Loose { .. } => 1,
            _ => (TOKENS / (down * across + 1)).max(1),
        };
        passes::spread(pictures, size, dim, most, |pictures, out| {
            let lock = || self.free.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            let free = lock().pop();
            let mut room = free.unwrap_or_else(|| self.room());
            let result = self.forward(pictures, size, (head, dim), out, &mut room);
            lock().push(room);
            result
        })
    }

    fn room(&self) -> Room {
        Room {
            patches: match &self.entry {
                Entry::Patches { weights, .. } | Entry::Loose { weights, .. } => {
                    Some(Rows::new(self.isa, weights.number(), weights.inputs()))
                }
                Entry::Convolutions { .. } => None,
            },
            embedded: Aligned::default(),
            pooled: Rows::new(self.isa, Number::F32, self.config.pooled_width()),
            query: self.pool.as_ref().map(|pool| pool.room(self.config.blocks.width)),
            vectors: Aligned::default(),
            scratch: self.blocks.scratch(),
        }
    }

    fn forward(
        &self,
        pictures: &[u8],
        size: usize,
        (head, dim): (&Head, usize),
        out: &mut [f32],
        room: &mut Room,
    ) -> Result<()> {
        let width = self.config.blocks.width;
        let count = pictures.len() / size;
        if count == 0 {
            return Ok(());
        }
        let loose = match self.entry {
            Entry::Loose { edge, most, .. } => Some(Patches::read_or_refuse(pictures, edge, most)?),
            _ => None,
        };
        let (down, across) = loose.map_or_else(|| self.config.grid(), |loose| loose.grid);
        let (patches, prefix) = (down * across, self.config.prefix());
        let tokens = patches + prefix;
        let embedded = room.embedded.at_least(count * patches * width); // (count · patches, width)
        match (&self.entry, &mut room.patches) {
            (Entry::Patches { size: patch, weights }, Some(rows)) => {
                self.read_patches(pictures, size, *patch, rows);
                weights.apply(count * patches, rows, Out::Floats(embedded, width), Epilogue::STORE);
            }
            (Entry::Loose { weights, .. }, Some(rows)) => {
                let bytes = loose.map_or(&[][..], |loose| loose.bytes);
                let values = bytes.len() / patches;
                rows.fill(patches, |i, row| {
                    let bytes = &bytes[i * values..][..values];
                    row.iter_mut().zip(bytes).for_each(|(to, &byte)| *to = f32::from(byte) - 128.0);
                    row[values..].fill(0.0);
                });
                weights.apply(patches, rows, Out::Floats(embedded, width), Epilogue::STORE);
            }
            (Entry::Convolutions { stem, levels }, _) => {
                let made = convolve(stem, levels, pictures, self.config.image).map_err(tensor_error)?;
                embedded.copy_from_slice(&made);
            }
            (_, None) => {}
        }
        if let Some(norm) = &self.norm_patch {
            norm.apply_in_place(embedded);
        }
        let own = match loose {
            Some(loose) => Some(self.positions_of(loose.grid).map_err(tensor_error)?),
            None => None,
        };
        let position = own.as_deref().unwrap_or(&self.position); // (tokens, width)
        let x = room.scratch.x.at_least(count * tokens * width); // (count · tokens, width)
        for (x, embedded) in x.chunks_exact_mut(tokens * width).zip(embedded.chunks_exact(patches * width)) {
            x.copy_from_slice(position);
            x[prefix * width..].iter_mut().zip(embedded).for_each(|(x, e)| *x += e);
        }
        if let Some(norm) = &self.norm_pre {
            norm.apply_in_place(x);
        }
        let lengths = vec![Length::from(tokens); count];
        let rotation = self.rotation.as_ref();
        let before = self.norm_post.as_ref().filter(|_| self.config.norm_tokens);
        let after = self.norm_post.as_ref().filter(|_| self.config.norm_pooled);
        let pooled_width = self.config.pooled_width();
        let vectors = room.vectors.at_least(count * pooled_width); // (count, pooled width)
        let mut vague = Vec::new();
        if self.config.pool == Pool::Token && self.spread.is_none() {
            self.blocks.forward_pooled(&mut room.scratch, &lengths, &vec![0; count], rotation);
            vectors.copy_from_slice(&room.scratch.picked[..count * width]);
            // The norm works on each token by itself, so it may come after the choice.
            before.iter().for_each(|norm| norm.apply_in_place(vectors));
        } else {
            self.blocks.forward(&mut room.scratch, &lengths, rotation);
            let x = &mut room.scratch.x[..count * tokens * width];
            before.iter().for_each(|norm| norm.apply_in_place(x));
            match (&self.pool, &mut room.query) {
                (Some(pool), Some(query)) => pool.apply(x, count, tokens, query, vectors),
                _ if self.spread.is_some() => {
                    for (row, x) in vectors.chunks_exact_mut(width).zip(x.chunks_exact(tokens * width)) {
                        row.copy_from_slice(&x[..width]);
                        vague.extend_from_slice(&x[width..2 * width]);
                    }
                }
                _ => {
                    for (row, x) in vectors.chunks_exact_mut(width).zip(x.chunks_exact(tokens * width)) {
                        row.fill(0.0);
                        for token in x.chunks_exact(width).skip(prefix) {
                            row.iter_mut().zip(token).for_each(|(sum, x)| *sum += x);
                        }
                        row.iter_mut().for_each(|sum| *sum /= patches as f32);
                    }
                }
            }
        }
        match after {
            Some(norm) => room.pooled.normalise(norm, vectors, count),
            None => room.pooled.convert(vectors, pooled_width, count),
        }
        match &self.spread {
            Some(spread) => {
                let mut means = vec![0.0; count * spread.mean()];
                head.apply(self.isa, &mut room.pooled, count, &mut means, spread.mean()); // (count, mean)
                spread.apply(&means, &vague, out)?;
            }
            None => head.apply(self.isa, &mut room.pooled, count, out, dim), // (count, dim)
        }
        Ok(())
    }

    /// What stands at each token of a grid.
    fn positions_of(&self, grid: (usize, usize)) -> TensorResult<Vec<f32>> {
        let (from, width) = (self.config.grid(), self.config.blocks.width);
        if self.config.positions == Positions::None {
            return Ok(vec![0.0; grid.0 * grid.1 * width]);
        }
        let table = Tensor::from_slice(&self.position, (from.0 * from.1, width), &Device::Cpu)?;
        stretched(&table, from, grid)?.flatten_all()?.to_vec1()
    }

    /// Each patch as a row: its lines, as they lie in the picture.
    fn read_patches(&self, pictures: &[u8], size: usize, (height, width): (usize, usize), rows: &mut Rows) {
        let (down, across) = self.config.grid();
        let stride = self.config.image.1 * 3;
        let values = 3 * height * width;
        rows.fill(pictures.len() / size * down * across, |i, row| {
            let (picture, patch) = (i / (down * across), i % (down * across));
            let start = picture * size + patch / across * height * stride + patch % across * width * 3;
            for (y, to) in row[..values].chunks_exact_mut(width * 3).enumerate() {
                let line = &pictures[start + y * stride..][..width * 3];
                to.iter_mut().zip(line).for_each(|(to, &byte)| *to = f32::from(byte) - 128.0);
            }
            row[values..].fill(0.0);
        });
    }
}

impl Entry {
    fn take(source: &mut Source<'_>, config: &VitConfig, preprocess: &Preprocess) -> Result<Self> {
        match &config.stem {
            Stem::Patches { size, biased, .. } => {
                let area = size.0 * size.1;
                let weights = take_patch(source, config.blocks.width, area, *biased, preprocess, |c, i| c * area + i)?;
                Ok(Entry::Patches { size: *size, weights })
            }
            Stem::Loose { edge, most, .. } => {
                let weights = take_patch(source, config.blocks.width, edge * edge, true, preprocess, |c, i| i * 3 + c)?;
                Ok(Entry::Loose { edge: *edge, most: *most, weights })
            }
            Stem::Convolutions(stem) => {
                let stem = stem::Stem::load(&Loader::new(source.weights, &Device::Cpu), stem)?;
                let levels = std::array::from_fn(|c| {
                    std::array::from_fn(|byte| (byte as f32 / 255.0 - preprocess.mean[c]) / preprocess.std[c])
                });
                Ok(Entry::Convolutions { stem: Box::new(stem), levels: Box::new(levels) })
            }
        }
    }
}

/// Tokens of pictures, by a stem on tensors: (count · patches, width).
fn convolve(
    stem: &stem::Stem,
    levels: &[[f32; 256]; 3],
    pictures: &[u8],
    (height, width): (usize, usize),
) -> TensorResult<Vec<f32>> {
    let mut values = Vec::with_capacity(pictures.len());
    for picture in pictures.chunks_exact(height * width * 3) {
        for (channel, levels) in levels.iter().enumerate() {
            values.extend(picture[channel..].iter().step_by(3).map(|&byte| levels[usize::from(byte)]));
        }
    }
    let count = pictures.len() / (height * width * 3);
    let x = Tensor::from_vec(values, (count, 3, height, width), &Device::Cpu)?;
    stem.forward(&x)?.flatten_from(2)?.transpose(1, 2)?.contiguous()?.flatten_all()?.to_vec1()
}

/// The patch embedding for bytes less 128, pixel by pixel: `w · ((byte / 255 - mean) / std)`, multiplied out. `place` says where in
/// the checkpoint a channel of a pixel stands.
fn take_patch(
    source: &mut Source<'_>,
    width: usize,
    area: usize,
    biased: bool,
    preprocess: &Preprocess,
    place: impl Fn(usize, usize) -> usize,
) -> Result<Dense> {
    let (weights, fine, padded) = (source.weights, source.fine(), (3 * area).next_multiple_of(8));
    Dense::take(&mut source.parts, source.isa, fine, (padded, width), || {
        let all = weights.get("image.patch.weight")?.0;
        let mut raw = Raw { weights: vec![0.0; width * padded], bias: vec![0.0; width] };
        for (o, (from, to)) in all.chunks_exact(3 * area).zip(raw.weights.chunks_exact_mut(padded)).enumerate() {
            let mut shift = 0.0;
            for c in 0..3 {
                let (mean, std) = (f64::from(preprocess.mean[c]), f64::from(preprocess.std[c]));
                for i in 0..area {
                    let w = f64::from(from[place(c, i)]);
                    to[i * 3 + c] = (w / (255.0 * std)) as f32;
                    shift += w * (128.0 / 255.0 - mean) / std;
                }
            }
            raw.bias[o] = shift as f32;
        }
        if biased {
            let bias = weights.get("image.patch.bias")?.0;
            raw.bias.iter_mut().zip(&bias).for_each(|(sum, bias)| *sum += bias);
        }
        Ok(raw)
    })
}
