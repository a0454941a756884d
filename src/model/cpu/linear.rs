//! Matrix product with constant weights: `out = epilogue(rows × weightsᵀ + bias)`.
//!
//! Weights are stored in panels two vectors wide, `[panel][k][2 × lanes]`, so that the inner loop reads them straight through
//! and broadcasts one number per row. Rows are used where they lie: packing them as general GEMMs do would cost more than it
//! saves at the small row counts of these models.
//!
//! Invariant: the sum over k of one output is taken in one order, whatever the number of rows, so a picture has the same
//! embedding alone and in a batch.

use std::mem::MaybeUninit;

use super::aligned::Aligned;
use super::simd::{Isa, Kernel, Simd};

/// Bytes of rows and results that are worked on at a time, so that they stay in the second-level cache with a panel.
const BLOCK_BYTES: usize = 256 << 10;

/// √(2/π), of the tanh form of GELU.
const ROOT_2_OVER_PI: f32 = 0.797_884_6;

/// What follows the product, element by element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Activation {
    /// Nothing.
    None,
    /// `min(max(x, 0), 6)`.
    Relu6,
    /// GELU in its tanh form.
    GeluTanh,
}

impl Activation {
    #[inline(always)]
    pub(super) unsafe fn apply<S: Simd>(self, x: S::F) -> S::F {
        // SAFETY: arithmetic only; the caller vouches for the instruction set.
        unsafe {
            match self {
                Activation::None => x,
                Activation::Relu6 => S::min(S::max(x, S::splat(0.0)), S::splat(6.0)),
                // x / 2 × (1 + tanh u) = x / (1 + e^(-2u)), u = √(2/π) (x + 0.044715 x³)
                Activation::GeluTanh => {
                    let cube = S::fma(S::mul(x, x), S::splat(0.044_715), S::splat(1.0));
                    let e = S::exp(S::mul(S::mul(x, cube), S::splat(-2.0 * ROOT_2_OVER_PI)));
                    S::div(x, S::add(e, S::splat(1.0)))
                }
            }
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
}

impl Epilogue {
    /// Bias alone.
    pub(crate) const STORE: Self = Self { activation: Activation::None, add: false };
    /// Bias, then add to `out`.
    pub(crate) const ADD: Self = Self { activation: Activation::None, add: true };

    /// Bias, then `activation`.
    pub(crate) const fn activate(activation: Activation) -> Self {
        Self { activation, add: false }
    }
}

/// Packed weights of one linear layer, or of one 1 × 1 convolution.
pub(crate) struct Linear {
    isa: Isa,
    inputs: usize,
    outputs: usize,
    // (panel, input, 2 × lanes)
    weights: Aligned<f32>,
    // (panel, 2 × lanes)
    bias: Aligned<f32>,
}

impl Linear {
    /// Packs `outputs × inputs` weights, row by row as checkpoints store them. `bias` is empty or has `outputs` numbers.
    ///
    /// # Panics
    /// If the lengths do not fit.
    pub(crate) fn new(isa: Isa, inputs: usize, outputs: usize, weights: &[f32], bias: &[f32]) -> Self {
        assert_eq!(weights.len(), inputs * outputs, "weights of {outputs} × {inputs}");
        assert!(bias.is_empty() || bias.len() == outputs, "{outputs} biases");
        let wide = 2 * isa.lanes();
        let panels = outputs.div_ceil(wide);
        let mut packed = Aligned::<f32>::zeroed(panels * inputs * wide);
        for (panel, rows) in packed.chunks_exact_mut(inputs * wide).zip(weights.chunks(inputs * wide)) {
            for (j, row) in rows.chunks_exact(inputs).enumerate() {
                for (k, &x) in row.iter().enumerate() {
                    panel[k * wide + j] = x;
                }
            }
        }
        let mut padded = Aligned::<f32>::zeroed(panels * wide);
        padded[..bias.len()].copy_from_slice(bias);
        Self { isa, inputs, outputs, weights: packed, bias: padded }
    }

    /// Numbers per row.
    pub(crate) fn inputs(&self) -> usize {
        self.inputs
    }

    /// Numbers per result.
    pub(crate) fn outputs(&self) -> usize {
        self.outputs
    }

    /// Multiplies `count` rows that start `stride` numbers apart; results start `out_stride` numbers apart.
    ///
    /// # Panics
    /// If a row or a result would lie outside its slice.
    pub(crate) fn apply(
        &self,
        count: usize,
        (rows, stride): (&[f32], usize),
        (out, out_stride): (&mut [f32], usize),
        epilogue: Epilogue,
    ) {
        if count == 0 {
            return;
        }
        assert!((count - 1) * stride + self.inputs <= rows.len(), "{count} rows of {}", self.inputs);
        assert!((count - 1) * out_stride + self.outputs <= out.len(), "{count} results of {}", self.outputs);
        assert!(count == 1 || out_stride >= self.outputs, "results may not overlap");
        let (wide, most) = (2 * self.isa.lanes(), self.isa.rows());
        let block = (BLOCK_BYTES / (4 * (self.inputs + self.outputs))).next_multiple_of(most);
        for start in (0..count).step_by(block) {
            let rows_here = block.min(count - start);
            // Tiles of almost equal height: a tile of one row would waste the registers.
            let tiles = rows_here.div_ceil(most);
            for column in (0..self.outputs).step_by(wide) {
                let mut row = start;
                for t in 0..tiles {
                    let height = rows_here / tiles + usize::from(t < rows_here % tiles);
                    let tile = Tile {
                        // SAFETY: inside the slices by the assertions above.
                        rows: unsafe { rows.as_ptr().add(row * stride) },
                        stride,
                        // SAFETY: panel `column / wide` of the packed weights.
                        weights: unsafe { self.weights.as_ptr().add(column * self.inputs) },
                        inputs: self.inputs,
                        // SAFETY: biases are padded to whole panels.
                        bias: unsafe { self.bias.as_ptr().add(column) },
                        // SAFETY: inside the slice by the assertions above.
                        out: unsafe { out.as_mut_ptr().add(row * out_stride + column) },
                        out_stride,
                        columns: wide.min(self.outputs - column),
                        epilogue,
                    };
                    // SAFETY: the tile's rows, weights and results lie inside their slices, and height ≤ ROWS.
                    unsafe { tile.run_height(self.isa, height) };
                    row += height;
                }
            }
        }
    }
}

/// One register tile: up to [`Simd::ROWS`] rows against one panel.
#[derive(Clone, Copy)]
struct Tile {
    rows: *const f32,
    stride: usize,
    weights: *const f32,
    inputs: usize,
    bias: *const f32,
    out: *mut f32,
    out_stride: usize,
    columns: usize,
    epilogue: Epilogue,
}

impl Tile {
    /// # Safety
    /// As [`Kernel::run`], for `height` rows.
    unsafe fn run_height(self, isa: Isa, height: usize) {
        macro_rules! pick {
            ($($n:literal)*) => {
                match height {
                    // SAFETY: passed on from the caller.
                    $($n => unsafe {
                        if self.columns <= isa.lanes() { isa.run(Tall::<$n, 1>(self)) } else { isa.run(Tall::<$n, 2>(self)) }
                    },)*
                    _ => unreachable!("tiles are at most 13 rows high"),
                }
            };
        }
        pick!(1 2 3 4 5 6 7 8 9 10 11 12 13)
    }
}

/// A tile of `ROWS` rows and `WIDE` vectors.
struct Tall<const ROWS: usize, const WIDE: usize>(Tile);

impl<const ROWS: usize, const WIDE: usize> Kernel for Tall<ROWS, WIDE> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let t = self.0;
        if ROWS > S::ROWS {
            return;
        }
        // SAFETY: `t` describes valid memory by its maker's promise; offsets stay within the tile.
        unsafe {
            let mut sums = [[S::splat(0.0); WIDE]; ROWS];
            let (mut w, mut a) = (t.weights, t.rows);
            for _ in 0..t.inputs {
                let mut column = [S::splat(0.0); WIDE];
                for (j, c) in column.iter_mut().enumerate() {
                    *c = S::load(w.add(j * S::LANES));
                }
                for (i, row) in sums.iter_mut().enumerate() {
                    let x = S::splat(*a.add(i * t.stride));
                    for (s, &c) in row.iter_mut().zip(&column) {
                        *s = S::fma(x, c, *s);
                    }
                }
                w = w.add(2 * S::LANES);
                a = a.add(1);
            }
            // Moved out at once: otherwise the compiler keeps the sums in memory throughout the loop.
            let mut moved = MaybeUninit::<[[S::F; WIDE]; ROWS]>::uninit();
            moved.as_mut_ptr().write(sums);
            let moved = moved.assume_init_ref();
            for j in 0..WIDE {
                let bias = S::load(t.bias.add(j * S::LANES));
                let columns = t.columns.saturating_sub(j * S::LANES).min(S::LANES);
                for (i, row) in moved.iter().enumerate() {
                    let x = t.epilogue.activation.apply::<S>(S::add(row[j], bias));
                    let out = t.out.add(i * t.out_stride + j * S::LANES);
                    if columns == S::LANES {
                        S::store(out, if t.epilogue.add { S::add(x, S::load(out)) } else { x });
                    } else {
                        let x = if t.epilogue.add { S::add(x, S::load_first(out, columns)) } else { x };
                        S::store_first(out, x, columns);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn numbers(n: usize, seed: u32) -> Vec<f32> {
        let mut state = seed | 1;
        (0..n)
            .map(|_| {
                state = state.wrapping_mul(747_796_405).wrapping_add(2_891_336_453);
                (state >> 8) as f32 / (1 << 23) as f32 - 1.0
            })
            .collect()
    }

    fn plain(x: f64, activation: Activation) -> f64 {
        match activation {
            Activation::None => x,
            Activation::Relu6 => x.clamp(0.0, 6.0),
            Activation::GeluTanh => 0.5 * x * (1.0 + (0.797_884_560_802_865_4 * (x + 0.044_715 * x * x * x)).tanh()),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn equals_the_plain_product(
            count in 1usize..40, inputs in 1usize..70, outputs in 1usize..80, gap in 0usize..5, add: bool, seed: u32,
            activation in prop_oneof![Just(Activation::None), Just(Activation::Relu6), Just(Activation::GeluTanh)],
        ) {
            let (stride, out_stride) = (inputs + gap, outputs + gap);
            let (w, b) = (numbers(inputs * outputs, seed), numbers(outputs, seed ^ 7));
            let (rows, before) = (numbers(count * stride, seed ^ 1), numbers(count * out_stride, seed ^ 2));
            for isa in Isa::available() {
                let mut out = before.clone();
                let linear = Linear::new(isa, inputs, outputs, &w, &b);
                linear.apply(count, (&rows, stride), (&mut out, out_stride), Epilogue { activation, add });
                for i in 0..count {
                    for j in 0..out_stride {
                        let (got, old) = (out[i * out_stride + j], before[i * out_stride + j]);
                        if j >= outputs {
                            prop_assert_eq!(got, old, "{} wrote past its row", isa.name());
                            continue;
                        }
                        let dot: f64 = (0..inputs).map(|k| f64::from(rows[i * stride + k]) * f64::from(w[j * inputs + k])).sum();
                        let want = plain(dot + f64::from(b[j]), activation) + if add { f64::from(old) } else { 0.0 };
                        prop_assert!((f64::from(got) - want).abs() < 2e-5, "{}: {got} is not {want}", isa.name());
                    }
                }
            }
        }
    }

    #[test]
    fn a_row_alone_and_among_others_gives_the_same_bits() {
        let (inputs, outputs) = (48, 40);
        let (w, b, rows) = (numbers(inputs * outputs, 1), numbers(outputs, 2), numbers(29 * inputs, 3));
        for isa in Isa::available() {
            let linear = Linear::new(isa, inputs, outputs, &w, &b);
            let mut all = vec![0.0; 29 * outputs];
            linear.apply(29, (&rows, inputs), (&mut all, outputs), Epilogue::STORE);
            for i in 0..29 {
                let mut one = vec![0.0; outputs];
                linear.apply(1, (&rows[i * inputs..], inputs), (&mut one, outputs), Epilogue::STORE);
                assert_eq!(one, all[i * outputs..(i + 1) * outputs]);
            }
        }
    }
}
