//! Where the tensors of AIMv2's two towers stand: under transformers' names, or under those of the code that came with the
//! checkpoint when it was published.

use super::hugging_face_names::{clip, stacked};
use crate::model::weights::{Checkpoint, Origin};

/// Who named the tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Naming {
    Transformers,
    Original,
}

impl Naming {
    /// The names that `checkpoint` has.
    pub(super) fn of(checkpoint: &Checkpoint) -> Self {
        match checkpoint.names().any(|name| name.starts_with("image_encoder.preprocessor.")) {
            true => Naming::Original,
            false => Naming::Transformers,
        }
    }

    /// Where the tensor `rest` of a tower stands.
    pub(super) fn origin(self, image: bool, rest: &str) -> Origin {
        match self {
            Naming::Transformers => transformers(image, rest),
            Naming::Original => Origin::Same(original(image, rest)),
        }
    }
}

fn transformers(image: bool, rest: &str) -> Origin {
    let model = if image { "vision_model" } else { "text_model" };
    let same = |rest: &str| Origin::Same(format!("{model}.{rest}"));
    match rest {
        "patch.weight" => same("embeddings.patch_embed.weight"),
        "patch.bias" => same("embeddings.patch_embed.bias"),
        "norm_patch.weight" => same("embeddings.rms_norm.weight"),
        "norm_post.weight" => same("rms_norm.weight"),
        "token" | "position" | "projection.weight" => clip(image, rest),
        _ => match rest.strip_prefix("pool.") {
            Some(part) => {
                let part = part.replace("query", "cls_token").replace("out.", "output_proj.");
                same(&format!("head.{}", part.replace("k.", "k_proj.").replace("v.", "v_proj.")))
            }
            None => {
                let rest = rest
                    .replace("blocks.", "encoder.layers.")
                    .replace("norm_1", "rms_norm1")
                    .replace("norm_2", "rms_norm2")
                    .replace("attention.out", "attention.out_proj")
                    .replace("mlp.gate", "ffn.gate_proj")
                    .replace("mlp.up", "ffn.up_proj")
                    .replace("mlp.down", "ffn.down_proj");
                match rest.split_once("attention.qkv.") {
                    None => same(&rest),
                    Some((block, part)) => stacked(|p| format!("{model}.{block}attention.{p}_proj.{part}")),
                }
            }
        },
    }
}

fn original(image: bool, rest: &str) -> String {
    let tower = if image { "image" } else { "text" };
    let before = |name: &str| format!("{tower}_encoder.preprocessor.{name}");
    match rest {
        "patch.weight" => before("patchifier.proj.weight"),
        "patch.bias" => before("patchifier.proj.bias"),
        "norm_patch.weight" => before("patchifier.norm.weight"),
        "position" if image => before("pos_embed"),
        "position" => before("positional_embedding"),
        "token" => before("text_embedding.weight"),
        "norm_post.weight" => format!("{tower}_encoder.trunk.post_trunk_norm.weight"),
        "projection.weight" => format!("{tower}_projector.weight"),
        _ => match rest.strip_prefix("pool.") {
            Some(part) => {
                format!("{tower}_encoder.head.{}", part.replace("query", "cls_token").replace("out.", "linear."))
            }
            None => {
                let rest = rest
                    .replace("attention.out", "attn.proj")
                    .replace("attention.", "attn.")
                    .replace("mlp.gate", "mlp.fc1")
                    .replace("mlp.up", "mlp.fc3")
                    .replace("mlp.down", "mlp.fc2");
                format!("{tower}_encoder.trunk.{rest}")
            }
        },
    }
}
