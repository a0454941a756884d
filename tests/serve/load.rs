//! Requests that ask for much, or take long: none may hold up the others for longer than its share.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use serde_json::json;
use tintype::server::Fetch;

use super::client::{Running, options};
use crate::collections::{Place, declared};
use crate::ingest::photos::Photos;

/// A picture in a body that does not say how long it is, and so has a share for the longest.
fn chunked(picture: &[u8]) -> Vec<u8> {
    let head = "POST /api/v1/similar?limit=1 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n";
    [head.as_bytes(), format!("{:x}\r\n", picture.len()).as_bytes(), picture, b"\r\n0\r\n\r\n"].concat()
}

fn one_photo(photos: &Photos) -> Vec<u8> {
    photos.write_many("a", 1);
    photos.engine().ingest([photos.dir()]).run().unwrap();
    std::fs::read(photos.path("a/0.png")).unwrap()
}

#[test]
fn bodies_may_be_larger_than_all_that_may_be_in_memory() {
    let photos = Photos::new();
    let picture = one_photo(&photos);
    let mut large = options();
    large.max_body = 1 << 30;
    let running = Running::start(large, vec![("a", photos.engine())]);
    assert_eq!(running.send(&chunked(&picture)).status, 200);
    assert_eq!(running.post("/api/v1/search", &json!({})).status, 200);
}

#[test]
fn a_picture_has_its_share_of_memory_until_it_was_looked_at() {
    let photos = Photos::slow(Duration::from_millis(1500));
    let picture = one_photo(&photos);
    let mut large = options();
    large.max_body = 1 << 30;
    let running = Running::start(large, vec![("a", photos.engine())]);
    let mut first = TcpStream::connect(running.address).unwrap();
    first.write_all(&chunked(&picture)).unwrap();
    std::thread::sleep(Duration::from_millis(300));
    let begun = Instant::now();
    assert_eq!(running.post("/api/v1/search", &json!({})).status, 200);
    assert!(begun.elapsed() > Duration::from_millis(500), "{:?}", begun.elapsed());
}

#[test]
fn waiting_for_other_servers_keeps_nobody_from_working() {
    let photos = Photos::new();
    one_photo(&photos);
    // Takes connections and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut patient = options();
    (patient.fetch, patient.deadline) = (Fetch::Any, Duration::from_secs(4));
    let running = Running::start(patient, vec![("a", photos.engine())]);
    let body = json!({"parts": [{"image_url": format!("http://{}/a.png", silent.local_addr().unwrap())}]}).to_string();
    let clip = json!({"image_url": format!("http://{}/a.png", silent.local_addr().unwrap()), "modality": "image",
        "num_images": 1, "indice_name": null})
    .to_string();
    let many = 2 * std::thread::available_parallelism().map_or(2, usize::from) + 16;
    let waiting: Vec<TcpStream> = (0..many)
        .map(|n| {
            let (path, body) = if n % 2 == 0 { ("/api/v1/search", &body) } else { ("/knn-service", &clip) };
            let head = format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n", body.len());
            let mut stream = TcpStream::connect(running.address).unwrap();
            stream.write_all(&[head.as_bytes(), body.as_bytes()].concat()).unwrap();
            stream
        })
        .collect();
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(running.get("/api/v1/search?q=red").status, 200);
    for mut stream in waiting {
        let mut status = [0; 12];
        stream.read_exact(&mut status).unwrap();
        assert!([b"HTTP/1.1 503", b"HTTP/1.1 400"].contains(&&status), "{:?}", String::from_utf8_lossy(&status));
    }
}

#[test]
fn near_duplicates_are_looked_for_among_no_more_than_the_best() {
    let place = Place::new();
    let (rows, dim) = (20_000_u32, 16);
    let number = |n: u32| {
        let mixed = u64::from(n).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let mixed = (mixed ^ mixed >> 29).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        (mixed >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    let header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {dim}), }}");
    let mut file = b"\x93NUMPY\x01\x00\x76\x00".to_vec();
    file.extend(format!("{header:<117}\n").as_bytes());
    file.extend((0..rows * dim).map(number).flat_map(f32::to_le_bytes));
    std::fs::write(place.path("m.npy"), file).unwrap();
    let engine = declared(&place, dim as usize);
    engine.collect([place.path("m.npy")]).run().unwrap();
    let running = Running::start(options(), vec![("vectors", engine)]);
    let ask = |deduplicate: bool| {
        let body = json!({"embedding_input": vec![1.0; dim as usize], "modality": "image", "num_images": 0,
            "num_result_ids": 100_000, "indice_name": null, "deduplicate": deduplicate});
        running.post("/knn-service", &body).json().as_array().unwrap().len()
    };
    assert_eq!(ask(false), rows as usize);
    let distinct = ask(true);
    assert!((5000..=10_000).contains(&distinct), "{distinct}");
}
