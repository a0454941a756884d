//! Depthwise 3 × 3 convolution in channels-last layout, with bias and ReLU6; in f32 and in bytes.
//!
//! Works row by row: three input rows in, one output row out. So the caller can keep just the rows in flight, in the cache,
//! between the 1 × 1 convolutions on either side. Within a row the kernel takes a few channels at a time and slides over the
//! pixels, so that weights stay in registers and each input is read once per row.
//!
//! With stride 1 the input is padded by one pixel on each side; with stride 2 (even sizes) by one at the right and the bottom
//! only, which is TensorFlow's "SAME".

use super::aligned::Aligned;
use super::simd::{Isa, Kernel, Simd, quad_channel};

/// Three input rows; where a row lies outside the picture its step is 0 and it points to zeros.
#[derive(Clone, Copy)]
struct Rows<T> {
    rows: [(*const T, usize); 3],
    width: usize,
    stride: usize,
}

impl<T> Rows<T> {
    fn new(rows: [Option<&[T]>; 3], zeros: &[T], width: usize, pixel: usize, stride: usize) -> Self {
        let rows = rows.map(|row| match row {
            Some(row) => {
                assert_eq!(row.len(), width * pixel, "a row of {width} pixels");
                (row.as_ptr(), pixel)
            }
            None => {
                assert!(zeros.len() >= pixel, "a pixel of zeros");
                (zeros.as_ptr(), 0)
            }
        });
        Self { rows, width, stride }
    }

    /// # Safety
    /// `x < width`, and channel `c` lies in a pixel.
    #[inline(always)]
    unsafe fn at(&self, x: usize, c: usize) -> [*const T; 3] {
        let [a, b, d] = self.rows;
        // SAFETY: passed on from the caller.
        unsafe { [a.0.add(x * a.1 + c), b.0.add(x * b.1 + c), d.0.add(x * d.1 + c)] }
    }
}

/// Weights of one layer in f32.
pub(crate) struct Depthwise {
    isa: Isa,
    channels: usize,
    stride: usize,
    // (3 × 3 taps, channels)
    weights: Aligned<f32>,
    bias: Aligned<f32>,
    zeros: Aligned<f32>,
}

impl Depthwise {
    /// Takes `channels × 3 × 3` weights as checkpoints store them.
    ///
    /// # Panics
    /// If the lengths do not fit or `channels` is no multiple of 16.
    pub(crate) fn new(isa: Isa, stride: usize, weights: &[f32], bias: &[f32]) -> Self {
        let channels = bias.len();
        assert!(channels.is_multiple_of(16) && weights.len() == 9 * channels, "weights of {channels} × 3 × 3");
        let mut packed = Aligned::<f32>::zeroed(9 * channels);
        for (c, taps) in weights.chunks_exact(9).enumerate() {
            for (t, &w) in taps.iter().enumerate() {
                packed[t * channels + c] = w;
            }
        }
        let mut aligned = Aligned::<f32>::zeroed(channels);
        aligned.copy_from_slice(bias);
        Self { isa, channels, stride, weights: packed, bias: aligned, zeros: Aligned::zeroed(channels) }
    }

    /// Numbers of a pixel.
    pub(crate) fn channels(&self) -> usize {
        self.channels
    }

    /// One output row from three input rows of `width × channels`; a row outside the picture is `None`.
    ///
    /// # Panics
    /// If a slice has another length.
    pub(crate) fn row(&self, rows: [Option<&[f32]>; 3], width: usize, out: &mut [f32]) {
        assert_eq!(out.len(), width / self.stride * self.channels, "a row of {} pixels", width / self.stride);
        let rows = Rows::new(rows, &self.zeros, width, self.channels, self.stride);
        // SAFETY: rows and result have the checked lengths; weights and bias were made for `channels`.
        unsafe { self.isa.run(FloatRow { rows, weights: &self.weights, bias: &self.bias, out }) };
    }
}

struct FloatRow<'a> {
    rows: Rows<f32>,
    weights: &'a [f32],
    bias: &'a [f32],
    out: &'a mut [f32],
}

#[inline(always)]
unsafe fn column<S: Simd>(rows: &Rows<f32>, x: usize, c: usize) -> [S::F; 3] {
    // SAFETY: the caller vouches for x and c.
    unsafe {
        let [a, b, d] = rows.at(x, c);
        [S::load(a), S::load(b), S::load(d)]
    }
}

impl Kernel for FloatRow<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let (channels, rows) = (self.bias.len(), self.rows);
        let (width, stride) = (rows.width, rows.stride);
        // SAFETY: channels is a multiple of 16, hence of the lanes; x stays below width, and the result has
        // width / stride pixels.
        unsafe {
            for c in (0..channels).step_by(S::LANES) {
                let mut weights = [S::splat(0.0); 9];
                for (t, w) in weights.iter_mut().enumerate() {
                    *w = S::load(self.weights.as_ptr().add(t * channels + c));
                }
                let bias = S::load(self.bias.as_ptr().add(c));
                let outside = [S::splat(0.0); 3];
                let mut left = if stride == 1 { outside } else { column::<S>(&rows, 0, c) };
                let mut middle = if stride == 1 { column::<S>(&rows, 0, c) } else { outside };
                for x in 0..width / stride {
                    if stride == 2 {
                        middle = column::<S>(&rows, 2 * x + 1, c);
                    }
                    let next = x * stride + stride;
                    let right = if next < width { column::<S>(&rows, next, c) } else { outside };
                    let mut sum = bias;
                    for ky in 0..3 {
                        sum = S::fma(left[ky], weights[3 * ky], sum);
                        sum = S::fma(middle[ky], weights[3 * ky + 1], sum);
                        sum = S::fma(right[ky], weights[3 * ky + 2], sum);
                    }
                    let sum = S::min(S::max(sum, S::splat(0.0)), S::splat(6.0));
                    S::store(self.out.as_mut_ptr().add(x * channels + c), sum);
                    (left, middle) = if stride == 1 { (middle, right) } else { (right, middle) };
                }
            }
        }
    }
}

/// Channels that byte pixels are padded to: the bytes of the widest vector.
pub(crate) const BYTE_PIXEL: usize = 64;

/// Weights of one layer in int8. Input and result are bytes that stand for 0..=6, both in steps of 6 / 255.
pub(crate) struct ByteDepthwise {
    isa: Isa,
    stride: usize,
    /// Bytes of a pixel: the channels, padded to [`BYTE_PIXEL`].
    pixel: usize,
    // (4 × lanes channels, 3 columns, 4 vectors, lanes, 3 rows + 1)
    weights: Aligned<i8>,
    // (4 × lanes channels, 4 vectors, lanes) each
    scales: Aligned<f32>,
    bias: Aligned<f32>,
    zeros: Aligned<u8>,
}

impl ByteDepthwise {
    /// Takes `channels × 3 × 3` weights in two's complement with a scale per channel.
    ///
    /// # Panics
    /// If the lengths do not fit.
    pub(crate) fn new(isa: Isa, stride: usize, weights: &[u8], scales: &[f32], bias: &[f32]) -> Self {
        let (channels, lanes) = (bias.len(), isa.lanes());
        assert!(weights.len() == 9 * channels && scales.len() == channels, "weights of {channels} × 3 × 3");
        let pixel = channels.next_multiple_of(BYTE_PIXEL);
        let mut packed = Aligned::<i8>::zeroed(12 * pixel);
        let (mut scale, mut shift) = (Aligned::<f32>::zeroed(pixel), Aligned::<f32>::zeroed(pixel));
        for block in 0..pixel / (4 * lanes) {
            for (vector, lane) in (0..4).flat_map(|v| (0..lanes).map(move |l| (v, l))) {
                let c = block * 4 * lanes + quad_channel(vector, lane);
                if c >= channels {
                    continue;
                }
                for (ky, kx) in (0..3).flat_map(|ky| (0..3).map(move |kx| (ky, kx))) {
                    let at = (((block * 3 + kx) * 4 + vector) * lanes + lane) * 4 + ky;
                    packed[at] = weights[9 * c + 3 * ky + kx] as i8;
                }
                let at = (block * 4 + vector) * lanes + lane;
                (scale[at], shift[at]) = (scales[c], bias[c] * 42.5);
            }
        }
        Self { isa, stride, pixel, weights: packed, scales: scale, bias: shift, zeros: Aligned::zeroed(pixel) }
    }

    /// Bytes of a pixel, padding included; what the padding holds does not matter.
    pub(crate) fn pixel(&self) -> usize {
        self.pixel
    }

    /// One output row from three input rows of `width` pixels; a row outside the picture is `None`.
    ///
    /// # Panics
    /// If a slice has another length.
    pub(crate) fn row(&self, rows: [Option<&[u8]>; 3], width: usize, out: &mut [u8]) {
        assert_eq!(out.len(), width / self.stride * self.pixel, "a row of {} pixels", width / self.stride);
        let rows = Rows::new(rows, &self.zeros, width, self.pixel, self.stride);
        // SAFETY: rows and result have the checked lengths; weights, scales and bias were made for `pixel`.
        unsafe {
            if self.isa.rich().bytes() {
                self.isa.run_rich(ByteRow::<true> { rows, layer: self, out });
            } else {
                self.isa.run(ByteRow::<false> { rows, layer: self, out });
            }
        }
    }
}

/// `RICH` says whether the set has an instruction for sums of products of bytes.
struct ByteRow<'a, const RICH: bool> {
    rows: Rows<u8>,
    layer: &'a ByteDepthwise,
    out: &'a mut [u8],
}

impl<const RICH: bool> ByteRow<'_, RICH> {
    #[inline(always)]
    unsafe fn dot<S: Simd>(unsigned: S::I, signed: S::I, sum: S::I) -> S::I {
        // SAFETY: arithmetic only; the caller vouches for the instruction set.
        unsafe { if RICH { S::dot_rich(unsigned, signed, sum) } else { S::dot(unsigned, signed, sum) } }
    }
}

impl<const RICH: bool> Kernel for ByteRow<'_, RICH> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let (rows, layer) = (self.rows, self.layer);
        let (width, stride, pixel) = (rows.width, rows.stride, layer.pixel);
        // SAFETY: pixels are padded to whole blocks of 4 × lanes bytes; x stays below width, and the result has
        // width / stride pixels.
        unsafe {
            for c in (0..pixel).step_by(4 * S::LANES) {
                let mut weights = [[S::zero(); 4]; 3];
                for (kx, weights) in weights.iter_mut().enumerate() {
                    for (v, w) in weights.iter_mut().enumerate() {
                        *w = S::load_quads(layer.weights.as_ptr().add(12 * c + (kx * 4 + v) * 4 * S::LANES));
                    }
                }
                let outside = [S::zero(); 4];
                let mut left = if stride == 1 { outside } else { S::interleave(rows.at(0, c)) };
                let mut middle = if stride == 1 { S::interleave(rows.at(0, c)) } else { outside };
                for x in 0..width / stride {
                    if stride == 2 {
                        middle = S::interleave(rows.at(2 * x + 1, c));
                    }
                    let next = x * stride + stride;
                    let right = if next < width { S::interleave(rows.at(next, c)) } else { outside };
                    let mut bytes = [S::splat(0.0); 4];
                    for (v, byte) in bytes.iter_mut().enumerate() {
                        let sum = Self::dot::<S>(left[v], weights[0][v], S::zero());
                        let sum = Self::dot::<S>(middle[v], weights[1][v], sum);
                        let sum = Self::dot::<S>(right[v], weights[2][v], sum);
                        let at = c + v * S::LANES;
                        let (scale, bias) = (layer.scales.as_ptr().add(at), layer.bias.as_ptr().add(at));
                        *byte = S::fma(S::to_float(sum), S::load(scale), S::load(bias));
                    }
                    S::store_interleaved(self.out.as_mut_ptr().add(x * pixel + c), bytes);
                    (left, middle) = if stride == 1 { (middle, right) } else { (right, middle) };
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a layer should give at one place, from the definition.
    fn plain(rows: &[Option<Vec<f32>>; 3], weights: &[f32], x: usize, c: usize, channels: usize, stride: usize) -> f32 {
        let mut sum = 0.0;
        for (ky, row) in rows.iter().enumerate() {
            for kx in 0..3 {
                let at = (x * stride + kx).checked_sub(usize::from(stride == 1));
                if let (Some(row), Some(at)) = (row, at) {
                    sum += weights[9 * c + 3 * ky + kx] * row.get(at * channels + c).copied().unwrap_or(0.0);
                }
            }
        }
        sum
    }

    fn noise(n: usize, salt: usize) -> Vec<u8> {
        (0..n).map(|i| ((i * 2_654_435_761 + salt * 97) >> 7) as u8).collect()
    }

    #[test]
    fn rows_equal_the_definition() {
        for (stride, width, channels, missing) in
            [(1, 6, 16, 3), (1, 5, 96, 0), (1, 1, 32, 2), (2, 8, 144, 3), (2, 14, 64, 2), (2, 2, 16, 2)]
        {
            let weights: Vec<f32> = noise(9 * channels, 1).iter().map(|&w| f32::from(w as i8)).collect();
            let bias: Vec<f32> = (0..channels).map(|c| (c % 5) as f32 * 0.2).collect();
            let scales: Vec<f32> = (0..channels).map(|c| 1e-3 * (1 + c % 4) as f32).collect();
            let bytes: [Option<Vec<u8>>; 3] =
                [0, 1, 2].map(|ky| (ky != missing).then(|| noise(width * channels, 10 + ky)));
            let floats = bytes.clone().map(|row| row.map(|row| row.iter().map(|&b| f32::from(b)).collect::<Vec<_>>()));
            for isa in Isa::available() {
                let scaled: Vec<f32> = weights.iter().enumerate().map(|(i, w)| w * scales[i / 9] / 42.5).collect();
                let mut out = vec![0.0; width / stride * channels];
                let rows = [0, 1, 2].map(|ky| floats[ky].as_deref());
                Depthwise::new(isa, stride, &scaled, &bias).row(rows, width, &mut out);

                let raw: Vec<u8> = weights.iter().map(|&w| w as i8 as u8).collect();
                let layer = ByteDepthwise::new(isa, stride, &raw, &scales, &bias);
                let padded = bytes.clone().map(|row| {
                    row.map(|row| {
                        let mut padded = vec![77; width * layer.pixel()];
                        for (to, from) in padded.chunks_mut(layer.pixel()).zip(row.chunks(channels)) {
                            to[..channels].copy_from_slice(from);
                        }
                        padded
                    })
                });
                let mut small = vec![0; width / stride * layer.pixel()];
                layer.row([0, 1, 2].map(|ky| padded[ky].as_deref()), width, &mut small);
                for (x, c) in (0..width / stride).flat_map(|x| (0..channels).map(move |c| (x, c))) {
                    let want = plain(&floats, &weights, x, c, channels, stride) * scales[c] / 42.5 + bias[c];
                    let want = want.clamp(0.0, 6.0);
                    let got = out[x * channels + c];
                    assert!((got - want).abs() < 1e-4, "{} at {x}, {c}: {got} is not {want}", isa.name());
                    let got = f32::from(small[x * layer.pixel() + c]) / 42.5;
                    assert!((got - want).abs() < 0.502 / 42.5, "{} at {x}, {c}: byte {got} is not {want}", isa.name());
                }
            }
        }
    }
}
