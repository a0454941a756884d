//! Tensors of the compiled-in weight file: int8 rows with a scale each (`NAME.scale`), or f32.

use safetensors::{Dtype, SafeTensors};

use super::bad;
use crate::Result;

/// The weight file, its header read.
pub(super) struct Weights<'a>(SafeTensors<'a>);

impl<'a> Weights<'a> {
    pub(super) fn read(bytes: &'a [u8]) -> Result<Self> {
        SafeTensors::deserialize(bytes).map(Self).map_err(bad)
    }

    /// All numbers of a tensor, int8 rows times their scales.
    pub(super) fn floats(&self, name: &str) -> Result<Vec<f32>> {
        let tensor = self.0.tensor(name).map_err(bad)?;
        if tensor.dtype() == Dtype::F32 {
            return Ok(floats(tensor.data()));
        }
        let (bytes, scales) = self.rows(name)?;
        let mut numbers = Vec::with_capacity(bytes.len());
        for (row, &scale) in bytes.chunks_exact(bytes.len() / scales.len()).zip(&scales) {
            numbers.extend(row.iter().map(|&x| f32::from(x as i8) * scale));
        }
        Ok(numbers)
    }

    /// An int8 tensor as it is stored, two's complement, and the scales of its rows.
    pub(super) fn rows(&self, name: &str) -> Result<(&'a [u8], Vec<f32>)> {
        let scales = self.0.tensor(&format!("{name}.scale")).map_err(bad)?;
        Ok((self.0.tensor(name).map_err(bad)?.data(), floats(scales.data())))
    }
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
}
