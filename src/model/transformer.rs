//! The stack of attention blocks of both towers.
//!
//! The tower says which token it will pool, and the last block then evaluates that token alone where it can: its neighbours
//! serve as keys and values only, which saves three quarters of the block.

use candle_core::{DType, Result as TensorResult, Tensor};

use super::config::{BlocksConfig, NormOrder};
use super::linear::{Linear, Norm, activate};
use super::loader::Loader;
use crate::Result;

/// A stack of blocks.
#[derive(Debug)]
pub(super) struct Transformer {
    blocks: Vec<Block>,
}

/// What the tokens of one pass know of each other.
#[derive(Clone, Copy, Default)]
pub(super) struct Pass<'a> {
    /// Added to the scores; broadcasts to `(batch, heads, tokens, tokens)`.
    pub(super) mask: Option<&'a Tensor>,
    /// By how much each token's queries and keys are rotated.
    pub(super) rotation: Option<&'a Rotation>,
}

/// Cosines and sines for each token, `(tokens, width / heads / 2)`.
#[derive(Debug)]
pub(super) struct Rotation {
    pub(super) cos: Tensor,
    pub(super) sin: Tensor,
}

#[derive(Debug)]
struct Block {
    heads: usize,
    order: NormOrder,
    norm_1: Norm,
    qkv: Linear,
    norm_attention: Option<Norm>,
    out: Linear,
    scale_1: Option<Tensor>,
    norm_2: Norm,
    feed: Feed,
    scale_2: Option<Tensor>,
}

/// The feed-forward half of a block.
#[derive(Debug)]
pub(super) struct Feed {
    activation: super::config::Activation,
    norm: Option<Norm>,
    gate: Option<Linear>,
    up: Linear,
    norm_hidden: Option<Norm>,
    down: Linear,
}

impl Transformer {
    /// Reads the blocks of `tower`.
    pub(super) fn load(loader: &Loader, tower: &str, config: &BlocksConfig) -> Result<Self> {
        let blocks = (0..config.layers).map(|i| Block::load(loader, &format!("{tower}.blocks.{i}"), config));
        Ok(Self { blocks: blocks.collect::<Result<_>>()? })
    }

    /// All tokens: `(batch, tokens, width)` to the same.
    pub(super) fn forward(&self, x: Tensor, pass: Pass) -> TensorResult<Tensor> {
        self.blocks.iter().try_fold(x, |x, block| block.forward(&x, pass))
    }

    /// One token of each sequence, `picked[i]` of the i-th: `(batch, tokens, width)` to `(batch, width)`.
    pub(super) fn forward_picked(&self, x: Tensor, pass: Pass, picked: &[usize]) -> TensorResult<Tensor> {
        match self.blocks.split_last() {
            Some((last, blocks)) if pass.mask.is_none() && pass.rotation.is_none() => {
                let x = blocks.iter().try_fold(x, |x, block| block.forward(&x, pass))?;
                last.forward_picked(&x, picked)
            }
            _ => pick(&self.forward(x, pass)?, picked),
        }
    }
}

impl Block {
    fn load(loader: &Loader, name: &str, config: &BlocksConfig) -> Result<Self> {
        let (width, eps, biased) = (config.width, config.norm_eps, config.biased);
        // The scale of the scores is part of the queries' weights: a power of two, and exact, for the usual heads of 64.
        let scale = 1.0 / ((width / config.heads) as f32).sqrt();
        let part = |part: &str| format!("{name}.{part}");
        let norm = |name: &str, width| {
            if config.root_mean_square { loader.rms_norm(name, width, eps) } else { loader.norm(name, width, eps) }
        };
        let scales = |name: &str| {
            if config.layer_scale { loader.tensor(name, &[width]).map(Some) } else { Ok(None) }
        };
        let has = |wanted: bool, name: &str, width| if wanted { norm(&part(name), width).map(Some) } else { Ok(None) };
        Ok(Self {
            heads: config.heads,
            order: config.order,
            norm_1: norm(&part("norm_1"), width)?,
            qkv: loader.linear_scaled(&part("attention.qkv"), 3 * width, &[width], biased, width, scale)?,
            norm_attention: has(config.norm_attention, "attention.norm", width)?,
            out: loader.linear(&part("attention.out"), width, width, biased)?,
            scale_1: scales(&part("scale_1"))?,
            norm_2: norm(&part("norm_2"), width)?,
            feed: Feed {
                activation: config.activation,
                norm: has(config.norm_feed, "mlp.norm_in", width)?,
                gate: if config.gated {
                    Some(loader.linear(&part("mlp.gate"), config.hidden, width, biased)?)
                } else {
                    None
                },
                up: loader.linear(&part("mlp.up"), config.hidden, width, biased)?,
                norm_hidden: has(config.norm_hidden, "mlp.norm", config.hidden)?,
                down: loader.linear(&part("mlp.down"), width, config.hidden, biased)?,
            },
            scale_2: scales(&part("scale_2"))?,
        })
    }

    fn forward(&self, x: &Tensor, pass: Pass) -> TensorResult<Tensor> {
        let (batch, tokens, width) = x.dims3()?;
        let x = x.reshape((batch * tokens, width))?; // (batch · tokens, width)
        let qkv = self.split(&self.qkv.forward(&self.enter(&x)?)?, batch, tokens)?; // (3, batch, heads, tokens, width / heads)
        let (mut q, mut k, v) = (qkv.get(0)?, qkv.get(1)?, qkv.get(2)?);
        if let Some(Rotation { cos, sin }) = pass.rotation {
            q = candle_nn::rotary_emb::rope_i(&q.contiguous()?, cos, sin)?;
            k = candle_nn::rotary_emb::rope_i(&k.contiguous()?, cos, sin)?;
        }
        let attended = self.attend(&q, &k, &v, pass.mask)?; // (batch, heads, tokens, width / heads)
        let attended = attended.transpose(1, 2)?.reshape((batch * tokens, width))?;
        self.finish(&x, &attended)?.reshape((batch, tokens, width))
    }

    fn forward_picked(&self, x: &Tensor, picked: &[usize]) -> TensorResult<Tensor> {
        let (batch, tokens, width) = x.dims3()?;
        let here = pick(x, picked)?; // (batch, width)
        let flat = x.reshape((batch * tokens, width))?;
        let qkv = self.qkv.forward(&self.enter(&flat)?)?; // (batch · tokens, 3 · width)
        let q = pick(&qkv.reshape((batch, tokens, 3 * width))?, picked)?.narrow(1, 0, width)?; // (batch, width)
        let q = q.reshape((batch, self.heads, 1, width / self.heads))?;
        let qkv = self.split(&qkv, batch, tokens)?; // (3, batch, heads, tokens, width / heads)
        let attended = self.attend(&q, &qkv.get(1)?, &qkv.get(2)?, None)?; // (batch, heads, 1, width / heads)
        self.finish(&here, &attended.reshape((batch, width))?)
    }

    /// Attention in what the products are in.
    fn attend(&self, q: &Tensor, k: &Tensor, v: &Tensor, mask: Option<&Tensor>) -> TensorResult<Tensor> {
        let products = self.qkv.weight.dtype();
        attend(&q.to_dtype(products)?, &k.to_dtype(products)?, &v.to_dtype(products)?, mask)
    }

    /// What attention sees of the residual stream.
    fn enter(&self, x: &Tensor) -> TensorResult<Tensor> {
        match self.order {
            NormOrder::Before => self.norm_1.forward(x),
            NormOrder::Branch | NormOrder::After => Ok(x.clone()),
        }
    }

    /// `(batch · tokens, 3 · width)` to `(3, batch, heads, tokens, width / heads)`.
    fn split(&self, qkv: &Tensor, batch: usize, tokens: usize) -> TensorResult<Tensor> {
        let head = qkv.dim(1)? / 3 / self.heads;
        qkv.reshape((batch, tokens, 3, self.heads, head))?.permute((2, 0, 3, 1, 4))?.contiguous()
    }

    /// What follows attention, on rows of `width`.
    fn finish(&self, x: &Tensor, attended: &Tensor) -> TensorResult<Tensor> {
        let mut branch = match &self.norm_attention {
            Some(norm) => self.out.forward(&norm.forward(attended)?)?,
            None => self.out.forward(attended)?,
        };
        if let Some(scale) = &self.scale_1 {
            branch = branch.broadcast_mul(scale)?;
        }
        let x = match self.order {
            NormOrder::Before => (x + branch)?,
            NormOrder::Branch => (x + self.norm_1.forward(&branch)?)?,
            NormOrder::After => self.norm_1.forward(&(x + branch)?)?,
        };
        let mut branch = match self.order {
            NormOrder::Before => self.feed.forward(&self.norm_2.forward(&x)?)?,
            NormOrder::Branch | NormOrder::After => self.feed.forward(&x)?,
        };
        if let Some(scale) = &self.scale_2 {
            branch = branch.broadcast_mul(scale)?;
        }
        match self.order {
            NormOrder::Before => x + branch,
            NormOrder::Branch => x + self.norm_2.forward(&branch)?,
            NormOrder::After => self.norm_2.forward(&(x + branch)?),
        }
    }
}

impl Feed {
    /// Up, activated, down, without gate or norms.
    pub(super) fn load(
        loader: &Loader,
        name: &str,
        width: usize,
        hidden: usize,
        activation: super::config::Activation,
    ) -> Result<Self> {
        Ok(Self {
            activation,
            norm: None,
            gate: None,
            up: loader.linear(&format!("{name}.up"), hidden, width, true)?,
            norm_hidden: None,
            down: loader.linear(&format!("{name}.down"), width, hidden, true)?,
        })
    }

    /// Rows of the width to the same.
    pub(super) fn forward(&self, x: &Tensor) -> TensorResult<Tensor> {
        let x = match &self.norm {
            Some(norm) => &norm.forward(x)?,
            None => x,
        };
        let mut inner = match &self.gate {
            None => self.up.forward_activated(x, self.activation)?, // (rows, hidden)
            Some(gate) => (activate(&gate.forward(x)?, self.activation)? * self.up.forward(x)?)?,
        };
        if let Some(norm) = &self.norm_hidden {
            inner = norm.forward(&inner)?;
        }
        self.down.forward(&inner)
    }
}

/// Softmax of scores times values, in f32 but for the two products, which are in what they are given in. The queries carry the
/// scale.
pub(super) fn attend(q: &Tensor, k: &Tensor, v: &Tensor, mask: Option<&Tensor>) -> TensorResult<Tensor> {
    let scores = q.contiguous()?.matmul(&k.t()?.contiguous()?)?; // (batch, heads, queries, tokens)
    let mut scores = scores.to_dtype(DType::F32)?;
    if let Some(mask) = mask {
        scores = scores.broadcast_add(mask)?;
    }
    let weights = candle_nn::ops::softmax_last_dim(&scores)?.to_dtype(v.dtype())?;
    weights.matmul(&v.contiguous()?)?.to_dtype(DType::F32)
}

/// Row `picked[i]` of the i-th sequence.
pub(super) fn pick(x: &Tensor, picked: &[usize]) -> TensorResult<Tensor> {
    let (batch, tokens, width) = x.dims3()?;
    let rows: Vec<u32> = picked.iter().enumerate().map(|(i, &p)| (i * tokens + p) as u32).collect();
    let rows = Tensor::from_vec(rows, batch, x.device())?;
    x.reshape((batch * tokens, width))?.index_select(&rows, 0)
}
