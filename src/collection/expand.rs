//! `{000..123}` and `*` in the names of collections, for shells that do not expand them and for names in configurations.

use std::path::{Path, PathBuf};

use globset::GlobBuilder;

use crate::{Error, Result};

/// Most names that braces may stand for.
const MOST: usize = 1_000_000;

/// The paths that a name with braces or wildcards stands for, in the order of the braces, and by name where there are wildcards.
/// A path that is there is itself, whatever characters it has.
///
/// `{000..123}` counts with its leading zeros, `{a,b}` lists; `*`, `?`, `[…]` and `**` match names that are there.
///
/// # Errors
/// [`Error::BadPattern`] if nothing fits a pattern, a pattern cannot be read, or braces stand for more than a million names.
pub fn expand(path: &Path) -> Result<Vec<PathBuf>> {
    let Some(text) = path.to_str().filter(|text| text.contains(['{', '*', '?', '[']) && !path.exists()) else {
        return Ok(vec![path.to_path_buf()]);
    };
    let bad = |source: Box<dyn std::error::Error + Send + Sync>| Error::BadPattern { pattern: text.to_owned(), source };
    let mut paths = Vec::new();
    for name in braces(text).ok_or_else(|| bad("these braces stand for too many names".into()))? {
        if name.contains(['*', '?', '[']) && !Path::new(&name).exists() {
            let found = glob(&name).map_err(|error| bad(error.into()))?;
            if found.is_empty() {
                return Err(Error::NoRoot { path: name.into() });
            }
            paths.extend(found);
        } else {
            paths.push(PathBuf::from(name));
        }
    }
    Ok(paths)
}

/// Every text that braces stand for; none if there are too many.
fn braces(text: &str) -> Option<Vec<String>> {
    let mut done = vec![String::new()];
    let mut rest = text;
    loop {
        let group = rest.find('{').and_then(|open| Some((open, open + matching(&rest[open..])?)));
        let Some((open, close)) = group else {
            done.iter_mut().for_each(|text| text.push_str(rest));
            return Some(done);
        };
        let inner = &rest[open + 1..close];
        let choices = match range(inner) {
            Some(range) => range?,
            None => {
                let parts = split(inner);
                // Braces around one thing are characters, as shells have it.
                if parts.len() < 2 {
                    vec![format!("{{{inner}}}")]
                } else {
                    let mut choices = Vec::new();
                    for part in parts {
                        choices.extend(braces(part)?);
                    }
                    choices
                }
            }
        };
        if done.len().checked_mul(choices.len())? > MOST {
            return None;
        }
        let before = &rest[..open];
        done =
            done.iter().flat_map(|text| choices.iter().map(move |choice| format!("{text}{before}{choice}"))).collect();
        rest = &rest[close + 1..];
    }
}

/// Where the brace at the beginning is closed.
fn matching(text: &str) -> Option<usize> {
    let mut depth = 0;
    text.char_indices().find_map(|(at, c)| {
        depth += match c {
            '{' => 1,
            '}' => -1,
            _ => 0,
        };
        (depth == 0).then_some(at)
    })
}

/// `000..123` as its numbers; the inner none for too many.
fn range(text: &str) -> Option<Option<Vec<String>>> {
    let (first, last) = text.split_once("..")?;
    let (from, to): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
    let width = if first.starts_with('0') || last.starts_with('0') { first.len().max(last.len()) } else { 0 };
    let name = |number: u64| format!("{number:0width$}");
    if from.abs_diff(to) >= MOST as u64 {
        return Some(None);
    }
    Some(Some(if from <= to { (from..=to).map(name).collect() } else { (to..=from).rev().map(name).collect() }))
}

/// The parts between commas that are not inside further braces.
fn split(text: &str) -> Vec<&str> {
    let (mut parts, mut depth, mut start) = (Vec::new(), 0, 0);
    for (at, c) in text.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

/// Names that fit a pattern, sorted.
fn glob(pattern: &str) -> Result<Vec<PathBuf>, globset::Error> {
    let matcher = GlobBuilder::new(pattern).literal_separator(true).build()?.compile_matcher();
    // The walk begins at the last folder before the first wildcard, and goes as deep as the pattern does.
    let fixed = pattern[..pattern.find(['*', '?', '[']).unwrap_or(0)].rfind('/').map_or("", |end| &pattern[..=end]);
    let depth = pattern[fixed.len()..].split('/').count();
    let depth = if pattern.contains("**") { usize::MAX } else { depth };
    let root = if fixed.is_empty() { Path::new(".") } else { Path::new(fixed) };
    let mut builder = ignore::WalkBuilder::new(root);
    builder.standard_filters(false).max_depth(Some(depth)).sort_by_file_name(std::cmp::Ord::cmp);
    let found = builder.build().flatten().filter(|entry| entry.depth() > 0).map(ignore::DirEntry::into_path);
    let plain = |path: PathBuf| path.strip_prefix(".").map(Path::to_path_buf).unwrap_or(path);
    let mut found: Vec<PathBuf> = found
        .map(|path| if fixed.is_empty() { plain(path) } else { path })
        .filter(|path| matcher.is_match(path))
        .collect();
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Vec<String> {
        braces(text).unwrap()
    }

    #[test]
    fn braces_count_and_list() {
        assert_eq!(names("a{008..011}.tar"), ["a008.tar", "a009.tar", "a010.tar", "a011.tar"]);
        assert_eq!(names("{3..1}"), ["3", "2", "1"]);
        assert_eq!(names("x/{a,b{1..2}}-{c,d}"), ["x/a-c", "x/a-d", "x/b1-c", "x/b1-d", "x/b2-c", "x/b2-d"]);
        assert_eq!(names("{one}{"), ["{one}{"]);
        assert!(braces("{0..99999999999}").is_none());
        assert!(braces("{0..9999}{0..9999}").is_none());
    }

    #[test]
    fn wildcards_fit_what_is_there() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["b.tar", "a.tar", "c.txt", "{x}.tar"] {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        let at = |name: &str| expand(&dir.path().join(name));
        let path = |name: &str| dir.path().join(name);
        assert_eq!(at("[ab].tar").unwrap(), [path("a.tar"), path("b.tar")]);
        assert_eq!(at("{x}.tar").unwrap(), [path("{x}.tar")], "a file that is there is itself");
        assert_eq!(at("{b,a}.t*").unwrap(), [path("b.tar"), path("a.tar")]);
        assert!(matches!(at("z*.tar"), Err(Error::NoRoot { .. })));
        assert_eq!(at("{1..2}.tar").unwrap().len(), 2, "missing files are for the reader to report");
    }
}
