//! What happens to the sums of a tile on their way to memory: scales, bias, activation, residual, and the result's format.

use super::simd::{Isa, Kernel, Simd};
use super::tile::Sums;

/// √(2/π), of the tanh form of GELU.
const ROOT_2_OVER_PI: f32 = 0.797_884_6;

/// What follows the product, element by element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Activation {
    /// Nothing.
    None,
    /// `min(max(x, 0), 6)`.
    Relu6,
    /// GELU, `x · Φ(x)`, within 2e-7 of `1 + |x|`.
    Gelu,
    /// GELU in its tanh form.
    GeluTanh,
    /// `x · σ(1.702 x)`.
    QuickGelu,
    /// `x · σ(x)`.
    Silu,
    /// `max(x, 0)`.
    Relu,
}

impl Activation {
    #[inline(always)]
    pub(super) unsafe fn apply<S: Simd>(self, x: S::F) -> S::F {
        // SAFETY: arithmetic only; the caller vouches for the instruction set.
        unsafe {
            let logistic = |x: S::F, minus_y: S::F| S::div(x, S::add(S::exp(minus_y), S::splat(1.0)));
            match self {
                Activation::None => x,
                Activation::Relu6 => S::min(S::max(x, S::splat(0.0)), S::splat(6.0)),
                // x / 2 × (1 + erf(x / √2)), the error function as z · p(z²) / q(z²) on ±3.9, beyond which it is one: a fit of least
                // largest error, 4e-8. Half the instructions of a formula with an exponential.
                Activation::Gelu => {
                    let z = S::mul(x, S::splat(std::f32::consts::FRAC_1_SQRT_2));
                    let z = S::min(S::max(z, S::splat(-3.9)), S::splat(3.9));
                    let square = S::mul(z, z);
                    let mut over = S::splat(2.011_869e-8);
                    for c in [-1.996_93e-6, 1.474_757_3e-4, 3.896_31e-3, 5.114_899_2e-2, 0.204_225_57, 1.128_378_8] {
                        over = S::fma(over, square, S::splat(c));
                    }
                    let mut under = S::splat(1.006_611e-3);
                    for c in [1.473_057_1e-2, 0.116_785_8, 0.514_319_24, 1.0] {
                        under = S::fma(under, square, S::splat(c));
                    }
                    let half = S::mul(x, S::splat(0.5));
                    S::fma(half, S::div(S::mul(z, over), under), half)
                }
                // x / 2 × (1 + tanh u) = x / (1 + e^(-2u)), u = √(2/π) (x + 0.044715 x³)
                Activation::GeluTanh => {
                    let cube = S::fma(S::mul(x, x), S::splat(0.044_715), S::splat(1.0));
                    logistic(x, S::mul(S::mul(x, cube), S::splat(-2.0 * ROOT_2_OVER_PI)))
                }
                Activation::QuickGelu => logistic(x, S::mul(x, S::splat(-1.702))),
                Activation::Silu => logistic(x, S::sub(S::splat(0.0), x)),
                Activation::Relu => S::max(x, S::splat(0.0)),
            }
        }
    }

    /// The same for a result that is rounded to bf16. The exponential and the division of GELU cost as much as a tenth of the product
    /// before it in int8: a polynomial of Φ(x) - 1/2 on ±3.8 is within 6e-5 × max(1, |x|), a thirtieth of what the rounding costs.
    #[inline(always)]
    pub(super) unsafe fn apply_rounded<S: Simd>(self, x: S::F) -> S::F {
        // Fitted to the least largest error of x · Φ(x); odd powers from x¹³ down.
        const ODD: [f32; 7] =
            [3.488_868e-8, -2.184_236_6e-6, 5.896_218e-5, -9.149_592e-4, 0.009_235_444, -0.065_534_934, 0.398_532_42];
        // SAFETY: arithmetic only; the caller vouches for the instruction set.
        unsafe {
            if self != Activation::Gelu {
                return self.apply::<S>(x);
            }
            let near = S::min(S::max(x, S::splat(-3.8)), S::splat(3.8));
            let square = S::mul(near, near);
            let mut poly = S::splat(ODD[0]);
            for c in &ODD[1..] {
                poly = S::fma(poly, square, S::splat(*c));
            }
            S::mul(x, S::fma(near, poly, S::splat(0.5)))
        }
    }
}

/// What happens to a result on its way to memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Epilogue {
    /// Applied after the bias.
    pub(crate) activation: Activation,
    /// Add to what `out` holds (a residual) instead of replacing it.
    pub(crate) add: bool,
    /// Activate the sum with what `out` holds instead of adding what is activated.
    pub(crate) last: bool,
}

impl Epilogue {
    /// Bias alone.
    pub(crate) const STORE: Self = Self { activation: Activation::None, add: false, last: false };
    /// Bias, then add to `out`.
    pub(crate) const ADD: Self = Self { activation: Activation::None, add: true, last: false };

    /// Bias, then `activation`.
    pub(crate) const fn activate(activation: Activation) -> Self {
        Self { activation, add: false, last: false }
    }

    /// Bias, then add to `out`, then `activation`.
    pub(crate) const fn add_activate(activation: Activation) -> Self {
        Self { activation, add: true, last: true }
    }
}

/// Where results go, and as what.
#[derive(Clone, Copy, Debug)]
pub(super) enum Place {
    Floats(*mut f32),
    /// bf16; nothing can be added to them.
    Pairs(*mut u16),
    /// Times the factor, rounded, and clamped to 0..=255; nothing can be added to them.
    Bytes(*mut u8, f32),
}

impl Place {
    /// The place `numbers` further on. It may lie outside, as long as nobody writes there.
    pub(super) fn offset(self, numbers: usize) -> Self {
        match self {
            Place::Floats(p) => Place::Floats(p.wrapping_add(numbers)),
            Place::Pairs(p) => Place::Pairs(p.wrapping_add(numbers)),
            Place::Bytes(p, factor) => Place::Bytes(p.wrapping_add(numbers), factor),
        }
    }
}

/// A number that was taken out of a row of bytes because it would have coarsened all the others.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Outlier {
    pub(crate) at: u32,
    pub(crate) value: f32,
}

/// How integer sums become numbers: `(sum × scales - row_zero × sums) × row_scale`.
#[derive(Clone, Copy)]
pub(super) struct Steps<'a> {
    pub(super) row_scale: *const f32,
    /// 0 if all rows share a scale.
    pub(super) row_scale_step: usize,
    /// The byte that means zero.
    pub(super) row_zero: *const f32,
    /// 0 if all rows share a zero.
    pub(super) row_zero_step: usize,
    /// Per column: its scale, and its scale times the sum of its weights.
    pub(super) scales: *const f32,
    pub(super) sums: *const f32,
    /// Outliers of all rows of the product, where each row's begin, and this tile's first row.
    pub(super) outliers: &'a [Outlier],
    pub(super) first: &'a [u32],
    pub(super) row: usize,
    /// The panel, and the digits behind the point of its weights; null where there are no outliers.
    pub(super) panel: *const u8,
    pub(super) low: *const u8,
}

/// Everything that follows the sums of one tile.
pub(super) struct Finish<'a> {
    pub(super) sums: *const Sums,
    pub(super) height: usize,
    /// Columns that are written.
    pub(super) columns: usize,
    /// Null for none.
    pub(super) bias: *const f32,
    /// `None` if the sums are f32.
    pub(super) steps: Option<Steps<'a>>,
    pub(super) out: Place,
    /// Numbers from row to row.
    pub(super) stride: usize,
    pub(super) epilogue: Epilogue,
}

impl Steps<'_> {
    /// What the outliers of row `i` add to vector `j`, before scaling by the column.
    #[inline(always)]
    unsafe fn outliers<S: Simd>(&self, i: usize, j: usize) -> Option<S::F> {
        let first = *self.first.get(self.row + i)? as usize;
        let end = *self.first.get(self.row + i + 1)? as usize;
        if first == end {
            return None;
        }
        // SAFETY: outliers lie at columns of the row, so their words lie in the panel and its low digits.
        unsafe {
            let mut sum = S::splat(0.0);
            for outlier in &self.outliers[first..end] {
                let at = outlier.at as usize;
                let offset = (at / 4 * 2 + j) * 4 * S::LANES;
                let high = S::signed_byte(S::load_quads(self.panel.add(offset).cast()), at % 4);
                let low = S::signed_byte(S::load_quads(self.low.add(offset).cast()), at % 4);
                let weight = S::fma(S::to_float(low), S::splat(1.0 / 256.0), S::to_float(high));
                sum = S::fma(S::splat(outlier.value), weight, sum);
            }
            Some(sum)
        }
    }
}

impl Kernel for Finish<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        // SAFETY: passed on from the caller.
        unsafe { self.finish::<S>(S::store_pairs) }
    }
}

/// The same where there is an instruction that rounds to bf16.
struct RichFinish<'a>(Finish<'a>);

impl Kernel for RichFinish<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        if S::RICH.pairs() {
            // SAFETY: passed on from the caller.
            unsafe { self.0.finish::<S>(S::store_pairs_rich) }
        }
    }
}

impl Finish<'_> {
    /// Runs on a set of instructions.
    ///
    /// # Safety
    /// As [`Kernel::run`].
    #[inline]
    pub(super) unsafe fn on(self, isa: Isa) {
        // SAFETY: passed on from the caller; the rich one is run where the set is rich.
        unsafe {
            match self.out {
                Place::Pairs(_) if isa.rich().pairs() => isa.run_rich(RichFinish(self)),
                _ => isa.run(self),
            }
        }
    }

    #[inline(always)]
    unsafe fn finish<S: Simd>(self, store_pairs: unsafe fn(*mut u16, S::F)) {
        // SAFETY: the maker vouches for `height` rows of `columns` results, for whole panels of biases, scales and sums, and
        // for outliers inside their rows.
        unsafe {
            for j in 0..2 {
                let at = j * S::LANES;
                let columns = self.columns.saturating_sub(at).min(S::LANES);
                if columns == 0 {
                    break;
                }
                let bias = if self.bias.is_null() { S::splat(0.0) } else { S::load(self.bias.add(at)) };
                let (scales, sums) = match &self.steps {
                    Some(s) => (S::load(s.scales.add(at)), S::load(s.sums.add(at))),
                    None => (bias, bias),
                };
                for i in 0..self.height {
                    let sum = &raw const (*self.sums).0[i][j];
                    let x = match &self.steps {
                        Some(s) => {
                            let scale = S::splat(*s.row_scale.add(i * s.row_scale_step));
                            let shift = S::mul(sums, S::splat(-*s.row_zero.add(i * s.row_zero_step)));
                            let x = S::fma(S::to_float(S::load_quads(sum.cast())), scales, shift);
                            let more = if s.outliers.is_empty() { None } else { s.outliers::<S>(i, j) };
                            let bias = more.map_or(bias, |more| S::fma(more, scales, bias));
                            S::fma(x, scale, bias)
                        }
                        None => S::add(S::load(sum.cast()), bias),
                    };
                    let Epilogue { activation, add, last } = self.epilogue;
                    let last = last && add;
                    let x = match self.out {
                        Place::Pairs(_) => activation.apply_rounded::<S>(x),
                        _ if last => x,
                        _ => activation.apply::<S>(x),
                    };
                    let offset = i * self.stride + at;
                    match self.out {
                        Place::Floats(out) if columns == S::LANES => {
                            let out = out.add(offset);
                            let x = if add { S::add(x, S::load(out)) } else { x };
                            S::store(out, if last { activation.apply::<S>(x) } else { x });
                        }
                        Place::Floats(out) => {
                            let out = out.add(offset);
                            let x = if add { S::add(x, S::load_first(out, columns)) } else { x };
                            S::store_first(out, if last { activation.apply::<S>(x) } else { x }, columns);
                        }
                        Place::Pairs(out) => store_pairs(out.add(offset), x),
                        Place::Bytes(out, factor) => S::store_bytes(out.add(offset), S::mul(x, S::splat(factor))),
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::plain::activated;
    use super::super::simd::Isa;
    use super::*;

    /// An activation, whether its results will be rounded, and what it is applied to.
    struct Apply<'a>(Activation, bool, &'a mut [f32]);

    impl Kernel for Apply<'_> {
        type Output = ();
        #[inline(always)]
        unsafe fn run<S: Simd>(self) {
            for part in self.2.chunks_exact_mut(S::LANES) {
                // SAFETY: whole vectors.
                unsafe {
                    let x = S::load(part.as_ptr());
                    let x = if self.1 { self.0.apply_rounded::<S>(x) } else { self.0.apply::<S>(x) };
                    S::store(part.as_mut_ptr(), x);
                }
            }
        }
    }

    /// bf16, with the instruction for it or without.
    struct Round<'a>(bool, &'a [f32], &'a mut [u16]);

    impl Kernel for Round<'_> {
        type Output = ();
        #[inline(always)]
        unsafe fn run<S: Simd>(self) {
            for (from, to) in self.1.chunks_exact(S::LANES).zip(self.2.chunks_exact_mut(S::LANES)) {
                // SAFETY: whole vectors.
                unsafe {
                    let (to, x) = (to.as_mut_ptr(), S::load(from.as_ptr()));
                    if self.0 && S::RICH.pairs() { S::store_pairs_rich(to, x) } else { S::store_pairs(to, x) }
                }
            }
        }
    }

    proptest! {
        #[test]
        fn every_set_rounds_to_the_nearest_bf16(bits in prop::collection::vec(any::<u32>(), 64), ties in any::<u64>()) {
            // A quarter of them half way between two; what is no number stays none, but any.
            let bits = bits.iter().enumerate().map(|(i, b)| if ties >> i & 3 == 3 { b & 0xffff_0000 | 0x8000 } else { *b });
            let xs: Vec<f32> = bits.map(f32::from_bits).map(|x| if x.is_nan() { 1.0 } else { x }).collect();
            for isa in Isa::available() {
                for rich in [false, true].into_iter().take(1 + usize::from(isa.rich().pairs())) {
                    let mut out = vec![0; xs.len()];
                    let round = Round(rich, &xs, &mut out);
                    // SAFETY: the kernel stays within its slices, and the rich one is run where the set is rich.
                    unsafe { if rich { isa.run_rich(round) } else { isa.run(round) } };
                    for (x, got) in xs.iter().zip(&out) {
                        let want = [*x, x * 0.0].map(|x| half::bf16::from_f32(x).to_bits());
                        // An instruction may take what is below 2^-126 for zero.
                        let right = *got == want[0] || rich && x.is_subnormal() && *got == want[1];
                        prop_assert!(right, "{} {}: {} became {:x}", isa.name(), rich, x, got);
                    }
                }
            }
        }
    }

    #[test]
    fn activations_are_what_their_names_say() {
        let xs: Vec<f32> = (-640..640).map(|i| i as f32 / 64.0).chain([-80.0; 16]).chain([90.0; 16]).collect();
        for isa in Isa::available() {
            use Activation::{Gelu, GeluTanh, QuickGelu, Relu, Relu6, Silu};
            let all = [Gelu, GeluTanh, QuickGelu, Relu6, Silu, Relu]
                .map(|activation| [(activation, false), (activation, true)]);
            for (activation, rounded) in all.into_iter().flatten() {
                let mut out = xs.clone();
                // SAFETY: the kernel stays within its slice.
                unsafe { isa.run(Apply(activation, rounded, &mut out)) };
                let error = if rounded && activation == Gelu { 5e-5 } else { 1e-6 };
                for (&x, &got) in xs.iter().zip(&out) {
                    let x = f64::from(x);
                    let want = activated(x, activation);
                    assert!(
                        (f64::from(got) - want).abs() <= error * (1.0 + x.abs()),
                        "{activation:?} {}: {x} {got} {want}",
                        isa.name()
                    );
                }
            }
        }
    }
}
