//! HTML entities in the two ways that the clean-up needs.
//!
//! Python's `html.unescape` follows the standard for names, but drops numbers of characters that no text should hold; ftfy
//! takes whole entities only, and knows upper-cased names. The table of names is `htmlize`'s.

use std::borrow::Cow;

use super::clean::windows_1252;

/// Python's `html.unescape`.
pub(super) fn unescape(text: &str) -> Cow<'_, str> {
    if !text.contains('&') {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find('&') {
        out.push_str(&rest[..start]);
        rest = &rest[start..];
        let len = reference(rest);
        if len == 0 {
            out.push('&');
            rest = &rest[1..];
        } else if rest[1..].starts_with('#') {
            out.extend(number(&rest[2..len]));
            rest = &rest[len..];
        } else {
            out.push_str(&htmlize::unescape(&rest[..len]));
            rest = &rest[len..];
        }
    }
    out.push_str(rest);
    Cow::Owned(out)
}

/// ftfy's `unescape_html`: entities that end with their semicolon and mean exactly one thing.
pub(super) fn unescape_whole(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find('&') {
        out.push_str(&rest[..start]);
        rest = &rest[start..];
        match whole(rest) {
            Some((len, value)) => {
                out.push_str(&value);
                rest = &rest[len..];
            }
            None => {
                out.push('&');
                rest = &rest[1..];
            }
        }
    }
    out.push_str(rest);
    out
}

/// Length of the character reference that `text` starts with, as Python's pattern finds it; 0 if there is none.
fn reference(text: &str) -> usize {
    let with_semicolon = |len: usize| len + usize::from(text[len..].starts_with(';'));
    let body = &text[1..];
    if let Some(digits) = body.strip_prefix('#') {
        let (skip, hexadecimal) = if digits.starts_with(['x', 'X']) { (1, true) } else { (0, false) };
        let digit = |c: char| if hexadecimal { c.is_ascii_hexdigit() } else { c.is_ascii_digit() };
        let len = digits[skip..].chars().take_while(|&c| digit(c)).count();
        return if len == 0 { 0 } else { with_semicolon(2 + skip + len) };
    }
    let name = |c: &char| !matches!(c, '\t' | '\n' | '\u{c}' | ' ' | '<' | '&' | '#' | ';');
    let len: usize = body.chars().take(32).take_while(name).map(char::len_utf8).sum();
    if len == 0 { 0 } else { with_semicolon(1 + len) }
}

/// The character of a numeric reference, `65;` or `x41;`, if it is one that a text may hold.
fn number(digits: &str) -> Option<char> {
    let digits = digits.trim_end_matches(';');
    let value = match digits.strip_prefix(['x', 'X']) {
        Some(digits) => u32::from_str_radix(digits, 16),
        None => digits.parse(),
    };
    match value.unwrap_or(u32::MAX) {
        0 => Some('\u{fffd}'),
        0x0d => Some('\r'),
        value @ 0x80..=0x9f => char::from_u32(value).map(windows_1252),
        0x1..=0x8 | 0xb | 0xe..=0x1f | 0x7f | 0xfdd0..=0xfdef => None,
        value => match char::from_u32(value) {
            Some(_) if value & 0xfffe == 0xfffe => None,
            Some(c) => Some(c),
            None => Some('\u{fffd}'),
        },
    }
}

/// The entity at the start of `text`, if ftfy would take it: its length and its value.
fn whole(text: &str) -> Option<(usize, String)> {
    let body = &text[1..];
    let digits = usize::from(body.starts_with('#'));
    let len = body[digits..].bytes().take_while(u8::is_ascii_alphanumeric).count();
    if !(1..=24).contains(&len) || !body[digits + len..].starts_with(';') {
        return None;
    }
    let entity = &text[..1 + digits + len + 1];
    let value = if digits == 1 {
        let value = unescape(entity).into_owned();
        if value.contains(';') { return None } else { value }
    } else {
        named(entity).or_else(|| {
            // Upper-cased names, where the upper case is no entity itself.
            let lower = entity.to_lowercase();
            let shouted = entity == entity.to_uppercase() && unescape(entity) == entity;
            shouted.then(|| named(&lower)).flatten().map(|value| value.to_uppercase())
        })?
    };
    Some((entity.len(), value))
}

/// The value of `&name;` if all of it is a name: `&notit;` is none, though a browser would read `¬it;`.
fn named(entity: &str) -> Option<String> {
    let value = htmlize::unescape(entity);
    let partly = value.ends_with(';') && value.chars().count() > 1;
    (value != entity && !partly).then(|| value.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_read_as_python_reads_them() {
        for (text, expected) in [
            ("&lt;&gt;&amp;", "<>&"),
            ("&#65;&#x42;&#67 &#x44", "AB\u{43} D"),
            ("&#0;&#128;&#1;&#xfffe;&#xD800;&#99999999999;", "\u{fffd}€\u{fffd}\u{fffd}"),
            ("&notit; &notin; &not", "¬it; ∉ ¬"),
            ("&unknown; & &; &#; &#x;", "&unknown; & &; &#; &#x;"),
            ("&semi;&NotEqualTilde;", ";≂̸"),
        ] {
            assert_eq!(unescape(text), expected, "{text}");
        }
    }

    #[test]
    fn whole_entities_need_their_semicolon() {
        for (text, expected) in [
            ("&lt;tag&gt;", "<tag>"),
            ("&ntilde; &Ntilde; &NTILDE; &nTILDE;", "ñ Ñ Ñ &nTILDE;"),
            ("BUNDESSTRA&SZLIG;E", "BUNDESSTRASSE"),
            ("&notit; &lt &#65 &#65; &#x1;", "&notit; &lt &#65 A "),
        ] {
            assert_eq!(unescape_whole(text), expected, "{text}");
        }
    }
}
