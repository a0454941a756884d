//! The layout that CLIP_benchmark exports and publishes: `test/{0..n}.tar` with `nshards.txt`, and beside them `classnames.txt`,
//! `zeroshot_classification_templates.txt` and `dataset_type.txt`.

use std::io::Read;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use npyz::{DType, NpyFile, TypeChar};

use super::{Dataset, DatasetOptions, Picture, Truth, bad};
use crate::collection::{Bytes, Sample, read_shard_with};
use crate::eval::BadSample;
use crate::eval::prompts::{Prompts, names};
use crate::{Error, Result};

/// Whether a folder has this layout.
pub(super) fn is(path: &Path) -> bool {
    let is_split = |split: &Path| split.join("nshards.txt").is_file() || split.join("0.tar").is_file();
    std::fs::read_dir(path).into_iter().flatten().flatten().any(|entry| is_split(&entry.path()))
}

/// Reads captions or labels of a split; of the pictures, where they are.
pub(super) fn open(path: &Path, options: &DatasetOptions) -> Result<Dataset> {
    let kind = text(&path.join("dataset_type.txt"))?.map(|kind| kind.trim().to_lowercase());
    let split = match &options.split {
        Some(split) => path.join(split),
        None => [path.join("test"), path.join("val")]
            .into_iter()
            .find(|split| split.is_dir())
            .ok_or_else(|| bad(path, "there is no split called test in it; --split names another"))?,
    };
    if kind.as_deref() == Some("retrieval") {
        let mut dataset = Dataset::new(path, options, Truth::Captions(Vec::new()));
        let (mut captions, mut pictures) = (Vec::new(), Vec::new());
        read(&split, &mut dataset.bad, |sample, picture| {
            let text = sample.caption.ok_or("no captions (.txt) with it")?;
            let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
            captions.extend(lines.map(|line| (pictures.len(), line.to_owned())));
            pictures.push(picture);
            Ok(())
        })?;
        dataset.pictures = pictures;
        dataset.truth = Truth::Captions(captions);
        return Ok(dataset);
    }
    let mut dataset = Dataset::new(path, options, Truth::Captions(Vec::new()));
    let lines = |text: String| text.lines().map(|line| line.trim().to_owned()).collect::<Vec<_>>();
    let classes = match (&options.class_names, text(&path.join("classnames.txt"))?) {
        (Some(file), _) => names(file, &dataset.name)?,
        (None, Some(text)) => lines(text),
        (None, None) => {
            let reason = "there is no classnames.txt in it; --class-names takes the names from another file";
            return Err(bad(path, reason));
        }
    };
    let templates = text(&path.join("zeroshot_classification_templates.txt"))?.map(lines);
    let templates = templates.map(|lines| lines.into_iter().filter(|line| !line.is_empty()).collect());
    let prompts = Prompts::new(classes, &dataset.name, options.templates.as_deref(), templates)?;
    let count = prompts.classes.len();
    let mut pictures = Vec::new();
    if kind.as_deref() == Some("multilabel") {
        let mut has = Vec::new();
        read(&split, &mut dataset.bad, |sample, picture| {
            has.push(multilabel(other(&sample, "npy")?, count)?);
            pictures.push(picture);
            Ok(())
        })?;
        dataset.truth = Truth::Multilabel { prompts, has };
    } else {
        let mut labels = Vec::new();
        read(&split, &mut dataset.bad, |sample, picture| {
            labels.push(label(other(&sample, "cls")?, count)?);
            pictures.push(picture);
            Ok(())
        })?;
        let train = path.join(options.train.as_deref().unwrap_or("train"));
        if train.is_dir() && train != split {
            let (bad, learnt) = (&mut dataset.bad, &mut dataset.train);
            read(&train, bad, |sample, picture| {
                learnt.push((picture, label(other(&sample, "cls")?, count)?));
                Ok(())
            })?;
        }
        dataset.truth = Truth::Classes { prompts, labels };
    }
    dataset.pictures = pictures;
    Ok(dataset)
}

/// Hands over the samples of a split; what `each` says is wrong with one is a line in the report.
fn read(
    split: &Path,
    trouble: &mut Vec<BadSample>,
    mut each: impl FnMut(Sample, Picture) -> Result<(), String>,
) -> Result<()> {
    for shard in shards(split)? {
        let shard: Arc<Path> = shard.into();
        let read = read_shard_with(&shard, &["cls", "npy"], |sample| {
            let path = PathBuf::from(format!("{}!{}", shard.display(), sample.name));
            let taken = match (&sample.bytes, sample.trouble.first()) {
                (_, Some((_, reason))) => Err(reason.clone()),
                (Some(Bytes::At(start)), None) => {
                    let (name, start, size) = (sample.name.clone(), *start, sample.size);
                    each(sample, Picture::Member { shard: Arc::clone(&shard), name, start, size })
                }
                (Some(Bytes::Here(_)), None) => Err("its shard is gzipped; unpack the shard first (gunzip)".to_owned()),
                (None, None) => Err("no picture with it".to_owned()),
            };
            if let Err(reason) = taken {
                trouble.push(BadSample { error: bad(&path, reason), path });
            }
            ControlFlow::Continue(())
        });
        // What comes before the damage is measured, and the report says so.
        match read {
            Err(error @ Error::BadCollection { .. }) => trouble.push(BadSample { path: shard.to_path_buf(), error }),
            read => read?,
        }
    }
    Ok(())
}

/// The shards that `nshards.txt` counts, or all that are there.
fn shards(split: &Path) -> Result<Vec<PathBuf>> {
    let file = split.join("nshards.txt");
    let Some(count) = text(&file)? else {
        let found: Vec<PathBuf> = crate::collection::shards(split);
        return if found.is_empty() { Err(bad(split, "there are no shards in it")) } else { Ok(found) };
    };
    let count: usize = count.trim().parse().map_err(|_| bad(&file, "no number of shards in it"))?;
    let shards: Vec<PathBuf> = (0..count).map(|n| split.join(format!("{n}.tar"))).collect();
    match shards.iter().find(|shard| !shard.is_file()) {
        Some(missing) => Err(bad(missing, format!("not there, though {} counts {count} shards", file.display()))),
        None => Ok(shards),
    }
}

fn text(path: &Path) -> Result<Option<String>> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io(path)(error)),
    }
}

fn other<'a>(sample: &'a Sample, kind: &str) -> Result<&'a [u8], String> {
    let found = sample.others.iter().find(|(extension, _)| extension == kind);
    found.map(|(_, bytes)| bytes.as_slice()).ok_or_else(|| format!("no label (.{kind}) with it"))
}

fn label(bytes: &[u8], classes: usize) -> Result<usize, String> {
    let text = String::from_utf8_lossy(bytes);
    let class = text.trim().parse::<usize>().map_err(|_| format!("its label is {:?} and no number", text.trim()))?;
    if class < classes { Ok(class) } else { Err(format!("its label is {class}, and there are {classes} classes")) }
}

/// Zeros and ones of any number type.
fn multilabel(bytes: &[u8], classes: usize) -> Result<Vec<bool>, String> {
    let unreadable = |error: std::io::Error| format!("its labels are no NumPy array ({error})");
    let file = NpyFile::new(bytes).map_err(unreadable)?;
    let shape = file.shape().to_vec();
    if shape != [classes as u64] {
        return Err(format!("its labels have the shape {shape:?}, and there are {classes} classes"));
    }
    let DType::Plain(kind) = file.dtype() else { return Err("its labels are no numbers".to_owned()) };
    let (kind, width) = (kind.type_char(), kind.size_field() as usize);
    // Zero is zero in every type and byte order; floats may be -0.
    let mut values = vec![0u8; classes * width];
    let start = bytes.len().checked_sub(values.len()).ok_or("its labels are cut off")?;
    (&bytes[start..]).read_exact(&mut values).map_err(unreadable)?;
    let is_float = kind == TypeChar::Float;
    let set = |value: &[u8]| value.iter().any(|&byte| if is_float { byte & 0x7f != 0 } else { byte != 0 });
    Ok(values.chunks_exact(width.max(1)).map(set).collect())
}
