//! The request of taking in a collection: shards, lists, embeddings.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use super::members;
use super::request::{Counters, Report, Target, default_threads, has_vector};
use super::watch::{Watch, watched};
use super::writer::{Ingested, Sink};
use super::{Feed, Stages};
use super::{captions, embeddings};
use crate::catalog::{Copies, Part, SourceFile, SourceKind, SourceState, absolute};
use crate::collection::{Columns, EmbeddingFile, Embeddings, detect, lists, shards};
use crate::image::DecodeOptions;
use crate::{Error, Result};

/// A request to take in collections; ends in [`Collect::run`].
#[must_use = "nothing is taken in before `run`"]
pub struct Collect<'a> {
    pub(super) target: Target<'a>,
    paths: Vec<PathBuf>,
    pub(super) options: Options,
    threads: usize,
    watch: Watch<'a>,
}

/// How files are read.
#[derive(Clone, Debug)]
pub(super) struct Options {
    pub(super) columns: Columns,
    /// Where relative paths of pictures begin.
    pub(super) images: Option<PathBuf>,
    /// Where whole files are not dealt out, which rows or samples of each.
    pub(super) part: Option<Part>,
    pub(super) download: Option<Download>,
    /// Most bytes of copies.
    pub(super) copies: u64,
}

/// Room for copies where nobody says how much: a hundred thousand pictures of 40 kB.
const COPIES: u64 = 4_000_000_000;

impl Default for Options {
    fn default() -> Self {
        Options { columns: Columns::default(), images: None, part: None, download: None, copies: COPIES }
    }
}

/// Whether and how pictures of the web are fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Download {
    /// Largest picture in bytes. Default 64 MiB.
    pub max_bytes: u64,
    /// How long one picture may take. Default 30 s.
    pub timeout: std::time::Duration,
    /// Connections at a time. Default 32.
    pub connections: usize,
    /// How often a fetch that failed in passing is tried again. Default 2.
    pub retries: u32,
    /// Whether addresses of this machine and of private networks may be asked. Default no.
    pub private_addresses: bool,
}

impl Default for Download {
    fn default() -> Self {
        let timeout = std::time::Duration::from_secs(30);
        Download { max_bytes: 64 << 20, timeout, connections: 32, retries: 2, private_addresses: false }
    }
}

/// A file to read, with what the catalog knows of it.
#[derive(Clone, Debug)]
pub(super) struct Reading {
    pub(super) file: SourceFile,
    pub(super) state: SourceState,
}

/// All files to read, and those of embeddings among them with what belongs to them.
type Files = (Vec<SourceFile>, Vec<(PathBuf, EmbeddingFile)>);

watched!(Collect);

impl<'a> Collect<'a> {
    pub(crate) fn new(target: Target<'a>, paths: Vec<PathBuf>) -> Collect<'a> {
        let (threads, watch) = (default_threads(), Watch::default());
        Collect { target, paths, options: Options::default(), threads, watch }
    }

    /// Names of columns, where they are not the usual ones.
    pub fn columns(mut self, columns: Columns) -> Self {
        self.options.columns = columns;
        self
    }

    /// The folder that relative paths of pictures begin at, and in which pictures of embeddings may be opened later. The folder of
    /// the list by default.
    pub fn images(mut self, folder: impl Into<PathBuf>) -> Self {
        self.options.images = Some(folder.into());
        self
    }

    /// Fetches pictures that are on the web. They are embedded, and a small copy is kept: [`Collect::copies`].
    pub fn download(mut self, download: Download) -> Self {
        self.options.download = Some(download);
        self
    }

    /// Room in bytes for small copies (at most 640 pixels) of pictures of the web and of those in gzipped shards, which could not be
    /// shown otherwise, or only by reading everything before them. All copies of the library count. 4 GB by default; with 0 none
    /// are kept.
    pub fn copies(mut self, bytes: u64) -> Self {
        self.options.copies = bytes;
        self
    }

    /// Only a part of the collection.
    pub fn part(mut self, part: Part) -> Self {
        self.options.part = Some(part);
        self
    }

    /// Threads that read and decode. One per core by default.
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = threads.max(1);
        self
    }

    /// Takes the collections in.
    ///
    /// A file that was read to its end and is as it was then costs one `stat`. One that was interrupted goes on where it was: rows
    /// of embeddings are counted, members of shards are known by name, size and time. Ended at any moment by whatever means, a
    /// run loses no more than the last seconds.
    ///
    /// # Errors
    /// [`Error::NoRoot`] for a path that is not there and [`Error::BadCollection`] for embeddings that do not fit together or have
    /// another number of dimensions: nothing was changed. [`Error::Busy`], [`Error::Cancelled`], and errors of catalog, index,
    /// encoder or disk: what was done until then is kept. A sample that cannot be read is a line in [`Report::skipped`].
    pub fn run(mut self) -> Result<Report> {
        let (files, embeddings) = self.files()?;
        let catalog = self.target.catalog;
        let has_captions = embeddings.iter().any(|(_, file)| file.has_captions());
        let mut watch = std::mem::take(&mut self.watch);
        let mut writer = watch.writer(catalog)?;
        if has_captions && self.target.captions.is_none() {
            self.target.captions = Some(captions::make(&self.target)?);
        }
        let states = writer.sources(&files)?;
        let mut sink = Sink::new(&self.target, writer, watch.memory())?;
        let counters = Counters::default();
        let read: Vec<Reading> = files.into_iter().zip(states).map(|(file, state)| Reading { file, state }).collect();
        let ended = self.stages(&read, &mut sink, &counters, &mut watch);
        let ended = ended.and_then(|()| {
            let rows = embeddings::Rows { files: &embeddings, read: &read, options: &self.options };
            rows.take_in(&mut sink, &counters, &mut watch)
        });
        match ended {
            Ok(()) => {
                let named: Vec<PathBuf> = self.roots()?;
                named.iter().for_each(|root| sink.indexed(root));
                sink.finish(&counters, &mut watch)
            }
            Err(Error::Cancelled) => {
                Err(sink.commit(&counters, &mut Watch::hurried()).err().unwrap_or(Error::Cancelled))
            }
            Err(error) => {
                let _ = sink.commit(&counters, &mut Watch::hurried());
                Err(error)
            }
        }
    }

    /// Shards and lists, through the stages that photos go through.
    fn stages(&self, read: &[Reading], sink: &mut Sink<'_>, counters: &Counters, watch: &mut Watch<'_>) -> Result<()> {
        let catalog = self.target.catalog;
        let missing = sink.missing().clone();
        let read: Vec<&Reading> = read
            .iter()
            .filter(|reading| reading.file.kind != SourceKind::Embeddings)
            .filter(|reading| !(reading.state.complete && missing.is_empty()))
            .collect();
        if read.is_empty() {
            return Ok(());
        }
        let copies = Copies::of(self.target.library);
        let stages = Stages {
            encoder: &*self.target.encoder,
            threads: self.threads,
            max_pixels: DecodeOptions::default().max_pixels,
            has_vector: &|hash| has_vector(catalog, &missing, hash),
            copies: Some((&copies, self.options.copies)),
            features: self.target.features.as_ref(),
            bytes_read: &counters.bytes,
            stop: &AtomicBool::new(false),
        };
        let source = members::Members { catalog, read: &read, missing: &missing, options: &self.options, counters };
        let feed = |feed: &Feed<'_, _>| {
            let _ = source.feed(feed);
        };
        match stages.run(feed, |events| sink.drain(events, counters, watch))? {
            Ingested::Walked(table) => {
                // The catalog must know of what came before it is asked for what was not met.
                sink.write(counters, watch)?;
                let scope: Vec<PathBuf> = read
                    .iter()
                    .filter(|reading| reading.file.kind == SourceKind::Tar && self.options.part.is_none())
                    .map(|reading| reading.file.path.clone())
                    .filter(|path| !sink.unreadable().iter().any(|place| place.as_ref() == Some(path)))
                    .collect();
                members::gone(table.unseen(catalog, &scope)?, sink);
                Ok(())
            }
            Ingested::Cancelled => Err(Error::Cancelled),
        }
    }

    /// What was named, in the spelling of the catalog.
    fn roots(&self) -> Result<Vec<PathBuf>> {
        self.paths.iter().map(|path| absolute(path).map_err(Error::io(path))).collect()
    }

    /// The files to read, in order, and those of embeddings among them with their parts. Headers are read and compared here.
    fn files(&mut self) -> Result<Files> {
        let mut found: Vec<(PathBuf, SourceKind, Option<PathBuf>)> = Vec::new();
        let mut embeddings = Vec::new();
        let images = match &self.options.images {
            Some(folder) => Some(absolute(folder).map_err(Error::io(folder))?),
            None => None,
        };
        let vectors = self.options.columns.vector.as_deref();
        let known = self.target.catalog.read()?.sources()?;
        for root in self.roots()? {
            if !root.exists() {
                return Err(Error::NoRoot { path: root });
            }
            let parent = root.parent().map(Path::to_path_buf);
            match detect(&root, vectors) {
                Some(SourceKind::List)
                    if known.iter().any(|source| source.kind == SourceKind::Embeddings && source.is_of(&root)) =>
                {
                    let reason =
                        "the column that this library has the vectors of must be named again (--vector-column)";
                    return Err(Error::BadCollection { path: root, reason: reason.to_owned() });
                }
                Some(SourceKind::Tar) if root.is_dir() => {
                    found.extend(shards(&root).into_iter().map(|shard| (shard, SourceKind::Tar, None)));
                }
                Some(SourceKind::Tar) => found.push((root, SourceKind::Tar, None)),
                Some(SourceKind::List) if root.is_dir() => {
                    let base = images.clone().unwrap_or_else(|| root.clone());
                    found.extend(lists(&root).into_iter().map(|list| (list, SourceKind::List, Some(base.clone()))));
                }
                Some(SourceKind::List) => found.push((root, SourceKind::List, images.clone().or(parent))),
                Some(SourceKind::Embeddings) => {
                    let all = Embeddings::open(&root, vectors)?;
                    self.check_space(&root, &all)?;
                    let base = images.clone().unwrap_or(all.base);
                    for file in all.files {
                        found.push((file.path.clone(), SourceKind::Embeddings, Some(base.clone())));
                        embeddings.push((file.path.clone(), file));
                    }
                }
                _ => {
                    let reason =
                        "no collection: expected .tar, .parquet, .jsonl, .csv, .npy, .npz, or a folder of them";
                    return Err(Error::BadCollection { path: root, reason: reason.to_owned() });
                }
            }
        }
        // A file that is named twice is read once.
        let mut seen = std::collections::HashSet::new();
        found.retain(|(path, ..)| seen.insert(path.clone()));
        if let Some(part) = self.options.part
            && found.len() as u64 >= part.count()
        {
            let mut number = 0..;
            found.retain(|_| number.next().is_some_and(|number| part.takes(number)));
            self.options.part = None;
        }
        let mut files = Vec::new();
        for (path, kind, base) in found {
            let metadata = std::fs::metadata(&path).map_err(Error::io(&path))?;
            let (size, mtime) = (metadata.len(), super::walk::mtime(&metadata));
            files.push(SourceFile { path, kind, size, mtime, base, part: self.options.part });
        }
        Ok((files, embeddings))
    }

    fn check_space(&self, path: &Path, all: &Embeddings) -> Result<()> {
        let ours = self.target.encoder.space();
        if let Some(theirs) = &all.space
            && !theirs.fits(ours)
        {
            return Err(Error::SpaceMismatch {
                path: path.to_path_buf(),
                found: theirs.model.clone(),
                expected: ours.model.clone(),
            });
        }
        if all.dim != ours.dim && all.files.iter().any(|file| file.rows > 0) {
            let reason =
                format!("vectors of {} numbers; this library has {} of {} numbers", all.dim, ours.model, ours.dim);
            return Err(Error::BadCollection { path: path.to_path_buf(), reason });
        }
        Ok(())
    }
}

impl Options {
    /// Whether a row or a sample is of this part.
    pub(super) fn takes(&self, number: u64) -> bool {
        self.part.is_none_or(|part| part.takes(number))
    }
}
