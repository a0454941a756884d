//! The seam between pictures, texts and vectors: `trait Encode`, and `Encoder`, the loaded model.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::builtin::Builtin;
use super::cpu::Isa;
use super::declared::Declared;
use super::dual::DualEncoder;
use super::head::{Features, Head};
use crate::Result;
use crate::image::Preprocess;

/// Which vectors can be compared with which: those of one space.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EmbeddingSpace {
    /// Name for people: an alias, or the directory's name.
    pub model: String,
    /// Identifies weights, configuration and precision class; equal fingerprints mean comparable vectors. That of int8 ends
    /// in `/int8`.
    pub fingerprint: String,
    /// Numbers per vector.
    pub dim: usize,
}

impl EmbeddingSpace {
    /// The precision to ask for in order to make more vectors of this space.
    pub fn precision(&self) -> Precision {
        match self.fingerprint.rsplit_once('/') {
            Some((_, "int8")) => Precision::Int8,
            Some((_, "f32")) => Precision::F32,
            _ => Precision::Auto,
        }
    }
}

/// Pictures of one size, ready for a model: `count × height × width × 3` RGB bytes.
#[derive(Clone, Debug)]
pub struct PixelBatch {
    height: usize,
    width: usize,
    data: Vec<u8>,
}

impl PixelBatch {
    /// An empty batch for pictures of `height × width`.
    pub fn new(height: usize, width: usize) -> Self {
        Self { height, width, data: Vec::new() }
    }

    /// Appends one picture of `height × width × 3` bytes.
    ///
    /// # Panics
    /// If `pixels` has another length.
    pub fn push(&mut self, pixels: &[u8]) {
        assert_eq!(pixels.len(), self.height * self.width * 3, "a picture of {} × {}", self.height, self.width);
        self.data.extend_from_slice(pixels);
    }

    /// Number of pictures.
    pub fn len(&self) -> usize {
        self.data.len() / (self.height * self.width * 3).max(1)
    }

    /// Whether there is no picture.
    pub fn is_empty(&self) -> bool {
        self.data.is_empty()
    }

    /// Height and width.
    pub fn size(&self) -> (usize, usize) {
        (self.height, self.width)
    }

    /// All bytes, picture after picture, row by row.
    pub fn as_bytes(&self) -> &[u8] {
        &self.data
    }

    /// Forgets the pictures and keeps the memory.
    pub fn clear(&mut self) {
        self.data.clear();
    }
}

/// L2-normalised vectors, one row each.
#[derive(Clone, Debug, PartialEq)]
pub struct Embeddings {
    dim: usize,
    data: Vec<f32>,
}

impl Embeddings {
    /// Rows of `dim` numbers.
    ///
    /// # Panics
    /// If `data` does not divide into such rows.
    pub fn new(dim: usize, data: Vec<f32>) -> Self {
        assert!(dim > 0 && data.len().is_multiple_of(dim), "rows of {dim}");
        Self { dim, data }
    }

    /// Numbers per row.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// The rows.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = &[f32]> {
        self.data.chunks_exact(self.dim)
    }

    /// All numbers, row after row.
    pub fn as_slice(&self) -> &[f32] {
        &self.data
    }
}

/// Something that turns pictures and texts into vectors of one space.
///
/// Object-safe: the engine holds an `Arc<dyn Encode>`, so other encoders plug in without touching ingest or search.
pub trait Encode: Send + Sync {
    /// The space of the vectors.
    fn space(&self) -> &EmbeddingSpace;

    /// What pictures must look like.
    fn preprocess(&self) -> &Preprocess;

    /// One normalised row per picture.
    fn encode_images(&self, batch: &PixelBatch) -> Result<Embeddings>;

    /// One normalised row per text.
    fn encode_texts(&self, texts: &[&str]) -> Result<Embeddings>;

    /// Which features there are before the last map. Where a tower's own are out of reach they are its embeddings, and the last
    /// map leaves them as they are.
    fn features(&self) -> Features {
        Features { fingerprint: self.space().fingerprint.clone(), width: self.space().dim }
    }

    /// One row of features per picture, of any length.
    fn encode_features(&self, batch: &PixelBatch) -> Result<Embeddings> {
        self.encode_images(batch)
    }

    /// The last map: it makes embeddings of features.
    fn head(&self) -> Result<Arc<Head>> {
        Ok(Arc::new(Head::identity(self.space().dim)))
    }
}

/// Arithmetic of the towers.
///
/// Vectors that a library holds may come from [`F32`](Precision::F32) and [`Bf16`](Precision::Bf16) in turns, on any device:
/// they agree to a cosine of 0.9999. [`Int8`](Precision::Int8) agrees with them to 0.999 and is a space of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Precision {
    /// [`Int8`](Precision::Int8) for the built-in model, whose recall was measured with it. For models that are loaded, the
    /// faster of [`F32`](Precision::F32) and [`Bf16`](Precision::Bf16) on this processor, and f32 on other devices: what they
    /// lose is lost in the noise of training in half precision, and a library can move between machines. Bytes are not chosen
    /// unasked, because what they cost depends on the weights.
    #[default]
    Auto,
    /// Single precision: the reference.
    F32,
    /// Weights and activations rounded to 8 significant bits, sums in single precision. Twice as fast as f32 where the
    /// processor has instructions for it (AVX512_BF16), slower elsewhere. On other devices linear maps and attention multiply
    /// in bf16, and convolutions, norms and everything else stay in f32.
    Bf16,
    /// Bytes and int8 weights with exact integer sums; for models that are loaded, outliers, norms, attention and the first
    /// and last layer stay in higher precision.
    Int8,
}

/// Where the towers are evaluated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Device {
    /// The processor.
    #[default]
    Cpu,
    /// The CUDA device of this number (feature `cuda`).
    Cuda(usize),
    /// The Metal device of this number (feature `metal`).
    Metal(usize),
}

/// How to load a model.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct EncoderOptions {
    /// Arithmetic of the towers.
    pub precision: Precision,
    /// Where they are evaluated.
    pub device: Device,
    /// A directory for weights that are packed for this processor, so that later starts map them instead of packing again.
    /// It takes as much space as the weights in their precision (twice that for int8) and may be deleted at any time. `None`
    /// packs at every start.
    pub cache: Option<PathBuf>,
    /// Instructions to use; `None` takes the best of this machine. For tests and measurements.
    pub isa: Option<Isa>,
    /// Load a checkpoint although something in it is not understood: keys of the configuration and tensors that nobody asks
    /// for are passed over, and pictures are made in the size that the tower takes, whatever the processor says. The vectors
    /// may then be worse than they should be, and nothing will say so. What is known to change vectors and is not supported,
    /// and tensors that are missing, are errors still.
    pub lenient: bool,
    /// Evaluate on candle's tensors even where there are kernels of our own: the reference of the tests.
    pub reference: bool,
}

impl EncoderOptions {
    /// The same options on another device.
    pub fn device(mut self, device: Device) -> Self {
        self.device = device;
        self
    }

    /// The same options in another arithmetic.
    pub fn precision(mut self, precision: Precision) -> Self {
        self.precision = precision;
        self
    }

    /// The same options with packed weights kept in `dir`.
    pub fn cache(mut self, dir: impl Into<PathBuf>) -> Self {
        self.cache = Some(dir.into());
        self
    }

    /// The same options with other instructions.
    pub fn isa(mut self, isa: Isa) -> Self {
        self.isa = Some(isa);
        self
    }

    /// The same options for a checkpoint that is not understood in every part; see [`EncoderOptions::lenient`].
    pub fn lenient(mut self) -> Self {
        self.lenient = true;
        self
    }

    /// The same options on candle's tensors.
    pub fn reference(mut self) -> Self {
        self.reference = true;
        self
    }
}

/// A loaded model. Cloning shares it.
#[derive(Clone)]
pub struct Encoder(Arc<dyn Encode>);

impl Encoder {
    /// Loads a model directory with the default options: open_clip (`open_clip_config.json`) or Hugging Face
    /// (`config.json`). See [`Encoder::load_with`].
    pub fn load(dir: impl AsRef<Path>) -> Result<Encoder> {
        Self::load_with(dir, &EncoderOptions::default())
    }

    /// Loads a model directory.
    ///
    /// Reads configurations and tensor headers, and checks that every tensor is there in its shape and that none is left
    /// over; the weights themselves are mapped, and a tower is built when it is first used. A model that serves only text
    /// queries never touches its image tower.
    ///
    /// # Errors
    /// [`Error::BadModel`](crate::Error::BadModel) names a missing file, key or tensor;
    /// [`Error::UnsupportedModel`](crate::Error::UnsupportedModel) a key that would change the vectors and is not supported,
    /// or a precision that there is no arithmetic for: there is no int8 on other devices than the processor, and f32 alone on the
    /// processor for towers of unusual widths.
    pub fn load_with(dir: impl AsRef<Path>, options: &EncoderOptions) -> Result<Encoder> {
        Ok(Self::new(DualEncoder::load(dir.as_ref(), options)?))
    }

    /// The model that is compiled in, with the default options. See [`Encoder::builtin_with`].
    pub fn builtin() -> Result<Encoder> {
        Self::builtin_with(&EncoderOptions::default())
    }

    /// The model that is compiled in. It runs on the processor, whatever device the options name.
    ///
    /// Costs well below a millisecond; each tower is unpacked when it is first used (2 ms for texts, 5 ms for pictures).
    pub fn builtin_with(options: &EncoderOptions) -> Result<Encoder> {
        Ok(Self::new(Builtin::new(options.precision)?))
    }

    /// A space without its model: for libraries of embeddings whose model is not here. It embeds nothing and says
    /// [`Error::NoModel`](crate::Error::NoModel).
    pub fn declared(space: EmbeddingSpace) -> Encoder {
        Self::new(Declared::new(space))
    }

    /// Any other implementation of [`Encode`].
    pub fn new(encode: impl Encode + 'static) -> Encoder {
        Encoder(Arc::new(encode))
    }
}

impl Encode for Encoder {
    fn space(&self) -> &EmbeddingSpace {
        self.0.space()
    }
    fn preprocess(&self) -> &Preprocess {
        self.0.preprocess()
    }
    fn encode_images(&self, batch: &PixelBatch) -> Result<Embeddings> {
        self.0.encode_images(batch)
    }
    fn encode_texts(&self, texts: &[&str]) -> Result<Embeddings> {
        self.0.encode_texts(texts)
    }
    fn features(&self) -> Features {
        self.0.features()
    }
    fn encode_features(&self, batch: &PixelBatch) -> Result<Embeddings> {
        self.0.encode_features(batch)
    }
    fn head(&self) -> Result<Arc<Head>> {
        self.0.head()
    }
}

impl From<Encoder> for Arc<dyn Encode> {
    fn from(encoder: Encoder) -> Self {
        encoder.0
    }
}

impl From<Arc<dyn Encode>> for Encoder {
    fn from(encode: Arc<dyn Encode>) -> Self {
        Encoder(encode)
    }
}
