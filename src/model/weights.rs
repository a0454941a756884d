//! The tensors of a model under the normal form's names, read on demand.
//!
//! Opening reads headers alone and settles everything that can be wrong: each tensor of the model is there in its shape, and
//! no tensor is left over, because a left-over tensor means a tower that was trained with a part that we would not evaluate.
//! Numbers are converted to f32 when a tower is built.

mod checkpoint;
mod pickle;

use std::collections::{BTreeMap, BTreeSet};

use rayon::prelude::*;

pub(crate) use self::checkpoint::Checkpoint;
use super::config::TensorSpec;
use crate::{Error, Result};

/// How a tensor of the normal form is made from a checkpoint's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The same numbers in the same order.
    Same(String),
    /// A matrix stored `(in, out)`.
    Transposed(String),
    /// The same numbers in the same order, with the rows of a square and their places as two dimensions.
    Square(String),
    /// Three tensors, one below the other; zeros where there is none.
    Stacked([Option<String>; 3]),
    /// One of several equal parts of a tensor, one below the other.
    Part {
        /// The whole.
        name: String,
        /// Which part.
        index: usize,
        /// Of how many.
        count: usize,
    },
    /// The same numbers times the hyperbolic tangent of a number: how far a gate is open.
    Gated {
        /// The numbers.
        name: String,
        /// The gate.
        gate: String,
    },
}

impl Origin {
    fn names(&self) -> impl Iterator<Item = &String> {
        let (one, other, several) = match self {
            Origin::Same(name) | Origin::Transposed(name) | Origin::Square(name) | Origin::Part { name, .. } => {
                (Some(name), None, None)
            }
            Origin::Gated { name, gate } => (Some(name), Some(gate), None),
            Origin::Stacked(names) => (None, None, Some(names.iter().flatten())),
        };
        one.into_iter().chain(other).chain(several.into_iter().flatten())
    }

    /// Shape that the source `name` must have for a tensor of `shape`.
    fn source_shape(&self, name: &str, shape: &[usize]) -> Vec<usize> {
        let mut shape = shape.to_vec();
        match self {
            Origin::Same(_) => {}
            Origin::Gated { gate, .. } if gate == name => shape.clear(),
            Origin::Gated { .. } => {}
            Origin::Transposed(_) => shape.reverse(),
            Origin::Square(_) => {
                shape[0] = shape[0].isqrt();
                shape.insert(0, shape[0]);
            }
            Origin::Stacked(_) => shape[0] /= 3,
            Origin::Part { count, .. } => shape[0] *= count,
        }
        shape
    }
}

/// Whether two shapes hold the same numbers in the same order: dimensions of one do not count.
fn is_same_shape(a: &[usize], b: &[usize]) -> bool {
    let real = |shape: &[usize]| shape.iter().copied().filter(|&d| d != 1).collect::<Vec<_>>();
    real(a) == real(b)
}

/// A checkpoint seen through the normal form.
#[derive(Debug)]
pub(crate) struct Weights {
    checkpoint: Checkpoint,
    tensors: BTreeMap<String, (Origin, Vec<usize>)>,
}

impl Weights {
    /// Checks that `checkpoint` holds `specs` and nothing else but what `ignorable` names.
    pub(crate) fn new(
        checkpoint: Checkpoint,
        specs: &[TensorSpec],
        origin: impl Fn(&str) -> Origin,
        ignorable: impl Fn(&str) -> bool,
    ) -> Result<Self> {
        let origins = specs.iter().map(|spec| (origin(&spec.name), spec.clone())).collect();
        Self::with_origins(checkpoint, origins, ignorable)
    }

    /// The same with the origin of each tensor beside it.
    pub(crate) fn with_origins(
        checkpoint: Checkpoint,
        specs: Vec<(Origin, TensorSpec)>,
        ignorable: impl Fn(&str) -> bool,
    ) -> Result<Self> {
        let mut tensors = BTreeMap::new();
        let mut used = BTreeSet::new();
        for (origin, spec) in specs {
            for name in origin.names() {
                let expected = origin.source_shape(name, &spec.shape);
                let found = checkpoint
                    .shape(name)
                    .ok_or_else(|| checkpoint.bad(format!("the tensor {name} of shape {expected:?} is missing")))?;
                if !is_same_shape(found, &expected) {
                    let reason =
                        format!("the tensor {name} has the shape {found:?}, the configuration asks for {expected:?}");
                    return Err(checkpoint.bad_at(name, reason));
                }
                if !checkpoint.is_real(name) {
                    return Err(checkpoint.bad_at(name, format!("the tensor {name} does not hold real numbers")));
                }
                used.insert(name.clone());
            }
            tensors.insert(spec.name.clone(), (origin, spec.shape.clone()));
        }
        if let Some(name) = checkpoint.names().find(|name| !used.contains(*name) && !ignorable(name)) {
            let reason = format!("the tensor {name} is no part of the model that the configuration describes");
            return Err(checkpoint.bad_at(name, reason));
        }
        Ok(Self { checkpoint, tensors })
    }

    /// Gives the memory of what was read back, for those who keep it in another form: mapped pages would stay as long as there is
    /// room for them, and count as this process's.
    pub(crate) fn release(&self) {
        self.checkpoint.release();
    }

    /// Whether the model has this tensor.
    pub(crate) fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// All numbers of a tensor, row by row, and its shape.
    pub(crate) fn get(&self, name: &str) -> Result<(Vec<f32>, Vec<usize>)> {
        let (origin, shape) = self.find(name)?;
        let data = match origin {
            Origin::Same(source) | Origin::Square(source) => self.checkpoint.read(source)?,
            Origin::Transposed(source) => transpose(&self.checkpoint.read(source)?, shape[1], shape[0]),
            Origin::Stacked(sources) => {
                let mut data = Vec::with_capacity(shape.iter().product());
                let each = shape.iter().product::<usize>() / 3;
                for source in sources {
                    match source {
                        Some(source) => data.extend_from_slice(&self.checkpoint.read(source)?),
                        None => data.resize(data.len() + each, 0.0),
                    }
                }
                data
            }
            Origin::Gated { name, gate } => {
                let open = self.checkpoint.read(gate)?.first().map_or(0.0, |gate| gate.tanh());
                let mut data = self.checkpoint.read(name)?;
                data.iter_mut().for_each(|x| *x *= open);
                data
            }
            Origin::Part { name, index, .. } => {
                let len: usize = shape.iter().product();
                let mut data = self.checkpoint.read(name)?;
                data.truncate((index + 1) * len);
                data.split_off(index * len)
            }
        };
        Ok((data, shape.clone()))
    }

    /// A tensor of `(out, …)` as the matrix `(in, out)`: the order in which a product of few rows reads it without repacking.
    pub(crate) fn transposed(&self, name: &str) -> Result<(Vec<f32>, (usize, usize))> {
        let (origin, shape) = self.find(name)?;
        let (outputs, inputs) = (shape[0], shape[1..].iter().product());
        let data = match origin {
            Origin::Transposed(source) => self.checkpoint.read(source)?,
            _ => transpose(&self.get(name)?.0, outputs, inputs),
        };
        Ok((data, (inputs, outputs)))
    }

    /// Rows of a matrix, without reading the others.
    pub(crate) fn rows(&self, name: &str, rows: &[u32]) -> Result<Vec<f32>> {
        let (origin, shape) = self.find(name)?;
        let width: usize = shape[1..].iter().product();
        if let Some(row) = rows.iter().find(|&&row| row as usize >= shape[0]) {
            return Err(self.checkpoint.bad(format!("{name} has {} rows, but row {row} was asked for", shape[0])));
        }
        let mut data = Vec::with_capacity(rows.len() * width);
        match origin {
            Origin::Same(source) if self.checkpoint.is_in_order(source) => {
                for &row in rows {
                    self.checkpoint.read_range(source, row as usize * width, width, &mut data)?;
                }
            }
            _ => {
                let (all, _) = self.get(name)?;
                data.extend(rows.iter().flat_map(|&row| &all[row as usize * width..][..width]));
            }
        }
        Ok(data)
    }

    /// Feeds what tells this checkpoint from others; see [`Checkpoint::fingerprint`].
    pub(crate) fn fingerprint(&self, hasher: &mut blake3::Hasher) {
        let mut names: Vec<&String> = self.tensors.values().flat_map(|(origin, _)| origin.names()).collect();
        names.sort_unstable();
        names.dedup();
        self.checkpoint.fingerprint(names, hasher);
    }

    /// Feeds what tells these files from later ones of the same names: lengths and times of change.
    pub(crate) fn identify(&self, hasher: &mut blake3::Hasher) {
        self.checkpoint.identify(hasher);
    }

    fn find(&self, name: &str) -> Result<&(Origin, Vec<usize>)> {
        self.tensors
            .get(name)
            .ok_or_else(|| Error::Tensor(format!("the configuration describes no tensor {name}").into()))
    }
}

/// The transpose of a `rows × columns` matrix, in blocks that stay in the cache.
fn transpose(matrix: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    const BLOCK: usize = 32;
    let mut out = vec![0.0; matrix.len()];
    if out.is_empty() {
        return out;
    }
    out.par_chunks_mut(BLOCK * rows).enumerate().for_each(|(block, out)| {
        let first = block * BLOCK;
        let width = out.len() / rows;
        for top in (0..rows).step_by(BLOCK) {
            let bottom = (top + BLOCK).min(rows);
            for c in 0..width {
                for r in top..bottom {
                    out[c * rows + r] = matrix[r * columns + first + c];
                }
            }
        }
    });
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transposing_exchanges_rows_and_columns_of_any_shape() {
        for (rows, columns) in [(1, 1), (1, 7), (7, 1), (32, 32), (33, 65), (3, 100)] {
            let matrix: Vec<f32> = (0..rows * columns).map(|i| i as f32).collect();
            let out = transpose(&matrix, rows, columns);
            for r in 0..rows {
                for c in 0..columns {
                    assert_eq!(out[c * rows + r], matrix[r * columns + c]);
                }
            }
        }
    }
}
