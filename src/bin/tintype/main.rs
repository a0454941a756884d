//! The `tintype` program: finds photos by what is in them.
//!
//! stdout is the answer, stderr is the talk. It sees the library as any other program does, through its public API.
//! Exit status: 0 done, 1 failed or done only in part, 2 a mistake in the command line or the query, 130 interrupted.

mod added;
mod answer;
mod args;
mod collections;
mod commands;
mod fetch;
mod interrupt;
mod library;
mod output;
mod progress;
mod speed;
mod update;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let args = args::Args::parse();
    let talk = output::Talk::new(args.common.color, args.common.quiet);
    match commands::run(&args, &talk) {
        Ok(outcome) => outcome.into(),
        Err(error) => output::report(&error, &talk).into(),
    }
}
