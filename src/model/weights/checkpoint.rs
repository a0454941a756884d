//! Weight files as one table of tensors over mapped bytes.
//!
//! safetensors and PyTorch's zip archives both store tensors as plain little-endian numbers, so both come down to a place in
//! a mapped file; nothing is copied until a tensor is asked for. `candle_core::pickle` would read the archives too, but it
//! panics on malformed tuples, prints, and copies what a pickle refers to twice, which a hostile file can make exponential.

use std::collections::BTreeMap;
use std::io::{Cursor, Read as _};
use std::path::{Path, PathBuf};

use half::{bf16, f16};

use super::pickle;
use crate::model::cpu::MappedFile;
use crate::{Error, Result};

/// Largest pickle that is read: descriptions of ten thousand tensors take about two megabytes.
const MAX_PICKLE: u64 = 64 << 20;

/// How numbers are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stored {
    F16,
    Bf16,
    F32,
    F64,
    /// Kinds that no weight has: entries that are not weights may have them.
    Other(usize),
}

impl Stored {
    fn size(self) -> usize {
        match self {
            Stored::F16 | Stored::Bf16 => 2,
            Stored::F32 => 4,
            Stored::F64 => 8,
            Stored::Other(size) => size,
        }
    }
}

/// A tensor's place.
#[derive(Clone, Debug)]
struct Place {
    file: usize,
    start: usize,
    stored: Stored,
    shape: Vec<usize>,
    /// Steps between neighbours, where the numbers are not in row-major order.
    strides: Option<Vec<usize>>,
}

impl Place {
    fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Numbers from the first to the last, whatever their order.
    fn span(&self) -> usize {
        self.strides.as_ref().map_or_else(|| self.len(), |strides| span(&self.shape, strides).unwrap_or(0))
    }
}

/// One weight file, or the shards of one model.
#[derive(Debug)]
pub(crate) struct Checkpoint {
    files: Vec<(PathBuf, MappedFile)>,
    tensors: BTreeMap<String, Place>,
}

impl Checkpoint {
    /// Maps the files and reads their tables.
    ///
    /// The kind is told from the first bytes, because published names lie at times.
    pub(crate) fn open(paths: &[PathBuf]) -> Result<Self> {
        let mut checkpoint = Self { files: Vec::new(), tensors: BTreeMap::new() };
        for path in paths {
            let map = MappedFile::open(path)?;
            let table = match map.get(..4) {
                Some(b"PK\x03\x04") => archive_table(path, &map)?,
                Some([0x80, 2..=5, ..]) => {
                    let reason = "written by torch.save before version 1.6; save it again with a newer PyTorch";
                    return Err(bad(path, reason.to_owned()));
                }
                _ => safetensors_table(path, &map)?,
            };
            let file = checkpoint.files.len();
            for (name, place) in table {
                let name = unwrap_name(&name).to_owned();
                if checkpoint.tensors.contains_key(&name) {
                    return Err(bad(path, format!("the tensor {name} occurs twice")));
                }
                checkpoint.tensors.insert(name, Place { file, ..place });
            }
            checkpoint.files.push((path.clone(), map));
        }
        Ok(checkpoint)
    }

    /// The same tensors under other names, without those that get none. Where two would share a name, both keep their own.
    pub(crate) fn renamed(mut self, rename: impl Fn(&str) -> Option<String>) -> Self {
        let old = std::mem::take(&mut self.tensors);
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        for name in old.keys().filter_map(|name| rename(name)) {
            *counts.entry(name).or_default() += 1;
        }
        for (name, place) in old {
            let Some(new) = rename(&name) else { continue };
            let is_alone = counts.get(&new) == Some(&1);
            self.tensors.insert(if is_alone { new } else { name }, place);
        }
        self
    }

    /// Gives the memory of the pages read so far back.
    pub(super) fn release(&self) {
        self.files.iter().for_each(|(_, map)| map.release());
    }

    /// Whether there is a tensor of this name.
    pub(crate) fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// Names of all tensors, sorted.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// A tensor's shape.
    pub(crate) fn shape(&self, name: &str) -> Option<&[usize]> {
        self.tensors.get(name).map(|place| place.shape.as_slice())
    }

    /// An error about the checkpoint as a whole.
    pub(crate) fn bad(&self, reason: String) -> Error {
        bad(self.files.first().map_or(Path::new(""), |(path, _)| path), reason)
    }

    /// An error about the file that holds `name`.
    pub(super) fn bad_at(&self, name: &str, reason: String) -> Error {
        let file = self.tensors.get(name).map_or(0, |place| place.file);
        bad(&self.files[file].0, reason)
    }

    /// All numbers of a tensor.
    pub(super) fn read(&self, name: &str) -> Result<Vec<f32>> {
        let place = self.place(name)?;
        let mut data = Vec::new();
        self.read_range(name, 0, place.span(), &mut data)?;
        match &place.strides {
            None => Ok(data),
            Some(strides) => Ok(in_order(&data, &place.shape, strides)),
        }
    }

    /// Whether the numbers stand in row-major order.
    pub(super) fn is_in_order(&self, name: &str) -> bool {
        self.tensors.get(name).is_some_and(|place| place.strides.is_none())
    }

    /// Whether the numbers are of a kind that weights have.
    pub(super) fn is_real(&self, name: &str) -> bool {
        self.tensors.get(name).is_some_and(|place| !matches!(place.stored, Stored::Other(_)))
    }

    /// Appends `len` numbers, as they are stored, from number `first` on.
    pub(super) fn read_range(&self, name: &str, first: usize, len: usize, out: &mut Vec<f32>) -> Result<()> {
        let place = self.place(name)?;
        let size = place.stored.size();
        let start = place.start + first * size;
        let bytes = self.files[place.file].1.get(start..start + len * size);
        let bytes = bytes.ok_or_else(|| self.bad_at(name, format!("{name} reaches beyond the end of the file")))?;
        match place.stored {
            Stored::F32 => out.extend(bytes.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b))),
            Stored::F16 => out.extend(bytes.as_chunks().0.iter().map(|&b| f16::from_le_bytes(b).to_f32())),
            Stored::Bf16 => out.extend(bytes.as_chunks().0.iter().map(|&b| bf16::from_le_bytes(b).to_f32())),
            Stored::F64 => out.extend(bytes.as_chunks().0.iter().map(|&b| f64::from_le_bytes(b) as f32)),
            Stored::Other(_) => {
                return Err(self.bad_at(name, format!("{name} is stored in a kind of number that no weight has")));
            }
        }
        Ok(())
    }

    /// Feeds names, shapes, kinds and sampled numbers of `names` to `hasher`.
    ///
    /// Tensors up to 64 KiB count whole, larger ones by 16 evenly spread windows of 4 KiB: some ten megabytes of a usual
    /// checkpoint instead of all 600, which would have to come from the disk before the first query. Two checkpoints of any
    /// training differ nearly everywhere, and in every norm and bias; what sampling cannot see is a file that was edited in
    /// a few rows of one large matrix.
    pub(super) fn fingerprint<'a>(&self, names: impl IntoIterator<Item = &'a String>, hasher: &mut blake3::Hasher) {
        const WHOLE: usize = 64 << 10;
        const WINDOW: usize = 4 << 10;
        const WINDOWS: usize = 16;
        for name in names {
            let Some(place) = self.tensors.get(name) else { continue };
            hasher.update(format!("{name} {:?} {:?}\n", place.stored, place.shape).as_bytes());
            let bytes = &self.files[place.file].1[place.start..][..place.span() * place.stored.size()];
            if bytes.len() <= WHOLE {
                hasher.update(bytes);
                continue;
            }
            for window in 0..WINDOWS {
                let start = (bytes.len() - WINDOW) / (WINDOWS - 1) * window;
                hasher.update(&bytes[start..start + WINDOW]);
            }
        }
    }

    /// Feeds names, lengths and times of change of the files to `hasher`.
    pub(super) fn identify(&self, hasher: &mut blake3::Hasher) {
        for (path, map) in &self.files {
            let changed = std::fs::metadata(path).and_then(|found| found.modified()).ok();
            let name = path.file_name().unwrap_or_default();
            hasher.update(format!("{name:?} {} {changed:?}\n", map.len()).as_bytes());
        }
    }

    fn place(&self, name: &str) -> Result<&Place> {
        self.tensors.get(name).ok_or_else(|| self.bad(format!("the tensor {name} is missing")))
    }
}

/// A tensor name without what distributed and compiled training put in front.
fn unwrap_name(name: &str) -> &str {
    let name = name.strip_prefix("module.").unwrap_or(name);
    name.strip_prefix("_orig_mod.").unwrap_or(name)
}

fn bad(path: &Path, reason: String) -> Error {
    Error::BadModel { path: path.to_path_buf(), reason }
}

type Table = Vec<(String, Place)>;

/// Numbers from the first to the last of a strided tensor; `None` if that is beyond counting.
fn span(shape: &[usize], strides: &[usize]) -> Option<usize> {
    if shape.contains(&0) {
        return Some(0);
    }
    shape.iter().zip(strides).try_fold(1_usize, |n, (&dim, &stride)| n.checked_add((dim - 1).checked_mul(stride)?))
}

/// The numbers of a strided tensor in row-major order.
fn in_order(data: &[f32], shape: &[usize], strides: &[usize]) -> Vec<f32> {
    let mut out = Vec::with_capacity(shape.iter().product());
    let mut index = vec![0; shape.len()];
    for _ in 0..out.capacity() {
        let place: usize = index.iter().zip(strides).map(|(i, stride)| i * stride).sum();
        out.push(data[place]);
        for d in (0..shape.len()).rev() {
            index[d] += 1;
            if index[d] < shape[d] {
                break;
            }
            index[d] = 0;
        }
    }
    out
}

fn safetensors_table(path: &Path, bytes: &[u8]) -> Result<Table> {
    use safetensors::Dtype;
    let (header, metadata) = safetensors::SafeTensors::read_metadata(bytes)
        .map_err(|e| bad(path, format!("no whole safetensors file ({e}); it may be cut short: fetch it again")))?;
    let data = 8 + header;
    let mut table = Table::new();
    for (name, info) in metadata.tensors() {
        let stored = match info.dtype {
            Dtype::F16 => Stored::F16,
            Dtype::BF16 => Stored::Bf16,
            Dtype::F32 => Stored::F32,
            Dtype::F64 => Stored::F64,
            other => Stored::Other(other.bitsize().div_ceil(8)),
        };
        let place =
            Place { file: 0, start: data + info.data_offsets.0, stored, shape: info.shape.clone(), strides: None };
        table.push((name, place));
    }
    Ok(table)
}

/// The state dict of a PyTorch archive: `…/data.pkl` describes the tensors, `…/data/N` are their numbers, uncompressed.
fn archive_table(path: &Path, bytes: &[u8]) -> Result<Table> {
    let broken = |e: zip::result::ZipError| bad(path, format!("no whole PyTorch archive ({e}); fetch it again"));
    let mut zip = zip::ZipArchive::new(Cursor::new(bytes)).map_err(broken)?;
    let mut parts = BTreeMap::new();
    let mut description = None;
    for i in 0..zip.len() {
        let entry = zip.by_index_raw(i).map_err(broken)?;
        let name = entry.name().map_err(broken)?.into_owned();
        if let Some(root) = name.strip_suffix("/data.pkl").filter(|root| !root.contains('/')) {
            description = Some((i, root.to_owned()));
        }
        if entry.compression() == zip::CompressionMethod::Stored
            && let Some(start) = entry.data_start()
        {
            parts.insert(name, (start as usize, entry.size() as usize));
        }
    }
    let (index, root) = description.ok_or_else(|| bad(path, "a zip file, but not one of torch.save".to_owned()))?;
    let mut pickled = Vec::new();
    let entry = zip.by_index(index).map_err(broken)?;
    entry.take(MAX_PICKLE).read_to_end(&mut pickled).map_err(Error::io(path))?;
    let tensors = pickle::state_dict(&pickled).map_err(|reason| bad(path, reason))?;

    let mut table = Table::new();
    for tensor in tensors {
        let stored = match tensor.storage.as_str() {
            "HalfStorage" => Stored::F16,
            "BFloat16Storage" => Stored::Bf16,
            "FloatStorage" => Stored::F32,
            "DoubleStorage" => Stored::F64,
            "ByteStorage" | "CharStorage" | "BoolStorage" => Stored::Other(1),
            "ShortStorage" => Stored::Other(2),
            "IntStorage" => Stored::Other(4),
            "LongStorage" => Stored::Other(8),
            other => return Err(bad(path, format!("the tensor {} is stored as {other}", tensor.name))),
        };
        let (start, size) = *parts
            .get(&format!("{root}/data/{}", tensor.key))
            .ok_or_else(|| bad(path, format!("the numbers of {} are missing or compressed", tensor.name)))?;
        let strides = if tensor.is_contiguous() { None } else { Some(tensor.strides) };
        let within = || {
            let count = tensor.shape.iter().try_fold(1_usize, |n, &d| n.checked_mul(d))?;
            let span = strides.as_ref().map_or(Some(count), |strides| span(&tensor.shape, strides))?;
            // A view that repeats its numbers may name more of them than there are.
            let end = tensor.offset.checked_add(span)?.checked_mul(stored.size())?;
            let fits = end <= size && count <= size && start.checked_add(size)? <= bytes.len();
            fits.then_some(start + tensor.offset * stored.size())
        };
        let start =
            within().ok_or_else(|| bad(path, format!("{} reaches beyond its part of the file", tensor.name)))?;
        table.push((tensor.name, Place { file: 0, start, stored, shape: tensor.shape, strides }));
    }
    Ok(table)
}
