//! Sequences of operations against a plain model: whatever is added, replaced, removed, committed, compacted and reopened, with
//! operations of the storage that fail and power cuts in between, readers see exactly what a commit made.
#![no_main]

#[allow(dead_code, reason = "shared with the tests")]
#[path = "../../tests/simulated.rs"]
mod simulated;
#[allow(dead_code, reason = "shared with the tests")]
#[path = "../../tests/support.rs"]
mod support;

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use tintype_index::{Config, Error, Index, Key, KeySet, Metric, Neighbor, Reader, Rows, Writer};

use simulated::{Fails, Simulated};
use support::{Model, Random};

#[derive(Arbitrary, Debug)]
enum Op {
    Add {
        key: u8,
        vector: u16,
    },
    AddMany {
        first: u16,
        count: u8,
        seed: u8,
        equal: bool,
    },
    Remove(u8),
    RemoveMany {
        first: u16,
        count: u8,
        step: u8,
    },
    /// Sample queries for the graphs to come.
    Samples {
        count: u8,
        seed: u16,
    },
    Commit,
    CommitBroken {
        after: u8,
    },
    Compact,
    CompactBroken {
        after: u8,
    },
    /// Merges run on a thread of their own from here on; every so often one is told to stop.
    Background {
        stop_every: u8,
    },
    /// Waits for a merge under way, without installing it.
    Settle,
    Close,
    Reopen,
    /// Keeps a snapshot for later, beside one that is older.
    Snapshot,
    Search {
        vector: u16,
        k: u16,
        how: How,
    },
    Fail {
        after: u8,
    },
    PowerCut {
        seed: u16,
        chance: u8,
    },
}

#[derive(Arbitrary, Debug)]
enum How {
    Default,
    Exact,
    Recall(u8),
    Ef(u8),
    Filter { every: u8, exact: bool },
    Among { every: u8, exact: bool },
    Key(u8),
    Batch,
}

#[derive(Arbitrary, Debug)]
struct Input {
    dim: u8,
    metric: u8,
    rows: bool,
    links: u8,
    build_ef: u8,
    ops: Vec<Op>,
}

type Contents = BTreeMap<Key, Vec<f32>>;

struct Run {
    storage: Simulated,
    index: Index,
    config: Config,
    writer: Option<Writer>,
    /// With the changes since the last commit.
    now: Contents,
    committed: Contents,
    /// What a power cut may bring back: what was committed before commits that are seen but were not acknowledged.
    perhaps: Vec<Contents>,
    snapshots: Vec<(Reader, Contents)>,
    /// Whether merges may have been told to stop.
    background: bool,
}

/// Small whole numbers: equal vectors come up, and halves are exact.
fn vector(config: &Config, seed: u64) -> Vec<f32> {
    let mut random = Random(seed);
    let mut vector: Vec<f32> = (0..config.dim).map(|_| random.below(9) as f32 - 4.0).collect();
    if vector.iter().all(|&x| x == 0.0) {
        vector[0] = 1.0;
    }
    vector
}

impl Run {
    fn new(input: &Input) -> Run {
        let storage = Simulated::default();
        let config = Config {
            dim: usize::from(input.dim % 70).max(1),
            metric: [Metric::Cosine, Metric::Dot, Metric::L2][usize::from(input.metric) % 3],
            rows: if input.rows { Rows::F32 } else { Rows::F16 },
            links: usize::from(4 + input.links % 20),
            build_ef: usize::from(8 + input.build_ef % 24),
            ..Config::default()
        };
        let index = Index::create_on(Arc::new(storage.clone()), config.clone()).expect("an empty index");
        let writer = Some(index.writer().expect("a writer"));
        Run {
            storage,
            index,
            config,
            writer,
            now: Contents::new(),
            committed: Contents::new(),
            perhaps: Vec::new(),
            snapshots: Vec::new(),
            background: false,
        }
    }

    fn writer(&mut self) -> &mut Writer {
        self.writer.get_or_insert_with(|| {
            // What a writer left that was broken off is put in order first, and that may be what fails, once.
            let again = |error| if matches!(error, Error::Io { .. }) { self.index.writer() } else { Err(error) };
            self.index.writer().or_else(again).expect("nobody else writes")
        })
    }

    fn add(&mut self, key: Key, vector: Vec<f32>) {
        match self.writer().add(key, &vector) {
            // Memory full and the file not written: added nevertheless.
            Ok(()) | Err(Error::Io { .. }) => drop(self.now.insert(key, vector)),
            Err(Error::Poisoned { .. }) => self.reopen(),
            Err(e) => panic!("{e:?}"),
        }
    }

    fn remove(&mut self, key: Key) {
        match self.writer().remove(key) {
            Ok(was) => assert_eq!(was, self.now.remove(&key).is_some()),
            Err(Error::Poisoned { .. }) => self.reopen(),
            Err(e) => panic!("{e:?}"),
        }
    }

    fn samples(&mut self, count: u8, seed: u16) {
        let samples = (0..u64::from(count)).map(|at| vector(&self.config, 7 * u64::from(seed) + at));
        let samples: Vec<Vec<f32>> = samples.collect();
        match self.writer().set_sample_queries(&samples) {
            Ok(()) => assert_eq!(self.writer().sample_queries(), count.into()),
            Err(Error::Poisoned { .. }) => self.reopen(),
            Err(e) => panic!("{e:?}"),
        }
    }

    /// The writer goes, and with it what was not committed; after an ambiguous failure the disk says what was.
    fn reopen(&mut self) {
        self.storage.fail(None);
        self.writer = None;
        let found = contents(&self.index.reader().expect("no damage"));
        self.see(&found);
        self.now = self.committed.clone();
    }

    /// A commit that failed may be seen all the same.
    fn see(&mut self, found: &Contents) {
        if !same(&self.config, found, &self.committed) {
            assert!(same(&self.config, found, &self.now), "neither the last commit nor the one in flight");
            self.perhaps.push(std::mem::replace(&mut self.committed, self.now.clone()));
        }
    }

    fn acknowledge(&mut self) {
        self.committed = self.now.clone();
        self.perhaps.clear();
        self.check_last();
    }

    fn commit(&mut self, compact: bool, after: Option<u8>) {
        let mut asked = 0;
        let mut watch = |done: u64, total: u64| {
            assert!(done <= total);
            asked += 1;
            if after.is_some_and(|after| asked > u32::from(after)) {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        };
        let writer = self.writer();
        let done = match (compact, after) {
            (true, _) => writer.compact_watched(&mut watch),
            (false, Some(_)) => writer.commit_watched(&mut watch),
            (false, None) => writer.commit(),
        };
        match done {
            Ok(_) => self.acknowledge(),
            // The commit stands, without the graph.
            Err(Error::Cancelled) => {
                assert!(after.is_some() || self.background);
                self.acknowledge();
            }
            // Either state may be on disk, and the handle says what it takes.
            Err(Error::Io { .. }) => {
                let found = contents(&self.index.reader().expect("no damage"));
                self.see(&found);
            }
            Err(Error::Poisoned { .. }) => self.reopen(),
            Err(e) => panic!("{e:?}"),
        }
    }

    fn check_last(&mut self) {
        let reader = self.index.reader().expect("no damage");
        let report = reader.verify().expect("a report");
        assert!(report.is_clean(), "{report:?}");
        assert_eq!(reader.len(), self.committed.len() as u64);
        assert_eq!(self.writer().len(), self.committed.len() as u64);
        assert!(same(&self.config, &contents(&reader), &self.committed));
    }

    fn power_cut(&mut self, seed: u16, chance: u8) {
        self.storage.fail(None);
        let left = self.storage.after_power_cut(&mut Random(seed.into()), u64::from(chance % 11));
        self.snapshots.clear();
        self.writer = None;
        self.storage = left;
        self.index =
            Index::open_on(Arc::new(self.storage.clone())).expect("whatever happened, there is a whole manifest");
        let found = contents(&self.index.reader().expect("no damage"));
        if let Some(at) = self.perhaps.iter().position(|perhaps| same(&self.config, &found, perhaps)) {
            self.committed = self.perhaps.swap_remove(at);
        }
        self.reopen();
        self.perhaps.clear();
        let report = self.index.reader().expect("no damage").verify().expect("a report");
        assert!(report.is_clean(), "{report:?}");
    }

    fn search(&mut self, query: &[f32], k: usize, how: &How) {
        let last = (self.index.reader().expect("no damage"), self.committed.clone());
        for (reader, contents) in self.snapshots.iter().chain([&last]) {
            search(&self.config, reader, contents, query, k, how);
        }
    }
}

fn contents(reader: &Reader) -> Contents {
    let keys = reader.keys().map(|key| key.expect("no damage"));
    keys.map(|key| (key, reader.get(key).expect("no damage").expect("a listed key is there"))).collect()
}

/// Stored vectors are normalised for cosine, and perhaps rounded.
fn same(config: &Config, stored: &Contents, given: &Contents) -> bool {
    stored.len() == given.len()
        && stored.iter().zip(given).all(|((a, stored), (b, given))| {
            let norm = given.iter().map(|x| x * x).sum::<f32>().sqrt();
            let norm = if config.metric == Metric::Cosine { norm } else { 1.0 };
            a == b && stored.iter().zip(given).all(|(s, g)| (s - g / norm).abs() < 1e-3)
        })
}

fn search(config: &Config, reader: &Reader, contents: &Contents, query: &[f32], k: usize, how: &How) {
    let model = Model { metric: config.metric, vectors: contents.clone() };
    let none = KeySet::default();
    let check = |found: &[Neighbor], exact: bool, passes: &dyn Fn(Key) -> bool| {
        let allowed = model.vectors.iter().filter(|(key, _)| passes(**key));
        let allowed = Model { metric: model.metric, vectors: allowed.map(|(key, v)| (*key, v.clone())).collect() };
        let slack = |score: f64| (if config.rows == Rows::F32 { 1e-4 } else { 3e-3 }) * (1.0 + score.abs());
        assert!(found.len() <= k.min(allowed.vectors.len()));
        let mut keys: Vec<Key> = found.iter().map(|f| f.key).collect();
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), found.len(), "a key twice");
        for pair in found.windows(2) {
            assert!(pair[0].score > pair[1].score || pair[0].score == pair[1].score && pair[0].key < pair[1].key);
        }
        for f in found {
            let own = model.score(query, allowed.vectors.get(&f.key).expect("a key that may be found"));
            assert!((f64::from(f.score) - own).abs() < slack(own), "{f:?} but the vector scores {own}");
        }
        if exact {
            let expected = allowed.nearest(query, k);
            assert_eq!(found.len(), expected.len());
            for (f, e) in found.iter().zip(&expected) {
                assert!((f64::from(f.score) - e.1).abs() < slack(e.1), "{f:?} where {e:?} was expected");
            }
        }
    };
    let request = reader.search(query).k(k);
    let any: &dyn Fn(Key) -> bool = &|_| true;
    match how {
        How::Default => check(&request.run().expect("an answer"), false, any),
        How::Exact => check(&request.recall(1.0).run().expect("an answer"), true, any),
        How::Recall(r) => check(&request.recall(f32::from(*r) / 255.0).run().expect("an answer"), *r == 255, any),
        How::Ef(ef) => check(&request.ef((*ef).into()).run().expect("an answer"), false, any),
        How::Filter { every, exact } => {
            let passes = |key: Key| key.is_multiple_of(u64::from(*every) + 1);
            let request = request.filter(passes);
            let request = if *exact { request.recall(1.0) } else { request };
            check(&request.run().expect("an answer"), *exact, &passes);
        }
        How::Among { every, exact } => {
            let passes = |key: Key| key < 4000 && key.is_multiple_of(u64::from(*every) + 1);
            let set: KeySet = (0..4000).filter(|&key| passes(key)).collect();
            let request = request.among(&set);
            let request = if *exact { request.recall(1.0) } else { request };
            check(&request.run().expect("an answer"), *exact, &passes);
            assert!(reader.search(query).among(&none).run().expect("an answer").is_empty());
        }
        How::Key(key) => match reader.search_key((*key).into()) {
            Ok(request) => {
                let own = &contents[&u64::from(*key)];
                let found = request.k(k).recall(1.0).run().expect("an answer");
                assert!(found.iter().all(|f| f.key != u64::from(*key)));
                assert_eq!(found.len(), k.min(contents.len() - 1), "{own:?}");
            }
            Err(Error::UnknownKey { .. }) => assert!(!contents.contains_key(&u64::from(*key))),
            Err(e) => panic!("{e:?}"),
        },
        How::Batch => {
            let queries = [query, query];
            let found = reader.search_batch(&queries).k(k).run().expect("answers");
            let alone = request.run().expect("an answer");
            assert!(found.iter().all(|found| *found == alone));
        }
    }
}

fuzz_target!(|input: Input| {
    let mut run = Run::new(&input);
    for op in input.ops.iter().take(48) {
        match op {
            Op::Add { key, vector: seed } => run.add((*key).into(), vector(&run.config, (*seed).into())),
            Op::AddMany { first, count, seed, equal } => {
                for key in u64::from(first % 2000)..u64::from(first % 2000) + u64::from(*count) {
                    let seed = if *equal { u64::from(*seed) } else { key * 1000 + u64::from(*seed) };
                    run.add(key, vector(&run.config, seed));
                }
            }
            Op::Remove(key) => run.remove((*key).into()),
            Op::RemoveMany { first, count, step } => {
                let keys = (0..u64::from(*count)).map(|at| u64::from(first % 2000) + at * (u64::from(step % 4) + 1));
                keys.for_each(|key| run.remove(key));
            }
            Op::Samples { count, seed } => run.samples(*count, *seed),
            Op::Commit => run.commit(false, None),
            Op::CommitBroken { after } => run.commit(false, Some(*after)),
            Op::Compact => run.commit(true, None),
            Op::CompactBroken { after } => run.commit(true, Some(*after)),
            Op::Background { stop_every } => {
                let (every, mut asked) = (u32::from(*stop_every) + 1, 0u32);
                run.background = true;
                run.writer().merge_in_background(move |done, total| {
                    assert!(done <= total);
                    asked += 1;
                    if every < 20 && asked.is_multiple_of(every) {
                        ControlFlow::Break(())
                    } else {
                        ControlFlow::Continue(())
                    }
                });
            }
            Op::Settle => {
                while run.writer().merging().is_some() {
                    std::thread::yield_now();
                }
            }
            Op::Close => {
                let writer = run.writer.take();
                match writer.map(Writer::close) {
                    Some(Ok(_)) => run.acknowledge(),
                    Some(Err(_)) => run.reopen(),
                    None => {}
                }
            }
            Op::Reopen => run.reopen(),
            Op::Snapshot => {
                let snapshot = (run.index.reader().expect("no damage"), run.committed.clone());
                run.snapshots.push(snapshot);
                if run.snapshots.len() > 2 {
                    run.snapshots.remove(0);
                }
            }
            Op::Search { vector: seed, k, how } => {
                let query = vector(&run.config, (*seed).into());
                run.search(&query, (*k).into(), how);
            }
            Op::Fail { after } => {
                let step = run.storage.steps() + 1 + usize::from(*after);
                run.storage.fail(Some(Fails::Once(step)));
            }
            Op::PowerCut { seed, chance } => run.power_cut(*seed, *chance),
        }
    }
    run.storage.fail(None);
    run.commit(false, None);
    run.search(&vector(&run.config, 1), 5, &How::Exact);
});
