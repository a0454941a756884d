//! Text towers that open_clip takes from transformers, by the name of their model.
//!
//! The name stands for a configuration on the hub that no checkpoint repeats. Depth and widths are read from the checkpoint's
//! shapes; the name is asked for the number of heads, which no shape tells, and for the kind of tower.

use super::json::Object;
use crate::Result;
use crate::model::config::{
    Activation, BlocksConfig, NormOrder, Padding, Place, Pooler, Projection, ReaderConfig, TextKind, TextPool,
    TransformerConfig,
};
use crate::model::weights::{Checkpoint, Origin};

/// Where such towers stand.
const TOWER: &str = "text.transformer";

/// Heads, epsilon and padding of BERT and its like.
fn bert(name: &str) -> Option<(usize, f64, u32)> {
    let short = name.rsplit('/').next().unwrap_or(name).to_lowercase();
    let heads = if short.contains("large") { 16 } else { 12 };
    match short.as_str() {
        "roberta-base" | "roberta-large" | "xlm-roberta-base" | "xlm-roberta-large" => Some((heads, 1e-5, 1)),
        name if name.starts_with("bert-base") || name.starts_with("bert-large") => Some((heads, 1e-12, 0)),
        name if name.starts_with("biomednlp-") && name.contains("bert") => Some((heads, 1e-12, 0)),
        _ => None,
    }
}

/// Reads `text_cfg` where it names a model of transformers.
pub(super) fn read_text(cfg: &Object, checkpoint: &Checkpoint, dim: usize) -> Result<TextKind> {
    let name = cfg.text("hf_model_name")?.unwrap_or_default();
    cfg.harmless(&["hf_model_pretrained", "output_tokens", "width", "heads", "layers", "vocab_size", "pad_id"]);
    let need = |tensor: &str, dimension: usize| {
        let shape = checkpoint.shape(&format!("{TOWER}.{tensor}"));
        let found = shape.and_then(|shape| shape.get(dimension).copied()).filter(|&n| n > 0);
        found.ok_or_else(|| checkpoint.bad(format!("the tensor {TOWER}.{tensor} is missing")))
    };
    let count = |list: &str, part: &str| {
        (0..).take_while(|i| checkpoint.contains(&format!("{TOWER}.{list}.{i}.{part}"))).count()
    };
    let context = cfg.count("context_length")?.unwrap_or(77);
    let pooler = match cfg.text("hf_pooler_type")? {
        None | Some("mean_pooler") => TextPool::Mean,
        Some("cls_pooler" | "cls_last_hidden_state_pooler") => TextPool::First,
        Some(_) => return Err(cfg.unsupported("hf_pooler_type")),
    };
    let plain = |width, layers, heads, hidden, activation, norm_eps| {
        BlocksConfig::plain(&TransformerConfig { width, layers, heads, hidden, activation, norm_eps })
    };
    let mut reader = if let Some((heads, eps, pad)) = bert(name) {
        let (vocabulary, width) =
            (need("embeddings.word_embeddings.weight", 0)?, need("embeddings.word_embeddings.weight", 1)?);
        let layers = count("encoder.layer", "attention.self.query.weight");
        let hidden = need("encoder.layer.0.intermediate.dense.weight", 0)?;
        let rows = need("embeddings.position_embeddings.weight", 0)?;
        // RoBERTa begins to count behind the row of the padding.
        let first = if pad == 0 { 0 } else { pad as usize + 1 };
        ReaderConfig {
            blocks: BlocksConfig {
                order: NormOrder::After,
                ..plain(width, layers, heads, hidden, Activation::Gelu, eps)
            },
            context,
            vocabulary,
            place: Place::Learned { rows, first },
            token_scale: 1.0,
            segments: Some(need("embeddings.token_type_embeddings.weight", 0)?),
            norm_embedding: true,
            causal: false,
            class: false,
            spread: false,
            padding: Padding::Hidden(pad),
            norm_post: false,
            pool: pooler,
            pooler: match cfg.text("hf_pooler_type")? {
                Some("cls_pooler") => Some(Pooler { width, tanh: true }),
                _ => None,
            },
            projection: Projection::None,
        }
    } else if name.contains("nllb-200-distilled") {
        let (vocabulary, width) = (need("embed_tokens.weight", 0)?, need("embed_tokens.weight", 1)?);
        let layers = count("layers", "fc1.weight");
        ReaderConfig {
            blocks: plain(width, layers, 16, need("layers.0.fc1.weight", 0)?, Activation::Relu, 1e-5),
            context,
            vocabulary,
            place: Place::Waves { first: 2 },
            token_scale: (width as f32).sqrt(),
            segments: None,
            norm_embedding: false,
            causal: false,
            class: false,
            spread: false,
            padding: Padding::Hidden(1),
            norm_post: true,
            pool: pooler,
            pooler: None,
            projection: Projection::None,
        }
    } else {
        return Err(cfg.unsupported("hf_model_name"));
    };
    let width = reader.blocks.width;
    if !width.is_multiple_of(reader.blocks.heads) {
        return Err(
            checkpoint.bad(format!("{name} has {} heads, into which {width} does not divide", reader.blocks.heads))
        );
    }
    if let Place::Learned { rows, first } = reader.place
        && context + first > rows
    {
        return Err(checkpoint.bad(format!("{rows} places are too few for texts of {context} tokens")));
    }
    let null = cfg.is_null("hf_proj_type");
    reader.projection = match cfg.text("hf_proj_type")? {
        None if null => Projection::None,
        // Where widths agree, open_clip leaves the map out for JSON's null only.
        None | Some("mlp") => Projection::TwoLayers { hidden: (width + dim) / 2, biases: (false, false) },
        Some("linear") => Projection::Matrix,
        Some(_) => return Err(cfg.unsupported("hf_proj_type")),
    };
    Ok(TextKind::Reader(reader))
}

/// Where the normal form's tensor `text.{rest}` stands in a checkpoint.
pub(super) fn origin(rest: &str, checkpoint: &Checkpoint) -> Origin {
    if let Some(part) = rest.strip_prefix("projection.") {
        return Origin::Same(match part {
            "weight" => "text.proj.weight".to_owned(),
            _ => format!("text.proj.{}", part.replace("up.", "0.").replace("down.", "2.")),
        });
    }
    if checkpoint.contains(&format!("{TOWER}.embeddings.word_embeddings.weight")) {
        return bert_part(TOWER, "layer", rest);
    }
    let tower = |name: &str| Origin::Same(format!("{TOWER}.{name}"));
    let Some((number, part)) = rest.strip_prefix("blocks.").and_then(|rest| rest.split_once('.')) else {
        return tower(&rest.replace("token", "embed_tokens.weight").replace("norm_post", "layer_norm"));
    };
    if let Some(part) = part.strip_prefix("attention.qkv.") {
        let name = |p: &str| Some(format!("{TOWER}.layers.{number}.self_attn.{p}_proj.{part}"));
        return Origin::Stacked(["q", "k", "v"].map(name));
    }
    let part = part
        .replace("attention.out", "self_attn.out_proj")
        .replace("norm_1", "self_attn_layer_norm")
        .replace("norm_2", "final_layer_norm")
        .replace("mlp.up", "fc1")
        .replace("mlp.down", "fc2");
    tower(&format!("layers.{number}.{part}"))
}

/// The same in a tower like BERT that stands under `tower`, with its blocks in a list called `layers`.
pub(super) fn bert_part(tower: &str, layers: &str, rest: &str) -> Origin {
    let same = |name: &str| Origin::Same(format!("{tower}.{name}"));
    let Some((number, part)) = rest.strip_prefix("blocks.").and_then(|rest| rest.split_once('.')) else {
        return same(&match rest {
            "token" => "embeddings.word_embeddings.weight".to_owned(),
            "position" => "embeddings.position_embeddings.weight".to_owned(),
            "segment" => "embeddings.token_type_embeddings.weight".to_owned(),
            _ => rest.replace("norm_embedding", "embeddings.LayerNorm").replace("pooler", "pooler.dense"),
        });
    };
    let block = format!("encoder.{layers}.{number}");
    if let Some(part) = part.strip_prefix("attention.qkv.") {
        let name = |p: &str| Some(format!("{tower}.{block}.attention.self.{p}.{part}"));
        return Origin::Stacked(["query", "key", "value"].map(name));
    }
    let part = part
        .replace("attention.out", "attention.output.dense")
        .replace("norm_1", "attention.output.LayerNorm")
        .replace("mlp.up", "intermediate.dense")
        .replace("mlp.down", "output.dense")
        .replace("norm_2", "output.LayerNorm");
    same(&format!("{block}.{part}"))
}
