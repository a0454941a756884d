//! Where the normal form's tensors stand in Hugging Face's checkpoints.

use super::aimv2;
use super::hugging_face::Kind;
use super::text_models::bert_part;
use crate::model::weights::{Checkpoint, Origin};

/// What the names in a checkpoint depend on.
pub(super) struct Names {
    kind: Kind,
    /// How lists of layers of BERT's kind are called, which changed over time.
    layers: &'static str,
    /// The same of the image tower's.
    image_layers: &'static str,
    /// Who named AIMv2's tensors.
    naming: aimv2::Naming,
}

impl Names {
    pub(super) fn new(kind: Kind, checkpoint: &Checkpoint) -> Self {
        let plural = checkpoint.names().any(|name| name.contains("roberta.encoder.layers."));
        let singular = checkpoint.names().any(|name| name.starts_with("vision_model.encoder.layer."));
        let name = |plural: bool| if plural { "layers" } else { "layer" };
        Self { kind, layers: name(plural), image_layers: name(!singular), naming: aimv2::Naming::of(checkpoint) }
    }

    /// Where the tensor `name` stands.
    pub(super) fn origin(&self, name: &str) -> Origin {
        let (tower, rest) = name.split_once('.').unwrap_or((name, ""));
        match (self.kind, tower) {
            (Kind::Siglip | Kind::Naflex, "image") if rest.starts_with("pool.") => siglip_pool(&rest[5..]),
            (Kind::Aimv2, _) => self.naming.origin(tower == "image", rest),
            (Kind::Blip, "image") => blip(rest),
            (Kind::Align, "image") => Origin::Same(rest.replacen("trunk.", "vision_model.", 1)),
            (Kind::ChineseClip | Kind::AltClip | Kind::Blip | Kind::Align, "text") => self.bert(rest),
            (Kind::ClipSeg, _) => mapped(clip(tower == "image", rest), |name| format!("clip.{name}")),
            (Kind::AltClip, "image") => {
                let list = format!("encoder.{}.", self.image_layers);
                mapped(clip(true, rest), |name| name.replace("encoder.layers.", &list))
            }
            (Kind::Siglip | Kind::Naflex, "text") if rest.starts_with("projection.") => {
                Origin::Same(format!("text_model.head.{}", &rest["projection.".len()..]))
            }
            _ => clip(tower == "image", rest),
        }
    }

    /// A text tower like BERT.
    fn bert(&self, rest: &str) -> Origin {
        let tower = match self.kind {
            Kind::AltClip => "text_model.roberta",
            Kind::Blip => "text_encoder",
            _ => "text_model",
        };
        match rest.split_once('.') {
            Some(("projection", part)) if self.kind == Kind::Blip => Origin::Same(format!("text_proj.{part}")),
            Some(("projection", part)) => Origin::Same(format!("text_projection.{part}")),
            Some(("pooler", part)) => Origin::Same(format!("text_model.transformation.{part}")),
            Some(("norm_post", part)) => Origin::Same(format!("text_model.pre_LN.{part}")),
            _ => bert_part(tower, self.layers, rest),
        }
    }

    /// The loss's scale, position numbers that older versions stored, and parts that do not make vectors: what matches or
    /// answers, what draws segments.
    pub(super) fn is_not_a_weight(&self, name: &str) -> bool {
        let other = match self.kind {
            Kind::Blip => name.contains(".crossattention.") || name.starts_with("itm_head."),
            Kind::Align => {
                name.starts_with("text_model.pooler.")
                    || name == "temperature"
                    || name.ends_with(".num_batches_tracked")
            }
            Kind::Aimv2 => name == "log_logit_scale",
            Kind::ClipSeg => name.starts_with("decoder.") || name == "clip.logit_scale",
            _ => false,
        };
        other || matches!(name, "logit_scale" | "logit_bias") || name.ends_with(".position_ids")
    }
}

/// An origin under other names.
fn mapped(origin: Origin, with: impl Fn(String) -> String) -> Origin {
    match origin {
        Origin::Same(name) => Origin::Same(with(name)),
        Origin::Transposed(name) => Origin::Transposed(with(name)),
        Origin::Square(name) => Origin::Square(with(name)),
        Origin::Stacked(names) => Origin::Stacked(names.map(|name| name.map(&with))),
        Origin::Part { name, index, count } => Origin::Part { name: with(name), index, count },
        Origin::Gated { name, gate } => Origin::Gated { name: with(name), gate: with(gate) },
    }
}

/// The three attention maps of a block, one below the other.
pub(super) fn stacked(name: impl Fn(&str) -> String) -> Origin {
    Origin::Stacked(["q", "k", "v"].map(|p| Some(name(p))))
}

/// CLIP's modules, which most of the others took over.
pub(super) fn clip(image: bool, rest: &str) -> Origin {
    let model = if image { "vision_model" } else { "text_model" };
    let embeddings = |rest: &str| Origin::Same(format!("{model}.embeddings.{rest}"));
    match rest {
        "patch.weight" => embeddings("patch_embedding.weight"),
        "patch.bias" => embeddings("patch_embedding.bias"),
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
                Some((block, part)) => stacked(|p| format!("{model}.{block}self_attn.{p}_proj.{part}")),
            }
        }
    }
}

/// The query at the end: PyTorch keeps its three maps in one matrix.
fn siglip_pool(part: &str) -> Origin {
    const HEAD: &str = "vision_model.head";
    let (first, last) = part.split_once('.').unwrap_or((part, ""));
    let index = match first {
        "q" => 0,
        "k" => 1,
        "v" => 2,
        _ => {
            let part = part
                .replace("query", "probe")
                .replace("out.", "attention.out_proj.")
                .replace("norm.", "layernorm.")
                .replace("mlp.up", "mlp.fc1")
                .replace("mlp.down", "mlp.fc2");
            return Origin::Same(format!("{HEAD}.{part}"));
        }
    };
    Origin::Part { name: format!("{HEAD}.attention.in_proj_{last}"), index, count: 3 }
}

fn blip(rest: &str) -> Origin {
    match rest {
        "position" => Origin::Same("vision_model.embeddings.position_embedding".to_owned()),
        "projection.weight" => Origin::Same("vision_proj.weight".to_owned()),
        "projection.bias" => Origin::Same("vision_proj.bias".to_owned()),
        _ => match rest.split_once(".attention.") {
            Some((block, part)) => {
                let part = part.replace("out.", "projection.");
                Origin::Same(format!("vision_model.{}.self_attn.{part}", block.replace("blocks.", "encoder.layers.")))
            }
            None => clip(true, rest),
        },
    }
}
