//! What anybody writes first: score every allowed row, sort, take the best.

use std::path::Path;

use anyhow::{Result, bail};

use super::{DIM, Engine, How};

#[derive(Default)]
pub(crate) struct Scan {
    keys: Vec<u64>,
    rows: Vec<f32>,
}

impl Engine for Scan {
    fn create(&mut self, _dir: &Path, capacity: usize) -> Result<()> {
        self.rows.reserve_exact(capacity * DIM);
        Ok(())
    }

    fn open(&mut self, _dir: &Path, _mapped: bool) -> Result<()> {
        bail!("keeps nothing on disk")
    }

    fn add(&mut self, keys: &[u64], rows: &[f32]) -> Result<()> {
        self.keys.extend(keys);
        self.rows.extend(rows);
        Ok(())
    }

    fn commit(&mut self) -> Result<()> {
        bail!("keeps nothing on disk")
    }

    fn search(&mut self, query: &[f32], how: &How) -> Result<Vec<u64>> {
        let rows = self.keys.iter().zip(self.rows.chunks_exact(DIM)).filter(|(key, _)| how.allows(**key));
        let mut scored: Vec<(f32, u64)> = rows.map(|(&key, row)| (dot(query, row), key)).collect();
        let k = how.k.min(scored.len());
        if k < scored.len() {
            scored.select_nth_unstable_by(k, |a, b| b.0.total_cmp(&a.0));
            scored.truncate(k);
        }
        scored.sort_by(|a, b| b.0.total_cmp(&a.0));
        Ok(scored.into_iter().map(|(_, key)| key).collect())
    }
}

/// Sixteen sums side by side, so that the compiler may use vectors.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0; 16];
    for (a, b) in a.chunks_exact(16).zip(b.chunks_exact(16)) {
        for lane in 0..16 {
            sums[lane] += a[lane] * b[lane];
        }
    }
    sums.iter().sum()
}
