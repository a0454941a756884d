//! The encoder that a configuration describes: two towers and a tokenizer.
//!
//! On the processor towers run on the kernels of [`cpu`](super::cpu), on other devices and in shapes that those do not know
//! on candle's tensors. A tower is built when it is first used. A query then costs the text tower alone, and an ingest the
//! image tower alone.

use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use candle_core::DType;

use super::config::{ImageConfig, ModelConfig, ReaderConfig, Trunk, VitConfig};
use super::cpu::{self, Isa, Packer, TextTower, TrunkTower, VisionTower};
use super::encoder::{Device, EmbeddingSpace, Embeddings, Encode, EncoderOptions, PixelBatch, Precision};
use super::head::{Features, Head};
use super::import::{Checks, Import, import};
use super::linear::tensor_error;
use super::loader::Loader;
use super::project::Depth;
use super::text::Text;
use super::tokenizer::Tokenizer;
use super::tower::ImageTower;
use super::weights::Weights;
use crate::image::Preprocess;
use crate::{Error, Result};

/// A model directory, loaded.
pub(super) struct DualEncoder {
    config: ModelConfig,
    space: EmbeddingSpace,
    weights: Arc<Weights>,
    tokenizer: Tokenizer,
    packer: Packer,
    device: candle_core::Device,
    /// What towers on tensors multiply in.
    products: DType,
    image: Image,
    text: Words,
    head: Lazy<Arc<Head>>,
}

/// What the image tower is evaluated on.
enum Image {
    Packed(Box<VitConfig>, Lazy<Box<VisionTower>>),
    Trunk(Box<Trunk>, Lazy<Box<TrunkTower>>),
    Tensors(Lazy<Box<ImageTower>>),
}

/// What the text tower is evaluated on.
enum Words {
    Packed(Box<ReaderConfig>, Lazy<Box<TextTower>>),
    Tensors(Lazy<Box<Text>>),
}

impl DualEncoder {
    /// Reads and checks a model directory; see [`super::Encoder::load_with`].
    pub(super) fn load(dir: &Path, options: &EncoderOptions) -> Result<Self> {
        let Import { config, weights, tokenizer } =
            import(dir, if options.lenient { Checks::Lenient } else { Checks::Strict })?;
        let isa = options.isa.unwrap_or_else(Isa::detect);
        let tensors = options.device != Device::Cpu || options.reference;
        let image = match (&config.image, config.image.vit()) {
            _ if tensors => Image::Tensors(Lazy::default()),
            (_, Some(vit)) if cpu::supports_image(&vit) => Image::Packed(Box::new(vit), Lazy::default()),
            (ImageConfig::Trunk(trunk), _) if cpu::supports_trunk(trunk) => {
                Image::Trunk(Box::new(trunk.clone()), Lazy::default())
            }
            _ => Image::Tensors(Lazy::default()),
        };
        let reader = config.text.reader();
        let text = match !tensors && cpu::supports_text(&reader) {
            true => Words::Packed(Box::new(reader), Lazy::default()),
            false => Words::Tensors(Lazy::default()),
        };
        // One precision for both towers, up to bf16, which shares the space of f32: vectors of one space are compared with
        // each other.
        let precision = match (&image, &text, options.precision) {
            (_, _, Precision::Bf16) if tensors => Precision::Bf16,
            (Image::Packed(..), Words::Packed(..), precision) => cpu::resolve(precision, isa),
            (Image::Tensors(_) | Image::Trunk(..), Words::Tensors(_), precision) => f32_only(dir, precision)?,
            (_, _, Precision::Int8) => f32_only(dir, options.precision)?,
            (_, _, precision) => cpu::resolve(precision, isa),
        };
        let fingerprint = fingerprint(&config, &weights, precision);
        let tokenizer = Tokenizer::load(&tokenizer)?;
        let name = dir.canonicalize().map_err(Error::io(dir))?;
        let model = name.file_name().unwrap_or(name.as_os_str()).to_string_lossy().into_owned();
        let weights = Arc::new(weights);
        let packer = Packer {
            isa,
            precision,
            weights: Arc::clone(&weights),
            fingerprint: cpu::hex(&fingerprint).to_owned(),
            cache: options.cache.clone(),
        };
        let device = open_device(options.device)?;
        let products = if tensors && precision == Precision::Bf16 { DType::BF16 } else { DType::F32 };
        let space = EmbeddingSpace { model, fingerprint, dim: config.dim };
        Ok(Self { config, space, weights, tokenizer, packer, device, products, image, text, head: Lazy::default() })
    }
}

impl DualEncoder {
    /// For towers on tensors.
    fn loader(&self) -> Loader<'_> {
        Loader::new(&self.weights, &self.device).products(self.products)
    }

    /// Rows of a tower that is evaluated so far, not normalised.
    fn rows(&self, batch: &PixelBatch, depth: Depth) -> Result<Vec<f32>> {
        let expected = self.config.image.size();
        if batch.size() != expected {
            let reason = format!("pictures of {:?}, but {} takes {expected:?}", batch.size(), self.space.model);
            return Err(Error::Tensor(reason.into()));
        }
        let ModelConfig { dim, image, preprocess, .. } = &self.config;
        match &self.image {
            Image::Packed(config, tower) => {
                let load = || self.packer.vision(config, preprocess, *dim).map(Box::new);
                tower.get_or_load(load)?.encode(batch.as_bytes(), depth)
            }
            Image::Trunk(config, tower) => {
                // A trunk has no features of its own: what is asked for is always the embedding.
                let load = || self.packer.trunk(config, preprocess, *dim).map(Box::new);
                tower.get_or_load(load)?.encode(batch.as_bytes())
            }
            Image::Tensors(tower) => {
                let load = || ImageTower::load(&self.loader(), image, preprocess, *dim).map(Box::new);
                tower.get_or_load(load)?.encode(batch, depth)
            }
        }
    }
}

/// The one precision that a model has, or an error that names the one that was asked for.
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
        Ok(normalised(self.config.dim, self.rows(batch, Depth::Embeddings)?))
    }

    fn features(&self) -> Features {
        let EmbeddingSpace { fingerprint, dim, .. } = &self.space;
        match self.config.image.features() {
            Some(width) => Features { fingerprint: format!("{fingerprint}/features"), width },
            None => Features { fingerprint: fingerprint.clone(), width: *dim },
        }
    }

    fn encode_features(&self, batch: &PixelBatch) -> Result<Embeddings> {
        match self.config.image.features() {
            Some(width) => Ok(Embeddings::new(width, self.rows(batch, Depth::Features)?)),
            None => self.encode_images(batch),
        }
    }

    fn head(&self) -> Result<Arc<Head>> {
        let load = || {
            let Some(width) = self.config.image.features() else { return Ok(Head::identity(self.config.dim)) };
            let (weights, _) = self.weights.get("image.projection.weight")?; // (dim, width)
            let bias = match self.weights.contains("image.projection.bias") {
                true => self.weights.get("image.projection.bias")?.0,
                false => vec![0.0; self.config.dim],
            };
            Ok(Head::new(width, weights, bias))
        };
        self.head.get_or_load(|| load().map(Arc::new)).cloned()
    }

    fn encode_texts(&self, texts: &[&str]) -> Result<Embeddings> {
        let ids: Vec<Vec<u32>> = texts.iter().map(|text| self.tokenizer.encode(text)).collect::<Result<_>>()?;
        let dim = self.config.dim;
        let rows = match &self.text {
            Words::Packed(config, tower) => {
                tower.get_or_load(|| self.packer.text(config, dim).map(Box::new))?.encode(&ids)?
            }
            Words::Tensors(tower) => {
                let load = || Text::load(&self.loader(), &self.weights, &self.config.text, dim).map(Box::new);
                tower.get_or_load(load)?.encode(&ids)?
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
