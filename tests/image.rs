//! Pictures of every mode and format against what the original code makes of them, damage, and the files of real cameras.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use tintype::Error;
use tintype::image::{DecodeOptions, Format, Interpolation, Metadata, Photo, Preprocess, ResizeMode};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/image")
}

/// The folder of test data beside the checkout, or none, said aloud.
fn camera_files() -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared");
    let folder = std::env::var_os("TINTYPE_TEST_DATA").map_or(beside, PathBuf::from).join("data/camera");
    if !folder.is_dir() {
        println!("skipped: no camera files at {}", folder.display());
        return None;
    }
    Some(folder)
}

fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_file());
    let mut files: Vec<_> = entries
        .map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), std::fs::read(&path).unwrap()))
        .collect();
    files.sort();
    files
}

fn decode(bytes: &[u8]) -> tintype::Result<Photo> {
    Photo::decode(bytes, &DecodeOptions::default())
}

fn preprocess(size: (usize, usize), resize_mode: ResizeMode, interpolation: Interpolation) -> Preprocess {
    Preprocess { size, mean: [0.0; 3], std: [1.0; 3], interpolation, resize_mode, fill: 0, rgb_first: false }
}

fn rgb(photo: &Photo) -> Vec<u8> {
    let size = (photo.height() as usize, photo.width() as usize);
    preprocess(size, ResizeMode::Squash, Interpolation::Bicubic).apply(photo).unwrap()
}

/// Largest and mean difference of bytes.
fn difference(a: &[u8], b: &[u8]) -> (u8, f64) {
    assert_eq!(a.len(), b.len());
    let differences = || a.iter().zip(b).map(|(a, b)| a.abs_diff(*b));
    (differences().max().unwrap_or(0), differences().map(f64::from).sum::<f64>() / a.len() as f64)
}

/// One line of cases.tsv: picture, height, width, mode, interpolation, fill, rgb_first.
fn parse_case(line: &str) -> (&str, Preprocess) {
    let fields: Vec<&str> = line.split('\t').collect();
    let mode = match fields[3] {
        "shortest" => ResizeMode::Shortest,
        "longest" => ResizeMode::Longest,
        "squash" => ResizeMode::Squash,
        other => panic!("mode {other}"),
    };
    let interpolation = match fields[4] {
        "bicubic" => Interpolation::Bicubic,
        "bilinear" => Interpolation::Bilinear,
        other => panic!("interpolation {other}"),
    };
    let size = (fields[1].parse().unwrap(), fields[2].parse().unwrap());
    let (fill, rgb_first) = (fields[5].parse().unwrap(), fields[6] == "1");
    (fields[0], Preprocess { fill, rgb_first, ..preprocess(size, mode, interpolation) })
}

#[test]
fn preprocessing_equals_the_original() {
    // Not the decoder that Pillow has: a few levels of difference are the decoder's.
    let lossy = |name: &str| name == "rgb_jpeg.tif";
    let mut options = DecodeOptions::default();
    options.clip_deep = true;
    let cases = std::fs::read_to_string(fixtures().join("cases.tsv")).unwrap();
    let expected = rgb(&decode(&std::fs::read(fixtures().join("expected.png")).unwrap()).unwrap());
    let pictures: BTreeMap<String, Vec<u8>> = files(&fixtures().join("pictures")).into_iter().collect();
    let (mut at, mut exact, mut total, mut wrong) = (0, 0, 0, Vec::new());
    let mut worst_lossy = (0, 0.0_f64);
    for line in cases.lines() {
        let (name, preprocess) = parse_case(line);
        let len = preprocess.size.0 * preprocess.size.1 * 3;
        let want = &expected[at..at + len];
        at += len;
        let photo = match Photo::decode(&pictures[name], &options) {
            Ok(photo) => photo,
            Err(error) => {
                wrong.push(format!("{line}: {error}"));
                continue;
            }
        };
        let (max, mean) = difference(&preprocess.apply(&photo).unwrap(), want);
        if lossy(name) {
            worst_lossy = (worst_lossy.0.max(max), worst_lossy.1.max(mean));
            if max > 6 || mean > 0.6 {
                wrong.push(format!("{line}: max {max} mean {mean:.3}"));
            }
            continue;
        }
        total += 1;
        exact += usize::from(max == 0);
        if max > 0 {
            wrong.push(format!("{line}: max {max} mean {mean:.3}"));
        }
    }
    println!("{exact} of {total} lossless cases are equal bit for bit; lossy at worst {worst_lossy:?}");
    assert!(total >= 200 && wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn eight_orientations_show_one_picture() {
    let folder = fixtures().join("pictures");
    let turned = |n: u32| decode(&std::fs::read(folder.join(format!("turned_{n}.jpg"))).unwrap()).unwrap();
    let upright = rgb(&turned(1));
    for n in 2..=8 {
        let photo = turned(n);
        assert_eq!((photo.width(), photo.height()), (90, 60));
        let (max, mean) = difference(&upright, &rgb(&photo));
        // JPEG blocks fall elsewhere in a mirrored picture, so it is not quite the same.
        assert!(mean < 7.0, "orientation {n}: max {max} mean {mean}");
    }
    let mut as_stored = DecodeOptions::default();
    as_stored.orient = false;
    let bytes = std::fs::read(folder.join("turned_6.jpg")).unwrap();
    assert_eq!(Photo::decode(&bytes, &as_stored).unwrap().width(), 60);
}

#[test]
fn formats_are_known_by_content() {
    let named = |extension: &str| match extension {
        "jpg" => Format::Jpeg,
        "png" => Format::Png,
        "gif" => Format::Gif,
        "webp" => Format::WebP,
        "tif" => Format::Tiff,
        "bmp" => Format::Bmp,
        "qoi" => Format::Qoi,
        _ => Format::Pnm,
    };
    for (name, bytes) in files(&fixtures().join("pictures")) {
        let format = if name == "wrong_extension.png" { Format::Jpeg } else { named(name.rsplit('.').next().unwrap()) };
        let head = &bytes[..bytes.len().min(Format::SNIFF_LEN)];
        assert_eq!(Format::sniff(head), Some(format), "{name}");
        assert_eq!(decode(&bytes).unwrap().format(), format, "{name}");
    }
}

#[test]
fn bombs_are_refused_before_they_are_unpacked() {
    for (name, bytes) in files(&fixtures().join("pictures")) {
        let mut options = DecodeOptions::default();
        options.max_pixels = 0;
        let result = Photo::decode(&bytes, &options);
        assert!(matches!(result, Err(Error::ImageTooLarge { .. })), "{name}: {:?}", result.err());
    }
}

#[test]
fn truncated_jpegs_are_errors() {
    let bytes = std::fs::read(fixtures().join("pictures/baseline.jpg")).unwrap();
    for len in [bytes.len() - 1, bytes.len() - 2, bytes.len() / 2] {
        let error = decode(&bytes[..len]).unwrap_err();
        assert!(error.to_string().contains("ends too early"), "{error}");
    }
}

/// Every picture cut short and with flipped bytes: an error or a picture, never a panic.
#[test]
fn damage_never_panics() {
    let small = preprocess((16, 16), ResizeMode::Shortest, Interpolation::Bicubic);
    let mut options = DecodeOptions::default();
    options.max_pixels = 200_000;
    let mut state = 0x2545_F491_4F6C_DD1D_u64;
    let mut random = |bound: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % bound as u64) as usize
    };
    for (name, bytes) in files(&fixtures().join("pictures")) {
        let rounds: usize = std::env::var("TINTYPE_FUZZ_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(24);
        for round in 0..rounds {
            let mut damaged = bytes.clone();
            if round % 2 == 0 {
                // Headers are where the decisions are.
                let bound = if round % 4 == 0 { bytes.len().min(200) } else { bytes.len() };
                damaged.truncate(random(bound));
            }
            for _ in 0..round % 5 {
                let bound = if round % 3 == 0 { damaged.len().min(300) } else { damaged.len() };
                if bound > 0 {
                    damaged[random(bound)] ^= 1 << random(8);
                }
            }
            let _ = Metadata::read(&damaged);
            let result = std::panic::catch_unwind(|| {
                if let Ok(photo) = Photo::decode(&damaged, &options) {
                    small.apply(&photo).unwrap();
                }
            });
            if result.is_err() {
                let at = std::env::temp_dir().join(format!("tintype-damaged-{round}-{name}"));
                std::fs::write(&at, &damaged).unwrap();
                panic!("{name}, round {round}: kept as {}", at.display());
            }
        }
    }
}

#[test]
fn thumbnails_are_small_upright_and_written_as_jpeg() {
    let photo = decode(&std::fs::read(fixtures().join("pictures/turned_6.jpg")).unwrap()).unwrap();
    let thumbnail = photo.thumbnail(30);
    assert_eq!((thumbnail.width, thumbnail.height, thumbnail.rgb.len()), (30, 20, 30 * 20 * 3));
    let again = decode(&thumbnail.to_jpeg(95).unwrap()).unwrap();
    assert!(difference(&rgb(&again), &thumbnail.rgb).1 < 4.0);
    assert_eq!(photo.thumbnail(1000).width, 90, "smaller pictures are not enlarged");
    for (name, bytes) in files(&fixtures().join("pictures")) {
        let thumbnail = decode(&bytes).unwrap().thumbnail(16);
        assert_eq!(thumbnail.rgb.len() as u32, thumbnail.width * thumbnail.height * 3, "{name}");
        assert!(thumbnail.width.max(thumbnail.height) <= 16, "{name}");
    }
}

#[test]
fn camera_files_decode_or_say_why() {
    let Some(folder) = camera_files() else { return };
    let (mut with_time, mut with_camera, mut with_place) = (0, 0, 0);
    for (name, bytes) in files(&folder).into_iter().filter(|(name, _)| name.to_lowercase().ends_with(".jpg")) {
        if let Err(error) = decode(&bytes) {
            println!("{name}: {error}");
        }
        let metadata = Metadata::read(&bytes);
        with_time += usize::from(metadata.taken.is_some());
        with_camera += usize::from(metadata.camera.is_some());
        with_place += usize::from(metadata.place.is_some());
    }
    println!("{with_time} with a time, {with_camera} with a camera, {with_place} with a place");
    assert!(with_time > 35 && with_camera > 35 && with_place > 3);
    for (name, bytes) in files(&folder.join("broken")) {
        let _ = Metadata::read(&bytes);
        match decode(&bytes) {
            Ok(photo) => println!("broken/{name}: {} × {} after all", photo.width(), photo.height()),
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
    for (name, bytes) in files(&folder.join("heic")) {
        let _ = Metadata::read(&bytes);
        let error = decode(&bytes).unwrap_err();
        println!("heic/{name}: {error}");
        assert!(matches!(error, Error::UnsupportedImage { .. } | Error::BadImage { .. }), "{name}: {error}");
    }
}

#[test]
fn turned_camera_pictures_agree() {
    let Some(folder) = camera_files() else { return };
    for shape in ["landscape", "portrait"] {
        let picture = |n: u32| {
            let bytes = std::fs::read(folder.join(format!("{shape}_{n}.jpg"))).unwrap();
            let thumbnail = decode(&bytes).unwrap().thumbnail(60);
            (thumbnail.width, thumbnail.height, thumbnail.rgb)
        };
        let upright = picture(1);
        assert_eq!(upright.0 > upright.1, shape == "landscape");
        for n in 2..=8 {
            let turned = picture(n);
            assert_eq!((upright.0, upright.1), (turned.0, turned.1), "{shape}_{n}");
            let (_, mean) = difference(&upright.2, &turned.2);
            // Each bears its number; a wrong turn differs by 30 and more.
            assert!(mean < 20.0, "{shape}_{n}: mean {mean}");
        }
    }
}
