//! One photo, as the catalog knows it.

use std::path::{Path, PathBuf};

use rusqlite::Row;
use rusqlite::types::ValueRef;

use super::{Item, Key, Said, path};
use crate::image::Exposure;

/// Content hash: BLAKE3 of all bytes of the file.
pub(crate) type Hash = [u8; 32];

/// A point on the globe, in degrees.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Place {
    /// North positive.
    pub latitude: f64,
    /// East positive.
    pub longitude: f64,
}

/// One photo.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Record {
    /// Its key in the index.
    pub key: Key,
    /// Absolute path. Of a picture in a collection the address there: `/shards/0.tar!000.jpg`, `/emb/img_emb_0.npy#17`, or
    /// `https://…` for one of the web.
    pub path: PathBuf,
    /// Where the picture is, as its collection says, if that is not the path: a path or an address of the web.
    pub link: Option<String>,
    /// What its collection says of it in words.
    pub caption: Option<String>,
    /// Bytes.
    pub size: u64,
    /// Modification time, nanoseconds since 1970.
    pub mtime: i64,
    /// Content hash, hexadecimal; empty where only the vector is known.
    pub hash: String,
    /// Lower-case name of the format: `jpeg`; empty where only the vector is known.
    pub format: String,
    /// Pixels, after orientation.
    pub width: u32,
    /// Pixels, after orientation.
    pub height: u32,
    /// When it was taken, civil time of the camera.
    pub taken: Option<jiff::civil::DateTime>,
    /// Maker and model.
    pub camera: Option<String>,
    /// Lens model.
    pub lens: Option<String>,
    /// How it was exposed.
    pub exposure: Exposure,
    /// Where it was taken.
    pub place: Option<Place>,
    /// The source that it came from.
    pub(crate) source: Option<i64>,
    /// What a collection says of it, on the way into the catalog.
    pub(crate) item: Option<Box<Item>>,
}

/// The columns that [`Record::from_row`] reads, in its order.
pub(super) const COLUMNS: &str = "key, path, size, mtime, hash, format, width, height, taken, camera, lens, latitude, longitude, link, caption, source, \
     aperture, exposure_time, iso, focal_length";

impl Record {
    /// A row that selected [`COLUMNS`].
    pub(super) fn from_row(row: &Row<'_>) -> rusqlite::Result<Record> {
        let place = match (row.get::<_, Option<f64>>(11)?, row.get::<_, Option<f64>>(12)?) {
            (Some(latitude), Some(longitude)) => Some(Place { latitude, longitude }),
            _ => None,
        };
        let taken = match row.get_ref(8)? {
            ValueRef::Text(text) => std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()),
            _ => None,
        };
        Ok(Record {
            key: row.get::<_, i64>(0)? as Key,
            path: path::from_sql(row.get_ref(1)?).ok_or_else(|| invalid(1, "path"))?,
            size: row.get::<_, i64>(2)? as u64,
            mtime: row.get(3)?,
            hash: hex(row.get_ref(4)?.as_blob().unwrap_or_default()),
            format: row.get(5)?,
            width: row.get(6)?,
            height: row.get(7)?,
            taken,
            camera: row.get(9)?,
            lens: row.get(10)?,
            exposure: Exposure {
                aperture: row.get(16)?,
                time: row.get(17)?,
                iso: row.get(18)?,
                focal_length: row.get(19)?,
            },
            place,
            link: row.get(13)?,
            caption: row.get(14)?,
            source: row.get(15)?,
            item: None,
        })
    }

    /// A photo of which nothing is known, to be filled in part.
    pub(crate) fn blank() -> Record {
        Record {
            key: 0,
            path: PathBuf::new(),
            size: 0,
            mtime: 0,
            hash: String::new(),
            format: String::new(),
            width: 0,
            height: 0,
            taken: None,
            camera: None,
            lens: None,
            exposure: Exposure::default(),
            place: None,
            link: None,
            caption: None,
            source: None,
            item: None,
        }
    }

    /// With what a collection says of it, and nothing that was said before.
    pub(crate) fn said(mut self, said: Option<Box<Said>>) -> Record {
        let said = said.map(|said| *said).unwrap_or_default();
        let caption = said.caption.filter(|caption| !caption.is_empty());
        (self.link, self.caption, self.source) = (said.link, caption, said.item.source);
        self.item = Some(Box::new(said.item)).filter(|item| **item != Item::default());
        self
    }

    /// Where people would look for the picture: what its collection says, else the path.
    pub fn place_of_picture(&self) -> &Path {
        self.link.as_deref().map_or(&self.path, Path::new)
    }

    /// The content hash as stored: empty where the content is not known.
    pub(super) fn hash_bytes(&self) -> Vec<u8> {
        blake3::Hash::from_hex(&self.hash).map_or_else(|_| Vec::new(), |hash| hash.as_bytes().to_vec())
    }

    /// The content hash as bytes.
    pub(crate) fn content(&self) -> Hash {
        blake3::Hash::from_hex(&self.hash).map_or([0; 32], Into::into)
    }
}

pub(super) fn invalid(column: usize, name: &str) -> rusqlite::Error {
    rusqlite::Error::InvalidColumnType(column, name.to_owned(), rusqlite::types::Type::Null)
}

/// Lower-case hexadecimal digits.
fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    text
}
