//! CLIP's own tokenizer: byte pairs with an end-of-word mark, as open_clip's `SimpleTokenizer` runs it.
//!
//! It is not read from a `tokenizer.json`, because the files that are published beside open_clip checkpoints describe a cousin
//! with other normalisation and other names for the two special tokens. open_clip itself never reads them; it carries the
//! vocabulary inside, and so do we: `vocabulary.bin` holds the 48,894 merges of `bpe_simple_vocab_16e6.txt` (OpenAI's CLIP, MIT
//! licence) as pairs of ids, 196 kB instead of the 1.3 MB archive, of whose 262,144 lines no more are used.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tokenizers::SplitDelimiterBehavior;
use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::tokenizer::{Model as _, OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer as _};

use super::bad;
use super::pairs::Pairs;
use crate::{Error, Result};

/// Words: the two special tokens by name, English contractions, letters, single digits, everything else in runs.
const PATTERN: &str = r"(?i)<start_of_text>|<end_of_text>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";

/// Pairs of tokens that become one, the most frequent first.
pub(super) type Merges = Vec<(String, String)>;

/// Byte pairs, and what comes before them.
pub(super) struct ClipTokenizer {
    words: Split,
    vocabulary: Vocabulary,
    start: u32,
    end: u32,
}

enum Vocabulary {
    /// The one that is compiled in.
    Embedded(Box<Pairs>),
    /// One from files, and the letter that stands for each byte.
    Files(Box<[char; 256]>, Box<BPE>),
}

impl ClipTokenizer {
    /// The vocabulary that all of OpenAI's and most of open_clip's models were trained with.
    pub(super) fn embedded() -> Result<Self> {
        let start = Pairs::len();
        let vocabulary = Vocabulary::Embedded(Box::new(Pairs::new(bytes_in_order())));
        Ok(Self { words: words().map_err(Error::Tensor)?, vocabulary, start, end: start + 1 })
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
        let vocabulary = Vocabulary::Files(Box::new(byte_letters()), Box::new(pairs));
        Ok(Self { words: words()?, vocabulary, start, end })
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
                _ => match &self.vocabulary {
                    Vocabulary::Embedded(pairs) => pairs.encode(word, &mut ids),
                    Vocabulary::Files(letters, pairs) => {
                        let letters: String = word.bytes().map(|byte| letters[usize::from(byte)]).collect();
                        ids.extend(pairs.tokenize(&letters)?.iter().map(|token| token.id));
                    }
                },
            }
        }
        ids.truncate(context.saturating_sub(1));
        ids.push(self.end);
        Ok(ids)
    }
}

fn words() -> tokenizers::Result<Split> {
    Split::new(SplitPattern::Regex(PATTERN.to_owned()), SplitDelimiterBehavior::Removed, true)
}

/// The letter that stands for each byte: itself where it prints, else the next letter from U+0100 on.
pub(super) fn byte_letters() -> [char; 256] {
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

/// Bytes in the order of their ids: printing ones first.
pub(super) fn bytes_in_order() -> impl Iterator<Item = u8> {
    (0..=255).filter(|&b| prints(b)).chain((0..=255).filter(|&b| !prints(b)))
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

pub(super) fn read_json(path: &Path) -> Result<Value> {
    let bytes = std::fs::read(path).map_err(Error::io(path))?;
    serde_json::from_slice(&bytes).map_err(|e| bad(path, format!("no valid JSON: {e}")))
}
