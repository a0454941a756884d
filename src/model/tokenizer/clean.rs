//! The clean-up that CLIP's texts went through before they became tokens.
//!
//! open_clip runs `ftfy.fix_text`, unescapes HTML twice, strips, collapses white space and, for its own vocabulary, lowers
//! the case. This is that, character for character, with one exception: ftfy also guesses at *mojibake*, text that was
//! decoded with the wrong character set (`sÃ£o` for `são`). Its guess rests on tables of which characters rarely meet;
//! people who search type no mojibake, so such a text is left as it is.

use unicode_normalization::UnicodeNormalization as _;

use super::Clean;
use super::entities::{unescape, unescape_whole};

/// Applies `clean`.
pub(super) fn clean(text: &str, clean: Clean) -> String {
    match clean {
        Clean::None => text.to_owned(),
        Clean::LowerOnly => text.to_lowercase(),
        Clean::Letters => {
            let letters = text.to_lowercase().chars().filter(|c| !c.is_ascii_punctuation()).collect::<String>();
            collapse(&letters)
        }
        Clean::Whitespace => collapse(&basic(text)),
        Clean::Lower => collapse(&basic(text)).to_lowercase(),
        Clean::Canonical => {
            let text: String = basic(text)
                .chars()
                .filter_map(|c| match c {
                    '_' => Some(' '),
                    c if c.is_ascii_punctuation() => None,
                    c => Some(c),
                })
                .collect();
            collapse(&text.to_lowercase())
        }
    }
}

fn basic(text: &str) -> String {
    unescape(&unescape(&fix_text(text))).into_owned()
}

/// Words with one space between them. Python counts four separators of old terminals as white space, Unicode does not.
fn collapse(text: &str) -> String {
    let words = text.split(|c: char| c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c));
    words.filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
}

/// `ftfy.fix_text` without its search for wrongly decoded text.
fn fix_text(text: &str) -> String {
    let mut fixed = String::with_capacity(text.len());
    let mut entities = true;
    for line in text.split_inclusive('\n') {
        // A line with a tag is real HTML, and so is what follows.
        entities &= !line.contains('<');
        fixed.push_str(&fix_line(line, entities));
    }
    fixed
}

fn fix_line(line: &str, entities: bool) -> String {
    let mut text = line.to_owned();
    // Each fix may make room for another; a line of plain words is settled after one round.
    loop {
        let unescaped = if entities { unescape_whole(&text) } else { text.clone() };
        let mut replaced = String::with_capacity(unescaped.len());
        unescaped.chars().for_each(|c| push_replaced(c, &mut replaced));
        let broken = replaced.replace("\r\n", "\n").replace(['\r', '\u{2028}', '\u{2029}', '\u{85}'], "\n");
        let next: String = strip_terminal(&broken).chars().filter(|&c| !is_control(c)).nfc().collect();
        if next == text {
            return text;
        }
        text = next;
    }
}

/// Appends what one character becomes: misread control characters, Latin ligatures, widths and quotes.
fn push_replaced(c: char, out: &mut String) {
    match c {
        '\u{80}'..='\u{9f}' => out.push(windows_1252(c)),
        'Ĳ' => out.push_str("IJ"),
        'ĳ' => out.push_str("ij"),
        // The letter's own apostrophe is uncurled in the same round.
        'ŉ' => out.push_str("'n"),
        'Ǳ' => out.push_str("DZ"),
        'ǲ' => out.push_str("Dz"),
        'ǳ' => out.push_str("dz"),
        'Ǆ' => out.push_str("DŽ"),
        'ǅ' => out.push_str("Dž"),
        'ǆ' => out.push_str("dž"),
        'Ǉ' => out.push_str("LJ"),
        'ǈ' => out.push_str("Lj"),
        'ǉ' => out.push_str("lj"),
        'Ǌ' => out.push_str("NJ"),
        'ǋ' => out.push_str("Nj"),
        'ǌ' => out.push_str("nj"),
        'ﬀ' => out.push_str("ff"),
        'ﬁ' => out.push_str("fi"),
        'ﬂ' => out.push_str("fl"),
        'ﬃ' => out.push_str("ffi"),
        'ﬄ' => out.push_str("ffl"),
        'ﬅ' => out.push_str("ſt"),
        'ﬆ' => out.push_str("st"),
        '\u{3000}' => out.push(' '),
        '\u{ff01}'..='\u{ffef}' => out.extend(std::iter::once(c).nfkc()),
        '\u{2bc}' | '\u{2018}'..='\u{201b}' => out.push('\''),
        '\u{201c}'..='\u{201f}' => out.push('"'),
        c => out.push(c),
    }
}

/// The character that Windows puts where Latin-1 has a control character; five places are empty and stay what they are.
pub(super) fn windows_1252(c: char) -> char {
    const TABLE: [char; 32] = [
        '€', '\u{81}', '‚', 'ƒ', '„', '…', '†', '‡', 'ˆ', '‰', 'Š', '‹', 'Œ', '\u{8d}', 'Ž', '\u{8f}', '\u{90}', '‘',
        '’', '“', '”', '•', '–', '—', '˜', '™', 'š', '›', 'œ', '\u{9d}', 'ž', 'Ÿ',
    ];
    (c as usize).checked_sub(0x80).and_then(|i| TABLE.get(i)).copied().unwrap_or(c)
}

fn is_control(c: char) -> bool {
    matches!(c, '\0'..='\u{8}' | '\u{b}' | '\u{e}'..='\u{1f}' | '\u{7f}' | '\u{206a}'..='\u{206f}')
        || matches!(c, '\u{feff}' | '\u{fff9}'..='\u{fffc}')
}

/// Removes colour codes and their like: `ESC [`, numbers, a letter.
fn strip_terminal(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("\u{1b}[") {
        let after = &rest[start + 2..];
        let end = after.find(|c: char| !c.is_numeric() && c != ';').unwrap_or(after.len());
        if after[end..].starts_with(|c: char| c.is_ascii_alphabetic()) {
            out.push_str(&rest[..start]);
            rest = &after[end + 1..];
        } else {
            out.push_str(&rest[..start + 2]);
            rest = after;
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_of_the_clean_up_is_taken() {
        for (text, expected) in [
            ("  A  Dog\ton\nthe   BEACH ", "a dog on the beach"),
            ("caf\u{65}\u{301}", "café"),
            ("‘single’ “double”", "'single' \"double\""),
            ("ﬁne ﬂuﬀ", "fine fluff"),
            ("ＬＯＵＤ　ＮＯＩＳＥＳ", "loud noises"),
            ("Ｕﾀｰﾝ ｶﾞ", "uターン ガ"),
            ("&amp;amp;amp; &lt;b&gt;", "& <b>"),
            ("P&EACUTE;REZ", "pérez"),
            ("<b>&amp;lt;</b>", "<b><</b>"),
            ("\u{1b}[36;44mblue\u{1b}[0m", "blue"),
            ("zero\u{0}\u{8}width\u{feff}", "zerowidth"),
            ("a\r\nb\u{2028}c\u{85}d", "a b c…d"),
            ("", ""),
            (" \u{3000}\u{a0} ", ""),
        ] {
            assert_eq!(clean(text, Clean::Lower), expected, "{text:?}");
        }
    }

    #[test]
    fn canonical_texts_have_no_punctuation() {
        assert_eq!(clean("A_photo: of (two) dogs!", Clean::Canonical), "a photo of two dogs");
    }
}
