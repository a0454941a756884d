//! `tintype export`, `filter`, `dedup`, `score` and `merge`: out of a library again, and several as one.

mod folder;

use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::time::Instant;

use anyhow::Context;
use clap::{Args as ClapArgs, ValueEnum, ValueHint};
use serde_json::json;
use tintype::query::Parser;
use tintype::{Encoder, Engine, Error, ExportFormat, Filter, Group, Query, Record};

use self::folder::{Folder, Placed};
use crate::args::{Common, cosine, least_score, share};
use crate::interrupt::Interrupt;
use crate::output::{Outcome, Talk, count, mistake, printable};
use crate::progress::{Meter, Unit};
use crate::update::duration;
use crate::{answer, library, output};

/// `tintype export`.
#[derive(Debug, ClapArgs)]
pub(crate) struct ExportArgs {
    /// A new or empty folder, or a new file that ends in .parquet or .jsonl
    #[arg(value_hint = ValueHint::AnyPath)]
    out: PathBuf,
    /// Filters that photos must pass, as in `search`; all without
    #[arg(value_name = "FILTER")]
    query: Vec<String>,
    /// What to write, where the name does not say it
    #[arg(long, value_name = "FORMAT")]
    format: Option<Format>,
}

/// What an export writes.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    /// A folder as clip-retrieval has it: img_emb/*.npy (float16), metadata/*.parquet.
    ClipRetrieval,
    /// One Parquet file with a column of vectors.
    Parquet,
    /// One JSON object a line, vectors included.
    Jsonl,
}

/// `tintype filter`.
#[derive(Debug, ClapArgs)]
pub(crate) struct FilterArgs {
    /// What to look for, as in `search`
    #[arg(required = true, value_name = "QUERY")]
    query: Vec<String>,
    /// Where the pictures go; made if it is not there
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    out: PathBuf,
    /// Links instead of copies, for pictures that have a file of their own
    #[arg(long)]
    link: bool,
    /// Only photos with at least this score
    #[arg(long, value_name = "SCORE", allow_negative_numbers = true, value_parser = least_score)]
    min_score: Option<f32>,
    /// At most so many photos [default: 100, or with --min-score all that have it]
    #[arg(long, short = 't', value_name = "N")]
    limit: Option<usize>,
}

/// `tintype dedup`.
#[derive(Debug, ClapArgs)]
pub(crate) struct DedupArgs {
    /// Filters that photos must pass, as in `search`; all without
    #[arg(value_name = "FILTER")]
    query: Vec<String>,
    /// From which likeness on, 0 to 1, two photos are nearly the same
    #[arg(long, value_name = "COSINE", default_value_t = 0.94, value_parser = share)]
    threshold: f32,
    /// One JSON object per group and line
    #[arg(long)]
    json: bool,
    /// Also write a page that shows the groups
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    html: Option<PathBuf>,
}

/// `tintype score`.
#[derive(Debug, ClapArgs)]
pub(crate) struct ScoreArgs {
    /// Filters that photos must pass, as in `search`; all without
    #[arg(value_name = "FILTER")]
    query: Vec<String>,
    /// Only pairs with at least this score
    #[arg(long, value_name = "SCORE", allow_negative_numbers = true, value_parser = cosine)]
    threshold: Option<f32>,
    /// Write to this new file (.jsonl or .parquet) instead of to the terminal
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    out: Option<PathBuf>,
}

/// `tintype merge`.
#[derive(Debug, ClapArgs)]
pub(crate) struct MergeArgs {
    /// Libraries, which stay as they are
    #[arg(required = true, value_name = "LIBRARY", value_hint = ValueHint::DirPath)]
    parts: Vec<PathBuf>,
    /// The library that gets everything; made if it is not there
    #[arg(long, value_name = "LIBRARY", value_hint = ValueHint::DirPath)]
    into: PathBuf,
}

/// The filters of a command line that must have nothing to rank by.
fn filter(words: &[String], talk: &Talk) -> anyhow::Result<Result<Filter, Outcome>> {
    let text = words.join(" ");
    match parse(&text, talk) {
        Err(outcome) => Ok(Err(outcome)),
        Ok(query) if query.parts.is_empty() => Ok(Ok(query.filter)),
        Ok(_) => Err(mistake(
            "only filters can stand here, such as where:\"width > 500\" or in:FOLDER; `search` looks for words",
        )),
    }
}

fn parse(text: &str, talk: &Talk) -> Result<Query, Outcome> {
    let parser = match dirs::home_dir() {
        Some(home) => Parser::new().home(home),
        None => Parser::new(),
    };
    parser.parse(text).map_err(|error| {
        output::point_at(&error, text, talk);
        Outcome::Usage
    })
}

/// Writes photos with their vectors for other programs.
pub(crate) fn export(args: &ExportArgs, common: &Common, talk: &Talk) -> anyhow::Result<Outcome> {
    let filter = match filter(&args.query, talk)? {
        Ok(filter) => filter,
        Err(outcome) => return Ok(outcome),
    };
    let extension = args.out.extension().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    let format = match (args.format, extension.as_str()) {
        (Some(Format::ClipRetrieval), _) => ExportFormat::ClipRetrieval,
        (Some(Format::Parquet), _) | (None, "parquet") => ExportFormat::Parquet,
        (Some(Format::Jsonl), _) | (None, "jsonl" | "ndjson") => ExportFormat::JsonLines,
        (None, "csv" | "tsv" | "json" | "txt" | "npy" | "npz" | "tar") => {
            let out = printable(&args.out.display().to_string());
            return Err(mistake(format!("{out}: exports are folders, .parquet or .jsonl files")));
        }
        (None, _) => ExportFormat::ClipRetrieval,
    };
    let engine = library::open_without_model(common)?;
    let begun = Instant::now();
    let meter = Meter::new(talk, "writing", Unit::Samples);
    let total = engine.status()?.photos;
    let request = engine.export(format).filter(filter).on_progress(|done| meter.set(done, Some(total)));
    let exported = request.run(&args.out)?;
    drop(meter);
    if exported.captions_left_out > 0 {
        let left_out = count(exported.captions_left_out, "caption vector");
        talk.say(format_args!("{left_out} left out: not every photo has one; `tintype index --captions` makes them"));
    }
    let (rows, out) = (count(exported.rows, "photo"), printable(&args.out.display().to_string()));
    talk.say(format_args!("{rows} written to {out} in {}", duration(begun.elapsed())));
    Ok(Outcome::Done)
}

/// Copies or links what fits a query.
pub(crate) fn filter_out(args: &FilterArgs, common: &Common, talk: &Talk) -> anyhow::Result<Outcome> {
    let query = match parse(&args.query.join(" "), talk) {
        Ok(query) => query,
        Err(outcome) => return Ok(outcome),
    };
    let engine = library::open_existing(common, talk)?;
    let limit = match (args.limit, args.min_score) {
        (Some(limit), _) => limit,
        (None, None) => 100,
        (None, Some(_)) => usize::try_from(engine.status()?.photos)?,
    };
    let mut search = engine.search(query).limit(limit);
    if let Some(score) = args.min_score {
        search = search.min_score(score);
    }
    let hits = search.run()?;
    let mut folder = Folder::open(&args.out, args.link)?;
    let (mut copied, mut linked, mut there, mut outcome) = (0, 0, 0, Outcome::Done);
    let mut out = io::stdout().lock();
    for hit in &hits {
        match folder.place(&engine, hit) {
            Ok((placed, to)) => {
                *match placed {
                    Placed::Copied => &mut copied,
                    Placed::Linked => &mut linked,
                    Placed::There => &mut there,
                } += 1;
                writeln!(out, "{:.4}\t{}", hit.score, printable(&to.display().to_string()))?;
            }
            Err(error) => {
                outcome = Outcome::Partly;
                let path = printable(&hit.record.place_of_picture().display().to_string());
                talk.say(format_args!("{} {path}: {error:#}", talk.palette.yellow("skipped")));
            }
        }
    }
    let what = match (linked, copied) {
        (0, copied) => format!("{} copied", count(copied, "photo")),
        (linked, 0) => format!("{} linked", count(linked, "photo")),
        (linked, copied) => format!("{} linked and {copied} copied", count(linked, "photo")),
    };
    let there = if there > 0 { format!(", {there} were there already") } else { String::new() };
    talk.say(format_args!("{what} to {}{there}", printable(&args.out.display().to_string())));
    Ok(outcome)
}

/// Groups photos that are nearly the same, and says which one to keep. Deletes nothing.
pub(crate) fn dedup(args: &DedupArgs, common: &Common, talk: &Talk) -> anyhow::Result<Outcome> {
    let filter = match filter(&args.query, talk)? {
        Ok(filter) => filter,
        Err(outcome) => return Ok(outcome),
    };
    let engine = library::open_without_model(common)?;
    let begun = Instant::now();
    let meter = Meter::new(talk, "comparing", Unit::Photos);
    let request = engine.duplicates().threshold(args.threshold).filter(filter);
    let groups = request.on_progress(|done, total| meter.set(done, Some(total))).run()?;
    drop(meter);
    let mut out = BufWriter::new(io::stdout().lock());
    for group in &groups {
        if args.json {
            let others: Vec<_> = group.others.iter().map(|(record, score)| about(record, Some(*score))).collect();
            writeln!(out, "{}", json!({"keep": about(&group.keep, None), "others": others}))?;
        } else {
            writeln!(out, "{}", printable(&group.keep.place_of_picture().display().to_string()))?;
            for (record, score) in &group.others {
                writeln!(out, "  {score:.3}  {}", printable(&record.place_of_picture().display().to_string()))?;
            }
        }
    }
    out.flush()?;
    if let Some(file) = &args.html {
        let page = answer::groups(&groups, &engine);
        std::fs::write(file, page).with_context(|| format!("cannot write {}", file.display()))?;
        talk.say(format_args!("page written to {}", file.display()));
    }
    let more: usize = groups.iter().map(|group: &Group| group.others.len()).sum();
    let (groups, more) = (count(groups.len() as u64, "group"), count(more as u64, "photo"));
    talk.say(format_args!("{groups} in {}; {more} could go, and nothing was deleted", duration(begun.elapsed())));
    Ok(Outcome::Done)
}

fn about(record: &Record, score: Option<f32>) -> serde_json::Value {
    json!({
        "path": record.path.display().to_string(),
        "link": record.link,
        "key": record.key,
        "width": record.width,
        "height": record.height,
        "size": record.size,
        "hash": record.hash,
        "similarity": score,
    })
}

/// Says how well each caption fits its picture.
pub(crate) fn score(args: &ScoreArgs, common: &Common, talk: &Talk) -> anyhow::Result<Outcome> {
    let filter = match filter(&args.query, talk)? {
        Ok(filter) => filter,
        Err(outcome) => return Ok(outcome),
    };
    let engine = library::open_existing(common, talk)?;
    let meter = Meter::new(talk, "scoring", Unit::Photos);
    let total = engine.status()?.photos;
    let mut request = engine.score_captions().filter(filter).on_progress(|done| meter.set(done, Some(total)));
    if let Some(least) = args.threshold {
        request = request.threshold(least);
    }
    let scored = match &args.out {
        Some(out) => request.write(out)?,
        None => {
            let mut out = BufWriter::new(io::stdout().lock());
            let mut broken = None;
            let scored = request.run(|pair| {
                // A reader that has seen enough is nothing to report, but the rest need not be scored.
                match writeln!(out, "{}", pair.to_json()) {
                    Ok(()) => Ok(()),
                    Err(error) => {
                        broken = Some(error);
                        Err(Error::Cancelled)
                    }
                }
            });
            match broken {
                Some(error) => return Err(error.into()),
                None => {
                    out.flush()?;
                    scored?
                }
            }
        }
    };
    drop(meter);
    talk.say(format_args!("{} of {} kept", scored.kept, count(scored.pairs, "caption")));
    Ok(Outcome::Done)
}

/// Joins libraries.
pub(crate) fn merge(args: &MergeArgs, common: &Common, talk: &Talk) -> anyhow::Result<Outcome> {
    let begun = Instant::now();
    let common = Common { library: Some(args.into.clone()), ..common.clone() };
    let engine = match Engine::space(&args.into) {
        // No model is needed to copy vectors: the space is enough.
        Ok(space) => Engine::open(&args.into, Encoder::declared(space))?,
        Err(Error::NoLibrary { .. }) => {
            // Nothing is made where a part is missing.
            args.parts.iter().try_for_each(|part| Engine::space(part).map(drop))?;
            let space = Engine::space(&args.parts[0])?;
            library::copy_notes(&args.parts[0], &args.into)?;
            Engine::create(library::directory(&common)?, Encoder::declared(space))?
        }
        Err(error) => return Err(error.into()),
    };
    let interrupt = Interrupt::listen()?;
    let meter = Meter::new(talk, "merging", Unit::Samples);
    let request = engine.merge(&args.parts).cancel(|| interrupt.asked());
    let report = request.on_progress(|progress| meter.set(progress.done, Some(progress.found))).run();
    drop(meter);
    let report = report?;
    let there = if report.unchanged > 0 { format!(", {} were there already", report.unchanged) } else { String::new() };
    talk.say(format_args!("{} taken over in {}{there}", count(report.added, "photo"), duration(begun.elapsed())));
    Ok(Outcome::Done)
}
