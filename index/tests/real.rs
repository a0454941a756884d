//! Real embeddings, where they lie beside the checkout: what `recall` promises holds for texts as for images.

use std::collections::HashSet;
use std::path::PathBuf;

use tintype_index::{Config, Index, Reader};

const DIM: usize = 512;

/// The numbers of a NumPy file beside the checkout, or below `TINTYPE_TEST_DATA`.
fn numbers(name: &str) -> Option<Vec<f32>> {
    let beside = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared");
    let root = std::env::var_os("TINTYPE_TEST_DATA").map_or(beside, PathBuf::from);
    let bytes = std::fs::read(root.join("data/clip-vectors").join(name)).ok()?;
    let body = &bytes[10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]))..];
    Some(if name.contains("f16") {
        body.chunks_exact(2).map(|x| half::f16::from_le_bytes([x[0], x[1]]).to_f32()).collect()
    } else {
        body.chunks_exact(4).map(|x| f32::from_le_bytes(x.try_into().unwrap())).collect()
    })
}

fn mean_recall(reader: &Reader, queries: &[&[f32]], target: f32) -> f64 {
    let keys = |query: &[f32], target| -> HashSet<u64> {
        reader.search(query).recall(target).run().unwrap().iter().map(|found| found.key).collect()
    };
    let found = |query: &&[f32]| keys(query, target).intersection(&keys(query, 1.0)).count();
    queries.iter().map(found).sum::<usize>() as f64 / (10 * queries.len()) as f64
}

#[test]
fn a_recall_target_holds_for_real_images_and_texts() {
    let (Some(images), Some(texts)) = (numbers("images-100k-f16.npy"), numbers("text-queries-1203-f32.npy")) else {
        println!("skipped: no vectors in ../shared/data/clip-vectors beside the checkout");
        return;
    };
    let images: Vec<&[f32]> = images.chunks_exact(DIM).step_by(4).collect();
    let texts: Vec<&[f32]> = texts.chunks_exact(DIM).collect();
    let (given, asked): (Vec<_>, Vec<_>) = texts.iter().copied().enumerate().partition(|(at, _)| at % 2 == 0);
    let given: Vec<&[f32]> = given.into_iter().map(|(_, text)| text).collect();
    let asked: Vec<&[f32]> = asked.into_iter().map(|(_, text)| text).step_by(2).collect();
    let (queries, stored): (Vec<_>, Vec<_>) = images.iter().copied().enumerate().partition(|(at, _)| at % 100 == 37);
    let queries: Vec<&[f32]> = queries.into_iter().map(|(_, image)| image).collect();
    let dirs = [(); 2].map(|()| tempfile::tempdir().unwrap());
    for (dir, samples) in dirs.iter().zip([&[][..], &given]) {
        let index = Index::create(dir.path(), Config { dim: DIM, ..Config::default() }).unwrap();
        let mut writer = index.writer().unwrap();
        writer.set_sample_queries(samples).unwrap();
        stored.iter().for_each(|(key, image)| writer.add(*key as u64, image).unwrap());
        writer.commit().unwrap();
        let reader = index.reader().unwrap();
        for target in [0.9, 0.95] {
            for (kind, queries) in [("images", &queries), ("texts", &asked)] {
                let found = mean_recall(&reader, queries, target);
                let what = format!("{kind}, {} samples, {target}: {found:.3}", samples.len());
                println!("{what}");
                assert!(found > f64::from(target) - 0.015, "{what}");
            }
        }
    }
}
