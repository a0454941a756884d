//! Image towers of convolutions, and convolutional stems of transformers, on tensors. Each trunk is one file; what it loads is
//! also what the processor's kernels are packed from ([`cpu`](super::cpu)).

pub(crate) mod convnext;
pub(crate) mod efficientnet;
pub(crate) mod fastvit;
pub(crate) mod resnet;
pub(crate) mod stem;

use candle_core::{Result as TensorResult, Tensor};

use super::config::Projection;
use super::loader::Loader;
use super::project::Head;
use crate::Result;

/// A trunk of convolutions and the map after it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Trunk {
    /// Which one.
    pub(crate) kind: TrunkKind,
    /// Height and width of the pictures.
    pub(crate) image: (usize, usize),
    /// The last map.
    pub(crate) projection: Projection,
}

/// The kinds of trunks.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum TrunkKind {
    /// Bottlenecks with antialiased strides, pooled by attention.
    ResNet(resnet::ResNetConfig),
    /// Depthwise 7 × 7 convolutions with channel mixing as in transformers.
    ConvNext(convnext::ConvNextConfig),
    /// Blocks that widen, look around, weigh their channels and narrow.
    EfficientNet(efficientnet::EfficientNetConfig),
    /// Depthwise mixing whose training branches are folded, with attention in the last stages.
    FastVit(fastvit::FastVitConfig),
}

/// A loaded trunk.
#[derive(Debug)]
pub(super) struct TrunkTower {
    kind: Kind,
    head: Head,
}

#[derive(Debug)]
enum Kind {
    ResNet(resnet::ResNet),
    ConvNext(convnext::ConvNext),
    EfficientNet(efficientnet::EfficientNet),
    FastVit(fastvit::FastVit),
}

impl Trunk {
    /// Height and width of the pictures.
    pub(crate) fn image(&self) -> (usize, usize) {
        self.image
    }

    /// Width of the pooled vector.
    pub(crate) fn features(&self) -> usize {
        match &self.kind {
            TrunkKind::ResNet(config) => config.features(),
            TrunkKind::ConvNext(config) => config.features(),
            TrunkKind::EfficientNet(config) => config.features(),
            TrunkKind::FastVit(config) => config.features(),
        }
    }
}

impl TrunkTower {
    /// Reads the trunk and its last map.
    pub(super) fn load(loader: &Loader, config: &Trunk, dim: usize) -> Result<Self> {
        let kind = match &config.kind {
            TrunkKind::ResNet(c) => Kind::ResNet(resnet::ResNet::load(loader, c, config.image)?),
            TrunkKind::ConvNext(c) => Kind::ConvNext(convnext::ConvNext::load(loader, c)?),
            TrunkKind::EfficientNet(c) => Kind::EfficientNet(efficientnet::EfficientNet::load(loader, c)?),
            TrunkKind::FastVit(c) => Kind::FastVit(fastvit::FastVit::load(loader, c)?),
        };
        let width = config.features();
        Ok(Self { kind, head: Head::load(loader, "image.projection", config.projection, width, dim)? })
    }

    /// `(batch, 3, height, width)` to `(batch, dim)`, not normalised.
    pub(super) fn forward(&self, x: &Tensor) -> TensorResult<Tensor> {
        let pooled = match &self.kind {
            Kind::ResNet(trunk) => trunk.forward(x)?,
            Kind::ConvNext(trunk) => trunk.forward(x)?,
            Kind::EfficientNet(trunk) => trunk.forward(x)?,
            Kind::FastVit(trunk) => trunk.forward(x)?,
        };
        self.head.forward(&pooled)
    }
}
