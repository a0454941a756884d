//! A configuration in words, for the fingerprint of its space.
//!
//! Written out by hand, not derived: the words must stay the same from version to version, whatever fields are called. Every
//! structure is taken apart by name, so a new field is a compiler error here.

use super::{
    Activation, AttentionPool, BlocksConfig, Grid, ImageConfig, ImagePool, ModelConfig, NormOrder, Padding, Place,
    Pool, Pooler, Positions, Projection, ReaderConfig, Stem, TextConfig, TextKind, TextPool, TransformerConfig, Trunk,
    TrunkKind, VisionConfig, VitConfig,
};
use crate::image::{Interpolation, Preprocess, ResizeMode};
use crate::model::trunk::convnext::ConvNextConfig;
use crate::model::trunk::efficientnet::{BlockConfig, EfficientNetConfig};
use crate::model::trunk::fastvit::FastVitConfig;
use crate::model::trunk::resnet::ResNetConfig;
use crate::model::trunk::stem::StemConfig;

impl ModelConfig {
    /// Everything that a vector depends on besides the weights, in words that stay the same from version to version: the
    /// fingerprint of an embedding space rests on them, and another wording would make every library look foreign.
    pub(crate) fn description(&self) -> String {
        let image = match &self.image {
            ImageConfig::Plain(VisionConfig { transformer, image, patch, norm_pre, pool, norm_after_pool }) => {
                let pool = match pool {
                    ImagePool::Token => "token",
                    ImagePool::Average => "average",
                };
                let blocks = plain_blocks(transformer);
                format!("{blocks} size {image:?} patch {patch:?} pre {norm_pre} pool {pool} after {norm_after_pool}")
            }
            ImageConfig::Vit(config) => vit(config),
            ImageConfig::Trunk(config) => trunk(config),
        };
        let text = match &self.text {
            TextKind::Plain(TextConfig { transformer, context, vocabulary, causal, pool, projection }) => {
                let (blocks, pool, projection) = (plain_blocks(transformer), text_pool(*pool), projected(*projection));
                format!(
                    "{blocks} context {context} vocabulary {vocabulary} causal {causal} pool {pool} projection {projection}"
                )
            }
            TextKind::Reader(config) => reader(config),
        };
        let Preprocess { size, mean, std, interpolation, resize_mode, fill, rgb_first } = &self.preprocess;
        let interpolation = match interpolation {
            Interpolation::Bilinear => "bilinear",
            Interpolation::Bicubic => "bicubic",
        };
        let resize_mode = match resize_mode {
            ResizeMode::Shortest => "shortest".to_owned(),
            ResizeMode::Longest => "longest".to_owned(),
            ResizeMode::Squash => "squash".to_owned(),
            ResizeMode::Centre { height, width } => format!("centre of {height} {width}"),
            ResizeMode::Patches { edge, most } => format!("patches {edge} {most}"),
        };
        let pixels = format!("{size:?} {mean:?} {std:?} {interpolation} {resize_mode} {fill} {rgb_first}");
        format!("dim {}\nimage {image}\ntext {text}\npixels {pixels}\n", self.dim)
    }
}

fn activated(activation: Activation) -> &'static str {
    match activation {
        Activation::Gelu => "gelu",
        Activation::GeluTanh => "gelu-tanh",
        Activation::QuickGelu => "quick-gelu",
        Activation::Silu => "silu",
        Activation::Relu => "relu",
    }
}

fn plain_blocks(config: &TransformerConfig) -> String {
    let TransformerConfig { width, layers, heads, hidden, activation, norm_eps } = config;
    let activation = activated(*activation);
    format!("width {width} layers {layers} heads {heads} hidden {hidden} {activation} eps {norm_eps:e}")
}

/// The words of those that are true, each with a space before it.
fn flags<const N: usize>(flags: [(&str, bool); N]) -> String {
    flags.iter().filter(|flag| flag.1).map(|flag| format!(" {}", flag.0)).collect()
}

fn blocks(config: &BlocksConfig) -> String {
    let BlocksConfig {
        width,
        layers,
        heads,
        hidden,
        activation,
        norm_eps,
        order,
        gated,
        norm_attention,
        norm_feed,
        norm_hidden,
        layer_scale,
        root_mean_square,
        biased,
    } = *config;
    let plain = plain_blocks(&TransformerConfig { width, layers, heads, hidden, activation, norm_eps });
    let order = match order {
        NormOrder::Before => "before",
        NormOrder::Branch => "branch",
        NormOrder::After => "after",
    };
    let flags = flags([
        ("gated", gated),
        ("norm-attention", norm_attention),
        ("norm-feed", norm_feed),
        ("norm-hidden", norm_hidden),
        ("layer-scale", layer_scale),
        ("root-mean-square", root_mean_square),
        ("biased", biased),
    ]);
    format!("{plain} norms {order}{flags}")
}

fn vit(config: &VitConfig) -> String {
    let VitConfig {
        blocks: inner,
        image,
        stem,
        class,
        positions,
        norm_pre,
        rotation,
        norm_tokens,
        spread,
        pool,
        norm_pooled,
        projection,
    } = config;
    let stem = match stem {
        Stem::Patches { size, biased, norm } => {
            format!("patches {size:?}{}", flags([("biased", *biased), ("norm", *norm)]))
        }
        Stem::Loose { edge, table, most } => format!("loose patches {edge} table {table} most {most}"),
        Stem::Convolutions(StemConfig::Tiles { widths }) => format!("tiles {widths:?}"),
        Stem::Convolutions(StemConfig::Bottlenecks { widths, out, depths }) => {
            format!("bottlenecks {widths:?} {depths:?} to {out}")
        }
    };
    let positions = match positions {
        Positions::All => "all",
        Positions::Patches => "patches",
        Positions::None => "none",
    };
    let rotation = match rotation {
        Some(Grid { reference, offset, columns_first }) => {
            format!(" rotated {reference:?} {offset}{}", flags([("columns-first", *columns_first)]))
        }
        None => String::new(),
    };
    let pool = match pool {
        Pool::Token => "token".to_owned(),
        Pool::Average => "average".to_owned(),
        Pool::Attention(AttentionPool { width, heads, queries, norms, mapped, hidden, activation }) => {
            let hidden = hidden.map_or(String::new(), |hidden| format!(" hidden {hidden} {}", activated(*activation)));
            let flags = flags([("norms", *norms), ("mapped", *mapped)]);
            format!("attention width {width} heads {heads} queries {queries}{flags}{hidden}")
        }
    };
    let flags = flags([
        ("class", *class),
        ("norm-pre", *norm_pre),
        ("norm-tokens", *norm_tokens),
        ("norm-pooled", *norm_pooled),
        ("spread", *spread),
    ]);
    let (inner, projection) = (blocks(inner), projected(*projection));
    format!(
        "vit {inner} size {image:?} stem {stem} positions {positions}{rotation}{flags} pool {pool} projection {projection}"
    )
}

fn trunk(config: &Trunk) -> String {
    let Trunk { kind, image, projection } = config;
    let kind = match kind {
        TrunkKind::ResNet(ResNetConfig { layers, width, heads, dim }) => {
            format!("resnet {layers:?} width {width} heads {heads} to {dim}")
        }
        TrunkKind::ConvNext(ConvNextConfig { depths, widths, norm_eps }) => {
            format!("convnext {depths:?} {widths:?} eps {norm_eps:e}")
        }
        TrunkKind::EfficientNet(EfficientNetConfig { stem, blocks, norm_eps }) => {
            let block = |block: &BlockConfig| {
                let BlockConfig { inputs, inner, squeezed, outputs, kernel, stride, even, residual } = *block;
                let flags = flags([("even", even), ("residual", residual)]);
                format!(" {inputs}-{inner}-{squeezed}-{outputs} kernel {kernel} stride {stride}{flags}")
            };
            format!("efficientnet {stem}{} eps {norm_eps:e}", blocks.iter().map(block).collect::<String>())
        }
        TrunkKind::FastVit(FastVitConfig { depths, widths, ratio, attends, weighs, stem_branch, layer_norm }) => {
            let norm = layer_norm.map_or("batch".to_owned(), |eps| format!("layer eps {eps:e}"));
            let stem = flags([("stem-branch", *stem_branch)]);
            format!(
                "fastvit {depths:?} {widths:?} ratio {ratio} attends {attends:?} weighs {weighs:?} norm {norm}{stem}"
            )
        }
    };
    format!("{kind} size {image:?} projection {}", projected(*projection))
}

fn reader(config: &ReaderConfig) -> String {
    let ReaderConfig {
        blocks: inner,
        context,
        vocabulary,
        place,
        token_scale,
        segments,
        norm_embedding,
        causal,
        class,
        spread,
        padding,
        norm_post,
        pool,
        pooler,
        projection,
    } = config;
    let place = match place {
        Place::Learned { rows, first } => format!("learned {rows} from {first}"),
        Place::Waves { first } => format!("waves from {first}"),
    };
    let padding = match padding {
        Padding::Seen => "seen".to_owned(),
        Padding::Hidden(id) => format!("hidden {id}"),
        Padding::HiddenNext(id) => format!("hidden after {id}"),
    };
    let pooler = match pooler {
        Some(Pooler { width, tanh }) => format!(" pooler {width}{}", flags([("tanh", *tanh)])),
        None => String::new(),
    };
    let segments = segments.map_or(String::new(), |kinds| format!(" segments {kinds}"));
    let flags = flags([
        ("norm-embedding", *norm_embedding),
        ("causal", *causal),
        ("class", *class),
        ("norm-post", *norm_post),
        ("spread", *spread),
    ]);
    let (inner, pool, projection) = (blocks(inner), text_pool(*pool), projected(*projection));
    format!(
        "reader {inner} context {context} vocabulary {vocabulary} place {place} scale {token_scale}{segments}{flags} \
         padding {padding} pool {pool}{pooler} projection {projection}"
    )
}

fn text_pool(pool: TextPool) -> String {
    match pool {
        TextPool::First => "first".to_owned(),
        TextPool::Last => "last".to_owned(),
        TextPool::Largest => "largest".to_owned(),
        TextPool::Token(id) => format!("token {id}"),
        TextPool::Mean => "mean".to_owned(),
    }
}

fn projected(projection: Projection) -> String {
    match projection {
        Projection::None => "none".to_owned(),
        Projection::Matrix => "matrix".to_owned(),
        Projection::Biased => "biased".to_owned(),
        Projection::TwoLayers { hidden, biases: (up, down) } => {
            format!("two-layers {hidden}{}", flags([("up-biased", up), ("down-biased", down)]))
        }
    }
}
