//! `tintype models`: which there are, fetching one, choosing one, measuring one, adding one of your own.

mod list;

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Subcommand, ValueHint};
use tintype::eval::BadSample;
use tintype::model::cpu::remove_packed;
use tintype::model::hub::{locate, locate_any};
use tintype::model::registry::find;
use tintype::{Encode, Engine, Error};

use crate::added::{self, Place};
use crate::args::{Arithmetic, Common};
use crate::fetch::{fetch, fetch_added, hub, size, tell_terms};
use crate::interrupt::Interrupt;
use crate::library::{self, BUILTIN};
use crate::output::{Outcome, Talk, count, printable};
use crate::progress::{Meter, Unit};
use crate::speed;
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
        /// `builtin`, a name that `tintype models` lists, a model's directory or file, or a file that `tintype adapt` has written
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
    /// Give a name to a model of your own: a directory, or any repository of the hub with a CLIP-like model
    Add {
        /// A model's directory, or OWNER/NAME on the hub, or OWNER/NAME@REVISION
        #[arg(value_name = "DIR|REPO", value_hint = ValueHint::DirPath)]
        place: String,
        /// What to call it [default: after the directory or repository]
        #[arg(long, value_name = "NAME")]
        name: Option<String>,
    },
    /// Forget the name of a model of your own; its files stay where they are, what was packed of them is deleted
    Remove {
        /// A name that `tintype models add` gave
        #[arg(value_name = "NAME")]
        name: String,
    },
    /// Measure how fast a model is on this machine, for the list
    Bench {
        /// `builtin`, a name that `tintype models` lists, or a model's directory [default: the model in use]
        #[arg(value_name = "NAME|DIR", value_hint = ValueHint::DirPath)]
        choice: Option<String>,
        /// Seconds for pictures, and as many for texts
        #[arg(long, value_name = "SECONDS", default_value_t = 3.0)]
        seconds: f64,
        /// Print one JSON object
        // Not named `json`: the list has an option of that name.
        #[arg(long = "json")]
        as_json: bool,
    },
}

/// Runs `tintype models`.
pub(crate) fn run(args: &ModelsArgs, common: &Common, talk: &Talk) -> anyhow::Result<Outcome> {
    match &args.command {
        None => list::list(args.json, common, talk),
        Some(ModelsCommand::Fetch { name }) => {
            let directory = match added::find(name)? {
                Some(place) => fetch_added(name, &place, &hub()?, talk)?,
                None => fetch(find(name)?, &hub()?, talk)?,
            };
            writeln!(io::stdout(), "{}", directory.display())?;
            Ok(Outcome::Done)
        }
        Some(ModelsCommand::Use { choice, background }) => switch(choice, *background, None, common, talk),
        Some(ModelsCommand::Path { name }) => {
            let Some(directory) = here(name)? else {
                anyhow::bail!("{name} is not on this machine; `tintype models fetch {name}` downloads it");
            };
            writeln!(io::stdout(), "{}", directory.display())?;
            Ok(Outcome::Done)
        }
        Some(ModelsCommand::Add { place, name }) => add(place, name.as_deref(), common, talk),
        Some(ModelsCommand::Remove { name }) => remove(name, common, talk),
        Some(ModelsCommand::Bench { choice, seconds, as_json }) => {
            bench(choice.as_deref(), *seconds, *as_json, common, talk)
        }
    }
}

/// The directory of a model that is on this machine.
fn here(name: &str) -> anyhow::Result<Option<PathBuf>> {
    let hub = hub()?;
    Ok(match added::find(name)? {
        Some(Place::Directory(directory)) => Some(directory).filter(|directory| directory.exists()),
        Some(place) => place.sources().and_then(|sources| locate_any(&sources, &hub)),
        None => locate(find(name)?, &hub),
    })
}

/// Forgets the name of a model of the user's own, and deletes what was packed of it.
fn remove(name: &str, common: &Common, talk: &Talk) -> anyhow::Result<Outcome> {
    let directory = if added::find(name)?.is_some() { here(name)? } else { None };
    if !added::remove(name)? {
        anyhow::bail!("{name} is no model of your own; `tintype models` lists them");
    }
    let options = library::options(common);
    // A model that cannot be loaded any more has no fingerprint to find packed weights by.
    let encoder = directory.and_then(|directory| tintype::Encoder::load_with(directory, &options).ok());
    let freed = match (&encoder, &options.cache) {
        (Some(encoder), Some(cache)) => remove_packed(cache, &encoder.space().fingerprint),
        _ => 0,
    };
    match freed {
        0 => talk.say(format_args!("{name} is forgotten; its files stay where they are")),
        _ => talk.say(format_args!(
            "{name} is forgotten; its files stay where they are, {} of weights packed for this processor are deleted",
            size(freed)
        )),
    }
    Ok(Outcome::Done)
}

/// Notes a model of the user's own. A directory is loaded once, so that what cannot be used is said now.
fn add(place: &str, name: Option<&str>, common: &Common, talk: &Talk) -> anyhow::Result<Outcome> {
    let place = Place::of(place)?;
    let name = name.map_or_else(|| place.default_name(), str::to_owned);
    let known = match &place {
        Place::Repository(_) => place.sources().and_then(|sources| find(&sources[0].repository).ok()),
        Place::Directory(directory) => {
            tintype::Encoder::load_with(directory, &library::options(common))?;
            None
        }
    };
    if let Some(model) = known {
        talk.say(format_args!("{place_name} is known as {}", model.alias, place_name = model.sources[0].repository));
    }
    added::add(&name, place)?;
    if let Some(model) = known {
        tell_terms(&name, model.licence, talk);
    }
    talk.say(format_args!("`tintype models use {name}` lets the library answer with it"));
    writeln!(io::stdout(), "{name}")?;
    Ok(Outcome::Done)
}

/// Measures a model and notes it.
fn bench(choice: Option<&str>, seconds: f64, json: bool, common: &Common, talk: &Talk) -> anyhow::Result<Outcome> {
    let choice = match choice {
        Some(choice) => choice.to_owned(),
        None => library::chosen(common)?.unwrap_or_else(|| BUILTIN.to_owned()),
    };
    let time = Duration::try_from_secs_f64(seconds).context("--seconds takes a number of seconds")?;
    let encoder = library::load(&choice, &library::options(common), talk)?;
    talk.say(format_args!("measuring {choice} for {:.0} seconds", 2.0 * seconds));
    let speed = speed::measure(&encoder, common, time)?;
    let name = find(&choice).map_or(choice, |model| model.alias.to_owned());
    speed::note(&name, speed.clone())?;
    if json {
        writeln!(io::stdout(), "{}", serde_json::to_string(&speed)?)?;
    } else {
        let speed::Speed { pictures, texts, threads, precision, device } = speed;
        let threads = if threads == 1 { "1 thread".to_owned() } else { format!("{threads} threads") };
        writeln!(
            io::stdout(),
            "{name}: {pictures:.1} pictures and {texts:.1} texts per second on {device}, {threads}, precision {precision}"
        )?;
    }
    Ok(Outcome::Done)
}

/// Switches the library to another model, or makes an empty one with it.
pub(crate) fn switch(
    choice: &str,
    background: bool,
    interrupt: Option<Interrupt>,
    common: &Common,
    talk: &Talk,
) -> anyhow::Result<Outcome> {
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
    // A process listens once.
    let interrupt = interrupt.map_or_else(Interrupt::listen, Ok)?;
    let meter = Meter::new(talk, format!("reading photos with {choice}"), Unit::Photos);
    let switch = engine.switch(encoder).cancel(|| interrupt.asked());
    let report = switch.on_progress(|progress| meter.set(progress.done, Some(progress.found))).run();
    drop(meter);
    match report {
        Ok(report) => {
            let outcome = tell_skipped(&report.skipped, false, talk);
            if report.projected > 0 {
                talk.say(format_args!("{} taken over without being read", count(report.projected, "photo")));
            }
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

/// Samples of a dataset that were left out, one a line.
pub(crate) fn tell_bad(samples: &[BadSample], talk: &Talk) -> Outcome {
    for sample in samples {
        let path = printable(&sample.path.display().to_string());
        let reason = printable(&sample.error.to_string());
        // Errors of files name the file themselves.
        let line = if reason.starts_with(&path) { reason } else { format!("{path}: {reason}") };
        talk.say(format_args!("{} {line}", talk.palette.yellow("skipped")));
    }
    if samples.is_empty() { Outcome::Done } else { Outcome::Partly }
}

/// Starts this program once more to switch the library, apart from this terminal, and returns where it writes what it says.
/// The model has been fetched and loaded by now, so what can go wrong early has been said here.
fn switch_apart(choice: &str, directory: &Path, common: &Common) -> anyhow::Result<PathBuf> {
    let log = directory.join("switch.log");
    let file = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("--library").arg(directory).args(["models", "use", choice]);
    command.args(["--precision", &common.precision.name(), "--device", &common.device_name()]);
    if common.lenient {
        command.arg("--lenient");
    }
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(file);
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    command.spawn().context("cannot start another process")?;
    Ok(log)
}
