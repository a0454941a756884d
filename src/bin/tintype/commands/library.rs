//! `tintype status`, `tintype remove` and `tintype verify`.

use std::io::{self, Write};

use indicatif::HumanBytes;
use serde::Serialize;
use tintype::{Engine, Error, Source};

use crate::args::{Common, RemoveArgs, StatusArgs};
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
        let Source { items, complete, .. } = *source;
        SourceLine { path: source.path.display().to_string(), kind: source.kind.name(), items, complete }
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
        writeln!(
            out,
            "{label:<11} {} ({}, {}{state})",
            printable(&source.path),
            source.kind,
            count(source.items, "photo")
        )?;
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
    let engine = library::open_existing(common, talk)?;
    let forgotten = engine.remove(&args.paths)?;
    if forgotten == 0 {
        talk.line("the library knows no photos there");
        return Ok(Outcome::Partly);
    }
    talk.say(format_args!("{} taken out of the library; the files are where they were", count(forgotten, "photo")));
    Ok(Outcome::Done)
}

/// Checks every byte.
pub(crate) fn verify(common: &Common, talk: &Talk) -> anyhow::Result<Outcome> {
    let engine = library::open_existing(common, talk)?;
    let report = engine.verify()?;
    let mut out = io::stdout().lock();
    for problem in &report.catalog {
        writeln!(out, "catalog: {}", printable(problem))?;
    }
    for problem in &report.index.problems {
        writeln!(out, "index: {}", printable(&problem.to_string()))?;
    }
    for path in &report.missing {
        writeln!(out, "no vector: {}", printable(&path.display().to_string()))?;
    }
    if !report.is_clean() {
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
