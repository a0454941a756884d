//! Who may ask, and for how long: the checks that every request passes, and the headers that every answer gets.
//!
//! A server on the loopback address is not out of reach: any page in any browser on this machine can send requests to it, and
//! a page whose host name was made to point to 127.0.0.1 could read the answers as its own. Hence the look at `Host` and at
//! `Origin`, before anything is read or computed.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::failure::{Cause, Failure};
use super::service::Service;

/// Name of the cookie that carries the token of a browser.
const COOKIE: &str = "tintype_token";

/// What a page may do: its own scripts, styles and pictures, nothing from elsewhere.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; \
                      connect-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// What the checks need to know.
pub(super) struct Guard {
    service: Arc<Service>,
    /// None: any name is good.
    hosts: Option<Vec<String>>,
    any_origin: bool,
}

impl Guard {
    pub(super) fn new(service: Arc<Service>, address: SocketAddr) -> Self {
        let options = &service.options;
        let mut hosts: Vec<String> = options.hosts.iter().map(|host| host.to_lowercase()).collect();
        let local = address.ip().is_loopback();
        let open = !local && hosts.is_empty();
        if local {
            hosts.extend(["localhost", "127.0.0.1", "[::1]"].map(str::to_owned));
        }
        hosts.push(match address {
            SocketAddr::V4(address) => address.ip().to_string(),
            SocketAddr::V6(address) => format!("[{}]", address.ip()),
        });
        let any_origin = options.origins.iter().any(|origin| origin == "*");
        Guard { hosts: (!open).then_some(hosts), any_origin, service }
    }

    fn check(&self, request: &Request) -> Result<(), Failure> {
        let headers = request.headers();
        let authority = request.uri().authority().map(|authority| authority.as_str());
        let host = authority.or_else(|| headers.get(header::HOST).and_then(|host| host.to_str().ok()));
        let host = host.ok_or_else(|| Failure::bad("a request needs a Host header"))?.to_lowercase();
        if let Some(known) = &self.hosts
            && !known.iter().any(|name| name == without_port(&host))
        {
            return Err(Failure::forbidden(format!(
                "this server is not known as {:?}; its owner can say --host-name to make it so",
                without_port(&host)
            )));
        }
        if let Some(origin) = headers.get(header::ORIGIN)
            && !self.allows(origin)
            && origin.to_str().ok().and_then(|origin| origin.split_once("://")).map(|(_, name)| name.to_lowercase())
                != Some(host)
        {
            return Err(Failure::forbidden(
                "pages of this origin may not use this server; its owner can say --allow-origin",
            ));
        }
        self.token(headers)
    }

    fn allows(&self, origin: &HeaderValue) -> bool {
        self.any_origin || self.service.options.origins.iter().any(|allowed| allowed.as_bytes() == origin.as_bytes())
    }

    fn token(&self, headers: &HeaderMap) -> Result<(), Failure> {
        let Some(token) = &self.service.options.token else { return Ok(()) };
        let bearer = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).and_then(|value| {
            let (scheme, token) = value.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
        });
        let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
        let mut cookies = cookies.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
        let cookie = cookies.find(|(name, _)| *name == COOKIE).map(|(_, token)| token);
        match bearer.or(cookie) {
            Some(found) if same(found, token) => Ok(()),
            _ => Err(Failure::unauthorized()),
        }
    }

    /// `/?token=…`, as a person opens it once: the token becomes a cookie and leaves the address line.
    fn welcome(&self, request: &Request) -> Option<Response> {
        let token = self.service.options.token.as_ref()?;
        let given = request.uri().query()?.split('&').find_map(|pair| pair.strip_prefix("token="))?;
        if request.uri().path() != "/" || request.method() != Method::GET || !same(given, token) {
            return None;
        }
        let cookie = HeaderValue::from_str(&format!("{COOKIE}={token}; Path=/; HttpOnly; SameSite=Strict")).ok()?;
        let headers = [(header::SET_COOKIE, cookie), (header::LOCATION, HeaderValue::from_static("/"))];
        Some((StatusCode::SEE_OTHER, headers).into_response())
    }

    fn answer(&self, origin: Option<HeaderValue>, mut response: Response) -> Response {
        if let Some(Cause(cause)) = response.extensions().get() {
            (self.service.trouble)(cause);
        }
        self.service.metrics.answered(response.status().as_u16());
        let mut set = |name: HeaderName, value: &'static str| {
            response.headers_mut().entry(name).or_insert(HeaderValue::from_static(value));
        };
        set(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
        set(header::REFERRER_POLICY, "no-referrer");
        set(header::CONTENT_SECURITY_POLICY, POLICY);
        set(header::CACHE_CONTROL, "no-store");
        let shared = !self.service.options.origins.is_empty();
        set(
            HeaderName::from_static("cross-origin-resource-policy"),
            if shared { "cross-origin" } else { "same-origin" },
        );
        if shared {
            set(header::VARY, "Origin");
        }
        if let Some(origin) = origin {
            response.headers_mut().insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        }
        response
    }

    /// What a browser asks before it lets a page of another origin ask.
    fn preflight(headers: &HeaderMap) -> Response {
        let methods = HeaderValue::from_static("GET, HEAD, OPTIONS, POST");
        let mut response = (StatusCode::OK, [(header::ACCESS_CONTROL_ALLOW_METHODS, methods)]).into_response();
        if let Some(wanted) = headers.get(header::ACCESS_CONTROL_REQUEST_HEADERS) {
            response.headers_mut().insert(header::ACCESS_CONTROL_ALLOW_HEADERS, wanted.clone());
        }
        response
    }
}

/// Lets a request pass, or not, and finishes its answer.
pub(super) async fn guard(State(guard): State<Arc<Guard>>, request: Request, next: Next) -> Response {
    let origin = request.headers().get(header::ORIGIN).filter(|origin| guard.allows(origin)).cloned();
    let asks = request.method() == Method::OPTIONS
        && request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
        && origin.is_some();
    let response = if asks {
        Guard::preflight(request.headers())
    } else if let Some(welcome) = guard.welcome(&request) {
        welcome
    } else {
        match guard.check(&request) {
            Err(failure) => failure.into_response(),
            Ok(()) => match tokio::time::timeout(guard.service.options.deadline, next.run(request)).await {
                Ok(response) => response,
                Err(_) => Failure::late().into_response(),
            },
        }
    };
    guard.answer(origin, response)
}

/// Compares hashes, which tells a listener with a clock nothing about the token.
fn same(given: &str, token: &str) -> bool {
    blake3::hash(given.as_bytes()) == blake3::hash(token.as_bytes())
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) && !name.is_empty() => name,
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_no_part_of_a_name() {
        for (host, name) in
            [("localhost:1234", "localhost"), ("localhost", "localhost"), ("[::1]:80", "[::1]"), ("[::1]", "[::1]")]
        {
            assert_eq!(without_port(host), name);
        }
    }
}
