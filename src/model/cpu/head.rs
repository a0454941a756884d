//! What makes one vector of a tower's tokens: a query that looks at all of them, and the last map. One row per picture or
//! text, so everything but the query's keys and values is multiplied in f32.

use candle_core::{Device, Tensor};

use super::aligned::Aligned;
use super::attention::{self, Attention, Sequence};
use super::dense::{Dense, Out};
use super::feed::activation;
use super::finish::{Activation, Epilogue};
use super::norm::LayerNorm;
use super::parts::Part;
use super::rows::{Number, Rows};
use super::simd::Isa;
use super::source::Source;
use crate::Result;
use crate::model::config::{AttentionPool, Projection};
use crate::model::linear::tensor_error;
use crate::model::spread::{Side, points};

/// The last map.
pub(super) enum Head {
    None,
    Linear(Dense),
    TwoLayers(Dense, Dense),
}

impl Head {
    /// The map called `name` from `width` to `dim`.
    pub(super) fn take(
        source: &mut Source<'_>,
        name: &str,
        projection: Projection,
        width: usize,
        dim: usize,
    ) -> Result<Self> {
        Ok(match projection {
            Projection::None => Head::None,
            Projection::Matrix | Projection::Biased => Head::Linear(source.dense(name, Number::F32, width, dim)?),
            Projection::TwoLayers { hidden, .. } => {
                let padded = hidden.next_multiple_of(8);
                let (up, down) = (format!("{name}.up"), format!("{name}.down"));
                Head::TwoLayers(
                    source.part(&up, Number::F32, (width, hidden), (width, padded), 0, None)?,
                    source.part(&down, Number::F32, (hidden, dim), (padded, dim), 0, None)?,
                )
            }
        })
    }

    /// The first `count` of `rows`, which are f32, into as many of `dim` numbers.
    pub(super) fn apply(&self, isa: Isa, rows: &mut Rows, count: usize, out: &mut [f32], dim: usize) {
        match self {
            Head::None => {
                let (rows, stride) = rows.floats(count);
                for (out, row) in out.chunks_exact_mut(dim).zip(rows.chunks_exact(stride)) {
                    out.copy_from_slice(&row[..dim]);
                }
            }
            Head::Linear(dense) => dense.apply(count, rows, Out::Floats(out, dim), Epilogue::STORE), // (count, dim)
            Head::TwoLayers(up, down) => {
                let mut inner = Rows::new(isa, Number::F32, up.outputs());
                up.apply(count, rows, Out::Rows(&mut inner), Epilogue::activate(Activation::Gelu));
                down.apply(count, &inner, Out::Floats(out, dim), Epilogue::STORE); // (count, dim)
            }
        }
    }
}

/// What makes points of embeddings that are distributions.
pub(super) struct Spread {
    isa: Isa,
    variance: Dense,
    side: Side,
}

impl Spread {
    /// The map called `name` from `inputs` numbers to the logarithms of the variances of `mean`.
    pub(super) fn take(
        source: &mut Source<'_>,
        name: &str,
        (inputs, mean): (usize, usize),
        side: Side,
    ) -> Result<Self> {
        let padded = inputs.next_multiple_of(8);
        let variance = source.part(name, Number::F32, (inputs, mean), (padded, mean), 0, None)?;
        Ok(Self { isa: source.isa, variance, side })
    }

    /// Numbers of a mean.
    pub(super) fn mean(&self) -> usize {
        self.variance.outputs()
    }

    /// As many points as there are means, from which and as many rows of `vague` the variances are made.
    pub(super) fn apply(&self, means: &[f32], vague: &[f32], out: &mut [f32]) -> Result<()> {
        let (mean, count) = (self.mean(), means.len() / self.mean());
        let inputs = vague.len() / count;
        let mut rows = Rows::new(self.isa, Number::F32, inputs.next_multiple_of(8));
        rows.fill(count, |i, row| {
            row[..inputs].copy_from_slice(&vague[i * inputs..][..inputs]);
            row[inputs..].fill(0.0);
        });
        let mut logs = vec![0.0; count * mean];
        self.variance.apply(count, &rows, Out::Floats(&mut logs, mean), Epilogue::STORE); // (count, mean)
        let tensor = |numbers: &[f32]| Tensor::from_slice(numbers, (count, mean), &Device::Cpu);
        let made = tensor(means).and_then(|means| points(&means, &tensor(&logs)?, self.side)?.flatten_all()?.to_vec1());
        out.copy_from_slice(&made.map_err(tensor_error)?);
        Ok(())
    }
}

/// One query that looks at all tokens.
pub(super) struct Query {
    width: usize,
    attention: Attention,
    /// After its norm and its map, which do not depend on the picture.
    query: Part<f32>,
    norm_context: Option<LayerNorm>,
    k: Dense,
    v: Dense,
    out: Dense,
    feed: Option<(LayerNorm, Dense, Dense, Activation)>,
}

/// Working memory.
pub(super) struct QueryRoom {
    context: Rows,
    joint: Aligned<f32>,
    found: Rows,
    inner: Rows,
    attention: attention::Scratch,
}

impl Query {
    /// The pool over tokens of `context` numbers.
    pub(super) fn take(source: &mut Source<'_>, config: &AttentionPool, context: usize, eps: f64) -> Result<Self> {
        let AttentionPool { width, heads, norms, mapped, hidden, .. } = *config;
        let (weights, fine) = (source.weights, source.fine());
        let query = source.parts.take(width, |to: &mut [f32]| {
            let mut query: Vec<f64> = weights.get("image.pool.query")?.0[..width].iter().map(|&x| x.into()).collect();
            if norms {
                let mean = query.iter().sum::<f64>() / width as f64;
                let variance = query.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / width as f64;
                let (weight, bias) =
                    (weights.get("image.pool.norm_query.weight")?.0, weights.get("image.pool.norm_query.bias")?.0);
                for ((x, w), b) in query.iter_mut().zip(weight).zip(bias) {
                    *x = (*x - mean) / (variance + eps).sqrt() * f64::from(w) + f64::from(b);
                }
            }
            if mapped {
                let (weight, bias) = (weights.get("image.pool.q.weight")?.0, weights.get("image.pool.q.bias")?.0);
                let rows = weight.chunks_exact(width).zip(bias);
                let map = |(row, b): (&[f32], f32)| {
                    row.iter().zip(&query).map(|(w, x)| f64::from(*w) * x).sum::<f64>() + f64::from(b)
                };
                query = rows.map(map).collect();
            }
            to.iter_mut().zip(query).for_each(|(to, x)| *to = x as f32);
            Ok(())
        })?;
        let norm_context = if norms { Some(source.norm("image.pool.norm_context", context, eps)?) } else { None };
        Ok(Self {
            width,
            attention: Attention { isa: source.isa, width, heads, causal: false },
            query,
            norm_context,
            k: source.dense("image.pool.k", fine, context, width)?,
            v: source.dense("image.pool.v", fine, context, width)?,
            out: source.dense("image.pool.out", Number::F32, width, width)?,
            feed: match hidden {
                Some(hidden) => {
                    let padded = hidden.next_multiple_of(8);
                    Some((
                        source.norm("image.pool.norm", width, eps)?,
                        source.part("image.pool.mlp.up", Number::F32, (width, hidden), (width, padded), 0, None)?,
                        source.part("image.pool.mlp.down", Number::F32, (hidden, width), (padded, width), 0, None)?,
                        activation(config.activation),
                    ))
                }
                None => None,
            },
        })
    }

    /// Working memory for tokens of `context` numbers.
    pub(super) fn room(&self, context: usize) -> QueryRoom {
        let isa = self.attention.isa;
        let hidden = self.feed.as_ref().map_or(8, |feed| feed.1.outputs());
        QueryRoom {
            context: Rows::new(isa, self.k.number(), context),
            joint: Aligned::default(),
            found: Rows::new(isa, Number::F32, self.width),
            inner: Rows::new(isa, Number::F32, hidden),
            attention: attention::Scratch::default(),
        }
    }

    /// What it finds in each of `count` sequences of `tokens` rows of `x`: (count, width).
    pub(super) fn apply(&self, x: &[f32], count: usize, tokens: usize, room: &mut QueryRoom, out: &mut [f32]) {
        let QueryRoom { context, joint, found, inner, attention } = room;
        let (width, rows) = (self.width, count * tokens);
        match &self.norm_context {
            Some(norm) => context.normalise(norm, x, rows),
            None => context.convert(x, context.width(), rows),
        }
        let joint = joint.at_least(rows * 2 * width);
        self.k.apply(rows, context, Out::Floats(joint, 2 * width), Epilogue::STORE);
        self.v.apply(rows, context, Out::Floats(&mut joint[width..], 2 * width), Epilogue::STORE); // (rows, 2 · width)
        let (to, stride) = found.floats(count);
        for (i, rows) in joint.chunks_exact(tokens * 2 * width).enumerate() {
            let sequence = Sequence {
                queries: (&*self.query, width),
                count: 1,
                first: 0,
                keys: rows,
                values: &rows[width..],
                stride: 2 * width,
                tokens,
            };
            self.attention.apply(sequence, (&mut to[i * stride..], stride), attention);
        }
        self.out.apply(count, found, Out::Floats(out, width), Epilogue::STORE); // (count, width)
        if let Some((norm, up, down, activation)) = &self.feed {
            found.normalise(norm, out, count);
            up.apply(count, found, Out::Rows(inner), Epilogue::activate(*activation));
            down.apply(count, inner, Out::Floats(out, width), Epilogue::ADD);
        }
    }
}
