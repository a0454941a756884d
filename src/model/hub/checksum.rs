//! What a hub's etag says about the bytes of a file.
//!
//! The hub names large files by their SHA-256 and small ones by their git object, so that the etag is a checksum. A file
//! without either is refused: weights that nobody vouches for are not loaded.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use sha1::Sha1;
use sha2::{Digest, Sha256};

use crate::{Error, Result};

/// The checksum of one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Checksum {
    /// SHA-256 of the bytes.
    Sha256([u8; 32]),
    /// SHA-1 of `blob LENGTH\0` and the bytes, git's name for the file.
    GitBlob([u8; 20]),
}

impl Checksum {
    /// The checksum that an etag is, if it is one.
    pub(super) fn from_etag(etag: &str) -> Option<Self> {
        match etag.len() {
            64 => from_hex(etag).map(Self::Sha256),
            40 => from_hex(etag).map(Self::GitBlob),
            _ => None,
        }
    }

    /// Whether the file at `path` has this checksum. Reads the file back from the disk, so that a resumed download needs
    /// no hash state and what is checked is what later runs will load.
    pub(super) fn verify(self, path: &Path, stop: &dyn Fn() -> bool) -> Result<bool> {
        let mut file = File::open(path).map_err(Error::io(path))?;
        let len = file.metadata().map_err(Error::io(path))?.len();
        Ok(match self {
            Self::Sha256(expected) => digest(Sha256::new(), &mut file, path, stop)? == expected,
            Self::GitBlob(expected) => {
                let start = Sha1::new_with_prefix(format!("blob {len}\0"));
                digest(start, &mut file, path, stop)? == expected
            }
        })
    }
}

fn digest<D: Digest>(mut hash: D, file: &mut File, path: &Path, stop: &dyn Fn() -> bool) -> Result<Vec<u8>> {
    let mut buffer = vec![0; 1 << 20];
    loop {
        if stop() {
            return Err(Error::Cancelled);
        }
        match file.read(&mut buffer).map_err(Error::io(path))? {
            0 => return Ok(hash.finalize().to_vec()),
            read => hash.update(&buffer[..read]),
        }
    }
}

fn from_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
        let digit = |c: u8| (c as char).to_digit(16);
        *byte = u8::try_from(digit(pair[0])? * 16 + digit(*pair.get(1)?)?).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_know_their_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "hello\n").unwrap();
        // `sha256sum` and `git hash-object` of the same six bytes.
        for etag in [
            "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03",
            "ce013625030ba8dba906f756967f9e9ca394464a",
        ] {
            let sum = Checksum::from_etag(etag).unwrap();
            assert!(sum.verify(file.path(), &|| false).unwrap(), "{etag}");
            assert!(matches!(sum.verify(file.path(), &|| true), Err(Error::Cancelled)));
        }
        std::fs::write(file.path(), "hellO\n").unwrap();
        let sum = Checksum::from_etag("ce013625030ba8dba906f756967f9e9ca394464a").unwrap();
        assert!(!sum.verify(file.path(), &|| false).unwrap());
    }

    #[test]
    fn other_etags_are_no_checksum() {
        for etag in
            ["", "abc", "z013625030ba8dba906f756967f9e9ca394464az", "../../../../../etc/passwd", "d41d8cd98f00b204-3"]
        {
            assert_eq!(Checksum::from_etag(etag), None, "{etag}");
        }
        assert_eq!(Checksum::from_etag(&"é".repeat(20)), None);
    }
}
