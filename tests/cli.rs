//! The program, run as a user runs it, with the built-in model.

mod collections;

use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::OnceLock;

use assert_cmd::Command;
use serde_json::Value;

/// A photo folder with awkward names, and a library of it, made once and copied for each test.
struct Place {
    root: tempfile::TempDir,
}

const NAMES: [&str; 6] = [
    "red.png",
    "Ferien in Österreich/grün & blau.png",
    "a/b/c/deep.png",
    "-leash.png",
    "two\nlines.png",
    "quote\"s' $HOME.png",
];

fn write_picture(path: &Path, n: usize) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let picture =
        image::RgbImage::from_fn(48 + n as u32, 36, |x, y| image::Rgb([(n * 60) as u8, (x * 4) as u8, (y * 6) as u8]));
    picture.save(path).unwrap();
}

/// The photos and a library of them, never changed.
fn original() -> &'static Path {
    static ORIGINAL: OnceLock<PathBuf> = OnceLock::new();
    ORIGINAL.get_or_init(|| {
        // The test process ends before the directory is of no more use; a fixed place in the target directory is reused.
        let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cli");
        let _ = std::fs::remove_dir_all(&root);
        for (n, name) in NAMES.iter().enumerate() {
            write_picture(&root.join("photos").join(name), n);
        }
        let root = std::fs::canonicalize(root).unwrap();
        program(&root).args(["index", "-q"]).arg(root.join("photos")).assert().success();
        root
    })
}

/// The program with a home of its own.
fn program(root: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tintype"));
    command.current_dir(root).env("TINTYPE_LIBRARY", root.join("library")).env("HOME", root).env("TZ", "UTC");
    for name in ["HF_HOME", "HF_HUB_CACHE", "XDG_DATA_HOME", "XDG_CONFIG_HOME", "CLICOLOR_FORCE"] {
        command.env_remove(name);
    }
    command
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to)
        } else {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
}

impl Place {
    /// Nothing but an empty home.
    fn empty() -> Place {
        Place { root: tempfile::tempdir().unwrap() }
    }

    /// A copy of the library; the photos are those of the original.
    fn indexed() -> Place {
        let place = Place::empty();
        copy(&original().join("library"), &place.root.path().join("library"));
        place
    }

    fn run(&self, args: &[&str]) -> Output {
        program(self.root.path()).args(args).output().unwrap()
    }

    /// stdout of a run that goes well.
    fn answer(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert_eq!(output.status.code(), Some(0), "{args:?}: {}", talk(&output));
        String::from_utf8(output.stdout).unwrap()
    }
}

fn photos() -> PathBuf {
    original().join("photos")
}

fn talk(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn one_command_indexes_and_answers() {
    let place = Place::empty();
    let folder = photos();
    let output = place.run(&["search", "a red wall", "--in", folder.to_str().unwrap(), "--limit", "3"]);
    assert_eq!(output.status.code(), Some(0), "{}", talk(&output));
    let stdout = String::from_utf8(output.stdout.clone()).unwrap();
    assert_eq!(stdout.lines().count(), 3, "{stdout}");
    let mut last = f32::MAX;
    for line in stdout.lines() {
        let fields: Vec<&str> = line.split('\t').collect();
        let score: f32 = fields[0].parse().unwrap();
        assert!(score <= last);
        last = score;
        assert!(fields[1].starts_with(folder.to_str().unwrap()));
        assert_eq!(fields.len(), 4);
    }
    let talk = talk(&output);
    assert!(talk.contains("6 new") && talk.contains("builtin"), "{talk}");
    assert!(!talk.contains('\x1b') && !stdout.contains('\x1b'), "no colours into pipes");
    assert!(place.root.path().join("library").is_dir());
}

#[test]
fn json_is_an_object_per_photo() {
    let place = Place::indexed();
    let stdout = place.answer(&["search", "-n", "red", "--json", "-q"]);
    let lines: Vec<Value> = stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), NAMES.len());
    let fields = [
        "path",
        "score",
        "key",
        "format",
        "width",
        "height",
        "size",
        "modified",
        "taken",
        "camera",
        "lens",
        "latitude",
        "longitude",
        "hash",
        "model",
    ];
    for line in &lines {
        let names: Vec<&str> = line.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(names, fields);
        assert!(line["score"].is_f64() && line["key"].is_u64() && line["camera"].is_null());
        assert_eq!((line["format"].as_str(), line["height"].as_u64()), (Some("png"), Some(36)));
        assert!(line["modified"].as_str().unwrap().ends_with('Z'));
        assert!(Path::new(line["path"].as_str().unwrap()).is_file());
    }
    let listed = place.answer(&["search", "-n", "type:png", "--json", "--limit", "1"]);
    assert!(serde_json::from_str::<Value>(&listed).unwrap()["score"].is_null());
}

#[test]
fn any_file_name_survives_nul_separation() {
    let place = Place::indexed();
    let output = place.run(&["search", "-n", "something", "-0"]);
    let text = String::from_utf8(output.stdout).unwrap();
    let mut found: Vec<&str> = text.split_terminator('\0').collect();
    let folder = photos();
    let mut expected: Vec<String> = NAMES.iter().map(|name| folder.join(name).display().to_string()).collect();
    found.sort_unstable();
    expected.sort_unstable();
    assert_eq!(found, expected);
    let lines = place.answer(&["search", "-n", "something", "--filepath-only"]);
    assert_eq!(lines.lines().count(), NAMES.len() + 1, "one name has two lines");
    let table = place.answer(&["search", "-n", "something"]);
    assert_eq!(table.lines().count(), NAMES.len(), "here it is escaped");
    assert!(table.contains("two\\nlines.png"));
}

#[test]
fn rclip_spellings_are_understood() {
    let place = Place::indexed();
    let sum = place.answer(&["search", "-n", "red - blue + green", "-f", "-t", "4"]);
    for args in [
        vec!["search", "--no-indexing", "red", "--subtract", "blue", "--add", "green", "--filepath-only", "--top", "4"],
        vec!["search", "--skip-index", "red", "-", "blue", "+", "green", "-f", "-t4"],
        vec!["search", "-n", "red", "-s", "blue", "-a", "green", "--paths", "--limit", "4"],
    ] {
        assert_eq!(place.answer(&args), sum, "{args:?}");
    }
    assert!(sum.lines().count() >= 4, "one name has two lines");
}

#[test]
fn mistakes_in_a_query_are_pointed_at() {
    let place = Place::indexed();
    let output = place.run(&["search", "-n", "größer camrea:nikon"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(output.stdout.is_empty());
    let talk = talk(&output);
    let lines: Vec<&str> = talk.lines().collect();
    assert!(lines[0].contains("did you mean camera:?"), "{talk}");
    assert_eq!(lines[1..], ["  größer camrea:nikon", "         ^^^^^^"]);
    assert_eq!(place.run(&["search", "--limit", "many", "x"]).status.code(), Some(2));
    assert_eq!(place.run(&["search", "-n", "x", "--json", "-0"]).status.code(), Some(2));
}

#[test]
fn without_a_library_it_is_said_how_to_make_one() {
    let place = Place::empty();
    for args in [
        vec!["search", "dog"],
        vec!["search", "-n", "dog"],
        vec!["similar", "x.jpg"],
        vec!["status"],
        vec!["index"],
        vec!["verify"],
    ] {
        let output = place.run(&args);
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        assert!(talk(&output).contains("tintype index FOLDER"), "{args:?}: {}", talk(&output));
        assert!(!place.root.path().join("library").exists(), "{args:?}");
    }
    let output = place.run(&["search", "dog", "--in", "nowhere"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(talk(&output).contains("nowhere"), "{}", talk(&output));
}

#[test]
fn pictures_ask_as_well_as_words() {
    let place = Place::indexed();
    let file = photos().join(NAMES[1]);
    let similar = place.answer(&["similar", file.to_str().unwrap(), "--paths", "-t", "2"]);
    assert_eq!(similar.lines().count(), 2);
    assert!(!similar.contains("grün"), "the picture itself is left out");
    let searched = place.answer(&["search", "-n", file.to_str().unwrap(), "--paths", "-t", "2"]);
    assert_eq!(searched, similar);
    let like = place.answer(&["search", "-n", "like:\"grün & blau.png\"", "--paths", "-t", "2"]);
    assert_eq!(like, similar);
    // A name in the current directory, with a space, without quotes: rclip takes it for text.
    let mut here = program(place.root.path());
    let here = here
        .current_dir(file.parent().unwrap())
        .args(["search", "-n", "grün & blau.png", "-f", "-t", "2"])
        .output()
        .unwrap();
    assert_eq!(String::from_utf8(here.stdout).unwrap(), similar);
}

#[test]
fn a_scope_limits_the_answer() {
    let place = Place::indexed();
    let within = photos().join("Ferien in Österreich");
    let found = place.answer(&["search", "-n", "x", "-f", "--in", within.to_str().unwrap()]);
    assert_eq!(found, format!("{}\n", within.join("grün & blau.png").display()));
    let glob = place.answer(&["search", "-n", "path:a/** type:png width:48..50", "-f"]);
    assert_eq!(glob, format!("{}\n", photos().join("a/b/c/deep.png").display()));
}

#[test]
fn new_photos_are_found_and_no_update_does_not_look() {
    let place = Place::empty();
    let folder = place.root.path().join("My photos");
    write_picture(&folder.join("1.png"), 1);
    let folder_name = folder.to_str().unwrap();
    assert_eq!(place.answer(&["search", "x", "-f", "--in", folder_name]).lines().count(), 1);
    write_picture(&folder.join("2.png"), 2);
    write_picture(&folder.join("@eaDir/3.png"), 3);
    write_picture(&folder.join("drafts/4.png"), 3);
    assert_eq!(place.answer(&["search", "x", "-f", "--no-update"]).lines().count(), 1);
    assert_eq!(place.answer(&["search", "x", "-f", "--exclude-dir", "drafts"]).lines().count(), 2);
    std::fs::remove_file(folder.join("1.png")).unwrap();
    let found = place.answer(&["search", "x", "-f"]);
    assert!(!found.contains("1.png") && found.contains("2.png") && found.contains("4.png"), "{found}");
}

#[test]
fn unreadable_files_are_lines_and_not_the_end() {
    let place = Place::empty();
    let folder = place.root.path().join("broken");
    write_picture(&folder.join("good.png"), 1);
    std::fs::write(folder.join("cut.jpg"), b"\xff\xd8\xff\xe0\x00\x10JFIF").unwrap();
    std::fs::write(folder.join("notes.txt"), b"no picture").unwrap();
    let output = place.run(&["index", folder.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1), "{}", talk(&output));
    assert!(output.stdout.is_empty());
    let said = talk(&output);
    let skipped: Vec<&str> = said.lines().filter(|line| line.starts_with("skipped ")).collect();
    assert_eq!(skipped.len(), 1, "{said}");
    assert!(skipped[0].contains("cut.jpg: "), "{said}");
    assert_eq!(skipped[0].matches("cut.jpg").count(), 1, "the path is said once: {said}");
    assert!(said.contains("1 photo can be searched"), "{said}");
    // Known trouble does not fail each search after it.
    let again = place.run(&["search", "x", "-f"]);
    assert_eq!(again.status.code(), Some(0), "{}", talk(&again));
    assert!(talk(&again).contains("1 file"), "{}", talk(&again));
}

#[test]
fn status_remove_and_verify() {
    let place = Place::indexed();
    let status: Value = serde_json::from_str(&place.answer(&["status", "--json"])).unwrap();
    assert_eq!(status["photos"], 6);
    assert_eq!(status["folders"][0]["path"], photos().to_str().unwrap());
    let text = place.answer(&["status"]);
    assert!(text.contains("photos      6") && text.contains(photos().to_str().unwrap()), "{text}");
    assert!(place.answer(&["verify"]).contains("6 records"));
    let verified: Value = serde_json::from_str(&place.answer(&["verify", "--json"])).unwrap();
    assert_eq!((&verified["clean"], &verified["records"]), (&true.into(), &6.into()));
    let output = place.run(&["remove", photos().join("a").to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0));
    assert!(talk(&output).contains("1 photo taken out"), "{}", talk(&output));
    assert!(photos().join("a/b/c/deep.png").is_file());
    assert_eq!(place.answer(&["search", "-n", "x", "-f"]).lines().count(), 6);
    assert_eq!(place.run(&["remove", "nowhere"]).status.code(), Some(1));
}

#[test]
fn another_model_takes_over_and_hands_back() {
    let place = Place::indexed();
    let model = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/model/open_clip_gelu");
    let answers_with = || {
        let hit: Value =
            serde_json::from_str(&place.answer(&["search", "red", "-n", "--json", "--limit", "1"])).unwrap();
        hit["model"].as_str().unwrap().to_owned()
    };
    assert_eq!(answers_with(), "builtin");
    place.answer(&["models", "use", model]);
    assert_eq!(answers_with(), "open_clip_gelu", "without an option: the library knows how to load its model");
    assert_eq!(
        place.run(&["search", "red", "--model", "builtin"]).status.code(),
        Some(1),
        "an option switches nothing"
    );
    place.answer(&["models", "use", "builtin"]);
    assert_eq!(answers_with(), "builtin");
}

#[test]
fn a_model_takes_over_in_the_background() {
    let place = Place::indexed();
    let model = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/model/open_clip_gelu");
    place.answer(&["models", "use", model, "--background"]);
    let log = place.root.path().join("library/switch.log");
    let start = std::time::Instant::now();
    loop {
        // A search that falls into the very moment of the change may say so instead of answering.
        let output = place.run(&["search", "red", "-n", "--json", "--limit", "1"]);
        let hit: Option<Value> = serde_json::from_slice(&output.stdout).ok();
        if hit.is_some_and(|hit| hit["model"] == "open_clip_gelu") {
            break;
        }
        let said = std::fs::read_to_string(&log).unwrap();
        assert!(start.elapsed().as_secs() < 60, "{said}");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}

#[test]
fn a_page_needs_nothing_else() {
    let place = Place::indexed();
    let page = place.root.path().join("page.html");
    place.answer(&["search", "-n", "<b>red</b> & \"blue\"", "--html", page.to_str().unwrap(), "-f"]);
    let page = std::fs::read_to_string(page).unwrap();
    assert_eq!(page.matches("src=\"data:image/jpeg;base64,").count(), NAMES.len());
    assert!(page.contains("&lt;b&gt;red&lt;/b&gt;") && !page.contains("<b>red"));
    assert!(page.contains("quote&quot;s&#39; $HOME.png"));
    assert!(!page.contains("http://") && !page.contains("https://") && !page.contains("<script"));
    assert!(page.contains("prefers-color-scheme: dark"));
}

#[test]
fn a_reader_that_leaves_ends_the_program_quietly() {
    use std::process::{Command, Stdio};
    let place = Place::indexed();
    for args in [&["search", "-n", "x"][..], &["man"], &["completions", "bash"], &["status"]] {
        let mut child = Command::new(env!("CARGO_BIN_EXE_tintype"))
            .args(args)
            .env("TINTYPE_LIBRARY", place.root.path().join("library"))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        let said = talk(&output);
        assert!(!said.contains("error") && !said.contains("panicked"), "{args:?}: {said}");
        assert_eq!(output.status.code(), Some(0), "{args:?}");
    }
}

#[cfg(unix)]
#[test]
fn a_library_that_cannot_be_written_still_answers() {
    use std::os::unix::fs::PermissionsExt;
    let place = Place::indexed();
    let library = place.root.path().join("library");
    let set = |dirs: u32, files: u32| {
        fn walk(dir: &Path, dirs: u32, files: u32) {
            for entry in std::fs::read_dir(dir).unwrap().map(Result::unwrap) {
                let is_dir = entry.file_type().unwrap().is_dir();
                if is_dir {
                    walk(&entry.path(), dirs, files);
                }
                std::fs::set_permissions(
                    entry.path(),
                    std::fs::Permissions::from_mode(if is_dir { dirs } else { files }),
                )
                .unwrap();
            }
            std::fs::set_permissions(dir, std::fs::Permissions::from_mode(dirs)).unwrap();
        }
        walk(&library, dirs, files);
    };
    set(0o555, 0o444);
    if std::fs::write(library.join("probe"), b"").is_ok() {
        std::fs::remove_file(library.join("probe")).unwrap();
        set(0o755, 0o644);
        println!("skipped: this user may write everywhere");
        return;
    }
    let output = place.run(&["search", "x", "-f"]);
    set(0o755, 0o644);
    assert_eq!(String::from_utf8(output.stdout.clone()).unwrap().lines().count(), 7, "{}", talk(&output));
    assert_eq!(output.status.code(), Some(1));
    assert!(talk(&output).contains("could not be brought up to date"), "{}", talk(&output));
}

#[test]
fn shells_and_man_come_from_the_same_definitions() {
    let place = Place::empty();
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = place.answer(&["completions", shell]);
        assert!(script.contains("min-score") && script.contains("similar"), "{shell}");
    }
    assert!(place.answer(&["man"]).contains(".TH tintype 1"));
    place.answer(&["man", "pages"]);
    let page = std::fs::read_to_string(place.root.path().join("pages/tintype-search.1")).unwrap();
    assert!(page.contains("golden retriever") && page.contains("min\\-score"));
}

#[test]
fn real_photos_are_found_by_what_is_in_them() {
    let data = std::env::var_os("TINTYPE_TEST_DATA")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared"), PathBuf::from);
    let folder = data.join("data/photos/flickr8k-1000");
    if !folder.is_dir() {
        println!("skipped: no photos in {}", folder.display());
        return;
    }
    // A few are enough: the model's recall is measured elsewhere.
    let place = Place::empty();
    let some = place.root.path().join("some");
    std::fs::create_dir(&some).unwrap();
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    for file in files.iter().take(12) {
        std::fs::copy(file, some.join(file.file_name().unwrap())).unwrap();
    }
    let found = place.answer(&["search", "a dog", "--in", some.to_str().unwrap(), "--json"]);
    let scores: Vec<f64> =
        found.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["score"].as_f64().unwrap()).collect();
    assert_eq!(scores.len(), 12);
    assert!(scores.is_sorted_by(|a, b| a >= b) && scores[0] > scores[11]);
    let camera = data.join("data/camera/broken");
    if camera.is_dir() {
        let output = place.run(&["index", camera.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(1), "{}", talk(&output));
        assert!(talk(&output).contains("skipped "), "{}", talk(&output));
    }
}

#[test]
fn what_cannot_be_meant_is_refused_and_leaves_nothing() {
    let place = Place::indexed();
    let wrong: [&[&str]; 6] = [
        &["dedup", "--threshold", "5"],
        &["dedup", "--threshold", "nan"],
        &["filter", "red", "--out", "hits", "--min-score", "nan"],
        &["score", "--threshold", "2"],
        &["search", "red", "--recall", "1.5"],
        &["search", "red", "--min-score", "inf"],
    ];
    for arguments in wrong {
        let output = place.run(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(talk(&output).contains("expected a number"), "{arguments:?}: {}", talk(&output));
    }
    assert!(talk(&place.run(&["export", "all.csv"])).contains(".parquet"));
    assert!(talk(&place.run(&["merge", "library", "no-such-part", "--into", "joined"])).contains("no-such-part"));
    for left in ["hits", "all.csv", "joined"] {
        assert!(!place.root.path().join(left).exists(), "{left}");
    }
}
