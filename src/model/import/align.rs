//! The image tower of ALIGN in Hugging Face's form: an EfficientNet whose blocks follow from a few lists and two factors.

use std::path::Path;

use super::Checks;
use super::json::{Object, bad};
use super::processor;
use crate::Result;
use crate::image::Preprocess;
use crate::model::config::{ImageConfig, Projection, Trunk, TrunkKind};
use crate::model::trunk::efficientnet::{BlockConfig, EfficientNetConfig};

/// Reads `vision_config`. The network takes pictures of any size, and [`take_size`] says later which.
pub(super) fn read_vision(cfg: &Object) -> Result<ImageConfig> {
    let wide = cfg.number("width_coefficient")?.unwrap_or(2.0);
    let deep = cfg.number("depth_coefficient")?.unwrap_or(3.1);
    let divisor = cfg.count("depth_divisor")?.unwrap_or(8);
    let squeeze = cfg.number("squeeze_expansion_ratio")?.unwrap_or(0.25);
    if !(0.0..=100.0).contains(&wide) || !(0.0..=100.0).contains(&deep) || !(0.0..=1.0).contains(&squeeze) {
        return Err(bad(&cfg.file(), format!("no network is {wide} times as wide and {deep} times as deep")));
    }
    if !matches!(cfg.text("hidden_act")?, None | Some("swish" | "silu")) {
        return Err(cfg.unsupported("hidden_act"));
    }
    if !matches!(cfg.text("pooling_type")?, None | Some("mean")) {
        return Err(cfg.unsupported("pooling_type"));
    }
    if cfg.count("num_channels")?.is_some_and(|n| n != 3) {
        return Err(cfg.unsupported("num_channels"));
    }
    let list = |key: &str, default: [usize; 7]| cfg.counts(key).map(|found| found.unwrap_or(default.to_vec()));
    let kernels = list("kernel_sizes", [3, 3, 5, 3, 5, 5, 3])?;
    let inputs = list("in_channels", [32, 16, 24, 40, 80, 112, 192])?;
    let outputs = list("out_channels", [16, 24, 40, 80, 112, 192, 320])?;
    let strides = list("strides", [1, 2, 2, 2, 1, 2, 1])?;
    let repeats = list("num_block_repeats", [1, 2, 2, 3, 3, 4, 1])?;
    let ratios = list("expand_ratios", [1, 6, 6, 6, 6, 6, 6])?;
    let even = cfg.places("depthwise_padding")?;
    let stages = inputs.len();
    if [&kernels, &outputs, &strides, &repeats, &ratios].iter().any(|list| list.len() != stages) {
        return Err(bad(&cfg.file(), "the lists of the network's stages are not of one length"));
    }
    if kernels.iter().any(|k| k % 2 == 0 || *k > 31) || strides.iter().any(|&s| s > 2) {
        return Err(cfg.unsupported("kernel_sizes"));
    }
    let rounded = |channels: usize| rounded(channels, wide, divisor);
    let mut blocks: Vec<BlockConfig> = Vec::new();
    for stage in 0..stages {
        for i in 0..(deep * repeats[stage] as f64).ceil() as usize {
            let first = i == 0;
            let outputs = rounded(outputs[stage]);
            let inputs = if first { rounded(inputs[stage]) } else { outputs };
            let stride = if first { strides[stage] } else { 1 };
            if blocks.len() > 1000 {
                return Err(cfg.unsupported("num_block_repeats"));
            }
            blocks.push(BlockConfig {
                inputs,
                inner: inputs * ratios[stage],
                squeezed: ((inputs as f64 * squeeze) as usize).max(1),
                outputs,
                kernel: kernels[stage],
                stride,
                even: even.contains(&blocks.len()),
                residual: stride == 1 && !first,
            });
        }
    }
    if blocks.windows(2).any(|pair| pair[0].outputs != pair[1].inputs) {
        return Err(bad(&cfg.file(), "in_channels and out_channels of the network's stages do not fit together"));
    }
    let norm_eps = cfg.number("batch_norm_eps")?.unwrap_or(1e-3);
    let kind = TrunkKind::EfficientNet(EfficientNetConfig { stem: rounded(32), blocks, norm_eps });
    Ok(ImageConfig::Trunk(Trunk { kind, image: (1, 1), projection: Projection::None }))
}

/// The size of the pictures that the processor makes.
pub(super) fn take_size(image: &mut ImageConfig, size: (usize, usize)) {
    if let ImageConfig::Trunk(trunk) = image {
        trunk.image = size;
    }
}

/// The processor, which says how large pictures are.
pub(super) fn read_preprocess(dir: &Path, checks: Checks) -> Result<Preprocess> {
    processor::read_efficientnet(dir, checks)
}

/// The nearest multiple of `divisor`, but none that is smaller by more than a tenth.
fn rounded(channels: usize, wide: f64, divisor: usize) -> usize {
    let (channels, step) = (channels as f64 * wide, divisor as f64);
    let near = ((channels + step / 2.0) / step).floor() * step;
    let near = near.max(step);
    (if near < 0.9 * channels { near + step } else { near }) as usize
}
