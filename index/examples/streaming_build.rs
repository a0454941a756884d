//! More vectors than one would hold in memory, from an iterator, with progress and a way to stop.
//!
//! `cargo run --release -p tintype-index --example streaming_build -- 50000`
#![allow(clippy::print_stderr, clippy::print_stdout, reason = "an example talks")]

use std::ops::ControlFlow;

use tintype_index::{Config, Index};

/// Stands for a file that is read piece by piece.
fn stream(count: u64) -> impl Iterator<Item = (u64, Vec<f32>)> {
    let mut state = 1u64;
    (0..count).map(move |key| {
        let number = |_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5
        };
        (key, (0..128).map(number).collect())
    })
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let count = std::env::args().nth(1).map_or(Ok(30_000), |n| n.parse())?;
    let dir = std::env::temp_dir().join(format!("tintype-index-streaming-{}", std::process::id()));
    let index = Index::create(&dir, Config { dim: 128, ..Config::default() })?;
    let mut writer = index.writer()?;
    for (key, vector) in stream(count) {
        // Held up to 64 MiB, then written to a file that the next commit names.
        writer.add(key, &vector)?;
    }
    // Everything is durable before the graph is begun, and searchable without it: to stop loses no vector.
    let generation = writer.commit_watched(&mut |done, total| {
        eprint!("\rgraph: {done} of {total}");
        ControlFlow::Continue(())
    })?;
    eprintln!();
    let reader = index.reader()?;
    let (_, query) = stream(1).next().ok_or("no vectors")?;
    println!("generation {generation}, {} vectors, nearest: {:?}", reader.len(), reader.search(&query).k(3).run()?);
    std::fs::remove_dir_all(&dir)?;
    Ok(())
}
