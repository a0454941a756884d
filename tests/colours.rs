//! An encoder without a model: the mean colours of a picture's sixteen parts.
//!
//! Fast and the same everywhere, so that tests of everything around the model need none. A text is the colours it names.

use std::sync::atomic::{AtomicU64, Ordering};

use tintype::image::{Interpolation, Preprocess, ResizeMode};
use tintype::{EmbeddingSpace, Embeddings, Encode, PixelBatch, Result};

const SIDE: usize = 32;
const PARTS: usize = 4;

/// The encoder; counts the pictures that it was given.
pub(crate) struct Colours {
    space: EmbeddingSpace,
    preprocess: Preprocess,
    pictures: AtomicU64,
    delay: std::time::Duration,
}

impl Colours {
    /// Encoders of one name have one space.
    pub(crate) fn new(name: &str) -> Colours {
        let space = EmbeddingSpace {
            model: name.to_owned(),
            fingerprint: format!("{name}{}", "0".repeat(32)),
            dim: PARTS * PARTS * 3 + 1,
        };
        let preprocess = Preprocess {
            size: (SIDE, SIDE),
            mean: [0.0; 3],
            std: [1.0; 3],
            interpolation: Interpolation::Bilinear,
            resize_mode: ResizeMode::Squash,
            fill: 0,
            rgb_first: false,
        };
        Colours { space, preprocess, pictures: AtomicU64::new(0), delay: std::time::Duration::ZERO }
    }

    /// Takes its time over each picture.
    pub(crate) fn slow(name: &str, delay: std::time::Duration) -> Colours {
        Colours { delay, ..Colours::new(name) }
    }

    /// Pictures encoded so far.
    pub(crate) fn pictures(&self) -> u64 {
        self.pictures.load(Ordering::SeqCst)
    }

    fn unit(&self, mut row: Vec<f32>) -> Vec<f32> {
        // Black is a direction too.
        row.push(0.1);
        let norm = row.iter().map(|x| x * x).sum::<f32>().sqrt();
        row.iter_mut().for_each(|x| *x /= norm);
        row
    }
}

impl Encode for Colours {
    fn space(&self) -> &EmbeddingSpace {
        &self.space
    }

    fn preprocess(&self) -> &Preprocess {
        &self.preprocess
    }

    fn encode_images(&self, batch: &PixelBatch) -> Result<Embeddings> {
        self.pictures.fetch_add(batch.len() as u64, Ordering::SeqCst);
        std::thread::sleep(self.delay * batch.len() as u32);
        let mut rows = Vec::new();
        for picture in batch.as_bytes().chunks_exact(SIDE * SIDE * 3) {
            let mut means = vec![0.0; PARTS * PARTS * 3];
            for (at, &byte) in picture.iter().enumerate() {
                let (channel, x, y) = (at % 3, at / 3 % SIDE, at / 3 / SIDE);
                means[(y * PARTS / SIDE * PARTS + x * PARTS / SIDE) * 3 + channel] += f32::from(byte) / 255.0 / 64.0;
            }
            rows.extend(self.unit(means));
        }
        Ok(Embeddings::new(self.space.dim, rows))
    }

    fn encode_texts(&self, texts: &[&str]) -> Result<Embeddings> {
        let mut rows = Vec::new();
        for text in texts {
            let colour = |name: &str| f32::from(u8::from(text.contains(name) || text.contains("white")));
            let parts = [colour("red"), colour("green"), colour("blue")].repeat(PARTS * PARTS);
            rows.extend(self.unit(parts));
        }
        Ok(Embeddings::new(self.space.dim, rows))
    }
}
