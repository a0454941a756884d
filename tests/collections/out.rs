//! Out of a library and in again: export, merge, duplicates, scores.

use serde_json::Value;
use tintype::{Error, ExportFormat, Query, Ranking};

use super::{Place, declared, fixture, picture};

const DIM: usize = 49;

fn expected() -> Vec<Vec<f32>> {
    serde_json::from_slice(&std::fs::read(fixture("expected.json")).unwrap()).unwrap()
}

/// Captions in the order of their likeness to each vector.
fn answers(engine: &tintype::Engine, ranking: Ranking) -> Vec<Vec<Option<String>>> {
    let ask = |vector| engine.search(Query::vector(vector)).ranking(ranking).limit(3).run().unwrap();
    expected().into_iter().map(|vector| ask(vector).into_iter().map(|hit| hit.record.caption).collect()).collect()
}

#[test]
fn what_is_exported_answers_as_before() {
    let place = Place::new();
    let engine = declared(&place, DIM);
    engine.collect([fixture("clip")]).run().unwrap();
    let exported = engine.export(ExportFormat::ClipRetrieval).rows_per_file(4).run(place.path("out")).unwrap();
    assert_eq!((exported.rows, exported.files.len(), exported.captions_left_out), (10, 6, 0));
    for name in ["img_emb/img_emb_0.npy", "text_emb/text_emb_2.npy", "metadata/metadata_1.parquet", "space.json"] {
        assert!(place.path("out").join(name).is_file(), "{name}");
    }
    engine.export(ExportFormat::Parquet).run(place.path("out.parquet")).unwrap();
    engine.export(ExportFormat::JsonLines).run(place.path("out.jsonl")).unwrap();
    let again = engine.export(ExportFormat::Parquet).run(place.path("out.parquet"));
    assert!(matches!(again, Err(Error::Io { .. })), "nothing is overwritten");
    for from in ["out", "out.parquet"] {
        let space = tintype::Encoder::declared(tintype::EmbeddingSpace::declared("somebody's", DIM));
        let back = tintype::Engine::create(place.path(&format!("back-{from}")), space).unwrap();
        let report = back.collect([place.path(from)]).run().unwrap();
        assert_eq!((report.added, report.skipped.len()), (10, 0), "{from}");
        assert_eq!(answers(&back, Ranking::Image), answers(&engine, Ranking::Image), "{from}");
        if from == "out" {
            assert_eq!(answers(&back, Ranking::Caption), answers(&engine, Ranking::Caption));
        }
        let hit = back.search("where:\"similarity = 0.7 and width = 700\"").run().unwrap().remove(0);
        assert_eq!(hit.record.caption.as_deref(), Some("caption 7"));
    }
    let line = std::fs::read_to_string(place.path("out.jsonl")).unwrap().lines().nth(3).unwrap().to_owned();
    let line: Value = serde_json::from_str(&line).unwrap();
    assert_eq!((line["caption"].as_str(), line["embedding"].as_array().unwrap().len()), (Some("caption 3"), DIM));
    let other = tintype::Encoder::declared(tintype::EmbeddingSpace::declared("another", DIM));
    let other = tintype::Engine::create(place.path("other"), other).unwrap();
    assert!(matches!(other.collect([place.path("out")]).run(), Err(Error::SpaceMismatch { .. })));
}

#[test]
fn damage_to_the_vectors_of_captions_is_found() {
    let place = Place::new();
    let engine = declared(&place, DIM);
    engine.collect([fixture("clip")]).run().unwrap();
    assert!(engine.verify().unwrap().is_clean());
    let files = |dir: &std::path::Path| std::fs::read_dir(dir).unwrap().flatten().map(|entry| entry.path());
    let captions = files(engine.dir()).find(|dir| dir.to_str().unwrap().ends_with("-captions")).unwrap();
    let segment = files(&captions).find(|file| file.extension().is_some_and(|name| name == "seg")).unwrap();
    let mut bytes = std::fs::read(&segment).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&segment, bytes).unwrap();
    match tintype::Engine::open(engine.dir(), engine.encoder()).unwrap().verify() {
        Ok(report) => assert!(!report.is_clean() && report.index.is_clean(), "{report:?}"),
        Err(error) => assert!(error.to_string().contains("-captions"), "{error}"),
    }

    // What is left where the first vector of a caption was never written down.
    std::fs::remove_dir_all(&captions).unwrap();
    std::fs::create_dir(&captions).unwrap();
    let engine = tintype::Engine::open(engine.dir(), engine.encoder()).unwrap();
    assert_eq!((engine.status().unwrap().caption_vectors, engine.verify().unwrap().is_clean()), (0, true));
}

#[test]
fn libraries_become_one_without_embedding_anything() {
    let place = Place::new();
    for part in ["a", "b"] {
        std::fs::create_dir(place.path(part)).unwrap();
    }
    for n in 0..6 {
        std::fs::write(place.path(if n < 3 { "a" } else { "b" }).join(format!("{n}.png")), picture(n)).unwrap();
    }
    std::fs::write(place.path("a/1.txt"), "a cat").unwrap();
    let (a, b, whole) = (place.library("la"), place.library("lb"), place.library("lc"));
    a.keep_features().unwrap();
    a.ingest([place.path("a")]).run().unwrap();
    b.ingest([place.path("b"), place.path("a/1.png")]).run().unwrap();
    a.embed_captions().run().unwrap();
    let before = place.encoder.pictures();
    let report = whole.merge([place.path("la"), place.path("lb")]).run().unwrap();
    assert_eq!((report.added, report.unchanged, place.encoder.pictures()), (6, 1, before));
    assert_eq!((whole.status().unwrap().caption_vectors, whole.kept_features().unwrap()), (1, 3));
    assert_eq!(whole.search("text:cat").run().unwrap()[0].path, place.path("a/1.png"));
    let check = whole.verify().unwrap();
    assert!(check.is_clean() && check.orphans == 0, "{check:?}");
    let again = whole.merge([place.path("la"), place.path("lb")]).run().unwrap();
    assert_eq!((again.added, again.unchanged), (0, 7));
    let update = whole.ingest([place.path("a"), place.path("b")]).run().unwrap();
    assert_eq!((update.unchanged, update.embedded), (6, 0));
    let other = declared(&place, DIM);
    assert!(matches!(other.merge([place.path("la")]).run(), Err(Error::SpaceMismatch { .. })));
}

#[test]
fn near_duplicates_are_grouped_and_the_largest_is_kept() {
    let place = Place::new();
    std::fs::create_dir(place.path("p")).unwrap();
    let noise = |n: u64, x: u32, y: u32| {
        [0, 8, 16].map(|bits| {
            ((u64::from(x / 8 + y / 8 * 4) + n * 77).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> (bits + 24)) as u8
        })
    };
    for n in 0..4_u64 {
        let small = image::RgbImage::from_fn(32, 32, |x, y| image::Rgb(noise(n, x, y)));
        small.save(place.path(&format!("p/{n}.png"))).unwrap();
        if n < 2 {
            let large = image::imageops::resize(&small, 96, 96, image::imageops::FilterType::Nearest);
            large.save(place.path(&format!("p/{n}-large.png"))).unwrap();
        }
    }
    let engine = place.engine();
    engine.ingest([place.path("p")]).run().unwrap();
    let groups = engine.duplicates().threshold(0.999).run().unwrap();
    assert_eq!(groups.len(), 2, "{groups:?}");
    for group in &groups {
        assert!(group.keep.path.to_str().unwrap().ends_with("-large.png"));
        assert_eq!((group.others.len(), group.others[0].0.width), (1, 32));
        assert!(group.others[0].1 >= 0.999);
    }
    assert_eq!(engine.status().unwrap().photos, 6, "nothing is deleted");
}

#[test]
fn captions_are_scored_against_their_pictures() {
    let place = Place::new();
    std::fs::create_dir(place.path("p")).unwrap();
    for (name, colour, caption) in [("a", [255, 0, 0], "red"), ("b", [0, 0, 255], "red"), ("c", [0, 255, 0], "")] {
        image::RgbImage::from_pixel(32, 32, image::Rgb(colour)).save(place.path(&format!("p/{name}.png"))).unwrap();
        std::fs::write(place.path(&format!("p/{name}.txt")), caption).unwrap();
    }
    let engine = place.engine();
    engine.ingest([place.path("p")]).run().unwrap();
    let scored = engine.score_captions().threshold(0.5).write(place.path("s.jsonl")).unwrap();
    assert_eq!((scored.pairs, scored.kept), (2, 1));
    let line: Value = serde_json::from_slice(&std::fs::read(place.path("s.jsonl")).unwrap()).unwrap();
    assert!(line["path"].as_str().unwrap().ends_with("a.png") && line["score"].as_f64().unwrap() > 0.99, "{line}");
    engine.embed_captions().run().unwrap();
    let scored = engine.score_captions().write(place.path("s.parquet")).unwrap();
    assert_eq!((scored.pairs, scored.kept), (2, 2));
}

#[test]
fn an_export_has_its_name_when_it_is_whole() {
    let place = Place::new();
    let engine = declared(&place, 3);
    std::fs::write(place.path("m.npy"), super::embeddings::npy(600)).unwrap();
    engine.collect([place.path("m.npy")]).run().unwrap();
    for (format, name) in [
        (ExportFormat::JsonLines, "out.jsonl"),
        (ExportFormat::Parquet, "out.parquet"),
        (ExportFormat::ClipRetrieval, "out"),
    ] {
        let (path, mut looks) = (place.path(name), 0);
        let request = engine.export(format).on_progress(|_| {
            looks += 1;
            assert!(!path.exists(), "{name} is not whole yet");
        });
        let exported = request.run(&path).unwrap();
        assert!(exported.rows == 600 && exported.files.iter().all(|file| file.is_file() && file.starts_with(&path)));
        assert_eq!(looks, 2);
    }
    std::fs::create_dir(place.path("empty")).unwrap();
    engine.export(ExportFormat::ClipRetrieval).run(place.path("empty")).unwrap();
    let left = std::fs::read_dir(place.path("")).unwrap().flatten();
    let left: Vec<_> =
        left.map(|entry| entry.file_name()).filter(|name| name.to_str().unwrap().starts_with('.')).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn an_export_fills_an_empty_folder_where_it_is() {
    let place = Place::new();
    let engine = declared(&place, 3);
    std::fs::write(place.path("m.npy"), super::embeddings::npy(600)).unwrap();
    engine.collect([place.path("m.npy")]).run().unwrap();
    let folder = place.path("empty");
    std::fs::create_dir(&folder).unwrap();
    for format in [ExportFormat::JsonLines, ExportFormat::Parquet] {
        assert!(matches!(engine.export(format).run(&folder), Err(Error::Io { .. })), "a file takes no folder's place");
    }
    assert!(matches!(engine.score_captions().write(&folder), Err(Error::Io { .. })) && folder.is_dir());
    // What a run that was killed left.
    std::fs::create_dir_all(folder.join(".tintype-part/img_emb")).unwrap();
    #[cfg(unix)]
    let out = {
        std::os::unix::fs::symlink(&folder, place.path("link")).unwrap();
        place.path("link")
    };
    #[cfg(not(unix))]
    let out = folder.clone();
    let exported = engine.export(ExportFormat::ClipRetrieval).run(&out).unwrap();
    assert!(exported.files.iter().all(|file| file.is_file() && file.starts_with(&out)));
    let mut names: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["img_emb", "metadata", "space.json"]);
    assert!(matches!(engine.export(ExportFormat::ClipRetrieval).run(&out), Err(Error::Io { .. })), "it is full now");
}

#[test]
fn an_export_leaves_a_file_that_took_its_name_meanwhile() {
    let place = Place::new();
    let engine = declared(&place, 3);
    std::fs::write(place.path("m.npy"), super::embeddings::npy(600)).unwrap();
    engine.collect([place.path("m.npy")]).run().unwrap();
    let path = place.path("out.jsonl");
    let request = engine.export(ExportFormat::JsonLines).on_progress(|_| std::fs::write(&path, "mine").unwrap());
    assert!(matches!(request.run(&path), Err(Error::Io { .. })));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "mine");
}

#[test]
fn groups_of_near_duplicates_are_those_that_comparing_every_pair_gives() {
    let data = std::env::var_os("TINTYPE_TEST_DATA")
        .map_or_else(|| std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared"), Into::into);
    let Ok(file) = std::fs::File::open(data.join("data/clip-vectors/images-100k-f16.npy")) else {
        println!("skipped: no vectors in {}", data.display());
        return;
    };
    let (rows, dim) = (4_000_usize, 512);
    let mut numbers = Vec::new();
    std::io::copy(&mut std::io::Read::take(file, (128 + rows * dim * 2) as u64), &mut numbers).unwrap();
    // Besides, 500 rows that are the first one, nearly: more than anybody's nearest neighbours.
    let mut vectors = numbers.split_off(128);
    for n in 0..500 {
        let mut row = vectors[..dim * 2].to_vec();
        row[n * 2 % (dim * 2)] ^= 1 << (n % 8);
        vectors.extend(row);
    }
    let about = format!("{{'descr': '<f2', 'fortran_order': False, 'shape': ({}, {dim}), }}", rows + 500);
    let mut matrix = b"\x93NUMPY\x01\x00\x76\x00".to_vec();
    matrix.extend(format!("{about:<117}\n").as_bytes());
    matrix.extend(vectors);
    let place = Place::new();
    std::fs::write(place.path("m.npy"), matrix).unwrap();
    let engine = declared(&place, dim);
    assert_eq!(engine.collect([place.path("m.npy")]).run().unwrap().added, rows as u64 + 500);
    let keys: Vec<u64> = (1..rows as u64 + 501).collect();
    let mut folders = std::fs::read_dir(place.path("vectors")).unwrap().flatten();
    let index = folders.find(|entry| entry.file_name().to_str().unwrap().starts_with("index-")).unwrap().path();
    let reader = tintype::index::Index::open(index).unwrap().reader().unwrap();
    let vectors: Vec<Vec<f32>> = keys.iter().map(|key| reader.get(*key).unwrap().unwrap()).collect();
    let pairs: Vec<Vec<(u64, f32)>> = reader
        .search_batch(&vectors)
        .k(1000)
        .recall(1.0)
        .run()
        .unwrap()
        .into_iter()
        .map(|near| near.into_iter().map(|near| (near.key, near.score)).collect())
        .collect();
    for threshold in [0.98, 0.94] {
        let mut group: Vec<usize> = (0..keys.len()).collect();
        let mut joined = true;
        while joined {
            joined = false;
            for (at, near) in pairs.iter().enumerate() {
                for (key, _) in near.iter().take_while(|(_, score)| *score >= threshold) {
                    let (a, b) = (group[at], group[*key as usize - 1]);
                    if a != b {
                        (group[at], group[*key as usize - 1], joined) = (a.min(b), a.min(b), true);
                    }
                }
            }
        }
        let mut expected = std::collections::BTreeMap::<usize, Vec<u64>>::new();
        keys.iter().zip(&group).for_each(|(key, group)| expected.entry(*group).or_default().push(*key));
        let expected: std::collections::BTreeSet<Vec<u64>> =
            expected.into_values().filter(|keys| keys.len() > 1).collect();
        let found = engine.duplicates().threshold(threshold).run().unwrap().into_iter().map(|group| {
            let mut keys: Vec<u64> =
                group.others.iter().map(|(record, _)| record.key).chain([group.keep.key]).collect();
            keys.sort_unstable();
            keys
        });
        let found: std::collections::BTreeSet<Vec<u64>> = found.collect();
        let largest = expected.iter().map(Vec::len).max().unwrap_or(0);
        println!(
            "from {threshold} on {} groups, the largest of {largest}, {} as expected",
            expected.len(),
            found.intersection(&expected).count()
        );
        assert!(largest > 500);
        assert_eq!(found.len(), expected.len());
        assert!(found == expected);
    }
}
