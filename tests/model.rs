//! Model directories against the code that they were made with. `tests/fixtures/model/make.py` wrote the fixtures.

use std::fs;
use std::path::{Path, PathBuf};

use safetensors::SafeTensors;
use tintype::model::cpu::Isa;
use tintype::model::{EncoderOptions, Precision};
use tintype::{Encode, Encoder, Error, PixelBatch};

/// The texts of `make.py`.
const TEXTS: [&str; 7] = [
    "a dog running through snow",
    "",
    "Two cats &amp; a <b>very</b> long sentence that does not fit into the small context of these models, so it is cut",
    "“Curly” quotes’ end",
    "x",
    "été 2024 à la plage",
    "a photo of a red car",
];

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/model")
}

fn models() -> Vec<PathBuf> {
    let mut dirs: Vec<PathBuf> =
        fs::read_dir(fixtures()).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()).collect();
    dirs.sort();
    assert_eq!(dirs.len(), 7, "all fixtures are there");
    dirs
}

/// The pictures of `make.py`.
fn pictures(size: (usize, usize)) -> PixelBatch {
    let mut batch = PixelBatch::new(size.0, size.1);
    for number in 0..7_u32 {
        let mut state = number + 1;
        let mut byte = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        let picture: Vec<u8> = (0..size.0 * size.1 * 3).map(|_| byte()).collect();
        batch.push(&picture);
    }
    batch
}

fn reference(dir: &Path, name: &str) -> Vec<f32> {
    let bytes = fs::read(dir.join("reference.vectors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    file.tensor(name).unwrap().data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
}

/// How near vectors are to others: the smallest cosine of two rows, and the largest difference of two numbers.
fn nearness(found: &[f32], expected: &[f32], dim: usize) -> (f64, f32) {
    assert_eq!(found.len(), expected.len());
    let cosine = |(a, b): (&[f32], &[f32])| {
        let dot: f64 = a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
        let norm = |v: &[f32]| v.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
        dot / (norm(a) * norm(b))
    };
    let cosine = found.chunks(dim).zip(expected.chunks(dim)).map(cosine).fold(1.0, f64::min);
    (cosine, found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max))
}

/// The same in f32, where next to nothing may be lost.
fn compare(what: &str, found: &[f32], expected: &[f32], dim: usize) -> f32 {
    let (cosine, off) = nearness(found, expected, dim);
    assert!(cosine >= 0.99999, "{what}: cosine {cosine}");
    assert!(off <= 2e-5, "{what}: off by {off}");
    off
}

/// All arithmetic in f32 that this machine has: candle's, and our kernels with each set of instructions.
fn exact() -> Vec<(String, EncoderOptions)> {
    let options = EncoderOptions::default().precision(Precision::F32);
    let mut all = vec![("candle".to_owned(), options.clone().reference())];
    all.extend(Isa::available().into_iter().map(|isa| (isa.name().to_owned(), options.clone().isa(isa))));
    all
}

#[test]
fn vectors_are_those_of_the_original() {
    for (dir, (how, options)) in models().iter().flat_map(|dir| exact().into_iter().map(move |how| (dir, how))) {
        let model = dir.file_name().unwrap().to_string_lossy().into_owned();
        let name = format!("{model} on {how}");
        let encoder = Encoder::load_with(dir, &options).unwrap_or_else(|e| panic!("{name}: {e}"));
        let (dim, size) = (encoder.space().dim, encoder.preprocess().size);
        assert_eq!(encoder.space().model, model);

        let expected = reference(dir, "images");
        let all = pictures(size);
        let images = encoder.encode_images(&all).unwrap();
        let image_off = compare(&format!("{name}, pictures"), images.as_slice(), &expected, dim);
        for (i, bytes) in all.as_bytes().chunks(size.0 * size.1 * 3).enumerate() {
            let mut one = PixelBatch::new(size.0, size.1);
            one.push(bytes);
            let row = encoder.encode_images(&one).unwrap();
            compare(&format!("{name}, picture {i}"), row.as_slice(), &expected[i * dim..(i + 1) * dim], dim);
        }

        let expected = reference(dir, "texts");
        let texts = encoder.encode_texts(&TEXTS).unwrap();
        let text_off = compare(&format!("{name}, texts"), texts.as_slice(), &expected, dim);
        for (i, text) in TEXTS.iter().enumerate() {
            let row = encoder.encode_texts(&[text]).unwrap();
            compare(&format!("{name}, text {i}"), row.as_slice(), &expected[i * dim..(i + 1) * dim], dim);
        }
        println!("{name}: pictures off by at most {image_off:.1e}, texts by {text_off:.1e}");
    }
}

/// These models are tiny and their weights large, so rounding shows more than in real shapes, of which `encoders` asks more; least
/// where a set without byte products has seven bits for a row of 40 numbers.
#[test]
fn rounded_arithmetic_stays_near_the_original() {
    for dir in models() {
        for isa in Isa::available() {
            for (precision, least) in [(Precision::Bf16, 0.9995), (Precision::Int8, 0.99)] {
                let options = EncoderOptions::default().precision(precision).isa(isa);
                let encoder = Encoder::load_with(&dir, &options).unwrap();
                let (dim, name) = (encoder.space().dim, dir.file_name().unwrap().to_string_lossy());
                let images = encoder.encode_images(&pictures(encoder.preprocess().size)).unwrap();
                let texts = encoder.encode_texts(&TEXTS).unwrap();
                for (what, found) in [("images", images), ("texts", texts)] {
                    let (cosine, _) = nearness(found.as_slice(), &reference(&dir, what), dim);
                    println!("{name}, {what}, {precision:?} on {}: {cosine:.6}", isa.name());
                    assert!(cosine >= least, "{name}, {what}, {precision:?} on {}: cosine {cosine}", isa.name());
                }
            }
        }
    }
}

#[test]
fn a_picture_alone_and_among_others_has_the_same_vector() {
    for (dir, precision) in
        models().iter().flat_map(|dir| [Precision::F32, Precision::Bf16, Precision::Int8].map(|p| (dir, p)))
    {
        let encoder = Encoder::load_with(dir, &EncoderOptions::default().precision(precision)).unwrap();
        let (height, width) = encoder.preprocess().size;
        let all = pictures((height, width));
        let rows = encoder.encode_images(&all).unwrap();
        for (bytes, row) in all.as_bytes().chunks(height * width * 3).zip(rows.rows()) {
            let mut one = PixelBatch::new(height, width);
            one.push(bytes);
            assert_eq!(encoder.encode_images(&one).unwrap().as_slice(), row, "{} {precision:?}", dir.display());
        }
    }
}

#[test]
fn int8_is_a_space_of_its_own_and_bf16_is_not() {
    let dir = fixtures().join("open_clip_gelu");
    let space = |precision| {
        let options = EncoderOptions::default().precision(precision);
        Encoder::load_with(&dir, &options).unwrap().space().clone()
    };
    assert_eq!(space(Precision::F32), space(Precision::Bf16));
    assert_eq!(space(Precision::F32), space(Precision::Auto));
    assert_ne!(space(Precision::F32), space(Precision::Int8));
    assert_eq!(space(Precision::F32).precision(), Precision::Auto);
    assert_eq!(space(space(Precision::Int8).precision()), space(Precision::Int8));
    let on_tensors = EncoderOptions::default().precision(Precision::Int8).reference();
    let error = Encoder::load_with(&dir, &on_tensors).err().unwrap();
    assert!(matches!(error, Error::UnsupportedModel { ref key, .. } if key == "precision"), "{error}");
}

#[test]
fn tensors_multiply_in_bf16_where_that_is_asked_for() {
    for dir in models() {
        let load = |precision| Encoder::load_with(&dir, &EncoderOptions::default().precision(precision).reference());
        let (exact, rounded) = (load(Precision::F32).unwrap(), load(Precision::Bf16).unwrap());
        assert_eq!(exact.space(), rounded.space());
        let pictures = pictures(exact.preprocess().size);
        let both =
            |encoder: &Encoder| [encoder.encode_images(&pictures), encoder.encode_texts(&TEXTS)].map(Result::unwrap);
        for (expected, found) in both(&exact).iter().zip(&both(&rounded)) {
            assert_ne!(expected, found, "{}: rounding shows", dir.display());
            let (cosine, _) = nearness(found.as_slice(), expected.as_slice(), expected.dim());
            assert!(cosine >= 0.9995, "{}: cosine {cosine}", dir.display());
        }
    }
}

/// Names and bytes of the files in a cache.
fn cached(cache: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files: Vec<_> = fs::read_dir(cache).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

#[test]
fn packed_weights_are_kept_and_never_trusted() {
    let temp = tempfile::tempdir().unwrap();
    let (dir, cache) = (copy("open_clip_gelu", temp.path(), "model"), temp.path().join("cache"));
    for precision in [Precision::F32, Precision::Bf16, Precision::Int8] {
        let _ = fs::remove_dir_all(&cache);
        let plain = EncoderOptions::default().precision(precision);
        let vectors = |options: &EncoderOptions| {
            let encoder = Encoder::load_with(&dir, options).unwrap();
            let images = encoder.encode_images(&pictures((32, 32))).unwrap();
            (images, encoder.encode_texts(&TEXTS).unwrap())
        };
        let (expected, kept) = (vectors(&plain), plain.clone().cache(&cache));

        Encoder::load_with(&dir, &kept).unwrap().encode_texts(&["x"]).unwrap();
        assert_eq!(cached(&cache).len(), 1, "a query packs the text tower alone");
        assert_eq!(vectors(&kept), expected);
        let files = cached(&cache);
        assert_eq!(files.len(), 2);
        assert_eq!(vectors(&kept), expected, "from the files");
        assert_eq!(cached(&cache), files);

        // Damaged, cut, empty: packed anew, and replaced.
        for spoil in [|b: &mut Vec<u8>| b[200] ^= 1, |b: &mut Vec<u8>| b.truncate(300), |b: &mut Vec<u8>| b.clear()] {
            for (path, bytes) in &files {
                let mut bytes = bytes.clone();
                spoil(&mut bytes);
                fs::write(path, bytes).unwrap();
            }
            assert_eq!(vectors(&kept), expected);
            assert_eq!(cached(&cache), files);
        }

        // A place that cannot be written costs time and nothing else.
        let blocked = temp.path().join("file");
        fs::write(&blocked, "").unwrap();
        assert_eq!(vectors(&plain.clone().cache(&blocked)), expected);
    }

    // Weights that changed where the fingerprint takes no sample still have a new time.
    let weights = dir.join("open_clip_model.safetensors");
    let options = EncoderOptions::default().cache(&cache);
    Encoder::load_with(&dir, &options).unwrap().encode_texts(&["x"]).unwrap();
    let before = cached(&cache);
    let file = fs::File::options().append(true).open(&weights).unwrap();
    file.set_modified(std::time::SystemTime::now() + std::time::Duration::from_secs(7)).unwrap();
    Encoder::load_with(&dir, &options).unwrap().encode_texts(&["x"]).unwrap();
    let after = cached(&cache);
    assert_eq!(before.len(), after.len(), "replaced");
    assert_ne!(before, after);
}

#[test]
fn large_batches_and_empty_ones_keep_their_order() {
    let encoder = Encoder::load(fixtures().join("open_clip_gelu")).unwrap();
    let long: Vec<String> = (0..100).map(|i| "a dog ".repeat(i % 7) + &i.to_string()).collect();
    let texts: Vec<&str> = long.iter().map(String::as_str).collect();
    let rows = encoder.encode_texts(&texts).unwrap();
    assert_eq!(rows.rows().len(), 100);
    for i in [0, 41, 99] {
        let one = encoder.encode_texts(&texts[i..=i]).unwrap();
        compare("a text among many", one.as_slice(), rows.rows().nth(i).unwrap(), rows.dim());
    }
    assert_eq!(encoder.encode_texts(&[]).unwrap().rows().len(), 0);
    assert_eq!(encoder.encode_images(&PixelBatch::new(32, 32)).unwrap().rows().len(), 0);
    assert!(encoder.encode_images(&pictures((16, 16))).is_err(), "pictures of another size");
}

#[test]
fn several_threads_share_one_encoder() {
    let encoder = Encoder::load(fixtures().join("hugging_face_shards")).unwrap();
    let batch = pictures((32, 32));
    let (images, texts) = (encoder.encode_images(&batch).unwrap(), encoder.encode_texts(&TEXTS).unwrap());
    let fresh = Encoder::load(fixtures().join("hugging_face_shards")).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                assert_eq!(fresh.encode_images(&batch).unwrap(), images);
                assert_eq!(fresh.encode_texts(&TEXTS).unwrap(), texts);
            });
        }
    });
}

#[test]
fn a_fingerprint_is_of_weights_and_configuration_and_of_nothing_else() {
    let temp = tempfile::tempdir().unwrap();
    let original = Encoder::load(fixtures().join("open_clip_gelu")).unwrap().space().clone();
    let dir = copy("open_clip_gelu", temp.path(), "another_name");
    let same = Encoder::load(&dir).unwrap().space().clone();
    assert_eq!(same.fingerprint, original.fingerprint);
    assert_eq!(same.model, "another_name");

    edit(&dir.join("open_clip_config.json"), "\"layers\": 3", "\"layers\": 3, \"norm_kwargs\": {\"eps\": 1e-6}");
    assert_ne!(Encoder::load(&dir).unwrap().space().fingerprint, original.fingerprint);

    let dir = copy("open_clip_gelu", temp.path(), "other_weights");
    let weights = dir.join("open_clip_model.safetensors");
    let mut bytes = fs::read(&weights).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 0x40;
    fs::write(&weights, bytes).unwrap();
    assert_ne!(Encoder::load(&dir).unwrap().space().fingerprint, original.fingerprint);
}

/// A copy of a fixture that may be spoilt.
fn copy(model: &str, to: &Path, name: &str) -> PathBuf {
    let dir = to.join(name);
    fs::create_dir(&dir).unwrap();
    for entry in fs::read_dir(fixtures().join(model)).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, dir.join(path.file_name().unwrap())).unwrap();
    }
    dir
}

fn edit(path: &Path, from: &str, to: &str) {
    let text = fs::read_to_string(path).unwrap();
    assert!(text.contains(from), "{} has {from}", path.display());
    fs::write(path, text.replacen(from, to, 1)).unwrap();
}

fn failure(dir: &Path) -> Error {
    match Encoder::load(dir) {
        Ok(_) => panic!("{} was loaded", dir.display()),
        Err(error) => error,
    }
}

#[test]
fn keys_that_would_change_the_vectors_are_refused_by_name() {
    let temp = tempfile::tempdir().unwrap();
    for (i, (model, from, to, key)) in [
        ("open_clip_gelu", "\"layers\": 3", "\"layers\": 3, \"qk_norm\": true", "model_cfg.vision_cfg.qk_norm"),
        ("open_clip_gelu", "\"layers\": 3", "\"layers\": [3, 4, 6]", "model_cfg.vision_cfg.layers"),
        ("open_clip_gelu", "\"layers\": 3", "\"timm_model_name\": \"x\"", "model_cfg.vision_cfg.timm_model_name"),
        (
            "open_clip_gelu",
            "\"layers\": 3",
            "\"layers\": 3, \"attentional_pool\": \"parallel\"",
            "model_cfg.vision_cfg.attentional_pool",
        ),
        (
            "open_clip_gelu",
            "\"layers\": 3",
            "\"layers\": 3, \"from_the_future\": 1",
            "model_cfg.vision_cfg.from_the_future",
        ),
        (
            "open_clip_gelu",
            "\"layers\": 2",
            "\"layers\": 2, \"hf_model_name\": \"x\"",
            "model_cfg.text_cfg.hf_model_name",
        ),
        (
            "open_clip_gelu",
            "\"layers\": 2",
            "\"layers\": 2, \"use_pad_mask\": true, \"no_causal_mask\": true",
            "model_cfg.text_cfg.use_pad_mask",
        ),
        ("open_clip_gelu", "\"layers\": 2", "\"layers\": 2, \"pool_type\": \"none\"", "model_cfg.text_cfg.pool_type"),
        ("open_clip_gelu", "\"embed_dim\"", "\"audio_cfg\": {\"a\": 1}, \"embed_dim\"", "model_cfg.audio_cfg"),
        ("open_clip_average_pth", "\"squash\"", "\"stretch\"", "preprocess_cfg.resize_mode"),
        ("hugging_face_shards", "\"clip\"", "\"flava\"", "model_type"),
        ("hugging_face_shards", "\"hidden_act\": \"gelu\"", "\"hidden_act\": \"silu\"", "text_config.hidden_act"),
        ("hugging_face_shards", "\"projection_dim\"", "\"auto_map\": {\"a\": 1}, \"projection_dim\"", "auto_map"),
    ]
    .into_iter()
    .enumerate()
    {
        let dir = copy(model, temp.path(), &i.to_string());
        let config = ["open_clip_config.json", "config.json"].map(|name| dir.join(name));
        edit(config.iter().find(|path| path.is_file()).unwrap(), from, to);
        match failure(&dir) {
            Error::UnsupportedModel { key: found, .. } => assert_eq!(found, key),
            other => panic!("{key}: {other}"),
        }
    }
}

#[test]
fn kinds_that_are_not_loaded_are_refused_with_the_reason() {
    let temp = tempfile::tempdir().unwrap();
    for (kind, reason) in [
        ("clip_vision_model", "one tower alone"),
        ("blip-2", "32 vectors"),
        ("bridgetower", "look at each other"),
        ("vision-text-dual-encoder", "any kind"),
        ("owlv2", "patches"),
        ("groupvit", "groups"),
        ("xclip", "videos"),
        ("clap", "hears"),
        ("flava", "is not supported"),
    ] {
        let dir = copy("hugging_face_shards", temp.path(), kind);
        edit(&dir.join("config.json"), "\"clip\"", &format!("\"{kind}\""));
        let error = failure(&dir).to_string();
        assert!(error.contains(kind) && error.contains(reason) && error.contains("config.json"), "{error}");
    }
}

#[test]
fn lenient_loading_passes_over_what_nobody_asks_for_and_nothing_else() {
    let temp = tempfile::tempdir().unwrap();
    let lenient = EncoderOptions::default().precision(Precision::F32).lenient();
    let dir = copy("open_clip_gelu", temp.path(), "key");
    let config = dir.join("open_clip_config.json");
    edit(&config, "\"layers\": 3", "\"layers\": 3, \"from_the_future\": 1");
    failure(&dir);
    let encoder = Encoder::load_with(&dir, &lenient).unwrap();
    let texts = encoder.encode_texts(&TEXTS).unwrap();
    compare("lenient", texts.as_slice(), &reference(&dir, "texts"), texts.dim());

    let dir = copy("open_clip_gelu", temp.path(), "tensor");
    let config = dir.join("open_clip_config.json");
    edit(&config, "\"layers\": 3", "\"layers\": 2");
    failure(&dir);
    assert!(Encoder::load_with(&dir, &lenient).is_ok(), "a block that is left over");
    edit(&config, "\"layers\": 2,", "\"layers\": 4,");
    assert!(Encoder::load_with(&dir, &lenient).is_err(), "a block that is missing");

    let dir = copy("open_clip_gelu", temp.path(), "change");
    edit(&dir.join("open_clip_config.json"), "\"layers\": 3", "\"layers\": 3, \"qk_norm\": true");
    assert!(Encoder::load_with(&dir, &lenient).is_err(), "a key that is known to change vectors");
}

#[test]
fn bad_directories_say_what_is_wrong_and_where() {
    let temp = tempfile::tempdir().unwrap();
    let fresh = |model: &str| copy(model, temp.path(), &fs::read_dir(temp.path()).unwrap().count().to_string());
    let says = |dir: &Path, file: &str, words: &str| {
        let message = failure(dir).to_string();
        let place = if file.is_empty() { dir.to_path_buf() } else { dir.join(file) };
        assert!(message.starts_with(&place.display().to_string()), "{message}");
        assert!(message.contains(words), "{message}");
    };

    assert!(failure(&temp.path().join("nowhere")).to_string().contains("nowhere"));
    let empty = temp.path().join("empty");
    fs::create_dir(&empty).unwrap();
    says(&empty, "", "neither open_clip_config.json nor config.json");

    let dir = fresh("open_clip_gelu");
    fs::remove_file(dir.join("open_clip_model.safetensors")).unwrap();
    says(&dir, "", "no weight file");

    let dir = fresh("open_clip_gelu");
    let weights = dir.join("open_clip_model.safetensors");
    let bytes = fs::read(&weights).unwrap();
    for len in [0, 5, 100, bytes.len() / 2, bytes.len() - 1] {
        fs::write(&weights, &bytes[..len]).unwrap();
        says(&dir, "open_clip_model.safetensors", "cut short");
    }

    let dir = fresh("open_clip_gelu");
    edit(&dir.join("open_clip_config.json"), "\"embed_dim\": 32", "\"embed_dim\": 33");
    says(
        &dir,
        "open_clip_model.safetensors",
        "the tensor visual.proj has the shape [48, 32], the configuration asks for [48, 33]",
    );

    let dir = fresh("open_clip_gelu");
    edit(&dir.join("open_clip_config.json"), "\"layers\": 3", "\"layers\": 4");
    says(
        &dir,
        "open_clip_model.safetensors",
        "the tensor visual.transformer.resblocks.3.ln_1.weight of shape [48] is missing",
    );

    let dir = fresh("open_clip_gelu");
    edit(&dir.join("open_clip_config.json"), "\"layers\": 3", "\"layers\": 2");
    says(&dir, "open_clip_model.safetensors", "the tensor visual.transformer.resblocks.2.");

    let dir = fresh("open_clip_gelu");
    edit(&dir.join("open_clip_config.json"), "\"head_width\": 24", "\"head_width\": 9");
    says(&dir, "open_clip_config.json", "does not divide");

    let dir = fresh("open_clip_gelu");
    edit(&dir.join("open_clip_config.json"), "\"width\": 48", "\"width\": \"wide\"");
    says(&dir, "open_clip_config.json", "model_cfg.vision_cfg.width is \"wide\", expected a whole number");

    let dir = fresh("open_clip_gelu");
    fs::write(dir.join("open_clip_config.json"), "{").unwrap();
    says(&dir, "open_clip_config.json", "no valid JSON");

    let dir = fresh("open_clip_gelu");
    fs::remove_file(dir.join("merges.txt")).unwrap();
    says(&dir, "", "expected tokenizer.json, or vocab.json and merges.txt");

    let dir = fresh("hugging_face_shards");
    fs::remove_file(dir.join("model-00002-of-00002.safetensors")).unwrap();
    says(&dir, "model-00002-of-00002.safetensors", "");

    let dir = fresh("hugging_face_shards");
    edit(&dir.join("model.safetensors.index.json"), "model-00002-of-00002", "../model-00002-of-00002");
    says(&dir, "model.safetensors.index.json", "no plain file name");

    let dir = fresh("hugging_face_shards");
    edit(&dir.join("processor_config.json"), "\"shortest_edge\": 32", "\"shortest_edge\": 40");
    assert!(failure(&dir).to_string().contains("size = {\"shortest_edge\":40}"));
    fs::write(dir.join("processor_config.json"), r#"{"processor_class": "CLIPProcessor"}"#).unwrap();
    says(&dir, "processor_config.json", "no image_processor");
}

#[test]
fn archives_that_are_cut_or_forged_are_errors() {
    let temp = tempfile::tempdir().unwrap();
    let dir = copy("open_clip_quick_bin", temp.path(), "cut");
    let weights = dir.join("open_clip_pytorch_model.bin");
    let bytes = fs::read(&weights).unwrap();
    for len in [4, 1000, bytes.len() / 2, bytes.len() - 30] {
        fs::write(&weights, &bytes[..len]).unwrap();
        assert!(failure(&dir).to_string().contains("PyTorch archive"));
    }
    // A pickle of the old kind, which is no archive: it would be a program.
    fs::write(&weights, b"\x80\x02cos\nsystem\nX\x04\x00\x00\x00true\x85R.").unwrap();
    assert!(failure(&dir).to_string().contains("before version 1.6"));
    // Any single damaged byte near the description of the tensors is an error or changes nothing; it never panics.
    let at = bytes.windows(8).position(|w| w == b"data.pkl").unwrap();
    for i in (at..at + 3000).step_by(7) {
        let mut spoilt = bytes.clone();
        spoilt[i] ^= 0x15;
        fs::write(&weights, spoilt).unwrap();
        if let Ok(encoder) = Encoder::load(&dir) {
            let _ = encoder.encode_texts(&["a dog"]);
        }
    }
}
