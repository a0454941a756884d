//! Matrix product of byte rows with int8 weights: sums are exact integers, so every machine gives the same.
//!
//! A row stands for `scale × (byte - zero)`. Weights are symmetric with a scale per output; the zero point of the rows is
//! taken off afterwards with the sum of the weights, which is known in advance. Panels as in [`Linear`](super::Linear), four
//! inputs to a lane: `[panel][input / 4][2 × lanes][4]`.

use super::aligned::Aligned;
use super::linear::Epilogue;
use super::simd::{Isa, Kernel, Simd};

/// Bytes of rows and results that are worked on at a time.
const BLOCK_BYTES: usize = 256 << 10;

/// What the bytes of a row mean.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Scale<'a> {
    /// One scale for all rows.
    Same(f32),
    /// A scale per row.
    PerRow(&'a [f32]),
}

/// Byte rows `scale × (byte - zero)` that start `stride` bytes apart.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ByteRows<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) stride: usize,
    pub(crate) scale: Scale<'a>,
    pub(crate) zero: f32,
}

/// Where results go.
#[derive(Debug)]
pub(crate) enum Out<'a> {
    /// As they are.
    Floats(&'a mut [f32]),
    /// Divided by the scale, rounded, and clamped to 0..=255: with a scale of 6 / 255 this is ReLU6.
    Bytes(&'a mut [u8], f32),
}

/// Packed int8 weights of one linear layer, or of one 1 × 1 convolution.
pub(crate) struct ByteLinear {
    isa: Isa,
    inputs: usize,
    outputs: usize,
    // (panel, input / 4, 2 × lanes, 4)
    weights: Aligned<i8>,
    // (panel, 2 × lanes) each
    scales: Aligned<f32>,
    /// Scale times the sum of the weights.
    sums: Aligned<f32>,
    bias: Aligned<f32>,
}

impl ByteLinear {
    /// Packs `outputs × inputs` weights in two's complement with a scale per output. `bias` is empty or has `outputs` numbers.
    ///
    /// # Panics
    /// If the lengths do not fit or `inputs` is no multiple of 4.
    pub(crate) fn new(isa: Isa, inputs: usize, weights: &[u8], scales: &[f32], bias: &[f32]) -> Self {
        let outputs = scales.len();
        assert!(inputs.is_multiple_of(4) && weights.len() == inputs * outputs, "weights of {outputs} × {inputs}");
        assert!(bias.is_empty() || bias.len() == outputs, "{outputs} biases");
        let wide = 2 * isa.lanes();
        let panels = outputs.div_ceil(wide);
        let mut packed = Aligned::<i8>::zeroed(panels * inputs * wide);
        let [mut scale, mut sums, mut padded] = [(); 3].map(|()| Aligned::<f32>::zeroed(panels * wide));
        for (panel, rows) in packed.chunks_exact_mut(inputs * wide).zip(weights.chunks(inputs * wide)) {
            for (j, row) in rows.chunks_exact(inputs).enumerate() {
                for (quad, from) in row.chunks_exact(4).enumerate() {
                    let to = &mut panel[(quad * wide + j) * 4..][..4];
                    to.iter_mut().zip(from).for_each(|(to, &from)| *to = from as i8);
                }
            }
        }
        scale[..outputs].copy_from_slice(scales);
        padded[..bias.len()].copy_from_slice(bias);
        for ((sum, row), scale) in sums.iter_mut().zip(weights.chunks_exact(inputs)).zip(scales) {
            *sum = scale * row.iter().map(|&w| i32::from(w as i8)).sum::<i32>() as f32;
        }
        Self { isa, inputs, outputs, weights: packed, scales: scale, sums, bias: padded }
    }

    /// The instructions that the weights are packed for.
    pub(crate) fn isa(&self) -> Isa {
        self.isa
    }

    /// Numbers per row.
    pub(crate) fn inputs(&self) -> usize {
        self.inputs
    }

    /// Numbers per result.
    pub(crate) fn outputs(&self) -> usize {
        self.outputs
    }

    /// Multiplies `count` rows; results start `out_stride` numbers apart.
    ///
    /// # Panics
    /// If a row or a result would lie outside its slice, or byte results are no whole vectors.
    pub(crate) fn apply(&self, count: usize, rows: ByteRows<'_>, out: Out<'_>, out_stride: usize, epilogue: Epilogue) {
        if count == 0 {
            return;
        }
        let len = match &out {
            Out::Floats(out) => out.len(),
            Out::Bytes(out, _) => out.len(),
        };
        assert!((count - 1) * rows.stride + self.inputs <= rows.bytes.len(), "{count} rows of {}", self.inputs);
        assert!((count - 1) * out_stride + self.outputs <= len, "{count} results of {}", self.outputs);
        assert!(count == 1 || out_stride >= self.outputs, "results may not overlap");
        let (scale, scale_step) = match &rows.scale {
            Scale::Same(scale) => (std::ptr::from_ref(scale), 0),
            Scale::PerRow(scales) => {
                assert!(scales.len() >= count, "{count} scales");
                (scales.as_ptr(), 1)
            }
        };
        let (floats, bytes, inverse) = match out {
            Out::Floats(out) => (out.as_mut_ptr(), std::ptr::null_mut(), 0.0),
            Out::Bytes(out, scale) => {
                assert!(self.outputs.is_multiple_of(self.isa.lanes()), "byte results come in whole vectors");
                (std::ptr::null_mut(), out.as_mut_ptr(), 1.0 / scale)
            }
        };
        let (wide, most) = (2 * self.isa.lanes(), self.isa.rows());
        let number = if bytes.is_null() { 4 } else { 1 };
        let block = (BLOCK_BYTES / (self.inputs + number * self.outputs)).next_multiple_of(most);
        for start in (0..count).step_by(block) {
            let rows_here = block.min(count - start);
            let tiles = rows_here.div_ceil(most);
            for column in (0..self.outputs).step_by(wide) {
                let mut row = start;
                for t in 0..tiles {
                    let height = rows_here / tiles + usize::from(t < rows_here % tiles);
                    // SAFETY: rows and results lie inside their slices by the assertions above; weights, scales, sums and
                    // biases are padded to whole panels; the unused one of `floats` and `bytes` stays null, and a wrapping
                    // offset does not touch memory.
                    unsafe {
                        let tile = Tile {
                            rows: rows.bytes.as_ptr().add(row * rows.stride),
                            stride: rows.stride,
                            scale: scale.add(row * scale_step),
                            scale_step,
                            zero: rows.zero,
                            weights: self.weights.as_ptr().add(column * self.inputs),
                            inputs: self.inputs,
                            scales: self.scales.as_ptr().add(column),
                            sums: self.sums.as_ptr().add(column),
                            bias: self.bias.as_ptr().add(column),
                            floats: if bytes.is_null() { floats.add(row * out_stride + column) } else { floats },
                            bytes: if bytes.is_null() { bytes } else { bytes.add(row * out_stride + column) },
                            inverse,
                            out_stride,
                            columns: wide.min(self.outputs - column),
                            epilogue,
                        };
                        tile.run_height(self.isa, height);
                    }
                    row += height;
                }
            }
        }
    }
}

/// One register tile: up to [`Simd::ROWS`] rows against one panel.
#[derive(Clone, Copy)]
struct Tile {
    rows: *const u8,
    stride: usize,
    scale: *const f32,
    scale_step: usize,
    zero: f32,
    weights: *const i8,
    inputs: usize,
    scales: *const f32,
    sums: *const f32,
    bias: *const f32,
    /// Null if results are bytes.
    floats: *mut f32,
    /// Null if results are floats.
    bytes: *mut u8,
    inverse: f32,
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
            let mut sums = [[S::zero(); WIDE]; ROWS];
            let (mut w, mut a) = (t.weights, t.rows);
            for _ in 0..t.inputs / 4 {
                let mut column = [S::zero(); WIDE];
                for (j, c) in column.iter_mut().enumerate() {
                    *c = S::load_quads(w.add(4 * j * S::LANES));
                }
                for (i, row) in sums.iter_mut().enumerate() {
                    let x = S::splat_bytes(a.add(i * t.stride));
                    for (s, &c) in row.iter_mut().zip(&column) {
                        *s = S::dot(x, c, *s);
                    }
                }
                w = w.add(8 * S::LANES);
                a = a.add(4);
            }
            // Moved out at once: otherwise the compiler keeps the sums in memory throughout the loop.
            let mut moved = std::mem::MaybeUninit::<[[S::I; WIDE]; ROWS]>::uninit();
            moved.as_mut_ptr().write(sums);
            let moved = moved.assume_init_ref();
            for j in 0..WIDE {
                let at = j * S::LANES;
                let (scales, bias) = (S::load(t.scales.add(at)), S::load(t.bias.add(at)));
                let shift = S::mul(S::load(t.sums.add(at)), S::splat(-t.zero));
                let columns = t.columns.saturating_sub(at).min(S::LANES);
                if columns == 0 {
                    continue;
                }
                for (i, row) in moved.iter().enumerate() {
                    let scale = S::splat(*t.scale.add(i * t.scale_step));
                    let x = S::fma(S::fma(S::to_float(row[j]), scales, shift), scale, bias);
                    let offset = i * t.out_stride + at;
                    if t.floats.is_null() {
                        S::store_bytes(t.bytes.add(offset), S::mul(x, S::splat(t.inverse)));
                    } else {
                        let (x, out) = (t.epilogue.activation.apply::<S>(x), t.floats.add(offset));
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
}

/// Quantises rows of `width` numbers, each by its own largest magnitude: byte 128 is zero. Scales go to `scales`.
///
/// # Panics
/// If the lengths do not fit or `width` is no multiple of 8.
pub(crate) fn quantise(isa: Isa, rows: &[f32], width: usize, bytes: &mut [u8], scales: &mut [f32]) {
    assert!(width.is_multiple_of(8), "rows of {width}");
    assert!(rows.len() == bytes.len() && rows.len() == width * scales.len(), "as many bytes as numbers");
    // SAFETY: the lengths were compared.
    unsafe { isa.run(Quantise { rows, width, bytes, scales }) }
}

struct Quantise<'a> {
    rows: &'a [f32],
    width: usize,
    bytes: &'a mut [u8],
    scales: &'a mut [f32],
}

impl Kernel for Quantise<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        for (row, scale) in self.scales.iter_mut().enumerate() {
            // SAFETY: row < scales.len(), and all rows have `width` numbers.
            unsafe {
                let (from, to) =
                    (self.rows.as_ptr().add(row * self.width), self.bytes.as_mut_ptr().add(row * self.width));
                let mut largest = S::splat(1e-12);
                for i in (0..self.width).step_by(S::LANES) {
                    let x = S::load_first(from.add(i), S::LANES.min(self.width - i));
                    largest = S::max(largest, S::max(x, S::sub(S::splat(0.0), x)));
                }
                let largest = S::largest(largest);
                *scale = largest / 127.0;
                let inverse = 127.0 / largest;
                if self.width < S::LANES {
                    for i in 0..self.width {
                        *to.add(i) = (*from.add(i) * inverse + 128.0).round_ties_even() as u8;
                    }
                    continue;
                }
                for i in (0..self.width).step_by(S::LANES) {
                    // The last vector overlaps the one before.
                    let i = i.min(self.width - S::LANES);
                    S::store_bytes(to.add(i), S::fma(S::load(from.add(i)), S::splat(inverse), S::splat(128.0)));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::linear::Activation;
    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn equals_the_plain_product(
            count in 1usize..30, quads in 1usize..20, outputs in 1usize..6, uneven in 0usize..16, add: bool, relu6: bool,
            bytes in prop::collection::vec(any::<u8>(), 64), per_row: bool,
        ) {
            let (inputs, outputs) = (4 * quads, 16 * outputs - uneven);
            let noise = |n: usize, salt: usize| -> Vec<u8> {
                (0..n).map(|i| bytes[(i * 7 + i / 64 + salt) % 64].wrapping_mul((i / 5 + salt) as u8 | 1)).collect()
            };
            // The extremes of both types, next to each other, where byte instructions saturate.
            let mut weights = noise(inputs * outputs, 3);
            let mut rows = noise(count * inputs, 5);
            weights[..4].fill(127);
            rows[..4].fill(255);
            let scales: Vec<f32> = (0..outputs).map(|j| 0.001 * (1 + j % 7) as f32).collect();
            let bias: Vec<f32> = (0..outputs).map(|j| j as f32 * 0.1 - 2.0).collect();
            let row_scales: Vec<f32> = (0..count).map(|i| 0.01 * (1 + i % 3) as f32).collect();
            let activation = if relu6 { Activation::Relu6 } else { Activation::None };
            let zero = 128.0;
            let scale = if per_row { Scale::PerRow(&row_scales) } else { Scale::Same(0.02) };
            for isa in Isa::available() {
                let linear = ByteLinear::new(isa, inputs, &weights, &scales, &bias);
                let from = ByteRows { bytes: &rows, stride: inputs, scale, zero };
                let mut out = vec![1.5; count * outputs];
                linear.apply(count, from, Out::Floats(&mut out), outputs, Epilogue { activation, add });
                let mut small = vec![0; count * outputs];
                let whole = outputs.is_multiple_of(16);
                if whole {
                    linear.apply(count, from, Out::Bytes(&mut small, 6.0 / 255.0), outputs, Epilogue::STORE);
                }
                for i in 0..count {
                    for j in 0..outputs {
                        let dot: i32 = (0..inputs)
                            .map(|k| (i32::from(rows[i * inputs + k]) - 128) * i32::from(weights[j * inputs + k] as i8))
                            .sum();
                        let row_scale = if per_row { row_scales[i] } else { 0.02 };
                        let exact = f64::from(dot) * f64::from(scales[j]) * f64::from(row_scale) + f64::from(bias[j]);
                        let want = if relu6 { exact.clamp(0.0, 6.0) } else { exact } + if add { 1.5 } else { 0.0 };
                        let got = f64::from(out[i * outputs + j]);
                        prop_assert!((got - want).abs() < 1e-3 + 1e-5 * want.abs(), "{}: {got} is not {want}", isa.name());
                        if whole {
                            let want = (exact * 42.5).clamp(0.0, 255.0);
                            prop_assert!((f64::from(small[i * outputs + j]) - want).abs() < 0.51 + 1e-2, "{}", isa.name());
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn rows_come_back_from_bytes_within_half_a_step() {
        for isa in Isa::available() {
            for width in [8, 16, 24, 104] {
                let rows: Vec<f32> = (0..3 * width).map(|i| ((i * 31) % 17) as f32 * 0.37 - 3.0).collect();
                let (mut bytes, mut scales) = (vec![0; rows.len()], vec![0.0; 3]);
                quantise(isa, &rows, width, &mut bytes, &mut scales);
                for (i, &x) in rows.iter().enumerate() {
                    let back = scales[i / width] * (f32::from(bytes[i]) - 128.0);
                    assert!((x - back).abs() <= scales[i / width] * 0.501, "{} {x} {back}", isa.name());
                }
            }
        }
    }
}
