//! Recall after 30 % of the vectors was removed and as many new ones were added, beside a build of what is then there.

use anyhow::Result;

use super::{Bench, say};
use crate::data::{K, Queries, exact_worker, recall, uniform};
use crate::engine::Entry;
use crate::report::Table;
use crate::worker::{Query, Request, Worker};

const SHARE: f64 = 0.3;
/// Walk width by kind of query: image, text.
const EF: [usize; 2] = [64, 256];

/// Which vectors are there when.
struct Plan {
    first: Vec<usize>,
    removed: Vec<usize>,
    added: Vec<usize>,
    last: Vec<usize>,
    /// Exact neighbours in `last`: image, text.
    truth: Vec<Vec<Vec<u64>>>,
}

impl Plan {
    fn new(bench: &Bench) -> Result<Plan> {
        let n = bench.data.n;
        let mut state = 1;
        let mut order: Vec<(f32, usize)> = (0..n).map(|row| (uniform(&mut state), row)).collect();
        order.sort_by(|a, b| a.0.total_cmp(&b.0));
        let count = (n as f64 / (1.0 + SHARE)) as usize;
        let changed = (count as f64 * SHARE) as usize;
        let rows = |from: usize, to: usize| {
            let mut rows: Vec<usize> = order[from..to].iter().map(|&(_, row)| row).collect();
            rows.sort_unstable();
            rows
        };
        let [first, removed, added, last] =
            [rows(0, count), rows(0, changed), rows(count, count + changed), rows(changed, count + changed)];
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

    /// Recall, and queries per second, of a kind of query.
    fn ask(
        &self,
        bench: &Bench,
        worker: &mut Worker,
        entry: &Entry,
        kind: usize,
        queries: &Queries,
    ) -> Result<(f64, f64)> {
        let at = queries.reported();
        let (mut rows, refine) = (queries.rows.clone(), entry.refine[0]);
        let query = Query {
            rows: std::mem::take(&mut rows),
            at: at.clone(),
            k: K,
            ef: Some(EF[kind]),
            refine,
            ..Query::default()
        };
        worker.ask(&Request::Query(query.clone()))?;
        let answer = worker.ask(&Request::Query(query))?;
        let truth: Vec<&[u64]> = self.truth[kind].iter().map(Vec::as_slice).collect();
        let recall = recall(&bench.data.base, &queries.rows, &at, &truth, &answer.found)?;
        Ok((recall, at.len() as f64 / answer.cpu))
    }
}

pub(crate) fn run(bench: &Bench) -> Result<()> {
    let plan = Plan::new(bench)?;
    let title = format!(
        "{} of {} vectors removed and {} added (image: ef {}, text: ef {})",
        plan.removed.len(),
        plan.first.len(),
        plan.added.len(),
        EF[0],
        EF[1],
    );
    let head = ["engine", "state", "CPU-s", "image recall@10", "image q/s", "text recall@10", "text q/s"];
    let mut table = Table::new(&title, &head);
    for entry in bench.stores() {
        say(entry.name);
        let mut row = |worker: &mut Worker, state: &str, cpu: f64| -> Result<()> {
            let mut cells = vec![entry.name.to_owned(), state.to_owned(), format!("{cpu:.1}")];
            for (kind, queries) in bench.data.queries().into_iter().enumerate() {
                let (recall, qps) = plan.ask(bench, worker, entry, kind, queries)?;
                cells.extend([format!("{recall:.4}"), format!("{qps:.0}")]);
            }
            table.row(cells);
            Ok(())
        };
        let dir = bench.data.store(entry.store).with_extension("churn");
        let mut worker = bench.start(entry)?;
        let mut replace = || -> Result<f64> {
            bench.fill(&mut worker, dir.clone(), plan.first.clone())?;
            let remove = Request::Remove { keys: plan.removed.iter().map(|&row| row as u64).collect() };
            let add = Request::Add { rows: bench.data.base.clone(), at: plan.added.clone(), offset: 0 };
            [remove, add, Request::Commit].iter().map(|request| Ok(worker.ask(request)?.cpu)).sum()
        };
        let replaced = match replace() {
            Ok(cpu) => cpu,
            Err(error) => {
                let cells = [entry.name.to_owned(), error.root_cause().to_string()];
                table.row(cells.into_iter().chain(std::iter::repeat_n("–".to_owned(), 5)));
                continue;
            }
        };
        row(&mut worker, "replaced", replaced)?;
        if let Ok(compacted) = worker.ask(&Request::Compact) {
            row(&mut worker, "replaced, compacted", compacted.cpu)?;
        }
        let mut fresh = bench.start(entry)?;
        let cpu = bench.fill(&mut fresh, dir.with_extension("fresh"), plan.last.clone())?.iter().map(|a| a.cpu).sum();
        row(&mut fresh, "built afresh", cpu)?;
    }
    bench.record("churn", vec![table], |_| ())
}
