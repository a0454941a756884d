//! Matrices of NumPy, read in blocks of rows: `.npy`, and the members of `.npz`.

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use half::f16;
use npyz::{DType, Endianness, NpyHeader, Order, TypeChar};

use super::parquet::bad;
use crate::{Error, Result};

/// A matrix, open: `rows × dim` numbers, read from the first row on.
pub(crate) struct Matrix {
    path: PathBuf,
    rows: u64,
    dim: usize,
    number: Number,
    big_endian: bool,
    data: Data,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Number {
    F16,
    F32,
    F64,
}

enum Data {
    /// Row after row, from a file or an archive.
    Rows(Box<dyn Read + Send>),
    /// Column after column: the file, where the numbers begin, and the next row.
    Columns(File, u64, u64),
}

impl Number {
    fn size(self) -> usize {
        match self {
            Number::F16 => 2,
            Number::F32 => 4,
            Number::F64 => 8,
        }
    }
}

impl Matrix {
    /// Opens a `.npy` or `.npz` file and reads the header. Of an archive it takes the member of that name, or the one called
    /// `img_emb` or `embeddings`, or the only matrix.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::BadCollection`] if it is no matrix of floating-point numbers, or shorter than it says.
    pub(crate) fn open(path: &Path, member: Option<&str>) -> Result<Matrix> {
        let is_archive = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("npz"));
        if is_archive { Self::from_archive(path, member) } else { Self::from_file(path) }
    }

    fn from_file(path: &Path) -> Result<Matrix> {
        let mut file = File::open(path).map_err(Error::io(path))?;
        let length = file.metadata().map_err(Error::io(path))?.len();
        let header =
            NpyHeader::from_reader(&mut file).map_err(|error| bad(path, format!("no NumPy matrix ({error})")))?;
        let shape = Shape::of(path, &header)?;
        let start = file.stream_position().map_err(Error::io(path))?;
        let needed = shape.rows as u128 * shape.dim as u128 * shape.number.size() as u128;
        if u128::from(length - start.min(length)) < needed {
            let there = length.saturating_sub(start) / (shape.dim.max(1) * shape.number.size()) as u64;
            let reason = format!("cut off: it says {} rows and has {there}; copy or download it again", shape.rows);
            return Err(bad(path, reason));
        }
        let data = match header.order() {
            Order::C => Data::Rows(Box::new(BufReader::with_capacity(1 << 20, file))),
            Order::Fortran => Data::Columns(file, start, 0),
        };
        Ok(shape.matrix(path, data))
    }

    fn from_archive(path: &Path, member: Option<&str>) -> Result<Matrix> {
        let file = File::open(path).map_err(Error::io(path))?;
        let unreadable = |error: zip::result::ZipError| bad(path, format!("no archive that can be read ({error})"));
        let archive = zip::ZipArchive::new(BufReader::new(file)).map_err(unreadable)?;
        let names: Vec<String> =
            archive.file_names().filter_map(|name| name.ok()?.strip_suffix(".npy").map(str::to_owned)).collect();
        let usual = || {
            ["img_emb", "embeddings", "image_embeddings", "arr_0"]
                .iter()
                .find(|usual| names.iter().any(|n| n == *usual))
        };
        let chosen = match (member, names.as_slice()) {
            (Some(member), _) => names.iter().find(|name| *name == member).cloned(),
            (None, [one]) => Some(one.clone()),
            (None, _) => usual().map(|name| (*name).to_owned()),
        };
        let chosen = chosen.ok_or_else(|| {
            bad(
                path,
                format!("say with --vector-column which member holds the vectors; there are {}", names.join(", ")),
            )
        })?;
        // A thread of its own unpacks, because the archive and its member borrow from each other.
        let (header, reader) = unpack(path, archive, format!("{chosen}.npy"))?;
        let shape = Shape::of(path, &header)?;
        if header.order() == Order::Fortran {
            return Err(bad(
                path,
                format!(
                    "{chosen} is stored column by column (Fortran order), which an archive cannot be read in; save it with numpy.ascontiguousarray"
                ),
            ));
        }
        Ok(shape.matrix(path, Data::Rows(reader)))
    }

    /// Number of rows.
    pub(crate) fn rows(&self) -> u64 {
        self.rows
    }

    /// Numbers per row.
    pub(crate) fn dim(&self) -> usize {
        self.dim
    }

    /// Leaves out rows.
    pub(crate) fn skip(&mut self, rows: u64) -> Result<()> {
        let bytes = rows * (self.dim * self.number.size()) as u64;
        match &mut self.data {
            Data::Rows(reader) => {
                std::io::copy(&mut reader.take(bytes), &mut std::io::sink()).map_err(Error::io(&self.path))?;
            }
            Data::Columns(_, _, next) => *next += rows,
        }
        Ok(())
    }

    /// The next `count` rows, which must be there, one after the other.
    ///
    /// # Errors
    /// [`Error::Io`], also where the data of an archive ends early.
    pub(crate) fn read(&mut self, count: usize) -> Result<Vec<f32>> {
        let size = self.number.size();
        let mut bytes = vec![0; count * self.dim * size];
        match &mut self.data {
            Data::Rows(reader) => reader.read_exact(&mut bytes).map_err(Error::io(&self.path))?,
            Data::Columns(file, start, next) => {
                let mut column = vec![0; count * size];
                for at in 0..self.dim {
                    let place = *start + (at as u64 * self.rows + *next) * size as u64;
                    file.seek(SeekFrom::Start(place)).map_err(Error::io(&self.path))?;
                    file.read_exact(&mut column).map_err(Error::io(&self.path))?;
                    for (row, number) in column.chunks_exact(size).enumerate() {
                        let to = (row * self.dim + at) * size;
                        bytes[to..to + size].copy_from_slice(number);
                    }
                }
                *next += count as u64;
            }
        }
        if self.big_endian {
            bytes.chunks_exact_mut(size).for_each(<[u8]>::reverse);
        }
        Ok(match self.number {
            Number::F16 => bytes.chunks_exact(2).map(|b| f16::from_le_bytes([b[0], b[1]]).to_f32()).collect(),
            Number::F32 => bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect(),
            Number::F64 => bytes
                .chunks_exact(8)
                .map(|b| f64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]) as f32)
                .collect(),
        })
    }
}

struct Shape {
    rows: u64,
    dim: usize,
    number: Number,
    big_endian: bool,
}

impl Shape {
    fn of(path: &Path, header: &NpyHeader) -> Result<Shape> {
        let kind = header.dtype();
        let wanted = "expected a matrix of float16, float32 or float64, a row for each picture";
        let [rows, dim] = header.shape() else {
            return Err(bad(path, format!("an array of {} dimensions; {wanted}", header.shape().len())));
        };
        let number = match &kind {
            DType::Plain(kind) if kind.type_char() == TypeChar::Float => match kind.size_field() {
                2 => Some(Number::F16),
                4 => Some(Number::F32),
                8 => Some(Number::F64),
                _ => None,
            },
            _ => None,
        };
        let number = number.ok_or_else(|| bad(path, format!("numbers of the type {}; {wanted}", kind.descr())))?;
        let big_endian = matches!(&kind, DType::Plain(kind) if kind.endianness() == Endianness::Big);
        let limit = 1 << 20;
        match usize::try_from(*dim) {
            Ok(dim) if (1..=limit).contains(&dim) => Ok(Shape { rows: *rows, dim, number, big_endian }),
            _ => Err(bad(path, format!("rows of {dim} numbers; {wanted}"))),
        }
    }

    fn matrix(self, path: &Path, data: Data) -> Matrix {
        let Shape { rows, dim, number, big_endian } = self;
        Matrix { path: path.to_path_buf(), rows, dim, number, big_endian, data }
    }
}

/// A member of an archive as a stream.
fn unpack(
    path: &Path,
    mut archive: zip::ZipArchive<BufReader<File>>,
    member: String,
) -> Result<(NpyHeader, Box<dyn Read + Send>)> {
    let (sender, receiver) = std::sync::mpsc::sync_channel::<std::io::Result<Vec<u8>>>(4);
    std::thread::spawn(move || {
        let mut file = match archive.by_name(&member) {
            Ok(file) => file,
            Err(error) => {
                let _ = sender.send(Err(std::io::Error::other(error)));
                return;
            }
        };
        loop {
            let mut piece = Vec::with_capacity(1 << 20);
            let read = Read::by_ref(&mut file).take(1 << 20).read_to_end(&mut piece);
            let end = !matches!(read, Ok(1..));
            if !piece.is_empty() && sender.send(Ok(piece)).is_err() {
                return;
            }
            if let Err(error) = read {
                let _ = sender.send(Err(error));
            }
            if end {
                return;
            }
        }
    });
    let mut reader = Pieces { receiver, piece: Vec::new(), at: 0 };
    let header =
        NpyHeader::from_reader(&mut reader).map_err(|error| bad(path, format!("no NumPy matrix ({error})")))?;
    Ok((header, Box::new(reader)))
}

struct Pieces {
    receiver: std::sync::mpsc::Receiver<std::io::Result<Vec<u8>>>,
    piece: Vec<u8>,
    at: usize,
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.at == self.piece.len() {
            self.piece = match self.receiver.recv() {
                Ok(piece) => piece?,
                Err(_) => return Ok(0),
            };
            self.at = 0;
        }
        let count = buffer.len().min(self.piece.len() - self.at);
        buffer[..count].copy_from_slice(&self.piece[self.at..self.at + count]);
        self.at += count;
        Ok(count)
    }
}
