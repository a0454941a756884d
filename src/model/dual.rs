//! The encoder that a configuration describes: two towers and a tokenizer.
//!
//! On the processor towers run on the kernels of [`cpu`](super::cpu), on other devices and in shapes that those do not know
//! on candle's tensors. A tower is built when it is first used. A query then costs the text tower alone, and an ingest the
//! image tower alone.

use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use super::config::ModelConfig;
use super::cpu::{self, Isa, Packer, TextTower, VisionTower};
use super::encoder::{Device, EmbeddingSpace, Embeddings, Encode, EncoderOptions, PixelBatch, Precision};
use super::import::{Import, import};
use super::linear::{Loader, tensor_error};
use super::text::{Text, pooled_at};
use super::tokenizer::Tokenizer;
use super::vision::Vision;
use super::weights::Weights;
use crate::image::Preprocess;
use crate::{Error, Result};

/// A model directory, loaded.
pub(super) struct DualEncoder {
    config: ModelConfig,
    space: EmbeddingSpace,
    weights: Arc<Weights>,
    tokenizer: Tokenizer,
    towers: Towers,
}

/// What the towers are evaluated on.
enum Towers {
    Packed { packer: Box<Packer>, vision: Lazy<Box<VisionTower>>, text: Lazy<Box<TextTower>> },
    Tensors { device: candle_core::Device, vision: Lazy<Box<Vision>>, text: Lazy<Box<Text>> },
}

impl DualEncoder {
    /// Reads and checks a model directory; see [`super::Encoder::load_with`].
    pub(super) fn load(dir: &Path, options: &EncoderOptions) -> Result<Self> {
        let Import { config, weights, tokenizer } = import(dir)?;
        let isa = options.isa.unwrap_or_else(Isa::detect);
        let tensors = options.device != Device::Cpu || options.reference || !cpu::supports(&config);
        let precision = if tensors { f32_only(dir, options.precision)? } else { cpu::resolve(options.precision, isa) };
        let fingerprint = fingerprint(&config, &weights, precision);
        let tokenizer = Tokenizer::load(&tokenizer)?;
        let name = dir.canonicalize().map_err(Error::io(dir))?;
        let model = name.file_name().unwrap_or(name.as_os_str()).to_string_lossy().into_owned();
        let weights = Arc::new(weights);
        let towers = if tensors {
            Towers::Tensors { device: open_device(options.device)?, vision: Lazy::default(), text: Lazy::default() }
        } else {
            let packer = Packer {
                isa,
                precision,
                weights: Arc::clone(&weights),
                fingerprint: fingerprint.chars().take_while(char::is_ascii_hexdigit).collect(),
                cache: options.cache.clone(),
            };
            Towers::Packed { packer: Box::new(packer), vision: Lazy::default(), text: Lazy::default() }
        };
        Ok(Self { space: EmbeddingSpace { model, fingerprint, dim: config.dim }, weights, tokenizer, config, towers })
    }
}

/// The precision of candle's towers, or an error that names the one that they do not have.
fn f32_only(dir: &Path, precision: Precision) -> Result<Precision> {
    let value = match precision {
        Precision::Auto | Precision::F32 => return Ok(Precision::F32),
        Precision::Bf16 => "bf16",
        Precision::Int8 => "int8",
    };
    Err(Error::UnsupportedModel { path: dir.to_path_buf(), key: "precision".into(), value: value.into() })
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
        let rows = match &self.towers {
            Towers::Packed { packer, vision, .. } => {
                vision.get_or_load(|| packer.vision(&self.config).map(Box::new))?.encode(batch.as_bytes())
            }
            Towers::Tensors { device, vision, .. } => {
                let load = || {
                    let loader = Loader { weights: &self.weights, device };
                    Vision::load(&loader, &self.config.vision, &self.config.preprocess).map(Box::new)
                };
                vision.get_or_load(load)?.encode(batch)?
            }
        };
        Ok(normalised(self.config.dim, rows))
    }

    fn encode_texts(&self, texts: &[&str]) -> Result<Embeddings> {
        let ids: Vec<Vec<u32>> = texts.iter().map(|text| self.tokenizer.encode(text)).collect::<Result<_>>()?;
        let rows = match &self.towers {
            Towers::Packed { packer, text, .. } => {
                let pool = self.config.text.pool;
                let ids: Vec<(&[u32], usize)> = ids.iter().map(|ids| (ids.as_slice(), pooled_at(ids, pool))).collect();
                text.get_or_load(|| packer.text(&self.config).map(Box::new))?.encode(&ids)?
            }
            Towers::Tensors { device, text, .. } => {
                let load = || Text::load(&self.weights, device, &self.config.text, self.config.dim).map(Box::new);
                text.get_or_load(load)?.encode(&ids)?
            }
        };
        Ok(normalised(self.config.dim, rows))
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

/// Identifies what the vectors depend on: the configuration in its normal form, the weights, and the class of precisions.
fn fingerprint(config: &ModelConfig, weights: &Weights, precision: Precision) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(config.description().as_bytes());
    hasher.update(b"f32\n");
    weights.fingerprint(&mut hasher);
    let exact = hasher.finalize().to_hex()[..32].to_owned();
    // bf16 is near enough to f32 to share its space.
    if precision == Precision::Int8 { exact + "/int8" } else { exact }
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
