//! The loops around the register tile: `out = epilogue(rows × weightsᵀ + bias)` for weights in panels.
//!
//! Rows are used where they lie; packing them as general products do would cost more than it saves at the row counts of these
//! models. Rows are taken in blocks that stay in the second-level cache while all panels pass, each panel meets all tiles of
//! a block while it is in the first levels, and the next panel is fetched meanwhile: weights come from far away. Few rows, as of
//! a short text, take less time than their weights take to come: there the processor finds out by itself what is read in order, and
//! asking for it as well cost a third of the speed of memory.
//!
//! Long sums are cut into slices, or rows of 3072 numbers would wander through the caches once per panel.
//!
//! Invariant: the sum over one row is taken in one order, whatever the number of rows, so a picture has the same embedding
//! alone and in a batch.

use super::finish::{Activation, Epilogue, Finish, Place, Steps};
use super::simd::Isa;
use super::tile::{Format, Sums, Tile};

/// Words of a slice: 13 rows of them are half of a second-level cache that is small.
const SLICE: usize = 1024;

/// Bytes of rows that are kept in the second-level cache.
const BLOCK_BYTES: usize = 512 << 10;

/// Rows below which weights are read as fast as they come, and nothing is fetched ahead of them.
const FEW: usize = 18;

/// Packed weights and where they are multiplied.
#[derive(Clone, Copy)]
pub(super) struct Panels {
    pub(super) isa: Isa,
    pub(super) format: Format,
    /// Words per column: `(panel, words, 2 × lanes)` words of four bytes.
    pub(super) words: usize,
    pub(super) outputs: usize,
    pub(super) weights: *const u8,
    /// Padded to whole panels; null for none.
    pub(super) bias: *const f32,
}

/// Rows of words, and where their results go.
#[derive(Clone, Copy)]
pub(super) struct Job<'a> {
    pub(super) count: usize,
    pub(super) rows: *const u8,
    /// Bytes from row to row.
    pub(super) stride: usize,
    pub(super) out: Place,
    /// Numbers from result to result.
    pub(super) out_stride: usize,
    pub(super) epilogue: Epilogue,
    pub(super) steps: Option<Steps<'a>>,
}

/// Bytes of a panel.
fn panel_bytes(isa: Isa, words: usize) -> usize {
    words * 8 * isa.lanes()
}

/// Bytes of the panels of `outputs` columns of `words`.
pub(super) fn packed_bytes(isa: Isa, words: usize, outputs: usize) -> usize {
    outputs.div_ceil(2 * isa.lanes()) * panel_bytes(isa, words)
}

impl Panels {
    /// Multiplies.
    ///
    /// # Safety
    /// `count` rows of `words` words and as many results of `outputs` numbers are valid memory that does not overlap;
    /// weights, bias and steps are padded to whole panels.
    pub(super) unsafe fn multiply(&self, job: Job<'_>) {
        // SAFETY: passed on from the caller.
        unsafe { self.multiply_part(job, self.words) }
    }

    /// The same where columns of the weights are `column` words long and only the first [`Panels::words`] count.
    ///
    /// # Safety
    /// As [`Panels::multiply`].
    pub(super) unsafe fn multiply_part(&self, job: Job<'_>, column: usize) {
        let Epilogue { activation, add, last } = job.epilogue;
        // Slices add to what the ones before left, so what is activated must be the sum of all.
        let sums = activation == Activation::None || last || !add;
        let slices = match job.out {
            Place::Floats(_) if job.steps.is_none() && sums => self.words.div_ceil(SLICE).max(1),
            _ => 1,
        };
        let most = self.format.rows(self.isa);
        let block = (BLOCK_BYTES / (4 * self.words.div_ceil(slices)).max(1)).next_multiple_of(most);
        for slice in 0..slices {
            let (from, to) = (self.words * slice / slices, self.words * (slice + 1) / slices);
            for start in (0..job.count).step_by(block) {
                // SAFETY: the block lies within the job, the slice within its words.
                unsafe { self.block(&job, column, (start, block.min(job.count - start)), (from, to)) };
            }
        }
    }

    /// `count` rows from `start` on, and words `from..to`, against all panels of `column` words.
    unsafe fn block(&self, job: &Job<'_>, column: usize, (start, count): (usize, usize), (from, to): (usize, usize)) {
        let (isa, wide) = (self.isa, 2 * self.isa.lanes());
        // Tiles of almost equal height: a tile of one row would waste the registers.
        let tiles = count.div_ceil(self.format.rows(isa));
        let (word, panel) = (8 * isa.lanes(), panel_bytes(isa, column));
        let ahead_step = if count < FEW && self.format.is_one_step(isa) { 0 } else { word.div_ceil(tiles) };
        let mut sums = Sums::ZERO;
        for column in (0..self.outputs).step_by(wide) {
            // SAFETY: panel `column / wide` of the weights.
            let weights = unsafe { self.weights.add(column / wide * panel + from * word) };
            let mut row = start;
            for t in 0..tiles {
                let height = count / tiles + usize::from(t < count % tiles);
                let columns = wide.min(self.outputs - column);
                let (out, number) = match job.out.offset(row * job.out_stride + column) {
                    Place::Floats(p) => (p.cast_const().cast(), 4),
                    Place::Pairs(p) => (p.cast_const().cast(), 2),
                    Place::Bytes(p, _) => (p.cast_const(), 1),
                };
                let tile = Tile {
                    // SAFETY: row and word lie within the job.
                    rows: unsafe { job.rows.add(row * job.stride + 4 * from) },
                    stride: job.stride,
                    panel: weights,
                    words: to - from,
                    ahead: weights.wrapping_add(ahead_step.min(1) * panel + t * ahead_step * (to - from)),
                    ahead_step,
                    out,
                    out_stride: number * job.out_stride,
                    out_last: number * columns - 1,
                    sums: &raw mut sums,
                };
                let epilogue = match (from > 0, to < self.words) {
                    (false, false) => job.epilogue,
                    (false, true) => Epilogue { add: job.epilogue.add, ..Epilogue::STORE },
                    (true, true) => Epilogue::ADD,
                    (true, false) => Epilogue::add_activate(job.epilogue.activation),
                };
                // SAFETY: the tile is within the job and `height` at most what the set has; biases, scales and sums are
                // padded to whole panels.
                unsafe {
                    tile.run(isa, self.format, height, columns > isa.lanes());
                    let finish = Finish {
                        sums: &raw const sums,
                        height,
                        columns,
                        bias: if self.bias.is_null() || from > 0 { std::ptr::null() } else { self.bias.add(column) },
                        steps: job.steps.map(|s| Steps {
                            row_scale: s.row_scale.add(row * s.row_scale_step),
                            row_zero: s.row_zero.add(row * s.row_zero_step),
                            scales: s.scales.add(column),
                            sums: s.sums.add(column),
                            row,
                            panel: weights,
                            low: s.low.wrapping_add(column / wide * panel),
                            ..s
                        }),
                        out: job.out.offset(row * job.out_stride + column),
                        stride: job.out_stride,
                        epilogue,
                    };
                    finish.on(isa);
                }
                row += height;
            }
        }
    }
}
