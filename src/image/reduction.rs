//! How much of a JPEG need not be decoded.
//!
//! A JPEG can be decoded at a half, a quarter or an eighth of its size, for about half of the time that all of it takes. Each
//! pixel of a reduced picture is the mean of the pixels that it stands for: a box filter, which flattens fine detail a little
//! (the resampler makes up for that) and lets textures that are too fine for the result through as false coarse ones, which
//! the resampler alone would have removed. The more there is left to resample, the less of them survives: see [`SPARE`].
//!
//! Every part of the engine that embeds a photo reduces it by this rule, and all decoders give the same pixels, so a vector
//! depends on the file and on nothing else. The rule is no part of a space's fingerprint: with cosines above 0.9995 between
//! reduced and whole photos, a library may hold vectors made under either, as it may hold photos in different qualities of JPEG.
//!
//! The previews that cameras embed are not used: hardly any is large enough, and not all are true to their picture
//! (`benches/compare/PHOTOS.md` counts them).

/// How many times as many pixels as are wanted, along either axis, a reduced picture must have.
const SPARE: f64 = 2.9;

/// The largest reduction (8, 4, 2 or 1) that leaves enough of a picture that is `ratio` times as large as wanted along the axis
/// where it has least to spare.
pub(crate) fn reduction(ratio: f64) -> u32 {
    [8, 4, 2].into_iter().find(|&reduction| ratio >= f64::from(reduction) * SPARE).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_never_less_than_is_spared() {
        // A phone's 12 megapixels for a picture of 256, a 24th of a gigapixel for 224, and what is too small for either.
        assert_eq!(reduction(3024.0 / 256.0), 4);
        assert_eq!(reduction(6500.0 / 224.0), 8);
        assert_eq!(reduction(5.7), 1);
        assert_eq!(reduction(f64::NAN), 1);
        for ratio in (1..1000).map(|n| f64::from(n) / 10.0) {
            let left = ratio / f64::from(reduction(ratio));
            assert!(left >= SPARE || reduction(ratio) == 1, "{ratio}");
        }
    }
}
