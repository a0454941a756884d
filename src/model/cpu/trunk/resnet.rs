//! The residual network: bottlenecks whose strides are averages, and a query of the mean at the end.

use super::super::conv::{Conv, Photos, raw};
use super::super::finish::{Activation, Epilogue};
use super::super::parts::Parts;
use super::super::pixels::{Pixels, Size, View};
use super::super::simd::{Isa, Kernel, Simd};
use super::look::Look;
use super::{Input, Room};
use crate::Result;
use crate::model::conv;
use crate::model::trunk::resnet;

/// Bias, then ReLU.
const RELU: Epilogue = Epilogue::activate(Activation::Relu);

/// The network.
pub(super) struct ResNet {
    isa: Isa,
    stem: [Conv; 3],
    /// Bottlenecks of the same number of pixels.
    stages: Vec<Vec<Bottleneck>>,
    look: Look,
}

struct Bottleneck {
    halves: bool,
    convs: [Conv; 3],
    shortcut: Option<Conv>,
}

impl ResNet {
    /// Packs the network, or takes it packed.
    pub(super) fn take(
        parts: &mut Parts,
        isa: Isa,
        from: resnet::ResNet,
        (tokens, dim): (usize, usize),
    ) -> Result<Self> {
        let stem = three(parts, isa, &from.stem)?;
        let mut stages = vec![Vec::new()];
        let mut channels = 0;
        for block in from.blocks {
            let halves = block.stride > 1;
            channels = block.convs[2].shape.outputs;
            let convs = three(parts, isa, &block.convs)?;
            let shortcut = block.shortcut.map(|conv| pack(parts, isa, &conv)).transpose()?;
            if halves {
                stages.push(Vec::new());
            }
            let block = Bottleneck { halves, convs, shortcut };
            if let Some(stage) = stages.last_mut() {
                stage.push(block);
            }
        }
        let sizes = (channels, from.heads, dim);
        let look = Look::take(parts, isa, sizes, tokens, [&from.q, &from.k, &from.v, &from.out], &from.position)?;
        Ok(Self { isa, stem, stages, look })
    }

    /// Rows of the network's dimension.
    pub(super) fn forward(&self, photos: Photos<'_>, out: &mut [f32], room: &mut Room) {
        let count = photos.size().pictures;
        let mut pixels = photos.rows * photos.columns / 16;
        for (i, stage) in self.stages.iter().enumerate() {
            room.stage((i == 0).then_some(photos), count, pixels, |input, room| {
                match input {
                    Input::Photos(photos) => self.enter(photos, room),
                    Input::Pixels(view) => {
                        room.x.shape(view.size());
                        room.x.put(0, view);
                    }
                }
                stage.iter().for_each(|block| block.forward(self.isa, room));
            });
            pixels /= 4;
        }
        self.look.apply(room.before.view(), out);
    }

    /// The first three convolutions, and an average.
    fn enter(&self, photos: Photos<'_>, room: &mut Room) {
        let Room { x, y, z, gathered, .. } = room;
        let [first, second, third] = &self.stem;
        first.apply_bytes(photos, y, gathered, RELU);
        second.apply(y.view(), z, gathered, RELU);
        third.apply(z.view(), y, gathered, RELU);
        halve(self.isa, y.view(), x);
    }
}

impl Bottleneck {
    /// From `x` to `x`.
    fn forward(&self, isa: Isa, room: &mut Room) {
        let Room { x, y, z, w, gathered, .. } = room;
        let [first, second, third] = &self.convs;
        first.apply(x.view(), y, gathered, RELU);
        second.apply(y.view(), z, gathered, RELU);
        if self.halves {
            halve(isa, z.view(), y);
            std::mem::swap(y, z);
            halve(isa, x.view(), y);
            std::mem::swap(x, y);
        }
        let last = Epilogue::add_activate(Activation::Relu);
        match &self.shortcut {
            Some(shortcut) => {
                shortcut.apply(x.view(), w, gathered, Epilogue::STORE);
                third.apply(z.view(), w, gathered, last);
                std::mem::swap(x, w);
            }
            None => third.apply(z.view(), x, gathered, last),
        }
    }
}

fn pack(parts: &mut Parts, isa: Isa, from: &conv::Conv) -> Result<Conv> {
    Conv::take(parts, isa, from.shape, || raw(from))
}

fn three(parts: &mut Parts, isa: Isa, [a, b, c]: &[conv::Conv; 3]) -> Result<[Conv; 3]> {
    Ok([pack(parts, isa, a)?, pack(parts, isa, b)?, pack(parts, isa, c)?])
}

/// The averages of squares of four pixels; an odd row or column is left out.
fn halve(isa: Isa, x: View<'_>, out: &mut Pixels) {
    let from = x.size();
    let to = Size { rows: from.rows / 2, columns: from.columns / 2, ..from };
    let stride = to.stride();
    let numbers = x.numbers();
    for (i, out) in out.shape(to).chunks_exact_mut(stride).enumerate() {
        let (picture, row, column) = (i / to.columns / to.rows, i / to.columns % to.rows, i % to.columns);
        let first = ((picture * from.rows + 2 * row) * from.columns + 2 * column) * stride;
        let below = first + from.columns * stride;
        let four = [first, first + stride, below, below + stride].map(|at| &numbers[at..at + stride]);
        // SAFETY: all five have `stride` numbers.
        unsafe { isa.run(Average { four, out }) };
    }
}

/// Pixels of whole lines.
struct Average<'a> {
    four: [&'a [f32]; 4],
    out: &'a mut [f32],
}

impl Kernel for Average<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        for i in (0..self.out.len()).step_by(S::LANES) {
            // SAFETY: all have the same length, whole lines and thus whole vectors.
            unsafe {
                let [a, b, c, d] = self.four.map(|pixel| S::load(pixel.as_ptr().add(i)));
                let sum = S::add(S::add(a, b), S::add(c, d));
                S::store(self.out.as_mut_ptr().add(i), S::mul(sum, S::splat(0.25)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::plain::numbers;
    use super::*;

    #[test]
    fn averages_are_those_of_four_pixels() {
        let size = Size { pictures: 2, rows: 5, columns: 6, channels: 19 };
        let values = numbers(size.pixels() * size.stride(), 3);
        for isa in Isa::available() {
            let (mut x, mut out) = (Pixels::default(), Pixels::default());
            x.shape(size).copy_from_slice(&values);
            halve(isa, x.view(), &mut out);
            assert_eq!(out.size(), Size { rows: 2, columns: 3, ..size });
            for (i, pixel) in out.numbers().chunks(size.stride()).enumerate() {
                let (picture, row, column) = (i / 6, i / 3 % 2, i % 3);
                for c in 0..size.channels {
                    let at = |y: usize, x: usize| {
                        values[((picture * 5 + 2 * row + y) * 6 + 2 * column + x) * size.stride() + c]
                    };
                    let want = (at(0, 0) + at(0, 1) + at(1, 0) + at(1, 1)) / 4.0;
                    assert!((pixel[c] - want).abs() < 1e-6, "{}", isa.name());
                }
            }
        }
    }
}
