//! Typed reading of JSON configurations, with errors that name the file and the dotted key.
//!
//! A key that is not read is not a detail: it may change the vectors. [`Object::finish`] therefore refuses what nobody asked
//! for, and a key that is known to be harmless is named as such.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::Checks;
use crate::{Error, Result};

/// No model counts higher, and sums and products of smaller numbers cannot overflow.
const MAX_COUNT: usize = 1 << 24;

/// A JSON object with its place: file and dotted path.
pub(super) struct Object<'a> {
    file: &'a Path,
    prefix: String,
    map: &'a Map<String, Value>,
    read: RefCell<BTreeSet<String>>,
    checks: Checks,
}

/// Reads a JSON file.
pub(super) fn read(path: &Path) -> Result<Value> {
    let bytes = std::fs::read(path).map_err(Error::io(path))?;
    serde_json::from_slice(&bytes).map_err(|e| bad(path, format!("no valid JSON: {e}")))
}

/// An [`Error::BadModel`] about `path`.
pub(super) fn bad(path: &Path, reason: impl Into<String>) -> Error {
    Error::BadModel { path: path.to_path_buf(), reason: reason.into() }
}

impl<'a> Object<'a> {
    /// The root object of `file`.
    pub(super) fn root(file: &'a Path, value: &'a Value, checks: Checks) -> Result<Self> {
        let map = value.as_object().ok_or_else(|| bad(file, "expected a JSON object"))?;
        Ok(Self { file, prefix: String::new(), map, read: RefCell::default(), checks })
    }

    /// What is checked.
    pub(super) fn checks(&self) -> Checks {
        self.checks
    }

    /// The file.
    pub(super) fn file(&self) -> PathBuf {
        self.file.to_path_buf()
    }

    /// A key with its path from the root.
    pub(super) fn dotted(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }

    /// The raw value; JSON's null counts as absent.
    pub(super) fn get(&self, key: &str) -> Option<&'a Value> {
        self.read.borrow_mut().insert(key.to_owned());
        self.map.get(key).filter(|value| !value.is_null())
    }

    /// Whether the key is there with JSON's null, where that says something else than its absence.
    pub(super) fn is_null(&self, key: &str) -> bool {
        self.read.borrow_mut().insert(key.to_owned());
        self.map.get(key).is_some_and(Value::is_null)
    }

    /// A nested object, if there.
    pub(super) fn object(&self, key: &str) -> Result<Option<Object<'a>>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let map = value.as_object().ok_or_else(|| self.wrong(key, value, "an object"))?;
        let prefix = format!("{}{key}.", self.prefix);
        Ok(Some(Object { file: self.file, prefix, map, read: RefCell::default(), checks: self.checks }))
    }

    /// A nested object that must be there.
    pub(super) fn required(&self, key: &str) -> Result<Object<'a>> {
        self.object(key)?.ok_or_else(|| bad(self.file, format!("the key {} is missing", self.dotted(key))))
    }

    /// A whole number of at least 1 and at most [`MAX_COUNT`].
    pub(super) fn count(&self, key: &str) -> Result<Option<usize>> {
        self.typed(key, "a whole number above zero", one)
    }

    /// A token id.
    pub(super) fn id(&self, key: &str) -> Result<Option<u32>> {
        self.typed(key, "a token id", |v| v.as_u64().and_then(|n| u32::try_from(n).ok()))
    }

    /// A number.
    pub(super) fn number(&self, key: &str) -> Result<Option<f64>> {
        self.typed(key, "a number", Value::as_f64)
    }

    /// True or false.
    pub(super) fn flag(&self, key: &str) -> Result<Option<bool>> {
        self.typed(key, "true or false", Value::as_bool)
    }

    /// A text.
    pub(super) fn text(&self, key: &str) -> Result<Option<&'a str>> {
        self.typed(key, "a text", Value::as_str)
    }

    /// One number for both edges, or `[height, width]`.
    pub(super) fn pair(&self, key: &str) -> Result<Option<(usize, usize)>> {
        self.typed(key, "a size in pixels, or [height, width]", |value| match value.as_array().map(Vec::as_slice) {
            None => one(value).map(|n| (n, n)),
            Some([n]) => one(n).map(|n| (n, n)),
            Some([h, w]) => Some((one(h)?, one(w)?)),
            Some(_) => None,
        })
    }

    /// Whole numbers above zero.
    pub(super) fn counts(&self, key: &str) -> Result<Option<Vec<usize>>> {
        self.typed(key, "a list of whole numbers above zero", |value| value.as_array()?.iter().map(one).collect())
    }

    /// Numbers of places in a list, counted from zero; none if the key is absent.
    pub(super) fn places(&self, key: &str) -> Result<Vec<usize>> {
        let place = |value: &Value| value.as_u64().and_then(|n| usize::try_from(n).ok());
        let found = self.typed(key, "a list of places", |value| value.as_array()?.iter().map(place).collect())?;
        Ok(found.unwrap_or_default())
    }

    /// One number for all channels, or three.
    pub(super) fn channels(&self, key: &str) -> Result<Option<[f32; 3]>> {
        self.typed(key, "a number, or three", |value| match value.as_array().map(Vec::as_slice) {
            None => value.as_f64().map(|n| [n as f32; 3]),
            Some([r, g, b]) => Some([r.as_f64()? as f32, g.as_f64()? as f32, b.as_f64()? as f32]),
            Some(_) => None,
        })
    }

    /// What to say of a value that would change the vectors and that we cannot follow.
    pub(super) fn unsupported(&self, key: &str) -> Error {
        let value = self.map.get(key).map(Value::to_string).unwrap_or_default();
        Error::UnsupportedModel { path: self.file(), key: self.dotted(key), value: shorten(value) }
    }

    /// Refuses `key` unless it is absent, null, or false, zero or empty: the ways to say "not used".
    pub(super) fn refuse(&self, keys: &[&str]) -> Result<()> {
        for key in keys {
            match self.get(key) {
                None | Some(Value::Bool(false)) => {}
                Some(value) if value.as_f64() == Some(0.0) || value.as_str() == Some("") => {}
                Some(Value::Object(map)) if map.is_empty() => {}
                Some(Value::Array(list)) if list.is_empty() => {}
                Some(_) => return Err(self.unsupported(key)),
            }
        }
        Ok(())
    }

    /// Keys that cannot change a vector at inference.
    pub(super) fn harmless(&self, keys: &[&str]) {
        self.read.borrow_mut().extend(keys.iter().map(|key| (*key).to_owned()));
    }

    /// Refuses the first key that was neither read nor called harmless.
    pub(super) fn finish(self) -> Result<()> {
        self.require_no_more()
    }

    /// The same for an object that others go on reading.
    pub(super) fn require_no_more(&self) -> Result<()> {
        if self.checks == Checks::Lenient {
            return Ok(());
        }
        let read = self.read.borrow();
        match self.map.iter().find(|(key, value)| !value.is_null() && !read.contains(*key)) {
            Some((key, _)) => Err(self.unsupported(key)),
            None => Ok(()),
        }
    }

    fn typed<T>(&self, key: &str, expected: &str, read: impl FnOnce(&'a Value) -> Option<T>) -> Result<Option<T>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        read(value).map(Some).ok_or_else(|| self.wrong(key, value, expected))
    }

    /// A value of the wrong kind.
    pub(super) fn wrong(&self, key: &str, value: &Value, expected: &str) -> Error {
        bad(self.file, format!("{} is {}, expected {expected}", self.dotted(key), shorten(value.to_string())))
    }
}

/// A count.
fn one(value: &Value) -> Option<usize> {
    value.as_u64().and_then(|n| usize::try_from(n).ok()).filter(|n| (1..=MAX_COUNT).contains(n))
}

/// A value as written, cut where it would flood a terminal.
fn shorten(mut value: String) -> String {
    if let Some((end, _)) = value.char_indices().nth(80) {
        value.truncate(end);
        value.push('…');
    }
    value
}
