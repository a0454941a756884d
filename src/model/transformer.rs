//! The pre-norm transformer of both towers.
//!
//! The tower says which token it will pool, and the last block then evaluates that token alone: its neighbours serve as keys
//! and values only, which saves three quarters of the block.

use candle_core::{D, Result as TensorResult, Tensor};

use super::config::{Activation, TransformerConfig};
use super::linear::{Linear, Loader, Norm};
use crate::Result;

/// A stack of blocks.
#[derive(Debug)]
pub(super) struct Transformer {
    blocks: Vec<Block>,
}

#[derive(Debug)]
struct Block {
    heads: usize,
    activation: Activation,
    norm_1: Norm,
    qkv: Linear,
    out: Linear,
    norm_2: Norm,
    up: Linear,
    down: Linear,
}

impl Transformer {
    /// Reads the blocks of `tower`.
    pub(super) fn load(loader: &Loader, tower: &str, config: &TransformerConfig) -> Result<Self> {
        let blocks = (0..config.layers).map(|i| Block::load(loader, &format!("{tower}.blocks.{i}"), config));
        Ok(Self { blocks: blocks.collect::<Result<_>>()? })
    }

    /// All tokens: `(batch, tokens, width)` to the same.
    pub(super) fn forward(&self, x: Tensor, causal: bool) -> TensorResult<Tensor> {
        let mask = mask(&x, causal)?;
        self.blocks.iter().try_fold(x, |x, block| block.forward(&x, mask.as_ref()))
    }

    /// One token of each sequence, `picked[i]` of the i-th: `(batch, tokens, width)` to `(batch, width)`.
    pub(super) fn forward_picked(&self, x: Tensor, causal: bool, picked: &[usize]) -> TensorResult<Tensor> {
        let Some((last, blocks)) = self.blocks.split_last() else {
            return pick(&x, picked);
        };
        let mask = mask(&x, causal)?;
        let x = blocks.iter().try_fold(x, |x, block| block.forward(&x, mask.as_ref()))?;
        last.forward_picked(&x, causal, picked)
    }
}

impl Block {
    fn load(loader: &Loader, name: &str, config: &TransformerConfig) -> Result<Self> {
        // The scale of the scores is part of the queries' weights: a power of two, and exact, for the usual heads of 64.
        let scale = 1.0 / ((config.width / config.heads) as f32).sqrt();
        let linear = |part: &str| loader.linear(&format!("{name}.{part}"), 0, 1.0);
        Ok(Self {
            heads: config.heads,
            activation: config.activation,
            norm_1: loader.norm(&format!("{name}.norm_1"), config.norm_eps)?,
            qkv: loader.linear(&format!("{name}.attention.qkv"), config.width, scale)?,
            out: linear("attention.out")?,
            norm_2: loader.norm(&format!("{name}.norm_2"), config.norm_eps)?,
            up: linear("mlp.up")?,
            down: linear("mlp.down")?,
        })
    }

    fn forward(&self, x: &Tensor, mask: Option<&Tensor>) -> TensorResult<Tensor> {
        let (batch, tokens, width) = x.dims3()?;
        let x = x.reshape((batch * tokens, width))?; // (batch · tokens, width)
        let qkv = self.qkv.forward(&self.norm_1.forward(&x)?)?; // (batch · tokens, 3 · width)
        let qkv = self.split(&qkv, batch, tokens)?; // (3, batch, heads, tokens, width / heads)
        let (q, k, v) = (qkv.get(0)?, qkv.get(1)?, qkv.get(2)?);
        let attended = attend(&q, &k, &v, mask)?; // (batch, heads, tokens, width / heads)
        let attended = attended.transpose(1, 2)?.reshape((batch * tokens, width))?;
        self.finish(&x, &attended)?.reshape((batch, tokens, width))
    }

    fn forward_picked(&self, x: &Tensor, causal: bool, picked: &[usize]) -> TensorResult<Tensor> {
        let (batch, tokens, width) = x.dims3()?;
        let here = pick(x, picked)?; // (batch, width)
        let flat = x.reshape((batch * tokens, width))?;
        let qkv = self.qkv.forward(&self.norm_1.forward(&flat)?)?; // (batch · tokens, 3 · width)
        let q = pick(&qkv.reshape((batch, tokens, 3 * width))?, picked)?.narrow(1, 0, width)?; // (batch, width)
        let q = q.reshape((batch, self.heads, 1, width / self.heads))?;
        let qkv = self.split(&qkv, batch, tokens)?; // (3, batch, heads, tokens, width / heads)
        let mask = if causal { Some(picked_mask(x, picked)?) } else { None }; // (batch, 1, 1, tokens)
        let attended = attend(&q, &qkv.get(1)?, &qkv.get(2)?, mask.as_ref())?; // (batch, heads, 1, width / heads)
        self.finish(&here, &attended.reshape((batch, width))?)
    }

    /// `(batch · tokens, 3 · width)` to `(3, batch, heads, tokens, width / heads)`.
    fn split(&self, qkv: &Tensor, batch: usize, tokens: usize) -> TensorResult<Tensor> {
        let head = qkv.dim(1)? / 3 / self.heads;
        qkv.reshape((batch, tokens, 3, self.heads, head))?.permute((2, 0, 3, 1, 4))?.contiguous()
    }

    /// What follows attention, on rows of `width`.
    fn finish(&self, x: &Tensor, attended: &Tensor) -> TensorResult<Tensor> {
        let x = (x + self.out.forward(attended)?)?;
        let inner = self.up.forward_activated(&self.norm_2.forward(&x)?, self.activation)?; // (rows, hidden)
        x + self.down.forward(&inner)?
    }
}

/// Softmax of scores times values. The queries carry the scale.
fn attend(q: &Tensor, k: &Tensor, v: &Tensor, mask: Option<&Tensor>) -> TensorResult<Tensor> {
    let mut scores = q.matmul(&k.t()?)?; // (batch, heads, queries, tokens)
    if let Some(mask) = mask {
        scores = scores.broadcast_add(mask)?;
    }
    candle_nn::ops::softmax_last_dim(&scores)?.matmul(v)
}

/// Row `picked[i]` of the i-th sequence.
fn pick(x: &Tensor, picked: &[usize]) -> TensorResult<Tensor> {
    let (batch, tokens, width) = x.dims3()?;
    let rows: Vec<u32> = picked.iter().enumerate().map(|(i, &p)| (i * tokens + p) as u32).collect();
    let rows = Tensor::from_vec(rows, batch, x.device())?;
    x.reshape((batch * tokens, width))?.index_select(&rows, 0)
}

/// Zero where a token may look, minus infinity after it: `(tokens, tokens)`.
fn mask(x: &Tensor, causal: bool) -> TensorResult<Option<Tensor>> {
    let tokens = x.dim(D::Minus2)?;
    if !causal || tokens == 1 {
        return Ok(None);
    }
    let at = |i: usize| if i % tokens > i / tokens { f32::NEG_INFINITY } else { 0.0 };
    let mask: Vec<f32> = (0..tokens * tokens).map(at).collect();
    Tensor::from_vec(mask, (tokens, tokens), x.device()).map(Some)
}

/// The rows of the causal mask that belong to the picked tokens: `(batch, 1, 1, tokens)`.
fn picked_mask(x: &Tensor, picked: &[usize]) -> TensorResult<Tensor> {
    let tokens = x.dim(1)?;
    let row = |&p: &usize| (0..tokens).map(move |t| if t > p { f32::NEG_INFINITY } else { 0.0 });
    let mask: Vec<f32> = picked.iter().flat_map(row).collect();
    Tensor::from_vec(mask, (picked.len(), 1, 1, tokens), x.device())
}
