//! How long a model takes to open, and to embed pictures and a short text.
//!
//! ```text
//! cargo bench --bench encode                    # random weights in the shape of ViT-B/32
//! cargo bench --bench encode -- PATH/TO/MODEL   # a model directory
//! RAYON_NUM_THREADS=1 taskset -c 1 cargo bench --bench encode
//! cargo bench --bench encode -- --work int8 avx2 DIR   # answers requests: see benches/compare/encode.py
//! ```
//!
//! Medians of wall-clock time, in milliseconds. The random model is written once, 605 MB, to the target directory, and its packed
//! weights beside it, from where the cases called warm take them; their files are in memory by then, as they are for a second
//! query. The last ones are whole processes of `tintype search` in a library of a few photos.

// A benchmark's answer is what it prints.
#![allow(clippy::print_stdout)]

#[path = "encode/random.rs"]
mod random;

use std::fs;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use tintype::model::cpu::Isa;
use tintype::model::{Device, EncoderOptions, Precision};
use tintype::{Encode as _, Encoder, PixelBatch};

fn main() {
    let args: Vec<String> = std::env::args().collect();
    if let Some(at) = args.iter().position(|arg| arg == "--work") {
        let [precision, isa, dir] = &args[at + 1..at + 4] else { panic!("--work PRECISION ISA DIR") };
        return work(precision, isa, Path::new(dir));
    }
    let given = std::env::args().skip(1).find(|arg| !arg.starts_with("--"));
    let temp = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let dir = given.map_or_else(|| random::Shape { grid: 7, layers: 12 }.write(&temp.join("vit-b-32")), PathBuf::from);

    report("open", 5, || drop(black_box(Encoder::load(&dir).expect("a model directory"))));
    let embed_one = |options: &EncoderOptions| {
        let encoder = Encoder::load_with(&dir, options).expect("a model directory");
        black_box(encoder.encode_texts(&["a dog running through the snow"]).expect("an embedding"));
    };
    report("open and embed one text", 5, || embed_one(&EncoderOptions::default()));
    let precisions = [(Precision::F32, "f32"), (Precision::Bf16, "bf16"), (Precision::Int8, "int8")];
    for (precision, name) in precisions {
        let options = EncoderOptions::default().precision(precision).cache(temp.join("packed"));
        report(&format!("the same, warm, {name}"), 9, || embed_one(&options));
    }
    for (_, name) in precisions {
        search(&dir, &temp.join(format!("library-{name}")), name);
    }

    let encoder = Encoder::load(&dir).expect("a model directory");
    let (height, width) = encoder.preprocess().size;
    for batch in [1, 8] {
        let mut pictures = PixelBatch::new(height, width);
        for i in 0..batch {
            let picture: Vec<u8> = (0..height * width * 3).map(|j| (j * 7 + i * 31) as u8).collect();
            pictures.push(&picture);
        }
        report(&format!("{batch} picture(s)"), 9, || {
            drop(black_box(encoder.encode_images(&pictures).expect("embeddings")))
        });
    }
    // Six words: eight tokens with start and end.
    report("one text of 8 tokens", 21, || {
        drop(black_box(encoder.encode_texts(&["a dog running through the snow"]).expect("an embedding")));
    });
    let long = "dog ".repeat(100);
    report("one text of 77 tokens", 9, || drop(black_box(encoder.encode_texts(&[&long]).expect("an embedding"))));
}

/// `tintype search` with the model of `dir`, from the start of its process to the end.
fn search(dir: &Path, library: &Path, precision: &str) {
    let photos = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/encoders/images");
    let tintype = |command: &[&str]| {
        let mut process = Command::new(env!("CARGO_BIN_EXE_tintype"));
        process.args(command).arg("--library").arg(library).arg("--model").arg(dir).args(["--precision", precision]);
        // Packed weights go where the system keeps such things.
        process.env("XDG_CACHE_HOME", library.with_file_name("cache")).stdout(Stdio::null()).stderr(Stdio::null());
        let done = process.status().expect("the program");
        assert!(done.success(), "{command:?}: {done}");
    };
    tintype(&["index", &photos.to_string_lossy()]);
    report(&format!("tintype search, warm, {precision}"), 9, || tintype(&["search", "a dog running through the snow"]));
}

fn report(what: &str, runs: usize, mut run: impl FnMut()) {
    run();
    let mut times: Vec<f64> = (0..runs)
        .map(|_| {
            let start = Instant::now();
            run();
            start.elapsed().as_secs_f64() * 1e3
        })
        .collect();
    times.sort_by(f64::total_cmp);
    println!("{what:32} {:9.2} ms   (fastest {:.2})", times[runs / 2], times[0]);
}

/// Answers requests on standard input, one JSON object per line, as the workers of `benches/compare/encode.py` do.
fn work(precision: &str, isa: &str, dir: &Path) {
    let precision = match precision {
        "f32" | "candle" => Precision::F32,
        "bf16" => Precision::Bf16,
        "int8" => Precision::Int8,
        other => panic!("no precision is called {other}"),
    };
    let device = match isa {
        "cuda" => Device::Cuda(0),
        "metal" => Device::Metal(0),
        _ => Device::Cpu,
    };
    let isa = match isa {
        "best" | "cuda" | "metal" | "cpu" => Isa::detect(),
        isa => Isa::named(isa).expect("instructions of this machine"),
    };
    let options = EncoderOptions::default().precision(precision).isa(isa).device(device);
    let options = if std::env::args().any(|arg| arg == "candle") { options.reference() } else { options };
    let mut loaded: Option<(String, Encoder)> = None;
    for line in std::io::stdin().lines() {
        let request: serde_json::Value = serde_json::from_str(&line.expect("a line")).expect("a request");
        let number = |key: &str| request[key].as_u64().unwrap_or(1) as usize;
        let model = request["model"].as_str().unwrap_or_default();
        let (runs, batch) = (number("runs"), number("batch"));
        let mut times = Vec::new();
        let mut operations = 0.0;
        if request["tower"] == "peak" {
            operations = isa.exercise(precision, 300_000).expect("a product");
            times = (0..runs).map(|_| clocked(|| drop(black_box(isa.exercise(precision, 300_000))))).collect();
        } else {
            if loaded.as_ref().is_none_or(|(name, _)| name != model) {
                loaded = Some((model.to_owned(), Encoder::load_with(dir.join(model), &options).expect("a model")));
            }
            let encoder = &loaded.as_ref().expect("it was just loaded").1;
            // A word of one token, and two for start and end.
            let text = "dog ".repeat(number("tokens").saturating_sub(2));
            let given =
                request["texts"].as_array().map(|all| all.iter().filter_map(|t| t.as_str()).collect::<Vec<_>>());
            let texts = given.unwrap_or_else(|| vec![text.as_str(); batch]);
            let (height, width) = encoder.preprocess().size;
            let mut pictures = PixelBatch::new(height, width);
            for i in 0..batch {
                let picture: Vec<u8> = (0..height * width * 3).map(|j| (j * 7919 % 251 + i * 31) as u8).collect();
                pictures.push(&picture);
            }
            let run = || match request["tower"].as_str() {
                Some("image") => drop(black_box(encoder.encode_images(&pictures).expect("embeddings"))),
                _ => drop(black_box(encoder.encode_texts(&texts).expect("embeddings"))),
            };
            if request["embed"] == true {
                let rows = match request["tower"].as_str() {
                    Some("image") => encoder.encode_images(&pictures),
                    _ => encoder.encode_texts(&texts),
                };
                println!("\n{}", serde_json::json!({ "rows": rows.expect("embeddings").as_slice() }));
                continue;
            }
            run();
            // The kernel's clock is as coarse as a tick for a thread that runs.
            let repeat = number("repeat");
            let each = |(cpu, wall): (f64, f64)| (cpu / repeat as f64, wall / repeat as f64);
            times.extend((0..runs).map(|_| each(clocked(|| (0..repeat).for_each(|_| run())))));
        }
        let (cpu, wall): (Vec<f64>, Vec<f64>) = times.into_iter().unzip();
        println!("\n{}", serde_json::json!({ "cpu": cpu, "wall": wall, "operations": operations, "isa": isa.name() }));
    }
}

/// CPU seconds of all threads, and wall seconds.
fn clocked(run: impl FnOnce()) -> (f64, f64) {
    let cpu = || -> u64 {
        let tasks = fs::read_dir("/proc/self/task").expect("Linux").flatten();
        let spent =
            |path: PathBuf| fs::read_to_string(path.join("schedstat")).ok()?.split(' ').next()?.parse::<u64>().ok();
        tasks.filter_map(|task| spent(task.path())).sum()
    };
    let (before, start) = (cpu(), Instant::now());
    run();
    let wall = start.elapsed().as_secs_f64();
    ((cpu() - before) as f64 / 1e9, wall)
}
