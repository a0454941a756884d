//! What an index is told of the queries to come.

use std::sync::Arc;

use super::Writer;
use crate::error::{Error, Result};
use crate::format::{SamplesEntry, encode_samples, samples_name};
use crate::samples::{MOST, Samples};

impl Writer {
    /// Tells what will be asked, where queries differ in kind from the vectors: texts that look for images. Graphs that are made from
    /// the next commit on, and the one that [`Writer::compact`] makes, get links from one near vector of a sample to the others, so
    /// that other queries of the kind find their way: with half of 1,203 CLIP texts as samples, the other half finds nine of its ten
    /// nearest among 99,000 images in two fifths of the time. Queries like the vectors find as much, in up to a quarter more time.
    /// What `recall` promises is then measured with samples that were kept out of the links: 120 of them, evenly, where there are
    /// 240 or more.
    ///
    /// A few hundred do, as varied as what will be asked; the build of 99,000 takes a sixth longer for 600. They are stored with
    /// the next commit in the place of those before; an empty set takes those away.
    ///
    /// # Errors
    /// Those of [`Writer::add`] for one of them, [`Error::Invalid`] for more than 10,000: nothing changes then.
    pub fn set_sample_queries<Q: AsRef<[f32]>>(&mut self, queries: &[Q]) -> Result<()> {
        self.usable()?;
        if queries.len() > MOST {
            let found = queries.len().to_string();
            return Err(Error::Invalid { field: "number of sample queries", found, expected: "10,000 at most" });
        }
        let (metric, dim) = (self.data.config.metric, self.data.config.dim);
        let admitted = queries.iter().map(|query| metric.admit(query.as_ref(), dim));
        let numbers = admitted.collect::<Result<Vec<_>>>()?.concat();
        let samples = Samples { numbers, dim };
        // Damaged ones may be replaced.
        if !self.samples().is_ok_and(|present| present.numbers == samples.numbers) {
            self.samples = Some(Arc::new(samples));
            self.samples_named = SamplesEntry::default();
            self.changed = true;
        }
        Ok(())
    }

    /// How many sample queries there are, those since the last commit if they were set anew.
    pub fn sample_queries(&self) -> u32 {
        self.samples.as_ref().map_or(self.samples_named.count, |samples| samples.len())
    }

    /// The sample queries, read when they are first wanted.
    pub(super) fn samples(&mut self) -> Result<Arc<Samples>> {
        if self.samples.is_none() {
            let samples = Samples::load(&*self.storage, self.samples_named, self.data.config.dim)?;
            self.samples = Some(Arc::new(samples));
        }
        Ok(self.samples.clone().unwrap_or_default())
    }

    /// Sees to it that the sample queries are in a file, if there are any, and returns which.
    pub(super) fn write_samples(&mut self) -> Result<SamplesEntry> {
        let Some(samples) = self.samples.clone().filter(|samples| samples.len() > 0 && self.samples_named.count == 0)
        else {
            return Ok(self.samples_named);
        };
        let id = self.take_id();
        let name = samples_name(id);
        self.garbage.push(name.clone());
        self.write_file(&name, &encode_samples(samples.dim, &samples.numbers))?;
        Ok(SamplesEntry { id, count: samples.len() })
    }
}
