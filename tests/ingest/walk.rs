//! Which files are looked at.

use std::fs;

use tintype::{Engine, Error};

use super::photos::{Photos, relative};

/// Names of the photos in the library, sorted.
fn names(photos: &Photos, engine: &Engine) -> Vec<String> {
    let keys: Vec<u64> = (0..1000).collect();
    let records = engine.records(&keys).unwrap();
    let mut names: Vec<String> = records.iter().map(|record| relative(photos, &record.path)).collect();
    names.sort();
    names
}

#[test]
fn hidden_files_are_for_those_who_ask() {
    let photos = Photos::new();
    for (seed, name) in ["a.png", ".b.png", ".c/d.png"].iter().enumerate() {
        photos.write(name, seed as u64);
    }
    let engine = photos.engine();
    engine.ingest([photos.dir()]).run().unwrap();
    assert_eq!(names(&photos, &engine), ["a.png"]);
    engine.ingest([photos.dir()]).hidden(true).run().unwrap();
    assert_eq!(names(&photos, &engine), [".b.png", ".c/d.png", "a.png"]);
    // A run that does not look there does not take them away, one that finds them deleted does.
    fs::remove_file(photos.path(".b.png")).unwrap();
    assert_eq!(engine.ingest([photos.dir()]).run().unwrap().gone, 1);
    assert_eq!(names(&photos, &engine), [".c/d.png", "a.png"]);
}

#[test]
fn exclusions_add_to_the_defaults() {
    let photos = Photos::new();
    let all =
        ["a.png", "@eaDir/t.png", "x/node_modules/i.png", "$RECYCLE.BIN/r.png", "x/private/p.png", "x/draft 1.png"];
    for (seed, name) in all.iter().enumerate() {
        photos.write(name, seed as u64);
    }
    let engine = photos.engine();
    engine.ingest([photos.dir()]).exclude("private/").exclude("draft*").run().unwrap();
    assert_eq!(names(&photos, &engine), ["a.png"]);
    engine.ingest([photos.dir()]).exclude("!node_modules").run().unwrap();
    assert_eq!(names(&photos, &engine), ["a.png", "x/draft 1.png", "x/node_modules/i.png", "x/private/p.png"]);
    engine.ingest([photos.dir()]).exclude("/x/**").run().unwrap();
    assert_eq!(names(&photos, &engine), ["a.png"], "what is excluded leaves the results");
    assert!(matches!(engine.ingest([photos.dir()]).exclude("a{b").run(), Err(Error::BadPattern { .. })));
}

#[test]
fn our_ignore_file_counts_and_that_of_git_does_not() {
    let photos = Photos::new();
    for (seed, name) in ["a.png", "b.png", "sub/c.png", "sub/d.png"].iter().enumerate() {
        photos.write(name, seed as u64);
    }
    fs::create_dir(photos.path(".git")).unwrap();
    fs::write(photos.path(".gitignore"), "a.png\n").unwrap();
    fs::write(photos.path(".ignore"), "a.png\n").unwrap();
    fs::write(photos.path(".tintypeignore"), "b.png\nd.png\n").unwrap();
    fs::write(photos.path("sub/.tintypeignore"), "!d.png\nc.png\n").unwrap();
    let engine = photos.engine();
    engine.ingest([photos.dir()]).run().unwrap();
    assert_eq!(names(&photos, &engine), ["a.png", "sub/d.png"]);
    // Rules of the folders above hold for a folder inside, too.
    engine.ingest([photos.path("sub")]).run().unwrap();
    assert_eq!(names(&photos, &engine), ["a.png", "sub/d.png"]);
}

#[cfg(unix)]
#[test]
fn links_are_followed_on_request_and_never_in_circles() {
    use std::os::unix::fs::symlink;
    let photos = Photos::new();
    let outside = tempfile::tempdir().unwrap();
    super::photos::write_picture(&outside.path().join("o.png"), 50);
    photos.write("a/b/c.png", 1);
    symlink(photos.dir(), photos.path("a/b/up")).unwrap();
    symlink(outside.path(), photos.path("out")).unwrap();
    symlink(photos.path("nowhere"), photos.path("dangling.png")).unwrap();
    let engine = photos.engine();
    let report = engine.ingest([photos.dir()]).run().unwrap();
    assert!(report.skipped.is_empty(), "{:?}", report.skipped);
    assert_eq!(names(&photos, &engine), ["a/b/c.png"]);
    engine.ingest([photos.dir()]).follow_links(true).run().unwrap();
    assert_eq!(names(&photos, &engine), ["a/b/c.png", "out/o.png"]);
    engine.ingest([photos.dir()]).run().unwrap();
    assert_eq!(names(&photos, &engine), ["a/b/c.png", "out/o.png"], "known and there");
    // A root that is a link is the folder that it names.
    let root = photos.dir().parent().unwrap().join("link");
    symlink(photos.dir(), &root).unwrap();
    let report = engine.ingest([root]).run().unwrap();
    assert_eq!((report.unchanged, report.added), (1, 0));
}

#[test]
fn overlapping_roots_take_a_file_once() {
    let photos = Photos::new();
    photos.write_many("a/b", 3);
    photos.write_many("c", 2);
    photos.write("node_modules/x.png", 77);
    let engine = photos.engine();
    let roots = ["", "a", "a/b", "a/b/1.png", "c/../a", "node_modules", "c"].map(|name| photos.path(name));
    let mut last = tintype::Progress::default();
    let report = engine.ingest(roots).on_progress(|progress| last = progress.clone()).run().unwrap();
    assert_eq!((report.added, last.found), (6, 6));
    photos.is_whole(&engine, 6);
    // A single file, and a folder within, leave the rest alone.
    let report = engine.ingest([photos.path("a/b/1.png"), photos.path("c")]).run().unwrap();
    assert_eq!((report.unchanged, report.gone), (3, 0));
}

#[test]
fn a_library_among_the_photos_is_not_indexed() {
    let photos = Photos::new();
    photos.write("a.png", 1);
    let engine = Engine::create(photos.path("library"), photos.encoder("colours")).unwrap();
    photos.write("library/inside.png", 2);
    let report = engine.ingest([photos.dir()]).run().unwrap();
    assert_eq!((report.added, report.skipped.len()), (1, 0));
    assert_eq!(engine.ingest([photos.path("library")]).run().unwrap().added, 0);
}

#[cfg(unix)]
#[test]
fn only_ordinary_files_are_opened() {
    let photos = Photos::new();
    photos.write("a.png", 1);
    // Reading from a pipe without a writer would wait for ever.
    let made = std::process::Command::new("mkfifo").arg(photos.path("pipe.png")).status();
    if !made.is_ok_and(|status| status.success()) {
        println!("skipped: mkfifo is not there");
        return;
    }
    let _socket = std::os::unix::net::UnixListener::bind(photos.path("socket.png")).unwrap();
    let report = photos.engine().ingest([photos.dir()]).run().unwrap();
    assert_eq!((report.added, report.skipped.len()), (1, 0));
}
