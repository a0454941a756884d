//! The pre-norm transformer of both towers, on packed weights.
//!
//! Sequences of any lengths stand one below the other without padding: products see rows, and attention alone sees where a
//! sequence ends. The last block answers for the pooled tokens alone; the others serve it as keys and values.

use super::aligned::Aligned;
use super::attention::{self, Attention, Sequence};
use super::dense::{Dense, Out, Raw};
use super::finish::{Activation, Epilogue};
use super::norm::LayerNorm;
use super::parts::Parts;
use super::rows::{Number, Rows};
use super::simd::Isa;
use crate::model::config::{self, TransformerConfig};
use crate::model::weights::Weights;
use crate::{Error, Result};

/// Where a tower's parts come from, and how they are computed.
pub(super) struct Source<'a> {
    pub(super) isa: Isa,
    pub(super) number: Number,
    pub(super) weights: &'a Weights,
    pub(super) parts: Parts,
}

impl Source<'_> {
    /// A layer with the bias that the model has for it.
    pub(super) fn dense(&mut self, name: &str, number: Number, inputs: usize, outputs: usize) -> Result<Dense> {
        self.part(name, number, (inputs, outputs), (inputs, outputs), 0)
    }

    /// Outputs from `first` on of a layer, up to `shape`, and then zeros, up to `padded`.
    fn part(
        &mut self,
        name: &str,
        number: Number,
        (inputs, outputs): (usize, usize),
        padded: (usize, usize),
        first: usize,
    ) -> Result<Dense> {
        let weights = self.weights;
        Dense::take(&mut self.parts, self.isa, number, padded, || {
            let mut raw = Raw { weights: vec![0.0; padded.0 * padded.1], bias: vec![0.0; padded.1] };
            let bias = format!("{name}.bias");
            if weights.contains(&bias) {
                raw.bias[..outputs].copy_from_slice(&weights.get(&bias)?.0[first..first + outputs]);
            }
            let all = weights.get(&format!("{name}.weight"))?.0;
            let rows = all.chunks_exact(inputs).skip(first).take(outputs);
            raw.weights.chunks_exact_mut(padded.0).zip(rows).for_each(|(to, row)| to[..inputs].copy_from_slice(row));
            weights.release();
            Ok(raw)
        })
    }

    pub(super) fn norm(&mut self, name: &str, width: usize, eps: f64) -> Result<LayerNorm> {
        let weights = self.weights;
        LayerNorm::take(&mut self.parts, self.isa, (width, eps as f32), |part| {
            Ok(weights.get(&format!("{name}.{part}"))?.0)
        })
    }
}

/// A stack of blocks.
pub(super) struct Blocks {
    width: usize,
    attention: Attention,
    /// Whether attention over all tokens is multiplied in bf16.
    pairs: bool,
    number: Number,
    activation: Activation,
    blocks: Vec<Block>,
}

struct Block {
    norm_1: LayerNorm,
    inputs: Inputs,
    out: Dense,
    norm_2: LayerNorm,
    up: Dense,
    down: Dense,
}

/// Queries, keys and values.
enum Inputs {
    /// Of all tokens.
    Joint(Dense),
    /// Queries of the pooled tokens, keys and values of all.
    Apart(Dense, Dense),
}

/// Working memory of one thread.
pub(super) struct Scratch {
    /// The residual stream: (tokens, width).
    pub(super) x: Aligned<f32>,
    /// The pooled tokens: (sequences, width).
    pub(super) picked: Aligned<f32>,
    /// What the next product reads, as wide as the tower.
    narrow: Rows,
    /// The same inside the feed-forward half.
    inner: Rows,
    /// Queries, keys and values, in f32 or in bf16.
    wide: Aligned<f32>,
    /// The same in bf16; or what is inside the feed-forward half, before it becomes bytes. What one product leaves for the
    /// next pass goes through the caches twice, and bytes will not show that it was bf16 in between.
    pairs: Aligned<u16>,
    /// Queries of the pooled tokens.
    queries: Aligned<f32>,
    /// Mixed values.
    mixed: Aligned<f32>,
    attention: attention::Scratch,
}

impl Blocks {
    /// The blocks of `tower`. `pooled` says whether the last block answers for one token of each sequence only.
    pub(super) fn take(
        source: &mut Source<'_>,
        tower: &str,
        config: &TransformerConfig,
        causal: bool,
        pooled: bool,
    ) -> Result<Self> {
        let TransformerConfig { width, hidden, heads, norm_eps, layers, .. } = *config;
        let number = source.number;
        // Whole vectors; what is added is zero and stays zero through the activation.
        let padded = hidden.next_multiple_of(16);
        let mut blocks = Vec::with_capacity(layers);
        for i in 0..layers {
            let name = |part: &str| format!("{tower}.blocks.{i}.{part}");
            let qkv = name("attention.qkv");
            blocks.push(Block {
                norm_1: source.norm(&name("norm_1"), width, norm_eps)?,
                inputs: if pooled && i + 1 == layers {
                    let mut part = |shape, first| source.part(&qkv, number, shape, shape, first);
                    Inputs::Apart(part((width, width), 0)?, part((width, 2 * width), width)?)
                } else {
                    Inputs::Joint(source.dense(&qkv, number, width, 3 * width)?)
                },
                out: source.dense(&name("attention.out"), number, width, width)?,
                norm_2: source.norm(&name("norm_2"), width, norm_eps)?,
                up: source.part(&name("mlp.up"), number, (width, hidden), (width, padded), 0)?,
                down: source.part(&name("mlp.down"), number, (hidden, width), (padded, width), 0)?,
            });
        }
        // Products hand over bf16 in whole vectors of 16 numbers.
        let pairs = number != Number::F32
            && source.isa.multiplies_pairs()
            && width.is_multiple_of(16)
            && (width / heads).is_multiple_of(2);
        let activation = match config.activation {
            config::Activation::Gelu => Activation::Gelu,
            config::Activation::GeluTanh => Activation::GeluTanh,
            config::Activation::QuickGelu => Activation::QuickGelu,
            other => return Err(Error::Tensor(format!("there is no kernel for {other:?}").into())),
        };
        Ok(Self {
            width,
            attention: Attention { isa: source.isa, width, heads, causal },
            pairs,
            number,
            activation,
            blocks,
        })
    }

    /// Working memory for any number of tokens.
    pub(super) fn scratch(&self) -> Scratch {
        let isa = self.attention.isa;
        let hidden = self.blocks.first().map_or(8, |block| block.up.outputs());
        Scratch {
            x: Aligned::default(),
            picked: Aligned::default(),
            narrow: Rows::new(isa, self.number, self.width),
            inner: Rows::new(isa, self.number, hidden),
            wide: Aligned::default(),
            pairs: Aligned::default(),
            queries: Aligned::default(),
            mixed: Aligned::default(),
            attention: attention::Scratch::default(),
        }
    }

    /// All tokens of `scratch.x`: sequences of these lengths.
    pub(super) fn forward(&self, scratch: &mut Scratch, lengths: &[usize]) {
        self.blocks.iter().for_each(|block| self.block(block, scratch, lengths));
    }

    /// Token `pooled[i]` of the i-th sequence, into `scratch.picked`.
    pub(super) fn forward_pooled(&self, scratch: &mut Scratch, lengths: &[usize], pooled: &[usize]) {
        let (last, blocks) = match self.blocks.split_last() {
            Some((last, blocks)) => (Some(last), blocks),
            None => (None, self.blocks.as_slice()),
        };
        blocks.iter().for_each(|block| self.block(block, scratch, lengths));
        let width = self.width;
        let picked = scratch.picked.at_least(lengths.len() * width);
        for ((to, start), p) in picked.chunks_exact_mut(width).zip(starts(lengths)).zip(pooled) {
            to.copy_from_slice(&scratch.x[(start + p) * width..][..width]);
        }
        if let Some(last) = last {
            self.last_block(last, scratch, lengths, pooled);
        }
    }

    /// One block over all tokens.
    fn block(&self, block: &Block, scratch: &mut Scratch, lengths: &[usize]) {
        let (width, tokens) = (self.width, lengths.iter().sum());
        let Inputs::Joint(qkv) = &block.inputs else { unreachable!("only the last block answers for pooled tokens") };
        let Scratch { x, narrow, inner, wide, pairs, mixed, attention, .. } = scratch;
        narrow.normalise(&block.norm_1, x, tokens);
        let (joint, short) = match self.pairs {
            true => (&mut [][..], pairs.at_least(tokens * 3 * width)),
            false => (wide.at_least(tokens * 3 * width), &mut [][..]),
        };
        let out = if self.pairs { Out::Pairs(short, 3 * width) } else { Out::Floats(joint, 3 * width) };
        qkv.apply(tokens, narrow, out, Epilogue::STORE); // (tokens, 3 · width)
        // f32 is mixed where the next product reads it.
        let (out, stride) = match self.number {
            Number::F32 => narrow.floats(tokens),
            _ => (mixed.at_least(tokens * width), width),
        };
        for (start, &len) in starts(lengths).zip(lengths) {
            let (range, out) = (start * 3 * width..(start + len) * 3 * width, (&mut out[start * stride..], stride));
            if self.pairs {
                self.attention.apply_pairs(Sequence::joint(&short[range], len, width), out, attention);
            } else {
                self.attention.apply(Sequence::joint(&joint[range], len, width), out, attention);
            }
        }
        if self.number != Number::F32 {
            narrow.convert(mixed, width, tokens);
        }
        self.feed_forward(block, tokens, x, narrow, inner, pairs);
    }

    /// The last block, from all tokens in `x` and the pooled ones in `picked`, which it replaces.
    fn last_block(&self, block: &Block, scratch: &mut Scratch, lengths: &[usize], pooled: &[usize]) {
        let (width, tokens, count) = (self.width, lengths.iter().sum(), lengths.len());
        let Inputs::Apart(query, keys) = &block.inputs else { unreachable!("the tower was made to be pooled") };
        let Scratch { x, picked, narrow, inner, wide, pairs, queries, mixed, attention } = scratch;
        narrow.normalise(&block.norm_1, x, tokens);
        let joint = wide.at_least(tokens * 2 * width);
        keys.apply(tokens, narrow, Out::Floats(joint, 2 * width), Epilogue::STORE); // (tokens, 2 · width)
        narrow.normalise(&block.norm_1, picked, count);
        let queries = queries.at_least(count * width);
        query.apply(count, narrow, Out::Floats(queries, width), Epilogue::STORE); // (sequences, width)
        let out = mixed.at_least(count * width);
        for (i, (start, &len)) in starts(lengths).zip(lengths).enumerate() {
            let rows = &joint[start * 2 * width..(start + len) * 2 * width];
            let sequence = Sequence {
                queries: (&queries[i * width..], width),
                count: 1,
                first: pooled[i],
                keys: rows,
                values: &rows[width..],
                stride: 2 * width,
                tokens: len,
            };
            self.attention.apply(sequence, (&mut out[i * width..], width), attention);
        }
        narrow.convert(out, width, count);
        self.feed_forward(block, count, picked, narrow, inner, pairs);
    }

    /// What follows attention, on `count` rows of `x`, whose mixed values stand in `narrow`.
    fn feed_forward(
        &self,
        block: &Block,
        count: usize,
        x: &mut Aligned<f32>,
        narrow: &mut Rows,
        inner: &mut Rows,
        pairs: &mut Aligned<u16>,
    ) {
        let (width, hidden) = (self.width, block.up.outputs());
        block.out.apply(count, narrow, Out::Floats(x, width), Epilogue::ADD);
        narrow.normalise(&block.norm_2, x, count);
        let activate = Epilogue::activate(self.activation);
        if self.number == Number::Int8 {
            let short = pairs.at_least(count * hidden);
            block.up.apply(count, narrow, Out::Pairs(short, hidden), activate);
            inner.convert_pairs(short, hidden, count);
        } else {
            block.up.apply(count, narrow, Out::Rows(inner), activate);
        }
        block.down.apply(count, inner, Out::Floats(x, width), Epilogue::ADD);
    }
}

/// Where sequences of these lengths begin.
fn starts(lengths: &[usize]) -> impl Iterator<Item = usize> {
    lengths.iter().scan(0, |next, len| {
        let start = *next;
        *next += len;
        Some(start)
    })
}
