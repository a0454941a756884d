//! Vectors for captions.
//!
//! They lie in an index of their own beside that of the pictures, under the same keys: most libraries have no captions and pay
//! nothing, and a search by pictures never meets them. Which captions have no vector yet is what the two indexes say, so an
//! interrupted run goes on where it was.

use std::ops::ControlFlow;
use std::time::Instant;

use tintype_index::{Config, Index, Metric};

use super::collected::without_orphans;
use super::request::Target;
use super::watch::{Watch, watched};
use super::{Pace, Progress, TICK, commit_index};
use crate::catalog::Key;
use crate::{Error, Result};

/// Captions per call of the encoder.
const BATCH: usize = 64;

/// A request to embed captions; ends in [`EmbedCaptions::run`].
#[must_use = "nothing is embedded before `run`"]
pub struct EmbedCaptions<'a> {
    target: Target<'a>,
    watch: Watch<'a>,
}

watched!(EmbedCaptions);

impl<'a> EmbedCaptions<'a> {
    pub(crate) fn new(target: Target<'a>) -> EmbedCaptions<'a> {
        EmbedCaptions { target, watch: Watch::default() }
    }

    /// Embeds every caption that has no vector, and says how many those were. Several lines of one caption are one text; what a
    /// model cannot read to its end it reads the beginning of.
    ///
    /// # Errors
    /// [`Error::Busy`] if another process writes, [`Error::Cancelled`] if `cancel` said so: what was done is kept.
    pub fn run(mut self) -> Result<u64> {
        let target = &self.target;
        let _lock = self.watch.writer(target.catalog)?;
        let index = match &target.captions {
            Some(index) => index.clone(),
            None => make(target)?,
        };
        let mut vectors = without_orphans(&index, &target.catalog.read()?)?;
        self.watch.bound(&mut vectors);
        let mut found = 0;
        target.without(&vectors, 0, |_, _| {
            found += 1;
            ControlFlow::Continue(())
        })?;
        let mut progress = Progress { found, walked: true, ..Progress::default() };
        let (mut pace, mut ticked, mut last) = (Pace::new(), Instant::now(), 0);
        loop {
            let mut batch: Vec<(Key, String)> = Vec::new();
            target.without(&vectors, last, |key, caption| {
                batch.push((key, caption));
                if batch.len() < BATCH { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            })?;
            let Some((key, _)) = batch.last() else { break };
            last = *key;
            let texts: Vec<&str> = batch.iter().map(|(_, caption)| caption.as_str()).collect();
            for ((key, _), vector) in batch.iter().zip(target.encoder.encode_texts(&texts)?.rows()) {
                match vectors.add(*key, vector) {
                    // A caption without a word that the model knows.
                    Ok(()) | Err(tintype_index::Error::ZeroVector) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            progress.done += batch.len() as u64;
            progress.embedded = progress.done;
            if ticked.elapsed() >= TICK {
                ticked = Instant::now();
                if (self.watch.cancel)() {
                    commit_index(&mut vectors, &mut Watch::hurried(), progress)?;
                    return Err(Error::Cancelled);
                }
                (self.watch.progress)(&progress);
            }
            if pace.is_due() {
                let start = Instant::now();
                if commit_index(&mut vectors, &mut self.watch, progress.clone())? {
                    return Err(Error::Cancelled);
                }
                pace.committed(start);
            }
        }
        let done = progress.done;
        if commit_index(&mut vectors, &mut self.watch, progress)? {
            return Err(Error::Cancelled);
        }
        Ok(done)
    }
}

/// Makes the index of captions.
pub(super) fn make(target: &Target<'_>) -> Result<Index> {
    let config = Config { dim: target.encoder.space().dim, metric: Metric::Cosine, ..Config::default() };
    match Index::create(&target.captions_dir, config) {
        Err(tintype_index::Error::Exists { .. }) => Ok(Index::open(&target.captions_dir)?),
        made => Ok(made?),
    }
}

impl Target<'_> {
    /// Captions that have no vector, of photos after one, in the order of their keys.
    fn without(
        &self,
        vectors: &tintype_index::Writer,
        after: Key,
        mut each: impl FnMut(Key, String) -> ControlFlow<()>,
    ) -> Result<()> {
        let mut failure = None;
        self.catalog.read()?.captions(after, |key, caption| match vectors.contains(key) {
            Ok(true) => ControlFlow::Continue(()),
            Ok(false) => each(key, caption),
            Err(error) => {
                failure = Some(error);
                ControlFlow::Break(())
            }
        })?;
        failure.map_or(Ok(()), |error| Err(error.into()))
    }
}
