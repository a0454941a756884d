//! How long a folder takes, and which stage takes it.
//!
//! ```text
//! cargo bench --bench ingest                      20,000 generated pictures of 160 × 120
//! cargo bench --bench ingest -- --count 2000      fewer
//! cargo bench --bench ingest -- --photos DIR      your own
//! cargo bench --bench ingest -- --photos DIR --model DIR --precision int8      with another model than the built-in one
//! ```
//! Prints wall time and, on Linux, processor time of: the first run, the second run over unchanged files, and each stage alone
//! on one thread. Names have spaces, umlauts and up to 255 bytes.

#![allow(clippy::print_stdout, clippy::unwrap_used, missing_docs)]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tintype::image::{DecodeOptions, Metadata, Photo};
use tintype::model::{EncoderOptions, Precision};
use tintype::{Encode, Encoder, Engine, PixelBatch};

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let value = |name: &str| arguments.iter().position(|a| a == name).and_then(|at| arguments.get(at + 1)).cloned();
    let work = tempfile::tempdir().unwrap();
    let photos = match value("--photos") {
        Some(dir) => PathBuf::from(dir),
        None => {
            let count = value("--count").map_or(20_000, |count| count.parse().unwrap());
            let dir = work.path().join("photos");
            let ((), time) = timed(|| generate(&dir, count));
            println!("{count} pictures generated in {}", show(time));
            dir
        }
    };
    let precision = match value("--precision").as_deref() {
        None => Precision::Auto,
        Some("f32") => Precision::F32,
        Some("bf16") => Precision::Bf16,
        Some("int8") => Precision::Int8,
        Some(other) => panic!("no precision is called {other}"),
    };
    let options = EncoderOptions::default().precision(precision);
    let encoder = match value("--model") {
        Some(dir) => Encoder::load_with(dir, &options).unwrap(),
        None => Encoder::builtin_with(&options).unwrap(),
    };
    let encoder: Arc<dyn Encode> = encoder.into();
    let engine = Engine::create(work.path().join("library"), Arc::clone(&encoder)).unwrap();
    for name in ["first run", "second run", "third run"] {
        let (report, time) = timed(|| engine.ingest([&photos]).run().unwrap());
        let files = report.added + report.unchanged;
        println!(
            "{name}: {} added, {} unchanged, {} skipped in {}: {:.0} files/s",
            report.added,
            report.unchanged,
            report.skipped.len(),
            show(time),
            files as f64 / time.0.as_secs_f64()
        );
    }
    println!("library: {:.1} MB", engine.status().unwrap().bytes as f64 / 1e6);
    let (_, time) = timed(|| engine.verify().unwrap());
    println!("verify: {}", show(time));
    stages(&photos, &*encoder);
}

/// Each stage alone, over up to 2,000 of the files, on one thread (but for the encoder, which takes what it wants).
fn stages(photos: &Path, encoder: &dyn Encode) {
    let files: Vec<PathBuf> = ignore::Walk::new(photos)
        .flatten()
        .filter(|entry| entry.file_type().is_some_and(|kind| kind.is_file()))
        .map(ignore::DirEntry::into_path)
        .take(2000)
        .collect();
    let count = files.len();
    let print = |name: &str, time: (Duration, Duration)| {
        println!("  {name:<10} {:>7.1} µs per file of processor time", time.1.as_secs_f64() * 1e6 / count as f64);
    };
    println!("stages, {count} files:");
    let (contents, time) = timed(|| files.iter().map(|path| std::fs::read(path).unwrap()).collect::<Vec<_>>());
    print("read", time);
    let (_, time) = timed(|| contents.iter().map(|data| blake3::hash(data)).collect::<Vec<_>>());
    print("hash", time);
    let (_, time) = timed(|| contents.iter().map(|data| Metadata::read(data)).collect::<Vec<_>>());
    print("metadata", time);
    let options = DecodeOptions::default();
    let decode = |data: &Vec<u8>| Photo::decode_for(data, &options, encoder.preprocess()).ok();
    let (_, decoding) = timed(|| contents.iter().filter_map(decode).count());
    print("decode", decoding);
    let size = encoder.preprocess().size;
    let (batches, both) = timed(|| {
        let batch = |group: &[Vec<u8>]| {
            let mut batch = PixelBatch::new(size.0, size.1);
            group.iter().filter_map(decode).for_each(|photo| batch.push(&encoder.preprocess().apply(&photo).unwrap()));
            batch
        };
        contents.chunks(32).map(batch).collect::<Vec<_>>()
    });
    print("resize", (both.0.saturating_sub(decoding.0), both.1.saturating_sub(decoding.1)));
    // Weights are packed at the first call.
    encoder.encode_images(&batches[0]).unwrap();
    let (_, time) = timed(|| batches.iter().for_each(|batch| drop(encoder.encode_images(batch).unwrap())));
    print("encode", time);
}

/// A result, and the wall and processor time that it took.
fn timed<T>(work: impl FnOnce() -> T) -> (T, (Duration, Duration)) {
    let (wall, processor) = (Instant::now(), processor_time());
    let result = work();
    (result, (wall.elapsed(), processor_time() - processor))
}

/// Of the whole process, threads that have ended included; hundredths of a second, where the system tells in a file.
fn processor_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The fields behind the name, which may hold anything: 11 and 12 are user and system time.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok()).unwrap_or(0);
    Duration::from_millis((ticks(11) + ticks(12)) * 10)
}

fn show((wall, processor): (Duration, Duration)) -> String {
    format!("{:.2} s wall, {:.2} s processor", wall.as_secs_f64(), processor.as_secs_f64())
}

/// JPEGs of coloured cells in folders of 100, all different.
fn generate(dir: &Path, count: u32) {
    for n in 0..count {
        let folder = dir.join(format!("Über uns {}", n / 1000)).join(format!("Reise {}", n / 100 % 10));
        if n.is_multiple_of(100) {
            std::fs::create_dir_all(&folder).unwrap();
        }
        let long = if n.is_multiple_of(50) { "ü".repeat(115) } else { "schöner Tag".to_owned() };
        let picture = image::RgbImage::from_fn(160, 120, |x, y| {
            let cell = (x / 20 + y / 20 * 8).wrapping_mul(2_654_435_761).wrapping_add(n.wrapping_mul(40_503_001));
            image::Rgb([(cell >> 24) as u8, (cell >> 16) as u8, (cell >> 8) as u8])
        });
        picture.save_with_format(folder.join(format!("{long} {n}.jpg")), image::ImageFormat::Jpeg).unwrap();
    }
}
