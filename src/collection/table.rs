//! Lists: Parquet, JSON lines, CSV and TSV, plain or gzipped, as rows of named values.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;
use serde_json::{Map, Value};

use super::counted::{Counted, Passed};
use super::parquet::{ParquetTable, bad};
use crate::{Error, Result};

/// Longest line of a list.
const MAX_LINE: u64 = 16 << 20;

/// What is said of a file of no bytes.
pub(super) const EMPTY: &str = "empty; if something should be in it, copy or download it again";

/// A list, open.
pub(crate) struct Table {
    kind: Kind,
    passed: Passed,
}

enum Kind {
    /// With the bytes of the file.
    Parquet(Box<ParquetTable>, u64),
    JsonLines(PathBuf, Box<dyn BufRead + Send>),
    Csv(PathBuf, Box<dyn BufRead + Send>, u8),
}

/// The values of a row by column, or what is wrong with it.
pub(crate) type Fields = Result<Map<String, Value>, String>;

impl Table {
    /// Opens a list; its kind is told by its name.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::BadCollection`].
    pub(crate) fn open(path: &Path) -> Result<Table> {
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
        let name = name.strip_suffix(".gz").unwrap_or(&name);
        if name.ends_with(".parquet") {
            let size = std::fs::metadata(path).map_err(Error::io(path))?.len();
            let kind = Kind::Parquet(Box::new(ParquetTable::open(path)?), size);
            return Ok(Table { kind, passed: Passed::default() });
        }
        if std::fs::metadata(path).map_err(Error::io(path))?.len() == 0 {
            return Err(bad(path, EMPTY.to_owned()));
        }
        let (mut reader, passed) = plain(path).map_err(Error::io(path))?;
        if name.ends_with(".jsonl") || name.ends_with(".ndjson") {
            return Ok(Table { kind: Kind::JsonLines(path.to_path_buf(), reader), passed });
        }
        let start = reader.fill_buf().map_err(Error::io(path))?;
        let header = start.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let tabs = name.ends_with(".tsv") || (header.contains(&b'\t') && !header.contains(&b','));
        let kind = Kind::Csv(path.to_path_buf(), reader, if tabs { b'\t' } else { b',' });
        Ok(Table { kind, passed })
    }

    /// How much of the file [`Table::read`] has behind it.
    pub(crate) fn passed(&self) -> Passed {
        self.passed.clone()
    }

    /// Number of rows, where it is known beforehand.
    pub(crate) fn rows(&self) -> Option<u64> {
        match &self.kind {
            Kind::Parquet(table, _) => Some(table.rows()),
            _ => None,
        }
    }

    /// Rows from `skip` on with their numbers, until `each` says stop. A row that cannot be read is handed over as such.
    ///
    /// # Errors
    /// [`Error::BadCollection`] where the rest of the file cannot be read; the rows before are handed over.
    pub(crate) fn read(self, skip: u64, mut each: impl FnMut(u64, Fields) -> ControlFlow<()>) -> Result<()> {
        match self.kind {
            Kind::Parquet(table, size) => {
                let rows = table.rows().max(1);
                table.read(skip, None, |row, fields, _| {
                    // Rows are of one size: what a row group has in which column is nobody's concern here.
                    self.passed.set((u128::from(size) * u128::from(row) / u128::from(rows)) as u64);
                    each(row, Ok(fields))
                })
            }
            Kind::JsonLines(path, reader) => json_lines(&path, reader, skip, each),
            Kind::Csv(path, reader, delimiter) => csv(&path, reader, delimiter, skip, each),
        }
    }
}

/// The file, unpacked where it is gzipped.
fn plain(path: &Path) -> std::io::Result<(Box<dyn BufRead + Send>, Passed)> {
    let mut file = File::open(path)?;
    let mut magic = Vec::new();
    Read::by_ref(&mut file).take(2).read_to_end(&mut magic)?;
    file.rewind()?;
    let (file, passed) = Counted::open(file);
    let packed = magic == [0x1f, 0x8b];
    Ok((if packed { Box::new(BufReader::new(MultiGzDecoder::new(file))) } else { Box::new(file) }, passed))
}

fn json_lines(
    path: &Path,
    mut reader: Box<dyn BufRead + Send>,
    skip: u64,
    mut each: impl FnMut(u64, Fields) -> ControlFlow<()>,
) -> Result<()> {
    let (mut line, mut row) = (Vec::new(), 0);
    loop {
        line.clear();
        let read = Read::by_ref(&mut reader).take(MAX_LINE).read_until(b'\n', &mut line);
        read.map_err(|error| {
            bad(path, format!("cannot be read behind row {row} ({error}); what comes before is taken"))
        })?;
        if line.is_empty() {
            return Ok(());
        }
        if line.len() as u64 == MAX_LINE && !line.ends_with(b"\n") {
            return Err(bad(path, format!("row {row} is longer than {MAX_LINE} bytes; this is no list")));
        }
        if line.trim_ascii().is_empty() {
            continue;
        }
        row += 1;
        if row <= skip {
            continue;
        }
        let fields = match serde_json::from_slice(&line) {
            Ok(Value::Object(fields)) => Ok(fields),
            Ok(_) => Err("this row is no JSON object".to_owned()),
            Err(error) => Err(format!("this row is no JSON ({error})")),
        };
        if each(row - 1, fields).is_break() {
            return Ok(());
        }
    }
}

fn csv(
    path: &Path,
    reader: Box<dyn BufRead + Send>,
    delimiter: u8,
    skip: u64,
    mut each: impl FnMut(u64, Fields) -> ControlFlow<()>,
) -> Result<()> {
    let mut reader = csv::ReaderBuilder::new().delimiter(delimiter).flexible(true).from_reader(reader);
    let damaged = |error: csv::Error| bad(path, format!("no table that can be read ({error})"));
    let header: Vec<String> = reader
        .byte_headers()
        .map_err(damaged)?
        .iter()
        .enumerate()
        .map(|(at, name)| {
            let name = String::from_utf8_lossy(name);
            // Spreadsheets begin their files with a mark.
            let name = name.trim_start_matches('\u{feff}').trim();
            if name.is_empty() { format!("column_{at}") } else { name.to_owned() }
        })
        .collect();
    let (mut record, mut row) = (csv::ByteRecord::new(), 0);
    loop {
        match reader.read_byte_record(&mut record) {
            Ok(false) => return Ok(()),
            Ok(true) => {}
            Err(error) => return Err(damaged(error)),
        }
        row += 1;
        if row <= skip {
            continue;
        }
        let fields = if record.len() > header.len() {
            Err(format!("{} values for {} columns", record.len(), header.len()))
        } else {
            let values = record.iter().map(|value| typed(&String::from_utf8_lossy(value)));
            Ok(header.iter().cloned().zip(values).collect())
        };
        if each(row - 1, fields).is_break() {
            return Ok(());
        }
    }
}

/// A number where the text is written as that number is, so that `0017` stays a text; nothing for an empty one.
fn typed(text: &str) -> Value {
    if text.is_empty() {
        return Value::Null;
    }
    if let Ok(whole) = text.parse::<i64>()
        && whole.to_string() == text
    {
        return whole.into();
    }
    let decimal = text.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'.' | b'-' | b'e' | b'E' | b'+'));
    let padded = text.starts_with('0') && !text.starts_with("0.");
    if decimal
        && !padded
        && text.contains('.')
        && let Ok(real) = text.parse::<f64>()
        && let Some(number) = serde_json::Number::from_f64(real)
    {
        return Value::Number(number);
    }
    text.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::io::Write;

    fn rows(path: &Path, skip: u64) -> Vec<(u64, Fields)> {
        let mut all = Vec::new();
        let read = Table::open(path).unwrap().read(skip, |row, fields| {
            all.push((row, fields));
            ControlFlow::Continue(())
        });
        read.unwrap();
        all
    }

    #[test]
    fn lists_of_every_kind_are_rows() {
        let dir = tempfile::tempdir().unwrap();
        let csv = dir.path().join("a.csv");
        std::fs::write(
            &csv,
            "\u{feff}path,caption,key,w,s\na.jpg,\"two, \"\"words\"\"\",0017,640,0.5\nb.jpg,,x,-3,1e5\nc,1,2,3,4,5\n",
        )
        .unwrap();
        let expected = [
            (0, Ok(json!({"path": "a.jpg", "caption": "two, \"words\"", "key": "0017", "w": 640, "s": 0.5}))),
            (1, Ok(json!({"path": "b.jpg", "caption": null, "key": "x", "w": -3, "s": "1e5"}))),
            (2, Err("6 values for 5 columns".to_owned())),
        ];
        let expected = expected.map(|(row, fields)| (row, fields.map(|fields| fields.as_object().unwrap().clone())));
        assert_eq!(rows(&csv, 0), expected);
        assert_eq!(rows(&csv, 1), expected[1..]);
        let lines = dir.path().join("a.jsonl.gz");
        let mut file = flate2::write::GzEncoder::new(File::create(&lines).unwrap(), flate2::Compression::fast());
        file.write_all(b"{\"path\": \"a\", \"n\": {\"x\": 1}}\n\n[1]\n{\"path\": \"b\"").unwrap();
        file.finish().unwrap();
        let found = rows(&lines, 0);
        assert_eq!(found.len(), 3);
        assert_eq!(found[0].1.as_ref().unwrap()["n"], json!({"x": 1}));
        assert!(found[1].1.as_ref().unwrap_err().contains("no JSON object"));
        assert!(found[2].1.as_ref().unwrap_err().contains("no JSON"));
    }
}
