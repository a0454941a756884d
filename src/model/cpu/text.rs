//! The text tower on packed weights.
//!
//! Under a causal mask a text is cut behind its pooled token, which does not see what follows; texts of different lengths
//! stand one below the other without padding.

use std::sync::{Arc, Mutex};

use rayon::prelude::*;

use super::blocks::{Blocks, Scratch, Source};
use super::dense::{Dense, Out};
use super::finish::Epilogue;
use super::norm::LayerNorm;
use super::parts::Part;
use super::rows::{Number, Rows};
use super::simd::Isa;
use crate::Result;
use crate::model::config::TextConfig;
use crate::model::weights::Weights;

/// Most tokens of one pass, as for pictures.
const TOKENS: usize = 200;

/// A text transformer and its projection.
pub(crate) struct TextTower {
    isa: Isa,
    config: TextConfig,
    dim: usize,
    /// Token vectors stay in the file: a text needs a handful of 49,408 rows.
    weights: Arc<Weights>,
    // (context, width)
    position: Part<f32>,
    blocks: Blocks,
    norm_post: LayerNorm,
    projection: Option<Dense>,
    free: Mutex<Vec<Room>>,
}

/// Working memory of one thread.
struct Room {
    scratch: Scratch,
    pooled: Rows,
}

impl TextTower {
    /// The tower from the next parts of a store.
    pub(super) fn take(
        source: &mut Source<'_>,
        weights: &Arc<Weights>,
        config: &TextConfig,
        dim: usize,
    ) -> Result<Self> {
        let transformer = &config.transformer;
        let width = transformer.width;
        let position = source.parts.take(config.context * width, |to: &mut [f32]| {
            to.copy_from_slice(&weights.get("text.position")?.0);
            Ok(())
        })?;
        let blocks = Blocks::take(source, "text", transformer, config.causal, true)?;
        let norm_post = source.norm("text.norm_post", width, transformer.norm_eps)?;
        let projection = if weights.contains("text.projection.weight") {
            Some(source.dense("text.projection", Number::F32, width, dim)?)
        } else {
            None
        };
        Ok(Self {
            isa: source.isa,
            config: config.clone(),
            dim,
            weights: Arc::clone(weights),
            position,
            blocks,
            norm_post,
            projection,
            free: Mutex::default(),
        })
    }

    /// One row per text, not normalised. Each text is as many ids as the context is long, and the place of its pooled token.
    ///
    /// # Errors
    /// Those of reading token vectors.
    pub(crate) fn encode(&self, texts: &[(&[u32], usize)]) -> Result<Vec<f32>> {
        let mut out = vec![0.0; texts.len() * self.dim];
        let tokens: usize = texts.iter().map(|text| self.length(*text)).sum();
        let threads = rayon::current_num_threads();
        // A context that is longer is a pass of its own.
        let most = tokens.div_ceil(threads).clamp(self.config.context, self.config.context.max(TOKENS));
        let mut passes = Vec::new();
        let (mut rest_texts, mut rest) = (texts, out.as_mut_slice());
        while !rest_texts.is_empty() {
            let mut sum = 0;
            let fits = |text: &&(&[u32], usize)| {
                sum += self.length(**text);
                sum <= most
            };
            let count = rest_texts.iter().take_while(fits).count().max(1);
            let (now, later) = rest_texts.split_at(count);
            let (to, after) = rest.split_at_mut(count * self.dim);
            passes.push((now, to));
            (rest_texts, rest) = (later, after);
        }
        if passes.len() == 1 {
            // No need to wake another thread.
            passes.into_iter().try_for_each(|(texts, out)| self.pass(texts, out))?;
        } else {
            passes.into_par_iter().try_for_each(|(texts, out)| self.pass(texts, out))?;
        }
        Ok(out)
    }

    /// Tokens that matter.
    fn length(&self, (_, pooled): (&[u32], usize)) -> usize {
        if self.config.causal { pooled + 1 } else { self.config.context }
    }

    fn pass(&self, texts: &[(&[u32], usize)], out: &mut [f32]) -> Result<()> {
        let width = self.config.transformer.width;
        let lengths: Vec<usize> = texts.iter().map(|text| self.length(*text)).collect();
        let pooled: Vec<usize> = texts.iter().map(|text| text.1).collect();
        let ids: Vec<u32> = texts.iter().zip(&lengths).flat_map(|(text, &len)| &text.0[..len]).copied().collect();
        let tokens = self.weights.rows("text.token", &ids)?; // (tokens, width)
        let lock = || self.free.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let free = lock().pop();
        let mut room = free.unwrap_or_else(|| Room {
            scratch: self.blocks.scratch(),
            pooled: Rows::new(self.isa, Number::F32, width),
        });
        let mut x = room.scratch.x.at_least(tokens.len());
        x.copy_from_slice(&tokens);
        for &len in &lengths {
            let (text, rest) = x.split_at_mut(len * width);
            text.iter_mut().zip(&*self.position).for_each(|(x, position)| *x += position);
            x = rest;
        }
        self.blocks.forward_pooled(&mut room.scratch, &lengths, &pooled);
        let picked = &room.scratch.picked;
        match &self.projection {
            None => self.norm_post.apply(&picked[..out.len()], out),
            Some(projection) => {
                room.pooled.normalise(&self.norm_post, picked, texts.len());
                projection.apply(texts.len(), &room.pooled, Out::Floats(out, self.dim), Epilogue::STORE); // (texts, dim)
            }
        }
        lock().push(room);
        Ok(())
    }
}
