//! Models by name: where they are, and bringing them here with the terms said first and a bar while it lasts.

use std::cell::Cell;
use std::path::PathBuf;

use indicatif::HumanDuration;
use tintype::model::hub::{Fetch, HubOptions, Stage, locate, locate_any};
use tintype::model::registry::{self, Licence, Model, Source};

use crate::added::Place;
use crate::output::Talk;
use crate::progress::{Meter, Unit};

/// The cache and the hub that the environment names, as the Python tools read it.
pub(crate) fn hub() -> tintype::Result<HubOptions> {
    HubOptions::from_vars(std::env::vars_os())
}

/// A size that is known within a few percent: `605 MB`, `1.7 GB`.
pub(crate) fn size(bytes: u64) -> String {
    let megabytes = bytes as f64 / 1e6;
    if megabytes < 1000.0 { format!("{megabytes:.0} MB") } else { format!("{:.1} GB", megabytes / 1e3) }
}

/// The directory of a model, downloaded where it is not on this machine. Ctrl-C ends the program at any moment; the next
/// download goes on from there.
pub(crate) fn fetch(model: &Model, hub: &HubOptions, talk: &Talk) -> tintype::Result<PathBuf> {
    if let Some(directory) = locate(model, hub) {
        return Ok(directory);
    }
    tell_terms(model.alias, model.licence, talk);
    if !hub.offline {
        talk.say(format_args!("downloading about {} into {}", size(model.download_size()), hub.cache.display()));
    }
    bring(model.alias, model.sources, hub, talk)
}

/// The directory of a model that the user has added, downloaded where it is not on this machine.
pub(crate) fn fetch_added(name: &str, place: &Place, hub: &HubOptions, talk: &Talk) -> tintype::Result<PathBuf> {
    let repository = match place {
        Place::Repository(repository) => repository,
        Place::Directory(directory) => return Ok(directory.clone()),
    };
    let sources = Source::of(repository);
    if let Some(directory) = locate_any(&sources, hub) {
        return Ok(directory);
    }
    match registry::find(&sources[0].repository) {
        Ok(model) => tell_terms(name, model.licence, talk),
        Err(_) => {
            // Its licence may forbid what the user is about to do.
            let page = format!("{}/{}", hub.endpoint, sources[0].repository);
            let warning = format!("{name}: its licence is not known here; read it at {page} before you use it");
            talk.line(talk.palette.yellow(warning));
        }
    }
    bring(name, &sources, hub, talk)
}

/// Says what may be done with a model; where something may not, even to those who want to hear little.
pub(crate) fn tell_terms(name: &str, licence: Licence, talk: &Talk) {
    let line = format!("{name}: {} (licence {})", licence.in_plain_words(), licence.spdx());
    match licence.restricts_use() {
        true => talk.line(talk.palette.yellow(line)),
        false => talk.say(line),
    }
}

fn bring(name: &str, sources: &[Source], hub: &HubOptions, talk: &Talk) -> tintype::Result<PathBuf> {
    let meter = Meter::new(talk, format!("fetching {name}"), Unit::Bytes);
    let waiting = Cell::new(false);
    let fetched = Fetch::of(sources, hub).on_progress(|progress| match &progress.stage {
        Stage::Retrying { reason, pause } => {
            let file = &progress.file;
            talk.say(format_args!("{file}: {reason}; trying again in {}", HumanDuration(*pause)));
        }
        Stage::Waiting if !waiting.replace(true) => talk.say("another program is downloading the same file; waiting"),
        Stage::Downloading | Stage::Checking => meter.set(progress.bytes, progress.total),
        _ => {}
    });
    fetched.run()
}
