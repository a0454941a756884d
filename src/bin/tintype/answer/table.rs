//! The answer as a table, for people, or as tab-separated lines, for programs.

use std::io::{self, Write};

use tintype::Hit;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::{Answer, file_url, short};
use crate::output::{Palette, printable};

/// Longest name of a camera that is shown whole.
const CAMERA: usize = 22;

/// Longest caption that is shown whole.
const CAPTION: usize = 72;

/// Score, day, camera, path and the caption's beginning. Columns that would be empty are left out; the path is last, where its length does no harm.
pub(super) fn write(out: &mut impl Write, hits: &[Hit], scored: bool, palette: Palette) -> io::Result<()> {
    let camera_width =
        hits.iter().filter_map(|hit| hit.record.camera.as_deref()).map(|name| name.width().min(CAMERA)).max();
    let dated = hits.iter().any(|hit| hit.record.taken.is_some());
    for hit in hits {
        if scored {
            write!(out, "{}  ", palette.bold(format_args!("{:>6.3}", hit.score)))?;
        }
        if dated {
            let day = hit.record.taken.map(|time| time.date().to_string()).unwrap_or_default();
            write!(out, "{}  ", palette.dim(format_args!("{day:<10}")))?;
        }
        if let Some(width) = camera_width {
            let name = fitted(&printable(hit.record.camera.as_deref().unwrap_or_default()), width);
            write!(out, "{}  ", palette.dim(name))?;
        }
        let place = hit.record.place_of_picture();
        let path = printable(&short(place).display().to_string());
        if palette.is_on() {
            write!(out, "\x1b]8;;{}\x1b\\{}\x1b]8;;\x1b\\", file_url(place), palette.cyan(path))?;
        } else {
            write!(out, "{path}")?;
        }
        match hit.record.caption.as_deref().and_then(|caption| caption.lines().next()) {
            Some(caption) => writeln!(out, "  {}", palette.dim(fitted(&printable(caption), CAPTION).trim_end()))?,
            None => writeln!(out)?,
        }
    }
    Ok(())
}

/// Score, path, time and camera, each followed by a tab or the end of the line; control characters in them are escaped.
pub(super) fn write_fields(out: &mut impl Write, answer: &Answer) -> io::Result<()> {
    for hit in &answer.hits {
        if answer.scored {
            write!(out, "{:.4}", hit.score)?;
        }
        let time = hit.record.taken.map(|time| time.to_string()).unwrap_or_default();
        let camera = printable(hit.record.camera.as_deref().unwrap_or_default());
        writeln!(out, "\t{}\t{time}\t{camera}", printable(&hit.path.display().to_string()))?;
    }
    Ok(())
}

/// Exactly `width` columns: padded, or cut with an ellipsis.
fn fitted(text: &str, width: usize) -> String {
    let mut fitted = String::new();
    if text.width() <= width {
        fitted.push_str(text);
    } else {
        let mut room = width.saturating_sub(1);
        for c in text.chars() {
            let columns = c.width().unwrap_or(0);
            if columns > room {
                break;
            }
            room -= columns;
            fitted.push(c);
        }
        fitted.push('…');
    }
    let padding = width.saturating_sub(fitted.width());
    fitted.extend(std::iter::repeat_n(' ', padding));
    fitted
}

#[cfg(test)]
mod tests {
    use super::fitted;

    #[test]
    fn names_fill_their_column_exactly() {
        assert_eq!(fitted("Canon", 8), "Canon   ");
        assert_eq!(fitted("Canon EOS 5D", 8), "Canon E…");
        assert_eq!(fitted("写真機写真機", 6), "写真… ");
    }
}
