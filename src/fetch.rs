//! Pictures from addresses of the web, kept away from private networks.
//!
//! A list of addresses comes from somebody else, and a program that asks them all is a way into the network that it stands in: to
//! the router's page, to the metadata of a cloud machine. So an address is looked at where its name is resolved, for each
//! redirect anew, and the connection goes to the very address that was looked at; a name that resolves to something else a
//! moment later gains nothing.

use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{DefaultConnector, NextTimeout};

use crate::{Error, Result};

const MAX_REDIRECTS: u32 = 5;

/// Before a fetch is tried again; doubled each time.
const PAUSE: Duration = Duration::from_millis(500);

/// So much of an answer may be held by each fetch before there is room for all of it.
pub(crate) const SMALL: u64 = 1 << 20;

/// What may be fetched, and how.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Largest answer in bytes.
    pub(crate) max_bytes: u64,
    /// How long one may take, redirects included.
    pub(crate) timeout: Duration,
    /// How often what failed in passing is tried again.
    pub(crate) retries: u32,
    /// Whether addresses of this machine and of private networks may be asked.
    pub(crate) private_addresses: bool,
}

/// Fetches files. Cheap to share between threads; connections are kept for the next file of the same host.
pub(crate) struct Fetcher {
    agent: ureq::Agent,
    limits: Limits,
}

impl Fetcher {
    pub(crate) fn new(limits: Limits) -> Fetcher {
        Self::asking(limits, if limits.private_addresses { |_| true } else { is_public })
    }

    fn asking(limits: Limits, may_be_asked: fn(IpAddr) -> bool) -> Fetcher {
        let config = Config::builder()
            .timeout_global(Some(limits.timeout))
            .max_redirects(MAX_REDIRECTS)
            .http_status_as_error(true)
            .user_agent(concat!("tintype/", env!("CARGO_PKG_VERSION")))
            // A proxy would resolve names elsewhere, out of sight.
            .proxy(None)
            .build();
        let resolver = Careful { inner: DefaultResolver::default(), may_be_asked };
        Fetcher { agent: ureq::Agent::with_parts(config, DefaultConnector::default(), resolver), limits }
    }

    /// The bytes at an address. `go_on` is asked before each try.
    ///
    /// # Errors
    /// [`Error::Download`].
    pub(crate) fn fetch(&self, url: &str, go_on: impl Fn() -> bool) -> Result<Vec<u8>> {
        Ok(self.fetch_within(url, go_on, |_| ())?.0)
    }

    /// The same. Before more than [`SMALL`] bytes are held, `room` is asked for as many as there may be, and what it returns is
    /// returned with the bytes.
    ///
    /// # Errors
    /// [`Error::Download`].
    pub(crate) fn fetch_within<T>(
        &self,
        url: &str,
        go_on: impl Fn() -> bool,
        room: impl Fn(u64) -> T,
    ) -> Result<(Vec<u8>, Option<T>)> {
        let (mut pause, mut left) = (PAUSE, self.limits.retries);
        loop {
            match self.once(url, &room) {
                Err(Error::Download { lasting: false, .. }) if left > 0 && go_on() => {
                    std::thread::sleep(pause);
                    (pause, left) = (pause * 2, left - 1);
                }
                result => return result,
            }
        }
    }

    fn once<T>(&self, url: &str, room: impl Fn(u64) -> T) -> Result<(Vec<u8>, Option<T>)> {
        let failed = |reason: String, lasting: bool, source: Option<crate::error::Source>| Error::Download {
            url: url.to_owned(),
            reason,
            lasting,
            source,
        };
        let mut answer = self.agent.get(url).call().map_err(|error| match error {
            ureq::Error::StatusCode(status) => {
                let passing = status >= 500 || matches!(status, 408 | 425 | 429);
                failed(format!("the server answered {status}"), !passing, None)
            }
            ureq::Error::Io(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
                failed(error.to_string(), false, None)
            }
            ureq::Error::BadUri(_) | ureq::Error::Http(_) => {
                failed("the address cannot be used".to_owned(), true, Some(error.into()))
            }
            ureq::Error::TooManyRedirects => failed("too many redirects".to_owned(), true, None),
            ureq::Error::Timeout(_) => failed("the server is silent".to_owned(), false, None),
            ureq::Error::HostNotFound => failed("there is no such host".to_owned(), false, None),
            error => failed("the connection failed".to_owned(), false, Some(error.into())),
        })?;
        let limit = self.limits.max_bytes;
        let too_large = || failed(format!("larger than the limit of {limit} bytes"), true, None);
        let said = answer.body().content_length();
        if said.is_some_and(|said| said > limit) {
            return Err(too_large());
        }
        let (mut bytes, mut held) = (Vec::new(), None);
        let mut reader = answer.body_mut().as_reader().take(limit + 1);
        let mut read = |bytes: &mut Vec<u8>, most: u64| {
            let read = Read::by_ref(&mut reader).take(most).read_to_end(bytes);
            read.map_err(|error| failed("the connection broke".to_owned(), false, Some(error.into())))
        };
        read(&mut bytes, SMALL)?;
        if bytes.len() as u64 == SMALL {
            held = Some(room(said.unwrap_or(limit)));
            read(&mut bytes, u64::MAX)?;
        }
        if bytes.len() as u64 > limit {
            return Err(too_large());
        }
        Ok((bytes, held))
    }
}

/// Resolves names to addresses that may be asked.
#[derive(Debug)]
struct Careful {
    inner: DefaultResolver,
    may_be_asked: fn(IpAddr) -> bool,
}

impl Resolver for Careful {
    fn resolve(&self, uri: &Uri, config: &Config, timeout: NextTimeout) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let found = self.inner.resolve(uri, config, timeout)?;
        if !found.iter().all(|address| (self.may_be_asked)(address.ip())) {
            let refused = "it leads to this machine or a private network, which is not asked unless that is allowed";
            return Err(ureq::Error::Io(std::io::Error::new(std::io::ErrorKind::PermissionDenied, refused)));
        }
        Ok(found)
    }
}

/// Whether an address belongs to the public network, by the registries of special-purpose addresses (RFC 6890).
pub(crate) fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    !matches!(
        (a, b, c),
        (0 | 10 | 127 | 224.., ..)
            | (100, 64..=127, _)
            | (169, 254, _)
            | (172, 16..=31, _)
            | (192, 168, _)
            | (192, 0, 0 | 2)
            | (192, 88, 99)
            | (198, 18..=19, _)
            | (198, 51, 100)
            | (203, 0, 113)
    )
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let segments = address.segments();
    let v4 = |high: u16, low: u16| is_public_v4(Ipv4Addr::from((u32::from(high) << 16) | u32::from(low)));
    match (segments[0], segments[1]) {
        // Unspecified, loopback, and IPv4 as a suffix.
        (0, _) => address.to_ipv4_mapped().is_some_and(is_public_v4),
        // NAT64 and 6to4 carry an IPv4 address.
        (0x64, 0xff9b) => v4(segments[6], segments[7]),
        (0x2002, high) => v4(high, segments[2]),
        // Teredo and its neighbours, documentation.
        (0x2001, 0..0x200 | 0xdb8) | (0x3fff, 0..0x1000) => false,
        (first, _) => (0x2000..0x4000).contains(&first),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::net::TcpListener;

    #[test]
    fn private_addresses_are_known_in_every_form() {
        for address in [
            "127.0.0.1",
            "10.0.0.1",
            "172.16.9.9",
            "192.168.0.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "224.0.0.1",
            "255.255.255.255",
            "::1",
            "::",
            "fe80::1",
            "fd00::1",
            "ff02::1",
            "::ffff:10.0.0.1",
            "::127.0.0.1",
            "198.18.0.1",
            "fec0::1",
            "64:ff9b::7f00:1",
            "2002:a00:1::",
            "2001:db8::1",
        ] {
            assert!(!is_public(address.parse().unwrap()), "{address}");
        }
        for address in ["1.1.1.1", "172.32.0.1", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"] {
            assert!(is_public(address.parse().unwrap()), "{address}");
        }
    }

    /// Answers each connection with the next of some texts.
    fn server(answers: Vec<String>) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for answer in answers {
                let (mut stream, _) = listener.accept().unwrap();
                let mut request = [0; 2048];
                let _ = stream.read(&mut request);
                let _ = stream.write_all(answer.as_bytes());
            }
        });
        format!("http://{address}/a.jpg")
    }

    fn answer(status: &str, more: &str, body: &str) -> String {
        format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n{more}\r\n{body}", body.len())
    }

    fn fetcher(private_addresses: bool) -> Fetcher {
        Fetcher::new(Limits { max_bytes: 10, timeout: Duration::from_secs(5), retries: 1, private_addresses })
    }

    #[test]
    fn files_are_fetched_within_limits() {
        let open = fetcher(true);
        let url = server(vec![answer("503 Busy", "", ""), answer("200 OK", "", "hello")]);
        assert_eq!(open.fetch(&url, || true).unwrap(), b"hello");
        let url = server(vec![answer("200 OK", "", "more than ten bytes")]);
        let error = open.fetch(&url, || true).unwrap_err().to_string();
        assert!(error.contains("limit of 10"), "{error}");
        let url = server(vec![answer("404 Not Found", "", "")]);
        assert!(matches!(open.fetch(&url, || true), Err(Error::Download { lasting: true, .. })));
    }

    #[test]
    fn this_machine_is_not_asked_unless_that_is_allowed() {
        let url = server(vec![]);
        for url in [url.clone(), url.replace("127.0.0.1", "localhost")] {
            let error = fetcher(false).fetch(&url, || true).unwrap_err().to_string();
            assert!(error.contains("private network"), "{error}");
        }
    }

    #[test]
    fn a_redirect_leads_nowhere_that_could_not_be_asked_directly() {
        let limits = Limits { max_bytes: 10, timeout: Duration::from_secs(5), retries: 0, private_addresses: false };
        // As if 127.0.0.1 were the public network and its neighbours the private one.
        let careful = Fetcher::asking(limits, |address| address == IpAddr::from([127, 0, 0, 1]));
        let secret = server(vec![answer("200 OK", "", "secret")]);
        for inside in [secret.replace("127.0.0.1", "127.0.0.2"), secret.replace("127.0.0.1", "[::1]")] {
            let url = server(vec![answer("302 Found", &format!("Location: {inside}\r\n"), "")]);
            let error = careful.fetch(&url, || true).unwrap_err().to_string();
            assert!(error.contains("private network"), "{inside}: {error}");
        }
        for elsewhere in ["file:///etc/passwd", "ftp://127.0.0.1/", "gopher://127.0.0.1/"] {
            let url = server(vec![answer("302 Found", &format!("Location: {elsewhere}\r\n"), "")]);
            assert!(careful.fetch(&url, || true).is_err(), "{elsewhere}");
        }
        let endless: Vec<String> = vec![answer("302 Found", "Location: /a.jpg\r\n", ""); 20];
        assert!(careful.fetch(&server(endless), || true).is_err());
        assert_eq!(careful.fetch(&secret, || true).unwrap(), b"secret");
    }
}
