//! Query text to lexemes: words, quoted words, files, keyed values, each with its sign, weight and place.

use std::ops::Range;

use crate::{Error, Result};

/// One lexeme: what stands between two white spaces, quotes respected.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Lexeme {
    pub(super) span: Range<usize>,
    /// `+` or `-` alone or directly before the body; -1 or 1.
    pub(super) sign: Option<f32>,
    /// `N:` directly before the body.
    pub(super) weight: Option<f32>,
    pub(super) body: Body,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Body {
    /// Only a sign, or only a weight.
    Nothing,
    /// A bare word.
    Word(String),
    /// Words in quotes.
    Quoted(String),
    /// What is written like a file: `./x`, `../x`, `/x`, `~/x`, `C:\x`, `file://x`.
    File(String),
    /// `key:value`; `quoted` if the value begins with a quote.
    Keyed { key: Range<usize>, value: String, quoted: bool },
}

/// Reads lexemes one after the other.
pub(super) struct Lexer<'t> {
    pub(super) text: &'t str,
    pub(super) at: usize,
}

impl<'t> Lexer<'t> {
    /// The next lexeme. `fresh` says that a term begins here, where a weight may stand apart from what it weighs.
    pub(super) fn next(&mut self, fresh: bool) -> Result<Option<Lexeme>> {
        self.at += self.rest().len() - self.rest().trim_start().len();
        if self.rest().is_empty() {
            return Ok(None);
        }
        let start = self.at;
        let sign = self.sign();
        let weight = self.weight(fresh || sign.is_some())?;
        let body = self.body(start)?;
        Ok(Some(Lexeme { span: start..self.at, sign, weight, body }))
    }

    pub(super) fn rest(&self) -> &'t str {
        &self.text[self.at..]
    }

    /// A sign counts when it stands alone or directly before something that can be looked for: `-leash`, not `-5` or `->`.
    fn sign(&mut self) -> Option<f32> {
        let mut chars = self.rest().chars();
        let (first, after) = (chars.next()?, chars.as_str());
        let sign = match first {
            '+' => 1.0,
            '-' | '\u{2212}' => -1.0,
            _ => return None,
        };
        let alone = after.is_empty() || after.starts_with(char::is_whitespace);
        let attached =
            after.starts_with(|c: char| c.is_alphabetic() || c == '"') || is_path(after) || multiplier(after).is_some();
        (alone || attached).then(|| {
            self.at += first.len_utf8();
            sign
        })
    }

    fn weight(&mut self, fresh: bool) -> Result<Option<f32>> {
        let Some(number) = multiplier(self.rest()) else { return Ok(None) };
        let after = &self.rest()[number.len() + 1..];
        if after.is_empty() || after.starts_with(char::is_whitespace) {
            if !fresh {
                return Ok(None);
            }
        } else if after.starts_with(|c: char| c.is_ascii_punctuation() && c != '"') && !is_path(after) {
            return Ok(None);
        }
        let span = self.at..self.at + number.len();
        self.at = span.end + 1;
        match number.parse::<f32>() {
            Ok(weight) if weight.is_finite() => Ok(Some(weight)),
            _ => Err(bad(span, "this number is too large")),
        }
    }

    fn body(&mut self, start: usize) -> Result<Body> {
        let rest = self.rest();
        if rest.is_empty() || rest.starts_with(char::is_whitespace) {
            return Ok(Body::Nothing);
        }
        if rest.starts_with('"') {
            return Ok(Body::Quoted(self.quoted()?));
        }
        if is_path(rest) {
            return Ok(Body::File(self.joined()?));
        }
        if let Some(key) = key(rest) {
            let span = self.at..self.at + key.len();
            self.at = span.end + 1;
            if matches!(key, "http" | "https") && self.rest().starts_with("//") {
                let message = "pictures are not fetched from the web; save the picture and name the file";
                return Err(bad(start..self.word_end(), message));
            }
            let quoted = self.rest().starts_with('"');
            return Ok(Body::Keyed { key: span, value: self.joined()?, quoted });
        }
        let end = self.word_end();
        let word = &self.text[self.at..end];
        if word.strip_prefix("--").is_some_and(|name| name.starts_with(|c: char| c.is_ascii_alphabetic())) {
            return Err(bad(self.at..end, format!("{word} looks like an option; to look for it, put it in quotes")));
        }
        self.at = end;
        Ok(Body::Word(word.to_owned()))
    }

    pub(super) fn word_end(&self) -> usize {
        self.rest().find(char::is_whitespace).map_or(self.text.len(), |length| self.at + length)
    }

    /// What is between quotes; `\"` and `\\` stand for a quote and a backslash.
    fn quoted(&mut self) -> Result<String> {
        let start = self.at;
        let mut content = String::new();
        let mut chars = self.rest().char_indices().skip(1);
        while let Some((offset, c)) = chars.next() {
            match c {
                '"' => {
                    self.at = start + offset + 1;
                    return Ok(content);
                }
                '\\' => match chars.clone().next() {
                    Some((_, escaped @ ('"' | '\\'))) => {
                        content.push(escaped);
                        chars.next();
                    }
                    _ => content.push('\\'),
                },
                _ => content.push(c),
            }
        }
        Err(bad(start..self.text.len(), "this quote is not closed"))
    }

    /// Bare characters and quoted stretches up to the next white space: `Holidays/"My trip"/**`.
    fn joined(&mut self) -> Result<String> {
        let mut value = String::new();
        loop {
            let rest = self.rest();
            let stop = rest.find(|c: char| c == '"' || c.is_whitespace()).unwrap_or(rest.len());
            value.push_str(&rest[..stop]);
            self.at += stop;
            if !self.rest().starts_with('"') {
                return Ok(value);
            }
            value.push_str(&self.quoted()?);
        }
    }
}

/// An error at a place of the query.
pub(super) fn bad(span: Range<usize>, message: impl Into<String>) -> Error {
    Error::BadQuery { message: message.into(), span }
}

/// The number of `N:`, unless a digit follows the colon: 10:30 is a time, 3:2 a ratio.
fn multiplier(text: &str) -> Option<&str> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (number, after) = (&text[..end], text[end..].strip_prefix(':')?);
    let digits = number.bytes().filter(u8::is_ascii_digit).count();
    let good = digits > 0 && number.len() - digits <= 1 && !after.starts_with(|c: char| c.is_ascii_digit());
    good.then_some(number)
}

/// The key of `key:value`; a colon before a white space ends a word, as in "Paris: the river".
fn key(text: &str) -> Option<&str> {
    let (key, value) = text.split_once(':')?;
    let name = key.starts_with(|c: char| c.is_ascii_alphabetic())
        && key.bytes().all(|byte| byte.is_ascii_alphabetic() || matches!(byte, b'-' | b'_'));
    let apart = value.is_empty() || value.starts_with(char::is_whitespace);
    (name && (!apart || super::parse::is_key(key))).then_some(key)
}

/// Whether a word is written like the path of a file.
fn is_path(text: &str) -> bool {
    const STARTS: [&str; 7] = ["./", "../", "~/", ".\\", "..\\", "\\\\", "file://"];
    let bytes = text.as_bytes();
    let drive = matches!(bytes, [letter, b':', b'/' | b'\\', ..] if letter.is_ascii_alphabetic());
    let root = text
        .strip_prefix('/')
        .is_some_and(|name| !name.starts_with(|c: char| c.is_whitespace() || c == '/') && !name.is_empty());
    drive || root || STARTS.iter().any(|start| text.starts_with(start))
}
