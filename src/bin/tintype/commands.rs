//! One module per command; each takes its arguments and says how it ended.

pub(crate) mod models;
mod shell;

use crate::args::{Args, Command};
use crate::output::{Outcome, Talk};

/// Runs what the command line asks for.
pub(crate) fn run(args: Args, talk: &Talk) -> anyhow::Result<Outcome> {
    match args.command {
        Command::Models(ref models) => models::run(models, &args.common, talk),
        Command::Completions { shell } => shell::completions(shell),
        Command::Man { dir } => shell::man(dir.as_deref()),
        _ => anyhow::bail!("not yet"),
    }
}
