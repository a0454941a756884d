//! Tars in the layout of webdataset.

use std::cell::Cell;
use std::fs::File;
use std::io::Write;
use std::path::Path;

use serde_json::json;
use tintype::{CollectionPart, Engine, Error, Query, Ranking, SourceKind};

use super::{Place, lines, picture};

pub(crate) fn write(path: &Path, members: &[(String, Vec<u8>)]) {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, bytes) in members {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mtime(1_700_000_000);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, bytes.as_slice()).unwrap();
    }
    let bytes = tar.into_inner().unwrap();
    let mut file = File::create(path).unwrap();
    if path.to_str().unwrap().ends_with("gz") {
        let mut packed = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
        packed.write_all(&bytes).unwrap();
        packed.finish().unwrap();
    } else {
        file.write_all(&bytes).unwrap();
    }
}

pub(crate) fn samples(seeds: std::ops::Range<u64>) -> Vec<(String, Vec<u8>)> {
    let sample = |seed: u64| {
        let about = json!({"key": format!("{seed:05}"), "width": 24 * seed, "NSFW": if seed.is_multiple_of(2) { "UNLIKELY" } else { "UNSURE" }});
        [
            (format!("{seed:05}.jpg"), picture(seed)),
            (format!("{seed:05}.txt"), format!("caption {seed} \n").into_bytes()),
            (format!("{seed:05}.json"), about.to_string().into_bytes()),
        ]
    };
    seeds.flat_map(sample).collect()
}

fn whole(engine: &Engine, photos: u64) {
    let report = engine.verify().unwrap();
    assert!(report.is_clean() && report.orphans == 0, "{report:?}");
    assert_eq!((engine.status().unwrap().photos, report.index.vectors), (photos, photos));
}

#[test]
fn shards_are_taken_in_with_all_they_say() {
    let place = Place::new();
    write(&place.path("0.tar"), &samples(0..10));
    write(&place.path("1.tar.gz"), &samples(10..20));
    let engine = place.engine();
    let report = engine.collect([place.path("0.tar"), place.path("1.tar.gz")]).run().unwrap();
    assert_eq!((report.added, report.embedded, lines(&report, &place)), (20, 20, vec![]));
    whole(&engine, 20);
    for (shard, seed) in [("0.tar", 7), ("1.tar.gz", 13)] {
        let record = engine.record(place.path(&format!("{shard}!{seed:05}.jpg"))).unwrap().unwrap();
        assert_eq!((record.caption.as_deref(), record.width), (Some(format!("caption {seed}").as_str()), 24));
        assert_eq!(engine.open_image(record.key).unwrap(), picture(seed), "{shard}");
        let about = engine.metadata(&[record.key]).unwrap().remove(0);
        assert_eq!((&about["width"], &about["key"]), (&json!(24 * seed), &json!(format!("{seed:05}"))));
    }
    let found = engine.search("where:\"width > 400 and NSFW = 'UNLIKELY'\"").run().unwrap();
    assert_eq!(found.len(), 1, "only 18 of 17, 18, 19 is even");
    let found = engine.search("text:\"caption 5\"").run().unwrap();
    assert_eq!(found[0].path, place.path("0.tar!00005.jpg"));
    let sources = engine.status().unwrap().sources;
    assert!(sources.iter().all(|source| source.complete && source.items == 10 && source.kind == SourceKind::Tar));

    let again = engine.collect([place.path("0.tar"), place.path("1.tar.gz")]).run().unwrap();
    assert_eq!((again.added, again.embedded, again.bytes), (0, 0, 0), "a complete shard is not even opened");
    assert_eq!(engine.remove([place.path("0.tar")]).unwrap(), 10);
    whole(&engine, 10);
}

#[test]
fn a_walk_of_the_folder_above_leaves_what_shards_and_matrices_hold() {
    let place = Place::new();
    std::fs::create_dir(place.path("all")).unwrap();
    let mut members = samples(0..10);
    members.push(("00010.jpg".to_owned(), b"no picture".to_vec()));
    write(&place.path("all/0.tar"), &members);
    std::fs::write(place.path("all/a.png"), picture(50)).unwrap();
    let engine = place.engine();
    assert_eq!(engine.collect([place.path("all/0.tar")]).run().unwrap().skipped.len(), 1);
    let report = engine.ingest([place.path("all")]).run().unwrap();
    assert_eq!((report.added, report.gone), (1, 0));
    std::fs::remove_file(place.path("all/a.png")).unwrap();
    std::fs::write(place.path("all/b.png"), picture(51)).unwrap();
    let report = engine.ingest([place.path("all")]).run().unwrap();
    assert_eq!((report.added, report.gone), (1, 1), "what the walk itself brought");
    let status = engine.status().unwrap();
    assert_eq!((status.photos, status.gone, status.skipped), (11, 1, 1));

    let vectors = super::declared(&place, 49);
    std::fs::create_dir(place.path("all/out")).unwrap();
    std::fs::copy(super::fixture("f32.npy"), place.path("all/out/f32.npy")).unwrap();
    let rows = vectors.collect([place.path("all/out/f32.npy")]).run().unwrap().added;
    assert!(rows > 0);
    vectors.ingest([place.path("all/out")]).run().unwrap();
    let status = vectors.status().unwrap();
    assert_eq!((status.photos, status.gone), (rows, 0));
}

#[test]
fn an_interrupted_run_goes_on_where_it_was() {
    let place = Place::new();
    write(&place.path("0.tar"), &samples(0..300));
    let engine = place.engine();
    let asked = Cell::new(0);
    let stop = || {
        asked.set(asked.get() + 1);
        std::thread::sleep(std::time::Duration::from_millis(1));
        place.encoder.pictures() >= 64
    };
    let stopped = engine.collect([place.path("0.tar")]).threads(1).cancel(stop).run();
    let status = engine.status().unwrap();
    // A slow machine may ask for the first time when everything is in: then nothing was interrupted.
    match stopped {
        Err(Error::Cancelled) => assert!(status.photos < 300 && !status.sources[0].complete, "{status:?}"),
        Err(error) => panic!("{error}"),
        Ok(report) => {
            assert_eq!((report.added, status.photos, status.sources[0].complete), (300, 300, true));
        }
    }
    let report = engine.collect([place.path("0.tar")]).run().unwrap();
    assert!(report.skipped.is_empty());
    whole(&engine, 300);
    assert!(engine.status().unwrap().sources[0].complete);
}

#[test]
fn a_shard_that_changed_is_read_again_and_embeds_only_what_is_new() {
    let place = Place::new();
    let shard = place.path("0.tar");
    write(&shard, &samples(0..10));
    let engine = place.engine();
    engine.collect([&shard]).run().unwrap();
    let mut changed = samples(2..12);
    changed.insert(0, ("00001.txt".to_owned(), b"no picture here".to_vec()));
    changed.insert(0, ("zzz.cls".to_owned(), b"7".to_vec()));
    write(&shard, &changed);
    let report = engine.collect([&shard]).run().unwrap();
    assert_eq!((report.added, report.embedded, report.gone), (2, 2, 2));
    let record = engine.record(place.path("0.tar!00005.jpg")).unwrap().unwrap();
    assert_eq!(engine.open_image(record.key).unwrap(), picture(5), "it is elsewhere in the shard now");
    assert_eq!(engine.status().unwrap().photos, 10);
}

#[test]
fn damage_costs_what_is_damaged_and_nothing_else() {
    let place = Place::new();
    let mut members = samples(0..6);
    members[3].1 = b"this is no picture".to_vec();
    members[8].1 = b"{no json".to_vec();
    members.push(("00000.jpg".to_owned(), picture(99)));
    write(&place.path("bad.tar"), &members);
    for name in ["cut.tar", "cut.tar.gz"] {
        write(&place.path(name), &samples(10..40));
        let bytes = std::fs::read(place.path(name)).unwrap();
        std::fs::write(place.path(name), &bytes[..bytes.len() / 2]).unwrap();
    }
    std::fs::write(place.path("none.tar"), b"x".repeat(2000)).unwrap();
    std::fs::write(place.path("empty.tar"), b"").unwrap();
    let engine = place.engine();
    let names = ["bad.tar", "cut.tar", "cut.tar.gz", "none.tar", "empty.tar"];
    let report = engine.collect(names.map(|name| place.path(name))).run().unwrap();
    let lines = lines(&report, &place);
    for expected in [
        "not a readable picture: its content is no picture",
        "bad.tar!00002.json: no JSON",
        "bad.tar!00000.jpg: a sample of this name came before",
        "cut.tar: damaged or cut off behind ",
        "cut.tar.gz: damaged or cut off behind ",
        "none.tar: no tar that can be read",
        "empty.tar: empty",
    ] {
        assert!(lines.iter().any(|line| line.starts_with(expected)), "{expected}: {lines:#?}");
    }
    assert_eq!(lines.len(), 7, "{lines:#?}");
    let sources = engine.status().unwrap().sources;
    let items: Vec<(u64, bool)> = sources.iter().map(|source| (source.items, source.complete)).collect();
    assert_eq!(items[0], (5, true));
    assert!(items[1].0 > 5 && !items[1].1 && items[2].0 > 3 && !items[2].1 && items[3] == (0, false), "{items:?}");
    let mended = place.path("cut.tar");
    write(&mended, &samples(10..40));
    let report = engine.collect([&mended]).run().unwrap();
    assert_eq!((report.added + items[1].0, report.skipped.len()), (30, 0));
}

#[test]
fn parts_are_disjoint_and_make_the_whole() {
    let place = Place::new();
    let shards: Vec<_> = (0..3_u64).map(|n| place.path(&format!("{n}.tar"))).collect();
    for (n, shard) in shards.iter().enumerate() {
        write(shard, &samples(n as u64 * 10..n as u64 * 10 + 10));
    }
    for (count, paths) in [(2, &shards[..]), (4, &shards[..1])] {
        let mut all = Vec::new();
        for index in 0..count {
            let engine = place.library(&format!("{count}-{index}"));
            engine.collect(paths).part(CollectionPart::new(index, count).unwrap()).run().unwrap();
            all.extend(engine.search(Query::all()).limit(100).run().unwrap().into_iter().map(|hit| hit.path));
        }
        let found = all.len();
        all.sort();
        all.dedup();
        assert_eq!((all.len(), found), (paths.len() * 10, paths.len() * 10));
    }
    assert!(CollectionPart::new(2, 2).is_none());
}

#[test]
fn captions_rank_by_meaning_by_words_and_together() {
    let place = Place::new();
    let colours = ["red", "green", "blue", "white"];
    let members: Vec<(String, Vec<u8>)> = (0..4)
        .flat_map(|n| {
            [
                (format!("{n}.png"), picture(n)),
                (format!("{n}.txt"), format!("a {} thing", colours[n as usize]).into_bytes()),
            ]
        })
        .collect();
    write(&place.path("0.tar"), &members);
    let engine = place.engine();
    engine.collect([place.path("0.tar")]).run().unwrap();
    let error = engine.search("green").ranking(Ranking::Caption).run().unwrap_err().to_string();
    assert!(error.contains("--captions"), "{error}");
    assert_eq!(engine.embed_captions().run().unwrap(), 4);
    assert_eq!(engine.embed_captions().run().unwrap(), 0);
    assert_eq!(engine.status().unwrap().caption_vectors, 4);
    let best = |ranking| engine.search("green").ranking(ranking).limit(1).run().unwrap().remove(0);
    let by_caption = best(Ranking::Caption);
    assert_eq!(by_caption.path, place.path("0.tar!1.png"));
    assert!(by_caption.score > 0.99);
    assert_eq!(best(Ranking::Words).path, place.path("0.tar!1.png"));
    assert_eq!(best(Ranking::Hybrid).path, place.path("0.tar!1.png"));
    let words = engine.search("green blue").ranking(Ranking::Words).run().unwrap();
    assert_eq!(words.len(), 2, "only photos with one of the words");
    let hybrid = engine.search("green where:\"caption like '%red%'\"").ranking(Ranking::Hybrid).run().unwrap();
    assert_eq!(hybrid.len(), 1, "filters hold for every ranking");
    engine.remove([place.path("0.tar")]).unwrap();
    assert_eq!(engine.status().unwrap().caption_vectors, 0);
}

#[cfg(unix)]
#[test]
fn a_link_in_the_place_of_a_shard_leads_nowhere() {
    let place = Place::new();
    let shard = place.path("shards/0.tar");
    std::fs::create_dir_all(shard.parent().unwrap()).unwrap();
    write(&shard, &samples(0..2));
    let engine = place.engine();
    engine.collect([&shard]).run().unwrap();
    let key = engine.record(place.path("shards/0.tar!00001.jpg")).unwrap().unwrap().key;
    std::fs::rename(&shard, place.path("elsewhere.tar")).unwrap();
    std::os::unix::fs::symlink(place.path("elsewhere.tar"), &shard).unwrap();
    let error = engine.open_image(key).unwrap_err().to_string();
    assert!(error.contains("leads"), "{error}");
}

#[test]
fn a_switch_of_models_reads_shards_again_and_refuses_what_it_cannot_read() {
    let place = Place::new();
    write(&place.path("0.tar"), &samples(0..5));
    write(&place.path("1.tar.gz"), &samples(5..8));
    let engine = place.engine();
    engine.collect([place.path("0.tar"), place.path("1.tar.gz")]).run().unwrap();
    assert_eq!(engine.embed_captions().run().unwrap(), 8);
    let report = engine.switch(tintype::Encoder::new(crate::colours::Colours::new("others"))).run().unwrap();
    assert_eq!((report.embedded, report.skipped.len()), (8, 0), "{report:?}");
    whole(&engine, 8);
    assert_eq!(engine.status().unwrap().caption_vectors, 8, "captions have vectors of the new model");
    let vectors = super::declared(&place, 49);
    vectors.collect([super::fixture("f32.npy")]).run().unwrap();
    let error = vectors.switch(tintype::Encoder::new(crate::colours::Colours::new("others"))).run().unwrap_err();
    assert!(error.to_string().contains("made elsewhere"), "{error}");
    assert_eq!(vectors.status().unwrap().photos, 10);
}

/// As `tar czf` writes it of a folder, with names that the library for tars would put in order.
fn write_raw(path: &Path, members: &[(&[u8], Vec<u8>)]) {
    let mut tar =
        tar::Builder::new(flate2::write::GzEncoder::new(File::create(path).unwrap(), flate2::Compression::fast()));
    for (name, bytes) in members {
        let mut header = tar::Header::new_gnu();
        header.as_old_mut().name[..name.len()].copy_from_slice(name);
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        tar.append(&header, bytes.as_slice()).unwrap();
    }
    tar.into_inner().unwrap().finish().unwrap();
}

#[test]
fn members_of_packed_shards_open_whatever_their_names() {
    let place = Place::new();
    write_raw(
        &place.path("0.tgz"),
        &[(b"./0.png", picture(0)), (b"./caf\xe9.png", picture(1)), (b"a/2.png", picture(2))],
    );
    let engine = place.engine();
    let report = engine.collect([place.path("0.tgz")]).copies(0).run().unwrap();
    assert_eq!((report.added, lines(&report, &place)), (3, vec![]));
    for (name, seed) in [("0.png", 0), ("caf\u{fffd}.png", 1), ("a/2.png", 2)] {
        let record = engine.record(place.path(&format!("0.tgz!{name}"))).unwrap().unwrap();
        assert_eq!(engine.open_image(record.key).unwrap(), picture(seed), "{name}");
    }
}

#[test]
fn what_a_shard_says_no_more_is_forgotten() {
    let place = Place::new();
    let shard = place.path("0.tar");
    write(&shard, &samples(0..4));
    let engine = place.engine();
    engine.collect([&shard]).run().unwrap();
    assert_eq!(engine.embed_captions().run().unwrap(), 4);
    let mut changed = samples(0..4);
    // The caption of the first, the metadata of the second, and a column of the third.
    changed.retain(|(name, _)| name != "00000.txt" && name != "00001.json");
    let third = changed.iter_mut().find(|(name, _)| name == "00002.json").unwrap();
    third.1 = b"{\"key\": \"00002\"}".to_vec();
    write(&shard, &changed);
    let report = engine.collect([&shard]).run().unwrap();
    assert_eq!((report.embedded, report.gone), (0, 0));
    assert_eq!(engine.status().unwrap().caption_vectors, 3, "there is nothing to compare with the first");
    let about = |seed: u64| {
        let record = engine.record(place.path(&format!("0.tar!{seed:05}.jpg"))).unwrap().unwrap();
        (record.caption, engine.metadata(&[record.key]).unwrap().remove(0).len())
    };
    assert_eq!(about(0), (None, 3));
    assert_eq!(about(1), (Some("caption 1".to_owned()), 0));
    assert_eq!(about(2), (Some("caption 2".to_owned()), 1));
    assert_eq!(engine.search("text:caption").run().unwrap().len(), 3);
    assert_eq!(engine.embed_captions().run().unwrap(), 0);
}
