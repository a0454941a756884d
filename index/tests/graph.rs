//! Large enough for a graph: recall, determinism, duplicates, removal.

use std::sync::atomic::{AtomicUsize, Ordering};

use tintype_index::{Config, Index, Key, KeySet, Metric};

use crate::support::{Model, Random, embeddings};

fn build(vectors: &[Vec<f32>], metric: Metric) -> (tempfile::TempDir, Index, Model) {
    let dir = tempfile::tempdir().unwrap();
    let config = Config { dim: vectors[0].len(), metric, links: 16, build_ef: 64, ..Config::default() };
    let index = Index::create(dir.path(), config).unwrap();
    let mut writer = index.writer().unwrap();
    for (key, vector) in (0..).zip(vectors) {
        writer.add(key, vector).unwrap();
    }
    writer.compact().unwrap();
    let model = Model { metric, vectors: (0..).zip(vectors.iter().cloned()).collect() };
    (dir, index, model)
}

fn mean_recall(index: &Index, model: &Model, queries: &[Vec<f32>], ef: usize) -> f64 {
    let reader = index.reader().unwrap();
    let recall = |q: &Vec<f32>| model.recall(q, 10, &reader.search(q).ef(ef).run().unwrap());
    queries.iter().map(recall).sum::<f64>() / queries.len() as f64
}

#[test]
fn a_graph_finds_the_neighbours_under_every_metric() {
    let all = embeddings(6_050, 40, 11);
    let (vectors, queries) = all.split_at(6_000);
    for metric in [Metric::Cosine, Metric::Dot, Metric::L2] {
        let (_dir, index, model) = build(vectors, metric);
        let report = index.reader().unwrap().verify().unwrap();
        assert!(report.is_clean() && report.graphs == 1, "{report:?}");
        let recall = mean_recall(&index, &model, queries, 24);
        assert!(recall > 0.9, "{metric:?}: {recall}");
        for query in queries {
            model.assert_exact(query, 10, &index.reader().unwrap().search(query).recall(1.0).run().unwrap());
        }
    }
}

#[test]
fn the_same_vectors_give_the_same_bytes_at_any_thread_count() {
    let vectors = embeddings(5_000, 24, 12);
    let file = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let (dir, ..) = build(&vectors, Metric::Cosine);
            let mut files: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().path()).collect();
            files.sort();
            files.iter().map(|f| (f.file_name().unwrap().to_owned(), std::fs::read(f).unwrap())).collect::<Vec<_>>()
        })
    };
    assert!(file(1) == file(4));
}

#[test]
fn duplicates_do_not_ruin_the_graph() {
    let distinct = embeddings(1_500, 32, 13);
    // Every vector several times, some many times, as bursts and video frames are.
    let vectors: Vec<Vec<f32>> =
        (0..6_000).map(|i| if i % 3 == 0 { distinct[i % 7].clone() } else { distinct[i % 1_500].clone() }).collect();
    let (_dir, index, _) = build(&vectors, Metric::Cosine);
    let reader = index.reader().unwrap();
    assert!(reader.verify().unwrap().is_clean());
    for at in (1..1_500).step_by(30) {
        let found = reader.search(&distinct[at]).ef(32).run().unwrap();
        assert_eq!(found.len(), 10);
        assert!(found[0].score > 0.9999, "{at}: {found:?}");
        let same = vectors.iter().filter(|v| **v == distinct[at]).count().min(10);
        assert!(found.iter().filter(|n| vectors[n.key as usize] == distinct[at]).count() >= same, "{at}");
    }
}

#[test]
fn removed_vectors_do_not_come_back_and_recall_stays() {
    let all = embeddings(8_050, 40, 14);
    let (vectors, queries) = all.split_at(8_000);
    let (_dir, index, mut model) = build(&vectors[..6_000], Metric::Cosine);
    let mut writer = index.writer().unwrap();
    for key in (0..6_000).filter(|key| key % 10 < 3) {
        assert!(writer.remove(key).unwrap());
        model.vectors.remove(&key);
    }
    for key in 6_000..8_000 {
        writer.add(key, &vectors[key as usize]).unwrap();
        model.vectors.insert(key, vectors[key as usize].clone());
    }
    writer.commit().unwrap();
    let reader = index.reader().unwrap();
    for query in queries {
        let found = reader.search(query).ef(32).k(20).run().unwrap();
        assert!(found.iter().all(|n| model.vectors.contains_key(&n.key)));
    }
    let before = mean_recall(&index, &model, queries, 32);
    writer.compact().unwrap();
    let after = mean_recall(&index, &model, queries, 32);
    assert!(before > 0.9 && before > after - 0.02, "{before} before compaction, {after} after");
}

#[test]
fn filters_keep_recall_at_every_selectivity() {
    let all = embeddings(20_040, 24, 15);
    let (vectors, queries) = all.split_at(20_000);
    let (_dir, index, model) = build(vectors, Metric::Cosine);
    let reader = index.reader().unwrap();
    let check = |every: u64, passes: &(dyn Fn(Key) -> bool + Sync)| {
        let mut allowed = model.clone();
        allowed.vectors.retain(|key, _| passes(*key));
        let set: KeySet = allowed.vectors.keys().copied().chain([1 << 40]).collect();
        let asked = AtomicUsize::new(0);
        let recall = |q: &Vec<f32>| {
            let counted = |key| {
                asked.fetch_add(1, Ordering::Relaxed);
                passes(key)
            };
            let found = reader.search(q).filter(counted).run().unwrap();
            assert!(found.iter().all(|n| passes(n.key)));
            let listed = reader.search(q).among(&set).recall(1.0).run().unwrap();
            allowed.assert_exact(q, 10, &listed);
            assert_eq!(listed, reader.search(q).filter(passes).recall(1.0).run().unwrap());
            allowed.recall(q, 10, &found).min(allowed.recall(q, 10, &reader.search(q).among(&set).run().unwrap()))
        };
        let recall = queries.iter().map(recall).sum::<f64>() / queries.len() as f64;
        assert!(recall > 0.93, "one of {every}: {recall}");
        // Who scans asks about every key.
        let scans = asked.into_inner() / vectors.len();
        match every {
            2 | 4 => assert!(scans < queries.len() / 10, "one of {every}: {scans} scans"),
            100.. => assert_eq!(scans, queries.len(), "one of {every}"),
            _ => {}
        }
    };
    for every in [2, 4, 10, 100, 1000] {
        check(every, &|key| key % every == 1);
        check(every, &|key| Random(key).below(every) == 1);
    }
    check(100_000, &|key| key == 1);
}

#[test]
fn a_graph_that_is_taken_over_is_as_good_as_a_new_one() {
    let all = embeddings(42_550, 16, 16);
    let (vectors, queries) = all.split_at(42_500);
    // Duplicates too: of what is removed, and of what stays.
    let vector = |key: u64| &vectors[if key % 50 == 7 { (key - 7) as usize } else { key as usize }];
    let dir = tempfile::tempdir().unwrap();
    let config = Config { dim: 16, links: 12, build_ef: 32, ..Config::default() };
    let index = Index::create(dir.path(), config.clone()).unwrap();
    let mut model = Model::default();
    let mut writer = index.writer().unwrap();
    let add = |writer: &mut tintype_index::Writer, model: &mut Model, keys: std::ops::Range<u64>| {
        for key in keys {
            writer.add(key, vector(key)).unwrap();
            model.vectors.insert(key, vector(key).clone());
        }
        writer.commit().unwrap();
        let report = index.reader().unwrap().verify().unwrap();
        assert!(report.is_clean() && report.segments == 1 && report.graphs == 1, "{report:?}");
    };
    add(&mut writer, &mut model, 0..26_000);
    // So many that the commit mends the graph without them.
    for key in (0..26_000).filter(|key| key % 20 < 7) {
        writer.remove(key).unwrap();
        model.vectors.remove(&key);
    }
    add(&mut writer, &mut model, 26_000..26_000);
    assert_eq!(index.reader().unwrap().verify().unwrap().removed, 0);
    let fresh = |model: &Model| {
        let dir = tempfile::tempdir().unwrap();
        let index = Index::create(dir.path(), config.clone()).unwrap();
        let mut writer = index.writer().unwrap();
        model.vectors.iter().for_each(|(&key, vector)| writer.add(key, vector).unwrap());
        writer.commit().unwrap();
        mean_recall(&index, model, queries, 24)
    };
    let (mended, new) = (mean_recall(&index, &model, queries, 24), fresh(&model));
    assert!(mended > new - 0.02, "mended {mended}, new {new}");
    add(&mut writer, &mut model, 26_000..42_500);
    let (grown, new) = (mean_recall(&index, &model, queries, 24), fresh(&model));
    assert!(grown > new - 0.02, "grown {grown}, new {new}");
}

#[test]
fn a_recall_target_holds_for_many_neighbours_too() {
    let all = embeddings(20_040, 24, 17);
    let (vectors, queries) = all.split_at(20_000);
    let (_dir, index, model) = build(vectors, Metric::Cosine);
    let reader = index.reader().unwrap();
    for (k, target) in [(1, 0.9), (10, 0.95), (50, 0.9), (50, 0.99)] {
        let recall = |q: &Vec<f32>| model.recall(q, k, &reader.search(q).k(k).recall(target).run().unwrap());
        let recall = queries.iter().map(recall).sum::<f64>() / queries.len() as f64;
        // Forty queries: a little below is chance.
        assert!(recall > f64::from(target) - 0.04, "recall@{k} {recall} where {target} was asked for");
    }
}
