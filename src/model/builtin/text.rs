//! The text tower: byte-level BPE, two pre-norm transformer layers that look both ways, the mean of the tokens.

use serde::Deserialize;
use tokenizers::Tokenizer;

use super::{Weights, bad, normalise};
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
    tokenizer: Tokenizer,
    positions: usize,
    width: usize,
    heads: usize,
    hidden: usize,
    // (vocabulary, width) int8, and a scale per row: gathered, so never unpacked as a whole
    embedding: &'static [u8],
    scales: Vec<f32>,
    // (positions, width)
    position: Vec<f32>,
    layers: Vec<Layer>,
    norm: LayerNorm,
    out: Linear,
}

impl TextTower {
    pub(super) fn load(
        isa: Isa,
        weights: &Weights<'static>,
        config: &TextConfig,
        dim: usize,
        tokenizer: &[u8],
    ) -> Result<Self> {
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
        let (embedding, scales) = weights.rows("text.emb.weight")?;
        Ok(Self {
            isa,
            tokenizer: Tokenizer::from_bytes(tokenizer).map_err(bad)?,
            positions: config.positions,
            width,
            heads: config.heads,
            hidden,
            embedding,
            scales,
            position: weights.floats("text.pos")?,
            layers,
            norm: norm("text.ln")?,
            out: Linear::new(isa, width, dim, &weights.floats("text.out.weight")?, &[]),
        })
    }

    /// One normalised row per text.
    pub(super) fn encode(&self, texts: &[&str]) -> Result<Vec<f32>> {
        let mut rows = Vec::with_capacity(texts.len() * self.out.outputs());
        for text in texts {
            rows.extend(self.encode_one(text)?);
        }
        Ok(rows)
    }

    fn tokens(&self, text: &str) -> Result<Vec<u32>> {
        let encoding = self.tokenizer.encode_fast(clean(text), false).map_err(bad)?;
        Ok(encoding.get_ids().iter().copied().take(self.positions).collect())
    }

    fn encode_one(&self, text: &str) -> Result<Vec<f32>> {
        let tokens = self.tokens(text)?;
        let (count, width) = (tokens.len(), self.width);
        // (tokens, width)
        let mut x = vec![0.0; count * width];
        for ((row, &token), position) in x.chunks_exact_mut(width).zip(&tokens).zip(self.position.chunks_exact(width)) {
            let token = token as usize;
            let embedding = &self.embedding[token * width..][..width];
            for ((x, &e), &p) in row.iter_mut().zip(embedding).zip(position) {
                *x = f32::from(e as i8) * self.scales[token] + p;
            }
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
        let mut out = vec![0.0; self.out.outputs()];
        let dim = out.len();
        self.out.apply(1, (&mean, width), (&mut out, dim), Epilogue::STORE);
        normalise(&mut out);
        Ok(out)
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
