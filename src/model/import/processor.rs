//! Picture processors of Hugging Face: what their configurations say, and the defaults that those leave out.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::json::{self, Object, bad};
use super::{CLIP_MEAN, CLIP_STD, Checks};
use crate::Result;
use crate::image::{Interpolation, Preprocess, ResizeMode, patches};

/// Defaults of a processor's class.
pub(super) struct Processor {
    /// What its class is called, before "ImageProcessor" and the like.
    pub(super) kinds: &'static [&'static str],
    mean: [f32; 3],
    std: [f32; 3],
    /// Resized by the shortest edge and cropped, or both edges to size.
    crops: bool,
    edge: usize,
    /// Keys of its files that its class ignores.
    ignored: &'static [&'static str],
}

/// CLIP's own, and those that equal it.
pub(super) const CLIP: Processor =
    Processor { kinds: &["CLIP", "ChineseCLIP"], mean: CLIP_MEAN, std: CLIP_STD, crops: true, edge: 224, ignored: &[] };
/// SigLIP's.
pub(super) const SIGLIP: Processor =
    Processor { kinds: &["Siglip"], mean: HALF, std: HALF, crops: false, edge: 224, ignored: &[] };
/// BLIP's.
pub(super) const BLIP: Processor = Processor {
    kinds: &["Blip"],
    mean: CLIP_MEAN,
    std: CLIP_STD,
    crops: false,
    edge: 384,
    ignored: &["do_pad", "size_divisor"],
};

/// Means and deviations that bring levels from 0..1 to -1..1.
const HALF: [f32; 3] = [0.5; 3];

/// What processors note beside their steps. Pictures are RGB here, whatever is said of converting them.
const NOTES: [&str; 10] = [
    "processor_class",
    "do_convert_rgb",
    "image_seq_length",
    "data_format",
    "input_data_format",
    "return_tensors",
    "device",
    "disable_grouping",
    "default_to_square",
    "_valid_processor_keys",
];

/// What CLIP's processor does by default, for pictures of this size.
pub(super) fn clip_at(size: (usize, usize)) -> Preprocess {
    Preprocess {
        size,
        mean: CLIP_MEAN,
        std: CLIP_STD,
        interpolation: Interpolation::Bicubic,
        resize_mode: ResizeMode::Shortest,
        fill: 0,
        rgb_first: true,
    }
}

/// The processor of pictures that keep their shape.
pub(super) fn read_loose(dir: &Path, checks: Checks) -> Result<Preprocess> {
    let (path, value) = find(dir)?;
    let cfg = Object::root(&path, &value, checks)?;
    check_class(&cfg, &["Siglip2"])?;
    let (edge, most) = (cfg.count("patch_size")?.unwrap_or(16), cfg.count("max_num_patches")?.unwrap_or(256));
    // More would not fit into memory, or not be worth the name of a patch.
    if !(2..=256).contains(&edge) || most > 1 << 14 {
        return Err(cfg.unsupported("patch_size"));
    }
    let interpolation = interpolation(&cfg, 2.0)?;
    let (mean, std) = normalisation(&cfg, HALF, HALF)?;
    finish(&cfg, &[])?;
    Ok(Preprocess {
        size: patches::carrier(edge, most),
        mean,
        std,
        interpolation,
        resize_mode: ResizeMode::Patches { edge, most },
        fill: 0,
        rgb_first: true,
    })
}

/// EfficientNet's processor: both edges to one size, the centre cut out of it, and levels of several steps, which are one here.
pub(super) fn read_efficientnet(dir: &Path, checks: Checks) -> Result<Preprocess> {
    let (path, value) = find(dir)?;
    let cfg = Object::root(&path, &value, checks)?;
    check_class(&cfg, &["EfficientNet"])?;
    // The class changed its mind about the default.
    if cfg.get("resample").is_none() {
        return Err(bad(&path, "resample is missing; expected 2 (bilinear) or 3 (bicubic)"));
    }
    let factor = cfg.number("rescale_factor")?.unwrap_or(1.0 / 255.0);
    let interpolation = filter(&cfg, 3.0)?;
    if !(factor.is_finite() && factor > 0.0) {
        return Err(cfg.unsupported("rescale_factor"));
    }
    let resized = match resize(&cfg, &Processor { edge: 346, ..SIGLIP })? {
        Resize::Exact(height, width) => (height, width),
        Resize::Shortest(_) => return Err(cfg.unsupported("size")),
    };
    let cut = match cfg.flag("do_center_crop")?.unwrap_or(false) {
        true if cfg.get("crop_size").is_none() => (289, 289),
        true => crop_size(&cfg)?,
        false => {
            cfg.harmless(&["crop_size"]);
            resized
        }
    };
    if cut.0 > resized.0 || cut.1 > resized.1 {
        return Err(cfg.unsupported("crop_size"));
    }
    // A byte b becomes b · factor − offset, then (… − mean) / deviation, then … / deviation once more.
    let offset = if cfg.flag("rescale_offset")?.unwrap_or(false) { 1.0 } else { 0.0 };
    let (first_mean, first_std) = (offset / (255.0 * factor), 1.0 / (255.0 * factor));
    let (mean, std) = normalisation(&cfg, HALF, HALF)?;
    let top = match cfg.flag("include_top")?.unwrap_or(true) {
        true => cfg.channels("image_std")?.unwrap_or(HALF),
        false => [1.0; 3],
    };
    finish(&cfg, &[])?;
    Ok(Preprocess {
        size: cut,
        mean: mean.map(|mean| (first_mean + f64::from(mean) * first_std) as f32),
        std: std::array::from_fn(|c| (first_std * f64::from(std[c]) * f64::from(top[c])) as f32),
        interpolation,
        resize_mode: match cut == resized {
            true => ResizeMode::Squash,
            false => ResizeMode::Centre { height: resized.0, width: resized.1 },
        },
        fill: 0,
        rgb_first: true,
    })
}

/// Refuses the processor of another class: what it leaves out would be filled up with this one's defaults.
fn check_class(cfg: &Object, kinds: &[&str]) -> Result<()> {
    let is_of = |class: &str, kind: &str| {
        class.strip_prefix(kind).is_some_and(|rest| rest.starts_with("ImageProcessor") || rest == "FeatureExtractor")
    };
    for key in ["image_processor_type", "feature_extractor_type"] {
        if cfg.text(key)?.is_some_and(|class| !kinds.iter().any(|kind| is_of(class, kind))) {
            return Err(cfg.unsupported(key));
        }
    }
    Ok(())
}

/// Refuses what nobody asked for: another step of the processor's.
fn finish(cfg: &Object, ignored: &[&str]) -> Result<()> {
    if !ignored.contains(&"do_pad") {
        cfg.refuse(&["do_pad"])?;
    }
    cfg.harmless(ignored);
    cfg.harmless(&NOTES);
    cfg.require_no_more()
}

/// Its configuration: a file of its own, or a place inside the newer one.
fn find(dir: &Path) -> Result<(PathBuf, Value)> {
    let plain = dir.join("preprocessor_config.json");
    let nested = dir.join("processor_config.json");
    if plain.is_file() {
        let value = json::read(&plain)?;
        return Ok((plain, value));
    }
    if nested.is_file() {
        let mut value = json::read(&nested)?;
        // Older files of this name say how both processors are called and nothing else.
        let Some(inner) = value.get_mut("image_processor").map(Value::take) else {
            return Err(bad(&nested, "there is no image_processor in it, and no preprocessor_config.json beside it"));
        };
        return Ok((nested, inner));
    }
    Ok((plain, Value::Object(Map::new())))
}

/// The filter, where pictures are resized and their bytes scaled to 0..1.
fn interpolation(cfg: &Object, default: f64) -> Result<Interpolation> {
    if cfg.number("rescale_factor")?.is_some_and(|factor| (factor * 255.0 - 1.0).abs() > 1e-6) {
        return Err(cfg.unsupported("rescale_factor"));
    }
    filter(cfg, default)
}

/// The filter, where pictures are resized and their bytes scaled.
fn filter(cfg: &Object, default: f64) -> Result<Interpolation> {
    for key in ["do_resize", "do_rescale"] {
        if cfg.flag(key)? == Some(false) {
            return Err(cfg.unsupported(key));
        }
    }
    match cfg.number("resample")?.unwrap_or(default) {
        3.0 => Ok(Interpolation::Bicubic),
        2.0 => Ok(Interpolation::Bilinear),
        _ => Err(cfg.unsupported("resample")),
    }
}

/// Means and deviations.
fn normalisation(cfg: &Object, mean: [f32; 3], std: [f32; 3]) -> Result<([f32; 3], [f32; 3])> {
    let normalise = cfg.flag("do_normalize")?.unwrap_or(true);
    let mean = cfg.channels("image_mean")?.unwrap_or(mean);
    let std = cfg.channels("image_std")?.unwrap_or(std);
    Ok(if normalise { (mean, std) } else { ([0.0; 3], [1.0; 3]) })
}

/// The picture processor: `preprocessor_config.json`, or its place inside the newer `processor_config.json`.
pub(super) fn read_preprocess(
    dir: &Path,
    image: (usize, usize),
    defaults: &Processor,
    checks: Checks,
) -> Result<Preprocess> {
    let (path, value) = find(dir)?;
    let cfg = Object::root(&path, &value, checks)?;
    check_class(&cfg, defaults.kinds)?;
    let interpolation = interpolation(&cfg, 3.0)?;
    let crop = match cfg.flag("do_center_crop")?.unwrap_or(defaults.crops) {
        true => Some(crop_size(&cfg)?),
        false => {
            cfg.harmless(&["crop_size"]);
            None
        }
    };
    let (resize_mode, size) = match resize(&cfg, defaults)? {
        Resize::Shortest(edge) => match crop {
            Some((height, width)) if height == edge && width == edge => (ResizeMode::Shortest, (edge, edge)),
            // Resizing to one size and cropping another: no model of this kind is known to be published that way.
            _ => return Err(cfg.unsupported("size")),
        },
        Resize::Exact(height, width) => match crop {
            None => (ResizeMode::Squash, (height, width)),
            Some(crop) if crop == (height, width) => (ResizeMode::Squash, crop),
            Some(_) => return Err(cfg.unsupported("crop_size")),
        },
    };
    if size != image && checks == Checks::Strict {
        let reason =
            format!("makes pictures of {} × {}, but the model takes {} × {}", size.1, size.0, image.1, image.0);
        return Err(bad(&path, reason));
    }
    let (mean, std) = normalisation(&cfg, defaults.mean, defaults.std)?;
    finish(&cfg, defaults.ignored)?;
    Ok(Preprocess { size: image, mean, std, interpolation, resize_mode, fill: 0, rgb_first: true })
}

enum Resize {
    Shortest(usize),
    Exact(usize, usize),
}

/// `size`: a number in the oldest files, then `{"shortest_edge": n}` or `{"height": h, "width": w}`.
fn resize(cfg: &Object, defaults: &Processor) -> Result<Resize> {
    let edge = defaults.edge;
    let Some(value) = cfg.get("size") else {
        return Ok(if defaults.crops { Resize::Shortest(edge) } else { Resize::Exact(edge, edge) });
    };
    if value.is_number() {
        let edge = cfg.count("size")?.unwrap_or(edge);
        return Ok(if defaults.crops { Resize::Shortest(edge) } else { Resize::Exact(edge, edge) });
    }
    let size = cfg.required("size")?;
    match (size.count("shortest_edge")?, size.count("height")?, size.count("width")?) {
        (Some(edge), None, None) if size.get("longest_edge").is_none() => Ok(Resize::Shortest(edge)),
        (None, Some(height), Some(width)) => Ok(Resize::Exact(height, width)),
        _ => Err(cfg.unsupported("size")),
    }
}

fn crop_size(cfg: &Object) -> Result<(usize, usize)> {
    let Some(value) = cfg.get("crop_size") else { return Ok((224, 224)) };
    if value.is_number() {
        let edge = cfg.count("crop_size")?.unwrap_or(224);
        return Ok((edge, edge));
    }
    let crop = cfg.required("crop_size")?;
    match (crop.count("height")?, crop.count("width")?) {
        (Some(height), Some(width)) => Ok((height, width)),
        _ => Err(cfg.unsupported("crop_size")),
    }
}
