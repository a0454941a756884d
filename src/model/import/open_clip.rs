//! open_clip directories: `open_clip_config.json` beside one weight file.
//!
//! Defaults and meanings are those of open_clip's `CLIPVisionCfg`, `CLIPTextCfg` and `PreprocessCfg`. Towers that open_clip
//! borrows are read by [`timm`] and [`text_models`]; its own are read here.

use std::path::{Path, PathBuf};

use super::json::{self, Object, bad};
use super::{CLIP_MEAN, CLIP_STD, Checks, Import, check_transformer};
use super::{dialects, names, resnet, text_models, timm};
use crate::image::{Interpolation, Preprocess, ResizeMode, patches};
use crate::model::config::{
    Activation, AttentionPool, ImageConfig, ImagePool, ModelConfig, Padding, Place, Pool, Projection, ReaderConfig,
    Stem, TextConfig, TextKind, TextPool, TransformerConfig, VisionConfig, VitConfig,
};
use crate::model::tokenizer::{Clean, Marks, TokenizerConfig, TokenizerKind};
use crate::model::weights::{Checkpoint, Weights};
use crate::{Error, Result};

/// The file that marks such a directory.
pub(super) const CONFIG: &str = "open_clip_config.json";

/// Weight files in the order in which open_clip looks for them, any one of them.
pub(crate) const WEIGHTS: &[&[&str]] = &[
    &["open_clip_model.safetensors"],
    &["open_clip_pytorch_model.safetensors"],
    &["open_clip_pytorch_model.bin"],
    &["open_clip_pytorch_model.pth"],
    &["model.safetensors"],
    &["pytorch_model.bin"],
    &["pytorch_model.pth"],
    &["model.pth"],
];

/// Endings of weight files under any other name.
const WEIGHT_KINDS: [&str; 5] = ["safetensors", "bin", "pth", "pt", "ckpt"];

/// Keys of attention variants that need other blocks.
const BLOCK_VARIANTS: [&str; 6] =
    ["qk_norm", "scaled_cosine_attn", "scale_heads", "scale_attn_inner", "scale_attn", "scale_fc"];

/// Ids of CLIP's own vocabulary, the one that open_clip carries inside.
const CLIP_VOCABULARY: usize = 49_408;

/// Reads the directory of the configuration `path`, with the weights of this file or of the best in the directory.
pub(super) fn import(path: &Path, weights: Option<&Path>, checks: Checks) -> Result<Import> {
    let dir = path.parent().unwrap_or(Path::new("."));
    let value = json::read(path)?;
    let root = Object::root(path, &value, checks)?;
    let model = root.required("model_cfg")?;
    let weights = weights.map_or_else(|| weight_file(dir), |file| Ok(file.to_path_buf()))?;
    let checkpoint = dialects::translate(Checkpoint::open(&[weights])?)?;
    let (config, tokenizer) = read_model(&model, dir, root.object("preprocess_cfg")?, &checkpoint)?;
    model.finish()?;

    let names = names::Names::new(&config, &checkpoint);
    let origins = config.tensors()?.into_iter().map(|spec| (names.origin(&spec.name, &checkpoint), spec)).collect();
    let weights =
        Weights::with_origins(checkpoint, origins, |name| checks == Checks::Lenient || names::is_not_a_weight(name))?;
    Ok(Import { config, weights, tokenizer })
}

/// The weight file: the best known name, else the first by name, safetensors first.
fn weight_file(dir: &Path) -> Result<PathBuf> {
    if let Some(name) = WEIGHTS.iter().copied().flatten().find(|name| dir.join(name).is_file()) {
        return Ok(dir.join(name));
    }
    let mut others: Vec<PathBuf> = std::fs::read_dir(dir)
        .map_err(Error::io(dir))?
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.extension().is_some_and(|e| WEIGHT_KINDS.iter().any(|kind| e == *kind)))
        .collect();
    others.sort_by_key(|path| (path.extension().is_none_or(|e| e != "safetensors"), path.clone()));
    others.into_iter().next().ok_or_else(|| {
        bad(dir, format!("no weight file; expected {} or another .safetensors, .bin or .pth file", WEIGHTS[0][0]))
    })
}

fn read_model(
    model: &Object,
    dir: &Path,
    preprocess: Option<Object>,
    checkpoint: &Checkpoint,
) -> Result<(ModelConfig, TokenizerConfig)> {
    let dim = model.count("embed_dim")?.ok_or_else(|| bad(&model.file(), "the key model_cfg.embed_dim is missing"))?;
    let quick_gelu = model.flag("quick_gelu")?.unwrap_or(false);
    // The last two: blocks of many widths, each as wide as its training left it.
    model.refuse(&["audio_cfg", "mask_image", "mask_text"])?;
    // They scale or shift the similarity, not the vectors; or say in which class of open_clip the towers sit. The multimodal
    // tower writes captions.
    model.harmless(&["custom_text", "init_logit_scale", "init_logit_bias", "nonscalar_logit_scale", "output_dict"]);
    model.harmless(&["multimodal_cfg"]);

    let vision_cfg = model.required("vision_cfg")?;
    let mut image = if vision_cfg.text("timm_model_name")?.is_some_and(|name| !name.is_empty()) {
        timm::read_vision(&vision_cfg, checkpoint, dim)?
    } else if vision_cfg.get("layers").is_some_and(serde_json::Value::is_array) {
        resnet::read_vision(&vision_cfg, dim)?
    } else {
        read_vision(&vision_cfg, quick_gelu, dim)?
    };
    vision_cfg.finish()?;
    let text_cfg = model.required("text_cfg")?;
    let (text, kind) = if text_cfg.text("hf_model_name")?.is_some_and(|name| !name.is_empty()) {
        let text = text_models::read_text(&text_cfg, checkpoint, dim)?;
        (text, tokenizer_kind(&text_cfg, CLIP_VOCABULARY)?)
    } else {
        let text = read_text(&text_cfg, quick_gelu)?;
        let kind = tokenizer_kind(&text_cfg, text.sizes().1)?;
        (text, kind)
    };
    text_cfg.finish()?;
    let (projection, width) = match &text {
        TextKind::Plain(config) => (config.projection, config.transformer.width),
        TextKind::Reader(config) => (config.projection, config.blocks.width),
    };
    if projection == Projection::None && width != dim {
        return Err(text_cfg_mismatch(model, width, dim));
    }
    let preprocess = read_preprocess(preprocess, &mut image)?;
    let (context, vocabulary) = text.sizes();
    let tokenizer = TokenizerConfig { dir: dir.to_path_buf(), context, vocabulary, kind };
    Ok((ModelConfig { dim, image, text, preprocess }, tokenizer))
}

fn text_cfg_mismatch(model: &Object, width: usize, dim: usize) -> Error {
    let reason = format!("model_cfg.text_cfg has no projection, so its width of {width} should be embed_dim = {dim}");
    bad(&model.file(), reason)
}

/// An image tower of open_clip's own.
pub(super) fn read_vision(cfg: &Object, quick_gelu: bool, dim: usize) -> Result<ImageConfig> {
    refuse_block_variants(cfg)?;
    cfg.harmless(&["patch_dropout", "output_tokens", "image_seq_len"]);
    cfg.harmless(&["timm_model_pretrained", "timm_pool", "timm_proj", "timm_proj_bias", "timm_drop", "timm_drop_path"]);
    // Both kinds are stored in the checkpoint; the key says only how they were made.
    if !matches!(cfg.text("pos_embed_type")?, None | Some("learnable" | "sin_cos_2d")) {
        return Err(cfg.unsupported("pos_embed_type"));
    }
    let width = cfg.count("width")?.unwrap_or(768);
    let head_width = cfg.count("head_width")?.unwrap_or(64);
    let transformer = TransformerConfig {
        width,
        layers: cfg.count("layers")?.unwrap_or(12) + gated_layers(cfg)?,
        heads: width / head_width,
        hidden: hidden(cfg, width)?,
        activation: activation(cfg, quick_gelu)?,
        norm_eps: norm_eps(cfg)?,
    };
    check_transformer(cfg, &transformer)?;
    let image = cfg.pair("image_size")?.unwrap_or((224, 224));
    let patch = cfg.pair("patch_size")?.unwrap_or((16, 16));
    if patch.0 > image.0 || patch.1 > image.1 {
        return Err(bad(&cfg.file(), format!("{} is larger than the picture", cfg.dotted("patch_size"))));
    }
    let pool = match cfg.text("pool_type")? {
        None | Some("tok") => ImagePool::Token,
        Some("avg") => ImagePool::Average,
        Some(_) => return Err(cfg.unsupported("pool_type")),
    };
    let plain = VisionConfig {
        transformer,
        image,
        patch,
        norm_pre: !cfg.flag("no_ln_pre")?.unwrap_or(false),
        pool,
        norm_after_pool: cfg.flag("final_ln_after_pool")?.unwrap_or(false),
    };
    let (queries, heads) =
        (cfg.count("attn_pooler_queries")?.unwrap_or(256), cfg.count("attn_pooler_heads")?.unwrap_or(8));
    let layer_scale = cfg.get("ls_init_value").is_some();
    let attention = cfg.get("attentional_pool").is_some_and(|value| *value != serde_json::Value::Bool(false));
    if !attention && !layer_scale {
        return Ok(ImageConfig::Plain(plain));
    }
    let mut vit = VitConfig::plain(&plain);
    vit.blocks.layer_scale = layer_scale;
    if attention {
        if cfg.flag("attentional_pool").is_err() {
            return Err(cfg.unsupported("attentional_pool"));
        }
        if pool != ImagePool::Token {
            return Err(cfg.unsupported("pool_type"));
        }
        if !dim.is_multiple_of(heads) {
            return Err(bad(&cfg.file(), format!("{dim} numbers do not divide into {heads} attention heads")));
        }
        let activation = Activation::Gelu;
        vit.pool = Pool::Attention(AttentionPool {
            width: dim,
            heads,
            queries,
            norms: true,
            mapped: true,
            hidden: None,
            activation,
        });
        (vit.norm_tokens, vit.norm_pooled) = (false, true);
    }
    Ok(ImageConfig::Vit(vit))
}

/// Blocks that were put before the last ones, and whose gates a training opened.
fn gated_layers(cfg: &Object) -> Result<usize> {
    let Some(gates) = cfg.object("react_cfg")? else { return Ok(0) };
    let layers = gates.count("last_k_layers")?;
    let layers = if gates.flag("enabled")?.unwrap_or(false) { layers.unwrap_or(0) } else { 0 };
    gates.finish()?;
    if layers > cfg.count("layers")?.unwrap_or(12) {
        return Err(cfg.unsupported("react_cfg"));
    }
    Ok(layers)
}

fn read_text(cfg: &Object, quick_gelu: bool) -> Result<TextKind> {
    cfg.refuse(&["final_ln_after_pool", "correct_cls_mask"])?;
    refuse_block_variants(cfg)?;
    cfg.harmless(&["hf_model_pretrained", "hf_proj_type", "hf_pooler_type", "output_tokens"]);
    let pad = cfg.id("pad_id")?.unwrap_or(0);
    let width = cfg.count("width")?.unwrap_or(512);
    let transformer = TransformerConfig {
        width,
        layers: cfg.count("layers")?.unwrap_or(12),
        heads: cfg.count("heads")?.unwrap_or(8),
        hidden: hidden(cfg, width)?,
        activation: activation(cfg, quick_gelu)?,
        norm_eps: norm_eps(cfg)?,
    };
    check_transformer(cfg, &transformer)?;
    let eos = cfg.id("eos_id")?.unwrap_or(2);
    let pool = match cfg.text("pool_type")? {
        None | Some("argmax") => TextPool::Largest,
        Some("first") => TextPool::First,
        Some("last") => TextPool::Last,
        Some("eos") => TextPool::Token(eos),
        Some(_) => return Err(cfg.unsupported("pool_type")),
    };
    let biased = cfg.flag("proj_bias")?.unwrap_or(false);
    let projection = match cfg.text("proj_type")? {
        None | Some("linear") if biased => Projection::Biased,
        None | Some("linear") => Projection::Matrix,
        Some("none") => Projection::None,
        Some(_) => return Err(cfg.unsupported("proj_type")),
    };
    let context = cfg.count("context_length")?.unwrap_or(77);
    let vocabulary = cfg.count("vocab_size")?.unwrap_or(CLIP_VOCABULARY);
    let causal = !cfg.flag("no_causal_mask")?.unwrap_or(false);
    let plain = TextConfig { transformer, context, vocabulary, causal, pool, projection };
    let class = cfg.flag("embed_cls")?.unwrap_or(false);
    let mask = cfg.flag("use_pad_mask")?.unwrap_or(false) && !causal;
    let layer_scale = cfg.get("ls_init_value").is_some();
    if !class && !mask && !layer_scale {
        return Ok(TextKind::Plain(plain));
    }
    let mut reader = ReaderConfig::plain(&plain);
    reader.blocks.layer_scale = layer_scale;
    if class {
        // The first models with such a token were trained with a mask that is off by one, and are evaluated so.
        reader.padding = Padding::HiddenNext(pad);
        reader.class = true;
        reader.place = Place::Learned { rows: context + 1, first: 0 };
    } else if mask {
        return Err(cfg.unsupported("use_pad_mask"));
    }
    Ok(TextKind::Reader(reader))
}

/// open_clip tokenizes with the vocabulary that it carries inside, whatever lies in the directory, unless the configuration
/// names another; a directory with a vocabulary of another size can only mean its own files.
fn tokenizer_kind(cfg: &Object, vocabulary: usize) -> Result<TokenizerKind> {
    let named = cfg.text("hf_tokenizer_name")?.is_some_and(|name| !name.is_empty());
    let mut clean = if named { Clean::Whitespace } else { Clean::Lower };
    let mut marks = match cfg.text("tokenizer_mode")? {
        None | Some("") => Marks::Own,
        Some("clips") if named => Marks::ClassLast,
        Some(_) => return Err(cfg.unsupported("tokenizer_mode")),
    };
    if let Some(kwargs) = cfg.object("tokenizer_kwargs")? {
        clean = match kwargs.text("clean")? {
            None => clean,
            Some("whitespace") => Clean::Whitespace,
            Some("lower") => Clean::Lower,
            Some("canonicalize") => Clean::Canonical,
            Some(_) => return Err(kwargs.unsupported("clean")),
        };
        // Texts that get their marks from the other mode have no separator.
        if named && kwargs.flag("strip_sep_token")?.unwrap_or(false) && marks == Marks::Own {
            marks = Marks::Stripped;
        }
        kwargs.finish()?;
    }
    Ok(if named {
        TokenizerKind::File { clean, marks, pad_to_context: true }
    } else if vocabulary == CLIP_VOCABULARY {
        TokenizerKind::Clip { clean }
    } else {
        TokenizerKind::ClipFiles { clean }
    })
}

fn refuse_block_variants(cfg: &Object) -> Result<()> {
    cfg.refuse(&BLOCK_VARIANTS)?;
    match cfg.text("block_type")? {
        None | Some("default") => Ok(()),
        Some(_) => Err(cfg.unsupported("block_type")),
    }
}

/// Python's `int(width * mlp_ratio)`.
pub(super) fn hidden(cfg: &Object, width: usize) -> Result<usize> {
    Ok((width as f64 * cfg.number("mlp_ratio")?.unwrap_or(4.0)) as usize)
}

/// The activation of a tower's blocks.
pub(super) fn activation(cfg: &Object, quick_gelu: bool) -> Result<Activation> {
    let Some(kwargs) = cfg.object("act_kwargs")? else {
        return Ok(if quick_gelu { Activation::QuickGelu } else { Activation::Gelu });
    };
    let activation = match kwargs.text("approximate")? {
        None | Some("none") => Activation::Gelu,
        Some("tanh") => Activation::GeluTanh,
        Some(_) => return Err(kwargs.unsupported("approximate")),
    };
    if quick_gelu {
        return Err(cfg.unsupported("act_kwargs"));
    }
    kwargs.finish()?;
    Ok(activation)
}

/// What is added to the variances of a tower's norms.
pub(super) fn norm_eps(cfg: &Object) -> Result<f64> {
    let Some(kwargs) = cfg.object("norm_kwargs")? else { return Ok(1e-5) };
    let eps = kwargs.number("eps")?.unwrap_or(1e-5);
    kwargs.finish()?;
    Ok(eps)
}

/// Unknown keys are none of the transform's, and published configurations hold some (a repository name, for one).
fn read_preprocess(cfg: Option<Object>, image: &mut ImageConfig) -> Result<Preprocess> {
    let size = image.size();
    let mut preprocess = Preprocess {
        size,
        mean: CLIP_MEAN,
        std: CLIP_STD,
        interpolation: Interpolation::Bicubic,
        resize_mode: ResizeMode::Shortest,
        fill: 0,
        rgb_first: false,
    };
    let Some(cfg) = cfg else { return Ok(keep_shape(preprocess, image)) };
    if !matches!(cfg.text("mode")?, None | Some("RGB")) {
        return Err(cfg.unsupported("mode"));
    }
    preprocess.mean = cfg.channels("mean")?.unwrap_or(preprocess.mean);
    preprocess.std = cfg.channels("std")?.unwrap_or(preprocess.std);
    preprocess.interpolation = match cfg.text("interpolation")? {
        None | Some("bicubic" | "random" | "") => Interpolation::Bicubic,
        Some("bilinear") => Interpolation::Bilinear,
        Some(_) => return Err(cfg.unsupported("interpolation")),
    };
    preprocess.resize_mode = match cfg.text("resize_mode")? {
        None | Some("shortest" | "") => ResizeMode::Shortest,
        Some("longest") => ResizeMode::Longest,
        Some("squash") => ResizeMode::Squash,
        Some(_) => return Err(cfg.unsupported("resize_mode")),
    };
    if let Some(fill) = cfg.number("fill_color")? {
        let fits = fill.fract() == 0.0 && (0.0..=255.0).contains(&fill);
        preprocess.fill = if fits { fill as u8 } else { return Err(cfg.unsupported("fill_color")) };
    }
    // open_clip takes `image_size` whatever `size` says, so that two sizes are a file that was put together wrongly.
    if cfg.checks() == Checks::Strict
        && let Some(found) = cfg.pair("size")?
        && found != size
    {
        let reason = format!(
            "{} makes pictures of {} × {}, but the model takes {} × {}",
            cfg.dotted("size"),
            found.1,
            found.0,
            size.1,
            size.0
        );
        return Err(bad(&cfg.file(), reason));
    }
    if size.0 != size.1 && preprocess.resize_mode == ResizeMode::Shortest {
        preprocess.interpolation = Interpolation::Bicubic;
    }
    Ok(keep_shape(preprocess, image))
}

/// For a tower that takes pictures of any shape, they are resized to its number of patches, not to a square.
fn keep_shape(mut preprocess: Preprocess, image: &mut ImageConfig) -> Preprocess {
    if let ImageConfig::Vit(vit) = image
        && let Stem::Loose { edge, most, .. } = vit.stem
    {
        vit.image = patches::carrier(edge, most);
        (preprocess.size, preprocess.rgb_first) = (vit.image, true);
        preprocess.resize_mode = ResizeMode::Patches { edge, most };
    }
    preprocess
}
