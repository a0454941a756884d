//! The HTTP service: what it answers, and what it does not.

mod client;
mod clip_retrieval;
mod load;

use std::time::{Duration, Instant};

use client::{Running, options};
use serde_json::{Value, json};
use tintype::Engine;
use tintype::server::{Fetch, Library, Server, ServerOptions};

use crate::ingest::photos::Photos;

fn served() -> (Photos, Running) {
    let photos = Photos::new();
    photos.write_many("a", 8);
    photos.write_many("b, c", 4);
    let engine = photos.engine();
    engine.ingest([photos.dir()]).run().unwrap();
    let running = Running::start(options(), vec![("photos", engine)]);
    (photos, running)
}

#[test]
fn the_api_answers_what_the_command_line_answers() {
    let (photos, running) = served();
    let engine = photos.engine();
    let query = "red -blue type:png";
    let hits = engine.search(query).limit(5).offset(1).run().unwrap();
    let found = running.get("/api/v1/search?q=red+-blue+type:png&limit=5&offset=1").json();
    assert_eq!(
        (&found["library"], &found["model"], &found["scored"]),
        (&json!("photos"), &json!("colours"), &json!(true))
    );
    let items = found["items"].as_array().unwrap();
    assert_eq!(items.len(), hits.len());
    for (item, hit) in items.iter().zip(&hits) {
        assert_eq!(item["id"].as_u64(), Some(hit.record.key));
        assert_eq!(item["path"].as_str(), hit.path.to_str());
        assert_eq!(item["score"].as_f64().map(|score| score as f32), Some(hit.score));
    }
    let ranked = running.post("/api/v1/rank", &json!({"q": query, "limit": 5, "offset": 1})).json();
    let ids: Vec<u64> = hits.iter().map(|hit| hit.record.key).collect();
    assert_eq!(ranked["ids"], json!(ids));
    assert_eq!((&ranked["shapes"], &ranked["more"]), (&json!([150, 150, 150, 150, 150]), &json!(true)));
    let listed = running.get("/api/v1/search?limit=100").json();
    assert_eq!((&listed["scored"], &listed["items"][0]["score"]), (&json!(false), &json!(null)));
    assert_eq!((listed["items"].as_array().unwrap().len(), &listed["more"]), (12, &json!(false)));
}

#[test]
fn results_without_near_duplicates_come_in_pages() {
    let (_photos, running) = served();
    let ids = |page: Value| {
        let mut body = json!({"q": "red", "parts": [{"id": 1}], "deduplicate": true, "similarity": 0.98});
        body.as_object_mut().unwrap().extend(page.as_object().unwrap().clone());
        let found = running.post("/api/v1/rank", &body).json();
        (found["ids"].as_array().unwrap().clone(), found["more"].as_bool().unwrap())
    };
    // The first four of the one folder are those of the other.
    let (all, more) = ids(json!({"limit": 100}));
    assert!((4..=8).contains(&all.len()) && !more, "{all:?}");
    let (first, more) = ids(json!({"limit": 2}));
    let (second, _) = ids(json!({"limit": 100, "offset": 2}));
    assert!(more);
    assert_eq!([first, second].concat(), all);
    assert_eq!(ids(json!({"limit": 0})).0.len(), 0);
}

#[test]
fn parts_of_every_kind_add_up() {
    let (photos, running) = served();
    let file = std::fs::read(photos.path("a/5.png")).unwrap();
    let sent = running.ask("POST", "/api/v1/similar?limit=3", &[], &file);
    assert_eq!(sent.status, 200, "{}", sent.text());
    assert!(sent.json()["items"][0]["name"].as_str().unwrap().ends_with("5.png"));
    let id = sent.json()["items"][0]["id"].as_u64().unwrap();
    let like = running.get(&format!("/api/v1/similar?id={id}&limit=3&q=in:{}", photos.path("a").display())).json();
    assert!(like["items"].as_array().unwrap().iter().all(|item| item["id"] != json!(id)), "not itself");
    assert!(like["items"][0]["path"].as_str().unwrap().contains("/a/"));
    let mixed = json!({"q": "2:red", "parts": [{"id": id}, {"text": "blue", "weight": -0.5}, {"path": "a/2.png"}],
        "within": [photos.path("a")], "deduplicate": true, "similarity": 0.999});
    let mixed = running.post("/api/v1/search", &mixed);
    assert_eq!(mixed.status, 200, "{}", mixed.text());
    let table = running.post("/api/v1/search", &json!({"q": "red", "limit": 2, "format": "csv"}));
    assert_eq!(table.header("content-type"), "text/csv; charset=utf-8");
    let lines: Vec<&str> = table.text().split("\r\n").collect();
    assert!(lines[0].starts_with("id,score,path,") && lines.len() == 4, "{lines:?}");

    running.post("/api/v1/search", &json!({"parts": [{}]})).refuses(400, "exactly one");
    running.post("/api/v1/search", &json!({"parts": [{"text": "a", "id": 1}]})).refuses(400, "exactly one");
    running.post("/api/v1/search", &json!({"query": "a"})).refuses(400, "unknown field `query`");
    running.post("/api/v1/search", &json!({"library": "x"})).refuses(404, "photos");
    // Paths that cannot be are mistakes of the request, not faults of the disk.
    running.post("/api/v1/search", &json!({"within": [""]})).refuses(400, "no path");
    running.post("/api/v1/search", &json!({"parts": [{"path": ""}]})).refuses(400, "no path");
    running.post("/api/v1/search", &json!({"parts": [{"path": "a\0b"}]})).refuses(400, "no photo");
    running.get("/api/v1/search?limit=many").refuses(400, "limit");
    running.get("/api/v1/search?q=after:2024-99").refuses(400, "");
    running.get("/api/v1/search?q=red&recall=1.5").refuses(400, "recall");
    assert_eq!(running.get("/api/v1/search?q=red&recall=0.9&limit=3").json()["items"].as_array().unwrap().len(), 3);
    running.get("/api/v1/similar?id=4711").refuses(400, "4711");
}

#[test]
fn what_is_there_is_told() {
    let (photos, running) = served();
    let status = running.get("/api/v1/status").json();
    assert_eq!(status["libraries"][0]["photos"], json!(12));
    let facets = running.get("/api/v1/facets?library=photos").json();
    assert_eq!(facets["formats"], json!([{"name": "png", "photos": 12}]));
    let root = photos.dir().canonicalize().unwrap();
    let folder = |name: &str, photos: u64| json!({"name": root.join(name), "photos": photos});
    assert_eq!(facets["folders"], json!([{"name": root, "photos": 12}, folder("a", 8), folder("b, c", 4)]));
    let items = running.get("/api/v1/items?ids=3,1,4711").json();
    let ids: Vec<u64> = items["items"].as_array().unwrap().iter().map(|item| item["id"].as_u64().unwrap()).collect();
    assert_eq!(ids, [3, 1]);
    let document = running.get("/api/v1/openapi.json").json();
    assert!(document["openapi"].as_str().unwrap().starts_with("3."));
}

#[test]
fn pictures_are_served_with_a_name_that_browsers_keep() {
    let (photos, running) = served();
    let item = running.get("/api/v1/search?limit=1").json()["items"][0].clone();
    let (id, path) = (item["id"].as_u64().unwrap(), item["path"].as_str().unwrap().to_owned());
    let file = running.get(&format!("/api/v1/image?id={id}"));
    assert_eq!((file.status, file.header("content-type")), (200, "image/png"));
    assert_eq!(file.header("x-content-type-options"), "nosniff");
    assert_eq!(file.body, std::fs::read(&path).unwrap());
    let small = running.get(&format!("/api/v1/thumbnail?id={id}&size=16"));
    assert_eq!((small.status, small.header("content-type")), (200, "image/jpeg"));
    let tag = small.header("etag").to_owned();
    let again = running.ask("GET", &format!("/api/v1/thumbnail?id={id}&size=16"), &[("If-None-Match", &tag)], b"");
    assert_eq!((again.status, again.body.len()), (304, 0));
    running.get("/api/v1/image?id=4711").refuses(404, "4711");
    running.get("/api/v1/thumbnail?id=1&size=0").refuses(400, "size");
    std::fs::remove_file(&path).unwrap();
    running.get(&format!("/api/v1/image?id={id}")).refuses(404, "cannot be shown");
    drop(photos);
}

#[cfg(unix)]
#[test]
fn nothing_but_photos_of_the_library_is_served() {
    let (photos, running) = served();
    let secret = tempfile::tempdir().unwrap();
    let outside = secret.path().join("secret.png");
    std::fs::copy(photos.path("a/1.png"), &outside).unwrap();
    let item = running.get("/api/v1/search?limit=1").json()["items"][0].clone();
    let (id, path) = (item["id"].as_u64().unwrap(), item["path"].as_str().unwrap().to_owned());
    let replaced = |make: &dyn Fn()| {
        std::fs::remove_file(&path).ok();
        make();
        running.get(&format!("/api/v1/image?id={id}"))
    };
    replaced(&|| std::os::unix::fs::symlink(&outside, &path).unwrap()).refuses(404, "leads");
    replaced(&|| std::fs::write(&path, "a password").unwrap()).refuses(404, "no picture");
    replaced(&|| std::fs::create_dir(&path).unwrap()).refuses(404, "no file");
    std::fs::remove_dir(&path).unwrap();
    let pipe = std::process::Command::new("mkfifo").arg(&path).status();
    if pipe.is_ok_and(|status| status.success()) {
        running.get(&format!("/api/v1/thumbnail?id={id}")).refuses(404, "no file");
    }
    // Queries name no files of this machine either, and do not tell whether they are there.
    for query in ["./secret.png", "/etc/passwd", "image:/etc/passwd", "image:/nowhere"] {
        let refused = running.post("/api/v1/search", &json!({"q": query}));
        assert_eq!(refused.status, 400, "{query}: {}", refused.text());
    }
    for path in
        ["/api/v1/../../etc/passwd", "/%2e%2e/etc/passwd", "/assets/../Cargo.toml", "/assets/%2e%2e%2fCargo.toml"]
    {
        assert_eq!(running.get(path).status, 404, "{path}");
    }
}

#[test]
fn pages_of_elsewhere_are_kept_out() {
    let (_photos, running) = served();
    let host = |host: &str| running.ask("GET", "/api/v1/status", &[("Host", host)], b"");
    host("evil.example").refuses(403, "evil.example");
    host("evil.example:80").refuses(403, "evil.example");
    for good in ["localhost", "LocalHost:99", "127.0.0.1:1234", "[::1]:1234"] {
        assert_eq!(host(good).status, 200, "{good}");
    }
    running
        .send(b"GET http://evil.example/api/v1/status HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        .refuses(403, "evil");
    running.send(b"GET /api/v1/status HTTP/1.0\r\n\r\n").refuses(400, "Host");
    let origin = |origin: &str| running.ask("POST", "/knn-service", &[("Origin", origin)], b"{}");
    origin("http://evil.example").refuses(403, "origin");
    origin("null").refuses(403, "origin");
    origin(&format!("http://{}", running.address)).refuses(400, "modality");
    let page = running.get("/");
    assert!(page.header("content-security-policy").starts_with("default-src 'none'"));
    assert_eq!(page.header("cross-origin-resource-policy"), "same-origin");
}

#[test]
fn a_token_is_asked_for() {
    let photos = Photos::new();
    photos.write_many("a", 1);
    let engine = photos.engine();
    engine.ingest([photos.dir()]).run().unwrap();
    let mut closed = options();
    closed.token = Some("open-sesame".to_owned());
    let running = Running::start(closed, vec![("a", engine)]);
    for path in ["/", "/api/v1/status", "/metrics", "/api/v1/thumbnail?id=1", "/?token=wrong"] {
        let refused = running.get(path);
        refused.refuses(401, "token");
        assert_eq!(refused.header("www-authenticate"), "Bearer");
    }
    let asked = |header: (&str, &str)| running.ask("GET", "/api/v1/status", &[header], b"").status;
    assert_eq!(asked(("Authorization", "Bearer open-sesame")), 200);
    assert_eq!(asked(("Authorization", "Bearer open-sesam")), 401);
    assert_eq!(asked(("Authorization", "Basic open-sesame")), 401);
    let welcome = running.get("/?token=open-sesame");
    assert_eq!((welcome.status, welcome.header("location")), (303, "/"));
    let cookie = welcome.header("set-cookie");
    assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"), "{cookie}");
    assert_eq!(asked(("Cookie", &format!("a=b; {}", cookie.split(';').next().unwrap()))), 200);
}

#[test]
fn limits_hold() {
    let photos = Photos::new();
    photos.write_many("a", 3);
    let engine = photos.engine();
    engine.ingest([photos.dir()]).run().unwrap();
    let mut small = options();
    (small.max_body, small.max_results, small.deadline) = (1000, 2, Duration::from_secs(2));
    let running = Running::start(small, vec![("a", engine)]);
    running.post("/api/v1/search", &json!({"q": "x".repeat(2000)})).refuses(413, "1000");
    let chunked = [
        b"POST /api/v1/search HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n".to_vec(),
        b"Transfer-Encoding: chunked\r\n\r\n7d0\r\n".to_vec(),
        vec![b' '; 2000],
        b"\r\n0\r\n\r\n".to_vec(),
    ];
    running.send(&chunked.concat()).refuses(413, "1000");
    assert_eq!(running.get("/api/v1/search?limit=4000000000").json()["items"].as_array().unwrap().len(), 2);
    running.get("/api/v1/search?offset=3").refuses(400, "offset");
    let drip = running
        .send(b"POST /api/v1/search HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 10\r\n\r\n{");
    drip.refuses(408, "in time");
}

#[test]
fn pictures_and_answers_have_limits_too() {
    let photos = Photos::slow(Duration::from_millis(1500));
    photos.write_many("a", 2);
    let engine = photos.engine();
    engine.ingest([photos.dir()]).run().unwrap();
    let mut small = options();
    (small.max_pixels, small.deadline) = (100, Duration::from_millis(700));
    let running = Running::start(small, vec![("a", engine)]);
    let file = std::fs::read(photos.path("a/0.png")).unwrap();
    running.ask("POST", "/api/v1/similar", &[], &file).refuses(400, "pixels");
    running.get("/api/v1/thumbnail?id=1").refuses(404, "pixels");
    let engine = photos.engine();
    let mut hasty = options();
    hasty.deadline = Duration::from_millis(700);
    let running = Running::start(hasty, vec![("a", engine)]);
    running.ask("POST", "/api/v1/similar", &[], &file).refuses(503, "longer");
}

#[test]
fn addresses_are_fetched_where_that_is_allowed_and_from_where() {
    let photos = Photos::new();
    photos.write_many("a", 3);
    photos.engine().ingest([photos.dir()]).run().unwrap();
    let host = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/a.png", host.local_addr().unwrap());
    let file = std::fs::read(photos.path("a/1.png")).unwrap();
    std::thread::spawn(move || {
        use std::io::{Read, Write};
        for stream in host.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 2048]);
            let head = format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", file.len());
            let _ = stream.write_all(&[head.as_bytes(), &file].concat());
        }
    });
    let ask = |fetch: Fetch| {
        let mut changed = options();
        changed.fetch = fetch;
        let running = Running::start(changed, vec![("a", photos.engine())]);
        running.post("/api/v1/search", &json!({"parts": [{"image_url": url}], "limit": 1}))
    };
    assert_eq!(ServerOptions::default().fetch, Fetch::Never);
    ask(Fetch::Never).refuses(400, "does not fetch");
    ask(Fetch::Public).refuses(400, "private network");
    assert!(ask(Fetch::Any).json()["items"][0]["path"].as_str().unwrap().ends_with("a/1.png"));
}

#[test]
fn nobody_is_let_in_unasked() {
    let default = ServerOptions::default();
    assert!(default.address.ip().is_loopback() && default.origins.is_empty() && default.hosts.is_empty());
    let (_photos, running) = served();
    let asked = running.ask("GET", "/api/v1/status", &[("Origin", &format!("http://{}", running.address))], b"");
    assert_eq!((asked.status, asked.header("access-control-allow-origin")), (200, ""));
    for method in ["PUT", "DELETE", "PATCH"] {
        assert_eq!(running.ask(method, "/api/v1/search", &[], b"").status, 405, "{method}");
    }
}

#[test]
fn a_commit_is_seen_without_a_restart() {
    let (photos, running) = served();
    let photos_told = || running.get("/api/v1/search?limit=100").json()["items"].as_array().unwrap().len();
    let near = || {
        let body =
            json!({"text": "red", "modality": "image", "num_images": 0, "num_result_ids": 100, "indice_name": null});
        running.post("/knn-service", &body).json().as_array().unwrap().len()
    };
    assert_eq!((photos_told(), near()), (12, 12));
    photos.write_many("later", 20);
    photos.engine().ingest([photos.dir()]).run().unwrap();
    let begun = Instant::now();
    while near() != 32 && begun.elapsed() < Duration::from_secs(10) {
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!((photos_told(), near()), (32, 32));
    std::fs::remove_dir_all(photos.path("later")).unwrap();
    photos.engine().ingest([photos.dir()]).run().unwrap();
    let begun = Instant::now();
    while near() != 12 && begun.elapsed() < Duration::from_secs(10) {
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!((photos_told(), near()), (12, 12), "what is gone is no answer, although its vector is there");
}

#[test]
fn an_answer_under_way_is_finished_before_the_end() {
    let photos = Photos::slow(Duration::from_millis(600));
    photos.write_many("a", 1);
    let engine = photos.engine();
    engine.ingest([photos.dir()]).run().unwrap();
    let mut running = Running::start(options(), vec![("a", engine)]);
    let (address, file) = (running.address, std::fs::read(photos.path("a/0.png")).unwrap());
    let asking = std::thread::spawn(move || {
        use std::io::{Read, Write};
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        let head =
            format!("POST /api/v1/similar HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n", file.len());
        stream.write_all(&[head.as_bytes(), &file].concat()).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        answer
    });
    std::thread::sleep(Duration::from_millis(200));
    running.end();
    assert!(asking.join().unwrap().starts_with(b"HTTP/1.1 200 OK"));
    assert!(std::net::TcpStream::connect(address).is_err(), "nobody listens any more");
}

#[test]
fn a_server_that_cannot_be_is_refused() {
    let photos = Photos::new();
    photos.write_many("a", 1);
    photos.engine();
    let library = || Library::new("a", Engine::open(photos.library(), photos.encoder("colours")).unwrap());
    let refused = |change: &dyn Fn(&mut tintype::server::ServerOptions), libraries: Vec<Library>| {
        let mut wrong = options();
        change(&mut wrong);
        Server::bind(wrong, libraries).map(|_| ()).unwrap_err().to_string()
    };
    assert!(refused(&|_| (), vec![]).contains("needs a library"));
    assert!(refused(&|_| (), vec![library(), library()]).contains("two libraries"));
    assert!(refused(&|options| options.origins = vec!["example.org".to_owned()], vec![library()]).contains("origin"));
    assert!(refused(&|options| options.token = Some("short".to_owned()), vec![library()]).contains("token"));
    assert!(refused(&|options| options.recall = 1.5, vec![library()]).contains("recall"));
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    assert!(refused(&|options| options.address = address, vec![library()]).contains("cannot listen"));
}

#[test]
fn embeddings_without_their_model_refuse_words_and_are_no_fault_of_the_server() {
    let place = crate::collections::Place::new();
    let engine = crate::collections::declared(&place, 49);
    engine.collect([crate::collections::fixture("vectors.parquet")]).run().unwrap();
    let running = Running::start(options(), vec![("vectors", engine)]);
    let text =
        json!({"text": "a dog", "modality": "image", "num_images": 2, "num_result_ids": 2, "indice_name": "vectors"});
    for refused in [running.get("/api/v1/search?q=a+dog"), running.post("/knn-service", &text)] {
        assert_eq!(refused.status, 400, "{}", refused.text());
        assert!(refused.json()["message"].as_str().unwrap().contains("that model is not here"), "{}", refused.text());
    }
    let found = running.get("/api/v1/search?q=text:caption&limit=2").json();
    assert_eq!(found["items"].as_array().unwrap().len(), 2);
    assert_eq!(running.get("/api/v1/similar?id=3&limit=1").status, 200);
    let table = running.post("/api/v1/search", &json!({"limit": 1, "format": "csv"}));
    let columns = running.get("/api/v1/status").json()["libraries"][0]["columns"].clone();
    let titles: Vec<&str> = table.text().lines().next().unwrap().split(',').collect();
    for column in columns.as_array().unwrap() {
        let column = column.as_str().unwrap();
        assert!(
            titles[20..].iter().any(|title| title.trim_start_matches("metadata.") == column),
            "{column}: {titles:?}"
        );
    }
}
