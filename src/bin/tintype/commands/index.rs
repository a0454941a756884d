//! `tintype index`.

use std::path::PathBuf;

use crate::args::{Common, IndexArgs};
use crate::interrupt::Interrupt;
use crate::output::{Outcome, Talk, count};
use crate::{library, update};

/// Takes folders into the library; without any, those that were taken in before.
pub(crate) fn run(args: &IndexArgs, common: &Common, talk: &Talk) -> anyhow::Result<Outcome> {
    let engine = if args.paths.is_empty() {
        library::open_existing(common, talk)?
    } else {
        library::open_or_create(&args.paths, common, talk)?
    };
    let paths: Vec<PathBuf> = match args.paths.as_slice() {
        [] => update::known_folders(&engine, talk)?,
        paths => paths.to_vec(),
    };
    let interrupt = Interrupt::listen()?;
    let report = update::update(&engine, &paths, &args.walk, &interrupt, talk)?;
    let outcome = update::tell_skipped(&report.skipped, args.walk.verbose, talk);
    let status = engine.status()?;
    talk.say(format_args!("{} can be searched, described by {}", count(status.photos, "photo"), status.space.model));
    Ok(outcome)
}
