//! Texts to token ids, as the model's training did it.
//!
//! Two dialects exist and they differ: open_clip cleans texts like [`clean`] and knows CLIP's vocabulary by heart; the other
//! runs a `tokenizer.json` as it stands. A model gets the one that it was trained with, which its importer knows.

mod clean;
mod clip;
mod entities;
#[cfg(test)]
mod kinds;
mod pairs;
mod words;

use std::path::{Path, PathBuf};

use serde_json::Value;
use tokenizers::normalizers::{Lowercase, NFC, Replace, Sequence as Normalizers};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence as PreTokenizers;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::processors::roberta::RobertaProcessing;
use tokenizers::{
    AddedToken, NormalizerWrapper, PreTokenizerWrapper, SplitDelimiterBehavior, Tokenizer as FileTokenizer,
    TruncationParams,
};

use self::clip::ClipTokenizer;
use crate::{Error, Result};

/// What is done to a text before it is cut into tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Clean {
    /// Nothing.
    None,
    /// Repaired, HTML unescaped, white space collapsed.
    Whitespace,
    /// The same, in lower case.
    Lower,
    /// The same, without punctuation.
    Canonical,
    /// Lower case, and nothing else.
    LowerOnly,
    /// Lower case, without punctuation, white space collapsed, and nothing else.
    Letters,
}

/// Which tokenizer a model needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TokenizerKind {
    /// CLIP's own, with the vocabulary that is compiled in.
    Clip { clean: Clean },
    /// CLIP's own, with a vocabulary from the directory.
    ClipFiles { clean: Clean },
    /// The directory's `tokenizer.json`, as it stands.
    File {
        clean: Clean,
        marks: Marks,
        /// The towers see the padding, so it must be the original's.
        pad_to_context: bool,
    },
}

/// Which special tokens stand around a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Marks {
    /// Those of the file.
    Own,
    /// The same, but separators become zeros: a quirk of models whose training did so.
    Stripped,
    /// A start and an end, and the class in the last place of the context.
    ClassLast,
}

/// How to build a tokenizer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TokenizerConfig {
    /// The model directory.
    pub(crate) dir: PathBuf,
    /// Ids per text.
    pub(crate) context: usize,
    /// Number of ids that the model knows.
    pub(crate) vocabulary: usize,
    /// Which one.
    pub(crate) kind: TokenizerKind,
}

/// A tokenizer with the length that its model expects.
pub(crate) struct Tokenizer {
    context: usize,
    clean: Clean,
    pad: u32,
    ends: Ends,
    inner: Inner,
}

/// [`Marks`] with their ids.
enum Ends {
    Own,
    Stripped(u32),
    ClassLast { start: u32, end: u32, class: u32 },
}

enum Inner {
    Clip(Box<ClipTokenizer>),
    File(Box<FileTokenizer>),
}

impl Tokenizer {
    /// Builds it.
    pub(crate) fn load(config: &TokenizerConfig) -> Result<Self> {
        let context = config.context;
        let (clean, inner) = match config.kind {
            TokenizerKind::Clip { clean } => (clean, Inner::Clip(Box::new(ClipTokenizer::embedded()?))),
            TokenizerKind::ClipFiles { clean } => (clean, Inner::Clip(Box::new(ClipTokenizer::from_dir(&config.dir)?))),
            TokenizerKind::File { clean, marks, pad_to_context } => {
                let file = Specials::read(&config.dir)?;
                let mut tokenizer = read_file(&config.dir)?;
                let path = config.dir.join("tokenizer.json");
                let pad = file.padding(&tokenizer);
                if pad_to_context && file.side.as_deref() == Some("left") {
                    let (key, value) = ("padding_side".to_owned(), "\"left\"".to_owned());
                    return Err(Error::UnsupportedModel { path: config.dir.join(Specials::FILE), key, value });
                }
                let id = |named: &Option<String>, what: &str, default: &str| {
                    let name = named.as_deref().unwrap_or(default);
                    let id = tokenizer.token_to_id(name);
                    id.ok_or_else(|| bad(&path, format!("the {what} {name} has no id")))
                };
                let ends = match marks {
                    Marks::Own => Ends::Own,
                    Marks::Stripped => Ends::Stripped(id(&file.separator, "separator", "[SEP]")?),
                    Marks::ClassLast => Ends::ClassLast {
                        start: id(&file.start, "bos_token", "[BOS]")?,
                        end: id(&file.end, "eos_token", "[EOS]")?,
                        class: id(&file.class, "cls_token", "[CLS]")?,
                    },
                };
                let truncation = TruncationParams { max_length: context, ..TruncationParams::default() };
                let cut = tokenizer.with_truncation(Some(truncation)).map(drop);
                cut.map_err(|e| bad(&path, format!("cannot be cut to {context} tokens: {e}")))?;
                tokenizer.with_padding(None);
                return Ok(Self { context, clean, pad, ends, inner: Inner::File(Box::new(tokenizer)) });
            }
        };
        Ok(Self { context, clean, pad: 0, ends: Ends::Own, inner })
    }

    /// Ids of a text, cut or padded to the context.
    pub(crate) fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let text = clean::clean(text, self.clean);
        let marked = !matches!(self.ends, Ends::ClassLast { .. });
        let ids = match &self.inner {
            Inner::Clip(tokenizer) => tokenizer.encode(&text, self.context),
            Inner::File(tokenizer) => tokenizer.encode_fast(text, marked).map(|encoding| encoding.get_ids().to_vec()),
        };
        let mut ids = ids.map_err(Error::Tensor)?;
        match self.ends {
            Ends::Own => {}
            Ends::Stripped(separator) => ids.iter_mut().filter(|id| **id == separator).for_each(|id| *id = 0),
            Ends::ClassLast { start, end, class } => {
                ids.truncate(self.context.saturating_sub(3));
                ids.insert(0, start);
                ids.push(end);
                ids.resize(self.context.saturating_sub(1), self.pad);
                ids.push(class);
            }
        }
        ids.resize(self.context, self.pad);
        Ok(ids)
    }
}

fn bad(path: &Path, reason: impl Into<String>) -> Error {
    Error::BadModel { path: path.to_path_buf(), reason: reason.into() }
}

/// SentencePiece's own files, in which older directories keep their vocabulary.
const SENTENCE_PIECES: [&str; 3] = ["spiece.model", "sentencepiece.bpe.model", "tokenizer.model"];

/// The directory's `tokenizer.json`, or the tokenizer that the original makes of `vocab.txt`, or of `vocab.json` and `merges.txt`.
fn read_file(dir: &Path) -> Result<FileTokenizer> {
    let path = dir.join("tokenizer.json");
    if path.is_file() {
        let bytes = std::fs::read(&path).map_err(Error::io(&path))?;
        return FileTokenizer::from_bytes(bytes).map_err(|e| bad(&path, format!("no tokenizer: {e}")));
    }
    if dir.join(words::FILE).is_file() {
        return words::read(dir);
    }
    if !dir.join("vocab.json").is_file()
        && let Some(pieces) = SENTENCE_PIECES.iter().map(|name| dir.join(name)).find(|path| path.is_file())
    {
        let reason = "a vocabulary of SentencePiece's, which is not read; put the tokenizer.json beside it that transformers \
                      makes of it";
        return Err(bad(&pieces, reason));
    }
    let (path, vocabulary, merges) = clip::read_vocabulary(dir)?;
    from_vocabulary(vocabulary, merges).map_err(|e| bad(&path, format!("no byte-pair vocabulary: {e}")))
}

fn from_vocabulary(
    vocabulary: std::collections::HashMap<String, u32>,
    merges: clip::Merges,
) -> tokenizers::Result<FileTokenizer> {
    const WORDS: &str = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";
    const START: &str = "<|startoftext|>";
    const END: &str = "<|endoftext|>";
    let id = |name: &str| vocabulary.get(name).copied().ok_or_else(|| format!("there is no {name}"));
    let (start, end) = (id(START)?, id(END)?);
    let pairs = tokenizers::models::bpe::BPE::builder()
        .vocab_and_merges(vocabulary.into_iter().collect::<tokenizers::models::bpe::Vocab>(), merges)
        .end_of_word_suffix("</w>".to_owned())
        .unk_token(END.to_owned())
        .build()?;
    let mut tokenizer = FileTokenizer::new(pairs);
    let spaces = Replace::new(tokenizers::normalizers::replace::ReplacePattern::Regex(r"\s+".to_owned()), " ")?;
    let normalizers: Vec<NormalizerWrapper> = vec![NFC.into(), spaces.into(), Lowercase.into()];
    tokenizer.with_normalizer(Some(Normalizers::new(normalizers)))?;
    let words = Split::new(SplitPattern::Regex(WORDS.to_owned()), SplitDelimiterBehavior::Removed, true)?;
    let splits: Vec<PreTokenizerWrapper> = vec![words.into(), ByteLevel::default().add_prefix_space(false).into()];
    tokenizer.with_pre_tokenizer(Some(PreTokenizers::new(splits)));
    let ends = RobertaProcessing::new((END.to_owned(), end), (START.to_owned(), start));
    tokenizer.with_post_processor(Some(ends.trim_offsets(false).add_prefix_space(false)));
    let specials = [START, END].map(|name| AddedToken::from(name, true));
    tokenizer.add_special_tokens(specials)?;
    Ok(tokenizer)
}

/// A token of a configuration: its text, or an object with it.
fn name(config: &Value, key: &str) -> Option<String> {
    let token = config.get(key)?;
    token.as_str().or_else(|| token.get("content")?.as_str()).map(str::to_owned)
}

/// What `tokenizer_config.json` adds to a `tokenizer.json`.
#[derive(Default)]
struct Specials {
    padding: Option<String>,
    separator: Option<String>,
    start: Option<String>,
    end: Option<String>,
    class: Option<String>,
    side: Option<String>,
}

impl Specials {
    const FILE: &str = "tokenizer_config.json";

    fn read(dir: &Path) -> Result<Self> {
        let mut specials = Self::default();
        for file in [Self::FILE, "special_tokens_map.json"] {
            let path = dir.join(file);
            if !path.is_file() {
                continue;
            }
            let bytes = std::fs::read(&path).map_err(Error::io(&path))?;
            let value: Value = serde_json::from_slice(&bytes).map_err(|e| bad(&path, format!("no valid JSON: {e}")))?;
            let text = |key: &str| name(&value, key);
            specials.padding = specials.padding.or_else(|| text("pad_token"));
            specials.separator = specials.separator.or_else(|| text("sep_token"));
            specials.start = specials.start.or_else(|| text("bos_token"));
            specials.end = specials.end.or_else(|| text("eos_token"));
            specials.class = specials.class.or_else(|| text("cls_token"));
            specials.side = specials.side.or_else(|| text("padding_side"));
        }
        Ok(specials)
    }

    /// The id that fills a text up: the named one, else the one that the tokenizer itself would use, else zero.
    fn padding(&self, tokenizer: &FileTokenizer) -> u32 {
        let named = self.padding.as_deref().and_then(|name| tokenizer.token_to_id(name));
        named.or_else(|| tokenizer.get_padding().map(|padding| padding.pad_id)).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Text, ids by open_clip, ids by Hugging Face's tokenizer of the same vocabulary; neither padded.
    type Case = (String, Vec<u32>, Vec<u32>);

    fn cases() -> Vec<Case> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/model/tokens.json");
        serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
    }

    /// Tokens by id, without the special ones, and merges in order, as other code wants them: in words.
    fn embedded_vocabulary() -> (Vec<String>, clip::Merges) {
        let letters = clip::byte_letters();
        let mut names: Vec<String> =
            clip::bytes_in_order().map(|byte| letters[usize::from(byte)].to_string()).collect();
        names.extend_from_within(..);
        names[256..].iter_mut().for_each(|name| name.push_str("</w>"));
        let mut merges = Vec::new();
        for &[a, b, c, d] in pairs::MERGES.as_chunks::<4>().0 {
            let left = names[usize::from(u16::from_le_bytes([a, b]))].clone();
            let right = names[usize::from(u16::from_le_bytes([c, d]))].clone();
            names.push(format!("{left}{right}"));
            merges.push((left, right));
        }
        (names, merges)
    }

    #[test]
    fn pairs_merge_as_the_tokenizers_crate_merges_them() {
        let (names, merges) = embedded_vocabulary();
        let vocabulary: tokenizers::models::bpe::Vocab = names.into_iter().zip(0..).collect();
        let theirs = tokenizers::models::bpe::BPE::builder()
            .vocab_and_merges(vocabulary, merges)
            .end_of_word_suffix("</w>".to_owned())
            .build()
            .unwrap();
        let (ours, letters) = (pairs::Pairs::new(clip::bytes_in_order()), clip::byte_letters());
        let mut state = 1_u32;
        for length in (1..40).cycle().take(4000) {
            let word: String = (0..length)
                .map(|_| {
                    state = state.wrapping_mul(747_796_405).wrapping_add(2_891_336_453);
                    let set = if length % 3 == 0 { "ab" } else { "etaoinshrdlucmfwypvbgkéñ日🐕" };
                    set.chars().nth((state >> 16) as usize % set.chars().count()).unwrap()
                })
                .collect();
            let spelt: String = word.bytes().map(|byte| letters[usize::from(byte)]).collect();
            let expected: Vec<u32> =
                tokenizers::Model::tokenize(&theirs, &spelt).unwrap().iter().map(|token| token.id).collect();
            let mut ids = Vec::new();
            ours.encode(&word, &mut ids);
            assert_eq!(ids, expected, "{word}");
        }
    }

    #[test]
    fn ids_are_those_of_both_originals() {
        let kind = TokenizerKind::Clip { clean: Clean::Lower };
        let config = TokenizerConfig { dir: PathBuf::new(), context: 77, vocabulary: 49_408, kind };
        let ours = Tokenizer::load(&config).unwrap();
        let (vocabulary, merges) = embedded_vocabulary();
        let mut vocabulary: std::collections::HashMap<_, _> = vocabulary.into_iter().zip(0..).collect();
        vocabulary.extend([("<|startoftext|>".to_owned(), 49_406), ("<|endoftext|>".to_owned(), 49_407)]);
        let theirs = from_vocabulary(vocabulary, merges).unwrap();

        let cases = cases();
        assert!(cases.len() >= 300);
        let mut wrong = Vec::new();
        for (text, expected, file_expected) in &cases {
            let ids = ours.encode(text).unwrap();
            let mut padded = expected.clone();
            padded.resize(77, 0);
            if ids != padded {
                let len = ids.iter().rposition(|&id| id != 0).map_or(0, |i| i + 1);
                wrong.push(format!("open_clip {text:?}: {:?}, expected {expected:?}", &ids[..len]));
            }
            let mut ids = theirs.encode_fast(text.as_str(), true).unwrap().get_ids().to_vec();
            if ids.len() > 77 {
                ids.truncate(76);
                ids.push(49_407);
            }
            if &ids != file_expected {
                wrong.push(format!("file {text:?}: {ids:?}, expected {file_expected:?}"));
            }
        }
        assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
    }

    #[test]
    fn an_empty_text_is_its_two_ends() {
        let kind = TokenizerKind::Clip { clean: Clean::Lower };
        let config = TokenizerConfig { dir: PathBuf::new(), context: 5, vocabulary: 49_408, kind };
        assert_eq!(Tokenizer::load(&config).unwrap().encode("").unwrap(), [49_406, 49_407, 0, 0, 0]);
        assert_eq!(Tokenizer::load(&config).unwrap().encode("a b c d e").unwrap().last(), Some(&49_407));
    }
}
