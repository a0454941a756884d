//! What an index is: the plain struct that is given at creation and stored in the manifest.

use crate::error::{Error, Result};
use crate::metric::Metric;

/// How the exact rows are kept on disk. Walks use int8 codes either way; the exact row gives the score that you see.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Rows {
    /// 4 bytes per number, as given.
    #[default]
    F32,
    /// 2 bytes per number: half the disk, scores to about three decimal places. Where neighbours are as near to each other as in a
    /// series of pictures, one or two of a hundred change places with others. Vectors are rounded when they enter, and a search
    /// that is exact is so for what they became. Numbers beyond 65,504 are refused, those below 0.000,000,03 become zero.
    F16,
}

impl Rows {
    /// Bytes per number.
    pub(crate) const fn bytes(self) -> usize {
        match self {
            Rows::F32 => 4,
            Rows::F16 => 2,
        }
    }

    /// Brings a vector into the form in which it will be read back, so that its code is one of what is stored.
    pub(crate) fn round(self, vector: &mut [f32]) -> Result<()> {
        if self == Rows::F16 {
            for (position, x) in vector.iter_mut().enumerate() {
                let rounded = half::f16::from_f32(*x);
                if rounded.is_infinite() {
                    return Err(Error::TooLarge { position, value: *x });
                }
                *x = rounded.to_f32();
            }
        }
        Ok(())
    }
}

/// What an index is. Given once, to [`Index::create`](crate::Index::create); stored with the index ever after.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Numbers per vector, 1 to 4096.
    pub dim: usize,
    /// What "near" means.
    pub metric: Metric,
    /// How exact rows are kept.
    pub rows: Rows,
    /// Links per vector in the graph, 4 to 64; what is left of the last cache line is filled with more. More links: better recall per step, more bytes and a slower build.
    pub links: usize,
    /// Candidates looked at per vector while the graph is built, 8 to 4096. More: better graph, slower build.
    pub build_ef: usize,
}

impl Default for Config {
    fn default() -> Self {
        Config { dim: 512, metric: Metric::Cosine, rows: Rows::F32, links: 32, build_ef: 128 }
    }
}

impl Config {
    /// Checks every field against its range.
    pub(crate) fn check(&self) -> Result<()> {
        let invalid = |field, found: usize, expected| Err(Error::Invalid { field, found: found.to_string(), expected });
        match self {
            c if !(1..=4096).contains(&c.dim) => invalid("dim", c.dim, "1 to 4096"),
            c if !(4..=64).contains(&c.links) => invalid("links", c.links, "4 to 64"),
            c if !(8..=4096).contains(&c.build_ef) => invalid("build_ef", c.build_ef, "8 to 4096"),
            _ => Ok(()),
        }
    }
}
