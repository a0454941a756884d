//! Out of a library again: export, near duplicates, how well captions fit.
//!
//! Everything here reads a snapshot, in batches of rows, and changes nothing: a library of any size goes through, and an ingest may
//! run meanwhile.

mod duplicates;
mod export;
mod fresh;
mod npy;
mod score;

pub use duplicates::{Duplicates, Group};
pub use export::{Export, ExportFormat, Exported};
pub use score::{Pair, ScoreCaptions, Scored};

use serde_json::{Map, Value};

use crate::Result;
use crate::catalog::{Key, Record};
use crate::engine::Snapshot;
use crate::query::Filter;

/// Rows that are read at a time.
const BATCH: usize = 1000;

/// A photo with all that is known of it.
struct Row {
    record: Record,
    metadata: Map<String, Value>,
    vector: Vec<f32>,
}

/// Every photo that a filter lets pass and that has a vector, by key.
fn rows(snapshot: &Snapshot<'_>, filter: &Filter, mut each: impl FnMut(Row) -> Result<()>) -> Result<()> {
    let keys: Vec<Key> = snapshot.catalog.select(filter)?.iter().collect();
    for batch in keys.chunks(BATCH) {
        let records = snapshot.catalog.records(batch)?;
        let present: Vec<Key> = records.iter().map(|record| record.key).collect();
        for (record, metadata) in records.into_iter().zip(snapshot.catalog.metadata(&present)?) {
            if let Some(vector) = snapshot.index.get(record.key)? {
                each(Row { record, metadata, vector })?;
            }
        }
    }
    Ok(())
}
