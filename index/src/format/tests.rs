//! FORMAT.md against the code: each table is read, and each of its fields looked up in bytes that the code wrote.

use std::collections::BTreeMap;

use super::*;
use crate::vectors::{Code, Records, Terms, write_links, write_record, write_twin};

/// The rows of the table under a heading: offset, size, field.
fn table(heading: &str) -> Vec<(usize, usize, String)> {
    let text = include_str!("../../FORMAT.md");
    let after = text.split(&format!("# {heading}\n")).nth(1).unwrap_or_else(|| panic!("no heading {heading}"));
    let lines = after.lines().skip_while(|l| !l.starts_with('|')).take_while(|l| l.starts_with('|'));
    let row = |line: &str| {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        (cells[1].parse().unwrap(), cells[2].parse().unwrap(), cells[4].to_owned())
    };
    lines.skip(2).map(row).collect()
}

/// Compares a table with bytes: the fields follow each other without a gap, and each holds what it should.
fn compare(heading: &str, bytes: &[u8], expected: &[(&str, Vec<u8>)]) {
    let mut expected: BTreeMap<&str, &[u8]> = expected.iter().map(|(field, bytes)| (*field, &bytes[..])).collect();
    let mut end = 0;
    for (offset, size, field) in table(heading) {
        assert_eq!(offset, end, "{heading}: {field} does not follow the field before it");
        end = offset + size;
        let zeros = vec![0; size];
        let expected = if field == "reserved" {
            &zeros
        } else {
            expected.remove(&field[..]).unwrap_or_else(|| panic!("{heading}: {field}?"))
        };
        assert_eq!(&bytes[offset..end], expected, "{heading}: {field}");
    }
    assert!(expected.is_empty(), "{heading}: not described: {expected:?}");
    assert_eq!(end, bytes.len(), "{heading}: length");
}

fn le<const N: usize>(bytes: [u8; N]) -> Vec<u8> {
    bytes.to_vec()
}

fn manifest() -> ManifestData {
    let entry = |id| SegmentEntry { id, count: 77, removed: 5, removed_id: 78, checksum: 0x0123_4567_89ab_cdef };
    ManifestData {
        config: Config { dim: 300, metric: Metric::L2, rows: Rows::F16, links: 40, build_ef: 150 },
        generation: 9,
        next_id: 80,
        segments: vec![entry(11), entry(12)],
        samples: SamplesEntry { id: 79, count: 3 },
    }
}

fn footer() -> Footer {
    let mut recall = [[0.5; CALIBRATED_EF.len()]; 2];
    recall[1][15] = 0.75;
    Footer {
        version: VERSION,
        dim: 300,
        metric: Metric::Dot,
        rows: Rows::F16,
        links: 24,
        count: 4000,
        centred: 3999,
        levels: [15, 250, 0, 0, 0, 0, 0, 0],
        sums_checksum: 0xfeed_beef,
        reach: 1.25,
        bias_mean: -0.5,
        bias_deviation: 0.0625,
        recall,
        samples: 79,
    }
}

#[test]
fn the_tables_of_format_md_are_what_the_code_writes() {
    let data = manifest();
    let bytes = data.encode();
    compare(
        "Manifest",
        &bytes[..MANIFEST_HEAD],
        &[
            ("magic", le(*b"TTMANIF\x01")),
            ("version", le(VERSION.to_le_bytes())),
            ("dim", le(300u32.to_le_bytes())),
            ("metric", vec![2]),
            ("rows", vec![1]),
            ("links", le(40u16.to_le_bytes())),
            ("build_ef", le(150u32.to_le_bytes())),
            ("generation", le(9u64.to_le_bytes())),
            ("next_id", le(80u64.to_le_bytes())),
            ("count", le(2u32.to_le_bytes())),
            ("samples", le(3u32.to_le_bytes())),
        ],
    );
    assert_eq!(bytes[bytes.len() - 16..bytes.len() - 8], 79u64.to_le_bytes());
    compare(
        "Manifest entry",
        &bytes[MANIFEST_HEAD..][..MANIFEST_ENTRY],
        &[
            ("id", le(11u64.to_le_bytes())),
            ("count", le(77u32.to_le_bytes())),
            ("removed", le(5u32.to_le_bytes())),
            ("removed_id", le(78u64.to_le_bytes())),
            ("checksum", le(0x0123_4567_89ab_cdefu64.to_le_bytes())),
        ],
    );
    let removed = encode_removed(77, &[1, 2]);
    let expected =
        [("magic", le(*b"TTREMOV\x01")), ("version", le(VERSION.to_le_bytes())), ("count", le(77u32.to_le_bytes()))];
    compare("Removed rows", &removed[..REMOVED_HEAD], &expected);
    assert_eq!(decode_removed(&removed, 77).unwrap(), [1, 2]);
    let samples = encode_samples(2, &[0.5, 1.0, -1.0, 2.0]);
    let expected = [
        ("magic", le(*b"TTQUERY\x01")),
        ("version", le(VERSION.to_le_bytes())),
        ("dim", le(2u32.to_le_bytes())),
        ("count", le(2u32.to_le_bytes())),
    ];
    compare("Sample queries", &samples[..SAMPLES_HEAD], &expected);
    assert_eq!(decode_samples(&samples, 2, 2).unwrap(), [0.5, 1.0, -1.0, 2.0]);
    assert!(decode_samples(&samples, 4, 1).is_err());

    let footer = footer();
    let bytes = footer.encode();
    let levels = footer.levels.iter().flat_map(|l| l.to_le_bytes()).collect();
    compare(
        "Footer",
        &bytes,
        &[
            ("magic", le(*b"TTSEGMT\x01")),
            ("version", le(VERSION.to_le_bytes())),
            ("dim", le(300u32.to_le_bytes())),
            ("metric", vec![1]),
            ("rows", vec![1]),
            ("links", le(24u16.to_le_bytes())),
            ("count", le(4000u32.to_le_bytes())),
            ("centred", le(3999u32.to_le_bytes())),
            ("reach", le(1.25f32.to_le_bytes())),
            ("levels", levels),
            ("sums_checksum", le(0xfeed_beefu64.to_le_bytes())),
            ("bias_mean", le((-0.5f32).to_le_bytes())),
            ("bias_deviation", le(0.0625f32.to_le_bytes())),
            ("recall", footer.recall.as_flattened().iter().flat_map(|r| r.to_le_bytes()).collect()),
            ("samples", le(79u64.to_le_bytes())),
            ("checksum", le(xxh3_64(&bytes[..FOOTER - 8]).to_le_bytes())),
        ],
    );
}

#[test]
fn the_record_of_format_md_is_what_the_code_writes() {
    let shape = Shape::new(100, 5);
    let mut record = vec![0; shape.stride];
    let bytes: Vec<u8> = (0..128u8).map(|at| at.wrapping_mul(37) ^ 0x5a).collect();
    let code = Code { bytes, scale: 0.5, bias: -2.0, error: 0.25, rough: Terms { scale: 0.75, bias: -2.0 } };
    write_record(&mut record, shape, 7, &code);
    write_twin(&mut record, shape, 3);
    write_links(&mut record, shape, &[9]);
    // The planes as the page describes them, by a second piece of code.
    let (mut lent, terms) = (0u32, 0.75f32.to_bits() >> 15 | (-2.0f32).to_bits());
    for at in 0..64 {
        let (first, second) = (code.bytes[at], code.bytes[64 + at]);
        let mut high = first / 16 + second / 16 * 16;
        if at < 32 {
            lent |= u32::from(high % 2) << at;
            high = high / 2 * 2 + (terms >> at) as u8 % 2;
        }
        assert_eq!((record[at], record[shape.stride - 64 + at]), (high, first % 16 + second % 16 * 16), "byte {at}");
    }
    let described: usize = table("Record").iter().map(|row| row.1).sum();
    compare(
        "Record",
        &record[shape.plane..][..described],
        &[
            ("key", le(7u64.to_le_bytes())),
            ("scale", le(0.5f32.to_le_bytes())),
            ("bias", le((-2.0f32).to_le_bytes())),
            ("error", le(0.25f32.to_le_bytes())),
            ("lent", le(lent.to_le_bytes())),
            ("twin", le(3u32.to_le_bytes())),
            ("count", le(1u32.to_le_bytes())),
            ("first_link", le(9u32.to_le_bytes())),
        ],
    );
    let records = Records::new(&record, shape, 1).unwrap();
    assert_eq!((records.key(0), records.scale(0), records.bias(0), records.error(0)), (7, 0.5, -2.0, 0.25));
    let mut read = Vec::new();
    records.code(0, &mut read);
    assert_eq!(read, code.bytes);
    let node = table("Node above level 0");
    assert_eq!(node.iter().map(|row| row.1).sum::<usize>(), UPPER_NODE);
    assert_eq!(node[2], (8, 4 * UPPER_LINKS, "links".into()));
}

#[test]
fn what_was_written_is_read_back() {
    assert_eq!(ManifestData::decode(&manifest().encode()).unwrap(), manifest());
    assert_eq!(Footer::decode(&[&[1, 2, 3], &footer().encode()[..]].concat()).unwrap(), footer());
}

#[test]
fn another_version_is_named_as_such() {
    let mut bytes = manifest().encode();
    for version in [0, VERSION as u8 + 1] {
        bytes[8] = version;
        let refused = ManifestData::decode(&bytes);
        assert!(matches!(refused, Err(Refusal::Version(found)) if found == u32::from(version)));
    }
}

#[test]
fn sections_lie_where_the_counts_say() {
    let layout = Layout::of(&footer()).unwrap();
    assert_eq!((layout.rows, layout.records), (1216, 1216 + 4000 * 600), "300 f32, aligned, and 4000 rows of f16");
    assert_eq!(layout.upper - layout.records, 4000 * footer().shape().stride);
    assert_eq!(footer().shape().stride, 448, "320 of code, 32 of terms, 96 of links");
    assert_eq!(layout.footer - layout.sums, 8 * layout.sums.div_ceil(BLOCK));
    let old = Layout::of(&Footer { version: 1, ..footer() }).unwrap();
    assert_eq!((old.records, old.rows - old.keys), (1216, 4000 * KEY_ENTRY), "rows at the end");
    assert_eq!((old.sums - old.rows, old.footer), (4000 * 600, layout.footer));
    let huge = Footer { count: u32::MAX / 2, dim: 4096, ..footer() };
    assert!(Layout::of(&huge).is_some_and(|l| l.footer > 1 << 40), "no overflow on 64 bits");
}
