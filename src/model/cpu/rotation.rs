//! Places as angles: neighbouring numbers of a head are a point that turns with the token's place (Su et al. 2021).

use half::bf16;

/// Cosines and sines for each token.
pub(super) struct Rotation {
    /// Pairs of a head.
    half: usize,
    // (tokens, half), cosine and sine
    angles: Vec<(f32, f32)>,
}

impl Rotation {
    /// From the angles of `half` pairs for each token.
    pub(super) fn new(half: usize, angles: &[f32]) -> Self {
        Self { half, angles: angles.iter().map(|angle| (angle.cos(), angle.sin())).collect() }
    }

    /// Turns heads that stand side by side, of one token.
    pub(super) fn turn(&self, heads: &mut [f32], token: usize) {
        let angles = &self.angles[token * self.half..][..self.half];
        for head in heads.chunks_exact_mut(2 * self.half) {
            for (pair, &(cos, sin)) in head.as_chunks_mut::<2>().0.iter_mut().zip(angles) {
                let [a, b] = *pair;
                *pair = [a * cos - b * sin, a * sin + b * cos];
            }
        }
    }

    /// The same in bf16.
    pub(super) fn turn_pairs(&self, heads: &mut [u16], token: usize) {
        let angles = &self.angles[token * self.half..][..self.half];
        for head in heads.chunks_exact_mut(2 * self.half) {
            for (pair, &(cos, sin)) in head.as_chunks_mut::<2>().0.iter_mut().zip(angles) {
                let [a, b] = pair.map(|x| f32::from_bits(u32::from(x) << 16));
                *pair = [a * cos - b * sin, a * sin + b * cos].map(|x| bf16::from_f32(x).to_bits());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quarter_turn_swaps_the_two_numbers_of_a_pair() {
        let rotation = Rotation::new(2, &[0.0, 0.0, std::f32::consts::FRAC_PI_2, std::f32::consts::PI]);
        let mut heads = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0];
        rotation.turn(&mut heads, 0);
        assert_eq!(heads, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0], "the first token stands still");
        rotation.turn(&mut heads, 1);
        let turned = [-2.0, 1.0, -3.0, -4.0, -6.0, 5.0, -7.0, -8.0];
        assert!(heads.iter().zip(turned).all(|(a, b): (&f32, f32)| (a - b).abs() < 1e-5), "{heads:?}");
        let mut pairs = [1.0, 2.0, 3.0, 4.0].map(|x: f32| bf16::from_f32(x).to_bits());
        rotation.turn_pairs(&mut pairs, 1);
        assert_eq!(pairs.map(|x| bf16::from_bits(x).to_f32().round()), [-2.0, 1.0, -3.0, -4.0]);
    }
}
