//! Towers of every other shape, and the plain ones as cases of them.

use super::{Activation, ImagePool, Pool, Projection, TextConfig, TextPool, TransformerConfig, Trunk, VisionConfig};
use crate::model::trunk::stem::StemConfig;

/// An image tower.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum ImageConfig {
    /// One that kernels are made for.
    Plain(VisionConfig),
    /// Any other vision transformer.
    Vit(VitConfig),
    /// Convolutions.
    Trunk(Trunk),
}

/// A text tower.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum TextKind {
    /// One that kernels are made for.
    Plain(TextConfig),
    /// Any other transformer over token ids.
    Reader(ReaderConfig),
}

/// A stack of attention blocks.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct BlocksConfig {
    /// Numbers per token.
    pub(crate) width: usize,
    /// Number of blocks.
    pub(crate) layers: usize,
    /// Attention heads; divides `width`.
    pub(crate) heads: usize,
    /// Width inside the feed-forward half of a block.
    pub(crate) hidden: usize,
    /// Its activation; with a gate, the gate's.
    pub(crate) activation: Activation,
    /// Added to the variance in every norm of the tower.
    pub(crate) norm_eps: f64,
    /// Where a block's two norms stand.
    pub(crate) order: NormOrder,
    /// Whether the feed-forward half is the product of two maps, one of them activated.
    pub(crate) gated: bool,
    /// A norm of what attention gathered, before its last map.
    pub(crate) norm_attention: bool,
    /// Another norm at the entry of the feed-forward half.
    pub(crate) norm_feed: bool,
    /// A norm inside the feed-forward half.
    pub(crate) norm_hidden: bool,
    /// Factors for each channel of what a half adds.
    pub(crate) layer_scale: bool,
    /// Whether norms divide by the root mean square and do nothing else.
    pub(crate) root_mean_square: bool,
    /// Whether the maps have a bias.
    pub(crate) biased: bool,
}

/// Where the norms of a block stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NormOrder {
    /// At the entry of each half.
    Before,
    /// At the end of each half, before it is added.
    Branch,
    /// After each sum.
    After,
}

/// A vision transformer.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct VitConfig {
    /// Its blocks.
    pub(crate) blocks: BlocksConfig,
    /// Height and width of the pictures.
    pub(crate) image: (usize, usize),
    /// How pictures become tokens.
    pub(crate) stem: Stem,
    /// Whether there is a class token.
    pub(crate) class: bool,
    /// Which tokens have a learned position.
    pub(crate) positions: Positions,
    /// A norm before the first block.
    pub(crate) norm_pre: bool,
    /// Queries and keys turn with their place in the grid.
    pub(crate) rotation: Option<Grid>,
    /// A norm of all tokens before pooling.
    pub(crate) norm_tokens: bool,
    /// A second token, after that of the class, from which the embedding's spread is made.
    pub(crate) spread: bool,
    /// Which tokens become the embedding.
    pub(crate) pool: Pool,
    /// A norm of the pooled vector, the same as that of the tokens where both are asked for.
    pub(crate) norm_pooled: bool,
    /// The last map.
    pub(crate) projection: Projection,
}

/// How pictures become tokens.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Stem {
    /// A linear map of patches.
    Patches {
        /// Height and width of a patch.
        size: (usize, usize),
        /// Whether the map has a bias.
        biased: bool,
        /// Whether its results are normalised before they get a position.
        norm: bool,
    },
    /// A linear map of the patches of a picture that keeps its shape. Its weights run over pixels and then channels.
    Loose {
        /// Height and width of a patch.
        edge: usize,
        /// Rows and columns of learned positions, which are resampled for each picture.
        table: usize,
        /// Most patches of a picture.
        most: usize,
    },
    /// Convolutions.
    Convolutions(StemConfig),
}

/// Which tokens of a grid have a learned position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Positions {
    /// All, the class token included.
    All,
    /// Those of the grid.
    Patches,
    /// None.
    None,
}

/// Coordinates of a grid, for rotations.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Grid {
    /// Rows and columns that the grid is stretched to.
    pub(crate) reference: (usize, usize),
    /// Added to each number of a row or column.
    pub(crate) offset: f32,
    /// Whether the column turns the first half of the pairs.
    pub(crate) columns_first: bool,
}

/// One query that looks at all tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AttentionPool {
    /// Width of the query and of the result.
    pub(crate) width: usize,
    /// Heads; divides `width`.
    pub(crate) heads: usize,
    /// Queries in the checkpoint, of which the first is the picture's.
    pub(crate) queries: usize,
    /// Whether query and tokens are normalised first.
    pub(crate) norms: bool,
    /// Whether the query goes through a map of its own, and maps have biases.
    pub(crate) mapped: bool,
    /// Width inside a feed-forward half that follows, if one does.
    pub(crate) hidden: Option<usize>,
    /// Its activation.
    pub(crate) activation: Activation,
}

/// A transformer over token ids.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ReaderConfig {
    /// Its blocks.
    pub(crate) blocks: BlocksConfig,
    /// Most tokens per text.
    pub(crate) context: usize,
    /// Number of token ids.
    pub(crate) vocabulary: usize,
    /// What tells the places of tokens.
    pub(crate) place: Place,
    /// Factor of the token vectors.
    pub(crate) token_scale: f32,
    /// Number of kinds of segments; a text is of the first kind.
    pub(crate) segments: Option<usize>,
    /// A norm of the sum of token, place and segment.
    pub(crate) norm_embedding: bool,
    /// Whether a token sees only those before it.
    pub(crate) causal: bool,
    /// A learned token at the end of the context, which becomes the embedding.
    pub(crate) class: bool,
    /// Another one before it, and the embedding's spread, which is made from the embedding.
    pub(crate) spread: bool,
    /// Which tokens nobody sees.
    pub(crate) padding: Padding,
    /// A norm of the pooled vector.
    pub(crate) norm_post: bool,
    /// Which token becomes the embedding.
    pub(crate) pool: TextPool,
    /// A map after pooling.
    pub(crate) pooler: Option<Pooler>,
    /// The last map.
    pub(crate) projection: Projection,
}

/// A map between the pooled token and the last map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pooler {
    /// Numbers that it puts out.
    pub(crate) width: usize,
    /// Whether tanh follows.
    pub(crate) tanh: bool,
}

/// What tells the places of tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// A table; the first token stands in row `first`, and padding does not count.
    Learned {
        /// Rows of the table.
        rows: usize,
        /// The first token's row.
        first: usize,
    },
    /// Sines and cosines of this first place, halves one after the other.
    Waves {
        /// The first token's place.
        first: usize,
    },
}

/// Which tokens nobody sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Padding {
    /// All are seen.
    Seen,
    /// Those with this id.
    Hidden(u32),
    /// Those after one with this id: a mask that was shifted by one place when its model was trained, and stays so.
    HiddenNext(u32),
}

impl BlocksConfig {
    /// Pre-norm blocks without any extras.
    pub(crate) fn plain(config: &TransformerConfig) -> Self {
        let TransformerConfig { width, layers, heads, hidden, activation, norm_eps } = *config;
        Self {
            width,
            layers,
            heads,
            hidden,
            activation,
            norm_eps,
            order: NormOrder::Before,
            gated: false,
            norm_attention: false,
            norm_feed: false,
            norm_hidden: false,
            layer_scale: false,
            root_mean_square: false,
            biased: true,
        }
    }
}

impl VitConfig {
    /// Patches, class token, learned positions, a matrix at the end.
    pub(crate) fn plain(config: &VisionConfig) -> Self {
        let pool = match config.pool {
            ImagePool::Token => Pool::Token,
            ImagePool::Average => Pool::Average,
        };
        Self {
            blocks: BlocksConfig::plain(&config.transformer),
            image: config.image,
            stem: Stem::Patches { size: config.patch, biased: false, norm: false },
            class: true,
            positions: Positions::All,
            norm_pre: config.norm_pre,
            rotation: None,
            norm_tokens: !config.norm_after_pool,
            spread: false,
            pool,
            norm_pooled: config.norm_after_pool,
            projection: Projection::Matrix,
        }
    }

    /// Tokens down and across; of the learned positions, where pictures have grids of their own.
    pub(crate) fn grid(&self) -> (usize, usize) {
        match &self.stem {
            Stem::Patches { size, .. } => (self.image.0 / size.0, self.image.1 / size.1),
            Stem::Loose { table, .. } => (*table, *table),
            Stem::Convolutions(stem) => stem.grid(self.image),
        }
    }

    /// Tokens before those of the picture.
    pub(crate) fn prefix(&self) -> usize {
        usize::from(self.class) + usize::from(self.spread)
    }

    /// Width of the pooled vector.
    pub(crate) fn pooled_width(&self) -> usize {
        match self.pool {
            Pool::Attention(pool) => pool.width,
            Pool::Token | Pool::Average => self.blocks.width,
        }
    }
}

impl ImageConfig {
    /// Height and width of the pictures.
    pub(crate) fn size(&self) -> (usize, usize) {
        match self {
            ImageConfig::Plain(config) => config.image,
            ImageConfig::Vit(config) => config.image,
            ImageConfig::Trunk(trunk) => trunk.image(),
        }
    }
}

impl ImageConfig {
    /// The vision transformer that it is, if it is one.
    pub(crate) fn vit(&self) -> Option<VitConfig> {
        match self {
            ImageConfig::Plain(config) => Some(VitConfig::plain(config)),
            ImageConfig::Vit(config) => Some(config.clone()),
            ImageConfig::Trunk(_) => None,
        }
    }

    /// Numbers per picture that its last map takes, if it is a vision transformer that ends with one matrix.
    pub(crate) fn features(&self) -> Option<usize> {
        let vit = self.vit()?;
        let ends = matches!(vit.projection, Projection::Matrix | Projection::Biased) && !vit.spread;
        ends.then(|| vit.pooled_width())
    }
}

impl ReaderConfig {
    /// Learned positions, the norm at the end, one token pooled.
    pub(crate) fn plain(config: &TextConfig) -> Self {
        Self {
            blocks: BlocksConfig::plain(&config.transformer),
            context: config.context,
            vocabulary: config.vocabulary,
            place: Place::Learned { rows: config.context, first: 0 },
            token_scale: 1.0,
            segments: None,
            norm_embedding: false,
            causal: config.causal,
            class: false,
            spread: false,
            padding: Padding::Seen,
            norm_post: true,
            pool: config.pool,
            pooler: None,
            projection: config.projection,
        }
    }

    /// Tokens after those of the text.
    pub(crate) fn suffix(&self) -> usize {
        usize::from(self.class) + usize::from(self.spread)
    }
}

impl TextKind {
    /// The reader that it is.
    pub(crate) fn reader(&self) -> ReaderConfig {
        match self {
            TextKind::Plain(config) => ReaderConfig::plain(config),
            TextKind::Reader(config) => config.clone(),
        }
    }

    /// Most tokens per text, and the number of ids.
    pub(crate) fn sizes(&self) -> (usize, usize) {
        match self {
            TextKind::Plain(config) => (config.context, config.vocabulary),
            TextKind::Reader(config) => (config.context, config.vocabulary),
        }
    }
}
