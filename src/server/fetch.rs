//! Pictures from addresses in requests, where the owner of the server allows that.
//!
//! A server that fetches what strangers ask for is a way into the network that it stands in; the [`Fetcher`] keeps it out of
//! private ones.

use std::time::Duration;

use super::Fetch;
use super::failure::{Failure, chain};
use super::metrics::Step;
use super::service::Service;
use crate::fetch::{Fetcher, Limits};

/// How long a picture may take to come. A client waits, so nothing is tried twice.
const PATIENCE: Duration = Duration::from_secs(10);

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
    let private_addresses = from != Fetch::Public;
    let fetcher = Fetcher::new(Limits { max_bytes: limit, timeout: PATIENCE, retries: 0, private_addresses });
    fetcher
        .fetch(address, || false)
        .map_err(|error| Failure::bad(format!("image_url could not be fetched: {}", chain(&error))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_asked_of_this_machine() {
        for address in ["http://127.0.0.1:9/", "http://localhost:9/a.jpg", "http://[::1]:9/", "http://0x7f000001:9/"] {
            let failure = download(address, Fetch::Public, 1000).unwrap_err();
            assert_eq!(failure.status(), 400, "{address}: {failure:?}");
        }
        assert_eq!(download("file:///etc/passwd", Fetch::Any, 1000).unwrap_err().status(), 400);
    }
}
