//! Power cuts and failing operations at every step of a workload: nothing that was acknowledged is ever lost.

use std::collections::BTreeMap;
use std::sync::Arc;

use tintype_index::{Config, Error, Index, Key, Metric, Reader, Writer};

use crate::simulated::{Fails, Simulated};
use crate::support::Random;

const DIM: usize = 5;

type Contents = BTreeMap<Key, Vec<f32>>;

/// No vector has this key; how many sample queries there are stands under it.
const SAMPLES: Key = Key::MAX;

/// A workload of adds, updates, removes, commits and compactions; the same for a seed.
struct Workload {
    random: Random,
    /// With the changes since the last commit.
    now: Contents,
    acknowledged: Contents,
}

impl Workload {
    fn new(seed: u64) -> Workload {
        let empty = Contents::from([(SAMPLES, vec![0.0])]);
        Workload { random: Random(seed), now: empty.clone(), acknowledged: empty }
    }

    fn change(&mut self, writer: &mut Writer) -> Result<(), Error> {
        for _ in 0..1 + self.random.below(12) {
            let key = self.random.below(40);
            if self.random.below(3) == 0 {
                assert_eq!(writer.remove(key)?, self.now.remove(&key).is_some());
            } else {
                let vector = self.random.vector(DIM);
                // It is added even if memory was full and a file could not be written.
                self.now.insert(key, vector.clone());
                writer.add(key, &vector)?;
            }
        }
        Ok(())
    }

    /// One round: changes, then a commit or a compaction.
    fn round(&mut self, at: usize, writer: &mut Writer) -> Result<(), Error> {
        self.change(writer)?;
        if at % 3 == 1 {
            let samples: Vec<_> = (0..at % 4).map(|_| self.random.vector(DIM)).collect();
            writer.set_sample_queries(&samples)?;
            self.now.insert(SAMPLES, vec![samples.len() as f32]);
        }
        if at % 4 == 3 {
            writer.compact()?
        } else {
            writer.commit()?
        };
        self.acknowledged = self.now.clone();
        Ok(())
    }
}

const ROUNDS: usize = 9;

fn create() -> (Simulated, Index) {
    let storage = Simulated::default();
    let config = Config { dim: DIM, metric: Metric::L2, ..Config::default() };
    let index = Index::create_on(Arc::new(storage.clone()), config).unwrap();
    (storage, index)
}

/// What a writer holds in memory: everything, or so little that files are written between commits, and synced later.
const HELD: [usize; 2] = [usize::MAX, 3 * (4 * DIM + 48)];

fn holding(index: &Index, bytes: usize) -> Writer {
    let mut writer = index.writer().unwrap();
    writer.hold(bytes);
    writer
}

fn contents(reader: &Reader) -> Contents {
    let keys = reader.keys().map(Result::unwrap);
    let vectors = keys.map(|key| (key, reader.get(key).unwrap().expect("a listed key is there")));
    vectors.chain([(SAMPLES, vec![reader.sample_queries() as f32])]).collect()
}

/// Opens what a power cut left, checks it, and works on with it.
fn assert_survived(left: &Simulated, acknowledged: &Contents, in_flight: &Contents, what: &str) {
    let index = Index::open_on(Arc::new(left.clone())).unwrap_or_else(|e| panic!("{what}: {e}"));
    let reader = index.reader().unwrap_or_else(|e| panic!("{what}: {e}"));
    let report = reader.verify().unwrap();
    assert!(report.is_clean(), "{what}: {report:?}");
    let found = contents(&reader);
    assert!(found == *acknowledged || found == *in_flight, "{what}: neither the last commit nor the one in flight");
    let mut writer = index.writer().unwrap_or_else(|e| panic!("{what}: {e}"));
    writer.add(1_000, &[1.0; DIM]).unwrap();
    writer.commit().unwrap();
    let mut more = found;
    more.insert(1_000, vec![1.0; DIM]);
    assert_eq!(contents(&index.reader().unwrap()), more, "{what}");
    assert!(index.reader().unwrap().verify().unwrap().is_clean(), "{what}");
    let strangers =
        left.names().into_iter().filter(|n| n != "MANIFEST" && !n.ends_with(".seg") && !n.ends_with(".del"));
    let samples = usize::from(writer.sample_queries() > 0);
    assert_eq!(strangers.count(), samples, "{what}: leftovers stay: {:?}", left.names());
}

#[test]
fn a_power_cut_after_any_step_loses_nothing_that_was_acknowledged() {
    for held in HELD {
        let steps = {
            let (storage, index) = create();
            let mut work = Workload::new(1);
            let mut writer = holding(&index, held);
            (0..ROUNDS).for_each(|at| work.round(at, &mut writer).unwrap());
            drop(writer);
            storage.steps()
        };
        assert!(steps > 100, "{steps}");
        let mut random = Random(99);
        for cut in create().0.steps() + 1..=steps + 1 {
            let (storage, index) = create();
            storage.fail(Some(Fails::From(cut)));
            let mut work = Workload::new(1);
            let mut writer = holding(&index, held);
            for at in 0..ROUNDS {
                if work.round(at, &mut writer).is_err() {
                    break;
                }
            }
            drop(writer);
            for (chance, tries) in [(0, 1), (10, 1), (5, 6)] {
                for one in 0..tries {
                    let left = storage.after_power_cut(&mut random, chance);
                    let what = format!("{held} bytes held, cut at step {cut}, chance {chance}, try {one}");
                    assert_survived(&left, &work.acknowledged, &work.now, &what);
                }
            }
        }
    }
}

/// As above, with merges on a thread of their own: what they write falls between the writer's steps as it happens to.
#[test]
fn a_power_cut_beside_a_merge_in_the_background_loses_nothing() {
    let run = |cut: Option<usize>, seed: u64| {
        let (storage, index) = create();
        storage.fail(cut.map(Fails::From));
        let mut work = Workload::new(seed);
        let mut writer = index.writer().unwrap();
        // Every commit begins a merge; some of them make a graph.
        writer.fold_at(6, 12);
        writer.merge_in_background(|_, _| std::ops::ControlFlow::Continue(()));
        for at in 0..2 * ROUNDS {
            if work.round(at, &mut writer).is_err() {
                break;
            }
            if at % 3 == 0 {
                while writer.merging().is_some() {
                    std::thread::yield_now();
                }
            }
        }
        drop(writer);
        (storage, work)
    };
    let steps = run(None, 3).0.steps();
    assert!(steps > 150, "{steps}");
    let mut random = Random(98);
    for cut in create().0.steps() + 1..=steps + 10 {
        let (storage, work) = run(Some(cut), 3);
        for (chance, tries) in [(0, 1), (10, 1), (5, 3)] {
            for one in 0..tries {
                let left = storage.after_power_cut(&mut random, chance);
                let what = format!("background, cut at step {cut}, chance {chance}, try {one}");
                assert_survived(&left, &work.acknowledged, &work.now, &what);
            }
        }
    }
}

/// A process that dies leaves the system behind, which shows what was done though it may not be on the medium.
#[test]
fn a_power_cut_after_a_writer_that_followed_a_dead_one_loses_nothing() {
    let mut random = Random(97);
    let mut acknowledged_by_the_second = 0;
    for cut in create().0.steps() + 1.. {
        let (dead, index) = create();
        dead.fail(Some(Fails::From(cut)));
        let mut work = Workload::new(5);
        let mut writer = index.writer().unwrap();
        let done = (0..ROUNDS).all(|at| work.round(at, &mut writer).is_ok());
        drop(writer);
        if done {
            break;
        }
        // Nobody writes, a writer comes and does nothing, or it dies too, somewhere.
        for (last, chance) in [(0, 0), (40, 0), (40, 5), (1 + random.below(12), 0), (1 + random.below(12), 5)] {
            let what = format!("dead at step {cut}, then {last} steps, chance {chance}");
            let storage = dead.copy();
            let index = Index::open_on(Arc::new(storage.clone())).unwrap();
            let seen = contents(&index.reader().unwrap());
            storage.fail(Some(Fails::From(1 + last as usize)));
            let committed = index.writer().and_then(|mut writer| writer.commit()).is_ok();
            let left = storage.after_power_cut(&mut random, chance);
            if committed {
                acknowledged_by_the_second += 1;
                assert_survived(&left, &seen, &seen, &what);
            } else {
                assert_survived(&left, &work.acknowledged, &work.now, &what);
            }
        }
    }
    assert!(acknowledged_by_the_second > 200, "{acknowledged_by_the_second}");
}

#[test]
fn a_power_cut_while_an_index_is_made_leaves_one_or_none() {
    let steps = create().0.steps();
    let mut random = Random(7);
    for cut in 1..=steps {
        let storage = Simulated::default();
        storage.fail(Some(Fails::From(cut)));
        let config = Config { dim: DIM, ..Config::default() };
        assert!(Index::create_on(Arc::new(storage.clone()), config.clone()).is_err());
        for chance in [0, 5, 5, 5, 10] {
            let left = storage.after_power_cut(&mut random, chance);
            match Index::open_on(Arc::new(left.clone())) {
                Ok(index) => assert!(index.reader().unwrap().is_empty()),
                Err(Error::NotFound { .. }) => drop(Index::create_on(Arc::new(left), config.clone()).unwrap()),
                Err(e) => panic!("cut at step {cut}: {e}"),
            }
        }
    }
}

#[test]
fn an_operation_that_fails_is_an_error_and_the_work_goes_on() {
    HELD.into_iter().for_each(operations_fail);
}

fn operations_fail(held: usize) {
    let steps = {
        let (storage, index) = create();
        let mut work = Workload::new(2);
        let mut writer = holding(&index, held);
        (0..ROUNDS).for_each(|at| work.round(at, &mut writer).unwrap());
        storage.steps()
    };
    let (mut errors, mut poisoned) = (0, 0);
    let mut random = Random(96);
    for fail in create().0.steps() + 1..=steps {
        let (storage, index) = create();
        storage.fail(Some(Fails::Once(fail)));
        let mut work = Workload::new(2);
        let mut writer = holding(&index, held);
        for at in 0..ROUNDS {
            let Err(error) = work.round(at, &mut writer) else { continue };
            errors += 1;
            assert!(matches!(error, Error::Io { .. }), "step {fail}: {error}");
            let reader = index.reader().unwrap();
            assert!(reader.verify().unwrap().is_clean());
            let seen = contents(&reader);
            assert!(seen == work.acknowledged || seen == work.now, "step {fail}");
            for chance in [0, 5, 10] {
                let left = storage.after_power_cut(&mut random, chance);
                let what = format!("cut after a failure of step {fail}, chance {chance}");
                assert_survived(&left, &work.acknowledged, &work.now, &what);
            }
            // The changes are still there to be committed, unless it is not known what the disk says.
            match writer.commit() {
                Ok(_) => {}
                Err(Error::Poisoned { .. }) => {
                    poisoned += 1;
                    assert!(matches!(writer.add(1, &[0.0; DIM]), Err(Error::Poisoned { .. })));
                    drop(writer);
                    writer = holding(&index, held);
                    let seen = contents(&index.reader().unwrap());
                    let left = storage.after_power_cut(&mut random, 0);
                    let what = format!("cut after a failure of step {fail} and another writer");
                    assert_survived(&left, &work.acknowledged, &seen, &what);
                    work.now = seen;
                    writer.commit().unwrap();
                }
                Err(e) => panic!("step {fail}: {e}"),
            }
            work.acknowledged = work.now.clone();
            assert_eq!(contents(&index.reader().unwrap()), work.now, "step {fail}");
            let left = storage.after_power_cut(&mut random, 0);
            assert_survived(&left, &work.now, &work.now, &format!("cut after step {fail} failed and was made good"));
        }
        assert_eq!(contents(&index.reader().unwrap()), work.now, "step {fail}");
        assert!(index.reader().unwrap().verify().unwrap().is_clean(), "step {fail}");
        drop(writer);
        // Nothing is left behind that no commit names.
        let before = storage.names().len();
        drop(index.writer().unwrap());
        assert!(before - storage.names().len() <= 1, "step {fail}: {before} files, then {:?}", storage.names());
    }
    assert!(errors > 50 && poisoned > 3, "{errors} errors, {poisoned} poisoned");
}

#[test]
fn a_read_that_fails_is_an_error_and_the_work_goes_on() {
    let begin = create().0.reads() + 1;
    let mut errors = 0;
    for fail in begin.. {
        let (storage, index) = create();
        storage.fail_read(Some(fail));
        let mut work = Workload::new(4);
        let mut failed = |error: Error| {
            errors += 1;
            assert!(matches!(error, Error::Io { .. }), "read {fail}: {error}");
        };
        let mut writer = index.writer().or_else(|error| {
            failed(error);
            index.writer()
        });
        let writer = writer.as_mut().unwrap();
        for at in 0..ROUNDS {
            if let Err(error) = work.round(at, writer) {
                failed(error);
                writer.commit().unwrap();
                work.acknowledged = work.now.clone();
            }
            let reader = index.reader().or_else(|error| {
                failed(error);
                index.reader()
            });
            let reader = reader.unwrap();
            assert_eq!(contents(&reader), work.acknowledged, "read {fail}");
            assert!(
                reader.verify().unwrap().problems.len() <= 1,
                "read {fail}: a manifest that cannot be read at most"
            );
        }
        if storage.reads() < fail {
            break;
        }
        assert!(index.reader().unwrap().verify().unwrap().is_clean(), "read {fail}");
    }
    assert!(errors > 20, "{errors}");
}

#[test]
fn a_reader_opens_while_a_writer_replaces_every_file() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config { dim: DIM, metric: Metric::L2, ..Config::default() };
    let index = Index::create(dir.path(), config).unwrap();
    let mut writer = index.writer().unwrap();
    writer.add(0, &[0.0; DIM]).unwrap();
    writer.commit().unwrap();
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let mut opened = 0u64;
                    let mut last = 0;
                    while !done.load(std::sync::atomic::Ordering::Relaxed) {
                        let reader = index.reader().unwrap();
                        assert!(reader.generation() >= last, "time runs backwards");
                        last = reader.generation();
                        // Vector i is added by commit i + 1, so a snapshot shows which commit it is.
                        assert_eq!(reader.len(), reader.generation());
                        assert_eq!(reader.search(&[0.0; DIM]).k(1).run().unwrap()[0].key, 0);
                        opened += 1;
                    }
                    opened
                })
            })
            .collect();
        for key in 1..200 {
            writer.add(key, &[key as f32; DIM]).unwrap();
            writer.commit().unwrap();
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(readers.into_iter().map(|r| r.join().unwrap()).sum::<u64>() > 0);
    });
}
