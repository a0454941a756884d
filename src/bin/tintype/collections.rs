//! Taking in collections: the library and the model for them, progress, and what came of it.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use tintype::collection::{Columns, detect, space};
use tintype::model::registry;
use tintype::{Download, EmbeddingSpace, Encode, Encoder, Engine, Error, Report, SourceKind};

use crate::args::{Bounds, CollectionArgs, Common};
use crate::interrupt::Interrupt;
use crate::library;
use crate::output::{Talk, count, mistake, printable};
use crate::progress::{Meter, Unit, sample_rate};
use crate::update::duration;

/// Opens the library, or makes it with the model that fits what is to be taken in.
pub(crate) fn open(paths: &[PathBuf], args: &CollectionArgs, common: &Common, talk: &Talk) -> anyhow::Result<Engine> {
    let column = args.vector_column.as_deref();
    let first = paths.iter().find(|path| detect(path, column) == Some(SourceKind::Embeddings));
    let Some(path) = first else {
        if let Some(space) = &args.space {
            return Err(mistake(format!(
                "--space {space} says which model made embeddings, and there are none among the paths; of a Parquet file, \
                 --vector-column says which column has them"
            )));
        }
        return library::open_or_create(paths, common, talk);
    };
    let (read, dim) = space(path, column)?;
    let declared = match (&args.space, read) {
        (Some(name), _) => Some(declare(name, dim, common, talk)?),
        (None, Some(space)) => Some(find(space, common, talk)?),
        (None, None) => None,
    };
    match (library::open(common, talk)?, declared) {
        (Some(engine), Some((encoder, _))) => {
            let ours = engine.encoder().space().clone();
            if !encoder.space().fits(&ours) {
                let path = path.clone();
                let (found, expected) = (encoder.space().model.clone(), ours.model);
                return Err(anyhow::Error::new(Error::SpaceMismatch { path, found, expected })
                    .context("these embeddings cannot be searched together with what the library has; give them a library of their own (--library)"));
            }
            Ok(engine)
        }
        (Some(engine), None) if is_known(&engine, paths, column)? => Ok(engine),
        (Some(engine), None) => {
            let model = engine.encoder().space().model.clone();
            bail!(
                "{}: it does not say which model made these embeddings; if it was {model}, the library's own, say --space {model}",
                printable(&path.display().to_string())
            )
        }
        (None, Some((encoder, choice))) => {
            let dir = library::directory(common)?;
            if let Some(choice) = choice {
                library::note(&dir, &encoder, &choice)?;
            }
            Ok(Engine::open_or_create(&dir, encoder)?)
        }
        (None, None) => bail!(
            "{}: it does not say which model made these embeddings; say it with --space, as vit-b-32-openai or ViT-B/32",
            printable(&path.display().to_string())
        ),
    }
}

/// Whether the library has all these embeddings already.
fn is_known(engine: &Engine, paths: &[PathBuf], column: Option<&str>) -> anyhow::Result<bool> {
    let sources = engine.status()?.sources;
    let known = |path: &PathBuf| {
        let path = path.canonicalize().unwrap_or_else(|_| path.clone());
        sources.iter().any(|source| source.kind == SourceKind::Embeddings && source.path.starts_with(&path))
    };
    Ok(paths.iter().filter(|path| detect(path, column) == Some(SourceKind::Embeddings)).all(known))
}

/// Leaves out Parquet files whose vectors are in a column that nobody but the caller can name.
pub(crate) fn leave_out_named_columns(paths: &mut Vec<PathBuf>, engine: &Engine, talk: &Talk) -> anyhow::Result<()> {
    let sources = engine.status()?.sources;
    paths.retain(|path| {
        let is_named = detect(path, None) == Some(SourceKind::List)
            && sources.iter().any(|source| source.kind == SourceKind::Embeddings && source.is_of(path));
        if is_named {
            let path = printable(&path.display().to_string());
            talk.say(format_args!("{path} is looked at again when it is given with its --vector-column"));
        }
        !is_named
    });
    Ok(())
}

/// The model of a name, and how it is to be loaded again; without the model if that is not here.
fn declare(name: &str, dim: usize, common: &Common, talk: &Talk) -> anyhow::Result<(Encoder, Option<String>)> {
    let fits = |encoder: Encoder, choice: &str| {
        let found = encoder.space().dim;
        if found != dim {
            bail!("{name} makes vectors of {found} numbers, and these have {dim}");
        }
        Ok((encoder, Some(choice.to_owned())))
    };
    if name == library::BUILTIN || library::is_path(name) {
        return fits(library::load(name, &library::options(common), talk)?, name);
    }
    let Some(model) = registry::find(&plain(name)).ok() else {
        return Ok((Encoder::declared(EmbeddingSpace::declared(name, dim)), None));
    };
    if model.dim != dim {
        bail!("{} makes vectors of {} numbers, and these have {dim}", model.alias, model.dim);
    }
    if library::is_here(model)? {
        return fits(library::load(model.alias, &library::options(common), talk)?, model.alias);
    }
    let alias = model.alias;
    talk.say(format_args!(
        "{alias} is not on this machine; `tintype models fetch {alias}` brings it, and words can be looked for"
    ));
    Ok((Encoder::declared(EmbeddingSpace::declared(alias, dim)), None))
}

/// clip-retrieval's names of models as open_clip has them.
fn plain(name: &str) -> String {
    match name.strip_prefix("open_clip:") {
        Some(rest) => rest.replacen('/', ":", rest.matches('/').count().min(1)).replace("ViT-B:32:", "ViT-B-32:"),
        None if name.starts_with("ViT-") => {
            let name = name.replace('/', "-").to_ascii_lowercase();
            if name.contains(':') { name } else { format!("{name}-openai") }
        }
        None => name.to_owned(),
    }
}

/// The model of a space that was read, if it is here.
fn find(space: EmbeddingSpace, common: &Common, talk: &Talk) -> anyhow::Result<(Encoder, Option<String>)> {
    let builtin = Encoder::builtin()?;
    if builtin.space().fits(&space) {
        return Ok((builtin, Some(library::BUILTIN.to_owned())));
    }
    if let Ok(model) = registry::find(&space.model)
        && library::is_here(model)?
    {
        let encoder = library::load(model.alias, &library::options(common), talk)?;
        if encoder.space().fits(&space) {
            return Ok((encoder, Some(model.alias.to_owned())));
        }
    }
    Ok((Encoder::declared(space), None))
}

/// Runs the request, with progress.
///
/// # Errors
/// `Error::Cancelled` after Ctrl-C, when it has been said what is kept.
pub(crate) fn take_in(
    engine: &Engine,
    paths: &[PathBuf],
    args: &CollectionArgs,
    bounds: &Bounds,
    interrupt: &Interrupt,
    talk: &Talk,
) -> anyhow::Result<Report> {
    let begun = Instant::now();
    let meter = Meter::new(talk, "reading collections", Unit::Samples);
    let mut columns = Columns::default();
    columns.path.clone_from(&args.path_column);
    columns.url.clone_from(&args.url_column);
    columns.caption.clone_from(&args.caption_column);
    columns.vector.clone_from(&args.vector_column);
    let mut done = 0;
    let mut request = engine.collect(paths).columns(columns).copies(args.copies.saturating_mul(1_000_000));
    if let Some(folder) = &args.images {
        request = request.images(folder);
    }
    if args.download {
        let mut download = Download::default();
        download.private_addresses = args.allow_private_addresses;
        (download.connections, download.retries) = (args.connections, args.retries);
        (download.timeout, download.max_bytes) =
            (Duration::from_secs(args.timeout), args.max_size.saturating_mul(1 << 20));
        request = request.download(download);
    }
    if let Some(part) = bounds.shard {
        request = request.part(part);
    }
    if let Some(bytes) = bounds.memory() {
        request = request.memory(bytes);
    }
    let request = request.cancel(|| interrupt.asked()).on_progress(|progress| {
        done = progress.done;
        meter.set(progress.done, progress.walked.then_some(progress.found).or(progress.expected));
    });
    let result = request.run();
    drop(meter);
    let report = match result {
        Err(Error::Cancelled) => {
            talk.say(format_args!("stopped after {}; the next run goes on from there", count(done, "sample")));
            return Err(Error::Cancelled).context("interrupted");
        }
        result => result?,
    };
    let took = begun.elapsed();
    let rate = (report.added + report.changed) as f64 / took.as_secs_f64().max(1e-3);
    let counts = [(report.added, "new"), (report.changed, "changed"), (report.moved, "moved"), (report.gone, "gone")];
    let said: Vec<String> = counts.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}")).collect();
    if !said.is_empty() {
        talk.say(format_args!("samples: {} in {} ({})", said.join(", "), duration(took), sample_rate(rate)));
    }
    Ok(report)
}

/// Gives captions their vectors.
pub(crate) fn embed_captions(engine: &Engine, interrupt: &Interrupt, talk: &Talk) -> anyhow::Result<()> {
    let begun = Instant::now();
    let meter = Meter::new(talk, "embedding captions", Unit::Samples);
    let request = engine.embed_captions().cancel(|| interrupt.asked());
    let result = request.on_progress(|progress| meter.set(progress.done, Some(progress.found))).run();
    drop(meter);
    let done = result?;
    if done > 0 {
        talk.say(format_args!("captions: {done} embedded in {}", duration(begun.elapsed())));
    }
    Ok(())
}
