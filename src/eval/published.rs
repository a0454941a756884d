//! Scores that others have published, to lay beside our own.
//!
//! The registry knows the scores by which people choose a model. Here are the others of open_clip's result tables
//! (`docs/openclip_classification_results.csv`, `docs/openclip_retrieval_results.csv`), and those of the built-in model's card.

use serde_json::Value;

use super::run::{Evaluation, Task};
use crate::model::registry::{self, Origin};

/// A published score beside ours.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Published {
    /// The measure.
    pub metric: &'static str,
    /// What was published, in percent.
    pub published: f64,
    /// What was measured, in percent.
    pub measured: f64,
    /// How far apart two careful runs of the same model are, in percent: other decoders, other arithmetic.
    pub band: f64,
}

impl Published {
    /// Whether the two agree within the band.
    pub fn agrees(&self) -> bool {
        (self.measured - self.published).abs() <= self.band + 1e-9
    }
}

/// CIFAR-10 and CIFAR-100; image to text: Flickr30k at 1 and 5, COCO at 1 and 5.
type Scores = ([f64; 2], [f64; 2], [f64; 2]);

/// By open_clip's `model:tag`.
const SCORES: &[(&str, Scores)] = &[
    ("RN50-quickgelu:openai", ([71.57, 40.30], [80.00, 95.00], [48.84, 72.78])),
    ("ViT-B-32-quickgelu:openai", ([89.83, 64.23], [78.90, 94.90], [50.12, 75.00])),
    ("ViT-B-32:laion2b_s34b_b79k", ([93.58, 75.55], [84.10, 96.20], [56.32, 79.84])),
    ("ViT-B-32:datacomp_xl_s13b_b90k", ([95.61, 80.31], [79.00, 93.90], [53.54, 77.78])),
    ("ViT-B-32-256:datacomp_s34b_b86k", ([96.53, 82.87], [84.80, 96.70], [57.92, 80.56])),
    ("ViT-B-32-quickgelu:metaclip_fullcc", ([95.18, 77.67], [80.80, 95.30], [55.18, 78.90])),
    ("ViT-B-32-quickgelu:laion400m_e32", ([90.74, 70.29], [78.80, 94.00], [52.58, 76.72])),
    ("ViT-B-16:openai", ([90.77, 66.95], [82.20, 96.60], [52.42, 76.70])),
    ("ViT-B-16:laion2b_s34b_b88k", ([94.94, 76.84], [86.30, 97.90], [59.44, 81.78])),
    ("ViT-B-16:datacomp_xl_s13b_b90k", ([96.24, 82.12], [85.10, 97.20], [57.44, 80.86])),
    ("ViT-B-16:dfn2b", ([96.72, 83.49], [85.40, 97.80], [60.38, 83.10])),
    ("ViT-B-16-quickgelu:metaclip_fullcc", ([95.72, 78.91], [85.50, 97.40], [59.36, 80.58])),
    ("EVA02-B-16:merged2b_s8b_b131k", ([98.46, 87.73], [86.00, 96.60], [58.74, 80.56])),
    ("convnext_base_w:laion2b_s13b_b82k_augreg", ([95.61, 80.21], [87.30, 98.30], [61.40, 83.08])),
    ("ViT-B-16-SigLIP:webli", ([92.34, 72.23], [89.10, 98.00], [65.74, 85.42])),
    ("ViT-B-16-SigLIP-256:webli", ([93.34, 73.27], [90.40, 98.30], [66.14, 86.34])),
    ("ViT-B-16-SigLIP-384:webli", ([92.76, 71.47], [92.70, 99.10], [67.74, 87.58])),
    ("ViT-B-16-SigLIP-512:webli", ([92.65, 71.46], [92.50, 99.20], [68.72, 87.86])),
    ("ViT-B-16-SigLIP-i18n-256:webli", ([91.18, 72.16], [89.60, 98.20], [64.48, 84.34])),
    ("xlm-roberta-base-ViT-B-32:laion5b_s13b_b90k", ([93.66, 76.54], [82.70, 96.40], [53.54, 77.98])),
    ("roberta-ViT-B-32:laion2b_s12b_b32k", ([93.25, 75.05], [81.70, 94.90], [54.36, 77.74])),
    ("coca_ViT-B-32:laion2b_s13b_b90k", ([93.87, 73.78], [81.60, 95.70], [54.56, 77.88])),
    ("ViT-L-14:openai", ([95.59, 75.82], [85.20, 97.40], [56.34, 79.38])),
    ("ViT-L-14:laion2b_s32b_b82k", ([96.62, 83.32], [89.50, 98.70], [63.36, 83.98])),
    ("ViT-L-14:datacomp_xl_s13b_b90k", ([98.24, 87.36], [89.00, 98.60], [63.30, 84.14])),
    ("ViT-SO400M-14-SigLIP-384:webli", ([96.72, 83.57], [94.30, 99.70], [72.42, 89.98])),
];

/// The weights of the built-in model, which are bytes, in f32 arithmetic, on the last 1,000 names of Flickr8k, of which 998 have
/// captions: text to image and image to text, at 1, 5 and 10.
const BUILTIN: [[f64; 3]; 2] = [[18.00, 44.49, 56.97], [26.25, 54.41, 66.13]];

const IMAGE_RECALL: [&str; 3] = ["image_retrieval_recall@1", "image_retrieval_recall@5", "image_retrieval_recall@10"];
const TEXT_RECALL: [&str; 3] = ["text_retrieval_recall@1", "text_retrieval_recall@5", "text_retrieval_recall@10"];

/// What is published of this model on this dataset, beside what was measured. Empty where nothing is, and where the number of
/// pictures says that it is not the published split.
pub fn published(result: &Evaluation) -> Vec<Published> {
    if result.language != "en" || !matches!(result.task, Task::ZeroShotClassification | Task::ZeroShotRetrieval) {
        return Vec::new();
    }
    let name = format!("{}:{}", result.model, result.pretrained);
    // Those of other origins were measured in other ways.
    let alike = |scores: &&registry::Scores| matches!(scores.origin, Origin::OpenClip | Origin::Apple);
    let known = registry::MODELS.iter().find(|model| model.open_clip == name).map(|model| &model.scores).filter(alike);
    let more = SCORES.iter().find(|(model, _)| *model == name).map(|(_, scores)| scores);
    let mut scores: Vec<(&str, f64)> = Vec::new();
    let band = match (result.dataset.as_str(), result.pictures) {
        ("imagenet1k", 50_000) => {
            scores.extend(known.and_then(|known| known.imagenet).map(|score| ("acc1", two_digits(score))));
            0.3
        }
        ("cifar10", 10_000) => {
            scores.extend(more.map(|more| ("acc1", more.0[0])));
            0.5
        }
        ("cifar100", 10_000) => {
            scores.extend(more.map(|more| ("acc1", more.0[1])));
            0.5
        }
        ("flickr30k", 1_000) => {
            let recall = known.and_then(|known| known.flickr30k);
            scores.extend(recall.into_iter().flat_map(|recall| IMAGE_RECALL.into_iter().zip(recall.map(two_digits))));
            scores.extend(more.into_iter().flat_map(|more| TEXT_RECALL.into_iter().zip(more.1)));
            0.3
        }
        ("mscoco_captions", 5_000) => {
            let recall = known.into_iter().flat_map(|known| known.coco.into_iter().flatten());
            scores.extend(IMAGE_RECALL.into_iter().zip(recall.map(two_digits)));
            scores.extend(more.into_iter().flat_map(|more| TEXT_RECALL.into_iter().zip(more.2)));
            0.3
        }
        ("flickr8k", 998) if result.model == "builtin" => {
            let [images, texts] = BUILTIN;
            scores.extend(IMAGE_RECALL.into_iter().zip(images));
            scores.extend(TEXT_RECALL.into_iter().zip(texts));
            // By default the engine computes in bytes, too.
            if result.pretrained.ends_with("int8") { 0.7 } else { 0.15 }
        }
        _ => return Vec::new(),
    };
    let beside = |(metric, published)| {
        let measured = result.metrics.get(metric).and_then(Value::as_f64)? * 100.0;
        Some(Published { metric, published, measured, band })
    };
    scores.into_iter().filter_map(beside).collect()
}

/// The digits that were published, of a number in single precision.
fn two_digits(score: f32) -> f64 {
    (f64::from(score) * 100.0).round() / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Map, json};

    fn result(dataset: &str, pictures: usize, recall: f64) -> Evaluation {
        Evaluation {
            dataset: dataset.to_owned(),
            model: "ViT-B-32-quickgelu".to_owned(),
            pretrained: "openai".to_owned(),
            task: Task::ZeroShotRetrieval,
            language: "en".to_owned(),
            metrics: Map::from_iter([("image_retrieval_recall@5".to_owned(), json!(recall))]),
            pictures,
            texts: 5000,
            skipped: Vec::new(),
        }
    }

    #[test]
    fn a_published_score_stands_beside_ours() {
        let [score] = &published(&result("flickr30k", 1000, 0.8362))[..] else { panic!("one measure is published") };
        assert_eq!((score.metric, score.published), ("image_retrieval_recall@5", 83.56));
        assert!(score.agrees());
        assert!(!published(&result("flickr30k", 1000, 0.83))[0].agrees());
        assert!(published(&result("flickr30k", 999, 0.83)).is_empty());
        assert!(published(&result("my photos", 1000, 0.83)).is_empty());
    }
}
