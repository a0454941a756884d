//! Every kind of tokenizer against its original: a thousand texts each in Chinese, German, Arabic and Hindi.
//!
//! `tests/fixtures/tokenizers/make.py` made the texts and asked the originals; it also prints the ids of any one text.

use std::path::{Path, PathBuf};

use super::{Clean, Marks, Tokenizer, TokenizerConfig, TokenizerKind};

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
    TokenizerKind::File { clean, marks: Marks::Own, pad_to_context: true }
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
    compare("xlmr", file(Clean::Whitespace));
}

#[test]
fn byte_pairs_of_letters_with_a_language_before_them() {
    compare("nllb", file(Clean::Whitespace));
}

#[test]
fn word_pieces_of_a_plain_list_are_those_of_the_whole_file() {
    let dir = tempfile::tempdir().unwrap();
    let whole: serde_json::Value =
        serde_json::from_slice(&std::fs::read(fixtures().join("bert/tokenizer.json")).unwrap()).unwrap();
    let mut pieces: Vec<(&String, u64)> =
        whole["model"]["vocab"].as_object().unwrap().iter().map(|(piece, id)| (piece, id.as_u64().unwrap())).collect();
    pieces.sort_by_key(|piece| piece.1);
    assert!(pieces.iter().zip(0..).all(|(piece, id)| piece.1 == id));
    let list: String = pieces.iter().map(|(piece, _)| format!("{piece}\n")).collect();
    std::fs::write(dir.path().join("vocab.txt"), list).unwrap();
    std::fs::copy(fixtures().join("bert/digests.bin"), dir.path().join("digests.bin")).unwrap();
    compare(dir.path().to_str().unwrap(), file(Clean::Lower));

    let config = dir.path().join("tokenizer_config.json");
    let load = || {
        let dir = dir.path().to_path_buf();
        Tokenizer::load(&TokenizerConfig { dir, context: CONTEXT, vocabulary: 49_408, kind: file(Clean::None) })
    };
    std::fs::write(&config, r#"{"do_lower_case": false, "tokenizer_class": "BertTokenizer"}"#).unwrap();
    assert_ne!(load().unwrap().encode("A DOG").unwrap(), load().unwrap().encode("a dog").unwrap());
    std::fs::write(&config, r#"{"tokenizer_class": "BertJapaneseTokenizer"}"#).unwrap();
    assert!(load().map(drop).unwrap_err().to_string().contains("BertJapaneseTokenizer"));
    std::fs::rename(dir.path().join("vocab.txt"), dir.path().join("spiece.model")).unwrap();
    assert!(load().map(drop).unwrap_err().to_string().contains("SentencePiece"));
}
