//! CLIP's own tokenizer: byte pairs with an end-of-word mark, as open_clip's `SimpleTokenizer` runs it.
//!
//! It is built from parts of the `tokenizers` crate and not from a `tokenizer.json`, because the files that are published
//! beside open_clip checkpoints describe a cousin with other normalisation and other names for the two special tokens.
//! open_clip itself never reads them; it carries the vocabulary inside, and so do we: `vocabulary.bin` holds the 48,894
//! merges of `bpe_simple_vocab_16e6.txt` (OpenAI's CLIP, MIT licence) as pairs of ids, 196 kB instead of the 1.3 MB archive,
//! of whose 262,144 lines no more are used.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tokenizers::SplitDelimiterBehavior;
use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::tokenizer::{Model as _, OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer as _};

use super::bad;
use crate::{Error, Result};

/// The merges in order, each two little-endian ids of the parts.
const MERGES: &[u8] = include_bytes!("vocabulary.bin");

/// Words: the two special tokens by name, English contractions, letters, single digits, everything else in runs.
const PATTERN: &str = r"(?i)<start_of_text>|<end_of_text>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";

/// Pairs of tokens that become one, the most frequent first.
pub(super) type Merges = Vec<(String, String)>;

/// Byte pairs, and what comes before them.
pub(super) struct ClipTokenizer {
    words: Split,
    bytes: [char; 256],
    pairs: BPE,
    start: u32,
    end: u32,
}

impl ClipTokenizer {
    /// The vocabulary that all of OpenAI's and most of open_clip's models were trained with.
    pub(super) fn embedded() -> Result<Self> {
        let (names, merges) = embedded_vocabulary();
        let start = names.len() as u32;
        Self::new(names.into_iter().zip(0..).collect(), merges, start, start + 1).map_err(Error::Tensor)
    }

    /// A vocabulary of the same make from a directory: `tokenizer.json`, or `vocab.json` and `merges.txt`.
    pub(super) fn from_dir(dir: &Path) -> Result<Self> {
        let (path, vocabulary, merges) = read_vocabulary(dir)?;
        let id = |names: [&str; 2]| {
            let found = names.iter().find_map(|name| vocabulary.get(*name).copied());
            found.ok_or_else(|| bad(&path, format!("the vocabulary has no {}", names[0])))
        };
        let start = id(["<|startoftext|>", "<start_of_text>"])?;
        let end = id(["<|endoftext|>", "<end_of_text>"])?;
        let vocabulary = vocabulary.into_iter().collect();
        Self::new(vocabulary, merges, start, end).map_err(|e| bad(&path, format!("no byte-pair vocabulary: {e}")))
    }

    fn new(
        vocabulary: Vocab,
        merges: Merges,
        start: u32,
        end: u32,
    ) -> std::result::Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        let pairs =
            BPE::builder().vocab_and_merges(vocabulary, merges).end_of_word_suffix("</w>".to_owned()).build()?;
        let words = Split::new(SplitPattern::Regex(PATTERN.to_owned()), SplitDelimiterBehavior::Removed, true)?;
        Ok(Self { words, bytes: byte_letters(), pairs, start, end })
    }

    /// Ids of a text that is clean already, between the start and the end token, at most `context` of them.
    pub(super) fn encode(&self, text: &str, context: usize) -> tokenizers::Result<Vec<u32>> {
        let mut ids = vec![self.start];
        let mut text = PreTokenizedString::from(text);
        self.words.pre_tokenize(&mut text)?;
        for (word, _, _) in text.get_splits(OffsetReferential::Original, OffsetType::None) {
            // The end token needs a place: what comes after the last one is never seen.
            if ids.len() >= context {
                break;
            }
            match word.to_lowercase().as_str() {
                "<start_of_text>" => ids.push(self.start),
                "<end_of_text>" => ids.push(self.end),
                _ => {
                    let letters: String = word.bytes().map(|byte| self.bytes[usize::from(byte)]).collect();
                    ids.extend(self.pairs.tokenize(&letters)?.iter().map(|token| token.id));
                }
            }
        }
        ids.truncate(context.saturating_sub(1));
        ids.push(self.end);
        Ok(ids)
    }
}

/// The tokens of the vocabulary that is compiled in, by id and without the special ones, and its merges in order.
pub(super) fn embedded_vocabulary() -> (Vec<String>, Merges) {
    let bytes = byte_letters();
    let mut names: Vec<String> = letters_in_order(&bytes).map(String::from).collect();
    names.extend_from_within(..);
    names[256..].iter_mut().for_each(|name| name.push_str("</w>"));
    let mut merges = Vec::with_capacity(MERGES.len() / 4);
    for &[a, b, c, d] in MERGES.as_chunks::<4>().0 {
        let left = names[usize::from(u16::from_le_bytes([a, b]))].clone();
        let right = names[usize::from(u16::from_le_bytes([c, d]))].clone();
        names.push(format!("{left}{right}"));
        merges.push((left, right));
    }
    (names, merges)
}

/// The letter that stands for each byte: itself where it prints, else the next letter from U+0100 on.
fn byte_letters() -> [char; 256] {
    let mut next = 0x100;
    std::array::from_fn(|byte| {
        if prints(byte as u8) {
            char::from(byte as u8)
        } else {
            next += 1;
            char::from_u32(next - 1).unwrap_or(char::REPLACEMENT_CHARACTER)
        }
    })
}

/// Letters in the order of their ids: printing bytes first.
fn letters_in_order(bytes: &[char; 256]) -> impl Iterator<Item = char> {
    let at = |byte: u8| bytes[usize::from(byte)];
    (0..=255).filter(|&b| prints(b)).chain((0..=255).filter(|&b| !prints(b))).map(at)
}

fn prints(byte: u8) -> bool {
    matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff)
}

/// Vocabulary and merges of a directory, and the file that they came from.
pub(super) fn read_vocabulary(dir: &Path) -> Result<(PathBuf, HashMap<String, u32>, Merges)> {
    let whole = dir.join("tokenizer.json");
    if whole.is_file() {
        let value = read_json(&whole)?;
        let model = &value["model"];
        let wrong = || bad(&whole, "model holds no byte-pair vocabulary");
        let vocabulary = ids(&model["vocab"]).ok_or_else(wrong)?;
        let merges = model["merges"].as_array().ok_or_else(wrong)?.iter().map(merge).collect::<Option<_>>();
        return Ok((whole.clone(), vocabulary, merges.ok_or_else(wrong)?));
    }
    let (vocab, merges) = (dir.join("vocab.json"), dir.join("merges.txt"));
    if !vocab.is_file() || !merges.is_file() {
        return Err(bad(dir, "no tokenizer; expected tokenizer.json, or vocab.json and merges.txt"));
    }
    let vocabulary = ids(&read_json(&vocab)?).ok_or_else(|| bad(&vocab, "expected an id for each token"))?;
    let text = std::fs::read_to_string(&merges).map_err(Error::io(&merges))?;
    let lines = text.lines().filter(|line| !line.starts_with("#version") && !line.is_empty());
    let list = lines.map(|line| {
        let (left, right) = line.split_once(' ')?;
        Some((left.to_owned(), right.trim_end().to_owned()))
    });
    let list = list.collect::<Option<_>>().ok_or_else(|| bad(&merges, "expected two tokens on each line"))?;
    Ok((vocab, vocabulary, list))
}

fn ids(value: &Value) -> Option<HashMap<String, u32>> {
    let id = |(token, id): (&String, &Value)| Some((token.clone(), u32::try_from(id.as_u64()?).ok()?));
    value.as_object()?.iter().map(id).collect()
}

/// `"a b"`, or `["a", "b"]` in newer files.
fn merge(value: &Value) -> Option<(String, String)> {
    let (left, right) = match value {
        Value::String(pair) => pair.split_once(' ')?,
        Value::Array(pair) => (pair.first()?.as_str()?, pair.get(1)?.as_str()?),
        _ => return None,
    };
    Some((left.to_owned(), right.to_owned()))
}

fn read_json(path: &Path) -> Result<Value> {
    let bytes = std::fs::read(path).map_err(Error::io(path))?;
    serde_json::from_slice(&bytes).map_err(|e| bad(path, format!("no valid JSON: {e}")))
}
