//! Pictures from addresses in requests, where the owner of the server allows that.
//!
//! A server that fetches what strangers ask for is a way into the network that it stands in: to the router's page, to the
//! metadata of a cloud machine. So the address is looked at where it is resolved, for each redirect anew, and the connection
//! goes to the very address that was looked at; a name that resolves to something else a moment later gains nothing.

use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{DefaultConnector, NextTimeout};

use super::Fetch;
use super::failure::{Failure, chain};
use super::metrics::Step;
use super::service::Service;

/// How long a picture may take to come.
const PATIENCE: Duration = Duration::from_secs(10);
const MAX_REDIRECTS: u32 = 5;

impl Service {
    /// The bytes at an address.
    pub(super) fn fetched(&self, address: &str) -> Result<Vec<u8>, Failure> {
        match self.options.fetch {
            Fetch::Never => Err(Failure::bad(
                "this server does not fetch pictures from addresses; send the picture itself as image",
            )),
            from => self.metrics.time(Step::Download, || download(address, from, self.options.max_body as u64)),
        }
    }
}

fn download(address: &str, from: Fetch, limit: u64) -> Result<Vec<u8>, Failure> {
    let known = |scheme: &str| address.get(..scheme.len()).is_some_and(|head| head.eq_ignore_ascii_case(scheme));
    if !known("http://") && !known("https://") {
        return Err(Failure::bad("image_url is not an address that begins with http:// or https://"));
    }
    let config = Config::builder()
        .timeout_global(Some(PATIENCE))
        .max_redirects(MAX_REDIRECTS)
        // A proxy would resolve names elsewhere, out of sight.
        .proxy(None)
        .build();
    let resolver = Careful { inner: DefaultResolver::default(), public_only: from == Fetch::Public };
    let agent = ureq::Agent::with_parts(config, DefaultConnector::default(), resolver);
    let failed = |error: ureq::Error| match error {
        ureq::Error::Io(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            Failure::bad(error.to_string())
        }
        error => Failure::bad(format!("image_url could not be fetched: {}", chain(&error))),
    };
    let mut answer = agent.get(address).call().map_err(failed)?;
    let mut bytes = Vec::new();
    let read = answer.body_mut().as_reader().take(limit + 1).read_to_end(&mut bytes);
    read.map_err(|error| Failure::bad(format!("image_url could not be read: {error}")))?;
    if bytes.len() as u64 > limit {
        return Err(Failure::bad(format!("what is at image_url is larger than the limit of {limit} bytes")));
    }
    Ok(bytes)
}

/// Resolves names to addresses that may be asked.
#[derive(Debug)]
struct Careful {
    inner: DefaultResolver,
    public_only: bool,
}

impl Resolver for Careful {
    fn resolve(&self, uri: &Uri, config: &Config, timeout: NextTimeout) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let found = self.inner.resolve(uri, config, timeout)?;
        if self.public_only && !found.iter().all(|address| is_public(address.ip())) {
            let refused = "image_url leads to a private address, which this server does not ask";
            return Err(ureq::Error::Io(std::io::Error::new(std::io::ErrorKind::PermissionDenied, refused)));
        }
        Ok(found)
    }
}

/// Whether an address belongs to the public network, by the registries of special-purpose addresses (RFC 6890).
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => is_public_v4(v4),
        IpAddr::V6(v6) => is_public_v6(v6),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let special = match (a, b, c) {
        (0 | 10 | 127, ..) => true,
        (100, 64..=127, _) => true,
        (169, 254, _) => true,
        (172, 16..=31, _) => true,
        (192, 168, _) | (192, 0, 0 | 2) | (192, 88, 99) => true,
        (198, 18..=19, _) | (198, 51, 100) | (203, 0, 113) => true,
        (224.., ..) => true,
        _ => false,
    };
    !special
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let [a, b, c, .., y, z] = address.segments();
    let v4 = |high: u16, low: u16| {
        let [[a, b], [c, d]] = [high, low].map(u16::to_be_bytes);
        is_public_v4(Ipv4Addr::new(a, b, c, d))
    };
    match (a, b) {
        // Unspecified, loopback, and IPv4 in its mapped and compatible forms.
        (0, _) => address.to_ipv4_mapped().is_some_and(is_public_v4),
        // NAT64 and 6to4 carry an IPv4 address.
        (0x64, 0xff9b) => v4(y, z),
        (0x2002, _) => v4(b, c),
        // Teredo, ORCHID, documentation.
        (0x2001, 0..0x200 | 0xdb8) | (0x3fff, 0..0x1000) => false,
        // Global unicast is 2000::/3.
        (0x2000..=0x3fff, _) => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_addresses_are_known_in_every_disguise() {
        for address in [
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "255.255.255.255",
            "224.0.0.1",
            "198.18.0.1",
            "::1",
            "::",
            "fe80::1",
            "fc00::1",
            "fd12::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::127.0.0.1",
            "64:ff9b::a00:1",
            "2002:7f00:1::",
            "2001:db8::1",
            "fec0::1",
        ] {
            assert!(!is_public(address.parse().unwrap()), "{address}");
        }
        for address in ["1.1.1.1", "172.15.0.1", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "::ffff:8.8.8.8"] {
            assert!(is_public(address.parse().unwrap()), "{address}");
        }
    }

    #[test]
    fn nothing_is_asked_of_this_machine() {
        for address in ["http://127.0.0.1:9/", "http://localhost:9/a.jpg", "http://[::1]:9/", "http://0x7f000001:9/"] {
            let failure = download(address, Fetch::Public, 1000).unwrap_err();
            assert_eq!(failure.status(), 400, "{address}: {failure:?}");
        }
        assert_eq!(download("file:///etc/passwd", Fetch::Any, 1000).unwrap_err().status(), 400);
    }
}
