//! A server: libraries under names, an address, and what all requests share.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::Semaphore;

use super::compute::Compute;
use super::failure::{Failure, chain};
use super::fetch::FETCHING;
use super::listen::Connections;
use super::metrics::Metrics;
use super::thumbnails::Thumbnails;
use super::view::{Served, View};
use super::{ServerOptions, router};
use crate::engine::Engine;
use crate::{Error, Result};

/// Opens a library again after its model was switched.
pub(super) type Reopen = Box<dyn Fn() -> Result<Engine> + Send + Sync>;

/// How often the catalogs are looked at, and the caller is asked whether to stop.
const TICK: Duration = Duration::from_millis(100);
/// How long answers that are under way may take after the end was asked for.
const FAREWELL: Duration = Duration::from_secs(10);
/// Bytes of request bodies in memory at a time; more wait.
pub(super) const BODIES: usize = 256 << 20;

/// A library and the name that it is served under.
pub struct Library {
    pub(super) name: String,
    pub(super) engine: Engine,
    pub(super) reopen: Option<Reopen>,
}

impl std::fmt::Debug for Library {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Library").field("name", &self.name).field("dir", &self.engine.dir()).finish_non_exhaustive()
    }
}

impl Library {
    /// Serves a library under a name.
    pub fn new(name: impl Into<String>, engine: Engine) -> Self {
        Library { name: name.into(), engine, reopen: None }
    }

    /// What to do when another process has switched the library to another model: open it again, with that model. Without
    /// this the server goes on with what it has.
    #[must_use]
    pub fn on_switch(mut self, reopen: impl Fn() -> Result<Engine> + Send + Sync + 'static) -> Self {
        self.reopen = Some(Box::new(reopen));
        self
    }
}

/// What all requests share.
pub(super) struct Service {
    pub(super) options: ServerOptions,
    pub(super) libraries: Vec<Served>,
    pub(super) metrics: Metrics,
    pub(super) compute: Compute,
    pub(super) thumbnails: Thumbnails,
    /// In KiB.
    pub(super) bodies: Arc<Semaphore>,
    /// Places of requests that fetch.
    pub(super) fetching: Arc<Semaphore>,
    pub(super) trouble: Box<dyn Fn(&str) + Send + Sync>,
}

impl Service {
    /// The library of a name; without one, the first.
    pub(super) fn library(&self, name: Option<&str>) -> Result<&Served, Failure> {
        match name {
            None => Ok(&self.libraries[0]),
            Some(name) => self.libraries.iter().find(|library| library.name == name).ok_or_else(|| {
                let names: Vec<&str> = self.libraries.iter().map(|library| library.name.as_str()).collect();
                Failure::absent(format!("no library is called {name:?}; there are: {}", names.join(", ")))
            }),
        }
    }

    /// What the library of a name holds at this moment.
    pub(super) fn view(&self, name: Option<&str>) -> Result<Arc<View>, Failure> {
        Ok(self.library(name)?.view())
    }
}

/// A server that listens, and answers from [`Server::run`] on.
#[must_use = "nothing is answered before `run`"]
pub struct Server {
    listener: std::net::TcpListener,
    address: SocketAddr,
    service: Service,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Server {
    /// Takes the address and a first look into every library.
    ///
    /// # Errors
    /// [`Error::Listen`] if the address is taken; [`Error::BadServer`] without libraries, with two of one name, or with
    /// options that cannot be; errors of the libraries.
    pub fn bind(options: ServerOptions, libraries: Vec<Library>) -> Result<Server> {
        let bad = |reason: String| Err(Error::BadServer { reason });
        if libraries.is_empty() {
            return bad("a server needs a library to serve".to_owned());
        }
        if let Some(origin) = options.origins.iter().find(|origin| *origin != "*" && origin.parse::<Origin>().is_err())
        {
            return bad(format!(
                "{origin:?} is no origin; one looks like https://example.org or http://localhost:8080"
            ));
        }
        if options.token.as_ref().is_some_and(|token| {
            token.len() < 8 || !token.bytes().all(|b| b.is_ascii_graphic() && b != b';' && b != b',' && b != b'"')
        }) {
            return bad("a token has at least 8 characters: letters, digits and signs but ; , and \"".to_owned());
        }
        if !(0.0..=1.0).contains(&options.recall) {
            return bad(format!("{} is no recall; it goes from 0 to 1", options.recall));
        }
        let mut served: Vec<Served> = Vec::with_capacity(libraries.len());
        for library in libraries {
            if served.iter().any(|other| other.name == library.name) {
                return bad(format!("two libraries are called {:?}", library.name));
            }
            served.push(Served::new(library)?);
        }
        let listen = |source| Error::Listen { address: options.address, source };
        let listener = std::net::TcpListener::bind(options.address).map_err(listen)?;
        listener.set_nonblocking(true).map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;
        let service = Service {
            thumbnails: Thumbnails::new(options.thumbnails.clone(), options.thumbnail_bytes),
            compute: Compute::new(cores()),
            bodies: Arc::new(Semaphore::new(BODIES >> 10)),
            fetching: Arc::new(Semaphore::new(FETCHING)),
            metrics: Metrics::new(),
            trouble: Box::new(|_| ()),
            libraries: served,
            options,
        };
        Ok(Server { listener, address, service })
    }

    /// Where it listens: the port is a real one even if port 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Hears of every fault that is not the client's, in one line each.
    pub fn on_trouble(mut self, hear: impl Fn(&str) + Send + Sync + 'static) -> Self {
        self.service.trouble = Box::new(hear);
        self
    }

    /// Answers until `stop` says so; it is asked ten times a second. Answers that are under way by then are finished.
    ///
    /// # Errors
    /// [`Error::Listen`] if the system takes the address away.
    pub fn run(self, stop: impl Fn() -> bool) -> Result<()> {
        let Server { listener, address, service } = self;
        let failed = |source| Error::Listen { address, source };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(cores())
            .max_blocking_threads(cores() + FETCHING + 4)
            .enable_all()
            .build()
            .map_err(failed)?;
        let service = Arc::new(service);
        let over = AtomicBool::new(false);
        let (end, ended) = tokio::sync::oneshot::channel::<()>();
        std::thread::scope(|scope| {
            let watched = Arc::clone(&service);
            let over = &over;
            scope.spawn(move || {
                while !over.load(Ordering::Acquire) {
                    for library in &watched.libraries {
                        if let Err(error) = library.refresh() {
                            (watched.trouble)(&format!("{}: {}", library.name, chain(&error)));
                            // What is broken now is mostly broken for a while; one line a second is enough.
                            pause(over, TICK * 10);
                        }
                    }
                    pause(over, TICK);
                }
            });
            let answering = {
                let service = Arc::clone(&service);
                runtime.spawn(async move {
                    let listener = tokio::net::TcpListener::from_std(listener)?;
                    let connections = Connections::new(listener, &service.options);
                    let app = router::router(service, address);
                    let serve = axum::serve(connections, app).with_graceful_shutdown(async {
                        let _ = ended.await;
                    });
                    serve.await
                })
            };
            while !stop() && !answering.is_finished() {
                std::thread::sleep(TICK);
            }
            over.store(true, Ordering::Release);
            drop(end);
            let last = runtime.block_on(async { tokio::time::timeout(FAREWELL, answering).await });
            runtime.shutdown_timeout(Duration::from_millis(200));
            match last {
                Ok(Ok(Err(source))) => Err(failed(source)),
                // Cut off, or over.
                _ => Ok(()),
            }
        })
    }
}

fn pause(over: &AtomicBool, time: Duration) {
    let end = std::time::Instant::now() + time;
    while !over.load(Ordering::Acquire) && std::time::Instant::now() < end {
        std::thread::sleep(TICK.min(time));
    }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(2, usize::from)
}

/// Scheme, host and perhaps port: what a browser calls an origin.
struct Origin;

impl std::str::FromStr for Origin {
    type Err = ();

    fn from_str(text: &str) -> Result<Origin, ()> {
        let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")).ok_or(())?;
        let plain = |c: char| c.is_ascii_alphanumeric() || "-._:[]".contains(c);
        if rest.is_empty() || !rest.chars().all(plain) { Err(()) } else { Ok(Origin) }
    }
}
