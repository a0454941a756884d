//! Sums and largest values over vectors, in a shape that compilers turn into vector instructions.
//!
//! A sum written as a loop has to add in order, one number per four cycles; sixteen partial sums do not. What comes out is the same
//! on every processor, because the order of the additions is written down here and not chosen by an instruction set.

/// Partial sums.
const LANES: usize = 16;

/// Σ `term(x, y)` over two slices of equal length.
#[inline(always)]
pub(crate) fn sum_of(a: &[f32], b: &[f32], term: impl Fn(f32, f32) -> f32) -> f32 {
    let mut sums = [0f32; LANES];
    let (a, a_tail) = a.as_chunks::<LANES>();
    let (b, b_tail) = b.as_chunks::<LANES>();
    for (a, b) in a.iter().zip(b) {
        for lane in 0..LANES {
            sums[lane] += term(a[lane], b[lane]);
        }
    }
    let tail: f32 = a_tail.iter().zip(b_tail).map(|(&a, &b)| term(a, b)).sum();
    sums.iter().sum::<f32>() + tail
}

/// Σ a·b.
#[inline(always)]
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
    sum_of(a, b, |a, b| a * b)
}

/// √Σ x².
#[inline(always)]
pub(crate) fn length(v: &[f32]) -> f32 {
    dot(v, v).sqrt()
}

/// Σ x², in f64.
#[inline(always)]
pub(crate) fn squares(v: &[f32]) -> f64 {
    let mut sums = [0f64; LANES];
    let (chunks, tail) = v.as_chunks::<LANES>();
    for chunk in chunks {
        for lane in 0..LANES {
            sums[lane] += f64::from(chunk[lane]) * f64::from(chunk[lane]);
        }
    }
    sums.iter().sum::<f64>() + tail.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>()
}

/// The largest magnitude; what is not a number is passed over.
#[inline(always)]
pub(crate) fn largest(v: &[f32]) -> f32 {
    let mut most = [0f32; LANES];
    let (chunks, tail) = v.as_chunks::<LANES>();
    for chunk in chunks {
        for lane in 0..LANES {
            let x = chunk[lane].abs();
            most[lane] = if x > most[lane] { x } else { most[lane] };
        }
    }
    most.iter().copied().chain(tail.iter().map(|x| x.abs())).fold(0.0, f32::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_and_tails_add_up() {
        for n in [0, 1, 15, 16, 17, 512, 515] {
            let v: Vec<f32> = (0..n).map(|i| (i % 7) as f32 - 3.0).collect();
            let expected: f32 = v.iter().map(|x| x * x).sum();
            assert_eq!(dot(&v, &v), expected);
            assert_eq!(squares(&v), f64::from(expected));
            assert_eq!(largest(&v), v.iter().fold(0.0, |m: f32, x| m.max(x.abs())));
        }
    }
}
