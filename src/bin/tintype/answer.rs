//! The answer to a search, in the form that was asked for.
//!
//! On a terminal a table, elsewhere the same as lines of tab-separated fields. `--json` prints one object per photo and line:
//!
//! | field | |
//! |---|---|
//! | `path` | absolute path; characters that are not Unicode are replaced |
//! | `path_base64` | the bytes of the path, only where it is not Unicode |
//! | `score` | number, or null when the query only filters |
//! | `key` | number of the photo in the library, for `like:#key` |
//! | `format` | `jpeg`, `png`, … |
//! | `width`, `height` | pixels, after orientation |
//! | `size` | bytes |
//! | `modified` | time of the file, RFC 3339, or null where nobody knows it |
//! | `taken` | time of the camera without a zone, `2024-05-17T10:30:00`, or null |
//! | `camera`, `lens` | text or null |
//! | `aperture`, `exposure_time`, `iso`, `focal_length` | f-number, seconds, sensitivity, millimetres; only where they are known |
//! | `latitude`, `longitude` | degrees or null |
//! | `hash` | content hash |
//! | `link` | where the picture is, as its collection says; only where that is not the path |
//! | `caption` | only where there is one |
//! | `metadata` | the collection's columns as an object; only where there are any |
//! | `model` | model that gave the score |

mod html;
mod preview;
mod table;
mod thumbnail;

use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::Serialize;
use serde_json::{Map, Value};
use tintype::{Engine, Group, Hit};

use crate::args::OutputArgs;
use crate::output::Talk;

/// What was found.
#[derive(Debug)]
pub(crate) struct Answer {
    /// The query, as written.
    pub(crate) title: String,
    /// The model that answered.
    pub(crate) model: String,
    /// Whether the hits have scores.
    pub(crate) scored: bool,
    /// Best first.
    pub(crate) hits: Vec<Hit>,
    /// Of each hit, what its collection says beside the caption.
    pub(crate) metadata: Vec<Map<String, Value>>,
}

/// Prints the answer.
pub(crate) fn give(answer: &Answer, engine: &Engine, form: &OutputArgs, talk: &Talk) -> anyhow::Result<()> {
    if let Some(file) = &form.html {
        let page = html::page(answer, engine);
        std::fs::write(file, page).with_context(|| format!("cannot write {}", file.display()))?;
        talk.say(format_args!("page written to {}", file.display()));
    }
    let stdout = io::stdout();
    let terminal = stdout.is_terminal();
    let mut out = io::BufWriter::new(stdout.lock());
    if form.json {
        for (hit, metadata) in answer.hits.iter().zip(&answer.metadata) {
            writeln!(out, "{}", serde_json::to_string(&Line::new(hit, metadata, answer))?)?;
        }
    } else if form.null || form.paths {
        for hit in &answer.hits {
            out.write_all(bytes(&hit.path).as_ref())?;
            out.write_all(if form.null { b"\0" } else { b"\n" })?;
        }
    } else if form.preview {
        drop(out);
        return preview::show(answer, engine, form.preview_height, talk);
    } else if terminal {
        table::write(&mut out, &answer.hits, answer.scored, talk.answer)?;
    } else {
        table::write_fields(&mut out, answer)?;
    }
    out.flush()?;
    Ok(())
}

/// A page that shows groups of photos that are nearly the same.
pub(crate) fn groups(groups: &[Group], engine: &Engine) -> String {
    html::groups(groups, engine)
}

#[derive(Serialize)]
struct Line<'a> {
    path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    path_base64: Option<String>,
    score: Option<f32>,
    key: u64,
    format: &'a str,
    width: u32,
    height: u32,
    size: u64,
    modified: Option<String>,
    taken: Option<String>,
    camera: Option<&'a str>,
    lens: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    aperture: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exposure_time: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    iso: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    focal_length: Option<f64>,
    latitude: Option<f64>,
    longitude: Option<f64>,
    hash: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    link: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    caption: Option<&'a str>,
    #[serde(skip_serializing_if = "Map::is_empty")]
    metadata: &'a Map<String, Value>,
    model: &'a str,
}

impl<'a> Line<'a> {
    fn new(hit: &'a Hit, metadata: &'a Map<String, Value>, answer: &'a Answer) -> Self {
        let record = &hit.record;
        Line {
            path: hit.path.to_string_lossy().into_owned(),
            path_base64: hit.path.to_str().is_none().then(|| base64(bytes(&hit.path).as_ref())),
            score: answer.scored.then_some(hit.score),
            key: record.key,
            format: &record.format,
            width: record.width,
            height: record.height,
            size: record.size,
            modified: jiff::Timestamp::from_nanosecond(record.mtime.into())
                .ok()
                .filter(|_| record.mtime > 0)
                .map(|time| time.to_string()),
            taken: record.taken.map(|time| time.to_string()),
            camera: record.camera.as_deref(),
            lens: record.lens.as_deref(),
            aperture: record.exposure.aperture,
            exposure_time: record.exposure.time,
            iso: record.exposure.iso,
            focal_length: record.exposure.focal_length,
            latitude: record.place.map(|place| place.latitude),
            longitude: record.place.map(|place| place.longitude),
            hash: &record.hash,
            link: record.link.as_deref(),
            caption: record.caption.as_deref(),
            metadata,
            model: &answer.model,
        }
    }
}

/// The bytes of a path as the system has them.
#[cfg(unix)]
fn bytes(path: &Path) -> impl AsRef<[u8]> + '_ {
    use std::os::unix::ffi::OsStrExt;
    path.as_os_str().as_bytes()
}

/// The bytes of a path, as UTF-8 where the system has other units.
#[cfg(not(unix))]
fn bytes(path: &Path) -> impl AsRef<[u8]> + '_ {
    path.to_string_lossy().into_owned().into_bytes()
}

/// Base 64 with padding (RFC 4648, section 4).
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let group = chunk.iter().chain(&[0, 0]).take(3).fold(0, |group, byte| group << 8 | u32::from(*byte));
        for digit in 0..4 {
            let known = digit <= chunk.len();
            text.push(if known { DIGITS[(group >> (18 - 6 * digit) & 63) as usize].into() } else { '=' });
        }
    }
    text
}

/// The address of a file, for links; only bytes that every reader takes literally stay as they are.
fn file_url(path: &Path) -> String {
    if let Some(address) = path.to_str().filter(|text| text.starts_with("https://") || text.starts_with("http://")) {
        return address.replace(char::is_control, "");
    }
    let mut url = String::from("file://");
    if !path.to_string_lossy().starts_with('/') {
        url.push('/');
    }
    for &byte in bytes(path).as_ref() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'/' | b'-' | b'_' | b'.' | b'~' => url.push(byte.into()),
            b':' | b'\\' if cfg!(windows) => url.push(if byte == b'\\' { '/' } else { ':' }),
            _ => url.push_str(&format!("%{byte:02X}")),
        }
    }
    url
}

/// A path relative to the current directory where that is shorter.
fn short(path: &Path) -> PathBuf {
    let here = std::env::current_dir().and_then(std::fs::canonicalize);
    here.ok().and_then(|here| relative(path, &here)).unwrap_or_else(|| path.to_path_buf())
}

/// `path` as seen from `here`, both absolute and without `..`; none where that is no shorter.
fn relative(path: &Path, here: &Path) -> Option<PathBuf> {
    let (up, shared) = here.ancestors().enumerate().find(|(_, shared)| path.starts_with(shared))?;
    let below = path.strip_prefix(shared).ok().filter(|below| !below.as_os_str().is_empty())?;
    let relative = PathBuf::from_iter(std::iter::repeat_n("..", up)).join(below);
    (relative.as_os_str().len() < path.as_os_str().len()).then_some(relative)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_pads() {
        for (plain, text) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg==")] {
            assert_eq!(base64(plain.as_bytes()), text);
        }
        assert_eq!(base64(&[0xff, 0xfe, 0xfd]), "//79");
    }

    #[cfg(unix)]
    #[test]
    fn paths_are_as_short_as_they_can_be() {
        let from =
            |path: &str, here: &str| relative(Path::new(path), Path::new(here)).map(|path| path.display().to_string());
        assert_eq!(from("/home/me/Photos/a.jpg", "/home/me").as_deref(), Some("Photos/a.jpg"));
        assert_eq!(from("/home/me/Photos/a.jpg", "/home/me/Documents").as_deref(), Some("../Photos/a.jpg"));
        assert_eq!(from("/a.jpg", "/home/me"), None);
        assert_eq!(from("/photos/a.jpg", "/").as_deref(), Some("photos/a.jpg"));
    }

    #[cfg(unix)]
    #[test]
    fn links_escape_what_is_special() {
        assert_eq!(file_url(Path::new("/a b/ü#?%.jpg")), "file:///a%20b/%C3%BC%23%3F%25.jpg");
    }
}
