//! Words of people as queries of SQLite's full-text index (FTS5).
//!
//! FTS5 has a language of its own, with operators, columns and prefixes. Nothing of what people write reaches it as such: each
//! word is taken out, put in quotes, and joined again.

/// Words that say nothing of what a picture shows, left out where any word may match.
const COMMON: &[&str] = &[
    "a", "an", "and", "are", "as", "at", "be", "by", "for", "from", "has", "in", "is", "it", "its", "of", "on", "or",
    "photo", "picture", "image", "that", "the", "their", "there", "this", "to", "was", "with",
];

/// A query that all words fit: the words in any order, `"quoted"` ones in theirs, `begin*` by their beginning. None if there
/// are no words.
pub(super) fn all(text: &str) -> Option<String> {
    let mut parts = Vec::new();
    let mut inside = false;
    for stretch in text.split('"') {
        if inside {
            parts.extend(phrase(stretch));
        } else {
            parts.extend(stretch.split_whitespace().filter_map(|word| {
                let prefix = if word.ends_with('*') { " *" } else { "" };
                phrase(word).map(|word| word + prefix)
            }));
        }
        inside = !inside;
    }
    (!parts.is_empty()).then(|| parts.join(" AND "))
}

/// A query that any of the words fits; the more of them fit, and the rarer they are, the better. None if there are no words.
pub(super) fn any<'t>(texts: impl IntoIterator<Item = &'t str>) -> Option<String> {
    let mut words: Vec<String> = texts
        .into_iter()
        .flat_map(|text| text.split(|c: char| !c.is_alphanumeric()))
        .filter(|word| !word.is_empty())
        .map(str::to_lowercase)
        .collect();
    words.sort_unstable();
    words.dedup();
    if words.iter().any(|word| !COMMON.contains(&word.as_str())) {
        words.retain(|word| !COMMON.contains(&word.as_str()));
    }
    let words: Vec<String> = words.into_iter().map(|word| format!("\"{word}\"")).collect();
    (!words.is_empty()).then(|| words.join(" OR "))
}

/// Text as FTS5's string: words next to each other.
fn phrase(text: &str) -> Option<String> {
    let words: Vec<&str> = text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).collect();
    (!words.is_empty()).then(|| format!("\"{}\"", words.join(" ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_the_text_is_syntax() {
        assert_eq!(all("red  car*").unwrap(), "\"red\" AND \"car\" *");
        assert_eq!(all("\"red car\" NOT name:x").unwrap(), "\"red car\" AND \"NOT\" AND \"name x\"");
        assert_eq!(all("x\" OR \"y").unwrap(), "\"x\" AND \"OR\" AND \"y\"");
        assert_eq!(all("-- *").as_deref(), None);
        assert_eq!(any(["a dog on the Beach", "dog"]).unwrap(), "\"beach\" OR \"dog\"");
        assert_eq!(any(["the"]).unwrap(), "\"the\"");
        assert_eq!(any(["?"]).as_deref(), None);
    }
}
