//! The feed-forward half of a block: up, activated, perhaps times a second map, perhaps normalised, down.

use super::aligned::Aligned;
use super::dense::{Dense, Out};
use super::finish::{Activation, Epilogue};
use super::norm::LayerNorm;
use super::rows::{Number, Rows};
use super::simd::Isa;
use super::source::Source;
use crate::Result;
use crate::model::config::{self, BlocksConfig};

/// Packed weights.
pub(super) struct Feed {
    number: Number,
    activation: Activation,
    /// Width inside, without what was added to fill vectors.
    inside: usize,
    norm: Option<LayerNorm>,
    gate: Option<Dense>,
    up: Dense,
    norm_hidden: Option<LayerNorm>,
    down: Dense,
}

/// Working memory.
pub(super) struct Room {
    /// What the second product reads.
    inner: Rows,
    /// The same before it becomes bytes.
    pairs: Aligned<u16>,
    /// The same before it is multiplied or normalised, and the gate.
    floats: Aligned<f32>,
}

impl Room {
    pub(super) fn new(isa: Isa, number: Number, hidden: usize) -> Self {
        Self { inner: Rows::new(isa, number, hidden), pairs: Aligned::default(), floats: Aligned::default() }
    }
}

impl Feed {
    /// The half called `name`; `scale` names factors of what it puts out.
    pub(super) fn take(
        source: &mut Source<'_>,
        name: &str,
        config: &BlocksConfig,
        scale: Option<String>,
    ) -> Result<Self> {
        let BlocksConfig { width, hidden, norm_eps, .. } = *config;
        let number = source.number;
        let part = |part: &str| format!("{name}.{part}");
        // Whole vectors; what is added is zero and stays zero through the activation.
        let padded = hidden.next_multiple_of(16);
        let norm = if config.norm_feed { Some(source.norm(&part("norm_in"), width, norm_eps)?) } else { None };
        let gate = if config.gated {
            Some(source.part(&part("gate"), number, (width, hidden), (width, padded), 0, None)?)
        } else {
            None
        };
        Ok(Self {
            number,
            activation: activation(config.activation),
            inside: hidden,
            norm,
            gate,
            up: source.part(&part("up"), number, (width, hidden), (width, padded), 0, None)?,
            norm_hidden: if config.norm_hidden { Some(source.norm(&part("norm"), hidden, norm_eps)?) } else { None },
            down: source.part(&part("down"), number, (hidden, width), (padded, width), 0, scale)?,
        })
    }

    /// Width inside, in whole vectors.
    pub(super) fn hidden(&self) -> usize {
        self.up.outputs()
    }

    /// A norm at the entry besides the block's.
    pub(super) fn norm(&self) -> Option<&LayerNorm> {
        self.norm.as_ref()
    }

    /// `count` rows up.
    pub(super) fn raise(&self, count: usize, rows: &Rows, room: &mut Room) {
        let Room { inner, pairs, floats } = room;
        let hidden = self.hidden();
        let activate = Epilogue::activate(self.activation);
        if self.gate.is_some() || self.norm_hidden.is_some() {
            let (first, second) = floats.at_least(2 * count * hidden).split_at_mut(count * hidden);
            match &self.gate {
                Some(gate) => {
                    gate.apply(count, rows, Out::Floats(second, hidden), activate);
                    self.up.apply(count, rows, Out::Floats(first, hidden), Epilogue::STORE);
                    first.iter_mut().zip(second).for_each(|(x, gate)| *x *= *gate);
                }
                None => self.up.apply(count, rows, Out::Floats(first, hidden), activate),
            }
            inner.fill(count, |i, row| {
                row.copy_from_slice(&first[i * hidden..][..hidden]);
                if let Some(norm) = &self.norm_hidden {
                    norm.apply_in_place(&mut row[..self.inside]);
                }
            });
        } else if self.number == Number::Int8 {
            let short = pairs.at_least(count * hidden);
            self.up.apply(count, rows, Out::Pairs(short, hidden), activate);
            inner.convert_pairs(short, hidden, count);
        } else {
            self.up.apply(count, rows, Out::Rows(inner), activate);
        }
    }

    /// And down again.
    pub(super) fn lower(&self, count: usize, room: &Room, out: &mut [f32], epilogue: Epilogue) {
        self.down.apply(count, &room.inner, Out::Floats(out, self.down.outputs()), epilogue);
    }
}

/// A configuration's activation as kernels call it.
pub(super) fn activation(activation: config::Activation) -> Activation {
    match activation {
        config::Activation::Gelu => Activation::Gelu,
        config::Activation::GeluTanh => Activation::GeluTanh,
        config::Activation::QuickGelu => Activation::QuickGelu,
        config::Activation::Silu => Activation::Silu,
        config::Activation::Relu => Activation::Relu,
    }
}
