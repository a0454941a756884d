//! Words of people as queries of SQLite's full-text index (FTS5).
//!
//! FTS5 has a language of its own, with operators, columns and prefixes. Nothing of what people write reaches it as such: each
//! word is taken out, put in quotes, and joined again.
//!
//! FTS5 takes what stands between spaces and signs for a word, and Chinese, Japanese, Thai and others write none: a caption would
//! be one word, which nobody looks for. So each character of these scripts goes into the index as a word of its own, and what is
//! looked for as these characters next to each other: any stretch of a caption is found, down to one character. Other scripts
//! pay nothing for it. FTS5's trigrams would find stretches in every script, but none of less than three characters, of which
//! most Chinese words are, and take an index several times as large.

use std::borrow::Cow;

/// Words that say nothing of what a picture shows, left out where any word may match.
const COMMON: &[&str] = &[
    "a", "an", "and", "are", "as", "at", "be", "by", "for", "from", "has", "in", "is", "it", "its", "of", "on", "or",
    "photo", "picture", "image", "that", "the", "their", "there", "this", "to", "was", "with",
];

/// Whether words are written without spaces between them.
fn is_of_unspaced_script(c: char) -> bool {
    matches!(c,
        // Thai, Lao, Burmese, Khmer.
        '\u{0e00}'..='\u{0eff}' | '\u{1000}'..='\u{109f}' | '\u{1780}'..='\u{17ff}'
        // Kana; Han; Hangul, whose particles stand at their words.
        | '\u{3005}'..='\u{3007}' | '\u{3041}'..='\u{30ff}' | '\u{31f0}'..='\u{31ff}' | '\u{ff66}'..='\u{ff9d}'
        | '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}' | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{3ffff}'
        | '\u{ac00}'..='\u{d7a3}')
}

/// Whether there is anything in a text that [`spaced`] would change.
pub(super) fn is_unspaced(text: &str) -> bool {
    text.chars().any(is_of_unspaced_script)
}

/// A text as the index takes it: characters of scripts without spaces as words.
pub(super) fn spaced(text: &str) -> Cow<'_, str> {
    if !is_unspaced(text) {
        return text.into();
    }
    let mut spaced = String::with_capacity(text.len() * 2);
    for c in text.chars() {
        if is_of_unspaced_script(c) {
            spaced.extend([' ', c, ' ']);
        } else {
            spaced.push(c);
        }
    }
    spaced.into()
}

/// Endings that FTS5's stemmer takes off, which `begin*` may end within.
const ENDINGS: &[&str] = &["ing", "ed", "ion"];

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
                if word.ends_with('*') { beginning(word.trim_end_matches('*')) } else { phrase(word) }
            }));
        }
        inside = !inside;
    }
    (!parts.is_empty()).then(|| parts.join(" AND "))
}

/// A query for words that begin so. The index holds stems, `danc` for *dancing*, which are shorter than `danci*`: the words that
/// it may be the beginning of are looked for too.
fn beginning(text: &str) -> Option<String> {
    let begun = phrase(text)? + " *";
    let whole = |ending: &&str| {
        let shared = (0..ending.len()).rev().find(|&shared| text.ends_with(&ending[..shared])).unwrap_or(0);
        phrase(&format!("{text}{}", &ending[shared..]))
    };
    let words = ENDINGS.iter().filter(|_| text.ends_with(|c: char| c.is_ascii_alphabetic())).filter_map(whole);
    let any = std::iter::once(begun).chain(words).collect::<Vec<_>>().join(" OR ");
    Some(format!("({any})"))
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
    let words: Vec<String> = words.iter().flat_map(|word| pairs(word)).map(|word| format!("\"{word}\"")).collect();
    (!words.is_empty()).then(|| words.join(" OR "))
}

/// A word as it is, or, in a script without spaces, each two characters that follow each other: what its words are nobody says,
/// but most have two.
fn pairs(word: &str) -> Vec<String> {
    let spaced = spaced(word);
    let parts: Vec<&str> = spaced.split_whitespace().collect();
    match parts.len() {
        0 | 1 => vec![word.to_owned()],
        _ => parts.windows(2).map(|pair| pair.join(" ")).collect(),
    }
}

/// Text as FTS5's string: words next to each other.
fn phrase(text: &str) -> Option<String> {
    let text = spaced(text);
    let words: Vec<&str> = text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).collect();
    (!words.is_empty()).then(|| format!("\"{}\"", words.join(" ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_the_text_is_syntax() {
        assert_eq!(all("red  car*").unwrap(), "\"red\" AND (\"car\" * OR \"caring\" OR \"cared\" OR \"carion\")");
        assert_eq!(all("\"red car\" NOT name:x").unwrap(), "\"red car\" AND \"NOT\" AND \"name x\"");
        assert_eq!(all("x\" OR \"y").unwrap(), "\"x\" AND \"OR\" AND \"y\"");
        assert_eq!(all("-- *").as_deref(), None);
        assert_eq!(any(["a dog on the Beach", "dog"]).unwrap(), "\"beach\" OR \"dog\"");
        assert_eq!(any(["the"]).unwrap(), "\"the\"");
        assert_eq!(any(["?"]).as_deref(), None);
    }

    #[test]
    fn scripts_without_spaces_are_looked_for_by_their_characters() {
        assert_eq!(spaced("two 小狗.jpg").split_whitespace().collect::<Vec<_>>(), ["two", "小", "狗", ".jpg"]);
        assert_eq!(spaced("Zwei Hunde"), "Zwei Hunde");
        assert_eq!(all("小狗 run").unwrap(), "\"小 狗\" AND \"run\"");
        assert_eq!(any(["雪の小狗", "dog"]).unwrap(), "\"dog\" OR \"雪 の\" OR \"の 小\" OR \"小 狗\"");
        assert_eq!(any(["狗"]).unwrap(), "\"狗\"");
    }
}
