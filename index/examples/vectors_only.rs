//! Vectors in, neighbours out.
//!
//! `cargo run --release -p tintype-index --example vectors_only`
#![allow(clippy::print_stdout, reason = "an example talks")]

use tintype_index::{Config, Index, Metric};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = std::env::temp_dir().join(format!("tintype-index-vectors-only-{}", std::process::id()));
    // Colours, as red, green and blue: near means near to the eye, more or less.
    let colours = [
        ("crimson", [220.0, 20.0, 60.0]),
        ("salmon", [250.0, 128.0, 114.0]),
        ("gold", [255.0, 215.0, 0.0]),
        ("olive", [128.0, 128.0, 0.0]),
        ("teal", [0.0, 128.0, 128.0]),
        ("navy", [0.0, 0.0, 128.0]),
        ("indigo", [75.0, 0.0, 130.0]),
    ];

    // What an index is, is said once and stored with it.
    let index = Index::create(&dir, Config { dim: 3, metric: Metric::L2, ..Config::default() })?;

    // One writer at a time. A key is any number of yours: here, the place in the list.
    let mut writer = index.writer()?;
    for (key, (_, rgb)) in (0..).zip(&colours) {
        writer.add(key, rgb)?;
    }
    writer.commit()?; // on disk when it returns

    // Any number of readers, each a snapshot of the last commit.
    let reader = index.reader()?;
    for neighbor in reader.search(&[70.0, 10.0, 140.0]).k(3).run()? {
        println!("{:8} {:.0}", colours[neighbor.key as usize].0, neighbor.score);
    }

    // Later: the same directory, without a configuration.
    assert_eq!(Index::open(&dir)?.reader()?.len(), 7);
    std::fs::remove_dir_all(&dir)?;
    Ok(())
}
