//! Hugging Face directories of `model_type: clip`: `config.json`, `preprocessor_config.json`, weights whole or in shards.
//!
//! Saved configurations leave out what equals the class's default, so the defaults of `CLIPTextConfig`, `CLIPVisionConfig`
//! and `CLIPImageProcessor` are built in. Keys that the original's code never reads cannot change a vector, and the files
//! are full of them (generation settings, labels); they are passed over, unlike in the other dialect, whose code refuses
//! them itself.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::json::{self, Object, bad};
use super::{CLIP_MEAN, CLIP_STD, Import, check_transformer};
use crate::Result;
use crate::image::{Interpolation, Preprocess, ResizeMode};
use crate::model::config::{
    Activation, ImageConfig, ImagePool, ModelConfig, Projection, TextConfig, TextKind, TextPool, TransformerConfig,
    VisionConfig,
};
use crate::model::tokenizer::{Clean, TokenizerConfig, TokenizerKind};
use crate::model::weights::{Checkpoint, Origin, Weights};

/// The file that marks such a directory.
pub(super) const CONFIG: &str = "config.json";

/// Reads the directory.
pub(super) fn import(dir: &Path) -> Result<Import> {
    let path = dir.join(CONFIG);
    let value = json::read(&path)?;
    let root = Object::root(&path, &value)?;
    match root.text("model_type")? {
        Some("clip") => {}
        Some(_) => return Err(root.unsupported("model_type")),
        None => return Err(bad(&path, "the key model_type is missing; expected a model directory of the kind clip")),
    }
    // Code or number formats of their own.
    root.refuse(&["auto_map", "quantization_config"])?;
    let dim = root.count("projection_dim")?.unwrap_or(512);
    let vision = with_tower(&root, "vision_config", read_vision)?;
    let text = with_tower(&root, "text_config", read_text)?;
    let preprocess = read_preprocess(dir, vision.image)?;
    let kind = TokenizerKind::File { clean: Clean::None, strip_separator: false, pad_to_context: false };
    let tokenizer =
        TokenizerConfig { dir: dir.to_path_buf(), context: text.context, vocabulary: text.vocabulary, kind };
    let config = ModelConfig { dim, image: ImageConfig::Plain(vision), text: TextKind::Plain(text), preprocess };
    let weights = Weights::new(Checkpoint::open(&weight_files(dir)?)?, &config.tensors()?, origin, is_not_a_weight)?;
    Ok(Import { config, weights, tokenizer })
}

/// Reads one tower's configuration. The legacy `…_config_dict`, where present, replaces the whole of the newer object.
fn with_tower<T>(root: &Object, key: &str, read: fn(&Object) -> Result<T>) -> Result<T> {
    let legacy = format!("{key}_dict");
    let name = if root.get(&legacy).is_some() { legacy.as_str() } else { key };
    match root.object(name)? {
        Some(cfg) => read(&cfg),
        None => {
            let nothing = Value::Object(Map::from_iter([(name.to_owned(), Value::Object(Map::new()))]));
            let file = root.file();
            let empty = Object::root(&file, &nothing)?;
            read(&empty.required(name)?)
        }
    }
}

/// What differs between the towers' class defaults.
struct Defaults {
    width: usize,
    heads: usize,
    hidden: usize,
}

fn read_transformer(cfg: &Object, defaults: &Defaults) -> Result<TransformerConfig> {
    let activation = match cfg.text("hidden_act")? {
        None | Some("quick_gelu") => Activation::QuickGelu,
        Some("gelu") => Activation::Gelu,
        Some("gelu_pytorch_tanh" | "gelu_new") => Activation::GeluTanh,
        Some(_) => return Err(cfg.unsupported("hidden_act")),
    };
    let transformer = TransformerConfig {
        width: cfg.count("hidden_size")?.unwrap_or(defaults.width),
        layers: cfg.count("num_hidden_layers")?.unwrap_or(12),
        heads: cfg.count("num_attention_heads")?.unwrap_or(defaults.heads),
        hidden: cfg.count("intermediate_size")?.unwrap_or(defaults.hidden),
        activation,
        norm_eps: cfg.number("layer_norm_eps")?.unwrap_or(1e-5),
    };
    check_transformer(cfg, &transformer)?;
    Ok(transformer)
}

fn read_vision(cfg: &Object) -> Result<VisionConfig> {
    if cfg.count("num_channels")?.is_some_and(|n| n != 3) {
        return Err(cfg.unsupported("num_channels"));
    }
    let image = cfg.pair("image_size")?.unwrap_or((224, 224));
    let patch = cfg.pair("patch_size")?.unwrap_or((32, 32));
    if patch.0 > image.0 || patch.1 > image.1 {
        return Err(bad(&cfg.file(), format!("{} is larger than the picture", cfg.dotted("patch_size"))));
    }
    Ok(VisionConfig {
        transformer: read_transformer(cfg, &Defaults { width: 768, heads: 12, hidden: 3072 })?,
        image,
        patch,
        norm_pre: true,
        pool: ImagePool::Token,
        norm_after_pool: true,
    })
}

fn read_text(cfg: &Object) -> Result<TextConfig> {
    let pool = match cfg.id("eos_token_id") {
        Ok(id) => match id.unwrap_or(49_407) {
            // Checkpoints from before the id was corrected say 2, and are pooled at the largest id.
            2 => TextPool::Largest,
            id => TextPool::Token(id),
        },
        Err(_) => return Err(cfg.unsupported("eos_token_id")),
    };
    Ok(TextConfig {
        transformer: read_transformer(cfg, &Defaults { width: 512, heads: 8, hidden: 2048 })?,
        context: cfg.count("max_position_embeddings")?.unwrap_or(77),
        vocabulary: cfg.count("vocab_size")?.unwrap_or(49_408),
        causal: true,
        pool,
        projection: Projection::Matrix,
    })
}

/// One file, or the shards that an index lists.
fn weight_files(dir: &Path) -> Result<Vec<PathBuf>> {
    for name in ["model.safetensors", "pytorch_model.bin"] {
        if dir.join(name).is_file() {
            return Ok(vec![dir.join(name)]);
        }
        let index = dir.join(format!("{name}.index.json"));
        if index.is_file() {
            return shards(dir, &index);
        }
    }
    Err(bad(dir, "no weight file; expected model.safetensors, pytorch_model.bin or the .index.json of shards"))
}

fn shards(dir: &Path, index: &Path) -> Result<Vec<PathBuf>> {
    let value = json::read(index)?;
    let wrong = || bad(index, "weight_map should give a file name for each tensor");
    let map = value.get("weight_map").and_then(Value::as_object).ok_or_else(wrong)?;
    let mut files = std::collections::BTreeSet::new();
    for name in map.values() {
        let name = name.as_str().ok_or_else(wrong)?;
        // A name and nothing else: an index must not reach outside its directory.
        if Path::new(name).file_name().is_none_or(|file| file != name) {
            return Err(bad(index, format!("the shard {name:?} is no plain file name")));
        }
        files.insert(dir.join(name));
    }
    Ok(files.into_iter().collect())
}

/// The picture processor: `preprocessor_config.json`, or its place inside the newer `processor_config.json`.
fn read_preprocess(dir: &Path, image: (usize, usize)) -> Result<Preprocess> {
    let plain = dir.join("preprocessor_config.json");
    let nested = dir.join("processor_config.json");
    let (path, value) = if plain.is_file() {
        let value = json::read(&plain)?;
        (plain, value)
    } else if nested.is_file() {
        let mut value = json::read(&nested)?;
        let inner = value.get_mut("image_processor").map_or(Value::Object(Map::new()), Value::take);
        (nested, inner)
    } else {
        (plain, Value::Object(Map::new()))
    };
    let cfg = Object::root(&path, &value)?;
    for key in ["image_processor_type", "feature_extractor_type"] {
        if cfg.text(key)?.is_some_and(|kind| !kind.starts_with("CLIP")) {
            return Err(cfg.unsupported(key));
        }
    }
    for key in ["do_resize", "do_rescale"] {
        if cfg.flag(key)? == Some(false) {
            return Err(cfg.unsupported(key));
        }
    }
    cfg.refuse(&["do_pad"])?;
    if cfg.number("rescale_factor")?.is_some_and(|factor| (factor * 255.0 - 1.0).abs() > 1e-6) {
        return Err(cfg.unsupported("rescale_factor"));
    }
    let interpolation = match cfg.number("resample")?.unwrap_or(3.0) {
        3.0 => Interpolation::Bicubic,
        2.0 => Interpolation::Bilinear,
        _ => return Err(cfg.unsupported("resample")),
    };
    let crop = if cfg.flag("do_center_crop")?.unwrap_or(true) { Some(crop_size(&cfg)?) } else { None };
    let (resize_mode, size) = match resize(&cfg)? {
        Resize::Shortest(edge) => match crop {
            Some((height, width)) if height == edge && width == edge => (ResizeMode::Shortest, (edge, edge)),
            // Resizing to one size and cropping another: no model of this kind is known to be published that way.
            _ => return Err(cfg.unsupported("size")),
        },
        Resize::Exact(height, width) => match crop {
            None => (ResizeMode::Squash, (height, width)),
            Some(crop) if crop == (height, width) => (ResizeMode::Squash, crop),
            Some(_) => return Err(cfg.unsupported("crop_size")),
        },
    };
    if size != image {
        let reason =
            format!("makes pictures of {} × {}, but the model takes {} × {}", size.1, size.0, image.1, image.0);
        return Err(bad(&path, reason));
    }
    let normalise = cfg.flag("do_normalize")?.unwrap_or(true);
    let mean = cfg.channels("image_mean")?.unwrap_or(CLIP_MEAN);
    let std = cfg.channels("image_std")?.unwrap_or(CLIP_STD);
    Ok(Preprocess {
        size,
        mean: if normalise { mean } else { [0.0; 3] },
        std: if normalise { std } else { [1.0; 3] },
        interpolation,
        resize_mode,
        fill: 0,
        rgb_first: true,
    })
}

enum Resize {
    Shortest(usize),
    Exact(usize, usize),
}

/// `size`: a number in the oldest files, then `{"shortest_edge": n}` or `{"height": h, "width": w}`.
fn resize(cfg: &Object) -> Result<Resize> {
    let Some(value) = cfg.get("size") else { return Ok(Resize::Shortest(224)) };
    if value.is_number() {
        return Ok(Resize::Shortest(cfg.count("size")?.unwrap_or(224)));
    }
    let size = cfg.required("size")?;
    match (size.count("shortest_edge")?, size.count("height")?, size.count("width")?) {
        (Some(edge), None, None) if size.get("longest_edge").is_none() => Ok(Resize::Shortest(edge)),
        (None, Some(height), Some(width)) => Ok(Resize::Exact(height, width)),
        _ => Err(cfg.unsupported("size")),
    }
}

fn crop_size(cfg: &Object) -> Result<(usize, usize)> {
    let Some(value) = cfg.get("crop_size") else { return Ok((224, 224)) };
    if value.is_number() {
        let edge = cfg.count("crop_size")?.unwrap_or(224);
        return Ok((edge, edge));
    }
    let crop = cfg.required("crop_size")?;
    match (crop.count("height")?, crop.count("width")?) {
        (Some(height), Some(width)) => Ok((height, width)),
        _ => Err(cfg.unsupported("crop_size")),
    }
}

/// Where the normal form's tensor `name` stands in a checkpoint.
fn origin(name: &str) -> Origin {
    let (tower, rest) = name.split_once('.').unwrap_or((name, ""));
    let image = tower == "image";
    let model = if image { "vision_model" } else { "text_model" };
    let embeddings = |rest: &str| Origin::Same(format!("{model}.embeddings.{rest}"));
    match rest {
        "patch.weight" => embeddings("patch_embedding.weight"),
        "class" => embeddings("class_embedding"),
        "token" => embeddings("token_embedding.weight"),
        "position" => embeddings("position_embedding.weight"),
        "projection.weight" if image => Origin::Same("visual_projection.weight".to_owned()),
        "projection.weight" => Origin::Same("text_projection.weight".to_owned()),
        _ => {
            let rest = rest
                .replace("blocks.", "encoder.layers.")
                // The original's own spelling.
                .replace("norm_pre", "pre_layrnorm")
                .replace("norm_post", if image { "post_layernorm" } else { "final_layer_norm" })
                .replace("norm_1", "layer_norm1")
                .replace("norm_2", "layer_norm2")
                .replace("attention.out", "self_attn.out_proj")
                .replace("mlp.up", "mlp.fc1")
                .replace("mlp.down", "mlp.fc2");
            match rest.split_once("attention.qkv.") {
                None => Origin::Same(format!("{model}.{rest}")),
                Some((block, part)) => {
                    Origin::Stacked(["q", "k", "v"].map(|p| Some(format!("{model}.{block}self_attn.{p}_proj.{part}"))))
                }
            }
        }
    }
}

/// The loss's scale, and position numbers that older versions stored.
fn is_not_a_weight(name: &str) -> bool {
    name == "logit_scale" || name.ends_with(".position_ids")
}
