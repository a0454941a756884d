//! Parts of a collection: what one machine has is not the whole, and what all of them have is.

use std::path::{Path, PathBuf};

use serde_json::json;
use tintype::{CollectionPart, Engine, Error};

use super::embeddings::npy;
use super::shards::{samples, write};
use super::{Place, declared, declared_as, picture};

const ROWS: u32 = 30;

fn part(index: u64, count: u64) -> CollectionPart {
    CollectionPart::new(index, count).unwrap()
}

fn photos(engine: &Engine) -> u64 {
    engine.status().unwrap().photos
}

fn is_complete(engine: &Engine) -> bool {
    engine.status().unwrap().sources[0].complete
}

/// Opens a library of a name.
type Open = fn(&Place, &str) -> Engine;

/// A shard, a list and a matrix of thirty rows each, with how to open a library for them.
fn files(place: &Place) -> [(PathBuf, Open); 3] {
    write(&place.path("0.tar"), &samples(0..u64::from(ROWS)));
    std::fs::create_dir(place.path("p")).unwrap();
    let mut rows = String::new();
    for n in 0..ROWS {
        std::fs::write(place.path(&format!("p/{n}.png")), picture(u64::from(n))).unwrap();
        rows += &format!("{}\n", json!({"path": format!("p/{n}.png")}));
    }
    std::fs::write(place.path("list.jsonl"), rows).unwrap();
    std::fs::write(place.path("m.npy"), npy(ROWS)).unwrap();
    let library: Open = |place, name| place.library(name);
    let vectors: Open = |place, name| declared_as(place, name, 3);
    [(place.path("0.tar"), library), (place.path("list.jsonl"), library), (place.path("m.npy"), vectors)]
}

#[test]
fn a_part_of_a_file_is_not_taken_for_the_file() {
    let place = Place::new();
    for (file, open) in files(&place) {
        let name = file.file_name().unwrap().to_str().unwrap();
        let engine = open(&place, &format!("{name}-whole"));
        engine.collect([&file]).part(part(0, 2)).run().unwrap();
        let source = engine.status().unwrap().sources.remove(0);
        assert_eq!((source.items, source.complete, source.part), (15, true, Some(part(0, 2))), "{name}");
        assert_eq!(engine.collect([&file]).part(part(0, 2)).run().unwrap().added, 0, "{name}: it is known");
        engine.collect([&file]).run().unwrap();
        assert!(photos(&engine) == u64::from(ROWS) && is_complete(&engine), "{name}: {}", photos(&engine));

        let engine = open(&place, &format!("{name}-parts"));
        for index in [1, 0] {
            engine.collect([&file]).part(part(index, 2)).run().unwrap();
        }
        assert_eq!(photos(&engine), u64::from(ROWS), "{name}");
        let report = engine.verify().unwrap();
        assert!(report.is_clean() && report.orphans == 0, "{name}: {report:?}");
    }
}

#[test]
fn libraries_are_a_file_when_all_its_parts_are_there() {
    let place = Place::new();
    for (file, open) in files(&place) {
        let name = file.file_name().unwrap().to_str().unwrap();
        let library = |index: u64| format!("{name}-{index}");
        for index in 0..3 {
            open(&place, &library(index)).collect([&file]).part(part(index, 3)).run().unwrap();
        }
        let some = open(&place, &format!("{name}-some"));
        some.merge([place.path(&library(0)), place.path(&library(1))]).run().unwrap();
        assert!(photos(&some) == 20 && !is_complete(&some), "{name}: a third of it is missing");
        some.collect([&file]).run().unwrap();
        assert!(photos(&some) == 30 && is_complete(&some), "{name}: {}", photos(&some));

        let all = open(&place, &format!("{name}-all"));
        all.merge([0, 1, 2].map(|index| place.path(&library(index)))).run().unwrap();
        assert!(photos(&all) == 30 && is_complete(&all), "{name}");
        let again = all.collect([&file]).run().unwrap();
        assert_eq!((again.added, again.bytes), (0, 0), "{name}: nothing is read again");
    }
}

#[test]
fn a_run_that_was_stopped_in_one_part_does_not_cut_another_short() {
    let place = Place::new();
    let rows = 20_000;
    std::fs::write(place.path("m.npy"), npy(rows)).unwrap();
    let engine = declared(&place, 3);
    let stopped = engine.collect([place.path("m.npy")]).part(part(0, 2)).cancel(|| true).run();
    assert!(matches!(stopped, Err(Error::Cancelled)), "{stopped:?}");
    let before = photos(&engine);
    assert!(before > 0 && before < u64::from(rows) / 2, "{before}");
    engine.collect([place.path("m.npy")]).part(part(1, 2)).run().unwrap();
    assert_eq!(photos(&engine), before + u64::from(rows) / 2);
    engine.collect([place.path("m.npy")]).part(part(0, 2)).run().unwrap();
    assert_eq!(photos(&engine), u64::from(rows));
}

#[test]
fn rows_of_another_state_of_a_matrix_are_not_counted_as_done() {
    let place = Place::new();
    let (rows, path) = (20_000, place.path("m.npy"));
    std::fs::write(&path, npy(rows)).unwrap();
    let written = std::fs::metadata(&path).unwrap().modified().unwrap();
    let started = declared_as(&place, "started", 3);
    let stopped = started.collect([&path]).cancel(|| true).run();
    assert!(matches!(stopped, Err(Error::Cancelled)), "{stopped:?}");
    let done = photos(&started);
    assert!(done > 0 && done < 1000, "{done}");
    std::fs::write(&path, npy(1000)).unwrap();
    declared_as(&place, "other", 3).collect([&path]).run().unwrap();
    std::fs::write(&path, npy(rows)).unwrap();
    std::fs::File::options().write(true).open(&path).unwrap().set_modified(written).unwrap();
    declared_as(&place, "all", 3).collect([&path]).run().unwrap();
    for last in [None, Some("all")] {
        let engine = declared_as(&place, &format!("{last:?}"), 3);
        let parts: Vec<&str> = ["started", "other"].into_iter().chain(last).collect();
        engine.merge(parts.iter().map(|name| place.path(name))).run().unwrap();
        assert!(!is_complete(&engine), "{parts:?}");
        assert_eq!(engine.collect([&path]).run().unwrap().added, u64::from(rows) - done, "{parts:?}");
        assert!(photos(&engine) == u64::from(rows) && is_complete(&engine), "{parts:?}");
    }
}

#[test]
fn members_that_moved_in_their_shard_are_found_by_every_part() {
    let place = Place::new();
    let shard = place.path("0.tar");
    write(&shard, &samples(0..10));
    let engine = place.engine();
    engine.collect([&shard]).run().unwrap();
    let mut moved = samples(0..10);
    moved.insert(0, ("00000.cls".to_owned(), vec![0; 5000]));
    write(&shard, &moved);
    for index in 0..2 {
        engine.collect([&shard]).part(part(index, 2)).run().unwrap();
    }
    for seed in 0..10 {
        let record = engine.record(place.path(&format!("0.tar!{seed:05}.jpg"))).unwrap().unwrap();
        assert_eq!(engine.open_image(record.key).unwrap(), picture(seed), "{seed}");
    }
    assert_eq!(place.encoder.pictures(), 10);
}

#[test]
fn a_folder_of_photos_is_dealt_out_with_what_stands_beside_them() {
    let place = Place::new();
    let copy = |to: &str| {
        std::fs::create_dir_all(place.path(to).join("deep")).unwrap();
        for n in 0..40 {
            let name = if n % 2 == 0 { format!("{n}") } else { format!("deep/{n}") };
            std::fs::write(place.path(to).join(format!("{name}.png")), picture(n)).unwrap();
            std::fs::write(place.path(to).join(format!("{name}.txt")), format!("number {n}")).unwrap();
        }
        place.path(to)
    };
    // Two machines, on which the folder lies elsewhere.
    let (here, there) = (copy("here/photos"), copy("there/disk/photos"));
    let (a, b) = (place.library("a"), place.library("b"));
    let below = |engine: &Engine, root: &Path| {
        let hits = engine.search("").limit(100).run().unwrap();
        let mut names: Vec<PathBuf> =
            hits.into_iter().map(|hit| hit.path.strip_prefix(root).unwrap().to_path_buf()).collect();
        names.sort();
        names
    };
    a.ingest([&here]).part(part(0, 2)).run().unwrap();
    b.ingest([&there]).part(part(1, 2)).run().unwrap();
    let mut all = below(&a, &here);
    assert!((5..=35).contains(&all.len()), "{}", all.len());
    all.extend(below(&b, &there));
    let found = all.len();
    all.sort();
    all.dedup();
    assert_eq!((all.len(), found), (40, 40));
    for engine in [&a, &b] {
        let captioned = engine.search("text:number").limit(100).run().unwrap().len() as u64;
        assert_eq!(captioned, photos(engine), "each photo has its caption");
    }
    // What the library has of other parts stays, and is not called gone.
    let report = a.ingest([&here]).run().unwrap();
    assert_eq!((report.added, photos(&a)), (40 - (found - below(&b, &there).len()) as u64, 40));
    let report = a.ingest([&here]).part(part(1, 2)).run().unwrap();
    assert_eq!((report.gone, report.added, photos(&a)), (0, 0, 40));
}
