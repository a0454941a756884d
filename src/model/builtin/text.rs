//! The text tower: byte-level BPE, two pre-norm transformer layers that look both ways, the mean of the tokens.

use rayon::prelude::*;
use serde::Deserialize;

use super::normalise;
use super::tokenizer::tokens;
use super::weights::{Table, Weights};
use crate::Result;
use crate::model::cpu::{Activation, Epilogue, Isa, LayerNorm, Linear, attention};

/// Shape of the tower.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TextConfig {
    /// Tokens that are read; later positions were never trained.
    positions: usize,
    width: usize,
    layers: usize,
    heads: usize,
    /// Width inside the feed-forward part.
    hidden: usize,
    /// ε of the layer norms.
    eps: f32,
}

struct Layer {
    norm1: LayerNorm,
    qkv: Linear,
    proj: Linear,
    norm2: LayerNorm,
    fc1: Linear,
    fc2: Linear,
}

/// Ready to encode.
pub(super) struct TextTower {
    isa: Isa,
    positions: usize,
    width: usize,
    heads: usize,
    hidden: usize,
    // (vocabulary, width)
    embedding: Table<'static>,
    // (positions, width)
    position: Vec<f32>,
    layers: Vec<Layer>,
    norm: LayerNorm,
    out: Linear,
}

impl TextTower {
    pub(super) fn load(isa: Isa, weights: &Weights<'static>, config: &TextConfig, dim: usize) -> Result<Self> {
        let (width, hidden) = (config.width, config.hidden);
        let norm = |name: &str| -> Result<LayerNorm> {
            let (weight, bias) = (weights.floats(&format!("{name}.weight"))?, weights.floats(&format!("{name}.bias"))?);
            Ok(LayerNorm::new(isa, &weight, &bias, config.eps))
        };
        let linear = |name: &str, inputs: usize, outputs: usize| -> Result<Linear> {
            let (weight, bias) = (weights.floats(&format!("{name}.weight"))?, weights.floats(&format!("{name}.bias"))?);
            Ok(Linear::new(isa, inputs, outputs, &weight, &bias))
        };
        let layers = (0..config.layers)
            .map(|i| {
                let name = |part: &str| format!("text.blocks.{i}.{part}");
                Ok(Layer {
                    norm1: norm(&name("ln1"))?,
                    qkv: linear(&name("qkv"), width, 3 * width)?,
                    proj: linear(&name("proj"), width, width)?,
                    norm2: norm(&name("ln2"))?,
                    fc1: linear(&name("fc1"), width, hidden)?,
                    fc2: linear(&name("fc2"), hidden, width)?,
                })
            })
            .collect::<Result<_>>()?;
        Ok(Self {
            isa,
            positions: config.positions,
            width,
            heads: config.heads,
            hidden,
            embedding: weights.table("text.emb.weight")?,
            position: weights.floats("text.pos")?,
            layers,
            norm: norm("text.ln")?,
            out: Linear::new(isa, width, dim, &weights.floats("text.out.weight")?, &[]),
        })
    }

    /// One normalised row per text; texts are spread over the threads of rayon.
    pub(super) fn encode(&self, texts: &[&str]) -> Vec<f32> {
        let dim = self.out.outputs();
        let mut rows = vec![0.0; texts.len() * dim];
        rows.par_chunks_exact_mut(dim).zip(texts).for_each(|(row, text)| self.encode_one(text, row));
        rows
    }

    fn encode_one(&self, text: &str, out: &mut [f32]) {
        let tokens = tokens(&clean(text), self.positions);
        let (count, width) = (tokens.len(), self.width);
        // (tokens, width)
        let mut x = self.position[..count * width].to_vec();
        for (row, &token) in x.chunks_exact_mut(width).zip(&tokens) {
            self.embedding.add_row(token as usize, row);
        }
        let mut normed = vec![0.0; count * width];
        let mut qkv = vec![0.0; count * 3 * width];
        let mut mixed = vec![0.0; count * width];
        let mut inner = vec![0.0; count * self.hidden];
        for layer in &self.layers {
            layer.norm1.apply(&x, &mut normed);
            layer.qkv.apply(count, (&normed, width), (&mut qkv, 3 * width), Epilogue::STORE);
            attention(self.isa, &qkv, &mut mixed, count, width, self.heads);
            layer.proj.apply(count, (&mixed, width), (&mut x, width), Epilogue::ADD);
            layer.norm2.apply(&x, &mut normed);
            let gelu = Epilogue::activate(Activation::GeluTanh);
            layer.fc1.apply(count, (&normed, width), (&mut inner, self.hidden), gelu);
            layer.fc2.apply(count, (&inner, self.hidden), (&mut x, width), Epilogue::ADD);
        }
        self.norm.apply(&x, &mut normed);
        // A text without tokens has a mean of zero, as in training, and so the zero vector: it resembles nothing.
        let mut mean = vec![0.0; width];
        for row in normed.chunks_exact(width) {
            mean.iter_mut().zip(row).for_each(|(m, &x)| *m += x / count as f32);
        }
        self.out.apply(1, (&mean, width), (out, self.out.outputs()), Epilogue::STORE);
        normalise(out);
    }
}

/// The clean-up of the training captions: lower case, no space before punctuation, single spaces, no final full stop.
fn clean(text: &str) -> String {
    let lower = text.trim().to_lowercase();
    let mut out = String::with_capacity(lower.len());
    let mut space = false;
    for c in lower.chars() {
        if c.is_whitespace() {
            space = true;
            continue;
        }
        if space && !matches!(c, '.' | ',' | ';' | ':' | '!' | '?') {
            out.push(' ');
        }
        space = false;
        out.push(c);
    }
    out.truncate(out.trim_end_matches([' ', '.']).len());
    out
}

#[cfg(test)]
mod tests {
    use super::clean;

    #[test]
    fn captions_are_cleaned_as_in_training() {
        for (raw, want) in [
            ("  A Dog , running .  ", "a dog, running"),
            ("two\tdogs\n\n play!", "two dogs play!"),
            ("what ?", "what?"),
            ("...", ""),
            ("", ""),
            ("end. . .", "end"),
            ("ÄRGER im Schnee.", "ärger im schnee"),
        ] {
            assert_eq!(clean(raw), want);
        }
    }
}
