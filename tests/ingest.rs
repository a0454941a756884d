//! Taking photos in: which files, what becomes of them, and what survives.

mod crash;
mod names;
pub(crate) mod photos;
mod switch;
mod walk;

use std::cell::Cell;
use std::fs;
use std::time::{Duration, SystemTime};

use photos::{Photos, relative};
use tintype::{Engine, Error};

#[test]
fn photos_are_taken_in_once() {
    let photos = Photos::new();
    photos.write_many("a", 20);
    photos.write_many("b/c", 20);
    let engine = photos.engine();
    let report = engine.ingest([photos.dir()]).run().unwrap();
    assert!(report.first);
    assert_eq!((report.added, report.embedded, report.skipped.len()), (40, 20, 0), "the second folder holds copies");
    let status = engine.status().unwrap();
    assert_eq!((status.photos, status.gone, status.skipped), (40, 0, 0));
    assert_eq!(status.roots.len(), 1);
    let record = engine.record(photos.path("b/c/7.png")).unwrap().unwrap();
    assert_eq!((record.format.as_str(), record.width, record.height), ("png", 24, 16));
    assert_eq!(record.size, fs::metadata(photos.path("b/c/7.png")).unwrap().len());
    assert_eq!(record.hash, blake3::hash(&fs::read(photos.path("b/c/7.png")).unwrap()).to_hex().as_str());
    assert_eq!(engine.records(&[record.key, 999_999]).unwrap(), vec![record]);

    let again = engine.ingest([photos.dir()]).run().unwrap();
    assert_eq!((again.unchanged, again.added, again.embedded, again.first), (40, 0, 0, false));
    assert_eq!(again.bytes, 0, "an unchanged file is not even opened");
    assert_eq!(photos.encoder.pictures(), 20);
    photos.is_whole(&engine, 40);
}

#[test]
fn a_library_is_opened_again_by_its_model_only() {
    let photos = Photos::new();
    assert!(matches!(Engine::open(photos.library(), photos.encoder("colours")), Err(Error::NoLibrary { .. })));
    photos.write_many("a", 3);
    photos.engine().ingest([photos.dir()]).run().unwrap();
    assert!(matches!(Engine::create(photos.library(), photos.encoder("colours")), Err(Error::LibraryExists { .. })));
    assert_eq!(Engine::space(photos.library()).unwrap().model, "colours");
    assert_eq!(Engine::inspect(photos.library()).unwrap().photos, 3);
    let error = Engine::open(photos.library(), photos.encoder("other")).map(|_| ()).unwrap_err();
    assert!(
        matches!(&error, Error::SpaceMismatch { found, expected, .. } if found == "colours" && expected == "other"),
        "{error}"
    );
    assert_eq!(Engine::open(photos.library(), photos.encoder("colours")).unwrap().status().unwrap().photos, 3);
}

#[test]
fn moved_files_keep_their_embedding() {
    let photos = Photos::new();
    photos.write_many("old", 10);
    let engine = photos.engine();
    engine.ingest([photos.dir()]).run().unwrap();
    let before = engine.record(photos.path("old/3.png")).unwrap().unwrap();
    fs::rename(photos.path("old"), photos.path("a new name")).unwrap();
    fs::rename(photos.path("a new name/4.png"), photos.path("up.png")).unwrap();
    let report = engine.ingest([photos.dir()]).run().unwrap();
    assert_eq!((report.moved, report.gone, report.added, report.embedded), (10, 0, 0, 0));
    let after = engine.record(photos.path("a new name/3.png")).unwrap().unwrap();
    assert_eq!((after.key, after.hash), (before.key, before.hash));
    assert!(engine.record(photos.path("old/3.png")).unwrap().is_none());
    photos.is_whole(&engine, 10);
}

#[test]
fn a_move_over_two_runs_needs_no_work() {
    let photos = Photos::new();
    photos.write_many("old", 5);
    let aside = tempfile::tempdir().unwrap();
    let engine = photos.engine();
    engine.ingest([photos.dir()]).run().unwrap();
    photos.write("stays.png", 99);
    fs::rename(photos.path("old"), aside.path().join("x")).unwrap();
    assert_eq!(engine.ingest([photos.dir()]).run().unwrap().gone, 5);
    fs::rename(aside.path().join("x"), photos.path("new")).unwrap();
    let report = engine.ingest([photos.dir()]).run().unwrap();
    assert_eq!((report.moved, report.embedded, report.unchanged), (5, 0, 1));
    photos.is_whole(&engine, 6);
}

#[test]
fn copies_share_the_work() {
    let photos = Photos::new();
    for n in 0..6 {
        photos.write_many(&format!("copy {n}"), 10);
    }
    let engine = photos.engine();
    let report = engine.ingest([photos.dir()]).run().unwrap();
    assert_eq!((report.added, report.embedded, photos.encoder.pictures()), (60, 10, 10));
    photos.is_whole(&engine, 60);
    fs::create_dir(photos.path("later")).unwrap();
    fs::copy(photos.path("copy 0/1.png"), photos.path("later/1.png")).unwrap();
    let report = engine.ingest([photos.dir()]).run().unwrap();
    assert_eq!((report.added, report.moved, report.embedded), (1, 0, 0));
    photos.is_whole(&engine, 61);
}

#[test]
fn changed_files_are_embedded_again() {
    let photos = Photos::new();
    photos.write_many("a", 4);
    // Written so fast that the file system's clock may not have moved in between.
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    fs::File::options().write(true).open(photos.path("a/0.png")).unwrap().set_modified(time).unwrap();
    let engine = photos.engine();
    engine.ingest([photos.dir()]).run().unwrap();
    let before = engine.record(photos.path("a/2.png")).unwrap().unwrap();
    photos.write("a/2.png", 200);
    let report = engine.ingest([photos.dir()]).run().unwrap();
    assert_eq!((report.changed, report.embedded, report.unchanged), (1, 1, 3));
    let after = engine.record(photos.path("a/2.png")).unwrap().unwrap();
    assert!(after.hash != before.hash && after.key != before.key, "a key stands for one content");
    photos.is_whole(&engine, 4);
    // Two files that change places.
    fs::rename(photos.path("a/0.png"), photos.path("a/x")).unwrap();
    fs::rename(photos.path("a/1.png"), photos.path("a/0.png")).unwrap();
    fs::rename(photos.path("a/x"), photos.path("a/1.png")).unwrap();
    let report = engine.ingest([photos.dir()]).run().unwrap();
    assert_eq!((report.changed, report.embedded), (2, 0));
    photos.is_whole(&engine, 4);
}

#[test]
fn a_new_file_time_alone_changes_nothing() {
    let photos = Photos::new();
    photos.write_many("a", 2);
    let engine = photos.engine();
    engine.ingest([photos.dir()]).run().unwrap();
    let key = engine.record(photos.path("a/1.png")).unwrap().unwrap().key;
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    fs::File::options().write(true).open(photos.path("a/1.png")).unwrap().set_modified(time).unwrap();
    let report = engine.ingest([photos.dir()]).run().unwrap();
    assert_eq!((report.unchanged, report.changed, report.embedded), (2, 0, 0));
    let record = engine.record(photos.path("a/1.png")).unwrap().unwrap();
    assert_eq!((record.key, record.mtime), (key, 1_000_000_000_000_000_000));
    assert_eq!(engine.ingest([photos.dir()]).run().unwrap().bytes, 0);
}

#[test]
fn a_file_that_goes_and_comes_back_is_found_again() {
    // Removed, indexed, restored with its file time, indexed: must be found, and without new work.
    let photos = Photos::new();
    photos.write_many("a", 3);
    let aside = tempfile::tempdir().unwrap();
    let engine = photos.engine();
    engine.ingest([photos.dir()]).run().unwrap();
    fs::rename(photos.path("a/1.png"), aside.path().join("1.png")).unwrap();
    let report = engine.ingest([photos.dir()]).run().unwrap();
    assert_eq!((report.gone, report.unchanged), (1, 2));
    assert!(engine.record(photos.path("a/1.png")).unwrap().is_none());
    assert_eq!(engine.status().unwrap().gone, 1);
    assert_eq!(engine.ingest([photos.dir()]).run().unwrap().gone, 0, "gone once");
    fs::rename(aside.path().join("1.png"), photos.path("a/1.png")).unwrap();
    let report = engine.ingest([photos.dir()]).run().unwrap();
    assert_eq!((report.returned, report.embedded, report.bytes), (1, 0, 0));
    assert!(engine.record(photos.path("a/1.png")).unwrap().is_some());
    photos.is_whole(&engine, 3);
}

#[test]
fn a_missing_or_empty_root_loses_nothing() {
    let photos = Photos::new();
    photos.write_many("drive", 5);
    let engine = photos.engine();
    engine.ingest([photos.path("drive")]).run().unwrap();
    fs::rename(photos.path("drive"), photos.path("unplugged")).unwrap();
    let error = engine.ingest([photos.path("drive")]).run().unwrap_err();
    assert!(matches!(&error, Error::NoRoot { .. }) && error.to_string().contains("drive"), "{error}");
    fs::create_dir(photos.path("drive")).unwrap();
    let report = engine.ingest([photos.path("drive")]).run().unwrap();
    assert_eq!(report.gone, 0);
    assert!(matches!(report.skipped[0].error, Error::EmptyRoot { known: 5, .. }), "{:?}", report.skipped);
    assert_eq!(engine.status().unwrap().photos, 5);
    fs::remove_dir(photos.path("drive")).unwrap();
    fs::rename(photos.path("unplugged"), photos.path("drive")).unwrap();
    let report = engine.ingest([photos.path("drive")]).run().unwrap();
    assert_eq!((report.unchanged, report.skipped.len()), (5, 0));
}

#[test]
fn forgotten_photos_are_forgotten() {
    let photos = Photos::new();
    photos.write_many("a", 5);
    photos.write_many("ab", 5);
    let engine = photos.engine();
    engine.ingest([photos.dir()]).run().unwrap();
    fs::remove_file(photos.path("a/0.png")).unwrap();
    engine.ingest([photos.dir()]).run().unwrap();
    assert_eq!(engine.remove([photos.path("a")]).unwrap(), 5, "gone ones too, and not those of `ab`");
    let status = engine.status().unwrap();
    assert_eq!((status.photos, status.gone), (5, 0));
    photos.is_whole(&engine, 5);
    let report = engine.ingest([photos.dir()]).run().unwrap();
    assert_eq!((report.added, report.unchanged), (4, 5));
}

#[test]
fn bad_files_are_lines_in_the_report() {
    let photos = Photos::new();
    photos.write("good.png", 1);
    photos.write("a picture.txt", 2);
    fs::write(photos.path("notes.md"), "no picture, nobody needs to hear of it").unwrap();
    fs::write(photos.path("text.jpg"), "named like a picture").unwrap();
    fs::write(photos.path("empty.png"), "").unwrap();
    fs::write(photos.path("phone.heic"), b"\0\0\0\x18ftypheic\0\0\0\0mif1heic").unwrap();
    let whole = fs::read(photos.path("good.png")).unwrap();
    for n in 0..20 {
        fs::write(photos.path(&format!("broken {n}.png")), &whole[..40 + n]).unwrap();
    }
    let engine = photos.engine();
    let report = engine.ingest([photos.dir()]).run().unwrap();
    assert_eq!((report.added, report.skipped.len()), (2, 23), "{:?}", report.skipped);
    let reason = |report: &tintype::Report, name: &str| {
        let skipped = report.skipped.iter().find(|skipped| relative(&photos, &skipped.path) == name);
        skipped.map(|skipped| skipped.error.to_string()).unwrap_or_default()
    };
    assert!(reason(&report, "phone.heic").contains("HEIC"), "{}", reason(&report, "phone.heic"));
    assert!(reason(&report, "text.jpg").contains("not a readable picture"));
    assert!(reason(&report, "empty.png").contains("empty"));
    // Reported again, and not read again.
    let again = engine.ingest([photos.dir()]).run().unwrap();
    assert_eq!((again.skipped.len(), again.bytes, again.unchanged), (23, 0, 2));
    for name in ["phone.heic", "text.jpg", "broken 7.png"] {
        assert!(reason(&again, name).starts_with(&reason(&report, name)), "{name}: {}", reason(&again, name));
    }
    assert_eq!(engine.status().unwrap().skipped, 23);
    // Mended, it is taken; deleted, it is not mentioned any more.
    fs::write(photos.path("text.jpg"), &whole).unwrap();
    fs::remove_file(photos.path("broken 0.png")).unwrap();
    let mended = engine.ingest([photos.dir()]).run().unwrap();
    assert_eq!((mended.added, mended.embedded, mended.skipped.len()), (1, 0, 21));
    photos.is_whole(&engine, 3);
}

#[test]
fn too_many_pixels_are_refused_until_allowed() {
    let photos = Photos::new();
    photos.write_many("a", 3);
    let engine = photos.engine();
    let report = engine.ingest([photos.dir()]).max_pixels(100).run().unwrap();
    assert_eq!((report.added, report.skipped.len()), (0, 3));
    assert!(matches!(report.skipped[0].error, Error::ImageTooLarge { width: 24, height: 16, limit: 100 }));
    assert_eq!(engine.ingest([photos.dir()]).run().unwrap().added, 3);
}

#[test]
fn cancelled_runs_keep_what_they_did() {
    let photos = Photos::slow(Duration::from_millis(10));
    photos.write_many("a", 300);
    let engine = photos.engine();
    let embedded = Cell::new(0);
    let request = engine.ingest([photos.dir()]).on_progress(|progress| embedded.set(progress.embedded));
    let error = request.cancel(|| embedded.get() > 0).run().unwrap_err();
    assert!(matches!(error, Error::Cancelled));
    let done = engine.status().unwrap().photos;
    assert!(done > 0 && done < 300, "{done}");
    photos.is_whole(&engine, done);
    let mut last = tintype::Progress::default();
    let report = engine.ingest([photos.dir()]).on_progress(|progress| last = progress.clone()).run().unwrap();
    assert_eq!(report.added + done, 300);
    assert!(last.walked && last.found == 300 && last.done == 300, "{last:?}");
    photos.is_whole(&engine, 300);
}

#[test]
fn a_lost_index_is_made_again() {
    let photos = Photos::new();
    photos.write_many("a", 6);
    photos.engine().ingest([photos.dir()]).run().unwrap();
    fs::remove_dir_all(photos.index_dir()).unwrap();
    let engine = photos.engine();
    assert_eq!(engine.verify().unwrap().missing.len(), 6);
    let report = engine.ingest([photos.dir()]).run().unwrap();
    assert_eq!((report.changed, report.embedded), (6, 6));
    photos.is_whole(&engine, 6);
}

#[test]
fn a_file_that_changes_while_it_is_read_is_left_for_later() {
    use std::io::Write;
    use std::sync::atomic::{AtomicBool, Ordering};
    let photos = Photos::new();
    photos.write_many("a", 50);
    photos.write("growing.png", 900);
    let stop = AtomicBool::new(false);
    let engine = photos.engine();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut file = fs::File::options().append(true).open(photos.path("growing.png")).unwrap();
            while !stop.load(Ordering::Relaxed) {
                file.write_all(&[0; 64]).unwrap();
            }
        });
        let report = engine.ingest([photos.dir()]).run().unwrap();
        assert!(report.added >= 50);
        stop.store(true, Ordering::Relaxed);
    });
    // Whatever it was caught as: the next run brings it in line.
    photos.write("growing.png", 901);
    engine.ingest([photos.dir()]).run().unwrap();
    let record = engine.record(photos.path("growing.png")).unwrap().unwrap();
    assert_eq!(record.hash, blake3::hash(&fs::read(photos.path("growing.png")).unwrap()).to_hex().as_str());
    photos.is_whole(&engine, 51);
}
