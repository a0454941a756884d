//! The answer as a table, for people, or as tab-separated lines, for programs.

use std::io::{self, Write};

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::{Answer, file_url, short};
use crate::output::{Palette, printable};

/// Longest name of a camera that is shown whole.
const CAMERA: usize = 22;

/// Score, day, camera, path. Columns that would be empty are left out; the path is last, where its length does no harm.
pub(super) fn write(out: &mut impl Write, answer: &Answer, palette: Palette) -> io::Result<()> {
    let camera_width =
        answer.hits.iter().filter_map(|hit| hit.record.camera.as_deref()).map(|name| name.width().min(CAMERA)).max();
    let dated = answer.hits.iter().any(|hit| hit.record.taken.is_some());
    for hit in &answer.hits {
        if answer.scored {
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
        let path = printable(&short(&hit.path).display().to_string());
        if palette.is_on() {
            writeln!(out, "\x1b]8;;{}\x1b\\{}\x1b]8;;\x1b\\", file_url(&hit.path), palette.cyan(path))?;
        } else {
            writeln!(out, "{path}")?;
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
