//! The last map of an image tower by itself, and encoders whose last map was learnt anew.
//!
//! An adapted encoder is another encoder with its head exchanged: the same pictures, the same texts, another space. The head is a
//! file of its own (safetensors), a thousandth of the model, which names what it was made for and is refused by anything else.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::{Device, Tensor};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};

use super::linear::tensor_error;
use super::{EmbeddingSpace, Embeddings, Encode, Encoder, PixelBatch, Precision};
use crate::image::Preprocess;
use crate::{Error, Result};

/// What head files say of themselves.
const FORMAT: &str = "tintype-head-1";

/// Rows that are multiplied at a time.
const BATCH: usize = 1024;

/// A map from features to embeddings: `(outputs, inputs)` and a bias.
#[derive(Clone, Debug, PartialEq)]
pub struct Head {
    inputs: usize,
    weights: Vec<f32>,
    bias: Vec<f32>,
}

/// Which features a tower has before its last map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Features {
    /// Equal fingerprints mean equal features. It is that of the embedding space where the features are the embeddings.
    pub fingerprint: String,
    /// Numbers per picture.
    pub width: usize,
}

impl Head {
    /// A map from its rows, one for each number of an embedding.
    ///
    /// # Panics
    /// If there are not `inputs` weights for each bias.
    pub fn new(inputs: usize, weights: Vec<f32>, bias: Vec<f32>) -> Head {
        assert!(inputs > 0 && weights.len() == inputs * bias.len(), "{inputs} weights for each output");
        Head { inputs, weights, bias }
    }

    /// Leaves what it gets.
    pub fn identity(dim: usize) -> Head {
        let weights = (0..dim * dim).map(|i| if i % (dim + 1) == 0 { 1.0 } else { 0.0 }).collect();
        Head::new(dim, weights, vec![0.0; dim])
    }

    /// Numbers per picture that go in.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Numbers per embedding.
    pub fn outputs(&self) -> usize {
        self.bias.len()
    }

    /// Row by row, one for each output.
    pub fn weights(&self) -> &[f32] {
        &self.weights
    }

    /// One number for each output.
    pub fn bias(&self) -> &[f32] {
        &self.bias
    }

    /// Rows of features to embeddings of length 1.
    ///
    /// # Errors
    /// [`Error::Tensor`] if `features` does not divide into rows of [`Head::inputs`].
    pub fn project(&self, features: &[f32]) -> Result<Embeddings> {
        let (inputs, outputs) = (self.inputs, self.outputs());
        if !features.len().is_multiple_of(inputs) {
            return Err(Error::Tensor(format!("{} numbers are no rows of {inputs}", features.len()).into()));
        }
        let mut rows = Vec::with_capacity(features.len() / inputs * outputs);
        let weights = Tensor::from_slice(&self.weights, (outputs, inputs), &Device::Cpu);
        let weights = weights.and_then(|w| w.t()?.contiguous()).map_err(tensor_error)?; // (inputs, outputs)
        for part in features.chunks(BATCH * inputs) {
            let x = Tensor::from_slice(part, (part.len() / inputs, inputs), &Device::Cpu); // (rows, inputs)
            let x = x.and_then(|x| x.matmul(&weights)?.flatten_all()?.to_vec1::<f32>()); // (rows · outputs)
            rows.extend(x.map_err(tensor_error)?);
        }
        for row in rows.chunks_exact_mut(outputs) {
            row.iter_mut().zip(&self.bias).for_each(|(x, bias)| *x += bias);
            let length = row.iter().map(|x| x * x).sum::<f32>().sqrt().max(1e-12);
            row.iter_mut().for_each(|x| *x /= length);
        }
        Ok(Embeddings::new(outputs, rows))
    }
}

/// A head that was learnt anew, and what it belongs to.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Adaptation {
    /// Name for people.
    pub name: String,
    /// How the model is loaded whose head it replaces: an alias, `builtin`, or a directory.
    pub model: String,
    /// Fingerprint of the features that it maps.
    pub features: String,
    /// The map.
    pub head: Head,
}

impl Adaptation {
    /// A head for the features of `encoder`.
    pub fn new(name: impl Into<String>, model: impl Into<String>, encoder: &Encoder, head: Head) -> Adaptation {
        Adaptation { name: name.into(), model: model.into(), features: encoder.features().fingerprint, head }
    }

    /// Writes a new file.
    ///
    /// # Errors
    /// [`Error::Io`], also if the file is there: a library may be using it.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        if path.exists() {
            return Err(Error::Io { path: path.to_path_buf(), source: std::io::ErrorKind::AlreadyExists.into() });
        }
        let (weights, bias) = (bytes(&self.head.weights), bytes(&self.head.bias));
        let (outputs, inputs) = (self.head.outputs(), self.head.inputs);
        let broken =
            |error: safetensors::SafeTensorError| Error::BadModel { path: path.into(), reason: error.to_string() };
        let weight = TensorView::new(Dtype::F32, vec![outputs, inputs], &weights).map_err(broken)?;
        let bias = TensorView::new(Dtype::F32, vec![outputs], &bias).map_err(broken)?;
        let notes = [("format", FORMAT), ("name", &self.name), ("model", &self.model), ("features", &self.features)];
        let notes: HashMap<String, String> = notes.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        let file = safetensors::serialize([("weight", weight), ("bias", bias)], Some(notes)).map_err(broken)?;
        // Whole or not at all.
        let part = path.with_extension("part");
        std::fs::write(&part, file).map_err(Error::io(&part))?;
        std::fs::rename(&part, path).map_err(Error::io(path))
    }

    /// Reads a head file.
    ///
    /// # Errors
    /// [`Error::Io`], and [`Error::BadModel`] for anything that [`Adaptation::save`] did not write.
    pub fn load(path: impl AsRef<Path>) -> Result<Adaptation> {
        let path = path.as_ref();
        let file = std::fs::read(path).map_err(Error::io(path))?;
        let bad = |reason: &str| Error::BadModel { path: path.to_path_buf(), reason: reason.to_owned() };
        let (_, header) = SafeTensors::read_metadata(&file).map_err(|error| bad(&error.to_string()))?;
        let notes = header.metadata().clone().unwrap_or_default();
        let note = |key: &str| notes.get(key).cloned().unwrap_or_default();
        if note("format") != FORMAT {
            return Err(bad("no head that `tintype adapt` has written; a model is named by its directory"));
        }
        let tensors = SafeTensors::deserialize(&file).map_err(|error| bad(&error.to_string()))?;
        let floats = |name: &str| match tensors.tensor(name) {
            Ok(tensor) if tensor.dtype() == Dtype::F32 => {
                let numbers = tensor.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
                Ok((tensor.shape().to_vec(), numbers.collect::<Vec<f32>>()))
            }
            _ => Err(bad(&format!("there is no tensor called {name} in single precision"))),
        };
        let ((shape, weights), (_, bias)) = (floats("weight")?, floats("bias")?);
        let &[outputs, inputs] = shape.as_slice() else { return Err(bad("its weight is no matrix")) };
        if inputs == 0 || outputs != bias.len() || !weights.iter().chain(&bias).all(|x| x.is_finite()) {
            return Err(bad("its weight and its bias do not fit together"));
        }
        let head = Head::new(inputs, weights, bias);
        Ok(Adaptation { name: note("name"), model: note("model"), features: note("features"), head })
    }

    /// The precision that its model must be loaded in.
    pub fn precision(&self) -> Precision {
        let fingerprint = self.features.strip_suffix("/features").unwrap_or(&self.features).to_owned();
        EmbeddingSpace { model: String::new(), fingerprint, dim: self.head.outputs() }.precision()
    }

    /// Identifies the map and what it maps.
    fn fingerprint(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        hasher.update(self.features.as_bytes());
        hasher.update(&bytes(&self.head.weights));
        hasher.update(&bytes(&self.head.bias));
        hasher.finalize().to_hex()[..16].to_owned()
    }
}

impl Encoder {
    /// The same with its embeddings for features: a map that is learnt for it begins as the identity, the paper's regularised linear
    /// adapter, and a library moves to it without photos though it keeps no features.
    pub fn without_features(self) -> Encoder {
        Encoder::new(Whole(self))
    }

    /// `base` with another last map, of its features or of its embeddings, as it was learnt.
    ///
    /// # Errors
    /// [`Error::BadModel`] if the map was made for the features of another model, or in another precision.
    pub fn adapted(base: Encoder, adaptation: &Adaptation) -> Result<Encoder> {
        let base = if adaptation.features == base.space().fingerprint { base.without_features() } else { base };
        let (features, space) = (base.features(), base.space());
        if features.fingerprint != adaptation.features || features.width != adaptation.head.inputs {
            return Err(Error::BadModel {
                path: PathBuf::from(&adaptation.name),
                reason: format!(
                    "made for features of {} ({}), and these are of {} ({}); the precision must be the same, too",
                    adaptation.model, adaptation.features, space.model, features.fingerprint
                ),
            });
        }
        // The precision stands behind the last stroke.
        let mut fingerprint = space.fingerprint.clone();
        let at = fingerprint.rfind('/').unwrap_or(fingerprint.len());
        fingerprint.insert_str(at, &format!("+{}", adaptation.fingerprint()));
        let head = Arc::new(adaptation.head.clone());
        let space = EmbeddingSpace { model: adaptation.name.clone(), fingerprint, dim: head.outputs() };
        Ok(Encoder::new(Adapted { base, space, head }))
    }
}

/// An encoder whose features are its embeddings.
struct Whole(Encoder);

impl Encode for Whole {
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
}

/// An encoder with another head.
struct Adapted {
    base: Encoder,
    space: EmbeddingSpace,
    head: Arc<Head>,
}

impl Encode for Adapted {
    fn space(&self) -> &EmbeddingSpace {
        &self.space
    }

    fn preprocess(&self) -> &Preprocess {
        self.base.preprocess()
    }

    fn encode_images(&self, batch: &PixelBatch) -> Result<Embeddings> {
        self.head.project(self.base.encode_features(batch)?.as_slice())
    }

    fn encode_texts(&self, texts: &[&str]) -> Result<Embeddings> {
        self.base.encode_texts(texts)
    }

    fn features(&self) -> Features {
        self.base.features()
    }

    fn encode_features(&self, batch: &PixelBatch) -> Result<Embeddings> {
        self.base.encode_features(batch)
    }

    fn head(&self) -> Result<Arc<Head>> {
        Ok(Arc::clone(&self.head))
    }
}

fn bytes(numbers: &[f32]) -> Vec<u8> {
    numbers.iter().flat_map(|x| x.to_le_bytes()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_comes_back_from_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let base = Encoder::builtin().unwrap();
        let head = (*base.head().unwrap()).clone();
        let adaptation = Adaptation::new("dogs", "builtin", &base, head);
        let path = dir.path().join("dogs.safetensors");
        adaptation.save(&path).unwrap();
        assert_eq!(Adaptation::load(&path).unwrap(), adaptation);
        assert!(matches!(adaptation.save(&path), Err(Error::Io { .. })), "a library may be using it");
        let adapted = Encoder::adapted(base.clone(), &adaptation).unwrap();
        let (old, new) = (base.space(), adapted.space());
        assert!(new.fingerprint != old.fingerprint && new.precision() == old.precision() && !new.fits(old));
        // Another head, another space.
        let mut other = adaptation.clone();
        other.head.weights[0] += 1e-3;
        assert_ne!(Encoder::adapted(base, &other).unwrap().space(), new);
        let options = crate::model::EncoderOptions::default().precision(crate::model::Precision::F32);
        let error = Encoder::adapted(Encoder::builtin_with(&options).unwrap(), &adaptation).err().unwrap();
        assert!(error.to_string().contains("precision"), "{error}");
        std::fs::write(&path, b"nothing of the kind").unwrap();
        assert!(matches!(Adaptation::load(&path), Err(Error::BadModel { .. })));
    }

    #[test]
    fn the_head_of_the_built_in_model_gives_its_embeddings() {
        let mut batch = PixelBatch::new(224, 224);
        for n in 0..3u32 {
            batch.push(&(0..224 * 224 * 3u32).map(|i| ((i * (7 + n) + i / 672 * 13) % 251) as u8).collect::<Vec<_>>());
        }
        for (precision, least) in [(crate::model::Precision::F32, 0.99999), (crate::model::Precision::Int8, 0.999)] {
            let options = crate::model::EncoderOptions::default().precision(precision);
            let base = Encoder::builtin_with(&options).unwrap();
            let features = base.encode_features(&batch).unwrap();
            assert_eq!(features.dim(), base.features().width);
            let ours = base.head().unwrap().project(features.as_slice()).unwrap();
            for (a, b) in ours.rows().zip(base.encode_images(&batch).unwrap().rows()) {
                let cosine: f32 = a.iter().zip(b).map(|(a, b)| a * b).sum();
                assert!(cosine > least, "{precision:?}: {cosine}");
            }
        }
    }
}
