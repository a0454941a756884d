//! The register tile on data in the first cache: what the machine could do, beside what a tower does.

use super::dense::{Dense, Out, Raw};
use super::finish::Epilogue;
use super::parts::Parts;
use super::rows::{Number, Rows};
use super::simd::Isa;
use super::tile::Format;
use crate::Result;
use crate::model::Precision;

impl Isa {
    /// Multiplies and adds `rounds` times on data in the first cache, and gives the number of operations (a multiplication
    /// and an addition are two). Timing it gives the limit to compare a tower's speed with.
    ///
    /// # Errors
    /// None in practice; the weights are made up.
    pub fn exercise(self, precision: Precision, rounds: usize) -> Result<f64> {
        const WORDS: usize = 224;
        let (number, format) = match precision {
            Precision::Int8 => (Number::Int8, Format::LowBytes),
            Precision::Bf16 => (Number::Bf16, Format::Pairs),
            _ => (Number::F32, Format::Floats),
        };
        let (inputs, outputs, count) = (4 * WORDS / number.size(), 2 * self.lanes(), format.rows(self));
        let raw = || Ok(Raw { weights: vec![0.5; inputs * outputs], bias: Vec::new() });
        let dense = Dense::take(&mut Parts::making(), self, number, (inputs, outputs), raw)?;
        let mut rows = Rows::new(self, number, inputs);
        rows.fill(count, |_, row| row.fill(0.25));
        let mut out = vec![0.0; count * outputs];
        for _ in 0..rounds {
            dense.apply(count, &rows, Out::Floats(&mut out, outputs), Epilogue::STORE);
        }
        Ok((2 * inputs * outputs * count * rounds) as f64)
    }
}
