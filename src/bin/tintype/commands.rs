//! One module per command; each takes its arguments and says how it ended.

pub(crate) mod adapt;
pub(crate) mod curate;
pub(crate) mod eval;
mod index;
mod library;
pub(crate) mod models;
mod search;
#[cfg(feature = "server")]
pub(crate) mod serve;
mod shell;

use crate::args::{Args, Command};
use crate::output::{Outcome, Talk};

/// Runs what the command line asks for.
pub(crate) fn run(args: &Args, talk: &Talk) -> anyhow::Result<Outcome> {
    let common = &args.common;
    match &args.command {
        Command::Index(index) => index::run(index, common, talk),
        Command::Search(search) => search::search(search, common, talk),
        Command::Similar(similar) => search::similar(similar, common, talk),
        Command::Status(status) => library::status(status, common),
        Command::Models(models) => models::run(models, common, talk),
        Command::Remove(remove) => library::remove(remove, common, talk),
        #[cfg(feature = "server")]
        Command::Serve(serve) => serve::run(serve, common, talk),
        Command::Export(export) => curate::export(export, common, talk),
        Command::Filter(filter) => curate::filter_out(filter, common, talk),
        Command::Dedup(dedup) => curate::dedup(dedup, common, talk),
        Command::Score(score) => curate::score(score, common, talk),
        Command::Adapt(adapt) => adapt::run(adapt, common, talk),
        Command::Eval(eval) => eval::run(eval, common, talk),
        Command::Merge(merge) => curate::merge(merge, common, talk),
        Command::Verify(args) => library::verify(args, common, talk),
        Command::Completions { shell } => shell::completions(*shell),
        Command::Man { dir } => shell::man(dir.as_deref()),
    }
}
