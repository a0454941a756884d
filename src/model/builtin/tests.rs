//! The towers against their PyTorch original, over real photos where they are at hand.

use std::fs;
use std::path::PathBuf;

use safetensors::SafeTensors;

use super::*;

/// `TINTYPE_TEST_DATA`, or the folder `shared` beside the checkout.
fn test_data(path: &str) -> Option<PathBuf> {
    let beside = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared");
    let path = std::env::var_os("TINTYPE_TEST_DATA").map_or(beside, PathBuf::from).join(path);
    if !path.exists() {
        println!("skipped: {} is not there", path.display());
        return None;
    }
    Some(path)
}

/// Photos of 224 × 224, as they are.
fn pixels(paths: impl Iterator<Item = PathBuf>) -> PixelBatch {
    let mut batch = PixelBatch::new(224, 224);
    for path in paths {
        batch.push(::image::open(&path).unwrap().to_rgb8().as_raw());
    }
    batch
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(&x, &y)| f64::from(x) * f64::from(y)).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

/// The weights before they were quantised.
fn original(isa: Isa) -> Option<Builtin> {
    let weights = fs::read(test_data("builtin/model_f32.safetensors")?).unwrap();
    Some(Builtin::with(isa, Precision::F32, weights.leak()).unwrap())
}

/// What PyTorch makes of 100 photos, by `tests/fixtures/builtin/reference.py`, and the photos.
fn reference() -> Option<(SafeTensors<'static>, PixelBatch)> {
    let photos = test_data("data/photos/flickr8k-1000")?;
    let fixture = include_bytes!("../../../tests/fixtures/builtin/reference.safetensors");
    let fixture = SafeTensors::deserialize(fixture).unwrap();
    let names = String::from_utf8(fixture.tensor("names").unwrap().data().to_vec()).unwrap();
    Some((fixture, pixels(names.lines().map(|name| photos.join(name)))))
}

/// For the script: JPEG decoders differ by a few steps, which is more than the forward passes do.
#[test]
#[ignore = "writes the input of reference.py to the file named by TINTYPE_PIXELS"]
fn write_the_pixels_of_the_reference() {
    let Some((_, batch)) = reference() else { return };
    fs::write(std::env::var_os("TINTYPE_PIXELS").unwrap(), batch.as_bytes()).unwrap();
}

#[test]
fn photos_have_the_embeddings_of_the_original() {
    let Some((fixture, batch)) = reference() else { return };
    let shipped = Builtin::new(Precision::F32).unwrap();
    let bytes = Builtin::new(Precision::Int8).unwrap();
    for (name, builtin, least) in
        [("f32", original(Isa::detect()), 0.9999), ("int8", Some(shipped), 0.9999), ("int8", Some(bytes), 0.996)]
    {
        let Some(builtin) = builtin else { continue };
        let reference = fixture.tensor(name).unwrap();
        let reference: Vec<f32> =
            reference.data().chunks_exact(2).map(|b| half::f16::from_le_bytes([b[0], b[1]]).to_f32()).collect();
        let got = builtin.encode_images(&batch).unwrap();
        let cosines: Vec<f64> = got.rows().zip(reference.chunks_exact(256)).map(|(a, b)| cosine(a, b)).collect();
        let worst = cosines.iter().copied().fold(1.0, f64::min);
        println!("{name}, exact {}: worst cosine of {} is {worst}", builtin.exact, cosines.len());
        assert!(cosines.len() == 100 && worst >= least, "{name}: {worst}");
    }
}

#[test]
fn every_instruction_set_gives_the_same_embeddings() {
    let mut batch = PixelBatch::new(224, 224);
    batch.push(&(0..224 * 224 * 3usize).map(|i| (i * i / 977 % 256) as u8).collect::<Vec<_>>());
    for precision in [Precision::F32, Precision::Int8] {
        let rows: Vec<Embeddings> = Isa::available()
            .into_iter()
            .map(|isa| Builtin::with(isa, precision, WEIGHTS).unwrap().encode_images(&batch).unwrap())
            .collect();
        for row in &rows {
            // A sum next to a rounding edge may fall on either side, depending on how it was added up before.
            let (same, least) = (
                cosine(row.as_slice(), rows[0].as_slice()),
                if precision == Precision::F32 { 0.999_999 } else { 0.998 },
            );
            assert!(same > least, "{precision:?}: {same}");
        }
    }
    for isa in Isa::available() {
        let [a, b] = [isa, Isa::detect()].map(|isa| {
            Builtin::with(isa, Precision::Auto, WEIGHTS).unwrap().encode_texts(&["a dog in the snow"]).unwrap()
        });
        assert!(cosine(a.as_slice(), b.as_slice()) > 0.999_999);
    }
}

/// Share of captions whose photo is among the first ten.
fn recall_at_10(photos: &Embeddings, captions: &Embeddings, owner: &[usize]) -> f64 {
    let score = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f32>();
    let photos: Vec<&[f32]> = photos.rows().collect();
    let found = captions.rows().zip(owner).filter(|&(caption, &owner)| {
        let own = score(photos[owner], caption);
        photos.iter().filter(|photo| score(photo, caption) > own).count() < 10
    });
    found.count() as f64 / owner.len() as f64
}

#[test]
fn quantised_weights_keep_the_recall_of_the_original() {
    let (Some(folder), Some(original)) = (test_data("data/photos"), original(Isa::detect())) else { return };
    let lines = fs::read_to_string(folder.join("captions.jsonl")).unwrap();
    let lines: Vec<serde_json::Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let batch = pixels(lines.iter().map(|line| folder.join(line["file"].as_str().unwrap())));
    let (mut captions, mut owner) = (Vec::new(), Vec::new());
    for (i, line) in lines.iter().enumerate() {
        for caption in line["captions"].as_array().unwrap() {
            captions.push(caption.as_str().unwrap());
            owner.push(i);
        }
    }
    let texts = |builtin: &Builtin| builtin.encode_texts(&captions).unwrap();
    let want = recall_at_10(&original.encode_images(&batch).unwrap(), &texts(&original), &owner);
    let shipped = texts(&Builtin::new(Precision::Auto).unwrap());
    for precision in [Precision::F32, Precision::Int8] {
        let photos = Builtin::new(precision).unwrap().encode_images(&batch).unwrap();
        let got = recall_at_10(&photos, &shipped, &owner);
        println!(
            "recall@10 over {} captions: original {want:.4}, shipped weights in {precision:?} {got:.4}",
            owner.len()
        );
        assert!(got > want - 0.005, "{precision:?}: {got} instead of {want}");
    }
}
