//! The image tower on packed weights.
//!
//! Pixels go into the patch embedding as bytes less 128, which every precision holds exactly; mean and deviation of the
//! preprocessing are part of its weights and bias. A patch is read line by line as it lies in the picture, so the weights
//! are brought into that order when they are packed.

use std::sync::Mutex;

use candle_core::{Device, Result as TensorResult, Tensor};

use super::aligned::Aligned;
use super::blocks::{Blocks, Scratch};
use super::dense::{Dense, Out, Raw};
use super::finish::Epilogue;
use super::head::{Head, Query, QueryRoom};
use super::norm::LayerNorm;
use super::parts::Part;
use super::passes::spread;
use super::rotation::Rotation;
use super::rows::{Number, Rows};
use super::simd::Isa;
use super::source::Source;
use crate::image::Preprocess;
use crate::model::config::{Pool, Positions, Stem, VitConfig};
use crate::model::linear::tensor_error;
use crate::model::loader::Loader;
use crate::model::project::Depth;
use crate::model::trunk::stem;
use crate::model::vision::angles;
use crate::{Error, Result};

/// Most tokens of one pass, but for one picture that has more: enough rows for the products to make use of their weights, few
/// enough for what one product leaves to be still in the caches when the next one reads it.
const TOKENS: usize = 200;

/// A vision transformer and its projection.
pub(crate) struct VisionTower {
    isa: Isa,
    config: VitConfig,
    dim: usize,
    entry: Entry,
    /// What stands at each token before the patches are added: the position, and at the first the class token.
    // (tokens, width)
    position: Part<f32>,
    norm_pre: Option<LayerNorm>,
    rotation: Option<Rotation>,
    blocks: Blocks,
    pool: Option<Query>,
    norm_post: Option<LayerNorm>,
    head: Head,
    free: Mutex<Vec<Room>>,
}

/// How pictures become tokens.
enum Entry {
    Patches {
        size: (usize, usize),
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
        let (prefix, patches) = (usize::from(config.class), rows * columns);
        let weights = source.weights;
        let entry = Entry::take(source, config, preprocess)?;
        let position = source.parts.take((patches + prefix) * width, |to: &mut [f32]| {
            match config.positions {
                Positions::All => to.copy_from_slice(&weights.get("image.position")?.0),
                Positions::Patches => to[prefix * width..].copy_from_slice(&weights.get("image.position")?.0),
                Positions::None => {}
            }
            if config.class {
                to.iter_mut().zip(&weights.get("image.class")?.0).for_each(|(to, class)| *to += class);
            }
            Ok(())
        })?;
        let norm_pre = if config.norm_pre { Some(source.norm("image.norm_pre", width, eps)?) } else { None };
        let rotation = config.rotation.as_ref().map(|grid| {
            let head = width / config.blocks.heads;
            Rotation::new(head / 2, &angles(grid, (rows, columns), prefix, head))
        });
        let blocks = Blocks::take(source, "image", &config.blocks, false, config.pool == Pool::Token)?;
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
        let head = Head::take(source, "image.projection", config.projection, config.pooled_width(), dim)?;
        Ok(Self {
            isa: source.isa,
            config: config.clone(),
            dim,
            entry,
            position,
            norm_pre,
            rotation,
            blocks,
            pool,
            norm_post,
            head,
            free: Mutex::default(),
        })
    }

    /// One row per picture of RGB bytes, not normalised: embeddings, or what the last map is applied to. Pictures are spread over
    /// the threads of rayon.
    ///
    /// # Errors
    /// Those of a stem of convolutions, which is evaluated on tensors.
    pub(crate) fn encode(&self, pictures: &[u8], depth: Depth) -> Result<Vec<f32>> {
        let size = self.config.image.0 * self.config.image.1 * 3;
        let (head, dim) = match depth {
            Depth::Features => (&Head::None, self.config.pooled_width()),
            Depth::Embeddings => (&self.head, self.dim),
        };
        let (down, across) = self.config.grid();
        let most = (TOKENS / (down * across + 1)).max(1);
        spread(pictures, size, dim, most, |pictures, out| {
            let lock = || self.free.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            let free = lock().pop();
            let mut room = free.unwrap_or_else(|| self.room());
            self.forward(pictures, size, (head, dim), out, &mut room).map_err(tensor_error)?;
            lock().push(room);
            Ok(())
        })
    }

    fn room(&self) -> Room {
        Room {
            patches: match &self.entry {
                Entry::Patches { size, weights } => {
                    let values = 3 * size.0 * size.1;
                    Some(Rows::new(self.isa, weights.number(), values.next_multiple_of(8)))
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
    ) -> TensorResult<()> {
        let width = self.config.blocks.width;
        let (rows, columns) = self.config.grid();
        let (patches, count) = (rows * columns, pictures.len() / size);
        let prefix = usize::from(self.config.class);
        let tokens = patches + prefix;
        if count == 0 {
            return Ok(());
        }
        let embedded = room.embedded.at_least(count * patches * width); // (count · patches, width)
        match (&self.entry, &mut room.patches) {
            (Entry::Patches { size: patch, weights }, Some(rows)) => {
                self.read_patches(pictures, size, *patch, rows);
                weights.apply(count * patches, rows, Out::Floats(embedded, width), Epilogue::STORE);
            }
            (Entry::Convolutions { stem, levels }, _) => {
                embedded.copy_from_slice(&convolve(stem, levels, pictures, self.config.image)?);
            }
            (Entry::Patches { .. }, None) => {}
        }
        let x = room.scratch.x.at_least(count * tokens * width); // (count · tokens, width)
        for (x, embedded) in x.chunks_exact_mut(tokens * width).zip(embedded.chunks_exact(patches * width)) {
            x.copy_from_slice(&self.position);
            x[prefix * width..].iter_mut().zip(embedded).for_each(|(x, e)| *x += e);
        }
        if let Some(norm) = &self.norm_pre {
            norm.apply_in_place(x);
        }
        let lengths = vec![tokens; count];
        let rotation = self.rotation.as_ref();
        let before = self.norm_post.as_ref().filter(|_| self.config.norm_tokens);
        let after = self.norm_post.as_ref().filter(|_| self.config.norm_pooled);
        let pooled_width = self.config.pooled_width();
        let vectors = room.vectors.at_least(count * pooled_width); // (count, pooled width)
        if self.config.pool == Pool::Token {
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
        head.apply(self.isa, &mut room.pooled, count, out, dim); // (count, dim)
        Ok(())
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
        let (weights, isa, fine) = (source.weights, source.isa, source.fine());
        match &config.stem {
            Stem::Patches { size, biased, .. } => {
                let padded = (3 * size.0 * size.1).next_multiple_of(8);
                let dense = Dense::take(&mut source.parts, isa, fine, (padded, config.blocks.width), || {
                    let mut raw = patch_weights(&weights.get("image.patch.weight")?.0, *size, preprocess, padded);
                    if *biased {
                        let bias = weights.get("image.patch.bias")?.0;
                        raw.bias.iter_mut().zip(&bias).for_each(|(sum, bias)| *sum += bias);
                    }
                    Ok(raw)
                })?;
                Ok(Entry::Patches { size: *size, weights: dense })
            }
            Stem::Loose { .. } => Err(Error::Tensor("grids of many shapes are evaluated on tensors".into())),
            Stem::Convolutions(stem) => {
                let stem = stem::Stem::load(&Loader::new(weights, &Device::Cpu), stem)?;
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

/// The patch embedding for bytes less 128, line by line: `w · ((byte / 255 - mean) / std)`, multiplied out.
fn patch_weights(weights: &[f32], (height, width): (usize, usize), preprocess: &Preprocess, padded: usize) -> Raw {
    let area = height * width;
    let outputs = weights.len() / (3 * area);
    let mut raw = Raw { weights: vec![0.0; outputs * padded], bias: vec![0.0; outputs] };
    for (o, (from, to)) in weights.chunks_exact(3 * area).zip(raw.weights.chunks_exact_mut(padded)).enumerate() {
        let mut shift = 0.0;
        for c in 0..3 {
            let (mean, std) = (f64::from(preprocess.mean[c]), f64::from(preprocess.std[c]));
            for (i, &w) in from[c * area..(c + 1) * area].iter().enumerate() {
                to[i * 3 + c] = (f64::from(w) / (255.0 * std)) as f32;
                shift += f64::from(w) * (128.0 / 255.0 - mean) / std;
            }
        }
        raw.bias[o] = shift as f32;
    }
    raw
}
