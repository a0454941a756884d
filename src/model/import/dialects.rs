//! State dicts that name the tensors of open_clip's towers otherwise.
//!
//! A checkpoint is translated once, when it is opened, and everything after that knows open_clip's names alone. What tells a
//! dialect are names that no other has, and a name that is not understood stays what it is, so that it ends as a tensor that is
//! left over. The configuration beside the file says what the towers are; no dialect says so.

use crate::Result;
use crate::model::weights::Checkpoint;

/// A way to name tensors.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Dialect {
    /// Two encoders side by side, as TinyCLIP trains them.
    Encoders,
    /// Apple's, with a FastViT; the places of its list where a stage ends.
    Stages(Vec<usize>),
    /// Apple's, with a vision transformer.
    Mobile,
    /// A vision transformer of timm directly under `visual.`, as EVA-CLIP and SLIP have it; whether queries, keys and values
    /// are maps of their own.
    Bare {
        /// They are.
        apart: bool,
    },
}

/// The checkpoint under open_clip's names.
pub(super) fn translate(checkpoint: Checkpoint) -> Result<Checkpoint> {
    if checkpoint.names().any(|name| name.starts_with("text_encoder.transformer.0.token_mixer.")) {
        let reason = "a text tower with convolutions (MobileCLIP-S0 of the first generation) is not supported; MobileCLIP2-S0 is";
        return Err(checkpoint.bad(reason.to_owned()));
    }
    Ok(match dialect(&checkpoint) {
        Some(dialect) => checkpoint.renamed(|name| dialect.translate(name)),
        None => checkpoint,
    })
}

const APPLE: &str = "image_encoder.model.";

fn dialect(checkpoint: &Checkpoint) -> Option<Dialect> {
    let has = |name: &str| checkpoint.contains(name);
    if checkpoint.names().any(|name| name.starts_with("_image_encoder.")) {
        return Some(Dialect::Encoders);
    }
    if checkpoint.names().any(|name| name.starts_with("image_encoder.model.patch_embed.0.")) {
        let ends = checkpoint.names().filter_map(|name| {
            let (place, rest) = name.strip_prefix(APPLE)?.strip_prefix("network.")?.split_once('.')?;
            if rest.starts_with("proj") { place.parse().ok() } else { None }
        });
        let mut ends: Vec<usize> = ends.collect();
        ends.sort_unstable();
        ends.dedup();
        return Some(Dialect::Stages(ends));
    }
    if checkpoint.names().any(|name| name.starts_with("image_encoder.model.patch_emb.0.")) {
        return Some(Dialect::Mobile);
    }
    let bare = has("visual.patch_embed.proj.weight") && has("visual.pos_embed");
    bare.then(|| Dialect::Bare { apart: has("visual.blocks.0.attn.q_proj.weight") })
}

impl Dialect {
    /// open_clip's name; none for what is computed, or served another purpose in training.
    fn translate(&self, name: &str) -> Option<String> {
        Some(match self {
            Dialect::Encoders => encoders(name),
            Dialect::Stages(ends) => match name.strip_prefix(APPLE) {
                Some(rest) => format!("visual.trunk.{}", stages(rest, ends)),
                None => apple_text(name),
            },
            Dialect::Mobile => match name.strip_prefix(APPLE) {
                Some(rest) => format!("visual.trunk.{}", mobile(rest)),
                None => apple_text(name),
            },
            Dialect::Bare { apart } => return bare(name, *apart),
        })
    }
}

fn encoders(name: &str) -> String {
    for prefix in ["_image_encoder.", "_text_encoder.", "_logit_scale."] {
        if let Some(rest) = name.strip_prefix(prefix) {
            return rest.strip_prefix("module.").unwrap_or(rest).to_owned();
        }
    }
    name.to_owned()
}

fn apple_text(name: &str) -> String {
    let Some(rest) = name.strip_prefix("text_encoder.") else { return name.to_owned() };
    let rest = rest
        .replace("projection_layer", "text_projection")
        .replace("embedding_layer", "token_embedding")
        .replace("positional_embedding.pos_embed.pos_embed", "positional_embedding")
        .replace("final_layer_norm", "ln_final")
        .replace("pre_norm_mha.0", "ln_1")
        .replace("pre_norm_mha.1", "attn")
        .replace("pre_norm_ffn.0", "ln_2")
        .replace("pre_norm_ffn.1", "mlp.c_fc")
        .replace("pre_norm_ffn.4", "mlp.c_proj")
        .replace("qkv_proj.", "in_proj_")
        .replace("transformer.", "transformer.resblocks.");
    format!("text.{rest}")
}

fn stages(name: &str, ends: &[usize]) -> String {
    let mut name = name
        .replace("patch_embed", "stem")
        .replace("rbr_conv", "conv_kxk")
        .replace("rbr_scale", "conv_scale")
        .replace("rbr_skip", "identity")
        .replace("conv_exp", "final_conv")
        .replace("lkb_origin", "large_conv")
        .replace("convffn", "mlp")
        .replace("se.reduce", "se.fc1")
        .replace("se.expand", "se.fc2");
    if name.ends_with("layer_scale") || name.ends_with("layer_scale_1") || name.ends_with("layer_scale_2") {
        name.push_str(".gamma");
    }
    let Some((place, rest)) = name.strip_prefix("network.").and_then(|rest| rest.split_once('.')) else { return name };
    let Ok(place) = place.parse::<usize>() else { return name };
    let stage = ends.iter().filter(|&&end| end <= place).count();
    match rest.split_once('.') {
        Some(("proj", part)) => format!("stages.{stage}.downsample.proj.{part}"),
        Some(("pe", part)) => format!("stages.{stage}.pos_emb.pos_enc.{part}"),
        _ => format!("stages.{stage}.blocks.{rest}"),
    }
}

fn mobile(name: &str) -> String {
    match name {
        "pos_embed.pos_embed.pos_embed" => "pos_embed".to_owned(),
        // The matrix of the input's side, like that of the other towers.
        "classifier.proj" => "head.proj".to_owned(),
        _ => name
            .replace("patch_emb.", "patch_embed.backbone.")
            .replace("block.conv", "conv")
            .replace("block.norm", "bn")
            .replace("post_transformer_norm.", "norm.")
            .replace("pre_norm_mha.0", "norm1")
            .replace("pre_norm_mha.1", "attn")
            .replace("pre_norm_ffn.0", "norm2")
            .replace("pre_norm_ffn.1", "mlp.fc1")
            .replace("pre_norm_ffn.4", "mlp.fc2")
            .replace("qkv_proj.", "qkv.")
            .replace("out_proj.", "proj.")
            .replace("transformer.", "blocks."),
    }
}

fn bare(name: &str, apart: bool) -> Option<String> {
    let Some(rest) = name.strip_prefix("visual.") else {
        return match name {
            "image_projection" => Some("visual.head.proj".to_owned()),
            // The head of a loss over pictures alone.
            _ if name.starts_with("image_mlp.") => None,
            _ => Some(name.to_owned()),
        };
    };
    // Sines and cosines of places.
    if rest.split('.').any(|part| part == "rope") {
        return None;
    }
    let mut rest = rest
        .replace("mlp.ffn_ln", "mlp.norm")
        .replace("attn.inner_attn_ln", "attn.norm")
        .replace("mlp.w1.", "mlp.fc1_g.")
        .replace("mlp.w2.", "mlp.fc1_x.")
        .replace("mlp.w3.", "mlp.fc2.");
    if apart {
        rest = rest.replace("q_bias", "q_proj.bias").replace("v_bias", "v_proj.bias");
    }
    Some(format!("visual.trunk.{rest}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_open_clip_and_timm_translate_to() {
        let cases = [
            (Dialect::Encoders, "_image_encoder.module.visual.conv1.weight", Some("visual.conv1.weight")),
            (Dialect::Encoders, "_text_encoder.ln_final.bias", Some("ln_final.bias")),
            (Dialect::Encoders, "_logit_scale.module.logit_scale", Some("logit_scale")),
            (
                Dialect::Stages(vec![1, 3, 5]),
                "image_encoder.model.network.1.proj.0.lkb_origin.conv.weight",
                Some("visual.trunk.stages.1.downsample.proj.0.large_conv.conv.weight"),
            ),
            (
                Dialect::Stages(vec![1, 3, 5]),
                "image_encoder.model.network.7.1.layer_scale_2",
                Some("visual.trunk.stages.3.blocks.1.layer_scale_2.gamma"),
            ),
            (
                Dialect::Stages(vec![1, 3, 5]),
                "image_encoder.model.network.6.pe.reparam_conv.bias",
                Some("visual.trunk.stages.3.pos_emb.pos_enc.reparam_conv.bias"),
            ),
            (
                Dialect::Mobile,
                "image_encoder.model.transformer.11.pre_norm_mha.1.qkv_proj.weight",
                Some("visual.trunk.blocks.11.attn.qkv.weight"),
            ),
            (
                Dialect::Mobile,
                "text_encoder.transformer.0.pre_norm_mha.1.qkv_proj.bias",
                Some("text.transformer.resblocks.0.attn.in_proj_bias"),
            ),
            (
                Dialect::Bare { apart: true },
                "visual.blocks.3.attn.q_bias",
                Some("visual.trunk.blocks.3.attn.q_proj.bias"),
            ),
            (Dialect::Bare { apart: false }, "visual.blocks.3.attn.q_bias", Some("visual.trunk.blocks.3.attn.q_bias")),
            (Dialect::Bare { apart: true }, "visual.blocks.3.attn.rope.freqs_cos", None),
            (Dialect::Bare { apart: false }, "image_mlp.bn1.running_mean", None),
            (Dialect::Bare { apart: false }, "nobody_knows", Some("nobody_knows")),
        ];
        for (dialect, name, expected) in cases {
            assert_eq!(dialect.translate(name).as_deref(), expected);
        }
    }
}
