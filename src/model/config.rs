//! The normal form of a dual encoder, whatever the checkpoint's own dialect.
//!
//! The towers are built from this and from nothing else, so a new dialect is a new importer and no change to the arithmetic.
//! [`ModelConfig::tensors`] is the one list of the tensors that a model consists of: loading checks a checkpoint against it,
//! and the towers ask for the same names.
//!
//! Matrices are `(out, in)` and are applied as `x · Wᵀ`; the three attention projections are one matrix, query first.

use crate::image::{Interpolation, Preprocess, ResizeMode};

/// A dual encoder: two towers into one space, and what the pictures must look like.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ModelConfig {
    /// Numbers per embedding.
    pub(crate) dim: usize,
    /// The image tower.
    pub(crate) vision: VisionConfig,
    /// The text tower.
    pub(crate) text: TextConfig,
    /// How pictures are resized, cropped and normalised.
    pub(crate) preprocess: Preprocess,
}

/// A stack of pre-norm transformer blocks.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TransformerConfig {
    /// Numbers per token.
    pub(crate) width: usize,
    /// Number of blocks.
    pub(crate) layers: usize,
    /// Attention heads; divides `width`.
    pub(crate) heads: usize,
    /// Width inside the feed-forward half of a block.
    pub(crate) hidden: usize,
    /// Its activation.
    pub(crate) activation: Activation,
    /// Added to the variance in every layer norm of the tower.
    pub(crate) norm_eps: f64,
}

/// The non-linearity of the feed-forward half.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Activation {
    /// `x · Φ(x)`, exact.
    Gelu,
    /// The same with tanh for the normal distribution.
    GeluTanh,
    /// `x · σ(1.702 x)`: what the first CLIP models were trained with.
    QuickGelu,
}

/// The image tower: patches, a class token, a transformer.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct VisionConfig {
    /// Its blocks.
    pub(crate) transformer: TransformerConfig,
    /// Height and width of the pictures.
    pub(crate) image: (usize, usize),
    /// Height and width of a patch.
    pub(crate) patch: (usize, usize),
    /// Whether there is a layer norm before the first block.
    pub(crate) norm_pre: bool,
    /// Which tokens become the embedding.
    pub(crate) pool: ImagePool,
    /// Whether the last layer norm comes after pooling (it differs for an average only).
    pub(crate) norm_after_pool: bool,
}

/// How the image tower's tokens become one vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ImagePool {
    /// The class token.
    Token,
    /// The mean of all patches, without the class token.
    Average,
}

/// The text tower.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TextConfig {
    /// Its blocks.
    pub(crate) transformer: TransformerConfig,
    /// Most tokens per text.
    pub(crate) context: usize,
    /// Number of token ids.
    pub(crate) vocabulary: usize,
    /// Whether a token sees only those before it.
    pub(crate) causal: bool,
    /// Which token becomes the embedding.
    pub(crate) pool: TextPool,
    /// The last linear map.
    pub(crate) projection: Projection,
}

/// Which position of a text becomes its vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TextPool {
    /// The first.
    First,
    /// The last of the context, padding included.
    Last,
    /// The first of those with the largest id, which is where the end-of-text token of CLIP's vocabulary stands.
    Largest,
    /// The first with this id; the first of all where there is none.
    Token(u32),
}

/// The map from a tower's width into the common space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Projection {
    /// None: the width is the dimension.
    None,
    /// A matrix.
    Matrix,
    /// A matrix and a bias.
    Biased,
}

/// A tensor's name in the normal form, and its shape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TensorSpec {
    /// For example `image.blocks.3.mlp.up.weight`.
    pub(crate) name: String,
    /// Outermost dimension first.
    pub(crate) shape: Vec<usize>,
}

impl VisionConfig {
    /// Patches down and across.
    pub(crate) fn grid(&self) -> (usize, usize) {
        (self.image.0 / self.patch.0, self.image.1 / self.patch.1)
    }
}

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
            };
            format!("width {width} layers {layers} heads {heads} hidden {hidden} {activation} eps {norm_eps:e}")
        };
        let VisionConfig { transformer, image, patch, norm_pre, pool, norm_after_pool } = &self.vision;
        let pool = match pool {
            ImagePool::Token => "token",
            ImagePool::Average => "average",
        };
        let mut text = format!("dim {}\nimage {} ", self.dim, blocks(transformer));
        text += &format!("size {image:?} patch {patch:?} pre {norm_pre} pool {pool} after {norm_after_pool}\n");
        let TextConfig { transformer, context, vocabulary, causal, pool, projection } = &self.text;
        let pool = match pool {
            TextPool::First => "first".to_owned(),
            TextPool::Last => "last".to_owned(),
            TextPool::Largest => "largest".to_owned(),
            TextPool::Token(id) => format!("token {id}"),
        };
        let projection = match projection {
            Projection::None => "none",
            Projection::Matrix => "matrix",
            Projection::Biased => "biased",
        };
        text += &format!("text {} context {context} vocabulary {vocabulary} ", blocks(transformer));
        text += &format!("causal {causal} pool {pool} projection {projection}\n");
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

    /// Every tensor of the model.
    pub(crate) fn tensors(&self) -> Vec<TensorSpec> {
        let mut list = Vec::new();
        let (image, text) = (&self.vision, &self.text);
        let width = image.transformer.width;
        let (rows, columns) = image.grid();
        push(&mut list, "image.patch.weight", &[width, 3, image.patch.0, image.patch.1]);
        push(&mut list, "image.class", &[width]);
        push(&mut list, "image.position", &[rows * columns + 1, width]);
        if image.norm_pre {
            push_affine(&mut list, "image.norm_pre", &[width]);
        }
        push_blocks(&mut list, "image", &image.transformer);
        push_affine(&mut list, "image.norm_post", &[width]);
        push(&mut list, "image.projection.weight", &[self.dim, width]);

        let width = text.transformer.width;
        push(&mut list, "text.token", &[text.vocabulary, width]);
        push(&mut list, "text.position", &[text.context, width]);
        push_blocks(&mut list, "text", &text.transformer);
        push_affine(&mut list, "text.norm_post", &[width]);
        match text.projection {
            Projection::None => {}
            Projection::Matrix => push(&mut list, "text.projection.weight", &[self.dim, width]),
            Projection::Biased => push_affine(&mut list, "text.projection", &[self.dim, width]),
        }
        list
    }
}

fn push(list: &mut Vec<TensorSpec>, name: &str, shape: &[usize]) {
    list.push(TensorSpec { name: name.to_owned(), shape: shape.to_vec() });
}

/// A weight of `shape` and a bias as long as its first dimension.
fn push_affine(list: &mut Vec<TensorSpec>, name: &str, shape: &[usize]) {
    push(list, &format!("{name}.weight"), shape);
    push(list, &format!("{name}.bias"), &shape[..1]);
}

fn push_blocks(list: &mut Vec<TensorSpec>, tower: &str, config: &TransformerConfig) {
    let (width, hidden) = (config.width, config.hidden);
    for i in 0..config.layers {
        let block = format!("{tower}.blocks.{i}");
        push_affine(list, &format!("{block}.norm_1"), &[width]);
        push_affine(list, &format!("{block}.attention.qkv"), &[3 * width, width]);
        push_affine(list, &format!("{block}.attention.out"), &[width, width]);
        push_affine(list, &format!("{block}.norm_2"), &[width]);
        push_affine(list, &format!("{block}.mlp.up"), &[hidden, width]);
        push_affine(list, &format!("{block}.mlp.down"), &[width, hidden]);
    }
}
