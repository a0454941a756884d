//! Vectors and a plain model to compare with.

use std::collections::BTreeMap;

use tintype_index::{Key, Metric, Neighbor};

/// A small random generator, the same everywhere.
#[derive(Clone)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.word() % limit
    }

    /// About normal, mean 0, deviation 1.
    pub(crate) fn normal(&mut self) -> f32 {
        (0..4).map(|_| (self.word() >> 40) as f32 / (1u64 << 24) as f32 - 0.5).sum::<f32>() * 1.732
    }

    pub(crate) fn vector(&mut self, dim: usize) -> Vec<f32> {
        (0..dim).map(|_| self.normal()).collect()
    }
}

/// Vectors as an image encoder gives them: a large common mean, clusters, noise.
pub(crate) fn embeddings(count: usize, dim: usize, seed: u64) -> Vec<Vec<f32>> {
    let mut random = Random(seed);
    let mean = random.vector(dim);
    let centres: Vec<Vec<f32>> = (0..count.div_ceil(50)).map(|_| random.vector(dim)).collect();
    let one = |random: &mut Random| {
        let centre = &centres[random.below(centres.len() as u64) as usize];
        let noise = random.vector(dim);
        (0..dim).map(|i| mean[i] + centre[i] + 0.7 * noise[i]).collect()
    };
    (0..count).map(|_| one(&mut random)).collect()
}

/// What an index must agree with.
#[derive(Clone, Default, Debug)]
pub(crate) struct Model {
    pub(crate) metric: Metric,
    pub(crate) vectors: BTreeMap<Key, Vec<f32>>,
}

impl Model {
    pub(crate) fn score(&self, a: &[f32], b: &[f32]) -> f64 {
        let sum = |f: &dyn Fn(f64, f64) -> f64| a.iter().zip(b).map(|(&x, &y)| f(x.into(), y.into())).sum::<f64>();
        match self.metric {
            Metric::L2 => -sum(&|x, y| (x - y) * (x - y)),
            Metric::Dot => sum(&|x, y| x * y),
            _ => sum(&|x, y| x * y) / (sum(&|x, _| x * x).sqrt() * sum(&|_, y| y * y).sqrt()),
        }
    }

    pub(crate) fn nearest(&self, query: &[f32], k: usize) -> Vec<(Key, f64)> {
        let mut all: Vec<(Key, f64)> = self.vectors.iter().map(|(&key, v)| (key, self.score(query, v))).collect();
        all.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        all.truncate(k);
        all
    }

    /// The answer is right up to the rounding of f32: scores agree with the keys, and none better was left out.
    pub(crate) fn assert_exact(&self, query: &[f32], k: usize, found: &[Neighbor]) {
        let expected = self.nearest(query, k);
        assert_eq!(found.len(), expected.len());
        for (f, e) in found.iter().zip(&expected) {
            let slack = 1e-4 * (1.0 + e.1.abs());
            assert!((f64::from(f.score) - e.1).abs() < slack, "{f:?} where {e:?} was expected");
            let own = self.score(query, &self.vectors[&f.key]);
            assert!((f64::from(f.score) - own).abs() < slack, "{f:?} but the vector scores {own}");
        }
    }

    pub(crate) fn recall(&self, query: &[f32], k: usize, found: &[Neighbor]) -> f64 {
        let expected = self.nearest(query, k);
        let hits = expected.iter().filter(|e| found.iter().any(|f| f.key == e.0)).count();
        hits as f64 / expected.len().max(1) as f64
    }
}
