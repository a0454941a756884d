//! The built-in model against the numbers of its original.

use tintype::model::{EncoderOptions, Precision};
use tintype::{Encode, Encoder, PixelBatch};

use serde_json::Value;

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(&x, &y)| f64::from(x) * f64::from(y)).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

fn floats(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap() as f32).collect()
}

/// Vectors of the original for one made-up picture and a few texts.
fn golden() -> Value {
    serde_json::from_str(include_str!("fixtures/builtin/golden.json")).unwrap()
}

fn golden_picture() -> Vec<u8> {
    let at = |y: usize, x: usize, c: usize| ((x * 7 + y * 13 + c * 29 + x * y / 64) % 256) as u8;
    (0..224 * 224 * 3).map(|i| at(i / 672, i / 3 % 224, i % 3)).collect()
}

#[test]
fn a_picture_has_the_embedding_of_the_original() {
    let mut batch = PixelBatch::new(224, 224);
    batch.push(&golden_picture());
    let want = floats(&golden()["image"]["embedding"]);
    for (precision, least) in [(Precision::F32, 0.9999), (Precision::Int8, 0.99), (Precision::Auto, 0.99)] {
        let encoder = Encoder::builtin_with(&EncoderOptions::default().precision(precision)).unwrap();
        let got = encoder.encode_images(&batch).unwrap();
        let same = cosine(got.as_slice(), &want);
        assert!(same > least, "{precision:?}: cosine {same}");
    }
}

#[test]
fn precisions_have_spaces_of_their_own() {
    let space = |precision| {
        let encoder = Encoder::builtin_with(&EncoderOptions::default().precision(precision)).unwrap();
        encoder.space().clone()
    };
    assert_eq!(space(Precision::Auto), space(Precision::Int8));
    assert_ne!(space(Precision::F32), space(Precision::Int8));
    assert_eq!(space(Precision::F32).dim, 256);
}

#[test]
fn texts_have_the_embeddings_of_the_original() {
    let encoder = Encoder::builtin().unwrap();
    for text in golden()["texts"].as_array().unwrap() {
        let (words, want) = (text["text"].as_str().unwrap(), floats(&text["embedding"]));
        let got = encoder.encode_texts(&[words]).unwrap();
        let worst = got.as_slice().iter().zip(&want).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst < 1e-5, "{words}: {worst}");
    }
}

#[test]
fn texts_of_any_shape_have_an_embedding() {
    let encoder = Encoder::builtin().unwrap();
    let long = "a dog and ".repeat(500);
    let texts = ["", "   ", "...", "🐕‍🦺", "\0", long.as_str(), "dog"];
    let rows = encoder.encode_texts(&texts).unwrap();
    assert_eq!(rows.rows().len(), texts.len());
    assert!(rows.as_slice().iter().all(|x| x.is_finite()));
    let cut = "a dog and ".repeat(10);
    assert_eq!(encoder.encode_texts(&[&cut]).unwrap().as_slice(), rows.rows().nth(5).unwrap(), "cut at 28 tokens");
}

#[test]
fn batches_give_the_rows_of_their_pictures() {
    let encoder = Encoder::builtin().unwrap();
    let mut all = PixelBatch::new(224, 224);
    assert_eq!(encoder.encode_images(&all).unwrap().rows().len(), 0);
    for i in 0..3u8 {
        all.push(&golden_picture().iter().map(|x| x.wrapping_add(70 * i)).collect::<Vec<_>>());
    }
    let together = encoder.encode_images(&all).unwrap();
    for (row, picture) in together.rows().zip(all.as_bytes().chunks_exact(224 * 224 * 3)) {
        let mut one = PixelBatch::new(224, 224);
        one.push(picture);
        assert_eq!(encoder.encode_images(&one).unwrap().as_slice(), row);
    }
    let mut small = PixelBatch::new(32, 32);
    small.push(&[0; 32 * 32 * 3]);
    assert!(encoder.encode_images(&small).unwrap_err().to_string().contains("224"));
}
