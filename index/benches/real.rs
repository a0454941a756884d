//! Build time, size, recall against queries per second over real CLIP vectors.
//!
//! `cargo bench -p tintype-index --bench real`, with the vectors under `../shared/data/clip-vectors` beside the checkout (or
//! under `$TINTYPE_TEST_DATA/data/clip-vectors`); without them it says so and ends. Image queries are 1,000 vectors taken out of
//! the set, text queries come as they are; both are answered against the rest, and the truth is an exact search. With `samples` behind
//! `--`, the even texts shape the graph as sample queries, and the odd ones, half 1, say what that is worth. One thread,
//! process CPU time, best of several passes.
#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a benchmark")]

use std::collections::HashSet;
use std::path::PathBuf;
use std::time::Instant;

use tintype_index::{Config, Index, KeySet, Reader};

const DIM: usize = 512;

fn data() -> Option<PathBuf> {
    let beside = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared");
    let root = std::env::var_os("TINTYPE_TEST_DATA").map_or(beside, PathBuf::from);
    Some(root.join("data/clip-vectors")).filter(|p| p.exists())
}

/// The body of a NumPy file of little-endian numbers.
fn body(bytes: &[u8]) -> &[u8] {
    &bytes[10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]))..]
}

/// CPU time of the process, of threads that ended as well, in hundredths of a second.
fn cpu_of_all() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let times = stat.rsplit(')').next().unwrap().split_whitespace().skip(11).take(2);
    times.map(|ticks| ticks.parse::<f64>().unwrap()).sum::<f64>() / 100.0
}

/// CPU time of all threads that live.
fn cpu() -> f64 {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let nanos = tasks.filter_map(|t| std::fs::read_to_string(t.unwrap().path().join("schedstat")).ok());
    nanos.map(|s| s.split(' ').next().unwrap().parse::<f64>().unwrap()).sum::<f64>() / 1e9
}

fn main() {
    let Some(data) = data() else {
        println!("skipped: no vectors under ../shared/data/clip-vectors");
        return;
    };
    let threads = std::env::args().filter_map(|a| a.parse().ok()).next().unwrap_or(1);
    rayon::ThreadPoolBuilder::new().num_threads(threads).build_global().unwrap();
    let images = std::fs::read(data.join("images-100k-f16.npy")).unwrap();
    let images: Vec<f32> =
        body(&images).chunks_exact(2).map(|x| half::f16::from_le_bytes([x[0], x[1]]).to_f32()).collect();
    let texts = std::fs::read(data.join("text-queries-1203-f32.npy")).unwrap();
    let texts: Vec<f32> = body(&texts).chunks_exact(4).map(|x| f32::from_le_bytes(x.try_into().unwrap())).collect();
    let texts: Vec<&[f32]> = texts.chunks_exact(DIM).collect();
    let rows: Vec<&[f32]> = images.chunks_exact(DIM).collect();
    let held_out = |at: usize| at % 100 == 37;
    let queries: Vec<&[f32]> = (0..rows.len()).filter(|&at| held_out(at)).map(|at| rows[at]).collect();

    let stored: Vec<(u64, &[f32])> =
        (0..).zip(rows.iter().copied()).filter(|(at, _)| !held_out(*at as usize)).collect();
    let churn = std::env::args().any(|a| a == "churn");
    if churn { churned(&stored, &queries, &texts) } else { searched(&stored, &queries, &texts, threads) }
}

fn create(dir: &std::path::Path) -> Index {
    Index::create(dir, Config { dim: DIM, ..Config::default() }).unwrap()
}

/// Build, size, recall against queries per second, filters.
fn searched(stored: &[(u64, &[f32])], queries: &[&[f32]], texts: &[&[f32]], threads: usize) {
    let dir = tempfile::tempdir().unwrap();
    let index = create(dir.path());
    let mut writer = index.writer().unwrap();
    let (start, wall) = (cpu_of_all(), Instant::now());
    if std::env::args().any(|a| a == "samples") {
        writer.set_sample_queries(&texts.iter().step_by(2).collect::<Vec<_>>()).unwrap();
    }
    for (key, row) in stored {
        writer.add(*key, row).unwrap();
    }
    println!("add: {:.2} s CPU, {:.2} s wall", cpu_of_all() - start, wall.elapsed().as_secs_f64());
    let (start, wall) = (cpu_of_all(), Instant::now());
    writer.commit().unwrap();
    let wall = wall.elapsed().as_secs_f64();
    println!("commit with graph, {threads} threads: {:.2} s CPU, {wall:.2} s wall", cpu_of_all() - start);
    let wall = Instant::now();
    let reader = index.reader().unwrap();
    println!("open: {:.3} ms", wall.elapsed().as_secs_f64() * 1e3);
    let report = reader.verify().unwrap();
    assert!(report.is_clean(), "{report:?}");
    let (all, without_rows) = (report.bytes as f64 / 1e6, report.bytes_without_rows as f64 / 1e6);
    println!("size: {all:.1} MB, {without_rows:.1} MB without exact rows");

    for (name, queries) in [("image", queries), ("text", texts)] {
        let truth: Vec<HashSet<u64>> = queries.iter().map(|q| keys(&reader, q, |s| s.recall(1.0))).collect();
        for half in 0..2 {
            let part: Vec<usize> = (0..queries.len()).filter(|at| at % 2 == half).collect();
            println!("\n{name} queries, half {half}: setting, recall@10, queries per second");
            for ef in [10, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768] {
                row(&reader, queries, &truth, &part, &format!("ef {ef}"), |s| s.ef(ef));
            }
            for recall in [0.9, 0.95, 0.99] {
                row(&reader, queries, &truth, &part, &format!("recall {recall}"), |s| s.recall(recall));
            }
            row(&reader, queries, &truth, &part[..100], "recall 1", |s| s.recall(1.0));
        }
        println!("\n{name} queries that pass a filter of one key in so many");
        let part: Vec<usize> = (0..queries.len()).step_by(5).collect();
        for every in [2u64, 10, 100, 1000] {
            // Keys at random, not in rows: neighbouring keys are neighbouring frames.
            let passes = move |key: u64| key.wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(20).is_multiple_of(every);
            let set: KeySet = stored.iter().map(|s| s.0).filter(|&key| passes(key)).collect();
            let exact: Vec<_> = queries.iter().map(|q| keys(&reader, q, |s| s.filter(passes).recall(1.0))).collect();
            row(&reader, queries, &exact, &part, &format!("1/{every}"), |s| s.filter(passes));
            row(&reader, queries, &exact, &part, &format!("1/{every} set"), |s| s.among(&set));
            row(&reader, queries, &exact, &part, "exact", |s| s.among(&set).recall(1.0));
        }
    }

    let mut millis = Vec::new();
    for (at, row) in queries.iter().take(60).enumerate() {
        let wall = Instant::now();
        writer.add(1_000_000 + at as u64, row).unwrap();
        writer.commit().unwrap();
        millis.push(wall.elapsed().as_secs_f64() * 1e3);
    }
    millis.sort_by(f64::total_cmp);
    println!("\ndurable commit of one vector: median {:.2} ms, longest {:.2} ms", millis[30], millis[59]);
    let wall = Instant::now();
    for (at, (_, row)) in stored.iter().take(10_000).enumerate() {
        writer.add(2_000_000 + at as u64, row).unwrap();
    }
    writer.commit().unwrap();
    println!("durable commit of 10,000 vectors: {:.2} s", wall.elapsed().as_secs_f64());
}

/// Recall after a random 30 % were removed and as many new ones added, against a fresh build of the same vectors.
/// Removes a random 30 % and adds 30 % new, in ten commits and in one, and compares with an index that was built of what is left.
fn churned(stored: &[(u64, &[f32])], queries: &[&[f32]], texts: &[&[f32]]) {
    let step_of = |key: u64| key.wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(20) % 1000;
    let old: Vec<_> = stored.iter().filter(|s| s.0 % 13 >= 3).collect();
    let new: Vec<_> = stored.iter().filter(|s| s.0 % 13 < 3).collect();
    let dirs = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let [fresh, once, often] = [0, 1, 2].map(|at| create(dirs[at].path()));
    for (index, steps) in [(&once, 1), (&often, 10)] {
        let mut writer = index.writer().unwrap();
        old.iter().for_each(|(key, row)| writer.add(*key, row).unwrap());
        writer.commit().unwrap();
        let start = cpu();
        for step in 0..steps {
            let now = step * 300 / steps..(step + 1) * 300 / steps;
            for (key, _) in old.iter().filter(|s| now.contains(&step_of(s.0))) {
                assert!(writer.remove(*key).unwrap());
            }
            let part = new.len().div_ceil(steps as usize);
            new.iter().skip(part * step as usize).take(part).for_each(|(key, row)| writer.add(*key, row).unwrap());
            writer.commit().unwrap();
        }
        println!("{steps} commits: {:.2} s CPU, {:?}", cpu() - start, index.reader().unwrap().verify().unwrap());
    }
    let mut writer = fresh.writer().unwrap();
    let start = cpu();
    for (key, row) in old.iter().filter(|s| step_of(s.0) >= 300).chain(&new) {
        writer.add(*key, row).unwrap();
    }
    writer.commit().unwrap();
    println!("fresh: {:.2} s CPU", cpu() - start);
    for (kind, queries, settings) in [("image", queries, [16, 32, 64]), ("text", texts, [128, 256, 512])] {
        let truth: Vec<_> = queries.iter().map(|q| keys(&fresh.reader().unwrap(), q, |s| s.recall(1.0))).collect();
        let all: Vec<usize> = (0..queries.len()).collect();
        for (name, index) in [("in one commit", &once), ("in ten", &often), ("fresh", &fresh)] {
            println!("{kind} queries, {name}");
            for ef in settings {
                row(&index.reader().unwrap(), queries, &truth, &all, &format!("ef {ef}"), |s| s.ef(ef));
            }
        }
    }
}

fn keys<'a>(
    reader: &'a Reader,
    query: &'a [f32],
    set: impl Fn(tintype_index::Search<'a>) -> tintype_index::Search<'a>,
) -> HashSet<u64> {
    set(reader.search(query)).run().unwrap().iter().map(|n| n.key).collect()
}

fn row<'a>(
    reader: &'a Reader,
    queries: &[&'a [f32]],
    truth: &[HashSet<u64>],
    part: &[usize],
    name: &str,
    set: impl Fn(tintype_index::Search<'a>) -> tintype_index::Search<'a>,
) {
    let found: Vec<HashSet<u64>> = part.iter().map(|&at| keys(reader, queries[at], &set)).collect();
    let hits: usize = part.iter().zip(&found).map(|(&at, found)| found.intersection(&truth[at]).count()).sum();
    // The system counts CPU time in ticks: short passes are repeated until there are enough of them.
    let mut best = f64::INFINITY;
    for _ in 0..5 {
        let (start, mut passes) = (cpu(), 0);
        while cpu() - start < 0.05 {
            for &at in part {
                std::hint::black_box(set(reader.search(queries[at])).run().unwrap());
            }
            passes += 1;
        }
        best = best.min((cpu() - start) / f64::from(passes));
    }
    println!("{name:>11}  {:.4}  {:>8.0}", hits as f64 / (10 * part.len()) as f64, part.len() as f64 / best);
}
