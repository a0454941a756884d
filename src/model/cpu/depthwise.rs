//! Depthwise 3 × 3 convolution in channels-last layout, with bias and ReLU6.
//!
//! Works row by row: three input rows in, one output row out. So the caller can keep just the rows in flight, in the cache,
//! between the 1 × 1 convolutions on either side.

use super::aligned::Aligned;
use super::simd::{Isa, Kernel, Simd};

/// Weights of one layer.
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
    /// With stride 1 the input is padded by one on each side; with stride 2 (even sizes) by one at the right and the bottom
    /// only, which is TensorFlow's "SAME".
    ///
    /// # Panics
    /// If the lengths do not fit or `channels` is no multiple of 16.
    pub(crate) fn new(isa: Isa, channels: usize, stride: usize, weights: &[f32], bias: &[f32]) -> Self {
        assert!(channels.is_multiple_of(16), "{channels} channels");
        assert!(weights.len() == 9 * channels && bias.len() == channels, "weights of {channels} × 3 × 3");
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

    /// One output row from three input rows of `width × channels`; a row outside the picture is `None`.
    ///
    /// # Panics
    /// If a slice has another length.
    pub(crate) fn row(&self, rows: [Option<&[f32]>; 3], width: usize, out: &mut [f32]) {
        let left = usize::from(self.stride == 1);
        assert_eq!(out.len(), width / self.stride * self.channels, "a row of {} pixels", width / self.stride);
        let mut taps: [*const f32; 3] = [std::ptr::null(); 3];
        for (tap, row) in taps.iter_mut().zip(rows) {
            if let Some(row) = row {
                assert_eq!(row.len(), width * self.channels, "a row of {width} pixels");
                *tap = row.as_ptr();
            }
        }
        for (x, out) in out.chunks_exact_mut(self.channels).enumerate() {
            let mut pixels = [self.zeros.as_ptr(); 9];
            for (ky, &row) in taps.iter().enumerate().filter(|(_, row)| !row.is_null()) {
                for kx in 0..3 {
                    let x = x * self.stride + kx;
                    if x >= left && x - left < width {
                        // SAFETY: pixel x - left < width of a row of `width` pixels.
                        pixels[ky * 3 + kx] = unsafe { row.add((x - left) * self.channels) };
                    }
                }
            }
            // SAFETY: nine pixels, weights, bias and the result all have `channels` numbers.
            unsafe { self.isa.run(Pixel { pixels, weights: &self.weights, bias: &self.bias, out }) };
        }
    }
}

struct Pixel<'a> {
    pixels: [*const f32; 9],
    weights: &'a [f32],
    bias: &'a [f32],
    out: &'a mut [f32],
}

impl Kernel for Pixel<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let channels = self.out.len();
        // SAFETY: channels is a multiple of 16, hence of the lanes, and all memory holds `channels` numbers per tap.
        unsafe {
            for c in (0..channels).step_by(S::LANES) {
                let mut sum = S::load(self.bias.as_ptr().add(c));
                for (t, pixel) in self.pixels.iter().enumerate() {
                    sum = S::fma(S::load(pixel.add(c)), S::load(self.weights.as_ptr().add(t * channels + c)), sum);
                }
                S::store(self.out.as_mut_ptr().add(c), S::min(S::max(sum, S::splat(0.0)), S::splat(6.0)));
            }
        }
    }
}
