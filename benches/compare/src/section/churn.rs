//! Recall after 30 % of the vectors was removed and as many new ones were added, beside a build of what is then there.
//!
//! Orders of building alone move recall by as much as is looked for here, so every round draws anew which vectors are there when, and
//! in which order they come to either index; what counts is the mean of the differences, and how sure it is.

use anyhow::Result;

use super::{Bench, say, spread};
use crate::data::{K, exact_worker, recall, uniform};
use crate::engine::Entry;
use crate::report::Table;
use crate::worker::{Query, Request, Worker};

const SHARE: f64 = 0.3;
/// Walk width by kind of query: image, text.
const EF: [usize; 2] = [64, 256];
/// What is compared; with the last of them.
const STATES: [&str; 3] = ["replaced", "replaced, compacted", "built afresh"];

/// Which vectors are there when, in the order in which they come.
struct Plan {
    first: Vec<usize>,
    removed: Vec<usize>,
    added: Vec<usize>,
    last: Vec<usize>,
    /// Exact neighbours in `last`: image, text.
    truth: Vec<Vec<Vec<u64>>>,
}

fn shuffle(rows: &[usize], state: &mut u64) -> Vec<usize> {
    let mut order: Vec<(f32, usize)> = rows.iter().map(|&row| (uniform(state), row)).collect();
    order.sort_by(|a, b| a.0.total_cmp(&b.0));
    order.into_iter().map(|(_, row)| row).collect()
}

impl Plan {
    fn new(bench: &Bench, round: usize) -> Result<Plan> {
        let n = bench.data.n;
        let mut state = round as u64 + 1;
        let rows = shuffle(&(0..n).collect::<Vec<_>>(), &mut state);
        let count = (n as f64 / (1.0 + SHARE)) as usize;
        let changed = (count as f64 * SHARE) as usize;
        let mut drawn = |from: usize, to: usize| shuffle(&rows[from..to], &mut state);
        let [first, removed, added, last] =
            [drawn(0, count), drawn(0, changed), drawn(count, count + changed), drawn(changed, count + changed)];
        let mut exact = exact_worker(&bench.data.base, last.clone(), &bench.options.python)?;
        let mut truth = Vec::new();
        for queries in bench.data.queries() {
            let query = Query { rows: queries.rows.clone(), at: queries.reported(), k: K, ..Query::default() };
            let mut found = exact.ask(&Request::Query(query))?.found;
            found.iter_mut().flatten().for_each(|place| *place = last[*place as usize] as u64);
            truth.push(found);
        }
        Ok(Plan { first, removed, added, last, truth })
    }

    /// What an index finds that took `cpu` seconds.
    fn ask(&self, bench: &Bench, worker: &mut Worker, entry: &Entry, cpu: f64) -> Result<Measured> {
        let mut measured = Measured { cpu, ..Measured::default() };
        for (kind, queries) in bench.data.queries().into_iter().enumerate() {
            let (at, refine) = (queries.reported(), entry.refine[0]);
            let rows = queries.rows.clone();
            let query = Query { rows, at: at.clone(), k: K, ef: Some(EF[kind]), refine, ..Query::default() };
            worker.ask(&Request::Query(query.clone()))?;
            let answer = worker.ask(&Request::Query(query))?;
            let truth: Vec<&[u64]> = self.truth[kind].iter().map(Vec::as_slice).collect();
            measured.recall[kind] = recall(&bench.data.base, &queries.rows, &at, &truth, &answer.found)?;
            measured.speed[kind] = at.len() as f64 / answer.cpu;
        }
        Ok(measured)
    }

    /// One round of an engine; the states that it comes to.
    fn run(&self, bench: &Bench, entry: &Entry, states: &mut [Vec<Measured>; STATES.len()]) -> Result<()> {
        let dir = bench.data.store(entry.store).with_extension("churn");
        let mut worker = bench.start(entry)?;
        bench.fill(&mut worker, dir.clone(), self.first.clone())?;
        let remove = Request::Remove { keys: self.removed.iter().map(|&row| row as u64).collect() };
        let add = Request::Add { rows: bench.data.base.clone(), at: self.added.clone(), offset: 0 };
        let steps = [remove, add, Request::Commit];
        let cpu = steps.iter().map(|request| Ok(worker.ask(request)?.cpu)).sum::<Result<f64>>()?;
        states[0].push(self.ask(bench, &mut worker, entry, cpu)?);
        if let Ok(compacted) = worker.ask(&Request::Compact) {
            states[1].push(self.ask(bench, &mut worker, entry, compacted.cpu)?);
        }
        let mut fresh = bench.start(entry)?;
        let cpu = bench.fill(&mut fresh, dir.with_extension("fresh"), self.last.clone())?.iter().map(|a| a.cpu).sum();
        states[2].push(self.ask(bench, &mut fresh, entry, cpu)?);
        Ok(())
    }
}

/// What one state of an index cost and finds; by kind of query: image, text.
#[derive(Default)]
struct Measured {
    cpu: f64,
    recall: [f64; 2],
    /// Queries per second.
    speed: [f64; 2],
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// The mean in points and its standard error, which needs more than one value.
fn points(differences: &[f64]) -> String {
    let mean = mean(differences);
    let count = differences.len() as f64;
    let variance = differences.iter().map(|d| (d - mean).powi(2)).sum::<f64>() / (count - 1.0);
    if count < 2.0 {
        format!("{:+.2}", 100.0 * mean)
    } else {
        format!("{:+.2} ± {:.2}", 100.0 * mean, 100.0 * (variance / count).sqrt())
    }
}

pub(crate) fn run(bench: &Bench) -> Result<()> {
    let plans = (0..bench.options.rounds).map(|round| Plan::new(bench, round)).collect::<Result<Vec<_>>>()?;
    let Some(plan) = plans.first() else { return Ok(()) };
    let title = format!(
        "{} of {} vectors removed and {} added, {} random orders (image: ef {}, text: ef {}): means, and points beside a fresh \
         build ± their standard error",
        plan.removed.len(),
        plan.first.len(),
        plan.added.len(),
        plans.len(),
        EF[0],
        EF[1],
    );
    let head =
        ["engine", "state", "CPU-s", "image recall@10", "points", "image q/s", "text recall@10", "points", "text q/s"];
    let mut table = Table::new(&title, &head);
    for entry in bench.stores() {
        let mut states: [Vec<Measured>; STATES.len()] = Default::default();
        for (round, plan) in plans.iter().enumerate() {
            say(&format!("round {round}: {}", entry.name));
            if let Err(error) = plan.run(bench, entry, &mut states) {
                let cells = [entry.name.to_owned(), error.root_cause().to_string()];
                table.row(cells.into_iter().chain(std::iter::repeat_n("–".to_owned(), head.len() - 2)));
                states = Default::default();
                break;
            }
        }
        let fresh = states.last().map_or(&[][..], Vec::as_slice);
        for (name, measured) in STATES.into_iter().zip(&states).filter(|(_, measured)| !measured.is_empty()) {
            let all = |of: &dyn Fn(&Measured) -> f64| measured.iter().map(of).collect::<Vec<f64>>();
            let mut cells = vec![entry.name.to_owned(), name.to_owned(), spread(&all(&|m| m.cpu), 1.0, 1)];
            for kind in 0..EF.len() {
                let beside: Vec<f64> =
                    measured.iter().zip(fresh).map(|(m, fresh)| m.recall[kind] - fresh.recall[kind]).collect();
                let is_fresh = std::ptr::eq(measured.as_slice(), fresh);
                cells.extend([
                    format!("{:.4}", mean(&all(&|m| m.recall[kind]))),
                    if is_fresh { "–".to_owned() } else { points(&beside) },
                    spread(&all(&|m| m.speed[kind]), 1.0, 0),
                ]);
            }
            table.row(cells);
        }
    }
    bench.record("churn", vec![table], |_| ())
}
