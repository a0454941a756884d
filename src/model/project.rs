//! The last map of a tower, into the space that both share.

use candle_core::{Result as TensorResult, Tensor};

use super::config::{Activation, Projection};
use super::linear::Linear;
use super::loader::Loader;
use crate::Result;

/// How far a tower is evaluated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Depth {
    /// Up to what its last map is applied to.
    Features,
    /// To the end.
    Embeddings,
}

/// A projection, or none.
#[derive(Debug)]
pub(super) enum Head {
    None,
    Linear(Linear),
    TwoLayers(Linear, Linear),
}

impl Head {
    /// Reads the map called `name` from `width` to `dim`.
    pub(super) fn load(loader: &Loader, name: &str, projection: Projection, width: usize, dim: usize) -> Result<Self> {
        Ok(match projection {
            Projection::None => Head::None,
            Projection::Matrix => Head::Linear(loader.linear(name, dim, width, false)?),
            Projection::Biased => Head::Linear(loader.linear(name, dim, width, true)?),
            Projection::TwoLayers { hidden, biases: (up, down) } => Head::TwoLayers(
                loader.linear(&format!("{name}.up"), hidden, width, up)?,
                loader.linear(&format!("{name}.down"), dim, hidden, down)?,
            ),
        })
    }

    /// `(batch, width)` to `(batch, dim)`.
    pub(super) fn forward(&self, x: &Tensor) -> TensorResult<Tensor> {
        match self {
            Head::None => Ok(x.clone()),
            Head::Linear(linear) => linear.forward(x),
            Head::TwoLayers(up, down) => down.forward(&up.forward_activated(x, Activation::Gelu)?),
        }
    }
}
