//! How good a model is, measured as others measure it.
//!
//! Tasks, measures and result files are those of [CLIP_benchmark](https://github.com/LAION-AI/CLIP_benchmark), by which models are
//! published, and the figures can be laid beside each other; a protocol of our own would say nothing about anybody else's. Pictures
//! are seen as the models' training code saw them: decoded whole, not turned by their EXIF orientation, deep greys cut off.
//!
//! Nothing here touches a library: a [`Dataset`] is read where it lies, an [`Evaluator`] holds the vectors of what it has seen.

mod dataset;
mod embed;
pub(crate) mod learn;
pub mod metrics;
mod probe;
mod prompts;
#[cfg(feature = "hub")]
mod published;
mod run;
mod topk;

pub use dataset::{Dataset, DatasetOptions};
pub(crate) use dataset::{Truth, bad};
pub(crate) use embed::Embedder;
pub use embed::{BadSample, Work};
pub use probe::ProbeOptions;
#[cfg(feature = "hub")]
pub use published::{Published, published};
pub use run::{Evaluation, Evaluator, Task};
