//! One request to a hub, with its redirects.
//!
//! A thread of its own does the request and hands the answer over in pieces. That keeps two promises at once: the caller can
//! stop at any moment, also while a server is silent, and the network goes on while the caller writes. Redirects are
//! followed here rather than by the HTTP client, because the headers that matter (commit, checksum, size) stand on the
//! redirect and not on the file, and because the token must go to the hub alone.

use std::io::Read;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use ureq::http::{HeaderMap, Method, Request};

use super::options::HubOptions;
use crate::error::Source;
use crate::{Error, Result};

const MAX_REDIRECTS: usize = 10;
/// Bytes per piece, and how many pieces may wait for the disk.
const PIECE: usize = 128 << 10;
const PIECES: usize = 32;
/// How soon a wish to stop is noticed.
const STOP_POLL: Duration = Duration::from_millis(50);

/// The way to one hub.
#[derive(Clone)]
pub(super) struct Transport {
    agent: ureq::Agent,
    origin: String,
    token: Option<String>,
}

/// What the headers of an answer say, those of its redirects included.
#[derive(Clone, Debug, Default)]
pub(super) struct Head {
    pub(super) status: u16,
    /// Commit of the file.
    pub(super) commit: Option<String>,
    /// Name of the bytes, without quotes.
    pub(super) etag: Option<String>,
    /// Bytes of the whole file.
    pub(super) size: Option<u64>,
    /// Bytes that this answer announces, if they are sent as they are.
    pub(super) length: Option<u64>,
    /// First byte and whole size, of a partial answer.
    pub(super) range: (Option<u64>, Option<u64>),
    /// The pause that the server asks for.
    pub(super) retry_after: Option<Duration>,
    /// The hub's own word for an error.
    pub(super) error_code: Option<String>,
}

/// A request that came to nothing.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) reason: String,
    pub(super) source: Option<Source>,
    /// Whether trying again can help, and after how long the server wants it.
    pub(super) passing: bool,
    pub(super) retry_after: Option<Duration>,
}

impl Failure {
    pub(super) fn passing(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), source: None, passing: true, retry_after: None }
    }

    pub(super) fn lasting(reason: impl Into<String>) -> Self {
        Self { passing: false, ..Self::passing(reason) }
    }

    pub(super) fn into_error(self, url: &str) -> Error {
        Error::Hub { url: url.to_owned(), reason: self.reason, source: self.source }
    }
}

/// Why a piece of work ended early: for good, or so that it may be tried again.
#[derive(Debug)]
pub(super) enum Stopped {
    Error(Error),
    Failure(Failure),
}

impl From<Error> for Stopped {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

impl From<Failure> for Stopped {
    fn from(failure: Failure) -> Self {
        Self::Failure(failure)
    }
}

enum Message {
    Head(Head),
    Data(Vec<u8>),
    End,
    Failed(Failure),
}

/// A running request.
pub(super) struct Exchange(Receiver<Message>);

impl Transport {
    pub(super) fn new(options: &HubOptions) -> Result<Self> {
        let unusable =
            |reason: &str, source| Error::Hub { url: options.endpoint.clone(), reason: reason.into(), source };
        let origin = origin(&options.endpoint)
            .ok_or_else(|| unusable("this is no address of a hub: it starts with https:// or http://", None))?;
        let proxy = match &options.proxy {
            Some(proxy) => {
                let proxy = ureq::Proxy::new(proxy);
                Some(proxy.map_err(|error| unusable("the proxy's address cannot be used", Some(error.into())))?)
            }
            None => None,
        };
        let timeout = Some(options.timeout);
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .proxy(proxy)
            .timeout_resolve(timeout)
            .timeout_connect(timeout)
            .timeout_recv_response(timeout)
            .timeout_per_read(timeout)
            .timeout_per_write(timeout)
            .user_agent(concat!("tintype/", env!("CARGO_PKG_VERSION")))
            // A compressed answer has no length, cannot be resumed, and weights do not shrink.
            .accept_encoding("identity")
            .build()
            .new_agent();
        Ok(Self { agent, origin, token: options.token.clone() })
    }

    pub(super) fn has_token(&self) -> bool {
        self.token.is_some()
    }

    /// Starts a request: the head alone, or the file from byte `from` on.
    pub(super) fn start(&self, method: Method, url: &str, from: u64) -> Result<Exchange, Failure> {
        let (sender, receiver) = sync_channel(PIECES);
        let (transport, url) = (self.clone(), url.to_owned());
        let run = move || {
            if let Err(failure) = transport.exchange(&method, url, from, &sender) {
                // Nobody listens any more after a cancellation.
                let _ = sender.send(Message::Failed(failure));
            }
        };
        let spawned = std::thread::Builder::new().name("download".to_owned()).spawn(run);
        spawned
            .map_err(|error| Failure { source: Some(error.into()), ..Failure::lasting("no thread can be started") })?;
        Ok(Exchange(receiver))
    }

    fn exchange(&self, method: &Method, mut url: String, from: u64, to: &SyncSender<Message>) -> Result<(), Failure> {
        let mut head = Head::default();
        for _ in 0..MAX_REDIRECTS {
            let mut request = Request::builder().method(method).uri(&url);
            if let Some(token) = self.token.as_ref().filter(|_| origin(&url).as_ref() == Some(&self.origin)) {
                request = request.header("authorization", format!("Bearer {token}"));
            }
            if from > 0 {
                request = request.header("range", format!("bytes={from}-"));
            }
            let request = request.body(()).map_err(|error| Failure {
                source: Some(error.into()),
                ..Failure::lasting("the address or the token has characters that cannot be sent")
            })?;
            let mut response = self.agent.run(request).map_err(network_failure)?;
            head.read(response.status().as_u16(), response.headers());

            let location = response.headers().get("location").and_then(|value| value.to_str().ok());
            let next = match location {
                Some(location) if (300..400).contains(&head.status) => join(&url, location),
                _ => None,
            };
            if let Some(next) = next {
                if url.starts_with("https:") && !next.starts_with("https:") {
                    return Err(Failure::lasting("the server sends us on to an address without encryption"));
                }
                let leaves = origin(&next).as_ref() != Some(&self.origin);
                if *method == Method::HEAD && leaves && head.commit.is_some() && head.etag.is_some() {
                    head.status = 200;
                } else {
                    url = next;
                    continue;
                }
            }
            // Who stops listening has what it wanted; there is nothing left to do then.
            if to.send(Message::Head(head)).is_err() || *method == Method::HEAD {
                return Ok(());
            }
            let mut body = response.body_mut().as_reader();
            loop {
                let mut piece = vec![0; PIECE];
                let message = match body.read(&mut piece) {
                    Ok(0) => Message::End,
                    Ok(read) => {
                        piece.truncate(read);
                        Message::Data(piece)
                    }
                    Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                    Err(error) => return Err(network_failure(ureq::Error::from(error))),
                };
                let ended = matches!(message, Message::End);
                if to.send(message).is_err() || ended {
                    return Ok(());
                }
            }
        }
        Err(Failure::lasting(format!("more than {MAX_REDIRECTS} redirects")))
    }
}

impl Head {
    /// Takes in the headers of one hop. What names the file comes from the first hop that has it, the rest from the last.
    fn read(&mut self, status: u16, headers: &HeaderMap) {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let number = |name: &str| text(name).and_then(|value| value.trim().parse().ok());
        let redirect = (300..400).contains(&status);
        let plain = text("content-encoding").is_none_or(|encoding| encoding.eq_ignore_ascii_case("identity"));

        self.status = status;
        self.commit = self.commit.take().or_else(|| text("x-repo-commit"));
        self.etag = self.etag.take().or_else(|| text("x-linked-etag").map(|etag| unquote(&etag)));
        self.size = self.size.or_else(|| number("x-linked-size"));
        self.length = number("content-length").filter(|_| plain && !redirect);
        if !redirect {
            self.etag = self.etag.take().or_else(|| text("etag").map(|etag| unquote(&etag)));
            self.size = self.size.or(self.length);
        }
        self.range = text("content-range").as_deref().map_or((None, None), content_range);
        self.retry_after = number("retry-after").map(Duration::from_secs);
        self.error_code = text("x-error-code");
    }
}

impl Exchange {
    /// The headers; waits for them.
    pub(super) fn head(&mut self, stop: &dyn Fn() -> bool) -> Result<Head, Stopped> {
        match self.next(stop)? {
            Message::Head(head) => Ok(head),
            Message::Failed(failure) => Err(failure.into()),
            Message::Data(_) | Message::End => Err(Failure::passing("an answer without headers").into()),
        }
    }

    /// The next bytes, or `None` at the end; waits for them.
    pub(super) fn data(&mut self, stop: &dyn Fn() -> bool) -> Result<Option<Vec<u8>>, Stopped> {
        match self.next(stop)? {
            Message::Data(data) => Ok(Some(data)),
            Message::End => Ok(None),
            Message::Failed(failure) => Err(failure.into()),
            Message::Head(_) => Err(Failure::passing("headers in the middle of an answer").into()),
        }
    }

    fn next(&mut self, stop: &dyn Fn() -> bool) -> Result<Message, Stopped> {
        loop {
            if stop() {
                return Err(Error::Cancelled.into());
            }
            match self.0.recv_timeout(STOP_POLL) {
                Ok(message) => return Ok(message),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Err(Failure::passing("the answer broke off").into()),
            }
        }
    }
}

/// What a network error means to a person.
fn network_failure(error: ureq::Error) -> Failure {
    let (reason, passing) = match &error {
        ureq::Error::Timeout(_) => ("the server is silent", true),
        ureq::Error::HostNotFound => ("there is no such host, or no connection to the internet", true),
        ureq::Error::Io(_) | ureq::Error::ConnectionFailed | ureq::Error::Protocol(_) => {
            ("the connection failed", true)
        }
        ureq::Error::BadUri(_) | ureq::Error::Http(_) => ("the address cannot be used", false),
        _ => ("the request failed", false),
    };
    Failure { reason: reason.to_owned(), source: Some(error.into()), passing, retry_after: None }
}

/// An etag as a file name: without `W/` and quotes.
fn unquote(etag: &str) -> String {
    etag.trim().trim_start_matches("W/").trim_matches('"').to_owned()
}

/// First byte and whole size of `bytes 100-199/200` or `bytes */200`.
fn content_range(text: &str) -> (Option<u64>, Option<u64>) {
    let (range, total) = text.trim().trim_start_matches("bytes").trim().split_once('/').unwrap_or((text, ""));
    (range.split('-').next().and_then(|first| first.trim().parse().ok()), total.trim().parse().ok())
}

/// Scheme, host and port of an address, in one spelling; `None` for anything that is not http.
fn origin(url: &str) -> Option<String> {
    let (scheme, rest) = url.split_once("://")?;
    let scheme = scheme.to_ascii_lowercase();
    let port = match scheme.as_str() {
        "https" => ":443",
        "http" => ":80",
        _ => return None,
    };
    let host = rest.split(['/', '?', '#']).next()?;
    // What stands before an @ is a login; leaving it in keeps such an address apart from the hub's own.
    let host = host.to_ascii_lowercase();
    let has_port = host.rsplit_once(':').is_some_and(|(_, port)| port.bytes().all(|c| c.is_ascii_digit()));
    if host.is_empty() { None } else { Some(format!("{scheme}://{host}{}", if has_port { "" } else { port })) }
}

/// The address that `location` means, seen from `base`.
fn join(base: &str, location: &str) -> Option<String> {
    let (scheme, rest) = base.split_once("://")?;
    let host = rest.split(['/', '?', '#']).next()?;
    Some(if location.contains("://") && !location.starts_with(['/', '?']) {
        location.to_owned()
    } else if let Some(rest) = location.strip_prefix("//") {
        format!("{scheme}://{rest}")
    } else if location.starts_with('/') {
        format!("{scheme}://{host}{location}")
    } else {
        let path = rest[host.len()..].split(['?', '#']).next()?;
        let folder = path.rfind('/').map_or("/", |slash| &path[..=slash]);
        format!("{scheme}://{host}{folder}{location}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_scheme_host_and_port_is_the_same_place() {
        assert_eq!(origin("https://Hub.example/a"), origin("https://hub.example:443/b?c"));
        for other in [
            "http://hub.example/a",
            "https://hub.example:444/",
            "https://hub.example.evil.org/",
            "https://x@hub.example/",
        ] {
            assert_ne!(origin("https://hub.example/a"), origin(other), "{other}");
        }
        assert_eq!(origin("ftp://hub.example/"), None);
        assert_eq!(origin("hub.example"), None);
    }

    #[test]
    fn redirects_of_every_form_are_understood() {
        let base = "https://hub.example/a/b?c";
        for (location, meant) in [
            ("https://cdn.example/x?u=https://y", "https://cdn.example/x?u=https://y"),
            ("//cdn.example/x", "https://cdn.example/x"),
            ("/x?u=https://y", "https://hub.example/x?u=https://y"),
            ("x", "https://hub.example/a/x"),
        ] {
            assert_eq!(join(base, location).as_deref(), Some(meant));
        }
    }

    #[test]
    fn headers_are_read_as_the_hub_writes_them() {
        assert_eq!(unquote("W/\"abc\""), "abc");
        assert_eq!(unquote("\"abc\""), "abc");
        assert_eq!(content_range("bytes 100-199/200"), (Some(100), Some(200)));
        assert_eq!(content_range("bytes */200"), (None, Some(200)));
        assert_eq!(content_range("nonsense"), (None, None));
    }
}
