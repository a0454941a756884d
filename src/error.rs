//! One error enum for the crate.
//!
//! A variant carries what a person needs to act: the file first, then what was found and what was expected. Foreign errors
//! are kept as `source`, never turned into strings.

use std::path::{Path, PathBuf};

/// A boxed foreign error.
pub(crate) type Source = Box<dyn std::error::Error + Send + Sync + 'static>;

/// `Result` with this crate's [`enum@Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that can go wrong in the engine.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A picture in a format that is recognised but cannot be decoded.
    #[error("{format} pictures are not supported yet")]
    UnsupportedImage {
        /// The format's usual name, such as `HEIC`.
        format: &'static str,
    },
    /// Bytes that are no picture, or a damaged one.
    #[error("not a readable picture: {reason}")]
    BadImage {
        /// What is wrong, in plain words.
        reason: String,
    },
    /// A picture whose decoder gave up.
    #[error("damaged {format} file: {reason}")]
    DamagedImage {
        /// The format's usual name, such as `PNG`.
        format: &'static str,
        /// What is wrong, in plain words.
        reason: &'static str,
        /// What the decoder said.
        source: Source,
    },
    /// A picture with more pixels than the limit allows.
    #[error("{width} × {height} pixels are more than the limit of {limit}")]
    ImageTooLarge {
        /// Stored width.
        width: u32,
        /// Stored height.
        height: u32,
        /// Limit in pixels.
        limit: u64,
    },
    /// A model directory that lacks a file, a key or a tensor, or holds one that cannot be right.
    #[error("{}: {reason}", path.display())]
    BadModel {
        /// The file at fault.
        path: PathBuf,
        /// What is wrong and what was expected.
        reason: String,
    },
    /// A configuration key that changes the result and is not supported.
    #[error("{}: {key} = {value} is not supported", path.display())]
    UnsupportedModel {
        /// The configuration file.
        path: PathBuf,
        /// The key, dotted: `text_cfg.hf_model_name`.
        key: String,
        /// Its value as written.
        value: String,
    },
    /// No known model has this name.
    #[error("no model is called {name}; there are: {known}")]
    UnknownModel {
        /// The name that was asked for.
        name: String,
        /// Names that come closest.
        known: String,
    },
    /// A model that is not on this machine, while the hub must not be asked.
    #[error("{}: {missing} of {model} is not here, and downloads are switched off (offline)", cache.display())]
    Offline {
        /// Repository of the model.
        model: String,
        /// The cache folder.
        cache: PathBuf,
        /// The first file that is missing.
        missing: String,
    },
    /// A model hub did not give what was asked of it.
    #[error("{url}: {reason}")]
    Hub {
        /// What was asked for.
        url: String,
        /// What went wrong and what to do.
        reason: String,
        /// What the network library said.
        source: Option<Source>,
    },
    /// The folder that models are kept in cannot take a file.
    #[error("{}: {reason}", path.display())]
    ModelCache {
        /// The folder.
        path: PathBuf,
        /// What is wrong and what to do.
        reason: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The home directory, which the model cache lies in by default, is unknown.
    #[error("no home directory is known: say where models are to be kept (HF_HOME)")]
    NoHome,
    /// A tensor operation failed.
    #[error("the model could not be evaluated")]
    Tensor(#[source] Source),
    /// A mistake in the query text.
    #[error("{message}")]
    BadQuery {
        /// What is wrong.
        message: String,
        /// Byte range in the query text; empty where the mistake has no place in it.
        span: std::ops::Range<usize>,
    },
    /// A picture of the query that cannot be used.
    #[error("{}: {source}", path.display())]
    QueryImage {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: Box<Error>,
    },
    /// The catalog failed.
    #[error("{}: the catalog failed", path.display())]
    Catalog {
        /// The database file.
        path: PathBuf,
        /// What SQLite said.
        source: Source,
    },
    /// The directory holds no library.
    #[error("{}: no library here; index some photos into it first", path.display())]
    NoLibrary {
        /// The directory.
        path: PathBuf,
    },
    /// A library is there already.
    #[error("{}: a library is here already; open it instead", path.display())]
    LibraryExists {
        /// The directory.
        path: PathBuf,
    },
    /// Another process writes to the library. Searching goes on as usual meanwhile.
    #[error("{}: another process is writing to this library; wait for it to finish, or search what is there", path.display())]
    Busy {
        /// The library.
        path: PathBuf,
    },
    /// The catalog was written by a newer version of this program.
    #[error(
        "{}: catalog version {found} is newer than version {supported}, the newest this program knows; update the program",
        path.display()
    )]
    NewerCatalog {
        /// The database file.
        path: PathBuf,
        /// Version of the file.
        found: u32,
        /// Newest version that this program reads.
        supported: u32,
    },
    /// The catalog is damaged, or no catalog at all.
    #[error(
        "{}: damaged ({reason}); restore the file from a copy, or move the library away and index the photos anew",
        path.display()
    )]
    DamagedCatalog {
        /// The database file.
        path: PathBuf,
        /// What was found.
        reason: String,
    },
    /// A folder to index that is not there. Nothing was changed: what the library knows of it stays.
    #[error("{}: not found; if it is on a drive, connect the drive first (`remove` makes the library forget it)", path.display())]
    NoRoot {
        /// The folder.
        path: PathBuf,
    },
    /// A folder that is empty although the library knows photos in it. They stay: most likely a drive is not mounted.
    #[error(
        "{}: empty, but the library knows {known} photos in it; is its drive mounted? (`remove` makes the library forget them)",
        path.display()
    )]
    EmptyRoot {
        /// The folder.
        path: PathBuf,
        /// Photos that the library knows below it.
        known: u64,
    },
    /// A pattern that cannot be read.
    #[error("{pattern}: not a pattern that can be read")]
    BadPattern {
        /// As given.
        pattern: String,
        /// What is wrong with it.
        source: Source,
    },
    /// A file that was refused by an earlier run and is as it was then.
    #[error("{reason}")]
    StillUnreadable {
        /// What that run said.
        reason: String,
    },
    /// A file that went on changing while it was read.
    #[error("changed while it was read; the next run tries again")]
    Changing,
    /// A file larger than any picture that could be decoded.
    #[error("{size} bytes are more than the limit of {limit}")]
    FileTooLarge {
        /// Bytes.
        size: u64,
        /// Limit in bytes.
        limit: u64,
    },
    /// A picture of the web that could not be fetched.
    #[error("{url}: {reason}")]
    Download {
        /// Its address.
        url: String,
        /// What went wrong.
        reason: String,
        /// Whether trying again is of no use.
        lasting: bool,
        /// What the network library said.
        source: Option<Source>,
    },
    /// The model that would be needed is not here; of its space only vectors are known.
    #[error(
        "{what} cannot be looked for: the vectors of this library are of {model}, and that model is not here; like: finds what looks like a photo of the library, --model loads the model from its name or folder"
    )]
    NoModel {
        /// The model.
        model: String,
        /// What was to be embedded.
        what: String,
    },
    /// A picture of which the library holds no bytes and knows no file.
    #[error("{}: {reason}", path.display())]
    NoPicture {
        /// The picture's address in the library.
        path: PathBuf,
        /// Why, and what can be done.
        reason: String,
    },
    /// A file of a collection that cannot be read.
    #[error("{}: {reason}", path.display())]
    BadCollection {
        /// The file.
        path: PathBuf,
        /// What was found, what was expected, and what to do.
        reason: String,
    },
    /// A library, or embeddings, of another model.
    #[error("{}: made with {found}, not with {expected}", path.display())]
    SpaceMismatch {
        /// The library or the file.
        path: PathBuf,
        /// Its embedding space.
        found: String,
        /// Embedding space of the encoder in hand.
        expected: String,
    },
    /// The address that a server is to listen at cannot be had.
    #[error("{address}: cannot listen there; is another server running?")]
    Listen {
        /// Address and port.
        address: std::net::SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// A server that cannot be as it was asked to be.
    #[error("{reason}")]
    BadServer {
        /// What is wrong and what to do.
        reason: String,
    },
    /// The vector index failed.
    #[error(transparent)]
    Index(#[from] tintype_index::Error),
    /// The caller's cancellation closure said stop. Everything committed so far is kept.
    #[error("interrupted")]
    Cancelled,
}

/// What cannot happen needs no conversion, but the compiler wants one: a search takes a [`Query`](crate::Query) as well as text.
impl From<std::convert::Infallible> for Error {
    fn from(never: std::convert::Infallible) -> Self {
        match never {}
    }
}

impl Error {
    /// An [`Error::Io`] for `path`; for use in `map_err`.
    pub(crate) fn io(path: impl AsRef<Path>) -> impl FnOnce(std::io::Error) -> Error {
        move |source| Error::Io { path: path.as_ref().to_path_buf(), source }
    }
}
