//! Adding, replacing, removing, committing, searching: against a plain model.

use tintype_index::{Config, Error, Index, Metric, Rows};

use crate::support::{Model, Random, embeddings};

fn config(dim: usize, metric: Metric) -> Config {
    Config { dim, metric, ..Config::default() }
}

#[test]
fn an_index_agrees_with_a_plain_model_through_many_commits() {
    for metric in [Metric::Cosine, Metric::Dot, Metric::L2] {
        for dim in [1, 2, 63, 130] {
            let dir = tempfile::tempdir().unwrap();
            let index = Index::create(dir.path(), config(dim, metric)).unwrap();
            let mut random = Random(dim as u64);
            let mut model = Model { metric, ..Model::default() };
            let mut writer = index.writer().unwrap();
            for round in 0..12 {
                for _ in 0..random.below(60) {
                    let key = random.below(200);
                    if random.below(4) == 0 {
                        assert_eq!(writer.remove(key).unwrap(), model.vectors.remove(&key).is_some());
                    } else {
                        let vector = random.vector(dim);
                        writer.add(key, &vector).unwrap();
                        model.vectors.insert(key, vector);
                    }
                    assert_eq!(writer.len(), model.vectors.len() as u64);
                }
                if round == 9 {
                    writer.compact().unwrap();
                } else {
                    writer.commit().unwrap();
                }
                let reader = index.reader().unwrap();
                assert_eq!(reader.len(), model.vectors.len() as u64);
                let mut keys: Vec<u64> = reader.keys().collect::<Result<_, _>>().unwrap();
                keys.sort_unstable();
                assert!(keys.iter().eq(model.vectors.keys()));
                for k in [1, 7, 1000] {
                    let query = random.vector(dim);
                    model.assert_exact(&query, k, &reader.search(&query).k(k).recall(1.0).run().unwrap());
                }
                let query = random.vector(dim);
                model.assert_exact(&query, 5, &reader.search(&query).k(5).run().unwrap());
                let odd = reader.search(&query).k(5).filter(|key| key % 2 == 1).recall(1.0).run().unwrap();
                let mut half = model.clone();
                half.vectors.retain(|key, _| key % 2 == 1);
                half.assert_exact(&query, 5, &odd);
                let report = reader.verify().unwrap();
                assert!(report.is_clean(), "{report:?}");
            }
        }
    }
}

#[test]
fn a_reader_is_a_snapshot() {
    let dir = tempfile::tempdir().unwrap();
    let index = Index::create(dir.path(), config(3, Metric::Cosine)).unwrap();
    let mut writer = index.writer().unwrap();
    writer.add(1, &[1.0, 0.0, 0.0]).unwrap();
    let before = index.reader().unwrap();
    assert_eq!(writer.commit().unwrap(), 1);
    let after = index.reader().unwrap();
    writer.add(1, &[0.0, 1.0, 0.0]).unwrap();
    writer.add(2, &[0.0, 1.0, 0.0]).unwrap();
    writer.compact().unwrap();
    assert_eq!((before.len(), after.len(), index.reader().unwrap().len()), (0, 1, 2));
    assert_eq!(after.get(1).unwrap().unwrap(), [1.0, 0.0, 0.0]);
    assert_eq!(after.get(2).unwrap(), None);
    assert!(before.search(&[1.0, 0.0, 0.0]).run().unwrap().is_empty());
    assert!(after.verify().unwrap().is_clean(), "files that a later commit dropped are no damage");
}

#[test]
fn what_was_not_committed_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let index = Index::create(dir.path(), config(2, Metric::L2)).unwrap();
    let mut writer = index.writer().unwrap();
    writer.add(1, &[1.0, 2.0]).unwrap();
    writer.commit().unwrap();
    writer.add(2, &[1.0, 2.0]).unwrap();
    writer.remove(1).unwrap();
    drop(writer);
    let mut writer = index.writer().unwrap();
    assert!(writer.contains(1).unwrap() && !writer.contains(2).unwrap());
    assert_eq!(writer.commit().unwrap(), 1, "nothing to commit");
}

#[test]
fn one_writer_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let index = Index::create(dir.path(), config(2, Metric::L2)).unwrap();
    let writer = index.writer().unwrap();
    assert!(matches!(index.writer(), Err(Error::Locked { .. })));
    assert!(matches!(Index::open(dir.path()).unwrap().writer(), Err(Error::Locked { .. })));
    drop(writer);
    index.writer().unwrap();
}

#[test]
fn what_cannot_be_served_is_refused_with_a_reason() {
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(Index::open(dir.path()), Err(Error::NotFound { .. })));
    assert!(matches!(Index::create(dir.path(), config(0, Metric::L2)), Err(Error::Invalid { field: "dim", .. })));
    let index = Index::create(dir.path(), config(2, Metric::Cosine)).unwrap();
    assert!(matches!(Index::create(dir.path(), config(2, Metric::Cosine)), Err(Error::Exists { .. })));
    let mut writer = index.writer().unwrap();
    assert!(matches!(writer.add(1, &[0.0, 0.0]), Err(Error::ZeroVector)));
    assert!(matches!(writer.add(1, &[0.0]), Err(Error::Dimension { found: 1, expected: 2 })));
    writer.add(1, &[0.0, 1.0]).unwrap();
    writer.commit().unwrap();
    let reader = index.reader().unwrap();
    assert!(matches!(reader.search(&[0.0, f32::INFINITY]).run(), Err(Error::NotFinite { position: 1, .. })));
    assert!(matches!(reader.search(&[0.0, 1.0]).recall(1.5).run(), Err(Error::Invalid { field: "recall", .. })));
    assert!(matches!(reader.search_key(9), Err(Error::UnknownKey { key: 9 })));
    assert!(reader.search(&[0.0, 1.0]).k(0).run().unwrap().is_empty());
    assert_eq!(reader.search(&[0.0, 1.0]).k(usize::MAX).run().unwrap().len(), 1);
}

#[test]
fn half_precision_rows_take_half_the_room_and_keep_their_neighbours() {
    let vectors = embeddings(500, 64, 3);
    let mut sizes = Vec::new();
    for rows in [Rows::F32, Rows::F16] {
        let dir = tempfile::tempdir().unwrap();
        let index = Index::create(dir.path(), Config { rows, ..config(64, Metric::Cosine) }).unwrap();
        let mut writer = index.writer().unwrap();
        let mut model = Model::default();
        for (key, vector) in (0..).zip(&vectors) {
            writer.add(key, vector).unwrap();
            model.vectors.insert(key, vector.clone());
        }
        writer.commit().unwrap();
        let reader = index.reader().unwrap();
        for query in &vectors[..20] {
            let found = reader.search(query).run().unwrap();
            assert!(model.recall(query, 10, &found) >= 0.9);
            assert!((found[0].score - 1.0).abs() < 1e-3);
        }
        let report = reader.verify().unwrap();
        sizes.push(report.bytes - report.bytes_without_rows);
    }
    assert_eq!(sizes[0], 2 * sizes[1]);
}

#[test]
fn half_precision_refuses_what_it_cannot_hold() {
    let dir = tempfile::tempdir().unwrap();
    let index = Index::create(dir.path(), Config { rows: Rows::F16, ..config(2, Metric::Dot) }).unwrap();
    let mut writer = index.writer().unwrap();
    assert!(matches!(writer.add(1, &[1.0, -70_000.0]), Err(Error::TooLarge { position: 1, .. })));
    assert!(writer.is_empty());
    writer.add(1, &[1.0, 65_504.0]).unwrap();
    writer.add(2, &[1.0, 0.1]).unwrap();
    writer.commit().unwrap();
    writer.remove(2).unwrap();
    writer.compact().unwrap();
    assert_eq!(index.reader().unwrap().get(1).unwrap().unwrap(), [1.0, 65_504.0]);
}

#[test]
fn an_exact_answer_is_exact_for_rows_that_were_rounded() {
    // Half precision has steps of 2 here, which is far more than the codes leave out.
    let mut random = Random(8);
    let mut vector = || (0..4).map(|_| 2_048.0 + random.below(1_000) as f32 / 100.0).collect::<Vec<f32>>();
    let dir = tempfile::tempdir().unwrap();
    let index = Index::create(dir.path(), Config { rows: Rows::F16, ..config(4, Metric::L2) }).unwrap();
    let mut writer = index.writer().unwrap();
    (0..400).for_each(|key| writer.add(key, &vector()).unwrap());
    writer.commit().unwrap();
    let reader = index.reader().unwrap();
    let vectors = reader.keys().map(|key| key.map(|key| (key, reader.get(key).unwrap().unwrap())));
    let model = Model { metric: Metric::L2, vectors: vectors.collect::<Result<_, _>>().unwrap() };
    for _ in 0..40 {
        let query = vector();
        model.assert_exact(&query, 7, &reader.search(&query).k(7).recall(1.0).run().unwrap());
    }
}

#[test]
fn a_search_by_key_leaves_the_key_out() {
    let dir = tempfile::tempdir().unwrap();
    let index = Index::create(dir.path(), config(16, Metric::Cosine)).unwrap();
    let mut writer = index.writer().unwrap();
    let vectors = embeddings(300, 16, 5);
    for (key, vector) in (0..).zip(&vectors) {
        writer.add(key, vector).unwrap();
    }
    writer.commit().unwrap();
    let reader = index.reader().unwrap();
    let mut model = Model { vectors: (0..).zip(vectors.clone()).collect(), ..Model::default() };
    model.vectors.remove(&42);
    model.assert_exact(&vectors[42], 8, &reader.search_key(42).unwrap().k(8).run().unwrap());
    let even = reader.search_key(42).unwrap().k(3).filter(|key| key % 2 == 0).run().unwrap();
    assert!(even.len() == 3 && even.iter().all(|n| n.key % 2 == 0 && n.key != 42));
    let batch = reader.search_batch(&vectors[..50]).k(4).run().unwrap();
    for (query, found) in vectors.iter().zip(batch) {
        assert_eq!(found, reader.search(query).k(4).run().unwrap());
    }
}

#[test]
fn readers_and_errors_cross_threads() {
    fn crosses<T: Send + Sync>() {}
    crosses::<tintype_index::Reader>();
    crosses::<Index>();
    crosses::<Error>();
    fn moves<T: Send>() {}
    moves::<tintype_index::Writer>();
}
