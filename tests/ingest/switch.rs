//! From one model to another.

use std::cell::Cell;
use std::fs;
use std::sync::Arc;
use std::time::Duration;

use tintype::{Encode, Engine, Error};

use super::photos::Photos;
use crate::colours::Colours;

#[test]
fn a_library_answers_while_it_is_switched() {
    let photos = Photos::new();
    photos.write_many("a", 40);
    photos.write_many("copies", 10);
    let engine = photos.engine();
    engine.ingest([photos.dir()]).run().unwrap();
    let old = photos.index_dir();
    let other = Engine::open(photos.library(), photos.encoder("colours")).unwrap();
    let next = Arc::new(Colours::slow("next", Duration::from_millis(10)));
    let mut looks = 0;
    let during = |_: &tintype::Progress| {
        if Engine::space(photos.library()).unwrap().model == "colours" {
            assert!(other.verify().unwrap().is_clean(), "the present vectors stay until the end");
            looks += 1;
        }
    };
    let report = engine.switch(Arc::clone(&next) as Arc<dyn Encode>).threads(1).on_progress(during).run().unwrap();
    assert_eq!((report.embedded, report.skipped.len(), next.pictures()), (40, 0, 40));
    assert!(looks > 0);
    assert_eq!(Engine::space(photos.library()).unwrap().model, "next");
    assert_eq!(engine.encoder().space().model, "next");
    assert!(!old.exists(), "the old vectors are deleted");
    photos.is_whole(&engine, 50);
    assert!(matches!(other.verify(), Err(Error::SpaceMismatch { .. })), "others are told");
    assert!(matches!(other.ingest([photos.dir()]).run(), Err(Error::SpaceMismatch { .. })));
    let report = engine.ingest([photos.dir()]).run().unwrap();
    assert_eq!((report.unchanged, report.embedded), (50, 0));
    // Once more to the same: nothing to do. And back again.
    assert_eq!(engine.switch(photos.encoder("next")).run().unwrap().embedded, 0);
    assert_eq!(engine.switch(photos.encoder("colours")).run().unwrap().embedded, 40);
    photos.is_whole(&engine, 50);
}

#[test]
fn an_interrupted_switch_goes_on_where_it_was() {
    let photos = Photos::new();
    photos.write_many("a", 200);
    let engine = photos.engine();
    engine.ingest([photos.dir()]).run().unwrap();
    let next = Arc::new(Colours::slow("next", Duration::from_millis(10)));
    let embedded = Cell::new(0);
    let error = engine
        .switch(Arc::clone(&next) as Arc<dyn Encode>)
        .on_progress(|progress| embedded.set(progress.embedded))
        .cancel(|| embedded.get() > 0)
        .run()
        .map(|_| ())
        .unwrap_err();
    assert!(matches!(error, Error::Cancelled));
    let status = engine.status().unwrap();
    assert_eq!(
        (status.space.model.as_str(), status.switching.map(|space| space.model).as_deref()),
        ("colours", Some("next"))
    );
    // Meanwhile the library lives on.
    photos.write("new.png", 5000);
    fs::remove_file(photos.path("a/3.png")).unwrap();
    engine.ingest([photos.dir()]).run().unwrap();
    let report = engine.switch(Arc::clone(&next) as Arc<dyn Encode>).run().unwrap();
    assert!(report.embedded < 200 && report.reused > 0, "{report:?}");
    assert_eq!(report.embedded + report.reused, 200);
    assert_eq!(engine.status().unwrap().photos, 200);
    assert!(engine.verify().unwrap().is_clean());
    assert!(engine.status().unwrap().switching.is_none());
    // The photo that was away has no vector of the new model: it gets one when it comes back.
    photos.write("a/3.png", 3);
    let report = engine.ingest([photos.dir()]).run().unwrap();
    assert_eq!(report.embedded, 1);
    photos.is_whole(&engine, 201);
}

#[test]
fn a_switch_waits_for_its_drives() {
    let photos = Photos::new();
    photos.write_many("drive", 5);
    let engine = photos.engine();
    engine.ingest([photos.path("drive")]).run().unwrap();
    fs::rename(photos.path("drive"), photos.path("unplugged")).unwrap();
    assert!(matches!(engine.switch(photos.encoder("next")).run(), Err(Error::NoRoot { .. })));
    fs::create_dir(photos.path("drive")).unwrap();
    assert!(matches!(engine.switch(photos.encoder("next")).run(), Err(Error::EmptyRoot { known: 5, .. })));
    assert_eq!(engine.encoder().space().model, "colours");
    photos.is_whole(&engine, 5);
}
