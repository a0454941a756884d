//! Sample queries: what will be asked of an index, where that differs in kind from what lies in it, as texts do from images.

use crate::calibrate;
use crate::encoding::{EncodedQuery, Encoding};
use crate::error::{Error, Result};
use crate::format::{SamplesEntry, decode_samples, samples_name};
use crate::kernel::CodeQuery;
use crate::segment::refused;
use crate::storage::Storage;

/// More are refused: some hundreds do.
pub(crate) const MOST: usize = 10_000;

/// Queries as they are searched: normalised for cosine.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Samples {
    pub(crate) numbers: Vec<f32>,
    pub(crate) dim: usize,
}

impl Samples {
    pub(crate) fn len(&self) -> u32 {
        self.numbers.len().checked_div(self.dim).unwrap_or(0) as u32
    }

    /// Reads those that a manifest names.
    pub(crate) fn load(storage: &dyn Storage, entry: SamplesEntry, dim: usize) -> Result<Samples> {
        if entry.count == 0 {
            return Ok(Samples::default());
        }
        let name = samples_name(entry.id);
        let path = storage.path(&name);
        let bytes = storage.read(&name).map_err(Error::io(&path, "read"))?;
        let numbers = decode_samples(&bytes, dim, entry.count).map_err(|r| refused(r, path))?;
        Ok(Samples { numbers, dim })
    }

    /// In code: those that shape a graph, and those that it is measured with afterwards. Where there are few, all shape it: what is
    /// measured with the queries that shaped a graph is too good to be true.
    pub(crate) fn encode(&self, encoding: &Encoding) -> (Vec<CodeQuery>, Vec<CodeQuery>) {
        let count = self.len() as usize;
        let every = if count >= 2 * calibrate::QUERIES { count / calibrate::QUERIES } else { usize::MAX };
        let mut query = EncodedQuery::default();
        let (mut shaping, mut measuring) = (Vec::new(), Vec::new());
        for (at, sample) in self.numbers.chunks_exact(self.dim.max(1)).enumerate() {
            encoding.query(sample, &mut query);
            let held_out = at % every == every - 1 && measuring.len() < calibrate::QUERIES;
            if held_out { &mut measuring } else { &mut shaping }.push(query.codes.clone());
        }
        (shaping, measuring)
    }
}
