//! Pictures from addresses in requests, where the owner of the server allows that.
//!
//! A server that fetches what strangers ask for is a way into the network that it stands in; the [`Fetcher`] keeps it out of
//! private ones.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;

use super::Fetch;
use super::failure::{Failure, chain};
use super::metrics::Step;
use super::service::Service;
use crate::fetch::{Fetcher, Limits};

/// How long a picture may take to come. A client waits, so nothing is tried twice.
const PATIENCE: Duration = Duration::from_secs(10);

/// Requests that fetch at a time; more wait. Waiting for somebody else's server is no work, so it is not done where work is.
pub(super) const FETCHING: usize = 8;

/// A place among the requests that fetch. Kept until the request is answered, so what is fetched and not yet looked at is
/// bounded: by the places, and in each by the size of a request.
pub(super) struct Fetching {
    service: Arc<Service>,
    place: Arc<OwnedSemaphorePermit>,
    left: usize,
}

impl Service {
    /// A place among the requests that fetch.
    pub(super) async fn fetching(self: &Arc<Self>) -> Result<Fetching, Failure> {
        if self.options.fetch == Fetch::Never {
            return Err(Failure::bad(
                "this server does not fetch pictures from addresses; send the picture itself as image",
            ));
        }
        let place = Arc::clone(&self.fetching).acquire_owned().await;
        let place = Arc::new(place.map_err(|error| Failure::internal(error.to_string()))?);
        Ok(Fetching { service: Arc::clone(self), place, left: self.options.max_body })
    }
}

impl Fetching {
    /// The bytes at an address.
    pub(super) async fn bytes(&mut self, address: String) -> Result<Vec<u8>, Failure> {
        let (service, place, left) = (Arc::clone(&self.service), Arc::clone(&self.place), self.left as u64);
        let work = move || {
            // A client that has gone does not make its place free before the thread is.
            let _place = place;
            service.metrics.time(Step::Download, || download(&address, service.options.fetch, left))
        };
        let fetched = tokio::task::spawn_blocking(work).await;
        let bytes = fetched.map_err(|error| Failure::internal(error.to_string()))??;
        self.left -= bytes.len().min(self.left);
        Ok(bytes)
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
