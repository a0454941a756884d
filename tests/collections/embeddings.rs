//! Vectors that were computed elsewhere.

use serde_json::json;
use tintype::{Error, Query, Ranking, SourceKind};

use super::{Place, declared, fixture, lines};

const DIM: usize = 49;
const ROWS: u32 = 20_000;

fn expected() -> Vec<Vec<f32>> {
    serde_json::from_slice(&std::fs::read(fixture("expected.json")).unwrap()).unwrap()
}

#[test]
fn matrices_of_every_kind_are_read() {
    for name in ["f32.npy", "f16.npy", "big_endian.npy", "fortran.npy", "two.npz", "vectors.parquet", "lists.parquet"] {
        let place = Place::new();
        let engine = declared(&place, DIM);
        assert_eq!(tintype::collection::detect(&fixture(name), None), Some(SourceKind::Embeddings), "{name}");
        let report = engine.collect([fixture(name)]).run().unwrap();
        assert_eq!((report.added, report.skipped.len()), (10, 0), "{name}");
        for (n, vector) in expected().into_iter().enumerate() {
            let hit = engine.search(Query::vector(vector)).limit(1).run().unwrap().remove(0);
            assert!(hit.path.to_str().unwrap().ends_with(&format!("{name}#{n}")), "{name}: {}", hit.path.display());
            assert!(hit.score > 0.999, "{name}");
        }
        let again = engine.collect([fixture(name)]).run().unwrap();
        assert_eq!((again.added, again.unchanged), (0, 10));
    }
}

#[test]
fn a_folder_of_clip_retrieval_is_read_row_by_row() {
    let place = Place::new();
    let engine = declared(&place, DIM);
    let report = engine.collect([fixture("clip")]).run().unwrap();
    assert_eq!((report.added, report.skipped.len()), (10, 0));
    for (n, vector) in expected().into_iter().enumerate() {
        let hit = engine.search(Query::vector(vector.clone())).limit(1).run().unwrap().remove(0);
        assert_eq!(hit.record.caption, Some(format!("caption {n}")));
        assert_eq!(hit.record.link, Some(format!("https://example.org/{n}.jpg")), "a name is no path");
        let by_caption =
            engine.search(Query::vector(vector)).ranking(Ranking::Caption).limit(1).run().unwrap().remove(0);
        assert_eq!(by_caption.record.caption, Some(format!("caption {}", 9 - n)));
    }
    let hit = engine.search("text:\"caption 3\"").run().unwrap().remove(0);
    let about = engine.metadata(&[hit.record.key]).unwrap().remove(0);
    assert_eq!(about["width"], json!(300));
    assert_eq!(
        (&about["NSFW"], &about["similarity"], &about["tags"]),
        (&json!("UNLIKELY"), &json!(0.3), &json!("[\"a\",\"3\"]"))
    );
    assert_eq!(engine.search("where:\"NSFW = 'UNLIKELY' and width >= 500\"").run().unwrap().len(), 3);
    let error = engine.search("a dog").run().unwrap_err();
    assert!(matches!(&error, Error::NoModel { model, .. } if model == "somebody's"), "{error}");
    assert!(engine.open_image(hit.record.key).unwrap_err().to_string().contains("on the web"));
}

#[test]
fn captions_without_pictures_are_found_by_what_they_mean() {
    let place = Place::new();
    let engine = declared(&place, DIM);
    for folder in ["texts", "metadata"] {
        std::fs::create_dir(place.path(folder)).unwrap();
    }
    std::fs::copy(fixture("f32.npy"), place.path("texts/text_emb_0.npy")).unwrap();
    let rows: String = (0..10).map(|n| format!("caption {n},{n}\n")).collect();
    std::fs::write(place.path("texts/text_emb_0.csv"), format!("caption,number\n{rows}")).unwrap();
    assert_eq!(tintype::collection::detect(&place.path(""), None), Some(SourceKind::Embeddings));
    let report = engine.collect([place.path("")]).run().unwrap();
    assert_eq!((report.added, report.skipped.len()), (10, 0));
    for ranking in [Ranking::Image, Ranking::Caption] {
        for (n, vector) in expected().into_iter().enumerate() {
            let hit = engine.search(Query::vector(vector)).ranking(ranking).limit(1).run().unwrap().remove(0);
            assert!(hit.path.to_str().unwrap().ends_with(&format!("#{n}")), "{ranking:?}: {}", hit.path.display());
        }
    }
    assert_eq!(engine.collect([place.path("")]).run().unwrap().unchanged, 10);
}

/// A matrix of so many rows of three numbers.
pub(crate) fn npy(rows: u32) -> Vec<u8> {
    matrix(rows, 3)
}

fn matrix(rows: u32, dim: u32) -> Vec<u8> {
    let number = |n: u32| (n.wrapping_mul(2_654_435_761) >> 8) as f32 / (1 << 23) as f32 - 1.0;
    let header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {dim}), }}");
    let mut file = b"\x93NUMPY\x01\x00\x76\x00".to_vec();
    file.extend(format!("{header:<117}\n").as_bytes());
    let row = |n: u32| (1..dim).map(move |at| number(n + (at - 1) * ROWS)).chain([0.5]);
    file.extend((0..rows).flat_map(row).flat_map(f32::to_le_bytes));
    file
}

#[test]
fn a_graph_of_pictures_is_shaped_by_captions_or_by_what_the_model_makes_of_phrases() {
    let samples = |library: &std::path::Path| {
        let mut indexes = std::fs::read_dir(library).unwrap().map(|entry| entry.unwrap().path());
        let of_pictures =
            indexes.find(|dir| dir.join("MANIFEST").exists() && !dir.display().to_string().ends_with("captions"));
        let reader = tintype_index::Index::open(of_pictures.unwrap()).unwrap().reader().unwrap();
        (reader.verify().unwrap().graphs, reader.sample_queries())
    };
    let place = Place::new();
    let pictures = place.path("clip/img_emb");
    std::fs::create_dir_all(&pictures).unwrap();
    std::fs::write(pictures.join("img_emb_0.npy"), matrix(4_200, DIM as u32)).unwrap();
    declared(&place, DIM).collect([place.path("clip")]).run().unwrap();
    assert_eq!(samples(&place.path("vectors")), (1, 0), "nobody reads here");
    place.engine().collect([place.path("clip")]).run().unwrap();
    assert_eq!(samples(&place.path("library")), (1, 598), "phrases");
    std::fs::create_dir(place.path("clip/text_emb")).unwrap();
    std::fs::write(place.path("clip/text_emb/text_emb_0.npy"), matrix(4_200, DIM as u32)).unwrap();
    let engine = place.library("captioned");
    engine.collect([place.path("clip")]).run().unwrap();
    assert_eq!(samples(&place.path("captioned")), (1, 600), "captions");
    // Nobody asks again.
    std::fs::write(place.path("more.npy"), matrix(10, DIM as u32)).unwrap();
    engine.collect([place.path("more.npy")]).run().unwrap();
    assert_eq!(samples(&place.path("captioned")), (1, 600));
}

#[test]
fn an_interrupted_run_goes_on_behind_the_rows_that_are_done() {
    let place = Place::new();
    let engine = declared(&place, 3);
    let path = place.path("m.npy");
    std::fs::write(&path, npy(ROWS)).unwrap();
    let stopped = engine.collect([&path]).cancel(|| true).run();
    assert!(matches!(stopped, Err(Error::Cancelled)), "{stopped:?}");
    let before = engine.status().unwrap();
    assert!(before.photos > 0 && before.photos < u64::from(ROWS) && !before.sources[0].complete, "{}", before.photos);
    let report = engine.collect([&path]).run().unwrap();
    assert_eq!(report.added + before.photos, u64::from(ROWS));
    assert!(engine.status().unwrap().sources[0].complete);
    let whole = engine.verify().unwrap();
    assert!(whole.is_clean() && whole.orphans == 0, "{whole:?}");

    // Another matrix under the same name takes the place of the first.
    std::fs::write(&path, npy(5)).unwrap();
    let report = engine.collect([&path]).run();
    let photos = engine.status().unwrap().photos;
    assert!(report.is_ok_and(|report| report.added == 5) && photos == 5, "{photos}");
}

#[test]
fn what_is_wrong_is_said_before_anything_is_changed() {
    let place = Place::new();
    let engine = declared(&place, DIM);
    std::fs::create_dir_all(place.path("a/img_emb")).unwrap();
    std::fs::create_dir_all(place.path("a/metadata")).unwrap();
    std::fs::copy(fixture("clip/img_emb/img_emb_0.npy"), place.path("a/img_emb/0.npy")).unwrap();
    std::fs::copy(fixture("clip/metadata/metadata_0.parquet"), place.path("a/metadata/0.parquet")).unwrap();
    let cut = |from: &str, to: &str| {
        let bytes = std::fs::read(fixture(from)).unwrap();
        std::fs::write(place.path(to), &bytes[..bytes.len() * 2 / 3]).unwrap();
        place.path(to)
    };
    for (path, expected) in [
        (fixture("integers.npy"), "<i4"),
        (fixture("cube.npy"), "3 dimensions"),
        (cut("f32.npy", "cut.npy"), "cut off: it says 10 rows and has 6"),
        (place.path("a"), "4 rows, and there are 6 vectors"),
        (place.path("missing.npy"), "not found"),
    ] {
        let error = engine.collect([&path]).run().unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    // Without its end nobody knows what it was: a list, as far as the name tells.
    let report = engine.collect([cut("vectors.parquet", "cut.parquet")]).run().unwrap();
    assert!(
        lines(&report, &place)[0].contains("cut.parquet: no Parquet file that can be read"),
        "{:?}",
        report.skipped
    );
    engine.remove([place.path("cut.parquet")]).unwrap();
    let other = tintype::Engine::open_or_create(
        place.path("other"),
        tintype::Encoder::declared(tintype::EmbeddingSpace::declared("x", 7)),
    )
    .unwrap();
    let error = other.collect([fixture("f32.npy")]).run().unwrap_err().to_string();
    assert!(error.contains("vectors of 49 numbers; this library has x of 7 numbers"), "{error}");
    assert_eq!(engine.status().unwrap().photos + other.status().unwrap().photos, 0);
    assert_eq!(engine.status().unwrap().sources, []);
}

#[test]
fn tables_of_pictures_are_not_taken_for_vectors_nor_the_other_way_round() {
    use tintype::collection::detect;

    let [pictures, columns] = [fixture("pictures.parquet"), fixture("columns.parquet")];
    assert_eq!(detect(&pictures, None), Some(SourceKind::List));
    assert_eq!(detect(&columns, None), Some(SourceKind::List));
    assert_eq!(detect(&columns, Some("front")), Some(SourceKind::Embeddings));
    assert_eq!(detect(&columns, Some("nothing")), Some(SourceKind::List));

    let place = Place::new();
    let engine = declared(&place, DIM);
    let named = |name: &str| {
        let mut columns = tintype::collection::Columns::default();
        columns.vector = Some(name.to_owned());
        columns
    };
    let report = engine.collect([&columns]).columns(named("back")).run().unwrap();
    assert_eq!((report.added, report.skipped.len()), (10, 0));
    for (n, vector) in expected().into_iter().enumerate() {
        let hit = engine.search(Query::vector(vector)).limit(1).run().unwrap().remove(0);
        assert!(hit.path.to_str().unwrap().ends_with(&format!("#{n}")), "{}", hit.path.display());
        assert_eq!(engine.metadata(&[hit.record.key]).unwrap()[0].keys().collect::<Vec<_>>(), ["image_path"]);
    }
    let error = engine.collect([&columns]).run().unwrap_err().to_string();
    assert!(error.contains("--vector-column"), "{error}");
    assert_eq!(engine.collect([&columns]).columns(named("back")).run().unwrap().unchanged, 10);
}

#[test]
fn a_vector_that_is_none_is_one_line() {
    let place = Place::new();
    let engine = declared(&place, DIM);
    let report = engine.collect([fixture("nan.npy")]).run().unwrap();
    assert_eq!(report.added, 8);
    let paths: Vec<String> = report.skipped.iter().map(|skipped| skipped.path.display().to_string()).collect();
    assert!(paths.len() == 2 && paths[0].ends_with("nan.npy#2") && paths[1].ends_with("nan.npy#4"), "{paths:?}");
    let _ = lines(&report, &place);
}
