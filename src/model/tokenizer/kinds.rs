//! Every kind of tokenizer against its original: a thousand texts each in Chinese, German, Arabic and Hindi.
//!
//! `tests/fixtures/tokenizers/make.py` made the texts and asked the originals; it also prints the ids of any one text.

use std::path::{Path, PathBuf};

use super::{Clean, Tokenizer, TokenizerConfig, TokenizerKind};

const CONTEXT: usize = 64;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tokenizers")
}

/// FNV-1a over the ids, four bytes each.
fn digest(ids: &[u32]) -> u64 {
    let bytes = ids.iter().flat_map(|id| id.to_le_bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |state, byte| (state ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

fn compare(directory: &str, kind: TokenizerKind) {
    let dir = fixtures().join(directory);
    let config = TokenizerConfig { dir: dir.clone(), context: CONTEXT, vocabulary: 49_408, kind };
    let tokenizer = Tokenizer::load(&config).unwrap();
    let texts = std::fs::read_to_string(fixtures().join("texts.txt")).unwrap();
    let digests = std::fs::read(dir.join("digests.bin")).unwrap();
    let (digests, rest) = digests.as_chunks::<8>();
    assert!(rest.is_empty() && digests.len() == 4000 && texts.lines().count() == 4000);
    let mut wrong = Vec::new();
    for (number, (line, digest_of_original)) in texts.lines().zip(digests).enumerate() {
        let text: String = serde_json::from_str(line).unwrap();
        let ids = tokenizer.encode(&text).unwrap();
        if digest(&ids) != u64::from_le_bytes(*digest_of_original) {
            wrong.push(format!("make.py {directory} {number}: {line} {ids:?}"));
        }
    }
    assert!(wrong.is_empty(), "{} of 4000:\n{}", wrong.len(), wrong[..wrong.len().min(10)].join("\n"));
}

fn file(clean: Clean) -> TokenizerKind {
    TokenizerKind::File { clean, strip_separator: false, pad_to_context: true }
}

#[test]
fn clips_byte_pairs() {
    compare("clip", TokenizerKind::Clip { clean: Clean::Lower });
}

#[test]
fn byte_pairs_of_bytes() {
    compare("roberta", file(Clean::Whitespace));
}

#[test]
fn byte_pairs_of_letters_with_bytes_for_the_rest() {
    compare("gemma", file(Clean::Whitespace));
}

#[test]
fn word_pieces() {
    compare("bert", file(Clean::Lower));
}

#[test]
fn unigram_pieces() {
    compare("t5", file(Clean::Canonical));
}
