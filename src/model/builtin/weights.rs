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

    /// A tensor of two dimensions, row by row.
    pub(super) fn table(&self, name: &str) -> Result<Table<'a>> {
        let tensor = self.0.tensor(name).map_err(bad)?;
        let scales = if tensor.dtype() == Dtype::F32 { Vec::new() } else { self.rows(name)?.1 };
        Ok(Table { bytes: tensor.data(), scales })
    }

    /// Biases of the layer `image.NAME`; empty if it has none.
    pub(super) fn bias(&self, name: &str) -> Result<Vec<f32>> {
        let name = format!("image.{name}.bias");
        if self.0.names().contains(&name.as_str()) { self.floats(&name) } else { Ok(Vec::new()) }
    }

    /// Outputs of the layer `image.NAME`.
    pub(super) fn outputs(&self, name: &str) -> Result<usize> {
        Ok(self.0.tensor(&format!("image.{name}.weight")).map_err(bad)?.shape()[0])
    }
}

/// A table whose rows are read one by one, so that it is never unpacked as a whole.
pub(super) struct Table<'a> {
    bytes: &'a [u8],
    /// Scales of int8 rows; empty if the table is f32, as it is before it is quantised.
    scales: Vec<f32>,
}

impl Table<'_> {
    /// Adds a row to `out`.
    pub(super) fn add_row(&self, row: usize, out: &mut [f32]) {
        if self.scales.is_empty() {
            let row = floats(&self.bytes[4 * row * out.len()..][..4 * out.len()]);
            out.iter_mut().zip(row).for_each(|(out, x)| *out += x);
        } else {
            let (scale, row) = (self.scales[row], &self.bytes[row * out.len()..][..out.len()]);
            out.iter_mut().zip(row).for_each(|(out, &x)| *out += f32::from(x as i8) * scale);
        }
    }
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
}
