//! Progress: a bar on a terminal, a plain line every few seconds elsewhere.

use std::cell::Cell;
use std::fmt;
use std::time::{Duration, Instant};

use indicatif::{HumanBytes, HumanDuration, ProgressBar, ProgressState, ProgressStyle};

use crate::output::Talk;

/// Between plain lines.
const PLAIN_INTERVAL: Duration = Duration::from_secs(10);

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    /// Photos.
    Photos,
    /// Samples of a collection.
    Samples,
    /// Bytes of a download.
    Bytes,
}

/// One running piece of work. Nothing is shown when quiet; the bar vanishes with the value.
#[derive(Debug)]
pub(crate) struct Meter<'a> {
    talk: &'a Talk,
    bar: Option<ProgressBar>,
    label: String,
    unit: Unit,
    begun: Instant,
    first: Cell<Option<u64>>,
    spoken: Cell<Instant>,
}

impl<'a> Meter<'a> {
    /// Begins; `label` says what is going on, such as `reading photos`.
    pub(crate) fn new(talk: &'a Talk, label: impl Into<String>, unit: Unit) -> Self {
        let (label, now) = (label.into(), Instant::now());
        let bar = (talk.is_terminal() && !talk.is_quiet()).then(|| {
            let bar = talk.bars().add(ProgressBar::no_length());
            bar.set_style(style(unit, false));
            bar.set_message(label.clone());
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        });
        Self { talk, bar, label, unit, begun: now, first: Cell::new(None), spoken: Cell::new(now) }
    }

    /// So much is done; `total` where it is known. Cheap enough to call for each file.
    pub(crate) fn set(&self, done: u64, total: Option<u64>) {
        let first = self.first.get().unwrap_or_else(|| {
            self.first.set(Some(done));
            done
        });
        if let Some(bar) = &self.bar {
            if bar.length() != total {
                bar.set_style(style(self.unit, total.is_some()));
                total.map_or_else(|| bar.unset_length(), |total| bar.set_length(total));
            }
            bar.set_position(done);
        } else if self.spoken.get().elapsed() >= PLAIN_INTERVAL {
            self.spoken.set(Instant::now());
            self.talk.say(self.plain(done, done.saturating_sub(first), total));
        }
    }

    fn plain(&self, done: u64, since: u64, total: Option<u64>) -> String {
        let seconds = self.begun.elapsed().as_secs_f64().max(1e-3);
        let rate = since as f64 / seconds;
        let (done_text, total_text, rate_text) = match self.unit {
            Unit::Photos => (done.to_string(), total.map(|total| total.to_string()), photo_rate(rate)),
            Unit::Samples => (done.to_string(), total.map(|total| total.to_string()), sample_rate(rate)),
            Unit::Bytes => (
                HumanBytes(done).to_string(),
                total.map(|total| HumanBytes(total).to_string()),
                format!("{}/s", HumanBytes(rate as u64)),
            ),
        };
        let of = total_text.map(|total| format!(" of {total}")).unwrap_or_default();
        let left = match total {
            Some(total) if rate > 0.0 => {
                let left = Duration::from_secs_f64((total.saturating_sub(done) as f64 / rate).min(1e9));
                format!(", {} left", HumanDuration(left))
            }
            _ => String::new(),
        };
        format!("{}: {done_text}{of}, {rate_text}{left}", self.label)
    }
}

impl Drop for Meter<'_> {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn style(unit: Unit, known: bool) -> ProgressStyle {
    let template = match (unit, known) {
        (Unit::Photos, true) => "{msg} {wide_bar:.cyan/dim} {human_pos}/{human_len} · {photos_per_sec} · {eta} left",
        (Unit::Photos, false) => "{spinner:.cyan} {msg} {human_pos} · {photos_per_sec}",
        (Unit::Samples, true) => "{msg} {wide_bar:.cyan/dim} {human_pos}/{human_len} · {samples_per_sec} · {eta} left",
        (Unit::Samples, false) => "{spinner:.cyan} {msg} {human_pos} · {samples_per_sec}",
        (Unit::Bytes, true) => "{msg} {wide_bar:.cyan/dim} {bytes}/{total_bytes} · {bytes_per_sec} · {eta} left",
        (Unit::Bytes, false) => "{spinner:.cyan} {msg} {bytes} · {bytes_per_sec}",
    };
    let rate = |state: &ProgressState, out: &mut dyn fmt::Write| {
        // A bar that cannot be written is not worth an error.
        let _ = out.write_str(&photo_rate(state.per_sec()));
    };
    let style = ProgressStyle::with_template(template).expect("the templates above are well formed");
    let samples = |state: &ProgressState, out: &mut dyn fmt::Write| {
        let _ = out.write_str(&sample_rate(state.per_sec()));
    };
    style.with_key("photos_per_sec", rate).with_key("samples_per_sec", samples).progress_chars("━━─")
}

/// `83 samples/s`.
pub(crate) fn sample_rate(rate: f64) -> String {
    photo_rate(rate).replace("photos", "samples")
}

/// `83 photos/s`, `0.4 photos/s`.
pub(crate) fn photo_rate(rate: f64) -> String {
    if rate < 10.0 { format!("{rate:.1} photos/s") } else { format!("{rate:.0} photos/s") }
}
