//! The results folder: one JSON file per section and size, and the Markdown and plots that are made of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::curve::{Curve, exponent};
use crate::plot;
use crate::section::search;

/// A table as it is printed.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Table {
    title: String,
    head: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(title: &str, head: &[&str]) -> Table {
        Table { title: title.into(), head: head.iter().map(|&cell| cell.into()).collect(), rows: Vec::new() }
    }

    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    fn markdown(&self) -> String {
        let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
        let rule = vec!["---".to_owned(); self.head.len()];
        let rows: String = self.rows.iter().map(|row| line(row)).collect();
        format!("### {}\n\n{}{}{rows}\n", self.title, line(&self.head), line(&rule))
    }
}

/// What one run of a section measured, and under what conditions.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Outcome {
    pub(crate) section: String,
    pub(crate) n: usize,
    pub(crate) command: String,
    /// The last commit that changed the index under test.
    pub(crate) commit: String,
    pub(crate) machine: String,
    /// Load averages before and after.
    pub(crate) load: String,
    /// Of a section without curves.
    pub(crate) tables: Vec<Table>,
    /// All that the tables of a search are made of.
    pub(crate) curves: Vec<Curve>,
    /// Costs that grow with the number of vectors, as `what/engine`; those of searches follow from the curves.
    pub(crate) numbers: BTreeMap<String, f64>,
}

/// The order in which sections are shown.
const SECTIONS: [&str; 6] = ["search", "build", "open", "commit", "churn", "filter"];

impl Outcome {
    pub(crate) fn save(&self, out: &Path, threads: usize) -> Result<()> {
        let suffix = if threads > 1 { format!("-{threads}threads") } else { String::new() };
        let path = out.join(format!("{}-{}{suffix}.json", self.section, self.n));
        fs::write(&path, serde_json::to_string_pretty(self)? + "\n").with_context(|| path.display().to_string())
    }

    fn markdown(&self) -> String {
        let made = search::tables(self.n, &self.curves);
        let tables = if self.curves.is_empty() { &self.tables } else { &made };
        let mut text: String = tables.iter().map(Table::markdown).collect();
        if !self.curves.is_empty() {
            let _ = write!(text, "![recall against queries per second]({})\n\n", plot_name(self));
        }
        let _ = writeln!(
            text,
            "`{}` with the index of commit {}; {}; load {}.\n",
            self.command, self.commit, self.machine, self.load
        );
        text
    }
}

fn plot_name(outcome: &Outcome) -> String {
    format!("{}-{}.svg", outcome.section, outcome.n)
}

/// Writes `README.md` and the plots of a results folder.
pub(crate) fn write(out: &Path) -> Result<()> {
    render(out)?.into_iter().try_for_each(|(name, text)| Ok(fs::write(out.join(name), text)?))
}

/// `README.md` and the plots of a results folder, made of nothing but its measurements.
fn render(out: &Path) -> Result<Vec<(String, String)>> {
    let mut outcomes = Vec::new();
    for entry in fs::read_dir(out)? {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "json") {
            let text = fs::read_to_string(&path)?;
            outcomes.push(serde_json::from_str::<Outcome>(&text).with_context(|| path.display().to_string())?);
        }
    }
    let rank = |o: &Outcome| SECTIONS.iter().position(|s| *s == o.section).unwrap_or(SECTIONS.len());
    outcomes.sort_by_key(|o| (rank(o), o.n, o.command.clone()));
    let mut text = String::from(
        "# tintype-index and its peers\n\nMedians over rounds in which the engines take turns; how everything is measured, and what to distrust, is in \
         [the README of the benchmark](../../README.md). More than 99,000 vectors are jittered copies of the real ones.\n\n",
    );
    let mut files = Vec::new();
    for outcome in &outcomes {
        text += &outcome.markdown();
        if !outcome.curves.is_empty() {
            files.push((plot_name(outcome), plot::svg(&outcome.curves)));
        }
    }
    if let Some(table) = growth(&outcomes) {
        text += &table.markdown();
    }
    files.push(("README.md".into(), text.trim_end().to_owned() + "\n"));
    Ok(files)
}

/// How costs grow with the number of vectors; `None` with fewer than two sizes.
fn growth(outcomes: &[Outcome]) -> Option<Table> {
    let mut costs: BTreeMap<String, Vec<(f64, f64)>> = BTreeMap::new();
    for outcome in outcomes {
        let numbers = outcome.numbers.iter().map(|(what, &cost)| (what.clone(), cost));
        for (what, cost) in numbers.chain(search::costs(&outcome.curves)) {
            costs.entry(what).or_default().push((outcome.n as f64, cost));
        }
    }
    costs.retain(|_, points| points.len() > 1);
    let split = |what: &str| what.split_once('/').map(|(cost, engine)| (cost.to_owned(), engine.to_owned()));
    let names: BTreeSet<String> = costs.keys().filter_map(|what| Some(split(what)?.0)).collect();
    let mut table = Table::new("Growth: the exponent b of cost = a · n^b", &["engine"]);
    table.head.extend(names.iter().cloned());
    let engines: BTreeSet<String> = costs.keys().filter_map(|what| Some(split(what)?.1)).collect();
    for engine in engines {
        let cells = names.iter().map(|cost| {
            let points = costs.get(&format!("{cost}/{engine}"));
            points.map_or("–".to_owned(), |p| format!("{:.2} (n {})", exponent(p), sizes(p)))
        });
        let cells: Vec<String> = cells.collect();
        table.row(std::iter::once(engine).chain(cells));
    }
    (!table.rows.is_empty()).then_some(table)
}

fn sizes(points: &[(f64, f64)]) -> String {
    points.iter().map(|p| p.0.to_string()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_tables_and_plots_follow_from_the_measurements_beside_them() {
        for entry in fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/results")).unwrap() {
            let out = entry.unwrap().path();
            for (name, text) in render(&out).unwrap() {
                let stored = fs::read_to_string(out.join(&name)).unwrap();
                assert!(stored == text, "{}: `compare report` would write another", out.join(name).display());
            }
        }
    }
}
