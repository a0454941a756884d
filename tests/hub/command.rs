//! `tintype models`, as a user runs it, against a hub of our own.

use std::path::Path;
use std::process::{Command, Output};

use super::server::{COMMIT, Hub, MODEL, SHARDS, WEIGHTS};

/// Runs the program in a home of its own.
fn tintype(home: &Path, hub: &Hub, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tintype"));
    command.env_clear().env("HOME", home).env("HF_HOME", home.join("hf")).env("HF_ENDPOINT", hub.url());
    command.args(["--library", home.join("library").to_str().unwrap()]).args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// The object of `name` in `tintype models --json`.
fn listed(home: &Path, hub: &Hub, name: &str) -> serde_json::Value {
    let output = tintype(home, hub, &["models", "--json"]);
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    let lines = text(&output.stdout).lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    lines.into_iter().find(|line| line["name"] == name).unwrap()
}

#[test]
fn fetching_a_model_prints_where_it_is_and_lists_it_as_here() {
    let (home, hub) = (tempfile::tempdir().unwrap(), Hub::honest());
    assert_eq!(listed(home.path(), &hub, MODEL)["here"], false);
    assert_eq!(listed(home.path(), &hub, "builtin")["here"], true);
    let missing = tintype(home.path(), &hub, &["models", "path", MODEL]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(text(&missing.stderr).contains("tintype models fetch"), "{missing:?}");

    let fetched = tintype(home.path(), &hub, &["models", "fetch", MODEL]);
    assert!(fetched.status.success(), "{fetched:?}");
    let directory = Path::new(text(&fetched.stdout).trim_end());
    assert!(directory.ends_with(Path::new("snapshots").join(COMMIT)) && directory.join(WEIGHTS).is_file());
    assert!(text(&fetched.stderr).contains("MIT"), "the terms are said: {fetched:?}");

    let path = tintype(home.path(), &hub, &["models", "path", MODEL]);
    assert_eq!(path.stdout, fetched.stdout);
    let line = listed(home.path(), &hub, MODEL);
    assert_eq!((&line["here"], &line["in_use"]), (&true.into(), &false.into()));
    assert_eq!(line["path"], directory.to_str().unwrap());
}

#[test]
fn terms_that_restrict_use_are_said_before_anything_is_downloaded_and_even_when_quiet() {
    let hub = Hub::with(|_, stream| {
        super::server::respond(stream, "403 Forbidden", &[], b"");
        true
    });
    let home = tempfile::tempdir().unwrap();
    let output = tintype(home.path(), &hub, &["--quiet", "models", "fetch", "vit-b-16-metaclip"]);
    assert_eq!(output.status.code(), Some(1));
    let talk = text(&output.stderr);
    let (terms, error) = (talk.find("not for commercial use").unwrap(), talk.find("error:").unwrap());
    assert!(terms < error && output.stdout.is_empty(), "{talk}");
}

#[test]
fn an_unknown_name_is_answered_with_names_that_exist() {
    let (home, hub) = (tempfile::tempdir().unwrap(), Hub::honest());
    let output = tintype(home.path(), &hub, &["models", "fetch", "vit-b-32"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("vit-b-32-laion2b"), "{output:?}");
    assert!(hub.requests().is_empty());
}

#[test]
fn a_library_made_with_a_model_says_so_in_the_list() {
    let (home, hub) = (tempfile::tempdir().unwrap(), Hub::honest());
    let output = tintype(home.path(), &hub, &["models", "use", "builtin"]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(listed(home.path(), &hub, "builtin")["in_use"], true);
    let table = tintype(home.path(), &hub, &["models"]);
    assert!(text(&table.stdout).lines().any(|line| line.starts_with("* builtin")), "{table:?}");
    assert!(text(&table.stdout).contains(MODEL) && text(&table.stdout).contains("CC-BY-NC-4.0"));
}

/// A home with the model of the fixtures under `name`.
fn with_own_model(hub: &Hub, name: &str) -> tempfile::TempDir {
    let home = tempfile::tempdir().unwrap();
    let model = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/model/open_clip_gelu");
    let added = tintype(home.path(), hub, &["models", "add", model, "--name", name]);
    assert!(added.status.success() && text(&added.stdout) == format!("{name}\n"), "{added:?}");
    home
}

#[test]
fn a_directory_can_be_given_a_name_used_by_it_measured_and_forgotten() {
    let hub = Hub::honest();
    let home = with_own_model(&hub, "mine");
    let line = listed(home.path(), &hub, "mine");
    assert_eq!((&line["here"], &line["licence"]), (&true.into(), &serde_json::Value::Null));
    assert!(line["path"].as_str().unwrap().ends_with("open_clip_gelu"));

    let used = tintype(home.path(), &hub, &["models", "use", "MINE"]);
    assert!(used.status.success(), "{used:?}");
    let status = tintype(home.path(), &hub, &["status", "--json"]);
    assert!(text(&status.stdout).contains("\"MINE\"") || text(&status.stdout).contains("\"mine\""), "{status:?}");

    assert_eq!(line["speed"], serde_json::Value::Null);
    let measured = tintype(home.path(), &hub, &["models", "bench", "mine", "--seconds", "0.01", "--json"]);
    let speed: serde_json::Value = serde_json::from_slice(&measured.stdout).unwrap();
    assert!(speed["pictures"].as_f64().unwrap() > 0.0 && speed["texts"].as_f64().unwrap() > 0.0, "{speed}");
    assert_eq!(listed(home.path(), &hub, "mine")["speed"], speed, "the list shows what was measured");

    let packed = home.path().join(if cfg!(target_os = "macos") { "Library/Caches" } else { ".cache" });
    let packed = packed.join("tintype/packed");
    let files = || std::fs::read_dir(&packed).unwrap().count();
    assert!(files() > 0, "measuring packs the weights");
    let removed = tintype(home.path(), &hub, &["models", "remove", "mine"]);
    assert!(removed.status.success() && files() == 0, "{removed:?}");
    let again = tintype(home.path(), &hub, &["models", "remove", "mine"]);
    assert_eq!(again.status.code(), Some(1));
    assert!(hub.requests().is_empty(), "nothing of this needs a hub");
}

#[test]
fn names_of_known_models_are_not_given_away_and_what_cannot_be_loaded_is_not_added() {
    let hub = Hub::honest();
    let home = with_own_model(&hub, "mine");
    let model = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/model/open_clip_gelu");
    for (place, name, words) in [
        (model, MODEL, "known model already"),
        (model, "builtin", "known model already"),
        (model, "a name", "no name for a model"),
        ("owner/other", "mine", "another model already"),
        ("nowhere", "other", "neither a directory nor a repository"),
        (env!("CARGO_MANIFEST_DIR"), "other", "no model directory"),
    ] {
        let output = tintype(home.path(), &hub, &["models", "add", place, "--name", name]);
        assert_eq!(output.status.code(), Some(1), "{place} as {name}");
        assert!(text(&output.stderr).contains(words), "{place} as {name}: {output:?}");
    }
}

#[test]
fn any_repository_can_be_added_and_its_licence_is_warned_of_before_the_download() {
    let (home, hub) =
        (tempfile::tempdir().unwrap(), Hub::without(&["special_tokens_map.json", "tokenizer_config.json"]));
    let added = tintype(home.path(), &hub, &["models", "add", "owner/Some_Model@v2"]);
    assert!(added.status.success() && hub.requests().is_empty(), "{added:?}");
    assert_eq!(text(&added.stdout), "some-model\n");
    let line = listed(home.path(), &hub, "some-model");
    assert_eq!((&line["here"], &line["repository"]), (&false.into(), &"owner/Some_Model@v2".into()));

    let fetched = tintype(home.path(), &hub, &["--quiet", "models", "fetch", "some-model"]);
    assert!(fetched.status.success(), "{fetched:?}");
    assert!(text(&fetched.stderr).contains("licence is not known"), "{fetched:?}");
    let directory = Path::new(text(&fetched.stdout).trim_end());
    assert!(["open_clip_config.json", "tokenizer.json", WEIGHTS].iter().all(|file| directory.join(file).is_file()));
    assert!(hub.requests().iter().all(|request| request.path.contains("owner/Some_Model")));
    assert!(hub.requests()[0].path.contains("/v2/"), "{}", hub.requests()[0].path);
    assert_eq!(listed(home.path(), &hub, "some-model")["here"], true);
}

#[test]
fn a_repository_without_open_clips_files_is_read_as_hugging_faces() {
    let (home, hub) = (
        tempfile::tempdir().unwrap(),
        Hub::without(&["open_clip_config.json", "tokenizer_config.json", "special_tokens_map.json"]),
    );
    assert!(tintype(home.path(), &hub, &["models", "add", "owner/name", "--name", "other"]).status.success());
    let fetched = tintype(home.path(), &hub, &["models", "fetch", "other"]);
    assert!(fetched.status.success(), "{fetched:?}");
    assert!(Path::new(text(&fetched.stdout).trim_end()).join("model.safetensors").is_file());
}

#[test]
fn weights_in_several_files_and_the_newer_processor_are_fetched() {
    let missing = &["open_clip_config.json", "tokenizer_config.json", "special_tokens_map.json", "model.safetensors"];
    let (home, hub) = (tempfile::tempdir().unwrap(), Hub::without(missing));
    assert!(tintype(home.path(), &hub, &["models", "add", "owner/name", "--name", "other"]).status.success());
    let fetched = tintype(home.path(), &hub, &["models", "fetch", "other"]);
    assert!(fetched.status.success(), "{fetched:?}");
    let directory = Path::new(text(&fetched.stdout).trim_end());
    for file in SHARDS {
        assert!(std::fs::read(directory.join(file)).unwrap() == hub.file(file), "{file}");
    }
    // A part that is gone is noticed and brought again.
    std::fs::remove_file(directory.join(SHARDS[1])).unwrap();
    assert_eq!(listed(home.path(), &hub, "other")["here"], false);
    assert_eq!(tintype(home.path(), &hub, &["models", "fetch", "other"]).stdout, fetched.stdout);
    assert_eq!(listed(home.path(), &hub, "other")["here"], true);
}

#[test]
fn a_part_of_the_weights_that_the_hub_lacks_is_named() {
    let missing = &["open_clip_config.json", "tokenizer_config.json", "model.safetensors", SHARDS[1]];
    let (home, hub) = (tempfile::tempdir().unwrap(), Hub::without(missing));
    assert!(tintype(home.path(), &hub, &["models", "add", "owner/name", "--name", "other"]).status.success());
    let fetched = tintype(home.path(), &hub, &["models", "fetch", "other"]);
    assert_eq!(fetched.status.code(), Some(1));
    assert!(text(&fetched.stderr).contains(SHARDS[1]), "{fetched:?}");
    assert_eq!(listed(home.path(), &hub, "other")["here"], false);
}

#[test]
fn every_name_that_the_loader_knows_for_weights_is_fetched_and_what_is_missing_is_named() {
    let missing = &[
        "preprocessor_config.json",
        "processor_config.json",
        "tokenizer_config.json",
        WEIGHTS,
        "open_clip_pytorch_model.bin",
    ];
    let (home, hub) = (tempfile::tempdir().unwrap(), Hub::without(missing));
    assert!(tintype(home.path(), &hub, &["models", "add", "owner/name", "--name", "other"]).status.success());
    let fetched = tintype(home.path(), &hub, &["models", "fetch", "other"]);
    assert!(fetched.status.success(), "{fetched:?}");
    let directory = Path::new(text(&fetched.stdout).trim_end());
    assert!(directory.join("open_clip_config.json").is_file() && directory.join("model.safetensors").is_file());

    let missing = &["open_clip_config.json", "preprocessor_config.json", "processor_config.json"];
    let (home, hub) = (tempfile::tempdir().unwrap(), Hub::without(missing));
    assert!(tintype(home.path(), &hub, &["models", "add", "owner/name", "--name", "other"]).status.success());
    let fetched = tintype(home.path(), &hub, &["models", "fetch", "other"]);
    assert!(text(&fetched.stderr).contains("no preprocessor_config.json"), "{fetched:?}");
}

#[test]
fn a_known_repository_keeps_its_terms_under_any_name() {
    let hub = Hub::with(|_, stream| {
        super::server::respond(stream, "403 Forbidden", &[], b"");
        true
    });
    let home = tempfile::tempdir().unwrap();
    for place in ["apple/MobileCLIP-S1-OpenCLIP", "apple/MobileCLIP-S1-OpenCLIP@v2"] {
        let name = if place.contains('@') { "later" } else { "mine" };
        let added = tintype(home.path(), &hub, &["--quiet", "models", "add", place, "--name", name]);
        assert!(added.status.success() && text(&added.stderr).contains("not for commercial use"), "{added:?}");
        let fetched = tintype(home.path(), &hub, &["--quiet", "models", "fetch", name]);
        let talk = text(&fetched.stderr);
        let (terms, error) = (talk.find("not for commercial use").unwrap(), talk.find("error:").unwrap());
        assert!(terms < error && !talk.contains("not known"), "{talk}");
        assert_eq!(listed(home.path(), &hub, name)["commercial_use"], false);
    }
}

#[test]
fn a_weight_file_is_a_model_from_any_directory() {
    let (home, hub) = (tempfile::tempdir().unwrap(), Hub::honest());
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/encoders/slip");
    let mut command = Command::new(env!("CARGO_BIN_EXE_tintype"));
    command.env_clear().env("HOME", home.path()).current_dir(folder);
    let library = home.path().join("library");
    let used = command.arg("--library").arg(library).args(["models", "use", "checkpoint.pt"]).output().unwrap();
    assert!(used.status.success(), "{used:?}");
    let status = tintype(home.path(), &hub, &["status", "--json"]);
    assert!(status.status.success() && text(&status.stdout).contains("checkpoint.pt"), "{status:?}");
}
