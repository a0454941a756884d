//! Hugging Face directories: `config.json`, `preprocessor_config.json`, weights whole or in shards.
//!
//! Saved configurations leave out what equals the class's default, so the defaults of each `model_type` are built in. Keys that
//! the original's code never reads cannot change a vector, and the files are full of them (generation settings, labels);
//! [`harmless`] lists those that are known, and any other is refused.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::hugging_face_names::Names;
use super::json::{self, Object, bad};
use super::processor::{self, read_preprocess};
use super::{Checks, Import, align, check_transformer, harmless, probabilistic};
use crate::image::{Preprocess, ResizeMode};
use crate::model::config::{
    Activation, AttentionPool, BlocksConfig, ImageConfig, ImagePool, ModelConfig, NormOrder, Padding, Place, Pool,
    Pooler, Projection, ReaderConfig, Stem, TextConfig, TextKind, TextPool, TransformerConfig, VisionConfig, VitConfig,
};
use crate::model::tokenizer::{Clean, Marks, TokenizerConfig, TokenizerKind};
use crate::model::weights::{Checkpoint, Weights};
use crate::{Error, Result};

/// The file that marks such a directory.
pub(super) const CONFIG: &str = "config.json";

/// The kinds of models, by what their towers are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// CLIP and what has its modules.
    Clip,
    /// The same modules, with an end token whose id is 2 in truth.
    MetaClip,
    /// CLIP inside a model of segments.
    ClipSeg,
    Siglip,
    /// The same with pictures that keep their shape.
    Naflex,
    ChineseClip,
    AltClip,
    Blip,
    Aimv2,
    /// A network of convolutions beside BERT.
    Align,
}

/// Reads the directory.
pub(super) fn import(dir: &Path, checks: Checks) -> Result<Import> {
    let path = dir.join(CONFIG);
    let value = json::read(&path)?;
    let root = Object::root(&path, &value, checks)?;
    let kind = match root.text("model_type")? {
        Some("clip") => Kind::Clip,
        Some("metaclip_2") => Kind::MetaClip,
        Some("clipseg") => Kind::ClipSeg,
        Some("siglip") => Kind::Siglip,
        Some("siglip2") => Kind::Naflex,
        Some("chinese_clip") => Kind::ChineseClip,
        Some("altclip") => Kind::AltClip,
        Some("blip") => Kind::Blip,
        Some("aimv2") => Kind::Aimv2,
        Some("align") => Kind::Align,
        Some(other) => {
            let value = format!("{other}{}", why_not(other));
            return Err(Error::UnsupportedModel { path, key: "model_type".into(), value });
        }
        None if root.get("embed_dim").is_some() => return probabilistic::import(dir, &root, checks),
        None => return Err(bad(&path, "the key model_type is missing; expected a model directory of the kind clip")),
    };
    // Code or number formats of their own. The code that AIMv2 was published with computes what transformers' does.
    match kind {
        Kind::Aimv2 => root.harmless(&["auto_map"]),
        _ => root.refuse(&["auto_map"])?,
    }
    root.refuse(&["quantization_config"])?;
    let dim = match kind {
        Kind::Clip | Kind::MetaClip | Kind::ClipSeg | Kind::ChineseClip | Kind::Aimv2 => {
            root.count("projection_dim")?.unwrap_or(512)
        }
        Kind::AltClip => root.count("projection_dim")?.unwrap_or(768),
        Kind::Blip => root.count("image_text_hidden_size")?.unwrap_or(256),
        Kind::Align => root.count("projection_dim")?.unwrap_or(640),
        Kind::Siglip | Kind::Naflex => {
            with_tower(&root, "vision_config", kind, |cfg, _| Ok(cfg.count("hidden_size")?.unwrap_or(768)))?
        }
    };
    let mut image = with_tower(&root, "vision_config", kind, |cfg, kind| {
        read_vision(cfg, kind).and_then(|image| all_of(cfg, harmless::vision(kind), image))
    })?;
    let text = with_tower(&root, "text_config", kind, |cfg, kind| {
        read_text(cfg, kind).and_then(|text| all_of(cfg, harmless::text(kind), text))
    })?;
    root.harmless(&["vision_config", "text_config"]);
    all_of(&root, harmless::root(kind), ())?;
    if let ImageConfig::Trunk(trunk) = &image
        && trunk.features() != dim
    {
        let reason = format!("projection_dim is {dim}, but the image tower ends with {} numbers", trunk.features());
        return Err(bad(&path, reason));
    }
    let preprocess = match kind {
        Kind::Siglip => read_preprocess(dir, image.size(), &processor::SIGLIP, checks)?,
        Kind::Naflex => loose_preprocess(dir, &mut image, checks)?,
        Kind::Align => {
            let preprocess = align::read_preprocess(dir, checks)?;
            align::take_size(&mut image, preprocess.size);
            preprocess
        }
        Kind::Blip => read_preprocess(dir, image.size(), &processor::BLIP, checks)?,
        // The processor there makes pictures for the segments; its CLIP is the original one, with that one's processor.
        Kind::ClipSeg => processor::clip_at(image.size()),
        _ => read_preprocess(dir, image.size(), &processor::CLIP, checks)?,
    };
    let pad_to_context = kind.is_siglip();
    let clean = if pad_to_context { siglip_clean(dir, checks)? } else { Clean::None };
    let tokenizer_kind = TokenizerKind::File { clean, marks: Marks::Own, pad_to_context };
    let (context, vocabulary) = text.sizes();
    let tokenizer = TokenizerConfig { dir: dir.to_path_buf(), context, vocabulary, kind: tokenizer_kind };
    let config = ModelConfig { dim, image, text, preprocess };
    let checkpoint = Checkpoint::open(&weight_files(dir)?)?;
    let names = Names::new(kind, &checkpoint);
    let origin = |name: &str| names.origin(name);
    let weights = Weights::new(checkpoint, &config.tensors()?, origin, |name| {
        checks == Checks::Lenient || names.is_not_a_weight(name)
    })?;
    Ok(Import { config, weights, tokenizer })
}

impl Kind {
    /// Whether texts are padded to the context, and padding is read like anything else.
    fn is_siglip(self) -> bool {
        matches!(self, Kind::Siglip | Kind::Naflex)
    }
}

/// The processor of pictures that keep their shape; it says how many patches there are at most, and the tower's configuration
/// how large they are.
fn loose_preprocess(dir: &Path, image: &mut ImageConfig, checks: Checks) -> Result<Preprocess> {
    let preprocess = processor::read_loose(dir, checks)?;
    if let (ImageConfig::Vit(vit), ResizeMode::Patches { edge: found, most: wanted }) = (image, preprocess.resize_mode)
        && let Stem::Loose { edge, most, .. } = &mut vit.stem
    {
        if found != *edge {
            let reason = format!("the processor cuts patches of {found} pixels, and the model takes patches of {edge}");
            return Err(bad(dir, reason));
        }
        (*most, vit.image) = (wanted, preprocess.size);
    }
    Ok(preprocess)
}

/// Why a kind of model is not loaded, for those that one may expect to be.
fn why_not(kind: &str) -> &'static str {
    match kind {
        "clip_vision_model" | "siglip_vision_model" | "clip_text_model" | "siglip_text_model" => ", one tower alone,",
        "blip-2" => ", whose pictures have 32 vectors each,",
        "bridgetower" => ", whose towers look at each other,",
        "vision-text-dual-encoder" => ", whose towers may be of any kind,",
        "owlvit" | "owlv2" => ", whose vectors are those of patches,",
        "groupvit" => ", whose image tower groups its tokens,",
        "xclip" => ", whose pictures are videos,",
        "clap" => ", which hears instead of seeing,",
        _ => "",
    }
}

/// What the tokenizer's class does to a text before its `tokenizer.json` gets it: the first generation's takes the punctuation
/// away, the second's only the capitals, as their trainings did.
fn siglip_clean(dir: &Path, checks: Checks) -> Result<Clean> {
    let path = dir.join("tokenizer_config.json");
    let value = if path.is_file() { json::read(&path)? } else { Value::Object(Map::new()) };
    let cfg = Object::root(&path, &value, checks)?;
    match cfg.text("tokenizer_class")? {
        // The tower looks at the last place, and what stands there must not be guessed.
        Some(class)
            if (class.starts_with("Gemma") || class.starts_with("Siglip2")) && cfg.get("padding_side").is_none() =>
        {
            Err(bad(&path, format!("padding_side is missing, and without it a {class} fills texts up at the left")))
        }
        Some(class) if class.starts_with("Gemma") || class.starts_with("Siglip2") => Ok(Clean::LowerOnly),
        Some(class) if class.starts_with("Siglip") => Ok(Clean::Letters),
        _ => Err(cfg.unsupported("tokenizer_class")),
    }
}

/// Reads one tower's configuration. The legacy `…_config_dict`, where present, replaces the whole of the newer object.
fn with_tower<T>(root: &Object, key: &str, kind: Kind, read: impl Fn(&Object, Kind) -> Result<T>) -> Result<T> {
    let legacy = format!("{key}_dict");
    let name = if root.get(&legacy).is_some() { legacy.as_str() } else { key };
    match root.object(name)? {
        Some(cfg) => read(&cfg, kind),
        None => {
            let nothing = Value::Object(Map::from_iter([(name.to_owned(), Value::Object(Map::new()))]));
            let file = root.file();
            let empty = Object::root(&file, &nothing, root.checks())?;
            read(&empty.required(name)?, kind)
        }
    }
}

/// What was read of an object, unless there is more that could change a vector.
fn all_of<T>(cfg: &Object, harmless: &[&str], found: T) -> Result<T> {
    cfg.harmless(harmless);
    cfg.harmless(harmless::ANY);
    let unused = harmless::UNUSED.iter().copied().filter(|key| !harmless.contains(key));
    cfg.refuse(&unused.collect::<Vec<&str>>())?;
    cfg.require_no_more()?;
    Ok(found)
}

/// Class defaults of a tower's blocks.
struct Defaults {
    width: usize,
    layers: usize,
    heads: usize,
    hidden: usize,
    activation: Activation,
    eps: f64,
}

impl Defaults {
    fn new(width: usize, layers: usize, heads: usize, hidden: usize, activation: Activation, eps: f64) -> Self {
        Self { width, layers, heads, hidden, activation, eps }
    }
}

fn read_transformer(cfg: &Object, defaults: &Defaults) -> Result<TransformerConfig> {
    let activation = match cfg.text("hidden_act")? {
        None => defaults.activation,
        Some("quick_gelu") => Activation::QuickGelu,
        Some("gelu") => Activation::Gelu,
        Some("gelu_pytorch_tanh" | "gelu_new") => Activation::GeluTanh,
        Some("silu") if defaults.activation == Activation::Silu => Activation::Silu,
        Some(_) => return Err(cfg.unsupported("hidden_act")),
    };
    let eps = match cfg.number("layer_norm_eps")? {
        Some(eps) => eps,
        None => cfg.number("rms_norm_eps")?.unwrap_or(defaults.eps),
    };
    let transformer = TransformerConfig {
        width: cfg.count("hidden_size")?.unwrap_or(defaults.width),
        layers: cfg.count("num_hidden_layers")?.unwrap_or(defaults.layers),
        heads: cfg.count("num_attention_heads")?.unwrap_or(defaults.heads),
        hidden: cfg.count("intermediate_size")?.unwrap_or(defaults.hidden),
        activation,
        norm_eps: eps,
    };
    check_transformer(cfg, &transformer)?;
    Ok(transformer)
}

fn read_vision(cfg: &Object, kind: Kind) -> Result<ImageConfig> {
    if kind == Kind::Align {
        return align::read_vision(cfg);
    }
    if cfg.count("num_channels")?.is_some_and(|n| n != 3) {
        return Err(cfg.unsupported("num_channels"));
    }
    let (edge, patch) = match kind {
        Kind::Blip => (384, 16),
        Kind::Siglip | Kind::Naflex => (224, 16),
        Kind::Aimv2 => (224, 14),
        _ => (224, 32),
    };
    let patch = cfg.pair("patch_size")?.unwrap_or((patch, patch));
    let image = if kind == Kind::Naflex { patch } else { cfg.pair("image_size")?.unwrap_or((edge, edge)) };
    if patch.0 > image.0 || patch.1 > image.1 {
        return Err(bad(&cfg.file(), format!("{} is larger than the picture", cfg.dotted("patch_size"))));
    }
    let defaults = match kind {
        Kind::Siglip | Kind::Naflex => Defaults::new(768, 12, 12, 3072, Activation::GeluTanh, 1e-6),
        Kind::Blip => Defaults::new(768, 12, 12, 3072, Activation::Gelu, 1e-5),
        Kind::Aimv2 => Defaults::new(1024, 24, 8, 2816, Activation::Silu, 1e-5),
        _ => Defaults::new(768, 12, 12, 3072, Activation::QuickGelu, 1e-5),
    };
    let transformer = read_transformer(cfg, &defaults)?;
    let plain =
        VisionConfig { transformer, image, patch, norm_pre: true, pool: ImagePool::Token, norm_after_pool: true };
    let mut vit = VitConfig::plain(&plain);
    let TransformerConfig { width, heads, hidden, activation, .. } = plain.transformer;
    let attention = |mapped: bool| {
        let hidden = mapped.then_some(hidden);
        Pool::Attention(AttentionPool { width, heads, queries: 1, norms: false, mapped, hidden, activation })
    };
    match kind {
        Kind::Clip | Kind::MetaClip | Kind::ClipSeg | Kind::ChineseClip | Kind::AltClip | Kind::Align => {
            return Ok(ImageConfig::Plain(plain));
        }
        Kind::Siglip | Kind::Naflex => {
            if cfg.flag("vision_use_head")? == Some(false) {
                return Err(cfg.unsupported("vision_use_head"));
            }
            vit.stem = Stem::Patches { size: patch, biased: true, norm: false };
            if kind == Kind::Naflex {
                let places = cfg.count("num_patches")?.unwrap_or(256);
                let table = places.isqrt();
                if patch.0 != patch.1 || table * table != places {
                    return Err(cfg.unsupported("num_patches"));
                }
                // The processor knows how many patches there are at most.
                vit.stem = Stem::Loose { edge: patch.0, table, most: places };
            }
            (vit.class, vit.norm_pre) = (false, false);
            (vit.norm_tokens, vit.norm_pooled) = (true, false);
            vit.pool = attention(true);
            vit.projection = Projection::None;
        }
        Kind::Blip => {
            vit.stem = Stem::Patches { size: patch, biased: true, norm: false };
            vit.norm_pre = false;
            vit.projection = Projection::Biased;
        }
        Kind::Aimv2 => {
            cfg.refuse(&["is_native", "qkv_bias", "mlp_bias", "use_bias", "is_causal"])?;
            if cfg.count("num_queries")?.is_some_and(|n| n != 1) {
                return Err(cfg.unsupported("num_queries"));
            }
            if cfg.flag("use_head")? == Some(false) {
                return Err(cfg.unsupported("use_head"));
            }
            vit.stem = Stem::Patches { size: patch, biased: true, norm: true };
            (vit.class, vit.norm_pre) = (false, false);
            (vit.norm_tokens, vit.norm_pooled) = (true, false);
            vit.pool = attention(false);
            modern(&mut vit.blocks);
        }
    }
    Ok(ImageConfig::Vit(vit))
}

/// Blocks with root-mean-square norms, a gate, and no biases.
fn modern(blocks: &mut BlocksConfig) {
    (blocks.root_mean_square, blocks.gated, blocks.biased) = (true, true, false);
}

fn read_text(cfg: &Object, kind: Kind) -> Result<TextKind> {
    match kind {
        Kind::ChineseClip | Kind::AltClip | Kind::Blip | Kind::Align => {
            return read_bert(cfg, kind).map(TextKind::Reader);
        }
        _ => {}
    }
    let defaults = match kind {
        Kind::Siglip | Kind::Naflex => Defaults::new(768, 12, 12, 3072, Activation::GeluTanh, 1e-6),
        Kind::Aimv2 => Defaults::new(768, 12, 6, 2048, Activation::Silu, 1e-5),
        _ => Defaults::new(512, 12, 8, 2048, Activation::QuickGelu, 1e-5),
    };
    let transformer = read_transformer(cfg, &defaults)?;
    let siglip = kind.is_siglip();
    let pool = match cfg.id("eos_token_id") {
        _ if siglip => TextPool::Last,
        Ok(id) => match id.unwrap_or(49_407) {
            // Checkpoints from before the id was corrected say 2, and are pooled at the largest id.
            2 if matches!(kind, Kind::Clip | Kind::ClipSeg) => TextPool::Largest,
            id => TextPool::Token(id),
        },
        Err(_) => return Err(cfg.unsupported("eos_token_id")),
    };
    let context = match kind {
        Kind::Aimv2 if cfg.get("max_context_length").is_some() => cfg.count("max_context_length")?,
        _ => cfg.count("max_position_embeddings")?,
    };
    let plain = TextConfig {
        transformer,
        context: context.unwrap_or(if siglip { 64 } else { 77 }),
        vocabulary: cfg.count("vocab_size")?.unwrap_or(if siglip { 32_000 } else { 49_408 }),
        causal: !siglip,
        pool,
        projection: if siglip { Projection::Biased } else { Projection::Matrix },
    };
    if kind == Kind::Aimv2 {
        cfg.refuse(&["qkv_bias", "mlp_bias", "use_bias"])?;
        if cfg.flag("is_causal")? == Some(false) {
            return Err(cfg.unsupported("is_causal"));
        }
        let mut reader = ReaderConfig::plain(&plain);
        modern(&mut reader.blocks);
        return Ok(TextKind::Reader(reader));
    }
    Ok(TextKind::Plain(plain))
}

/// Text towers like BERT.
fn read_bert(cfg: &Object, kind: Kind) -> Result<ReaderConfig> {
    let defaults = match kind {
        Kind::AltClip => Defaults::new(1024, 24, 16, 4096, Activation::Gelu, 1e-5),
        Kind::Blip => Defaults::new(768, 12, 8, 3072, Activation::Gelu, 1e-12),
        _ => Defaults::new(768, 12, 12, 3072, Activation::Gelu, 1e-12),
    };
    let transformer = read_transformer(cfg, &defaults)?;
    if !matches!(cfg.text("position_embedding_type")?, None | Some("absolute")) {
        return Err(cfg.unsupported("position_embedding_type"));
    }
    let (pad, rows, vocabulary, segments) = match kind {
        Kind::AltClip => (1, 514, 250_002, Some(1)),
        Kind::Blip => (0, 512, 30_524, None),
        _ => (0, 512, 30_522, Some(2)),
    };
    let pad = cfg.id("pad_token_id")?.unwrap_or(pad);
    let rows = cfg.count("max_position_embeddings")?.unwrap_or(rows);
    // RoBERTa begins to count behind the row of the padding.
    let first = if kind == Kind::AltClip { pad as usize + 1 } else { 0 };
    let mut reader = ReaderConfig {
        blocks: BlocksConfig { order: NormOrder::After, ..BlocksConfig::plain(&transformer) },
        context: rows.saturating_sub(first).max(1),
        vocabulary: cfg.count("vocab_size")?.unwrap_or(vocabulary),
        place: Place::Learned { rows, first },
        token_scale: 1.0,
        segments: match segments {
            Some(kinds) => Some(cfg.count("type_vocab_size")?.unwrap_or(kinds)),
            None => None,
        },
        norm_embedding: true,
        causal: false,
        class: false,
        spread: false,
        padding: Padding::Hidden(pad),
        norm_post: false,
        pool: TextPool::First,
        pooler: None,
        projection: Projection::Matrix,
    };
    match kind {
        Kind::AltClip => {
            reader.norm_post = true;
            reader.pooler = Some(Pooler { width: cfg.count("project_dim")?.unwrap_or(768), tanh: false });
        }
        Kind::Blip | Kind::Align => reader.projection = Projection::Biased,
        _ => {}
    }
    Ok(reader)
}

/// One file, or the shards that an index lists.
pub(super) fn weight_files(dir: &Path) -> Result<Vec<PathBuf>> {
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

/// The files that an index lists; they lie in `dir`.
pub(crate) fn shards(dir: &Path, index: &Path) -> Result<Vec<PathBuf>> {
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
