//! The image tower of patches: tokens from a grid, a transformer, and one vector from what comes out.

use candle_core::{Device, IndexOp as _, Result as TensorResult, Tensor};

use super::config::{AttentionPool, Grid, Pool, Positions, Stem, VitConfig};
use super::linear::{Linear, Norm, tensor_error};
use super::loader::Loader;
use super::positions::stretched;
use super::project::{Depth, Head};
use super::spread::{self, Side, points};
use super::transformer::{Feed, Pass, Rotation, Transformer, attend};
use super::trunk::stem;
use crate::Result;

/// A vision transformer and its projection.
#[derive(Debug)]
pub(super) struct Vision {
    config: VitConfig,
    stem: Tokens,
    norm_patch: Option<Norm>,
    /// Tokens before those of the picture.
    prefix: Option<Tensor>,
    /// Makes the variance of the second of them.
    spread: Option<Linear>,
    position: Option<Tensor>,
    norm_pre: Option<Norm>,
    rotation: Option<Rotation>,
    transformer: Transformer,
    norm_post: Option<Norm>,
    pool: Option<Query>,
    head: Head,
}

/// How pictures become tokens.
#[derive(Debug)]
enum Tokens {
    Patches(Linear),
    Convolutions(Box<stem::Stem>),
}

/// One query that looks at all tokens.
#[derive(Debug)]
struct Query {
    heads: usize,
    query: Tensor,
    norm_query: Option<Norm>,
    norm_context: Option<Norm>,
    q: Option<Linear>,
    /// Of the scores, where no map of the query carries it.
    scale: f32,
    k: Linear,
    v: Linear,
    out: Linear,
    feed: Option<(Norm, Feed)>,
}

impl Vision {
    /// Reads the tower.
    pub(super) fn load(loader: &Loader, config: &VitConfig, dim: usize) -> Result<Self> {
        let (eps, width) = (config.blocks.norm_eps, config.blocks.width);
        let norm = |wanted: bool, name: &str, width: usize| match (wanted, config.blocks.root_mean_square) {
            (false, _) => Ok(None),
            (true, false) => loader.norm(name, width, eps).map(Some),
            (true, true) => loader.rms_norm(name, width, eps).map(Some),
        };
        let stem = match &config.stem {
            Stem::Patches { size: (height, across), biased, .. } => {
                Tokens::Patches(loader.linear_of("image.patch", width, &[3, *height, *across], *biased)?)
            }
            Stem::Loose { edge, .. } => Tokens::Patches(loader.linear("image.patch", width, 3 * edge * edge, true)?),
            Stem::Convolutions(stem) => Tokens::Convolutions(Box::new(stem::Stem::load(loader, stem)?)),
        };
        let (rows, columns) = config.grid();
        let tokens = rows * columns;
        let before = Self::load_prefix(loader, config)?;
        let prefix = config.prefix();
        let position = match config.positions {
            Positions::All => Some(loader.tensor("image.position", &[tokens + prefix, width])?),
            Positions::Patches => Some(loader.tensor("image.position", &[tokens, width])?),
            Positions::None => None,
        };
        let rotation = match &config.rotation {
            Some(grid) => {
                let head = width / config.blocks.heads;
                Some(rotation(grid, (rows, columns), prefix, head, loader.device()).map_err(tensor_error)?)
            }
            None => None,
        };
        let norm_patch = norm(matches!(config.stem, Stem::Patches { norm: true, .. }), "image.norm_patch", width)?;
        let norm_pre = norm(config.norm_pre, "image.norm_pre", width)?;
        let transformer = Transformer::load(loader, "image", &config.blocks)?;
        let pooled = config.pooled_width();
        let norm_post = match (config.norm_tokens, config.norm_pooled) {
            (true, _) => norm(true, "image.norm_post", width)?,
            (false, wanted) => norm(wanted, "image.norm_post", pooled)?,
        };
        let pool = match &config.pool {
            Pool::Attention(pool) => Some(Query::load(loader, pool, width, eps)?),
            Pool::Token | Pool::Average => None,
        };
        let dim = if config.spread { dim.saturating_sub(spread::EXTRA) } else { dim };
        let spread = if config.spread { Some(loader.linear("image.variance", dim, width, true)?) } else { None };
        let head = Head::load(loader, "image.projection", config.projection, pooled, dim)?;
        Ok(Self {
            config: config.clone(),
            stem,
            norm_patch,
            prefix: before,
            spread,
            position,
            norm_pre,
            rotation,
            transformer,
            norm_post,
            pool,
            head,
        })
    }

    /// The learned tokens before those of the picture, `(tokens, width)`.
    fn load_prefix(loader: &Loader, config: &VitConfig) -> Result<Option<Tensor>> {
        let width = config.blocks.width;
        let wanted = [("image.class", config.class), ("image.uncertain", config.spread)];
        let tokens = wanted.iter().filter(|token| token.1).map(|token| loader.tensor(token.0, &[width]));
        let tokens = tokens.collect::<Result<Vec<Tensor>>>()?;
        if tokens.is_empty() { Ok(None) } else { Tensor::stack(&tokens, 0).map(Some).map_err(tensor_error) }
    }

    /// `(batch, 3, height, width)` to `(batch, dim)`, not normalised, or to what the last map is applied to.
    pub(super) fn forward(&self, x: &Tensor, depth: Depth) -> TensorResult<Tensor> {
        let x = match &self.stem {
            Tokens::Patches(linear) => linear.forward(&self.patches(x)?)?,
            Tokens::Convolutions(stem) => stem.forward(x)?.flatten_from(2)?.transpose(1, 2)?.contiguous()?,
        }; // (batch, patches, width)
        self.forward_tokens(x, self.position.as_ref(), depth)
    }

    /// The patches of one picture with a grid of its own, `(1, rows · columns, 3 · edge · edge)`, to `(1, dim)`, not normalised.
    pub(super) fn forward_loose(&self, x: &Tensor, grid: (usize, usize), depth: Depth) -> TensorResult<Tensor> {
        let x = match &self.stem {
            Tokens::Patches(linear) => linear.forward(x)?, // (1, patches, width)
            Tokens::Convolutions(_) => candle_core::bail!("convolutions have one grid"),
        };
        let position = match &self.position {
            Some(position) => Some(stretched(position, self.config.grid(), grid)?),
            None => None,
        };
        self.forward_tokens(x, position.as_ref(), depth)
    }

    fn forward_tokens(&self, mut x: Tensor, position: Option<&Tensor>, depth: Depth) -> TensorResult<Tensor> {
        let batch = x.dim(0)?;
        let width = self.config.blocks.width;
        if let Some(norm) = &self.norm_patch {
            x = norm.forward(&x)?;
        }
        let prefix = match &self.prefix {
            Some(tokens) => Some(tokens.unsqueeze(0)?.expand((batch, tokens.dim(0)?, width))?),
            None => None,
        };
        let (x, position) = match (self.config.positions, position) {
            (Positions::Patches, Some(position)) => (x.broadcast_add(position)?, None),
            (_, position) => (x, position),
        };
        let mut x = match &prefix {
            Some(prefix) => Tensor::cat(&[prefix, &x], 1)?, // (batch, tokens, width)
            None => x,
        };
        if let Some(position) = position {
            x = x.broadcast_add(position)?;
        }
        if let Some(norm) = &self.norm_pre {
            x = norm.forward(&x)?;
        }
        let pass = Pass { mask: None, rotation: self.rotation.as_ref() };
        let mut x = match self.config.pool {
            // The norm works on each token by itself, so it may come after the choice.
            Pool::Token if !self.config.spread => self.transformer.forward_picked(x, pass, &vec![0; batch])?, // (batch, width)
            _ => self.transformer.forward(x, pass)?, // (batch, tokens, width)
        };
        if self.config.norm_tokens
            && let Some(norm) = &self.norm_post
        {
            x = norm.forward(&x)?;
        }
        let mut pooled = match (&self.config.pool, &self.pool) {
            (Pool::Average, _) => x.i((.., self.config.prefix().., ..))?.mean(1)?,
            (Pool::Token, _) if self.config.spread => x.i((.., 0, ..))?.contiguous()?,
            (_, Some(pool)) => pool.forward(&x)?,
            _ => x.clone(),
        }; // (batch, width)
        if self.config.norm_pooled
            && let Some(norm) = &self.norm_post
        {
            pooled = norm.forward(&pooled)?;
        }
        if depth == Depth::Features {
            return Ok(pooled);
        }
        let embedded = self.head.forward(&pooled)?;
        match &self.spread {
            Some(spread) => points(&embedded, &spread.forward(&x.i((.., 1, ..))?.contiguous()?)?, Side::Picture),
            None => Ok(embedded),
        }
    }

    /// Each patch as one row, channel by channel, each row by row: the order of a convolution's weights, which makes the
    /// patch embedding a plain product. What does not fill a patch is left over at the right and at the bottom.
    fn patches(&self, x: &Tensor) -> TensorResult<Tensor> {
        let Stem::Patches { size: (height, width), .. } = self.config.stem else { return Ok(x.clone()) };
        let (rows, columns) = self.config.grid();
        let batch = x.dim(0)?;
        x.i((.., .., ..rows * height, ..columns * width))?
            .contiguous()?
            .reshape(vec![batch, 3, rows, height, columns, width])?
            .permute(vec![0, 2, 4, 1, 3, 5])?
            .contiguous()?
            .reshape((batch, rows * columns, 3 * height * width))
    }
}

impl Query {
    fn load(loader: &Loader, config: &AttentionPool, context: usize, eps: f64) -> Result<Self> {
        let AttentionPool { width, heads, queries, norms, mapped, hidden, activation } = *config;
        let scale = 1.0 / ((width / heads) as f32).sqrt();
        let query = loader.tensor("image.pool.query", &[queries, width])?;
        Ok(Self {
            heads,
            query,
            norm_query: if norms { Some(loader.norm("image.pool.norm_query", width, eps)?) } else { None },
            norm_context: if norms { Some(loader.norm("image.pool.norm_context", context, eps)?) } else { None },
            q: if mapped {
                Some(loader.linear_scaled("image.pool.q", width, &[width], true, width, scale)?)
            } else {
                None
            },
            scale,
            k: loader.linear("image.pool.k", width, context, mapped)?,
            v: loader.linear("image.pool.v", width, context, mapped)?,
            out: loader.linear("image.pool.out", width, width, true)?,
            feed: match hidden {
                Some(hidden) => Some((
                    loader.norm("image.pool.norm", width, eps)?,
                    Feed::load(loader, "image.pool.mlp", width, hidden, activation)?,
                )),
                None => None,
            },
        })
    }

    /// `(batch, tokens, context)` to `(batch, width)`: what the first query finds. The others do not change it.
    fn forward(&self, x: &Tensor) -> TensorResult<Tensor> {
        let (batch, tokens, _) = x.dims3()?;
        let mut query = self.query.narrow(0, 0, 1)?;
        if let Some(norm) = &self.norm_query {
            query = norm.forward(&query)?;
        }
        let x = match &self.norm_context {
            Some(norm) => &norm.forward(x)?,
            None => x,
        };
        let width = query.dim(1)?;
        let head = width / self.heads;
        let q = match &self.q {
            Some(q) => q.forward(&query)?,
            None => (query * f64::from(self.scale))?,
        };
        let q = q.reshape((1, self.heads, 1, head))?.expand((batch, self.heads, 1, head))?;
        let split = |x: Tensor| x.reshape((batch, tokens, self.heads, head))?.transpose(1, 2);
        let attended = attend(&q, &split(self.k.forward(x)?)?, &split(self.v.forward(x)?)?, None)?;
        let x = self.out.forward(&attended.reshape((batch, width))?)?;
        match &self.feed {
            Some((norm, feed)) => &x + feed.forward(&norm.forward(&x)?)?,
            None => Ok(x),
        }
    }
}

fn rotation(grid: &Grid, size: (usize, usize), prefix: usize, head: usize, device: &Device) -> TensorResult<Rotation> {
    let angles = angles(grid, size, prefix, head);
    let angles = Tensor::from_vec(angles, (prefix + size.0 * size.1, head / 4 * 2), device)?;
    Ok(Rotation { cos: angles.cos()?, sin: angles.sin()? })
}

/// Angles of a grid, (tokens, head / 2): half of a head's pairs turn with one coordinate, half with the other. Tokens before
/// the grid do not turn.
pub(super) fn angles(grid: &Grid, (rows, columns): (usize, usize), prefix: usize, head: usize) -> Vec<f32> {
    const BASE: f32 = 10_000.0;
    let bands = head / 4;
    let band = |i: usize| 1.0 / BASE.powf(i as f32 / bands as f32);
    let place = |i: usize, size: usize, reference: usize| (i as f32 + grid.offset) / size as f32 * reference as f32;
    let mut angles = vec![0.0; prefix * 2 * bands];
    for row in 0..rows {
        for column in 0..columns {
            let (y, x) = (place(row, rows, grid.reference.0), place(column, columns, grid.reference.1));
            let (first, second) = if grid.columns_first { (x, y) } else { (y, x) };
            angles.extend((0..bands).map(|i| first * band(i)));
            angles.extend((0..bands).map(|i| second * band(i)));
        }
    }
    angles
}
