//! Runs over collections that end without warning.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tintype::{EmbeddingSpace, Encode, Encoder, Engine, Query};

use super::embeddings::npy;
use super::shards::{samples, write};
use super::{Place, picture};
use crate::colours::Colours;

const LIBRARY: &str = "TINTYPE_TEST_LIBRARY";
const COLLECTION: &str = "TINTYPE_TEST_COLLECTION";

/// Three numbers a row, or what the encoder of colours makes; slow enough to be killed on the way.
fn open(library: &Path, collection: &Path, delay: Duration) -> Engine {
    let encoder: Arc<dyn Encode> = if collection.ends_with("m.npy") || collection.ends_with("part") {
        Arc::new(Encoder::declared(EmbeddingSpace::declared("somebody's", 3)))
    } else {
        Arc::new(Colours::slow("colours", delay))
    };
    Engine::open_or_create(library, encoder).unwrap()
}

fn take_in(engine: &Engine, collection: &Path) {
    if collection.ends_with("part") {
        engine.merge([collection]).wait(true).run().unwrap();
    } else {
        engine.collect([collection]).wait(true).run().unwrap();
    }
}

/// Not a test: what the test below runs in a process of its own, and kills.
#[test]
#[ignore = "run by other tests"]
fn child() {
    let (Some(library), Some(collection)) = (std::env::var_os(LIBRARY), std::env::var_os(COLLECTION)) else { return };
    let collection = PathBuf::from(collection);
    take_in(&open(Path::new(&library), &collection, Duration::from_millis(25)), &collection);
}

/// Path, caption and metadata of everything.
fn all(engine: &Engine) -> Vec<String> {
    let hits = engine.search(Query::all()).limit(1_000_000).run().unwrap();
    let keys: Vec<u64> = hits.iter().map(|hit| hit.record.key).collect();
    let said = hits.iter().zip(engine.metadata(&keys).unwrap());
    let mut all: Vec<String> =
        said.map(|(hit, about)| format!("{} {:?} {}", hit.path.display(), hit.record.caption, json!(about))).collect();
    all.sort();
    all
}

#[test]
fn a_killed_run_over_a_collection_goes_on_and_ends_as_one_that_was_not() {
    let place = Place::new();
    write(&place.path("0.tar"), &samples(0..300));
    std::fs::create_dir(place.path("p")).unwrap();
    let mut rows = String::new();
    for n in 0..300 {
        std::fs::write(place.path(&format!("p/{n}.png")), picture(n)).unwrap();
        rows += &format!("{}\n", json!({"path": format!("p/{n}.png"), "caption": format!("number {n}"), "n": n}));
    }
    std::fs::write(place.path("list.jsonl"), rows).unwrap();
    std::fs::write(place.path("m.npy"), npy(25_000)).unwrap();
    take_in(&open(&place.path("part"), &place.path("m.npy"), Duration::ZERO), &place.path("m.npy"));
    let mut moment = 29_u64;
    for name in ["0.tar", "list.jsonl", "m.npy", "part"] {
        let (collection, library) = (place.path(name), place.path(&format!("{name}-killed")));
        let mut before = 0;
        for round in 0..3 {
            let mut child = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "collections::crash::child", "--ignored", "--nocapture"])
                .env(LIBRARY, &library)
                .env(COLLECTION, &collection)
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            moment = moment.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            // The first commit comes after two seconds.
            std::thread::sleep(Duration::from_millis(if round == 0 { 2300 } else { 30 } + (moment >> 33) % 500));
            child.kill().unwrap();
            child.wait().unwrap();
            if Engine::inspect(&library).is_err() {
                continue;
            }
            let engine = open(&library, &collection, Duration::ZERO);
            let report = engine.verify().unwrap();
            assert!(report.is_clean(), "{name}, round {round}: {report:?}");
            let now = engine.status().unwrap().photos;
            assert!(now >= before, "{name}, round {round}: {now} of {before} are left");
            before = now;
        }
        let engine = open(&library, &collection, Duration::ZERO);
        take_in(&engine, &collection);
        let report = engine.verify().unwrap();
        assert!(report.is_clean() && report.orphans == 0, "{name}: {report:?}");
        assert!(engine.status().unwrap().sources[0].complete, "{name}");
        let fresh = open(&place.path(&format!("{name}-fresh")), &collection, Duration::ZERO);
        take_in(&fresh, &collection);
        assert!(all(&engine) == all(&fresh), "{name}");
        println!("{name}: {before} of {} were there before the last run", engine.status().unwrap().photos);
    }
}
