//! hnsw_rs: dot product on normalised rows, its fastest distance on stable Rust.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use hnsw_rs::prelude::{AnnT, DataId, DistDot, Hnsw, HnswIo, ReloadOptions};

use super::{BUILD_EF, DIM, Engine, How, LINKS, sync};

pub(crate) struct HnswRs {
    threads: usize,
    dir: PathBuf,
    graph: Option<Hnsw<'static, f32, DistDot>>,
}

impl HnswRs {
    pub(crate) fn new(threads: usize) -> HnswRs {
        HnswRs { threads, dir: PathBuf::new(), graph: None }
    }

    fn graph(&self) -> Result<&Hnsw<'static, f32, DistDot>> {
        self.graph.as_ref().context("no index is open")
    }
}

impl Engine for HnswRs {
    fn create(&mut self, dir: &Path, capacity: usize) -> Result<()> {
        fs::create_dir_all(dir)?;
        self.dir = dir.into();
        self.graph = Some(Hnsw::new(LINKS, capacity, 16, BUILD_EF, DistDot {}));
        Ok(())
    }

    fn open(&mut self, dir: &Path, mapped: bool) -> Result<()> {
        self.dir = dir.into();
        // The graph borrows from its loader; both live as long as this process.
        let loader = Box::leak(Box::new(HnswIo::new_with_options(dir, "graph", ReloadOptions::new(mapped))));
        self.graph = Some(loader.load_hnsw()?);
        Ok(())
    }

    fn add(&mut self, keys: &[u64], rows: &[f32]) -> Result<()> {
        let items: Vec<_> = rows.chunks_exact(DIM).zip(keys.iter().map(|&key| key as usize)).collect();
        let graph = self.graph()?;
        if self.threads == 1 {
            items.into_iter().for_each(|item| graph.insert_slice(item));
        } else {
            graph.parallel_insert_slice(&items);
        }
        Ok(())
    }

    fn commit(&mut self) -> Result<()> {
        // It does not replace its own files, so the dump goes beside them and is moved over.
        let beside = self.dir.join("new");
        fs::create_dir_all(&beside)?;
        self.graph()?.file_dump(&beside, "graph")?;
        for name in ["graph.hnsw.graph", "graph.hnsw.data"] {
            sync(&beside.join(name))?;
            fs::rename(beside.join(name), self.dir.join(name))?;
        }
        fs::remove_dir(&beside)?;
        sync(&self.dir)
    }

    fn search(&mut self, query: &[f32], how: &How) -> Result<Vec<u64>> {
        let ef = how.ef.context("hnsw_rs needs ef")?;
        let allows = |key: &DataId| how.allows(*key as u64);
        let filter: Option<&dyn hnsw_rs::prelude::FilterT> = if how.allowed.is_some() { Some(&allows) } else { None };
        let found = self.graph()?.search_filter(query, how.k, ef, filter);
        Ok(found.iter().map(|neighbour| neighbour.d_id as u64).collect())
    }
}
