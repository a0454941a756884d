//! How often does a photo's own caption find it? Text-to-image recall over a folder with captions.
//!
//! ```text
//! cargo run --release --example caption_recall -- PATH/TO/PHOTOS captions.jsonl
//! ```
//!
//! Each line of the captions is `{"file": "a.jpg", "captions": ["…", …]}`. Photos without captions stay in as distractors.

#![allow(clippy::print_stdout, clippy::print_stderr)] // A program, and not the library.

use std::process::ExitCode;

use tintype::{Encoder, Engine, Query};

fn main() -> Result<ExitCode, Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, captions] = arguments.as_slice() else {
        eprintln!("usage: caption_recall FOLDER CAPTIONS");
        return Ok(ExitCode::from(2));
    };
    let folder = std::fs::canonicalize(folder)?;
    let library = std::env::temp_dir().join(format!("caption_recall-{}.tintype", std::process::id()));
    let engine = Engine::create(&library, Encoder::builtin()?)?;
    let report = engine.ingest([&folder]).run()?;
    eprintln!("{} photos, {} unreadable", report.added, report.skipped.len());

    // The rank of the right photo among all, for every caption.
    let mut found = [0usize; 3];
    let depths = [1, 5, 10];
    let mut queries = 0usize;
    for line in std::fs::read_to_string(captions)?.lines() {
        let entry: serde_json::Value = serde_json::from_str(line)?;
        let path = folder.join(entry["file"].as_str().ok_or("a line without a file")?);
        for caption in entry["captions"].as_array().ok_or("a line without captions")? {
            // Built, not parsed: a caption is words, whatever it looks like.
            let query = Query::text(caption.as_str().unwrap_or_default());
            let hits = engine.search(query).limit(10).run()?;
            let rank = hits.iter().position(|hit| hit.path == path).unwrap_or(usize::MAX);
            for (count, depth) in found.iter_mut().zip(depths) {
                *count += usize::from(rank < depth);
            }
            queries += 1;
        }
    }
    for (count, depth) in found.iter().zip(depths) {
        println!("recall@{depth:<2} {:.2} %", 100.0 * *count as f64 / queries.max(1) as f64);
    }
    println!("{queries} captions, {} photos", engine.status()?.photos);
    std::fs::remove_dir_all(&library)?;
    Ok(ExitCode::SUCCESS)
}
