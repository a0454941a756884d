//! `tintype eval`: how good a model is, beside what is published of it.

use std::cell::RefCell;
use std::io::{self, Write};
use std::path::PathBuf;

use clap::{Args as ClapArgs, ValueEnum, ValueHint};
use serde_json::Value;
use tintype::Encode;
use tintype::eval::{Dataset, DatasetOptions, Evaluation, Evaluator, ProbeOptions, Task, Work, published};
use tintype::model::registry;

use crate::args::Common;
use crate::commands::models;
use crate::interrupt::Interrupt;
use crate::library::{self, BUILTIN};
use crate::output::{Outcome, Talk, count, mistake, printable};
use crate::progress::{Meter, Unit};

pub(crate) const HELP: &str = "\
Datasets, told by what is there:
  wds_cifar10/                     CLIP_benchmark's shards: test/0.tar, classnames.txt; a folder of them per language
  photos/CLASS/*.jpg               a folder per class, perhaps below train/ and test/
  flickr30k_test_karpathy.txt      NAME.jpg,CAPTION a line; --images names the folder of the pictures
  dataset_flickr30k.json           Karpathy's, COCO's and SugarCrepe's JSON, and CLIP_benchmark's for a language
  captions.jsonl                   {\"file\": …, \"captions\": […]} a line; Crossmodal-3600's; Winoground's
  xtd10/                           test_image_names.txt with test_1kcaptions_LANGUAGE.txt

Examples:
  tintype eval ~/wds_flickr30k --model vit-b-32-openai
  tintype eval pets/ --task linear_probe --fewshot-k 16 --json
  tintype eval xm3600/captions.jsonl --language de,hi --model xlm-roberta-dir/

The model is that of --model, else the one the library answers with, else the built-in one. --json prints CLIP_benchmark's result
files, one a line.

Exit status: 0 done, 1 samples were left out, 2 a mistake in the command line, 130 interrupted.";

/// `tintype eval`.
#[derive(Debug, ClapArgs)]
pub(crate) struct EvalArgs {
    /// Folders or caption files
    #[arg(required = true, value_name = "DATASET", value_hint = ValueHint::AnyPath)]
    datasets: Vec<PathBuf>,
    /// What to measure [default: what the dataset is made for]
    #[arg(long, value_name = "TASK")]
    task: Option<TaskName>,
    /// Languages to take of a multilingual set, or the language of a set that does not say [default: all]
    #[arg(long, value_name = "LANG", value_delimiter = ',')]
    language: Vec<String>,
    /// The folder of the pictures, where it is not beside the captions
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    images: Option<PathBuf>,
    /// CLIP_benchmark's name of the dataset, such as cifar10: it brings the published prompts and scores [default: from the path]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// The split to measure on [default: test, or val]
    #[arg(long, value_name = "SPLIT")]
    split: Option<String>,
    /// The split that a linear probe learns from
    #[arg(long, value_name = "SPLIT", default_value = "train")]
    train_split: String,
    /// Names of the classes: one a line, or JSON as CLIP_benchmark has it
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    class_names: Option<PathBuf>,
    /// Prompts with {c} for the class: one a line, or JSON, also by class
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    templates: Option<PathBuf>,
    /// Depths of recall
    #[arg(long, value_name = "K", value_delimiter = ',', default_value = "1,5,10")]
    recall_k: Vec<usize>,
    /// Pictures of each class that a linear probe learns from [default: all]
    #[arg(long, value_name = "K")]
    fewshot_k: Option<usize>,
    /// Random numbers of a linear probe
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// One JSON object per result and line
    #[arg(long)]
    json: bool,
}

/// CLIP_benchmark's names.
#[derive(Clone, Copy, Debug, ValueEnum)]
#[value(rename_all = "snake_case")]
enum TaskName {
    /// Name pictures by prompts alone.
    #[value(name = "zeroshot_classification")]
    ZeroShotClassification,
    /// Find pictures by their captions, and captions by their pictures.
    #[value(name = "zeroshot_retrieval")]
    ZeroShotRetrieval,
    /// Name pictures by what was learnt from others.
    LinearProbe,
    /// Tell captions apart that differ in little.
    ImageCaptionSelection,
}

impl From<TaskName> for Task {
    fn from(name: TaskName) -> Task {
        match name {
            TaskName::ZeroShotClassification => Task::ZeroShotClassification,
            TaskName::ZeroShotRetrieval => Task::ZeroShotRetrieval,
            TaskName::LinearProbe => Task::LinearProbe,
            TaskName::ImageCaptionSelection => Task::CaptionSelection,
        }
    }
}

/// Runs `tintype eval`.
pub(crate) fn run(args: &EvalArgs, common: &Common, talk: &Talk) -> anyhow::Result<Outcome> {
    if args.recall_k.contains(&0) || args.fewshot_k == Some(0) {
        return Err(mistake("--recall-k and --fewshot-k count from 1"));
    }
    let options = options(args);
    let mut datasets = Vec::new();
    for path in &args.datasets {
        datasets.extend(Dataset::open(path, &options)?);
    }
    let choice = match &common.model {
        Some(choice) => choice.clone(),
        None => library::chosen(common)?.unwrap_or_else(|| BUILTIN.to_owned()),
    };
    let encoder = library::load(&choice, &library::options(common), talk)?;
    let (model, pretrained) = called(&choice, &encoder);
    let interrupt = Interrupt::listen()?;
    let shown = Shown::default();
    let mut evaluator = Evaluator::new(encoder)
        .called(model, pretrained)
        .recall_at(&args.recall_k)
        .probe(probe(args))
        .cancel(|| interrupt.asked())
        .on_progress(|work| show(work, &shown, talk));
    let mut outcome = Outcome::Done;
    for dataset in &datasets {
        let task = args.task.map_or_else(|| Task::of(dataset), Task::from);
        let result = evaluator.run(dataset, task);
        shown.take();
        let result = result?;
        if !result.skipped.is_empty() {
            outcome = models::tell_bad(&result.skipped, talk);
        }
        let mut out = io::stdout().lock();
        if args.json {
            writeln!(out, "{}", result.to_json())?;
        } else {
            table(&mut out, &result, talk)?;
        }
    }
    Ok(outcome)
}

fn options(args: &EvalArgs) -> DatasetOptions {
    let mut options = DatasetOptions::default();
    options.split.clone_from(&args.split);
    options.train = Some(args.train_split.clone());
    options.images.clone_from(&args.images);
    options.name.clone_from(&args.name);
    options.class_names.clone_from(&args.class_names);
    options.templates.clone_from(&args.templates);
    options.languages.clone_from(&args.language);
    options
}

fn probe(args: &EvalArgs) -> ProbeOptions {
    let mut probe = ProbeOptions::default();
    (probe.shots, probe.seed) = (args.fewshot_k, args.seed);
    probe
}

/// open_clip's name and tag of a known model; of others, their own name and what tells their weights.
fn called(choice: &str, encoder: &tintype::Encoder) -> (String, String) {
    if let Ok(model) = registry::find(choice)
        && let Some((name, tag)) = model.open_clip.split_once(':')
    {
        return (name.to_owned(), tag.to_owned());
    }
    let space = encoder.space();
    (space.model.clone(), space.fingerprint.clone())
}

/// The meter of the present kind of work.
pub(crate) type Shown<'a> = RefCell<Option<(&'static str, Meter<'a>)>>;

/// A meter for each kind of work.
pub(crate) fn show<'a>(work: Work, shown: &Shown<'a>, talk: &'a Talk) {
    let (label, unit, done, total) = match work {
        Work::Pictures(done, total) => ("pictures", Unit::Photos, done, total),
        Work::Texts(done, total) => ("texts", Unit::Samples, done, total),
        Work::Rounds(done, total) => ("learning", Unit::Samples, done, total),
        _ => return,
    };
    let mut shown = shown.borrow_mut();
    if shown.as_ref().is_none_or(|(shown, _)| *shown != label) {
        *shown = None;
        *shown = Some((label, Meter::new(talk, label, unit)));
    }
    if let Some((_, meter)) = &*shown {
        meter.set(done as u64, Some(total as u64));
    }
}

/// One measure a line, in percent, with what is published.
fn table(out: &mut impl Write, result: &Evaluation, talk: &Talk) -> io::Result<()> {
    let paint = talk.answer;
    let named = if result.pretrained.is_empty() || result.pretrained.contains('/') && result.model != BUILTIN {
        result.model.clone()
    } else {
        format!("{} {}", result.model, result.pretrained)
    };
    let texts = match result.task {
        Task::ZeroShotRetrieval | Task::CaptionSelection => count(result.texts as u64, "caption"),
        _ if result.texts == 1 => "1 class".to_owned(),
        _ => format!("{} classes", result.texts),
    };
    let head = format!("{} {} ({})", printable(&result.dataset), result.task, result.language);
    let size = format!("{}, {texts}; {}", count(result.pictures as u64, "picture"), printable(&named));
    writeln!(out, "{}  {}", paint.bold(head), paint.dim(size))?;
    let published = published(result);
    for (name, value) in &result.metrics {
        let Some(value) = value.as_f64().filter(|_| is_share(name)) else { continue };
        let beside = published.iter().find(|score| score.metric == name).map(|score| {
            let line = format!("published {:>6.2}  {:+.2}", score.published, score.measured - score.published);
            if score.agrees() {
                paint.dim(line)
            } else {
                paint.yellow(format!("{line}  (more than {:.1} apart)", score.band))
            }
        });
        let line = format!("  {name:<26} {:>6.2} %", 100.0 * value);
        writeln!(out, "{line}{}", beside.map(|beside| format!("   {beside}")).unwrap_or_default())?;
    }
    if let Some(shots) = result.metrics.get("fewshot_k").and_then(Value::as_i64).filter(|shots| *shots > 0) {
        writeln!(out, "  {}", paint.dim(format!("learnt from {shots} of each class")))?;
    }
    Ok(())
}

/// Whether a measure is a share of something, and not how it was taken.
fn is_share(name: &str) -> bool {
    !matches!(name, "weight_decay" | "epochs" | "seed" | "fewshot_k" | "normalized")
}
