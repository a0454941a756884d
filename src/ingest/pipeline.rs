//! The stages between a list of files and their vectors.
//!
//! Used by an ingest, whose files come from a walk, and by a switch of models, whose files come from the catalog. The sink runs
//! on the caller's thread, so that its closures need not be `Send` and the database has one user.

use std::cell::RefCell;
use std::collections::HashSet;
use std::io::Read;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use super::budget::{Budget, DECODED_BYTES, FILE_BYTES, Permit};
use super::given::Given;
use super::walk::{File, mtime};
use crate::catalog::{COPY_SIDE, Copies, Hash, KeptFeatures, Place, Record, SMALL_COPY};
use crate::image::{DecodeOptions, Format, Metadata, Photo};
use crate::model::{Embeddings, Encode, PixelBatch};
use crate::{Error, Result};

/// Pictures per call of the encoder.
const BATCH: usize = 32;

/// Calls of the encoder at a time: encoders spread a batch over the cores themselves, and while one batch ends another begins.
const ENCODERS: usize = 2;

/// How long an encoder thread waits for a full batch. Where encoding is what takes the time, batches are full at once.
const FILL: Duration = Duration::from_millis(100);

/// No picture that decodes within the pixel limit is larger than this.
pub(super) const MAX_FILE: u64 = 2 << 30;

/// Each thread reads into the buffer that its last file was in, if that is no larger than this: the pages of a new one would all
/// have to be fetched from the system, and cleared.
const KEPT_BUFFER: usize = 8 << 20;

/// How often a file that changes while it is read is read again.
const ATTEMPTS: usize = 3;

/// A file to embed.
#[derive(Debug)]
pub(crate) struct Candidate {
    pub(super) file: File,
    /// Whether the catalog has a record at this path.
    pub(super) known: bool,
    /// The content that the file must still have.
    pub(super) expected: Option<Hash>,
    /// Where the bytes are, if not in a file of their own.
    pub(super) given: Option<Given>,
}

impl Candidate {
    /// A file that the walk met.
    pub(super) fn new(file: File, known: bool) -> Candidate {
        Candidate { file, known, expected: None, given: None }
    }

    /// A file that the catalog knows, with the content that it must still have.
    pub(crate) fn recorded(record: &Record) -> Candidate {
        let file = File { path: record.path.clone(), size: record.size, mtime: record.mtime, said: None };
        Candidate { file, known: true, expected: Some(record.content()), given: None }
    }

    /// As what the sink hears of it when it cannot be read.
    pub(crate) fn unreadable<T>(self, error: Error) -> Event<T> {
        Event::Skipped(self.file, None, error)
    }

    /// With bytes from elsewhere.
    pub(crate) fn given(self, given: Given) -> Candidate {
        Candidate { given: Some(given), ..self }
    }
}

/// What the sink hears of.
#[derive(Debug)]
pub(crate) enum Event<T> {
    /// A file with its vector.
    Embedded(Box<Record>, bool, Vec<f32>),
    /// A file whose content is known already, or being embedded in this run.
    Familiar(File, bool, Hash),
    /// A file that is no picture.
    NoPicture(File),
    /// A file that could not be taken in, and its content where that was read.
    Skipped(File, Option<Hash>, Error),
    /// Something of the source's own.
    Other(T),
    /// A failure that is not one file's: the run ends.
    Fatal(Error),
}

/// What all stages share.
pub(crate) struct Stages<'a> {
    pub(crate) encoder: &'a dyn Encode,
    pub(crate) threads: usize,
    pub(crate) max_pixels: u64,
    /// Whether a content has a vector already. Called on many threads.
    pub(crate) has_vector: &'a (dyn Fn(&Hash) -> Result<bool> + Sync),
    /// Where copies of pictures go that come without a file to open later, and how many bytes they may take.
    pub(crate) copies: Option<(&'a Copies, u64)>,
    /// Where features go, if the library keeps them.
    pub(crate) features: Option<&'a KeptFeatures>,
    pub(crate) bytes_read: &'a AtomicU64,
    /// Set by the sink to end the run early.
    pub(crate) stop: &'a AtomicBool,
}

/// What the source feeds.
pub(crate) struct Feed<'a, T> {
    files: Sender<Candidate>,
    events: Sender<Event<T>>,
    stop: &'a AtomicBool,
}

/// The sink is gone or wants no more.
pub(crate) struct Stopped;

impl<T> Feed<'_, T> {
    pub(crate) fn file(&self, candidate: Candidate) -> Result<(), Stopped> {
        self.check()?;
        self.files.send(candidate).map_err(|_| Stopped)
    }

    pub(crate) fn event(&self, event: Event<T>) -> Result<(), Stopped> {
        self.check()?;
        self.events.send(event).map_err(|_| Stopped)
    }

    pub(super) fn check(&self) -> Result<(), Stopped> {
        if self.stop.load(Ordering::Relaxed) { Err(Stopped) } else { Ok(()) }
    }
}

/// A decoded and resized picture on its way to the encoder.
struct Picture {
    record: Box<Record>,
    known: bool,
    pixels: Vec<u8>,
}

impl Stages<'_> {
    /// Runs the source on a thread of its own, the stages on theirs, and the sink here. Returns what the sink returns, after all
    /// threads have ended; a sink that returns early ends them.
    pub(crate) fn run<T: Send, R>(
        &self,
        source: impl FnOnce(&Feed<'_, T>) + Send,
        sink: impl FnOnce(&Receiver<Event<T>>) -> R,
    ) -> R {
        let (files_in, files) = bounded::<Candidate>(1024);
        let (pictures_in, pictures) = bounded::<Picture>(2 * BATCH);
        let (events_in, events) = bounded::<Event<T>>(1024);
        let (bytes, pixels) = (Arc::new(Budget::new(FILE_BYTES)), Arc::new(Budget::new(DECODED_BYTES)));
        let in_flight = Mutex::new(HashSet::new());
        std::thread::scope(|scope| {
            for _ in 0..self.threads {
                let (files, pictures, events) = (files.clone(), pictures_in.clone(), events_in.clone());
                let (bytes, pixels, in_flight) = (&bytes, &pixels, &in_flight);
                scope.spawn(move || {
                    let mut buffer = Vec::new();
                    for candidate in files {
                        let (file, known) = (candidate.file.clone(), candidate.known);
                        let event = match self.prepare(candidate, bytes, pixels, in_flight, &mut buffer) {
                            Ok(Prepared::Picture(picture)) => match pictures.send(picture) {
                                Ok(()) => continue,
                                Err(_) => return,
                            },
                            Ok(Prepared::Familiar(file, hash)) => Event::Familiar(file, known, hash),
                            Ok(Prepared::NoPicture(file)) => Event::NoPicture(file),
                            Err((_, error)) if of_catalog(&error) => Event::Fatal(error),
                            Err((hash, error)) => Event::Skipped(file, hash, error),
                        };
                        if events.send(event).is_err() || self.stop.load(Ordering::Relaxed) {
                            return;
                        }
                    }
                });
            }
            for _ in 0..ENCODERS {
                let (pictures, events) = (pictures.clone(), events_in.clone());
                scope.spawn(move || self.encode(&pictures, &events));
            }
            let feed = Feed { files: files_in, events: events_in, stop: self.stop };
            scope.spawn(move || source(&feed));
            drop((files, pictures_in, pictures));
            let result = sink(&events);
            self.stop.store(true, Ordering::Relaxed);
            drop(events);
            result
        })
    }

    fn prepare(
        &self,
        candidate: Candidate,
        bytes: &Arc<Budget>,
        pixels: &Arc<Budget>,
        in_flight: &Mutex<HashSet<Hash>>,
        buffer: &mut Vec<u8>,
    ) -> Result<Prepared, (Option<Hash>, Error)> {
        let plain = |error| (None, error);
        let Candidate { file, known, expected, given } = candidate;
        let fleeting = matches!(given, Some(Given::Held(_)));
        let is_copy = matches!(given, Some(Given::Copy(_)));
        let content = match given {
            Some(given) => given.read(file.clone(), bytes, self.bytes_read).map(Some),
            None => self.read(&file, bytes, std::mem::take(buffer)),
        };
        let Some(Content { file, data, _permit }) = content.map_err(plain)? else {
            return Ok(Prepared::NoPicture(file));
        };
        let hash = match expected {
            Some(original) if is_copy => original,
            _ => *blake3::hash(&data).as_bytes(),
        };
        let fail = |error| (Some(hash), error);
        if expected.is_some_and(|expected| expected != hash) {
            return Err(plain(Error::Changing));
        }
        let first = in_flight.lock().unwrap_or_else(PoisonError::into_inner).insert(hash);
        if !first || (self.has_vector)(&hash).map_err(fail)? {
            return Ok(Prepared::Familiar(file, hash));
        }
        let preprocess = self.encoder.preprocess();
        // What decoders are about to take; the permit before goes back first, lest its holder wait for itself.
        let permit: RefCell<Option<Permit>> = RefCell::new(None);
        let admit = |amount| {
            permit.take();
            *permit.borrow_mut() = Some(pixels.take(amount));
        };
        let options = DecodeOptions { max_pixels: self.max_pixels, ..DecodeOptions::default() };
        // Decoders are other people's code and see hostile bytes: a panic there is one bad photo.
        let decoded = catch_unwind(AssertUnwindSafe(|| -> Result<_> {
            if let (Some((copies, room)), true) = (self.copies, fleeting) {
                copies.keep(&hex(&hash), room, || small(&data, &options, &admit));
            }
            let photo = Photo::decode_within(&data, &options, preprocess, &admit)?;
            let pixels = preprocess.apply(&photo)?;
            Ok((photo.format(), photo.width(), photo.height(), pixels, Metadata::read(&data)))
        }));
        let crashed = |_| Error::BadImage { reason: "its decoder gave up".to_owned() };
        if data.capacity() <= KEPT_BUFFER {
            *buffer = data;
        }
        let (format, width, height, pixels, metadata) = decoded.map_err(crashed).flatten().map_err(fail)?;
        let record = Record {
            key: 0,
            size: file.size,
            mtime: file.mtime,
            path: file.path,
            hash: hex(&hash),
            format: format.name().to_owned(),
            width,
            height,
            taken: metadata.taken,
            camera: metadata.camera,
            lens: metadata.lens,
            exposure: metadata.exposure,
            place: metadata.place.map(|(latitude, longitude)| Place { latitude, longitude }),
            ..Record::blank()
        };
        let record = record.said(file.said);
        Ok(Prepared::Picture(Picture { record: Box::new(record), known, pixels }))
    }

    /// All bytes of a picture file, in `data`, with the size and time that belong to them; none if it is no picture.
    fn read(&self, found: &File, budget: &Arc<Budget>, mut data: Vec<u8>) -> Result<Option<Content>> {
        let path = &found.path;
        for _ in 0..ATTEMPTS {
            let mut handle = std::fs::File::open(path).map_err(Error::io(path))?;
            let before = handle.metadata().map_err(Error::io(path))?;
            data.clear();
            Read::by_ref(&mut handle).take(Format::SNIFF_LEN as u64).read_to_end(&mut data).map_err(Error::io(path))?;
            match Format::sniff(&data) {
                None if !claims_picture(path) => return Ok(None),
                None => {
                    let reason =
                        if data.is_empty() { "the file is empty" } else { "named like one, but its content is none" };
                    return Err(Error::BadImage { reason: reason.to_owned() });
                }
                Some(format) if !format.is_supported() => {
                    return Err(Error::UnsupportedImage { format: format.label() });
                }
                Some(_) => {}
            }
            let size = before.len();
            if size > MAX_FILE {
                return Err(Error::FileTooLarge { size, limit: MAX_FILE });
            }
            let _permit = budget.take(size);
            data.reserve_exact((size as usize).saturating_sub(data.len()));
            // One byte more than there should be, to notice a file that grows.
            let rest = (size + 1).saturating_sub(data.len() as u64);
            Read::by_ref(&mut handle).take(rest).read_to_end(&mut data).map_err(Error::io(path))?;
            self.bytes_read.fetch_add(data.len() as u64, Ordering::Relaxed);
            let after = handle.metadata().map_err(Error::io(path))?;
            if data.len() as u64 == size && (after.len(), mtime(&after)) == (size, mtime(&before)) {
                let file = File { said: found.said.clone(), ..File::new(path.clone(), &after) };
                return Ok(Some(Content { file, data, _permit }));
            }
        }
        Err(Error::Changing)
    }

    fn encode<T>(&self, pictures: &Receiver<Picture>, events: &Sender<Event<T>>) {
        let size = self.encoder.preprocess().size;
        let mut batch = PixelBatch::new(size.0, size.1);
        let mut waiting = Vec::with_capacity(BATCH);
        while let Ok(first) = pictures.recv() {
            let since = Instant::now();
            let mut next = Ok(first);
            while let Ok(Picture { record, known, pixels }) = next {
                batch.push(&pixels);
                waiting.push((record, known));
                if waiting.len() == BATCH {
                    break;
                }
                next = match pictures.recv_timeout(FILL.saturating_sub(since.elapsed())) {
                    Err(RecvTimeoutError::Timeout) => pictures.try_recv().map_err(|_| RecvTimeoutError::Timeout),
                    next => next,
                };
            }
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
            match self.embed(&batch, &waiting) {
                Ok(vectors) => {
                    for ((record, known), vector) in waiting.drain(..).zip(vectors.rows()) {
                        if events.send(Event::Embedded(record, known, vector.to_vec())).is_err() {
                            return;
                        }
                    }
                }
                Err(error) => {
                    let _ = events.send(Event::Fatal(error));
                    return;
                }
            }
            batch.clear();
        }
    }
}

impl Stages<'_> {
    /// The vectors of pictures; their features are kept on the way, if the library keeps them.
    fn embed(&self, batch: &PixelBatch, pictures: &[(Box<Record>, bool)]) -> Result<Embeddings> {
        let Some(kept) = self.features else { return self.encoder.encode_images(batch) };
        let features = self.encoder.encode_features(batch)?;
        let contents = pictures.iter().map(|(record, _)| record.content());
        kept.put(&self.encoder.features().fingerprint, contents.zip(features.rows()))?;
        self.encoder.head()?.project(features.as_slice())
    }
}

pub(super) struct Content {
    pub(super) file: File,
    pub(super) data: Vec<u8>,
    pub(super) _permit: Permit,
}

enum Prepared {
    Picture(Picture),
    Familiar(File, Hash),
    NoPicture(File),
}

fn hex(hash: &Hash) -> String {
    blake3::Hash::from(*hash).to_hex().to_string()
}

/// A small version of a picture, or the picture where that is small; none if it cannot be read.
fn small(data: &[u8], options: &DecodeOptions, admit: &dyn Fn(u64)) -> Option<Vec<u8>> {
    if data.len() <= SMALL_COPY {
        return Some(data.to_vec());
    }
    let photo = Photo::decode_for_thumbnail_within(data, options, COPY_SIDE, admit).ok()?;
    let made = photo.thumbnail(COPY_SIDE).to_jpeg(85).ok()?;
    Some(if made.len() < data.len() { made } else { data.to_vec() })
}

fn of_catalog(error: &Error) -> bool {
    matches!(error, Error::Catalog { .. } | Error::DamagedCatalog { .. } | Error::Index(_))
}

/// Whether people would take the file for a picture by its name.
fn claims_picture(path: &Path) -> bool {
    const EXTENSIONS: &[&str] = &[
        "jpg", "jpeg", "jpe", "jfif", "png", "apng", "webp", "gif", "tif", "tiff", "bmp", "ppm", "pgm", "pbm", "pnm",
        "pam", "qoi", "heic", "heif", "hif", "avif", "jxl", "jp2", "dng", "cr2", "cr3", "nef", "arw", "orf", "raf",
        "rw2", "pef", "srw",
    ];
    let extension = path.extension().and_then(|extension| extension.to_str()).map(str::to_ascii_lowercase);
    extension.is_some_and(|extension| EXTENSIONS.contains(&extension.as_str()))
}
