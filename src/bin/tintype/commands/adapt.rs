//! `tintype adapt`: a model made better at what some photos show.

use std::io::{self, Write};
use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::{Args as ClapArgs, ValueHint};
use serde_json::json;
use tintype::adapt::{Adapter, FitOptions, HeldOut};
use tintype::eval::{Dataset, DatasetOptions, Work};
use tintype::model::Adaptation;

use crate::args::Common;
use crate::commands::eval::{Shown, show};
use crate::commands::models;
use crate::interrupt::Interrupt;
use crate::library::{self, BUILTIN};
use crate::output::{Outcome, Talk, count, mistake, printable};

pub(crate) const HELP: &str = "\
Examples:
  tintype adapt birds/                    a folder per class; writes birds.safetensors
  tintype adapt birds/ --trial            what 1, 2, 4, 8 and 16 pictures of each class are worth, on the others
  tintype adapt captions.jsonl --use      pictures with captions; the library answers with the result
  tintype index --keep-features ~/Photos  so that an adapted model needs none of these photos again

Only the last map of the image tower is learnt; words are understood as before, and other things may be found a little worse.
`tintype models use FILE` and --model FILE take the result like any other model.

Exit status: 0 done, 1 pictures were left out, 2 a mistake in the command line, 130 interrupted.";

/// `tintype adapt`.
#[derive(Debug, ClapArgs)]
pub(crate) struct AdaptArgs {
    /// A folder per class, or a caption file; see `eval`
    #[arg(value_name = "DATASET", value_hint = ValueHint::AnyPath)]
    dataset: PathBuf,
    /// Learn from so many pictures of each class, or so many with captions, and measure on the others [default: learn from all]
    #[arg(long, value_name = "N", value_delimiter = ',')]
    shots: Vec<usize>,
    /// Which pictures are drawn
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Write nothing; for each number of shots, measure five choices of pictures on the others
    #[arg(long, conflicts_with_all = ["out", "use_it", "name"])]
    trial: bool,
    /// What the result is called [default: after the dataset]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// The file of the result [default: NAME.safetensors in the library]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    out: Option<PathBuf>,
    /// Let the library answer with it
    #[arg(long = "use")]
    use_it: bool,
    /// The folder of the pictures, where it is not beside the captions
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    images: Option<PathBuf>,
    /// Names of the classes: one a line, or JSON
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    class_names: Option<PathBuf>,
    /// Prompts with {c} for the class: one a line, or JSON, also by class
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    templates: Option<PathBuf>,
    /// Pull towards the present map for one shot of each class; it falls with their number
    #[arg(long, value_name = "X", default_value_t = FitOptions::default().pull)]
    pull: f32,
    /// What cosines are multiplied by before the softmax
    #[arg(long, value_name = "X", default_value_t = FitOptions::default().scale)]
    scale: f32,
    /// Step size, relative to the present weights
    #[arg(long, value_name = "X", default_value_t = FitOptions::default().rate)]
    rate: f32,
    /// Steps over all pictures
    #[arg(long, value_name = "N", default_value_t = FitOptions::default().steps)]
    steps: usize,
    /// Learn a map of the embeddings, not of the features before them: the library moves over without its photos though it keeps no
    /// features
    #[arg(long)]
    on_embeddings: bool,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// Choices of pictures in a trial, and Student's t for twice 2.5 % of as many.
const SEEDS: u64 = 5;
const STUDENT: f64 = 2.776;

/// Runs `tintype adapt`.
pub(crate) fn run(args: &AdaptArgs, common: &Common, talk: &Talk) -> anyhow::Result<Outcome> {
    if args.shots.contains(&0) {
        return Err(mistake("--shots counts from 1"));
    }
    if args.shots.len() > 1 && !args.trial {
        return Err(mistake("several numbers of shots are for --trial"));
    }
    let dataset = dataset(args)?;
    let choice = base(common)?;
    let mut encoder = library::load(&choice, &library::options(common), talk)?;
    if args.on_embeddings {
        encoder = encoder.without_features();
    }
    let interrupt = Interrupt::listen()?;
    let shown = Shown::default();
    let mut options = FitOptions::default();
    (options.pull, options.scale, options.rate, options.steps) = (args.pull, args.scale, args.rate, args.steps);
    let mut adapter = Adapter::new(encoder.clone())
        .options(options)
        .cancel(|| interrupt.asked())
        .on_progress(|work: Work| show(work, &shown, talk));
    if args.trial {
        let outcome = trial(args, &dataset, &mut adapter, talk);
        shown.take();
        return outcome;
    }
    let adapted = adapter.run(&dataset, args.shots.first().copied(), args.seed);
    shown.take();
    let adapted = adapted?;
    let outcome = models::tell_bad(&adapted.skipped, talk);
    let name = args.name.clone().unwrap_or_else(|| dataset.name().replace(['/', '\\'], "-"));
    let file = match &args.out {
        Some(file) => file.clone(),
        None => library::directory(common)?.join(format!("{name}.safetensors")),
    };
    if let Some(folder) = file.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    }
    let adaptation = Adaptation::new(name, library::lasting(&choice), &encoder, adapted.head);
    adaptation.save(&file).with_context(|| "--name or --out chooses another name")?;
    drop(adapter);
    if args.json {
        let held_out = adapted.held_out.map(of_held_out);
        let line = json!({"file": file, "model": choice, "learnt": adapted.learnt, "classes": adapted.classes,
            "shots": args.shots.first(), "seed": args.seed, "held_out": held_out});
        writeln!(io::stdout(), "{line}")?;
    } else {
        writeln!(io::stdout(), "{}", printable(&file.display().to_string()))?;
    }
    let (learnt, classes) = (count(adapted.learnt as u64, "picture"), adapted.classes);
    talk.say(format_args!("learnt from {learnt} of {classes} classes or captions, for {choice}"));
    if let Some(HeldOut { metric, pictures, before, after, .. }) = adapted.held_out {
        let (before, after, pictures) = (100.0 * before, 100.0 * after, count(pictures as u64, "other picture"));
        talk.say(format_args!("{metric} on {pictures}: {before:.2} % before, {after:.2} % now"));
    }
    let file = file.display().to_string();
    if !args.use_it {
        talk.say(format_args!("`tintype models use {}` lets the library answer with it", printable(&file)));
        return Ok(outcome);
    }
    match models::switch(&file, false, Some(interrupt), common, talk)? {
        Outcome::Done => Ok(outcome),
        other => Ok(other),
    }
}

fn dataset(args: &AdaptArgs) -> anyhow::Result<Dataset> {
    let mut options = DatasetOptions::default();
    options.images.clone_from(&args.images);
    options.class_names.clone_from(&args.class_names);
    options.templates.clone_from(&args.templates);
    let mut found = Dataset::open(&args.dataset, &options)?;
    match found.len() {
        1 => Ok(found.remove(0)),
        n => bail!("{}: {n} languages; choose the captions of one", args.dataset.display()),
    }
}

/// The model whose head is learnt: not one that was adapted before, but the one below it.
fn base(common: &Common) -> anyhow::Result<String> {
    let choice = match &common.model {
        Some(choice) => choice.clone(),
        None => library::chosen(common)?.unwrap_or_else(|| BUILTIN.to_owned()),
    };
    match library::is_head(&choice) {
        true => Ok(library::head(&choice)?.model),
        false => Ok(choice),
    }
}

fn of_held_out(held_out: HeldOut) -> serde_json::Value {
    let HeldOut { metric, pictures, before, after, .. } = held_out;
    json!({"metric": metric, "pictures": pictures, "before": before, "after": after})
}

/// Mean and half the width of its 95 % interval.
fn mean(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let variance = values.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / (n - 1.0);
    (mean, STUDENT * (variance / n).sqrt())
}

fn trial(args: &AdaptArgs, dataset: &Dataset, adapter: &mut Adapter<'_>, talk: &Talk) -> anyhow::Result<Outcome> {
    let shots = if args.shots.is_empty() { vec![1, 2, 4, 8, 16] } else { args.shots.clone() };
    let (mut outcome, mut head) = (Outcome::Done, false);
    for (number, shots) in shots.into_iter().enumerate() {
        let (mut before, mut after, mut gain, mut metric) = (Vec::new(), Vec::new(), Vec::new(), "");
        for seed in args.seed..args.seed + SEEDS {
            let adapted = adapter.run(dataset, Some(shots), seed)?;
            if number == 0 && seed == args.seed {
                outcome = models::tell_bad(&adapted.skipped, talk);
            }
            let Some(held_out) = adapted.held_out else { bail!("no pictures are left to measure with") };
            before.push(100.0 * held_out.before);
            after.push(100.0 * held_out.after);
            gain.push(100.0 * (held_out.after - held_out.before));
            metric = held_out.metric;
        }
        let mut out = io::stdout().lock();
        if args.json {
            let line = json!({"dataset": dataset.name(), "metric": metric, "shots": shots, "first_seed": args.seed,
                "before": before, "after": after});
            writeln!(out, "{line}")?;
            continue;
        }
        if !std::mem::replace(&mut head, true) {
            let line = format!(
                "{metric} in % on pictures that nothing was learnt from: mean of {SEEDS} choices, 95 % interval"
            );
            writeln!(out, "{}", talk.answer.dim(line))?;
            writeln!(out, "{}", talk.answer.dim("shots         before          after           gain"))?;
        }
        let cell = |values: &[f64]| {
            let (mean, half) = mean(values);
            format!("{mean:6.2} ± {half:5.2}")
        };
        writeln!(out, "{shots:>5} {} {} {}", cell(&before), cell(&after), cell(&gain))?;
    }
    Ok(outcome)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_interval_of_five_values_is_students() {
        let (mean, half) = super::mean(&[1.0, 2.0, 3.0, 4.0, 5.0]);
        assert_eq!(mean, 3.0);
        assert!((half - 1.963).abs() < 1e-3, "{half}");
    }
}
