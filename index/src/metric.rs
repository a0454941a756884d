//! What "near" means.
//!
//! Cosine is a rule at the door, not a distance of its own: vectors and queries are normalised once, then cosine is a dot
//! product. So the walk, the kernels and the files know two scores only. Every score grows with nearness; the squared
//! distance is therefore negated.

use crate::error::{Error, Result};
use crate::lanes;

/// What "near" means for the vectors of an index.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Metric {
    /// Cosine of the angle; vectors are normalised when they enter. Scores lie in -1..=1.
    #[default]
    Cosine,
    /// Dot product of the vectors as given.
    Dot,
    /// Squared Euclidean distance, negated so that higher is nearer.
    L2,
}

impl Metric {
    /// Checks a vector at the door and brings it into the form that is stored and searched.
    #[inline(always)]
    pub(crate) fn admit(self, vector: &[f32], dim: usize) -> Result<Vec<f32>> {
        if vector.len() != dim {
            return Err(Error::Dimension { found: vector.len(), expected: dim });
        }
        // The largest magnitude for which `dim` squares still sum to a finite f32, with room for the other side of the product.
        let limit = (f32::MAX / (16.0 * dim as f32)).sqrt();
        let fits = |x: f32| x.abs() <= limit;
        // All are looked at, which takes no branch per number; which one it was is asked only when there is one.
        if !vector.iter().fold(true, |all, &x| all & fits(x))
            && let Some((position, &value)) = vector.iter().enumerate().find(|x| !fits(*x.1))
        {
            return Err(Error::NotFinite { position, value });
        }
        if self != Metric::Cosine {
            return Ok(vector.to_vec());
        }
        let norm = lanes::squares(vector).sqrt();
        if norm == 0.0 {
            return Err(Error::ZeroVector);
        }
        let inverse = 1.0 / norm;
        Ok(vector.iter().map(|&x| (f64::from(x) * inverse) as f32).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cosine_normalises_and_refuses_what_has_no_direction() {
        assert_eq!(Metric::Cosine.admit(&[3.0, 4.0], 2).unwrap(), [0.6, 0.8]);
        assert_eq!(Metric::Dot.admit(&[3.0, 4.0], 2).unwrap(), [3.0, 4.0]);
        assert!(matches!(Metric::Cosine.admit(&[0.0, 0.0], 2), Err(Error::ZeroVector)));
        assert!(matches!(Metric::L2.admit(&[0.0], 2), Err(Error::Dimension { found: 1, expected: 2 })));
        assert!(matches!(Metric::Dot.admit(&[1.0, f32::NAN], 2), Err(Error::NotFinite { position: 1, .. })));
        assert!(matches!(Metric::L2.admit(&[1e30, 0.0], 2), Err(Error::NotFinite { position: 0, .. })));
    }

    #[test]
    fn tiny_vectors_keep_their_direction() {
        assert_eq!(Metric::Cosine.admit(&[3e-38, 4e-38], 2).unwrap(), [0.6, 0.8]);
    }
}
