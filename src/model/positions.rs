//! Learned positions of one grid, resampled for another.
//!
//! As PyTorch does it for towers that were trained on pictures of any shape: a triangle filter that widens where the grid
//! shrinks, over rows and columns in turn. Positions of towers with one grid are never resampled: their checkpoints have the
//! grid that they were trained with.

use candle_core::{Result as TensorResult, Tensor};

/// Positions of a grid of `to` from those of `from`: `(rows · columns, width)` each.
pub(super) fn stretched(position: &Tensor, from: (usize, usize), to: (usize, usize)) -> TensorResult<Tensor> {
    if from == to {
        return Ok(position.clone());
    }
    let width = position.dim(1)?;
    let rows = weights(from.0, to.0, position)?;
    let columns = weights(from.1, to.1, position)?;
    let x = rows.matmul(&position.reshape((from.0, from.1 * width))?)?; // (to rows, from columns · width)
    let x = x.reshape((to.0, from.1, width))?;
    let columns = columns.broadcast_left(to.0)?; // (to rows, to columns, from columns)
    columns.contiguous()?.matmul(&x)?.reshape((to.0 * to.1, width))
}

/// How much of each of `from` places goes into each of `to`, `(to, from)`: rows add up to one.
fn weights(from: usize, to: usize, like: &Tensor) -> TensorResult<Tensor> {
    Tensor::from_vec(shares(from, to), (to, from), like.device())
}

fn shares(from: usize, to: usize) -> Vec<f32> {
    let scale = from as f32 / to as f32;
    let reach = scale.max(1.0);
    let mut shares = Vec::with_capacity(from * to);
    for i in 0..to {
        let centre = scale * (i as f32 + 0.5);
        let first = ((centre - reach + 0.5) as usize).min(from);
        let last = ((centre + reach + 0.5) as usize).min(from);
        let share = |j: usize| {
            let far = ((j as f32 - centre + 0.5) / reach).abs();
            if (first..last).contains(&j) { (1.0 - far).max(0.0) } else { 0.0 }
        };
        let sum: f32 = (0..from).map(share).sum();
        shares.extend((0..from).map(|j| share(j) / sum));
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_those_of_pytorch() {
        // torch.nn.functional.interpolate(torch.eye(…), mode="bilinear", antialias=True), along one axis.
        let near = |found: Vec<f32>, expected: &[f32]| {
            assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{found:?}");
        };
        near(shares(2, 3), &[1.0, 0.0, 0.5, 0.5, 0.0, 1.0]);
        near(shares(3, 2), &[0.625, 0.375, 0.0, 0.0, 0.375, 0.625]);
        near(shares(4, 1), &[0.208_333_3, 0.291_666_7, 0.291_666_7, 0.208_333_3]);
    }
}
