//! Measures equal to CLIP_benchmark's, every layout of datasets, and the built-in model on photos that it was not trained on.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tintype::eval::metrics::{accuracy, mean_average_precision, recall, selection};
use tintype::eval::{Dataset, DatasetOptions, Evaluator, ProbeOptions, Task};
use tintype::model::{EncoderOptions, Precision};
use tintype::{Embeddings, Encoder, Error};

/// Random vectors with what CLIP_benchmark's own functions make of them: `fixtures/eval/make.py` writes them.
fn cases(kind: &str) -> Vec<Value> {
    let all: Value = serde_json::from_str(include_str!("fixtures/eval/metrics.json")).unwrap();
    all[kind].as_array().unwrap().clone()
}

fn vectors(rows: &Value) -> Embeddings {
    let rows = rows.as_array().unwrap();
    let numbers = rows.iter().flat_map(|row| row.as_array().unwrap()).map(|x| x.as_f64().unwrap() as f32).collect();
    Embeddings::new(rows[0].as_array().unwrap().len(), numbers)
}

fn whole(list: &Value) -> Vec<usize> {
    list.as_array().unwrap().iter().map(|x| x.as_u64().unwrap() as usize).collect()
}

fn assert_same(ours: f64, theirs: &Value, what: &str) {
    let theirs = theirs.as_f64().unwrap();
    assert!((ours - theirs).abs() < 1e-6, "{what}: {ours} and {theirs}");
}

#[test]
fn recall_is_that_of_clip_benchmark() {
    for case in cases("retrieval") {
        let (images, texts) = (vectors(&case["images"]), vectors(&case["texts"]));
        let (image_of, ks) = (whole(&case["image_of"]), whole(&case["ks"]));
        let of_images = recall(&texts, &images, &ks, |text, image| image_of[text] == image).unwrap();
        let of_texts = recall(&images, &texts, &ks, |image, text| image_of[text] == image).unwrap();
        for (i, k) in ks.iter().enumerate() {
            for (kind, ours) in [("image", &of_images), ("text", &of_texts)] {
                let name = format!("{kind}_retrieval_recall@{k}");
                assert_same(ours[i], &case["metrics"][&name], &name);
            }
        }
    }
}

#[test]
fn accuracy_is_that_of_clip_benchmark() {
    for case in cases("classification") {
        let found = accuracy(&vectors(&case["images"]), &vectors(&case["classes"]), &whole(&case["labels"])).unwrap();
        let theirs = &case["metrics"];
        assert_same(found.acc1, &theirs["acc1"], "acc1");
        assert_same(found.mean_per_class_recall, &theirs["mean_per_class_recall"], "mean_per_class_recall");
        match found.acc5 {
            Some(ours) => assert_same(ours, &theirs["acc5"], "acc5"),
            None => assert!(theirs["acc5"].is_null()),
        }
    }
}

#[test]
fn labels_that_do_not_fit_are_errors_of_the_measures() {
    let (pictures, classes) = (Embeddings::new(2, vec![1.0, 0.0, 0.0, 1.0]), Embeddings::new(2, vec![1.0, 0.0]));
    for labels in [&[0][..], &[0, 1], &[0, 0, 0]] {
        assert!(matches!(accuracy(&pictures, &classes, labels), Err(Error::Tensor(_))), "{labels:?}");
    }
    for has in [vec![vec![true]], vec![vec![true], vec![]]] {
        assert!(matches!(mean_average_precision(&pictures, &classes, &has), Err(Error::Tensor(_))), "{has:?}");
    }
    assert_eq!(accuracy(&pictures, &classes, &[0, 0]).unwrap().acc1, 1.0);
}

#[test]
fn average_precision_is_that_of_clip_benchmark() {
    for case in cases("multilabel") {
        let has: Vec<Vec<bool>> =
            case["has"].as_array().unwrap().iter().map(|row| whole(row).iter().map(|&x| x == 1).collect()).collect();
        let ours = mean_average_precision(&vectors(&case["images"]), &vectors(&case["classes"]), &has).unwrap();
        assert_same(ours, &case["metrics"]["mean_average_precision"], "mean_average_precision");
    }
}

#[test]
fn caption_selection_is_that_of_clip_benchmark() {
    for case in cases("selection") {
        let list = |name: &str| case[name].as_array().unwrap().iter().map(vectors).collect::<Vec<_>>();
        let (images, texts) = (list("images"), list("texts"));
        let found = selection(images.iter().zip(&texts)).unwrap();
        assert_same(found.image_acc, &case["metrics"]["image_acc"], "image_acc");
        assert_same(found.text_acc, &case["metrics"]["text_acc"], "text_acc");
        assert_same(found.acc, &case["metrics"]["acc"], "acc");
    }
}

/// A picture of one colour with a little of everything else.
fn picture(path: &Path, colour: [u8; 3], n: u8) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let pixel = |x: u32, y: u32| if (x + y).is_multiple_of(9) { [n.wrapping_mul(40); 3] } else { colour };
    image::RgbImage::from_fn(40, 30, |x, y| image::Rgb(pixel(x, y))).save(path).unwrap();
}

const COLOURS: [(&str, [u8; 3]); 3] = [("blue", [20, 30, 220]), ("green", [20, 200, 30]), ("red", [230, 20, 20])];

fn png(colour: [u8; 3], n: u8) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    picture(&dir.path().join("a.png"), colour, n);
    std::fs::read(dir.path().join("a.png")).unwrap()
}

fn shard(path: &Path, members: &[(&str, Vec<u8>)]) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut tar = tar::Builder::new(std::fs::File::create(path).unwrap());
    for (name, bytes) in members {
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, bytes.as_slice()).unwrap();
    }
    tar.finish().unwrap();
}

fn write(path: PathBuf, text: &str) -> PathBuf {
    std::fs::write(&path, text).unwrap();
    path
}

fn run(dataset: &Dataset, task: Task) -> tintype::eval::Evaluation {
    Evaluator::new(Encoder::builtin().unwrap()).run(dataset, task).unwrap()
}

fn one(path: &Path) -> Dataset {
    let mut found = Dataset::open(path, &DatasetOptions::default()).unwrap();
    assert_eq!(found.len(), 1);
    found.remove(0)
}

#[test]
fn shards_of_clip_benchmark_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("wds_vtab-colours");
    let sample = |class: usize, n: u8| png(COLOURS[class].1, n);
    let mut members: Vec<(String, Vec<u8>)> = Vec::new();
    for n in 0..6 {
        let class = n % 3;
        members.push((format!("s{n:07}.cls"), class.to_string().into_bytes()));
        members.push((format!("s{n:07}.png"), sample(class, n as u8)));
    }
    members.push(("s0000006.cls".into(), b"7".to_vec()));
    members.push(("s0000006.png".into(), sample(0, 6)));
    members.push(("s0000007.cls".into(), b"1".to_vec()));
    members.push(("s0000007.png".into(), b"no picture".to_vec()));
    let members: Vec<(&str, Vec<u8>)> = members.iter().map(|(name, bytes)| (name.as_str(), bytes.clone())).collect();
    let (first, second) = members.split_at(6);
    shard(&root.join("test/0.tar"), first);
    shard(&root.join("test/1.tar"), second);
    shard(&root.join("train/0.tar"), first);
    write(root.join("test/nshards.txt"), "2\n");
    write(root.join("train/nshards.txt"), "1\n");
    write(root.join("classnames.txt"), "blue\ngreen\nred\n");
    write(root.join("zeroshot_classification_templates.txt"), "a {c} wall\nsomething {c}\n");
    let dataset = one(&root);
    assert_eq!((dataset.name(), dataset.len(), dataset.language()), ("colours", 7, "en"));
    let result = run(&dataset, Task::of(&dataset));
    assert_eq!((result.pictures, result.texts), (6, 3));
    let skipped: Vec<String> =
        result.skipped.iter().map(|sample| format!("{} {}", sample.path.display(), sample.error)).collect();
    assert!(skipped[0].contains("1.tar!s0000006.png") && skipped[0].contains("there are 3 classes"), "{skipped:?}");
    assert!(skipped[1].contains("1.tar!s0000007.png"), "{skipped:?}");
    let json = result.to_json();
    let keys: Vec<&str> = json.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(keys, ["dataset", "model", "pretrained", "task", "metrics", "language"]);
    assert_eq!(json["task"], "zeroshot_classification");
    assert!(json["metrics"]["acc5"].is_null() && json["metrics"]["acc1"].as_f64().unwrap() >= 0.5, "{json}");
    let probe = run(&dataset, Task::LinearProbe);
    assert!(probe.metrics["lp_acc1"].as_f64().unwrap() >= 0.5, "{:?}", probe.metrics);
    assert_eq!(probe.metrics["fewshot_k"], -1);
    // A count that the shards do not meet is a mistake of the download.
    write(root.join("test/nshards.txt"), "3\n");
    let error = Dataset::open(&root, &DatasetOptions::default()).unwrap_err().to_string();
    assert!(error.contains("2.tar"), "{error}");
}

#[test]
fn captions_and_languages_of_shards_are_read() {
    let dir = tempfile::tempdir().unwrap();
    for (language, words) in [("de", ["blau\nein blaues Bild", "rot\n"]), ("en", ["blue\na blue picture", "red\n"])] {
        let root = dir.path().join("wds_walls").join(language);
        let members = [
            ("0.png", png(COLOURS[0].1, 1)),
            ("0.txt", words[0].as_bytes().to_vec()),
            ("1.png", png(COLOURS[2].1, 2)),
            ("1.txt", words[1].as_bytes().to_vec()),
            ("2.txt", b"no picture".to_vec()),
        ];
        shard(&root.join("test/0.tar"), &members);
        write(root.join("dataset_type.txt"), "retrieval");
    }
    let found = Dataset::open(dir.path().join("wds_walls"), &DatasetOptions::default()).unwrap();
    assert_eq!(found.iter().map(Dataset::language).collect::<Vec<_>>(), ["de", "en"]);
    let result = run(&found[1], Task::ZeroShotRetrieval);
    assert_eq!((result.pictures, result.texts, result.skipped.len()), (2, 3, 1));
    assert_eq!(result.metrics["image_retrieval_recall@5"], json!(1.0));
    assert_eq!(result.dataset, "walls");
    let mut options = DatasetOptions::default();
    options.languages = vec!["fr".into()];
    let error = Dataset::open(dir.path().join("wds_walls"), &options).unwrap_err().to_string();
    assert!(error.contains("fr"), "{error}");
}

#[test]
fn a_folder_per_class_is_named_and_learnt() {
    let dir = tempfile::tempdir().unwrap();
    for (name, colour) in COLOURS {
        for n in 0..6 {
            picture(&dir.path().join("walls").join(name).join(format!("{n}.png")), colour, n);
        }
    }
    let dataset = one(&dir.path().join("walls"));
    let result = run(&dataset, Task::of(&dataset));
    assert_eq!((result.pictures, result.texts), (18, 3));
    let options = {
        let mut options = ProbeOptions::default();
        options.shots = Some(2);
        options
    };
    let mut evaluator = Evaluator::new(Encoder::builtin().unwrap()).probe(options);
    let probe = evaluator.run(&dataset, Task::LinearProbe).unwrap();
    assert_eq!(probe.pictures, 12, "those that nothing was learnt from");
    assert!(probe.metrics["lp_acc1"].as_f64().unwrap() > 0.7, "{:?}", probe.metrics);
    let error = Evaluator::new(Encoder::builtin().unwrap()).run(&dataset, Task::ZeroShotRetrieval).unwrap_err();
    assert!(error.to_string().contains("made for zeroshot_classification"), "{error}");
    let error = Evaluator::new(Encoder::builtin().unwrap()).run(&dataset, Task::LinearProbe).unwrap_err();
    assert!(error.to_string().contains("shots"), "{error}");
}

#[test]
fn caption_files_are_read_in_every_spelling() {
    let dir = tempfile::tempdir().unwrap();
    for (name, colour) in COLOURS {
        picture(&dir.path().join("images").join(format!("{name}.jpg")), colour, 1);
    }
    let at = |name: &str, text: &str| write(dir.path().join(name), text);
    let opened = |path: &Path| {
        let found = Dataset::open(path, &DatasetOptions::default()).unwrap();
        found.into_iter().map(|set| (set.language().to_owned(), set.len(), Task::of(&set).name())).collect::<Vec<_>>()
    };
    let retrieval = |n| vec![("en".to_owned(), n, "zeroshot_retrieval")];
    let groups = |n| vec![("en".to_owned(), n, "image_caption_selection")];
    let jsonl = at(
        "a.jsonl",
        "{\"file\": \"images/red.jpg\", \"captions\": [\"red\", \"a red wall\"]}\n\n{\"image\": \"blue.jpg\", \"caption\": \"blue\"}\n",
    );
    assert_eq!(opened(&jsonl), retrieval(2));
    let flickr =
        at("flickr30k_test_karpathy.txt", "image,caption\nred.jpg,red, all red\nred.jpg,a wall\nblue.jpg,blue\n");
    assert_eq!(opened(&flickr), retrieval(2));
    assert_eq!(one(&flickr).name(), "flickr30k");
    let coco = json!({
        "images": [{"id": 9, "file_name": "red.jpg"}, {"id": 3, "file_name": "blue.jpg"}],
        "annotations": [{"image_id": 9, "caption": "red"}, {"image_id": 3, "caption": "blue"}, {"image_id": 3, "caption": "sea"}],
    });
    assert_eq!(opened(&at("coco_test_karpathy.json", &coco.to_string())), retrieval(2));
    let karpathy = json!({"images": [
        {"filename": "red.jpg", "split": "test", "sentences": [{"raw": "red"}]},
        {"filename": "blue.jpg", "split": "train", "sentences": [{"raw": "blue"}]},
        {"filename": "green.jpg", "filepath": "val2014", "split": "test", "sentences": [{"raw": "green"}, {"raw": "grass"}]},
    ]});
    assert_eq!(opened(&at("dataset_flickr8k.json", &karpathy.to_string())), retrieval(2));
    let list = json!([{"image": "red.jpg", "caption": ["red", "rose"]}, {"image": "blue.jpg", "caption": ["blue"]}]);
    assert_eq!(opened(&at("list.json", &list.to_string())), retrieval(2));
    let german = json!({"image_paths": ["/elsewhere/red.jpg"], "annotations": ["rot"], "indicies": [0]});
    let german = at("crossmodal3600_captions-de.json", &german.to_string());
    assert_eq!(opened(&german), [("de".to_owned(), 1, "zeroshot_retrieval")]);
    let crossmodal = at(
        "captions.jsonl",
        "{\"image/key\": \"red\", \"image/locale\": \"en\", \"de\": {\"caption\": [\"rot\", \"Wand\"]}, \"hi\": {\"caption\": [\"लाल\"]}}\n",
    );
    assert_eq!(opened(&crossmodal).iter().map(|set| set.0.as_str()).collect::<Vec<_>>(), ["de", "hi"]);
    let sugar = json!({
        "0": {"filename": "red.jpg", "caption": "a red wall", "negative_caption": "a blue wall"},
        "7": {"filename": "blue.jpg", "caption": "a blue wall", "negative_caption": "a red wall"},
    });
    let sugar = at("swap_att.json", &sugar.to_string());
    assert_eq!(opened(&sugar), groups(2));
    let result = run(&one(&sugar), Task::CaptionSelection);
    assert_eq!((&result.metrics["image_acc"], result.texts), (&json!(1.0), 4));
    assert_eq!(result.metrics["acc"], result.metrics["text_acc"]);
    let winoground = at(
        "examples.jsonl",
        "{\"id\": 0, \"image_0\": \"red\", \"image_1\": \"blue\", \"caption_0\": \"red\", \"caption_1\": \"blue\"}\n",
    );
    assert_eq!(opened(&winoground), groups(2));
    let xtd = dir.path().join("xtd10");
    std::fs::create_dir(&xtd).unwrap();
    picture(&xtd.join("red.jpg"), COLOURS[2].1, 1);
    write(xtd.join("test_image_names.txt"), "red.jpg\n");
    write(xtd.join("test_1kcaptions_ko.txt"), "빨간\n");
    write(xtd.join("test_1kcaptions_zh.txt"), "红\n");
    write(xtd.join("README.txt"), "Pictures with captions.\nOne each.\n");
    assert_eq!(opened(&xtd).iter().map(|set| set.0.as_str()).collect::<Vec<_>>(), ["ko", "zh"]);
    write(xtd.join("test_1kcaptions_zh.txt"), "红\n蓝\n");
    let error = Dataset::open(&xtd, &DatasetOptions::default()).unwrap_err().to_string();
    assert!(error.contains("zh.txt") && error.contains("2 captions for 1"), "{error}");
}

#[test]
fn bad_rows_are_lines_and_bad_files_are_errors() {
    let dir = tempfile::tempdir().unwrap();
    picture(&dir.path().join("red.jpg"), COLOURS[2].1, 1);
    let list = write(
        dir.path().join("a.jsonl"),
        "{\"file\": \"red.jpg\", \"caption\": \"red\"}\nno json\n{\"file\": \"gone.jpg\", \"caption\": \"x\"}\n{\"caption\": \"x\"}\n{\"file\": \"red.jpg\"}\n",
    );
    let result = run(&one(&list), Task::ZeroShotRetrieval);
    let said: Vec<String> = result.skipped.iter().map(|sample| sample.error.to_string()).collect();
    for (line, part) in said.iter().zip(["line 2", "gone.jpg", "line 4", "line 5"]) {
        assert!(line.contains(part), "{line}");
    }
    assert_eq!((said.len(), result.pictures), (4, 1));
    for (name, text) in [("b.json", "{"), ("c.json", "3"), ("d.jsonl", "\n"), ("e.md", "x"), ("f.json", "{\"a\": 1}")] {
        let file = write(dir.path().join(name), text);
        let error = Dataset::open(&file, &DatasetOptions::default()).unwrap_err().to_string();
        assert!(error.contains(name), "{error}");
    }
    let empty = dir.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    assert!(Dataset::open(&empty, &DatasetOptions::default()).unwrap_err().to_string().contains("folder per class"));
}

#[test]
fn the_built_in_model_has_the_recall_of_its_card() {
    let data = std::env::var_os("TINTYPE_TEST_DATA")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data"), PathBuf::from);
    let photos = data.join("photos");
    if !photos.join("captions.jsonl").is_file() {
        println!("skipped: no photos with captions in {}", photos.display());
        return;
    }
    let dataset = one(&photos);
    // Of the weights that are compiled in, which are bytes.
    let (images, texts) = ([18.00, 44.49, 56.97], [26.25, 54.41, 66.13]);
    for (precision, band) in [(Precision::F32, 0.15), (Precision::Int8, 0.7)] {
        let encoder = Encoder::builtin_with(&EncoderOptions::default().precision(precision)).unwrap();
        let result = Evaluator::new(encoder).run(&dataset, Task::ZeroShotRetrieval).unwrap();
        assert_eq!((result.pictures, result.texts, result.skipped.len()), (998, 4990, 0));
        for (kind, card) in [("image", images), ("text", texts)] {
            for (k, card) in [1, 5, 10].into_iter().zip(card) {
                let ours = 100.0 * result.metrics[&format!("{kind}_retrieval_recall@{k}")].as_f64().unwrap();
                println!("{precision:?} {kind}_retrieval_recall@{k}: {ours:.2}, card {card:.2}");
                assert!((ours - card).abs() < band, "{precision:?} {kind}@{k}: {ours:.2}, card {card:.2}");
            }
        }
    }
}
