//! The normal form of a dual encoder, whatever the checkpoint's own dialect.
//!
//! The towers are built from this and from nothing else, so a new dialect is a new importer and no change to the arithmetic.
//! What kernels are made for has types of its own ([`VisionConfig`], [`TextConfig`]); every other transformer is a
//! [`VitConfig`] or a [`ReaderConfig`], of which those are the plain cases, and convolutional trunks are [`Trunk`]s.
//! [`ModelConfig::tensors`] is the list of the tensors that a model consists of: loading checks a checkpoint against it. It
//! is what the towers' own loading code asks for.
//!
//! Matrices are `(out, in)` and are applied as `x · Wᵀ`; the three attention projections are one matrix, query first.

mod describe;
mod wide;

pub(crate) use self::wide::{
    AttentionPool, BlocksConfig, Grid, ImageConfig, NormOrder, Padding, Place, Pooler, Positions, ReaderConfig, Stem,
    TextKind, VitConfig,
};
use super::loader::Loader;
use super::text::Text;
use super::tower::ImageTower;
pub(crate) use super::trunk::{Trunk, TrunkKind};
use crate::Result;
use crate::image::Preprocess;

/// A dual encoder: two towers into one space, and what the pictures must look like.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ModelConfig {
    /// Numbers per embedding.
    pub(crate) dim: usize,
    /// The image tower.
    pub(crate) image: ImageConfig,
    /// The text tower.
    pub(crate) text: TextKind,
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
    /// `x · σ(x)`.
    Silu,
    /// `max(x, 0)`.
    Relu,
}

/// The image tower that kernels are made for: patches, a class token, a transformer.
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

/// How an image tower's tokens become one vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pool {
    /// The class token.
    Token,
    /// The mean of all patches, without the class token.
    Average,
    /// What a query finds in all tokens.
    Attention(AttentionPool),
}

/// The text tower that kernels are made for.
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
    /// The mean of all that are no padding.
    Mean,
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
    /// Two matrices with a GELU between them.
    TwoLayers {
        /// Width between them.
        hidden: usize,
        /// Whether each has a bias.
        biases: (bool, bool),
    },
}

/// A tensor's name in the normal form, and its shape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TensorSpec {
    /// For example `image.blocks.3.mlp.up.weight`.
    pub(crate) name: String,
    /// Outermost dimension first.
    pub(crate) shape: Vec<usize>,
}

impl ModelConfig {
    /// Every tensor of the model.
    pub(crate) fn tensors(&self) -> Result<Vec<TensorSpec>> {
        Loader::list(|loader| {
            ImageTower::load(loader, &self.image, &self.preprocess, self.dim)?;
            Text::list(loader, &self.text, self.dim)
        })
    }
}
