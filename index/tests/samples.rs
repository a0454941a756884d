//! Sample queries: what they do to graphs, how they are kept.

use std::sync::Arc;

use tintype_index::{Config, Error, Index, Metric, Writer};

use crate::simulated::Simulated;
use crate::support::{Model, Random};

const DIM: usize = 32;
/// Numbers in which texts and images can agree.
const SHARED: usize = 10;

/// Images in clusters, each with a subject that has nothing to do with its cluster; and texts, which know subjects only. The last
/// number parts them, as images and texts lie in cones of their own.
fn images_and_texts(images: usize, texts: usize) -> (Vec<Vec<f32>>, Vec<Vec<f32>>) {
    let mut random = Random(31);
    let subjects: Vec<Vec<f32>> = (0..60).map(|_| random.vector(SHARED)).collect();
    let clusters: Vec<Vec<f32>> = (0..images / 40).map(|_| random.vector(DIM - SHARED - 1)).collect();
    let near = |centre: &[f32], size: f32, noise: f32, random: &mut Random| -> Vec<f32> {
        centre.iter().map(|x| size * x + noise * random.normal()).collect()
    };
    let image = |random: &mut Random| {
        let subject = near(&subjects[random.below(60) as usize], 0.6, 0.2, random);
        let cluster = near(&clusters[random.below(clusters.len() as u64) as usize], 1.0, 0.25, random);
        [subject, cluster, vec![2.0 + 0.2 * random.normal()]].concat()
    };
    let images = (0..images).map(|_| image(&mut random)).collect();
    let text = |random: &mut Random| {
        let subject = near(&subjects[random.below(60) as usize], 1.0, 0.3, random);
        [subject, vec![0.0; DIM - SHARED - 1], vec![-2.0]].concat()
    };
    let texts = (0..texts).map(|_| text(&mut random)).collect();
    (images, texts)
}

fn create(storage: &Simulated) -> Index {
    Index::create_on(Arc::new(storage.clone()), Config { dim: DIM, ..Config::default() }).unwrap()
}

/// An index of one graph, made with sample queries.
fn build(images: &[Vec<f32>], samples: &[Vec<f32>]) -> (Simulated, Index, Writer) {
    let storage = Simulated::default();
    let index = create(&storage);
    let mut writer = index.writer().unwrap();
    writer.set_sample_queries(samples).unwrap();
    images.iter().zip(0..).for_each(|(image, key)| writer.add(key, image).unwrap());
    writer.commit().unwrap();
    assert_eq!(index.reader().unwrap().verify().unwrap().graphs, 1);
    (storage, index, writer)
}

fn recall(index: &Index, model: &Model, queries: &[Vec<f32>], ef: usize) -> f64 {
    let reader = index.reader().unwrap();
    let one = |query: &Vec<f32>| model.recall(query, 10, &reader.search(query).ef(ef).run().unwrap());
    queries.iter().map(one).sum::<f64>() / queries.len() as f64
}

#[test]
fn a_graph_finds_more_for_queries_of_the_kind_of_its_samples_and_no_less_for_others() {
    let (images, texts) = images_and_texts(6_000, 500);
    let (images, queries) = images.split_at(5_900);
    let (samples, texts) = texts.split_at(400);
    let mut model = Model { metric: Metric::Cosine, ..Model::default() };
    images.iter().zip(0..).for_each(|(image, key)| drop(model.vectors.insert(key, image.clone())));
    let (_, plain, mut writer) = build(images, &[]);
    let (_, sampled, _) = build(images, samples);
    let (of_plain, of_sampled) = (recall(&plain, &model, texts, 12), recall(&sampled, &model, texts, 12));
    assert!(1.0 - of_sampled < 0.8 * (1.0 - of_plain), "texts: {of_plain} without samples, {of_sampled} with");
    let of_texts = of_sampled;
    let (of_plain, of_sampled) = (recall(&plain, &model, queries, 12), recall(&sampled, &model, queries, 12));
    assert!(of_sampled > of_plain - 0.005, "images: {of_plain} without samples, {of_sampled} with");
    // What `recall` promises is measured with samples that were held out.
    let reader = sampled.reader().unwrap();
    for target in [0.8, 0.9] {
        let one = |text: &Vec<f32>| model.recall(text, 10, &reader.search(text).recall(target).run().unwrap());
        let found = texts.iter().map(one).sum::<f64>() / texts.len() as f64;
        assert!(found > f64::from(target) - 0.03, "{found} where {target} was asked for");
    }
    // Compacting makes a graph anew where there are other samples, and only there.
    let before = writer.commit().unwrap();
    assert_eq!(writer.compact().unwrap(), before);
    writer.set_sample_queries(samples).unwrap();
    let generation = writer.compact().unwrap();
    assert!(generation > before);
    assert_eq!(recall(&plain, &model, texts, 12), of_texts);
    assert_eq!(writer.compact().unwrap(), generation);
    assert!(plain.reader().unwrap().verify().unwrap().is_clean());
}

#[test]
fn samples_shape_the_same_graph_at_any_thread_count() {
    let (images, samples) = images_and_texts(4_200, 300);
    let files = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let (storage, ..) = pool.install(|| build(&images, &samples));
        storage.names().into_iter().map(|name| (name.clone(), storage.bytes(&name))).collect::<Vec<_>>()
    };
    assert!(files(1) == files(3));
}

#[test]
fn samples_stay_until_others_take_their_place() {
    let (_, samples) = images_and_texts(40, 7);
    let storage = Simulated::default();
    let index = create(&storage);
    let named = || storage.names().into_iter().filter(|name| name.ends_with(".qry")).count();
    let mut writer = index.writer().unwrap();
    writer.set_sample_queries(&samples).unwrap();
    assert_eq!((writer.sample_queries(), index.reader().unwrap().sample_queries(), named()), (7, 0, 0));
    drop(writer);
    assert_eq!(index.writer().unwrap().sample_queries(), 0, "what was not committed is gone");

    let mut writer = index.writer().unwrap();
    writer.set_sample_queries(&samples).unwrap();
    let first = writer.commit().unwrap();
    assert_eq!((index.reader().unwrap().sample_queries(), named()), (7, 1));
    drop(writer);
    let mut writer = index.writer().unwrap();
    writer.set_sample_queries(&samples).unwrap();
    assert_eq!(writer.commit().unwrap(), first, "the same ones change nothing");
    writer.add(1, &samples[0]).unwrap();
    writer.commit().unwrap();
    assert_eq!((writer.sample_queries(), named()), (7, 1), "other changes leave them alone");

    let refused = writer.set_sample_queries(&[&samples[0][..], &[1.0]]);
    assert!(matches!(refused, Err(Error::Dimension { found: 1, expected: DIM })));
    assert!(matches!(writer.set_sample_queries(&[[0.0; DIM]]), Err(Error::ZeroVector)));
    assert!(matches!(writer.set_sample_queries(&[[f32::NAN; DIM]]), Err(Error::NotFinite { .. })));
    assert!(matches!(writer.set_sample_queries(&vec![[1.0; DIM]; 10_001]), Err(Error::Invalid { .. })));
    assert_eq!(writer.sample_queries(), 7);

    writer.set_sample_queries(&samples[..2]).unwrap();
    writer.commit().unwrap();
    assert_eq!((index.reader().unwrap().sample_queries(), named()), (2, 1));
    let reader = index.reader().unwrap();
    writer.set_sample_queries::<&[f32]>(&[]).unwrap();
    writer.commit().unwrap();
    assert_eq!((index.reader().unwrap().sample_queries(), named()), (0, 0));
    assert!(reader.verify().unwrap().is_clean(), "a snapshot whose samples are gone is whole");
}

#[test]
fn damaged_samples_fail_a_merge_and_nothing_else_and_may_be_replaced() {
    let (images, samples) = images_and_texts(4_200, 20);
    let (storage, index, writer) = build(&images, &samples);
    drop(writer);
    let name = storage.names().into_iter().find(|name| name.ends_with(".qry")).unwrap();
    let mut bytes = storage.bytes(&name);
    bytes[40] ^= 1;
    storage.put(&name, bytes);
    let mut writer = index.writer().unwrap();
    writer.add(9_000, &images[0]).unwrap();
    writer.commit().unwrap();
    assert!(matches!(writer.compact(), Err(Error::Corrupt { path, .. }) if path.ends_with(&name)));
    let reader = index.reader().unwrap();
    assert_eq!(reader.len(), 4_201, "the vectors are in");
    assert_eq!(reader.search(&images[0]).run().unwrap().len(), 10);
    assert!(!reader.verify().unwrap().is_clean());
    writer.set_sample_queries(&samples).unwrap();
    writer.compact().unwrap();
    assert!(index.reader().unwrap().verify().unwrap().is_clean());
}
