//! The ends of every range: dimensions, neighbours, bursts, memory.

use tintype_index::{Config, Index, Metric, Rows};

use crate::support::{Model, Random, embeddings};

#[test]
fn dimensions_from_1_to_4096_keep_their_neighbours() {
    let metrics = [Metric::Cosine, Metric::Dot, Metric::L2];
    for (at, dim) in [1, 2, 3, 63, 64, 65, 127, 1000, 4095, 4096].into_iter().enumerate() {
        let metric = metrics[at % 3];
        let dir = tempfile::tempdir().unwrap();
        let rows = if dim % 2 == 1 { Rows::F32 } else { Rows::F16 };
        let config = Config { dim, metric, rows, links: 8, build_ef: 32 };
        let index = Index::create(dir.path(), config).unwrap();
        let mut writer = index.writer().unwrap();
        // A graph however few they are.
        writer.fold_at(200, 100);
        let all = embeddings(310, dim, dim as u64);
        let (vectors, queries) = all.split_at(300);
        (0..).zip(vectors).for_each(|(key, vector)| writer.add(key, vector).unwrap());
        writer.commit().unwrap();
        let reader = index.reader().unwrap();
        let report = reader.verify().unwrap();
        assert!(report.is_clean() && report.graphs == 1, "dim {dim}: {report:?}");
        let model = Model { metric, vectors: (0..).zip(vectors.iter().cloned()).collect() };
        let slack = |score: f64| (if rows == Rows::F32 { 1e-4 } else { 2e-3 }) * (1.0 + score.abs());
        for query in queries {
            let expected = model.nearest(query, 10);
            let exact = reader.search(query).recall(1.0).run().unwrap();
            for found in
                [exact].into_iter().chain([300, usize::MAX].map(|ef| reader.search(query).ef(ef).run().unwrap()))
            {
                assert_eq!(found.len(), 10, "dim {dim}");
                for (f, e) in found.iter().zip(&expected) {
                    assert!((f64::from(f.score) - e.1).abs() < slack(e.1), "dim {dim}: {f:?} where {e:?} was expected");
                }
            }
        }
    }
}

#[test]
fn ten_thousand_neighbours_can_be_asked_for() {
    let all = embeddings(10_520, 8, 21);
    let (vectors, queries) = all.split_at(10_500);
    let dir = tempfile::tempdir().unwrap();
    let index = Index::create(dir.path(), Config { dim: 8, links: 12, build_ef: 32, ..Config::default() }).unwrap();
    let mut writer = index.writer().unwrap();
    (0..).zip(vectors).for_each(|(key, vector)| writer.add(key, vector).unwrap());
    writer.compact().unwrap();
    let reader = index.reader().unwrap();
    assert_eq!(reader.verify().unwrap().graphs, 1);
    let model = Model { vectors: (0..).zip(vectors.iter().cloned()).collect(), ..Model::default() };
    for query in &queries[..3] {
        for k in [1_000, 10_000, 20_000] {
            model.assert_exact(query, k, &reader.search(query).k(k).recall(1.0).run().unwrap());
            let found = reader.search(query).k(k).run().unwrap();
            assert_eq!(found.len(), k.min(10_500));
            assert!(model.recall(query, k, &found) > 0.93);
            let narrow = reader.search(query).k(k).ef(10).run().unwrap();
            assert_eq!(narrow.len(), k.min(10_500), "the width is k at least");
            let odd = reader.search(query).k(k).filter(|key| key % 2 == 1).run().unwrap();
            assert_eq!(odd.len(), k.min(5_250));
        }
    }
    let found = reader.search_key(77).unwrap().k(10_000).run().unwrap();
    assert!(found.len() == 10_000 && found.iter().all(|n| n.key != 77));
}

#[test]
fn bursts_of_nearly_equal_vectors_stay_reachable() {
    const DIM: usize = 32;
    /// Frames whose scores differ by less look the same.
    const ALIKE: f64 = 1e-5;
    let mut random = Random(31);
    let scenes = embeddings(700, DIM, 30);
    // One picture, or a burst of dozens; frames of a burst differ by less than a step of the code, or by a few.
    let mut vectors = Vec::new();
    for (at, scene) in scenes.iter().enumerate() {
        for _ in 0..if at % 10 == 0 { 60 } else { 1 + at % 4 } {
            let noise = [0.0, 1e-5, 1e-3, 0.03][vectors.len() % 4];
            let frame: Vec<f32> = scene.iter().map(|x| x + noise * random.normal()).collect();
            vectors.push(frame);
        }
    }
    assert!(vectors.len() > 5_000);
    let dir = tempfile::tempdir().unwrap();
    let config = Config { dim: DIM, links: 16, build_ef: 64, ..Config::default() };
    let index = Index::create(dir.path(), config).unwrap();
    let mut writer = index.writer().unwrap();
    (0..).zip(&vectors).for_each(|(key, vector)| writer.add(key, vector).unwrap());
    writer.compact().unwrap();
    let reader = index.reader().unwrap();
    // Every row has a path that leads to it, or this finds that it has not.
    let report = reader.verify().unwrap();
    assert!(report.is_clean() && report.graphs == 1, "{report:?}");
    let model = Model { vectors: (0..).zip(vectors.iter().cloned()).collect(), ..Model::default() };
    let queries: Vec<Vec<f32>> =
        scenes.iter().step_by(7).map(|s| s.iter().map(|x| x + 0.4 * random.normal()).collect()).collect();
    for (k, ef) in [(10, 40), (100, 200)] {
        let recall = |query: &Vec<f32>| {
            let last = model.nearest(query, k)[k - 1].1;
            let found = reader.search(query).k(k).ef(ef).run().unwrap();
            // Which of two frames that look the same is named does not matter.
            found.iter().filter(|f| f64::from(f.score) >= last - ALIKE).count() as f64 / k as f64
        };
        let recall = queries.iter().map(recall).sum::<f64>() / queries.len() as f64;
        assert!(recall > 0.95, "recall@{k} {recall}");
    }
    // And each frame by itself, or one of its burst: so narrow a walk may end among the others.
    for vector in vectors.iter().step_by(11) {
        assert!(reader.search(vector).k(1).ef(32).run().unwrap()[0].score > 1.0 - 5e-4);
    }
}

#[test]
fn a_stream_is_held_in_pieces() {
    const DIM: usize = 16;
    let dir = tempfile::tempdir().unwrap();
    let index = Index::create(dir.path(), Config { dim: DIM, metric: Metric::L2, ..Config::default() }).unwrap();
    let mut writer = index.writer().unwrap();
    // Fifty vectors at a time.
    writer.hold(50 * DIM * 4);
    let mut random = Random(41);
    let mut model = Model { metric: Metric::L2, ..Model::default() };
    let files = || std::fs::read_dir(dir.path()).unwrap().count();
    for key in 0..1_025 {
        let vector = random.vector(DIM);
        // Some keys come again, in what is held or in what is written.
        let key = if key % 9 == 8 { key / 2 } else { key };
        writer.add(key, &vector).unwrap();
        model.vectors.insert(key, vector);
    }
    let written = files();
    assert!(written > 2, "{written} files before the commit");
    assert_eq!(writer.len(), model.vectors.len() as u64);
    assert!(index.reader().unwrap().is_empty(), "nothing is seen before the commit");
    writer.commit().unwrap();
    let reader = index.reader().unwrap();
    assert!(reader.verify().unwrap().is_clean());
    let query = random.vector(DIM);
    model.assert_exact(&query, 40, &reader.search(&query).k(40).run().unwrap());
}

#[test]
fn many_equal_vectors_cut_no_other_off() {
    // Found by the fuzzer: equal vectors among small whole numbers, where most scores are the same.
    const DIM: usize = 67;
    let whole = |seed: u64| {
        let mut random = Random(seed);
        (0..DIM).map(|_| random.below(9) as f32 - 4.0).collect::<Vec<f32>>()
    };
    for round in 0..6 {
        let dir = tempfile::tempdir().unwrap();
        let config = Config { dim: DIM, metric: Metric::L2, links: 4 + 3 * round, build_ef: 25, ..Config::default() };
        let index = Index::create(dir.path(), config).unwrap();
        let mut writer = index.writer().unwrap();
        writer.fold_at(256, 64);
        for key in 0..410 {
            let seed = if key < 160 { 32 } else { 1_000 * key + round as u64 };
            writer.add(key, &whole(seed)).unwrap();
        }
        writer.commit().unwrap();
        let report = index.reader().unwrap().verify().unwrap();
        assert!(report.is_clean() && report.graphs == 1, "{report:?}");
    }
}

#[test]
fn keys_count_among_what_is_held() {
    let dir = tempfile::tempdir().unwrap();
    let index = Index::create(dir.path(), Config { dim: 1, metric: Metric::L2, ..Config::default() }).unwrap();
    let mut writer = index.writer().unwrap();
    writer.hold(4_000);
    let files = || std::fs::read_dir(dir.path()).unwrap().count();
    let before = files();
    // A number takes four bytes, its key and what finds it again ten times as many.
    (0..100).for_each(|key| writer.add(key, &[key as f32]).unwrap());
    assert!(files() > before);
}

#[test]
fn vectors_that_come_at_once_make_graphs_within_their_memory_too() {
    let vectors = embeddings(3_000, 4, 6);
    let build = |memory: Option<u64>| {
        let dir = tempfile::tempdir().unwrap();
        let config = Config { dim: 4, links: 8, build_ef: 32, ..Config::default() };
        let index = Index::create(dir.path(), config).unwrap();
        let mut writer = index.writer().unwrap();
        writer.fold_at(200, 100);
        // Too late for what was added already: that stays without a graph.
        (0..).zip(&vectors[..500]).for_each(|(key, vector)| writer.add(key, vector).unwrap());
        memory.into_iter().for_each(|bytes| writer.graph_memory(bytes));
        (500..).zip(&vectors[500..]).for_each(|(key, vector)| writer.add(key, vector).unwrap());
        writer.commit().unwrap();
        let report = index.reader().unwrap().verify().unwrap();
        assert!(report.is_clean() && report.vectors == 3_000, "{report:?}");
        (report.graphs, report.segments)
    };
    assert_eq!(build(None), (1, 1));
    // Six of 400 vectors, the least; what came before, and what is too little for one.
    assert_eq!(build(Some(1)), (6, 8));
}

#[test]
fn graphs_stay_within_their_memory() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config { dim: 16, links: 8, build_ef: 32, ..Config::default() };
    let index = Index::create(dir.path(), config).unwrap();
    let all = embeddings(3_400, 16, 5);
    let (vectors, queries) = all.split_at(3_000);
    let mut writer = index.writer().unwrap();
    writer.fold_at(200, 100);
    // The least, whatever is asked for: 400 vectors.
    writer.graph_memory(1);
    for (key, vector) in (0..).zip(vectors) {
        writer.add(key, vector).unwrap();
        if key % 130 == 129 {
            writer.commit().unwrap();
        }
    }
    writer.commit().unwrap();
    let model = Model { metric: Metric::Cosine, vectors: (0..).zip(vectors.iter().cloned()).collect() };
    let check = |graphs: std::ops::RangeInclusive<usize>| {
        let reader = index.reader().unwrap();
        let report = reader.verify().unwrap();
        assert!(report.is_clean() && graphs.contains(&report.graphs), "{report:?}");
        let recall = |q: &Vec<f32>| model.recall(q, 10, &reader.search(q).recall(0.95).run().unwrap());
        let mean = queries.iter().map(recall).sum::<f64>() / queries.len() as f64;
        assert!(mean > 0.95, "{mean}");
    };
    check(7..=15);
    // What was added while a graph was made is merged too when somebody waits for it: in several graphs, if it must be.
    writer.merge_in_background(|_, _| std::ops::ControlFlow::Continue(()));
    for (key, vector) in (0..).zip(vectors) {
        writer.add(key, vector).unwrap();
        if key % 50 == 49 {
            writer.commit().unwrap();
        }
    }
    writer.close().unwrap();
    check(7..=15);
    // A merge that is asked for makes one.
    let mut writer = index.writer().unwrap();
    writer.fold_at(200, 100);
    writer.compact().unwrap();
    check(1..=1);
}
