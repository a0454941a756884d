//! Checkpoints of other projects into the normal form. Family names occur here and nowhere else.
//!
//! An importer turns a directory into a [`ModelConfig`] and a table from our tensor names to the checkpoint's. It decides
//! nothing about arithmetic: what it cannot express in the normal form, it refuses by key. The alternative, one tower per
//! family, computes some checkpoints with the wrong activation or pooling and says nothing.

mod aimv2;
mod align;
mod dialects;
mod harmless;
mod hugging_face;
mod hugging_face_names;
mod json;
mod names;
mod open_clip;
mod openai;
mod probabilistic;
mod processor;
mod resnet;
mod text_models;
mod timm;

use std::path::Path;

#[cfg(feature = "hub")]
pub(crate) use self::hugging_face::shards;
use self::json::{Object, bad};
#[cfg(feature = "hub")]
pub(crate) use self::open_clip::WEIGHTS as OPEN_CLIP_WEIGHTS;
use super::config::{ModelConfig, TransformerConfig};
use super::tokenizer::TokenizerConfig;
use super::weights::Weights;
use crate::image::Preprocess;
use crate::{Error, Result};

/// Channel means of the first CLIP models, the default of both dialects.
const CLIP_MEAN: [f32; 3] = [0.481_454_66, 0.457_827_5, 0.408_210_73];
/// Channel deviations of the first CLIP models.
const CLIP_STD: [f32; 3] = [0.268_629_54, 0.261_302_6, 0.275_777_1];

/// A model directory in the normal form.
pub(crate) struct Import {
    /// Shape of the towers.
    pub(crate) config: ModelConfig,
    /// Their weights, checked against it.
    pub(crate) weights: Weights,
    /// How texts become ids.
    pub(crate) tokenizer: TokenizerConfig,
}

/// How much of a checkpoint must be understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Checks {
    /// All of it.
    Strict,
    /// Enough to build the towers: keys and tensors that nobody asks for are passed over, and pictures are made in the size
    /// that the tower takes. What is known to change vectors, and a tensor that is missing, are errors still.
    Lenient,
}

/// Reads a model directory, or a weight file that lies beside its configuration or is one of OpenAI's. open_clip's configuration
/// wins where both are present, as the more explicit of the two.
pub(crate) fn import(dir: &Path, checks: Checks) -> Result<Import> {
    if dir.is_file() {
        let beside = dir.parent().map(|parent| parent.join(open_clip::CONFIG));
        if let Some(config) = beside.filter(|config| config.is_file()) {
            return open_clip::import(&config, Some(dir), checks).and_then(|import| check_levels(dir, import));
        }
        if let Some(archive) = openai::archive(dir) {
            return openai::import(&archive, checks);
        }
    }
    if !dir.is_dir() {
        let found = std::fs::metadata(dir).map_err(Error::io(dir))?;
        let kind = if found.is_file() { "a file" } else { "no directory" };
        return Err(bad(dir, format!("{kind}, expected a model directory")));
    }
    let import = if dir.join(open_clip::CONFIG).is_file() {
        open_clip::import(&dir.join(open_clip::CONFIG), None, checks)?
    } else if dir.join(hugging_face::CONFIG).is_file() {
        hugging_face::import(dir, checks)?
    } else if let Some(archive) = openai::archive(dir) {
        openai::import(&archive, checks)?
    } else {
        let reason = format!("no model directory: neither {} nor {} is there", open_clip::CONFIG, hugging_face::CONFIG);
        return Err(bad(dir, reason));
    };
    check_levels(dir, import)
}

/// Refuses levels that no picture can be brought to.
fn check_levels(dir: &Path, import: Import) -> Result<Import> {
    let Preprocess { mean, std, .. } = import.config.preprocess;
    if mean.iter().any(|m| !m.is_finite()) || std.iter().any(|s| !s.is_normal()) {
        return Err(bad(
            dir,
            format!("pictures cannot be normalised with the mean {mean:?} and the deviation {std:?}"),
        ));
    }
    Ok(import)
}

/// Refuses shapes that no attention can have.
fn check_transformer(cfg: &Object, config: &TransformerConfig) -> Result<()> {
    const MAX_LAYERS: usize = 1024;
    const MAX_HIDDEN: usize = 1 << 24;
    let TransformerConfig { width, layers, heads, hidden, norm_eps, .. } = *config;
    if heads == 0 || !width.is_multiple_of(heads) {
        let reason = format!("{} = {width} does not divide into {heads} attention heads", cfg.dotted("width"));
        return Err(bad(&cfg.file(), reason));
    }
    if layers > MAX_LAYERS || !(1..=MAX_HIDDEN).contains(&hidden) || !(norm_eps.is_finite() && norm_eps > 0.0) {
        let reason =
            format!("no transformer has {layers} layers, {hidden} hidden numbers and an epsilon of {norm_eps}");
        return Err(bad(&cfg.file(), reason));
    }
    Ok(())
}
