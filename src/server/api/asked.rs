//! What is asked of `search`, `rank` and `similar`: parameters, bodies, and the query that they make.

use std::sync::Arc;

use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};

use crate::query::Parser;
use crate::server::failure::Failure;
use crate::server::fetch::Fetching;
use crate::server::knn::decoded;
use crate::server::service::Service;
use crate::{Part, Query, Ranking, Term};

/// Parts of one query, and bytes of its text: each part is a pass through a tower.
const MAX_PARTS: usize = 64;
const MAX_TEXT: usize = 16 << 10;

/// Parameters of an address: those of every search, and what comes before them.
macro_rules! parameters {
    ($(#[$about:meta])* $name:ident { $($(#[$of:meta])* $first:ident: $kind:ty,)* }) => {
        $(#[$about])*
        #[derive(Clone, Debug, Deserialize, IntoParams)]
        #[serde(deny_unknown_fields)]
        #[into_params(parameter_in = Query)]
        pub(in crate::server) struct $name {
            $($(#[$of])* pub(super) $first: $kind,)*
            /// Words, weights, signs and filters, in the query language of `tintype search`. Empty: every photo, newest first.
            #[serde(default)]
            q: String,
            /// The library; without it the first.
            library: Option<String>,
            /// What photos are ranked by.
            #[serde(default)]
            by: By,
            /// At most so many results (default 20).
            limit: Option<u32>,
            /// Leaves out the best so many (default 0).
            offset: Option<u32>,
            /// Only results with at least this score.
            min_score: Option<f32>,
            /// Share of the true best photos that is enough, 0 to 1 (default 1); below that a large library answers faster.
            #[param(minimum = 0, maximum = 1)]
            recall: Option<f32>,
            /// Hides pictures that are nearly the same as a better result; then at most the best 10,000 are looked at.
            #[serde(default)]
            #[param(value_type = Option<bool>)]
            deduplicate: bool,
        }

        impl From<$name> for SearchBody {
            fn from(parameters: $name) -> SearchBody {
                let $name { q, library, by, limit, offset, min_score, recall, deduplicate, .. } = parameters;
                SearchBody { q, library, by, limit, offset, min_score, recall, deduplicate, ..SearchBody::default() }
            }
        }
    };
}

parameters! {
    /// Which results, and of which library.
    SearchParams {}
}

parameters! {
    /// Results like a photo.
    SimilarParams {
        /// Number of a photo of the library.
        id: u64,
    }
}

/// A query and which of its results.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::server) struct SearchBody {
    /// Words, weights, signs and filters, in the query language of `tintype search`.
    #[serde(default)]
    pub(super) q: String,
    /// Further parts of the query; all add up.
    #[serde(default)]
    #[schema(max_items = 64)]
    pub(super) parts: Vec<PartBody>,
    /// Only photos below one of these folders or files.
    #[serde(default)]
    pub(super) within: Vec<String>,
    /// The library; without it the first.
    pub(super) library: Option<String>,
    /// What photos are ranked by.
    #[serde(default)]
    pub(super) by: By,
    /// At most so many results (default 20).
    pub(super) limit: Option<u32>,
    /// Leaves out the best so many (default 0).
    pub(super) offset: Option<u32>,
    /// Only results with at least this score.
    pub(super) min_score: Option<f32>,
    /// Share of the true best photos that is enough, 0 to 1 (default 1); below that a large library answers faster.
    #[schema(minimum = 0, maximum = 1)]
    pub(super) recall: Option<f32>,
    /// Hides pictures that are nearly the same as a better result; then at most the best 10,000 are looked at.
    #[serde(default)]
    pub(super) deduplicate: bool,
    /// Cosine above which two pictures are nearly the same (default 0.94).
    #[schema(minimum = 0, maximum = 1)]
    pub(super) similarity: Option<f32>,
    /// The form of the answer.
    #[serde(default)]
    pub(super) format: Form,
}

/// What photos are ranked by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(in crate::server) enum By {
    /// What they look like.
    #[default]
    Image,
    /// What their captions mean.
    Caption,
    /// The words of their captions and names.
    Words,
    /// All of these that the library has.
    Hybrid,
}

impl From<By> for Ranking {
    fn from(by: By) -> Ranking {
        match by {
            By::Image => Ranking::Image,
            By::Caption => Ranking::Caption,
            By::Words => Ranking::Words,
            By::Hybrid => Ranking::Hybrid,
        }
    }
}

/// The form of the answer to a search.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(in crate::server) enum Form {
    /// One object with all results.
    #[default]
    Json,
    /// A table, one line per result.
    Csv,
}

/// A part of a query: exactly one of `text`, `image`, `image_url`, `id`, `path` and `vector`, and its weight.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::server) struct PartBody {
    /// Factor of this part; negative pushes away (default 1).
    weight: Option<f32>,
    /// Words.
    text: Option<String>,
    /// A picture: base 64 of its file, or a `data:` address.
    image: Option<String>,
    /// Address of a picture, where the server allows that.
    image_url: Option<String>,
    /// Number of a photo of the library.
    id: Option<u64>,
    /// Path of a photo of the library, or the end of its path.
    path: Option<String>,
    /// A vector of the library's space.
    vector: Option<Vec<f32>>,
    /// What was at `image_url`.
    #[serde(skip)]
    fetched: Option<Vec<u8>>,
}

impl SearchBody {
    /// Fetches the pictures that parts name by their addresses, and gives the place for that, if there are any.
    pub(super) async fn fetch(&mut self, service: &Arc<Service>) -> Result<Option<Fetching>, Failure> {
        let mut fetching = None;
        for part in self.parts.iter_mut().take(MAX_PARTS) {
            if let Some(address) = part.image_url.take() {
                let fetching = match &mut fetching {
                    Some(fetching) => fetching,
                    none => none.insert(service.fetching().await?),
                };
                part.fetched = Some(fetching.bytes(address).await?);
            }
        }
        Ok(fetching)
    }

    /// The query. Takes the pictures out of the parts.
    pub(super) fn query(&mut self) -> Result<Query, Failure> {
        if self.q.len() > MAX_TEXT {
            return Err(Failure::bad(format!("a query text of more than {MAX_TEXT} bytes")));
        }
        // No word is a file: which files there are on this machine is nobody's business.
        let mut query = Parser::new().files(|_| false).parse(&self.q)?;
        if query.parts.iter().any(|part| matches!(part.term, Term::Image(_))) {
            return Err(Failure::bad(
                "a query here cannot name picture files; send the picture as a part, or name a photo of the library with like:",
            ));
        }
        if query.parts.len() + self.parts.len() > MAX_PARTS {
            return Err(Failure::bad(format!("more than {MAX_PARTS} parts")));
        }
        for part in self.parts.drain(..) {
            query.parts.push(part.part()?);
        }
        Ok(query)
    }
}

impl PartBody {
    fn part(self) -> Result<Part, Failure> {
        let mut terms = Vec::new();
        if self.text.as_ref().is_some_and(|text| text.len() > MAX_TEXT) {
            return Err(Failure::bad(format!("a text of more than {MAX_TEXT} bytes")));
        }
        terms.extend(self.text.map(Term::Text));
        if let Some(image) = self.image {
            terms.push(Term::ImageBytes(decoded(&image)?));
        }
        terms.extend(self.fetched.map(Term::ImageBytes));
        terms.extend(self.id.map(Term::Like));
        terms.extend(self.path.map(|path| Term::LikePath(path.into())));
        terms.extend(self.vector.map(Term::Vector));
        match (terms.pop(), terms.is_empty()) {
            (Some(term), true) => Ok(Part { weight: self.weight.unwrap_or(1.0), term }),
            _ => Err(Failure::bad("a part is exactly one of text, image, image_url, id, path and vector")),
        }
    }
}
