//! How a server behaves. The defaults are those of a server that nobody but its owner can reach.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// How a server behaves.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ServerOptions {
    /// Where to listen. Default `127.0.0.1:1234`.
    pub address: SocketAddr,
    /// Names that a browser may know this server by. On a loopback address `localhost` and the loopback addresses always
    /// count and nothing else does, so that a page whose name was made to point here cannot read the answers; on other
    /// addresses an empty list means any name.
    pub hosts: Vec<String>,
    /// Origins (`https://example.org`) whose pages may use this server from a browser; `*` is all. Default none.
    pub origins: Vec<String>,
    /// Every request must bring this as `Authorization: Bearer …` or as the cookie that `/?token=…` sets. Default none.
    pub token: Option<String>,
    /// Whether pictures are fetched from addresses in requests. Default never.
    pub fetch: Fetch,
    /// Where thumbnails are kept between runs. Default nowhere: they are made anew.
    pub thumbnails: Option<PathBuf>,
    /// Bytes that kept thumbnails may take. Default 1 GiB.
    pub thumbnail_bytes: u64,
    /// Bytes of a request's body. Default 24 MiB.
    pub max_body: usize,
    /// Pixels of a picture that a request brings or asks for. Default 100 million.
    pub max_pixels: u64,
    /// Results of one search. Default 100,000.
    pub max_results: usize,
    /// The share of the true nearest neighbours that `/knn-service` finds on average. Default 0.95.
    pub recall: f32,
    /// Where clip-retrieval's front finds this server, for `/config.json`. Default: where it was asked.
    pub backend: Option<String>,
    /// The column of metadata in which clip-retrieval's front finds the address of a picture. Default `url`.
    pub url_column: String,
    /// The columns of metadata in answers of `/knn-service` and `/metadata`; `image` or `image_path` among them lets pictures
    /// come. Default all.
    pub columns: Option<Vec<String>>,
    /// How long a request may take, its body included. Default 30 s.
    pub deadline: Duration,
    /// Connections at a time; more have to wait. Default 1,024.
    pub connections: usize,
}

/// From where pictures are fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fetch {
    /// From nowhere.
    Never,
    /// From public addresses.
    Public,
    /// From any address, those of the local network included.
    Any,
}

impl Default for ServerOptions {
    fn default() -> Self {
        ServerOptions {
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, 1234)),
            hosts: Vec::new(),
            origins: Vec::new(),
            token: None,
            fetch: Fetch::Never,
            thumbnails: None,
            thumbnail_bytes: 1 << 30,
            max_body: 24 << 20,
            max_pixels: 100_000_000,
            max_results: 100_000,
            recall: 0.95,
            backend: None,
            url_column: "url".to_owned(),
            columns: None,
            deadline: Duration::from_secs(30),
            connections: 1024,
        }
    }
}
