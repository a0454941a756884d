//! The image tower on packed weights.
//!
//! Pixels go into the patch embedding as bytes less 128, which every precision holds exactly; mean and deviation of the
//! preprocessing are part of its weights and bias. A patch is read line by line as it lies in the picture, so the weights
//! are brought into that order when they are packed.

use std::sync::Mutex;

use rayon::prelude::*;

use super::aligned::Aligned;
use super::blocks::{Blocks, Scratch, Source};
use super::dense::{Dense, Out, Raw};
use super::finish::Epilogue;
use super::norm::LayerNorm;
use super::parts::Part;
use super::rows::{Number, Rows};
use crate::Result;
use crate::image::Preprocess;
use crate::model::config::{ImagePool, VisionConfig};

/// Most tokens of one pass, but for one picture that has more: enough rows for the products to make use of their weights, few
/// enough for what one product leaves to be still in the caches when the next one reads it.
const TOKENS: usize = 200;

/// A vision transformer and its projection.
pub(crate) struct VisionTower {
    config: VisionConfig,
    patch: Dense,
    /// What stands at each token before the patches are added: the position, and at the first the class token.
    // (tokens, width)
    position: Part<f32>,
    norm_pre: Option<LayerNorm>,
    blocks: Blocks,
    norm_post: LayerNorm,
    projection: Dense,
    free: Mutex<Vec<Room>>,
}

/// Working memory of one thread.
struct Room {
    patches: Rows,
    embedded: Aligned<f32>,
    pooled: Rows,
    scratch: Scratch,
}

impl VisionTower {
    /// The tower from the next parts of a store.
    pub(super) fn take(
        source: &mut Source<'_>,
        config: &VisionConfig,
        preprocess: &Preprocess,
        dim: usize,
    ) -> Result<Self> {
        let transformer = &config.transformer;
        let (width, eps) = (transformer.width, transformer.norm_eps);
        let (rows, columns) = config.grid();
        // Rounding pixels to bytes is exact; rounding these weights to bytes is not, and they are 3 % of the arithmetic.
        let fine = match source.number {
            Number::F32 => Number::F32,
            _ if source.isa.multiplies_pairs() => Number::Bf16,
            _ => Number::F32,
        };
        let values = 3 * config.patch.0 * config.patch.1;
        let padded = values.next_multiple_of(8);
        let (weights, isa) = (source.weights, source.isa);
        let patch = Dense::take(&mut source.parts, isa, fine, (padded, width), || {
            Ok(patch_weights(&weights.get("image.patch.weight")?.0, config.patch, preprocess, padded))
        })?;
        let position = source.parts.take((rows * columns + 1) * width, |to: &mut [f32]| {
            to.copy_from_slice(&weights.get("image.position")?.0);
            to.iter_mut().zip(&weights.get("image.class")?.0).for_each(|(to, class)| *to += class);
            Ok(())
        })?;
        let norm_pre = if config.norm_pre { Some(source.norm("image.norm_pre", width, eps)?) } else { None };
        let pooled = config.pool == ImagePool::Token;
        Ok(Self {
            patch,
            position,
            norm_pre,
            blocks: Blocks::take(source, "image", transformer, false, pooled)?,
            norm_post: source.norm("image.norm_post", width, eps)?,
            projection: source.dense("image.projection", Number::F32, width, dim)?,
            config: config.clone(),
            free: Mutex::default(),
        })
    }

    /// One row per picture of RGB bytes, not normalised; pictures are spread over the threads of rayon.
    pub(crate) fn encode(&self, pictures: &[u8]) -> Vec<f32> {
        let size = self.config.image.0 * self.config.image.1 * 3;
        let dim = self.projection.outputs();
        let count = pictures.len() / size;
        let mut out = vec![0.0; count * dim];
        let (down, across) = self.config.grid();
        let most = (TOKENS / (down * across + 1)).max(1);
        // As many passes for each thread, and pictures spread over them evenly: none ends long before another.
        let passes = count.div_ceil(most).next_multiple_of(rayon::current_num_threads()).min(count);
        let run = |(out, pictures): (&mut [f32], &[u8])| {
            let lock = || self.free.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            let free = lock().pop();
            let mut room = free.unwrap_or_else(|| self.room());
            self.forward(pictures, size, out, &mut room);
            lock().push(room);
        };
        if passes <= 1 {
            // No need to wake another thread.
            run((&mut out, pictures));
        } else {
            let mut rest = out.as_mut_slice();
            let mut parts = Vec::with_capacity(passes);
            for pass in 0..passes {
                let (from, to) = (count * pass / passes, count * (pass + 1) / passes);
                let (now, later) = rest.split_at_mut((to - from) * dim);
                parts.push((now, &pictures[from * size..to * size]));
                rest = later;
            }
            parts.into_par_iter().for_each(run);
        }
        out
    }

    fn room(&self) -> Room {
        let isa = self.patch.isa();
        let values = 3 * self.config.patch.0 * self.config.patch.1;
        Room {
            patches: Rows::new(isa, self.patch.number(), values.next_multiple_of(8)),
            embedded: Aligned::default(),
            pooled: Rows::new(isa, Number::F32, self.config.transformer.width),
            scratch: self.blocks.scratch(),
        }
    }

    fn forward(&self, pictures: &[u8], size: usize, out: &mut [f32], room: &mut Room) {
        let width = self.config.transformer.width;
        let (rows, columns) = self.config.grid();
        let (patches, count) = (rows * columns, pictures.len() / size);
        let tokens = patches + 1;
        if count == 0 {
            return;
        }
        self.read_patches(pictures, size, &mut room.patches);
        let embedded = room.embedded.at_least(count * patches * width);
        self.patch.apply(count * patches, &room.patches, Out::Floats(embedded, width), Epilogue::STORE); // (count · patches, width)
        let x = room.scratch.x.at_least(count * tokens * width); // (count · tokens, width)
        for (x, embedded) in x.chunks_exact_mut(tokens * width).zip(embedded.chunks_exact(patches * width)) {
            x.copy_from_slice(&self.position);
            x[width..].iter_mut().zip(embedded).for_each(|(x, e)| *x += e);
        }
        if let Some(norm) = &self.norm_pre {
            norm.apply_in_place(x);
        }
        let lengths = vec![tokens; count];
        match self.config.pool {
            ImagePool::Token => {
                self.blocks.forward_pooled(&mut room.scratch, &lengths, &vec![0; count]);
                room.pooled.normalise(&self.norm_post, &room.scratch.picked, count);
            }
            ImagePool::Average => {
                self.blocks.forward(&mut room.scratch, &lengths);
                let x = &mut room.scratch.x[..count * tokens * width];
                if !self.config.norm_after_pool {
                    self.norm_post.apply_in_place(x);
                }
                let norm = self.config.norm_after_pool.then_some(&self.norm_post);
                room.pooled.fill(count, |i, row| {
                    row.fill(0.0);
                    for token in x[i * tokens * width..(i + 1) * tokens * width].chunks_exact(width).skip(1) {
                        row.iter_mut().zip(token).for_each(|(sum, x)| *sum += x);
                    }
                    row.iter_mut().for_each(|sum| *sum /= patches as f32);
                    if let Some(norm) = norm {
                        norm.apply_in_place(row);
                    }
                });
            }
        }
        let dim = self.projection.outputs();
        self.projection.apply(count, &room.pooled, Out::Floats(out, dim), Epilogue::STORE); // (count, dim)
    }

    /// Each patch as a row: its lines, as they lie in the picture.
    fn read_patches(&self, pictures: &[u8], size: usize, rows: &mut Rows) {
        let (height, width) = self.config.patch;
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
