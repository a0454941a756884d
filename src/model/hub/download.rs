//! One file from the hub to its final name.
//!
//! The file grows under a name of its own and gets the final one after its checksum has been read back from the disk:
//! whatever breaks in between (the connection, the server's memory of what it promised, this process) leaves something to
//! go on from, and never a wrong file under the right name.

use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ureq::http::Method;

use super::Stage;
use super::cache::{Repository, is_commit};
use super::checksum::Checksum;
use super::fetch::Watch;
use super::options::HubOptions;
use super::transport::{Failure, Head, Stopped, Transport};
use crate::{Error, Result};

const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// A file on the hub, as the hub describes it.
#[derive(Clone, Debug)]
pub(super) struct Remote {
    pub(super) file: Arc<str>,
    pub(super) url: String,
    pub(super) etag: String,
    pub(super) checksum: Checksum,
    pub(super) commit: String,
    pub(super) size: Option<u64>,
}

/// Brings files of one repository here.
pub(super) struct Downloads<'a> {
    transport: Transport,
    options: &'a HubOptions,
    name: &'a str,
}

impl<'a> Downloads<'a> {
    pub(super) fn new(options: &'a HubOptions, name: &'a str) -> Result<Self> {
        Ok(Self { transport: Transport::new(options)?, options, name })
    }

    /// Where `file` of `revision` lies on the hub.
    pub(super) fn url(&self, revision: &str, file: &str) -> String {
        format!("{}/{}/resolve/{revision}/{file}", self.options.endpoint, self.name)
    }

    /// What the hub says about `file` at `revision`; `None` if the repository has no such file.
    pub(super) fn ask(&self, revision: &str, file: &Arc<str>, watch: &mut Watch<'_>) -> Result<Option<Remote>> {
        let url = self.url(revision, file);
        watch.show(file, Stage::Asking);
        let mut failures = 0;
        let head = loop {
            let asked = self.transport.start(Method::HEAD, &url, 0).map_err(Stopped::from);
            let head = asked.and_then(|mut exchange| exchange.head(watch.stop));
            match head.and_then(|head| if is_fine(&head) { Ok(head) } else { self.refusal(head) }) {
                Ok(head) => break head,
                Err(stopped) => self.after(stopped, &mut failures, &url, file, watch)?,
            }
        };
        if head.status == 404 {
            return Ok(None);
        }
        let odd = |what: &str| {
            Failure::lasting(format!("the server does not answer as a model hub does: {what} (is HF_ENDPOINT right?)"))
        };
        let commit = head.commit.filter(|commit| is_commit(commit));
        let commit = commit.ok_or_else(|| odd("it names no commit").into_error(&url))?;
        let etag = head.etag.unwrap_or_default();
        let checksum = Checksum::from_etag(&etag).ok_or_else(|| odd("it gives no checksum").into_error(&url))?;
        Ok(Some(Remote { file: Arc::clone(file), url, etag, checksum, commit, size: head.size }))
    }

    /// Brings one file to its blob, or finds it there.
    pub(super) fn get(&self, remote: &Remote, to: &Repository, watch: &mut Watch<'_>) -> Result<()> {
        let (file, blob, partial) = (&remote.file, to.blob(&remote.etag), to.partial(&remote.etag));
        let _lock = to.lock(&remote.etag, || {
            watch.show(file, Stage::Waiting);
            (watch.stop)()
        })?;
        if blob.is_file() {
            return Ok(());
        }
        let (mut failures, mut spoilt) = (0, false);
        loop {
            let before = fs::metadata(&partial).map_or(0, |partial| partial.len());
            let stopped = match self.fill(remote, to, watch) {
                Ok(()) => {
                    watch.show(file, Stage::Checking);
                    if remote.checksum.verify(&partial, watch.stop)? {
                        return fs::rename(&partial, &blob).map_err(|error| to.trouble(error));
                    }
                    fs::remove_file(&partial).map_err(|error| to.trouble(error))?;
                    let wrong = "what arrived is not what the hub describes (its checksum differs)";
                    // A second time is no accident of an earlier, half-finished download.
                    let failure = if spoilt { Failure::lasting(wrong) } else { Failure::passing(wrong) };
                    spoilt = true;
                    failure.into()
                }
                Err(stopped) => stopped,
            };
            if fs::metadata(&partial).map_or(0, |partial| partial.len()) > before {
                failures = 0;
            }
            self.after(stopped, &mut failures, &remote.url, file, watch)?;
        }
    }

    /// One attempt: appends to the partial file until it is complete.
    fn fill(&self, remote: &Remote, to: &Repository, watch: &mut Watch<'_>) -> Result<(), Stopped> {
        let path = to.partial(&remote.etag);
        let partial = File::options().create(true).truncate(false).read(true).write(true).open(&path);
        let mut partial = partial.map_err(|error| to.trouble(error))?;
        let mut len = partial.metadata().map_err(|error| to.trouble(error))?.len();
        if remote.size.is_some_and(|size| len > size) {
            restart(&mut partial, &mut len, to)?;
        }
        if remote.size == Some(len) {
            return Ok(());
        }

        let mut exchange = self.transport.start(Method::GET, &remote.url, len)?;
        let head = exchange.head(watch.stop)?;
        match head.status {
            206 => {
                let (first, total) = head.range;
                if first != Some(len) || (total.is_some() && remote.size.is_some() && total != remote.size) {
                    restart(&mut partial, &mut len, to)?;
                    return Err(
                        Failure::passing("the server sent another part of the file than it was asked for").into()
                    );
                }
            }
            // The whole file, whether or not a part was asked for.
            200 => restart(&mut partial, &mut len, to)?,
            // Nothing after what is here: all of it, if nobody knows the size better.
            416 if remote.size.is_none() && head.range.1 == Some(len) => return Ok(()),
            416 => {
                restart(&mut partial, &mut len, to)?;
                return Err(Failure::passing("the server could not go on with the file").into());
            }
            404 => return Err(Failure::lasting("the file has vanished from the hub").into()),
            _ => return self.refusal(head).map(|_| ()),
        }
        if let (Some(size), Some(length)) = (remote.size, head.length)
            && len + length != size
        {
            let reason = format!("the hub announced {size} bytes, and the server now speaks of {}", len + length);
            return Err(Failure::passing(reason).into());
        }

        watch.start(&remote.file, len);
        partial.seek(SeekFrom::Start(len)).map_err(|error| to.trouble(error))?;
        while let Some(data) = exchange.data(watch.stop)? {
            len += data.len() as u64;
            if remote.size.is_some_and(|size| len > size) {
                restart(&mut partial, &mut len, to)?;
                return Err(Failure::passing("the server sent more than the hub announced").into());
            }
            partial.write_all(&data).map_err(|error| to.trouble(error))?;
            watch.grow(&remote.file, len);
        }
        if remote.size.is_some_and(|size| len < size) {
            return Err(Failure::passing("the connection was closed in the middle of the file").into());
        }
        partial.sync_all().map_err(|error| to.trouble(error))?;
        Ok(())
    }

    /// After a failure: gives up, or waits for the next attempt.
    fn after(
        &self,
        stopped: Stopped,
        failures: &mut u32,
        url: &str,
        file: &Arc<str>,
        watch: &mut Watch<'_>,
    ) -> Result<()> {
        let failure = match stopped {
            Stopped::Error(error) => return Err(error),
            Stopped::Failure(failure) => failure,
        };
        *failures += 1;
        if !failure.passing || *failures >= self.options.attempts {
            return Err(failure.into_error(url));
        }
        let doubled = self.options.backoff.saturating_mul(1 << (*failures - 1).min(10));
        let pause = failure.retry_after.unwrap_or(doubled).min(LONGEST_PAUSE);
        watch.show(file, Stage::Retrying { reason: failure.reason, pause });
        let until = Instant::now() + pause;
        while let Some(left) = until.checked_duration_since(Instant::now()) {
            if (watch.stop)() {
                return Err(Error::Cancelled);
            }
            std::thread::sleep(left.min(Duration::from_millis(50)));
        }
        Ok(())
    }

    /// What an answer other than the file means, and whether it may change.
    fn refusal(&self, head: Head) -> Result<Head, Stopped> {
        let page = format!("{}/{}", self.options.endpoint, self.name);
        let code = head.error_code.as_deref().unwrap_or_default();
        let mut failure = match (head.status, code) {
            (_, "GatedRepo") => Failure::lasting(format!(
                "its owner asks for consent: accept the terms at {page}, then log in (HF_TOKEN, or hf auth login)"
            )),
            (401 | 403, _) if self.transport.has_token() => {
                Failure::lasting("the hub does not accept the token, or there is no such repository (HF_TOKEN)")
            }
            (401 | 403, _) => Failure::lasting(
                "there is no such repository, or it is private: log in if you have access (HF_TOKEN, or hf auth login)",
            ),
            (404, "RevisionNotFound") => Failure::lasting("the repository has no such revision"),
            (404, _) => Failure::lasting("there is no such repository"),
            (429, _) => Failure::passing("the hub is busy with too many requests from here"),
            (408 | 500.., _) => Failure::passing(format!("the hub is out of order (status {})", head.status)),
            (status, _) => Failure::lasting(format!("the hub refuses (status {status})")),
        };
        failure.retry_after = head.retry_after;
        Err(failure.into())
    }
}

/// Whether an answer describes a file, or says plainly that there is none.
fn is_fine(head: &Head) -> bool {
    match head.status {
        200..300 => true,
        404 => !matches!(head.error_code.as_deref(), Some("RepoNotFound" | "RevisionNotFound")),
        _ => false,
    }
}

/// Empties a partial file.
fn restart(partial: &mut File, len: &mut u64, to: &Repository) -> Result<()> {
    if std::mem::take(len) > 0 {
        partial.set_len(0).map_err(|error| to.trouble(error))?;
    }
    Ok(())
}
