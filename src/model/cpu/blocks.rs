//! The transformer of both towers, on packed weights.
//!
//! Sequences of any lengths stand one below the other without padding: products see rows, and attention alone sees where a
//! sequence ends. The last block answers for the pooled tokens alone; the others serve it as keys and values. What a family
//! adds to the plain block (gates, norms in other places, rotations) is a row-wise step between the same products; factors
//! for channels are multiplied into the weights before them.

use super::aligned::Aligned;
use super::attention::{self, Attention, Sequence};
use super::dense::{Dense, Out};
use super::feed::{Feed, Room};
use super::finish::Epilogue;
use super::norm::LayerNorm;
use super::rotation::Rotation;
use super::rows::{Number, Rows};
use super::source::Source;
use crate::Result;
use crate::model::config::{BlocksConfig, NormOrder};

/// A stack of blocks.
pub(super) struct Blocks {
    width: usize,
    attention: Attention,
    /// Whether attention over all tokens is multiplied in bf16.
    pairs: bool,
    number: Number,
    order: NormOrder,
    blocks: Vec<Block>,
}

struct Block {
    norm_1: LayerNorm,
    inputs: Inputs,
    norm_attention: Option<LayerNorm>,
    out: Dense,
    norm_2: LayerNorm,
    feed: Feed,
}

/// A sequence of tokens.
#[derive(Clone, Copy)]
pub(super) struct Length {
    pub(super) tokens: usize,
    /// Whether nobody sees the last token, not even itself.
    pub(super) blind: bool,
}

impl From<usize> for Length {
    fn from(tokens: usize) -> Self {
        Self { tokens, blind: false }
    }
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
    /// Queries, keys and values, in f32 or in bf16.
    wide: Aligned<f32>,
    /// The same in bf16. What one product leaves for the next pass goes through the caches twice, and bytes will not show that
    /// it was bf16 in between.
    pairs: Aligned<u16>,
    /// Queries of the pooled tokens.
    queries: Aligned<f32>,
    /// Mixed values, and what a half adds where that is normalised first.
    mixed: Aligned<f32>,
    feed: Room,
    attention: attention::Scratch,
}

impl Blocks {
    /// The blocks of `tower`. `pooled` says whether the last block answers for one token of each sequence only.
    pub(super) fn take(
        source: &mut Source<'_>,
        tower: &str,
        config: &BlocksConfig,
        causal: bool,
        pooled: bool,
    ) -> Result<Self> {
        let BlocksConfig { width, heads, norm_eps, layers, .. } = *config;
        let number = source.number;
        let mut blocks = Vec::with_capacity(layers);
        for i in 0..layers {
            let name = |part: &str| format!("{tower}.blocks.{i}.{part}");
            let qkv = name("attention.qkv");
            let scale = |part: &str| config.layer_scale.then(|| name(part));
            blocks.push(Block {
                norm_1: source.norm(&name("norm_1"), width, norm_eps)?,
                inputs: if pooled && i + 1 == layers {
                    let mut part = |shape, first| source.part(&qkv, number, shape, shape, first, None);
                    Inputs::Apart(part((width, width), 0)?, part((width, 2 * width), width)?)
                } else {
                    Inputs::Joint(source.dense(&qkv, number, width, 3 * width)?)
                },
                norm_attention: if config.norm_attention {
                    Some(source.norm(&name("attention.norm"), width, norm_eps)?)
                } else {
                    None
                },
                out: {
                    let shape = (width, width);
                    source.part(&name("attention.out"), number, shape, shape, 0, scale("scale_1"))?
                },
                norm_2: source.norm(&name("norm_2"), width, norm_eps)?,
                feed: Feed::take(source, &name("mlp"), config, scale("scale_2"))?,
            });
        }
        // Products hand over bf16 in whole vectors of 16 numbers.
        let pairs = number != Number::F32
            && source.isa.multiplies_pairs()
            && width.is_multiple_of(16)
            && (width / heads).is_multiple_of(2);
        Ok(Self {
            width,
            attention: Attention { isa: source.isa, width, heads, causal },
            pairs,
            number,
            order: config.order,
            blocks,
        })
    }

    /// Working memory for any number of tokens.
    pub(super) fn scratch(&self) -> Scratch {
        let isa = self.attention.isa;
        let hidden = self.blocks.first().map_or(8, |block| block.feed.hidden());
        Scratch {
            x: Aligned::default(),
            picked: Aligned::default(),
            narrow: Rows::new(isa, self.number, self.width),
            wide: Aligned::default(),
            pairs: Aligned::default(),
            queries: Aligned::default(),
            mixed: Aligned::default(),
            feed: Room::new(isa, self.number, hidden),
            attention: attention::Scratch::default(),
        }
    }

    /// All tokens of `scratch.x`: sequences of these lengths.
    pub(super) fn forward(&self, scratch: &mut Scratch, lengths: &[Length], rotation: Option<&Rotation>) {
        self.blocks.iter().for_each(|block| self.block(block, scratch, lengths, rotation));
    }

    /// Token `pooled[i]` of the i-th sequence, into `scratch.picked`.
    pub(super) fn forward_pooled(
        &self,
        scratch: &mut Scratch,
        lengths: &[Length],
        pooled: &[usize],
        rotation: Option<&Rotation>,
    ) {
        let (last, blocks) = match self.blocks.split_last() {
            Some((last, blocks)) => (Some(last), blocks),
            None => (None, self.blocks.as_slice()),
        };
        blocks.iter().for_each(|block| self.block(block, scratch, lengths, rotation));
        let width = self.width;
        let picked = scratch.picked.at_least(lengths.len() * width);
        for ((to, start), p) in picked.chunks_exact_mut(width).zip(starts(lengths)).zip(pooled) {
            to.copy_from_slice(&scratch.x[(start + p) * width..][..width]);
        }
        if let Some(last) = last {
            self.last_block(last, scratch, lengths, pooled, rotation);
        }
    }

    /// One block over all tokens.
    fn block(&self, block: &Block, scratch: &mut Scratch, lengths: &[Length], rotation: Option<&Rotation>) {
        let (width, tokens) = (self.width, sum(lengths));
        let Inputs::Joint(qkv) = &block.inputs else { unreachable!("only the last block answers for pooled tokens") };
        let Scratch { x, narrow, wide, pairs, mixed, feed, attention, .. } = scratch;
        self.enter(&block.norm_1, x, tokens, narrow);
        let (joint, short) = match self.pairs {
            true => (&mut [][..], pairs.at_least(tokens * 3 * width)),
            false => (wide.at_least(tokens * 3 * width), &mut [][..]),
        };
        let out = if self.pairs { Out::Pairs(short, 3 * width) } else { Out::Floats(joint, 3 * width) };
        qkv.apply(tokens, narrow, out, Epilogue::STORE); // (tokens, 3 · width)
        if let Some(rotation) = rotation {
            // Queries and keys stand side by side.
            for (start, length) in starts(lengths).zip(lengths) {
                for token in 0..length.tokens {
                    let at = (start + token) * 3 * width;
                    match self.pairs {
                        true => rotation.turn_pairs(&mut short[at..at + 2 * width], token),
                        false => rotation.turn(&mut joint[at..at + 2 * width], token),
                    }
                }
            }
        }
        // f32 is mixed where the next product reads it, if nothing comes between.
        let direct = self.number == Number::F32 && block.norm_attention.is_none();
        let (out, stride) = match direct {
            true => narrow.floats(tokens),
            false => (mixed.at_least(tokens * width), width),
        };
        for (start, &length) in starts(lengths).zip(lengths) {
            let range = start * 3 * width..(start + length.tokens) * 3 * width;
            if self.pairs {
                for (first, sequence) in sequences(&short[range], length, width) {
                    self.attention.apply_pairs(sequence, (&mut out[(start + first) * stride..], stride), attention);
                }
            } else {
                for (first, sequence) in sequences(&joint[range], length, width) {
                    self.attention.apply(sequence, (&mut out[(start + first) * stride..], stride), attention);
                }
            }
        }
        match &block.norm_attention {
            Some(norm) => narrow.normalise(norm, mixed, tokens),
            None if !direct => narrow.convert(mixed, width, tokens),
            None => {}
        }
        self.finish(block, tokens, x, narrow, mixed, feed);
    }

    /// The last block, from all tokens in `x` and the pooled ones in `picked`, which it replaces.
    fn last_block(
        &self,
        block: &Block,
        scratch: &mut Scratch,
        lengths: &[Length],
        pooled: &[usize],
        rotation: Option<&Rotation>,
    ) {
        let (width, tokens, count) = (self.width, sum(lengths), lengths.len());
        let Inputs::Apart(query, keys) = &block.inputs else { unreachable!("the tower was made to be pooled") };
        let Scratch { x, picked, narrow, wide, queries, mixed, feed, attention, .. } = scratch;
        self.enter(&block.norm_1, x, tokens, narrow);
        let joint = wide.at_least(tokens * 2 * width);
        keys.apply(tokens, narrow, Out::Floats(joint, 2 * width), Epilogue::STORE); // (tokens, 2 · width)
        self.enter(&block.norm_1, picked, count, narrow);
        let queries = queries.at_least(count * width);
        query.apply(count, narrow, Out::Floats(queries, width), Epilogue::STORE); // (sequences, width)
        if let Some(rotation) = rotation {
            for (start, length) in starts(lengths).zip(lengths) {
                for token in 0..length.tokens {
                    rotation.turn(&mut joint[(start + token) * 2 * width..][..width], token);
                }
            }
            queries.chunks_exact_mut(width).zip(pooled).for_each(|(query, &token)| rotation.turn(query, token));
        }
        let out = mixed.at_least(count * width);
        for (i, (start, &Length { tokens, blind })) in starts(lengths).zip(lengths).enumerate() {
            let rows = &joint[start * 2 * width..(start + tokens) * 2 * width];
            // The token in whose place the query looks.
            let hidden = usize::from(blind && pooled[i] + 1 == tokens);
            let sequence = Sequence {
                queries: (&queries[i * width..], width),
                count: 1,
                first: pooled[i] - hidden,
                keys: rows,
                values: &rows[width..],
                stride: 2 * width,
                tokens: tokens - usize::from(blind),
            };
            self.attention.apply(sequence, (&mut out[i * width..], width), attention);
        }
        match &block.norm_attention {
            Some(norm) => narrow.normalise(norm, out, count),
            None => narrow.convert(out, width, count),
        }
        self.finish(block, count, picked, narrow, mixed, feed);
    }

    /// What a half of a block sees of the residual stream.
    fn enter(&self, norm: &LayerNorm, x: &[f32], count: usize, narrow: &mut Rows) {
        match self.order {
            NormOrder::Before => narrow.normalise(norm, x, count),
            NormOrder::Branch | NormOrder::After => narrow.convert(x, self.width, count),
        }
    }

    /// What follows attention, on `count` rows of `x`, whose mixed values stand in `narrow`.
    fn finish(
        &self,
        block: &Block,
        count: usize,
        x: &mut Aligned<f32>,
        narrow: &mut Rows,
        branch: &mut Aligned<f32>,
        feed: &mut Room,
    ) {
        let width = self.width;
        let x = &mut x[..count * width];
        self.add(&block.norm_1, x, branch, |out, epilogue| {
            block.out.apply(count, narrow, Out::Floats(out, width), epilogue);
        });
        match (self.order, block.feed.norm()) {
            (NormOrder::Before, None) => narrow.normalise(&block.norm_2, x, count),
            (NormOrder::Before, Some(second)) => narrow.fill(count, |i, row| {
                block.norm_2.apply(&x[i * width..][..width], row);
                second.apply_in_place(row);
            }),
            (_, Some(norm)) => narrow.normalise(norm, x, count),
            (_, None) => narrow.convert(x, width, count),
        }
        block.feed.raise(count, narrow, feed);
        self.add(&block.norm_2, x, branch, |out, epilogue| block.feed.lower(count, feed, out, epilogue));
    }

    /// Adds what `half` makes to the residual stream, with the norm where the blocks have it.
    fn add(&self, norm: &LayerNorm, x: &mut [f32], branch: &mut Aligned<f32>, half: impl FnOnce(&mut [f32], Epilogue)) {
        match self.order {
            NormOrder::Before => half(x, Epilogue::ADD),
            NormOrder::After => {
                half(x, Epilogue::ADD);
                norm.apply_in_place(x);
            }
            NormOrder::Branch => {
                let branch = branch.at_least(x.len());
                half(branch, Epilogue::STORE);
                norm.apply_in_place(branch);
                x.iter_mut().zip(branch).for_each(|(x, b)| *x += *b);
            }
        }
    }
}

/// Tokens of all sequences.
fn sum(lengths: &[Length]) -> usize {
    lengths.iter().map(|length| length.tokens).sum()
}

/// Where sequences of these lengths begin.
fn starts(lengths: &[Length]) -> impl Iterator<Item = usize> {
    lengths.iter().scan(0, |next, length| {
        let start = *next;
        *next += length.tokens;
        Some(start)
    })
}

/// What attention has to do for the rows of one sequence, and from which token on: all at once, or the last token, which nobody
/// sees, by itself.
fn sequences<T>(
    rows: &[T],
    Length { tokens, blind }: Length,
    width: usize,
) -> impl Iterator<Item = (usize, Sequence<'_, T>)> {
    let seen = tokens - usize::from(blind);
    let all = Sequence::joint(rows, seen, width);
    let last =
        blind.then(|| Sequence { queries: (&rows[seen * 3 * width..], 3 * width), count: 1, first: seen - 1, ..all });
    std::iter::once((0, all)).chain(last.map(|last| (seen, last)))
}
