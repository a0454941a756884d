//! From query to hits: the formula, the filters, the pages.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use proptest::prelude::*;
use tintype::image::{DecodeOptions, Photo};
use tintype::{Bounds, Condition, Encoder, Engine, Error, Filter, Hit, PixelBatch, Query, Ranking, Term};

use crate::colours::Colours;
use crate::ingest::photos::Photos;

/// A folder of pictures of two colours each, and a library of them.
struct Album {
    folder: tempfile::TempDir,
    _library: tempfile::TempDir,
    engine: Engine,
}

const COUNT: u32 = 40;

impl Album {
    fn new() -> Album {
        let (folder, library) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for n in 0..COUNT {
            let path =
                folder.path().join(if n.is_multiple_of(2) { "even" } else { "odd/deep" }).join(format!("{n}.png"));
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            let colour = |salt: u32| [0, 1, 2].map(|c: u32| ((n + 1) * (salt + 37 * c) % 251) as u8);
            let picture = image::RgbImage::from_fn(40 + n, 30, |x, y| {
                image::Rgb(colour(if (x + n) / 20 + y / 15 > 1 { 7 } else { 91 }))
            });
            picture.save(&path).unwrap();
            let day = SystemTime::UNIX_EPOCH + Duration::from_secs(1_600_000_000 + u64::from(n) * 86_400);
            std::fs::File::options().write(true).open(&path).unwrap().set_modified(day).unwrap();
        }
        let engine = Engine::open_or_create(library.path(), Encoder::new(Colours::new("colours"))).unwrap();
        let report = engine.ingest([folder.path()]).run().unwrap();
        assert_eq!((report.added, report.skipped.len()), (u64::from(COUNT), 0));
        Album { folder, _library: library, engine }
    }

    fn path(&self, n: u32) -> PathBuf {
        let folder = std::fs::canonicalize(self.folder.path()).unwrap();
        folder.join(if n.is_multiple_of(2) { "even" } else { "odd/deep" }).join(format!("{n}.png"))
    }

    fn vector(&self, path: &Path) -> Vec<f32> {
        let encoder = self.engine.encoder();
        let photo = Photo::decode(&std::fs::read(path).unwrap(), &DecodeOptions::default()).unwrap();
        let (height, width) = encoder.preprocess().size;
        let mut batch = PixelBatch::new(height, width);
        batch.push(&encoder.preprocess().apply(&photo).unwrap());
        encoder.encode_images(&batch).unwrap().as_slice().to_vec()
    }

    /// rclip's formula: the weighted sum of the normalised parts, not normalised, times each picture; pictures of the query
    /// are left out.
    fn by_formula(&self, query: &Query) -> Vec<(PathBuf, f64)> {
        let mut sum = vec![0.0; self.engine.encoder().space().dim];
        for part in &query.parts {
            let vector = match &part.term {
                Term::Text(text) => self.engine.encoder().encode_texts(&[text]).unwrap().as_slice().to_vec(),
                Term::Image(path) => self.vector(path),
                other => panic!("{other:?}"),
            };
            sum.iter_mut().zip(vector).for_each(|(sum, x)| *sum += f64::from(part.weight) * f64::from(x));
        }
        let own = |path: &PathBuf| query.parts.iter().any(|part| part.term == Term::Image(path.clone()));
        let score = |path: &Path| self.vector(path).iter().zip(&sum).map(|(x, y)| f64::from(*x) * y).sum();
        let mut all: Vec<(PathBuf, f64)> = (0..COUNT)
            .map(|n| self.path(n))
            .filter(|path| !own(path))
            .map(|path| (path.clone(), score(&path)))
            .collect();
        all.sort_by(|a, b| b.1.total_cmp(&a.1));
        all
    }
}

fn paths(hits: &[Hit]) -> Vec<&Path> {
    hits.iter().map(|hit| hit.path.as_path()).collect()
}

#[test]
fn hits_and_scores_are_those_of_the_formula() {
    let album = Album::new();
    let image = |n| Query::image(album.path(n));
    let queries = [
        Query::text("red"),
        image(3),
        Query::text("green").times(2.0).plus(image(5)).minus(Query::text("blue")),
        Query::text("white").minus(image(8).times(0.5)),
        image(1).times(1000.0).plus(image(2)).plus(image(2)),
        Query::text("red").times(-1.0),
    ];
    for query in queries {
        let hits = album.engine.search(query.clone()).limit(1000).run().unwrap();
        let expected = album.by_formula(&query);
        assert_eq!(hits.len(), expected.len(), "{query}");
        let scale: f64 = query.parts.iter().map(|part| f64::from(part.weight.abs())).sum();
        for (hit, (path, score)) in hits.iter().zip(&expected) {
            // Stored rows are rounded: neighbours nearer to each other than that may change places.
            let own = expected.iter().find(|(other, _)| *other == hit.path).unwrap().1;
            assert!((f64::from(hit.score) - own).abs() < 2e-3 * scale, "{query}: {} {own}", hit.score);
            assert!(hit.path == *path || (own - score).abs() < 2e-3 * scale, "{query}: {}", hit.path.display());
            assert_eq!(hit.path, hit.record.path);
        }
    }
}

#[test]
fn text_and_built_queries_are_the_same() {
    let album = Album::new();
    let text = format!("2:green - image:\"{}\" path:even", album.path(4).display());
    let built = Query::text("green").times(2.0).minus(Query::image(album.path(4)));
    let built = built.filter(Filter::new().and(Condition::Path(vec!["even".into()])));
    let (a, b) = (album.engine.search(text.as_str()).run().unwrap(), album.engine.search(built).run().unwrap());
    assert_eq!(paths(&a), paths(&b));
    assert_eq!(a.len(), 19);
}

#[test]
fn photos_of_the_library_can_be_named() {
    let album = Album::new();
    let record = album.engine.record(album.path(6)).unwrap().unwrap();
    let by_image = album.engine.search(Query::image(album.path(6))).run().unwrap();
    for query in [
        Query::like(record.key),
        Query::like_path(album.path(6)),
        Query::like_path("even/6.png"),
        Query::like_path("6.png"),
    ] {
        let hits = album.engine.search(query.clone()).run().unwrap();
        assert_eq!(paths(&hits)[..5], paths(&by_image)[..5], "{query}");
        assert!(hits.iter().all(|hit| hit.path != album.path(6)));
    }
    let bytes = std::fs::read(album.path(6)).unwrap();
    let hits = album.engine.search(Query::image_bytes(bytes)).run().unwrap();
    assert_eq!(hits[0].path, album.path(6), "bytes are nobody's photo");
    let vector = album.vector(&album.path(6)).iter().map(|x| x * 50.0).collect::<Vec<_>>();
    assert_eq!(album.engine.search(Query::vector(vector)).limit(1).run().unwrap()[0].path, album.path(6));
    for (query, part) in [
        (Query::like(12345), "12345"),
        (Query::like_path("nowhere.png"), "nowhere.png"),
        (Query::like_path("deep/*.png"), "deep/*.png"),
        (Query::vector(vec![1.0]), "1 numbers"),
        (Query::vector(vec![0.0; 49]), "without direction"),
        (Query::vector(vec![f32::NAN; 49]), "without direction"),
        (Query::text("red").times(f32::INFINITY), "no weight"),
        (Query::text("red").minus(Query::text("red")), "cancel"),
    ] {
        let error = album.engine.search(query.clone()).run().unwrap_err();
        assert!(matches!(error, Error::BadQuery { .. }) && error.to_string().contains(part), "{query}: {error}");
    }
}

#[test]
fn a_picture_that_cannot_be_read_is_named() {
    let album = Album::new();
    let broken = album.folder.path().join("broken.jpg");
    std::fs::write(&broken, b"\xff\xd8\xff\xe0 and so on").unwrap();
    for path in [broken, album.folder.path().join("none.jpg")] {
        let error = album.engine.search(Query::image(&path)).run().unwrap_err();
        assert!(error.to_string().starts_with(&path.display().to_string()), "{error}");
    }
}

#[test]
fn pages_join_without_gaps() {
    let album = Album::new();
    let filter = Filter::new()
        .and(Condition::Path(vec!["odd".into()]))
        .and(Condition::Width(Bounds { min: Some(45), max: None }));
    for query in [Query::text("green").filter(filter.clone()), Query::from(filter)] {
        let all = album.engine.search(query.clone()).limit(usize::MAX).run().unwrap();
        assert_eq!(all.len(), 18, "{query}");
        let mut joined = Vec::new();
        for offset in (0..30).step_by(7) {
            joined.extend(album.engine.search(query.clone()).offset(offset).limit(7).run().unwrap());
        }
        assert_eq!(paths(&joined), paths(&all));
        assert!(album.engine.search(query.clone()).limit(0).run().unwrap().is_empty());
        assert!(album.engine.search(query).offset(usize::MAX).limit(usize::MAX).run().unwrap().is_empty());
    }
}

#[test]
fn fused_scores_do_not_depend_on_how_many_are_asked_for() {
    let photos = Photos::new();
    // More than are fused; the shorter a name, the better the words rank it, whatever the picture.
    for n in 0..1200 {
        photos.write(&format!("red{} {n}.png", " thing".repeat(n as usize * 7919 % 31)), n);
    }
    let engine = photos.engine();
    engine.ingest([photos.dir()]).run().unwrap();
    let best = |limit| engine.search("red").ranking(Ranking::Hybrid).limit(limit).keys().unwrap();
    let all = best(2000);
    assert_eq!(all.len(), 1200, "what no ranking has among its best follows");
    assert!(all.is_sorted_by(|a, b| a.1 >= b.1));
    for limit in [20, 900, 1100] {
        assert_eq!(best(limit), all[..limit]);
    }
}

#[test]
fn a_least_score_cuts_and_keeps_the_offset() {
    let album = Album::new();
    let all = album.engine.search("red").limit(100).run().unwrap();
    let least = all[10].score;
    let cut = album.engine.search("red").limit(100).min_score(least).run().unwrap();
    assert!(cut.len() >= 11 && cut.len() < all.len());
    assert!(cut.iter().all(|hit| hit.score >= least));
    let rest = album.engine.search("red").limit(100).offset(4).min_score(least).run().unwrap();
    assert_eq!(paths(&rest), paths(&cut[4..]));
    assert!(album.engine.search("red").offset(20).min_score(least).run().unwrap().is_empty());
}

#[test]
fn filters_alone_list_the_newest_first() {
    let album = Album::new();
    let hits = album.engine.search("path:even before:2020-09-20").limit(3).min_score(0.9).run().unwrap();
    assert_eq!(paths(&hits), [album.path(6), album.path(4), album.path(2)], "day 7 is the 20th of September");
    assert!(hits.iter().all(|hit| hit.score == 0.0));
    assert_eq!(album.engine.search("").limit(1).run().unwrap()[0].path, album.path(39));
}

#[test]
fn a_scope_is_a_folder_or_a_file() {
    let album = Album::new();
    let under = |paths: &[PathBuf]| album.engine.search("green").under(paths).limit(100).run().unwrap().len();
    assert_eq!(under(&[]), 40);
    assert_eq!(under(&[album.folder.path().join("odd")]), 20);
    assert_eq!(under(&[album.folder.path().join("odd/../even/.")]), 20);
    assert_eq!(under(&[album.folder.path().join("ev")]), 0);
    assert_eq!(under(&[album.path(1), album.path(2), album.path(2)]), 2);
    let text = format!(
        "green in:\"{}\" -in:\"{}\"",
        album.folder.path().display(),
        album.folder.path().join("even").display()
    );
    assert_eq!(album.engine.search(text.as_str()).limit(100).run().unwrap().len(), 20);
}

#[test]
fn plain_searches_see_what_others_commit() {
    let album = Album::new();
    let count = |engine: &Engine| engine.search("green").limit(100).run().unwrap().len();
    let other = Engine::open(album._library.path(), album.engine.encoder()).unwrap();
    for engine in [&album.engine, &other] {
        assert_eq!((count(engine), count(engine)), (40, 40));
    }
    std::fs::copy(album.path(1), album.folder.path().join("copy.png")).unwrap();
    assert_eq!(other.ingest([album.folder.path()]).run().unwrap().added, 1);
    assert_eq!((count(&album.engine), count(&other)), (41, 41));
    std::fs::remove_file(album.path(0)).unwrap();
    std::fs::remove_file(album.path(2)).unwrap();
    album.engine.ingest([album.folder.path()]).run().unwrap();
    assert_eq!((count(&album.engine), count(&other)), (39, 39));
}

#[test]
fn less_recall_than_all_is_allowed_and_must_be_a_share() {
    let album = Album::new();
    let all = album.engine.search("green").limit(10).run().unwrap();
    let some = album.engine.search("green").limit(10).recall(0.5).run().unwrap();
    assert_eq!(paths(&some), paths(&all), "so few are scanned, whatever is asked");
    assert!(matches!(album.engine.search("green").recall(1.5).run(), Err(Error::Index(_))));
}

#[test]
fn mistakes_in_the_text_come_out_of_run() {
    let album = Album::new();
    let Err(Error::BadQuery { span, .. }) = album.engine.search("red camrea:nikon").run() else { panic!() };
    assert_eq!(span, 4..10);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever the filter, the hits are the best of those that pass it, none missing and none twice.
    #[test]
    fn filtered_answers_are_exact(widths in prop::collection::vec((40u64..90, 0u64..40), 8), limit in 1usize..12) {
        let album = Album::new();
        let all = album.engine.search("green").limit(1000).run().unwrap();
        for (min, span) in widths {
            let bounds = Bounds { min: Some(min), max: Some(min + span) };
            let query = Query::text("green").filter(Filter::new().and(Condition::Width(bounds)));
            let hits = album.engine.search(query).limit(limit).run().unwrap();
            let expected: Vec<&Path> =
                all.iter().filter(|hit| bounds.contains(hit.record.width.into())).take(limit).map(|hit| hit.path.as_path()).collect();
            prop_assert_eq!(paths(&hits), expected);
        }
    }
}
