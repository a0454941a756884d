//! The image tower: MobileNetV2 (Sandler et al. 2018) with its batch norms folded, and a two-layer projection.
//!
//! Channels last, so that a 1 × 1 convolution is a matrix product over pixels. An inverted residual block is evaluated a few
//! rows at a time: expand, depthwise and project follow each other while the rows are in the cache. The expanded maps, up to
//! 4.8 MB in f32, never exist as a whole.

use std::sync::Mutex;

use rayon::prelude::*;
use serde::Deserialize;

use super::arithmetic::{Arithmetic, Work};
use super::{Weights, normalise};
use crate::Result;
use crate::model::cpu::{Activation, Aligned, Epilogue, Isa};

/// Bytes of one depthwise result that are kept in flight.
const STRIPE_BYTES: usize = 192 << 10;

/// Pictures per product of the projection.
const PROJECTED_TOGETHER: usize = 26;

/// Shape of the tower.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ImageConfig {
    /// Height and width of a picture.
    pub(super) size: usize,
    /// Channels of the first convolution.
    stem: usize,
    stages: Vec<Stage>,
    /// Channels that are pooled.
    head: usize,
    /// Width inside the projection.
    hidden: usize,
}

impl ImageConfig {
    /// Numbers before the last map: those inside the projection, and those that go past it.
    pub(super) fn features(&self) -> usize {
        self.hidden + self.head
    }
}

/// Inverted residual blocks of one width.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Stage {
    expansion: usize,
    channels: usize,
    blocks: usize,
    /// Stride of the first block; the others have 1.
    stride: usize,
}

/// Expand, depthwise, project.
struct Block<A: Arithmetic> {
    /// Height and width of the input.
    size: usize,
    inputs: usize,
    outputs: usize,
    stride: usize,
    /// `None` in the first block, which works on the stem's rows.
    expand: Option<A::Dense>,
    depthwise: A::Depthwise,
    project: A::Dense,
}

impl<A: Arithmetic> Block<A> {
    fn residual(&self) -> bool {
        self.stride == 1 && self.inputs == self.outputs && self.expand.is_some()
    }

    /// Rows of the result that are worked on together: equal parts that fit.
    fn stripe(&self) -> usize {
        let height = self.size / self.stride;
        let row = height * A::pixel(&self.depthwise) * size_of::<A::Number>();
        height.div_ceil(height.div_ceil((STRIPE_BYTES / row).clamp(1, height)))
    }

    /// Expanded rows that one stripe reads.
    fn ring(&self) -> usize {
        (self.stripe() * self.stride + 2).min(self.size)
    }
}

/// Working memory of one thread.
struct Scratch<T> {
    map: Aligned<f32>,
    next: Aligned<f32>,
    ring: Aligned<T>,
    stripe: Aligned<T>,
    work: Work<T>,
}

impl<T> Default for Scratch<T> {
    fn default() -> Self {
        let (map, next) = (Aligned::default(), Aligned::default());
        Self { map, next, ring: Aligned::default(), stripe: Aligned::default(), work: Work::default() }
    }
}

/// An image tower, whatever its arithmetic.
pub(super) trait Tower: Send + Sync {
    /// One normalised row per picture of `size × size × 3` bytes; pictures are spread over the threads of rayon.
    fn encode(&self, pixels: &[u8]) -> Vec<f32>;

    /// One row per picture of what the last map of the projection gets, not normalised.
    fn features(&self, pixels: &[u8]) -> Vec<f32>;
}

/// Ready to encode.
pub(super) struct ImageTower<A: Arithmetic> {
    size: usize,
    dim: usize,
    features: usize,
    hidden: usize,
    stem: A::Dense,
    blocks: Vec<Block<A>>,
    head: A::Dense,
    mean: Vec<f32>,
    inverse_deviation: Vec<f32>,
    fc1: A::Dense,
    fc2: A::Dense,
    skip: A::Dense,
    scratch: Mutex<Vec<Scratch<A::Number>>>,
}

impl<A: Arithmetic> ImageTower<A> {
    pub(super) fn load(isa: Isa, weights: &Weights<'_>, config: &ImageConfig, dim: usize) -> Result<Self> {
        let (mut blocks, mut size, mut inputs) = (Vec::new(), config.size / 2, config.stem);
        for stage in &config.stages {
            for i in 0..stage.blocks {
                let (stride, name) = (if i == 0 { stage.stride } else { 1 }, format!("block{}", blocks.len()));
                let expand = match stage.expansion {
                    1 => None,
                    _ => Some(A::dense(isa, weights, &format!("{name}.expand"))?),
                };
                let depthwise = A::depthwise(isa, weights, &format!("{name}.dw"), stride)?;
                let project = A::dense(isa, weights, &format!("{name}.project"))?;
                blocks.push(Block { size, inputs, outputs: stage.channels, stride, expand, depthwise, project });
                (size, inputs) = (size / stride, stage.channels);
            }
        }
        Ok(Self {
            size: config.size,
            dim,
            features: config.head,
            hidden: config.hidden,
            stem: A::stem(isa, weights)?,
            blocks,
            head: A::dense(isa, weights, "head")?,
            mean: weights.floats("image.proj.mu")?,
            inverse_deviation: weights.floats("image.proj.inv_sd")?,
            fc1: A::dense(isa, weights, "proj.fc1")?,
            fc2: A::dense(isa, weights, "proj.fc2")?,
            skip: A::dense(isa, weights, "proj.skip")?,
            scratch: Mutex::default(),
        })
    }

    /// Runs `f` with working memory that was used before, if any is free.
    fn with_scratch(&self, f: impl FnOnce(&mut Scratch<A::Number>)) {
        let lock = || self.scratch.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let free = lock().pop();
        let mut scratch = free.unwrap_or_default();
        f(&mut scratch);
        lock().push(scratch);
    }

    /// From pixels to the pooled features of one picture.
    fn pool(&self, pixels: &[u8], scratch: &mut Scratch<A::Number>, pooled: &mut [f32]) {
        for block in &self.blocks {
            self.block(block, pixels, scratch);
            if !block.residual() {
                std::mem::swap(&mut scratch.map, &mut scratch.next);
            }
        }
        let size = self.blocks.last().map_or(0, |block| block.size / block.stride);
        let (area, relu6) = (size * size, Epilogue::activate(Activation::Relu6));
        let maps = scratch.next.at_least(area * self.features);
        A::apply(&self.head, area, &scratch.map, maps, relu6, &mut scratch.work);
        pooled.fill(0.0);
        for pixel in maps.chunks_exact(self.features) {
            pooled.iter_mut().zip(pixel).for_each(|(sum, &x)| *sum += x);
        }
        pooled.iter_mut().for_each(|sum| *sum /= area as f32);
    }

    /// One inverted residual block: from `map` into `next`, or in place if it has a residual.
    fn block(&self, block: &Block<A>, pixels: &[u8], scratch: &mut Scratch<A::Number>) {
        let Scratch { map, next, ring, stripe, work } = scratch;
        let (width, out_width, pixel) = (block.size, block.size / block.stride, A::pixel(&block.depthwise));
        let (rows, slots) = (block.stripe(), block.ring());
        let ring = ring.at_least(slots * width * pixel);
        let stripe = stripe.at_least(rows * out_width * pixel);
        let result = block.outputs * out_width;
        if !block.residual() {
            next.at_least(out_width * result);
        }
        let mut ready = 0;
        for y in (0..out_width).step_by(rows) {
            let rows = rows.min(out_width - y);
            // Row y of the result reads rows y - 1 ..= y + 1 at stride 1, and 2y ..= 2y + 2 at stride 2.
            let above = usize::from(block.stride == 1);
            let needed = ((y + rows - 1) * block.stride + 3 - above).min(width);
            while ready < needed {
                let slot = ready % slots;
                let count = (needed - ready).min(slots - slot);
                let expanded = &mut ring[slot * width * pixel..][..count * width * pixel];
                match &block.expand {
                    Some(expand) => {
                        let from = &map[ready * width * block.inputs..];
                        A::expand(expand, count * width, from, (expanded, pixel), work);
                    }
                    None => {
                        for (i, row) in expanded.chunks_exact_mut(width * pixel).enumerate() {
                            A::stem_row(&self.stem, (pixels, self.size), ready + i, (row, pixel), work);
                        }
                    }
                }
                ready += count;
            }
            for (i, out) in stripe.chunks_exact_mut(out_width * pixel).take(rows).enumerate() {
                let first = (y + i) * block.stride;
                let around = [0, 1, 2].map(|ky| {
                    let row = (first + ky).checked_sub(above).filter(|&row| row < width)?;
                    Some(&ring[row % slots * width * pixel..][..width * pixel])
                });
                A::filter(&block.depthwise, around, width, out);
            }
            let (out, epilogue) =
                if block.residual() { (&mut *map, Epilogue::ADD) } else { (&mut *next, Epilogue::STORE) };
            A::project(&block.project, rows * out_width, (stripe, pixel), &mut out[y * result..], epilogue);
        }
    }

    /// Pooled features on the scale of the projection.
    fn standardise(&self, pooled: &mut [f32]) {
        for row in pooled.chunks_exact_mut(self.features) {
            for ((x, &mean), &inverse) in row.iter_mut().zip(&self.mean).zip(&self.inverse_deviation) {
                *x = ((x.max(0.0) + 1e-4).sqrt() - mean) * inverse;
            }
        }
    }

    /// Pooled features of all pictures.
    // (pictures, features)
    fn pooled(&self, pixels: &[u8]) -> Vec<f32> {
        let pictures = pixels.par_chunks_exact(self.size * self.size * 3);
        let mut pooled = vec![0.0; pictures.len() * self.features];
        pooled
            .par_chunks_exact_mut(self.features)
            .zip(pictures)
            .for_each(|(pooled, pixels)| self.with_scratch(|scratch| self.pool(pixels, scratch, pooled)));
        pooled
    }

    /// From pooled features, which are overwritten, to normalised embeddings.
    fn project(&self, pooled: &mut [f32], out: &mut [f32], scratch: &mut Scratch<A::Number>) {
        let count = pooled.len() / self.features;
        self.standardise(pooled);
        let Scratch { next, work, .. } = scratch;
        let inner = next.at_least(count * self.hidden);
        A::apply(&self.fc1, count, pooled, inner, Epilogue::activate(Activation::GeluTanh), work);
        A::apply(&self.fc2, count, inner, out, Epilogue::STORE, work);
        A::apply(&self.skip, count, pooled, out, Epilogue::ADD, work);
        out.chunks_exact_mut(self.dim).for_each(normalise);
    }
}

impl<A: Arithmetic> Tower for ImageTower<A> {
    fn encode(&self, pixels: &[u8]) -> Vec<f32> {
        let mut pooled = self.pooled(pixels);
        let mut out = vec![0.0; pooled.len() / self.features * self.dim];
        pooled
            .par_chunks_mut(PROJECTED_TOGETHER * self.features)
            .zip(out.par_chunks_mut(PROJECTED_TOGETHER * self.dim))
            .for_each(|(pooled, out)| self.with_scratch(|scratch| self.project(pooled, out, scratch)));
        out
    }

    fn features(&self, pixels: &[u8]) -> Vec<f32> {
        let mut pooled = self.pooled(pixels);
        let (features, hidden) = (self.features, self.hidden);
        let mut out = vec![0.0; pooled.len() / features * (hidden + features)];
        pooled
            .par_chunks_mut(PROJECTED_TOGETHER * features)
            .zip(out.par_chunks_mut(PROJECTED_TOGETHER * (hidden + features)))
            .for_each(|(pooled, out)| {
                self.standardise(pooled);
                self.with_scratch(|Scratch { next, work, .. }| {
                    let count = pooled.len() / features;
                    let inner = next.at_least(count * hidden);
                    A::apply(&self.fc1, count, pooled, inner, Epilogue::activate(Activation::GeluTanh), work);
                    let rows = inner.chunks_exact(hidden).zip(pooled.chunks_exact(features));
                    for (out, (inner, pooled)) in out.chunks_exact_mut(hidden + features).zip(rows) {
                        out[..hidden].copy_from_slice(inner);
                        out[hidden..].copy_from_slice(pooled);
                    }
                });
            });
        out
    }
}
