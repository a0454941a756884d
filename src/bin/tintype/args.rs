//! The command line: help, completions and man page all come from these definitions.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum, ValueHint};
use clap_complete::Shell;
use tintype::model::{Device, Precision};
use tintype::{CollectionPart, Download, Ranking};

use crate::commands::adapt::AdaptArgs;
use crate::commands::curate::{DedupArgs, ExportArgs, FilterArgs, MergeArgs, ScoreArgs};
use crate::commands::eval::EvalArgs;
use crate::commands::models::ModelsArgs;

/// Find photos by what is in them, on your own machine.
///
/// tintype reads the photos below the folders that you give it, describes each with a vector, and finds those that fit words
/// or another picture. Photos are only read, never changed, and nothing leaves the machine.
#[derive(Debug, Parser)]
#[command(name = "tintype", version, max_term_width = 100, disable_help_subcommand = true, after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXAMPLES: &str = "\
Examples:
  tintype search \"a dog running through snow\" --in ~/Photos
  tintype search 'a dog on the beach -leash after:2024-05 camera:\"iPhone 13\"'
  tintype similar ~/Photos/2023/IMG_2041.jpg --html like.html";

/// What every command understands.
#[derive(Clone, Debug, ClapArgs)]
pub(crate) struct Common {
    /// Where the library is kept [default: in the data directory of this system]
    #[arg(long, global = true, value_name = "DIR", env = "TINTYPE_LIBRARY", value_hint = ValueHint::DirPath)]
    pub(crate) library: Option<PathBuf>,
    /// The model to use: a name that `tintype models` lists, a model's directory or file, or a file of `tintype adapt`
    #[arg(long, global = true, value_name = "NAME|PATH", value_hint = ValueHint::AnyPath)]
    pub(crate) model: Option<String>,
    /// Arithmetic of the model
    #[arg(long, global = true, value_name = "KIND", default_value = "auto")]
    pub(crate) precision: Arithmetic,
    /// Where the model is evaluated: cpu, cuda, metal, or the second card with cuda:1
    #[arg(long, global = true, value_name = "DEVICE", default_value = "cpu", value_parser = device)]
    pub(crate) device: Device,
    /// Load a model although something in it is not understood: unknown keys and left-over tensors are passed over, and
    /// pictures made in the size that its tower takes. Its answers may be worse than they should be
    #[arg(long, global = true)]
    pub(crate) lenient: bool,
    /// Colours and links
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    pub(crate) color: When,
    /// Say nothing but mistakes
    #[arg(long, short, global = true)]
    pub(crate) quiet: bool,
}

/// How precisely a model is evaluated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Arithmetic {
    /// What the library was made with; else int8 for the built-in model, and for others the faster of f32 and bf16, whose
    /// vectors may be mixed.
    Auto,
    /// Single precision.
    F32,
    /// Half the bits: nearly the same vectors, twice as fast on processors with AVX512_BF16; also on other devices.
    Bf16,
    /// Bytes: the fastest; its vectors are a space of their own.
    Int8,
}

impl Arithmetic {
    /// As the library calls it.
    pub(crate) fn precision(self) -> Precision {
        match self {
            Arithmetic::Auto => Precision::Auto,
            Arithmetic::F32 => Precision::F32,
            Arithmetic::Bf16 => Precision::Bf16,
            Arithmetic::Int8 => Precision::Int8,
        }
    }

    /// As it is written on the command line.
    pub(crate) fn name(self) -> String {
        self.to_possible_value().map_or_else(|| "auto".to_owned(), |value| value.get_name().to_owned())
    }
}

impl Common {
    /// The device as it is written on the command line.
    pub(crate) fn device_name(&self) -> String {
        match self.device {
            Device::Cuda(number) => format!("cuda:{number}"),
            Device::Metal(number) => format!("metal:{number}"),
            _ => "cpu".to_owned(),
        }
    }
}

fn device(text: &str) -> Result<Device, String> {
    let (kind, number) = text.split_once(':').unwrap_or((text, "0"));
    let number = number.parse().map_err(|_| format!("{number:?} is no number of a device"))?;
    match kind {
        "cpu" if text == kind => Ok(Device::Cpu),
        "cuda" => Ok(Device::Cuda(number)),
        "metal" => Ok(Device::Metal(number)),
        _ => Err("expected cpu, cuda, cuda:N, metal or metal:N".to_owned()),
    }
}

/// When to colour.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum When {
    /// On a terminal, unless NO_COLOR is set.
    Auto,
    /// Also into a pipe or file.
    Always,
    /// Never.
    Never,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Take folders into the library, or bring it up to date
    Index(IndexArgs),
    /// Find photos by words, by pictures, or by both
    #[command(after_help = QUERY_HELP)]
    Search(SearchArgs),
    /// Find photos that look like a picture
    Similar(SimilarArgs),
    /// Say what the library holds
    Status(StatusArgs),
    /// List the models, fetch one, or choose one
    Models(ModelsArgs),
    /// Take photos out of the library; the files stay where they are
    Remove(RemoveArgs),
    /// Write photos and their vectors for other programs: clip-retrieval's folder, Parquet, JSON lines
    Export(ExportArgs),
    /// Copy or link the pictures that fit a query into a folder
    Filter(FilterArgs),
    /// Group photos that are nearly the same; deletes nothing
    Dedup(DedupArgs),
    /// Say how well captions fit their pictures
    Score(ScoreArgs),
    /// Measure a model on a dataset: zero-shot classification, retrieval, linear probe, caption selection
    #[command(after_help = crate::commands::eval::HELP)]
    Eval(EvalArgs),
    /// Make a model better at what some of your photos show: from a few pictures by class, or with captions
    #[command(after_help = crate::commands::adapt::HELP)]
    Adapt(AdaptArgs),
    /// Join libraries without embedding anything again
    Merge(MergeArgs),
    /// Check every byte of the records, the vectors and the kept features
    Verify(VerifyArgs),
    /// Answer over HTTP: a page to search in, an API, and the service of clip-retrieval
    #[cfg(feature = "server")]
    #[command(after_help = SERVE_HELP)]
    Serve(crate::commands::serve::ServeArgs),
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Print the man page, or write one page per command
    Man {
        /// Write `tintype.1`, `tintype-search.1` and so on into this directory
        #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
        dir: Option<PathBuf>,
    },
}

/// `tintype index`.
#[derive(Debug, ClapArgs)]
pub(crate) struct IndexArgs {
    /// Folders, pictures, or collections: tars, lists (Parquet, JSONL, CSV), embeddings (.npy, .npz, Parquet, a folder of
    /// clip-retrieval); `{000..123}` and `*` are understood [default: what was indexed before]
    #[arg(value_name = "PATH", value_hint = ValueHint::AnyPath)]
    pub(crate) paths: Vec<PathBuf>,
    /// Keep what the model has before its last map (3.6 KB per photo for the built-in model), so that an adapted model needs no photo
    /// again; once done, later runs do it too
    #[arg(long)]
    pub(crate) keep_features: bool,
    #[command(flatten)]
    pub(crate) bounds: Bounds,
    #[command(flatten)]
    pub(crate) walk: WalkArgs,
    #[command(flatten)]
    pub(crate) collection: CollectionArgs,
}

/// How much of it is taken in, and what that may take.
#[derive(Debug, Default, ClapArgs)]
pub(crate) struct Bounds {
    /// Memory in MB for the index while it is built: 1.1 kB per vector of 512 numbers makes one graph of all, less makes several
    /// [default: half of what is free]
    #[arg(long, value_name = "MB")]
    memory: Option<u64>,
    /// Take in one part of the photos and collections: part I of N, counted from 0; `tintype merge` joins them
    #[arg(long, value_name = "I/N", value_parser = part)]
    pub(crate) shard: Option<CollectionPart>,
}

impl Bounds {
    /// Memory in bytes.
    pub(crate) fn memory(&self) -> Option<u64> {
        self.memory.map(|megabytes| megabytes.saturating_mul(1_000_000))
    }
}

/// How collections are read.
#[derive(Debug, ClapArgs)]
#[command(next_help_heading = "Collections")]
pub(crate) struct CollectionArgs {
    /// The model that made the embeddings: a name that `tintype models` lists, a model's directory or file, or any name
    #[arg(long, value_name = "NAME|DIR")]
    pub(crate) space: Option<String>,
    /// Give captions vectors of their own, for `search --by caption` and `--hybrid`; once done, later runs do it too
    #[arg(long)]
    pub(crate) captions: bool,
    /// The folder that paths of pictures in a list or in metadata begin at
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) images: Option<PathBuf>,
    /// Fetch pictures that a list has only web addresses of
    #[arg(long)]
    pub(crate) download: bool,
    /// Also fetch from this machine and from private networks
    #[arg(long, requires = "download")]
    pub(crate) allow_private_addresses: bool,
    /// Fetches at a time
    #[arg(long, value_name = "N", requires = "download", default_value_t = Download::default().connections)]
    pub(crate) connections: usize,
    /// Seconds that fetching one picture may take
    #[arg(long, value_name = "SECONDS", requires = "download", default_value_t = Download::default().timeout.as_secs())]
    pub(crate) timeout: u64,
    /// How often a fetch that failed in passing is tried again
    #[arg(long, value_name = "N", requires = "download", default_value_t = Download::default().retries)]
    pub(crate) retries: u32,
    /// Largest picture in MB that is fetched
    #[arg(long, value_name = "MB", requires = "download", default_value_t = Download::default().max_bytes >> 20)]
    pub(crate) max_size: u64,
    /// Room in MB for small copies of pictures of the web and of those in gzipped shards; 0 keeps none
    #[arg(long, value_name = "MB", default_value_t = 4000)]
    pub(crate) copies: u64,
    /// The column with paths of pictures
    #[arg(long, value_name = "NAME")]
    pub(crate) path_column: Option<String>,
    /// The column with web addresses of pictures
    #[arg(long, value_name = "NAME")]
    pub(crate) url_column: Option<String>,
    /// The column with captions
    #[arg(long, value_name = "NAME")]
    pub(crate) caption_column: Option<String>,
    /// The column with vectors, or the member of an .npz file
    #[arg(long, value_name = "NAME")]
    pub(crate) vector_column: Option<String>,
}

/// The least of scores: of a query with weights they have no bounds, nor have those of words.
pub(crate) fn least_score(text: &str) -> Result<f32, String> {
    text.parse().ok().filter(|number: &f32| number.is_finite()).ok_or_else(|| "expected a number".to_owned())
}

/// A likeness, or the least of them.
pub(crate) fn cosine(text: &str) -> Result<f32, String> {
    let number = text.parse().ok().filter(|number| (-1.0..=1.0).contains(number));
    number.ok_or_else(|| "expected a number from -1 to 1".to_owned())
}

/// A share.
pub(crate) fn share(text: &str) -> Result<f32, String> {
    cosine(text).ok().filter(|share| *share >= 0.0).ok_or_else(|| "expected a number from 0 to 1".to_owned())
}

fn part(text: &str) -> Result<CollectionPart, String> {
    let read = || {
        let (index, count) = text.split_once('/')?;
        CollectionPart::new(index.trim().parse().ok()?, count.trim().parse().ok()?)
    };
    read().ok_or_else(|| "a part looks like 0/4: part 0 of 4, the last is 3/4".to_owned())
}

/// Which files an update looks at.
#[derive(Debug, ClapArgs)]
pub(crate) struct WalkArgs {
    /// Leave out what fits this pattern, such as `*.png` or `Trash/`; repeatable
    #[arg(long, value_name = "GLOB")]
    pub(crate) exclude: Vec<String>,
    /// Leave out folders of this name; repeatable
    #[arg(long, value_name = "NAME")]
    pub(crate) exclude_dir: Vec<String>,
    /// Also take hidden files and folders
    #[arg(long, visible_alias = "include-hidden")]
    pub(crate) hidden: bool,
    /// List every file that could not be read, however many
    #[arg(long, short)]
    pub(crate) verbose: bool,
}

/// `tintype search`.
#[derive(Debug, ClapArgs)]
pub(crate) struct SearchArgs {
    /// What to look for (best in quotes); nothing lists the newest photos
    #[arg(value_name = "QUERY")]
    pub(crate) query: Vec<String>,
    /// Also look for this; repeatable
    #[arg(long, short, value_name = "QUERY")]
    pub(crate) add: Vec<String>,
    /// Stay away from this; repeatable
    #[arg(long, short, visible_alias = "sub", value_name = "QUERY")]
    pub(crate) subtract: Vec<String>,
    /// Only below this folder, which is brought up to date first; repeatable
    #[arg(long = "in", value_name = "PATH", value_hint = ValueHint::AnyPath)]
    pub(crate) within: Vec<PathBuf>,
    /// Search the library as it is, without looking for new photos
    #[arg(long, short, visible_aliases = ["no-indexing", "skip-index", "skip-indexing"])]
    pub(crate) no_update: bool,
    /// What photos are ranked by
    #[arg(long, value_name = "WHAT", default_value = "image")]
    pub(crate) by: By,
    /// Rank by pictures, captions and words together; the same as `--by hybrid`
    #[arg(long, conflicts_with = "by")]
    pub(crate) hybrid: bool,
    #[command(flatten)]
    pub(crate) walk: WalkArgs,
    #[command(flatten)]
    pub(crate) page: PageArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

impl SearchArgs {
    /// What photos are ranked by.
    pub(crate) fn ranking(&self) -> Ranking {
        match self.by {
            _ if self.hybrid => Ranking::Hybrid,
            By::Image => Ranking::Image,
            By::Caption => Ranking::Caption,
            By::Words => Ranking::Words,
            By::Hybrid => Ranking::Hybrid,
        }
    }
}

/// What photos are ranked by.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum By {
    /// What the pictures look like.
    Image,
    /// What their captions mean; needs `index --captions`.
    Caption,
    /// The words of their captions and file names.
    Words,
    /// All of these together, by reciprocal rank fusion.
    Hybrid,
}

/// `tintype similar`.
#[derive(Debug, ClapArgs)]
pub(crate) struct SimilarArgs {
    /// A picture, of the library or not
    #[arg(value_hint = ValueHint::FilePath)]
    pub(crate) file: PathBuf,
    /// Only below this folder; repeatable
    #[arg(long = "in", value_name = "PATH", value_hint = ValueHint::AnyPath)]
    pub(crate) within: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) page: PageArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// Which of the answers.
#[derive(Debug, ClapArgs)]
pub(crate) struct PageArgs {
    /// At most so many photos
    #[arg(long, short = 't', visible_alias = "top", value_name = "N", default_value_t = 20)]
    pub(crate) limit: usize,
    /// Leave out the best N
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) offset: usize,
    /// Only photos with at least this score
    #[arg(long, value_name = "SCORE", allow_negative_numbers = true, value_parser = least_score)]
    pub(crate) min_score: Option<f32>,
    /// Share of the true best photos that is enough, 0 to 1; below 1 a large library answers faster
    #[arg(long, value_name = "SHARE", default_value_t = 1.0, value_parser = share)]
    pub(crate) recall: f32,
}

/// The form of the answer.
#[derive(Debug, ClapArgs)]
pub(crate) struct OutputArgs {
    /// One JSON object per photo and line
    #[arg(long, conflicts_with_all = ["paths", "null", "preview"])]
    pub(crate) json: bool,
    /// Paths only, one per line
    #[arg(long, short = 'f', visible_alias = "filepath-only")]
    pub(crate) paths: bool,
    /// Paths only, each followed by a NUL byte (for `xargs -0`)
    #[arg(long, short = '0')]
    pub(crate) null: bool,
    /// Show the pictures in the terminal
    #[arg(long, short, conflicts_with_all = ["paths", "null"])]
    pub(crate) preview: bool,
    /// Rows that a preview takes
    #[arg(long, short = 'H', value_name = "ROWS", default_value_t = 12)]
    pub(crate) preview_height: u16,
    /// Also write a page of thumbnails that opens in any browser, offline
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) html: Option<PathBuf>,
}

/// `tintype status`.
#[derive(Debug, ClapArgs)]
pub(crate) struct StatusArgs {
    /// As one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

/// `tintype verify`.
#[derive(Debug, ClapArgs)]
pub(crate) struct VerifyArgs {
    /// As one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

/// `tintype remove`.
#[derive(Debug, ClapArgs)]
pub(crate) struct RemoveArgs {
    /// Folders or files
    #[arg(required = true, value_name = "PATH", value_hint = ValueHint::AnyPath)]
    pub(crate) paths: Vec<PathBuf>,
}

#[cfg(feature = "server")]
const SERVE_HELP: &str = "\
Examples:
  tintype serve                                   the library, at http://127.0.0.1:1234
  tintype serve photos=~/.local/share/tintype art=/srv/art.tintype
  tintype serve --listen 0.0.0.0:1234 --host-name nas.local --token \"$(cat token)\"

Addresses: / the page, /api/v1/… the API (described at /api/v1/openapi.json), /knn-service and /metadata for the clients of
clip-retrieval, /metrics for Prometheus.

Exit status: 0 ended by Ctrl-C or SIGTERM, 1 failed, 2 a mistake in the command line.";

const QUERY_HELP: &str = "\
Queries:
  a dog on the beach              words
  pool.jpg  ./pool  ~/pool.jpg    a picture file; ./ forces a file, quotes force words
  a dog on the beach -leash       a - before a word pushes away from it
  2:\"golden retriever\" + ./pool.jpg - fruit
                                  sums: + and - join, N: weighs
  like:Holidays/pool.jpg          a photo of the library

Filters, anywhere in the query; - before one negates it:
  after:2024-05  before:2025  date:2024-05-17
  camera:\"iPhone 13\"  lens:50mm  type:jpeg,png
  near:48.85,2.35~10km            latitude,longitude~distance
  path:Holidays/**  in:~/Photos
  width:2000..  height:..1080  size:5MB..
  text:\"red car\"  text:begin*     words of the caption or the file name
  where:\"NSFW = 'UNLIKELY' and pwatermark < 0.5\"
                                  any column of metadata: = != < <= > >= in like
                                  between, is null, and, or, not

Times and ratios (10:30, 3:2) are words, and so are hyphens inside a word.

Exit status: 0 done, 1 some files could not be read, 2 a mistake in the query, 130 interrupted.";
