//! The known models, by name.
//!
//! A Rust table (`table`, one model in two lines) rather than an embedded TOML or JSON file: the compiler checks it, reading
//! it cannot fail, and a row may be named in documentation and tests. Nothing is guessed here: scores are published ones, each
//! with its [`Origin`], and empty where nobody published one; repositories are those of open_clip's registry
//! (`pretrained.py`). Checksums are not in the table: the hub publishes them with every file, and [`hub`](super::hub) checks
//! each download against them.

mod table;

use std::borrow::Cow;

pub use self::table::MODELS;
use super::import;
use crate::{Error, Result};

/// A model that can be loaded by name.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Model {
    /// Short name: `vit-b-32-laion2b`.
    pub alias: &'static str,
    /// open_clip's name for the same weights: `model:tag`, or `hf-hub:owner/name` where its registry does not have them.
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
    /// Languages that it reads.
    pub languages: Languages,
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
    pub repository: Cow<'static, str>,
    /// Branch, tag or commit.
    pub revision: Cow<'static, str>,
    /// Which files make the model.
    pub layout: Layout,
}

impl Source {
    /// Any repository with a model, in the formats that it may have, the more explicit one first. `name` is `owner/name`,
    /// or `owner/name@revision` for a branch, tag or commit other than `main`.
    pub fn of(name: &str) -> [Source; 2] {
        let (repository, revision) = name.split_once('@').unwrap_or((name, "main"));
        [Layout::OpenClipAny, Layout::Transformers].map(|layout| Source {
            repository: repository.to_owned().into(),
            revision: revision.to_owned().into(),
            layout,
        })
    }
}

/// The file names of a model directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Layout {
    /// `open_clip_config.json`, `open_clip_model.safetensors`. The vocabulary of the original CLIP is compiled in; open_clip
    /// does not download it either.
    OpenClip,
    /// The same with a tokenizer of its own.
    OpenClipTokenizer,
    /// The same with or without one.
    OpenClipAny,
    /// `config.json`, `model.safetensors` or its shards, `preprocessor_config.json`, tokenizer.
    Transformers,
}

/// One thing that a model needs, as alternatives in order of preference; an alternative is a set of files. The index of weights
/// in several files stands for those, too.
pub(crate) type Need = &'static [&'static [&'static str]];

impl Layout {
    /// What must be there: of every need, one alternative. Small files come first, so that a model that cannot be had is
    /// noticed before the weights.
    pub(crate) fn needs(self) -> &'static [Need] {
        const CONFIG: Need = &[&["open_clip_config.json"]];
        const WEIGHTS: Need = &[&["open_clip_model.safetensors"], &["open_clip_pytorch_model.bin"]];
        const SPECIALS: Need = &[&["tokenizer_config.json"], &["special_tokens_map.json"]];
        const PERHAPS_SPECIALS: Need = &[&["tokenizer_config.json"], &["special_tokens_map.json"], &[]];
        match self {
            Layout::OpenClip => &[CONFIG, WEIGHTS],
            Layout::OpenClipTokenizer => &[CONFIG, SPECIALS, &[&["tokenizer.json"]], WEIGHTS],
            Layout::OpenClipAny => &[
                CONFIG,
                PERHAPS_SPECIALS,
                &[&["tokenizer.json"], &["vocab.json", "merges.txt"], &["vocab.txt"], &[]],
                import::OPEN_CLIP_WEIGHTS,
            ],
            Layout::Transformers => &[
                &[&["config.json"]],
                // Not without one: Python's tools may have fetched a model's weights alone, and nothing else says what its
                // pictures look like.
                &[&["preprocessor_config.json"], &["processor_config.json"]],
                PERHAPS_SPECIALS,
                &[&["tokenizer.json"], &["vocab.json", "merges.txt"], &["vocab.txt"]],
                &[
                    &["model.safetensors"],
                    &["model.safetensors.index.json"],
                    &["pytorch_model.bin"],
                    &["pytorch_model.bin.index.json"],
                ],
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
    /// Apache License 2.0.
    Apache2,
    /// Creative Commons Attribution-NonCommercial 4.0.
    CcByNc4,
    /// Apple's licence for models of its research.
    AppleAmlr,
    /// Apple's terms for its DFN models, which its pages do not state alike.
    AppleDfn,
}

impl Licence {
    /// SPDX identifier, or the hub's name for terms that SPDX does not know.
    pub fn spdx(self) -> &'static str {
        match self {
            Licence::Mit => "MIT",
            Licence::Apache2 => "Apache-2.0",
            Licence::CcByNc4 => "CC-BY-NC-4.0",
            Licence::AppleAmlr => "apple-amlr",
            Licence::AppleDfn => "apple-ascl or apple-amlr",
        }
    }

    /// Whether it forbids commercial use, or may forbid it.
    pub fn restricts_use(self) -> bool {
        match self {
            Licence::Mit | Licence::Apache2 => false,
            Licence::CcByNc4 | Licence::AppleAmlr | Licence::AppleDfn => true,
        }
    }

    /// What it means for commercial use, in plain words.
    pub fn in_plain_words(self) -> &'static str {
        match self {
            Licence::Mit | Licence::Apache2 => "free for any use, commercial use too",
            Licence::CcByNc4 => "not for commercial use; give credit",
            Licence::AppleAmlr => "for research only, not for commercial use, not in products",
            Licence::AppleDfn => "Apple's own terms, perhaps not for commercial use: read them on its page first",
        }
    }
}

/// Languages that a model reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Languages {
    /// English, and little else.
    English,
    /// Many, as its makers say.
    Many,
}

impl Languages {
    /// In a word or two.
    pub fn in_plain_words(self) -> &'static str {
        match self {
            Languages::English => "English",
            Languages::Many => "many",
        }
    }
}

/// Published zero-shot scores in percent; none where none was published for this checkpoint.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Scores {
    /// ImageNet-1k, top-1 accuracy.
    pub imagenet: Option<f32>,
    /// Flickr30k text to image: recall at 1, 5 and 10.
    pub flickr30k: Option<[f32; 3]>,
    /// MS-COCO text to image: recall at 1 and 5.
    pub coco: [Option<f32>; 2],
    /// Who published them.
    pub origin: Origin,
}

/// Who published a model's scores. Numbers of one origin were measured alike; across origins, a point means little.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Origin {
    /// Nobody.
    None,
    /// open_clip: `docs/openclip_classification_results.csv` and `docs/openclip_retrieval_results.csv`.
    OpenClip,
    /// Apple: `results/*.jsonl` of ml-mobileclip, by the same protocol.
    Apple,
    /// Google: the table of big_vision's `README_siglip2.md`.
    BigVision,
    /// Meta: the table of perception_models' `README.md`.
    Meta,
}

impl Origin {
    /// Where the numbers stand; empty for [`Origin::None`].
    pub fn name(self) -> &'static str {
        match self {
            Origin::None => "",
            Origin::OpenClip => "open_clip",
            Origin::Apple => "ml-mobileclip",
            Origin::BigVision => "big_vision",
            Origin::Meta => "perception_models",
        }
    }
}

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
            let rising = |numbers: &[f32]| numbers.is_sorted() && numbers.iter().all(|n| (20.0..100.0).contains(n));
            assert!(scores.flickr30k.is_none_or(|recall| rising(&recall)), "{alias}");
            let coco: Vec<f32> = scores.coco.iter().flatten().copied().collect();
            assert!(rising(&coco) && scores.imagenet.is_none_or(|x| rising(&[x])), "{alias}");
            assert_eq!(scores.imagenet.is_none(), scores.origin == Origin::None, "{alias}");
        }
    }

    #[test]
    fn there_are_sixty_and_more_with_size_licence_and_repository() {
        assert!(MODELS.len() >= 60, "{}", MODELS.len());
        for model in MODELS {
            assert!((10_000_000..6_000_000_000).contains(&model.parameters()), "{}", model.alias);
            assert!((64..=1536).contains(&model.dim) && (224..=512).contains(&model.image_size), "{}", model.alias);
            assert!(model.sources.iter().all(|source| source.repository.split('/').count() == 2), "{}", model.alias);
            let plain = model.licence.in_plain_words();
            assert_eq!(model.licence.restricts_use(), plain.contains("not for commercial use"), "{}", model.alias);
        }
        assert!(MODELS.iter().filter(|model| model.languages == Languages::Many).count() >= 10);
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
