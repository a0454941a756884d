//! A whole model: which of its files are missing, and the request that brings them.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::cache::{Repository, is_index};
use super::download::{Downloads, Remote};
use super::options::HubOptions;
use crate::model::import::shards;
use crate::model::registry::{Model, Source};
use crate::{Error, Result};

/// Where a download stands.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Progress {
    /// The file that it is about.
    pub file: Arc<str>,
    /// What is being done with it.
    pub stage: Stage,
    /// Bytes on this machine, of all files of the model.
    pub bytes: u64,
    /// Bytes of all files, once they are known.
    pub total: Option<u64>,
    /// Those of `bytes` that were here when the download began: they say nothing about its speed.
    pub found: u64,
}

/// What a download is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stage {
    /// Asking the hub about a file.
    Asking,
    /// Waiting for another program that downloads the same file.
    Waiting,
    /// Downloading.
    Downloading,
    /// Comparing the file with its checksum.
    Checking,
    /// Pausing before another attempt.
    Retrying {
        /// What went wrong.
        reason: String,
        /// How long the pause is.
        pause: Duration,
    },
}

/// A request for a model's files; ends in [`run`](Fetch::run).
#[must_use = "nothing is fetched before `run`"]
pub struct Fetch<'a> {
    sources: &'a [Source],
    options: &'a HubOptions,
    progress: Box<dyn FnMut(&Progress) + 'a>,
    stop: Box<dyn Fn() -> bool + 'a>,
}

impl<'a> Fetch<'a> {
    /// Asks for `model`.
    pub fn new(model: &'a Model, options: &'a HubOptions) -> Self {
        Self::of(model.sources, options)
    }

    /// Asks for the model at any of `sources`, in order of preference; there is at least one.
    pub fn of(sources: &'a [Source], options: &'a HubOptions) -> Self {
        Self { sources, options, progress: Box::new(|_| {}), stop: Box::new(|| false) }
    }

    /// Calls `report` as the download goes on, some thousand times for a large file, on the calling thread.
    pub fn on_progress(mut self, report: impl FnMut(&Progress) + 'a) -> Self {
        self.progress = Box::new(report);
        self
    }

    /// Stops when `stop` says so; it is asked about twenty times a second. What has arrived is kept.
    pub fn cancel_when(mut self, stop: impl Fn() -> bool + 'a) -> Self {
        self.stop = Box::new(stop);
        self
    }

    /// The directory with the model's files. What is complete on this machine is used as it is, without a word to the hub;
    /// otherwise the missing files are downloaded, resumed where an earlier download stopped.
    ///
    /// # Errors
    /// [`Error::Offline`] if something is missing and the hub must not be asked; [`Error::Hub`] if it does not answer,
    /// refuses, or sends something else than its own checksum promises; [`Error::ModelCache`] if the cache folder cannot
    /// be written; [`Error::Cancelled`].
    pub fn run(mut self) -> Result<PathBuf> {
        if let Some(directory) = locate_any(self.sources, self.options) {
            return Ok(directory);
        }
        let preferred = &self.sources[0];
        if self.options.offline {
            let here = Repository::new(&self.options.cache, &preferred.repository);
            let missing = here.find(&preferred.revision, preferred.layout.needs()).err().unwrap_or_default().to_owned();
            let (model, cache) = (preferred.repository.clone().into_owned(), self.options.cache.clone());
            return Err(Error::Offline { model, cache, missing });
        }
        let mut watch = Watch::new(&mut *self.progress, &*self.stop);
        // What is missing where most of the rest is there.
        let mut lacking = (0, preferred.layout.needs()[0][0][0]);
        for source in self.sources {
            match plan(source, self.options, &mut watch)? {
                Ok(files) => return bring(source, files, self.options, &mut watch),
                Err(missing) if missing.0 > lacking.0 => lacking = missing,
                Err(_) => {}
            }
        }
        let url = format!("{}/{}", self.options.endpoint, preferred.repository);
        Err(Error::Hub { url, reason: format!("the repository has no {}", lacking.1), source: None })
    }
}

/// The directory with a model's files, if all of them are on this machine. Asks nobody, writes nothing.
pub fn locate(model: &Model, options: &HubOptions) -> Option<PathBuf> {
    locate_any(model.sources, options)
}

/// The directory with the files of the first of `sources` that is on this machine, as [`locate`].
pub fn locate_any(sources: &[Source], options: &HubOptions) -> Option<PathBuf> {
    sources.iter().find_map(|source| {
        Repository::new(&options.cache, &source.repository).find(&source.revision, source.layout.needs()).ok()
    })
}

/// The files that make the model, all of one commit; or how many needs the repository meets, and the first file that it lacks.
fn plan(
    source: &Source,
    options: &HubOptions,
    watch: &mut Watch<'_>,
) -> Result<Result<Vec<Remote>, (usize, &'static str)>> {
    let downloads = Downloads::new(options, &source.repository)?;
    let mut files: Vec<Remote> = Vec::new();
    'needs: for (met, need) in source.layout.needs().iter().enumerate() {
        'sets: for set in *need {
            let known = files.len();
            for file in *set {
                let revision = files.first().map_or(&*source.revision, |first| &first.commit).to_owned();
                match downloads.ask(&revision, &Arc::from(*file), watch)? {
                    Some(remote) => files.push(remote),
                    None => {
                        files.truncate(known);
                        continue 'sets;
                    }
                }
            }
            continue 'needs;
        }
        return Ok(Err((met, need[0][0])));
    }
    Ok(Ok(files))
}

/// Downloads what is missing and makes the snapshot of it.
fn bring(source: &Source, mut files: Vec<Remote>, options: &HubOptions, watch: &mut Watch<'_>) -> Result<PathBuf> {
    let repository = Repository::new(&options.cache, &source.repository);
    let downloads = Downloads::new(options, &source.repository)?;
    let commit = files.first().map_or_else(String::new, |first| first.commit.clone());
    let snapshot = repository.snapshot(&commit);
    repository.prepare(&commit)?;
    watch.expect(&files);
    let (mut done, planned) = (0, files.len());
    while let Some(remote) = files.get(done) {
        let file = snapshot.join(&*remote.file);
        if !file.is_file() {
            downloads.get(remote, &repository, watch)?;
            repository.link(&remote.etag, &commit, &remote.file, options.symlinks)?;
        }
        watch.finish(&remote.file, std::fs::metadata(&file).map_err(Error::io(&file))?.len());
        if done < planned && is_index(&remote.file) {
            for shard in shards(&snapshot, &file)? {
                let name = Arc::from(shard.file_name().unwrap_or_default().to_string_lossy());
                let missing = || Error::Hub {
                    url: downloads.url(&commit, &name),
                    reason: "the repository lacks this part of the weights".into(),
                    source: None,
                };
                files.push(downloads.ask(&commit, &name, watch)?.ok_or_else(missing)?);
            }
            watch.expect(&files);
        }
        done += 1;
    }
    repository.set_commit(&source.revision, &commit)?;
    Ok(snapshot)
}

/// The caller's two closures, and the sums that the first is shown.
pub(super) struct Watch<'a> {
    progress: &'a mut dyn FnMut(&Progress),
    pub(super) stop: &'a dyn Fn() -> bool,
    now: Progress,
    /// Bytes of the files that are finished.
    finished: u64,
    /// The file whose bytes have been compared with what was found, so that a resumed one counts once.
    started: Option<Arc<str>>,
}

impl<'a> Watch<'a> {
    fn new(progress: &'a mut dyn FnMut(&Progress), stop: &'a dyn Fn() -> bool) -> Self {
        let now = Progress { file: "".into(), stage: Stage::Asking, bytes: 0, total: None, found: 0 };
        Self { progress, stop, now, finished: 0, started: None }
    }

    /// These files will come, and no others unless the last of them lists them.
    fn expect(&mut self, files: &[Remote]) {
        let is_all = files.last().is_none_or(|last| !is_index(&last.file));
        self.now.total = if is_all { files.iter().map(|file| file.size).sum() } else { None };
    }

    /// Shows a change of stage.
    pub(super) fn show(&mut self, file: &Arc<str>, stage: Stage) {
        self.now.file = Arc::clone(file);
        self.now.stage = stage;
        (self.progress)(&self.now);
    }

    /// A download begins, with `len` bytes from an earlier one.
    pub(super) fn start(&mut self, file: &Arc<str>, len: u64) {
        if self.started.replace(Arc::clone(file)).as_ref() != Some(file) {
            self.now.found += len;
        }
        self.grow(file, len);
    }

    /// The file has `len` bytes now.
    pub(super) fn grow(&mut self, file: &Arc<str>, len: u64) {
        self.now.bytes = self.finished + len;
        self.show(file, Stage::Downloading);
    }

    /// The file is complete with `len` bytes, downloaded or found.
    fn finish(&mut self, file: &Arc<str>, len: u64) {
        self.finished += len;
        if self.started.as_ref() != Some(file) {
            self.now.found += len;
        }
        self.now.bytes = self.finished;
        self.show(file, Stage::Downloading);
    }
}
