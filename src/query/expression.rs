//! Conditions on columns, as people know them from SQL: `width > 1024 and NSFW = 'UNLIKELY'`.
//!
//! The text is read into a tree of names and values; the catalog turns the tree into SQL of its own with bound values. Handing
//! the text to SQLite would be shorter, but a query may come from the network, and SQL can do more than select rows.
//!
//! ```text
//! condition  = any { "or" any }              any = all { "and" all }            all = [ "not" ] test
//! test       = "(" condition ")"
//!            | operand comparison operand
//!            | name [ "not" ] "in" "(" value { "," value } ")"
//!            | name [ "not" ] "like" text | name [ "not" ] "between" value "and" value
//!            | name "is" [ "not" ] "null"
//! operand    = name | value                  comparison = "=" "==" "!=" "<>" "<" "<=" ">" ">="
//! name       = word | "[" text "]" | "`" text "`"
//! value      = number | "'" text "'" | "true" | "false"
//! ```
//! `and` binds tighter than `or`. A test of a column that a photo has no value for fails, and so does its negation by `!=`, as
//! in SQL; `not` of it holds. `like` knows `%` and `_` and ignores the case of ASCII letters.

use std::fmt::{self, Display, Formatter};
use std::ops::Range;

use super::lex::bad;
use crate::{Error, Result};

/// Deepest nesting of parentheses and negations.
const DEPTH: usize = 50;

/// Most words and signs; SQLite takes expressions up to a depth of 1000.
const TOKENS: usize = 3000;

/// A condition on the columns of a photo.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Expression {
    /// One of these holds.
    Any(Vec<Expression>),
    /// All of these hold.
    All(Vec<Expression>),
    /// It does not hold.
    Not(Box<Expression>),
    /// Two things compare so.
    Compare(Operand, Comparison, Operand),
    /// The column has one of these values.
    In(Column, Vec<Value>),
    /// The column's text fits a pattern.
    Like(Column, String),
    /// The column lies between the values, both included.
    Between(Column, Value, Value),
    /// The column has no value.
    IsNull(Column),
}

/// One side of a comparison.
#[derive(Clone, Debug, PartialEq)]
pub enum Operand {
    /// What the photo has.
    Column(Column),
    /// What the query says.
    Value(Value),
}

/// A column's name, and where it stands in the query text.
#[derive(Clone, Debug)]
pub struct Column {
    /// As written.
    pub name: String,
    /// Bytes of the query text; empty where it was not read from one.
    pub span: Range<usize>,
}

/// Two columns are the same wherever they stand.
impl PartialEq for Column {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

/// What a column is compared with.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A whole number; `true` and `false` are 1 and 0.
    Integer(i64),
    /// Any other number.
    Real(f64),
    /// A text.
    Text(String),
}

/// How two operands compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Comparison {
    /// As SQL writes it.
    pub fn sign(self) -> &'static str {
        match self {
            Comparison::Equal => "=",
            Comparison::NotEqual => "!=",
            Comparison::Less => "<",
            Comparison::LessOrEqual => "<=",
            Comparison::Greater => ">",
            Comparison::GreaterOrEqual => ">=",
        }
    }
}

impl Expression {
    /// Reads a condition. `span` is its place in the query text, `exact` whether it stands there byte for byte.
    pub(super) fn parse(text: &str, span: &Range<usize>, exact: bool) -> Result<Expression> {
        let mut reading = Reading { tokens: tokens(text, span, exact)?, at: 0, end: span.end..span.end, depth: 0 };
        if reading.tokens.is_empty() {
            return Err(bad(span.clone(), "a condition looks like where:\"width > 1024 and NSFW = 'UNLIKELY'\""));
        }
        let expression = reading.any()?;
        match reading.peek() {
            None if reading.tokens.len() > TOKENS => Err(bad(span.clone(), "this condition is too long")),
            None => Ok(expression),
            Some(_) => Err(reading.wrong("and, or, or the end")),
        }
    }
}

impl std::str::FromStr for Expression {
    type Err = Error;

    fn from_str(text: &str) -> Result<Expression> {
        Expression::parse(text, &(0..text.len()), true)
    }
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    /// A bare word: a name or a keyword.
    Word(String),
    /// A name in brackets or backquotes.
    Name(String),
    Value(Value),
    Compare(Comparison),
    Open,
    Close,
    Comma,
}

fn tokens(text: &str, span: &Range<usize>, exact: bool) -> Result<Vec<(Token, Range<usize>)>> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(first) = text[at..].chars().next() {
        if first.is_whitespace() {
            at += first.len_utf8();
            continue;
        }
        let start = at;
        let place = |from: usize, to: usize| if exact { span.start + from..span.start + to } else { span.clone() };
        let rest = &text[at..];
        let token = match first {
            '(' => (Token::Open, 1),
            ')' => (Token::Close, 1),
            ',' => (Token::Comma, 1),
            '\'' => {
                let (content, length) =
                    quoted(rest, '\'').ok_or_else(|| bad(place(start, text.len()), "this quote is not closed"))?;
                (Token::Value(Value::Text(content)), length)
            }
            '[' | '`' => {
                let close = if first == '[' { ']' } else { '`' };
                let length = rest[1..].find(close).map(|at| at + 2);
                let length = length.ok_or_else(|| bad(place(start, text.len()), "this name is not closed"))?;
                (Token::Name(rest[1..length - 1].to_owned()), length)
            }
            '=' | '!' | '<' | '>' => {
                let (comparison, length) = match rest.as_bytes() {
                    [b'=', b'=', ..] => (Comparison::Equal, 2),
                    [b'=', ..] => (Comparison::Equal, 1),
                    [b'!', b'=', ..] | [b'<', b'>', ..] => (Comparison::NotEqual, 2),
                    [b'<', b'=', ..] => (Comparison::LessOrEqual, 2),
                    [b'<', ..] => (Comparison::Less, 1),
                    [b'>', b'=', ..] => (Comparison::GreaterOrEqual, 2),
                    [b'>', ..] => (Comparison::Greater, 1),
                    _ => return Err(bad(place(start, start + 1), "! is no comparison; there are = != < <= > >=")),
                };
                (Token::Compare(comparison), length)
            }
            c if c.is_ascii_digit() || (matches!(c, '-' | '+' | '.') && is_number(&rest[1..])) => {
                let length = number_length(rest);
                let value = number(&rest[..length]).ok_or_else(|| {
                    bad(place(start, start + length), "this is no number; texts stand in single quotes")
                })?;
                (Token::Value(value), length)
            }
            c if c.is_alphabetic() || c == '_' => {
                let part = |c: char| c.is_alphanumeric() || matches!(c, '_' | '.' | '-' | ':');
                let length = rest.find(|c| !part(c)).unwrap_or(rest.len());
                (Token::Word(rest[..length].to_owned()), length)
            }
            c => {
                let message =
                    format!("{c} has no meaning here; texts stand in 'single quotes', odd names in [brackets]");
                return Err(bad(place(start, start + c.len_utf8()), message));
            }
        };
        at += token.1;
        found.push((token.0, place(start, at)));
    }
    Ok(found)
}

/// The content up to the closing quote, which is doubled inside, and how many bytes that took.
fn quoted(text: &str, quote: char) -> Option<(String, usize)> {
    let mut content = String::new();
    let mut chars = text.char_indices().skip(1).peekable();
    while let Some((at, c)) = chars.next() {
        if c != quote {
            content.push(c);
        } else if chars.next_if(|(_, next)| *next == quote).is_some() {
            content.push(quote);
        } else {
            return Some((content, at + 1));
        }
    }
    None
}

fn is_number(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_digit() || c == '.')
}

fn number_length(text: &str) -> usize {
    let bytes = text.as_bytes();
    let sign = |at: usize| at == 0 || matches!(bytes[at - 1], b'e' | b'E');
    (0..bytes.len())
        .find(|&at| match bytes[at] {
            b'+' | b'-' => !sign(at),
            byte => !(byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_')),
        })
        .unwrap_or(bytes.len())
}

fn number(text: &str) -> Option<Value> {
    let plain = text.strip_prefix('+').unwrap_or(text);
    if let Ok(whole) = plain.parse() {
        return Some(Value::Integer(whole));
    }
    plain.parse().ok().filter(|number: &f64| number.is_finite()).map(Value::Real)
}

struct Reading {
    tokens: Vec<(Token, Range<usize>)>,
    at: usize,
    end: Range<usize>,
    depth: usize,
}

impl Reading {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at).map(|(token, _)| token)
    }

    fn place(&self) -> Range<usize> {
        self.tokens.get(self.at).map_or(self.end.clone(), |(_, place)| place.clone())
    }

    fn wrong(&self, expected: &str) -> Error {
        let end = self.tokens.last().map_or(self.end.clone(), |(_, place)| place.clone());
        match self.peek() {
            Some(_) => bad(self.place(), format!("expected here: {expected}")),
            None => bad(end, format!("expected after this: {expected}")),
        }
    }

    /// Takes a keyword, in any case.
    fn keyword(&mut self, word: &str) -> bool {
        let there = matches!(self.peek(), Some(Token::Word(found)) if found.eq_ignore_ascii_case(word));
        self.at += usize::from(there);
        there
    }

    fn token(&mut self, token: &Token) -> bool {
        let there = self.peek() == Some(token);
        self.at += usize::from(there);
        there
    }

    fn any(&mut self) -> Result<Expression> {
        self.joined("or", Self::all, Expression::Any)
    }

    fn all(&mut self) -> Result<Expression> {
        self.joined("and", Self::one, Expression::All)
    }

    fn joined(
        &mut self,
        word: &str,
        part: impl Fn(&mut Self) -> Result<Expression>,
        join: impl Fn(Vec<Expression>) -> Expression,
    ) -> Result<Expression> {
        let first = part(self)?;
        let mut parts = vec![first];
        while self.keyword(word) {
            parts.push(part(self)?);
        }
        Ok(if parts.len() == 1 { parts.remove(0) } else { join(parts) })
    }

    fn one(&mut self) -> Result<Expression> {
        self.depth += 1;
        if self.depth > DEPTH {
            return Err(bad(self.place(), format!("nested more than {DEPTH} deep")));
        }
        let read = if self.keyword("not") {
            Expression::Not(Box::new(self.one()?))
        } else if self.token(&Token::Open) {
            let inner = self.any()?;
            if !self.token(&Token::Close) {
                return Err(self.wrong(")"));
            }
            inner
        } else {
            self.test()?
        };
        self.depth -= 1;
        Ok(read)
    }

    fn test(&mut self) -> Result<Expression> {
        let left = self.operand()?;
        if let Some(Token::Compare(comparison)) = self.peek() {
            let comparison = *comparison;
            self.at += 1;
            return Ok(Expression::Compare(left, comparison, self.operand()?));
        }
        let Operand::Column(column) = left else { return Err(self.wrong("a comparison: = != < <= > >=")) };
        if self.keyword("is") {
            let negated = self.keyword("not");
            return match self.keyword("null") {
                true => Ok(negate(Expression::IsNull(column), negated)),
                false => Err(self.wrong("null")),
            };
        }
        let negated = self.keyword("not");
        let test = if self.keyword("in") {
            Expression::In(column, self.list()?)
        } else if self.keyword("like") {
            match self.value()? {
                Value::Text(pattern) => Expression::Like(column, pattern),
                _ => return Err(bad(self.tokens[self.at - 1].1.clone(), "a pattern stands in 'single quotes'")),
            }
        } else if self.keyword("between") {
            let low = self.value()?;
            if !self.keyword("and") {
                return Err(self.wrong("and"));
            }
            Expression::Between(column, low, self.value()?)
        } else {
            return Err(self.wrong("= != < <= > >= in, like, between or is null"));
        };
        Ok(negate(test, negated))
    }

    fn operand(&mut self) -> Result<Operand> {
        let span = self.place();
        let name = match self.peek() {
            Some(Token::Name(name)) => name.clone(),
            Some(Token::Word(word)) if !is_reserved(word) && !is_truth(word) => word.clone(),
            _ => return self.value().map(Operand::Value),
        };
        self.at += 1;
        Ok(Operand::Column(Column { name, span }))
    }

    fn value(&mut self) -> Result<Value> {
        let value = match self.peek() {
            Some(Token::Value(value)) => value.clone(),
            Some(Token::Word(word)) if is_truth(word) => Value::Integer(word.eq_ignore_ascii_case("true").into()),
            Some(Token::Word(word)) if !is_reserved(word) => {
                return Err(bad(self.place(), format!("a text stands in single quotes: '{word}'")));
            }
            _ => return Err(self.wrong("a column or a value")),
        };
        self.at += 1;
        Ok(value)
    }

    fn list(&mut self) -> Result<Vec<Value>> {
        if !self.token(&Token::Open) {
            return Err(self.wrong("("));
        }
        let mut values = vec![self.value()?];
        while self.token(&Token::Comma) {
            values.push(self.value()?);
        }
        if self.token(&Token::Close) { Ok(values) } else { Err(self.wrong(", or )")) }
    }
}

fn negate(expression: Expression, negated: bool) -> Expression {
    if negated { Expression::Not(Box::new(expression)) } else { expression }
}

fn is_reserved(word: &str) -> bool {
    ["and", "or", "not", "in", "like", "between", "is", "null"].iter().any(|other| word.eq_ignore_ascii_case(other))
}

fn is_truth(word: &str) -> bool {
    word.eq_ignore_ascii_case("true") || word.eq_ignore_ascii_case("false")
}

impl Display for Expression {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let joined = |f: &mut Formatter<'_>, parts: &[Expression], word: &str| {
            f.write_str("(")?;
            for (at, part) in parts.iter().enumerate() {
                write!(f, "{}{part}", if at > 0 { word } else { "" })?;
            }
            f.write_str(")")
        };
        match self {
            Expression::Any(parts) => joined(f, parts, " or "),
            Expression::All(parts) => joined(f, parts, " and "),
            Expression::Not(inner) => write!(f, "not ({inner})"),
            Expression::Compare(left, comparison, right) => write!(f, "{left} {} {right}", comparison.sign()),
            Expression::In(column, values) => {
                write!(f, "{column} in (")?;
                for (at, value) in values.iter().enumerate() {
                    write!(f, "{}{value}", if at > 0 { ", " } else { "" })?;
                }
                f.write_str(")")
            }
            Expression::Like(column, pattern) => write!(f, "{column} like {}", Value::Text(pattern.clone())),
            Expression::Between(column, low, high) => write!(f, "{column} between {low} and {high}"),
            Expression::IsNull(column) => write!(f, "{column} is null"),
        }
    }
}

impl Display for Operand {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Operand::Column(column) => column.fmt(f),
            Operand::Value(value) => value.fmt(f),
        }
    }
}

impl Display for Column {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if self.name.contains(']') { write!(f, "`{}`", self.name) } else { write!(f, "[{}]", self.name) }
    }
}

impl Display for Value {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Value::Integer(number) => write!(f, "{number}"),
            Value::Real(number) => write!(f, "{number:?}"),
            Value::Text(text) => write!(f, "'{}'", text.replace('\'', "''")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> String {
        text.parse::<Expression>().unwrap().to_string()
    }

    #[test]
    fn conditions_are_read_with_their_precedence() {
        assert_eq!(read("width > 1024 and NSFW = 'UNLIKELY'"), "([width] > 1024 and [NSFW] = 'UNLIKELY')");
        assert_eq!(read("a=1 or b==2 AND not c<>-3.5"), "([a] = 1 or ([b] = 2 and not ([c] != -3.5)))");
        assert_eq!(
            read("(a=1 or b=2) and `odd ] name` is not null"),
            "(([a] = 1 or [b] = 2) and not (`odd ] name` is null))"
        );
        assert_eq!(read("x not in ('it''s', true, 1e3)"), "not ([x] in ('it''s', 1, 1000.0))");
        assert_eq!(
            read("exif.model like 'Canon%' and y between 1 and 2"),
            "([exif.model] like 'Canon%' and [y] between 1 and 2)"
        );
        assert_eq!(read("width>=height"), "[width] >= [height]");
    }

    #[test]
    fn mistakes_are_pointed_at() {
        for (text, place, message) in [
            ("width >", 6..7, "a column or a value"),
            ("width > 1 width", 10..15, "and, or, or the end"),
            ("NSFW = UNLIKELY and", 16..19, "a column or a value"),
            ("a in (x)", 6..7, "single quotes: 'x'"),
            ("a = 'b", 4..6, "not closed"),
            ("a = 12px", 4..8, "no number"),
            ("a; drop table photo", 1..2, "no meaning"),
            ("(a = 1", 5..6, ")"),
        ] {
            match text.parse::<Expression>() {
                Err(Error::BadQuery { message: found, span }) => {
                    assert!(span == place && found.contains(message), "{text}: {found} {span:?}");
                }
                other => panic!("{text}: {other:?}"),
            }
        }
        assert!(format!("{}a = 1{}", "(".repeat(60), ")".repeat(60)).parse::<Expression>().is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused_and_reads_back(text in "[a-c0-9 '()=<>!,.\\[\\]`é-]{0,40}|(a|b|1|'x'| and | or | not | in | is | null | like | between |=|<|\\(|\\)|,){0,12}") {
            if let Ok(expression) = text.parse::<Expression>() {
                prop_assert_eq!(expression.to_string().parse::<Expression>().unwrap(), expression);
            }
        }
    }
}
