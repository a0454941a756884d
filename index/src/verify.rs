//! The full check of an index.

use std::collections::HashSet;

use crate::error::{Error, Result};
use crate::format::{ManifestData, UPPER_LINKS};
use crate::manifest;
use crate::reader::Reader;
use crate::samples::Samples;
use crate::segment::Segment;

/// What a full check found.
#[derive(Debug)]
#[non_exhaustive]
pub struct VerifyReport {
    /// The commit that was checked.
    pub generation: u64,
    /// Vectors that a search can find.
    pub vectors: u64,
    /// Vectors that are removed but still take room.
    pub removed: u64,
    /// Segments, and how many of them have a graph.
    pub segments: usize,
    /// Segments with a graph.
    pub graphs: usize,
    /// Bytes that were read and checked.
    pub bytes: u64,
    /// Bytes of all that is not exact rows: codes, links, keys.
    pub bytes_without_rows: u64,
    /// What is damaged; empty when all is well.
    pub problems: Vec<Error>,
}

impl VerifyReport {
    /// Whether nothing is damaged.
    pub fn is_clean(&self) -> bool {
        self.problems.is_empty()
    }

    pub(crate) fn of(reader: &Reader) -> Result<VerifyReport> {
        let mut report = VerifyReport {
            generation: reader.generation(),
            vectors: reader.len(),
            removed: 0,
            segments: reader.parts().len(),
            graphs: 0,
            bytes: 0,
            bytes_without_rows: 0,
            problems: Vec::new(),
        };
        // What is open was right when it was opened; whether the disk still says so is another question. A later commit may have
        // replaced the files meanwhile, which is no damage. The rows that are removed are read here.
        match manifest::load(reader.storage()) {
            Ok((data, _)) if data.generation == reader.generation() && data != *reader.data() => {
                let path = reader.storage().path(crate::format::MANIFEST);
                report.problems.push(Error::corrupt(path, "not the manifest that this reader was opened with"));
            }
            Ok((data, _)) => report.problems.extend(samples(reader, &data).err()),
            Err(error) => report.problems.push(error),
        }
        let mut keys = HashSet::new();
        for part in reader.parts() {
            let segment = &*part.segment;
            let (all, without_rows) = segment.size();
            report.bytes += all;
            report.bytes_without_rows += without_rows;
            report.removed += u64::from(part.removed.count());
            report.graphs += usize::from(segment.has_graph());
            let damaged = segment.verify_bytes();
            if !damaged.is_empty() {
                report.problems.extend(damaged);
                continue;
            }
            let problem = |what: String| Error::corrupt(segment.path(), what);
            report.problems.extend(records(segment).err());
            report.problems.extend(key_table(segment).err());
            if segment.has_graph() {
                report.problems.extend(levels(segment).and_then(|()| reachable(segment)).err());
            }
            for row in (0..segment.count()).filter(|&row| !part.removed.contains(row)) {
                if !keys.insert(segment.records().key(row)) {
                    report.problems.push(problem(format!("the key of row {row} occurs twice")));
                }
            }
        }
        Ok(report)
    }
}

/// The sample queries can be read. The next commit may have replaced them meanwhile.
fn samples(reader: &Reader, data: &ManifestData) -> Result<()> {
    let read = Samples::load(reader.storage(), data.samples, data.config.dim);
    match read {
        Err(error) if manifest::read(reader.storage())?.is_none_or(|now| now.generation == data.generation) => {
            Err(error)
        }
        _ => Ok(()),
    }
}

/// Correction terms are numbers, links and twins point inside.
fn records(segment: &Segment) -> Result<()> {
    let records = segment.records();
    for row in 0..segment.count() {
        let terms = [records.scale(row), records.bias(row), records.error(row)];
        let (links, twin) = records.raw_links(row);
        let sound = links.is_some_and(|mut links| links.all(|link| link < segment.count() && link != row))
            && twin.is_none_or(|_| records.twin(row).is_some())
            && terms.iter().all(|t| t.is_finite());
        if !sound {
            return Err(Error::corrupt(segment.path(), format!("the record of row {row} is impossible")));
        }
    }
    Ok(())
}

fn key_table(segment: &Segment) -> Result<()> {
    let mut last = None;
    for at in 0..segment.count() {
        let (key, row) = segment.key_entry(at)?;
        if last.is_some_and(|last| last >= key) || segment.records().key(row) != key {
            return Err(Error::corrupt(segment.path(), format!("entry {at} of the key table is out of place")));
        }
        last = Some(key);
    }
    Ok(())
}

/// Every node leads down to itself, and links stay inside their level.
fn levels(segment: &Segment) -> Result<()> {
    let levels: Vec<_> = segment.levels().map(|level| level.1).collect();
    for (at, places) in levels.iter().enumerate() {
        for place in places.clone() {
            let node = segment.upper_node(place)?;
            let below = match levels.get(at + 1) {
                Some(next) if next.contains(&(next.start + node.down())) => {
                    segment.upper_node(next.start + node.down())?.row()
                }
                Some(_) => u32::MAX,
                None => node.down(),
            };
            let inside = node.links().take(UPPER_LINKS).all(|link| link < places.end - places.start);
            if node.row() >= segment.count() || below != node.row() || !inside {
                return Err(Error::corrupt(segment.path(), format!("node {place} above level 0 is impossible")));
            }
        }
    }
    Ok(())
}

/// A path leads from the nodes of level 1 to every vector.
fn reachable(segment: &Segment) -> Result<()> {
    let records = segment.records();
    let mut reached = vec![false; segment.count() as usize];
    let mut open = Vec::new();
    match segment.levels().last() {
        Some((_, places)) => {
            for place in places {
                open.push(segment.upper_node(place)?.row());
            }
        }
        None => open.push(0),
    }
    open.iter().for_each(|&row| reached[row as usize] = true);
    while let Some(row) = open.pop() {
        for next in records.links(row).chain(records.twin(row)) {
            if !std::mem::replace(&mut reached[next as usize], true) {
                open.push(next);
            }
        }
    }
    match reached.iter().position(|reached| !reached) {
        Some(row) => Err(Error::corrupt(segment.path(), format!("no path of the graph leads to row {row}"))),
        None => Ok(()),
    }
}
