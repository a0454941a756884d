//! `tintype index`.

use std::path::PathBuf;

use crate::args::{Common, IndexArgs};
use crate::interrupt::Interrupt;
use crate::output::{Outcome, Talk, count};
use crate::{collections, library, update};

/// Takes folders and collections into the library; without any, those that were taken in before.
pub(crate) fn run(args: &IndexArgs, common: &Common, talk: &Talk) -> anyhow::Result<Outcome> {
    let mut paths = Vec::new();
    for path in &args.paths {
        paths.extend(tintype::collection::expand(path)?);
    }
    let engine = if paths.is_empty() {
        library::open_existing(common, talk)?
    } else {
        collections::open(&paths, &args.collection, common, talk)?
    };
    if args.keep_features {
        engine.keep_features()?;
    }
    if args.paths.is_empty() {
        paths = update::known_roots(&engine, talk)?;
        collections::leave_out_named_columns(&mut paths, &engine, talk)?;
    }
    let (collected, folders): (Vec<PathBuf>, Vec<PathBuf>) =
        paths.into_iter().partition(|path| tintype::collection::detect(path, None).is_some());
    let interrupt = Interrupt::listen()?;
    let mut skipped = Vec::new();
    if !folders.is_empty() || collected.is_empty() {
        skipped.extend(update::update(&engine, &folders, &args.walk, &args.bounds, &interrupt, talk)?.skipped);
    }
    if !collected.is_empty() {
        skipped.extend(
            collections::take_in(&engine, &collected, &args.collection, &args.bounds, &interrupt, talk)?.skipped,
        );
    }
    let outcome = update::tell_skipped(&skipped, args.walk.verbose, talk);
    if args.collection.captions || engine.status()?.caption_vectors > 0 {
        collections::embed_captions(&engine, &interrupt, talk)?;
    }
    let status = engine.status()?;
    talk.say(format_args!("{} can be searched, described by {}", count(status.photos, "photo"), status.space.model));
    Ok(outcome)
}
