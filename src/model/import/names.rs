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
    /// What the image tower's blocks are called, where gated ones stand before some of them.
    blocks: Vec<String>,
    projection: Projection,
}

/// Where open_clip's own image tower keeps its blocks.
const BLOCKS: &str = "visual.transformer.resblocks";

/// Between the name of a block and the parts of the gated one before it.
const GATED: &str = ".gated_attn_block.";

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
            blocks: blocks(checkpoint),
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
        let gated = if image { self.gated(rest) } else { None };
        let rest = gated.as_deref().unwrap_or(rest);
        match rest {
            "patch.weight" => Origin::Same(full("conv1.weight")),
            "class" if image => Origin::Same(full("class_embedding")),
            "class" => Origin::Same(full("cls_emb")),
            "uncertain" => Origin::Same(full(if image { "unc_embedding" } else { "unc_emb" })),
            "variance.weight" | "variance.bias" => Origin::Same(full(
                &rest.replace("variance", if image { "uncertainty_proj" } else { "text_uncertainty_projection" }),
            )),
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
                let name = full(&rest);
                // What such a block adds goes through its gates.
                let gate = name.split_once(GATED).and_then(|(block, part)| match part {
                    "attn.out_proj.weight" | "attn.out_proj.bias" => Some(format!("{block}{GATED}alpha_attn")),
                    "mlp.c_proj.weight" | "mlp.c_proj.bias" => Some(format!("{block}{GATED}alpha_dense")),
                    _ => None,
                });
                match gate {
                    Some(gate) => Origin::Gated { name, gate },
                    None => Origin::Same(name),
                }
            }
        }
    }

    /// The name with its block called as the checkpoint calls it, where blocks have names of their own.
    fn gated(&self, rest: &str) -> Option<String> {
        let (number, part) = rest.strip_prefix("blocks.")?.split_once('.')?;
        let block = self.blocks.get(number.parse::<usize>().ok()?)?;
        Some(format!("blocks.{block}.{part}"))
    }
}

/// The blocks of the image tower one after the other, if there are gated ones among them.
fn blocks(checkpoint: &Checkpoint) -> Vec<String> {
    let (mut blocks, mut are_gated) = (Vec::new(), false);
    for i in 0.. {
        let block = format!("{BLOCKS}.{i}");
        if !checkpoint.contains(&format!("{block}.ln_1.weight")) {
            break;
        }
        if checkpoint.contains(&format!("{block}{GATED}ln_1.weight")) {
            blocks.push(format!("{i}{}", GATED.trim_end_matches('.')));
            are_gated = true;
        }
        blocks.push(i.to_string());
    }
    if are_gated { blocks } else { Vec::new() }
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
