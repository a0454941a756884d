//! The source of an ingest of shards and lists: their samples, compared with the catalog.

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crossbeam_channel::Sender;
#[cfg(feature = "hub")]
use crossbeam_channel::{Receiver, bounded};

use super::budget::{Budget, FILE_BYTES, Held};
use super::collect::{Options, Reading};
use super::diff::{Table, Verdict};
use super::given::Given;
use super::pipeline::{Candidate, Event, Feed, Stopped};
use super::request::{Counters, Walked};
use super::walk::File;
use super::writer::Sink;
use crate::catalog::{Catalog, Item, Keys, Kind, Known, Said, SourceKind, Whose, absolute, fingerprint};
use crate::collection::{Bytes, Sample, Table as List, read_shard};
#[cfg(feature = "hub")]
use crate::fetch::{Fetcher, Limits};
use crate::{Error, Result};

/// The files to read and what they are compared with.
pub(super) struct Members<'a> {
    pub(super) catalog: &'a Catalog,
    pub(super) read: &'a [&'a Reading],
    pub(super) missing: &'a Keys,
    pub(super) options: &'a Options,
    pub(super) counters: &'a Counters,
}

/// One file, while it is read.
struct Pass<'a, 'f> {
    members: &'a Members<'a>,
    reading: &'a Reading,
    table: &'a mut Table,
    feed: &'a Feed<'f, Walked>,
    held: &'a Arc<Budget>,
    /// Bytes of the files before this one.
    before: u64,
    /// Bytes of this one that were read when the number of photos was last estimated.
    passed: u64,
    /// Names that came already.
    met: HashSet<u128>,
    /// Photos sent on, all of which must arrive before the file is complete.
    sent: u64,
    /// Rows of the web that were not asked for.
    unasked: u64,
    /// To the threads that fetch.
    downloads: Option<Sender<File>>,
    stopped: bool,
}

impl Members<'_> {
    pub(super) fn feed(&self, feed: &Feed<'_, Walked>) -> Result<(), Stopped> {
        let scope: Vec<PathBuf> = self.read.iter().map(|reading| reading.file.path.clone()).collect();
        let lists = self.read.iter().any(|reading| reading.file.kind == SourceKind::List);
        let known = Table::load(self.catalog, &scope, Whose::All, self.missing).and_then(|mut table| {
            if lists {
                table.load_failed_addresses(self.catalog)?;
            }
            Ok(table)
        });
        let mut table = match known {
            Ok(table) => table,
            Err(error) => return feed.event(Event::Other(Walked::Failed(error))),
        };
        let held = Arc::new(Budget::new(FILE_BYTES));
        let mut before = 0;
        for reading in self.read {
            let mut pass = Pass {
                members: self,
                reading,
                table: &mut table,
                feed,
                held: &held,
                before,
                passed: 0,
                met: HashSet::new(),
                sent: 0,
                unasked: 0,
                downloads: None,
                stopped: false,
            };
            let read = match reading.file.kind {
                SourceKind::List => pass.list(),
                _ => pass.shard(),
            };
            if pass.stopped {
                return Err(Stopped);
            }
            before += reading.file.size;
            let (path, sent, unasked) = (reading.file.path.clone(), pass.sent, pass.unasked);
            if unasked > 0 {
                let reason = format!("{unasked} pictures are on the web and were not fetched; --download fetches them");
                let error = Error::NoPicture { path: path.clone(), reason };
                feed.event(Event::Other(Walked::Unreadable(Some(path), error)))?;
            } else {
                match read {
                    Ok(()) => feed.event(Event::Other(Walked::SourceEnd(reading.state.id, sent)))?,
                    Err(error) => feed.event(Event::Other(Walked::Unreadable(Some(path), error)))?,
                }
            }
        }
        self.counters.walked.store(true, Ordering::Release);
        feed.event(Event::Other(Walked::End(Box::new(table))))
    }
}

impl Pass<'_, '_> {
    fn shard(&mut self) -> Result<()> {
        let path = self.reading.file.path.clone();
        let mut number = 0;
        read_shard(&path, |sample| {
            self.announce(sample.passed);
            number += 1;
            if !self.members.options.takes(number - 1) {
                return ControlFlow::Continue(());
            }
            self.flow(|pass| pass.sample(&path, sample))
        })
    }

    /// How many photos there will be if the rest of the bytes holds as many as those that were passed.
    fn announce(&mut self, passed: u64) {
        if passed == self.passed {
            return;
        }
        self.passed = passed;
        let passed = self.before + passed;
        let counters = self.members.counters;
        let found = counters.found.load(Ordering::Relaxed) + 1;
        let all: u64 = self.members.read.iter().map(|reading| reading.file.size).sum();
        let expected = u128::from(found) * u128::from(all) / u128::from(passed.max(1));
        counters.announced.store(u64::try_from(expected).unwrap_or(0).max(found), Ordering::Relaxed);
    }

    fn flow(&mut self, one: impl FnOnce(&mut Self) -> Result<(), Stopped>) -> ControlFlow<()> {
        match one(self) {
            Ok(()) => ControlFlow::Continue(()),
            Err(Stopped) => {
                self.stopped = true;
                ControlFlow::Break(())
            }
        }
    }

    fn sample(&mut self, shard: &Path, sample: Sample) -> Result<(), Stopped> {
        let address = |name: &str| PathBuf::from(format!("{}!{name}", shard.display()));
        for (name, reason) in sample.trouble {
            self.trouble(address(&name), reason)?;
        }
        let path = address(&sample.name);
        let Some(bytes) = sample.bytes else {
            return self.trouble(path, "there is no picture in this sample".to_owned());
        };
        if !self.met.insert(fingerprint(&path)) {
            return self.trouble(path, "a sample of this name came before; only the first one is taken".to_owned());
        }
        let start = match &bytes {
            Bytes::At(start) => Some(*start),
            Bytes::Here(_) => None,
        };
        let item = Item { source: Some(self.reading.state.id), start, fields: sample.fields, alone: true };
        let said = Some(Box::new(Said { link: None, caption: sample.caption, item }));
        let file = File { path, size: sample.size, mtime: sample.mtime, said };
        let given = |bytes, held: &Arc<Budget>| match bytes {
            Bytes::At(start) => Given::Part(shard.to_path_buf(), start),
            Bytes::Here(bytes) => Given::Held(Held::new(bytes, held)),
        };
        self.members.counters.found.fetch_add(1, Ordering::Relaxed);
        match self.table.judge(&file) {
            Verdict::New => self.send(Candidate::new(file, false).given(given(bytes, self.held))),
            // The shard is another one: the member may be too, and be elsewhere.
            Verdict::Unchanged | Verdict::Back(_) if self.reading.state.changed => {
                self.send(Candidate::new(file, true).given(given(bytes, self.held)))
            }
            Verdict::Changed => self.send(Candidate::new(file, true).given(given(bytes, self.held))),
            verdict => self.as_it_was(verdict, file),
        }
    }

    fn as_it_was(&mut self, verdict: Verdict, file: File) -> Result<(), Stopped> {
        match verdict {
            Verdict::Back(key) => self.feed.event(Event::Other(Walked::Back(key))),
            Verdict::Skipped(Some(reason)) => self.feed.event(Event::Other(Walked::StillSkipped(file.path, reason))),
            _ => {
                self.members.counters.unchanged.fetch_add(1, Ordering::Relaxed);
                self.feed.check()
            }
        }
    }

    fn send(&mut self, candidate: Candidate) -> Result<(), Stopped> {
        self.sent += 1;
        self.feed.file(candidate)
    }

    /// A line in the report.
    fn trouble(&mut self, path: PathBuf, reason: String) -> Result<(), Stopped> {
        let error = Error::BadCollection { path: path.clone(), reason };
        self.feed.event(Event::Other(Walked::Unreadable(Some(path), error)))
    }

    fn list(&mut self) -> Result<()> {
        let path = self.reading.file.path.clone();
        let list = List::open(&path)?;
        #[cfg(feature = "hub")]
        if let Some(options) = self.members.options.download {
            let fetcher = Fetcher::new(Limits {
                max_bytes: options.max_bytes,
                timeout: options.timeout,
                retries: options.retries,
                private_addresses: options.private_addresses,
            });
            return std::thread::scope(|scope| {
                let (sender, files) = bounded(2 * options.connections.max(1));
                for _ in 0..options.connections.max(1) {
                    let (files, fetcher, feed, held) = (files.clone(), &fetcher, self.feed, self.held);
                    scope.spawn(move || download(&files, fetcher, feed, held));
                }
                drop(files);
                self.downloads = Some(sender);
                let read = self.rows(list);
                // Without a sender the threads come to their end.
                self.downloads = None;
                read
            });
        }
        self.rows(list)
    }

    fn rows(&mut self, list: List) -> Result<()> {
        let (mut open, passed) = (false, list.passed());
        let read = list.read(0, |row, fields| {
            self.announce(passed.get());
            if !self.members.options.takes(row) {
                return ControlFlow::Continue(());
            }
            self.flow(|pass| pass.row(row, fields, &mut open))
        });
        if open && read.is_ok() {
            // A picture that was not there may be there the next time.
            self.sent = u64::MAX;
        }
        read
    }

    fn row(&mut self, row: u64, fields: crate::collection::Fields, open: &mut bool) -> Result<(), Stopped> {
        let list = &self.reading.file.path;
        let at = |list: &Path| PathBuf::from(format!("{}#{row}", list.display()));
        let row = match fields {
            Ok(fields) => self.members.options.columns.row(fields),
            Err(reason) => return self.trouble(at(list), reason),
        };
        // Beside a picture of this machine there may be other files that speak of it.
        let alone = row.path.is_none();
        let item = Item { source: Some(self.reading.state.id), start: None, fields: row.fields, alone };
        let said = Some(Box::new(Said { link: None, caption: row.caption, item }));
        match (row.path, row.url) {
            (Some(path), _) => {
                let base = self.reading.file.base.as_deref().unwrap_or(Path::new("/"));
                let path = base.join(path);
                let found = absolute(&path).and_then(|real| std::fs::metadata(&real).map(|metadata| (real, metadata)));
                match found {
                    Ok((real, metadata)) if metadata.is_file() => {
                        self.file(File { said, ..File::new(real, &metadata) })
                    }
                    Ok((real, _)) => self.trouble(real, "this is no file".to_owned()),
                    Err(source) => {
                        *open = true;
                        let error = Error::Io { path: path.clone(), source };
                        self.feed.event(Event::Other(Walked::Unreadable(Some(path), error)))
                    }
                }
            }
            (None, Some(url)) => self.address(url, said),
            (None, None) => self.trouble(
                at(list),
                "neither path nor address; --path-column and --url-column say which columns have them".to_owned(),
            ),
        }
    }

    fn file(&mut self, file: File) -> Result<(), Stopped> {
        self.members.counters.found.fetch_add(1, Ordering::Relaxed);
        if !self.met.insert(fingerprint(&file.path)) {
            let reason = "an earlier row of this list is about the same picture; only that one is taken".to_owned();
            return self.trouble(file.path, reason);
        }
        match self.table.judge(&file) {
            Verdict::New => self.send(Candidate::new(file, false)),
            Verdict::Changed => self.send(Candidate::new(file, true)),
            Verdict::Unchanged if self.reading.state.changed => match (self.table.key(&file.path), file.said) {
                (Some(key), Some(said)) => {
                    self.members.counters.unchanged.fetch_add(1, Ordering::Relaxed);
                    self.feed.event(Event::Other(Walked::Describe(key, said)))
                }
                _ => self.feed.check(),
            },
            verdict => self.as_it_was(verdict, file),
        }
    }

    /// A picture of the web: known by its address, which is all that can be compared.
    fn address(&mut self, url: String, said: Option<Box<Said>>) -> Result<(), Stopped> {
        let path = PathBuf::from(&url);
        self.members.counters.found.fetch_add(1, Ordering::Relaxed);
        if !self.met.insert(fingerprint(&path)) {
            let reason = "an earlier row of this list has the same address; only that one is taken".to_owned();
            return self.trouble(path, reason);
        }
        if let Some(key) = self.table.seen(&path) {
            self.members.counters.unchanged.fetch_add(1, Ordering::Relaxed);
            return match said {
                Some(said) if self.reading.state.changed => self.feed.event(Event::Other(Walked::Describe(key, said))),
                _ => self.feed.check(),
            };
        }
        let file = File { path, size: 0, mtime: 0, said };
        // What failed for good stays so until the list, or this program, is another one.
        if let Verdict::Skipped(Some(reason)) = self.table.judge(&file)
            && !self.reading.state.changed
        {
            return self.feed.event(Event::Other(Walked::StillSkipped(file.path, reason)));
        }
        let Some(downloads) = &self.downloads else {
            self.unasked += 1;
            return self.feed.check();
        };
        self.sent += 1;
        downloads.send(file).map_err(|_| Stopped)
    }
}

/// Fetches until there is no more, each picture on its way as soon as it is here.
#[cfg(feature = "hub")]
fn download(files: &Receiver<File>, fetcher: &Fetcher, feed: &Feed<'_, Walked>, held: &Arc<Budget>) {
    for file in files {
        let url = file.path.to_string_lossy();
        let sent = match fetcher.fetch_within(&url, || feed.check().is_ok(), |bytes| held.take(bytes)) {
            Ok((bytes, permit)) => {
                feed.file(Candidate::new(file, false).given(Given::Held(Held::with(bytes, permit, held))))
            }
            Err(error) => feed.event(Event::Skipped(file, None, error)),
        };
        if sent.is_err() {
            return;
        }
    }
}

/// Sends members of a gzipped shard on in one pass over it; `wanted` knows them by their names.
///
/// # Errors
/// As [`read_shard`]: members behind the damage were not sent.
pub(crate) fn unpack<T>(
    shard: &Path,
    feed: &Feed<'_, T>,
    mut wanted: impl FnMut(&str) -> Option<Candidate>,
) -> Result<Result<(), Stopped>> {
    let held = Arc::new(Budget::new(FILE_BYTES));
    let mut flow = Ok(());
    read_shard(shard, |sample| {
        if let (Some(Bytes::Here(bytes)), Some(candidate)) = (sample.bytes, wanted(&sample.name)) {
            flow = feed.file(candidate.given(Given::Held(Held::new(bytes, &held))));
        }
        if flow.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    Ok(flow)
}

/// Members of shards that were read to their end and not met there.
pub(super) fn gone(unseen: Vec<Known>, sink: &mut Sink<'_>) {
    for Known { path, kind, .. } in unseen {
        match kind {
            Kind::Photo { key, .. } => sink.gone(key),
            Kind::Skipped { .. } => sink.forget(path),
        }
    }
}
