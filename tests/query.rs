//! The query language: what is read, what is refused and where, and that it reads back.

use std::path::Path;

use jiff::civil::date;
use proptest::prelude::*;
use tintype::query::Parser;
use tintype::{Bounds, Condition, Error, Filter, Part, Place, Query, Term};

const FILES: [&str; 8] = [
    "pool.jpg",
    "../pool.jpg",
    "./pool",
    "/photos/my pool.jpg",
    "/home/me/pool.jpg",
    "my holiday.jpg",
    r"C:\pool.jpg",
    "/photos/ü.jpg",
];

fn parse(text: &str) -> tintype::Result<Query> {
    Parser::new().home("/home/me").files(|path| FILES.iter().any(|file| Path::new(file) == path)).parse(text)
}

/// The canonical text of what was read.
fn read(text: &str) -> String {
    parse(text).unwrap_or_else(|error| panic!("{text}: {error}")).to_string()
}

/// The message, and the part of the text that it points at.
fn refused(text: &str) -> (String, &str) {
    match parse(text) {
        Err(Error::BadQuery { message, span }) => (message, &text[span]),
        other => panic!("{text}: {other:?}"),
    }
}

#[test]
fn words_are_one_part() {
    assert_eq!(read(""), "");
    assert_eq!(read("  a dog\ton the  beach "), r#""a dog on the beach""#);
    assert_eq!(read(r#"photo of a "red car" at night"#), r#""photo of a red car at night""#);
    assert_eq!(read(r#"a 5" nail"#), r#""a 5\" nail""#);
    assert_eq!(read(r#""say \"hi\" \\ \n""#), r#""say \"hi\" \\ \\n""#);
}

#[test]
fn signs_alone_begin_parts_and_signs_before_words_take_one() {
    assert_eq!(
        read("golden retriever + green pool - fruit bowl"),
        r#""golden retriever" + "green pool" - "fruit bowl""#
    );
    assert_eq!(read("a dog on the beach -leash"), r#""a dog on the beach" - "leash""#);
    assert_eq!(read("a dog -leash on the beach"), r#""a dog on the beach" - "leash""#);
    assert_eq!(read(r#"dog -"red leash" +snow"#), r#""dog" - "red leash" + "snow""#);
    assert_eq!(read("dog \u{2212} fruit"), r#""dog" - "fruit""#);
    assert_eq!(read("- fruit"), r#"- "fruit""#);
}

#[test]
fn hyphens_that_are_no_signs_stay_in_words() {
    assert_eq!(read("black-and-white photo -> art -5 degrees --"), r#""black-and-white photo -> art -5 degrees --""#);
}

#[test]
fn weights_weigh_the_words_after_them() {
    assert_eq!(read("2:golden retriever + .5:dog - 2.:cat"), r#"2:"golden retriever" + 0.5:"dog" - 2:"cat""#);
    assert_eq!(read("2: golden retriever"), r#"2:"golden retriever""#);
    assert_eq!(read(r#"2:"golden retriever" puppy"#), r#"2:"golden retriever" + "puppy""#);
    assert_eq!(read("dog 2:cat on a mat"), r#""dog" + 2:"cat on a mat""#);
    assert_eq!(read("dog -2:fruit bowl"), r#""dog bowl" - 2:"fruit""#);
    assert_eq!(read("dog - 2:fruit bowl"), r#""dog" - 2:"fruit bowl""#);
    assert_eq!(read(r#"2:"golden retriever" + ./pool - fruit"#), r#"2:"golden retriever" + image:"./pool" - "fruit""#);
}

#[test]
fn times_ratios_and_titles_are_words() {
    for text in
        ["a clock at 10:30", "10:30", "3:2 aspect ratio", "1.5:1 crop", "chapter 2: the dog", "Paris: the river"]
    {
        assert_eq!(read(text), format!("{text:?}"));
    }
}

#[test]
fn names_of_files_are_pictures() {
    assert_eq!(read("pool.jpg"), r#"image:"pool.jpg""#);
    assert_eq!(read("../pool.jpg"), r#"image:"../pool.jpg""#);
    assert_eq!(read("~/pool.jpg"), r#"image:"/home/me/pool.jpg""#);
    assert_eq!(read(r"C:\pool.jpg"), r#"image:"C:\\pool.jpg""#);
    assert_eq!(read("my holiday.jpg + dog"), r#"image:"my holiday.jpg" + "dog""#);
    assert_eq!(read("dog - 3:/photos/my pool.jpg"), r#""dog" - 3:image:"/photos/my pool.jpg""#);
    assert_eq!(read(r#"/photos/"my pool.jpg""#), r#"image:"/photos/my pool.jpg""#);
    assert_eq!(read("file:///photos/my%20pool.jpg"), r#"image:"/photos/my pool.jpg""#);
    assert_eq!(read("file:///photos/%C3%BC.jpg"), r#"image:"/photos/ü.jpg""#);
    assert_eq!(read(r#"image:"my holiday.jpg""#), r#"image:"my holiday.jpg""#);
    assert_eq!(read("a dog ./pool on grass"), r#""a dog on grass" + image:"./pool""#);
}

#[test]
fn words_that_only_look_like_files_are_words() {
    assert_eq!(read(r#""pool.jpg""#), r#""pool.jpg""#);
    assert_eq!(read("a photo called pool.jpg"), r#""a photo called pool.jpg""#);
    assert_eq!(read("pool"), r#""pool""#);
    assert_eq!(read("black/white"), r#""black/white""#);
    assert_eq!(read("St. Moritz"), r#""St. Moritz""#);
}

#[test]
fn likeness_names_photos_of_the_library() {
    assert_eq!(
        parse("like:#17 - 2:like:Holidays/x.jpg").unwrap(),
        Query::like(17).minus(Query::like_path("Holidays/x.jpg").times(2.0))
    );
}

#[test]
fn filters_stand_anywhere() {
    let query = parse(r#"a dog after:2024-05 on -camera:nikon grass path:Holidays/"My trip"/** type:jpg,png"#).unwrap();
    assert_eq!(query.parts, Query::text("a dog on grass").parts);
    let filter = Filter::new()
        .and(Condition::After(date(2024, 5, 1).at(0, 0, 0, 0)))
        .and_not(Condition::Camera(vec!["nikon".into()]))
        .and(Condition::Path(vec!["Holidays/My trip/**".into()]))
        .and(Condition::Format(vec!["jpeg".into(), "png".into()]));
    assert_eq!(query.filter, filter);
}

#[test]
fn dates_are_periods() {
    let times = |text: &str| parse(text).unwrap().filter;
    let day = |year, month, day| date(year, month, day).at(0, 0, 0, 0);
    let between = |from, to| Filter::new().and(Condition::After(from)).and(Condition::Before(to));
    assert_eq!(times("after:2024 before:2025-03"), between(day(2024, 1, 1), day(2025, 3, 1)));
    assert_eq!(times("date:2024-02"), between(day(2024, 2, 1), day(2024, 3, 1)));
    assert_eq!(times("date:2024-12-31"), between(day(2024, 12, 31), day(2025, 1, 1)));
    assert_eq!(times("date:2022..2023-06"), between(day(2022, 1, 1), day(2023, 7, 1)));
    assert_eq!(
        times("after:2024-05-17T10:30"),
        Filter::new().and(Condition::After(date(2024, 5, 17).at(10, 30, 0, 0)))
    );
    assert_eq!(
        times(r#"after:"2024-05-17 10:30:09""#),
        Filter::new().and(Condition::After(date(2024, 5, 17).at(10, 30, 9, 0)))
    );
    assert_eq!(times("date:9999").conditions().len(), 2);
    for text in
        ["after:24", "after:2024-13", "after:2024-02-30", "after:yesterday", "after:2024-05-17T10:30Z", "date:2024.."]
    {
        let (message, place) = refused(text);
        assert!(message.contains("2024-05-17"), "{message}");
        assert_eq!(place, text.split_once(':').unwrap().1);
    }
}

#[test]
fn places_and_ranges() {
    let one = |text: &str| parse(text).unwrap().filter.conditions()[0].clone();
    let paris = Place { latitude: 48.85, longitude: 2.35 };
    assert_eq!(one("near:48.85,2.35~10km"), Condition::Near { place: paris, kilometres: 10.0 });
    assert_eq!(one("near:48.85,2.35"), Condition::Near { place: paris, kilometres: 1.0 });
    assert_eq!(one("near:48.85,2.35~500m"), Condition::Near { place: paris, kilometres: 0.5 });
    for text in
        ["near:paris", "near:91,0", "near:0,181", "near:1,1~-1km", "near:1,1~1light-year", "near:nan,0", "near:1,1~inf"]
    {
        assert!(refused(text).0.contains("48.85,2.35~10km"));
    }
    let range = |min, max| Bounds { min, max };
    assert_eq!(one("width:2000.."), Condition::Width(range(Some(2000), None)));
    assert_eq!(one("height:..1080px"), Condition::Height(range(None, Some(1080))));
    assert_eq!(one("width:>2000"), Condition::Width(range(Some(2001), None)));
    assert_eq!(one("width:<=2000"), Condition::Width(range(None, Some(2000))));
    assert_eq!(one("width:640"), Condition::Width(range(Some(640), Some(640))));
    assert_eq!(one("size:1.5MB..2GiB"), Condition::Size(range(Some(1_500_000), Some(2 << 30))));
    for text in
        ["width:..", "width:-5", "width:9..1", "width:<0", "size:1lb", "size:-1MB..", "size:99999999999999999999"]
    {
        assert!(refused(text).0.contains("1000..2000"), "{text}");
    }
}

#[test]
fn the_same_key_again_is_an_alternative() {
    let filter = parse("camera:canon type:png camera:nikon -path:a -path:b type:gif").unwrap().filter;
    let names = |names: [&str; 2]| names.map(String::from).to_vec();
    let expected = Filter::new()
        .and(Condition::Camera(names(["canon", "nikon"])))
        .and(Condition::Format(names(["png", "gif"])))
        .and_not(Condition::Path(names(["a", "b"])));
    assert_eq!(filter, expected);
}

#[test]
fn mistakes_are_pointed_at() {
    let cases = [
        ("dog camrea:nikon", "camrea", "did you mean camera:"),
        ("dog since:2024", "since", "did you mean after:"),
        ("dog -flavour:sweet", "flavour", "put -flavour:sweet in quotes"),
        ("dog + ", "+", "nothing follows the +"),
        ("dog + - cat", "+", "nothing follows the +"),
        ("dog - 2:", "2:", "nothing follows the 2:"),
        ("dog -2: cat", "-2:", "directly after the colon"),
        ("dog camera: nikon", "camera", "directly after the colon"),
        ("2:after:2024", "2:after:2024", "no weight"),
        ("dog - after:2024", "after:2024", "cannot be added or subtracted"),
        ("-date:2024", "2024", "cannot be negated"),
        ("ein Hündchen \"im Schnee", "\"im Schnee", "not closed"),
        ("dog \"\"", "\"\"", "no words between the quotes"),
        ("dog ./missing", "./missing", "there is no file ./missing"),
        ("missing.jpg", "missing.jpg", "path:missing.jpg"),
        ("dog + ~/missing here", "~/missing", "/home/me/missing"),
        ("https://example.org/x.jpg", "https://example.org/x.jpg", "not fetched from the web"),
        ("dog --limit 5", "--limit", "looks like an option"),
        ("path:a[", "a[", "pattern"),
        ("type:jpeg,svg", "jpeg,svg", "svg is no format"),
        ("like:#x", "#x", "number of a photo"),
    ];
    for (text, place, part) in cases {
        let (message, pointed) = refused(text);
        assert_eq!(pointed, place, "{text}: {message}");
        assert!(message.contains(part), "{text}: {message}");
    }
    let huge = format!("{}:dog", "9".repeat(50));
    assert!(refused(&huge).0.contains("too large"));
}

#[test]
fn a_home_that_is_not_known_is_not_guessed() {
    let error = Parser::new().files(|_| true).parse("~/x.jpg").unwrap_err();
    assert!(error.to_string().contains('~'), "{error}");
}

fn words() -> impl Strategy<Value = String> {
    "[ -~äöü鳥\u{2212}🐕]{1,12}".prop_filter("words", |words| !words.trim().is_empty())
}

fn term() -> impl Strategy<Value = Term> {
    prop_oneof![
        words().prop_map(Term::Text),
        words().prop_map(|path| Term::Image(path.into())),
        any::<u64>().prop_map(Term::Like),
        words().prop_map(|path| Term::LikePath(path.into())),
    ]
}

fn bounds() -> impl Strategy<Value = Bounds> {
    (any::<Option<u64>>(), any::<u64>(), any::<bool>()).prop_map(|(min, max, open)| match min {
        Some(min) if open => Bounds { min: Some(min), max: None },
        Some(min) => Bounds { min: Some(min.min(max)), max: Some(min.max(max)) },
        None => Bounds { min: None, max: Some(max) },
    })
}

fn condition() -> impl Strategy<Value = Condition> {
    let time = || {
        (0i16..9999, 1i8..=12, 1i8..=28, 0i8..24, 0i32..1_000_000_000)
            .prop_map(|(y, m, d, h, n)| date(y, m, d).at(h, 7, 9, n))
    };
    let names = || prop::collection::vec(words(), 1..3);
    let place = (-90.0..=90.0, -180.0..=180.0, 0.0..20_000.0);
    prop_oneof![
        time().prop_map(Condition::After),
        time().prop_map(Condition::Before),
        names().prop_map(Condition::Camera),
        names().prop_map(Condition::Lens),
        place.prop_map(|(latitude, longitude, kilometres)| Condition::Near {
            place: Place { latitude, longitude },
            kilometres
        }),
        prop::collection::vec("[a-z *ü]{0,4}[a-z]", 1..3).prop_map(Condition::Path),
        prop::collection::vec(words().prop_map(|name| Path::new("/").join(name)), 1..3).prop_map(Condition::Under),
        prop::sample::subsequence(vec!["jpeg".to_owned(), "png".to_owned(), "qoi".to_owned()], 1..3)
            .prop_map(Condition::Format),
        bounds().prop_map(Condition::Width),
        bounds().prop_map(Condition::Height),
        bounds().prop_map(Condition::Size),
    ]
}

fn query() -> impl Strategy<Value = Query> {
    let weight = prop_oneof![Just(1.0f32), Just(-1.0), -1e9f32..1e9, -2.0f32..2.0];
    let parts = prop::collection::vec((weight, term()).prop_map(|(weight, term)| Part { weight, term }), 0..4);
    (parts, condition(), any::<Option<bool>>()).prop_map(|(parts, condition, negated)| {
        let filter = match negated {
            None => Filter::new(),
            Some(false) => Filter::new().and(condition),
            Some(true) => Filter::new().and_not(condition),
        };
        Query { parts, filter }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_reads_back(query in query()) {
        let text = query.to_string();
        let again = Parser::new().files(|_| true).parse(&text);
        prop_assert!(matches!(&again, Ok(again) if *again == query), "{text}\n{query:?}\n{again:?}");
    }

    #[test]
    fn any_text_is_read_or_refused_within_itself(text in r#"([ -~]|[+\-:"./\\~ ]|[0-9]:|[a-z]+:|like:|near:|image:|\PC){0,30}"#, files in any::<bool>()) {
        match Parser::new().home("/home/me").files(|_| files).parse(&text) {
            Ok(query) => prop_assert!(query.parts.iter().all(|part| part.weight.is_finite())),
            Err(Error::BadQuery { message, span }) => {
                prop_assert!(text.get(span.clone()).is_some(), "{text}: {span:?}");
                prop_assert!(!message.is_empty());
            }
            Err(other) => prop_assert!(false, "{text}: {other}"),
        }
    }

    #[test]
    fn plain_words_are_never_more_than_words(text in "[a-zA-Zäöü鳥,.!?']{1,9}( [a-zA-Zäöü鳥,.!?'-]{0,3}[a-zäöü鳥]{1,5}(-[a-z]{1,4})?){0,5}") {
        prop_assume!(!text.split(' ').any(|word| word.starts_with('-')));
        let read = Parser::new().files(|_| false).parse(&text).unwrap();
        prop_assert_eq!(read, Query::text(text));
    }
}
