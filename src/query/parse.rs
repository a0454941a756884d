//! Query text to [`Query`].
//!
//! The parser is a pure function of the text and of one question to the outside, "is there such a file?", so that it can be
//! tried with any text and any set of files. The grammar is in the documentation of [the module above](super).

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::lex::{Body, Lexeme, Lexer, bad};
use super::{Condition, Expression, Filter, Part, Query, Term, value};
use crate::{Error, Result};

/// Reads query text.
///
/// ```
/// use tintype::query::Parser;
///
/// let query = Parser::new().parse("a dog on the beach -leash after:2024")?;
/// assert_eq!(query.to_string(), r#""a dog on the beach" - "leash" after:2024-01-01T00:00:00"#);
/// # Ok::<(), tintype::Error>(())
/// ```
pub struct Parser<'a> {
    home: Option<PathBuf>,
    is_file: Box<dyn Fn(&Path) -> bool + 'a>,
}

impl Parser<'static> {
    /// A parser that asks the file system which words name files. It does not know what `~` means.
    pub fn new() -> Self {
        Parser { home: None, is_file: Box::new(Path::is_file) }
    }
}

impl Default for Parser<'static> {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Parser<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parser").field("home", &self.home).finish_non_exhaustive()
    }
}

impl<'a> Parser<'a> {
    /// What `~/` stands for.
    #[must_use]
    pub fn home(mut self, directory: impl Into<PathBuf>) -> Self {
        self.home = Some(directory.into());
        self
    }

    /// Asks `is_file` instead of the file system.
    #[must_use]
    pub fn files<'b>(self, is_file: impl Fn(&Path) -> bool + 'b) -> Parser<'b> {
        Parser { home: self.home, is_file: Box::new(is_file) }
    }

    /// Reads a query.
    ///
    /// # Errors
    /// [`Error::BadQuery`], with the place in `text`.
    pub fn parse(&self, text: &str) -> Result<Query> {
        let mut reading =
            Reading { parser: self, lexer: Lexer { text, at: 0 }, query: Query::default(), run: Run::default() };
        while let Some(lexeme) = reading.lexer.next(reading.run.is_fresh())? {
            reading.take(lexeme)?;
        }
        reading.finish_run()?;
        Ok(reading.query)
    }

    fn path(&self, written: &str, span: Range<usize>) -> Result<PathBuf> {
        if let Some(url) = written.strip_prefix("file://") {
            return Ok(value::percent_decoded(url).into());
        }
        match (written.strip_prefix("~/"), &self.home) {
            (None, _) => Ok(written.into()),
            (Some(below), Some(home)) => Ok(home.join(below)),
            (Some(_), None) => Err(bad(span, "it is not known here what ~ stands for; write the whole path")),
        }
    }
}

impl FromStr for Query {
    type Err = Error;

    fn from_str(text: &str) -> Result<Query> {
        Parser::new().parse(text)
    }
}

impl TryFrom<&str> for Query {
    type Error = Error;

    fn try_from(text: &str) -> Result<Query> {
        text.parse()
    }
}

impl TryFrom<String> for Query {
    type Error = Error;

    fn try_from(text: String) -> Result<Query> {
        text.parse()
    }
}

/// Bare words that belong together, and what stands before them.
#[derive(Debug, Default)]
struct Run {
    operator: Option<(f32, Range<usize>)>,
    weight: Option<(f32, Range<usize>)>,
    words: Vec<String>,
    /// Where it stands among the parts: terms within it come after it.
    position: usize,
    /// Place of the words; `solid` while nothing else stands between them and nothing is quoted.
    span: Option<Range<usize>>,
    solid: bool,
}

impl Run {
    fn is_fresh(&self) -> bool {
        self.words.is_empty() && self.weight.is_none()
    }

    fn factor(&self) -> f32 {
        self.operator.as_ref().map_or(1.0, |(sign, _)| *sign) * self.weight.as_ref().map_or(1.0, |(weight, _)| *weight)
    }
}

struct Reading<'p, 't> {
    parser: &'p Parser<'p>,
    lexer: Lexer<'t>,
    query: Query,
    run: Run,
}

impl Reading<'_, '_> {
    fn take(&mut self, lexeme: Lexeme) -> Result<()> {
        let Lexeme { span, sign, weight, body } = lexeme;
        let term = match body {
            Body::Nothing => return self.operator(sign, weight, span),
            Body::Word(word) if sign.is_none() => return self.word(word, weight, span),
            Body::Quoted(words) if sign.is_none() && weight.is_none() => {
                self.run.solid = false;
                return self.push(words, span);
            }
            Body::Word(words) | Body::Quoted(words) => self.text(words, &span)?,
            Body::File(written) => self.file(&written, span.clone())?,
            Body::Keyed { key, value, quoted } => match self.keyed(key, value, quoted, sign, weight, &span)? {
                Some(term) => term,
                None => return Ok(()),
            },
        };
        // With a sign of its own, or in the midst of words, a term leaves the words around it alone.
        let own = weight.unwrap_or(1.0);
        let weight = if let Some(sign) = sign {
            sign * own
        } else if self.run.words.is_empty() {
            std::mem::take(&mut self.run).factor() * own
        } else {
            self.run.solid = false;
            own
        };
        self.query.parts.push(Part { weight, term });
        Ok(())
    }

    /// A sign or a weight that stands apart.
    fn operator(&mut self, sign: Option<f32>, weight: Option<f32>, span: Range<usize>) -> Result<()> {
        if let Some(weight) = weight {
            if sign.is_some() {
                return Err(bad(span, "nothing follows here; write what is to be weighed directly after the colon"));
            }
            self.run.weight = Some((weight, span));
        } else if let Some(sign) = sign {
            self.finish_run()?;
            self.run.operator = Some((sign, span));
        }
        Ok(())
    }

    fn word(&mut self, word: String, weight: Option<f32>, span: Range<usize>) -> Result<()> {
        if let Some(weight) = weight {
            if !self.run.is_fresh() {
                self.finish_run()?;
            }
            self.run.weight = Some((weight, span.clone()));
        }
        let from = span.end - word.len();
        self.run.solid |= self.run.words.is_empty();
        self.push(word, from..span.end)
    }

    fn push(&mut self, words: String, span: Range<usize>) -> Result<()> {
        let words = self.checked(words, &span)?;
        if self.run.words.is_empty() {
            self.run.position = self.query.parts.len();
        }
        let start = self.run.span.as_ref().map_or(span.start, |before| before.start);
        self.run.span = Some(start..span.end);
        self.run.words.push(words);
        Ok(())
    }

    fn text(&self, words: String, span: &Range<usize>) -> Result<Term> {
        self.checked(words, span).map(Term::Text)
    }

    fn checked(&self, words: String, span: &Range<usize>) -> Result<String> {
        if words.trim().is_empty() {
            Err(bad(span.clone(), "there are no words between the quotes"))
        } else {
            Ok(words)
        }
    }

    /// Bare words end here: they are words, or the name of a file.
    fn finish_run(&mut self) -> Result<()> {
        let run = std::mem::take(&mut self.run);
        let factor = run.factor();
        let Some(span) = run.span else {
            return match run.weight.or(run.operator) {
                Some((_, span)) => {
                    let written = &self.lexer.text[span.clone()];
                    Err(bad(span, format!("nothing follows the {written}; to look for it, put it in quotes")))
                }
                None => Ok(()),
            };
        };
        let term = if run.solid { self.bare_file(&span)? } else { None };
        let term = term.unwrap_or_else(|| Term::Text(run.words.join(" ")));
        self.query.parts.insert(run.position, Part { weight: factor, term });
        Ok(())
    }

    /// The picture that bare words name, if they look like a file name and there is such a file.
    fn bare_file(&self, span: &Range<usize>) -> Result<Option<Term>> {
        let written = &self.lexer.text[span.clone()];
        if !value::looks_like_file(written) {
            return Ok(None);
        }
        let path = PathBuf::from(written);
        if (self.parser.is_file)(&path) {
            return Ok(Some(Term::Image(path)));
        }
        if !written.contains(char::is_whitespace) && value::looks_like_picture(written) {
            let message =
                format!("there is no file {written} here; path:{written} finds photos of that name, quotes the words");
            return Err(bad(span.clone(), message));
        }
        Ok(None)
    }

    /// A word written like a file. When there is none, the words after it may be the rest of its name.
    fn file(&mut self, written: &str, span: Range<usize>) -> Result<Term> {
        let path = self.parser.path(written, span.clone())?;
        if (self.parser.is_file)(&path) {
            return Ok(Term::Image(path));
        }
        let text = self.lexer.text;
        let start = span.end.saturating_sub(written.len());
        if text.get(start..span.end) == Some(written) {
            let ends =
                text[span.end..].char_indices().filter(|(_, c)| c.is_whitespace()).map(|(offset, _)| span.end + offset);
            for end in ends.chain([text.len()]).filter(|end| *end > span.end) {
                let path = self.parser.path(&text[start..end], span.clone())?;
                if (self.parser.is_file)(&path) {
                    self.lexer.at = end;
                    return Ok(Term::Image(path));
                }
            }
        }
        Err(bad(span, format!("there is no file {}; quotes would make it words", path.display())))
    }

    /// `key:value`: a term of its own, or a filter.
    fn keyed(
        &mut self,
        key: Range<usize>,
        value: String,
        quoted: bool,
        sign: Option<f32>,
        weight: Option<f32>,
        span: &Range<usize>,
    ) -> Result<Option<Term>> {
        let name = self.lexer.text[key.clone()].to_ascii_lowercase();
        let place = key.end + 1..span.end;
        if !is_key(&name) {
            return Err(bad(key, unknown(&name, &self.lexer.text[span.clone()])));
        }
        if value.trim().is_empty() {
            return Err(bad(
                key,
                format!("{name}: needs its value directly after the colon; to look for the word, put it in quotes"),
            ));
        }
        match name.as_str() {
            "image" => {
                let path = if quoted { value.into() } else { self.parser.path(&value, place.clone())? };
                return match (self.parser.is_file)(&path) {
                    true => Ok(Some(Term::Image(path))),
                    false => Err(bad(place, format!("there is no file {}", path.display()))),
                };
            }
            "like" => {
                return match value.strip_prefix('#').filter(|_| !quoted).map(str::parse) {
                    Some(Ok(key)) => Ok(Some(Term::Like(key))),
                    Some(Err(_)) => Err(bad(place, "like:# needs the number of a photo")),
                    None if quoted => Ok(Some(Term::LikePath(value.into()))),
                    None => Ok(Some(Term::LikePath(self.parser.path(&value, place)?))),
                };
            }
            _ => {}
        }
        if weight.is_some() {
            return Err(bad(span.clone(), "a filter has no weight"));
        }
        if sign.is_none() && self.run.operator.is_some() && self.run.words.is_empty() {
            return Err(bad(span.clone(), "a filter cannot be added or subtracted; a - directly before it negates it"));
        }
        self.run.solid = false;
        let negated = sign == Some(-1.0);
        let conditions = match name.as_str() {
            "where" => {
                let inner = if quoted { place.start + 1..place.end.saturating_sub(1) } else { place };
                let exact = self.lexer.text.get(inner.clone()) == Some(&value);
                vec![Condition::Where(Expression::parse(&value, &inner, exact)?)]
            }
            "in" => vec![Condition::Under(vec![self.folder(&value, quoted, place)?])],
            _ => value::conditions(&name, &value, negated, place)?,
        };
        for condition in conditions {
            add(&mut self.query.filter, condition, negated);
        }
        Ok(None)
    }

    fn folder(&self, value: &str, quoted: bool, span: Range<usize>) -> Result<PathBuf> {
        let path = if quoted { value.into() } else { self.parser.path(value, span.clone())? };
        std::path::absolute(&path).map_err(|_| bad(span, format!("{} cannot be made an absolute path", path.display())))
    }
}

/// Adds a condition; names under the same key are alternatives.
fn add(filter: &mut Filter, condition: Condition, negated: bool) {
    for present in filter.conditions_mut() {
        let present = match (present, negated) {
            (Condition::Not(inner), true) => inner.as_mut(),
            (Condition::Not(_), false) | (_, true) => continue,
            (plain, false) => plain,
        };
        match (present, &condition) {
            (Condition::Camera(names), Condition::Camera(more))
            | (Condition::Lens(names), Condition::Lens(more))
            | (Condition::Path(names), Condition::Path(more))
            | (Condition::Format(names), Condition::Format(more)) => return names.extend_from_slice(more),
            (Condition::Under(paths), Condition::Under(more)) => return paths.extend_from_slice(more),
            _ => {}
        }
    }
    let condition = if negated { Condition::Not(Box::new(condition)) } else { condition };
    filter.extend([condition]);
}

const KEYS: [&str; 16] = [
    "after", "before", "camera", "date", "height", "image", "in", "lens", "like", "near", "path", "size", "text",
    "type", "where", "width",
];

/// What people may write instead.
const SYNONYMS: [(&str, &str); 18] = [
    ("caption", "text"),
    ("words", "text"),
    ("filter", "where"),
    ("having", "where"),
    ("since", "after"),
    ("from", "after"),
    ("until", "before"),
    ("to", "before"),
    ("taken", "date"),
    ("year", "date"),
    ("format", "type"),
    ("ext", "type"),
    ("folder", "in"),
    ("dir", "in"),
    ("file", "path"),
    ("name", "path"),
    ("place", "near"),
    ("similar", "like"),
];

/// Whether `name:` is a key of the language, in any case.
pub(super) fn is_key(name: &str) -> bool {
    KEYS.iter().any(|key| key.eq_ignore_ascii_case(name))
}

fn unknown(name: &str, written: &str) -> String {
    let synonym = SYNONYMS.iter().find(|(other, _)| *other == name).map(|(_, key)| *key);
    let nearest = KEYS.iter().map(|key| (value::edits(name, key), *key)).min();
    let near = nearest.filter(|(edits, key)| *edits <= 2 && *edits < key.len().min(name.len())).map(|(_, key)| key);
    match synonym.or(near) {
        Some(key) => format!("there is no {name}: filter; did you mean {key}:?"),
        None => format!(
            "there is no {name}: filter; there are {}. To look for the words, put {written} in quotes",
            KEYS.map(|key| format!("{key}:")).join(" ")
        ),
    }
}
