//! Packed towers in files, so that the second start maps what the first one packed.
//!
//! ```text
//! offset  size
//!      0     8  `TINTPACK`
//!      8     4  version, little-endian like all numbers
//!     12     4  zero
//!     16    32  key: what the parts were made from, and for which instructions
//!     48     8  bytes of parts
//!     56     8  checksum of the parts
//!     64     8  checksum of the 64 bytes before
//!     72    56  zero
//!    128        parts, each on a line of 64 bytes, in the order in which the tower takes them
//! ```
//!
//! A file is written under another name and renamed, and every byte is checked before it is used: a file that is cut,
//! damaged, older than its weights or from another version is packed anew and replaced. It is a cache: whatever goes wrong
//! with it costs time and nothing else, so errors of reading and writing it are not errors of loading the model. What a
//! process that was killed left half written is removed by a later one.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::mapped::MappedFile;
use super::parts::{LINE, Part, Parts};
use super::rows::Number;
use super::simd::Isa;
use super::source::Source;
use super::text::TextTower;
use super::trunk::TrunkTower;
use super::vision::VisionTower;
use crate::Result;
use crate::image::Preprocess;
use crate::model::Precision;
use crate::model::config::{
    BlocksConfig, Padding, Place, Pool, ReaderConfig, Stem, TextPool, Trunk, TrunkKind, VitConfig,
};
use crate::model::weights::Weights;

const MAGIC: &[u8; 8] = b"TINTPACK";

/// Goes up with every change of what a file holds or how it is made.
const VERSION: u32 = 2;

const HEADER: usize = 128;

/// Nobody takes so long to write a file.
const STALE: Duration = Duration::from_secs(3600);

/// Packs the towers of a model, or finds them packed.
pub(crate) struct Packer {
    pub(crate) isa: Isa,
    pub(crate) precision: Precision,
    pub(crate) weights: Arc<Weights>,
    /// Identifies configuration and weights.
    pub(crate) fingerprint: String,
    /// Where packed towers are kept, if anywhere.
    pub(crate) cache: Option<PathBuf>,
}

/// Whether the packed path knows this image tower; others are evaluated on tensors.
pub(crate) fn supports_image(config: &VitConfig) -> bool {
    let pool = match &config.pool {
        Pool::Token => config.class,
        Pool::Average => true,
        Pool::Attention(pool) => {
            pool.width.is_multiple_of(8)
                && pool.width.is_multiple_of(pool.heads)
                && pool.width / pool.heads <= super::attention::WIDEST
        }
    };
    let head = config.blocks.width / config.blocks.heads.max(1);
    let rotation = config.rotation.is_none() || head.is_multiple_of(4);
    // A grid for each picture has no place for other tokens and nothing to turn by.
    let stem = !matches!(config.stem, Stem::Loose { .. }) || (config.prefix() == 0 && config.rotation.is_none());
    // The token that becomes the spread is the one behind that of the class.
    let spread = !config.spread || (config.class && config.pool == Pool::Token);
    supports(&config.blocks) && pool && rotation && stem && spread
}

/// Whether the packed path knows this trunk of convolutions.
pub(crate) fn supports_trunk(config: &Trunk) -> bool {
    !matches!(config.kind, TrunkKind::EfficientNet(_))
}

/// Whether the packed path knows this text tower.
pub(crate) fn supports_text(config: &ReaderConfig) -> bool {
    let padding = match config.padding {
        Padding::Seen => true,
        // Tokens that nobody sees are left out, so none of them may be asked for its vector.
        Padding::Hidden(_) => matches!(config.pool, TextPool::First | TextPool::Mean),
        // Behind a text whose padding is hidden, the token of the class does not see itself.
        Padding::HiddenNext(_) => config.class && config.causal && !config.spread,
    };
    let place = match config.place {
        Place::Learned { rows, first } => rows >= first + config.context + config.suffix(),
        Place::Waves { .. } => config.blocks.width >= 4,
    };
    let pooled = config.pooler.is_none_or(|pooler| pooler.width.is_multiple_of(8));
    let class = config.suffix() == 0 || (config.class && config.pool != TextPool::Mean);
    supports(&config.blocks) && padding && place && pooled && class
}

fn supports(blocks: &BlocksConfig) -> bool {
    blocks.layers > 0
        && blocks.width.is_multiple_of(8)
        && blocks.width.is_multiple_of(blocks.heads)
        && blocks.width / blocks.heads <= super::attention::WIDEST
}

/// What [`Precision::Auto`] means for a model that is loaded, on this machine.
pub(crate) fn resolve(precision: Precision, isa: Isa) -> Precision {
    match precision {
        Precision::Auto if isa.multiplies_pairs() => Precision::Bf16,
        Precision::Auto => Precision::F32,
        other => other,
    }
}

impl Packer {
    /// The image tower.
    pub(crate) fn vision(&self, config: &VitConfig, preprocess: &Preprocess, dim: usize) -> Result<VisionTower> {
        self.tower("image", self.number(), |source| VisionTower::take(source, config, preprocess, dim))
    }

    /// An image tower of convolutions, which is evaluated in f32 whatever the precision.
    pub(crate) fn trunk(&self, config: &Trunk, preprocess: &Preprocess, dim: usize) -> Result<TrunkTower> {
        self.tower("image", Number::F32, |source| TrunkTower::take(source, config, preprocess, dim))
    }

    /// The text tower.
    pub(crate) fn text(&self, config: &ReaderConfig, dim: usize) -> Result<TextTower> {
        self.tower("text", self.number(), |source| TextTower::take(source, &self.weights, config, dim))
    }

    fn number(&self) -> Number {
        match resolve(self.precision, self.isa) {
            Precision::Bf16 => Number::Bf16,
            Precision::Int8 => Number::Int8,
            _ => Number::F32,
        }
    }

    fn tower<T>(&self, tower: &str, number: Number, take: impl Fn(&mut Source<'_>) -> Result<T>) -> Result<T> {
        let source = |parts| Source { isa: self.isa, number, weights: &self.weights, parts };
        let precision = match number {
            Number::F32 => "f32",
            Number::Bf16 => "bf16",
            Number::Int8 => "int8",
        };
        let name = format!("{}-{tower}-{precision}-{}.packed", self.fingerprint, self.isa.name());
        let file = self.cache.as_ref().map(|cache| (cache.join(&name), self.key(&name)));
        if let Some((path, key)) = &file
            && let Some(parts) = open(path, key)
        {
            let mut source = source(parts);
            if let Ok(tower) = take(&mut source)
                && source.parts.is_done()
            {
                return Ok(tower);
            }
        }
        let mut source = source(Parts::making());
        let made = take(&mut source)?;
        if let Some((path, key)) = &file {
            // A cache that cannot be written is a slower start, and nothing else.
            let _ = write(path, key, source.parts.made());
        }
        Ok(made)
    }

    /// What a packed tower of this name was made from.
    fn key(&self, name: &str) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        hasher.update(name.as_bytes());
        self.weights.identify(&mut hasher);
        *hasher.finalize().as_bytes()
    }
}

/// The parts of a file that is whole and was made from what `key` says.
fn open(path: &Path, key: &[u8; 32]) -> Option<Parts> {
    let file = MappedFile::open(path).ok()?;
    let (header, parts) = file.split_at_checked(HEADER)?;
    let sound = header == build_header(key, parts.len(), checksum(parts));
    sound.then(|| Parts::stored(Arc::new(file), HEADER))
}

fn build_header(key: &[u8; 32], len: usize, sum: u64) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    header[..8].copy_from_slice(MAGIC);
    header[8..12].copy_from_slice(&VERSION.to_le_bytes());
    header[16..48].copy_from_slice(key);
    header[48..56].copy_from_slice(&(len as u64).to_le_bytes());
    header[56..64].copy_from_slice(&sum.to_le_bytes());
    let sum = checksum(&header[..64]);
    header[64..72].copy_from_slice(&sum.to_le_bytes());
    header
}

fn write(path: &Path, key: &[u8; 32], parts: &[Part<u8>]) -> io::Result<()> {
    let dir = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(dir)?;
    sweep(dir, is_stale);
    let aside = path.with_extension(format!("{}.part", std::process::id()));
    let written = write_aside(&aside, key, parts).and_then(|()| fs::rename(&aside, path));
    if written.is_err() {
        let _ = fs::remove_file(&aside);
    }
    written
}

/// Removes what `wanted` says of a directory's files by their names, as far as it lets itself be removed. Gives the bytes.
fn sweep(dir: &Path, wanted: impl Fn(&str, &fs::Metadata) -> bool) -> u64 {
    let files = fs::read_dir(dir).into_iter().flatten().flatten();
    let sizes = files.map(|file| match file.metadata() {
        Ok(data) if wanted(&file.file_name().to_string_lossy(), &data) && fs::remove_file(file.path()).is_ok() => {
            data.len()
        }
        _ => 0,
    });
    sizes.sum()
}

fn is_stale(name: &str, data: &fs::Metadata) -> bool {
    let age = data.modified().ok().and_then(|time| time.elapsed().ok());
    name.ends_with(".part") && age.is_some_and(|age| age > STALE)
}

/// Deletes the packed weights of a model from a cache, in every precision and for all instructions, and says how many bytes that
/// were. `fingerprint` is that of its space in any precision.
pub fn remove_packed(cache: &Path, fingerprint: &str) -> u64 {
    let model = hex(fingerprint);
    sweep(cache, |name, _| name.strip_prefix(model).is_some_and(|rest| rest.starts_with('-')))
}

/// A fingerprint without what says its precision.
pub(crate) fn hex(fingerprint: &str) -> &str {
    fingerprint.split_once('/').map_or(fingerprint, |(hex, _)| hex)
}

/// Not synced to the disk: what a power failure leaves is found out by the checksum.
fn write_aside(path: &Path, key: &[u8; 32], parts: &[Part<u8>]) -> io::Result<()> {
    let mut file = io::BufWriter::with_capacity(1 << 20, File::create(path)?);
    file.write_all(&[0; HEADER])?;
    let (mut sum, mut len) = (Checksum::new(), 0);
    for part in parts {
        let padding = &[0; LINE][..part.len().next_multiple_of(LINE) - part.len()];
        for bytes in [&**part, padding] {
            file.write_all(bytes)?;
        }
        sum.add(part);
        len += part.len() + padding.len();
    }
    let mut file = file.into_inner()?;
    io::Seek::rewind(&mut file)?;
    file.write_all(&build_header(key, len, sum.finish()))
}

fn checksum(bytes: &[u8]) -> u64 {
    let mut sum = Checksum::new();
    sum.add(bytes);
    sum.finish()
}

/// A checksum as fast as memory: it is taken at every start. Each step is a bijection of the state, so any change within one
/// word of eight bytes changes the result; it guards against accidents, not against forgery.
struct Checksum([u64; 8]);

impl Checksum {
    const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;

    fn new() -> Self {
        Self(std::array::from_fn(|i| Self::FACTOR.wrapping_mul(i as u64 + 1)))
    }

    /// Bytes up to a whole number of lines; the last one is filled up with zeros.
    fn add(&mut self, bytes: &[u8]) {
        let (lines, rest) = bytes.as_chunks::<LINE>();
        lines.iter().for_each(|line| self.line(line));
        if !rest.is_empty() {
            let mut line = [0; LINE];
            line[..rest.len()].copy_from_slice(rest);
            self.line(&line);
        }
    }

    fn line(&mut self, line: &[u8; LINE]) {
        for (state, word) in self.0.iter_mut().zip(line.as_chunks::<8>().0) {
            *state = (*state ^ u64::from_le_bytes(*word)).wrapping_mul(Self::FACTOR).rotate_left(29);
        }
    }

    fn finish(&self) -> u64 {
        self.0.iter().fold(0, |sum, state| (sum ^ state).wrapping_mul(Self::FACTOR).rotate_left(31))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts() -> Vec<Part<u8>> {
        [100, 64, 1, 5000]
            .map(|len| {
                let mut bytes = super::super::aligned::Aligned::zeroed(len);
                bytes.iter_mut().enumerate().for_each(|(i, b): (usize, &mut u8)| *b = (i * 31 % 251) as u8);
                Part::from(bytes)
            })
            .into()
    }

    #[test]
    fn a_file_gives_back_the_parts_it_was_made_of() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("below/tower.packed");
        write(&path, &[7; 32], &parts()).unwrap();
        let mut stored = open(&path, &[7; 32]).unwrap();
        for part in parts() {
            assert!(!stored.is_done());
            let same = stored.take::<u8>(part.len(), |_| panic!("it is there")).unwrap();
            assert_eq!(*same, *part);
            assert!(same.as_ptr().addr().is_multiple_of(LINE));
        }
        assert!(stored.is_done());
        assert!(stored.take::<f32>(1, |_| panic!("it is not made")).is_err(), "beyond the end");
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "nothing is left aside");
        assert!(open(&path, &[8; 32]).is_none(), "made from something else");
    }

    #[test]
    fn what_a_killed_process_left_is_removed_and_what_another_writes_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let [old, new] = ["0a-text-f32-avx2.7.part", "0a-text-f32-avx2.8.part"].map(|name| dir.path().join(name));
        for path in [&old, &new] {
            fs::write(path, "half").unwrap();
        }
        let long_ago = std::time::SystemTime::now() - 2 * STALE;
        File::options().write(true).open(&old).unwrap().set_modified(long_ago).unwrap();
        write(&dir.path().join("0a-text-f32-avx2.packed"), &[7; 32], &parts()).unwrap();
        assert!(!old.exists() && new.exists());
    }

    #[test]
    fn a_model_is_removed_in_every_precision_and_others_stay() {
        let dir = tempfile::tempdir().unwrap();
        let names = ["0a-image-f32-avx2.packed", "0a-text-int8-avx512.packed", "0ab-text-f32-avx2.packed", "0a"];
        names.iter().for_each(|name| fs::write(dir.path().join(name), "five!").unwrap());
        assert_eq!(remove_packed(dir.path(), "0a/int8"), 10);
        let left = names.map(|name| dir.path().join(name).exists());
        assert_eq!(left, [false, false, true, true]);
        assert_eq!(remove_packed(&dir.path().join("nowhere"), "0a"), 0);
    }

    #[test]
    fn damage_anywhere_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tower.packed");
        assert!(open(&path, &[7; 32]).is_none(), "not there");
        write(&path, &[7; 32], &parts()).unwrap();
        let whole = fs::read(&path).unwrap();
        for at in (0..whole.len()).step_by(13).chain([72, 127, whole.len() - 1]) {
            let mut spoilt = whole.clone();
            spoilt[at] ^= 0x10;
            fs::write(&path, spoilt).unwrap();
            assert!(open(&path, &[7; 32]).is_none(), "byte {at}");
        }
        for len in [0, 1, 127, 128, whole.len() - 64, whole.len() - 1] {
            fs::write(&path, &whole[..len]).unwrap();
            assert!(open(&path, &[7; 32]).is_none(), "{len} bytes");
        }
        fs::write(&path, [&whole[..], &[0; 64]].concat()).unwrap();
        assert!(open(&path, &[7; 32]).is_none(), "longer");
    }
}
