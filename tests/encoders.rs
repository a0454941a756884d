//! Every architecture of open_clip's registry, and the formats of Hugging Face, against the code that they come from: raw files
//! and raw strings to vectors. `tests/fixtures/encoders/make.py` writes the models, small and with random weights; a few are in
//! the repository, the others are looked for in the folder of test data.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use safetensors::SafeTensors;
use tintype::image::{DecodeOptions, Photo};
use tintype::model::cpu::Isa;
use tintype::model::{EncoderOptions, Precision};
use tintype::{Encode, Encoder, Error, PixelBatch};

/// The smallest cosine to the reference, and the smallest after the mean of all references is taken from both sides: random
/// models map everything to nearly one place, and only the second number sees whether inputs are told apart.
#[derive(Clone, Copy, Debug)]
struct Nearness {
    cosine: f64,
    centred: f64,
}

const LEAST: Nearness = Nearness { cosine: 0.9999, centred: 0.999 };

fn reference(dir: &Path, name: &str) -> Vec<f32> {
    let bytes = fs::read(dir.join("reference.vectors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    file.tensor(name).unwrap().data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
}

fn nearness(found: &[f32], expected: &[f32], dim: usize) -> Nearness {
    assert_eq!(found.len(), expected.len());
    let rows = expected.len() / dim;
    let mean: Vec<f64> =
        (0..dim).map(|d| (0..rows).map(|r| f64::from(expected[r * dim + d])).sum::<f64>() / rows as f64).collect();
    let cosine = |a: &[f32], b: &[f32], mean: &[f64]| {
        let pairs = || a.iter().zip(b).zip(mean).map(|((a, b), m)| (f64::from(*a) - m, f64::from(*b) - m));
        let dot: f64 = pairs().map(|(a, b)| a * b).sum();
        dot / (pairs().map(|(a, _)| a * a).sum::<f64>() * pairs().map(|(_, b)| b * b).sum::<f64>()).sqrt()
    };
    let least =
        |mean: &[f64]| found.chunks(dim).zip(expected.chunks(dim)).map(|(a, b)| cosine(a, b, mean)).fold(1.0, f64::min);
    Nearness { cosine: least(&vec![0.0; dim]), centred: least(&mean) }
}

/// Pictures and texts of a folder of models.
struct Inputs {
    pictures: Vec<Vec<u8>>,
    texts: Vec<String>,
}

impl Inputs {
    fn read(folder: &Path) -> Self {
        let mut paths: Vec<PathBuf> =
            fs::read_dir(folder.join("images")).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        let texts = serde_json::from_slice(&fs::read(folder.join("texts.json")).unwrap()).unwrap();
        Self { pictures: paths.iter().map(|path| fs::read(path).unwrap()).collect(), texts }
    }

    /// How near the model comes to its reference, for pictures and for texts.
    fn compare(&self, dir: &Path) -> Result<[Nearness; 2], String> {
        let options = EncoderOptions::default().precision(Precision::F32);
        let encoder = Encoder::load_with(dir, &options).map_err(|e| e.to_string())?;
        let preprocess = encoder.preprocess();
        let mut batch = PixelBatch::new(preprocess.size.0, preprocess.size.1);
        for bytes in &self.pictures {
            let photo = Photo::decode(bytes, &DecodeOptions::default()).map_err(|e| e.to_string())?;
            batch.push(&preprocess.apply(&photo).map_err(|e| e.to_string())?);
        }
        let texts: Vec<&str> = self.texts.iter().map(String::as_str).collect();
        let images = encoder.encode_images(&batch).map_err(|e| e.to_string())?;
        let texts = encoder.encode_texts(&texts).map_err(|e| e.to_string())?;
        let dim = images.dim();
        Ok([
            nearness(images.as_slice(), &reference(dir, "images"), dim),
            nearness(texts.as_slice(), &reference(dir, "texts"), dim),
        ])
    }
}

fn is_near(nearness: &[Nearness; 2]) -> bool {
    nearness.iter().all(|n| n.cosine >= LEAST.cosine && n.centred >= LEAST.centred)
}

/// Every model below `folder` whose name begins with one of the comma-separated words of TINTYPE_ENCODERS, if that is set.
fn models(folder: &Path) -> Vec<PathBuf> {
    let wanted = std::env::var("TINTYPE_ENCODERS").unwrap_or_default();
    let mut dirs: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.join("reference.vectors").is_file())
        .filter(|path| {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            wanted.split(',').any(|word| name.starts_with(word))
        })
        .collect();
    dirs.sort();
    dirs
}

type Results = BTreeMap<String, Result<[Nearness; 2], String>>;

fn compare_all(folder: &Path) -> Results {
    let inputs = Inputs::read(folder);
    let compare = |dir: &PathBuf| {
        let name = dir.file_name().unwrap().to_string_lossy().into_owned();
        let result = inputs.compare(dir);
        match &result {
            Ok(found) => {
                let mark = if is_near(found) { "      " } else { "WRONG " };
                let [image, text] = found;
                println!(
                    "{mark}{name}: image {:.7} ({:.6}), text {:.7} ({:.6})",
                    image.cosine, image.centred, text.cosine, text.centred
                );
            }
            Err(error) => println!("ERROR {name}: {error}"),
        }
        (name, result)
    };
    models(folder).par_iter().map(compare).collect()
}

fn folder(kind: &str) -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared");
    let folder = std::env::var_os("TINTYPE_TEST_DATA").map_or(beside, PathBuf::from).join("data").join(kind);
    if !folder.join("texts.json").is_file() {
        println!("skipped: no models at {}", folder.display());
        return None;
    }
    Some(folder)
}

fn assert_near(results: &Results) {
    let wrong: Vec<&String> =
        results.iter().filter(|(_, result)| !result.as_ref().is_ok_and(is_near)).map(|(name, _)| name).collect();
    assert!(wrong.is_empty(), "{} of {}: {wrong:?}", wrong.len(), results.len());
}

/// Puts `table` between the two marks of this name in docs/encoders.md.
fn write_table(name: &str, table: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/encoders.md");
    let text = fs::read_to_string(&path).unwrap();
    let (begin, end) = (format!("<!-- {name} -->\n"), format!("<!-- end of {name} -->"));
    let (before, rest) = text.split_once(&begin).unwrap();
    let (_, after) = rest.split_once(&end).unwrap();
    fs::write(&path, format!("{before}{begin}\n{table}\n{end}{after}")).unwrap();
}

/// What a row of a table says of a result.
fn cells(result: Option<&Result<[Nearness; 2], String>>) -> String {
    match result {
        Some(Ok(found)) => {
            let [image, text] = found.map(|n| format!("{:.6}", n.cosine));
            format!("{image} | {text} | {}", if is_near(found) { "proven" } else { "**wrong**" })
        }
        Some(Err(error)) => format!("– | – | {}", error.rsplit(": ").next().unwrap_or(error)),
        None => "– | – | not generated".to_owned(),
    }
}

/// The table of the registry's entries.
fn write_registry(folder: &Path, results: &Results) {
    let entries: Vec<BTreeMap<String, String>> =
        serde_json::from_slice(&fs::read(folder.join("entries.json")).unwrap()).unwrap();
    let mut table = "| model | tag | image | text | |\n|---|---|---|---|---|\n".to_owned();
    for entry in &entries {
        let result = results.get(&entry["directory"]);
        table += &format!("| {} | {} | {} |\n", entry["model"], entry["tag"], cells(result));
    }
    let proven =
        |entry: &&BTreeMap<String, String>| matches!(results.get(&entry["directory"]), Some(Ok(n)) if is_near(n));
    let count = entries.iter().filter(proven).count();
    let summary = format!(
        "{count} of {} entries ({:.1} %), {} distinct architectures.\n\n",
        entries.len(),
        100.0 * count as f64 / entries.len() as f64,
        results.len()
    );
    write_table("registry", &(summary + &table));
}

#[test]
fn every_architecture_of_the_registry_gives_the_vectors_of_its_original() {
    let Some(folder) = folder("encoders") else { return };
    let results = compare_all(&folder);
    if std::env::var_os("TINTYPE_WRITE_DOCS").is_some() {
        write_registry(&folder, &results);
    }
    assert_near(&results);
}

#[test]
fn the_other_formats_give_the_vectors_of_their_originals() {
    let Some(folder) = folder("formats") else { return };
    let results = compare_all(&folder);
    if std::env::var_os("TINTYPE_WRITE_DOCS").is_some() {
        let mut table = "| format | image | text | |\n|---|---|---|---|\n".to_owned();
        for (name, result) in &results {
            table += &format!("| {name} | {} |\n", cells(Some(result)));
        }
        write_table("formats", &table);
    }
    assert_near(&results);
}

/// Where a model's towers run on kernels, their vectors are those of candle's tensors in every arithmetic that this machine
/// has. These models are tiny and random, so that rounding shows more than in real ones.
fn compare_kernels(dir: &Path, inputs: &Inputs) -> Vec<String> {
    let load = |options: EncoderOptions| Encoder::load_with(dir, &options);
    let model = dir.file_name().unwrap().to_string_lossy().into_owned();
    let tensors = load(EncoderOptions::default().reference()).unwrap();
    let preprocess = tensors.preprocess();
    let mut batch = PixelBatch::new(preprocess.size.0, preprocess.size.1);
    for bytes in &inputs.pictures {
        let photo = Photo::decode(bytes, &DecodeOptions::default()).unwrap();
        batch.push(&preprocess.apply(&photo).unwrap());
    }
    let texts: Vec<&str> = inputs.texts.iter().map(String::as_str).collect();
    let expected = [tensors.encode_images(&batch).unwrap(), tensors.encode_texts(&texts).unwrap()];
    let mut wrong = Vec::new();
    let kinds = [(Precision::F32, 0.99999), (Precision::Bf16, 0.9995), (Precision::Int8, 0.995)];
    for (isa, (precision, least)) in Isa::available().into_iter().flat_map(|isa| kinds.map(|kind| (isa, kind))) {
        // A tower that stays on tensors is evaluated in f32, and int8 is refused for such a model.
        let encoder = match load(EncoderOptions::default().precision(precision).isa(isa)) {
            Ok(encoder) => encoder,
            Err(Error::UnsupportedModel { key, .. }) if key == "precision" => continue,
            Err(error) => panic!("{model}: {error}"),
        };
        let found = [encoder.encode_images(&batch).unwrap(), encoder.encode_texts(&texts).unwrap()];
        for (what, (found, expected)) in ["pictures", "texts"].iter().zip(found.iter().zip(&expected)) {
            let Nearness { cosine, .. } = nearness(found.as_slice(), expected.as_slice(), expected.dim());
            let line = format!("{model}, {what}, {precision:?} on {}: {cosine:.6}", isa.name());
            println!("{line}");
            if cosine < least {
                wrong.push(line);
            }
        }
    }
    wrong
}

#[test]
fn kernels_give_the_vectors_of_tensors_in_every_arithmetic() {
    let committed = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/encoders");
    let wrong: Vec<String> = [Some(committed), folder("encoders")]
        .into_iter()
        .flatten()
        .flat_map(|folder| {
            let inputs = Inputs::read(&folder);
            models(&folder).par_iter().flat_map(|dir| compare_kernels(dir, &inputs)).collect::<Vec<_>>()
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_committed_architectures_give_the_vectors_of_their_originals() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/encoders");
    let results = compare_all(&folder);
    assert!(results.len() >= 8 || std::env::var_os("TINTYPE_ENCODERS").is_some(), "the fixtures are there");
    assert_near(&results);
}

/// A copy of a committed model whose configuration `edit` has changed.
fn edited(model: &str, edit: impl Fn(String) -> String) -> (tempfile::TempDir, PathBuf) {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/encoders").join(model);
    let dir = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(&from).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, dir.path().join(path.file_name().unwrap())).unwrap();
    }
    let config = dir.path().join("open_clip_config.json");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, edit(text)).unwrap();
    let path = dir.path().to_path_buf();
    (dir, path)
}

#[test]
fn a_state_dict_is_what_the_configuration_beside_it_says_or_an_error() {
    let error = |model: &str, from: &str, to: &str| {
        let (_dir, path) = edited(model, |text| text.replace(from, to));
        Encoder::load(path).map(drop).unwrap_err().to_string()
    };
    let heads = error("slip", "vit_small_mocov3_patch16_224", "vit_small_patch16_224");
    assert!(heads.contains("12 heads"), "{heads}");
    let gates = error("react", "\"enabled\": true", "\"enabled\": false");
    assert!(gates.contains("no part of the model"), "{gates}");
    let more = error("react", "\"last_k_layers\": 1", "\"last_k_layers\": 2");
    assert!(more.contains("is missing"), "{more}");
    let masked = error("react", "\"embed_dim\"", "\"mask_image\": true, \"embed_dim\"");
    assert!(masked.contains("model_cfg.mask_image"), "{masked}");
    // The file names the same model as its directory.
    let (_dir, path) = edited("slip", |text| text);
    let vectors = |path: &Path| Encoder::load(path).unwrap().encode_texts(&["a dog"]).unwrap();
    assert_eq!(vectors(&path), vectors(&path.join("checkpoint.pt")));
}

#[test]
fn a_cosine_of_distributions_is_the_score_of_their_original() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/encoders");
    let dir = folder.join("prolip");
    let inputs = Inputs::read(&folder);
    let encoder = Encoder::load_with(&dir, &EncoderOptions::default().precision(Precision::F32)).unwrap();
    let preprocess = encoder.preprocess();
    let mut batch = PixelBatch::new(preprocess.size.0, preprocess.size.1);
    for bytes in &inputs.pictures {
        batch.push(&preprocess.apply(&Photo::decode(bytes, &DecodeOptions::default()).unwrap()).unwrap());
    }
    let texts: Vec<&str> = inputs.texts.iter().map(String::as_str).collect();
    let (pictures, texts) = (encoder.encode_images(&batch).unwrap(), encoder.encode_texts(&texts).unwrap());
    let expected = reference(&dir, "scores");
    let pairs = pictures.rows().flat_map(|picture| texts.rows().map(move |text| (picture, text)));
    let found: Vec<f32> = pairs.map(|(a, b)| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>() * 2.25).collect();
    assert_eq!(found.len(), expected.len());
    let off = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    let (least, most) = expected.iter().fold((f32::MAX, f32::MIN), |(a, b), &x| (a.min(x), b.max(x)));
    println!("scores from {least} to {most}, off by {off} at most");
    assert!(off < 1e-5, "off by {off}");
}

#[test]
fn packed_trunks_come_back_from_the_cache_as_they_were() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/encoders");
    let inputs = Inputs::read(&folder);
    for model in ["RN50", "convnext_base", "MobileCLIP-S1", "MobileCLIP2-S3"] {
        let cache = tempfile::tempdir().unwrap();
        let options = EncoderOptions::default().precision(Precision::F32).cache(cache.path());
        let encode = || {
            let encoder = Encoder::load_with(folder.join(model), &options).unwrap();
            let preprocess = encoder.preprocess();
            let mut batch = PixelBatch::new(preprocess.size.0, preprocess.size.1);
            let photo = Photo::decode(&inputs.pictures[0], &DecodeOptions::default()).unwrap();
            batch.push(&preprocess.apply(&photo).unwrap());
            encoder.encode_images(&batch).unwrap()
        };
        let made = encode();
        let files = |dir: &Path| -> Vec<PathBuf> { fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect() };
        let [file] = files(cache.path()).try_into().unwrap();
        let (bytes, written) = (fs::read(&file).unwrap(), fs::metadata(&file).unwrap().modified().unwrap());
        assert_eq!(made.as_slice(), encode().as_slice(), "{model}");
        // It was found and not made again.
        assert_eq!(fs::metadata(&file).unwrap().modified().unwrap(), written, "{model}");
        assert_eq!(fs::read(&file).unwrap(), bytes, "{model}");
    }
}
