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

mod reading;
mod token;

use std::fmt::{self, Display, Formatter};
use std::ops::Range;

use reading::Reading;
use token::tokens;

use crate::{Error, Result};

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
        Reading::whole(tokens(text, span, exact)?, span)
    }
}

impl std::str::FromStr for Expression {
    type Err = Error;

    fn from_str(text: &str) -> Result<Expression> {
        Expression::parse(text, &(0..text.len()), true)
    }
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
