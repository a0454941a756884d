//! The known models, by name.
//!
//! A Rust table rather than an embedded TOML or JSON file: the compiler checks it, reading it cannot fail, and a row may
//! be named in documentation and tests. Nothing is guessed here: scores are those of open_clip's published result tables
//! (`docs/openclip_classification_results.csv`, `docs/openclip_retrieval_results.csv`), repositories those of its registry
//! (`pretrained.py`). Checksums are not in the table: the hub publishes them with every file, and [`hub`](super::hub)
//! checks each download against them.

use crate::{Error, Result};

/// A model that can be loaded by name.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Model {
    /// Short name: `vit-b-32-laion2b`.
    pub alias: &'static str,
    /// open_clip's name for the same weights, `model:tag`.
    pub open_clip: &'static str,
    /// What it is, in one line.
    pub summary: &'static str,
    /// Where it lies; the first is what a download takes, any that is complete on this machine will do.
    pub sources: &'static [Source],
    /// Numbers per embedding.
    pub dim: usize,
    /// Side of the square that pictures are brought to, in pixels.
    pub image_size: usize,
    /// Parameters of both towers, in units of 10,000.
    pub parameters_10k: u32,
    /// Terms of the weights.
    pub licence: Licence,
    /// Published scores.
    pub scores: Scores,
}

impl Model {
    /// Number of parameters of both towers, as published (rounded to 10,000).
    pub fn parameters(&self) -> u64 {
        u64::from(self.parameters_10k) * 10_000
    }

    /// Size of the download in bytes, within a few percent: the weights are stored in single precision, four bytes a
    /// parameter, and everything else is small. The hub states the exact size when a download starts.
    pub fn download_size(&self) -> u64 {
        self.parameters() * 4
    }
}

/// A repository on a model hub.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// `owner/name`.
    pub repository: &'static str,
    /// Branch, tag or commit.
    pub revision: &'static str,
    /// Which files make the model.
    pub layout: Layout,
}

/// The file names of a model directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Layout {
    /// `open_clip_config.json`, `open_clip_model.safetensors`. The vocabulary of the original CLIP, which all of the table
    /// use, is compiled in; open_clip does not download it either.
    OpenClip,
    /// `config.json`, `model.safetensors`, `preprocessor_config.json`, tokenizer.
    Transformers,
}

/// One thing that a model needs, as alternatives in order of preference; an alternative is a set of files.
pub(crate) type Need = &'static [&'static [&'static str]];

impl Layout {
    /// What must be there: of every need, one alternative. Small files come first, so that a model that cannot be had is
    /// noticed before the weights.
    pub(crate) fn needs(self) -> &'static [Need] {
        match self {
            Layout::OpenClip => {
                &[&[&["open_clip_config.json"]], &[&["open_clip_model.safetensors"], &["open_clip_pytorch_model.bin"]]]
            }
            Layout::Transformers => &[
                &[&["config.json"]],
                &[&["preprocessor_config.json"]],
                &[&["tokenizer.json"], &["vocab.json", "merges.txt"]],
                &[&["model.safetensors"], &["pytorch_model.bin"]],
            ],
        }
    }
}

/// Terms under which weights may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Licence {
    /// MIT.
    Mit,
    /// Creative Commons Attribution-NonCommercial 4.0.
    CcByNc4,
}

impl Licence {
    /// SPDX identifier.
    pub fn spdx(self) -> &'static str {
        match self {
            Licence::Mit => "MIT",
            Licence::CcByNc4 => "CC-BY-NC-4.0",
        }
    }

    /// Whether it forbids commercial use.
    pub fn restricts_use(self) -> bool {
        match self {
            Licence::Mit => false,
            Licence::CcByNc4 => true,
        }
    }

    /// What it means for commercial use, in plain words.
    pub fn in_plain_words(self) -> &'static str {
        match self {
            Licence::Mit => "free for any use, commercial use too",
            Licence::CcByNc4 => "not for commercial use; give credit",
        }
    }
}

/// Published zero-shot scores in percent.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Scores {
    /// ImageNet-1k, top-1 accuracy.
    pub imagenet: f32,
    /// Flickr30k text to image: recall at 1, 5 and 10.
    pub flickr30k: [f32; 3],
    /// MS-COCO text to image: recall at 1 and 5.
    pub coco: [f32; 2],
}

const fn scores(imagenet: f32, flickr30k: [f32; 3], coco: [f32; 2]) -> Scores {
    Scores { imagenet, flickr30k, coco }
}

const fn open_clip(repository: &'static str) -> Source {
    Source { repository, revision: "main", layout: Layout::OpenClip }
}

const fn transformers(repository: &'static str) -> Source {
    Source { repository, revision: "main", layout: Layout::Transformers }
}

/// All known models, small ones first.
pub const MODELS: &[Model] = &[
    Model {
        alias: "vit-b-32-openai",
        open_clip: "ViT-B-32-quickgelu:openai",
        summary: "CLIP ViT-B/32 by OpenAI, the original",
        sources: &[open_clip("timm/vit_base_patch32_clip_224.openai"), transformers("openai/clip-vit-base-patch32")],
        dim: 512,
        image_size: 224,
        parameters_10k: 15_128,
        licence: Licence::Mit,
        scores: scores(63.32, [58.78, 83.56, 90.02], [30.44, 55.94]),
    },
    Model {
        alias: "vit-b-32-laion2b",
        open_clip: "ViT-B-32:laion2b_s34b_b79k",
        summary: "CLIP ViT-B/32 by LAION: the best first step up for photo search",
        sources: &[
            open_clip("laion/CLIP-ViT-B-32-laion2B-s34B-b79K"),
            transformers("laion/CLIP-ViT-B-32-laion2B-s34B-b79K"),
        ],
        dim: 512,
        image_size: 224,
        parameters_10k: 15_128,
        licence: Licence::Mit,
        scores: scores(66.56, [66.78, 88.38, 93.10], [39.34, 65.43]),
    },
    Model {
        alias: "vit-b-32-datacomp",
        open_clip: "ViT-B-32:datacomp_xl_s13b_b90k",
        summary: "CLIP ViT-B/32 trained on DataComp-1B",
        sources: &[
            open_clip("laion/CLIP-ViT-B-32-DataComp.XL-s13B-b90K"),
            transformers("laion/CLIP-ViT-B-32-DataComp.XL-s13B-b90K"),
        ],
        dim: 512,
        image_size: 224,
        parameters_10k: 15_128,
        licence: Licence::Mit,
        scores: scores(69.17, [61.08, 84.92, 90.92], [37.14, 62.35]),
    },
    Model {
        alias: "vit-b-32-256-datacomp",
        open_clip: "ViT-B-32-256:datacomp_s34b_b86k",
        summary: "CLIP ViT-B/32 at 256 pixels, trained longer on DataComp-1B",
        sources: &[
            open_clip("laion/CLIP-ViT-B-32-256x256-DataComp-s34B-b86K"),
            transformers("laion/CLIP-ViT-B-32-256x256-DataComp-s34B-b86K"),
        ],
        dim: 512,
        image_size: 256,
        parameters_10k: 15_129,
        licence: Licence::Mit,
        scores: scores(72.81, [64.92, 87.22, 92.16], [39.93, 65.43]),
    },
    Model {
        alias: "vit-b-32-metaclip",
        open_clip: "ViT-B-32-quickgelu:metaclip_fullcc",
        summary: "CLIP ViT-B/32 by Meta",
        sources: &[open_clip("timm/vit_base_patch32_clip_224.metaclip_2pt5b")],
        dim: 512,
        image_size: 224,
        parameters_10k: 15_128,
        licence: Licence::CcByNc4,
        scores: scores(67.66, [65.10, 87.66, 92.74], [38.06, 64.11]),
    },
    Model {
        alias: "vit-b-16-openai",
        open_clip: "ViT-B-16:openai",
        summary: "CLIP ViT-B/16 by OpenAI: finer patches, about four times the work of B/32",
        sources: &[open_clip("timm/vit_base_patch16_clip_224.openai"), transformers("openai/clip-vit-base-patch16")],
        dim: 512,
        image_size: 224,
        parameters_10k: 14_962,
        licence: Licence::Mit,
        scores: scores(68.34, [62.16, 85.72, 91.92], [33.09, 58.42]),
    },
    Model {
        alias: "vit-b-16-laion2b",
        open_clip: "ViT-B-16:laion2b_s34b_b88k",
        summary: "CLIP ViT-B/16 by LAION",
        sources: &[
            open_clip("laion/CLIP-ViT-B-16-laion2B-s34B-b88K"),
            transformers("laion/CLIP-ViT-B-16-laion2B-s34B-b88K"),
        ],
        dim: 512,
        image_size: 224,
        parameters_10k: 14_962,
        licence: Licence::Mit,
        scores: scores(70.23, [69.84, 90.38, 94.56], [42.31, 67.70]),
    },
    Model {
        alias: "vit-b-16-datacomp",
        open_clip: "ViT-B-16:datacomp_xl_s13b_b90k",
        summary: "CLIP ViT-B/16 trained on DataComp-1B",
        sources: &[
            open_clip("laion/CLIP-ViT-B-16-DataComp.XL-s13B-b90K"),
            transformers("laion/CLIP-ViT-B-16-DataComp.XL-s13B-b90K"),
        ],
        dim: 512,
        image_size: 224,
        parameters_10k: 14_962,
        licence: Licence::Mit,
        scores: scores(73.49, [67.56, 88.34, 93.00], [40.16, 65.95]),
    },
    Model {
        alias: "vit-b-16-metaclip",
        open_clip: "ViT-B-16-quickgelu:metaclip_fullcc",
        summary: "CLIP ViT-B/16 by Meta",
        sources: &[open_clip("timm/vit_base_patch16_clip_224.metaclip_2pt5b")],
        dim: 512,
        image_size: 224,
        parameters_10k: 14_962,
        licence: Licence::CcByNc4,
        scores: scores(72.12, [70.72, 90.82, 94.54], [41.34, 67.18]),
    },
    Model {
        alias: "vit-l-14-openai",
        open_clip: "ViT-L-14:openai",
        summary: "CLIP ViT-L/14 by OpenAI",
        sources: &[open_clip("timm/vit_large_patch14_clip_224.openai"), transformers("openai/clip-vit-large-patch14")],
        dim: 768,
        image_size: 224,
        parameters_10k: 42_762,
        licence: Licence::Mit,
        scores: scores(75.54, [64.96, 87.24, 92.04], [36.51, 61.06]),
    },
    Model {
        alias: "vit-l-14-laion2b",
        open_clip: "ViT-L-14:laion2b_s32b_b82k",
        summary: "CLIP ViT-L/14 by LAION: the best of this table for finding photos by text, and slow without a GPU",
        sources: &[
            open_clip("laion/CLIP-ViT-L-14-laion2B-s32B-b82K"),
            transformers("laion/CLIP-ViT-L-14-laion2B-s32B-b82K"),
        ],
        dim: 768,
        image_size: 224,
        parameters_10k: 42_762,
        licence: Licence::Mit,
        scores: scores(75.25, [75.52, 92.86, 95.94], [46.51, 71.08]),
    },
    Model {
        alias: "vit-l-14-datacomp",
        open_clip: "ViT-L-14:datacomp_xl_s13b_b90k",
        summary: "CLIP ViT-L/14 trained on DataComp-1B: the best of this table for naming what a photo shows",
        sources: &[
            open_clip("laion/CLIP-ViT-L-14-DataComp.XL-s13B-b90K"),
            transformers("laion/CLIP-ViT-L-14-DataComp.XL-s13B-b90K"),
        ],
        dim: 768,
        image_size: 224,
        parameters_10k: 42_762,
        licence: Licence::Mit,
        scores: scores(79.21, [73.38, 91.74, 95.54], [45.73, 70.03]),
    },
];

/// The model called `name`: an alias, open_clip's `model:tag`, or a repository; upper and lower case are the same.
///
/// # Errors
/// [`Error::UnknownModel`], which lists the names that come closest.
pub fn find(name: &str) -> Result<&'static Model> {
    let called = |model: &&Model| {
        model.alias.eq_ignore_ascii_case(name)
            || model.open_clip.eq_ignore_ascii_case(name)
            || model.sources.iter().any(|source| source.repository.eq_ignore_ascii_case(name))
    };
    MODELS.iter().find(called).ok_or_else(|| Error::UnknownModel { name: name.to_owned(), known: closest(name) })
}

/// Aliases that share a part with `name`, or all of them.
fn closest(name: &str) -> String {
    let name = name.to_ascii_lowercase();
    let parts: Vec<&str> = name.split(|c: char| !c.is_ascii_alphanumeric()).filter(|part| !part.is_empty()).collect();
    let shared = |model: &Model| parts.iter().filter(|part| model.alias.split('-').any(|word| word == **part)).count();
    let most = MODELS.iter().map(shared).max().unwrap_or(0);
    let aliases: Vec<&str> = MODELS.iter().filter(|model| shared(model) == most).map(|model| model.alias).collect();
    aliases.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn names_are_unique_and_plain() {
        let mut seen = HashSet::new();
        for model in MODELS {
            assert!(seen.insert(model.alias), "{} twice", model.alias);
            assert!(seen.insert(model.open_clip), "{} twice", model.open_clip);
            assert!(model.alias.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-'));
            assert!(!model.sources.is_empty());
        }
    }

    #[test]
    fn recall_grows_with_k() {
        for Model { alias, scores, .. } in MODELS {
            assert!(scores.flickr30k.is_sorted() && scores.coco.is_sorted(), "{alias}");
            assert!(scores.flickr30k[2] < 100.0 && scores.imagenet < 100.0, "{alias}");
        }
    }

    #[test]
    fn any_of_its_names_finds_a_model() {
        for name in [
            "vit-b-32-laion2b",
            "VIT-B-32-LAION2B",
            "ViT-B-32:laion2b_s34b_b79k",
            "laion/CLIP-ViT-B-32-laion2B-s34B-b79K",
        ] {
            assert_eq!(find(name).unwrap().alias, "vit-b-32-laion2b");
        }
    }

    #[test]
    fn an_unknown_name_is_answered_with_the_closest() {
        let error = find("vit-b-16").unwrap_err().to_string();
        assert!(error.contains("vit-b-16-laion2b") && !error.contains("vit-l-14"), "{error}");
        let error = find("nothing").unwrap_err().to_string();
        assert!(error.contains("vit-b-32-openai") && error.contains("vit-l-14-datacomp"), "{error}");
    }
}
