//! How long a folder takes, and which stage takes it.
//!
//! ```text
//! cargo bench --bench ingest                      20,000 generated pictures of 160 × 120
//! cargo bench --bench ingest -- --count 2000      fewer
//! cargo bench --bench ingest -- --photos DIR      your own
//! cargo bench --bench ingest -- --photos DIR --model DIR --precision int8      with another model than the built-in one
//! ```
//! Prints wall time and, on Linux, processor time of: loading the model; the first run, and its parts before the first vector,
//! between that and the last one, and behind it; two runs over unchanged files; and each stage alone on one thread. Names have
//! spaces, umlauts and up to 255 bytes.
//!
//! Resizing stands beside `fast_image_resize`, which has weights of 16 bits where Pillow has 22, over as many pixels.

#![allow(clippy::print_stdout, clippy::unwrap_used, missing_docs)]

use std::ops::Sub;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use fast_image_resize::images::{Image, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};
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
    let (encoder, time) = timed(|| match value("--model") {
        Some(dir) => Encoder::load_with(dir, &options).unwrap(),
        None => Encoder::builtin_with(&options).unwrap(),
    });
    println!("model loaded in {}", show(time));
    let encoder: Arc<dyn Encode> = encoder.into();
    let engine = Engine::create(work.path().join("library"), Arc::clone(&encoder)).unwrap();
    for name in ["first run", "second run", "third run"] {
        let mut heard = vec![(Times::now(), 0)];
        let request = engine.ingest([&photos]).on_progress(|progress| heard.push((Times::now(), progress.embedded)));
        let (report, time) = timed(|| request.run().unwrap());
        let files = report.added + report.unchanged;
        println!(
            "{name}: {} added, {} unchanged, {} skipped in {}: {:.0} files/s",
            report.added,
            report.unchanged,
            report.skipped.len(),
            show(time),
            files as f64 / time.wall.as_secs_f64()
        );
        if report.embedded > 0 {
            parts(&heard, report.embedded);
        }
    }
    println!("library: {:.1} MB", engine.status().unwrap().bytes as f64 / 1e6);
    let (_, time) = timed(|| engine.verify().unwrap());
    println!("verify: {}", show(time));
    stages(&photos, &*encoder);
}

/// A run, as its progress closure saw it a few times a second, cut at its first and its last vector.
fn parts(heard: &[(Times, u64)], all: u64) {
    let start = heard[0].0;
    let first = heard.iter().find(|(_, embedded)| *embedded > 0).map_or(start, |(at, _)| *at);
    let last = heard.iter().find(|(_, embedded)| *embedded == all).map_or(first, |(at, _)| *at);
    println!("  until the first vector: {}", show(first - start));
    println!("  until the last one: {}", show(last - first));
    println!("  to the end: {}", show(Times::now() - last));
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
    let print = |name: &str, time: Duration| {
        println!("  {name:<17} {:>7.1} µs per file of processor time", time.as_secs_f64() * 1e6 / count as f64);
    };
    println!("stages, {count} files:");
    let (contents, time) = timed(|| files.iter().map(|path| std::fs::read(path).unwrap()).collect::<Vec<_>>());
    print("read", time.processor);
    let (_, time) = timed(|| contents.iter().map(|data| blake3::hash(data)).collect::<Vec<_>>());
    print("hash", time.processor);
    let (_, time) = timed(|| contents.iter().map(|data| Metadata::read(data)).collect::<Vec<_>>());
    print("metadata", time.processor);
    let options = DecodeOptions::default();
    let decode = |data: &Vec<u8>| Photo::decode_for(data, &options, encoder.preprocess()).ok();
    let (_, time) = timed(|| contents.iter().filter_map(decode).count());
    print("decode", time.processor);
    let preprocess = encoder.preprocess();
    let (mut batches, mut ours, mut theirs) = (Vec::new(), Duration::ZERO, Duration::ZERO);
    for group in contents.chunks(32) {
        let mut batch = PixelBatch::new(preprocess.size.0, preprocess.size.1);
        for photo in group.iter().filter_map(decode) {
            let mut pixels = Vec::new();
            ours += fastest(|| pixels = preprocess.apply(&photo).unwrap());
            theirs += peer(&photo, preprocess.size);
            batch.push(&pixels);
        }
        batches.push(batch);
    }
    print("resize", ours);
    print("fast_image_resize", theirs);
    // Weights are packed at the first call.
    encoder.encode_images(&batches[0]).unwrap();
    let (_, time) = timed(|| batches.iter().for_each(|batch| drop(encoder.encode_images(batch).unwrap())));
    print("encode", time.processor);
}

/// How long `fast_image_resize` takes to make a square of `size` of as many pixels as a photo has, with the same filter.
fn peer(photo: &Photo, size: (usize, usize)) -> Duration {
    let [width, height] = [photo.width(), photo.height()].map(|edge| edge.div_ceil(photo.reduction()));
    let pixels: Vec<u8> = (0..width * height * 3).map(|i| (i % 251) as u8).collect();
    let from = ImageRef::new(width, height, &pixels, PixelType::U8x3).unwrap();
    let mut to = Image::new(size.1 as u32, size.0 as u32, PixelType::U8x3);
    let edge = f64::from(width.min(height));
    let (left, top) = ((f64::from(width) - edge) / 2.0, (f64::from(height) - edge) / 2.0);
    let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::CatmullRom));
    let options = options.crop(left, top, edge, edge);
    let mut resizer = Resizer::new();
    fastest(|| resizer.resize(&from, &mut to, &options).unwrap())
}

/// Wall time of the fastest of five runs: what is this short is seldom interrupted in all of them.
fn fastest(mut work: impl FnMut()) -> Duration {
    let mut once = || {
        let start = Instant::now();
        work();
        start.elapsed()
    };
    (0..5).map(|_| once()).min().unwrap_or_default()
}

/// A moment, or the time between two.
#[derive(Clone, Copy)]
struct Times {
    wall: Duration,
    processor: Duration,
}

impl Times {
    fn now() -> Times {
        static START: OnceLock<Instant> = OnceLock::new();
        Times { wall: START.get_or_init(Instant::now).elapsed(), processor: processor_time() }
    }
}

impl Sub for Times {
    type Output = Times;

    fn sub(self, before: Times) -> Times {
        Times { wall: self.wall - before.wall, processor: self.processor - before.processor }
    }
}

/// A result, and the time that it took.
fn timed<T>(work: impl FnOnce() -> T) -> (T, Times) {
    let before = Times::now();
    let result = work();
    (result, Times::now() - before)
}

/// Of the whole process, threads that have ended included; hundredths of a second, where the system tells in a file.
fn processor_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The fields behind the name, which may hold anything: 11 and 12 are user and system time.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok()).unwrap_or(0);
    Duration::from_millis((ticks(11) + ticks(12)) * 10)
}

fn show(Times { wall, processor }: Times) -> String {
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
