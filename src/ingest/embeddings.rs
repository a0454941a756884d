//! Taking in vectors that were computed elsewhere: no picture is opened, no model is asked.
//!
//! Rows are taken in order and counted: each commit notes with the records how many rows are done, so a run that was killed goes
//! on behind them.
//!
//! The matrix is never in memory, whatever its size, and the graphs that are built over the rows are bounded (`memory`).

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::Instant;

use serde_json::Map;

use super::TICK;
use super::collect::{Options, Reading};
use super::request::Counters;
use super::watch::Watch;
use super::writer::Sink;
use crate::catalog::{Change, Item, Record, Said};
use crate::collection::{EmbeddingFile, EmbeddingRow};
use crate::{Error, Result};

/// Rows between two looks at the clock.
const LOOK: u64 = 256;

pub(super) struct Rows<'a> {
    pub(super) files: &'a [(PathBuf, EmbeddingFile)],
    pub(super) read: &'a [Reading],
    pub(super) options: &'a Options,
}

impl Rows<'_> {
    pub(super) fn take_in(&self, sink: &mut Sink<'_>, counters: &Counters, watch: &mut Watch<'_>) -> Result<()> {
        let missing = !sink.missing().is_empty();
        let mut todo = Vec::new();
        for (path, file) in self.files {
            let Some(reading) = self.read.iter().find(|reading| reading.file.path == *path) else { continue };
            let mut done = reading.state.done;
            // Vectors that were lost can only come from the file: it is read again from its beginning.
            if reading.state.changed || (missing && sink.lacks(reading.state.id)?) {
                sink.empty_source(reading.state.id)?;
                done = 0;
            } else if reading.state.complete {
                counters.unchanged.fetch_add(file.rows, Ordering::Relaxed);
                counters.found.fetch_add(file.rows, Ordering::Relaxed);
                continue;
            }
            counters.found.fetch_add(file.rows.saturating_sub(done), Ordering::Relaxed);
            todo.push((file, reading, done));
        }
        counters.walked.store(true, Ordering::Release);
        for (file, reading, done) in todo {
            self.file(file, reading, done, sink, counters, watch)?;
        }
        Ok(())
    }

    fn file(
        &self,
        file: &EmbeddingFile,
        reading: &Reading,
        done: u64,
        sink: &mut Sink<'_>,
        counters: &Counters,
        watch: &mut Watch<'_>,
    ) -> Result<()> {
        let source = reading.state.id;
        // Asked at the first row too: a file that is read within a tick can be stopped as well.
        let (mut ticked, mut failure, mut last) = (None::<Instant>, None, done);
        let read = file.read(done, |row| {
            let number = row.row;
            last = number + 1;
            sink.done += 1;
            let one = || -> Result<()> {
                if self.options.takes(number) {
                    self.row(row, reading, sink)?;
                }
                if number % LOOK != 0 {
                    return Ok(());
                }
                if ticked.is_none_or(|at| at.elapsed() >= TICK) {
                    ticked = Some(Instant::now());
                    if (watch.cancel)() {
                        sink.rows_done(source, number + 1);
                        return Err(Error::Cancelled);
                    }
                    (watch.progress)(&counters.progress(&sink.report, sink.done));
                }
                if sink.is_due() {
                    sink.rows_done(source, number + 1);
                    sink.commit(counters, watch)?;
                }
                Ok(())
            };
            match one() {
                Ok(()) => ControlFlow::Continue(()),
                Err(error) => {
                    failure = Some(error);
                    ControlFlow::Break(())
                }
            }
        });
        if let Some(error) = failure {
            return Err(error);
        }
        sink.rows_done(source, last);
        match read {
            Ok(()) => sink.changes.push(Change::Complete(source)),
            Err(error) => sink.skip(reading.file.path.clone(), error),
        }
        Ok(())
    }

    fn row(&self, row: EmbeddingRow, reading: &Reading, sink: &mut Sink<'_>) -> Result<()> {
        let EmbeddingRow { row, vector, caption_vector, fields } = row;
        let path = PathBuf::from(format!("{}#{row}", reading.file.path.display()));
        let bad = |reason: String| Error::BadCollection { path: path.clone(), reason };
        let vector = match vector {
            Ok(vector) => vector,
            Err(reason) => {
                sink.skip(path.clone(), bad(reason));
                return Ok(());
            }
        };
        let fields = match fields {
            Ok(fields) => fields,
            Err(reason) => {
                sink.skip(path.clone(), bad(format!("{reason}; taken without metadata")));
                Map::new()
            }
        };
        let row = self.options.columns.row(fields);
        let pixels = |name: &str| {
            let named = row.fields.iter().find(|(other, _)| other.eq_ignore_ascii_case(name));
            named.and_then(|(_, value)| value.as_u64()).and_then(|number| u32::try_from(number).ok()).unwrap_or(0)
        };
        let mut record = Record::blank();
        (record.path, record.mtime) = (path, reading.file.mtime);
        (record.width, record.height) = (pixels("width"), pixels("height"));
        // clip-retrieval calls the names of samples paths too.
        let is_path = |path: &String| path.contains(['/', '\\', '.']);
        let link = row.path.filter(|path| is_path(path) || row.url.is_none()).or(row.url);
        let item = Item { source: Some(reading.state.id), fields: row.fields, ..Item::default() };
        sink.put(
            record.said(Some(Box::new(Said { link, caption: row.caption, item }))),
            &vector,
            caption_vector.as_deref(),
        )
    }
}
