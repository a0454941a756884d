//! The list of models: the built-in one, the known ones, those that the user added.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use tintype::model::hub::{locate, locate_any};
use tintype::model::registry::{Languages, MODELS, Model, Origin, find};
use tintype::{Encode, Encoder};

use crate::added::{self, Place};
use crate::args::Common;
use crate::fetch::{hub, size};
use crate::library::{self, BUILTIN};
use crate::output::{Outcome, Talk, printable};
use crate::speed::{self, Speed};

/// A line of `tintype models --json`.
#[derive(Serialize)]
struct Line {
    /// What `--model` and `tintype models use` take.
    name: String,
    summary: &'static str,
    /// Whether the library answers with it.
    in_use: bool,
    /// Whether it can be used without a download.
    here: bool,
    /// Its directory on this machine.
    path: Option<PathBuf>,
    /// Where it is published.
    repository: Option<String>,
    /// Bytes to download, within a few percent.
    download_bytes: Option<u64>,
    dimensions: Option<usize>,
    image_size: Option<usize>,
    parameters: Option<u64>,
    /// SPDX identifier.
    licence: Option<&'static str>,
    /// What the licence means in plain words.
    terms: &'static str,
    /// Whether the licence allows commercial use.
    commercial_use: Option<bool>,
    /// Languages that it reads: `English` or `many`.
    languages: Option<&'static str>,
    /// Published scores in percent.
    scores: Option<ScoresLine>,
    /// How fast it is on this machine, once `tintype models bench` has measured it.
    speed: Option<Speed>,
}

#[derive(Serialize)]
struct ScoresLine {
    imagenet_top1: Option<f32>,
    flickr30k_text_to_image_recall_1_5_10: Option<[f32; 3]>,
    coco_text_to_image_recall_1_5: [Option<f32>; 2],
    /// Who published them.
    origin: &'static str,
}

/// The built-in model first, then the known ones, then a directory that the library uses.
fn lines(used: Option<&str>) -> anyhow::Result<Vec<Line>> {
    let hub = hub()?;
    let mut speeds = speed::noted();
    let builtin = Line {
        name: BUILTIN.to_owned(),
        summary: "the small model inside this program: a starter, English only, everyday scenes",
        in_use: used == Some(BUILTIN),
        here: true,
        path: None,
        repository: None,
        download_bytes: None,
        dimensions: Some(Encoder::builtin()?.space().dim),
        image_size: None,
        parameters: None,
        licence: None,
        terms: "a starter and test model, learnt from photo sets whose terms limit the photos to research or to their owners",
        commercial_use: None,
        languages: Some(Languages::English.in_plain_words()),
        scores: None,
        speed: speeds.remove(BUILTIN),
    };
    let mut known = |model: &'static Model| {
        let path = locate(model, &hub);
        Line {
            name: model.alias.to_owned(),
            summary: model.summary,
            in_use: used.is_some_and(|used| find(used).is_ok_and(|used| used.alias == model.alias)),
            here: path.is_some(),
            path,
            repository: Some(model.sources[0].repository.clone().into_owned()),
            download_bytes: Some(model.download_size()),
            dimensions: Some(model.dim),
            image_size: Some(model.image_size),
            parameters: Some(model.parameters()),
            licence: Some(model.licence.spdx()),
            terms: model.licence.in_plain_words(),
            commercial_use: Some(!model.licence.restricts_use()),
            languages: Some(model.languages.in_plain_words()),
            scores: (model.scores.origin != Origin::None).then(|| ScoresLine {
                imagenet_top1: model.scores.imagenet,
                flickr30k_text_to_image_recall_1_5_10: model.scores.flickr30k,
                coco_text_to_image_recall_1_5: model.scores.coco,
                origin: model.scores.origin.name(),
            }),
            speed: speeds.remove(model.alias),
        }
    };
    let mut lines = vec![builtin];
    lines.extend(MODELS.iter().map(&mut known));
    for (name, place) in added::all()? {
        let (path, repository) = match &place {
            Place::Directory(path) => (Some(path.clone()).filter(|path| path.exists()), None),
            Place::Repository(name) => {
                (place.sources().and_then(|sources| locate_any(&sources, &hub)), Some(name.clone()))
            }
        };
        let speed = speeds.remove(&name);
        let in_use = used == Some(&*name);
        let mut line = Line { name, in_use, here: path.is_some(), path, repository, speed, ..own() };
        if let Some(model) = place.sources().and_then(|sources| find(&sources[0].repository).ok()) {
            (line.licence, line.terms) = (Some(model.licence.spdx()), model.licence.in_plain_words());
            line.commercial_use = Some(!model.licence.restricts_use());
        }
        lines.push(line);
    }
    if let Some(directory) = used.filter(|_| lines.iter().all(|line| !line.in_use)) {
        lines.push(Line {
            name: directory.to_owned(),
            in_use: true,
            here: Path::new(directory).exists(),
            path: Some(directory.into()),
            speed: speeds.remove(directory),
            ..own()
        });
    }
    Ok(lines)
}

/// What is known of a model that nobody has described.
fn own() -> Line {
    Line {
        name: String::new(),
        summary: "a model of your own",
        in_use: false,
        here: false,
        path: None,
        repository: None,
        download_bytes: None,
        dimensions: None,
        image_size: None,
        parameters: None,
        licence: None,
        terms: "its own",
        commercial_use: None,
        languages: None,
        scores: None,
        speed: None,
    }
}

/// Prints them.
pub(super) fn list(json: bool, common: &Common, talk: &Talk) -> anyhow::Result<Outcome> {
    let lines = lines(library::chosen(common)?.as_deref())?;
    let mut out = io::stdout().lock();
    if json {
        for line in &lines {
            writeln!(out, "{}", serde_json::to_string(line)?)?;
        }
        return Ok(Outcome::Done);
    }
    let paint = talk.answer;
    let width = lines.iter().map(|line| line.name.chars().count()).max().unwrap_or(0);
    let head = format!(
        "  {:width$}  {:>8}  {:11}  {:9}  {:>8}  {:>10}  {:9}  licence",
        "name", "download", "Flickr30k", "COCO", "ImageNet", "pictures/s", "languages"
    );
    writeln!(out, "{}", paint.dim(head))?;
    for line in &lines {
        let mark = if line.in_use { "*" } else { " " };
        let place = match (line.here, line.download_bytes) {
            (true, _) => "here".to_owned(),
            (false, Some(bytes)) => size(bytes),
            (false, None) if line.repository.is_some() => "on a hub".to_owned(),
            (false, None) => "missing".to_owned(),
        };
        let number = |number: Option<f32>| number.map_or(String::new(), |number| format!("{number:.1}"));
        let (mut flickr, mut coco, mut imagenet) = (String::new(), String::new(), String::new());
        if let Some(scores) = &line.scores {
            if let Some([first, .., tenth]) = scores.flickr30k_text_to_image_recall_1_5_10 {
                flickr = format!("{first:.1} {tenth:>6.1}");
            }
            let [one, five] = scores.coco_text_to_image_recall_1_5;
            coco = format!("{} {}", number(one), number(five));
            imagenet = number(scores.imagenet_top1);
        }
        let speed = line.speed.as_ref().map_or(String::new(), |speed| format!("{:.1}", speed.pictures));
        let languages = line.languages.unwrap_or_default();
        let figures = format!("{flickr:11}  {coco:9}  {imagenet:>8}  {speed:>10}  {languages:9}");
        let licence = match (line.licence, line.commercial_use) {
            (Some(licence), Some(false)) => paint.yellow(format!("{licence} ({})", line.terms)),
            (Some(licence), _) => licence.to_owned(),
            (None, _) if line.name == BUILTIN => "see below".to_owned(),
            (None, _) => "its own: look before you use it".to_owned(),
        };
        let name = format!("{:width$}", printable(&line.name));
        let name = if line.here { paint.bold(name) } else { name };
        writeln!(out, "{mark} {name}  {place:>8}  {figures}  {licence}")?;
        writeln!(out, "    {}", paint.dim(line.summary))?;
    }
    let library = library::directory(common)?;
    let library = library.display();
    match lines.iter().any(|line| line.in_use) {
        true => talk.say(format_args!("* answers in {library}")),
        false => talk.say(format_args!("There is no library in {library} yet; a new one answers with {BUILTIN}.")),
    }
    talk.say(LEGEND);
    talk.say(format_args!("{BUILTIN}: {}", lines[0].terms));
    Ok(Outcome::Done)
}

const LEGEND: &str = "\
Scores as published (`--json` says by whom), in percent, higher is better; empty where nobody has. Flickr30k: captions whose photo
is the first of 1000, and among the first 10. COCO: the first of 5000, and among the first 5. ImageNet: photos named rightly out
of 1000 names. Pictures per second on this machine: `tintype models bench NAME` measures it. Any other model: `tintype models add`.";
