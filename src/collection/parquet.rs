//! Parquet, read and written column by column.
//!
//! Columns are read by their Parquet types, without the Arrow schema that some writers add: categories of pandas are then plain
//! texts, and whatever the writer, there are few types to know.

use std::fs::File;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ::parquet::arrow::ArrowWriter;
use ::parquet::arrow::arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use ::parquet::basic::{Compression, ZstdLevel};
use ::parquet::file::properties::WriterProperties;
use arrow_array::cast::AsArray;
use arrow_array::types::{
    ArrowPrimitiveType, Date32Type, Decimal128Type, Float16Type, Float32Type, Float64Type, Int8Type, Int16Type,
    Int32Type, Int64Type, TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType,
    TimestampSecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow_array::{
    Array, ArrayRef, FixedSizeListArray, Float32Array, Float64Array, Int64Array, RecordBatch, StringArray,
};
use arrow_schema::{DataType, Field, Schema, TimeUnit};
use serde_json::{Map, Number, Value};

use super::columns::{PATHS, URLS, VECTORS};
use crate::{Error, Result};

/// Rows that are decoded at a time.
const BATCH: usize = 1024;

/// A Parquet file, open.
pub(crate) struct ParquetTable {
    path: PathBuf,
    builder: ParquetRecordBatchReaderBuilder<File>,
}

/// A vector of a row, or why there is none.
pub(crate) type RowVector = Result<Vec<f32>, String>;

impl ParquetTable {
    /// Reads the footer.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::BadCollection`].
    pub(crate) fn open(path: &Path) -> Result<ParquetTable> {
        let file = File::open(path).map_err(Error::io(path))?;
        let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
        let builder = ParquetRecordBatchReaderBuilder::try_new_with_options(file, options).map_err(|error| {
            bad(path, format!("no Parquet file that can be read, or one that is cut off ({error})"))
        })?;
        Ok(ParquetTable { path: path.to_path_buf(), builder })
    }

    /// Number of rows.
    pub(crate) fn rows(&self) -> u64 {
        self.builder.metadata().file_metadata().num_rows().max(0) as u64
    }

    /// The column of vectors: the one that was named, one of the usual names, or the only list of numbers.
    ///
    /// # Errors
    /// [`Error::BadCollection`] says which columns there are.
    pub(crate) fn vector_column(&self, named: Option<&str>) -> Result<String> {
        let fields = self.builder.schema().fields();
        let vectors: Vec<&str> =
            fields.iter().filter(|field| is_vector(field.data_type())).map(|field| field.name().as_str()).collect();
        let found = match named {
            Some(named) => vectors.iter().find(|name| **name == named),
            None => VECTORS
                .iter()
                .find_map(|usual| vectors.iter().find(|name| name.eq_ignore_ascii_case(usual)))
                .or(if vectors.len() == 1 { vectors.first() } else { None }),
        };
        found.map(|name| (*name).to_owned()).ok_or_else(|| {
            let wanted = named.map_or("column that must be the one of vectors".to_owned(), |named| {
                format!("column of vectors called {named}")
            });
            let names: Vec<&str> = fields.iter().map(|field| field.name().as_str()).collect();
            bad(&self.path, format!("there is no {wanted}; there are {}", names.join(", ")))
        })
    }

    /// Whether the rows are vectors, rather than of pictures that may have some numbers beside.
    pub(crate) fn is_of_vectors(&self, named: Option<&str>) -> bool {
        let Ok(column) = self.vector_column(named) else { return false };
        let is_one_of = |name: &str, usual: &[&str]| usual.iter().any(|usual| name.eq_ignore_ascii_case(usual));
        let of_pictures = || {
            self.builder
                .schema()
                .fields()
                .iter()
                .any(|field| is_one_of(field.name(), PATHS) || is_one_of(field.name(), URLS))
        };
        named.is_some()
            || is_one_of(&column, VECTORS)
            || (!of_pictures() && self.first_length(&column).is_ok_and(|length| length > FEW as usize))
    }

    /// Numbers of the first vector in a column; 0 where there is none.
    ///
    /// # Errors
    /// As [`ParquetTable::read`].
    pub(crate) fn first_length(&self, column: &str) -> Result<usize> {
        let mut length = 0;
        ParquetTable::open(&self.path)?.read(0, Some(column), |_, _, vector| match vector {
            Some(Ok(vector)) => {
                length = vector.len();
                ControlFlow::Break(())
            }
            _ => ControlFlow::Continue(()),
        })?;
        Ok(length)
    }

    /// Rows from `skip` on, with their vectors where a column of them is named, until `each` says stop.
    ///
    /// # Errors
    /// [`Error::BadCollection`] where the file is damaged; the rows before are handed over.
    pub(crate) fn read(
        self,
        skip: u64,
        vector: Option<&str>,
        mut each: impl FnMut(u64, Map<String, Value>, Option<RowVector>) -> ControlFlow<()>,
    ) -> Result<()> {
        let path = self.path;
        let damaged =
            |error: &dyn std::fmt::Display| bad(&path, format!("damaged ({error}); what comes before is taken"));
        let reader =
            self.builder.with_batch_size(BATCH).with_offset(skip as usize).build().map_err(|error| damaged(&error))?;
        let mut row = skip;
        for batch in reader {
            let batch = batch.map_err(|error| damaged(&error))?;
            let schema = batch.schema();
            let mut vectors = Vec::new();
            let mut columns = Vec::new();
            for (field, array) in schema.fields().iter().zip(batch.columns()) {
                if vector == Some(field.name()) {
                    vectors = rows_of(array);
                } else if !is_embedding(array) {
                    columns.push((field.name(), values(array)));
                }
            }
            let mut vectors = vectors.into_iter();
            for at in 0..batch.num_rows() {
                let fields = columns.iter_mut().map(|(name, values)| (name.clone(), values[at].take())).collect();
                let vector = vector.map(|_| vectors.next().unwrap_or_else(|| Err("no vector".to_owned())));
                if each(row, fields, vector).is_break() {
                    return Ok(());
                }
                row += 1;
            }
        }
        Ok(())
    }
}

pub(super) fn bad(path: &Path, reason: String) -> Error {
    Error::BadCollection { path: path.to_path_buf(), reason }
}

/// Numbers of a list that is still metadata, such as a box or a few scores. Longer ones are embeddings of other kinds: as metadata
/// each would take kilobytes of the catalog, and nobody could ask for them.
const FEW: i32 = 32;

/// Whether a column holds lists of more than a few floating-point numbers.
fn is_embedding(array: &ArrayRef) -> bool {
    let longest = match array.data_type() {
        kind if !is_vector(kind) => None,
        DataType::FixedSizeList(_, length) => Some(*length),
        DataType::List(_) => array.as_list::<i32>().offsets().windows(2).map(|pair| pair[1] - pair[0]).max(),
        _ => array
            .as_list::<i64>()
            .offsets()
            .windows(2)
            .map(|pair| (pair[1] - pair[0]).try_into().unwrap_or(i32::MAX))
            .max(),
    };
    longest.is_some_and(|length| length > FEW)
}

fn is_vector(kind: &DataType) -> bool {
    match kind {
        DataType::List(of) | DataType::LargeList(of) | DataType::FixedSizeList(of, _) => {
            matches!(of.data_type(), DataType::Float16 | DataType::Float32 | DataType::Float64)
        }
        _ => false,
    }
}

/// Lists of numbers as vectors.
fn rows_of(array: &ArrayRef) -> Vec<RowVector> {
    let row = |at: usize| match array.data_type() {
        DataType::List(_) => Some(array.as_list::<i32>().value(at)),
        DataType::LargeList(_) => Some(array.as_list::<i64>().value(at)),
        DataType::FixedSizeList(..) => Some(array.as_fixed_size_list().value(at)),
        _ => None,
    };
    let vector = |at: usize| {
        let row = row(at).filter(|row| array.is_valid(at) && row.null_count() == 0);
        let row = row.ok_or_else(|| "its vector is missing".to_owned())?;
        Ok(match row.data_type() {
            DataType::Float16 => row.as_primitive::<Float16Type>().values().iter().map(|x| x.to_f32()).collect(),
            DataType::Float32 => row.as_primitive::<Float32Type>().values().to_vec(),
            _ => row.as_primitive::<Float64Type>().values().iter().map(|x| *x as f32).collect(),
        })
    };
    (0..array.len()).map(vector).collect()
}

/// A column as JSON values; what JSON cannot say (bytes, numbers that are none) is null.
fn values(array: &ArrayRef) -> Vec<Value> {
    fn numbers<T: ArrowPrimitiveType>(array: &ArrayRef, value: impl Fn(T::Native) -> Value) -> Vec<Value> {
        array.as_primitive::<T>().iter().map(|number| number.map_or(Value::Null, &value)).collect()
    }
    fn texts<'a>(all: impl Iterator<Item = Option<&'a str>>) -> Vec<Value> {
        all.map(|text| text.map_or(Value::Null, Value::from)).collect()
    }
    let real = |number: f64| Number::from_f64(number).map_or(Value::Null, Value::Number);
    let stamp = |seconds: i64, nanos: i64| {
        let time = jiff::Timestamp::new(seconds, nanos as i32);
        time.map_or(Value::Null, |time| time.to_string().into())
    };
    let nested = |rows: &dyn Fn(usize) -> ArrayRef| -> Vec<Value> {
        (0..array.len()).map(|at| if array.is_valid(at) { values(&rows(at)).into() } else { Value::Null }).collect()
    };
    match array.data_type() {
        DataType::Boolean => array.as_boolean().iter().map(|truth| truth.map_or(Value::Null, Value::Bool)).collect(),
        DataType::Int8 => numbers::<Int8Type>(array, Value::from),
        DataType::Int16 => numbers::<Int16Type>(array, Value::from),
        DataType::Int32 => numbers::<Int32Type>(array, Value::from),
        DataType::Int64 => numbers::<Int64Type>(array, Value::from),
        DataType::UInt8 => numbers::<UInt8Type>(array, Value::from),
        DataType::UInt16 => numbers::<UInt16Type>(array, Value::from),
        DataType::UInt32 => numbers::<UInt32Type>(array, Value::from),
        DataType::UInt64 => numbers::<UInt64Type>(array, Value::from),
        DataType::Float16 => numbers::<Float16Type>(array, |number| real(number.to_f64())),
        DataType::Float32 => numbers::<Float32Type>(array, |number| {
            // The shortest decimal of the number itself: 0.1 must not become 0.10000000149.
            real(number.to_string().parse().unwrap_or(f64::NAN))
        }),
        DataType::Float64 => numbers::<Float64Type>(array, real),
        DataType::Decimal128(_, scale) => {
            let unit = 10_f64.powi((*scale).into());
            numbers::<Decimal128Type>(array, |number| real(number as f64 / unit))
        }
        DataType::Utf8 => texts(array.as_string::<i32>().iter()),
        DataType::LargeUtf8 => texts(array.as_string::<i64>().iter()),
        DataType::Utf8View => texts(array.as_string_view().iter()),
        DataType::Binary => texts(array.as_binary::<i32>().iter().map(|bytes| std::str::from_utf8(bytes?).ok())),
        DataType::Date32 => numbers::<Date32Type>(array, |days| {
            let date = jiff::civil::date(1970, 1, 1).checked_add(jiff::Span::new().days(days));
            date.map_or(Value::Null, |date| date.to_string().into())
        }),
        DataType::Timestamp(TimeUnit::Second, _) => numbers::<TimestampSecondType>(array, |time| stamp(time, 0)),
        DataType::Timestamp(TimeUnit::Millisecond, _) => numbers::<TimestampMillisecondType>(array, |time| {
            stamp(time.div_euclid(1000), time.rem_euclid(1000) * 1_000_000)
        }),
        DataType::Timestamp(TimeUnit::Microsecond, _) => numbers::<TimestampMicrosecondType>(array, |time| {
            stamp(time.div_euclid(1_000_000), time.rem_euclid(1_000_000) * 1000)
        }),
        DataType::Timestamp(TimeUnit::Nanosecond, _) => numbers::<TimestampNanosecondType>(array, |time| {
            stamp(time.div_euclid(1_000_000_000), time.rem_euclid(1_000_000_000))
        }),
        DataType::List(_) => nested(&|at| array.as_list::<i32>().value(at)),
        DataType::LargeList(_) => nested(&|at| array.as_list::<i64>().value(at)),
        DataType::FixedSizeList(..) => nested(&|at| array.as_fixed_size_list().value(at)),
        DataType::Struct(fields) => {
            let columns = array.as_struct().columns();
            let mut columns: Vec<(&String, Vec<Value>)> =
                fields.iter().zip(columns).map(|(field, column)| (field.name(), values(column))).collect();
            let object = |at: usize| -> Value {
                columns
                    .iter_mut()
                    .map(|(name, values)| ((*name).clone(), values[at].take()))
                    .collect::<Map<_, _>>()
                    .into()
            };
            (0..array.len()).map(object).collect()
        }
        _ => vec![Value::Null; array.len()],
    }
}

/// What a column to be written holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ColumnKind {
    Text,
    Integer,
    Real,
}

/// Rows that are written as one batch.
const WRITE: usize = 8192;

/// Writes a Parquet file, zstd inside.
pub(crate) struct ParquetWriter {
    path: PathBuf,
    writer: ArrowWriter<File>,
    schema: Arc<Schema>,
    columns: Vec<(String, ColumnKind)>,
    rows: Vec<Vec<Value>>,
    /// Numbers per vector, and those of the rows.
    vectors: Option<(usize, Vec<f32>)>,
}

impl ParquetWriter {
    /// Creates the file. `vector` names a column of vectors of so many numbers.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(crate) fn create(
        path: &Path,
        columns: &[(String, ColumnKind)],
        vector: Option<(&str, usize)>,
    ) -> Result<ParquetWriter> {
        let mut fields: Vec<Field> = columns
            .iter()
            .map(|(name, kind)| {
                let kind = match kind {
                    ColumnKind::Text => DataType::Utf8,
                    ColumnKind::Integer => DataType::Int64,
                    ColumnKind::Real => DataType::Float64,
                };
                Field::new(name, kind, true)
            })
            .collect();
        if let Some((name, dim)) = vector {
            let numbers = Arc::new(Field::new("element", DataType::Float32, false));
            fields.push(Field::new(name, DataType::FixedSizeList(numbers, dim as i32), false));
        }
        let schema = Arc::new(Schema::new(fields));
        let file = File::create(path).map_err(Error::io(path))?;
        let properties = WriterProperties::builder().set_compression(Compression::ZSTD(ZstdLevel::default())).build();
        let writer = ArrowWriter::try_new(file, Arc::clone(&schema), Some(properties)).map_err(failed(path))?;
        Ok(ParquetWriter {
            path: path.to_path_buf(),
            writer,
            schema,
            columns: columns.to_vec(),
            rows: Vec::new(),
            vectors: vector.map(|(_, dim)| (dim, Vec::new())),
        })
    }

    /// Appends a row: a value for each column, and the vector where there is a column of them.
    pub(crate) fn push(&mut self, row: Vec<Value>, vector: &[f32]) -> Result<()> {
        self.rows.push(row);
        if let Some((_, vectors)) = &mut self.vectors {
            vectors.extend_from_slice(vector);
        }
        if self.rows.len() >= WRITE { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<()> {
        let mut arrays: Vec<ArrayRef> = Vec::new();
        for (at, (_, kind)) in self.columns.iter().enumerate() {
            let column = self.rows.iter().map(|row| &row[at]);
            arrays.push(match kind {
                ColumnKind::Text => Arc::new(StringArray::from_iter(column.map(as_text))),
                ColumnKind::Integer => Arc::new(Int64Array::from_iter(column.map(Value::as_i64))),
                ColumnKind::Real => Arc::new(Float64Array::from_iter(column.map(Value::as_f64))),
            });
        }
        if let Some((dim, vectors)) = &mut self.vectors {
            let numbers = Arc::new(Field::new("element", DataType::Float32, false));
            let values = Arc::new(Float32Array::from(std::mem::take(vectors)));
            let list = FixedSizeListArray::try_new(numbers, *dim as i32, values, None);
            arrays.push(Arc::new(list.map_err(|error| bad(&self.path, error.to_string()))?));
        }
        let batch = RecordBatch::try_new(Arc::clone(&self.schema), arrays)
            .map_err(|error| bad(&self.path, error.to_string()))?;
        self.rows.clear();
        self.writer.write(&batch).map_err(failed(&self.path))
    }

    /// Writes the rest and the footer; without it the file is no Parquet file.
    pub(crate) fn finish(mut self) -> Result<()> {
        if !self.rows.is_empty() {
            self.flush()?;
        }
        self.writer.close().map(|_| ()).map_err(failed(&self.path))
    }
}

fn as_text(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}

fn failed(path: &Path) -> impl Fn(::parquet::errors::ParquetError) -> Error + use<> {
    let path = path.to_path_buf();
    move |error| Error::Io { path: path.clone(), source: std::io::Error::other(error) }
}

#[cfg(test)]
mod tests {
    use arrow_array::types::Float32Type;
    use arrow_array::{LargeListArray, ListArray};

    use super::*;

    #[test]
    fn lists_of_a_few_numbers_are_metadata_and_longer_ones_are_not() {
        let list = |length: usize| Some(vec![Some(0.5); length]);
        let few = FEW as usize;
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("box", Arc::new(ListArray::from_iter_primitive::<Float32Type, _, _>([list(4), None]))),
            ("scores", Arc::new(ListArray::from_iter_primitive::<Float32Type, _, _>([list(few), list(0)]))),
            ("face", Arc::new(ListArray::from_iter_primitive::<Float32Type, _, _>([None, list(few + 1)]))),
            ("voice", Arc::new(LargeListArray::from_iter_primitive::<Float32Type, _, _>([list(few + 1), list(2)]))),
            ("tags", Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>([Some(vec![Some(7); 40]), None]))),
            ("vector", Arc::new(ListArray::from_iter_primitive::<Float32Type, _, _>([list(64), list(64)]))),
        ];
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("list.parquet");
        let batch = RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, of)| (name, of, true)));
        let batch = batch.unwrap();
        let mut writer = ArrowWriter::try_new(File::create(&path).unwrap(), batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();

        let mut rows = Vec::new();
        let table = ParquetTable::open(&path).unwrap();
        table
            .read(0, Some("vector"), |_, fields, vector| {
                assert_eq!(vector.unwrap().unwrap().len(), 64);
                rows.push(fields);
                ControlFlow::Continue(())
            })
            .unwrap();
        assert_eq!(rows.len(), 2);
        for row in &rows {
            assert_eq!(row.keys().collect::<Vec<_>>(), ["box", "scores", "tags"]);
        }
        assert_eq!(rows[0]["box"].as_array().unwrap().len(), 4);
        assert_eq!(rows[0]["scores"].as_array().unwrap().len(), few);
        assert_eq!(rows[0]["tags"].as_array().unwrap().len(), 40);
        assert_eq!(rows[1]["box"], Value::Null);
    }
}
