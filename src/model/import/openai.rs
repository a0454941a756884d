//! OpenAI's own files: one TorchScript archive and nothing beside it.
//!
//! Sizes follow from shapes, as OpenAI's code derives them; heads are 64 wide. Other projects publish state dicts of the same
//! names with another activation, and nothing in the file says so. What tells OpenAI's are three numbers that its archives hold
//! beside the weights; a file without them is refused rather than guessed at.

use std::path::{Path, PathBuf};

use super::json::bad;
use super::names::{self, Names};
use super::{CLIP_MEAN, CLIP_STD, Checks, Import};
use crate::Result;
use crate::image::{Interpolation, Preprocess, ResizeMode};
use crate::model::config::{
    Activation, ImageConfig, ImagePool, ModelConfig, Projection, TextConfig, TextKind, TextPool, TransformerConfig,
    Trunk, TrunkKind, VisionConfig,
};
use crate::model::tokenizer::{Clean, TokenizerConfig, TokenizerKind};
use crate::model::trunk::resnet::ResNetConfig;
use crate::model::weights::{Checkpoint, Weights};

/// Width of an attention head.
const HEAD: usize = 64;
/// Ids of the vocabulary.
const VOCABULARY: usize = 49_408;

/// The archive, if `dir` is one or holds one and nothing else of a model.
pub(super) fn archive(dir: &Path) -> Option<PathBuf> {
    let is_archive = |path: &Path| path.extension().is_some_and(|e| e == "pt" || e == "jit");
    if dir.is_file() {
        return is_archive(dir).then(|| dir.to_path_buf());
    }
    let entries = std::fs::read_dir(dir).ok()?;
    let mut found: Vec<PathBuf> =
        entries.filter_map(|e| Some(e.ok()?.path())).filter(|path| is_archive(path)).collect();
    if found.len() == 1 { found.pop() } else { None }
}

/// Reads the archive.
pub(super) fn import(path: &Path, checks: Checks) -> Result<Import> {
    let checkpoint = Checkpoint::open(&[path.to_path_buf()])?;
    if !["input_resolution", "context_length", "vocab_size"].iter().all(|name| checkpoint.contains(name)) {
        let reason = "weights without a configuration, and not one of OpenAI's archives; put an open_clip_config.json beside \
                      it that says what the model is, quick_gelu included";
        return Err(bad(path, reason));
    }
    let size = |name: &str, dimension: usize| {
        let found = checkpoint.shape(name).and_then(|shape| shape.get(dimension).copied()).filter(|&n| n > 0);
        found.ok_or_else(|| checkpoint.bad(format!("the tensor {name} is missing")))
    };
    let count =
        |list: &str, part: &str| (0..1024).take_while(|i| checkpoint.contains(&format!("{list}.{i}.{part}"))).count();
    let blocks = |width: usize, layers: usize, hidden: usize| {
        if !width.is_multiple_of(HEAD) || width == 0 {
            return Err(checkpoint.bad(format!("{width} does not divide into attention heads of {HEAD}")));
        }
        let activation = Activation::QuickGelu;
        Ok(TransformerConfig { width, layers, heads: width / HEAD, hidden, activation, norm_eps: 1e-5 })
    };
    let dim = size("text_projection", 1)?;
    let image = if checkpoint.contains("visual.proj") {
        let (patch, places) = (size("visual.conv1.weight", 2)?, size("visual.positional_embedding", 0)?);
        let edge = patch * places.saturating_sub(1).isqrt();
        let layers = count("visual.transformer.resblocks", "ln_1.weight");
        let hidden = size("visual.transformer.resblocks.0.mlp.c_fc.weight", 0)?;
        ImageConfig::Plain(VisionConfig {
            transformer: blocks(size("visual.conv1.weight", 0)?, layers, hidden)?,
            image: (edge, edge),
            patch: (patch, patch),
            norm_pre: true,
            pool: ImagePool::Token,
            norm_after_pool: false,
        })
    } else {
        let layers = [1, 2, 3, 4].map(|stage| count(&format!("visual.layer{stage}"), "conv1.weight"));
        let width = size("visual.layer1.0.conv1.weight", 0)?;
        let edge = 32 * size("visual.attnpool.positional_embedding", 0)?.saturating_sub(1).isqrt();
        let kind = TrunkKind::ResNet(ResNetConfig { layers, width, heads: (width * 32 / HEAD).max(1), dim });
        ImageConfig::Trunk(Trunk { kind, image: (edge, edge), projection: Projection::None })
    };
    let (context, vocabulary) = (size("positional_embedding", 0)?, size("token_embedding.weight", 0)?);
    if vocabulary != VOCABULARY {
        return Err(checkpoint.bad(format!("a vocabulary of {vocabulary} ids, but CLIP's has {VOCABULARY}")));
    }
    let layers = count("transformer.resblocks", "ln_1.weight");
    let hidden = size("transformer.resblocks.0.mlp.c_fc.weight", 0)?;
    let text = TextKind::Plain(TextConfig {
        transformer: blocks(size("ln_final.weight", 0)?, layers, hidden)?,
        context,
        vocabulary,
        causal: true,
        pool: TextPool::Largest,
        projection: Projection::Matrix,
    });
    let preprocess = Preprocess {
        size: image.size(),
        mean: CLIP_MEAN,
        std: CLIP_STD,
        interpolation: Interpolation::Bicubic,
        resize_mode: ResizeMode::Shortest,
        fill: 0,
        rgb_first: false,
    };
    let kind = TokenizerKind::Clip { clean: Clean::Lower };
    let tokenizer = TokenizerConfig { dir: path.to_path_buf(), context, vocabulary, kind };
    let config = ModelConfig { dim, image, text, preprocess };
    let names = Names::new(&config, &checkpoint);
    let origins = config.tensors()?.into_iter().map(|spec| (names.origin(&spec.name, &checkpoint), spec)).collect();
    let weights =
        Weights::with_origins(checkpoint, origins, |name| checks == Checks::Lenient || names::is_not_a_weight(name))?;
    Ok(Import { config, weights, tokenizer })
}
