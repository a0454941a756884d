//! Find pairs of photos that show nearly the same: bursts, copies, crops.
//!
//! ```text
//! cargo run --release --example similar -- PATH/TO/PHOTOS 0.97
//! ```
//!
//! The number is the least cosine of a pair. Nothing is written but a library in the temporary directory.

#![allow(clippy::print_stdout, clippy::print_stderr)] // A program, and not the library.

use std::process::ExitCode;

use tintype::{Encoder, Engine, Query};

fn main() -> tintype::Result<ExitCode> {
    let mut arguments = std::env::args_os().skip(1);
    let Some(folder) = arguments.next() else {
        eprintln!("usage: similar FOLDER [COSINE]");
        return Ok(ExitCode::from(2));
    };
    let least = arguments.next().and_then(|text| text.to_str()?.parse().ok()).unwrap_or(0.97);

    let library = std::env::temp_dir().join("similar.tintype");
    let engine = Engine::open_or_create(library, Encoder::builtin()?)?;
    engine.ingest([&folder]).run()?;

    // A query without parts lists the photos, newest first.
    let photos = engine.search(Query::all()).limit(usize::MAX).under([&folder]).run()?;
    for photo in &photos {
        // A photo of the library is a query by its key: its vector is there already, so no picture is decoded.
        let query = Query::like(photo.record.key);
        for hit in engine.search(query).limit(10).min_score(least).under([&folder]).run()? {
            // Each pair is found from both sides.
            if photo.record.key < hit.record.key {
                println!("{:.3}  {}  {}", hit.score, photo.path.display(), hit.path.display());
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}
