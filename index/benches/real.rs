//! Build time, size, recall against queries per second over real CLIP vectors.
//!
//! `cargo bench -p tintype-index --bench real`, with the vectors under `../shared/data/clip-vectors` beside the checkout (or
//! under `$TINTYPE_TEST_DATA/data/clip-vectors`); without them it says so and ends. Image queries are 1,000 vectors taken out of
//! the set, text queries come as they are; both are answered against the rest, and the truth is an exact search. One thread,
//! process CPU time, best of several passes.
#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a benchmark")]

use std::collections::HashSet;
use std::path::PathBuf;
use std::time::Instant;

use tintype_index::{Config, Index, Reader};

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

    let dir = tempfile::tempdir().unwrap();
    let index = Index::create(dir.path(), Config { dim: DIM, ..Config::default() }).unwrap();
    let mut writer = index.writer().unwrap();
    let (start, wall) = (cpu(), Instant::now());
    for (at, row) in rows.iter().enumerate().filter(|(at, _)| !held_out(*at)) {
        writer.add(at as u64, row).unwrap();
    }
    println!("add: {:.2} s CPU, {:.2} s wall", cpu() - start, wall.elapsed().as_secs_f64());
    let (start, wall) = (cpu(), Instant::now());
    writer.commit().unwrap();
    println!(
        "commit with graph, {threads} threads: {:.2} s CPU, {:.2} s wall",
        cpu() - start,
        wall.elapsed().as_secs_f64()
    );
    let wall = Instant::now();
    let reader = index.reader().unwrap();
    println!("open: {:.3} ms", wall.elapsed().as_secs_f64() * 1e3);
    let report = reader.verify().unwrap();
    assert!(report.is_clean(), "{report:?}");
    println!(
        "size: {:.1} MB, {:.1} MB without exact rows",
        report.bytes as f64 / 1e6,
        report.bytes_without_rows as f64 / 1e6
    );

    for (name, queries) in [("image", &queries), ("text", &texts)] {
        let truth: Vec<HashSet<u64>> = queries.iter().map(|q| keys(&reader, q, |s| s.recall(1.0))).collect();
        for half in 0..2 {
            let part: Vec<usize> = (0..queries.len()).filter(|at| at % 2 == half).collect();
            println!("\n{name} queries, half {half}: setting, recall@10, queries per second");
            for ef in [10, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768] {
                row(&reader, queries, &truth, &part, &format!("ef {ef}"), |s| s.ef(ef));
            }
            for recall in [0.9, 0.95, 0.99, 1.0] {
                row(&reader, queries, &truth, &part, &format!("recall {recall}"), |s| s.recall(recall));
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
    let mut best = f64::INFINITY;
    for _ in 0..5 {
        let start = cpu();
        for &at in part {
            std::hint::black_box(set(reader.search(queries[at])).run().unwrap());
        }
        best = best.min(cpu() - start);
    }
    println!("{name:>11}  {:.4}  {:>8.0}", hits as f64 / (10 * part.len()) as f64, part.len() as f64 / best);
}
