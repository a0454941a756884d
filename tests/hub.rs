//! Downloads from a model hub that misbehaves in every way we could think of.
//!
//! The hub is a few lines over `TcpListener` on this machine; it serves a made-up model of the right file names, and a test
//! puts its fault between the request and the honest answer.

#[cfg(feature = "cli")]
mod command;
mod server;

use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use server::{COMMIT, Hub, MODEL, REPOSITORY, WEIGHTS};
use tintype::Error;
use tintype::model::hub::{Fetch, HubOptions, Progress, Stage, locate};
use tintype::model::registry;

/// A cache of its own and a hub of its own, and quick nerves.
fn setup(hub: &Hub) -> (tempfile::TempDir, HubOptions) {
    let cache = tempfile::tempdir().unwrap();
    let mut options = HubOptions::new(cache.path());
    options.endpoint = hub.url();
    options.timeout = Duration::from_millis(500);
    options.backoff = Duration::from_millis(5);
    (cache, options)
}

fn fetch(options: &HubOptions) -> Result<PathBuf, Error> {
    Fetch::new(registry::find(MODEL).unwrap(), options).run()
}

/// The cache folder of the model.
fn folder(options: &HubOptions) -> PathBuf {
    options.cache.join(format!("models--{}", REPOSITORY.replace('/', "--")))
}

/// Everything that lies among the blobs.
fn blobs(options: &HubOptions) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder(options).join("blobs")) else { return Vec::new() };
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Fails unless the fetched directory holds exactly what the hub has.
fn assert_complete(directory: &Path, hub: &Hub) {
    for file in ["open_clip_config.json", WEIGHTS] {
        assert!(fs::read(directory.join(file)).unwrap() == hub.file(file), "{file}");
    }
}

/// Fetches from a hub with a fault and expects success all the same.
fn survives(hub: &Hub) -> Vec<Progress> {
    let (_cache, options) = setup(hub);
    let mut seen = Vec::new();
    let directory = Fetch::new(registry::find(MODEL).unwrap(), &options)
        .on_progress(|progress| seen.push(progress.clone()))
        .run()
        .unwrap();
    assert_complete(&directory, hub);
    assert!(blobs(&options).iter().all(|name| !name.ends_with(".incomplete")), "{:?}", blobs(&options));
    seen
}

/// Fetches from a hub with a fault and expects an error, and nothing under a final name.
fn fails(hub: &Hub) -> String {
    let (_cache, options) = setup(hub);
    let error = fetch(&options).unwrap_err();
    assert!(locate(registry::find(MODEL).unwrap(), &options).is_none());
    let weights = hub.etag(WEIGHTS);
    assert!(!folder(&options).join("blobs").join(&weights).exists());
    assert!(!folder(&options).join("snapshots").join(COMMIT).join(WEIGHTS).exists());
    assert!(!folder(&options).join("refs/main").exists());
    error.to_string()
}

#[test]
fn a_download_has_the_layout_of_the_python_tools() {
    let hub = Hub::honest();
    let (_cache, options) = setup(&hub);
    let directory = fetch(&options).unwrap();
    assert_complete(&directory, &hub);
    assert_eq!(directory, folder(&options).join("snapshots").join(COMMIT));
    assert_eq!(fs::read_to_string(folder(&options).join("refs/main")).unwrap(), COMMIT);
    let mut etags = ["open_clip_config.json", WEIGHTS].map(|file| hub.etag(file));
    etags.sort();
    assert_eq!(blobs(&options), etags);
    #[cfg(unix)]
    for file in ["open_clip_config.json", WEIGHTS] {
        let target = fs::read_link(directory.join(file)).unwrap();
        assert_eq!(target, Path::new("../../blobs").join(hub.etag(file)), "relative, so that the cache can be moved");
    }
    let requests = hub.requests().len();
    assert_eq!(fetch(&options).unwrap(), directory);
    assert_eq!(locate(registry::find(MODEL).unwrap(), &options), Some(directory));
    assert_eq!(hub.requests().len(), requests, "what is complete is used without a word to the hub");
}

#[test]
fn a_model_that_python_has_downloaded_is_used_as_it_is() {
    let cache = tempfile::tempdir().unwrap();
    let mut options = HubOptions::new(cache.path());
    options.offline = true;
    let model = registry::find("vit-b-32-openai").unwrap();
    let folder = cache.path().join("models--openai--clip-vit-base-patch32");
    let snapshot = folder.join("snapshots").join(COMMIT);
    fs::create_dir_all(&snapshot).unwrap();
    fs::create_dir_all(folder.join("refs")).unwrap();
    fs::write(folder.join("refs/main"), COMMIT).unwrap();
    for file in ["config.json", "preprocessor_config.json", "vocab.json", "merges.txt"] {
        fs::write(snapshot.join(file), "x").unwrap();
    }
    assert_eq!(locate(model, &options), None);
    fs::write(snapshot.join("pytorch_model.bin"), "x").unwrap();
    assert_eq!(locate(model, &options), Some(snapshot.clone()));
    assert_eq!(Fetch::new(model, &options).run().unwrap(), snapshot);
}

#[test]
fn progress_counts_all_files_and_ends_at_the_total() {
    let hub = Hub::honest();
    let seen = survives(&hub);
    let total = ["open_clip_config.json", WEIGHTS].map(|file| hub.file(file).len() as u64);
    let total = total.iter().sum();
    assert!(seen.iter().map(|progress| progress.bytes).is_sorted());
    let last = seen.last().unwrap();
    assert_eq!((last.bytes, last.total, last.found), (total, Some(total), 0));
    assert!(seen.iter().any(|progress| progress.stage == Stage::Checking));
}

#[test]
fn a_connection_that_breaks_off_is_resumed_where_it_broke() {
    let hub = Hub::with(|request, stream| {
        let breaks = request.is_get(WEIGHTS) && request.nth < 3;
        if breaks {
            request.answer_part(stream, 100_000);
        }
        breaks
    });
    survives(&hub);
    let ranges = hub.ranges(WEIGHTS);
    assert_eq!(
        ranges,
        [None, Some("bytes=100000-".into()), Some("bytes=200000-".into()), Some("bytes=300000-".into())]
    );
}

#[test]
fn what_an_earlier_program_left_is_not_downloaded_again() {
    let hub = Hub::honest();
    let (_cache, options) = setup(&hub);
    fs::create_dir_all(folder(&options).join("blobs")).unwrap();
    let partial = folder(&options).join("blobs").join(format!("{}.incomplete", hub.etag(WEIGHTS)));
    fs::write(&partial, &hub.file(WEIGHTS)[..150_000]).unwrap();
    let mut found = 0;
    let directory = Fetch::new(registry::find(MODEL).unwrap(), &options)
        .on_progress(|progress| found = progress.found)
        .run()
        .unwrap();
    assert_complete(&directory, &hub);
    assert_eq!(hub.ranges(WEIGHTS), [Some("bytes=150000-".into())]);
    assert_eq!(found, 150_000);
}

#[test]
fn a_spoilt_partial_file_is_thrown_away_and_fetched_anew() {
    let hub = Hub::honest();
    for spoilt in [vec![7; 150_000], vec![7; hub.file(WEIGHTS).len()], vec![7; hub.file(WEIGHTS).len() + 5]] {
        let (_cache, options) = setup(&hub);
        fs::create_dir_all(folder(&options).join("blobs")).unwrap();
        let partial = folder(&options).join("blobs").join(format!("{}.incomplete", hub.etag(WEIGHTS)));
        fs::write(&partial, spoilt).unwrap();
        assert_complete(&fetch(&options).unwrap(), &hub);
    }
}

#[test]
fn wrong_bytes_are_noticed_once_and_for_all() {
    let spoil = |always: bool| {
        Hub::with(move |request, stream| {
            let wrong = request.is_get(WEIGHTS) && (always || request.nth == 0);
            if wrong {
                let mut bytes = request.file.clone();
                bytes[200_000] ^= 1;
                server::respond(stream, "200 OK", &[], &bytes);
            }
            wrong
        })
    };
    survives(&spoil(false));
    let hub = spoil(true);
    let error = fails(&hub);
    assert!(error.contains("checksum") && error.contains(WEIGHTS), "{error}");
    assert_eq!(hub.ranges(WEIGHTS).len(), 2, "no third time");
}

#[test]
fn a_small_file_is_checked_against_its_git_name() {
    let hub = Hub::with(|request, stream| {
        let wrong = request.is_get("open_clip_config.json");
        if wrong {
            let bytes = vec![b' '; request.file.len()];
            server::respond(stream, "200 OK", &[], &bytes);
        }
        wrong
    });
    assert!(fails(&hub).contains("checksum"));
}

#[test]
fn a_wrong_length_is_no_file() {
    for change in [-1000_i64, 1000] {
        let hub = Hub::with(move |request, stream| {
            let wrong = request.is_get(WEIGHTS);
            if wrong {
                let mut bytes = request.file.clone();
                bytes.resize((bytes.len() as i64 + change) as usize, 0);
                server::respond(stream, "200 OK", &[], &bytes);
            }
            wrong
        });
        let error = fails(&hub);
        assert!(error.contains("announced"), "{error}");
    }
}

#[test]
fn a_server_without_ranges_still_serves() {
    let hub = Hub::with(|request, stream| {
        if !request.is_get(WEIGHTS) {
            return false;
        }
        match request.nth {
            0 => request.answer_part(stream, 100_000),
            _ => server::respond(stream, "200 OK", &[], &request.file),
        }
        true
    });
    survives(&hub);
    assert_eq!(hub.ranges(WEIGHTS).len(), 2);
}

#[test]
fn a_range_that_is_not_the_one_asked_for_is_not_used() {
    let hub = Hub::with(|request, stream| {
        if !request.is_get(WEIGHTS) {
            return false;
        }
        match request.nth {
            0 => request.answer_part(stream, 100_000),
            1 => {
                let range = format!("content-range: bytes 0-{}/{}", request.file.len() - 1, request.file.len());
                server::respond(stream, "206 Partial Content", &[&range], &request.file);
            }
            _ => return false,
        }
        true
    });
    survives(&hub);
}

#[test]
fn a_range_that_the_server_refuses_starts_again() {
    let hub = Hub::with(|request, stream| {
        if !request.is_get(WEIGHTS) || request.nth > 1 {
            return false;
        }
        match request.nth {
            0 => request.answer_part(stream, 100_000),
            _ => server::respond(stream, "416 Range Not Satisfiable", &["content-range: bytes */5"], b""),
        }
        true
    });
    survives(&hub);
    assert_eq!(hub.ranges(WEIGHTS), [None, Some("bytes=100000-".into()), None]);
}

#[test]
fn a_busy_hub_is_asked_again_and_not_for_ever() {
    for status in ["429 Too Many Requests", "503 Service Unavailable", "500 Oops", "408 Request Timeout"] {
        let hub = Hub::with(move |request, stream| {
            let busy = request.nth < 2;
            if busy {
                server::respond(stream, status, &["retry-after: 0"], b"");
            }
            busy
        });
        let seen = survives(&hub);
        assert!(seen.iter().any(|progress| matches!(progress.stage, Stage::Retrying { .. })), "{status}");
    }
    let hub = Hub::with(|_, stream| {
        server::respond(stream, "503 Service Unavailable", &[], b"");
        true
    });
    assert!(fails(&hub).contains("503"));
    assert_eq!(hub.requests().len(), 5);
}

#[test]
fn the_pause_that_a_server_asks_for_is_kept() {
    let hub = Hub::with(|request, stream| {
        let busy = request.is_get(WEIGHTS) && request.nth == 0;
        if busy {
            server::respond(stream, "429 Too Many Requests", &["retry-after: 1"], b"");
        }
        busy
    });
    let start = Instant::now();
    survives(&hub);
    assert!(start.elapsed() >= Duration::from_secs(1));
}

#[test]
fn a_file_with_an_alternative_may_be_missing() {
    let hub = Hub::without(&[WEIGHTS]);
    let (_cache, options) = setup(&hub);
    let directory = fetch(&options).unwrap();
    let file = "open_clip_pytorch_model.bin";
    assert!(fs::read(directory.join(file)).unwrap() == hub.file(file));
}

#[test]
fn a_repository_in_the_other_layout_will_do() {
    let hub = Hub::without(&["open_clip_config.json", "tokenizer.json"]);
    let (_cache, options) = setup(&hub);
    let directory = fetch(&options).unwrap();
    for file in ["config.json", "preprocessor_config.json", "vocab.json", "merges.txt", "model.safetensors"] {
        assert!(fs::read(directory.join(file)).unwrap() == hub.file(file), "{file}");
    }
}

#[test]
fn refusals_are_explained() {
    for (status, code, words) in [
        ("404 Not Found", "EntryNotFound", "has no open_clip_config.json"),
        ("404 Not Found", "RepoNotFound", "no such repository"),
        ("404 Not Found", "RevisionNotFound", "no such revision"),
        ("401 Unauthorized", "RepoNotFound", "HF_TOKEN"),
        ("403 Forbidden", "GatedRepo", "accept the terms"),
        ("400 Bad Request", "", "status 400"),
    ] {
        let hub = Hub::with(move |_, stream| {
            server::respond(stream, status, &[&format!("x-error-code: {code}")], b"");
            true
        });
        let error = fails(&hub);
        assert!(error.contains(words) && error.contains(REPOSITORY), "{error}");
    }
}

#[test]
fn a_refused_token_is_said_and_not_shown() {
    let hub = Hub::with(|_, stream| {
        server::respond(stream, "401 Unauthorized", &[], b"");
        true
    });
    let (_cache, mut options) = setup(&hub);
    options.token = Some("hf_secret".into());
    let error = fetch(&options).unwrap_err();
    assert!(error.to_string().contains("token") && !format!("{error:?}").contains("hf_secret"), "{error}");
}

#[test]
fn the_token_stays_with_the_hub() {
    let storage = Hub::honest();
    let elsewhere = storage.url();
    let hub = Hub::with(move |request, stream| {
        let moved = request.path.ends_with(WEIGHTS) && !request.path.starts_with("/moved");
        if moved && request.method == "HEAD" {
            // The hub's way: first to another path of its own, and from there to the storage.
            server::respond(stream, "307 Temporary Redirect", &[&format!("location: /moved{}", request.path)], b"");
        } else if moved {
            let location = format!("location: {elsewhere}{}", request.path);
            server::respond(stream, "302 Found", &[&location], b"");
        }
        moved
    });
    let (_cache, mut options) = setup(&hub);
    options.token = Some("hf_secret".into());
    assert_complete(&fetch(&options).unwrap(), &hub);
    assert!(hub.requests().iter().all(|request| request.header("authorization") == Some("Bearer hf_secret")));
    assert!(hub.requests().iter().any(|request| request.path.starts_with("/moved")));
    assert_eq!(storage.ranges(WEIGHTS).len(), 1);
    assert!(storage.requests().iter().all(|request| request.header("authorization").is_none()));
}

#[test]
fn the_checksum_is_the_hubs_and_not_the_storages() {
    // The storage behind a redirect has etags of its own; they name nothing.
    let storage = Hub::with(|request, stream| {
        server::respond(stream, "200 OK", &["etag: \"d41d8cd98f00b204e9800998ecf8427e-7\""], &request.file);
        true
    });
    let elsewhere = storage.url();
    let hub = Hub::with(move |request, stream| {
        let moved = request.path.ends_with(WEIGHTS);
        if moved {
            let linked = [
                format!("location: {elsewhere}{}", request.path),
                format!("x-linked-etag: \"{}\"", request.etag),
                format!("x-linked-size: {}", request.file.len()),
                format!("x-repo-commit: {COMMIT}"),
            ];
            server::respond(stream, "302 Found", &linked.each_ref().map(String::as_str), b"");
        }
        moved
    });
    survives(&hub);
    assert!(storage.requests().iter().all(|request| request.method == "GET"), "the storage is not asked for heads");
}

#[test]
fn redirects_end_somewhere() {
    let hub = Hub::with(|request, stream| {
        server::respond(stream, "302 Found", &[&format!("location: {}", request.path)], b"");
        true
    });
    assert!(fails(&hub).contains("redirects"));
}

#[test]
fn a_silent_server_is_left_and_asked_again() {
    let hub = Hub::with(|request, stream| {
        let silent = request.is_get(WEIGHTS) && request.nth == 0;
        if silent {
            request.answer_part(stream, 120_000);
            std::thread::sleep(Duration::from_secs(2));
        }
        silent
    });
    let start = Instant::now();
    survives(&hub);
    assert_eq!(hub.ranges(WEIGHTS), [None, Some("bytes=120000-".into())]);
    assert!(start.elapsed() < Duration::from_secs(2), "the silence is not waited out");
    let hub = Hub::with(|_, _| {
        std::thread::sleep(Duration::from_secs(1));
        true
    });
    let (_cache, mut options) = setup(&hub);
    (options.timeout, options.attempts) = (Duration::from_millis(200), 2);
    let error = fetch(&options).unwrap_err().to_string();
    assert!(error.contains("silent"), "{error}");
}

#[test]
fn nobody_there_is_an_error_that_names_the_address() {
    let cache = tempfile::tempdir().unwrap();
    let mut options = HubOptions::new(cache.path());
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    options.endpoint = format!("http://{closed}");
    options.backoff = Duration::from_millis(1);
    let error = fetch(&options).unwrap_err().to_string();
    assert!(error.contains("the connection failed") && error.contains(&options.endpoint), "{error}");
    options.endpoint = "no address".into();
    assert!(fetch(&options).unwrap_err().to_string().contains("no address of a hub"));
}

#[test]
fn a_file_of_unknown_length_is_known_by_its_checksum() {
    let hub = Hub::with(|request, stream| {
        if request.method == "HEAD" {
            let described = [format!("etag: \"{}\"", request.etag), format!("x-repo-commit: {COMMIT}")];
            server::respond_open(stream, "200 OK", &described.each_ref().map(String::as_str));
        } else {
            server::respond_chunked(stream, &request.file);
        }
        true
    });
    let seen = survives(&hub);
    assert!(seen.iter().map(|progress| progress.bytes).is_sorted());
    assert_eq!(seen.last().unwrap().total, None);
}

#[test]
fn a_chunked_answer_that_breaks_off_is_resumed() {
    let hub = Hub::with(|request, stream| {
        let breaks = request.is_get(WEIGHTS) && request.nth == 0;
        if breaks {
            server::respond_chunked_and_die(stream, &request.file[..90_000]);
        }
        breaks
    });
    survives(&hub);
    assert_eq!(hub.ranges(WEIGHTS).len(), 2);
}

#[test]
fn a_server_that_is_no_hub_is_named_as_such() {
    for headers in [
        vec!["etag: \"ce013625030ba8dba906f756967f9e9ca394464a\""],
        vec!["x-repo-commit: 0123456789012345678901234567890123456789"],
        vec!["x-repo-commit: 0123456789012345678901234567890123456789", "etag: \"../../../../escape\""],
        vec!["x-repo-commit: ../../../escape", "etag: \"ce013625030ba8dba906f756967f9e9ca394464a\""],
    ] {
        let hub = Hub::with(move |_, stream| {
            server::respond(stream, "200 OK", &headers, b"<html>");
            true
        });
        let error = fails(&hub);
        assert!(error.contains("HF_ENDPOINT"), "{error}");
    }
}

#[test]
fn a_cancellation_is_felt_at_once_and_keeps_what_has_arrived() {
    let hub = Hub::with(|request, stream| {
        let silent = request.is_get(WEIGHTS) && request.nth == 0;
        if silent {
            request.answer_part(stream, 130_000);
            std::thread::sleep(Duration::from_secs(5));
        }
        silent
    });
    let (_cache, mut options) = setup(&hub);
    options.timeout = Duration::from_secs(60);
    let others = hub.file("open_clip_config.json").len() as u64;
    let (here, start) = (Cell::new(0), Instant::now());
    let error = Fetch::new(registry::find(MODEL).unwrap(), &options)
        .on_progress(|progress| here.set(progress.bytes))
        .cancel_when(|| here.get() >= 130_000 + others)
        .run()
        .unwrap_err();
    assert!(matches!(error, Error::Cancelled));
    assert!(start.elapsed() < Duration::from_secs(4));
    let partial = folder(&options).join("blobs").join(format!("{}.incomplete", hub.etag(WEIGHTS)));
    assert!(fs::read(&partial).unwrap() == hub.file(WEIGHTS)[..130_000]);
    assert_complete(&fetch(&options).unwrap(), &hub);
    assert_eq!(hub.ranges(WEIGHTS), [None, Some("bytes=130000-".into())]);
}

#[test]
fn offline_asks_nobody() {
    let hub = Hub::honest();
    let (_cache, mut options) = setup(&hub);
    options.offline = true;
    let error = fetch(&options).unwrap_err().to_string();
    assert!(error.contains("offline") && error.contains("open_clip_config.json"), "{error}");
    assert!(hub.requests().is_empty());
    options.offline = false;
    let directory = fetch(&options).unwrap();
    options.offline = true;
    assert_eq!(fetch(&options).unwrap(), directory);
}

#[test]
fn two_programs_download_a_model_once() {
    let slow = AtomicBool::new(true);
    let hub = Hub::with(move |request, _| {
        if request.is_get(WEIGHTS) && slow.swap(false, Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(300));
        }
        false
    });
    let (_cache, options) = setup(&hub);
    let mut waited = [false; 3];
    std::thread::scope(|scope| {
        for waited in &mut waited {
            scope.spawn(|| {
                let model = registry::find(MODEL).unwrap();
                let seen = |progress: &Progress| *waited |= progress.stage == Stage::Waiting;
                assert_complete(&Fetch::new(model, &options).on_progress(seen).run().unwrap(), &hub);
            });
        }
    });
    assert_eq!(hub.ranges(WEIGHTS).len(), 1);
    assert!(waited.contains(&true));
}

#[test]
fn without_symlinks_the_files_are_there_all_the_same() {
    let hub = Hub::honest();
    let (_cache, mut options) = setup(&hub);
    options.symlinks = false;
    let directory = fetch(&options).unwrap();
    assert_complete(&directory, &hub);
    assert!(fs::symlink_metadata(directory.join(WEIGHTS)).unwrap().is_file());
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_named_with_what_to_do() {
    let hub = Hub::honest();
    let (_cache, options) = setup(&hub);
    fs::create_dir_all(folder(&options).join("blobs")).unwrap();
    let partial = folder(&options).join("blobs").join(format!("{}.incomplete", hub.etag("open_clip_config.json")));
    std::os::unix::fs::symlink("/dev/full", partial).unwrap();
    let error = fetch(&options).unwrap_err().to_string();
    assert!(error.contains("the disk is full") && error.contains(REPOSITORY.split('/').next().unwrap()), "{error}");
}

#[test]
fn a_folder_that_cannot_be_made_is_named_with_what_to_do() {
    let hub = Hub::honest();
    let (cache, mut options) = setup(&hub);
    let file = cache.path().join("file");
    fs::write(&file, "").unwrap();
    options.cache = file.join("hub");
    let error = fetch(&options).unwrap_err().to_string();
    assert!(error.contains("file is in the way") && error.contains(file.to_str().unwrap()), "{error}");
}
