//! The image tower: MobileNetV2 (Sandler et al. 2018) with its batch norms folded, and a two-layer projection.
//!
//! Channels last, so that a 1 × 1 convolution is a matrix product over pixels. An inverted residual block is evaluated a few
//! rows at a time: expand, depthwise and project follow each other while the rows are in the cache. The expanded maps, up to
//! 4.8 MB in f32, never exist as a whole.

use std::sync::Mutex;

use rayon::prelude::*;
use serde::Deserialize;

use super::{Weights, normalise};
use crate::Result;
use crate::model::cpu::{Activation, Aligned, Depthwise, Epilogue, Isa, Linear};

/// Bytes of one depthwise result that are kept in flight.
const STRIPE_BYTES: usize = 256 << 10;

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
struct Block {
    /// Height and width of the input.
    size: usize,
    inputs: usize,
    hidden: usize,
    outputs: usize,
    stride: usize,
    /// `None` in the first block, which works on the stem's rows.
    expand: Option<Linear>,
    depthwise: Depthwise,
    project: Linear,
}

impl Block {
    fn residual(&self) -> bool {
        self.stride == 1 && self.inputs == self.outputs && self.expand.is_some()
    }

    /// Rows of the result that are worked on together.
    fn stripe(&self) -> usize {
        let height = self.size / self.stride;
        let most = (STRIPE_BYTES / (4 * height * self.hidden)).clamp(1, height);
        height.div_ceil(height.div_ceil(most))
    }

    /// Expanded rows that one stripe reads.
    fn ring(&self) -> usize {
        (self.stripe() * self.stride + 2).min(self.size)
    }
}

/// Working memory of one thread.
#[derive(Default)]
struct Scratch {
    map: Aligned<f32>,
    next: Aligned<f32>,
    ring: Aligned<f32>,
    stripe: Aligned<f32>,
    patches: Aligned<f32>,
    lines: Aligned<f32>,
}

/// Ready to encode.
pub(super) struct ImageTower {
    size: usize,
    dim: usize,
    stem: Linear,
    blocks: Vec<Block>,
    head: Linear,
    mean: Vec<f32>,
    inverse_deviation: Vec<f32>,
    fc1: Linear,
    fc2: Linear,
    skip: Linear,
    scratch: Mutex<Vec<Scratch>>,
}

impl ImageTower {
    pub(super) fn load(isa: Isa, weights: &Weights<'_>, config: &ImageConfig, dim: usize) -> Result<Self> {
        let pair = |name: &str| -> Result<(Vec<f32>, Vec<f32>)> {
            Ok((weights.floats(&format!("image.{name}.weight"))?, weights.floats(&format!("image.{name}.bias"))?))
        };
        let linear = |name: &str, inputs: usize, outputs: usize| -> Result<Linear> {
            let (weight, bias) = pair(name)?;
            Ok(Linear::new(isa, inputs, outputs, &weight, &bias))
        };
        let (weight, bias) = pair("stem")?;
        let stem = Linear::new(isa, 27, config.stem, &taps_first(&weight), &bias);
        let (mut blocks, mut size, mut inputs) = (Vec::new(), config.size / 2, config.stem);
        for stage in &config.stages {
            for i in 0..stage.blocks {
                let stride = if i == 0 { stage.stride } else { 1 };
                let (hidden, name) = (inputs * stage.expansion, format!("block{}", blocks.len()));
                let expand = match stage.expansion {
                    1 => None,
                    _ => Some(linear(&format!("{name}.expand"), inputs, hidden)?),
                };
                let (weight, bias) = pair(&format!("{name}.dw"))?;
                let depthwise = Depthwise::new(isa, hidden, stride, &weight, &bias);
                let project = linear(&format!("{name}.project"), hidden, stage.channels)?;
                blocks.push(Block {
                    size,
                    inputs,
                    hidden,
                    outputs: stage.channels,
                    stride,
                    expand,
                    depthwise,
                    project,
                });
                (size, inputs) = (size / stride, stage.channels);
            }
        }
        Ok(Self {
            size: config.size,
            dim,
            stem,
            blocks,
            head: linear("head", inputs, config.head)?,
            mean: weights.floats("image.proj.mu")?,
            inverse_deviation: weights.floats("image.proj.inv_sd")?,
            fc1: linear("proj.fc1", config.head, config.hidden)?,
            fc2: linear("proj.fc2", config.hidden, dim)?,
            skip: Linear::new(isa, config.head, dim, &weights.floats("image.proj.skip.weight")?, &[]),
            scratch: Mutex::default(),
        })
    }

    /// One normalised row per picture of `size × size × 3` bytes; pictures are spread over the threads of rayon.
    pub(super) fn encode(&self, pixels: &[u8]) -> Vec<f32> {
        let pictures = pixels.par_chunks_exact(self.size * self.size * 3);
        let features = self.head.outputs();
        // (pictures, features)
        let mut pooled = vec![0.0; pictures.len() * features];
        pooled.par_chunks_exact_mut(features).zip(pictures).for_each(|(pooled, pixels)| {
            let free = self.scratch.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).pop();
            let mut scratch = free.unwrap_or_default();
            self.pool(pixels, &mut scratch, pooled);
            self.scratch.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push(scratch);
        });
        let mut out = vec![0.0; pooled.len() / features * self.dim];
        let together = (pooled.par_chunks_mut(PROJECTED_TOGETHER * features))
            .zip(out.par_chunks_mut(PROJECTED_TOGETHER * self.dim));
        together.for_each(|(pooled, out)| self.project(pooled, out));
        out
    }

    /// From pixels to the pooled features of one picture.
    fn pool(&self, pixels: &[u8], scratch: &mut Scratch, pooled: &mut [f32]) {
        for block in &self.blocks {
            self.block(block, pixels, scratch);
            if !block.residual() {
                std::mem::swap(&mut scratch.map, &mut scratch.next);
            }
        }
        let size = self.blocks.last().map_or(0, |block| block.size / block.stride);
        let (area, inputs, features) = (size * size, self.head.inputs(), pooled.len());
        let maps = scratch.ring.at_least(area * features);
        let relu6 = Epilogue::activate(Activation::Relu6);
        self.head.apply(area, (&scratch.map, inputs), (maps, features), relu6);
        pooled.fill(0.0);
        for pixel in maps.chunks_exact(features) {
            pooled.iter_mut().zip(pixel).for_each(|(sum, &x)| *sum += x);
        }
        pooled.iter_mut().for_each(|sum| *sum /= area as f32);
    }

    /// One inverted residual block: from `map` into `next`, or in place if it has a residual.
    fn block(&self, block: &Block, pixels: &[u8], scratch: &mut Scratch) {
        let Scratch { map, next, ring, stripe, patches, lines } = scratch;
        let (width, out_width, hidden) = (block.size, block.size / block.stride, block.hidden);
        let (rows, slots) = (block.stripe(), block.ring());
        let ring = ring.at_least(slots * width * hidden);
        let stripe = stripe.at_least(rows * out_width * hidden);
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
                let expanded = &mut ring[slot * width * hidden..][..count * width * hidden];
                match &block.expand {
                    Some(expand) => {
                        let from = &map[ready * width * block.inputs..];
                        let relu6 = Epilogue::activate(Activation::Relu6);
                        expand.apply(count * width, (from, block.inputs), (expanded, hidden), relu6);
                    }
                    None => {
                        for (i, row) in expanded.chunks_exact_mut(width * hidden).enumerate() {
                            self.stem_row(pixels, ready + i, patches, lines, row);
                        }
                    }
                }
                ready += count;
            }
            for (i, out) in stripe.chunks_exact_mut(out_width * hidden).take(rows).enumerate() {
                let first = (y + i) * block.stride;
                let around = [0, 1, 2].map(|ky| {
                    let row = (first + ky).checked_sub(above).filter(|&row| row < width)?;
                    Some(&ring[row % slots * width * hidden..][..width * hidden])
                });
                block.depthwise.row(around, width, out);
            }
            let epilogue = if block.residual() { Epilogue::ADD } else { Epilogue::STORE };
            let out = if block.residual() { &mut map[y * result..] } else { &mut next[y * result..] };
            block.project.apply(rows * out_width, (stripe, hidden), (out, block.outputs), epilogue);
        }
    }

    /// One row of the first convolution: 3 × 3, stride 2, padded at the right and the bottom.
    fn stem_row(&self, pixels: &[u8], y: usize, patches: &mut Aligned<f32>, lines: &mut Aligned<f32>, out: &mut [f32]) {
        let (width, line) = (self.size / 2, (self.size + 1) * 3);
        // (3, size + 1, 3), the last pixel zero
        let lines = lines.at_least(3 * line);
        lines.fill(0.0);
        for (to, from) in lines.chunks_exact_mut(line).zip(pixels.chunks_exact(self.size * 3).skip(2 * y)) {
            to.iter_mut().zip(from).for_each(|(to, &byte)| *to = f32::from(byte) / 127.5 - 1.0);
        }
        // (width, 3 × 3 taps × 3 colours)
        let patches = patches.at_least(width * 27);
        for (x, patch) in patches.chunks_exact_mut(27).enumerate() {
            for (to, from) in patch.chunks_exact_mut(9).zip(lines.chunks_exact(line)) {
                to.copy_from_slice(&from[6 * x..6 * x + 9]);
            }
        }
        let relu6 = Epilogue::activate(Activation::Relu6);
        self.stem.apply(width, (patches, 27), (out, self.stem.outputs()), relu6);
    }

    /// From pooled features, which are overwritten, to normalised embeddings.
    fn project(&self, pooled: &mut [f32], out: &mut [f32]) {
        let (features, hidden) = (self.head.outputs(), self.fc1.outputs());
        let count = pooled.len() / features;
        for row in pooled.chunks_exact_mut(features) {
            for ((x, &mean), &inverse) in row.iter_mut().zip(&self.mean).zip(&self.inverse_deviation) {
                *x = ((x.max(0.0) + 1e-4).sqrt() - mean) * inverse;
            }
        }
        let mut inner = vec![0.0; count * hidden];
        let gelu = Epilogue::activate(Activation::GeluTanh);
        self.fc1.apply(count, (pooled, features), (&mut inner, hidden), gelu);
        self.fc2.apply(count, (&inner, hidden), (out, self.dim), Epilogue::STORE);
        self.skip.apply(count, (pooled, features), (out, self.dim), Epilogue::ADD);
        out.chunks_exact_mut(self.dim).for_each(normalise);
    }
}

/// Reorders the weights of a 3 × 3 convolution over colours from (output, colour, tap) to (output, tap, colour).
fn taps_first(weights: &[f32]) -> Vec<f32> {
    weights.chunks_exact(27).flat_map(|filter| (0..27).map(|i| filter[i % 3 * 9 + i / 3])).collect()
}
