//! How fast a model is on this machine: measured by `tintype models bench`, kept in the user's cache, shown in the list.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context;
use serde::{Deserialize, Serialize};
use tintype::model::PixelBatch;
use tintype::{Encode, Encoder};

use crate::args::Common;
use crate::output::replace;

/// Pictures of one call for each thread.
const PICTURES: usize = 8;

/// Texts of one call.
const TEXTS: usize = 64;

/// What was measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Speed {
    /// Pictures per second, decoded and of the right size, on all threads.
    pub(crate) pictures: f64,
    /// Short texts per second.
    pub(crate) texts: f64,
    /// Threads that there were.
    pub(crate) threads: usize,
    /// `f32`, `bf16` or `int8`; `auto` for the faster of the first two.
    pub(crate) precision: String,
    /// `cpu`, `cuda:0`.
    pub(crate) device: String,
}

/// Encodes noise and short texts for about `time` each, after a first call that builds the towers.
pub(crate) fn measure(encoder: &Encoder, common: &Common, time: Duration) -> anyhow::Result<Speed> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let preprocess = encoder.preprocess();
    let (height, width) = preprocess.size;
    let mut batch = PixelBatch::new(height, width);
    let mut state = 1_u32;
    for _ in 0..PICTURES * threads {
        let noise = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        batch.push(&preprocess.noise(noise));
    }
    let texts: Vec<String> = (0..TEXTS).map(|i| format!("a photo of {i} dogs that run on a beach")).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let pictures = rate(time, batch.len(), || encoder.encode_images(&batch).map(drop))?;
    let texts = rate(time, texts.len(), || encoder.encode_texts(&texts).map(drop))?;
    Ok(Speed { pictures, texts, threads, precision: common.precision.name(), device: common.device_name() })
}

/// Items per second, of whole calls that end once `time` is over.
fn rate(time: Duration, items: usize, mut call: impl FnMut() -> tintype::Result<()>) -> anyhow::Result<f64> {
    call()?;
    let (start, mut calls) = (Instant::now(), 0);
    while calls == 0 || start.elapsed() < time {
        call()?;
        calls += 1;
    }
    Ok((calls * items) as f64 / start.elapsed().as_secs_f64())
}

/// What was measured on this machine, by the model's name. A cache that cannot be read is one without entries.
pub(crate) fn noted() -> BTreeMap<String, Speed> {
    let read = |path: PathBuf| serde_json::from_slice(&std::fs::read(path).ok()?).ok();
    file().and_then(read).unwrap_or_default()
}

/// Keeps a measurement in place of the one before.
pub(crate) fn note(name: &str, speed: Speed) -> anyhow::Result<()> {
    let path = file().context("this system does not say where programs keep their caches")?;
    let mut all = noted();
    all.insert(name.to_owned(), speed);
    replace(&path, &serde_json::to_vec_pretty(&all)?)
}

fn file() -> Option<PathBuf> {
    dirs::cache_dir().map(|cache| cache.join("tintype").join("speed.json"))
}
