//! An encoder of one's own: photos by colour, without a neural network.
//!
//! ```text
//! cargo run --release --example custom_encoder -- PATH/TO/PHOTOS "blue + white"
//! ```
//!
//! Anything that turns pictures and texts into vectors of one space can be plugged in. Here a vector counts how many pixels
//! have each of 64 colours, and a word is the vector of that colour.

#![allow(clippy::print_stdout, clippy::print_stderr)] // A program, and not the library.

use std::process::ExitCode;

use tintype::image::{Interpolation, Preprocess, ResizeMode};
use tintype::{EmbeddingSpace, Embeddings, Encode, Encoder, Engine, PixelBatch, Result};

/// Words, and the colours that they mean.
const WORDS: [(&str, [u8; 3]); 9] = [
    ("red", [220, 30, 30]),
    ("orange", [240, 140, 30]),
    ("yellow", [240, 230, 60]),
    ("green", [50, 150, 50]),
    ("blue", [50, 90, 200]),
    ("sky", [140, 190, 240]),
    ("white", [245, 245, 245]),
    ("grey", [128, 128, 128]),
    ("black", [10, 10, 10]),
];

struct Colours {
    space: EmbeddingSpace,
    preprocess: Preprocess,
}

impl Colours {
    fn new() -> Self {
        Self {
            // A library remembers the fingerprint, and refuses vectors of another space.
            space: EmbeddingSpace { model: "colours".into(), fingerprint: "colours-1".into(), dim: 64 },
            preprocess: Preprocess {
                size: (32, 32),
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

/// Which of 4 × 4 × 4 boxes a colour lies in.
fn bin(pixel: &[u8]) -> usize {
    pixel.iter().fold(0, |bin, channel| bin * 4 + usize::from(channel / 64))
}

/// A vector of length one; one without any colour stays zero, and the search says that it knows no such word.
fn normalised(mut counts: [f32; 64]) -> [f32; 64] {
    let length = counts.iter().map(|count| count * count).sum::<f32>().sqrt();
    if length > 0.0 {
        counts.iter_mut().for_each(|count| *count /= length);
    }
    counts
}

impl Encode for Colours {
    fn space(&self) -> &EmbeddingSpace {
        &self.space
    }

    fn preprocess(&self) -> &Preprocess {
        &self.preprocess
    }

    fn encode_images(&self, batch: &PixelBatch) -> Result<Embeddings> {
        let rows = batch.as_bytes().chunks_exact(32 * 32 * 3).flat_map(|picture| {
            let mut counts = [0.0; 64];
            picture.chunks_exact(3).for_each(|pixel| counts[bin(pixel)] += 1.0);
            // Square roots, so that a large plain background does not drown the rest.
            normalised(counts.map(f32::sqrt))
        });
        Ok(Embeddings::new(64, rows.collect()))
    }

    fn encode_texts(&self, texts: &[&str]) -> Result<Embeddings> {
        let rows = texts.iter().flat_map(|text| {
            let mut counts = [0.0; 64];
            let meant = WORDS.iter().filter(|(word, _)| text.split_whitespace().any(|other| other == *word));
            meant.for_each(|(_, colour)| counts[bin(colour)] += 1.0);
            normalised(counts)
        });
        Ok(Embeddings::new(64, rows.collect()))
    }
}

fn main() -> Result<ExitCode> {
    let mut arguments = std::env::args_os().skip(1);
    let (Some(folder), Some(query)) = (arguments.next(), arguments.next()) else {
        eprintln!("usage: custom_encoder FOLDER COLOURS");
        return Ok(ExitCode::from(2));
    };
    let library = std::env::temp_dir().join("colours.tintype");
    let engine = Engine::open_or_create(library, Encoder::new(Colours::new()))?;
    engine.ingest([folder]).run()?;
    for hit in engine.search(query.to_string_lossy().as_ref()).limit(10).run()? {
        println!("{:.3}  {}", hit.score, hit.path.display());
    }
    Ok(ExitCode::SUCCESS)
}
