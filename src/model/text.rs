//! The text tower: a transformer over token ids.
//!
//! Under a causal mask the pooled token does not see what comes after it, so a text is cut behind it; and padding that nobody
//! sees is cut off. Both are exact, and the largest saving there is: queries have eight tokens, contexts 77.

use std::sync::Arc;

use candle_core::{Device, Result as TensorResult, Tensor};

use super::config::{Padding, Place, ReaderConfig, TextKind, TextPool};
use super::linear::{Linear, Norm, tensor_error};
use super::loader::Loader;
use super::project::Head;
use super::spread::{self, Side, points};
use super::transformer::{Pass, Transformer, pick};
use super::weights::Weights;
use crate::Result;

/// Texts per pass.
const BATCH: usize = 32;

/// A text transformer and its projection.
#[derive(Debug)]
pub(super) struct Text {
    device: Device,
    /// Token vectors stay in the file: a text needs a handful of 49,408 rows.
    weights: Arc<Weights>,
    reader: Reader,
    dim: usize,
}

#[derive(Debug)]
struct Reader {
    config: ReaderConfig,
    position: Option<Tensor>,
    segment: Option<Tensor>,
    norm_embedding: Option<Norm>,
    /// Tokens after those of the text, `(tokens, width)`.
    class: Option<Tensor>,
    transformer: Transformer,
    norm_post: Option<Norm>,
    pooler: Option<(Linear, bool)>,
    head: Head,
    /// Makes the variance of the embedding.
    spread: Option<Linear>,
}

/// Texts of one pass: as many ids for each.
struct Batch {
    ids: Vec<Vec<u32>>,
    /// The token that becomes the vector.
    picked: Vec<usize>,
}

impl Text {
    /// Reads the tower.
    pub(super) fn load(loader: &Loader, weights: &Arc<Weights>, config: &TextKind, dim: usize) -> Result<Self> {
        let reader = Reader::load(loader, config, dim)?;
        Ok(Self { device: loader.device().clone(), weights: Arc::clone(weights), reader, dim })
    }

    /// Asks for the tower's tensors.
    pub(super) fn list(loader: &Loader, config: &TextKind, dim: usize) -> Result<()> {
        Reader::load(loader, config, dim).map(drop)
    }

    /// One row per text, not normalised. Each text is as many ids as the context is long.
    pub(super) fn encode(&self, texts: &[Vec<u32>]) -> Result<Vec<f32>> {
        let config = &self.reader.config;
        let pooled: Vec<usize> = texts.iter().map(|ids| self.reader.pooled_at(ids)).collect();
        let lengths: Vec<usize> =
            texts.iter().zip(&pooled).map(|(ids, &pooled)| self.reader.needed(ids, pooled)).collect();
        // Texts of about one length share a pass.
        let mut order: Vec<usize> = (0..texts.len()).collect();
        order.sort_by_key(|&i| lengths[i]);
        let mut rows = vec![0.0; texts.len() * self.dim];
        for batch in order.chunks(BATCH) {
            let len = batch.iter().map(|&i| lengths[i]).max().unwrap_or(1);
            let part = Batch {
                ids: batch.iter().map(|&i| texts[i][..len].to_vec()).collect(),
                picked: batch.iter().map(|&i| pooled[i]).collect(),
            };
            let ids: Vec<u32> = part.ids.iter().flatten().copied().collect();
            let mut tokens = self.weights.rows("text.token", &ids)?;
            if config.token_scale != 1.0 {
                tokens.iter_mut().for_each(|x| *x *= config.token_scale);
            }
            let embedded = self.reader.forward(tokens, &part, len, &self.device);
            let embedded = embedded.and_then(|t| t.flatten_all()?.to_vec1::<f32>()).map_err(tensor_error)?;
            for (row, &i) in embedded.chunks_exact(self.dim).zip(batch) {
                rows[i * self.dim..(i + 1) * self.dim].copy_from_slice(row);
            }
        }
        Ok(rows)
    }
}

impl Reader {
    fn load(loader: &Loader, config: &TextKind, dim: usize) -> Result<Self> {
        let config = match config {
            TextKind::Plain(config) => ReaderConfig::plain(config),
            TextKind::Reader(config) => config.clone(),
        };
        let (width, eps) = (config.blocks.width, config.blocks.norm_eps);
        let norm = |wanted: bool, name: &str| match (wanted, config.blocks.root_mean_square) {
            (false, _) => Ok(None),
            (true, false) => loader.norm(name, width, eps).map(Some),
            (true, true) => loader.rms_norm(name, width, eps).map(Some),
        };
        loader.expect("text.token", &[config.vocabulary, width]);
        let mean = if config.spread { dim.saturating_sub(spread::EXTRA) } else { dim };
        let position = match config.place {
            Place::Learned { rows, .. } => Some(loader.tensor("text.position", &[rows, width])?),
            Place::Waves { .. } => None,
        };
        let segment = match config.segments {
            Some(kinds) => Some(loader.tensor("text.segment", &[kinds, width])?),
            None => None,
        };
        Ok(Self {
            position,
            segment,
            norm_embedding: norm(config.norm_embedding, "text.norm_embedding")?,
            class: Self::load_class(loader, &config)?,
            transformer: Transformer::load(loader, "text", &config.blocks)?,
            norm_post: norm(config.norm_post, "text.norm_post")?,
            pooler: match config.pooler {
                Some(pooler) => Some((loader.linear("text.pooler", pooler.width, width, true)?, pooler.tanh)),
                None => None,
            },
            head: {
                let width = config.pooler.map_or(width, |pooler| pooler.width);
                Head::load(loader, "text.projection", config.projection, width, mean)?
            },
            spread: if config.spread { Some(loader.linear("text.variance", mean, mean, true)?) } else { None },
            config,
        })
    }

    /// The learned tokens after those of the text.
    fn load_class(loader: &Loader, config: &ReaderConfig) -> Result<Option<Tensor>> {
        let wanted = [("text.uncertain", config.spread), ("text.class", config.class)];
        let tokens = wanted.iter().filter(|token| token.1).map(|token| loader.tensor(token.0, &[config.blocks.width]));
        let tokens = tokens.collect::<Result<Vec<Tensor>>>()?;
        if tokens.is_empty() { Ok(None) } else { Tensor::stack(&tokens, 0).map(Some).map_err(tensor_error) }
    }

    /// The position that becomes the text's vector.
    fn pooled_at(&self, ids: &[u32]) -> usize {
        if self.config.class { ids.len() + usize::from(self.config.spread) } else { pooled_at(ids, self.config.pool) }
    }

    /// How many of its tokens a text needs.
    fn needed(&self, ids: &[u32], pooled: usize) -> usize {
        match self.config.padding {
            _ if self.config.class => ids.len(),
            _ if self.config.causal && self.config.pool != TextPool::Mean => pooled + 1,
            Padding::Hidden(pad) => {
                let seen = ids.iter().rposition(|&id| id != pad).map_or(0, |i| i + 1);
                seen.max(pooled + 1).max(1)
            }
            _ => ids.len(),
        }
    }

    fn forward(&self, tokens: Vec<f32>, batch: &Batch, len: usize, device: &Device) -> TensorResult<Tensor> {
        let width = self.config.blocks.width;
        let count = batch.ids.len();
        let mut x = Tensor::from_vec(tokens, (count, len, width), device)?; // (batch, len, width)
        if let Some(class) = &self.class {
            x = Tensor::cat(&[&x, &class.unsqueeze(0)?.expand((count, class.dim(0)?, width))?], 1)?;
        }
        x = self.place(&x, batch, device)?;
        if let Some(segment) = &self.segment {
            x = x.broadcast_add(&segment.narrow(0, 0, 1)?)?;
        }
        if let Some(norm) = &self.norm_embedding {
            x = norm.forward(&x)?;
        }
        let mask = self.mask(batch, x.dim(1)?, device)?;
        let pass = Pass { mask: mask.as_ref(), rotation: None };
        let mut x = match self.config.pool {
            TextPool::Mean => self.mean(&self.transformer.forward(x, pass)?, batch, device)?,
            // The last token's mask hides nothing from it, so it does without one.
            _ if mask.is_some() => pick(&self.transformer.forward(x, pass)?, &batch.picked)?,
            _ => self.transformer.forward_picked(x, pass, &batch.picked)?,
        }; // (batch, width)
        if let Some(norm) = &self.norm_post {
            x = norm.forward(&x)?;
        }
        if let Some((pooler, tanh)) = &self.pooler {
            x = pooler.forward(&x)?;
            if *tanh {
                x = x.tanh()?;
            }
        }
        let x = self.head.forward(&x)?; // (batch, dim)
        match &self.spread {
            Some(spread) => points(&x, &spread.forward(&x)?, Side::Text),
            None => Ok(x),
        }
    }

    /// Adds the vectors of places.
    fn place(&self, x: &Tensor, batch: &Batch, device: &Device) -> TensorResult<Tensor> {
        let (count, len, width) = x.dims3()?;
        let Padding::Hidden(pad) = self.config.padding else {
            return match (&self.position, self.config.place) {
                (Some(position), Place::Learned { first, .. }) => x.broadcast_add(&position.narrow(0, first, len)?),
                (_, Place::Waves { first } | Place::Learned { first, .. }) => {
                    let waves: Vec<f32> = (0..len).flat_map(|i| wave(first + i, width)).collect();
                    x.broadcast_add(&Tensor::from_vec(waves, (len, width), device)?)
                }
            };
        };
        // Padding stands nowhere, and what follows it counts on from before.
        let (Place::Learned { first, .. } | Place::Waves { first }) = self.config.place;
        let places = batch.ids.iter().flat_map(|ids| {
            ids.iter().scan(first, |next, &id| {
                let here = *next;
                *next += usize::from(id != pad);
                Some(if id == pad { 0 } else { here })
            })
        });
        match &self.position {
            Some(position) => {
                let rows: Vec<u32> = places.map(|p| p as u32).collect();
                let rows = Tensor::from_vec(rows, count * len, device)?;
                x + position.index_select(&rows, 0)?.reshape((count, len, width))?
            }
            None => {
                let waves: Vec<f32> = places.flat_map(|p| wave(p, width)).collect();
                x + Tensor::from_vec(waves, (count, len, width), device)?
            }
        }
    }

    /// Minus infinity where a token must not look, if there is such a place: `(batch, 1, tokens, tokens)`.
    fn mask(&self, batch: &Batch, len: usize, device: &Device) -> TensorResult<Option<Tensor>> {
        let hidden = |ids: &[u32], key: usize| match self.config.padding {
            Padding::Seen => false,
            Padding::Hidden(pad) => ids.get(key) == Some(&pad),
            Padding::HiddenNext(pad) => key > 0 && ids.get(key - 1) == Some(&pad),
        };
        let padded = batch.ids.iter().any(|ids| (0..len).any(|key| hidden(ids, key)));
        if !padded && (!self.config.causal || len == 1) {
            return Ok(None);
        }
        let queries = if self.config.causal { len } else { 1 };
        let mut mask = Vec::with_capacity(batch.ids.len() * queries * len);
        for ids in &batch.ids {
            for query in 0..queries {
                mask.extend((0..len).map(|key| {
                    let blind = self.config.causal && key > query || hidden(ids, key);
                    if blind { f32::NEG_INFINITY } else { 0.0 }
                }));
            }
        }
        Tensor::from_vec(mask, (batch.ids.len(), 1, queries, len), device).map(Some)
    }

    /// The mean of the tokens that are no padding.
    fn mean(&self, x: &Tensor, batch: &Batch, device: &Device) -> TensorResult<Tensor> {
        let (count, len, _) = x.dims3()?;
        let weights: Vec<f32> = batch
            .ids
            .iter()
            .flat_map(|ids| {
                let seen = |id: &u32| !matches!(self.config.padding, Padding::Hidden(pad) if pad == *id);
                let each = 1.0 / ids.iter().filter(|id| seen(id)).count().max(1) as f32;
                ids.iter().map(move |id| if seen(id) { each } else { 0.0 }).collect::<Vec<_>>()
            })
            .collect();
        Tensor::from_vec(weights, (count, 1, len), device)?.matmul(x)?.squeeze(1)
    }
}

/// Sines and then cosines of a place, with wavelengths from 2π to 20,000π.
pub(super) fn wave(place: usize, width: usize) -> impl Iterator<Item = f32> {
    let half = width / 2;
    let angle = move |i: usize| place as f64 * (-(10_000.0_f64.ln()) / (half - 1) as f64 * i as f64).exp();
    (0..half)
        .map(move |i| angle(i).sin() as f32)
        .chain((0..width - half).map(move |i| if i < half { angle(i).cos() as f32 } else { 0.0 }))
}

/// The position that becomes the text's vector.
pub(super) fn pooled_at(ids: &[u32], pool: TextPool) -> usize {
    match pool {
        TextPool::First | TextPool::Mean => 0,
        TextPool::Last => ids.len().saturating_sub(1),
        TextPool::Largest => {
            let largest = ids.iter().max();
            ids.iter().position(|id| Some(id) == largest).unwrap_or(0)
        }
        TextPool::Token(eos) => ids.iter().position(|&id| id == eos).unwrap_or(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pooling_finds_the_token_that_the_original_finds() {
        let ids = [7, 3, 9, 9, 0, 0];
        assert_eq!(pooled_at(&ids, TextPool::First), 0);
        assert_eq!(pooled_at(&ids, TextPool::Last), 5);
        assert_eq!(pooled_at(&ids, TextPool::Largest), 2);
        assert_eq!(pooled_at(&ids, TextPool::Token(0)), 4);
        assert_eq!(pooled_at(&ids, TextPool::Token(1)), 0, "no such token: the first, as argmax of nothing");
    }
}
