//! How long a model takes to open, and to embed pictures and a short text.
//!
//! ```text
//! cargo bench --bench encode                    # random weights in the shape of ViT-B/32
//! cargo bench --bench encode -- PATH/TO/MODEL   # a model directory
//! RAYON_NUM_THREADS=1 taskset -c 1 cargo bench --bench encode
//! cargo bench --bench encode -- --work int8 avx2 DIR   # answers requests: see benches/compare/encode.py
//! ```
//!
//! Medians of wall-clock time, in milliseconds. The random model is written once, 605 MB, to the target directory.

// A benchmark's answer is what it prints.
#![allow(clippy::print_stdout)]

use std::collections::BTreeMap;
use std::fs;
use std::hint::black_box;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use tintype::model::cpu::Isa;
use tintype::model::{EncoderOptions, Precision};
use tintype::{Encode as _, Encoder, PixelBatch};

fn main() {
    let args: Vec<String> = std::env::args().collect();
    if let Some(at) = args.iter().position(|arg| arg == "--work") {
        let [precision, isa, dir] = &args[at + 1..at + 4] else { panic!("--work PRECISION ISA DIR") };
        return work(precision, isa, Path::new(dir));
    }
    let given = std::env::args().skip(1).find(|arg| !arg.starts_with("--"));
    let dir =
        given.map_or_else(|| random_model(&Path::new(env!("CARGO_TARGET_TMPDIR")).join("vit-b-32")), PathBuf::from);

    report("open", 5, || drop(black_box(Encoder::load(&dir).expect("a model directory"))));
    report("open and embed one text", 5, || {
        let encoder = Encoder::load(&dir).expect("a model directory");
        black_box(encoder.encode_texts(&["a dog running through the snow"]).expect("an embedding"));
    });

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
    println!("{what:28} {:9.2} ms   (fastest {:.2})", times[runs / 2], times[0]);
}

/// An open_clip directory of ViT-B/32's shape with weights from a generator.
fn random_model(dir: &Path) -> PathBuf {
    let weights = dir.join("open_clip_model.safetensors");
    if weights.is_file() {
        return dir.to_path_buf();
    }
    fs::create_dir_all(dir).expect("a writable target directory");
    let config = r#"{"model_cfg": {"embed_dim": 512, "quick_gelu": true,
        "vision_cfg": {"image_size": 224, "layers": 12, "width": 768, "patch_size": 32},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 512, "heads": 8, "layers": 12}}}"#;
    fs::write(dir.join("open_clip_config.json"), config).expect("a writable target directory");

    let mut tensors: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    let mut add = |name: String, shape: &[usize]| drop(tensors.insert(name, shape.to_vec()));
    for (tower, width, norms) in [("visual.", 768, ["ln_pre", "ln_post"].as_slice()), ("", 512, &["ln_final"])] {
        for part in norms.iter().map(|norm| format!("{tower}{norm}")) {
            add(format!("{part}.weight"), &[width]);
            add(format!("{part}.bias"), &[width]);
        }
        for block in (0..12).map(|i| format!("{tower}transformer.resblocks.{i}")) {
            for (part, shape) in [
                ("ln_1.", vec![width]),
                ("ln_2.", vec![width]),
                ("attn.in_proj_", vec![3 * width, width]),
                ("attn.out_proj.", vec![width, width]),
                ("mlp.c_fc.", vec![4 * width, width]),
                ("mlp.c_proj.", vec![width, 4 * width]),
            ] {
                add(format!("{block}.{part}weight"), &shape);
                add(format!("{block}.{part}bias"), &shape[..1]);
            }
        }
    }
    add("visual.conv1.weight".into(), &[768, 3, 32, 32]);
    add("visual.class_embedding".into(), &[768]);
    add("visual.positional_embedding".into(), &[50, 768]);
    add("visual.proj".into(), &[768, 512]);
    add("token_embedding.weight".into(), &[49_408, 512]);
    add("positional_embedding".into(), &[77, 512]);
    add("text_projection".into(), &[512, 512]);
    add("logit_scale".into(), &[]);

    // The header of a safetensors file is JSON with places; its numbers follow without gaps.
    let mut header = serde_json::Map::new();
    let mut at = 0_usize;
    for (name, shape) in &tensors {
        let end = at + 4 * shape.iter().product::<usize>();
        header.insert(name.clone(), serde_json::json!({"dtype": "F32", "shape": shape, "data_offsets": [at, end]}));
        at = end;
    }
    let header = serde_json::Value::Object(header).to_string();
    let part = weights.with_extension("part");
    let mut file = std::io::BufWriter::new(fs::File::create(&part).expect("a writable target directory"));
    let mut write = |bytes: &[u8]| file.write_all(bytes).expect("605 MB of space");
    write(&(header.len() as u64).to_le_bytes());
    write(header.as_bytes());
    let mut state = 1_u32;
    for (name, shape) in &tensors {
        let count: usize = shape.iter().product();
        let scale = if shape.len() < 2 { 0.1 } else { 0.5 / (count as f32 / shape[0] as f32).sqrt() };
        let offset = if name.contains("ln_") && name.ends_with("weight") { 1.0 } else { 0.0 };
        for _ in 0..count {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let uniform = (state >> 8) as f32 / 8_388_608.0 - 1.0;
            write(&(offset + scale * uniform).to_le_bytes());
        }
    }
    file.flush().expect("605 MB of space");
    drop(file);
    fs::rename(part, weights).expect("a writable target directory");
    dir.to_path_buf()
}

/// Answers requests on standard input, one JSON object per line, as the workers of `benches/compare/encode.py` do.
fn work(precision: &str, isa: &str, dir: &Path) {
    let precision = match precision {
        "f32" | "candle" => Precision::F32,
        "bf16" => Precision::Bf16,
        "int8" => Precision::Int8,
        other => panic!("no precision is called {other}"),
    };
    let isa = if isa == "best" { Isa::detect() } else { Isa::named(isa).expect("instructions of this machine") };
    let options = EncoderOptions::default().precision(precision).isa(isa);
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
