//! Matrices of float16 as NumPy reads them.

use std::fs::File;
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use half::f16;

use crate::{Error, Result};

/// Bytes of the header, padded: the numbers begin at a multiple of 64, as NumPy has it.
const HEADER: usize = 128;

/// Writes `rows × dim` numbers; how many rows there are is known at the end.
pub(super) struct Npy {
    path: PathBuf,
    file: BufWriter<File>,
    dim: usize,
    rows: u64,
}

impl Npy {
    pub(super) fn create(path: PathBuf, dim: usize) -> Result<Npy> {
        let file = File::create(&path).map_err(Error::io(&path))?;
        let mut npy = Npy { file: BufWriter::with_capacity(1 << 20, file), path, dim, rows: 0 };
        npy.header()?;
        Ok(npy)
    }

    fn header(&mut self) -> Result<()> {
        let about = format!("{{'descr': '<f2', 'fortran_order': False, 'shape': ({}, {}), }}", self.rows, self.dim);
        let mut header = b"\x93NUMPY\x01\x00".to_vec();
        header.extend(((HEADER - 10) as u16).to_le_bytes());
        header.extend(about.as_bytes());
        header.resize(HEADER - 1, b' ');
        header.push(b'\n');
        self.file.write_all(&header).map_err(Error::io(&self.path))
    }

    pub(super) fn push(&mut self, vector: &[f32]) -> Result<()> {
        self.rows += 1;
        let bytes: Vec<u8> = vector.iter().flat_map(|x| f16::from_f32(*x).to_le_bytes()).collect();
        self.file.write_all(&bytes).map_err(Error::io(&self.path))
    }

    pub(super) fn finish(mut self) -> Result<()> {
        self.file.seek(SeekFrom::Start(0)).map_err(Error::io(&self.path))?;
        self.header()?;
        self.file.flush().map_err(Error::io(&self.path))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}
