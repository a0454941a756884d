//! How long a query takes in a library: `cargo bench --bench search [-- PHOTOS]`.
//!
//! The library holds tiny pictures with vectors of an encoder that costs nothing, so that what is measured is the engine: the
//! query language, the catalog and the index. The limit of an exact search is reading every vector once, as fast as this
//! machine reads memory.

#![allow(clippy::print_stdout)] // The figures are the answer.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::time::{Duration, Instant};

use tintype::image::{Interpolation, Preprocess, ResizeMode};
use tintype::{EmbeddingSpace, Embeddings, Encode, Encoder, Engine, PixelBatch, Query};

const DIM: usize = 512;

/// Random vectors that are always the same for the same input.
struct Noise {
    space: EmbeddingSpace,
    preprocess: Preprocess,
}

impl Noise {
    fn new() -> Self {
        Self {
            space: EmbeddingSpace { model: "noise".into(), fingerprint: "noise-1".into(), dim: DIM },
            preprocess: Preprocess {
                size: (2, 2),
                mean: [0.0; 3],
                std: [1.0; 3],
                interpolation: Interpolation::Bilinear,
                resize_mode: ResizeMode::Squash,
                fill: 0,
                rgb_first: true,
            },
        }
    }
}

fn vector(of: &(impl Hash + ?Sized)) -> Vec<f32> {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    let mut state = hasher.finish() | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1 << 24) as f32 - 0.5
    };
    let vector: Vec<f32> = (0..DIM).map(|_| next()).collect();
    let length = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
    vector.into_iter().map(|x| x / length).collect()
}

impl Encode for Noise {
    fn space(&self) -> &EmbeddingSpace {
        &self.space
    }

    fn preprocess(&self) -> &Preprocess {
        &self.preprocess
    }

    fn encode_images(&self, batch: &PixelBatch) -> tintype::Result<Embeddings> {
        Ok(Embeddings::new(DIM, batch.as_bytes().chunks_exact(12).flat_map(vector).collect()))
    }

    fn encode_texts(&self, texts: &[&str]) -> tintype::Result<Embeddings> {
        Ok(Embeddings::new(DIM, texts.iter().flat_map(|text| vector(*text)).collect()))
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let named = std::env::args().skip(1).find_map(|argument| argument.parse().ok());
    let photos: u32 = named.unwrap_or(20_000);
    let dir = tempfile::tempdir()?;
    let pictures = dir.path().join("pictures");
    write_pictures(&pictures, photos)?;
    let library = dir.path().join("library");
    let engine = Engine::create(&library, Encoder::new(Noise::new()))?;
    let begin = Instant::now();
    let report = engine.ingest([&pictures]).run()?;
    let rate = f64::from(photos) / begin.elapsed().as_secs_f64();
    println!("{} photos of {DIM} numbers, taken in at {rate:.0} photos/s", report.embedded);

    let known = engine.search(Query::all()).limit(1).run()?.remove(0).record.key;
    let raw = vector("a dog");
    let cases: [(&str, Query); 6] = [
        ("words", "a dog".try_into()?),
        ("a vector", Query::vector(raw)),
        ("a photo of the library", Query::like(known)),
        ("words, one photo in 100", "a dog path:**/07/**".try_into()?),
        ("words, all but a few", "a dog width:1..".try_into()?),
        ("no words, the newest", Query::all()),
    ];
    // Half a precision is two bytes a number: the least that an exact answer has to read.
    let least = f64::from(photos) * DIM as f64 * 2.0 / bandwidth();
    for (name, query) in cases {
        let run = || drop(engine.search(query.clone()).limit(20).run().expect("the query is good"));
        let seconds = median(20, Duration::from_secs(1), run);
        let share = if name == "words" {
            format!(", {:.0} % of the limit {:.2} ms", 100.0 * least / seconds, least * 1e3)
        } else {
            String::new()
        };
        println!("{name:26} {:8.3} ms{share}", seconds * 1e3);
    }
    let (encoder, open) = (Encoder::new(Noise::new()), library);
    drop(engine);
    let seconds =
        median(20, Duration::from_secs(1), || drop(Engine::open(&open, encoder.clone()).expect("it is there")));
    println!("{:26} {:8.3} ms", "opening the library", seconds * 1e3);
    Ok(())
}

/// Pictures of four pixels, all different, a hundred folders of them.
fn write_pictures(folder: &Path, count: u32) -> Result<(), Box<dyn std::error::Error>> {
    for group in 0..100 {
        std::fs::create_dir_all(folder.join(format!("{group:02}")))?;
    }
    for number in 0..count {
        let [a, b, c, d] = number.to_le_bytes();
        let mut file = b"P6 2 2 255\n".to_vec();
        file.extend([a, b, c, d, a ^ 255, b, c, d, 128, a, b, c]);
        std::fs::write(folder.join(format!("{:02}/{number}.ppm", number % 100)), file)?;
    }
    Ok(())
}

/// The median seconds of at least `least` calls, which go on for at least `span`.
fn median(least: usize, span: Duration, mut call: impl FnMut()) -> f64 {
    let (begin, mut times) = (Instant::now(), Vec::new());
    while times.len() < least || begin.elapsed() < span {
        let start = Instant::now();
        call();
        times.push(start.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// Bytes per second that one core reads from memory.
fn bandwidth() -> f64 {
    let bytes = vec![1_u64; 32 << 20];
    let seconds = median(5, Duration::ZERO, || {
        std::hint::black_box(std::hint::black_box(&bytes).iter().fold(0_u64, |sum, x| sum.wrapping_add(*x)));
    });
    (bytes.len() * 8) as f64 / seconds
}
