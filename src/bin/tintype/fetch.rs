//! Models by name: where they are, and bringing them here with the terms said first and a bar while it lasts.

use std::cell::Cell;
use std::path::PathBuf;

use indicatif::{DecimalBytes, HumanDuration};
use tintype::model::hub::{Fetch, HubOptions, Stage, locate};
use tintype::model::registry::Model;

use crate::output::Talk;
use crate::progress::{Meter, Unit};

/// The cache and the hub that the environment names, as the Python tools read it.
pub(crate) fn hub() -> tintype::Result<HubOptions> {
    HubOptions::from_vars(std::env::vars_os())
}

/// The directory of a model, downloaded where it is not on this machine. Ctrl-C ends the program at any moment; the next
/// download goes on from there.
pub(crate) fn fetch(model: &Model, hub: &HubOptions, talk: &Talk) -> tintype::Result<PathBuf> {
    if let Some(directory) = locate(model, hub) {
        return Ok(directory);
    }
    let size = DecimalBytes(model.download_size());
    let terms = format!("{}: {}", model.licence.spdx(), model.licence.in_plain_words());
    if model.licence.restricts_use() {
        talk.line(format_args!("{} {}: {terms}", talk.palette.yellow("licence"), model.alias));
    }
    if !hub.offline {
        talk.say(format_args!("{}, about {size}, {terms}, into {}", model.alias, hub.cache.display()));
    }
    let meter = Meter::new(talk, format!("fetching {}", model.alias), Unit::Bytes);
    let waiting = Cell::new(false);
    let fetched = Fetch::new(model, hub).on_progress(|progress| match &progress.stage {
        Stage::Retrying { reason, pause } => {
            let file = progress.file;
            talk.say(format_args!("{file}: {reason}; trying again in {}", HumanDuration(*pause)));
        }
        Stage::Waiting if !waiting.replace(true) => talk.say("another program is downloading the same file; waiting"),
        Stage::Downloading | Stage::Checking => meter.set(progress.bytes, progress.total),
        _ => {}
    });
    fetched.run()
}
