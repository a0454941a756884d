//! `tintype models`: which there are, fetching one, choosing one.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::Context;
use clap::{Args, Subcommand, ValueEnum, ValueHint};
use serde::Serialize;
use tintype::model::Device;
use tintype::model::hub::locate;
use tintype::model::registry::{MODELS, Model, find};
use tintype::{Encode, Encoder, Engine, Error};

use crate::args::{Arithmetic, Common};
use crate::fetch::{fetch, hub, size};
use crate::interrupt::Interrupt;
use crate::library::{self, BUILTIN};
use crate::output::{Outcome, Talk, printable};
use crate::progress::{Meter, Unit};
use crate::update::tell_skipped;

/// `tintype models`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct ModelsArgs {
    #[command(subcommand)]
    command: Option<ModelsCommand>,
    /// One JSON object per model and line
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum ModelsCommand {
    /// Download a model without using it yet
    Fetch {
        /// A name that `tintype models` lists
        #[arg(value_name = "NAME")]
        name: String,
    },
    /// Let the library answer with another model; all photos are read again, and can be searched meanwhile
    Use {
        /// `builtin`, a name that `tintype models` lists, or a model's directory
        // Not named `model`: clap would take it for the global `--model` as well.
        #[arg(value_name = "NAME|DIR", value_hint = ValueHint::DirPath)]
        choice: String,
        /// Return at once and read the photos in another process
        #[arg(long)]
        background: bool,
    },
    /// Print the directory of a model that is on this machine
    Path {
        /// A name that `tintype models` lists
        #[arg(value_name = "NAME")]
        name: String,
    },
}

/// Runs `tintype models`.
pub(crate) fn run(args: &ModelsArgs, common: &Common, talk: &Talk) -> anyhow::Result<Outcome> {
    match &args.command {
        None => list(args.json, common, talk),
        Some(ModelsCommand::Fetch { name }) => {
            let directory = fetch(find(name)?, &hub()?, talk)?;
            writeln!(io::stdout(), "{}", directory.display())?;
            Ok(Outcome::Done)
        }
        Some(ModelsCommand::Use { choice, background }) => switch(choice, *background, common, talk),
        Some(ModelsCommand::Path { name }) => {
            let model = find(name)?;
            let Some(directory) = locate(model, &hub()?) else {
                anyhow::bail!("{} is not on this machine; `tintype models fetch {0}` downloads it", model.alias);
            };
            writeln!(io::stdout(), "{}", directory.display())?;
            Ok(Outcome::Done)
        }
    }
}

/// A line of `tintype models --json`.
#[derive(Serialize)]
struct Line {
    /// What `--model` and `tintype models use` take.
    name: String,
    summary: &'static str,
    /// Whether the library answers with it.
    in_use: bool,
    /// Whether it can be used without a download.
    here: bool,
    /// Its directory on this machine.
    path: Option<PathBuf>,
    /// Where it is published.
    repository: Option<&'static str>,
    /// Bytes to download, within a few percent.
    download_bytes: Option<u64>,
    dimensions: Option<usize>,
    image_size: Option<usize>,
    parameters: Option<u64>,
    /// SPDX identifier.
    licence: Option<&'static str>,
    /// What the licence means in plain words.
    terms: &'static str,
    /// Whether the licence allows commercial use.
    commercial_use: Option<bool>,
    /// Published scores in percent.
    scores: Option<ScoresLine>,
}

#[derive(Serialize)]
struct ScoresLine {
    imagenet_top1: f32,
    flickr30k_text_to_image_recall_1_5_10: [f32; 3],
    coco_text_to_image_recall_1_5: [f32; 2],
}

/// The built-in model first, then the known ones, then a directory that the library uses.
fn lines(used: Option<&str>) -> anyhow::Result<Vec<Line>> {
    let hub = hub()?;
    let builtin = Line {
        name: BUILTIN.to_owned(),
        summary: "the small model inside this program: a starter, English only, everyday scenes",
        in_use: used == Some(BUILTIN),
        here: true,
        path: None,
        repository: None,
        download_bytes: None,
        dimensions: Some(Encoder::builtin()?.space().dim),
        image_size: None,
        parameters: None,
        licence: None,
        terms: "a starter and test model, learnt from photo sets whose terms limit the photos to research or to their owners",
        commercial_use: None,
        scores: None,
    };
    let known = |model: &'static Model| {
        let path = locate(model, &hub);
        Line {
            name: model.alias.to_owned(),
            summary: model.summary,
            in_use: used.is_some_and(|used| find(used).is_ok_and(|used| used.alias == model.alias)),
            here: path.is_some(),
            path,
            repository: Some(model.sources[0].repository),
            download_bytes: Some(model.download_size()),
            dimensions: Some(model.dim),
            image_size: Some(model.image_size),
            parameters: Some(model.parameters()),
            licence: Some(model.licence.spdx()),
            terms: model.licence.in_plain_words(),
            commercial_use: Some(!model.licence.restricts_use()),
            scores: Some(ScoresLine {
                imagenet_top1: model.scores.imagenet,
                flickr30k_text_to_image_recall_1_5_10: model.scores.flickr30k,
                coco_text_to_image_recall_1_5: model.scores.coco,
            }),
        }
    };
    let mut lines = vec![builtin];
    lines.extend(MODELS.iter().map(known));
    if let Some(directory) = used.filter(|_| lines.iter().all(|line| !line.in_use)) {
        lines.push(Line {
            name: directory.to_owned(),
            summary: "a directory of your own",
            in_use: true,
            here: Path::new(directory).is_dir(),
            path: Some(directory.into()),
            repository: None,
            download_bytes: None,
            dimensions: None,
            image_size: None,
            parameters: None,
            licence: None,
            terms: "its own",
            commercial_use: None,
            scores: None,
        });
    }
    Ok(lines)
}

fn list(json: bool, common: &Common, talk: &Talk) -> anyhow::Result<Outcome> {
    let lines = lines(library::chosen(common)?.as_deref())?;
    let mut out = io::stdout().lock();
    if json {
        for line in &lines {
            writeln!(out, "{}", serde_json::to_string(line)?)?;
        }
        return Ok(Outcome::Done);
    }
    let paint = talk.answer;
    let width = lines.iter().map(|line| line.name.chars().count()).max().unwrap_or(0);
    let head = format!(
        "  {:width$}  {:>8}  {:11}  {:>9}  {:>8}  licence",
        "name", "download", "Flickr30k", "COCO", "ImageNet"
    );
    writeln!(out, "{}", paint.dim(head))?;
    for line in &lines {
        let mark = if line.in_use { "*" } else { " " };
        let place = match (line.here, line.download_bytes) {
            (true, _) => "here".to_owned(),
            (false, Some(bytes)) => size(bytes),
            (false, None) => "missing".to_owned(),
        };
        let scores = line.scores.as_ref().map_or_else(
            || format!("{:11}  {:>9}  {:>8}", "", "", ""),
            |scores| {
                let ([first, .., tenth], [one, five]) =
                    (scores.flickr30k_text_to_image_recall_1_5_10, scores.coco_text_to_image_recall_1_5);
                format!("{first:.1} {tenth:>6.1}  {one:.1} {five:.1}  {:>8.1}", scores.imagenet_top1)
            },
        );
        let licence = match (line.licence, line.commercial_use) {
            (Some(licence), Some(false)) => paint.yellow(format!("{licence} (no commercial use)")),
            (Some(licence), _) => licence.to_owned(),
            (None, _) => "see below".to_owned(),
        };
        let name = format!("{:width$}", printable(&line.name));
        let name = if line.here { paint.bold(name) } else { name };
        writeln!(out, "{mark} {name}  {place:>8}  {scores}  {licence}")?;
        writeln!(out, "    {}", paint.dim(line.summary))?;
    }
    let library = library::directory(common)?;
    let library = library.display();
    match lines.iter().any(|line| line.in_use) {
        true => talk.say(format_args!("* answers in {library}")),
        false => talk.say(format_args!("There is no library in {library} yet; a new one answers with {BUILTIN}.")),
    }
    talk.say(LEGEND);
    talk.say(format_args!("{BUILTIN}: {}", lines[0].terms));
    Ok(Outcome::Done)
}

const LEGEND: &str = "\
Scores as published by open_clip, in percent, higher is better. Flickr30k: captions whose photo is the first of 1000, and among
the first 10. COCO: the first of 5000, and among the first 5. ImageNet: photos named rightly out of 1000 names.";

/// Switches the library to another model, or makes an empty one with it.
fn switch(choice: &str, background: bool, common: &Common, talk: &Talk) -> anyhow::Result<Outcome> {
    let directory = library::directory(common)?;
    let encoder = library::load(choice, &library::options(common), talk)?;
    let current = match Engine::space(&directory) {
        Ok(space) => space,
        Err(Error::NoLibrary { .. }) => {
            library::note(&directory, &encoder, choice)?;
            Engine::create(&directory, encoder)?;
            talk.say(format_args!("a new, empty library in {} answers with {choice}", directory.display()));
            return Ok(Outcome::Done);
        }
        Err(error) => return Err(error.into()),
    };
    if current.fingerprint == encoder.space().fingerprint {
        talk.say(format_args!("the library answers with {choice} already"));
        return Ok(Outcome::Done);
    }
    // The precision is that of the new model; the library answers in its own meanwhile.
    let present = Common { precision: Arithmetic::Auto, ..common.clone() };
    let engine = library::open_existing(&present, talk)?;
    library::note(&directory, &encoder, choice)?;
    if background {
        let log = switch_apart(choice, &directory, common)?;
        talk.say(format_args!(
            "reading the photos with {choice} in the background; until that is done {} answers. Its report: {}",
            current.model,
            log.display()
        ));
        return Ok(Outcome::Done);
    }
    let interrupt = Interrupt::listen()?;
    let meter = Meter::new(talk, format!("reading photos with {choice}"), Unit::Photos);
    let switch = engine.switch(encoder).cancel(|| interrupt.asked());
    let report = switch.on_progress(|progress| meter.set(progress.done, Some(progress.found))).run();
    drop(meter);
    match report {
        Ok(report) => {
            let outcome = tell_skipped(&report.skipped, false, talk);
            talk.say(format_args!("the library answers with {choice} now"));
            Ok(outcome)
        }
        Err(error @ Error::Cancelled) => {
            talk.say(format_args!("stopped; the library answers as before, and `tintype models use {choice}` goes on"));
            Err(error.into())
        }
        Err(error) => Err(error.into()),
    }
}

/// Starts this program once more to switch the library, apart from this terminal, and returns where it writes what it says.
/// The model has been fetched and loaded by now, so what can go wrong early has been said here.
fn switch_apart(choice: &str, directory: &Path, common: &Common) -> anyhow::Result<PathBuf> {
    let log = directory.join("switch.log");
    let file = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("--library").arg(directory).args(["models", "use", choice]);
    let precision = common.precision.to_possible_value();
    command.args(["--precision", precision.as_ref().map_or("auto", |value| value.get_name())]);
    let device = match common.device {
        Device::Cuda(number) => format!("cuda:{number}"),
        Device::Metal(number) => format!("metal:{number}"),
        _ => "cpu".to_owned(),
    };
    command.args(["--device", &device]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(file);
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    command.spawn().context("cannot start another process")?;
    Ok(log)
}
