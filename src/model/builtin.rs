//! The model that is compiled in: small, English only, there at once.
//!
//! Its files lie in `builtin/`: a model card (`README.md`), int8 weights, a tokenizer, the configuration, and in `train/` how
//! it was made. It runs on the kernels of [`cpu`](super::cpu) alone. candle would evaluate its depthwise convolutions group
//! by group, and a program that starts for one query must not build a tensor graph first.
//!
//! Each tower is unpacked when it is first used, so a text query never pays for the image tower.

mod arithmetic;
mod image;
mod text;
mod tokenizer;
mod weights;

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use serde::Deserialize;

use super::cpu::Isa;
use super::{EmbeddingSpace, Embeddings, Encode, Features, Head, PixelBatch, Precision};
use crate::image::{Interpolation, Preprocess, ResizeMode};
use crate::{Error, Result};
use arithmetic::{F32, Int8};
use image::{ImageConfig, ImageTower, Tower};
use text::{TextConfig, TextTower};
use weights::Weights;

static CONFIG: &str = include_str!("builtin/config.json");
static WEIGHTS: &[u8] = include_bytes!("builtin/weights.safetensors");

/// `config.json`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    name: String,
    dim: usize,
    image: ImageConfig,
    text: TextConfig,
}

/// The built-in dual encoder.
pub(super) struct Builtin {
    isa: Isa,
    /// f32 instead of bytes in the image tower; the text tower is f32 always.
    exact: bool,
    weights: &'static [u8],
    config: Config,
    space: EmbeddingSpace,
    preprocess: Preprocess,
    image: OnceLock<Box<dyn Tower>>,
    text: OnceLock<TextTower>,
}

impl Builtin {
    /// Reads the configuration; the towers follow on first use.
    pub(super) fn new(precision: Precision) -> Result<Self> {
        Self::with(Isa::detect(), precision, WEIGHTS)
    }

    fn with(isa: Isa, precision: Precision, weights: &'static [u8]) -> Result<Self> {
        let config: Config = serde_json::from_str(CONFIG).map_err(bad)?;
        // There are no weights in bf16; f32 is nearer to it than bytes.
        let exact = matches!(precision, Precision::F32 | Precision::Bf16);
        let fingerprint = format!("{}/{}", config.name, if exact { "f32" } else { "int8" });
        let space = EmbeddingSpace { model: "builtin".into(), fingerprint, dim: config.dim };
        let preprocess = Preprocess {
            size: (config.image.size, config.image.size),
            mean: [0.5; 3],
            std: [0.5; 3],
            interpolation: Interpolation::Bilinear,
            resize_mode: ResizeMode::Squash,
            fill: 0,
            rgb_first: true,
        };
        let (image, text) = (OnceLock::new(), OnceLock::new());
        Ok(Self { isa, exact, weights, config, space, preprocess, image, text })
    }

    fn image(&self) -> Result<&dyn Tower> {
        if let Some(tower) = self.image.get() {
            return Ok(&**tower);
        }
        let (weights, config, dim) = (Weights::read(self.weights)?, &self.config.image, self.config.dim);
        let tower: Box<dyn Tower> = if self.exact {
            Box::new(ImageTower::<F32>::load(self.isa, &weights, config, dim)?)
        } else {
            Box::new(ImageTower::<Int8>::load(self.isa, &weights, config, dim)?)
        };
        Ok(&**self.image.get_or_init(|| tower))
    }

    fn check(&self, batch: &PixelBatch) -> Result<()> {
        if !batch.is_empty() && batch.size() != self.preprocess.size {
            let ((height, width), (want, _)) = (batch.size(), self.preprocess.size);
            return Err(bad(format!("pictures of {height} × {width} pixels; this model takes {want} × {want}")));
        }
        Ok(())
    }

    fn text(&self) -> Result<&TextTower> {
        if let Some(tower) = self.text.get() {
            return Ok(tower);
        }
        let tower = TextTower::load(self.isa, &Weights::read(self.weights)?, &self.config.text, self.config.dim)?;
        Ok(self.text.get_or_init(|| tower))
    }
}

impl Encode for Builtin {
    fn space(&self) -> &EmbeddingSpace {
        &self.space
    }

    fn preprocess(&self) -> &Preprocess {
        &self.preprocess
    }

    fn encode_images(&self, batch: &PixelBatch) -> Result<Embeddings> {
        self.check(batch)?;
        Ok(Embeddings::new(self.config.dim, self.image()?.encode(batch.as_bytes())))
    }

    fn features(&self) -> Features {
        let fingerprint = format!("{}/features", self.space.fingerprint);
        Features { fingerprint, width: self.config.image.features() }
    }

    fn encode_features(&self, batch: &PixelBatch) -> Result<Embeddings> {
        self.check(batch)?;
        Ok(Embeddings::new(self.config.image.features(), self.image()?.features(batch.as_bytes())))
    }

    /// The second layer of the projection and the map beside it, as one matrix.
    fn head(&self) -> Result<Arc<Head>> {
        let weights = Weights::read(self.weights)?;
        let (inner, beside) = (weights.floats("image.proj.fc2.weight")?, weights.floats("image.proj.skip.weight")?);
        let dim = self.config.dim;
        let rows = inner.chunks_exact(inner.len() / dim).zip(beside.chunks_exact(beside.len() / dim));
        let rows = rows.flat_map(|(inner, beside)| inner.iter().chain(beside)).copied().collect();
        let mut bias = vec![0.0; dim];
        for name in ["proj.fc2", "proj.skip"] {
            bias.iter_mut().zip(weights.bias(name)?).for_each(|(sum, x)| *sum += x);
        }
        Ok(Arc::new(Head::new(self.config.image.features(), rows, bias)))
    }

    fn encode_texts(&self, texts: &[&str]) -> Result<Embeddings> {
        Ok(Embeddings::new(self.config.dim, self.text()?.encode(texts)))
    }
}

/// An error of this model.
fn bad(reason: impl ToString) -> Error {
    Error::BadModel { path: PathBuf::from("built-in model"), reason: reason.to_string() }
}

/// Scales a row to length 1; a row of zeros stays.
fn normalise(row: &mut [f32]) {
    let length = row.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt();
    if length > 0.0 {
        row.iter_mut().for_each(|x| *x = (f64::from(*x) / length) as f32);
    }
}

#[cfg(test)]
mod tests;
