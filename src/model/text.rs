//! The text tower: a transformer over token ids.
//!
//! Under a causal mask the pooled token does not see what comes after it, so a text is cut behind it. That is exact, and the
//! largest saving there is: queries have eight tokens, contexts 77.

use std::sync::Arc;

use candle_core::{Device, Result as TensorResult, Tensor};

use super::config::{TextConfig, TextPool};
use super::linear::{Linear, Loader, Norm, tensor_error};
use super::transformer::Transformer;
use super::weights::Weights;
use crate::Result;

/// Texts per pass.
const BATCH: usize = 32;

/// A text transformer and its projection.
#[derive(Debug)]
pub(super) struct Text {
    config: TextConfig,
    dim: usize,
    device: Device,
    /// Token vectors stay in the file: a text needs a handful of 49,408 rows.
    weights: Arc<Weights>,
    position: Tensor,
    transformer: Transformer,
    norm_post: Norm,
    projection: Option<Linear>,
}

impl Text {
    /// Reads the tower.
    pub(super) fn load(weights: &Arc<Weights>, device: &Device, config: &TextConfig, dim: usize) -> Result<Self> {
        let loader = Loader { weights, device };
        let projected = weights.contains("text.projection.weight");
        Ok(Self {
            config: config.clone(),
            dim,
            device: device.clone(),
            weights: Arc::clone(weights),
            position: loader.tensor("text.position")?,
            transformer: Transformer::load(&loader, "text", &config.transformer)?,
            norm_post: loader.norm("text.norm_post", config.transformer.norm_eps)?,
            projection: if projected { Some(loader.linear("text.projection", 0, 1.0)?) } else { None },
        })
    }

    /// One row per text, not normalised. Each text is as many ids as the context is long.
    pub(super) fn encode(&self, texts: &[Vec<u32>]) -> Result<Vec<f32>> {
        let pooled: Vec<usize> = texts.iter().map(|ids| pooled_at(ids, self.config.pool)).collect();
        // Texts of about one length share a pass.
        let mut order: Vec<usize> = (0..texts.len()).collect();
        order.sort_by_key(|&i| pooled[i]);
        let mut rows = vec![0.0; texts.len() * self.dim];
        for batch in order.chunks(BATCH) {
            let longest = batch.iter().map(|&i| pooled[i] + 1).max().unwrap_or(1);
            let len = if self.config.causal { longest } else { self.config.context };
            let ids: Vec<u32> = batch.iter().flat_map(|&i| &texts[i][..len]).copied().collect();
            let picked: Vec<usize> = batch.iter().map(|&i| pooled[i]).collect();
            let tokens = self.weights.rows("text.token", &ids)?;
            let embedded = self.forward(tokens, len, &picked).and_then(|t| t.flatten_all()?.to_vec1::<f32>());
            for (row, &i) in embedded.map_err(tensor_error)?.chunks_exact(self.dim).zip(batch) {
                rows[i * self.dim..(i + 1) * self.dim].copy_from_slice(row);
            }
        }
        Ok(rows)
    }

    fn forward(&self, tokens: Vec<f32>, len: usize, picked: &[usize]) -> TensorResult<Tensor> {
        let x = Tensor::from_vec(tokens, (picked.len(), len, self.config.transformer.width), &self.device)?; // (batch, len, width)
        let x = x.broadcast_add(&self.position.narrow(0, 0, len)?)?;
        let x = self.transformer.forward_picked(x, self.config.causal, picked)?; // (batch, width)
        let x = self.norm_post.forward(&x)?;
        match &self.projection {
            None => Ok(x),
            Some(projection) => projection.forward(&x), // (batch, dim)
        }
    }
}

/// The position that becomes the text's vector.
pub(super) fn pooled_at(ids: &[u32], pool: TextPool) -> usize {
    match pool {
        TextPool::First => 0,
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
