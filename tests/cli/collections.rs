//! Collections through the program: in, in parts, out, and again.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::{Place, talk, write_picture};

/// A shard of pictures with captions, numbered from `first` on.
fn write_shard(path: &Path, first: usize, count: usize) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let picture = path.with_extension("png");
    let mut tar = tar::Builder::new(std::fs::File::create(path).unwrap());
    for n in first..first + count {
        write_picture(&picture, n);
        tar.append_path_with_name(&picture, format!("{n:03}.png")).unwrap();
        let (caption, about) = (format!("caption of number {n}"), format!("{{\"number\": {n}}}"));
        for (end, text) in [("txt", caption), ("json", about)] {
            let mut header = tar::Header::new_gnu();
            header.set_size(text.len() as u64);
            header.set_mode(0o644);
            tar.append_data(&mut header, format!("{n:03}.{end}"), text.as_bytes()).unwrap();
        }
    }
    tar.finish().unwrap();
    std::fs::remove_file(picture).unwrap();
}

impl Place {
    fn path(&self, name: &str) -> PathBuf {
        self.root.path().canonicalize().unwrap().join(name)
    }

    /// What `status` says of a library.
    fn status(&self, library: &str) -> Value {
        serde_json::from_str(&self.answer(&["status", "--json", "--library", library])).unwrap()
    }
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Names of the files of a folder.
fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn shards_and_lists_are_taken_in_and_answer() {
    let place = Place::empty();
    for n in 0..2 {
        write_shard(&place.path(&format!("shards/{n}.tar")), n * 4, 4);
    }
    write_picture(&place.path("pictures/red.png"), 4);
    let list = "file,caption,stars\nred.png,something red,5\nmissing.png,nothing,1\n";
    std::fs::write(place.path("list.csv"), list).unwrap();
    let output = place.run(&["index", "shards/{0..1}.tar", "list.csv", "--images", "pictures", "--captions"]);
    assert_eq!(output.status.code(), Some(1), "one picture is missing: {}", talk(&output));
    assert!(talk(&output).contains("9 new") && talk(&output).contains("missing.png"), "{}", talk(&output));
    let status = place.status("library");
    assert_eq!((&status["photos"], &status["caption_vectors"]), (&9.into(), &9.into()));
    let complete: Vec<&Value> =
        status["sources"].as_array().unwrap().iter().map(|source| &source["complete"]).collect();
    assert_eq!(complete, [false, true, true], "a list waits for its pictures");
    let found = lines(&place.answer(&["search", "-n", "where:\"number >= 6 or stars = 5\"", "--json"]));
    assert_eq!(found.len(), 3);
    let found = lines(&place.answer(&["search", "-n", "number 3", "--by", "words", "--limit", "1", "--json"]));
    assert!(found[0]["path"].as_str().unwrap().ends_with("0.tar!003.png"), "{found:?}");
    assert_eq!(found[0]["metadata"]["number"], 3);
    let hybrid = lines(&place.answer(&["search", "-n", "caption of number 3", "--hybrid", "--json"]));
    assert_eq!(hybrid.len(), 9);
    let scored = lines(&place.answer(&["score", "-q"]));
    assert!(scored.len() == 9 && scored.iter().all(|line| line["score"].is_number()), "{scored:?}");
    place.answer(&["score", "--out", "pairs.jsonl", "-q"]);
    assert_eq!(lines(&std::fs::read_to_string(place.path("pairs.jsonl")).unwrap()), scored);
    assert!(!place.run(&["score", "--out", "pairs.jsonl"]).status.success(), "nothing is overwritten");
}

#[test]
fn parts_that_were_taken_in_on_their_own_are_merged_into_the_whole() {
    let place = Place::empty();
    for n in 0..3 {
        write_shard(&place.path(&format!("shards/{n}.tar")), n * 3, 3);
    }
    for n in 0..12 {
        write_picture(&place.path(&format!("photos/{n}.png")), 20 + n);
    }
    for (index, library) in ["one", "two"].into_iter().enumerate() {
        let shard = format!("{index}/2");
        // A folder, several files, and one file, of which the samples are dealt out.
        for paths in [&["photos"][..], &["shards/0.tar", "shards/1.tar"], &["shards/2.tar"]] {
            let mut arguments = vec!["index", "--shard", &shard, "--library", library, "--memory", "100"];
            arguments.extend(paths);
            place.answer(&arguments);
        }
    }
    let photos = |library: &str| place.status(library)["photos"].as_u64().unwrap();
    assert!(photos("one") + photos("two") == 21 && photos("one") > 4 && photos("two") > 4, "{}", photos("one"));
    place.answer(&["merge", "one", "--into", "whole"]);
    let output = place.run(&["merge", "one", "two", "--into", "whole"]);
    assert!(talk(&output).contains(&format!("{} were there already", photos("one"))), "{}", talk(&output));
    assert_eq!(photos("whole"), 21);
    let status = place.status("whole");
    assert!(status["sources"].as_array().unwrap().iter().all(|source| source["complete"] == true), "{status}");
    let output = place.run(&["index", "--library", "whole"]);
    assert!(output.status.success() && !talk(&output).contains(" new"), "{}", talk(&output));
    assert_eq!(place.run(&["verify", "--library", "whole"]).status.code(), Some(0));
}

#[test]
fn what_a_filter_finds_is_placed_once() {
    let place = Place::empty();
    for (n, name) in ["a/x.png", "b/x.png", "c/y.png"].iter().enumerate() {
        write_picture(&place.path("photos").join(name), n);
    }
    write_shard(&place.path("shards/0.tar"), 7, 1);
    place.answer(&["index", "photos", "shards/0.tar", "-q"]);
    let first = place.run(&["filter", "red", "--out", "hits"]);
    assert!(talk(&first).contains("4 photos copied to hits"), "{}", talk(&first));
    assert_eq!(names(&place.path("hits")), ["007.png", "x-1.png", "x.png", "y.png"]);
    let mut originals: Vec<Vec<u8>> =
        ["a", "b"].map(|folder| std::fs::read(place.path(&format!("photos/{folder}/x.png"))).unwrap()).into();
    let mut copies: Vec<Vec<u8>> =
        ["x.png", "x-1.png"].map(|name| std::fs::read(place.path("hits").join(name)).unwrap()).into();
    originals.sort();
    copies.sort();
    assert!(originals == copies);
    // What a killed run leaves, and a picture that somebody took out again.
    std::fs::write(place.path("hits/.tintype-part"), "half").unwrap();
    std::fs::remove_file(place.path("hits/y.png")).unwrap();
    let second = place.run(&["filter", "red", "--out", "hits"]);
    assert!(talk(&second).contains("1 photo copied to hits, 3 were there already"), "{}", talk(&second));
    assert_eq!(names(&place.path("hits")), ["007.png", "x-1.png", "x.png", "y.png"]);
    assert_eq!(first.stdout.iter().filter(|byte| **byte == b'\n').count(), 4);
    for _ in 0..2 {
        let linked = place.run(&["filter", "red", "--out", "links", "--link"]);
        assert_eq!(linked.status.code(), Some(0), "{}", talk(&linked));
        assert_eq!(names(&place.path("links")), ["007.png", "x-1.png", "x.png", "y.png"]);
    }
    #[cfg(unix)]
    {
        let is_link = |name: &str| place.path("links").join(name).symlink_metadata().unwrap().is_symlink();
        assert!(is_link("x.png") && is_link("y.png") && !is_link("007.png"));
    }
    assert_eq!(place.answer(&["filter", "red", "--out", "some", "--limit", "2"]).lines().count(), 2);
}

#[test]
fn near_duplicates_are_told_as_lines_and_as_a_page() {
    let place = Place::empty();
    for n in 0..3 {
        write_picture(&place.path(&format!("photos/{n}.png")), n * 9);
    }
    // The same pixels in more bytes.
    image::open(place.path("photos/1.png")).unwrap().save(place.path("photos/large.bmp")).unwrap();
    place.answer(&["index", "photos", "-q"]);
    let groups = lines(&place.answer(&["dedup", "--threshold", "0.99", "--json", "--html", "twice.html"]));
    assert_eq!(groups.len(), 1, "{groups:?}");
    assert!(groups[0]["keep"]["path"].as_str().unwrap().ends_with("large.bmp"), "{groups:?}");
    assert!(groups[0]["others"][0]["similarity"].as_f64().unwrap() >= 0.99);
    let page = std::fs::read_to_string(place.path("twice.html")).unwrap();
    assert!(page.contains("<h2>2 photos</h2>") && page.matches("data:image/jpeg").count() == 2);
    assert_eq!(names(&place.path("photos")).len(), 4, "nothing is deleted");
}

#[test]
fn exports_are_read_by_others() {
    let place = Place::indexed();
    for out in ["out", "out.parquet", "out.jsonl"] {
        // As a run that was killed leaves it.
        std::fs::write(place.path(&format!(".{out}.tintype-part")), "half").unwrap();
        place.answer(&["export", out, "-q"]);
        assert!(!place.path(&format!(".{out}.tintype-part")).exists());
        assert!(!place.run(&["export", out]).status.success(), "nothing is overwritten");
    }
    let rows = lines(&std::fs::read_to_string(place.path("out.jsonl")).unwrap());
    assert!(rows.len() == 6 && rows[0]["embedding"].is_array());
    place.answer(&["index", "out", "--library", "again", "-q"]);
    assert_eq!(place.status("again")["photos"], 6);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/collections/check_export.py");
    let python = |arguments: &[&str]| Command::new("python3").args(arguments).current_dir(place.path("")).output();
    if !python(&["-c", "import numpy, pyarrow"]).is_ok_and(|output| output.status.success()) {
        println!("skipped: no python3 with numpy and pyarrow to read exports with");
        return;
    }
    let output = python(&[script.to_str().unwrap(), "out", "out.parquet", "out.jsonl"]).unwrap();
    assert!(output.status.success(), "{}", talk(&output));
}
