//! Taking a graph over into a larger one, without the nodes that are removed.
//!
//! Most of the work of a build is finding neighbours, and those of the biggest segment are known: its links are renumbered, a link
//! to a removed node is replaced by what that node linked to (as FreshDiskANN does it, Singh et al. 2021), and only new vectors are
//! inserted. Rebuilding instead would cost as much for a tenth of new vectors as for all.

use rayon::prelude::*;

use crate::error::Result;
use crate::segment::Part;

/// A node to be taken over.
pub(crate) struct Scion {
    /// Its row in the new segment.
    pub(crate) row: u32,
    /// Rows of the new segment that it links to; perhaps more than there is room for.
    pub(crate) links: Vec<u32>,
    /// Whether a removed node was replaced among the links, so that they are to be selected anew.
    pub(crate) mended: bool,
}

/// The nodes of each level: the top first, the ground last.
pub(crate) struct Graft {
    pub(crate) levels: Vec<Vec<Scion>>,
}

impl Graft {
    /// `numbers` gives the rows that the live rows of `part` have in the new segment, in their order.
    pub(crate) fn new(part: &Part, numbers: impl Iterator<Item = u32>) -> Result<Graft> {
        let segment = &*part.segment;
        segment.check_records(0..segment.count())?;
        let records = segment.records();
        let mut renumbered: Vec<Option<u32>> = vec![None; segment.count() as usize];
        let live = (0..segment.count()).filter(|&row| !part.removed.contains(row));
        live.zip(numbers).for_each(|(row, number)| renumbered[row as usize] = Some(number));
        // A removed node's place is taken by a twin that lives: from the end, so that a chain passes its first live row upwards.
        for row in (0..segment.count()).rev() {
            if renumbered[row as usize].is_none() {
                renumbered[row as usize] = records.twin(row).and_then(|twin| renumbered[twin as usize]);
            }
        }
        let new = |row: u32| renumbered.get(row as usize).copied().flatten();
        let scion = |row: u32, links: &dyn Fn(u32) -> Result<Vec<u32>>| -> Result<Option<Scion>> {
            let Some(number) = new(row) else { return Ok(None) };
            let mut scion = Scion { row: number, links: Vec::new(), mended: false };
            let mut add = |link: u32| {
                if link != number && !scion.links.contains(&link) {
                    scion.links.push(link);
                }
            };
            for link in links(row)? {
                if let Some(link) = new(link) {
                    add(link);
                } else {
                    scion.mended = true;
                    links(link)?.into_iter().filter_map(new).for_each(&mut add);
                }
            }
            Ok(Some(scion))
        };
        let mut levels = Vec::new();
        for (_, places) in segment.levels() {
            let mut rows = Vec::with_capacity(places.len());
            for place in places.clone() {
                rows.push(segment.upper_node(place)?.row());
            }
            let links = |row: u32| -> Result<Vec<u32>> {
                let Ok(place) = rows.binary_search(&row) else { return Ok(Vec::new()) };
                let node = segment.upper_node(places.start + place as u32)?;
                Ok(node.links().filter_map(|link| rows.get(link as usize).copied()).collect())
            };
            let scions: Vec<Option<Scion>> = rows.iter().map(|&row| scion(row, &links)).collect::<Result<_>>()?;
            levels.push(scions.into_iter().flatten().collect());
        }
        let links = |row: u32| Ok(records.links(row).collect());
        let mut hangs = vec![false; segment.count() as usize];
        (0..segment.count()).filter_map(|row| records.twin(row)).for_each(|twin| hangs[twin as usize] = true);
        let ground = (0..segment.count()).into_par_iter().filter(|&row| !hangs[row as usize]);
        let scions: Vec<Option<Scion>> = ground.map(|row| scion(row, &links)).collect::<Result<_>>()?;
        levels.push(scions.into_iter().flatten().collect());
        Ok(Graft { levels })
    }
}
