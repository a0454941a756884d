//! Bringing a library up to date, with progress, and telling what came of it.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tintype::model::registry::find;
use tintype::{Engine, Error, Report, Skipped};

use crate::args::{Bounds, WalkArgs};
use crate::interrupt::Interrupt;
use crate::library;
use crate::output::{Outcome, Talk, count, printable};
use crate::progress::{Meter, Unit, photo_rate};

/// So many unreadable files are listed on a terminal.
const LISTED: usize = 10;

/// The folders of photos that the library knows and that are there now; collections are brought up to date by `index` alone.
pub(crate) fn known_folders(engine: &Engine, talk: &Talk) -> Result<Vec<PathBuf>, Error> {
    let mut paths = known_roots(engine, talk)?;
    paths.retain(|path| tintype::collection::detect(path, None).is_none());
    Ok(paths)
}

/// All that was indexed and is there now.
pub(crate) fn known_roots(engine: &Engine, talk: &Talk) -> Result<Vec<PathBuf>, Error> {
    let mut paths = Vec::new();
    for root in engine.status()?.roots {
        if root.path.exists() {
            paths.push(root.path);
        } else {
            let folder = printable(&root.path.display().to_string());
            talk.say(format_args!("{folder} is not there now; what the library knows of it stays as it is"));
        }
    }
    Ok(paths)
}

/// Runs an ingest of `paths`.
///
/// # Errors
/// `Error::Cancelled` after Ctrl-C, when it has been said what is kept.
pub(crate) fn update(
    engine: &Engine,
    paths: &[PathBuf],
    walk: &WalkArgs,
    bounds: &Bounds,
    interrupt: &Interrupt,
    talk: &Talk,
) -> Result<Report, Error> {
    let begun = Instant::now();
    let meter = Meter::new(talk, "reading photos", Unit::Photos);
    let mut embedded = 0;
    let mut ingest = engine.ingest(paths).hidden(walk.hidden);
    for pattern in &walk.exclude {
        ingest = ingest.exclude(pattern);
    }
    for name in &walk.exclude_dir {
        ingest = ingest.exclude(format!("{name}/"));
    }
    if let Some(part) = bounds.shard {
        ingest = ingest.part(part);
    }
    if let Some(bytes) = bounds.memory() {
        ingest = ingest.memory(bytes);
    }
    let ingest = ingest.cancel(|| interrupt.asked()).on_progress(|progress| {
        embedded = progress.embedded;
        meter.set(progress.done, progress.walked.then_some(progress.found));
    });
    let result = ingest.run();
    drop(meter);
    match &result {
        Ok(report) => summary(engine, report, begun.elapsed(), talk),
        Err(Error::Cancelled) => {
            talk.say(format_args!("stopped; {} kept, the next run goes on from there", count(embedded, "new photo")));
        }
        Err(_) => {}
    }
    result
}

fn summary(engine: &Engine, report: &Report, took: Duration, talk: &Talk) {
    let counts = [
        (report.added, "new"),
        (report.changed, "changed"),
        (report.moved, "moved"),
        (report.returned, "back again"),
        (report.gone, "gone"),
    ];
    let said: Vec<String> = counts.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}")).collect();
    if said.is_empty() {
        return;
    }
    let rate = report.embedded as f64 / took.as_secs_f64().max(1e-3);
    let speed = if report.embedded > 0 { format!(" ({})", photo_rate(rate)) } else { String::new() };
    talk.say(format_args!("photos: {} in {}{speed}", said.join(", "), duration(took)));
    if report.first && engine.encoder().space().model.starts_with(library::BUILTIN) {
        talk.say(talk.palette.dim(full_model()));
    }
}

/// Of a hundred captions, those whose photo the built-in model ranks among the first ten of a thousand (its model card:
/// Flickr8k test, shipped weights, 56.97). The figure of a full CLIP is the registry's, for Flickr30k test.
const BUILTIN_RECALL: u32 = 57;

/// What a full CLIP would bring and cost; said once.
fn full_model() -> String {
    let small = format!(
        "described by the small built-in model: of 100 captions, it has the photo of {BUILTIN_RECALL} among its first 10 of 1000"
    );
    match find("vit-b-32-laion2b").map(|model| (model, model.scores.flickr30k)) {
        Ok((model, Some([.., tenth]))) => format!(
            "{small}; a full CLIP of {tenth:.0} on a like test (`tintype models use {}`: {:.0} MB, licence {})",
            model.alias,
            model.download_size() as f64 / 1e6,
            model.licence.spdx(),
        ),
        _ => small,
    }
}

/// Whether a file was found unreadable by this very run.
pub(crate) fn is_news(skipped: &Skipped) -> bool {
    !matches!(skipped.error, Error::StillUnreadable { .. })
}

/// One line per file that could not be read; a long list is cut on a terminal.
pub(crate) fn tell_skipped<'a>(skipped: impl IntoIterator<Item = &'a Skipped>, verbose: bool, talk: &Talk) -> Outcome {
    let mut skipped: Vec<&Skipped> = skipped.into_iter().collect();
    skipped.sort_by(|a, b| a.path.cmp(&b.path));
    let listed = if verbose || !talk.is_terminal() { skipped.len() } else { LISTED.min(skipped.len()) };
    for Skipped { path, error, .. } in &skipped[..listed] {
        talk.say(format_args!("{} {}", talk.palette.yellow("skipped"), reason(path, error)));
    }
    if listed < skipped.len() {
        let more = skipped.len() - listed;
        talk.say(format_args!("… and {more} more that cannot be read; --verbose lists them all"));
    }
    if skipped.is_empty() { Outcome::Done } else { Outcome::Partly }
}

/// The path once, then the reason; many errors begin with the path themselves.
fn reason(path: &Path, error: &Error) -> String {
    let (path, error) = (path.display().to_string(), error.to_string());
    let reason = error.strip_prefix(&path).and_then(|rest| rest.strip_prefix(": ")).unwrap_or(&error);
    printable(&format!("{path}: {reason}"))
}

/// `850 ms`, `12.3 s`, `4 min 5 s`.
pub(crate) fn duration(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0 => format!("{} ms", time.as_millis()),
        1..60 => format!("{:.1} s", time.as_secs_f64()),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
    }
}
