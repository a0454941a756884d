//! The index under test.

use std::path::Path;

use anyhow::{Context, Result};
use tintype_index::{Config, Index, KeySet, Metric, Reader, Writer};

use super::{DIM, Engine, How, LINKS};
use crate::data::{Rows, TEXTS};

#[derive(Default)]
pub(crate) struct Tintype {
    index: Option<Index>,
    writer: Option<Writer>,
    /// A snapshot of the last commit; taken anew after each.
    reader: Option<Reader>,
    /// The filter, as a set of keys.
    allowed: KeySet,
    /// Whether the even text queries, which nothing is reported of, are its sample queries.
    sampled: bool,
}

impl Tintype {
    pub(crate) fn sampled() -> Tintype {
        Tintype { sampled: true, ..Tintype::default() }
    }

    fn index(&self) -> Result<&Index> {
        self.index.as_ref().context("no index is open")
    }

    fn writer(&mut self) -> Result<&mut Writer> {
        let writer = match self.writer.take() {
            Some(writer) => writer,
            None => self.index()?.writer()?,
        };
        Ok(self.writer.insert(writer))
    }
}

impl Engine for Tintype {
    fn create(&mut self, dir: &Path, _capacity: usize) -> Result<()> {
        let config = Config { dim: DIM, metric: Metric::Cosine, links: 2 * LINKS, ..Config::default() };
        self.index = Some(Index::create(dir, config)?);
        if self.sampled {
            let texts = Rows::open(&dir.with_file_name(TEXTS))?;
            let even: Vec<Vec<f32>> =
                (0..texts.count()?).step_by(2).map(|at| texts.read(&[at])).collect::<Result<_>>()?;
            self.writer()?.set_sample_queries(&even)?;
        }
        Ok(())
    }

    fn open(&mut self, dir: &Path, _mapped: bool) -> Result<()> {
        let index = Index::open(dir)?;
        self.reader = Some(index.reader()?);
        self.index = Some(index);
        Ok(())
    }

    fn add(&mut self, keys: &[u64], rows: &[f32]) -> Result<()> {
        let writer = self.writer()?;
        for (&key, row) in keys.iter().zip(rows.chunks_exact(DIM)) {
            writer.add(key, row)?;
        }
        Ok(())
    }

    fn remove(&mut self, keys: &[u64]) -> Result<()> {
        let writer = self.writer()?;
        for &key in keys {
            writer.remove(key)?;
        }
        Ok(())
    }

    fn commit(&mut self) -> Result<()> {
        self.writer()?.commit()?;
        self.reader = None;
        Ok(())
    }

    fn compact(&mut self) -> Result<()> {
        self.writer()?.compact()?;
        self.reader = None;
        Ok(())
    }

    fn prepare(&mut self, allowed: Option<&[u8]>) {
        let keys = (0u64..).zip(allowed.unwrap_or_default());
        self.allowed = keys
            .flat_map(|(at, byte)| (0..8).filter(move |bit| byte >> bit & 1 == 1).map(move |bit| 8 * at + bit))
            .collect();
    }

    fn search(&mut self, query: &[f32], how: &How) -> Result<Vec<u64>> {
        let reader = match self.reader.take() {
            Some(reader) => reader,
            None => self.index()?.reader()?,
        };
        let reader = self.reader.insert(reader);
        let mut search = reader.search(query).k(how.k);
        if let Some(ef) = how.ef {
            search = search.ef(ef);
        }
        if let Some(recall) = how.recall {
            search = search.recall(recall);
        }
        match how.allowed {
            Some(_) if how.closure => search = search.filter(|key| how.allows(key)),
            Some(_) => search = search.among(&self.allowed),
            None => {}
        }
        Ok(search.run()?.iter().map(|neighbor| neighbor.key).collect())
    }
}
