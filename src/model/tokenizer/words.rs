//! BERT's word pieces from a `vocab.txt`, for directories from before there was a `tokenizer.json`: what transformers makes of
//! that list and the options in `tokenizer_config.json`.

use std::collections::HashMap;
use std::path::Path;

use serde_json::Value;
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::normalizers::BertNormalizer;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::processors::bert::BertProcessing;
use tokenizers::{AddedToken, Tokenizer as FileTokenizer};

use super::{Specials, bad, clip, name};
use crate::{Error, Result};

/// The list of pieces, one a line; a piece's id is the number of its line.
pub(super) const FILE: &str = "vocab.txt";

/// What a tokenizer of BERT's is told.
struct Options {
    lowercase: bool,
    accents: Option<bool>,
    chinese: bool,
    unknown: String,
    first: String,
    last: String,
    others: [String; 2],
}

/// Reads the directory's list.
pub(super) fn read(dir: &Path) -> Result<FileTokenizer> {
    let path = dir.join(FILE);
    let options = Options::read(&dir.join(Specials::FILE))?;
    let text = std::fs::read_to_string(&path).map_err(Error::io(&path))?;
    let vocabulary: HashMap<String, u32> = text.lines().map(str::to_owned).zip(0..).collect();
    build(vocabulary, &options).map_err(|e| bad(&path, format!("no list of word pieces: {e}")))
}

fn build(vocabulary: HashMap<String, u32>, options: &Options) -> tokenizers::Result<FileTokenizer> {
    let id = |name: &String| vocabulary.get(name).copied().ok_or_else(|| format!("there is no {name}"));
    let processing =
        BertProcessing::new((options.last.clone(), id(&options.last)?), (options.first.clone(), id(&options.first)?));
    id(&options.unknown)?;
    let specials: Vec<AddedToken> = [&options.unknown, &options.first, &options.last]
        .into_iter()
        .chain(&options.others)
        .filter(|name| vocabulary.contains_key(*name))
        .map(|name| AddedToken::from(name.clone(), true))
        .collect();
    let pieces = WordPiece::builder().vocab(vocabulary.into_iter().collect::<tokenizers::models::bpe::Vocab>());
    let mut tokenizer = FileTokenizer::new(pieces.unk_token(options.unknown.clone()).build()?);
    let normalizer = BertNormalizer::new(true, options.chinese, options.accents, options.lowercase);
    tokenizer.with_normalizer(Some(normalizer))?;
    tokenizer.with_pre_tokenizer(Some(BertPreTokenizer));
    tokenizer.with_post_processor(Some(processing));
    tokenizer.add_special_tokens(specials)?;
    Ok(tokenizer)
}

impl Options {
    fn read(path: &Path) -> Result<Self> {
        let value = if path.is_file() { clip::read_json(path)? } else { Value::Null };
        let unsupported = |key: &str| {
            let value = value[key].to_string();
            Error::UnsupportedModel { path: path.to_path_buf(), key: key.to_owned(), value }
        };
        if !matches!(value["tokenizer_class"].as_str(), None | Some("BertTokenizer" | "BertTokenizerFast")) {
            return Err(unsupported("tokenizer_class"));
        }
        if value["do_basic_tokenize"] == Value::Bool(false) {
            return Err(unsupported("do_basic_tokenize"));
        }
        let token = |key: &str, default: &str| name(&value, key).unwrap_or_else(|| default.to_owned());
        Ok(Self {
            lowercase: value["do_lower_case"].as_bool().unwrap_or(true),
            accents: value["strip_accents"].as_bool(),
            chinese: value["tokenize_chinese_chars"].as_bool().unwrap_or(true),
            unknown: token("unk_token", "[UNK]"),
            first: token("cls_token", "[CLS]"),
            last: token("sep_token", "[SEP]"),
            others: [token("pad_token", "[PAD]"), token("mask_token", "[MASK]")],
        })
    }
}
