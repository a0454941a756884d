//! Paths in the database, without loss.
//!
//! A path that is valid Unicode is stored as text, so that people and SQL can read it; any other as the system's own bytes in
//! a blob. Text never equals a blob in SQLite, so each path has exactly one form. Storing everything as text would merge
//! different files; everything as blobs would make the file unreadable for people.

use std::path::{Component, MAIN_SEPARATOR, Path, PathBuf};

use rusqlite::types::{Value, ValueRef};

/// The stored form of a path.
pub(super) fn to_sql(path: &Path) -> Value {
    match path.to_str() {
        Some(text) => Value::Text(text.to_owned()),
        None => Value::Blob(bytes(path)),
    }
}

/// The path of a stored form.
pub(super) fn from_sql(value: ValueRef<'_>) -> Option<PathBuf> {
    match value {
        ValueRef::Text(text) => Some(PathBuf::from(std::str::from_utf8(text).ok()?)),
        ValueRef::Blob(bytes) => from_bytes(bytes),
        _ => None,
    }
}

/// Condition for a row to be `dir` itself or below it, and its values.
///
/// Ranges, so that the index on `path` answers: what begins with a prefix lies between it and its successor.
pub(super) fn below(dir: &Path) -> (&'static str, Vec<Value>) {
    // Without a trailing separator, as `Path` compares them. The two slashes of an address are no empty folder.
    let dir: PathBuf = if is_address(dir) { dir.to_path_buf() } else { dir.components().collect() };
    let dir = dir.as_path();
    let mut inside = dir.as_os_str().to_owned();
    if !dir.as_os_str().as_encoded_bytes().ends_with(&[MAIN_SEPARATOR as u8]) {
        inside.push(std::path::MAIN_SEPARATOR_STR);
    }
    let inside = PathBuf::from(inside);
    let blob = bytes(&inside);
    let blobs = [Value::Blob(blob.clone()), Value::Blob(successor(blob))];
    match inside.to_str() {
        Some(text) => {
            let mut end = text.to_owned();
            end.pop();
            end.push(char::from(MAIN_SEPARATOR as u8 + 1));
            let mut values = vec![to_sql(dir), Value::Text(text.to_owned()), Value::Text(end)];
            values.extend(blobs);
            ("(path = ? OR (path >= ? AND path < ?) OR (path >= ? AND path < ?))", values)
        }
        None => {
            let [from, to] = blobs;
            ("(path = ? OR (path >= ? AND path < ?))", vec![to_sql(dir), from, to])
        }
    }
}

/// As [`below`] for photos, those included that came from the file `dir`, which may be a shard or a list.
pub(super) fn photos_below(dir: &Path) -> (String, Vec<Value>) {
    let (clause, mut values) = below(dir);
    values.push(to_sql(dir));
    (format!("({clause} OR source IN (SELECT id FROM source WHERE path = ?))"), values)
}

/// As [`below`] for files that were skipped, members of the shard `dir` included. That a folder called `dir!` is met too does no
/// harm: what is forgotten here is looked at again.
pub(super) fn skipped_below(dir: &Path) -> (String, Vec<Value>) {
    let (clause, mut values) = below(dir);
    let members = |mark: char| Value::Text(format!("{}{mark}", dir.display()));
    values.extend([members('!'), members('$')]);
    (format!("({clause} OR (path >= ? AND path < ?))"), values)
}

/// The smallest byte string above all that begin with `prefix`, which ends in a separator and so never in 255.
fn successor(mut prefix: Vec<u8>) -> Vec<u8> {
    if let Some(last) = prefix.last_mut() {
        *last += 1;
    }
    prefix
}

#[cfg(unix)]
fn bytes(path: &Path) -> Vec<u8> {
    use std::os::unix::ffi::OsStrExt;
    path.as_os_str().as_bytes().to_vec()
}

#[cfg(unix)]
fn from_bytes(bytes: &[u8]) -> Option<PathBuf> {
    use std::os::unix::ffi::OsStrExt;
    Some(PathBuf::from(std::ffi::OsStr::from_bytes(bytes)))
}

#[cfg(windows)]
fn bytes(path: &Path) -> Vec<u8> {
    use std::os::windows::ffi::OsStrExt;
    path.as_os_str().encode_wide().flat_map(u16::to_le_bytes).collect()
}

#[cfg(windows)]
fn from_bytes(bytes: &[u8]) -> Option<PathBuf> {
    use std::os::windows::ffi::OsStringExt;
    let wide: Vec<u16> = bytes.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect();
    Some(PathBuf::from(std::ffi::OsString::from_wide(&wide)))
}

/// 128 bits that stand for a path while two listings are compared: a million known files fit in 50 MB, and nobody can make
/// two paths collide.
pub(crate) fn fingerprint(path: &Path) -> u128 {
    let hash = blake3::hash(path.as_os_str().as_encoded_bytes());
    let mut half = [0; 16];
    half.copy_from_slice(&hash.as_bytes()[..16]);
    u128::from_le_bytes(half)
}

/// The one spelling under which a path is stored: absolute, symbolic links resolved as far as the path exists.
///
/// A path that is gone keeps the spelling it had, so that it can still be named.
pub(crate) fn absolute(path: &Path) -> std::io::Result<PathBuf> {
    if is_address(path) {
        return Ok(path.to_path_buf());
    }
    let absolute = std::path::absolute(path)?;
    for existing in absolute.ancestors() {
        if let Ok(real) = existing.canonicalize() {
            let rest = absolute.strip_prefix(existing).unwrap_or(Path::new(""));
            // Joining nothing would add a separator.
            let rest = normal(rest);
            return Ok(if rest.as_os_str().is_empty() { plain(real) } else { plain(real).join(rest) });
        }
    }
    Ok(normal(&absolute))
}

/// Whether it is an address of the web.
pub(crate) fn is_address(path: &Path) -> bool {
    path.to_str().is_some_and(|text| text.starts_with("https://") || text.starts_with("http://"))
}

/// Resolves `.` and `..` by their spelling.
fn normal(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => {
                out.pop();
            }
            Component::CurDir => {}
            part => out.push(part),
        }
    }
    out
}

/// Without Windows' `\\?\`, which nobody types and few programs take, where the path needs it not.
fn plain(path: PathBuf) -> PathBuf {
    match path.to_str().and_then(|text| text.strip_prefix(r"\\?\")) {
        Some(rest) if rest.len() < 250 && rest.as_bytes().get(1) == Some(&b':') => PathBuf::from(rest),
        _ => path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(path: &Path) -> PathBuf {
        let value = to_sql(path);
        from_sql(ValueRef::from(&value)).unwrap()
    }

    #[test]
    fn paths_come_back_as_they_went() {
        for path in ["/a/b.jpg", "/ä ö/日本 \u{301}.png", "/new\nline\t\"quote\""] {
            assert_eq!(round(Path::new(path)), Path::new(path));
        }
        #[cfg(unix)]
        {
            use std::os::unix::ffi::OsStrExt;
            let path = Path::new(std::ffi::OsStr::from_bytes(b"/photos/\xff\xfe caf\xe9.jpg"));
            assert!(matches!(to_sql(path), Value::Blob(_)));
            assert_eq!(round(path), path);
        }
    }

    #[test]
    fn a_path_has_one_spelling() {
        let dir = tempfile::tempdir().unwrap();
        let real = dir.path().canonicalize().unwrap();
        std::fs::create_dir(real.join("photos")).unwrap();
        std::fs::write(real.join("photos/b.jpg"), "").unwrap();
        for (given, one) in
            [("photos/../photos/./a.jpg", "photos/a.jpg"), ("photos/./b.jpg", "photos/b.jpg"), ("photos/", "photos")]
        {
            // As text: `Path` forgives a trailing separator, the database does not.
            assert_eq!(absolute(&real.join(given)).unwrap().to_str(), real.join(one).to_str());
        }
        assert_eq!(absolute(&real.join("not/here/../there.jpg")).unwrap(), real.join("not/there.jpg"));
        #[cfg(unix)]
        {
            std::os::unix::fs::symlink(real.join("photos"), real.join("link")).unwrap();
            assert_eq!(absolute(&real.join("link/a.jpg")).unwrap(), real.join("photos/a.jpg"));
        }
    }
}
