//! Embeddings that are distributions, as points that a cosine ranks by their score.
//!
//! Such a model gives a mean μ of length one and a variance for each of its numbers, whose sum U says how vague a picture or a
//! text is. The score of a pair is μ·μ′ − U/2 − U′/2. Four more coordinates make an inner product of that: each side carries its
//! own −U/2 where the other carries a one, and a last one of its own, where the other has nothing, brings all vectors to one
//! length. So the cosine is the score divided by [`SQUARED`], and nothing else in the engine has to know of it. An index of
//! inner products would need one coordinate less for each side, and another kind of library.

use candle_core::{Result as TensorResult, Tensor};

/// Coordinates after those of the mean.
pub(super) const EXTRA: usize = 4;

/// The square of the length that vectors have: the score's two parts of one, and room for U up to 1. Published models have
/// pictures of 0.01 and texts of 0.06; what is vaguer than 1 is longer, and its scores a little nearer to zero than they should be.
const SQUARED: f64 = 2.25;

/// Which side of a pair a vector is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Picture,
    Text,
}

/// Means `(batch, dim)`, of any length, and the logarithms of variances `(batch, dim)` to points `(batch, dim + EXTRA)`.
pub(super) fn points(mean: &Tensor, log_variance: &Tensor, side: Side) -> TensorResult<Tensor> {
    let length = mean.sqr()?.sum_keepdim(1)?.sqrt()?.maximum(1e-12)?;
    let mean = mean.broadcast_div(&length)?;
    let own = (log_variance.exp()?.sum_keepdim(1)? * -0.5)?; // (batch, 1)
    let one = own.ones_like()?;
    let rest = own.sqr()?.affine(-1.0, SQUARED - 2.0)?.maximum(0.0)?.sqrt()?;
    let none = own.zeros_like()?;
    match side {
        Side::Picture => Tensor::cat(&[&mean, &own, &one, &rest, &none], 1),
        Side::Text => Tensor::cat(&[&mean, &one, &own, &none, &rest], 1),
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn inner_products_are_scores_and_lengths_are_equal() {
        let tensor = |rows: [[f32; 2]; 2]| Tensor::new(&rows, &Device::Cpu).unwrap();
        let (mean, other) = (tensor([[3.0, 4.0], [0.0, 2.0]]), tensor([[1.0, 0.0], [-5.0, 0.0]]));
        let (variance, others) = ([[0.1_f32, 0.2], [0.05, 0.01]], [[0.3_f32, 0.1], [0.02, 0.02]]);
        let logs = |rows: [[f32; 2]; 2]| tensor(rows).log().unwrap();
        let pictures = points(&mean, &logs(variance), Side::Picture).unwrap();
        let texts = points(&other, &logs(others), Side::Text).unwrap();
        let found = pictures.matmul(&texts.t().unwrap()).unwrap().to_vec2::<f32>().unwrap();
        let score = |cosine: f32, i: usize, t: usize| {
            cosine - (variance[i].iter().sum::<f32>() + others[t].iter().sum::<f32>()) / 2.0
        };
        for (i, t, cosine) in [(0, 0, 0.6), (0, 1, -0.6), (1, 0, 0.0), (1, 1, 0.0)] {
            assert!((found[i][t] - score(cosine, i, t)).abs() < 1e-6, "{i} {t}: {}", found[i][t]);
        }
        for rows in [pictures, texts] {
            for squares in rows.sqr().unwrap().sum(1).unwrap().to_vec1::<f32>().unwrap() {
                assert!((squares - SQUARED as f32).abs() < 1e-6, "{squares}");
            }
        }
    }
}
