//! Every architecture of open_clip's registry, and the formats of Hugging Face, against the code that they come from: raw files
//! and raw strings to vectors. `tests/fixtures/encoders/make.py` writes the models, small and with random weights; a few are in
//! the repository, the others are looked for in the folder of test data.

#[path = "../benches/encode/random.rs"]
pub(crate) mod random;

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

/// A model whose file is committed in parts: rows of a table, each of which begins one number (two bytes) after the one before
/// it, stand in the file one after the other.
fn assembled(dir: &Path) -> Option<tempfile::TempDir> {
    let part = |name: &str| fs::read(dir.join(format!("model.pt.{name}")));
    let (before, numbers, after) = (part("before").ok()?, part("numbers").unwrap(), part("after").unwrap());
    let rows: Vec<u8> = numbers.windows(2 * 64).step_by(2).flatten().copied().collect();
    let whole = tempfile::tempdir().unwrap();
    fs::write(whole.path().join("model.pt"), [before, rows, after].concat()).unwrap();
    Some(whole)
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
        let whole = assembled(dir);
        let from = whole.as_ref().map_or(dir, |whole| whole.path());
        let encoder = Encoder::load_with(from, &options).map_err(|e| e.to_string())?;
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

/// Entries that the package of open_clip does not list: two are in its repository, two on the hub alone.
const MORE: [&str; 4] = ["ViT-B-16-SigLIP2-naflex", "ViT-SO400M-16-SigLIP2-naflex", "BiomedCLIP", "ViT-L-14-CLIPS-224"];

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
    let more = entries.iter().filter(|entry| MORE.contains(&entry["model"].as_str())).count();
    let summary = format!(
        "{count} of {} entries ({:.1} %), {} distinct architectures; the last {more} entries are not in the package.\n\n",
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
/// has. `least` are the cosines asked for in f32, bf16 and int8.
fn compare_kernels(dir: &Path, inputs: &Inputs, least: [f64; 3]) -> Vec<String> {
    let whole = assembled(dir);
    let from = whole.as_ref().map_or(dir, |whole| whole.path());
    let load = |options: EncoderOptions| Encoder::load_with(from, &options);
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
    let kinds = [(Precision::F32, least[0]), (Precision::Bf16, least[1]), (Precision::Int8, least[2])];
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
    let wrong: Vec<String> = [Some(committed()), folder("encoders")]
        .into_iter()
        .flatten()
        .flat_map(|folder| {
            let inputs = Inputs::read(&folder);
            // These models are tiny and random, so that rounding shows more than in real ones.
            let compare = |dir: &PathBuf| compare_kernels(dir, &inputs, [0.99999, 0.9995, 0.99]);
            models(&folder).par_iter().flat_map(compare).collect::<Vec<_>>()
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Every model that is committed: a row of one of the two tables each.
const COMMITTED: [&str; 38] = [
    "BiomedCLIP",
    "EVA01-g-14",
    "EVA02-B-16",
    "EVA02-E-14",
    "MobileCLIP-B",
    "MobileCLIP-S1",
    "MobileCLIP2-S3",
    "PE-Core-B-16",
    "RN50",
    "ViT-B-16-SigLIP",
    "ViT-B-16-SigLIP2",
    "ViT-B-16-SigLIP2-naflex",
    "ViT-H-14-CLIPA",
    "ViT-L-14-CLIPS-224",
    "ViTamin-S",
    "aimv2",
    "aimv2_original",
    "align",
    "altclip",
    "apple_B",
    "apple_S1",
    "blip",
    "chinese_clip",
    "clipseg",
    "coca_ViT-B-32",
    "convnext_base",
    "metaclip_2",
    "nllb-clip-base",
    "openai_vit",
    "prolip",
    "quansun_EVA02-B-16",
    "react",
    "roberta-ViT-B-32",
    "siglip",
    "siglip2",
    "slip",
    "tinyclip",
    "xlm-roberta-base-ViT-B-32",
];

fn committed() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/encoders")
}

#[test]
fn models_of_real_width_keep_what_each_precision_promises() {
    let temp = tempfile::tempdir().unwrap();
    let dir = random::Shape { grid: 3, layers: 3 }.write(temp.path());
    let inputs = Inputs::read(&committed());
    let wrong = compare_kernels(&dir, &inputs, [0.99999, 0.9999, 0.999]);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_committed_architectures_give_the_vectors_of_their_originals() {
    let results = compare_all(&committed());
    if std::env::var_os("TINTYPE_ENCODERS").is_none() {
        assert_eq!(results.keys().collect::<Vec<_>>(), COMMITTED, "the fixtures are there, and no others");
    }
    assert_near(&results);
}

#[test]
fn the_tables_have_a_proven_row_for_every_model() {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/encoders.md")).unwrap();
    let rows = |name: &str| -> Vec<Vec<String>> {
        let (_, rest) = text.split_once(&format!("<!-- {name} -->")).unwrap();
        let (table, _) = rest.split_once(&format!("<!-- end of {name} -->")).unwrap();
        let rows = table.lines().filter(|line| line.starts_with("| ")).skip(1);
        rows.map(|row| row.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()).collect()
    };
    let (registry, formats) = (rows("registry"), rows("formats"));
    assert!(registry.len() >= 169 && formats.len() >= 25, "{} and {} rows", registry.len(), formats.len());
    for row in registry.iter().chain(&formats) {
        assert_eq!(row.last().unwrap(), "proven", "{row:?}");
    }
    for model in COMMITTED {
        assert!(registry.iter().chain(&formats).any(|row| row[0] == model), "{model} has no row");
    }
}

/// A copy of a committed model in whose `file` `edit` has changed something.
fn edited(model: &str, file: &str, edit: impl Fn(String) -> String) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(committed().join(model)).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, dir.path().join(path.file_name().unwrap())).unwrap();
    }
    let path = dir.path().join(file);
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, edit(text)).unwrap();
    let path = dir.path().to_path_buf();
    (dir, path)
}

const OPEN_CLIP: &str = "open_clip_config.json";

#[test]
fn what_a_configuration_says_and_nobody_reads_is_refused_by_name() {
    let (config, processor, tokenizer) = ("config.json", "preprocessor_config.json", "tokenizer_config.json");
    for (model, file, from, to, words) in [
        ("siglip", config, "\"text_config\"", "\"from_the_future\": 1, \"text_config\"", "from_the_future"),
        ("siglip", config, "\"patch_size\"", "\"use_qk_norm\": true, \"patch_size\"", "vision_config.use_qk_norm"),
        ("siglip", config, "\"vocab_size\"", "\"use_qk_norm\": true, \"vocab_size\"", "text_config.use_qk_norm"),
        ("siglip", config, "\"text_config\"", "\"auto_map\": {\"a\": 1}, \"text_config\"", "auto_map"),
        ("chinese_clip", config, "\"vocab_size\"", "\"is_decoder\": true, \"vocab_size\"", "text_config.is_decoder"),
        ("aimv2_original", config, "\"num_queries\": 1", "\"num_queries\": 2", "vision_config.num_queries"),
        ("aimv2_original", config, "\"is_causal\": true", "\"is_causal\": false", "text_config.is_causal"),
        ("siglip", processor, "\"do_resize\"", "\"crop_pct\": 0.9, \"do_resize\"", "crop_pct"),
        ("siglip2", processor, "\"do_resize\"", "\"min_num_patches\": 9, \"do_resize\"", "min_num_patches"),
        ("align", processor, "\"do_resize\"", "\"do_pad\": true, \"do_resize\"", "do_pad"),
        ("siglip", processor, "SiglipImageProcessor", "Siglip2ImageProcessor", "image_processor_type"),
        ("siglip2", tokenizer, "padding_side", "padding_size", "padding_side is missing"),
        ("RN50", OPEN_CLIP, "\"preprocess_cfg\": {", "\"preprocess_cfg\": {\"size\": 95,", "preprocess_cfg.size"),
    ] {
        let (_dir, path) = edited(model, file, |text| text.replacen(from, to, 1));
        let error = Encoder::load(path).map(drop).unwrap_err().to_string();
        assert!(error.contains(words) && error.contains(file), "{model}: {error}");
    }
}

/// What versions of transformers have written into every configuration over the years.
const NOTES: &str = r#""_name_or_path": "", "_commit_hash": "0", "add_cross_attention": false, "architectures": null,
    "attention_dropout": 0.1, "bad_words_ids": null, "begin_suppress_tokens": null, "bos_token_id": 0, "chunk_size_feed_forward": 0,
    "cross_attention_hidden_size": null, "decoder_start_token_id": null, "diversity_penalty": 0.0, "do_sample": false, "dropout": 0.0,
    "early_stopping": false, "encoder_no_repeat_ngram_size": 0, "exponential_decay_length_penalty": null, "finetuning_task": null,
    "forced_bos_token_id": null, "forced_eos_token_id": null, "id2label": {"0": "LABEL_0", "1": "LABEL_1"},
    "initializer_factor": 1.0, "initializer_range": 0.02, "is_decoder": false, "is_encoder_decoder": false,
    "label2id": {"LABEL_0": 0, "LABEL_1": 1}, "length_penalty": 1.0, "max_length": 20, "min_length": 0, "no_repeat_ngram_size": 0,
    "num_beam_groups": 1, "num_beams": 1, "num_return_sequences": 1, "output_attentions": false, "output_hidden_states": false,
    "output_scores": false, "prefix": null, "problem_type": null, "projection_dim": 24, "pruned_heads": {},
    "remove_invalid_values": false, "repetition_penalty": 1.0, "return_dict": true, "return_dict_in_generate": false,
    "sep_token_id": null, "task_specific_params": null, "temperature": 1.0, "tf_legacy_loss": false, "tie_encoder_decoder": false,
    "tie_word_embeddings": true, "tokenizer_class": null, "top_k": 50, "top_p": 1.0, "torch_dtype": null, "torchscript": false,
    "transformers_version": "4.24.0", "typical_p": 1.0, "use_bfloat16": false, "use_cache": true,"#;

#[test]
fn what_cannot_change_a_vector_is_passed_over() {
    for model in ["metaclip_2", "altclip", "chinese_clip", "clipseg", "aimv2"] {
        let (_dir, path) = edited(model, "config.json", |text| {
            ["text_config", "vision_config"].iter().fold(text, |text, tower| {
                text.replacen(&format!("\"{tower}\": {{"), &format!("\"{tower}\": {{ {NOTES}"), 1)
            })
        });
        let (found, expected) = (Encoder::load(path).unwrap(), Encoder::load(committed().join(model)).unwrap());
        assert_eq!(found.encode_texts(&["a dog"]).unwrap(), expected.encode_texts(&["a dog"]).unwrap(), "{model}");
    }
}

#[test]
fn a_state_dict_is_what_the_configuration_beside_it_says_or_an_error() {
    let error = |model: &str, from: &str, to: &str| {
        let (_dir, path) = edited(model, OPEN_CLIP, |text| text.replace(from, to));
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
    let (_dir, path) = edited("slip", OPEN_CLIP, |text| text);
    let vectors = |path: &Path| Encoder::load(path).unwrap().encode_texts(&["a dog"]).unwrap();
    assert_eq!(vectors(&path), vectors(&path.join("checkpoint.pt")));
}

#[test]
fn a_cosine_of_distributions_is_the_score_of_their_original() {
    let folder = committed();
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
    let folder = committed();
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
