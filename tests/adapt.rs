//! Heads learnt from a few pictures, and libraries that move over to them without their photos.

use std::path::{Path, PathBuf};

use tintype::adapt::Adapter;
use tintype::eval::{Dataset, DatasetOptions, Evaluator, Task};
use tintype::model::{Adaptation, EncoderOptions, Precision};
use tintype::{Encode, Encoder, Engine, Error, PixelBatch};

/// Pictures that the model has no words for: stripes of four directions, with names that say nothing of them.
fn stripes(dir: &Path, each: u32) {
    for (class, name) in ["alpha", "beta", "gamma", "delta"].iter().enumerate() {
        std::fs::create_dir_all(dir.join(name)).unwrap();
        for n in 0..each {
            let (width, shade) = (5 + n % 4, 60 + (n * 29) % 120);
            let picture = image::RgbImage::from_fn(64, 64, |x, y| {
                let at = [x, y, x + y, x + 64 - y][class] + n * 3;
                let light = if at / width % 2 == 0 { 230 } else { shade };
                image::Rgb([light as u8, (light * (n % 3 + 3) / 5) as u8, (40 + n * 7 % 90) as u8])
            });
            picture.save(dir.join(name).join(format!("{n:02}.png"))).unwrap();
        }
    }
}

fn dataset(dir: &Path) -> Dataset {
    Dataset::open(dir, &DatasetOptions::default()).unwrap().remove(0)
}

/// A head that was learnt from all stripes.
fn learnt(dir: &Path, base: &Encoder) -> Adaptation {
    let adapted = Adapter::new(base.clone()).run(&dataset(dir), None, 0).unwrap();
    assert!(adapted.held_out.is_none() && adapted.skipped.is_empty());
    Adaptation::new("stripes", "builtin", base, adapted.head)
}

fn paths(engine: &Engine, query: &str) -> Vec<PathBuf> {
    engine.search(query).limit(8).run().unwrap().into_iter().map(|hit| hit.path).collect()
}

#[test]
fn a_few_pictures_teach_what_words_could_not() {
    let dir = tempfile::tempdir().unwrap();
    stripes(dir.path(), 12);
    let base = Encoder::builtin().unwrap();
    let mut adapter = Adapter::new(base.clone());
    let set = dataset(dir.path());
    let few = adapter.run(&set, Some(4), 7).unwrap();
    let held_out = few.held_out.unwrap();
    assert_eq!((few.learnt, few.classes, held_out.pictures, held_out.metric), (16, 4, 32, "acc1"));
    assert!(held_out.after > held_out.before + 0.2, "{held_out:?}");
    // The same seed, the same head.
    assert_eq!(adapter.run(&set, Some(4), 7).unwrap().head, few.head);
    assert_ne!(adapter.run(&set, Some(4), 8).unwrap().head, few.head);
    let error = adapter.run(&set, Some(13), 7).unwrap_err().to_string();
    assert!(error.contains("fewer than 13"), "{error}");
    // What was measured is what the adapted encoder does.
    let whole = Encoder::adapted(base.clone(), &learnt(dir.path(), &base)).unwrap();
    let result = Evaluator::new(whole.clone()).run(&set, Task::ZeroShotClassification).unwrap();
    assert!(result.metrics["acc1"].as_f64().unwrap() > 0.9, "{:?}", result.metrics);
    let texts = ["a dog", "alpha"];
    assert_eq!(whole.encode_texts(&texts).unwrap(), base.encode_texts(&texts).unwrap(), "words stay as they are");
}

#[test]
fn captions_teach_too() {
    let dir = tempfile::tempdir().unwrap();
    stripes(dir.path(), 6);
    let mut lines = String::new();
    for name in ["alpha", "beta", "gamma", "delta"] {
        for n in 0..6 {
            lines += &format!("{{\"file\": \"{name}/{n:02}.png\", \"captions\": [\"{name}\", \"one more {name}\"]}}\n");
        }
    }
    let list = dir.path().join("captions.jsonl");
    std::fs::write(&list, lines).unwrap();
    let adapted = Adapter::new(Encoder::builtin().unwrap()).run(&dataset(&list), Some(12), 1).unwrap();
    let held_out = adapted.held_out.unwrap();
    assert_eq!((adapted.learnt, held_out.pictures, held_out.metric), (12, 12, "image_retrieval_recall@5"));
    assert!(held_out.after > held_out.before, "{held_out:?}");
}

#[test]
fn a_library_moves_over_without_its_photos_and_back() {
    let dir = tempfile::tempdir().unwrap();
    let (photos, library) = (dir.path().join("photos"), dir.path().join("library"));
    stripes(&photos, 6);
    let base = Encoder::builtin().unwrap();
    let adaptation = learnt(&photos, &base);
    let adapted = Encoder::adapted(base.clone(), &adaptation).unwrap();
    let engine = Engine::create(&library, base.clone()).unwrap();
    engine.keep_features().unwrap();
    assert_eq!(engine.ingest([&photos]).run().unwrap().added, 24);
    assert_eq!(engine.kept_features().unwrap(), 24);
    let before = paths(&engine, "alpha");
    std::fs::rename(&photos, dir.path().join("elsewhere")).unwrap();
    let report = engine.switch(adapted.clone()).run().unwrap();
    assert_eq!((report.projected, report.embedded, report.skipped.len()), (24, 0, 0));
    // Mixing is refused in both directions.
    assert!(matches!(Engine::open(&library, base.clone()), Err(Error::SpaceMismatch { .. })));
    let engine = Engine::open(&library, adapted.clone()).unwrap();
    let found = paths(&engine, "alpha");
    let is_alpha = |path: &&PathBuf| path.parent().unwrap().ends_with("alpha");
    assert!(found[..6].iter().filter(is_alpha).count() >= 5, "{found:?}");
    let report = engine.switch(base).run().unwrap();
    assert_eq!((report.projected, report.embedded), (24, 0));
    assert_eq!(paths(&engine, "alpha"), before);
    // Photos that are taken in with the adapted model leave the same features.
    std::fs::rename(dir.path().join("elsewhere"), &photos).unwrap();
    let other = Engine::create(dir.path().join("other"), adapted).unwrap();
    other.keep_features().unwrap();
    other.ingest([&photos]).run().unwrap();
    assert_eq!(other.kept_features().unwrap(), 24);
    assert_eq!(paths(&other, "alpha").iter().filter(is_alpha).count(), found.iter().filter(is_alpha).count());
    // What is forgotten leaves nothing behind.
    other.remove([photos.join("alpha")]).unwrap();
    assert_eq!(other.kept_features().unwrap(), 18);
}

#[test]
fn without_kept_features_photos_are_read_and_a_stop_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (photos, library) = (dir.path().join("photos"), dir.path().join("library"));
    stripes(&photos, 5);
    let base = Encoder::builtin().unwrap();
    let adapted = Encoder::adapted(base.clone(), &learnt(&photos, &base)).unwrap();
    let engine = Engine::create(&library, base.clone()).unwrap();
    engine.ingest([&photos]).run().unwrap();
    assert_eq!(engine.kept_features().unwrap(), 0);
    // The features of one photo are kept; the switch is stopped after it.
    engine.keep_features().unwrap();
    let extra = photos.join("beta/new.png");
    picture_of_noise(&extra);
    engine.ingest([&photos]).run().unwrap();
    assert_eq!(engine.kept_features().unwrap(), 1);
    let before = paths(&engine, "beta");
    let stopped = engine.switch(adapted.clone()).cancel(|| true).run();
    assert!(matches!(stopped, Err(Error::Cancelled)));
    assert_eq!(paths(&engine, "beta"), before, "the old model answers until the new one is complete");
    let report = engine.switch(adapted).run().unwrap();
    assert_eq!((report.reused + report.projected, report.embedded), (1, 20));
    assert_eq!(engine.kept_features().unwrap(), 21, "what had to be read is kept now");
}

fn picture_of_noise(path: &Path) {
    let noise = |x: u32, y: u32| ((x * 7919 + y * 104_729 + x * y * 31) % 251) as u8;
    image::RgbImage::from_fn(64, 64, |x, y| image::Rgb([noise(x, y), noise(y, x), noise(x + 1, y)]))
        .save(path)
        .unwrap();
}

/// A model of random weights that is committed.
fn model(name: &str, options: &EncoderOptions) -> Encoder {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/encoders").join(name);
    Encoder::load_with(dir, options).unwrap()
}

#[test]
fn towers_that_end_with_a_matrix_give_what_it_is_applied_to() {
    // (model, numbers before the last map; none where there is no such map)
    let models = [
        ("PE-Core-B-16", true),
        ("EVA02-B-16", true),
        ("ViTamin-S", true),
        ("ViT-B-16-SigLIP2", false),
        ("RN50", false),
    ];
    for (name, has_matrix) in models {
        for options in [EncoderOptions::default().precision(Precision::F32), EncoderOptions::default().reference()] {
            let encoder = model(name, &options);
            let (features, space) = (encoder.features(), encoder.space());
            assert_eq!(features.fingerprint != space.fingerprint, has_matrix, "{name}");
            let (height, width) = encoder.preprocess().size;
            let mut batch = PixelBatch::new(height, width);
            for n in 0..3 {
                batch.push(
                    &(0..height * width * 3).map(|i| ((i * (7 + n) + i / 97 * 13) % 251) as u8).collect::<Vec<_>>(),
                );
            }
            let found = encoder.encode_features(&batch).unwrap();
            assert_eq!((found.dim(), found.rows().len()), (features.width, 3), "{name}");
            let head = encoder.head().unwrap();
            assert_eq!((head.inputs(), head.outputs()), (features.width, space.dim), "{name}");
            let projected = head.project(found.as_slice()).unwrap();
            for (a, b) in projected.rows().zip(encoder.encode_images(&batch).unwrap().rows()) {
                let cosine: f32 = a.iter().zip(b).map(|(a, b)| a * b).sum();
                assert!(cosine > 0.999_999, "{name}: {cosine}");
            }
        }
    }
}

#[test]
fn libraries_of_loaded_models_keep_features_too() {
    let dir = tempfile::tempdir().unwrap();
    let (photos, library) = (dir.path().join("photos"), dir.path().join("library"));
    stripes(&photos, 6);
    let base = model("PE-Core-B-16", &EncoderOptions::default().precision(Precision::F32));
    let adaptation = learnt(&photos, &base);
    let adapted = Encoder::adapted(base.clone(), &adaptation).unwrap();
    let engine = Engine::create(&library, base.clone()).unwrap();
    engine.keep_features().unwrap();
    engine.ingest([&photos]).run().unwrap();
    let kept = paths(&engine, "alpha");
    std::fs::rename(&photos, dir.path().join("elsewhere")).unwrap();
    let report = engine.switch(adapted).run().unwrap();
    assert_eq!((report.projected, report.embedded), (24, 0));
    // Of another model the head is refused.
    let error = Encoder::adapted(Encoder::builtin().unwrap(), &adaptation).err().unwrap().to_string();
    assert!(error.contains("made for features"), "{error}");
    let report = engine.switch(base).run().unwrap();
    assert_eq!((report.projected, paths(&engine, "alpha")), (24, kept));
}

#[test]
fn instead_of_features_the_vectors_of_the_library_will_do() {
    let dir = tempfile::tempdir().unwrap();
    let (photos, library) = (dir.path().join("photos"), dir.path().join("library"));
    stripes(&photos, 6);
    let base = Encoder::builtin().unwrap().without_features();
    let adapted = Adapter::new(base.clone()).run(&dataset(&photos), Some(4), 0).unwrap();
    let held_out = adapted.held_out.unwrap();
    assert!(held_out.after > held_out.before, "{held_out:?}");
    let adaptation = Adaptation::new("stripes", "builtin", &base, adapted.head);
    // The head itself says what it maps.
    let adapted = Encoder::adapted(Encoder::builtin().unwrap(), &adaptation).unwrap();
    let engine = Engine::create(&library, base).unwrap();
    engine.ingest([&photos]).run().unwrap();
    std::fs::rename(&photos, dir.path().join("elsewhere")).unwrap();
    let report = engine.switch(adapted).run().unwrap();
    assert_eq!((report.projected, report.embedded), (24, 0));
    assert_eq!(paths(&engine, "alpha").len(), 8);
}

#[test]
#[cfg(feature = "cli")]
fn the_program_adapts_and_moves_its_library_over() {
    let dir = tempfile::tempdir().unwrap();
    let (photos, away) = (dir.path().join("photos"), dir.path().join("away"));
    stripes(&photos, 6);
    let run = |args: &[&str]| {
        let mut command = assert_cmd::Command::new(env!("CARGO_BIN_EXE_tintype"));
        command.current_dir(dir.path()).env("TINTYPE_LIBRARY", dir.path().join("library")).env("HOME", dir.path());
        let output = command.args(args).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    assert_eq!(run(&["index", "--keep-features", "photos"]).0, Some(0));
    std::fs::rename(&photos, &away).unwrap();
    let (code, out, said) = run(&["adapt", "away", "--shots", "4", "--name", "stripes", "--json", "--use"]);
    assert_eq!(code, Some(0), "{said}");
    let line: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&line["learnt"], &line["held_out"]["pictures"]), (&16.into(), &8.into()), "{line}");
    assert!(said.contains("24 photos taken over without being read"), "{said}");
    let (code, out, _) = run(&["search", "alpha", "--no-update", "--json", "--limit", "1"]);
    assert!(code == Some(0) && out.contains("alpha"), "{out}");
    assert!(run(&["status"]).1.contains("stripes"));
    let (code, out, said) = run(&["eval", "away", "--json"]);
    assert!(code == Some(0) && out.contains("\"model\":\"stripes\""), "{out}{said}");
    // A file that a library uses is not overwritten.
    let (code, _, said) = run(&["adapt", "away", "--name", "stripes"]);
    assert!(code == Some(1) && said.contains("--name"), "{said}");
    let (code, _, said) = run(&["models", "use", "builtin"]);
    assert!(code == Some(0) && said.contains("24 photos taken over"), "{said}");
}

#[test]
#[cfg(feature = "cli")]
fn a_head_below_a_head_is_refused_and_one_below_itself_does_not_go_round() {
    let dir = tempfile::tempdir().unwrap();
    let base = Encoder::builtin().unwrap();
    let head = (*base.head().unwrap()).clone();
    let [first, round, above] =
        ["first", "round", "above"].map(|name| dir.path().join(name).with_extension("safetensors"));
    let stand_on = |below: &Path, file: &Path| {
        Adaptation::new("x", below.to_str().unwrap(), &base, head.clone()).save(file).unwrap();
    };
    stand_on(Path::new("builtin"), &first);
    stand_on(&round, &round);
    stand_on(&first, &above);
    let run = |args: &[&str]| {
        let mut command = assert_cmd::Command::new(env!("CARGO_BIN_EXE_tintype"));
        command.env("TINTYPE_LIBRARY", dir.path().join("library")).env("HOME", dir.path());
        let output = command.args(args).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    stripes(&dir.path().join("photos"), 2);
    let photos = dir.path().join("photos");
    for file in [&round, &above].map(|file| file.to_str().unwrap()) {
        for args in [&["models", "use", file][..], &["adapt", photos.to_str().unwrap(), "--model", file]] {
            let (code, said) = run(args);
            assert!(code == Some(1) && said.contains("no model"), "{args:?}: {code:?} {said}");
        }
    }
    assert_eq!(run(&["models", "use", first.to_str().unwrap()]).0, Some(0));
}
