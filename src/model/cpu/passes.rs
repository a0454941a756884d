//! Pictures over passes, and passes over the threads of rayon.

use rayon::prelude::*;

use crate::Result;

/// One row of `dim` numbers for each picture of `size` bytes. A pass is of at most `most` pictures, about.
///
/// # Errors
/// Those of `run`.
pub(super) fn spread(
    pictures: &[u8],
    size: usize,
    dim: usize,
    most: usize,
    run: impl Fn(&[u8], &mut [f32]) -> Result<()> + Sync,
) -> Result<Vec<f32>> {
    let count = pictures.len() / size;
    let mut out = vec![0.0; count * dim];
    // As many passes for each thread, and pictures spread over them evenly: none ends long before another.
    let passes = count.div_ceil(most).next_multiple_of(rayon::current_num_threads()).min(count);
    if passes <= 1 {
        // No need to wake another thread.
        run(pictures, &mut out)?;
        return Ok(out);
    }
    let mut rest = out.as_mut_slice();
    let mut parts = Vec::with_capacity(passes);
    for pass in 0..passes {
        let (from, to) = (count * pass / passes, count * (pass + 1) / passes);
        let (now, later) = rest.split_at_mut((to - from) * dim);
        parts.push((&pictures[from * size..to * size], now));
        rest = later;
    }
    parts.into_par_iter().try_for_each(|(pictures, out)| run(pictures, out))?;
    Ok(out)
}
