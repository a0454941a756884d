//! Tars in the layout of webdataset: the members of a sample have one name and follow each other.
//!
//! ```text
//! 000000017.jpg   000000017.txt   000000017.json   000000018.jpg   …
//! ```
//! Of a plain tar only headers, captions and metadata are read here, and the place of each picture is handed over: whoever needs
//! the picture reads it there, in any order, on any thread. Of a gzipped one the pictures must come along.

use std::fs::File;
use std::io::{BufReader, Read, Seek};
use std::ops::ControlFlow;
use std::path::Path;

use flate2::read::MultiGzDecoder;
use serde_json::{Map, Value};
use tar::{Archive, Entries, Entry, EntryType};

use super::counted::{Counted, Passed};
use super::table::EMPTY;
use crate::{Error, Result};

/// Largest caption or metadata of a sample.
const MAX_TEXT: u64 = 4 << 20;

/// Largest picture in a gzipped shard, which must be held in memory.
const MAX_PICTURE: u64 = 512 << 20;

pub(crate) const PICTURES: &[&str] = &[
    "jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "ppm", "pgm", "pbm", "pnm", "qoi", "heic", "avif", "jxl",
];

/// One picture of a shard and what is said of it.
#[derive(Debug, Default)]
pub(crate) struct Sample {
    /// Name of the picture's member: `000000017.jpg`.
    pub(crate) name: String,
    /// Bytes of the picture.
    pub(crate) size: u64,
    /// Modification time, nanoseconds since 1970.
    pub(crate) mtime: i64,
    pub(crate) bytes: Option<Bytes>,
    /// Bytes of the shard that are read when the picture is.
    pub(crate) passed: u64,
    pub(crate) caption: Option<String>,
    pub(crate) fields: Map<String, Value>,
    /// Other members that were asked for: their extension, and what is in them.
    pub(crate) others: Vec<(String, Vec<u8>)>,
    /// What is wrong with the rest of the sample.
    pub(crate) trouble: Vec<(String, String)>,
}

/// Where a picture's bytes are.
#[derive(Debug)]
pub(crate) enum Bytes {
    /// In the shard, from this byte on.
    At(u64),
    /// Here.
    Here(Vec<u8>),
}

/// Reads a shard, sample by sample, until `each` says stop. A sample without a picture has no bytes.
///
/// # Errors
/// [`Error::Io`] if it cannot be opened, [`Error::BadCollection`] if it is no tar or ends too early; whole samples that come before
/// the damage are handed over first.
pub(crate) fn read_shard(path: &Path, each: impl FnMut(Sample) -> ControlFlow<()>) -> Result<()> {
    read_shard_with(path, &[], each)
}

/// The same with small members of further kinds, by extension.
///
/// # Errors
/// As [`read_shard`].
pub(crate) fn read_shard_with(
    path: &Path,
    others: &[&str],
    mut each: impl FnMut(Sample) -> ControlFlow<()>,
) -> Result<()> {
    let mut file = File::open(path).map_err(Error::io(path))?;
    let length = file.metadata().map_err(Error::io(path))?.len();
    if length == 0 {
        return Err(Error::BadCollection { path: path.to_path_buf(), reason: EMPTY.to_owned() });
    }
    if is_gzip(&mut file).map_err(Error::io(path))? {
        let (file, passed) = Counted::open(file);
        let mut archive = Archive::new(MultiGzDecoder::new(file));
        let entries = archive.entries().map_err(|error| damaged(path, &error, None))?;
        walk(path, entries, (u64::MAX, Some(passed)), others, &mut each)
    } else {
        let mut archive = Archive::new(BufReader::new(file));
        let entries = archive.entries_with_seek().map_err(|error| damaged(path, &error, None))?;
        walk(path, entries, (length, None), others, &mut each)
    }
}

/// The bytes of one member of a gzipped shard. Reads all that comes before it.
pub(crate) fn extract(path: &Path, member: &str) -> Result<Vec<u8>> {
    let file = File::open(path).map_err(Error::io(path))?;
    let mut archive = Archive::new(MultiGzDecoder::new(BufReader::with_capacity(1 << 20, file)));
    for entry in archive.entries().map_err(Error::io(path))? {
        let mut entry = entry.map_err(Error::io(path))?;
        if member_name(&entry) == member {
            let mut bytes = Vec::new();
            Read::by_ref(&mut entry).take(MAX_PICTURE).read_to_end(&mut bytes).map_err(Error::io(path))?;
            return Ok(bytes);
        }
    }
    let reason = format!("there is no {member} in it any more; index it again");
    Err(Error::BadCollection { path: path.to_path_buf(), reason })
}

fn is_gzip(file: &mut File) -> std::io::Result<bool> {
    let mut magic = Vec::new();
    Read::by_ref(file).take(2).read_to_end(&mut magic)?;
    file.rewind()?;
    Ok(magic == [0x1f, 0x8b])
}

fn damaged(path: &Path, error: &std::io::Error, last: Option<&str>) -> Error {
    let after = match last {
        Some(last) => format!("damaged or cut off behind {last}; what comes before it is taken"),
        None => "no tar that can be read".to_owned(),
    };
    // Behind the first colon the reader repeats the bytes that it could not read.
    let error = error.to_string();
    let why = error.split_once(": ").map_or(error.as_str(), |(why, _)| why);
    Error::BadCollection { path: path.to_path_buf(), reason: format!("{after} ({why})") }
}

fn walk<R: Read>(
    path: &Path,
    entries: Entries<'_, R>,
    (length, hold): (u64, Option<Passed>),
    others: &[&str],
    each: &mut impl FnMut(Sample) -> ControlFlow<()>,
) -> Result<()> {
    let (mut key, mut sample, mut last) = (String::new(), Sample::default(), None::<String>);
    for entry in entries {
        let mut entry = match entry {
            Ok(entry) => entry,
            Err(error) => {
                last_whole(&key, &mut sample, each);
                return Err(damaged(path, &error, last.as_deref()));
            }
        };
        if !matches!(entry.header().entry_type(), EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse) {
            continue;
        }
        let name = member_name(&entry);
        let Some((base, extension)) = parts(&name) else { continue };
        if base != key {
            if hand_over(&key, &mut sample, each).is_break() {
                return Ok(());
            }
            key = base.to_owned();
        }
        let (start, size) = (entry.raw_file_position(), entry.size());
        if start.saturating_add(size) > length {
            last_whole(&key, &mut sample, each);
            let error = std::io::Error::new(
                std::io::ErrorKind::UnexpectedEof,
                format!("{name} ends behind the end of the file"),
            );
            return Err(damaged(path, &error, last.as_deref()));
        }
        let mut read = |limit: u64| {
            let mut bytes = Vec::new();
            Read::by_ref(&mut entry).take(limit).read_to_end(&mut bytes).map(|_| bytes)
        };
        let cut = |error: std::io::Error, last: Option<&str>| damaged(path, &error, last);
        match extension.to_ascii_lowercase().as_str() {
            extension if PICTURES.contains(&extension) => {
                if sample.bytes.is_some() {
                    sample.trouble.push((name, "a second picture of the same sample".to_owned()));
                    continue;
                }
                if hold.is_some() && size > MAX_PICTURE {
                    let reason = format!("{size} bytes are more than the limit of {MAX_PICTURE} in a gzipped shard");
                    sample.trouble.push((name, reason));
                    continue;
                }
                sample.passed = hold.as_ref().map_or(start + size, Passed::get);
                sample.bytes = Some(if hold.is_some() {
                    let bytes = read(size).map_err(|error| cut(error, last.as_deref()))?;
                    if (bytes.len() as u64) < size {
                        let error =
                            std::io::Error::new(std::io::ErrorKind::UnexpectedEof, format!("{name} is cut off"));
                        return Err(cut(error, last.as_deref()));
                    }
                    Bytes::Here(bytes)
                } else {
                    Bytes::At(start)
                });
                sample.size = size;
                let seconds = entry.header().mtime().ok().and_then(|time| i64::try_from(time).ok()).unwrap_or(0);
                sample.mtime = seconds.saturating_mul(1_000_000_000);
                sample.name.clone_from(&name);
            }
            other if others.contains(&other) && size <= MAX_TEXT => {
                let bytes = read(size).map_err(|error| cut(error, last.as_deref()))?;
                sample.others.push((other.to_owned(), bytes));
            }
            "txt" | "text" | "caption" | "json" if size > MAX_TEXT => {
                sample
                    .trouble
                    .push((name.clone(), format!("{size} bytes are too many for a text; the limit is {MAX_TEXT}")));
            }
            "txt" | "text" | "caption" => {
                let bytes = read(size).map_err(|error| cut(error, last.as_deref()))?;
                let text = String::from_utf8_lossy(&bytes);
                sample.caption = Some(text.trim().to_owned()).filter(|text| !text.is_empty());
            }
            "json" => {
                let bytes = read(size).map_err(|error| cut(error, last.as_deref()))?;
                match serde_json::from_slice(&bytes) {
                    Ok(Value::Object(fields)) => sample.fields = fields,
                    Ok(_) => sample.trouble.push((name.clone(), "no JSON object; taken without metadata".to_owned())),
                    Err(error) => {
                        sample.trouble.push((name.clone(), format!("no JSON ({error}); taken without metadata")));
                    }
                }
            }
            _ => {}
        }
        last = Some(name);
    }
    let _ = hand_over(&key, &mut sample, each);
    Ok(())
}

/// The name of a member as it stands in addresses: `tar czf x.tgz .` begins all of them with `./`.
fn member_name<R: Read>(entry: &Entry<'_, R>) -> String {
    let name = entry.path_bytes();
    String::from_utf8_lossy(name.strip_prefix(b"./").unwrap_or(&name)).into_owned()
}

/// `dir/000.seg.png` as `dir/000` and `seg.png`: the name of the sample ends at its first dot.
fn parts(name: &str) -> Option<(&str, &str)> {
    let file = name.rfind('/').map_or(0, |slash| slash + 1);
    let dot = file + name[file..].find('.')?;
    Some((&name[..dot], &name[dot + 1..]))
}

/// The sample before damage, if its picture is there; its caption may not be, and comes when the shard is mended.
fn last_whole(key: &str, sample: &mut Sample, each: &mut impl FnMut(Sample) -> ControlFlow<()>) {
    if sample.bytes.is_some() {
        let _ = hand_over(key, sample, each);
    }
}

fn hand_over(key: &str, sample: &mut Sample, each: &mut impl FnMut(Sample) -> ControlFlow<()>) -> ControlFlow<()> {
    let mut sample = std::mem::take(sample);
    if key.is_empty() {
        return ControlFlow::Continue(());
    }
    if sample.name.is_empty() {
        sample.name = key.to_owned();
    }
    // img2dataset repeats the caption in the metadata.
    let written = sample.fields.get("caption").and_then(Value::as_str).map(str::trim).map(str::to_owned);
    if sample.caption.is_none() {
        sample.caption = written.clone().filter(|text| !text.is_empty());
    }
    if written.as_deref().is_some_and(|text| text.is_empty() || Some(text) == sample.caption.as_deref()) {
        sample.fields.shift_remove("caption");
    }
    each(sample)
}
