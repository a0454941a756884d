//! Neighbours among those that pass a filter, however few they are.
//!
//! `cargo run --release -p tintype-index --example filtered`
#![allow(clippy::print_stdout, reason = "an example talks")]

use std::time::Instant;

use tintype_index::{Config, Index};

/// A vector that looks random and is the same every time.
fn vector(seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let number = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5
    };
    (0..64).map(number).collect()
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = std::env::temp_dir().join(format!("tintype-index-filtered-{}", std::process::id()));
    let index = Index::create(&dir, Config { dim: 64, ..Config::default() })?;
    let mut writer = index.writer()?;
    for key in 0..30_000 {
        writer.add(key, &vector(key))?;
    }
    writer.commit()?;

    // Say the key is a photo and its year is the key modulo 20: a filter looks it up wherever you keep it.
    let year = |key: u64| 2005 + key % 20;
    let reader = index.reader()?;
    let query = vector(1_000_000);
    for (name, years) in [("any year", 2005..=2024), ("since 2015", 2015..=2024), ("2024", 2024..=2024)] {
        let start = Instant::now();
        let found = reader.search(&query).k(5).filter(|key| years.contains(&year(key))).run()?;
        // The graph is walked or the codes are scanned, whichever is cheaper for what passes.
        let keys: Vec<u64> = found.iter().map(|n| n.key).collect();
        println!("{name:10} {keys:?} in {:?}", start.elapsed());
        assert!(keys.iter().all(|&key| years.contains(&year(key))));
    }
    std::fs::remove_dir_all(&dir)?;
    Ok(())
}
