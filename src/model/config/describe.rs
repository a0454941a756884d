//! A configuration in words, for the fingerprint of its space.

use super::{
    Activation, ImageConfig, ImagePool, ModelConfig, Projection, TextConfig, TextKind, TextPool, TransformerConfig,
    VisionConfig,
};
use crate::image::{Interpolation, Preprocess, ResizeMode};

impl ModelConfig {
    /// Everything that a vector depends on besides the weights, in words that stay the same from version to version: the
    /// fingerprint of an embedding space rests on them, and another wording would make every library look foreign.
    pub(crate) fn description(&self) -> String {
        let blocks = |t: &TransformerConfig| {
            let TransformerConfig { width, layers, heads, hidden, activation, norm_eps } = t;
            let activation = match activation {
                Activation::Gelu => "gelu",
                Activation::GeluTanh => "gelu-tanh",
                Activation::QuickGelu => "quick-gelu",
                Activation::Silu => "silu",
                Activation::Relu => "relu",
            };
            format!("width {width} layers {layers} heads {heads} hidden {hidden} {activation} eps {norm_eps:e}")
        };
        let mut text = format!("dim {}\nimage ", self.dim);
        match &self.image {
            ImageConfig::Plain(VisionConfig { transformer, image, patch, norm_pre, pool, norm_after_pool }) => {
                let pool = match pool {
                    ImagePool::Token => "token",
                    ImagePool::Average => "average",
                };
                text += &format!("{} size {image:?} patch {patch:?} ", blocks(transformer));
                text += &format!("pre {norm_pre} pool {pool} after {norm_after_pool}\n");
            }
            ImageConfig::Vit(config) => text += &format!("{config:?}\n"),
            ImageConfig::Trunk(config) => text += &format!("{config:?}\n"),
        }
        match &self.text {
            TextKind::Plain(TextConfig { transformer, context, vocabulary, causal, pool, projection }) => {
                let pool = match pool {
                    TextPool::First => "first".to_owned(),
                    TextPool::Last => "last".to_owned(),
                    TextPool::Largest => "largest".to_owned(),
                    TextPool::Token(id) => format!("token {id}"),
                    TextPool::Mean => "mean".to_owned(),
                };
                let projection = match projection {
                    Projection::None => "none".to_owned(),
                    Projection::Matrix => "matrix".to_owned(),
                    Projection::Biased => "biased".to_owned(),
                    other => format!("{other:?}"),
                };
                text += &format!("text {} context {context} vocabulary {vocabulary} ", blocks(transformer));
                text += &format!("causal {causal} pool {pool} projection {projection}\n");
            }
            TextKind::Reader(config) => text += &format!("text {config:?}\n"),
        }
        let Preprocess { size, mean, std, interpolation, resize_mode, fill, rgb_first } = &self.preprocess;
        let interpolation = match interpolation {
            Interpolation::Bilinear => "bilinear",
            Interpolation::Bicubic => "bicubic",
        };
        let resize_mode = match resize_mode {
            ResizeMode::Shortest => "shortest",
            ResizeMode::Longest => "longest",
            ResizeMode::Squash => "squash",
        };
        text += &format!("pixels {size:?} {mean:?} {std:?} {interpolation} {resize_mode} {fill} {rgb_first}\n");
        text
    }
}
