//! Counters: clip-retrieval's ten histograms under its names, and ours.
//!
//! Written by hand, because the text is fixed: format 0.0.4, floats with a point, a `_created` gauge after each histogram,
//! in this order. Boards that were drawn for clip-retrieval read it.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Upper bounds of the buckets in seconds, as written.
const BOUNDS: [(f64, &str); 14] = [
    (0.005, "0.005"),
    (0.01, "0.01"),
    (0.025, "0.025"),
    (0.05, "0.05"),
    (0.075, "0.075"),
    (0.1, "0.1"),
    (0.25, "0.25"),
    (0.5, "0.5"),
    (0.75, "0.75"),
    (1.0, "1.0"),
    (2.5, "2.5"),
    (5.0, "5.0"),
    (7.5, "7.5"),
    (10.0, "10.0"),
];

/// A step of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Full,
    Download,
    TextInference,
    ImageInference,
    Metadata,
    Knn,
    Dedup,
    /// The step before it is a safety model, the one after it the tokenizer alone: there is no such model here, and tokens
    /// count as inference. Both histograms stay empty.
    ImagePreparation = 8,
    /// Ours: a search of our own API.
    Search = 10,
    /// Ours: a thumbnail, from the cache or made.
    Thumbnail,
}

const STEPS: [(&str, &str); 12] = [
    ("full_knn_request_time", "Time spent processing knn request"),
    ("download_time", "Time spent downloading an url"),
    ("text_clip_inference_time", "Time spent doing a text clip inference"),
    ("image_clip_inference_time", "Time spent doing a image clip inference"),
    ("metadata_get_time", "Time spent retrieving metadata"),
    ("knn_index_time", "Time spent doing a knn on the index"),
    ("dedup_time", "Time spent deduping"),
    ("safety_time", "Time spent doing a safety inference"),
    ("image_prepro_time", "Time spent doing the image preprocessing"),
    ("text_prepro_time", "Time spent doing the text preprocessing"),
    ("tintype_search_time", "Time spent searching for our own API"),
    ("tintype_thumbnail_time", "Time spent reading or making a thumbnail"),
];

/// How many of [`STEPS`] clip-retrieval has.
const THEIRS: usize = 10;

#[derive(Debug, Default)]
struct Histogram {
    buckets: [AtomicU64; BOUNDS.len() + 1],
    nanoseconds: AtomicU64,
}

impl Histogram {
    fn observe(&self, time: Duration) {
        let seconds = time.as_secs_f64();
        let bucket = BOUNDS.iter().position(|(bound, _)| seconds <= *bound).unwrap_or(BOUNDS.len());
        self.buckets[bucket].fetch_add(1, Relaxed);
        self.nanoseconds.fetch_add(time.as_nanos() as u64, Relaxed);
    }

    fn count(&self) -> u64 {
        self.buckets.iter().map(|bucket| bucket.load(Relaxed)).sum()
    }

    fn sum(&self) -> f64 {
        self.nanoseconds.load(Relaxed) as f64 / 1e9
    }
}

/// What a server counts.
#[derive(Debug)]
pub(super) struct Metrics {
    steps: [Histogram; STEPS.len()],
    /// Answers by the first digit of their status, from 1.
    answers: [AtomicU64; 5],
    created: f64,
}

/// How counters are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// Prometheus text, format 0.0.4.
    Prometheus,
    /// OpenMetrics 1.0.0: the time of creation belongs to its histogram, a counter is called without `_total`, the end is marked.
    OpenMetrics,
}

impl Form {
    pub(super) fn media_type(self) -> &'static str {
        match self {
            Form::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Form::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// What a library says of itself for `/metrics`.
pub(super) struct Gauge {
    pub(super) library: String,
    pub(super) photos: u64,
    pub(super) generation: u64,
}

impl Metrics {
    pub(super) fn new() -> Self {
        let created = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        Metrics { steps: Default::default(), answers: Default::default(), created }
    }

    /// Does the work and notes how long it took, however it ends.
    pub(super) fn time<T>(&self, step: Step, work: impl FnOnce() -> T) -> T {
        let begun = Instant::now();
        let done = work();
        self.note(step, begun.elapsed());
        done
    }

    pub(super) fn note(&self, step: Step, time: Duration) {
        self.steps[step as usize].observe(time);
    }

    pub(super) fn answered(&self, status: u16) {
        self.answers[usize::from(status / 100).clamp(1, 5) - 1].fetch_add(1, Relaxed);
    }

    /// The counters.
    pub(super) fn text(&self, libraries: &[Gauge], form: Form) -> String {
        let mut text = String::with_capacity(16 << 10);
        // Writing into a String cannot fail.
        for (histogram, (name, help)) in self.steps.iter().zip(STEPS) {
            let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} histogram");
            let mut total = 0;
            for (bucket, (_, bound)) in histogram.buckets.iter().zip(BOUNDS) {
                total += bucket.load(Relaxed);
                let _ = writeln!(text, "{name}_bucket{{le=\"{bound}\"}} {total}.0");
            }
            total += histogram.buckets[BOUNDS.len()].load(Relaxed);
            let _ = writeln!(text, "{name}_bucket{{le=\"+Inf\"}} {total}.0\n{name}_count {total}.0");
            let _ = writeln!(text, "{name}_sum {:?}", histogram.sum());
            if form == Form::Prometheus {
                let _ = writeln!(text, "# HELP {name}_created {help}\n# TYPE {name}_created gauge");
            }
            let _ = writeln!(text, "{name}_created {:?}", self.created);
        }
        let name = "tintype_answers_total";
        let counter = if form == Form::OpenMetrics { "tintype_answers" } else { name };
        let _ = writeln!(text, "# HELP {counter} Answers by class of status\n# TYPE {counter} counter");
        for (answers, class) in self.answers.iter().zip(1..) {
            let _ = writeln!(text, "{name}{{status=\"{class}xx\"}} {}.0", answers.load(Relaxed));
        }
        let photos: fn(&Gauge) -> u64 = |gauge| gauge.photos;
        let generation: fn(&Gauge) -> u64 = |gauge| gauge.generation;
        for (name, help, value) in [
            ("tintype_library_photos", "Photos that can be found", photos),
            ("tintype_library_generation", "Commit of the vector index that is searched", generation),
        ] {
            let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge");
            for library in libraries {
                let label = library.library.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
                let _ = writeln!(text, "{name}{{library=\"{label}\"}} {}.0", value(library));
            }
        }
        if form == Form::OpenMetrics {
            text.push_str("# EOF\n");
        }
        text
    }

    /// The table that clip-retrieval prints: its steps by average time.
    pub(super) fn summary(&self) -> String {
        let all = &self.steps[Step::Full as usize];
        if all.count() == 0 {
            return "No request yet, go do some".to_owned();
        }
        let average = |histogram: &Histogram| histogram.sum() / histogram.count().max(1) as f64;
        let mean = average(all);
        let mut rows: Vec<(f64, u64, (&str, &str))> = self.steps[1..THEIRS]
            .iter()
            .zip(&STEPS[1..])
            .map(|(histogram, step)| (average(histogram), histogram.count(), *step))
            .collect();
        rows.sort_by(|a, b| b.0.total_cmp(&a.0));
        let mut text = format!(
            "Among {}.0 calls to the knn end point with an average latency of {mean:.4}s per request, the step costs are \
             (in order): \n\n",
            all.count()
        );
        let _ = writeln!(text, "{:>28} {:>41}  calls  average proportion", "name", "description");
        for (row, (average, calls, (name, description))) in rows.into_iter().enumerate() {
            let share = format!("{:.1}%", average / mean * 100.0);
            let _ = writeln!(text, "{row} {name:>26} {description:>41} {calls:>6}  {average:.4}s {share:>10}");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_has_their_names_in_their_order() {
        let metrics = Metrics::new();
        metrics.note(Step::Full, Duration::from_millis(30));
        metrics.note(Step::Full, Duration::from_secs(20));
        metrics.answered(404);
        let libraries = [Gauge { library: "a\"b".to_owned(), photos: 7, generation: 3 }];
        let text = metrics.text(&libraries, Form::Prometheus);
        let names: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
        let theirs: Vec<String> =
            STEPS.iter().flat_map(|(name, _)| [format!("{name} histogram"), format!("{name}_created gauge")]).collect();
        assert_eq!(names[..theirs.len()], theirs);
        for line in [
            "full_knn_request_time_bucket{le=\"0.025\"} 0.0",
            "full_knn_request_time_bucket{le=\"0.05\"} 1.0",
            "full_knn_request_time_bucket{le=\"10.0\"} 1.0",
            "full_knn_request_time_bucket{le=\"+Inf\"} 2.0",
            "full_knn_request_time_count 2.0",
            "full_knn_request_time_sum 20.03",
            "dedup_time_sum 0.0",
            "tintype_answers_total{status=\"4xx\"} 1.0",
            "tintype_library_photos{library=\"a\\\"b\"} 7.0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
        let open = metrics.text(&libraries, Form::OpenMetrics);
        assert!(
            open.contains("# TYPE tintype_answers counter\n") && open.contains("\ntintype_answers_total{"),
            "{open}"
        );
        assert!(open.contains("\ndedup_time_created ") && !open.contains("_created gauge"), "{open}");
        assert!(open.ends_with("\n# EOF\n"));
    }

    #[test]
    fn the_summary_sorts_by_cost() {
        let metrics = Metrics::new();
        assert_eq!(metrics.summary(), "No request yet, go do some");
        metrics.note(Step::Full, Duration::from_millis(20));
        metrics.note(Step::Knn, Duration::from_millis(5));
        let text = metrics.summary();
        assert!(text.starts_with(
            "Among 1.0 calls to the knn end point with an average latency of 0.0200s per request, the step costs are (in order): \n\n"
        ));
        let row = text.lines().nth(3).unwrap();
        assert!(row.contains("knn_index_time") && row.contains("0.0050s") && row.contains("25.0%"), "{row}");
        assert_eq!(text.lines().count(), 3 + 9);
    }
}
