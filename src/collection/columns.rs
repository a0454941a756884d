//! Which column of a table is what.

use serde_json::{Map, Value};

/// Names of columns, where they are not those that collections usually have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Columns {
    /// The picture's file.
    pub path: Option<String>,
    /// The picture's address on the web.
    pub url: Option<String>,
    /// The caption.
    pub caption: Option<String>,
    /// The vector.
    pub vector: Option<String>,
}

pub(super) const PATHS: &[&str] =
    &["image_path", "path", "file", "filename", "file_name", "filepath", "file_path", "image"];
pub(super) const URLS: &[&str] = &["url", "image_url", "img_url", "link", "href"];
const CAPTIONS: &[&str] = &["caption", "captions", "text", "alt", "description", "prompt", "title"];
pub(super) const VECTORS: &[&str] =
    &["embedding", "image_embedding", "img_emb", "img_embedding", "image_emb", "vector", "embeddings", "emb", "clip"];

/// A row with its usual parts taken out.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Row {
    pub(crate) path: Option<String>,
    pub(crate) url: Option<String>,
    /// Empty where its column is.
    pub(crate) caption: Option<String>,
    /// All columns but the caption.
    pub(crate) fields: Map<String, Value>,
}

impl Columns {
    /// Takes the path, the address and the caption out of a row.
    pub(crate) fn row(&self, mut fields: Map<String, Value>) -> Row {
        let path = name_of(self.path.as_deref(), PATHS, &fields).and_then(|name| text(&fields[&name]));
        let url = name_of(self.url.as_deref(), URLS, &fields).and_then(|name| text(&fields[&name]));
        // Some lists have addresses in their path column.
        let (path, url) = match (path, url) {
            (Some(path), None) if is_address(&path) => (None, Some(path)),
            (path, url) => (path, url.filter(|url| is_address(url))),
        };
        // Without a name, one that is empty in this row will do where no other is full.
        let is_usual = |name: &str| CAPTIONS.iter().any(|usual| name.eq_ignore_ascii_case(usual));
        let empty = || fields.keys().find(|name| self.caption.is_none() && is_usual(name)).cloned();
        let named = name_of(self.caption.as_deref(), CAPTIONS, &fields).or_else(empty);
        let caption =
            named.and_then(|name| fields.shift_remove(&name)).map(|value| caption(&value).unwrap_or_default());
        Row { path, url, caption, fields }
    }
}

/// The column that was named, or else the first of the usual names, in any case.
pub(super) fn name_of(named: Option<&str>, usual: &[&str], fields: &Map<String, Value>) -> Option<String> {
    if let Some(named) = named {
        return fields.contains_key(named).then(|| named.to_owned());
    }
    usual.iter().find_map(|usual| {
        let fits = fields.iter().find(|(name, value)| name.eq_ignore_ascii_case(usual) && !value.is_null());
        fits.map(|(name, _)| name.clone())
    })
}

fn is_address(text: &str) -> bool {
    text.starts_with("https://") || text.starts_with("http://")
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
    .filter(|text| !text.is_empty())
}

/// One caption, or several as lines.
fn caption(value: &Value) -> Option<String> {
    match value {
        Value::Array(all) => {
            let lines: Vec<String> = all.iter().filter_map(text).collect();
            (!lines.is_empty()).then(|| lines.join("\n"))
        }
        one => text(one).map(|text| text.trim().to_owned()).filter(|text| !text.is_empty()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn row(columns: &Columns, value: Value) -> Row {
        columns.row(value.as_object().unwrap().clone())
    }

    #[test]
    fn usual_columns_are_known() {
        let laion = row(&Columns::default(), json!({"URL": "https://a/b.jpg", "TEXT": " a cat ", "WIDTH": 3}));
        assert_eq!((laion.url.as_deref(), laion.caption.as_deref()), (Some("https://a/b.jpg"), Some("a cat")));
        assert_eq!(laion.fields, *json!({"URL": "https://a/b.jpg", "WIDTH": 3}).as_object().unwrap());
        let both = row(&Columns::default(), json!({"image_path": "x/1.jpg", "captions": ["a", "b"], "text": "c"}));
        assert_eq!((both.path.as_deref(), both.caption.as_deref()), (Some("x/1.jpg"), Some("a\nb")));
        assert_eq!(both.fields["text"], json!("c"));
        let named = Columns { caption: Some("text".to_owned()), ..Columns::default() };
        assert_eq!(
            row(&named, json!({"path": "https://x/y", "captions": "a", "text": "c"})),
            Row {
                path: None,
                url: Some("https://x/y".to_owned()),
                caption: Some("c".to_owned()),
                fields: json!({"path": "https://x/y", "captions": "a"}).as_object().unwrap().clone(),
            }
        );
        let empty = row(&Columns::default(), json!({"caption": null, "url": "none"}));
        assert_eq!((empty.url, empty.caption.as_deref()), (None, Some("")));
        assert_eq!(row(&Columns::default(), json!({"url": "none"})).caption, None);
    }
}
