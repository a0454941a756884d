//! The nearest nodes of many queries, by comparing each with all.

use rayon::prelude::*;

use super::Graph;
use crate::error::Result;
use crate::graph::Pool;
use crate::kernel::CodeQuery;

/// Bytes of codes that are compared with every query of a group before the next ones: a part of the second cache.
const CACHED: usize = 256 << 10;
/// Queries of a group at most. Each group reads all codes once.
const GROUP: usize = 64;
/// Scores between two questions whether to go on: some hundredths of a second on one thread.
const SCORES: usize = 1 << 23;

impl Graph<'_> {
    /// The `k` nearest of `rows` to each query by code, best first; of equals the one that comes first in `rows`. The same at any
    /// number of threads. `go_on` is asked now and then.
    pub(crate) fn nearest(
        &self,
        queries: &[CodeQuery],
        rows: &[u32],
        k: usize,
        go_on: &mut dyn FnMut() -> Result<()>,
    ) -> Result<Vec<Vec<u32>>> {
        let block = (CACHED / self.records.shape.stride).max(1);
        let span = (SCORES / queries.len().max(1)).next_multiple_of(block);
        let group = queries.len().div_ceil(2 * rayon::current_num_threads()).clamp(1, GROUP);
        let mut pools: Vec<Pool> = queries.iter().map(|_| Pool::default()).collect();
        for rows in rows.chunks(span) {
            go_on()?;
            let groups = pools.par_chunks_mut(group).zip(queries.par_chunks(group));
            groups.for_each_init(Vec::new, |scores, (pools, queries)| {
                for rows in rows.chunks(block) {
                    scores.resize(rows.len(), 0.0);
                    for (pool, query) in pools.iter_mut().zip(queries) {
                        self.kernels.scores(query, &self.records.records(), rows, scores);
                        pool.merge(&self.kernels, k, rows, scores);
                    }
                }
            });
        }
        Ok(pools.iter().map(|pool| pool.iter().map(|(_, row)| row).collect()).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encoding::{Encoder, Encoding};
    use crate::kernel::Kernels;
    use crate::metric::Metric;
    use crate::vectors::{RecordBuffer, Shape, write_record};

    #[test]
    fn the_nearest_are_those_of_a_sorted_scan() {
        let (dim, count) = (3, 2_000_u32);
        let shape = Shape::new(dim, 4);
        let mut records = RecordBuffer::new(shape, count).unwrap();
        let encoding = Encoding::new(Metric::L2, vec![0.0; dim]);
        let mut encoder = Encoder::default();
        for row in 0..count {
            // Few enough places for many equal scores.
            let vector = [1.0, (row * 7919 % 23) as f32, (row * 104_729 % 11) as f32];
            let record = records.record_mut(row);
            encoding.encode(&vector, &mut encoder);
            write_record(record, shape, row.into(), &encoder.code);
        }
        let graph = Graph::new(Kernels::detect(), &encoding, 10, records);
        let rows: Vec<u32> = (0..count).filter(|row| row % 3 != 1).collect();
        let query = |row| {
            let mut query = CodeQuery::default();
            graph.query_of(row, &mut query);
            query
        };
        let queries: Vec<CodeQuery> = (0..150).map(query).collect();
        for k in [1, 11, 5_000] {
            let found = graph.nearest(&queries, &rows, k, &mut || Ok(())).unwrap();
            for (query, found) in queries.iter().zip(found) {
                let mut scores = vec![0.0; rows.len()];
                graph.kernels.scores(query, &graph.records.records(), &rows, &mut scores);
                let mut all: Vec<(f32, u32)> = scores.into_iter().zip(rows.iter().copied()).collect();
                all.sort_by(|a, b| b.0.total_cmp(&a.0));
                let expected: Vec<u32> = all.into_iter().take(k).map(|(_, row)| row).collect();
                assert_eq!(found, expected);
            }
        }
    }
}
