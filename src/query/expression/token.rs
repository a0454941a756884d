//! Words and signs of a condition.

use std::ops::Range;

use super::{Comparison, Value};
use crate::Result;
use crate::query::lex::bad;

/// One of them.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token {
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

/// The words and signs of a text, each with its place in the query text; `exact` says whether that is known byte for byte.
pub(super) fn tokens(text: &str, span: &Range<usize>, exact: bool) -> Result<Vec<(Token, Range<usize>)>> {
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
