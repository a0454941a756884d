//! Which photos may answer: a conjunction of conditions.
//!
//! A list of conditions rather than a record with a field per key: two filters join by appending, a condition negates by
//! wrapping, and whoever evaluates one (a database, [`Predicate`]) folds over it. [`Predicate`] is the definition of what the
//! conditions mean; every faster evaluation must agree with it.

use std::path::{Path, PathBuf};

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use super::Expression;
use crate::catalog::{Place, Record};
use crate::{Error, Result};

/// Conditions that must all hold; without any, every photo passes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Filter {
    conditions: Vec<Condition>,
}

/// One condition on a photo.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Condition {
    /// Taken at or after; the time of the file where the camera did not say.
    After(DateTime),
    /// Taken before; the time of the file where the camera did not say.
    Before(DateTime),
    /// The camera's name contains one of these, whatever the case.
    Camera(Vec<String>),
    /// The lens's name contains one of these, whatever the case.
    Lens(Vec<String>),
    /// Taken within so many kilometres of a place; photos without a place fail.
    Near {
        /// Centre.
        place: Place,
        /// Radius.
        kilometres: f64,
    },
    /// One of these patterns fits the path. A pattern may begin at any folder, unless it is absolute, and a pattern that fits
    /// a folder fits all that lies below it; `*` stays within a name, `**` does not; case does not matter.
    Path(Vec<String>),
    /// Below one of these directories, or one of these files. Absolute paths.
    Under(Vec<PathBuf>),
    /// One of these formats, in the lower-case names of the catalog: `jpeg`.
    Format(Vec<String>),
    /// Width in pixels, after orientation.
    Width(Bounds),
    /// Height in pixels, after orientation.
    Height(Bounds),
    /// Size of the file in bytes.
    Size(Bounds),
    /// A condition on any column, those of a collection's metadata included.
    Where(Expression),
    /// The caption or the file name has these words: all of them, in any order; `"in quotes"` as they stand, `begin*` for all
    /// words that begin so. Words are compared without case, accents and English endings.
    Mentions(String),
    /// The condition does not hold.
    Not(Box<Condition>),
}

/// A range of numbers, both ends included; an open end is unbounded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bounds {
    /// Smallest.
    pub min: Option<u64>,
    /// Largest.
    pub max: Option<u64>,
}

impl Bounds {
    /// Whether `value` lies within.
    pub fn contains(&self, value: u64) -> bool {
        self.min.is_none_or(|min| min <= value) && self.max.is_none_or(|max| value <= max)
    }
}

impl Filter {
    /// A filter that lets every photo pass.
    pub fn new() -> Self {
        Self::default()
    }

    /// Also demands `condition`.
    #[must_use]
    pub fn and(mut self, condition: Condition) -> Self {
        self.conditions.push(condition);
        self
    }

    /// Demands that `condition` does not hold.
    #[must_use]
    pub fn and_not(self, condition: Condition) -> Self {
        self.and(Condition::Not(Box::new(condition)))
    }

    /// The conditions.
    pub fn conditions(&self) -> &[Condition] {
        &self.conditions
    }

    pub(super) fn conditions_mut(&mut self) -> &mut [Condition] {
        &mut self.conditions
    }

    /// Whether every photo passes.
    pub fn is_empty(&self) -> bool {
        self.conditions.is_empty()
    }

    /// The filter made ready to look at records: patterns compiled, file times read in time zone `zone`.
    ///
    /// # Errors
    /// [`Error::BadQuery`] for a path pattern that cannot be compiled, and for [`Condition::Where`] and [`Condition::Mentions`],
    /// which ask for more than a record holds: only the library can answer them.
    pub fn predicate(&self, zone: TimeZone) -> Result<Predicate> {
        let tests = self.conditions.iter().map(Test::new).collect::<Result<_>>()?;
        Ok(Predicate { tests, zone })
    }
}

impl IntoIterator for Filter {
    type Item = Condition;
    type IntoIter = std::vec::IntoIter<Condition>;

    fn into_iter(self) -> Self::IntoIter {
        self.conditions.into_iter()
    }
}

impl Extend<Condition> for Filter {
    fn extend<I: IntoIterator<Item = Condition>>(&mut self, conditions: I) {
        self.conditions.extend(conditions);
    }
}

impl FromIterator<Condition> for Filter {
    fn from_iter<I: IntoIterator<Item = Condition>>(conditions: I) -> Self {
        Self { conditions: conditions.into_iter().collect() }
    }
}

/// A filter ready to look at records.
#[derive(Clone, Debug)]
pub struct Predicate {
    tests: Vec<Test>,
    zone: TimeZone,
}

impl Predicate {
    /// Whether the photo passes.
    pub fn matches(&self, record: &Record) -> bool {
        self.tests.iter().all(|test| test.holds(record, &self.zone))
    }
}

#[derive(Clone, Debug)]
enum Test {
    After(DateTime),
    Before(DateTime),
    Camera(Vec<String>),
    Lens(Vec<String>),
    Near(Place, f64),
    Path(GlobSet),
    Under(Vec<PathBuf>),
    Format(Vec<String>),
    Width(Bounds),
    Height(Bounds),
    Size(Bounds),
    Not(Box<Test>),
}

impl Test {
    fn new(condition: &Condition) -> Result<Test> {
        let lower = |names: &[String]| names.iter().map(|name| name.to_lowercase()).collect();
        Ok(match condition {
            Condition::After(time) => Test::After(*time),
            Condition::Before(time) => Test::Before(*time),
            Condition::Camera(names) => Test::Camera(lower(names)),
            Condition::Lens(names) => Test::Lens(lower(names)),
            Condition::Near { place, kilometres } => Test::Near(*place, *kilometres),
            Condition::Path(patterns) => Test::Path(globs(patterns)?),
            Condition::Under(paths) => Test::Under(paths.clone()),
            Condition::Format(names) => Test::Format(lower(names)),
            Condition::Width(bounds) => Test::Width(*bounds),
            Condition::Height(bounds) => Test::Height(*bounds),
            Condition::Size(bounds) => Test::Size(*bounds),
            Condition::Where(_) | Condition::Mentions(_) => {
                let message = "where: and text: are answered by a library, not by a record alone".to_owned();
                return Err(Error::BadQuery { message, span: 0..0 });
            }
            Condition::Not(inner) => Test::Not(Box::new(Test::new(inner)?)),
        })
    }

    fn holds(&self, record: &Record, zone: &TimeZone) -> bool {
        match self {
            Test::After(time) => taken(record, zone) >= *time,
            Test::Before(time) => taken(record, zone) < *time,
            Test::Camera(names) => names_one(names, record.camera.as_deref()),
            Test::Lens(names) => names_one(names, record.lens.as_deref()),
            Test::Near(centre, kilometres) => record.place.is_some_and(|place| distance(*centre, place) <= *kilometres),
            Test::Path(patterns) => patterns.is_match(record.place_of_picture()),
            Test::Under(paths) => paths.iter().any(|path| record.path.starts_with(path)),
            Test::Format(names) => names.contains(&record.format),
            Test::Width(bounds) => bounds.contains(record.width.into()),
            Test::Height(bounds) => bounds.contains(record.height.into()),
            Test::Size(bounds) => bounds.contains(record.size),
            Test::Not(inner) => !inner.holds(record, zone),
        }
    }
}

fn names_one(wanted: &[String], name: Option<&str>) -> bool {
    name.is_some_and(|name| {
        let name = name.to_lowercase();
        wanted.iter().any(|part| name.contains(part))
    })
}

/// When a photo was taken: what the camera wrote, else the time of the file in `zone`.
pub(crate) fn taken(record: &Record, zone: &TimeZone) -> DateTime {
    record.taken.unwrap_or_else(|| {
        let file = jiff::Timestamp::from_nanosecond(record.mtime.into()).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
        zone.to_datetime(file)
    })
}

/// Great-circle distance in kilometres (haversine, mean Earth radius 6371.0088 km).
pub(crate) fn distance(a: Place, b: Place) -> f64 {
    let (north, east) = ((b.latitude - a.latitude).to_radians(), (b.longitude - a.longitude).to_radians());
    let half = (north / 2.0).sin().powi(2)
        + a.latitude.to_radians().cos() * b.latitude.to_radians().cos() * (east / 2.0).sin().powi(2);
    2.0 * 6371.0088 * half.sqrt().min(1.0).asin()
}

/// Each pattern as two: what it fits, and all that lies below.
fn globs(patterns: &[String]) -> Result<GlobSet> {
    let mut set = GlobSetBuilder::new();
    for pattern in patterns {
        let trimmed = pattern.strip_suffix('/').unwrap_or(pattern);
        let anchored = Path::new(trimmed).is_absolute() || trimmed.starts_with("**/");
        let whole = if anchored { trimmed.to_owned() } else { format!("**/{trimmed}") };
        for text in [format!("{whole}/**"), whole] {
            set.add(
                GlobBuilder::new(&text).literal_separator(true).case_insensitive(true).build().map_err(bad_pattern)?,
            );
        }
    }
    set.build().map_err(bad_pattern)
}

fn bad_pattern(error: globset::Error) -> Error {
    let pattern = error.glob().unwrap_or_default();
    Error::BadQuery { message: format!("the path pattern {pattern} cannot be read: {}", error.kind()), span: 0..0 }
}
