//! What the photos of a library have in common: what a person may want to filter by.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::read::path_of;
use super::{Key, Keys, Reader};
use crate::Result;

/// Names of one kind and how many photos have each, the most frequent first.
pub(crate) type Counts = Vec<(String, u64)>;

/// What the photos of a library have in common.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Facets {
    pub(crate) cameras: Counts,
    pub(crate) lenses: Counts,
    pub(crate) formats: Counts,
    /// `2024-05`, in order of time.
    pub(crate) months: Counts,
    /// Folders and how many photos lie in and below each, in order of their paths.
    pub(crate) folders: Vec<(PathBuf, u64)>,
    /// Photos that say where they were taken.
    pub(crate) placed: u64,
}

/// Names of one kind that are told of.
const NAMES: usize = 200;
/// Folders that are told of; the deepest are left out first.
const FOLDERS: usize = 400;

/// Keys of all photos that may answer, with the shape of each picture.
#[derive(Clone, Debug, Default)]
pub(crate) struct Live {
    pub(crate) keys: Keys,
    /// Width over height in hundredths by key; 0 where it is not known.
    shapes: Vec<u16>,
}

impl Live {
    /// Width over height in hundredths; 0 where it is not known.
    pub(crate) fn shape(&self, key: Key) -> u16 {
        self.shapes.get(key as usize).copied().unwrap_or(0)
    }
}

impl Reader<'_> {
    /// Keys and shapes of all photos that may answer.
    pub(crate) fn live(&self) -> Result<Live> {
        self.ask(|db| {
            let mut live = Live::default();
            let mut rows = db.prepare("SELECT key, width, height FROM photo WHERE gone IS NULL ORDER BY key")?;
            let mut rows = rows.query([])?;
            while let Some(row) = rows.next()? {
                let key = row.get::<_, i64>(0)? as Key;
                let (width, height): (Option<u32>, Option<u32>) = (row.get(1)?, row.get(2)?);
                let shape = match (width.unwrap_or(0), height.unwrap_or(0)) {
                    (0, _) | (_, 0) => 0,
                    (width, height) => (u64::from(width) * 100 / u64::from(height)).clamp(1, 65_535) as u16,
                };
                live.keys.insert(key);
                live.shapes.resize(key as usize, 0);
                live.shapes.push(shape);
            }
            Ok(live)
        })
    }

    /// What the photos have in common. Walks over all rows.
    pub(crate) fn facets(&self) -> Result<Facets> {
        let roots: Vec<PathBuf> = self.roots()?.into_iter().map(|(path, _)| path).collect();
        self.ask(|db| {
            let counts = |column: &str, order: &str| {
                let sql = format!(
                    "SELECT {column} AS name, count(*) AS photos FROM photo WHERE gone IS NULL AND {column} IS NOT NULL \
                     GROUP BY name ORDER BY {order} LIMIT {NAMES}"
                );
                let mut rows = db.prepare(&sql)?;
                rows.query_map([], |row| Ok((row.get(0)?, row.get::<_, i64>(1)? as u64)))?
                    .collect::<rusqlite::Result<Counts>>()
            };
            let frequent = "photos DESC, name";
            let mut months = counts("substr(time, 1, 7)", "name DESC")?;
            months.reverse();
            let placed = "SELECT count(*) FROM photo WHERE gone IS NULL AND latitude IS NOT NULL";
            let mut below: BTreeMap<PathBuf, u64> = BTreeMap::new();
            let mut rows = db.prepare("SELECT path FROM photo WHERE gone IS NULL")?;
            let mut rows = rows.query([])?;
            while let Some(row) = rows.next()? {
                let path = path_of(row, 0)?;
                let Some(root) = roots.iter().filter(|root| path.starts_with(root)).min() else { continue };
                for folder in path.ancestors().skip(1).take_while(|folder| folder.starts_with(root)) {
                    match below.get_mut(folder) {
                        Some(count) => *count += 1,
                        None => {
                            below.insert(folder.to_path_buf(), 1);
                        }
                    }
                }
            }
            Ok(Facets {
                cameras: counts("camera", frequent)?,
                lenses: counts("lens", frequent)?,
                formats: counts("format", frequent)?,
                months,
                folders: shallowest(below),
                placed: db.query_row(placed, [], |row| row.get::<_, i64>(0))? as u64,
            })
        })
    }
}

/// As many folders as are told of.
fn shallowest(folders: BTreeMap<PathBuf, u64>) -> Vec<(PathBuf, u64)> {
    let depth = |path: &Path| path.components().count();
    let mut depths: Vec<usize> = folders.keys().map(|path| depth(path)).collect();
    depths.sort_unstable();
    let deepest = depths.get(FOLDERS).map_or(usize::MAX, |depth| depth - 1);
    folders.into_iter().filter(|(path, _)| depth(path) <= deepest).take(FOLDERS).collect()
}
