//! JSON answers.
//!
//! Those of clip-retrieval's routes are written as Python writes them: a space after `,` and `:`, nothing but ASCII, a line
//! feed at the end. Every reader of JSON takes either form; some scripts around clip-retrieval compare text.

use std::io;

use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::ser::{CompactFormatter, Formatter, Serializer};

use super::failure::Failure;

struct Python;

impl Formatter for Python {
    fn begin_array_value<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(b": ")
    }

    fn write_string_fragment<W: ?Sized + io::Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        if fragment.is_ascii() {
            return writer.write_all(fragment.as_bytes());
        }
        let mut units = [0; 2];
        for c in fragment.chars() {
            if c.is_ascii() {
                writer.write_all(&[c as u8])?;
            } else {
                for unit in c.encode_utf16(&mut units) {
                    write!(writer, "\\u{unit:04x}")?;
                }
            }
        }
        Ok(())
    }
}

/// An answer as clip-retrieval writes it.
pub(super) fn python(value: &impl Serialize) -> Response {
    written(value, Python, b"\n")
}

/// An answer of our own.
pub(super) fn compact(value: &impl Serialize) -> Response {
    written(value, CompactFormatter, b"")
}

fn written(value: &impl Serialize, formatter: impl Formatter, end: &[u8]) -> Response {
    let mut bytes = Vec::with_capacity(1024);
    match value.serialize(&mut Serializer::with_formatter(&mut bytes, formatter)) {
        Ok(()) => {
            bytes.extend_from_slice(end);
            ([(header::CONTENT_TYPE, "application/json")], bytes).into_response()
        }
        Err(error) => Failure::internal(error.to_string()).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(value: &impl Serialize) -> String {
        let mut bytes = Vec::new();
        value.serialize(&mut Serializer::with_formatter(&mut bytes, Python)).unwrap();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn is_written_as_python_writes_it() {
        let value = serde_json::json!([{"caption": "cap 1 \u{e9} \u{1f600}\n\"", "width": 1, "none": null}, {}, []]);
        assert_eq!(
            text(&value),
            "[{\"caption\": \"cap 1 \\u00e9 \\ud83d\\ude00\\n\\\"\", \"width\": 1, \"none\": null}, {}, []]"
        );
        // f32 widened to double, as NumPy hands it to Python; a NaN is no JSON.
        assert_eq!(text(&[f64::from(1.000_000_1_f32), f64::NAN]), "[1.0000001192092896, null]");
    }
}
