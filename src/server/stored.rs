//! What a library says of a photo, as JSON: for our API and for clip-retrieval's clients.

use std::borrow::Cow;
use std::collections::HashSet;

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::Record;

/// One photo that was found.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Item {
    /// Its number in the library, for `similar`, `image` and `thumbnail`.
    pub(super) id: u64,
    /// Dot product of the query's vector and the photo's; null where the query only filters.
    pub(super) score: Option<f32>,
    /// Where it is, or its address in its collection.
    path: String,
    /// Where the picture is, as its collection says: a path, or an address of the web.
    #[serde(skip_serializing_if = "Option::is_none")]
    link: Option<String>,
    /// What its collection says of it in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    caption: Option<String>,
    /// Last part of the path.
    name: String,
    /// `jpeg`, `png`, …
    format: String,
    /// Pixels, after orientation.
    width: u32,
    /// Pixels, after orientation.
    height: u32,
    /// Bytes.
    size: u64,
    /// Time of the file, RFC 3339.
    modified: Option<String>,
    /// Time of the camera, without a zone.
    taken: Option<String>,
    /// Maker and model of the camera.
    camera: Option<String>,
    /// The lens.
    lens: Option<String>,
    /// The f-number: 2.8 for f/2.8.
    aperture: Option<f64>,
    /// Seconds.
    exposure_time: Option<f64>,
    /// Sensitivity.
    iso: Option<u32>,
    /// Millimetres, of the lens itself.
    focal_length: Option<f64>,
    /// Degrees, north positive.
    latitude: Option<f64>,
    /// Degrees, east positive.
    longitude: Option<f64>,
    /// Content hash; empty where only the vector is known.
    hash: String,
    /// What its collection says of it, column by column.
    #[serde(skip_serializing_if = "Map::is_empty")]
    #[schema(value_type = Object)]
    metadata: Map<String, Value>,
}

impl Item {
    pub(super) fn new(record: &Record, metadata: Map<String, Value>, score: Option<f32>) -> Self {
        Item {
            id: record.key,
            score,
            path: record.path.to_string_lossy().into_owned(),
            link: record.link.clone(),
            caption: record.caption.clone(),
            name: record
                .place_of_picture()
                .file_name()
                .map(|name| name.to_string_lossy().into_owned())
                .unwrap_or_default(),
            format: record.format.clone(),
            width: record.width,
            height: record.height,
            size: record.size,
            modified: modified(record),
            taken: record.taken.map(|time| time.to_string()),
            camera: record.camera.clone(),
            lens: record.lens.clone(),
            aperture: record.exposure.aperture,
            exposure_time: record.exposure.time,
            iso: record.exposure.iso,
            focal_length: record.exposure.focal_length,
            latitude: record.place.map(|place| place.latitude),
            longitude: record.place.map(|place| place.longitude),
            hash: record.hash.clone(),
            metadata,
        }
    }

    /// The cells of a row under [`COLUMNS`].
    fn cells(&self) -> [Cow<'_, str>; COLUMNS.len()] {
        fn number(value: Option<impl ToString>) -> Cow<'static, str> {
            value.map(|value| value.to_string()).unwrap_or_default().into()
        }
        fn text(value: Option<&String>) -> Cow<'_, str> {
            cell(value.map_or("", String::as_str))
        }
        [
            self.id.to_string().into(),
            number(self.score),
            cell(&self.path),
            text(self.link.as_ref()),
            text(self.caption.as_ref()),
            cell(&self.format),
            self.width.to_string().into(),
            self.height.to_string().into(),
            self.size.to_string().into(),
            text(self.modified.as_ref()),
            text(self.taken.as_ref()),
            text(self.camera.as_ref()),
            text(self.lens.as_ref()),
            number(self.aperture),
            number(self.exposure_time),
            number(self.iso),
            number(self.focal_length),
            number(self.latitude),
            number(self.longitude),
            cell(&self.hash),
        ]
    }
}

/// Names of the columns of a table of items that every library has.
const COLUMNS: [&str; 20] = [
    "id",
    "score",
    "path",
    "link",
    "caption",
    "format",
    "width",
    "height",
    "size",
    "modified",
    "taken",
    "camera",
    "lens",
    "aperture",
    "exposure_time",
    "iso",
    "focal_length",
    "latitude",
    "longitude",
    "hash",
];

/// Items as a table (RFC 4180): what is known of every photo, then the columns of their collections in the order in which they
/// are met. Where one is called as one of ours is, `metadata.` stands before its name.
pub(super) fn table(items: &[Item]) -> String {
    let mut known: HashSet<&str> = HashSet::new();
    let names = items.iter().flat_map(|item| item.metadata.keys());
    let names: Vec<&str> = names.map(String::as_str).filter(|name| known.insert(name)).collect();
    let ours = COLUMNS.into_iter().map(Cow::from);
    let theirs = names.iter().map(|name| match COLUMNS.contains(name) {
        true => Cow::from(format!("metadata.{name}")),
        false => cell(name),
    });
    let titles: Vec<Cow<'_, str>> = ours.chain(theirs).collect();
    let mut table = titles.join(",");
    for item in items {
        let metadata = names.iter().map(|name| match item.metadata.get(*name) {
            None | Some(Value::Null) => Cow::from(""),
            Some(Value::String(text)) => cell(text),
            Some(Value::Number(number)) => number.to_string().into(),
            Some(other) => cell(&other.to_string()).into_owned().into(),
        });
        let cells: Vec<Cow<'_, str>> = item.cells().into_iter().chain(metadata).collect();
        table.push_str("\r\n");
        table.push_str(&cells.join(","));
    }
    table.push_str("\r\n");
    table
}

/// A text in a table. One that a spreadsheet would take for a formula gets an apostrophe before it.
fn cell(text: &str) -> Cow<'_, str> {
    let formula = text.starts_with(['=', '+', '-', '@', '\t', '\r']);
    if formula || text.contains([',', '"', '\n', '\r']) {
        let mark = if formula { "'" } else { "" };
        return format!("\"{mark}{}\"", text.replace('"', "\"\"")).into();
    }
    text.into()
}

/// None where nobody knows: members of tars that say 0, and what was fetched from the web.
fn modified(record: &Record) -> Option<String> {
    if record.mtime <= 0 {
        return None;
    }
    jiff::Timestamp::from_nanosecond(record.mtime.into()).ok().map(|time| time.to_string())
}

/// The columns that clip-retrieval's clients see of a photo: those of its collection, and what else is known under the names
/// that clip-retrieval would have given it.
#[derive(Debug)]
pub(super) struct Columns<'a> {
    pub(super) record: &'a Record,
    pub(super) metadata: &'a Map<String, Value>,
    /// The picture, as base 64 of a JPEG.
    pub(super) image: Option<&'a str>,
    /// The only ones that are wanted.
    pub(super) only: Option<&'a [String]>,
}

impl Columns<'_> {
    /// Writes them into an object that has others, too.
    pub(super) fn write<M: SerializeMap>(&self, map: &mut M) -> Result<(), M::Error> {
        let (record, given) = (self.record, self.metadata);
        let wanted = |name: &str| self.only.is_none_or(|only| only.iter().any(|known| known == name));
        // What stands beside them has these names.
        let taken = |name: &str| ["id", "similarity", "image"].contains(&name);
        for (name, value) in given.iter().filter(|(name, _)| wanted(name) && !taken(name)) {
            map.serialize_entry(name, value)?;
        }
        let mut add = |name: &str, value: Option<Value>| match value {
            Some(value) if wanted(name) && !given.contains_key(name) => map.serialize_entry(name, &value),
            _ => Ok(()),
        };
        add("caption", record.caption.clone().map(Value::from))?;
        let place = record.place_of_picture().to_string_lossy();
        if place.starts_with("http://") || place.starts_with("https://") {
            add("url", Some(place.into()))?;
        } else {
            add("image_path", Some(place.into()))?;
        }
        let pixels = |count: u32| (count > 0).then(|| count.into());
        add("width", pixels(record.width))?;
        add("height", pixels(record.height))?;
        add("camera", record.camera.clone().map(Value::from))?;
        add("lens", record.lens.clone().map(Value::from))?;
        add("aperture", record.exposure.aperture.map(Value::from))?;
        add("exposure_time", record.exposure.time.map(Value::from))?;
        add("iso", record.exposure.iso.map(Value::from))?;
        add("focal_length", record.exposure.focal_length.map(Value::from))?;
        add("taken", record.taken.map(|time| time.to_string().into()))?;
        add("latitude", record.place.map(|place| place.latitude.into()))?;
        add("longitude", record.place.map(|place| place.longitude.into()))?;
        match self.image {
            Some(image) => map.serialize_entry("image", image),
            None => Ok(()),
        }
    }
}

impl Serialize for Columns<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        self.write(&mut map)?;
        map.end()
    }
}
