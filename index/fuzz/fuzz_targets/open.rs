//! Damaged and forged files: opening, verifying, searching and writing must come through with an answer or an error.
//!
//! A small index with graphs, small segments, removed rows and sample queries is made once. An input is a list of edits of its files. Where the
//! checksums are left alone, every answer must be the right one or an error. Where they are made right again, as somebody would who
//! means harm, any answer is allowed; a panic, an endless loop, a huge allocation or undefined behaviour is not.
#![no_main]

#[allow(dead_code, reason = "shared with the tests")]
#[path = "../../tests/simulated.rs"]
mod simulated;
#[allow(dead_code, reason = "shared with the tests")]
#[path = "../../tests/support.rs"]
mod support;

use std::sync::{Arc, LazyLock};

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use tintype_index::{Config, Error, Index, Key, KeySet, Metric, Neighbor, Result, Rows};
use xxhash_rust::xxh3::xxh3_64;

use simulated::Simulated;
use support::{Random, embeddings};

const DIM: usize = 3;
const MANIFEST: &str = "MANIFEST";

#[derive(Arbitrary, Debug)]
enum Place {
    Anywhere(u32),
    /// From the front, where headers are.
    Front(u8),
    /// From the end, where footers and checksums are.
    End(u16),
}

#[derive(Arbitrary, Debug)]
enum Edit {
    Flip(Place, u8),
    Byte(Place, u8),
    Word(Place, u32),
    /// The largest word and those around it, small words.
    Edge(Place, i8),
    Long(Place, u64),
    Move {
        from: Place,
        to: Place,
        length: u8,
    },
    Fill(Place, u8, u16),
    Cut(Place),
    Extend(u8, u16),
    Swap(u8),
    Remove,
}

#[derive(Arbitrary, Debug)]
struct Input {
    base: u8,
    /// Which file, and what is done to it.
    edits: Vec<(u8, Edit)>,
    /// Whether checksums are made right again.
    forge: bool,
    /// Whether a writer goes over it too; the most expensive part by far.
    write: Option<u16>,
    compact: bool,
}

/// Everything that can be asked of an index, in one value.
#[derive(Debug, PartialEq)]
struct Answers {
    keys: Vec<Key>,
    vectors: Vec<Option<Vec<f32>>>,
    found: Vec<Vec<Neighbor>>,
}

struct Base {
    storage: Simulated,
    queries: Vec<Vec<f32>>,
    right: Answers,
}

static BASES: LazyLock<Vec<Base>> = LazyLock::new(|| {
    // No graph; one graph and a small segment; two graphs, of which one lost many of its vectors.
    let sizes = [&[20usize, 9, 3][..], &[300, 5], &[400, 150, 3]];
    let bases = sizes.iter().zip([Metric::Cosine, Metric::L2, Metric::Dot]).zip([Rows::F32, Rows::F16, Rows::F32]);
    bases.map(|((sizes, metric), rows)| base(sizes, metric, rows)).collect()
});

fn base(sizes: &[usize], metric: Metric, rows: Rows) -> Base {
    let storage = Simulated::default();
    let config = Config { dim: DIM, metric, rows, links: 4, build_ef: 8, ..Config::default() };
    let index = Index::create_on(Arc::new(storage.clone()), config).expect("an empty index");
    let mut writer = index.writer().expect("a writer");
    let mut key = 0;
    for &size in sizes {
        for mut vector in embeddings(size, DIM, key) {
            if key % 9 == 4 {
                vector = vec![1.0, 2.0, 3.0];
            }
            writer.add(key * 3, &vector).expect("a vector");
            key += 1;
        }
        writer.commit().expect("a commit");
    }
    for key in (0..key).filter(|key| key % 7 == 3) {
        writer.remove(key * 3).expect("a key");
    }
    writer.set_sample_queries(&embeddings(5, DIM, 77)).expect("samples");
    writer.commit().expect("a commit");
    drop(writer);
    // Without the files that came and went.
    let files: Vec<_> = storage.names().into_iter().map(|name| (storage.bytes(&name), name)).collect();
    let storage = Simulated::default();
    files.into_iter().for_each(|(bytes, name)| storage.put(&name, bytes));
    let queries = embeddings(3, DIM, 99);
    let right = ask(&storage, &queries).expect("nothing is damaged");
    Base { storage, queries, right }
}

fn ask(storage: &Simulated, queries: &[Vec<f32>]) -> Result<Answers> {
    let reader = Index::open_on(Arc::new(storage.clone()))?.reader()?;
    let mut keys = reader.keys().collect::<Result<Vec<_>>>()?;
    keys.sort_unstable();
    let vectors = keys.iter().take(40).map(|&key| reader.get(key)).collect::<Result<_>>()?;
    let mut found = Vec::new();
    let few: KeySet = (0..60).step_by(6).collect();
    let many: KeySet = (0..2000).step_by(2).collect();
    for query in queries {
        found.push(reader.search(query).k(5).ef(4).run()?);
        found.push(reader.search(query).k(5).ef(4).filter(|key| key % 2 == 0).run()?);
        found.push(reader.search(query).k(2).ef(2).filter(|key| key % 50 == 0).run()?);
        found.push(reader.search(query).k(7).recall(0.9).among(&few).run()?);
        found.push(reader.search(query).k(7).ef(3).among(&many).run()?);
        found.push(reader.search(query).k(3).recall(1.0).run()?);
        found.push(reader.search(query).k(10_000).run()?);
    }
    if let Some(&key) = keys.get(keys.len() / 2) {
        found.push(reader.search_key(key)?.k(4).ef(4).run()?);
    }
    found.extend(reader.search_batch(queries).k(3).run()?);
    Ok(Answers { keys, vectors, found })
}

fn at(place: &Place, length: usize) -> usize {
    match *place {
        Place::Anywhere(at) => at as usize % length,
        Place::Front(at) => at as usize % length,
        Place::End(at) => length - 1 - at as usize % length,
    }
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    let room = &mut bytes[at..];
    let length = room.len().min(value.len());
    room[..length].copy_from_slice(&value[..length]);
}

fn edit(storage: &Simulated, file: u8, edit: &Edit) {
    let names = storage.names();
    let Some(name) = names.get(file as usize % names.len().max(1)) else { return };
    let mut bytes = storage.bytes(name);
    if bytes.is_empty() {
        return;
    }
    let length = bytes.len();
    match edit {
        Edit::Flip(place, bit) => bytes[at(place, length)] ^= 1 << (bit % 8),
        Edit::Byte(place, value) => bytes[at(place, length)] = *value,
        Edit::Word(place, value) => put(&mut bytes, at(place, length) / 4 * 4, &value.to_le_bytes()),
        Edit::Edge(place, value) => put(&mut bytes, at(place, length) / 4 * 4, &i32::from(*value).to_le_bytes()),
        Edit::Long(place, value) => put(&mut bytes, at(place, length) / 8 * 8, &value.to_le_bytes()),
        Edit::Move { from, to, length: moved } => {
            let from = at(from, length);
            let piece = bytes[from..length.min(from + usize::from(*moved))].to_vec();
            put(&mut bytes, at(to, length), &piece);
        }
        Edit::Fill(place, value, filled) => {
            let at = at(place, length);
            bytes[at..length.min(at + usize::from(*filled))].fill(*value);
        }
        Edit::Cut(place) => bytes.truncate(at(place, length)),
        Edit::Extend(value, more) => bytes.extend(std::iter::repeat_n(*value, usize::from(*more))),
        Edit::Swap(other) => {
            let other = &names[usize::from(*other) % names.len()];
            storage.put(name, storage.bytes(other));
            storage.put(other, bytes);
            return;
        }
        Edit::Remove => {
            let _ = tintype_index::storage::Storage::remove(storage, name);
            return;
        }
    }
    storage.put(name, bytes);
}

fn word(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

fn seal(bytes: &mut [u8]) {
    if let Some(body) = bytes.len().checked_sub(8) {
        let sum = xxh3_64(&bytes[..body]);
        bytes[body..].copy_from_slice(&sum.to_le_bytes());
    }
}

/// Makes every checksum right for what the files say now (FORMAT.md).
fn forge(storage: &Simulated) {
    for name in storage.names() {
        let mut bytes = storage.bytes(&name);
        if name.ends_with(".seg") && bytes.len() > 256 {
            let end = bytes.len() - 256;
            // The checked bytes, and eight more for every 4096 of them.
            let checked = (0..=end).rev().step_by(8).find(|checked| checked + 8 * checked.div_ceil(4096) <= end);
            let checked = checked.unwrap_or(0);
            let sums: Vec<u8> = bytes[..checked].chunks(4096).flat_map(|b| xxh3_64(b).to_le_bytes()).collect();
            put(&mut bytes[checked..end], 0, &sums);
            let sum = xxh3_64(&bytes[checked..end]);
            put(&mut bytes, end + 64, &sum.to_le_bytes());
            seal(&mut bytes[end..]);
        } else {
            seal(&mut bytes);
        }
        storage.put(&name, bytes);
    }
    if !storage.names().iter().any(|name| name == MANIFEST) {
        return;
    }
    let mut manifest = storage.bytes(MANIFEST);
    let mut at = 48;
    while at + 32 + 8 <= manifest.len() {
        let name = word(&manifest, at).map(|id| format!("{id:012}.seg")).unwrap_or_default();
        if storage.names().contains(&name) {
            let bytes = storage.bytes(&name);
            let sum = bytes[bytes.len().saturating_sub(8)..].to_vec();
            put(&mut manifest, at + 24, &sum);
        }
        at += 32;
    }
    seal(&mut manifest);
    storage.put(MANIFEST, manifest);
}

fn write(storage: &Simulated, seed: u64, compact: bool) -> Result<()> {
    let index = Index::open_on(Arc::new(storage.clone()))?;
    if index.config().dim > 64 || index.config().build_ef > 64 {
        // Right, but slow.
        return Ok(());
    }
    let mut random = Random(seed);
    let mut writer = index.writer()?;
    for _ in 0..random.below(90) {
        let key = random.below(900);
        if random.below(3) == 0 {
            writer.remove(key)?;
        } else {
            writer.add(key, &random.vector(index.config().dim))?;
        }
    }
    writer.commit()?;
    if compact {
        writer.compact()?;
    }
    index.reader()?.verify()?;
    Ok(())
}

fuzz_target!(|input: Input| {
    let base = &BASES[usize::from(input.base) % BASES.len()];
    let storage = base.storage.copy();
    input.edits.iter().take(32).for_each(|(file, one)| edit(&storage, *file, one));
    if input.forge {
        forge(&storage);
    }
    match ask(&storage, &base.queries) {
        Ok(answers) if !input.forge => assert_eq!(answers, base.right, "a wrong answer"),
        Err(Error::Io { source, .. }) => panic!("the storage never fails: {source}"),
        _ => {}
    }
    if let Ok(reader) = Index::open_on(Arc::new(storage.clone())).and_then(|index| index.reader()) {
        let _ = reader.verify();
    }
    if let Some(seed) = input.write {
        let _ = write(&storage, seed.into(), input.compact);
    }
});
