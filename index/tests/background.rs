//! Merges beside a writer that goes on: nobody waits, nothing is lost, and what changes meanwhile counts.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use tintype_index::{Config, Error, Index, Key, Metric, Reader, Writer};

use crate::simulated::{Fails, Simulated};
use crate::support::Random;

const DIM: usize = 6;

type Contents = BTreeMap<Key, Vec<f32>>;

fn create() -> (Simulated, Index, Writer) {
    let storage = Simulated::default();
    let config = Config { dim: DIM, metric: Metric::L2, links: 6, build_ef: 16, ..Config::default() };
    let index = Index::create_on(Arc::new(storage.clone()), config).unwrap();
    let mut writer = index.writer().unwrap();
    writer.fold_at(200, 100);
    (storage, index, writer)
}

fn add(writer: &mut Writer, model: &mut Contents, keys: std::ops::Range<u64>, seed: u64) {
    let mut random = Random(seed);
    for key in keys {
        let vector = random.vector(DIM);
        writer.add(key, &vector).unwrap();
        model.insert(key, vector);
    }
}

fn contents(reader: &Reader) -> Contents {
    reader.keys().map(Result::unwrap).map(|key| (key, reader.get(key).unwrap().unwrap())).collect()
}

fn check(index: &Index, model: &Contents) -> usize {
    let reader = index.reader().unwrap();
    assert_eq!(contents(&reader), *model);
    let report = reader.verify().unwrap();
    assert!(report.is_clean(), "{report:?}");
    report.graphs
}

/// A watch that says when it is first called, and then waits to be let on.
fn gate() -> (impl FnMut(u64, u64) -> ControlFlow<()> + Send + 'static, Receiver<()>, Sender<()>) {
    let ((begun, has_begun), (let_on, may_go_on)) = (channel(), channel());
    let watch = move |_, _| {
        let _ = begun.send(());
        // Once nobody is there to let it on, it goes on.
        let _ = may_go_on.recv();
        ControlFlow::Continue(())
    };
    (watch, has_begun, let_on)
}

fn until_over(writer: &mut Writer) {
    let start = Instant::now();
    while writer.merging().is_some() {
        assert!(start.elapsed() < Duration::from_secs(60), "the merge does not end");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn commits_go_on_beside_a_merge_and_what_they_change_counts() {
    let (storage, index, mut writer) = create();
    let mut model = Contents::new();
    let (watch, begun, let_on) = gate();
    writer.merge_in_background(watch);
    add(&mut writer, &mut model, 0..300, 1);
    assert_eq!(writer.commit().unwrap(), 1);
    begun.recv().unwrap();
    assert_eq!(check(&index, &model), 0, "committed and found, without a graph yet");
    // Removed, replaced and added, while their rows are on the way into a graph.
    for key in (0..300).step_by(7) {
        assert!(writer.remove(key).unwrap());
        model.remove(&key);
    }
    add(&mut writer, &mut model, 100..120, 2);
    add(&mut writer, &mut model, 300..310, 3);
    assert_eq!(writer.commit().unwrap(), 2);
    assert!(writer.merging().is_some());
    check(&index, &model);
    let before = index.reader().unwrap();
    // And some that are not committed when the merge ends.
    writer.remove(200).unwrap();
    add(&mut writer, &mut model, 301..302, 4);
    drop(let_on);
    until_over(&mut writer);
    assert_eq!(before.len(), index.reader().unwrap().len(), "a merge does not commit by itself");
    model.remove(&200);
    assert_eq!(writer.commit().unwrap(), 3);
    assert_eq!(check(&index, &model), 1);
    assert_eq!(before.search(&[0.0; DIM]).k(400).run().unwrap().len() as u64, before.len());
    assert_eq!(writer.close().unwrap(), 3);
    // Nothing is left behind that no commit names.
    let names = storage.names();
    drop(index.writer().unwrap());
    assert_eq!(storage.names(), names);
}

#[test]
fn every_vector_of_a_merge_may_be_removed_meanwhile() {
    let (_storage, index, mut writer) = create();
    let mut model = Contents::new();
    let (watch, begun, let_on) = gate();
    writer.merge_in_background(watch);
    add(&mut writer, &mut model, 0..250, 1);
    writer.commit().unwrap();
    begun.recv().unwrap();
    for key in 0..250 {
        writer.remove(key).unwrap();
    }
    model.clear();
    add(&mut writer, &mut model, 1_000..1_003, 2);
    writer.commit().unwrap();
    drop(let_on);
    writer.close().unwrap();
    assert_eq!(check(&index, &model), 0);
}

#[test]
fn a_writer_that_goes_gives_its_merge_up() {
    let (storage, index, mut writer) = create();
    let mut model = Contents::new();
    let (watch, begun, let_on) = gate();
    writer.merge_in_background(watch);
    add(&mut writer, &mut model, 0..300, 1);
    writer.commit().unwrap();
    begun.recv().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(20));
            drop(let_on);
        });
        drop(writer);
    });
    assert_eq!(storage.names(), ["000000000001.seg", "MANIFEST"], "its file is gone");
    assert_eq!(check(&index, &model), 0);
    let mut writer = index.writer().unwrap();
    writer.fold_at(200, 100);
    writer.merge_in_background(|_, _| ControlFlow::Continue(()));
    add(&mut writer, &mut model, 500..501, 2);
    writer.commit().unwrap();
    writer.close().unwrap();
    assert_eq!(check(&index, &model), 1, "the next one does what was due");
}

#[test]
fn a_merge_that_is_told_to_stop_is_begun_anew() {
    let (_storage, index, mut writer) = create();
    let mut model = Contents::new();
    let mut first = true;
    writer.merge_in_background(move |_, _| {
        if std::mem::take(&mut first) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    add(&mut writer, &mut model, 0..300, 1);
    writer.commit().unwrap();
    until_over(&mut writer);
    writer.commit().unwrap();
    assert_eq!(check(&index, &model), 0);
    until_over(&mut writer);
    writer.commit().unwrap();
    assert_eq!(check(&index, &model), 1);
}

#[test]
fn waiting_for_a_merge_may_be_broken_off() {
    let (_storage, index, mut writer) = create();
    let mut model = Contents::new();
    let (watch, begun, let_on) = gate();
    writer.merge_in_background(watch);
    add(&mut writer, &mut model, 0..300, 1);
    writer.commit().unwrap();
    begun.recv().unwrap();
    let mut let_on = Some(let_on);
    let broken = writer.commit_watched(&mut |_, _| {
        let_on = None;
        ControlFlow::Break(())
    });
    assert!(matches!(broken, Err(Error::Cancelled)), "{broken:?}");
    assert_eq!(check(&index, &model), 0);
    writer.compact().unwrap();
    assert_eq!(check(&index, &model), 1);
}

#[test]
fn a_merge_that_fails_fails_nothing_else() {
    let (storage, index, mut writer) = create();
    let mut model = Contents::new();
    let (watch, begun, let_on) = gate();
    writer.merge_in_background(watch);
    add(&mut writer, &mut model, 0..300, 1);
    writer.commit().unwrap();
    begun.recv().unwrap();
    // The next step of the storage is the merge's.
    storage.fail(Some(Fails::Once(storage.steps() + 1)));
    drop(let_on);
    until_over(&mut writer);
    add(&mut writer, &mut model, 400..402, 2);
    assert_eq!(writer.commit().unwrap(), 2);
    assert!(writer.merging().is_none(), "none is begun after one that failed");
    assert_eq!(check(&index, &model), 0);
    assert_eq!(writer.close().unwrap(), 3, "closing tries again");
    assert_eq!(check(&index, &model), 1);
}

#[test]
fn readers_and_commits_go_on_through_many_merges() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config { dim: DIM, metric: Metric::L2, links: 6, build_ef: 16, ..Config::default() };
    let index = Index::create(dir.path(), config).unwrap();
    let mut writer = index.writer().unwrap();
    writer.fold_at(200, 100);
    writer.merge_in_background(|_, _| ControlFlow::Continue(()));
    let mut model = Contents::new();
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reading = scope.spawn(|| {
            let mut opened = 0;
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                let reader = index.reader().unwrap();
                let found = reader.search(&[0.1; DIM]).k(5).recall(1.0).run().unwrap();
                assert_eq!(found.len() as u64, reader.len().min(5));
                opened += 1;
            }
            opened
        });
        let mut random = Random(5);
        for round in 0..60 {
            add(&mut writer, &mut model, round * 40..round * 40 + 55, round);
            for _ in 0..10 {
                let key = random.below(round * 40 + 55);
                assert_eq!(writer.remove(key).unwrap(), model.remove(&key).is_some());
            }
            writer.commit().unwrap();
            if round % 10 == 9 {
                check(&index, &model);
            }
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(reading.join().unwrap() > 0);
    });
    writer.close().unwrap();
    assert!(check(&index, &model) > 0);
}

#[test]
fn compacting_beside_a_writer_waits_for_nobody_and_keeps_what_changes_meanwhile() {
    let (_, index, mut writer) = create();
    let mut model = Contents::new();
    add(&mut writer, &mut model, 0..300, 1);
    writer.commit().unwrap();
    assert_eq!(check(&index, &model), 1);
    // Too few for a merge to be due.
    for key in (0..300).step_by(10) {
        writer.remove(key).unwrap();
        model.remove(&key);
    }
    add(&mut writer, &mut model, 300..320, 2);
    let (watch, begun, let_on) = gate();
    writer.merge_in_background(watch);
    assert!(writer.compact_in_background().unwrap());
    begun.recv().unwrap();
    assert_eq!(check(&index, &model), 1, "committed, not compacted yet");
    add(&mut writer, &mut model, 310..330, 3);
    writer.remove(1).unwrap();
    model.remove(&1);
    writer.commit().unwrap();
    assert!(writer.merging().is_some());
    check(&index, &model);
    drop(let_on);
    writer.close().unwrap();
    check(&index, &model);
    let mut writer = index.writer().unwrap();
    writer.fold_at(200, 100);
    assert!(writer.compact_in_background().unwrap(), "what came meanwhile stands beside");
    writer.close().unwrap();
    assert_eq!(check(&index, &model), 1);
    let mut writer = index.writer().unwrap();
    writer.fold_at(200, 100);
    assert!(!writer.compact_in_background().unwrap(), "nothing to be gained");
}

#[test]
fn a_build_can_be_stopped_before_its_graph_and_behind_it() {
    let (_, index, mut writer) = create();
    let mut model = Contents::new();
    add(&mut writer, &mut model, 0..300, 1);
    let mut told = Vec::new();
    let all = |done, total| (done, total) == (300, 300);
    let stopped = writer.commit_watched(&mut |done, total| {
        told.push((done, total));
        // The second time that all are in is behind the graph.
        let behind = told.iter().filter(|told| all(told.0, told.1)).count() > 1;
        if behind { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert!(matches!(stopped, Err(Error::Cancelled)), "{stopped:?}");
    assert_eq!(told.first(), Some(&(0, 300)));
    assert!(told.iter().filter(|told| all(told.0, told.1)).count() > 1, "{told:?}");
    assert_eq!(check(&index, &model), 0);
    let before = writer.commit_watched(&mut |_, _| ControlFlow::Break(()));
    assert!(matches!(before, Err(Error::Cancelled)), "{before:?}");
    writer.commit().unwrap();
    assert_eq!(check(&index, &model), 1);
}
