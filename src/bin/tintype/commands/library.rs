//! `tintype status`, `tintype remove` and `tintype verify`.

use std::io::{self, Write};

use indicatif::HumanBytes;
use serde::Serialize;
use tintype::{Engine, Error, Source};

use crate::args::{Common, RemoveArgs, StatusArgs, VerifyArgs};
use crate::library;
use crate::output::{Outcome, Talk, count, printable};

/// `tintype status --json`.
#[derive(Serialize)]
struct StatusLine {
    library: String,
    photos: u64,
    gone: u64,
    unreadable: u64,
    model: String,
    dimensions: usize,
    switching_to: Option<String>,
    bytes: u64,
    folders: Vec<FolderLine>,
    sources: Vec<SourceLine>,
    columns: Vec<String>,
    caption_vectors: u64,
}

#[derive(Serialize)]
struct SourceLine {
    path: String,
    kind: &'static str,
    items: u64,
    complete: bool,
    /// `0/4` where only a part was taken in.
    part: Option<String>,
}

#[derive(Serialize)]
struct FolderLine {
    path: String,
    indexed: String,
}

/// So many sources are listed.
const SOURCES: usize = 10;

impl SourceLine {
    fn new(source: &Source) -> SourceLine {
        let Source { items, complete, part, .. } = *source;
        let (path, part) = (source.path.display().to_string(), part.map(|part| part.to_string()));
        SourceLine { path, kind: source.kind.name(), items, complete, part }
    }
}

/// Says what the library holds.
pub(crate) fn status(args: &StatusArgs, common: &Common) -> anyhow::Result<Outcome> {
    let dir = library::directory(common)?;
    let status = match Engine::inspect(&dir) {
        Ok(status) => status,
        Err(Error::NoLibrary { .. }) => anyhow::bail!(library::no_library(common)),
        Err(error) => return Err(error.into()),
    };
    let line = StatusLine {
        library: status.library.display().to_string(),
        photos: status.photos,
        gone: status.gone,
        unreadable: status.skipped,
        model: status.space.model,
        dimensions: status.space.dim,
        switching_to: status.switching.map(|space| space.model),
        bytes: status.bytes,
        folders: status
            .roots
            .iter()
            .map(|root| FolderLine { path: root.path.display().to_string(), indexed: root.indexed.to_string() })
            .collect(),
        sources: status.sources.iter().map(SourceLine::new).collect(),
        columns: status.columns,
        caption_vectors: status.caption_vectors,
    };
    let mut out = io::stdout().lock();
    if args.json {
        writeln!(out, "{}", serde_json::to_string(&line)?)?;
        return Ok(Outcome::Done);
    }
    writeln!(out, "library     {} ({})", printable(&line.library), HumanBytes(line.bytes))?;
    writeln!(out, "photos      {}", line.photos)?;
    if line.gone > 0 {
        writeln!(out, "gone        {} whose files were not there; they come back with their files", line.gone)?;
    }
    if line.unreadable > 0 {
        writeln!(out, "unreadable  {} files", line.unreadable)?;
    }
    writeln!(out, "model       {} ({} numbers per photo)", line.model, line.dimensions)?;
    if let Some(model) = &line.switching_to {
        writeln!(out, "            a switch to {model} is under way; `tintype models use` goes on with it")?;
    }
    if line.caption_vectors > 0 {
        writeln!(out, "captions    {} have vectors", line.caption_vectors)?;
    }
    if !line.columns.is_empty() {
        writeln!(out, "columns     {}", printable(&line.columns.join(", ")))?;
    }
    for (position, source) in line.sources.iter().take(SOURCES).enumerate() {
        let label = if position == 0 { "sources" } else { "" };
        let state = if source.complete { "" } else { ", not read to its end yet" };
        let part = source.part.as_ref().map(|part| format!(", part {part}")).unwrap_or_default();
        let (path, photos) = (printable(&source.path), count(source.items, "photo"));
        writeln!(out, "{label:<11} {path} ({}, {photos}{part}{state})", source.kind)?;
    }
    if line.sources.len() > SOURCES {
        writeln!(out, "            … and {} more; --json lists them all", line.sources.len() - SOURCES)?;
    }
    for (position, root) in status.roots.iter().enumerate() {
        let label = if position == 0 { "folders" } else { "" };
        let time = root.indexed.to_zoned_datetime(jiff::tz::TimeZone::system()).strftime("%Y-%m-%d %H:%M").to_string();
        writeln!(out, "{label:<11} {} (last read {time})", printable(&root.path.display().to_string()))?;
    }
    Ok(Outcome::Done)
}

/// Forgets photos.
pub(crate) fn remove(args: &RemoveArgs, common: &Common, talk: &Talk) -> anyhow::Result<Outcome> {
    let engine = library::open_without_model(common)?;
    let forgotten = engine.remove(&args.paths)?;
    if forgotten == 0 {
        talk.line("the library knows no photos there");
        return Ok(Outcome::Partly);
    }
    talk.say(format_args!("{} taken out of the library; the files are where they were", count(forgotten, "photo")));
    Ok(Outcome::Done)
}

/// `tintype verify --json`.
#[derive(Serialize)]
struct VerifyLine {
    clean: bool,
    records: u64,
    without_vector: Vec<String>,
    vectors_without_record: u64,
    problems: Vec<String>,
}

/// Checks every byte of what the library knows.
pub(crate) fn verify(args: &VerifyArgs, common: &Common, talk: &Talk) -> anyhow::Result<Outcome> {
    let engine = library::open_without_model(common)?;
    let report = engine.verify()?;
    let of = |part: &str, problem: &dyn std::fmt::Display| format!("{part}: {problem}");
    let mut problems: Vec<String> = report.catalog.iter().map(|problem| of("catalog", problem)).collect();
    problems.extend(report.index.problems.iter().map(|problem| of("index", problem)));
    let captions = report.captions.iter().flat_map(|captions| &captions.problems);
    problems.extend(captions.map(|problem| of("index of captions", problem)));
    problems.extend(report.features.iter().map(|problem| of("kept features", problem)));
    let without_vector: Vec<String> = report.missing.iter().map(|path| path.display().to_string()).collect();
    let clean = report.is_clean();
    let mut out = io::stdout().lock();
    if args.json {
        let (records, vectors_without_record) = (report.records, report.orphans);
        let line = VerifyLine { clean, records, without_vector, vectors_without_record, problems };
        writeln!(out, "{}", serde_json::to_string(&line)?)?;
        return Ok(if clean { Outcome::Done } else { Outcome::Partly });
    }
    for problem in &problems {
        writeln!(out, "{}", printable(problem))?;
    }
    for path in &without_vector {
        writeln!(out, "no vector: {}", printable(path))?;
    }
    if !clean {
        talk.line("the library is damaged; `tintype index` makes up for missing vectors");
        return Ok(Outcome::Partly);
    }
    let left = match report.orphans {
        0 => String::new(),
        n => format!(", {n} vectors left over from an interruption, harmless"),
    };
    writeln!(out, "{} records and their vectors are whole{left}", report.records)?;
    Ok(Outcome::Done)
}
