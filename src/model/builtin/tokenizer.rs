//! Words to token ids: the built-in model's byte-level BPE, exactly as `tokenizer.json` says.
//!
//! Not through the `tokenizers` crate, because that spends 13 ms on reading a vocabulary, more than the whole rest of a text
//! query. Here the merges are a sorted table inside the binary and nothing is built. The tests compare the two on every
//! character and on random texts.

use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;

/// (left id, right id, id of both joined), sorted; made from `tokenizer.json` by `train/merges.py`.
static MERGES: &[u8] = include_bytes!("merges.bin");

/// Token ids of a cleaned caption, at most `limit`.
pub(super) fn tokens(text: &str, limit: usize) -> Vec<u32> {
    let mut normal: Vec<char> = text.nfc().flat_map(char::to_lowercase).collect();
    if !normal.is_empty() && normal[0] != ' ' {
        normal.insert(0, ' ');
    }
    let mut ids = Vec::new();
    let mut rest = normal.as_slice();
    while !rest.is_empty() && ids.len() < limit {
        let (piece, after) = rest.split_at(piece(rest));
        merge(piece, &mut ids);
        rest = after;
    }
    ids.truncate(limit);
    ids
}

#[derive(PartialEq)]
enum Class {
    Letter,
    Number,
    Space,
    Other,
}

/// The classes of the pattern `\p{L}`, `\p{N}`, `\s` and the rest.
fn class(c: char) -> Class {
    // Alphabetic is wider than \p{L}: letter numbers, marks, and these enclosed letters, which are symbols.
    let enclosed = matches!(c, '\u{24B6}'..='\u{24E9}' | '\u{1F130}'..='\u{1F149}' | '\u{1F150}'..='\u{1F169}' | '\u{1F170}'..='\u{1F189}');
    if c.is_whitespace() {
        Class::Space
    } else if c.is_numeric() {
        Class::Number
    } else if c.is_alphabetic() && !is_combining_mark(c) && !enclosed {
        Class::Letter
    } else {
        Class::Other
    }
}

/// Length of the first piece by GPT-2's pattern
/// `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`.
fn piece(text: &[char]) -> usize {
    if text[0] == '\'' {
        for suffix in [&['s'][..], &['t'], &['r', 'e'], &['v', 'e'], &['m'], &['l', 'l'], &['d']] {
            if text[1..].starts_with(suffix) {
                return 1 + suffix.len();
            }
        }
    }
    let lead = usize::from(text[0] == ' ' && text.len() > 1);
    let kind = class(text[lead]);
    if kind != Class::Space {
        return lead + text[lead..].iter().take_while(|&&c| class(c) == kind).count();
    }
    let spaces = text.iter().take_while(|&&c| class(c) == Class::Space).count();
    // The last space before a word belongs to the word.
    if spaces > 1 && spaces < text.len() { spaces - 1 } else { spaces }
}

/// Joins the bytes of a piece, lowest rank first.
fn merge(piece: &[char], ids: &mut Vec<u32>) {
    let mut utf8 = [0; 4];
    let mut parts: Vec<u16> =
        piece.iter().flat_map(|c| c.encode_utf8(&mut utf8).as_bytes().to_vec()).map(byte).collect();
    while let Some((at, id)) = (0..parts.len().saturating_sub(1))
        .filter_map(|i| Some((i, joined(parts[i], parts[i + 1])?)))
        .min_by_key(|&(i, id)| (id, i))
    {
        parts[at] = id;
        parts.remove(at + 1);
    }
    ids.extend(parts.into_iter().map(u32::from));
}

/// Id of a single byte: printable Latin-1 first, then the others, as GPT-2's byte alphabet sorts them; 0 is the padding.
fn byte(b: u8) -> u16 {
    let b = u16::from(b);
    match b {
        33..=126 => b - 32,
        161..=172 => b - 66,
        174..=255 => b - 67,
        0..=32 => b + 189,
        127..=160 => b + 95,
        _ => 256,
    }
}

/// Id of two tokens joined, if they ever join.
fn joined(left: u16, right: u16) -> Option<u16> {
    let key = (left, right);
    let number = |at: usize| u16::from_le_bytes([MERGES[at], MERGES[at + 1]]);
    let (mut low, mut high) = (0, MERGES.len() / 6);
    while low < high {
        let middle = (low + high) / 2;
        let found = (number(6 * middle), number(6 * middle + 2));
        match found.cmp(&key) {
            std::cmp::Ordering::Less => low = middle + 1,
            std::cmp::Ordering::Greater => high = middle,
            std::cmp::Ordering::Equal => return Some(number(6 * middle + 4)),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokenizers::Tokenizer;

    use super::*;

    fn original() -> Tokenizer {
        Tokenizer::from_bytes(include_bytes!("tokenizer.json")).unwrap()
    }

    #[test]
    fn every_character_is_split_as_the_original_does() {
        let original = original();
        // Beside a letter, a digit and a sign the class of the character shows.
        let chars = ('\0'..='\u{FFFF}').chain('\u{1F000}'..='\u{1FBFF}').chain(('\u{10000}'..=char::MAX).step_by(997));
        let texts: Vec<String> = chars.map(|c| format!("a{c}1{c}!{c}")).collect();
        for texts in texts.chunks(4096) {
            let want = original.encode_batch_fast(texts.to_vec(), false).unwrap();
            for (text, want) in texts.iter().zip(want) {
                assert_eq!(tokens(text, usize::MAX), want.get_ids(), "{text:?}");
            }
        }
    }

    #[test]
    fn random_texts_have_the_ids_of_the_original() {
        let original = original();
        // Scripts that are older than the Unicode tables of either crate: they differ in the order of newer marks.
        let foreign = "[ -\u{36F}\u{391}-\u{3C9}\u{410}-\u{44F}\u{5D0}-\u{5EA}\u{3040}-\u{30FF}\u{4E00}-\u{9FA5}\u{1F300}-\u{1F64F}]{1,6}";
        let english = "[a-zA-Z]{1,12}|'(s|t|re|ve|m|ll|d)|[0-9]{1,5}|[ ,.!?'\"-]{1,3}|\\s";
        let word = prop::string::string_regex(&format!("{english}|{foreign}")).unwrap();
        let words = prop::collection::vec(word, 0..12);
        proptest!(ProptestConfig::with_cases(2000), |(words in words, glue in "|[ ]")| {
            let text = words.join(&glue);
            let want = original.encode_fast(text.as_str(), false).unwrap();
            prop_assert_eq!(tokens(&text, usize::MAX), want.get_ids().to_vec(), "{:?}", text);
        });
    }

    #[test]
    fn ids_stop_at_the_limit() {
        assert_eq!(tokens("a photo of a dog", 3), [257, 306, 273]);
        assert!(tokens("", 3).is_empty());
    }
}
