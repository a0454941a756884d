//! `tintype models`, as a user runs it, against a hub of our own.

use std::path::Path;
use std::process::{Command, Output};

use super::server::{COMMIT, Hub, MODEL, WEIGHTS};

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
