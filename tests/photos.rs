//! Photos decoded at a part of their size: nearly the same pixels and vectors, no false textures, the same errors.

use std::path::Path;

use ::image::codecs::jpeg::JpegEncoder;
use tintype::image::{DecodeOptions, Interpolation, Photo, Preprocess, ResizeMode};
use tintype::model::{EncoderOptions, Precision};
use tintype::{Encode, Encoder, Error, PixelBatch};

use crate::encoders::random::Shape;

fn preprocess(size: usize, resize_mode: ResizeMode, interpolation: Interpolation) -> Preprocess {
    let (mean, std) = ([0.0; 3], [1.0; 3]);
    Preprocess { size: (size, size), mean, std, interpolation, resize_mode, fill: 0, rgb_first: false }
}

fn fixture(name: &str) -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/image/pictures").join(name)).unwrap()
}

/// Pixels from all of a file and from as much of it as is needed, and by how much it was reduced.
fn both(bytes: &[u8], preprocess: &Preprocess) -> (Vec<u8>, Vec<u8>, u32) {
    let options = DecodeOptions::default();
    let whole = Photo::decode(bytes, &options).unwrap();
    let reduced = Photo::decode_for(bytes, &options, preprocess).unwrap();
    assert_eq!((whole.width(), whole.height()), (reduced.width(), reduced.height()));
    let reduction = reduced.reduction();
    (preprocess.apply(&whole).unwrap(), preprocess.apply(&reduced).unwrap(), reduction)
}

/// Largest and mean difference.
fn difference(a: &[u8], b: &[u8]) -> (u8, f64) {
    let differences = || a.iter().zip(b).map(|(a, b)| a.abs_diff(*b));
    (differences().max().unwrap_or(0), differences().map(f64::from).sum::<f64>() / a.len() as f64)
}

/// A JPEG of what a function says about each place, in grey.
fn jpeg((width, height): (u32, u32), value: impl Fn(f64, f64) -> f64) -> Vec<u8> {
    let picture = ::image::RgbImage::from_fn(width, height, |x, y| ::image::Rgb([value(x.into(), y.into()) as u8; 3]));
    let mut bytes = Vec::new();
    JpegEncoder::new_with_quality(&mut bytes, 95).encode_image(&picture).unwrap();
    bytes
}

#[test]
fn every_kind_of_jpeg_looks_the_same_reduced() {
    let names = ["baseline", "progressive", "full_chroma", "gray", "cmyk", "turned_3", "turned_6", "turned_8"];
    for name in names {
        let bytes = fixture(&format!("{name}.jpg"));
        for (mode, filter) in
            [(ResizeMode::Shortest, Interpolation::Bicubic), (ResizeMode::Squash, Interpolation::Bilinear)]
        {
            let (whole, reduced, reduction) = both(&bytes, &preprocess(10, mode, filter));
            assert!(reduction > 1, "{name}");
            let (max, mean) = difference(&whole, &reduced);
            println!("{name} 1/{reduction} {mode:?}: max {max}, mean {mean:.2}");
            assert!(mean < 2.0 && max < 24, "{name}: max {max}, mean {mean:.2}");
        }
    }
}

#[test]
fn turned_photos_of_odd_sizes_lie_where_they_should() {
    // Eight does not divide the edges: the last samples of the reduced picture hang over.
    let wave = |x: f64, y: f64| 128.0 + 60.0 * (x / 60.0).sin() + 60.0 * (y / 45.0).sin();
    let plain = jpeg((1021, 769), wave);
    for orientation in 1..=8_u8 {
        let mut bytes = plain[..2].to_vec();
        bytes.extend(b"\xFF\xE1\x00\x22Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0");
        bytes.extend([orientation, 0, 0, 0, 0, 0, 0, 0]);
        bytes.extend(&plain[2..]);
        for mode in [ResizeMode::Shortest, ResizeMode::Squash] {
            let (whole, reduced, reduction) = both(&bytes, &preprocess(32, mode, Interpolation::Bicubic));
            let (max, mean) = difference(&whole, &reduced);
            println!("orientation {orientation} {mode:?}: max {max}, mean {mean:.3}");
            assert_eq!(reduction, 8);
            assert!(max <= 3 && mean < 0.6, "orientation {orientation} {mode:?}: max {max}, mean {mean:.3}");
        }
    }
}

#[test]
fn fine_textures_stay_faint_and_coarse_ones_stay() {
    const CONTRAST: f64 = 100.0;
    const EDGE: u32 = 768;
    let spread = |pixels: &[u8]| {
        let values: Vec<f64> = pixels.chunks_exact(3).map(|pixel| f64::from(pixel[1])).collect();
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        (values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / values.len() as f64).sqrt()
    };
    let reductions = [2, 4, 8];
    // Of each reduction, what is left of coarse textures, and what is added to those between and to fine ones.
    let mut seen = [(1.0_f64, 0.0_f64, 0.0_f64); 3];
    for angle in [0.0, 0.35, std::f64::consts::FRAC_PI_4] {
        for step in 1..50 {
            let frequency = f64::from(step) / 100.0;
            let (along_x, along_y) = (frequency * f64::cos(angle), frequency * f64::sin(angle));
            let wave =
                |x: f64, y: f64| 128.0 + CONTRAST * (std::f64::consts::TAU * (along_x * x + along_y * y) + 0.3).sin();
            let texture = jpeg((EDGE, EDGE), wave);
            for (wanted, (coarse, between, fine)) in reductions.into_iter().zip(&mut seen) {
                // A pixel of the result for six, twelve, twenty-four: as little as is reduced so far.
                let each = 3 * wanted;
                let model = preprocess((EDGE / each) as usize, ResizeMode::Shortest, Interpolation::Bicubic);
                let (whole, reduced, reduction) = both(&texture, &model);
                assert_eq!(reduction, wanted);
                let (whole, reduced) = (spread(&whole), spread(&reduced));
                let more = (reduced - whole) / (CONTRAST / f64::sqrt(2.0));
                // What repeats faster than in two pixels cannot be in the result.
                let against_limit = frequency * f64::from(2 * each);
                if against_limit <= 0.8 {
                    *coarse = coarse.min(reduced / whole);
                } else if against_limit <= 1.5 {
                    *between = between.max(more.abs());
                } else {
                    *fine = fine.max(more);
                }
            }
        }
    }
    for (reduction, (coarse, between, fine)) in reductions.into_iter().zip(seen) {
        println!("1/{reduction}: coarse textures keep {coarse:.4} of their contrast, of fine ones {fine:.4} is left");
        println!("     and those between differ by {between:.4} of it");
    }
    // A box of two pixels flattens the finest textures less than one of four or eight.
    for ((reduction, most), (coarse, between, fine)) in reductions.into_iter().zip([0.15, 0.12, 0.12]).zip(seen) {
        assert!(coarse > 0.995 && between < 0.02 && fine < most, "1/{reduction}: {coarse} {between} {fine}");
    }
}

/// The camera photos that are reduced for a model: the smallest cosine between their vectors and those of whole pictures.
fn keeps_vectors(encoder: &Encoder, folder: &Path) -> f32 {
    let (mut count, mut worst) = (0, 1.0_f32);
    for path in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_file()) {
        let bytes = std::fs::read(&path).unwrap();
        let Ok(photo) = Photo::decode_for(&bytes, &DecodeOptions::default(), encoder.preprocess()) else { continue };
        if photo.reduction() == 1 {
            continue;
        }
        let (whole, reduced, reduction) = both(&bytes, encoder.preprocess());
        let mut batch = PixelBatch::new(encoder.preprocess().size.0, encoder.preprocess().size.1);
        batch.push(&whole);
        batch.push(&reduced);
        let vectors = encoder.encode_images(&batch).unwrap();
        let rows: Vec<&[f32]> = vectors.rows().collect();
        let cosine: f32 = rows[0].iter().zip(rows[1]).map(|(a, b)| a * b).sum();
        println!("  {cosine:.6} at 1/{reduction}: {}", path.display());
        (count, worst) = (count + 1, worst.min(cosine));
    }
    assert!(count >= 6, "{count} photos");
    worst
}

#[test]
fn camera_photos_keep_their_vectors() {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared");
    let folder = std::env::var_os("TINTYPE_TEST_DATA").map_or(beside, Into::into).join("data/camera");
    if !folder.is_dir() {
        println!("skipped: no camera files at {}", folder.display());
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let random = Shape { grid: 7, layers: 3 }.write(dir.path());
    // Rounding to int8 answers to one level of one pixel with as much as a reduction does.
    for (precision, least) in [(Precision::F32, 0.9995), (Precision::Int8, 0.998)] {
        let mut options = EncoderOptions::default();
        options.precision = precision;
        let trained = Encoder::builtin_with(&options).unwrap();
        let random = Encoder::load_with(&random, &options).unwrap();
        for (name, encoder) in [("trained", trained), ("random", random)] {
            println!("{name} weights, {precision:?}");
            let worst = keeps_vectors(&encoder, &folder);
            assert!(worst >= least, "{name} weights, {precision:?}: cosine {worst}");
        }
    }
}

#[test]
fn damage_is_told_alike_and_in_plain_words() {
    let model = preprocess(8, ResizeMode::Shortest, Interpolation::Bicubic);
    for name in ["baseline.jpg", "progressive.jpg", "cmyk.jpg"] {
        let whole = fixture(name);
        for part in [0.3, 0.6, 0.95] {
            let cut = &whole[..(whole.len() as f64 * part) as usize];
            for result in [
                Photo::decode(cut, &DecodeOptions::default()),
                Photo::decode_for(cut, &DecodeOptions::default(), &model),
            ] {
                let error = result.map(|photo| photo.reduction()).unwrap_err();
                assert!(matches!(&error, Error::DamagedImage { .. }), "{name} {part}: {error:?}");
                assert!(error.to_string().contains("ends too early"), "{name} {part}: {error}");
            }
        }
        let mut deep = whole.clone();
        let frame = deep.windows(2).position(|pair| matches!(pair, [0xFF, 0xC0 | 0xC2])).unwrap();
        (deep[frame + 1], deep[frame + 4]) = (0xC1, 12);
        let error = Photo::decode_for(&deep, &DecodeOptions::default(), &model).map(|_| ()).unwrap_err();
        assert_eq!(error.to_string(), "12-bit JPEG pictures are not supported yet", "{name}");
    }
}

#[test]
fn deep_greys_are_seen_as_people_see_them() {
    // A scan of sixteen bits is a picture, not a white page.
    let mut bytes = b"P5 64 64 65535\n".to_vec();
    bytes.extend((0..64 * 64_u32).flat_map(|i| ((i % 64 * 1000) as u16).to_be_bytes()));
    let model = preprocess(64, ResizeMode::Squash, Interpolation::Bicubic);
    let seen = |clip| {
        let mut options = DecodeOptions::default();
        options.clip_deep = clip;
        model.apply(&Photo::decode(&bytes, &options).unwrap()).unwrap()
    };
    let row = &seen(false)[..64 * 3];
    assert!(row.is_sorted() && row[0] == 0 && row[63 * 3] > 240, "{row:?}");
    assert!((1..64).all(|x| seen(true)[x * 3] == 255));
}
