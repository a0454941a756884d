//! Antialiased resampling that equals Pillow's bit for bit.
//!
//! Two passes, along the upright picture's x axis first, with bytes between them: the rounding in the middle is part of
//! what models were trained on. Weights are integers with 22 fractional bits, as in Pillow's `Resample.c`; resamplers with
//! 16-bit weights are faster still, and differ by up to 3 levels. The orientation of the camera is folded into the weights,
//! so no turned copy of a large picture is ever made, and only the rows and columns that the crop needs are computed.
//!
//! The inner loops are plain Rust, compiled for the vector units at hand through `pulp`.

#[cfg(target_arch = "x86_64")]
mod rgb_rows;

use std::ops::Range;

use pulp::{Arch, NullaryFnOnce};

#[cfg(target_arch = "x86_64")]
use self::rgb_rows::RgbRows;
use super::Orientation;
use super::preprocess::Interpolation;

/// Fractional bits of a weight: eight bits of the result and two of headroom leave 22 of 32.
const PRECISION_BITS: u32 = 22;
const HALF: i32 = 1 << (PRECISION_BITS - 1);

/// One axis of a resize and the part of its result that is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    /// Pixels of the whole picture before.
    pub(crate) from: usize,
    /// How many of them make a sample in hand: 1, but for reduced pictures. A rest of them makes one more.
    pub(crate) reduction: usize,
    /// Samples after resizing all of it.
    pub(crate) to: usize,
    /// First wanted sample of the result.
    pub(crate) start: usize,
    /// Number of wanted samples.
    pub(crate) len: usize,
}

impl Span {
    /// Samples in hand.
    fn samples(self) -> usize {
        self.from.div_ceil(self.reduction)
    }
}

/// Which input samples make each output sample of one axis, and with what weight.
struct Weights {
    /// First input sample of each output sample.
    starts: Vec<usize>,
    /// Weights per output sample, zeros at the end included.
    taps: usize,
    /// `taps` weights for each output sample.
    values: Vec<f64>,
}

impl Interpolation {
    fn support(self) -> f64 {
        match self {
            Interpolation::Bilinear => 1.0,
            Interpolation::Bicubic => 2.0,
        }
    }

    fn weight(self, x: f64) -> f64 {
        const A: f64 = -0.5;
        let x = x.abs();
        match self {
            Interpolation::Bilinear => (1.0 - x).max(0.0),
            Interpolation::Bicubic if x < 1.0 => ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0,
            Interpolation::Bicubic if x < 2.0 => (((x - 5.0) * x + 8.0) * x - 4.0) * A,
            Interpolation::Bicubic => 0.0,
        }
    }
}

impl Weights {
    /// The weights of `span`. With `flip` the input runs backwards: the same sums over mirrored positions.
    fn new(span: Span, interpolation: Interpolation, flip: bool) -> Weights {
        let samples = span.samples();
        // Of a reduced picture the last sample may lie outside in part; mirrored, it comes first.
        let extent = span.from as f64 / span.reduction as f64;
        let shift = if flip { samples as f64 - extent } else { 0.0 };
        let scale = extent / span.to as f64;
        let filter_scale = scale.max(1.0);
        // A sample of a reduced picture is a mean over its width, which flattens what is left of the picture's detail. A 24th of
        // the second difference taken off gives back the value in its middle (as finite volumes do), and the cosine with it.
        let (step, mean) = (1.0 / filter_scale, if span.reduction > 1 { 1.0 / 24.0 } else { 0.0 });
        let support = interpolation.support() * filter_scale + if span.reduction > 1 { 1.0 } else { 0.0 };
        let weight = |x: f64| {
            let at = interpolation.weight(x);
            if mean == 0.0 {
                return at;
            }
            at - mean * (interpolation.weight(x - step) + interpolation.weight(x + step) - 2.0 * at)
        };
        let taps = (support.ceil() as usize * 2 + 1).min(samples);
        let mut weights = Weights { starts: Vec::with_capacity(span.len), taps, values: vec![0.0; span.len * taps] };
        for (i, values) in (span.start..).zip(weights.values.chunks_exact_mut(taps)) {
            let center = (i as f64 + 0.5) * scale + shift;
            // Float to integer truncates and clips at zero, as the original's casts and comparisons do.
            let first = (center - support + 0.5) as usize;
            let end = ((center + support + 0.5) as usize).min(samples);
            let values = &mut values[..end - first];
            for (k, value) in values.iter_mut().enumerate() {
                *value = weight(((k + first) as f64 - center + 0.5) * step);
            }
            let sum: f64 = values.iter().sum();
            if sum != 0.0 {
                values.iter_mut().for_each(|value| *value /= sum);
            }
            if flip {
                values.reverse();
            }
            weights.starts.push(if flip { samples - end } else { first });
        }
        weights
    }

    /// Weights as integers, each repeated for `channels` interleaved samples, rows padded with zeros to a multiple of
    /// `lanes`. Returns the length of a row too.
    fn fixed(&self, channels: usize, lanes: usize) -> (Vec<i32>, usize) {
        let row_len = (self.taps * channels).next_multiple_of(lanes);
        let mut fixed = vec![0; row_len * self.starts.len()];
        for (values, row) in self.values.chunks_exact(self.taps).zip(fixed.chunks_exact_mut(row_len)) {
            for (value, cells) in values.iter().zip(row.chunks_exact_mut(channels)) {
                let scaled = value * f64::from(1 << PRECISION_BITS);
                cells.fill(if scaled < 0.0 { scaled - 0.5 } else { scaled + 0.5 } as i32);
            }
        }
        (fixed, row_len)
    }

    /// The input samples that any output sample uses.
    fn used(&self, from: usize) -> Range<usize> {
        let first = self.starts.iter().copied().min().unwrap_or(0);
        let end = self.starts.iter().map(|start| start + self.taps).max().unwrap_or(0);
        first..end.min(from)
    }
}

/// Which axis Pillow resizes first: x, unless y loses more than twice as many samples. (Found by experiment with Pillow
/// 13, which gives every result bit for bit; earlier versions always began with x.)
fn is_x_first([x, y]: [Span; 2]) -> bool {
    y.samples() <= y.to + 2 * x.samples().saturating_sub(x.to)
}

/// Resizes interleaved bytes of `C` channels, stored as `width × height`, to the upright picture's wanted part.
///
/// `spans` are the upright picture's x and y axes. Returns `y.len × x.len × C` bytes.
pub(crate) fn resize<const C: usize>(
    data: &[u8],
    (width, height): (usize, usize),
    orientation: Orientation,
    spans: [Span; 2],
    interpolation: Interpolation,
) -> Vec<u8> {
    let [x, y] = spans;
    let (flip_x, flip_y) = orientation.flips();
    let (along_x, along_y) = (Weights::new(x, interpolation, flip_x), Weights::new(y, interpolation, flip_y));
    let is_transposed = orientation.is_transposed();
    let (along_row, along_column) = if is_transposed { (along_y, along_x) } else { (along_x, along_y) };
    let is_row_first = is_x_first(spans) != is_transposed;
    let (columns_out, rows_out) = (along_row.starts.len(), along_column.starts.len());
    let resized = if is_row_first {
        let used = along_column.used(height);
        let narrow = rows::<C>(data, width, used.clone(), &along_row, 0);
        columns(&narrow, columns_out * C, 0..columns_out * C, &along_column, used.start)
    } else {
        let used = along_row.used(width);
        let narrow = columns(&data[..width * height * C], width * C, used.start * C..used.end * C, &along_column, 0);
        rows::<C>(&narrow, used.len(), 0..rows_out, &along_row, used.start)
    };
    if is_transposed { transpose::<C>(&resized, columns_out, rows_out) } else { resized }
}

/// Compiled once for every level of vector units that `pulp` knows, chosen at run time.
fn dispatch(pass: impl NullaryFnOnce<Output = ()>) {
    Arch::new().dispatch(pass);
}

/// Resamples along rows: `C` interleaved channels. Input sample 0 of a row is sample `origin` of the weights.
fn rows<const C: usize>(data: &[u8], width: usize, wanted: Range<usize>, weights: &Weights, origin: usize) -> Vec<u8> {
    #[cfg(target_arch = "x86_64")]
    if let (3, Some(simd)) = (C, pulp::x86::V3::try_new()) {
        let mut out = vec![0; wanted.len() * weights.starts.len() * C];
        let starts: Vec<usize> = weights.starts.iter().map(|start| (start - origin) * C).collect();
        let (fixed, taps) = weights.fixed(1, 1);
        let (data, stride) = (&data[wanted.start * width * C..wanted.end * width * C], width * C);
        simd.vectorize(RgbRows { simd, data, stride, starts: &starts, weights: &fixed, taps, out: &mut out });
        return out;
    }
    rows_portable::<C>(data, width, wanted, weights, origin)
}

fn rows_portable<const C: usize>(
    data: &[u8],
    width: usize,
    wanted: Range<usize>,
    weights: &Weights,
    origin: usize,
) -> Vec<u8> {
    let mut out = vec![0; wanted.len() * weights.starts.len() * C];
    let starts: Vec<usize> = weights.starts.iter().map(|start| (start - origin) * C).collect();
    let (fixed, row_len) = weights.fixed(C, lanes::<C>());
    let data = &data[wanted.start * width * C..wanted.end * width * C];
    dispatch(Rows::<C> { data, width, starts: &starts, weights: &fixed, row_len, out: &mut out });
    out
}

/// Neighbouring samples are summed apart, in as many lanes as fill vectors and belong to one channel each.
const fn lanes<const C: usize>() -> usize {
    if C == 3 { 24 } else { 16 }
}

struct Rows<'a, const C: usize> {
    data: &'a [u8],
    width: usize,
    starts: &'a [usize],
    weights: &'a [i32],
    row_len: usize,
    out: &'a mut [u8],
}

impl<const C: usize> NullaryFnOnce for Rows<'_, C> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let stride = self.width * C;
        // The padding of the last windows reaches over the end of a row: rows are copied to a place with room.
        let mut padded = vec![0; stride + self.row_len];
        for (row, out) in self.data.chunks_exact(stride).zip(self.out.chunks_exact_mut(self.starts.len() * C)) {
            padded[..stride].copy_from_slice(row);
            let windows = self.starts.iter().map(|start| &padded[*start..*start + self.row_len]);
            for ((window, weights), out) in
                windows.zip(self.weights.chunks_exact(self.row_len)).zip(out.chunks_exact_mut(C))
            {
                match C {
                    3 => weigh::<C, 24>(window, weights, out),
                    _ => weigh::<C, 16>(window, weights, out),
                }
            }
        }
    }
}

#[inline(always)]
fn weigh<const C: usize, const L: usize>(window: &[u8], weights: &[i32], out: &mut [u8]) {
    let mut sums = [0_i32; L];
    for (bytes, weights) in window.as_chunks::<L>().0.iter().zip(weights.as_chunks::<L>().0) {
        for i in 0..L {
            sums[i] += i32::from(bytes[i]) * weights[i];
        }
    }
    for (c, out) in out.iter_mut().enumerate() {
        *out = clip(sums.chunks_exact(C).fold(HALF, |sum, lane| sum + lane[c]));
    }
}

/// Resamples down the columns: bytes of `columns` in rows of `stride` bytes. Row 0 is sample `origin` of the weights.
fn columns(data: &[u8], stride: usize, columns: Range<usize>, weights: &Weights, origin: usize) -> Vec<u8> {
    let mut out = vec![0; columns.len() * weights.starts.len()];
    let starts: Vec<usize> = weights.starts.iter().map(|start| start - origin).collect();
    let (fixed, taps) = weights.fixed(1, 1);
    dispatch(Columns { data, stride, columns, starts: &starts, weights: &fixed, taps, out: &mut out });
    out
}

struct Columns<'a> {
    data: &'a [u8],
    stride: usize,
    columns: Range<usize>,
    starts: &'a [usize],
    weights: &'a [i32],
    taps: usize,
    out: &'a mut [u8],
}

impl NullaryFnOnce for Columns<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        // Narrow enough that the rows of a window stay in the cache while neighbouring windows share them.
        const BLOCK: usize = 1024;
        const L: usize = 32;
        let width = self.columns.len();
        let height = self.data.len() / self.stride;
        for block in (0..width).step_by(BLOCK) {
            let block_len = BLOCK.min(width - block);
            for (j, (&start, weights)) in self.starts.iter().zip(self.weights.chunks_exact(self.taps)).enumerate() {
                let weights = &weights[..self.taps.min(height - start)];
                let input = &self.data[start * self.stride + self.columns.start + block..];
                let out = &mut self.out[j * width + block..][..block_len];
                let (chunks, rest) = out.as_chunks_mut::<L>();
                let rest_at = chunks.len() * L;
                for (i, chunk) in chunks.iter_mut().enumerate() {
                    let mut sums = [HALF; L];
                    for (k, &weight) in weights.iter().enumerate() {
                        let Some(bytes) = input[k * self.stride + i * L..].first_chunk::<L>() else { break };
                        for x in 0..L {
                            sums[x] += i32::from(bytes[x]) * weight;
                        }
                    }
                    for x in 0..L {
                        chunk[x] = clip(sums[x]);
                    }
                }
                for (i, out) in rest.iter_mut().enumerate() {
                    let bytes = input[rest_at + i..].iter().step_by(self.stride);
                    *out = clip(bytes.zip(weights).fold(HALF, |sum, (byte, weight)| sum + i32::from(*byte) * weight));
                }
            }
        }
    }
}

#[inline(always)]
fn clip(sum: i32) -> u8 {
    (sum >> PRECISION_BITS).clamp(0, 255) as u8
}

fn transpose<const C: usize>(data: &[u8], width: usize, height: usize) -> Vec<u8> {
    let pixel = |i: usize| &data[((i % height) * width + i / height) * C..][..C];
    (0..width * height).flat_map(pixel).copied().collect()
}

/// A sample of more than eight bits, resampled in double precision.
pub(crate) trait DeepSample: Copy {
    /// To the accumulator.
    fn widen(self) -> f64;
    /// From the accumulator, rounded as Pillow does it for this type.
    fn narrow(sum: f64) -> Self;
}

impl DeepSample for f32 {
    fn widen(self) -> f64 {
        f64::from(self)
    }
    fn narrow(sum: f64) -> f32 {
        sum as f32
    }
}

impl DeepSample for i32 {
    fn widen(self) -> f64 {
        f64::from(self)
    }
    fn narrow(sum: f64) -> i32 {
        (if sum >= 0.0 { sum + 0.5 } else { sum - 0.5 }) as i32
    }
}

impl DeepSample for u16 {
    fn widen(self) -> f64 {
        f64::from(self)
    }
    fn narrow(sum: f64) -> u16 {
        // Both bytes are clipped on their own, which bends overshoots in a way of its own; models saw it so.
        let rounded = i32::narrow(sum);
        let (low, high) = ((rounded % 256).clamp(0, 255), (rounded >> 8).clamp(0, 255));
        (high << 8 | low) as u16
    }
}

/// Resizes an upright picture of one deep channel. Rare pictures: clarity before speed.
pub(crate) fn resize_deep<T: DeepSample>(data: &[T], spans: [Span; 2], interpolation: Interpolation) -> Vec<T> {
    let [x, y] = spans;
    let (along_x, along_y) = (Weights::new(x, interpolation, false), Weights::new(y, interpolation, false));
    if is_x_first(spans) {
        deep_columns(&deep_rows(data, x.samples(), &along_x), x.len, &along_y)
    } else {
        deep_rows(&deep_columns(data, x.samples(), &along_y), x.samples(), &along_x)
    }
}

fn deep_rows<T: DeepSample>(data: &[T], width: usize, weights: &Weights) -> Vec<T> {
    let outputs = || weights.starts.iter().zip(weights.values.chunks_exact(weights.taps));
    let row = |row: &[T]| -> Vec<T> { outputs().map(|(start, values)| deep_sum(&row[*start..], 1, values)).collect() };
    data.chunks_exact(width).flat_map(row).collect()
}

fn deep_columns<T: DeepSample>(data: &[T], width: usize, weights: &Weights) -> Vec<T> {
    let outputs = weights.starts.iter().zip(weights.values.chunks_exact(weights.taps));
    outputs
        .flat_map(|(start, values)| (0..width).map(move |i| deep_sum(&data[start * width + i..], width, values)))
        .collect()
}

/// Zero weights are skipped, so that an infinite sample outside the window cannot spoil the sum.
fn deep_sum<T: DeepSample>(samples: &[T], step: usize, weights: &[f64]) -> T {
    let weighted = samples.iter().step_by(step).zip(weights).filter(|(_, weight)| **weight != 0.0);
    T::narrow(weighted.map(|(sample, weight)| sample.widen() * weight).sum())
}

/// For each wanted output sample the nearest input sample, the way Pillow walks over them.
pub(crate) fn nearest(span: Span) -> Vec<usize> {
    let step = span.from as f64 / span.to as f64;
    let mut position = step * 0.5;
    let mut picked = Vec::with_capacity(span.len);
    for i in 0..span.start + span.len {
        if i >= span.start {
            picked.push((position as usize).min(span.from - 1));
        }
        // Summed up, not multiplied: the rounding errors of the sum decide ties.
        position += step;
    }
    picked
}
