//! usearch: dot product over f16 or i8 casts, no exact scores after the walk.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use usearch::{Index, IndexOptions, MetricKind, ScalarKind};

use super::{BUILD_EF, DIM, Engine, How, LINKS, sync};

pub(crate) struct Usearch {
    threads: usize,
    path: PathBuf,
    index: Index,
}

impl Usearch {
    pub(crate) fn new(quantization: ScalarKind, threads: usize) -> Result<Usearch> {
        let options = IndexOptions {
            dimensions: DIM,
            metric: MetricKind::IP,
            quantization,
            connectivity: LINKS,
            expansion_add: BUILD_EF,
            ..IndexOptions::default()
        };
        Ok(Usearch { threads, path: PathBuf::new(), index: Index::new(&options)? })
    }
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().with_context(|| format!("{}: usearch takes paths in UTF-8", path.display()))
}

impl Engine for Usearch {
    fn create(&mut self, dir: &Path, capacity: usize) -> Result<()> {
        fs::create_dir_all(dir)?;
        self.path = dir.join("index.usearch");
        Ok(self.index.reserve_capacity_and_threads(capacity, self.threads)?)
    }

    fn open(&mut self, dir: &Path, mapped: bool) -> Result<()> {
        self.path = dir.join("index.usearch");
        let path = text(&self.path)?;
        if mapped {
            self.index.view(path)?;
        } else {
            self.index.load(path)?;
        }
        Ok(())
    }

    fn add(&mut self, keys: &[u64], rows: &[f32]) -> Result<()> {
        let needed = self.index.size() + keys.len();
        if needed > self.index.capacity() {
            self.index.reserve_capacity_and_threads(needed, self.threads)?;
        }
        let part = keys.len().div_ceil(self.threads);
        let index = &self.index;
        std::thread::scope(|scope| {
            let parts = keys.chunks(part).zip(rows.chunks(part * DIM));
            let threads: Vec<_> = parts
                .map(|(keys, rows)| {
                    let mut pairs = keys.iter().zip(rows.chunks_exact(DIM));
                    scope.spawn(move || pairs.try_for_each(|(&key, row)| index.add(key, row)))
                })
                .collect();
            threads
                .into_iter()
                .try_for_each(|t| Ok(t.join().map_err(|_| anyhow!("a thread of usearch panicked"))??))
        })
    }

    fn remove(&mut self, keys: &[u64]) -> Result<()> {
        for &key in keys {
            self.index.remove(key)?;
        }
        Ok(())
    }

    fn commit(&mut self) -> Result<()> {
        let new = self.path.with_extension("new");
        self.index.save(text(&new)?)?;
        sync(&new)?;
        fs::rename(&new, &self.path)?;
        sync(&self.path)
    }

    fn search(&mut self, query: &[f32], how: &How) -> Result<Vec<u64>> {
        let ef = how.ef.context("usearch needs ef")?;
        if self.index.expansion_search() != ef {
            self.index.change_expansion_search(ef);
        }
        let matches = match how.allowed {
            Some(_) => self.index.filtered_search(query, how.k, |key| how.allows(key))?,
            None => self.index.search(query, how.k)?,
        };
        Ok(matches.keys)
    }
}
