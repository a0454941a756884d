//! Where the normal form's tensors stand in open_clip's checkpoints.

use super::{text_models, timm};
use crate::model::config::{ImageConfig, ModelConfig, Projection, TextKind, TrunkKind};
use crate::model::weights::{Checkpoint, Origin};

/// What the names in a checkpoint depend on.
pub(super) struct Names {
    /// Whether the image tower is one of timm's.
    timm: bool,
    /// Whether the image tower is the residual network.
    resnet: bool,
    /// Whether the text tower is one of transformers'.
    text_model: bool,
    /// Whether text towers stand under `text.` or at the root: the same weights either way.
    wrapped: bool,
    projection: Projection,
}

impl Names {
    pub(super) fn new(config: &ModelConfig, checkpoint: &Checkpoint) -> Self {
        let resnet = matches!(&config.image, ImageConfig::Trunk(trunk) if matches!(trunk.kind, TrunkKind::ResNet(_)));
        let projection = match &config.text {
            TextKind::Plain(config) => config.projection,
            TextKind::Reader(config) => config.projection,
        };
        Self {
            timm: checkpoint.names().any(|name| name.starts_with("visual.trunk.")),
            resnet,
            text_model: checkpoint.names().any(|name| name.starts_with("text.transformer.embed"))
                && !checkpoint.contains("text.token_embedding.weight"),
            wrapped: checkpoint.contains("text.positional_embedding")
                || checkpoint.contains("text.token_embedding.weight"),
            projection,
        }
    }

    /// Where the tensor `name` stands.
    pub(super) fn origin(&self, name: &str, checkpoint: &Checkpoint) -> Origin {
        match name.split_once('.').unwrap_or((name, "")) {
            ("image", rest) if self.timm => timm::origin(rest, checkpoint),
            ("image", rest) if self.resnet => Origin::Same(rest.replacen("trunk.", "visual.", 1)),
            ("image", rest) => self.own(rest, true, checkpoint),
            (_, rest) if self.text_model => text_models::origin(rest, checkpoint),
            (_, rest) => self.own(rest, false, checkpoint),
        }
    }

    /// Names of open_clip's own towers.
    fn own(&self, rest: &str, image: bool, checkpoint: &Checkpoint) -> Origin {
        let prefix = match (image, self.wrapped) {
            (true, _) => "visual.",
            (false, true) => "text.",
            (false, false) => "",
        };
        let full = |rest: &str| format!("{prefix}{rest}");
        if let Some(part) = rest.strip_prefix("pool.") {
            return pool(part, checkpoint);
        }
        match rest {
            "patch.weight" => Origin::Same(full("conv1.weight")),
            "class" if image => Origin::Same(full("class_embedding")),
            "class" => Origin::Same(full("cls_emb")),
            "token" => Origin::Same(full("token_embedding.weight")),
            "position" => Origin::Same(full("positional_embedding")),
            // Matrices of the input's side, applied from the right.
            "projection.weight" if image => Origin::Transposed(full("proj")),
            "projection.weight" if self.projection == Projection::Matrix => Origin::Transposed(full("text_projection")),
            _ => {
                let rest = rest
                    .replace("blocks.", "transformer.resblocks.")
                    .replace("norm_pre", "ln_pre")
                    .replace("norm_post", if image { "ln_post" } else { "ln_final" })
                    .replace("norm_1", "ln_1")
                    .replace("norm_2", "ln_2")
                    .replace("attention.qkv.", "attn.in_proj_")
                    .replace("attention.out", "attn.out_proj")
                    .replace("mlp.up", "mlp.c_fc")
                    .replace("mlp.down", "mlp.c_proj")
                    .replace("scale_1", "ls_1.gamma")
                    .replace("scale_2", "ls_2.gamma")
                    .replace("projection.", "text_projection.");
                Origin::Same(full(&rest))
            }
        }
    }
}

/// The attentional pool: PyTorch keeps its three maps in one matrix, or apart where their widths differ, and biases in one.
fn pool(part: &str, checkpoint: &Checkpoint) -> Origin {
    const POOL: &str = "visual.attn_pool";
    let index = match part.split_once('.').map_or(part, |(first, _)| first) {
        "q" => 0,
        "k" => 1,
        "v" => 2,
        _ => {
            let part =
                part.replace("norm_query", "ln_q").replace("norm_context", "ln_k").replace("out.", "attn.out_proj.");
            return Origin::Same(format!("{POOL}.{part}"));
        }
    };
    let apart = format!("{POOL}.attn.{}_proj_weight", ["q", "k", "v"][index]);
    match part.ends_with("weight") {
        true if checkpoint.contains(&apart) => Origin::Same(apart),
        true => Origin::Part { name: format!("{POOL}.attn.in_proj_weight"), index, count: 3 },
        false => Origin::Part { name: format!("{POOL}.attn.in_proj_bias"), index, count: 3 },
    }
}

/// Entries of a checkpoint that the towers do not consist of: the loss's scale and bias, masks and notes that are computed,
/// counters, the tower that writes captions.
pub(super) fn is_not_a_weight(name: &str) -> bool {
    matches!(name, "logit_scale" | "logit_bias" | "attn_mask" | "text.attn_mask")
        || matches!(name, "input_resolution" | "context_length" | "vocab_size")
        || name.ends_with(".position_ids")
        || name.ends_with(".num_batches_tracked")
        || name.ends_with(".embed_positions.weights")
        || name.starts_with("text_decoder.")
}
