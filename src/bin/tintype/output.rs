//! Talking to the user: stdout for the answer, stderr for everything else.

use std::fmt::Display;
use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use indicatif::MultiProgress;
use unicode_width::UnicodeWidthStr;

use crate::args::When;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// All done.
    Done,
    /// Done, but some files could not be read.
    Partly,
    /// A mistake in the command line or the query.
    Usage,
    /// Ctrl-C.
    Interrupted,
}

impl From<Outcome> for ExitCode {
    fn from(outcome: Outcome) -> Self {
        ExitCode::from(match outcome {
            Outcome::Done => 0,
            Outcome::Partly => 1,
            Outcome::Usage => 2,
            Outcome::Interrupted => 130,
        })
    }
}

/// Colours of one stream; none when the stream is no terminal.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Palette {
    on: bool,
}

impl Palette {
    fn choose(when: When, terminal: bool) -> Self {
        let on = match when {
            When::Always => true,
            When::Never => false,
            When::Auto => {
                let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
                terminal && !refused && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
            }
        };
        Self { on }
    }

    /// Whether there is any colour.
    pub(crate) fn is_on(self) -> bool {
        self.on
    }

    fn paint(self, code: &str, text: impl Display) -> String {
        if self.on { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_string() }
    }

    /// For what matters.
    pub(crate) fn bold(self, text: impl Display) -> String {
        self.paint("1", text)
    }

    /// For what matters less.
    pub(crate) fn dim(self, text: impl Display) -> String {
        self.paint("2", text)
    }

    /// For mistakes.
    pub(crate) fn red(self, text: impl Display) -> String {
        self.paint("31;1", text)
    }

    /// For warnings.
    pub(crate) fn yellow(self, text: impl Display) -> String {
        self.paint("33", text)
    }

    /// For names and places.
    pub(crate) fn cyan(self, text: impl Display) -> String {
        self.paint("36", text)
    }
}

/// The talk on stderr; bars drawn through [`Talk::bars`] stay below what is said.
#[derive(Debug)]
pub(crate) struct Talk {
    /// Colours of stderr.
    pub(crate) palette: Palette,
    /// Colours of stdout.
    pub(crate) answer: Palette,
    terminal: bool,
    quiet: bool,
    bars: MultiProgress,
}

impl Talk {
    /// Looks at the two streams.
    pub(crate) fn new(when: When, quiet: bool) -> Self {
        let terminal = io::stderr().is_terminal();
        Self {
            palette: Palette::choose(when, terminal),
            answer: Palette::choose(when, io::stdout().is_terminal()),
            terminal,
            quiet,
            bars: MultiProgress::new(),
        }
    }

    /// Whether stderr is a terminal.
    pub(crate) fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// Whether only mistakes are said.
    pub(crate) fn is_quiet(&self) -> bool {
        self.quiet
    }

    /// Where progress bars are drawn.
    pub(crate) fn bars(&self) -> &MultiProgress {
        &self.bars
    }

    /// Says a line, unless quiet.
    pub(crate) fn say(&self, line: impl Display) {
        if !self.quiet {
            self.line(line);
        }
    }

    /// Says a line even when quiet. A stderr that is gone is nothing to stop for.
    pub(crate) fn line(&self, line: impl Display) {
        self.bars.suspend(|| {
            let _ = writeln!(io::stderr().lock(), "{line}");
        });
    }
}

/// `1 photo`, `6 photos`.
pub(crate) fn count(number: u64, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

/// Text that is safe to show: control characters, which could move the cursor or worse, and marks that turn the reading
/// direction are written as escapes. File names may hold any of them.
pub(crate) fn printable(text: &str) -> String {
    let harmful = |c: char| c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    text.chars()
        .flat_map(|c| {
            c.escape_default().take(if harmful(c) { usize::MAX } else { 0 }).chain((!harmful(c)).then_some(c))
        })
        .collect()
}

/// Tells a mistake in a query, with a caret line below the place.
pub(crate) fn point_at(error: &tintype::Error, text: &str, talk: &Talk) {
    talk.line(format_args!("{} {}", talk.palette.red("error:"), printable(&error.to_string())));
    let tintype::Error::BadQuery { span, .. } = error else { return };
    let (Some(before), Some(place)) = (text.get(..span.start), text.get(span.clone())) else { return };
    if place.is_empty() {
        return;
    }
    let one_line = |text: &str| text.replace(char::is_control, " ");
    talk.line(format_args!("  {}", one_line(text)));
    let (before, place) = (one_line(before).width(), one_line(place).width().max(1));
    talk.line(format_args!("  {}{}", " ".repeat(before), talk.palette.red("^".repeat(place))));
}

/// A mistake in the command line that clap cannot see.
#[derive(Debug)]
struct Mistake(String);

impl Display for Mistake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Mistake {}

/// The error of a command line that asks for what cannot be; the program ends with [`Outcome::Usage`].
pub(crate) fn mistake(text: impl Into<String>) -> anyhow::Error {
    anyhow::Error::new(Mistake(text.into()))
}

/// Puts bytes in the place of a file: whenever the machine stops, there is the old file or the new one. Folders are made.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let write = || {
        let folder = path.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(folder)?;
        // Another process may be at it too.
        let aside = path.with_extension(format!("new{}", std::process::id()));
        let mut file = File::create(&aside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&aside, path)?;
        // A folder can be opened and synced on Unix alone.
        if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

/// Tells an error in the words of a person, and says how the program ends.
pub(crate) fn report(error: &anyhow::Error, talk: &Talk) -> Outcome {
    // Only our own writing fails without a word around it: the reader of the answer has seen enough.
    if error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe) {
        return Outcome::Done;
    }
    if let Some(tintype::Error::Cancelled) = error.downcast_ref() {
        return Outcome::Interrupted;
    }
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        // Many errors already quote their source.
        if !text.ends_with(&cause) {
            text = if text.is_empty() { cause } else { format!("{text}: {cause}") };
        }
    }
    talk.line(format_args!("{} {text}", talk.palette.red("error:")));
    if error.is::<Mistake>() {
        return Outcome::Usage;
    }
    match error.downcast_ref() {
        Some(tintype::Error::BadQuery { .. } | tintype::Error::BadPattern { .. }) => Outcome::Usage,
        _ => Outcome::Partly,
    }
}

#[cfg(test)]
mod tests {
    use super::printable;

    #[test]
    fn names_cannot_drive_the_terminal() {
        assert_eq!(printable("grün 写真.jpg"), "grün 写真.jpg");
        assert_eq!(printable("a\nb\u{1b}[2J\u{202e}gpj"), "a\\nb\\u{1b}[2J\\u{202e}gpj");
    }
}
