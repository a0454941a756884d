//! Any byte flipped, any file cut: an error or the right answer.

use std::io::{Seek, SeekFrom, Write};
use std::sync::Arc;

use tintype_index::{Config, Error, Index, Key, Metric, Neighbor, Result};

use crate::simulated::Simulated;
use crate::support::{Random, embeddings};

/// Everything that can be asked of an index, in one value.
#[derive(Debug, PartialEq)]
struct Answers {
    keys: Vec<Key>,
    vectors: Vec<Option<Vec<f32>>>,
    found: Vec<Vec<Neighbor>>,
}

fn ask(storage: &Simulated, queries: &[Vec<f32>]) -> Result<Answers> {
    let reader = Index::open_on(Arc::new(storage.clone()))?.reader()?;
    let mut keys = reader.keys().collect::<Result<Vec<_>>>()?;
    keys.sort_unstable();
    let vectors = keys.iter().take(40).map(|&key| reader.get(key)).collect::<Result<_>>()?;
    let mut found = Vec::new();
    for query in queries {
        found.push(reader.search(query).k(5).run()?);
        found.push(reader.search(query).k(5).ef(20).filter(|key| key % 2 == 0).run()?);
        found.push(reader.search(query).k(3).recall(1.0).run()?);
    }
    Ok(Answers { keys, vectors, found })
}

fn small() -> Simulated {
    let storage = Simulated::default();
    let config = Config { dim: 6, metric: Metric::Cosine, ..Config::default() };
    let index = Index::create_on(Arc::new(storage.clone()), config).unwrap();
    let mut writer = index.writer().unwrap();
    let vectors = embeddings(24, 6, 1);
    for part in [0..16usize, 16..21, 21..22] {
        for key in part {
            writer.add(key as u64 * 3, &vectors[key]).unwrap();
        }
        writer.commit().unwrap();
    }
    writer.remove(9).unwrap();
    writer.set_sample_queries(&vectors[22..]).unwrap();
    writer.commit().unwrap();
    storage
}

fn check(storage: &Simulated, queries: &[Vec<f32>], right: &Answers, what: &str) -> bool {
    match ask(storage, queries) {
        Ok(answers) => assert_eq!(answers, *right, "{what}: a wrong answer"),
        Err(Error::Corrupt { .. } | Error::Version { .. } | Error::NotFound { .. }) => return true,
        Err(e) => panic!("{what}: {e:?}"),
    }
    let clean = Index::open_on(Arc::new(storage.clone())).unwrap().reader().unwrap().verify().unwrap();
    assert!(!clean.is_clean(), "{what}: not noticed");
    false
}

#[test]
fn any_flipped_byte_and_any_cut_is_noticed() {
    let storage = small();
    let queries = embeddings(3, 6, 2);
    let right = ask(&storage, &queries).unwrap();
    assert_eq!(right.keys.len(), 21);
    assert!(storage.names().iter().any(|name| name.ends_with(".del")));
    assert!(storage.names().iter().any(|name| name.ends_with(".qry")));
    for name in storage.names() {
        // No search reads those.
        let asked = !name.ends_with(".qry");
        let bytes = storage.bytes(&name);
        for at in 0..bytes.len() {
            let damaged = storage.copy();
            let mut bytes = bytes.clone();
            bytes[at] ^= 1 << (at % 8);
            damaged.put(&name, bytes);
            check(&damaged, &queries, &right, &format!("byte {at} of {name}"));
        }
        for length in (0..bytes.len()).step_by(7) {
            let damaged = storage.copy();
            damaged.put(&name, bytes[..length].to_vec());
            assert_eq!(check(&damaged, &queries, &right, &format!("{name} cut to {length} bytes")), asked);
        }
        let damaged = storage.copy();
        damaged.put(&name, [&bytes[..], &[0]].concat());
        assert_eq!(check(&damaged, &queries, &right, &format!("{name} with a byte too many")), asked);
    }
}

#[test]
fn a_damaged_graph_is_noticed() {
    let storage = Simulated::default();
    let config = Config { dim: 12, links: 8, build_ef: 32, ..Config::default() };
    let index = Index::create_on(Arc::new(storage.clone()), config).unwrap();
    let mut writer = index.writer().unwrap();
    let all = embeddings(4_104, 12, 3);
    let (vectors, queries) = all.split_at(4_100);
    for (key, vector) in (0..).zip(vectors) {
        writer.add(key, vector).unwrap();
    }
    writer.compact().unwrap();
    let report = index.reader().unwrap().verify().unwrap();
    assert!(report.is_clean() && report.graphs == 1);
    let right = ask(&storage, queries).unwrap();
    let mut random = Random(4);
    let name = storage.names().into_iter().find(|name| name.ends_with(".seg")).unwrap();
    let bytes = storage.bytes(&name);
    let mut errors = 0;
    for _ in 0..120 {
        let at = random.below(bytes.len() as u64) as usize;
        let damaged = storage.copy();
        let mut bytes = bytes.clone();
        bytes[at] ^= 1 << random.below(8);
        damaged.put(&name, bytes);
        errors += usize::from(check(&damaged, queries, &right, &format!("byte {at} of {name}")));
    }
    assert!(errors > 0);
}

#[test]
fn a_missing_file_is_noticed() {
    let storage = small();
    for name in storage.names().into_iter().filter(|name| name != "MANIFEST") {
        let damaged = storage.copy();
        tintype_index::storage::Storage::remove(&damaged, &name).unwrap();
        match ask(&damaged, &[]) {
            Ok(_) if name.ends_with(".qry") => {
                let reader = Index::open_on(Arc::new(damaged)).unwrap().reader().unwrap();
                assert!(!reader.verify().unwrap().is_clean());
            }
            answer => assert!(matches!(answer, Err(Error::Corrupt { .. })), "{name}"),
        }
    }
}

#[test]
fn a_check_reads_again_what_was_sound_when_it_was_opened() {
    let dir = tempfile::tempdir().unwrap();
    let storage = small();
    for name in storage.names() {
        std::fs::write(dir.path().join(&name), storage.bytes(&name)).unwrap();
    }
    let reader = Index::open(dir.path()).unwrap().reader().unwrap();
    assert!(reader.verify().unwrap().is_clean());
    for name in storage.names() {
        let mut file = std::fs::File::options().write(true).open(dir.path().join(&name)).unwrap();
        let bytes = storage.bytes(&name);
        let mut put = |at: usize, byte: u8| {
            file.seek(SeekFrom::Start(at as u64)).unwrap();
            file.write_all(&[byte]).unwrap();
        };
        for (at, &byte) in bytes.iter().enumerate() {
            put(at, byte ^ 1);
            assert!(!reader.verify().unwrap().is_clean(), "byte {at} of {name}");
            put(at, byte);
        }
        assert!(reader.verify().unwrap().is_clean(), "{name}");
    }
}
