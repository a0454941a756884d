//! clip-retrieval's wire formats, against what was captured from the original: its requests as they stand, and the shapes of
//! its answers. Numbers and pictures are this library's.

use serde_json::{Value, json};

use super::client::{Running, options};
use crate::ingest::photos::Photos;

/// Six photos, of which two are the same but for one pixel.
fn served() -> (Photos, Running) {
    let photos = Photos::new();
    photos.write_many("a", 5);
    let mut near = image::open(photos.path("a/1.png")).unwrap().into_rgb8();
    near.put_pixel(0, 0, image::Rgb([0, 0, 0]));
    near.save(photos.path("a/near 1 é.png")).unwrap();
    let engine = photos.engine();
    engine.ingest([photos.dir()]).run().unwrap();
    let other = photos.engine();
    let running = Running::start(options(), vec![("example_index", engine), ("second", other)]);
    (photos, running)
}

fn vector(running: &Running, id: u64) -> Vec<f32> {
    let body = json!({"parts": [{"id": id}], "limit": 0});
    assert_eq!(running.post("/api/v1/rank", &body).status, 200);
    // Any direction will do; that of the third axis is near to something.
    let mut vector = vec![0.1; 49];
    vector[(id % 49) as usize] = 2.0;
    vector
}

#[test]
fn the_small_answers_are_those_of_the_original() {
    let (_photos, running) = served();
    let listed = running.get("/indices-list");
    assert_eq!((listed.status, listed.header("content-type")), (200, "application/json"));
    assert_eq!(listed.text(), "[\"example_index\", \"second\"]\n");
    assert_eq!(running.get("//indices-list").text(), listed.text());
    assert_eq!(
        running.get("/config.json").text(),
        format!(
            "{{\"defaultBackend\": \"http://{}/\", \"defaultIndex\": \"\", \"urlColumn\": \"url\"}}\n",
            running.address
        )
    );
    assert_eq!(running.get("/metrics-summary").text(), "No request yet, go do some");
    assert_eq!(running.post("/metadata", &json!({"ids": [], "indice_name": "example_index"})).text(), "[]\n");
}

#[test]
fn results_have_the_shape_of_the_original() {
    let (photos, running) = served();
    let vector = vector(&running, 3);
    let length = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
    let body = json!({"embedding_input": vector, "modality": "image", "num_images": 2, "num_result_ids": 4, "indice_name": "example_index"});
    let plain = running.ask(
        "POST",
        "//knn-service",
        &[("Content-Type", "text/plain;charset=UTF-8")],
        body.to_string().as_bytes(),
    );
    assert_eq!((plain.status, plain.header("content-type")), (200, "application/json"), "{}", plain.text());
    assert!(plain.text().is_ascii() && plain.text().ends_with("}]\n"));
    let found = plain.json();
    let entries = found.as_array().unwrap();
    assert_eq!(entries.len(), 4);
    for (position, entry) in entries.iter().enumerate() {
        let keys: Vec<&str> = entry.as_object().unwrap().keys().map(String::as_str).collect();
        if position < 2 {
            assert_eq!(keys, ["image_path", "width", "height", "image", "id", "similarity"]);
            let path = entry["image_path"].as_str().unwrap();
            assert!(path.starts_with(photos.dir().canonicalize().unwrap().to_str().unwrap()), "{path}");
            assert!(entry["image"].as_str().unwrap().starts_with("/9j/"), "a JPEG in base 64");
        } else {
            assert_eq!(keys, ["id", "similarity"]);
        }
    }
    let scores: Vec<f64> = entries.iter().map(|entry| entry["similarity"].as_f64().unwrap()).collect();
    assert!(scores.is_sorted_by(|a, b| a >= b), "{scores:?}");
    assert!(
        scores[0] <= f64::from(length) && scores[0] > 0.2 * f64::from(length),
        "a dot product, not a cosine: {scores:?}"
    );

    let bare = json!({"embedding_input": vector, "modality": "image", "num_images": 0, "num_result_ids": 2, "indice_name": null});
    let bare = running.post("/knn-service", &bare);
    let expected = format!(
        "[{{\"id\": {}, \"similarity\": {}}}, {{\"id\": {}, \"similarity\": {}}}]\n",
        entries[0]["id"], entries[0]["similarity"], entries[1]["id"], entries[1]["similarity"]
    );
    assert_eq!(bare.text(), expected);
    let minimal = json!({"embedding_input": vector, "modality": "image", "num_images": 1, "indice_name": null});
    assert_eq!(running.post("/knn-service", &minimal).json().as_array().unwrap().len(), 1);
    let summary = running.get("/metrics-summary").text().to_owned();
    assert!(summary.starts_with("Among 3.0 calls to the knn end point with an average latency of 0."), "{summary}");
}

#[test]
fn near_copies_are_dropped_and_not_made_up_for() {
    let (_photos, running) = served();
    let vector = vector(&running, 3);
    let ids = |deduplicate: bool| -> Vec<u64> {
        let body = json!({"embedding_input": vector, "modality": "image", "num_images": 6, "indice_name": "second",
            "deduplicate": deduplicate});
        let found = running.post("/knn-service", &body).json();
        found.as_array().unwrap().iter().map(|entry| entry["id"].as_u64().unwrap()).collect()
    };
    let (all, distinct) = (ids(false), ids(true));
    assert_eq!(all.len(), 6);
    assert!(distinct.len() < 6, "{distinct:?}");
    let kept: Vec<u64> = all.iter().copied().filter(|id| distinct.contains(id)).collect();
    assert_eq!(kept, distinct, "in the same order");
    assert_eq!(distinct[0], all[0]);
}

#[test]
fn clients_of_the_original_are_understood() {
    let (photos, running) = served();
    // Word for word what ClipClient sends, but for the name of the index.
    let text = r#"{"text": "an image of a red cat", "image": null, "image_url": null, "embedding_input": null, "deduplicate": true, "use_safety_model": true, "use_violence_detector": true, "indice_name": "example_index", "use_mclip": false, "aesthetic_score": 9, "aesthetic_weight": 0.5, "modality": "image", "num_images": 40, "num_result_ids": 40}"#;
    let found = running.ask("POST", "/knn-service", &[("User-Agent", "python-requests/2.34.2")], text.as_bytes());
    assert_eq!(found.status, 200, "{}", found.text());
    assert!(!found.json().as_array().unwrap().is_empty());

    // And the front, whose empty fields are strings.
    let file = std::fs::read(photos.path("a/2.png")).unwrap();
    let image: Value = base64(&file).into();
    let front = json!({"text": null, "image": image, "image_url": null, "embedding_input": null, "modality": "image",
        "num_images": 40, "indice_name": "example_index", "num_result_ids": 3000, "use_mclip": false, "deduplicate": true,
        "use_safety_model": true, "use_violence_detector": true, "aesthetic_score": "", "aesthetic_weight": ""});
    let found = running.post("/knn-service", &front).json();
    let best = found[0]["image_path"].as_str().unwrap();
    assert!(best.ends_with("2.png"), "{best}");
    assert!((found[0]["similarity"].as_f64().unwrap() - 1.0).abs() < 1e-3);
}

#[test]
fn metadata_comes_in_the_order_that_is_asked_for() {
    let (_photos, running) = served();
    let found = running.post("/metadata", &json!({"ids": [3, 1], "indice_name": "example_index"}));
    let found = found.json();
    assert_eq!((found[0]["id"].as_u64(), found[1]["id"].as_u64()), (Some(3), Some(1)));
    let keys: Vec<&str> = found[0]["metadata"].as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(keys, ["image_path", "width", "height", "image"]);
    running.post("/metadata", &json!({"ids": [1, 99], "indice_name": "example_index"})).refuses(404, "99");
    running.post("/metadata", &json!({"ids": [1]})).refuses(400, "indice_name");
    running.post("/metadata", &json!({"ids": [-1], "indice_name": null})).refuses(400, "");
}

#[test]
fn mistakes_of_clients_are_told_and_are_no_faults_of_the_server() {
    let (_photos, running) = served();
    let refused = running.ask("POST", "/knn-service", &[], b"{");
    assert_eq!(refused.status, 400);
    assert_eq!(
        refused.text(),
        "{\"message\": \"The browser (or proxy) sent a request that this server could not understand.\"}\n"
    );
    let base = json!({"text": "red", "modality": "image", "num_images": 1, "indice_name": "example_index"});
    let with = |key: &str, value: Option<Value>| {
        let mut body = base.clone();
        match value {
            Some(value) => body[key] = value,
            None => {
                body.as_object_mut().unwrap().remove(key);
            }
        }
        running.post("/knn-service", &body)
    };
    for key in ["modality", "num_images", "indice_name"] {
        with(key, None).refuses(400, key);
    }
    with("text", None).refuses(400, "nothing to look for");
    with("text", Some("".into())).refuses(400, "nothing to look for");
    with("indice_name", Some("none".into())).refuses(404, "example_index, second");
    with("modality", Some("text".into())).refuses(400, "captions");
    with("num_images", Some((-1).into())).refuses(400, "");
    let instead = |key: &str, value: Value| {
        let mut body = base.clone();
        body["text"] = Value::Null;
        body[key] = value;
        running.post("/knn-service", &body)
    };
    instead("embedding_input", json!([1.0, 2.0])).refuses(400, "49");
    instead("embedding_input", json!(vec![0.0; 49])).refuses(400, "");
    instead("embedding_input", json!(vec![1e39; 49])).refuses(400, "");
    instead("image", "****".into()).refuses(400, "base 64");
    instead("image", "AAAA".into()).refuses(400, "picture");
    instead("image_url", "http://127.0.0.1/a.jpg".into()).refuses(400, "does not fetch");
    assert_eq!(with("aesthetic_score", Some(Value::Null)).status, 200, "what it has no use for it does not look at");
    running.get("/knn-service").refuses(405, "method");
    running.get("/nothing").refuses(404, "nothing");
}

#[test]
fn the_ten_histograms_are_there() {
    let (_photos, running) = served();
    let metrics = running.get("/metrics");
    assert_eq!(metrics.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
    for name in [
        "full_knn_request_time",
        "download_time",
        "text_clip_inference_time",
        "image_clip_inference_time",
        "metadata_get_time",
        "knn_index_time",
        "dedup_time",
        "safety_time",
        "image_prepro_time",
        "text_prepro_time",
    ] {
        assert!(metrics.text().contains(&format!("\n{name}_bucket{{le=\"+Inf\"}} 0.0\n")), "{name}");
    }
    assert!(metrics.text().contains("tintype_library_photos{library=\"second\"} 6.0\n"));
}

#[test]
fn the_front_is_told_where_to_ask() {
    let photos = Photos::new();
    photos.write_many("a", 2);
    photos.engine().ingest([photos.dir()]).run().unwrap();
    let running = Running::start(options(), vec![("a", photos.engine())]);
    let proxied = running.ask("GET", "/config.json", &[("Host", "localhost"), ("X-Forwarded-Proto", "https")], b"");
    assert_eq!(proxied.json()["defaultBackend"], "https://localhost/");
    let open = running.ask("GET", "/metrics", &[("Accept", "application/openmetrics-text; version=1.0.0, */*")], b"");
    assert!(open.header("content-type").starts_with("application/openmetrics-text"));
    assert!(open.text().ends_with("# EOF\n"));

    let mut told = options();
    told.backend = Some("https://example.org/knn/".to_owned());
    told.url_column = "link".to_owned();
    told.columns = Some(vec!["width".to_owned(), "image_path".to_owned()]);
    let running = Running::start(told, vec![("a", photos.engine())]);
    let config = running.get("/config.json").json();
    assert_eq!(config, json!({"defaultBackend": "https://example.org/knn/", "defaultIndex": "", "urlColumn": "link"}));
    let found = running.post("/metadata", &json!({"ids": [1], "indice_name": null})).json();
    let keys: Vec<&str> = found[0]["metadata"].as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(keys, ["image_path", "width", "image"]);
    let mut bare = options();
    bare.columns = Some(vec!["height".to_owned()]);
    let running = Running::start(bare, vec![("a", photos.engine())]);
    let body = json!({"embedding_input": vec![1.0; 49], "modality": "image", "num_images": 1, "indice_name": null});
    let found = running.post("/knn-service", &body).json();
    let keys: Vec<&str> = found[0].as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(keys, ["height", "id", "similarity"]);
}

#[test]
fn other_origins_are_let_in_where_that_is_asked_for() {
    let photos = Photos::new();
    photos.write_many("a", 1);
    let engine = photos.engine();
    engine.ingest([photos.dir()]).run().unwrap();
    let mut open = options();
    open.origins = vec!["http://x.example".to_owned()];
    let running = Running::start(open, vec![("a", engine)]);
    let origin = ("Origin", "http://x.example");
    let preflight = running.ask(
        "OPTIONS",
        "/knn-service",
        &[origin, ("Access-Control-Request-Method", "POST"), ("Access-Control-Request-Headers", "content-type")],
        b"",
    );
    assert_eq!((preflight.status, preflight.body.len()), (200, 0));
    assert_eq!(preflight.header("access-control-allow-origin"), "http://x.example");
    assert_eq!(preflight.header("access-control-allow-headers"), "content-type");
    assert!(preflight.header("access-control-allow-methods").contains("POST"));
    assert_eq!(preflight.header("vary"), "Origin");
    let listed = running.ask("GET", "//indices-list", &[origin], b"");
    assert_eq!((listed.status, listed.header("access-control-allow-origin")), (200, "http://x.example"));
    running.ask("GET", "/indices-list", &[("Origin", "http://y.example")], b"").refuses(403, "origin");
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let group = chunk.iter().chain(&[0, 0]).take(3).fold(0, |group, byte| group << 8 | u32::from(*byte));
        for digit in 0..4 {
            text.push(if digit <= chunk.len() {
                DIGITS[(group >> (18 - 6 * digit) & 63) as usize].into()
            } else {
                '='
            });
        }
    }
    text
}
