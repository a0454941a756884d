//! `tintype models`.

use clap::Args;

use crate::args::Common;
use crate::output::{Outcome, Talk};

/// `tintype models`.
#[derive(Debug, Args)]
pub(crate) struct ModelsArgs {}

/// To be written.
pub(crate) fn run(_args: &ModelsArgs, _common: &Common, _talk: &Talk) -> anyhow::Result<Outcome> {
    anyhow::bail!("not yet")
}
