//! Search a folder of photos by words, in a library of your own.
//!
//! ```text
//! cargo run --release --example search_photos -- PATH/TO/PHOTOS "a dog running through snow"
//! ```
//!
//! The first run describes every photo with a vector; later runs look only at what is new.

#![allow(clippy::print_stdout, clippy::print_stderr)] // A program, and not the library.

use std::process::ExitCode;

use tintype::{Encoder, Engine};

fn main() -> tintype::Result<ExitCode> {
    let mut arguments = std::env::args_os().skip(1);
    let (Some(folder), Some(query)) = (arguments.next(), arguments.next()) else {
        eprintln!("usage: search_photos FOLDER QUERY");
        return Ok(ExitCode::from(2));
    };

    // A library is a directory. It belongs to one model, here the small one that is compiled in;
    // `Encoder::named("vit-b-32-laion2b")?` would download a full CLIP.
    let library = std::env::temp_dir().join("search_photos.tintype");
    let engine = Engine::open_or_create(library, Encoder::builtin()?)?;

    // What cannot be read is in the report, and never ends the run.
    let report = engine.ingest([folder]).on_progress(|p| eprint!("\r{} of {} photos", p.done, p.found)).run()?;
    eprintln!();
    for skipped in &report.skipped {
        eprintln!("skipped {}: {}", skipped.path.display(), skipped.error);
    }

    // The query language is the program's: words, `./picture.jpg`, sums and differences, `after:2024-05`.
    for hit in engine.search(query.to_string_lossy().as_ref()).limit(10).run()? {
        println!("{:.3}  {}", hit.score, hit.path.display());
    }
    Ok(ExitCode::SUCCESS)
}
