//! What to look for: weighted parts that add up to one vector, and a filter.
//!
//! A [`Query`] is read from text or built. Its vector is the sum of its parts, each the normalised vector of its term times
//! its weight; the sum is *not* normalised, so that the score of a photo, the dot product of the sum and the photo's
//! normalised vector, is the sum of the parts' scores. (The search normalises for the index and scales the scores back.)
//!
//! # Query text
//! ```text
//! a dog on the beach                           words
//! pool.jpg   ../pool.jpg   ~/my pool.jpg       a picture, if there is such a file
//! ./pool     /photos/pool.jpg   C:\pool.jpg    a picture, and an error if there is no such file
//! "pool.jpg"                                   words, whatever they look like
//! image:"a - b.jpg"                            a picture, whatever it looks like
//! like:Holidays/pool.jpg   like:#17            a photo of the library, by path or key; only its stored vector is used
//! a dog on the beach -leash                    - directly before a word or a quote takes just that away
//! golden retriever + ./pool.jpg - fruit bowl   + and - alone begin a new part
//! 2:"golden retriever" + .5:pool.jpg           N: weighs what follows
//! a dog after:2024-05 -camera:nikon            filters may stand anywhere; - directly before one negates it
//! ```
//! As a grammar, with white space between the items:
//! ```text
//! query  = { item }
//! item   = "+" | "-"                           the next part is added, subtracted
//!        | [ sign ] [ weight ] term            with a sign: a part of its own
//!        | [ "-" ] filter
//! sign   = "+" | "-" | "−"                     directly before the term
//! weight = number ":"                          2:  2.5:  .5:  2.:
//! term   = word | '"' text '"' | file | "image:" value | "like:" value
//! filter = key ":" value
//! value  = { characters | '"' text '"' }       path:Holidays/"My trip"/**
//! ```
//! - Bare words and quotes that follow each other are one part: `photo of a "red car"` looks for `photo of a red car`. A
//!   weight before a bare word weighs all words up to the next sign, before a quote only the quote. Filters and signed items
//!   between words do not part them.
//! - A part of bare words that is the name of an existing file (with an extension or a separator in it) is that picture;
//!   a name among other words is a word. A single name that ends as pictures do, without such a file, is an error rather
//!   than a search for its letters.
//! - In quotes, `\"` is a quote and `\\` a backslash. Quotes inside a word (`a 5" nail`) are characters.
//! - `N:` is a weight unless a digit follows (`10:30` is a time, `3:2` a ratio: words) or it stands alone within words
//!   (`chapter 2: the dog`). A hyphen inside a word, or before a digit or punctuation (`-5`, `->`), is a character.
//! - `word:` followed by white space is a word, unless it is a key.
//!
//! | filter | photos |
//! |---|---|
//! | `after:2024-05` `before:2025` | taken from the beginning of May 2024 on; before the beginning of 2025. Year, month, day or `2024-05-17T10:30`; the time of the file where the camera wrote none |
//! | `date:2024-05` `date:2023..2024` | taken in this period, or from the first to the end of the second |
//! | `camera:"iPhone 13"` `lens:50mm` | whose camera or lens has this in its name |
//! | `near:48.85,2.35~10km` | taken within 10 km (`m`, `km`, `mi`; without: 1 km) of this latitude and longitude |
//! | `path:Holidays/**` `path:IMG_*` | whose path fits, see [`Condition::Path`] |
//! | `in:~/Photos` | below this folder |
//! | `type:jpeg,png` | of one of these formats |
//! | `text:"red car"` `text:begin*` | whose caption or file name has these words, see [`Condition::Mentions`]; a query of nothing else is ranked by them |
//! | `where:"width > 1024 and NSFW = 'UNLIKELY'"` | for which this holds, over any column of metadata, see [`Expression`] |
//! | `width:2000..` `height:..1080` `size:1MB..5MB` | within this range, also as `>2000`, `>=2000`, `<2000`, `<=2000`, or exactly `2000` |
//!
//! All filters must hold. `camera:`, `lens:`, `type:`, `path:` and `in:` given again are alternatives.

mod display;
mod expression;
mod filter;
mod lex;
mod parse;
mod plan;
mod value;

use std::path::PathBuf;

pub use expression::{Column, Comparison, Expression, Operand, Value};
pub use filter::{Bounds, Condition, Filter, Predicate};
pub use parse::Parser;
pub(crate) use plan::{Plan, Stored, Target};
pub(crate) use value::edits;

use crate::catalog::Key;

/// One thing to look like.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Term {
    /// Words.
    Text(String),
    /// A picture file. If it is in the library, it is left out of the results.
    Image(PathBuf),
    /// The bytes of a picture file.
    ImageBytes(Vec<u8>),
    /// A vector of the library's space, of any length greater than zero.
    Vector(Vec<f32>),
    /// A photo of the library, by its key. It is left out of the results.
    Like(Key),
    /// A photo of the library, by its path or the end of its path; its stored vector is used, the file is not read. It is
    /// left out of the results.
    LikePath(PathBuf),
}

/// A term and its weight; negative weights push away.
#[derive(Clone, Debug, PartialEq)]
pub struct Part {
    /// Factor of the term's normalised vector.
    pub weight: f32,
    /// What to look like.
    pub term: Term,
}

/// A question to the library.
///
/// ```
/// use tintype::Query;
///
/// let built = Query::text("golden retriever").times(2.0).plus(Query::like(17)).minus(Query::text("fruit"));
/// let read: Query = r#"2:"golden retriever" + like:#17 - fruit"#.parse()?;
/// assert_eq!(built, read);
/// # Ok::<(), tintype::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Query {
    /// Weighted parts; none means every photo that the filter lets pass, newest first.
    pub parts: Vec<Part>,
    /// Which photos may answer.
    pub filter: Filter,
}

impl Query {
    /// Every photo, newest first.
    pub fn all() -> Self {
        Self::default()
    }

    /// Whether photos are ranked by the query; one that only filters lists them, newest first.
    pub fn ranks(&self) -> bool {
        let mentions = |condition: &Condition| matches!(condition, Condition::Mentions(_));
        !self.parts.is_empty() || self.filter.conditions().iter().any(mentions)
    }

    /// Words.
    pub fn text(words: impl Into<String>) -> Self {
        Term::Text(words.into()).into()
    }

    /// A picture file.
    pub fn image(path: impl Into<PathBuf>) -> Self {
        Term::Image(path.into()).into()
    }

    /// The bytes of a picture file.
    pub fn image_bytes(bytes: impl Into<Vec<u8>>) -> Self {
        Term::ImageBytes(bytes.into()).into()
    }

    /// A vector of the library's space.
    pub fn vector(vector: impl Into<Vec<f32>>) -> Self {
        Term::Vector(vector.into()).into()
    }

    /// A photo of the library, by its key.
    pub fn like(key: Key) -> Self {
        Term::Like(key).into()
    }

    /// A photo of the library, by its path.
    pub fn like_path(path: impl Into<PathBuf>) -> Self {
        Term::LikePath(path.into()).into()
    }

    /// All weights times `factor`.
    #[must_use]
    pub fn times(mut self, factor: f32) -> Self {
        for part in &mut self.parts {
            part.weight *= factor;
        }
        self
    }

    /// Also looks for the parts of `other`; the filters of both must hold.
    #[must_use]
    pub fn plus(mut self, other: Query) -> Self {
        self.parts.extend(other.parts);
        self.filter.extend(other.filter);
        self
    }

    /// Stays away from the parts of `other`; the filters of both must hold.
    #[must_use]
    pub fn minus(self, other: Query) -> Self {
        self.plus(other.times(-1.0))
    }

    /// Also demands `filter`.
    #[must_use]
    pub fn filter(mut self, filter: Filter) -> Self {
        self.filter.extend(filter);
        self
    }
}

impl From<Term> for Query {
    fn from(term: Term) -> Self {
        Query { parts: vec![Part { weight: 1.0, term }], filter: Filter::new() }
    }
}

impl From<Filter> for Query {
    fn from(filter: Filter) -> Self {
        Query { parts: Vec::new(), filter }
    }
}
