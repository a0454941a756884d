//! Pictures whose bytes are not in a file of their own: members of a shard, what was downloaded, and copies.

use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::budget::{Budget, Held};
use super::pipeline::{Content, MAX_FILE};
use super::walk::File;
use crate::image::Format;
use crate::{Error, Result};

/// Where the bytes of a picture are.
#[derive(Debug)]
pub(crate) enum Given {
    /// In a larger file, from a byte on, as many as the file's size says.
    Part(PathBuf, u64),
    /// In a copy that the library keeps: the same picture in other bytes.
    Copy(PathBuf),
    /// In memory already.
    Held(Held),
}

impl Given {
    /// The bytes, if they are those of a picture that can be decoded.
    pub(super) fn read(self, file: File, budget: &Arc<Budget>, count: &AtomicU64) -> Result<Content> {
        if file.size > MAX_FILE {
            return Err(Error::FileTooLarge { size: file.size, limit: MAX_FILE });
        }
        let (data, permit) = match self {
            Given::Part(path, start) => {
                let permit = budget.take(file.size);
                (part(&path, start, file.size)?, permit)
            }
            Given::Copy(path) => (fs::read(&path).map_err(Error::io(&path))?, budget.take(0)),
            Given::Held(Held { bytes, permit }) => (bytes, permit),
        };
        count.fetch_add(data.len() as u64, Ordering::Relaxed);
        match Format::sniff(&data) {
            Some(format) if !format.is_supported() => Err(Error::UnsupportedImage { format: format.label() }),
            Some(_) => Ok(Content { file: File { size: data.len() as u64, ..file }, data, _permit: permit }),
            None => {
                let reason = if data.is_empty() { "it is empty" } else { "its content is no picture" };
                Err(Error::BadImage { reason: reason.to_owned() })
            }
        }
    }
}

fn part(path: &Path, start: u64, size: u64) -> Result<Vec<u8>> {
    let mut file = fs::File::open(path).map_err(Error::io(path))?;
    file.seek(SeekFrom::Start(start)).map_err(Error::io(path))?;
    let mut data = Vec::with_capacity(size as usize);
    file.take(size).read_to_end(&mut data).map_err(Error::io(path))?;
    if (data.len() as u64) < size {
        return Err(Error::Io { path: path.to_path_buf(), source: std::io::ErrorKind::UnexpectedEof.into() });
    }
    Ok(data)
}
