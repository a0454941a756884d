//! A model hub of our own: one thread per connection, one request per connection, an honest answer unless a test says
//! otherwise.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use sha1::Sha1;
use sha2::{Digest, Sha256};

/// The model that the hub serves, by alias and by repository.
pub(super) const MODEL: &str = "vit-b-32-laion2b";
pub(super) const REPOSITORY: &str = "laion/CLIP-ViT-B-32-laion2B-s34B-b79K";
/// The owner of further repositories, all with the same files.
pub(super) const ANYTHING: &str = "owner";
pub(super) const WEIGHTS: &str = "open_clip_model.safetensors";
/// Weights in several files, and what lists them.
pub(super) const SHARDS: [&str; 2] = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];
const INDEX: &str = r#"{"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors",
    "c": "model-00001-of-00002.safetensors"}}"#;
pub(super) const COMMIT: &str = "1a25a446712ba5ee05982a381eed697ef9b435cf";

/// A request as it came in, with what it is about.
#[derive(Clone)]
pub(super) struct Request {
    pub(super) method: String,
    pub(super) path: String,
    headers: BTreeMap<String, String>,
    /// How many requests with this method and path came before.
    pub(super) nth: usize,
    /// Bytes and name of the file that the path ends with.
    pub(super) file: Vec<u8>,
    pub(super) etag: String,
}

impl Request {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    pub(super) fn is_get(&self, file: &str) -> bool {
        self.method == "GET" && self.path.ends_with(&format!("/{file}"))
    }

    fn first(&self) -> usize {
        let range = self.header("range").and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-'));
        range.map_or(0, |first| first.parse().unwrap())
    }

    /// Announces everything from the wanted byte on and sends `bytes` of it.
    pub(super) fn answer_part(&self, stream: &mut TcpStream, bytes: usize) {
        let (first, len) = (self.first(), self.file.len());
        let status = if first > 0 { "206 Partial Content" } else { "200 OK" };
        let range = format!("content-range: bytes {first}-{}/{len}", len - 1);
        let head =
            format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n{range}\r\nconnection: close\r\n\r\n", len - first);
        let _ = stream.write_all(head.as_bytes());
        let _ = stream.write_all(&self.file[first..len.min(first.saturating_add(bytes))]);
        let _ = stream.flush();
    }
}

/// Answers with a whole body.
pub(super) fn respond(stream: &mut TcpStream, status: &str, headers: &[&str], body: &[u8]) {
    let mut head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n", body.len());
    for header in headers {
        head += &format!("{header}\r\n");
    }
    let _ = stream.write_all(format!("{head}\r\n").as_bytes());
    let _ = stream.write_all(body);
}

/// Answers with headers that do not say how long the body is.
pub(super) fn respond_open(stream: &mut TcpStream, status: &str, headers: &[&str]) {
    let lines: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
    let _ = stream.write_all(format!("HTTP/1.1 {status}\r\nconnection: close\r\n{lines}\r\n").as_bytes());
}

/// Answers in chunks, without a length.
pub(super) fn respond_chunked(stream: &mut TcpStream, body: &[u8]) {
    respond_chunked_and_die(stream, body);
    let _ = stream.write_all(b"0\r\n\r\n");
}

/// Answers in chunks and leaves out the end.
pub(super) fn respond_chunked_and_die(stream: &mut TcpStream, body: &[u8]) {
    respond_open(stream, "200 OK", &["transfer-encoding: chunked"]);
    for chunk in body.chunks(10_000) {
        let _ = stream.write_all(format!("{:x}\r\n", chunk.len()).as_bytes());
        let _ = stream.write_all(chunk);
        let _ = stream.write_all(b"\r\n");
    }
}

type Fault = dyn Fn(&Request, &mut TcpStream) -> bool + Send + Sync;

/// The hub.
pub(super) struct Hub {
    address: String,
    files: Arc<BTreeMap<&'static str, Vec<u8>>>,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Hub {
    /// A hub that does what it should.
    pub(super) fn honest() -> Self {
        Self::with(|_, _| false)
    }

    /// A hub whose repository lacks some files.
    pub(super) fn without(missing: &'static [&'static str]) -> Self {
        Self::with(|request, stream| {
            let lacks = missing.iter().any(|file| request.path.ends_with(&format!("/{file}")));
            if lacks {
                respond(stream, "404 Not Found", &["x-error-code: EntryNotFound"], b"");
            }
            lacks
        })
    }

    /// A hub that asks `fault` first; `true` means that it has answered.
    pub(super) fn with(fault: impl Fn(&Request, &mut TcpStream) -> bool + Send + Sync + 'static) -> Self {
        // Bytes without a pattern, so that no part of the file equals another.
        let mut state = 1_u32;
        let mut random = |len: usize| {
            let next = |_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 24) as u8
            };
            (0..len).map(next).collect::<Vec<u8>>()
        };
        let files = BTreeMap::from([
            ("open_clip_config.json", random(1_000)),
            ("tokenizer.json", random(30_000)),
            ("vocab.json", random(2_000)),
            ("merges.txt", random(3_000)),
            (WEIGHTS, random(400_000)),
            ("open_clip_pytorch_model.bin", random(5_000)),
            ("config.json", random(600)),
            ("preprocessor_config.json", random(700)),
            ("processor_config.json", random(800)),
            ("model.safetensors", random(8_000)),
            ("model.safetensors.index.json", INDEX.as_bytes().to_vec()),
            (SHARDS[0], random(9_000)),
            (SHARDS[1], random(50_000)),
        ]);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let hub = Self {
            address: listener.local_addr().unwrap().to_string(),
            files: Arc::new(files),
            requests: Arc::default(),
        };
        let (files, requests, fault) = (hub.files.clone(), hub.requests.clone(), Arc::new(fault));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (files, requests, fault) = (files.clone(), requests.clone(), fault.clone());
                std::thread::spawn(move || serve(stream.unwrap(), &files, &requests, &*fault));
            }
        });
        hub
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(super) fn file(&self, name: &str) -> Vec<u8> {
        self.files[name].clone()
    }

    pub(super) fn etag(&self, name: &str) -> String {
        etag(name, &self.files[name])
    }

    pub(super) fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }

    /// The `Range` of every download of `file`, in order.
    pub(super) fn ranges(&self, file: &str) -> Vec<Option<String>> {
        let requests = self.requests();
        let gets = requests.iter().filter(|request| request.is_get(file));
        gets.map(|request| request.header("range").map(str::to_owned)).collect()
    }
}

/// As the hub names files: weights by SHA-256, small ones by their git object.
fn etag(name: &str, bytes: &[u8]) -> String {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    if name.ends_with(".safetensors") || name.ends_with(".bin") {
        hex(&Sha256::digest(bytes))
    } else {
        hex(&Sha1::new_with_prefix(format!("blob {}\0", bytes.len())).chain_update(bytes).finalize())
    }
}

fn serve(mut stream: TcpStream, files: &BTreeMap<&str, Vec<u8>>, requests: &Mutex<Vec<Request>>, fault: &Fault) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
    let Some(start) = lines.next() else { return };
    let mut words = start.split(' ').map(str::to_owned);
    let (method, path) = (words.next().unwrap(), words.next().unwrap());
    let headers = lines.take_while(|line| !line.is_empty()).filter_map(|line| {
        let (name, value) = line.split_once(':')?;
        Some((name.to_ascii_lowercase(), value.trim().to_owned()))
    });
    let headers = headers.collect();
    let name = path.rsplit('/').next().unwrap();
    let file = files.get(name).cloned().unwrap_or_default();
    let etag = etag(name, &file);
    let request = {
        let mut requests = requests.lock().unwrap();
        let nth = requests.iter().filter(|request| request.method == method && request.path == path).count();
        requests.push(Request { method, path, headers, nth, file, etag });
        requests.last().unwrap().clone()
    };
    if !fault(&request, &mut stream) {
        honest(&request, &mut stream);
    }
    // Says goodbye before hanging up: closing with unread input would reset the connection and lose the answer.
    let _ = stream.shutdown(Shutdown::Write);
    let _ = stream.read(&mut [0; 1024]);
}

fn honest(request: &Request, stream: &mut TcpStream) {
    // The repositories of one owner have any revision.
    let here =
        [format!("/{REPOSITORY}/resolve/main/"), format!("/{REPOSITORY}/resolve/{COMMIT}/"), format!("/{ANYTHING}/")];
    if request.file.is_empty() || !here.iter().any(|prefix| request.path.contains(prefix)) {
        respond(stream, "404 Not Found", &["x-error-code: EntryNotFound"], b"");
    } else if request.method == "GET" {
        request.answer_part(stream, usize::MAX);
    } else {
        let head = format!(
            "HTTP/1.1 200 OK\r\ncontent-length: {}\r\netag: \"{}\"\r\nx-repo-commit: {COMMIT}\r\nconnection: close\r\n\r\n",
            request.file.len(),
            request.etag
        );
        let _ = stream.write_all(head.as_bytes());
    }
}
