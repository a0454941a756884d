//! Names of files, and folders that are hard to read.

use std::fs;
use std::path::PathBuf;

use tintype::{Engine, Error};

use super::photos::{Photos, write_picture};

#[test]
fn every_name_that_the_system_allows() {
    let photos = Photos::new();
    let long = format!("{}.png", "ü".repeat(125));
    let mut names = vec![
        "with spaces and 'quotes\" %_*?[].png".to_owned(),
        "Umläute & ß/Ñandú/日本語 📷.png".to_owned(),
        "-dash.png".to_owned(),
        long,
    ];
    if cfg!(unix) {
        names.push("line\nbreak\ttab.png".to_owned());
    }
    names.push(format!("{}deep.png", "folder/".repeat(120)));
    for (seed, name) in names.iter().enumerate() {
        photos.write(name, seed as u64);
    }
    let engine = photos.engine();
    let report = engine.ingest([photos.dir()]).run().unwrap();
    assert_eq!((report.added, report.skipped.len()), (names.len() as u64, 0), "{:?}", report.skipped);
    for name in &names {
        assert!(engine.record(photos.path(name)).unwrap().is_some(), "{name}");
    }
    let again = engine.ingest([photos.dir()]).run().unwrap();
    assert_eq!((again.unchanged, again.bytes), (names.len() as u64, 0));
    photos.is_whole(&engine, names.len() as u64);
}

#[cfg(target_os = "linux")]
#[test]
fn names_that_are_no_unicode() {
    use std::os::unix::ffi::OsStrExt;
    let photos = Photos::new();
    let odd = |bytes: &[u8]| PathBuf::from(std::ffi::OsStr::from_bytes(bytes));
    let names = [
        odd(b"caf\xe9.png"),
        odd(b"caf\xe8.png"),
        odd(b"\xff\xfe/in.png"),
        odd(b"\xff\xfe/\x80.png"),
        odd(b"plain.png"),
    ];
    for (seed, name) in names.iter().enumerate() {
        write_picture(&photos.dir().join(name), seed as u64);
    }
    let engine = photos.engine();
    engine.ingest([photos.dir()]).run().unwrap();
    for name in &names {
        let record = engine.record(photos.dir().join(name)).unwrap().unwrap();
        assert!(record.path.ends_with(name));
    }
    assert_eq!(engine.ingest([photos.dir()]).run().unwrap().unchanged, 5);
    assert_eq!(engine.remove([photos.dir().join(odd(b"\xff\xfe"))]).unwrap(), 2);
    photos.is_whole(&engine, 3);
    fs::remove_file(photos.dir().join(&names[0])).unwrap();
    assert_eq!(engine.ingest([photos.dir()]).run().unwrap().gone, 1);
}

#[cfg(unix)]
#[test]
fn a_folder_that_cannot_be_read_loses_nothing() {
    use std::os::unix::fs::PermissionsExt;
    let photos = Photos::new();
    photos.write_many("open", 2);
    photos.write_many("closed", 3);
    photos.write("shut.png", 40);
    let engine = photos.engine();
    engine.ingest([photos.dir()]).run().unwrap();
    let set = |name: &str, mode| fs::set_permissions(photos.path(name), fs::Permissions::from_mode(mode)).unwrap();
    set("closed", 0o000);
    if fs::read_dir(photos.path("closed")).is_ok() {
        println!("skipped: this user may read everything");
        return;
    }
    let report = engine.ingest([photos.dir()]).run().unwrap();
    assert_eq!((report.gone, report.unchanged, report.skipped.len()), (0, 3, 1), "{:?}", report.skipped);
    set("closed", 0o755);
    photos.write("shut.png", 41);
    set("shut.png", 0o000);
    let report = engine.ingest([photos.dir()]).run().unwrap();
    assert_eq!((report.unchanged, report.skipped.len()), (5, 1));
    // A permission is not in the bytes: tried again although size and time are the same.
    set("shut.png", 0o644);
    let report = engine.ingest([photos.dir()]).run().unwrap();
    assert_eq!((report.changed, report.skipped.len()), (1, 0));
}

/// A file system of its own for the time of a test, where this user may mount one.
#[cfg(target_os = "linux")]
struct Mount(PathBuf);

#[cfg(target_os = "linux")]
impl Mount {
    fn new(at: PathBuf, arguments: &[&str]) -> Option<Mount> {
        fs::create_dir_all(&at).unwrap();
        let status =
            std::process::Command::new("mount").args(arguments).arg(&at).stderr(std::process::Stdio::null()).status();
        status.is_ok_and(|status| status.success()).then_some(Mount(at))
    }
}

#[cfg(target_os = "linux")]
impl Drop for Mount {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_ends_the_run_and_keeps_the_library() {
    let photos = Photos::new();
    photos.write_many("a", 400);
    let Some(_mount) = Mount::new(photos.library(), &["-t", "tmpfs", "-o", "size=700k", "tmpfs"]) else {
        println!("skipped: this user may not mount a small file system");
        return;
    };
    let engine = photos.engine();
    // Leave room for nothing more.
    let filler = photos.library().join("filler");
    let mut size = 700 << 10;
    while size > 0 && fs::write(&filler, vec![0_u8; size]).is_err() {
        size -= 4096;
    }
    fs::write(&filler, vec![0_u8; size.saturating_sub(16 << 10)]).unwrap();
    let error = engine.ingest([photos.dir()]).run().unwrap_err();
    assert!(matches!(error, Error::Index(_) | Error::Catalog { .. } | Error::Io { .. }), "{error:?}");
    drop(engine);
    fs::remove_file(&filler).unwrap();
    let engine = photos.engine();
    assert!(engine.verify().unwrap().is_clean());
    engine.ingest([photos.dir()]).run().unwrap();
    photos.is_whole(&engine, 400);
}

#[cfg(target_os = "linux")]
#[test]
fn a_library_that_cannot_be_written_can_be_read() {
    let photos = Photos::new();
    photos.write_many("a", 4);
    photos.engine().ingest([photos.dir()]).run().unwrap();
    let copy = photos.dir().parent().unwrap().join("copy");
    let library = photos.library();
    let Some(_mount) = Mount::new(copy.clone(), &["--bind", "-o", "ro", library.to_str().unwrap()]) else {
        println!("skipped: this user may not mount");
        return;
    };
    let engine = Engine::open(&copy, photos.encoder("colours")).unwrap();
    assert_eq!(engine.status().unwrap().photos, 4);
    assert!(engine.record(photos.path("a/1.png")).unwrap().is_some());
    assert!(engine.verify().unwrap().is_clean());
    let error = engine.ingest([photos.dir()]).run().unwrap_err();
    assert!(
        matches!(&error, Error::Io { source, .. } if source.kind() == std::io::ErrorKind::ReadOnlyFilesystem),
        "{error:?}"
    );
}
