//! Towers whose embeddings are distributions: naver's ProLIP, `config.json` with the arguments of its class and no kind of model.
//!
//! The towers are open_clip's with one token more each. Two things are as the original computes them, though one would write
//! them otherwise: the image tower's last norm is applied to all tokens and once again to the one that is pooled, and a text's
//! variance is made from its mean, not from the token that was put in for it.

use std::path::Path;

use super::json::{Object, bad};
use super::names::{self, Names};
use super::open_clip::{self, hidden, norm_eps};
use super::processor::{self, read_preprocess};
use super::{Checks, Import, check_transformer, hugging_face};
use crate::Result;
use crate::model::config::{
    ImageConfig, ImagePool, ModelConfig, Place, Projection, ReaderConfig, TextConfig, TextKind, TextPool,
    TransformerConfig, VitConfig,
};
use crate::model::spread;
use crate::model::tokenizer::{Clean, Marks, TokenizerConfig, TokenizerKind};
use crate::model::weights::{Checkpoint, Weights};

/// The file with its vocabulary, which such directories come without.
const TOKENIZER: &str = "tokenizer.json";

/// Reads the directory of the configuration `root`.
pub(super) fn import(dir: &Path, root: &Object, checks: Checks) -> Result<Import> {
    let dim = root.count("embed_dim")?.ok_or_else(|| bad(&root.file(), "the key embed_dim is missing"))?;
    let quick_gelu = root.flag("quick_gelu")?.unwrap_or(false);
    root.harmless(&["init_logit_scale", "init_logit_bias", "cast_dtype", "output_dict"]);
    let vision_cfg = root.required("vision_cfg")?;
    let image = read_vision(&vision_cfg, quick_gelu, dim)?;
    vision_cfg.finish()?;
    let text_cfg = root.required("text_cfg")?;
    let text = read_text(&text_cfg, quick_gelu)?;
    let clean = match text_cfg.object("tokenizer_kwargs")? {
        Some(kwargs) if !matches!(kwargs.text("clean")?, None | Some("canonicalize")) => {
            return Err(kwargs.unsupported("clean"));
        }
        Some(kwargs) => kwargs.finish().map(|()| Clean::Canonical)?,
        None => Clean::Canonical,
    };
    text_cfg.finish()?;
    root.require_no_more()?;
    if !dir.join(TOKENIZER).is_file() {
        let reason = format!(
            "no {TOKENIZER}; texts are cut as those of SigLIP are: put the {TOKENIZER} of timm/ViT-B-16-SigLIP beside it"
        );
        return Err(bad(dir, reason));
    }
    let own = ["preprocessor_config.json", "processor_config.json"].iter().any(|name| dir.join(name).is_file());
    let preprocess = match own {
        true => read_preprocess(dir, image.size(), &processor::CLIP, checks)?,
        // The original takes CLIP's.
        false => processor::clip_at(image.size()),
    };
    let (context, vocabulary) = text.sizes();
    let kind = TokenizerKind::File { clean, marks: Marks::Own, pad_to_context: true };
    let tokenizer = TokenizerConfig { dir: dir.to_path_buf(), context, vocabulary, kind };
    let config = ModelConfig { dim: dim + spread::EXTRA, image, text, preprocess };
    let checkpoint = Checkpoint::open(&hugging_face::weight_files(dir)?)?;
    let names = Names::new(&config, &checkpoint);
    let origins = config.tensors()?.into_iter().map(|spec| (names.origin(&spec.name, &checkpoint), spec)).collect();
    let weights =
        Weights::with_origins(checkpoint, origins, |name| checks == Checks::Lenient || names::is_not_a_weight(name))?;
    Ok(Import { config, weights, tokenizer })
}

fn read_vision(cfg: &Object, quick_gelu: bool, dim: usize) -> Result<ImageConfig> {
    cfg.refuse(&["timm_model_name", "final_ln_after_pool"])?;
    cfg.harmless(&["init_unc_bias"]);
    if cfg.flag("embed_unc")? != Some(true) {
        return Err(cfg.unsupported("embed_unc"));
    }
    match open_clip::read_vision(cfg, quick_gelu, dim)? {
        ImageConfig::Plain(plain) if plain.pool == ImagePool::Token => {
            let mut vit = VitConfig::plain(&plain);
            vit.spread = true;
            (vit.norm_tokens, vit.norm_pooled) = (true, true);
            Ok(ImageConfig::Vit(vit))
        }
        ImageConfig::Plain(_) => Err(cfg.unsupported("pool_type")),
        _ => Err(cfg.unsupported("attentional_pool")),
    }
}

fn read_text(cfg: &Object, quick_gelu: bool) -> Result<TextKind> {
    cfg.refuse(&["hf_model_name", "final_ln_after_pool", "ls_init_value"])?;
    // The appended token is what is pooled, and padding is read like anything else.
    cfg.harmless(&["pool_type", "pad_id", "output_tokens", "init_unc_bias", "hf_tokenizer_name"]);
    cfg.harmless(&["hf_model_pretrained", "hf_proj_type", "hf_pooler_type"]);
    for key in ["embed_cls", "embed_unc", "no_causal_mask", "proj_bias"] {
        if cfg.flag(key)? == Some(false) {
            return Err(cfg.unsupported(key));
        }
    }
    let width = cfg.count("width")?.unwrap_or(768);
    let transformer = TransformerConfig {
        width,
        layers: cfg.count("layers")?.unwrap_or(12),
        heads: cfg.count("heads")?.unwrap_or(12),
        hidden: hidden(cfg, width)?,
        activation: open_clip::activation(cfg, quick_gelu)?,
        norm_eps: norm_eps(cfg)?,
    };
    check_transformer(cfg, &transformer)?;
    let context = cfg.count("context_length")?.unwrap_or(64);
    let mut reader = ReaderConfig::plain(&TextConfig {
        transformer,
        context,
        vocabulary: cfg.count("vocab_size")?.unwrap_or(32_100),
        causal: false,
        pool: TextPool::Last,
        projection: Projection::Biased,
    });
    (reader.class, reader.spread) = (true, true);
    reader.place = Place::Learned { rows: context + 2, first: 0 };
    Ok(TextKind::Reader(reader))
}
