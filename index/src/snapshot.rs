//! One generation of the index, as read from disk.

use std::collections::HashMap;
use std::fs;
use std::io::Write;
use std::path::Path;

use xxhash_rust::xxh3::xxh3_64;

use crate::Key;
use crate::config::{Config, Rows};
use crate::error::{Error, Result};
use crate::metric::Metric;

pub(crate) const SNAPSHOT: &str = "MANIFEST";
const MAGIC: &[u8; 8] = b"TINTIDX0";

#[derive(Clone, Debug)]
pub(crate) struct Snapshot {
    pub(crate) generation: u64,
    pub(crate) config: Config,
    pub(crate) keys: Vec<Key>,
    pub(crate) rows: Vec<f32>,
    pub(crate) by_key: HashMap<Key, usize>,
}

impl Snapshot {
    pub(crate) fn empty(config: Config) -> Snapshot {
        Snapshot { generation: 0, config, keys: vec![], rows: vec![], by_key: HashMap::new() }
    }

    pub(crate) fn row(&self, at: usize) -> &[f32] {
        &self.rows[at * self.config.dim..][..self.config.dim]
    }

    pub(crate) fn write(&self, dir: &Path) -> Result<()> {
        let mut bytes = MAGIC.to_vec();
        let c = &self.config;
        for n in [
            self.generation,
            c.dim as u64,
            c.metric as u64,
            (c.rows == Rows::F16) as u64,
            c.links as u64,
            c.build_ef as u64,
            self.keys.len() as u64,
        ] {
            bytes.extend(n.to_le_bytes());
        }
        bytes.extend(self.keys.iter().flat_map(|k| k.to_le_bytes()));
        bytes.extend(self.rows.iter().flat_map(|x| x.to_le_bytes()));
        bytes.extend(xxh3_64(&bytes).to_le_bytes());
        let temporary = dir.join("MANIFEST.tmp");
        let mut file = fs::File::create(&temporary).map_err(Error::io(&temporary, "create"))?;
        file.write_all(&bytes).map_err(Error::io(&temporary, "write"))?;
        file.sync_all().map_err(Error::io(&temporary, "sync"))?;
        fs::rename(&temporary, dir.join(SNAPSHOT)).map_err(Error::io(&temporary, "rename"))?;
        fs::File::open(dir).and_then(|d| d.sync_all()).map_err(Error::io(dir, "sync"))
    }

    pub(crate) fn read(dir: &Path) -> Result<Snapshot> {
        let path = dir.join(SNAPSHOT);
        let bytes = match fs::read(&path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Err(Error::NotFound { path: dir.into() }),
            other => other.map_err(Error::io(&path, "read"))?,
        };
        let corrupt = |what: &str| Error::corrupt(&path, what);
        if bytes.len() < 72 || &bytes[..8] != MAGIC {
            return Err(corrupt("not an index"));
        }
        let (body, sum) = bytes.split_at(bytes.len() - 8);
        if xxh3_64(body).to_le_bytes() != sum {
            return Err(corrupt("checksum"));
        }
        let mut words = body[8..].chunks_exact(8).map(|w| u64::from_le_bytes(w.try_into().expect("eight bytes")));
        let mut word = || words.next().unwrap_or_default();
        let generation = word();
        let dim = word() as usize;
        let metric = [Metric::Cosine, Metric::Dot, Metric::L2][word().min(2) as usize];
        let rows = if word() == 1 { Rows::F16 } else { Rows::F32 };
        let config = Config { dim, metric, rows, links: word() as usize, build_ef: word() as usize };
        let count = word() as usize;
        let keys: Vec<Key> = (0..count).map(|_| word()).collect();
        let rows = body[64 + 8 * count..]
            .chunks_exact(4)
            .map(|w| f32::from_le_bytes(w.try_into().expect("four bytes")))
            .collect();
        let by_key = keys.iter().enumerate().map(|(at, &key)| (key, at)).collect();
        Ok(Snapshot { generation, config, keys, rows, by_key })
    }
}
