//! The encoder that a configuration describes: two towers on candle tensors and a tokenizer.
//!
//! A tower is built when it is first used. A query then costs the text tower alone, and an ingest the image tower alone.

use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use super::config::ModelConfig;
use super::encoder::{Device, EmbeddingSpace, Embeddings, Encode, EncoderOptions, PixelBatch};
use super::import::{Import, import};
use super::linear::{Loader, tensor_error};
use super::text::Text;
use super::tokenizer::Tokenizer;
use super::vision::Vision;
use super::weights::Weights;
use crate::image::Preprocess;
use crate::{Error, Result};

/// A model directory, loaded.
pub(super) struct DualEncoder {
    config: ModelConfig,
    space: EmbeddingSpace,
    device: candle_core::Device,
    weights: Arc<Weights>,
    tokenizer: Tokenizer,
    vision: Lazy<Vision>,
    text: Lazy<Text>,
}

impl DualEncoder {
    /// Reads and checks a model directory; see [`super::Encoder::load_with`].
    pub(super) fn load(dir: &Path, options: &EncoderOptions) -> Result<Self> {
        let Import { config, weights, tokenizer } = import(dir)?;
        let fingerprint = fingerprint(&config, &weights);
        let tokenizer = Tokenizer::load(&tokenizer)?;
        let name = dir.canonicalize().map_err(Error::io(dir))?;
        let model = name.file_name().unwrap_or(name.as_os_str()).to_string_lossy().into_owned();
        Ok(Self {
            space: EmbeddingSpace { model, fingerprint, dim: config.dim },
            device: open_device(options.device)?,
            weights: Arc::new(weights),
            tokenizer,
            vision: Lazy::default(),
            text: Lazy::default(),
            config,
        })
    }
}

impl Encode for DualEncoder {
    fn space(&self) -> &EmbeddingSpace {
        &self.space
    }

    fn preprocess(&self) -> &Preprocess {
        &self.config.preprocess
    }

    fn encode_images(&self, batch: &PixelBatch) -> Result<Embeddings> {
        let expected = self.config.vision.image;
        if batch.size() != expected {
            let reason = format!("pictures of {:?}, but {} takes {expected:?}", batch.size(), self.space.model);
            return Err(Error::Tensor(reason.into()));
        }
        let vision = self.vision.get_or_load(|| {
            let loader = Loader { weights: &self.weights, device: &self.device };
            Vision::load(&loader, &self.config.vision, &self.config.preprocess)
        })?;
        Ok(normalised(self.config.dim, vision.encode(batch)?))
    }

    fn encode_texts(&self, texts: &[&str]) -> Result<Embeddings> {
        let text =
            self.text.get_or_load(|| Text::load(&self.weights, &self.device, &self.config.text, self.config.dim))?;
        let ids: Vec<Vec<u32>> = texts.iter().map(|text| self.tokenizer.encode(text)).collect::<Result<_>>()?;
        Ok(normalised(self.config.dim, text.encode(&ids)?))
    }
}

/// Rows of length one. A row of zeros, which no trained model makes, stays what it is.
fn normalised(dim: usize, mut rows: Vec<f32>) -> Embeddings {
    for row in rows.chunks_exact_mut(dim) {
        let norm = row.iter().map(|x| x * x).sum::<f32>().sqrt().max(1e-12);
        row.iter_mut().for_each(|x| *x /= norm);
    }
    Embeddings::new(dim, rows)
}

/// Identifies what the vectors depend on: the configuration in its normal form, and the weights.
fn fingerprint(config: &ModelConfig, weights: &Weights) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(config.description().as_bytes());
    // The arithmetic, of which there is one so far.
    hasher.update(b"f32\n");
    weights.fingerprint(&mut hasher);
    hasher.finalize().to_hex()[..32].to_owned()
}

fn open_device(device: Device) -> Result<candle_core::Device> {
    match device {
        Device::Cpu => Ok(candle_core::Device::Cpu),
        Device::Cuda(ordinal) => candle_core::Device::new_cuda(ordinal).map_err(tensor_error),
        Device::Metal(ordinal) => candle_core::Device::new_metal(ordinal).map_err(tensor_error),
    }
}

/// A value that is made by whoever needs it first, while the others wait; a failure is tried again.
struct Lazy<T> {
    value: OnceLock<T>,
    making: Mutex<()>,
}

impl<T> Default for Lazy<T> {
    fn default() -> Self {
        Self { value: OnceLock::new(), making: Mutex::new(()) }
    }
}

impl<T> Lazy<T> {
    fn get_or_load(&self, load: impl FnOnce() -> Result<T>) -> Result<&T> {
        if let Some(value) = self.value.get() {
            return Ok(value);
        }
        let _making = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(value) = self.value.get() {
            return Ok(value);
        }
        let value = load()?;
        Ok(self.value.get_or_init(|| value))
    }
}
