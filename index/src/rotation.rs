//! A fixed rotation that spreads every number of a vector over all of its code.
//!
//! The numbers of an embedding differ in size: the largest of a CLIP vector is 5.6 times as large as the usual one, so that most of
//! the steps of a common scale are never used. Turned so, it is 3.2 times as large at 512 numbers, and a code of the same length
//! leaves out half as much. Lengths and products stay what they are. Random signs and a Walsh–Hadamard transform, as for RaBitQ (Gao &
//! Long 2024): n log n additions.

/// No vector has more numbers.
const MOST: usize = 4096;

/// Sign bits, half of them set: the same in every index.
static SIGNS: [u32; MOST] = signs();

const fn signs() -> [u32; MOST] {
    let mut signs = [0; MOST];
    let (mut state, mut at) = (0x9E37_79B9_7F4A_7C15_u64, 0);
    while at < MOST {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        signs[at] = (state >> 32) as u32 & 1 << 31;
        at += 1;
    }
    signs
}

/// Numbers that lie side by side in the first half of a transform.
const LANES: usize = 16;

/// Rotates `vector`, whose length is a multiple of 64 and at most 4096; `scratch` is scratch. A length that is no power of two is done
/// in two steps that overlap.
#[inline(always)]
pub(crate) fn rotate(vector: &mut [f32], scratch: &mut Vec<f32>) {
    let flip = |(x, sign): (&mut f32, &u32)| *x = f32::from_bits(x.to_bits() ^ sign);
    vector.iter_mut().zip(&SIGNS).for_each(flip);
    let whole = 1 << vector.len().ilog2();
    scratch.resize(whole, 0.0);
    transform(&mut vector[..whole], scratch);
    if whole < vector.len() {
        let rest = vector.len() - whole;
        // Other signs, or what the first step spread would be brought together again where they overlap.
        vector.iter_mut().zip(SIGNS.iter().rev()).for_each(flip);
        transform(&mut vector[rest..], scratch);
    }
}

/// A Walsh–Hadamard transform that keeps lengths, its outputs in an order of their own: what neighbours are added and subtracted in registers
/// elsewhere is brought apart first, so that every loop here runs over neighbours.
#[inline(always)]
fn transform(vector: &mut [f32], scratch: &mut [f32]) {
    let (n, rows) = (vector.len(), vector.len() / LANES);
    halves(vector, LANES);
    for (row, lanes) in vector.chunks_exact(LANES).enumerate() {
        lanes.iter().enumerate().for_each(|(lane, &x)| scratch[lane * rows + row] = x);
    }
    halves(scratch, rows);
    let scale = 1.0 / (n as f32).sqrt();
    vector.iter_mut().zip(&*scratch).for_each(|(to, x)| *to = x * scale);
}

/// Sums and differences of numbers that lie `step`, twice as far, and so on up to half of all apart.
#[inline(always)]
fn halves(numbers: &mut [f32], mut step: usize) {
    while step < numbers.len() {
        for block in numbers.chunks_exact_mut(2 * step) {
            let (a, b) = block.split_at_mut(step);
            a.iter_mut().zip(b).for_each(|(a, b)| (*a, *b) = (*a + *b, *a - *b));
        }
        step *= 2;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::lanes::{dot, largest, length};

    proptest! {
        #[test]
        fn lengths_and_products_stay(
            lines in 1usize..65, values in proptest::collection::vec((-1.0f32..1.0, -1.0f32..1.0), 4096),
        ) {
            let (mut a, mut b): (Vec<f32>, Vec<f32>) = values[..64 * lines].iter().copied().unzip();
            let (product, size) = (dot(&a, &b), length(&a) * length(&b));
            rotate(&mut a, &mut Vec::new());
            rotate(&mut b, &mut Vec::new());
            prop_assert!((dot(&a, &b) - product).abs() <= 1e-5 * size, "{} instead of {product}", dot(&a, &b));
        }
    }

    /// As FORMAT.md has it.
    fn described(x: &[f32]) -> Vec<f32> {
        let m = x.len() / 16;
        let sign = |at: usize, to: usize| {
            let ones = ((at / 16) & (to % m)).count_ones() + ((at % 16) & (to / m)).count_ones();
            if ones.is_multiple_of(2) { 1.0 } else { -1.0 }
        };
        let sum = |to| x.iter().enumerate().map(|(at, x)| sign(at, to) * f64::from(*x)).sum::<f64>();
        (0..x.len()).map(|to| (sum(to) / (x.len() as f64).sqrt()) as f32).collect()
    }

    #[test]
    fn the_rotation_is_the_one_of_the_format() {
        for n in [64_usize, 128, 192, 320, 512] {
            let vector: Vec<f32> = (0..n).map(|at| (at * at % 97) as f32 / 97.0 - 0.5).collect();
            let mut found = vector.clone();
            rotate(&mut found, &mut Vec::new());
            let (mut state, mut signs) = (0x9E37_79B9_7F4A_7C15_u64, Vec::new());
            for _ in 0..4096 {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                signs.push(if state >> 63 == 1 { -1.0 } else { 1.0 });
            }
            let mut expected: Vec<f32> = vector.iter().zip(&signs).map(|(x, sign)| x * sign).collect();
            let whole = n.next_power_of_two() / if n.is_power_of_two() { 1 } else { 2 };
            let front = described(&expected[..whole]);
            expected[..whole].copy_from_slice(&front);
            if whole < n {
                expected.iter_mut().zip(signs.iter().rev()).for_each(|(x, sign)| *x *= sign);
                let back = described(&expected[n - whole..]);
                expected[n - whole..].copy_from_slice(&back);
            }
            for (found, expected) in found.iter().zip(&expected) {
                assert!((found - expected).abs() < 1e-5, "{n}: {found} instead of {expected}");
            }
        }
    }

    #[test]
    fn one_large_number_is_spread_over_all() {
        for lines in 1..=64 {
            for at in [0, 1, 40, 64 * lines - 1] {
                let mut vector = vec![0.0; 64 * lines];
                vector[at] = 1.0;
                rotate(&mut vector, &mut Vec::new());
                // 1/√n would be all alike.
                let most = 5.0 / (64.0 * lines as f32).sqrt();
                assert!(largest(&vector) <= most, "{} of {lines} lines, number {at}", largest(&vector));
                assert!((length(&vector) - 1.0).abs() < 1e-5);
            }
        }
    }
}
