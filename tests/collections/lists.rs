//! Lists of pictures, and captions beside pictures.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::json;
use tintype::collection::detect;
use tintype::{Download, Ranking, SourceKind};

use super::{Place, lines, picture};

#[test]
fn rows_of_a_list_are_pictures_with_metadata() {
    let place = Place::new();
    std::fs::create_dir(place.path("pictures")).unwrap();
    for n in 0..4 {
        std::fs::write(place.path(&format!("pictures/{n}.png")), picture(n)).unwrap();
    }
    let rows = "file_name,text,views,id\n0.png,a cat,10,007\n1.png,\"a dog, running\",20.5,x\n9.png,not there,1,y\n0.png,again,1,z\n";
    std::fs::write(place.path("list.csv"), rows).unwrap();
    let engine = place.engine();
    let report = engine.collect([place.path("list.csv")]).images(place.path("pictures")).run().unwrap();
    assert_eq!(report.added, 2);
    let found = lines(&report, &place);
    assert!(
        found.len() == 2
            && found[0].starts_with("pictures/0.png: an earlier row")
            && found[1].starts_with("pictures/9.png: "),
        "{found:?}"
    );
    let hits = engine.search("where:\"views > 15\"").run().unwrap();
    assert_eq!((hits.len(), hits[0].record.caption.as_deref()), (1, Some("a dog, running")));
    assert_eq!(
        engine.metadata(&[hits[0].record.key]).unwrap()[0],
        *json!({"file_name": "1.png", "views": 20.5, "id": "x"}).as_object().unwrap()
    );
    assert_eq!(engine.open_image(hits[0].record.key).unwrap(), picture(1));
    assert!(!engine.status().unwrap().sources[0].complete, "a picture may come yet");

    std::fs::write(place.path("pictures/9.png"), picture(9)).unwrap();
    let report = engine.collect([place.path("list.csv")]).images(place.path("pictures")).run().unwrap();
    assert_eq!((report.added, report.embedded), (1, 1));
    assert!(engine.status().unwrap().sources[0].complete);

    // A list that says something else of pictures that are as they were costs no embedding.
    std::fs::write(place.path("list.csv"), rows.replace("a cat", "a tiger")).unwrap();
    let report = engine.collect([place.path("list.csv")]).images(place.path("pictures")).run().unwrap();
    assert_eq!((report.added, report.embedded), (0, 0));
    assert_eq!(engine.search("text:tiger").run().unwrap().len(), 1);
    assert_eq!(engine.search("text:cat").run().unwrap().len(), 0);
    assert_eq!(place.encoder.pictures(), 3);
}

#[test]
fn a_list_of_pictures_that_are_known_describes_them() {
    let place = Place::new();
    std::fs::create_dir(place.path("pictures")).unwrap();
    std::fs::write(place.path("pictures/0.png"), picture(0)).unwrap();
    std::fs::write(place.path("list.jsonl"), "{\"path\": \"pictures/0.png\", \"caption\": \"a cat\"}\n").unwrap();
    let engine = place.engine();
    engine.ingest([place.path("pictures")]).run().unwrap();
    engine.collect([place.path("list.jsonl")]).run().unwrap();
    assert_eq!(engine.search("text:cat").run().unwrap()[0].path, place.path("pictures/0.png"));
    assert_eq!((place.encoder.pictures(), engine.status().unwrap().photos), (1, 1));

    std::fs::create_dir(place.path("lists")).unwrap();
    std::fs::copy(place.path("list.jsonl"), place.path("lists/list.jsonl")).unwrap();
    engine.collect([place.path("lists/list.jsonl")]).images(place.path("")).run().unwrap();
    assert_eq!(engine.remove([place.path("lists")]).unwrap(), 0, "what a list only described belongs to its folder");
    assert_eq!((engine.status().unwrap().photos, engine.status().unwrap().sources.len()), (1, 1));
}

#[test]
fn captions_beside_pictures_are_theirs_and_stay_up_to_date() {
    let place = Place::new();
    std::fs::create_dir(place.path("p")).unwrap();
    std::fs::write(place.path("p/a.png"), picture(1)).unwrap();
    std::fs::write(place.path("p/b.png"), picture(2)).unwrap();
    std::fs::write(place.path("p/a.txt"), "a cat on a mat\n").unwrap();
    std::fs::write(place.path("p/b.png.json"), "{\"caption\": \"a dog\", \"stars\": 4}").unwrap();
    std::fs::write(place.path("p/notes.txt"), "nothing to do with a picture").unwrap();
    let engine = place.engine();
    let report = engine.ingest([place.path("p")]).run().unwrap();
    assert_eq!((report.added, report.skipped.len()), (2, 0));
    assert_eq!(engine.search("text:mat").run().unwrap()[0].path, place.path("p/a.png"));
    assert_eq!(engine.search("text:dog where:\"stars = 4\"").run().unwrap()[0].path, place.path("p/b.png"));
    std::fs::write(place.path("p/a.txt"), "a tiger in a tree").unwrap();
    engine.ingest([place.path("p")]).run().unwrap();
    assert_eq!(engine.search("text:tiger").run().unwrap().len(), 1);
    assert_eq!(engine.search("text:mat").run().unwrap().len(), 0);
    // A picture with a new content keeps what is said of it.
    std::fs::write(place.path("p/a.png"), picture(3)).unwrap();
    engine.ingest([place.path("p")]).run().unwrap();
    assert_eq!(engine.search("text:tiger").run().unwrap().len(), 1);
    assert_eq!(place.encoder.pictures(), 3);
}

#[test]
fn a_caption_that_changed_is_found_by_what_it_means_now() {
    let place = Place::new();
    std::fs::create_dir(place.path("p")).unwrap();
    for n in 0..3 {
        std::fs::write(place.path(&format!("p/{n}.png")), picture(n)).unwrap();
    }
    let list = |first: &str| format!("path,caption\np/0.png,{first}\np/1.png,green\np/2.png,blue\n");
    std::fs::write(place.path("list.csv"), list("red")).unwrap();
    let engine = place.engine();
    engine.collect([place.path("list.csv")]).run().unwrap();
    assert_eq!(engine.embed_captions().run().unwrap(), 3);
    let best = |text: &str| engine.search(text).ranking(Ranking::Caption).limit(1).run().unwrap().remove(0);
    assert_eq!(best("red").path, place.path("p/0.png"));
    std::fs::write(place.path("list.csv"), list("white")).unwrap();
    engine.collect([place.path("list.csv")]).run().unwrap();
    assert_eq!(engine.status().unwrap().caption_vectors, 2, "the vector of another text is worse than none");
    assert_eq!(engine.embed_captions().run().unwrap(), 1);
    let found = best("white");
    assert!(found.path == place.path("p/0.png") && found.score > 0.99, "{found:?}");
    assert_eq!(engine.score_captions().run(|_| Ok(())).unwrap().pairs, 3);
    assert_eq!(engine.embed_captions().run().unwrap(), 0);
}

#[test]
fn a_value_that_a_list_takes_back_is_not_found_any_more() {
    let place = Place::new();
    std::fs::write(place.path("0.png"), picture(0)).unwrap();
    std::fs::write(
        place.path("list.jsonl"),
        "{\"path\": \"0.png\", \"caption\": \"a cat\", \"stars\": 4, \"by\": \"me\"}\n",
    )
    .unwrap();
    let engine = place.engine();
    engine.collect([place.path("list.jsonl")]).run().unwrap();
    assert_eq!(engine.search("text:cat where:\"stars = 4\"").run().unwrap().len(), 1);
    std::fs::write(place.path("list.jsonl"), "{\"path\": \"0.png\", \"caption\": null, \"stars\": null}\n").unwrap();
    engine.collect([place.path("list.jsonl")]).run().unwrap();
    assert_eq!(engine.search("text:cat").run().unwrap().len(), 0);
    assert_eq!(engine.search("where:\"stars = 4\"").run().unwrap().len(), 0);
    let hit = engine.search("where:\"by = 'me'\"").run().unwrap().remove(0);
    assert_eq!(hit.record.caption, None, "what the row does not name stays");
}

#[test]
fn a_file_beside_a_picture_that_is_empty_or_gone_says_nothing() {
    let place = Place::new();
    std::fs::create_dir(place.path("p")).unwrap();
    std::fs::write(place.path("p/a.png"), picture(1)).unwrap();
    std::fs::write(place.path("p/a.txt"), "a cat on a mat").unwrap();
    std::fs::write(place.path("p/a.json"), "{\"caption\": \"an animal\", \"stars\": 4, \"by\": \"me\"}").unwrap();
    let engine = place.engine();
    engine.ingest([place.path("p")]).run().unwrap();
    let about = || {
        let record = engine.record(place.path("p/a.png")).unwrap().unwrap();
        (record.caption, engine.metadata(&[record.key]).unwrap().remove(0).len())
    };
    let caption = |text: &str| Some(text.to_owned());
    assert_eq!(about(), (caption("a cat on a mat"), 2));
    assert_eq!(engine.embed_captions().run().unwrap(), 1);
    std::fs::write(place.path("p/a.txt"), "").unwrap();
    engine.ingest([place.path("p")]).run().unwrap();
    assert_eq!(about(), (caption("an animal"), 2), "the other file still speaks");
    assert_eq!((engine.search("text:mat").run().unwrap().len(), engine.status().unwrap().caption_vectors), (0, 0));
    std::fs::write(place.path("p/a.json"), "{\"by\": \"me\"}").unwrap();
    engine.ingest([place.path("p")]).run().unwrap();
    assert_eq!(about(), (None, 1));
    std::fs::remove_file(place.path("p/a.json")).unwrap();
    engine.ingest([place.path("p")]).run().unwrap();
    assert_eq!(about(), (None, 0));
    // A caption that was there before its picture.
    std::fs::write(place.path("p/b.txt"), "a dog").unwrap();
    engine.ingest([place.path("p")]).run().unwrap();
    std::fs::write(place.path("p/b.png"), picture(2)).unwrap();
    engine.ingest([place.path("p")]).run().unwrap();
    assert_eq!(engine.search("text:dog").run().unwrap()[0].path, place.path("p/b.png"));
}

#[test]
fn what_is_said_beside_a_picture_outlives_a_file_that_cannot_be_read() {
    let place = Place::new();
    std::fs::create_dir(place.path("p")).unwrap();
    let write = |name: &str, text: &str| std::fs::write(place.path("p").join(name), text).unwrap();
    std::fs::write(place.path("p/A.PNG"), picture(1)).unwrap();
    write("A.TXT", "a cat");
    write("A.JSON", "{\"stars\": 4}");
    let engine = place.engine();
    let about = || {
        let lines = engine.ingest([place.path("p")]).run().unwrap().skipped.len();
        let record = engine.record(place.path("p/A.PNG")).unwrap().unwrap();
        (record.caption.unwrap(), engine.metadata(&[record.key]).unwrap().remove(0).len(), lines)
    };
    let is = |caption: &str, fields: usize, lines: usize| (caption.to_owned(), fields, lines);
    assert_eq!(about(), is("a cat", 1, 0));
    write("A.JSON", "{\"stars\": 4, \"by\": \"me\"}");
    assert_eq!(about(), is("a cat", 2, 0), "the text is there, if in capitals");
    write("A.JSON", "{\"stars\": 4, ");
    assert_eq!(about(), is("a cat", 2, 1), "half of it is written");
    #[cfg(unix)]
    {
        write("A.TXT", "a tiger");
        std::fs::remove_file(place.path("p/A.JSON")).unwrap();
        std::os::unix::fs::symlink("A.JSON", place.path("p/A.JSON")).unwrap();
        assert_eq!(about(), is("a tiger", 2, 1), "the system does not show it");
        std::fs::remove_file(place.path("p/A.JSON")).unwrap();
    }
    write("A.TXT", "a lion");
    write("A.JSON", "{\"stars\": 5}");
    assert_eq!(about(), is("a lion", 1, 0));
    // The name that means one photo wins, whichever changed last.
    write("A.PNG.txt", "a puma");
    assert_eq!(about(), is("a puma", 1, 0));
    write("A.TXT", "a big cat");
    assert_eq!(about(), is("a puma", 1, 0));
}

#[test]
fn captions_that_the_first_walk_does_not_bring_are_read() {
    let place = Place::new();
    std::fs::create_dir(place.path("p")).unwrap();
    std::fs::write(place.path("p/a.txt"), "a dog").unwrap();
    let engine = place.engine();
    engine.ingest([place.path("p")]).run().unwrap();
    std::fs::write(place.path("p/a.png"), picture(1)).unwrap();
    engine.ingest([place.path("p")]).run().unwrap();
    assert_eq!(engine.search("text:dog").run().unwrap().len(), 1, "it was there before any picture");
    let named = place.library("named");
    named.ingest([place.path("p/a.png")]).run().unwrap();
    assert_eq!(named.search("text:dog").run().unwrap().len(), 1, "only the picture was named");
}

#[test]
fn a_folder_of_lists_is_a_collection() {
    let place = Place::new();
    std::fs::create_dir_all(place.path("lists")).unwrap();
    for n in 0..4 {
        std::fs::write(place.path(&format!("{n}.png")), picture(n)).unwrap();
    }
    std::fs::write(place.path("lists/b.csv"), "path,caption\n../0.png,a cat\n../1.png,a dog\n").unwrap();
    std::fs::write(place.path("lists/a.jsonl"), "{\"path\": \"../2.png\", \"caption\": \"a cow\"}\n").unwrap();
    std::fs::write(place.path("lists/_SUCCESS"), "").unwrap();
    assert_eq!(detect(&place.path("lists"), None), Some(SourceKind::List));
    let engine = place.engine();
    let report = engine.collect([place.path("lists")]).run().unwrap();
    assert_eq!((report.added, lines(&report, &place), engine.status().unwrap().sources.len()), (3, vec![], 2));
    assert_eq!(engine.collect([place.path("lists")]).run().unwrap().bytes, 0);
    // Photos beside a list, or below it, are photos.
    assert_eq!(detect(&place.path(""), None), None);
    std::fs::create_dir(place.path("lists/photos")).unwrap();
    assert_eq!(detect(&place.path("lists"), None), None);

    std::fs::create_dir(place.path("vectors-in")).unwrap();
    std::fs::copy(super::fixture("vectors.parquet"), place.path("vectors-in/0.parquet")).unwrap();
    assert_eq!(detect(&place.path("vectors-in"), None), Some(SourceKind::Embeddings));
    let vectors = super::declared(&place, 49);
    assert_eq!(vectors.collect([place.path("vectors-in")]).run().unwrap().added, 10);
}

#[test]
fn whole_numbers_keep_their_digits() {
    let place = Place::new();
    std::fs::write(place.path("0.png"), picture(0)).unwrap();
    std::fs::write(
        place.path("list.jsonl"),
        "{\"path\": \"0.png\", \"hash\": 18446744073709551557, \"id\": -9223372036854775808}\n",
    )
    .unwrap();
    let engine = place.engine();
    engine.collect([place.path("list.jsonl")]).run().unwrap();
    let hit = engine.search("where:\"hash = '18446744073709551557'\"").run().unwrap().remove(0);
    let about = engine.metadata(&[hit.record.key]).unwrap().remove(0);
    assert_eq!((&about["hash"], &about["id"]), (&json!("18446744073709551557"), &json!(i64::MIN)));
}

/// Serves pictures by their number; `/7` is none.
fn server() -> String {
    counted_server().0
}

/// The same, with how many requests there were.
fn counted_server() -> (String, Arc<AtomicU64>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let requests = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&requests);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            count.fetch_add(1, Ordering::SeqCst);
            let mut stream = stream.unwrap();
            let mut request = [0; 2048];
            let read = stream.read(&mut request).unwrap();
            let line = String::from_utf8_lossy(&request[..read]).into_owned();
            let number = line.split(' ').nth(1).and_then(|path| path[1..].parse::<u64>().ok());
            let (status, body) = match number {
                Some(7) => ("200 OK", b"<html>".to_vec()),
                Some(n) => ("200 OK", picture(n)),
                None if line.contains("/busy ") => ("503 Service Unavailable", Vec::new()),
                None => ("404 Not Found", Vec::new()),
            };
            let head = format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
            let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body));
        }
    });
    (format!("http://{address}"), requests)
}

#[test]
fn pictures_of_the_web_are_fetched_only_when_that_is_asked_for() {
    let place = Place::new();
    let host = server();
    let rows: String = (0..10)
        .map(|n| format!("{}\n", json!({"url": format!("{host}/{n}"), "caption": format!("number {n}")})))
        .collect();
    std::fs::write(place.path("list.jsonl"), format!("{rows}{{\"url\": \"{host}/missing\"}}\n")).unwrap();
    let engine = place.engine();
    let list = place.path("list.jsonl");
    let report = engine.collect([&list]).run().unwrap();
    assert_eq!(
        (report.added, lines(&report, &place)),
        (0, vec!["list.jsonl: 11 pictures are on the web and were not fetched; --download fetches them".to_owned()])
    );
    let mut download = Download::default();
    (download.connections, download.retries) = (3, 0);
    let report = engine.collect([&list]).download(download).run().unwrap();
    assert_eq!((report.added, report.skipped.len()), (0, 11));
    assert!(lines(&report, &place).iter().all(|line| line.contains("private network")));
    download.private_addresses = true;
    let report = engine.collect([&list]).download(download).run().unwrap();
    assert_eq!((report.added, report.skipped.len()), (9, 2), "{:?}", report.skipped);
    let hit = engine.search("text:\"number 3\"").run().unwrap().remove(0);
    assert_eq!(hit.path.to_str().unwrap(), format!("{host}/3"));
    assert_eq!(engine.open_image(hit.record.key).unwrap(), picture(3), "a small picture is kept as it is");
    let again = engine.collect([&list]).download(download).run().unwrap();
    assert_eq!((again.added, again.bytes), (0, 0));
}

#[test]
fn what_is_kept_of_the_web_serves_another_model_and_goes_with_its_photo() {
    let place = Place::new();
    let host = server();
    let list = place.path("list.jsonl");
    let rows: String = (0..6).map(|n| format!("{}\n", json!({"url": format!("{host}/{n}")}))).collect();
    std::fs::write(&list, rows).unwrap();
    let mut download = Download::default();
    download.private_addresses = true;
    let engine = place.engine();
    assert_eq!(engine.collect([&list]).download(download).run().unwrap().added, 6);
    let switched = engine.switch(tintype::Encoder::new(crate::colours::Colours::new("others"))).run().unwrap();
    assert_eq!((switched.embedded, switched.skipped.len()), (6, 0));
    let key = engine.record(format!("{host}/4")).unwrap().unwrap().key;
    assert_eq!(engine.open_image(key).unwrap(), picture(4));
    let copies = || std::fs::read_dir(engine.dir().join("copies")).unwrap().flatten().map(|shelf| shelf.path());
    let count = || copies().map(|shelf| std::fs::read_dir(shelf).unwrap().count()).sum::<usize>();
    assert_eq!(count(), 6);
    engine.remove([format!("{host}/4")]).unwrap();
    assert_eq!(count(), 5);
    assert_eq!(engine.remove([place.path("")]).unwrap(), 5, "a list goes with what it brought, wherever that is");
    assert_eq!((engine.status().unwrap().sources.len(), count()), (0, 0));

    let bare = place.library("bare");
    assert_eq!(bare.collect([&list]).download(download).copies(0).run().unwrap().added, 6);
    let key = bare.record(format!("{host}/4")).unwrap().unwrap().key;
    assert!(bare.open_image(key).unwrap_err().to_string().contains("on the web"));
    let switched = bare.switch(tintype::Encoder::new(crate::colours::Colours::new("others"))).run().unwrap();
    assert_eq!((switched.embedded, switched.skipped.len()), (0, 6));
    assert!(switched.skipped[0].error.to_string().contains("--download"), "{:?}", switched.skipped);
    let report = bare.collect([&list]).download(download).run().unwrap();
    assert_eq!((report.embedded, bare.status().unwrap().photos), (6, 6), "fetched anew");
}

#[test]
fn links_that_failed_for_good_are_not_asked_again() {
    let place = Place::new();
    let (host, requests) = counted_server();
    let list = place.path("list.jsonl");
    let row = |name: &str| format!("{}\n", json!({"url": format!("{host}/{name}")}));
    std::fs::write(&list, ["0", "7", "missing", "busy"].map(row).concat()).unwrap();
    let mut download = Download::default();
    (download.private_addresses, download.retries) = (true, 0);
    let engine = place.engine();
    let take_in = || {
        let report = engine.collect([&list]).download(download).run().unwrap();
        (report.added, report.skipped.len(), requests.swap(0, Ordering::SeqCst))
    };
    assert_eq!(take_in(), (1, 3, 4));
    assert_eq!(take_in(), (0, 3, 1), "only what may be otherwise another time is asked again");
    std::fs::write(&list, ["0", "7", "missing", "1"].map(row).concat()).unwrap();
    assert_eq!(take_in(), (1, 2, 3), "of another list everything that is not there");
    assert_eq!(take_in(), (0, 0, 0));
}
