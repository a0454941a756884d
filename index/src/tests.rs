//! Tests that need files which the public interface does not write: small graphs, other people's bytes.

use std::path::{Path, PathBuf};

use crate::compose::{Composer, Pending};
use crate::format::{self, BLOCK, FOOTER, Footer, Layout, MANIFEST, ManifestData, SamplesEntry, SegmentEntry};
use crate::kernel::Kernels;
use crate::manifest;
use crate::samples::Samples;
use crate::storage::Directory;
use crate::{Config, Error, Index, Key, Metric, Neighbor, Result};

const DIM: usize = 5;
/// Vectors in the graph of the fixture.
const FIXTURE: u32 = 300;

fn config() -> Config {
    Config { dim: DIM, metric: Metric::Cosine, links: 4, build_ef: 16, ..Config::default() }
}

struct Random(u64);

impl Random {
    fn word(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn vector(&mut self) -> Vec<f32> {
        (0..DIM).map(|_| (self.word() >> 40) as f32 / (1u64 << 24) as f32 - 0.4).collect()
    }
}

/// An index of one graph of `count` vectors, some of them equal, and one small segment; a row is removed.
fn write_index(dir: &Path, count: u32) -> Index {
    let index = Index::create(dir, config()).unwrap();
    let storage = Directory::new(dir);
    let mut random = Random(5);
    let mut pending = Pending::default();
    for key in 0..u64::from(count) {
        let vector = if key % 10 == 9 { vec![1.0, 0.0, 0.0, 0.0, 0.5] } else { random.vector() };
        pending.keys.push(key * 7);
        pending.numbers.extend(Metric::Cosine.admit(&vector, DIM).unwrap());
    }
    let config = config();
    // The portable kernels, so that the bytes do not depend on where the test runs.
    let kernels = Kernels::all()[0];
    let composer = Composer { storage: &storage, config: &config, kernels, samples: (&Samples::default(), 0) };
    let (segment, file) =
        composer.compose(1, &pending, 9, None, &mut |_, _| std::ops::ControlFlow::Continue(())).unwrap();
    file.sync().unwrap();
    assert!(segment.levels().count() > 0);
    let entry = SegmentEntry { id: 1, count, removed: 0, removed_id: 0, checksum: segment.checksum };
    let data =
        ManifestData { config, generation: 1, next_id: 2, segments: vec![entry], samples: SamplesEntry::default() };
    manifest::publish(&storage, &data).map_err(|f| f.error).unwrap();
    let mut writer = index.writer().unwrap();
    for key in 5_000..5_010 {
        writer.add(key, &random.vector()).unwrap();
    }
    writer.remove(7).unwrap();
    writer.commit().unwrap();
    index
}

/// What was found, by walks through a graph and exactly.
#[derive(Debug, Default, PartialEq)]
struct Answers {
    walked: Vec<Vec<Neighbor>>,
    exact: Vec<Vec<Neighbor>>,
    keys: Vec<Key>,
}

fn ask(index: &Index, seed: u64) -> Result<Answers> {
    let reader = index.reader()?;
    let mut random = Random(seed);
    let mut answers = Answers::default();
    for _ in 0..4 {
        let query = random.vector();
        answers.walked.push(reader.search(&query).k(1).ef(2).run()?);
        answers.walked.push(reader.search(&query).k(2).ef(2).filter(|key: Key| key.is_multiple_of(2)).run()?);
        answers.walked.push(reader.search(&query).k(3).run()?);
        answers.exact.push(reader.search(&query).k(3).recall(1.0).run()?);
    }
    answers.keys = reader.keys().collect::<Result<_>>()?;
    Ok(answers)
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

/// `cargo test -p tintype-index --lib write_the_fixture -- --ignored`, once per version of the format.
#[test]
#[ignore = "writes tests/fixtures"]
fn write_the_fixture() {
    let dir = fixture(&format!("version-{}", format::VERSION));
    write_index(&dir, FIXTURE);
    std::fs::remove_file(dir.join(crate::storage::LOCK)).unwrap();
}

#[test]
fn files_of_every_version_are_read_as_ever() {
    let temporary = tempfile::tempdir().unwrap();
    let today = write_index(temporary.path(), FIXTURE);
    let answers = ask(&today, 3).unwrap();
    for version in 1..=format::VERSION {
        let dir = fixture(&format!("version-{version}"));
        let index = Index::open(&dir).unwrap();
        let reader = index.reader().unwrap();
        assert_eq!((reader.generation(), reader.len()), (2, 309));
        assert!(!reader.contains(7).unwrap() && reader.contains(14).unwrap() && reader.contains(5_009).unwrap());
        let report = reader.verify().unwrap();
        assert!(report.is_clean() && report.graphs == 1 && report.segments == 2, "{report:?}");
        let found = reader.search(&[1.0, 0.0, 0.0, 0.0, 0.5]).k(30).recall(1.0).run().unwrap();
        assert!(found.iter().all(|n| (n.score - 1.0).abs() < 1e-6 && n.key % 70 == 63), "the thirty equal ones");
        let found = ask(&index, 3).unwrap();
        assert_eq!((&found.exact, &found.keys), (&answers.exact, &answers.keys), "version {version}");
        // Another graph, or the same one by other codes: what is found is as near, nearly always.
        let best = |answers: &Answers| answers.walked.iter().map(|found| found[0].score).sum::<f32>();
        assert!((best(&found) - best(&answers)).abs() < 0.1, "version {version}: {found:?} {answers:?}");
    }
    let (then, now) = (fixture(&format!("version-{}", format::VERSION)), temporary.path());
    for id in [1, 2] {
        let bytes = |dir: &Path| std::fs::read(dir.join(format::segment_name(id))).unwrap();
        assert!(bytes(&then) == bytes(now), "the same bytes are written today");
    }
}

#[test]
fn an_index_of_an_older_version_goes_on_as_one_of_today() {
    (1..format::VERSION).for_each(goes_on);
}

fn goes_on(version: u32) {
    let dir = tempfile::tempdir().unwrap();
    for file in std::fs::read_dir(fixture(&format!("version-{version}"))).unwrap() {
        let path = file.unwrap().path();
        std::fs::copy(&path, dir.path().join(path.file_name().unwrap())).unwrap();
    }
    let index = Index::open(dir.path()).unwrap();
    let mut writer = index.writer().unwrap();
    writer.add(9_000, &[0.0, 1.0, 0.0, 0.0, 0.0]).unwrap();
    writer.commit().unwrap();
    let scored = |index: &Index| index.reader().unwrap().search(&[0.0, 1.0, 0.1, 0.0, 0.0]).recall(1.0).run().unwrap();
    let both = scored(&index);
    assert_eq!(both[0].key, 9_000);
    writer.compact().unwrap();
    assert_eq!(scored(&index), both);
    let report = index.reader().unwrap().verify().unwrap();
    assert!(report.is_clean() && report.segments == 1 && report.vectors == 310, "{report:?}");
}

/// Changes bytes of a segment and makes every checksum right again, as somebody would who means harm.
fn forge(dir: &Path, change: impl FnOnce(&mut [u8], &Layout)) {
    let manifest = dir.join(MANIFEST);
    let mut data = ManifestData::decode(&std::fs::read(&manifest).unwrap()).unwrap();
    let path = dir.join(format::segment_name(1));
    let mut bytes = std::fs::read(&path).unwrap();
    let mut footer = Footer::decode(&bytes).unwrap();
    let layout = Layout::of(&footer).unwrap();
    change(&mut bytes[..layout.sums], &layout);
    let sums: Vec<u8> =
        bytes[..layout.sums].chunks(BLOCK).flat_map(|b| xxhash_rust::xxh3::xxh3_64(b).to_le_bytes()).collect();
    footer.sums_checksum = xxhash_rust::xxh3::xxh3_64(&sums);
    bytes[layout.sums..layout.footer].copy_from_slice(&sums);
    let footer = footer.encode();
    bytes.truncate(bytes.len() - FOOTER);
    bytes.extend(&footer);
    data.segments[0].checksum = Footer::checksum(&footer);
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, bytes).unwrap();
    std::fs::write(&manifest, data.encode()).unwrap();
}

#[test]
fn forged_bytes_under_right_checksums_do_no_harm() {
    let original = tempfile::tempdir().unwrap();
    // So many that a walk is cheaper than a scan.
    write_index(original.path(), 1_500);
    let files: Vec<_> = std::fs::read_dir(original.path()).unwrap().map(|e| e.unwrap().path()).collect();
    let mut random = Random(77);
    let mut noticed = 0;
    for round in 0..150 {
        let dir = tempfile::tempdir().unwrap();
        for file in &files {
            std::fs::copy(file, dir.path().join(file.file_name().unwrap())).unwrap();
        }
        forge(dir.path(), |bytes, layout| {
            // Records, upper nodes and keys in turn; single bytes, or whole words that are too large.
            let section =
                [layout.records..layout.upper, layout.upper..layout.keys, layout.keys..layout.sums][round % 3].clone();
            for _ in 0..1 + random.word() % 40 {
                let at = section.start + random.word() as usize % section.len();
                let end = (at + if random.word().is_multiple_of(2) { 1 } else { 4 }).min(section.end);
                bytes[at..end].fill(if random.word().is_multiple_of(3) { 0xff } else { random.word() as u8 });
            }
        });
        let index = Index::open(dir.path()).unwrap();
        // Any answer is allowed, and any error; a panic, an endless loop or a huge allocation is not.
        match ask(&index, round as u64) {
            Ok(_) | Err(Error::Corrupt { .. }) => {}
            Err(e) => panic!("{e:?}"),
        }
        let reader = index.reader();
        noticed += usize::from(reader.is_err() || !reader.unwrap().verify().unwrap().is_clean());
        // A writer must come through too: it merges, and takes the graph over.
        if let Ok(mut writer) = index.writer() {
            let _ = writer.remove(21).and_then(|_| writer.compact());
        }
    }
    assert!(noticed > 100, "{noticed}");
}
