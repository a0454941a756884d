//! Ends without warning, and two at once.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tintype::{Encode, Engine, Error};

use super::photos::Photos;
use crate::colours::Colours;

const LIBRARY: &str = "TINTYPE_TEST_LIBRARY";
const PHOTOS: &str = "TINTYPE_TEST_PHOTOS";

/// Not a test: what the tests below run in a process of its own, and kill.
#[test]
#[ignore = "run by other tests"]
fn child() {
    let (Some(library), Some(photos)) = (std::env::var_os(LIBRARY), std::env::var_os(PHOTOS)) else { return };
    let encoder: Arc<dyn Encode> = Arc::new(Colours::slow("colours", Duration::from_micros(300)));
    let engine = Engine::open_or_create(library, encoder).unwrap();
    // Whoever looks whether it writes may hold the lock for a moment.
    engine.ingest([photos]).wait(true).run().unwrap();
}

fn spawn(library: &Path, photos: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "ingest::crash::child", "--ignored", "--nocapture"])
        .env(LIBRARY, library)
        .env(PHOTOS, photos)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

#[test]
fn killed_at_any_moment_it_loses_nothing_that_was_committed() {
    let photos = Photos::new();
    photos.write_many("a", 900);
    for n in 0..100 {
        photos.write(&format!("copies/{n}.png"), n % 50);
    }
    let mut moment = 17_u64;
    let mut before = 0;
    for round in 0..12 {
        let mut child = spawn(&photos.library(), &photos.dir());
        // Early on in its start, in the middle of a commit, or after hundreds of pictures.
        moment = moment.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        std::thread::sleep(Duration::from_millis(10 + (moment >> 33) % 700));
        child.kill().unwrap();
        child.wait().unwrap();
        if Engine::inspect(photos.library()).is_err() {
            continue;
        }
        let engine = photos.engine();
        let report = engine.verify().unwrap();
        assert!(report.is_clean(), "round {round}: {report:?}");
        let now = engine.status().unwrap().photos;
        assert!(now >= before, "round {round}: {now} of {before} photos are left");
        before = now;
        // New files and changed ones, so that there is always something to do.
        photos.write_many(&format!("round {round}"), 20);
        photos.write(&format!("a/{round}.png"), 10_000 + round);
    }
    let engine = photos.engine();
    engine.ingest([photos.dir()]).run().unwrap();
    let fresh = Engine::create(photos.dir().parent().unwrap().join("fresh"), photos.encoder("colours")).unwrap();
    fresh.ingest([photos.dir()]).run().unwrap();
    let expected = fresh.status().unwrap().photos;
    photos.is_whole(&engine, expected);
    let records = |engine: &Engine| {
        let keys: Vec<u64> = (0..20_000).collect();
        let mut records: Vec<_> =
            engine.records(&keys).unwrap().into_iter().map(|r| (r.path, r.hash, r.size, r.mtime)).collect();
        records.sort();
        records
    };
    assert!(records(&engine) == records(&fresh));
}

#[test]
fn two_at_once_take_turns() {
    let photos = Photos::new();
    photos.write_many("a", 600);
    let engine = photos.engine();
    let mut child = spawn(&photos.library(), &photos.dir());
    let start = Instant::now();
    let mut busy = false;
    // Until the other one has the lock.
    while !busy && start.elapsed() < Duration::from_secs(20) && child.try_wait().unwrap().is_none() {
        std::thread::sleep(Duration::from_millis(5));
        busy = matches!(engine.remove([photos.path("not there")]), Err(Error::Busy { .. }));
    }
    assert!(busy, "the other process never wrote");
    assert!(matches!(engine.ingest([photos.dir()]).run(), Err(Error::Busy { .. })));
    let status = engine.status().unwrap();
    assert!(status.photos <= 600, "readers do not wait");
    let report = engine.ingest([photos.dir()]).wait(true).run().unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!((report.unchanged, report.embedded), (600, 0), "the other one has done it");
    photos.is_whole(&engine, 600);
}
