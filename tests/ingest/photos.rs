//! A folder of generated pictures, a library beside it, and an encoder that needs no model.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tintype::{Encode, Engine};

use crate::colours::Colours;

pub(crate) struct Photos {
    root: tempfile::TempDir,
    pub(crate) encoder: Arc<Colours>,
}

impl Photos {
    pub(crate) fn new() -> Photos {
        Self::slow(Duration::ZERO)
    }

    /// With an encoder that takes its time.
    pub(crate) fn slow(delay: Duration) -> Photos {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("photos")).unwrap();
        Photos { root, encoder: Arc::new(Colours::slow("colours", delay)) }
    }

    pub(crate) fn dir(&self) -> PathBuf {
        self.root.path().join("photos")
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir().join(name)
    }

    pub(crate) fn library(&self) -> PathBuf {
        self.root.path().join("library")
    }

    /// The directory of the one index.
    pub(crate) fn index_dir(&self) -> PathBuf {
        let entries = fs::read_dir(self.library()).unwrap().map(|entry| entry.unwrap().path());
        let mut indexes = entries.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with("index-"));
        let index = indexes.next().unwrap();
        assert!(indexes.next().is_none());
        index
    }

    pub(crate) fn encoder(&self, name: &str) -> Arc<dyn Encode> {
        Arc::new(Colours::new(name))
    }

    pub(crate) fn engine(&self) -> Engine {
        Engine::open_or_create(self.library(), Arc::clone(&self.encoder) as Arc<dyn Encode>).unwrap()
    }

    /// Writes a picture that looks like no other with another seed. PNG, whatever the name.
    pub(crate) fn write(&self, name: &str, seed: u64) -> PathBuf {
        let path = self.path(name);
        write_picture(&path, seed);
        path
    }

    /// `0.png`, `1.png`… in a folder.
    pub(crate) fn write_many(&self, folder: &str, count: u64) {
        for n in 0..count {
            self.write(&format!("{folder}/{n}.png"), n);
        }
    }

    /// Catalog and index agree, nothing is damaged, nothing is left over, and as many photos are there.
    pub(crate) fn is_whole(&self, engine: &Engine, photos: u64) {
        let report = engine.verify().unwrap();
        assert!(report.is_clean() && report.orphans == 0, "{report:?}");
        let status = engine.status().unwrap();
        assert_eq!(status.photos, photos);
        assert_eq!(report.index.vectors, status.photos + status.gone);
    }
}

/// The path below the folder of photos, with `/`.
pub(crate) fn relative(photos: &Photos, path: &Path) -> String {
    let dir = photos.dir().canonicalize().unwrap();
    path.strip_prefix(dir).unwrap().to_str().unwrap().replace('\\', "/")
}

pub(crate) fn write_picture(path: &Path, seed: u64) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(1);
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    let cells: Vec<[u8; 3]> = (0..6).map(|_| [next(), next(), next()]).collect();
    let pixels: Vec<u8> = (0..16 * 24).flat_map(|at| cells[at % 24 / 8 + at / 24 / 8 * 3]).collect();
    let mut encoder = png::Encoder::new(fs::File::create(path).unwrap(), 24, 16);
    encoder.set_color(png::ColorType::Rgb);
    encoder.write_header().unwrap().write_image_data(&pixels).unwrap();
}
