//! The text tower on packed weights.
//!
//! Under a causal mask a text is cut behind its pooled token, which does not see what follows; and tokens that nobody sees are
//! left out, but for one that becomes the vector. Texts of different lengths stand one below the other without padding.

use std::sync::{Arc, Mutex};

use rayon::prelude::*;

use super::aligned::Aligned;
use super::blocks::{Blocks, Length, Scratch};
use super::dense::{Dense, Out};
use super::finish::Epilogue;
use super::head::{Head, Spread};
use super::norm::LayerNorm;
use super::parts::Part;
use super::rows::{Number, Rows};
use super::simd::Isa;
use super::source::Source;
use crate::Result;
use crate::model::config::{Padding, Place, ReaderConfig, TextPool};
use crate::model::spread::{self, Side};
use crate::model::text::{pooled_at, wave};
use crate::model::weights::Weights;

/// Most tokens of one pass, as for pictures.
const TOKENS: usize = 200;

/// A text transformer and its projection.
pub(crate) struct TextTower {
    isa: Isa,
    config: ReaderConfig,
    dim: usize,
    /// Token vectors stay in the file: a text needs a handful of 49,408 rows.
    weights: Arc<Weights>,
    // (places, width)
    position: Part<f32>,
    segment: Option<Part<f32>>,
    norm_embedding: Option<LayerNorm>,
    /// Tokens after those of the text.
    suffix: Part<f32>,
    blocks: Blocks,
    norm_post: Option<LayerNorm>,
    pooler: Option<Dense>,
    head: Head,
    /// Makes the variance of the embedding.
    spread: Option<Spread>,
    free: Mutex<Vec<Room>>,
}

/// Working memory of one thread.
struct Room {
    scratch: Scratch,
    pooled: Rows,
    vectors: Aligned<f32>,
}

/// The tokens of a text that matter.
struct Words {
    ids: Vec<u32>,
    /// Rows of the table of places, also for the tokens after those of the text.
    places: Vec<usize>,
    /// The token that becomes the vector.
    pooled: usize,
    /// Whether that is the last and nobody sees it.
    blind: bool,
}

impl TextTower {
    /// The tower from the next parts of a store.
    pub(super) fn take(
        source: &mut Source<'_>,
        weights: &Arc<Weights>,
        config: &ReaderConfig,
        dim: usize,
    ) -> Result<Self> {
        let (width, eps) = (config.blocks.width, config.blocks.norm_eps);
        let rows = match config.place {
            Place::Learned { rows, .. } => rows,
            Place::Waves { first } => first + config.context,
        };
        let position = source.parts.take(rows * width, |to: &mut [f32]| {
            match config.place {
                Place::Learned { .. } => to.copy_from_slice(&weights.get("text.position")?.0),
                Place::Waves { .. } => {
                    let waves = (0..rows).flat_map(|place| wave(place, width));
                    to.iter_mut().zip(waves).for_each(|(to, x)| *to = x);
                }
            }
            Ok(())
        })?;
        let segment = match config.segments {
            Some(_) => Some(source.parts.take(width, |to: &mut [f32]| {
                to.copy_from_slice(&weights.get("text.segment")?.0[..width]);
                Ok(())
            })?),
            None => None,
        };
        let norm_embedding =
            if config.norm_embedding { Some(source.norm("text.norm_embedding", width, eps)?) } else { None };
        let suffix = source.parts.take(config.suffix() * width, |to: &mut [f32]| {
            let tokens = [("text.uncertain", config.spread), ("text.class", config.class)];
            for (to, (name, _)) in to.chunks_exact_mut(width).zip(tokens.iter().filter(|token| token.1)) {
                to.copy_from_slice(&weights.get(name)?.0);
            }
            Ok(())
        })?;
        let blocks = Blocks::take(source, "text", &config.blocks, config.causal, config.pool != TextPool::Mean)?;
        let norm_post = if config.norm_post { Some(source.norm("text.norm_post", width, eps)?) } else { None };
        let pooler = match config.pooler {
            Some(pooler) => Some(source.dense("text.pooler", Number::F32, width, pooler.width)?),
            None => None,
        };
        let pooled = config.pooler.map_or(width, |pooler| pooler.width);
        let mean = config.spread.then(|| dim.saturating_sub(spread::EXTRA));
        let head = Head::take(source, "text.projection", config.projection, pooled, mean.unwrap_or(dim))?;
        let spread = match mean {
            Some(mean) => Some(Spread::take(source, "text.variance", (mean, mean), Side::Text)?),
            None => None,
        };
        Ok(Self {
            isa: source.isa,
            config: config.clone(),
            dim,
            weights: Arc::clone(weights),
            position,
            segment,
            norm_embedding,
            suffix,
            blocks,
            norm_post,
            pooler,
            head,
            spread,
            free: Mutex::default(),
        })
    }

    /// One row per text, not normalised. Each text is as many ids as the context is long.
    ///
    /// # Errors
    /// Those of reading token vectors.
    pub(crate) fn encode(&self, texts: &[Vec<u32>]) -> Result<Vec<f32>> {
        let mut out = vec![0.0; texts.len() * self.dim];
        let words: Vec<Words> = texts.iter().map(|ids| self.words(ids)).collect();
        let tokens: usize = words.iter().map(|words| words.places.len()).sum();
        let threads = rayon::current_num_threads();
        // A context that is longer is a pass of its own.
        let longest = self.config.context + self.config.suffix();
        let most = tokens.div_ceil(threads).clamp(longest, longest.max(TOKENS));
        let mut passes = Vec::new();
        let (mut rest_texts, mut rest) = (words.as_slice(), out.as_mut_slice());
        while !rest_texts.is_empty() {
            let mut sum = 0;
            let fits = |words: &&Words| {
                sum += words.places.len();
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

    /// What is left of a text.
    fn words(&self, ids: &[u32]) -> Words {
        let (Place::Learned { first, .. } | Place::Waves { first }) = self.config.place;
        if self.config.class {
            return self.words_before_class(ids, first);
        }
        let pooled = pooled_at(ids, self.config.pool);
        let mean = self.config.pool == TextPool::Mean;
        let ids = if self.config.causal && !mean { &ids[..=pooled] } else { ids };
        let Padding::Hidden(pad) = self.config.padding else {
            return Words { ids: ids.to_vec(), places: (first..first + ids.len()).collect(), pooled, blind: false };
        };
        // Padding stands nowhere, and what follows it counts on from before. The first token is pooled, or none is.
        let seen = |(at, id): &(usize, &u32)| **id != pad || *at == 0;
        let ids: Vec<u32> = ids.iter().enumerate().filter(seen).map(|(_, id)| *id).collect();
        Words { places: (first..first + ids.len()).collect(), ids, pooled, blind: false }
    }

    /// The same before the token that becomes the vector. What is hidden stays where it stands, and nobody looks there.
    fn words_before_class(&self, ids: &[u32], first: usize) -> Words {
        let hidden = |at: usize| match self.config.padding {
            Padding::HiddenNext(pad) => at > 0 && ids[at - 1] == pad,
            _ => false,
        };
        let seen: Vec<usize> = (0..ids.len()).filter(|&at| !hidden(at)).collect();
        let suffix = ids.len()..ids.len() + self.config.suffix();
        let places: Vec<usize> = seen.iter().copied().chain(suffix).map(|at| first + at).collect();
        Words {
            ids: seen.iter().map(|&at| ids[at]).collect(),
            pooled: places.len() - 1,
            blind: hidden(ids.len()),
            places,
        }
    }

    fn pass(&self, texts: &[Words], out: &mut [f32]) -> Result<()> {
        let width = self.config.blocks.width;
        let lengths: Vec<Length> =
            texts.iter().map(|words| Length { tokens: words.places.len(), blind: words.blind }).collect();
        let ids: Vec<u32> = texts.iter().flat_map(|words| &words.ids).copied().collect();
        let tokens = self.weights.rows("text.token", &ids)?; // (tokens, width)
        let lock = || self.free.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let free = lock().pop();
        let mut room = free.unwrap_or_else(|| self.room());
        let size: usize = lengths.iter().map(|length| length.tokens * width).sum();
        let x = room.scratch.x.at_least(size);
        let (mut to, mut from) = (&mut x[..], tokens.as_slice());
        for words in texts {
            let (own, later) = from.split_at(words.ids.len() * width);
            let (own_to, rest) = to.split_at_mut(own.len());
            let (suffix_to, rest) = rest.split_at_mut(self.suffix.len());
            own_to.iter_mut().zip(own).for_each(|(to, x)| *to = x * self.config.token_scale);
            suffix_to.copy_from_slice(&self.suffix);
            (to, from) = (rest, later);
        }
        let places = texts.iter().flat_map(|words| &words.places);
        for (x, &place) in x.chunks_exact_mut(width).zip(places) {
            x.iter_mut().zip(&self.position[place * width..]).for_each(|(x, position)| *x += position);
            if let Some(segment) = &self.segment {
                x.iter_mut().zip(&**segment).for_each(|(x, segment)| *x += segment);
            }
        }
        if let Some(norm) = &self.norm_embedding {
            norm.apply_in_place(x);
        }
        let count = texts.len();
        let vectors = room.vectors.at_least(count * width); // (texts, width)
        if self.config.pool == TextPool::Mean {
            self.blocks.forward(&mut room.scratch, &lengths, None);
            let mut rest = &room.scratch.x[..size];
            for (row, &Length { tokens, .. }) in vectors.chunks_exact_mut(width).zip(&lengths) {
                let (text, later) = rest.split_at(tokens * width);
                row.fill(0.0);
                for token in text.chunks_exact(width) {
                    row.iter_mut().zip(token).for_each(|(sum, x)| *sum += x);
                }
                row.iter_mut().for_each(|sum| *sum /= tokens as f32);
                rest = later;
            }
        } else {
            let pooled: Vec<usize> = texts.iter().map(|words| words.pooled).collect();
            self.blocks.forward_pooled(&mut room.scratch, &lengths, &pooled, None);
            vectors.copy_from_slice(&room.scratch.picked[..count * width]);
        }
        if let Some(norm) = &self.norm_post {
            norm.apply_in_place(vectors);
        }
        match &self.pooler {
            Some(pooler) => {
                let mut rows = Rows::new(self.isa, Number::F32, width);
                rows.convert(vectors, width, count);
                let mut made = vec![0.0; count * pooler.outputs()];
                pooler.apply(count, &rows, Out::Floats(&mut made, pooler.outputs()), Epilogue::STORE);
                if self.config.pooler.is_some_and(|pooler| pooler.tanh) {
                    made.iter_mut().for_each(|x| *x = x.tanh());
                }
                room.pooled.convert(&made, pooler.outputs(), count);
            }
            None => room.pooled.convert(vectors, width, count),
        }
        match &self.spread {
            Some(spread) => {
                let mut means = vec![0.0; count * spread.mean()];
                self.head.apply(self.isa, &mut room.pooled, count, &mut means, spread.mean()); // (texts, mean)
                spread.apply(&means, &means, out)?;
            }
            None => self.head.apply(self.isa, &mut room.pooled, count, out, self.dim), // (texts, dim)
        }
        lock().push(room);
        Ok(())
    }

    fn room(&self) -> Room {
        let pooled = self.pooler.as_ref().map_or(self.config.blocks.width, Dense::outputs);
        Room {
            scratch: self.blocks.scratch(),
            pooled: Rows::new(self.isa, Number::F32, pooled),
            vectors: Aligned::default(),
        }
    }
}
