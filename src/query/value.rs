//! The values of filters: dates, places, ranges, formats.

use std::ops::Range;

use jiff::civil::DateTime;
use jiff::{Span, ToSpan};

use super::lex::bad;
use super::{Bounds, Condition};
use crate::Result;
use crate::catalog::Place;

/// The formats of the catalog, each with what people write.
const FORMATS: [(&str, &[&str]); 8] = [
    ("jpeg", &["jpg", "jpe"]),
    ("png", &["apng"]),
    ("webp", &[]),
    ("gif", &[]),
    ("tiff", &["tif"]),
    ("bmp", &["dib"]),
    ("pnm", &["ppm", "pgm", "pbm", "pam"]),
    ("qoi", &[]),
];

/// The conditions of `name:value`, not yet negated. `span` is the place of the value.
pub(super) fn conditions(name: &str, value: &str, negated: bool, span: Range<usize>) -> Result<Vec<Condition>> {
    let one = match name {
        "after" => Condition::After(period(value, &span)?.start),
        "before" => Condition::Before(period(value, &span)?.start),
        "date" if negated => return Err(bad(span, "date: cannot be negated; use before: and after:")),
        "date" => {
            let (first, last) = value.split_once("..").unwrap_or((value, value));
            let (first, last) = (period(first, &span)?.start, period(last, &span)?.end);
            return Ok(vec![Condition::After(first), Condition::Before(last)]);
        }
        "camera" => Condition::Camera(vec![value.to_owned()]),
        "lens" => Condition::Lens(vec![value.to_owned()]),
        "path" => Condition::Path(vec![pattern(value, &span)?]),
        "text" if value.chars().any(char::is_alphanumeric) => Condition::Mentions(value.to_owned()),
        "text" => return Err(bad(span, "text: needs at least one word")),
        "near" => near(value, &span)?,
        "type" => Condition::Format(value.split(',').map(|name| format(name, &span)).collect::<Result<_>>()?),
        "width" => Condition::Width(bounds(value, pixels, &span)?),
        "height" => Condition::Height(bounds(value, pixels, &span)?),
        "size" => Condition::Size(bounds(value, bytes, &span)?),
        _ => return Err(bad(span, format!("there is no {name}: filter"))),
    };
    Ok(vec![one])
}

fn pattern(value: &str, span: &Range<usize>) -> Result<String> {
    globset::Glob::new(value)
        .map_err(|error| bad(span.clone(), format!("this path pattern cannot be read: {}", error.kind())))?;
    Ok(value.to_owned())
}

/// The time that a year, a month, a day or a moment covers; the end is not part of it.
fn period(text: &str, span: &Range<usize>) -> Result<Range<DateTime>> {
    read_period(text)
        .ok_or_else(|| bad(span.clone(), "a date looks like 2024, 2024-05, 2024-05-17 or 2024-05-17T10:30"))
}

fn read_period(text: &str) -> Option<Range<DateTime>> {
    let numbers: Vec<&str> = text.split('-').collect();
    let digits = |text: &str, count: usize| text.len() == count && text.bytes().all(|byte| byte.is_ascii_digit());
    let (start, length): (DateTime, Span) = match numbers.as_slice() {
        [year] if digits(year, 4) => (format!("{year}-01-01T00:00").parse().ok()?, 1.year()),
        [year, month] if digits(year, 4) && digits(month, 2) => (format!("{text}-01T00:00").parse().ok()?, 1.month()),
        [year, month, day] if digits(year, 4) && digits(month, 2) && digits(day, 2) => {
            (format!("{text}T00:00").parse().ok()?, 1.day())
        }
        _ => {
            let (_, time) = text.split_once(['T', 't', ' '])?;
            // Anything after the time (a zone, say) would be read by the date library and then be ignored.
            let plain = time.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b':' | b'.'));
            let length = if time.contains('.') {
                1.nanosecond()
            } else if time.len() > 5 {
                1.second()
            } else {
                1.minute()
            };
            (plain.then(|| text.parse().ok())??, length)
        }
    };
    Some(start..start.checked_add(length).unwrap_or(DateTime::MAX))
}

/// `latitude,longitude~distance`.
fn near(text: &str, span: &Range<usize>) -> Result<Condition> {
    let read = || {
        let (place, distance) = text.split_once('~').unwrap_or((text, "1km"));
        let (latitude, longitude) = place.split_once(',')?;
        let place = Place { latitude: latitude.trim().parse().ok()?, longitude: longitude.trim().parse().ok()? };
        let split = distance.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(distance.len());
        let unit = match &distance[split..] {
            "km" | "" => 1.0,
            "m" => 0.001,
            "mi" => 1.609_344,
            _ => return None,
        };
        Some(Condition::Near { place, kilometres: distance[..split].trim().parse::<f64>().ok()? * unit })
    };
    match read() {
        Some(near @ Condition::Near { place, kilometres })
            if place.latitude.abs() <= 90.0
                && place.longitude.abs() <= 180.0
                && kilometres >= 0.0
                && kilometres.is_finite() =>
        {
            Ok(near)
        }
        _ => Err(bad(
            span.clone(),
            "a place looks like 48.85,2.35~10km: latitude (-90 to 90), longitude (-180 to 180), distance in m, km or mi",
        )),
    }
}

fn format(name: &str, span: &Range<usize>) -> Result<String> {
    let lower = name.trim().to_ascii_lowercase();
    let known = FORMATS.iter().find(|(format, others)| *format == lower || others.contains(&lower.as_str()));
    known.map(|(format, _)| (*format).to_owned()).ok_or_else(|| {
        let all = FORMATS.map(|(format, _)| format).join(", ");
        bad(span.clone(), format!("{name} is no format of the library; there are {all}"))
    })
}

/// `2000`, `2000..`, `..2000`, `1000..2000`, `>2000`, `>=2000`, `<2000`, `<=2000`.
fn bounds(text: &str, number: impl Fn(&str) -> Option<u64>, span: &Range<usize>) -> Result<Bounds> {
    let end = |text: &str| if text.is_empty() { Some(None) } else { number(text).map(Some) };
    let read = || {
        let bounds = if let Some((min, max)) = text.split_once("..") {
            Bounds { min: end(min)?, max: end(max)? }
        } else if let Some(min) = text.strip_prefix(">=") {
            Bounds { min: Some(number(min)?), max: None }
        } else if let Some(max) = text.strip_prefix("<=") {
            Bounds { min: None, max: Some(number(max)?) }
        } else if let Some(min) = text.strip_prefix('>') {
            Bounds { min: Some(number(min)?.checked_add(1)?), max: None }
        } else if let Some(max) = text.strip_prefix('<') {
            Bounds { min: None, max: Some(number(max)?.checked_sub(1)?) }
        } else {
            let exact = number(text)?;
            Bounds { min: Some(exact), max: Some(exact) }
        };
        let possible = match (bounds.min, bounds.max) {
            (None, None) => false,
            (Some(min), Some(max)) => min <= max,
            _ => true,
        };
        possible.then_some(bounds)
    };
    read().ok_or_else(|| bad(span.clone(), "a range looks like 2000.. (at least), ..2000 (at most) or 1000..2000"))
}

fn pixels(text: &str) -> Option<u64> {
    text.strip_suffix("px").unwrap_or(text).parse().ok()
}

/// A number of bytes: `300000`, `300kB`, `1.5MB`, `2GiB`.
fn bytes(text: &str) -> Option<u64> {
    let split = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let unit: u64 = match text[split..].to_ascii_lowercase().as_str() {
        "" | "b" => return text[..split].parse().ok(),
        "k" | "kb" => 1_000,
        "m" | "mb" => 1_000_000,
        "g" | "gb" => 1_000_000_000,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        _ => return None,
    };
    let number: f64 = text[..split].parse().ok()?;
    // `as` saturates; a negative number must not become zero.
    (number >= 0.0).then_some((number * unit as f64).round() as u64)
}

/// Whether bare words could be meant as a file: a separator, or an extension at the end.
pub(super) fn looks_like_file(written: &str) -> bool {
    let extension = || {
        written.rsplit_once('.').is_some_and(|(stem, extension)| {
            !stem.is_empty()
                && (1..=5).contains(&extension.len())
                && extension.bytes().all(|byte| byte.is_ascii_alphanumeric())
        })
    };
    written.contains(['/', '\\']) || extension()
}

/// Whether a name ends as pictures do.
pub(super) fn looks_like_picture(written: &str) -> bool {
    let extension = written.rsplit_once('.').map(|(_, extension)| extension.to_ascii_lowercase());
    extension.is_some_and(|extension| {
        FORMATS.iter().any(|(format, others)| *format == extension || others.contains(&extension.as_str()))
            || matches!(extension.as_str(), "heic" | "heif" | "avif")
    })
}

/// `%20` and the like of a `file://` address.
pub(super) fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let pair = after.get(..2).filter(|pair| *first == b'%' && pair.iter().all(u8::is_ascii_hexdigit));
        let pair = pair.and_then(|pair| std::str::from_utf8(pair).ok());
        match pair.and_then(|pair| u8::from_str_radix(pair, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8(bytes).unwrap_or_else(|_| text.to_owned())
}

/// Edits that turn one word into the other: insert, delete, replace, swap neighbours.
pub(crate) fn edits(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            rows[i][j] = if i == 0 || j == 0 {
                i + j
            } else {
                let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
                let mut best = replaced.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
                if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                    best = best.min(rows[i - 2][j - 2] + 1);
                }
                best
            };
        }
    }
    rows[a.len()][b.len()]
}
