//! The residual networks of open_clip's own, told by a list of layers.

use super::json::{Object, bad};
use crate::Result;
use crate::model::config::{ImageConfig, Projection, Trunk, TrunkKind};
use crate::model::trunk::resnet::ResNetConfig;

/// Reads `vision_cfg` where `layers` is a list.
pub(super) fn read_vision(cfg: &Object, dim: usize) -> Result<ImageConfig> {
    let layers = cfg.get("layers").and_then(|value| {
        let counts: Vec<usize> = value.as_array()?.iter().filter_map(|n| Some(n.as_u64()? as usize)).collect();
        <[usize; 4]>::try_from(counts).ok()
    });
    let Some(layers) = layers.filter(|layers| layers.iter().all(|n| (1..=1024).contains(n))) else {
        return Err(cfg.unsupported("layers"));
    };
    let width = cfg.count("width")?.unwrap_or(768);
    let head_width = cfg.count("head_width")?.unwrap_or(64);
    let heads = width * 32 / head_width;
    if heads == 0 || !(width * 32).is_multiple_of(heads) || width < 2 {
        let reason = format!("{} = {width} does not divide into heads of {head_width}", cfg.dotted("width"));
        return Err(bad(&cfg.file(), reason));
    }
    let image = cfg.pair("image_size")?.unwrap_or((224, 224));
    if image.0 != image.1 {
        return Err(cfg.unsupported("image_size"));
    }
    // The patches of the other towers; and this one ends in a query, whatever the pool.
    cfg.harmless(&["patch_size", "pool_type", "mlp_ratio", "output_tokens", "patch_dropout"]);
    let kind = TrunkKind::ResNet(ResNetConfig { layers, width, heads, dim });
    Ok(ImageConfig::Trunk(Trunk { kind, image, projection: Projection::None }))
}
