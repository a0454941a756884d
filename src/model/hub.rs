//! Models by name: found on this machine, or brought here from a model hub.
//!
//! The cache has the layout of the Hugging Face tools, so that a model that Python has downloaded is used at once and the
//! other way round. The downloader is ours rather than a crate for the hub, because it has to check what arrives against
//! the checksum that the hub publishes, stop at a word even while a server is silent, and take its settings as a struct.
//!
//! ```no_run
//! use tintype::Encoder;
//! use tintype::model::{EncoderOptions, hub::HubOptions};
//!
//! let options = HubOptions::from_vars(std::env::vars_os())?;      // HF_HOME, HF_TOKEN, … as the Python tools read them
//! let encoder = Encoder::named_with("vit-b-32-laion2b", &options, &EncoderOptions::default(), |_| {})?;
//! # Ok::<(), tintype::Error>(())
//! ```

mod cache;
mod checksum;
mod download;
mod fetch;
mod options;
mod transport;

pub use fetch::{Fetch, Progress, Stage, locate, locate_any};
pub use options::HubOptions;

use std::sync::Arc;

use super::encoder::{EmbeddingSpace, Embeddings, Encode, Encoder, EncoderOptions, PixelBatch};
use super::registry;
use super::{Features, Head};
use crate::Result;
use crate::image::Preprocess;

impl Encoder {
    /// Loads the known model called `name` (see [`registry`]), downloading it first if it is not on this machine: hundreds
    /// of megabytes, into the standard cache in the home directory. [`Encoder::named_with`] has the choices.
    ///
    /// # Errors
    /// [`Error::UnknownModel`](crate::Error::UnknownModel), and those of [`Fetch::run`] and [`Encoder::load`].
    pub fn named(name: &str) -> Result<Encoder> {
        Self::named_with(name, &HubOptions::in_home()?, &EncoderOptions::default(), |_| {})
    }

    /// [`Encoder::named`] with a cache, a hub and an encoder of the caller's choice; `progress` is called while a download
    /// goes on.
    ///
    /// # Errors
    /// As [`Encoder::named`].
    pub fn named_with(
        name: &str,
        hub: &HubOptions,
        options: &EncoderOptions,
        progress: impl FnMut(&Progress),
    ) -> Result<Encoder> {
        let model = registry::find(name)?;
        let encoder = Encoder::load_with(Fetch::new(model, hub).on_progress(progress).run()?, options)?;
        Ok(encoder.under_name(model.alias))
    }

    /// The same encoder under another name: [`EmbeddingSpace::model`] of a directory is the directory's name, which in the
    /// cache of a hub is that of a commit.
    pub fn under_name(self, name: &str) -> Encoder {
        let space = EmbeddingSpace { model: name.to_owned(), ..self.space().clone() };
        Encoder::new(Known { encoder: self, space })
    }
}

/// An encoder under another name.
struct Known {
    encoder: Encoder,
    space: EmbeddingSpace,
}

impl Encode for Known {
    fn space(&self) -> &EmbeddingSpace {
        &self.space
    }

    fn preprocess(&self) -> &Preprocess {
        self.encoder.preprocess()
    }

    fn encode_images(&self, batch: &PixelBatch) -> Result<Embeddings> {
        self.encoder.encode_images(batch)
    }

    fn encode_texts(&self, texts: &[&str]) -> Result<Embeddings> {
        self.encoder.encode_texts(texts)
    }

    fn features(&self) -> Features {
        self.encoder.features()
    }

    fn encode_features(&self, batch: &PixelBatch) -> Result<Embeddings> {
        self.encoder.encode_features(batch)
    }

    fn head(&self) -> Result<Arc<Head>> {
        self.encoder.head()
    }
}
