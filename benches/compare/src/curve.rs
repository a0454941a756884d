//! Recall against time: points that were measured, and what lies between them.
//!
//! Between two points the time is interpolated over log(1 - recall), in which such curves are nearly straight. Nothing is ever
//! extrapolated.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::worker::Query;

/// How one point was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Knob {
    pub(crate) ef: Option<usize>,
    pub(crate) recall: Option<f32>,
    pub(crate) refine: usize,
}

impl Knob {
    pub(crate) fn apply(self, query: &mut Query) {
        (query.ef, query.recall, query.refine) = (self.ef, self.recall, self.refine);
    }
}

/// What one way to ask gave.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Point {
    pub(crate) knob: Knob,
    pub(crate) recall: f64,
    /// CPU seconds per query, one for each round.
    pub(crate) seconds: Vec<f64>,
}

impl Point {
    pub(crate) fn qps(&self) -> f64 {
        1.0 / median(&self.seconds)
    }
}

/// The points of one engine on one kind of query.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Curve {
    pub(crate) engine: String,
    pub(crate) queries: String,
    pub(crate) points: Vec<Point>,
}

/// Queries per second at a recall.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Speed {
    /// Between two points.
    At(f64),
    /// Every point is above that recall; the fastest of them.
    AtLeast(f64),
    /// No point reaches it; the best recall.
    Never(f64),
}

impl Speed {
    pub(crate) fn qps(self) -> Option<f64> {
        match self {
            Speed::At(qps) | Speed::AtLeast(qps) => Some(qps),
            Speed::Never(_) => None,
        }
    }
}

impl fmt::Display for Speed {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Speed::At(qps) => write!(f, "{qps:.0}"),
            Speed::AtLeast(qps) => write!(f, "≥ {qps:.0}"),
            Speed::Never(recall) => write!(f, "max {recall:.3}"),
        }
    }
}

impl Curve {
    /// The points that no other point beats in both recall and speed, recall rising. What was asked for by recall may be a scan, and
    /// nothing lies between a walk and a scan.
    pub(crate) fn frontier(&self) -> Vec<(f64, f64)> {
        frontier(self.walks().map(|p| (p.recall, p.qps())).collect())
    }

    fn walks(&self) -> impl Iterator<Item = &Point> {
        self.points.iter().filter(|p| p.knob.ef.is_some())
    }

    pub(crate) fn speed(&self, target: f64) -> Speed {
        speed(&self.frontier(), target)
    }

    /// How far the rounds lie apart at that recall: (largest - smallest) / median.
    pub(crate) fn spread(&self, target: f64) -> Option<f64> {
        let rounds = self.points.iter().map(|p| p.seconds.len()).min()?;
        let round = |at: usize| {
            let points = self.walks().map(|p| (p.recall, 1.0 / p.seconds[at])).collect();
            speed(&frontier(points), target).qps()
        };
        let all: Vec<f64> = (0..rounds).filter_map(round).collect();
        let largest = all.iter().copied().fold(f64::NAN, f64::max);
        let smallest = all.iter().copied().fold(f64::NAN, f64::min);
        (!all.is_empty()).then(|| (largest - smallest) / median(&all))
    }

    /// The knobs worth asking again: those that no other beats clearly, 15 % being the noise of one round.
    pub(crate) fn promising(&self) -> Vec<Knob> {
        let beaten = |p: &Point| self.points.iter().any(|o| o.recall >= p.recall && o.qps() > 1.15 * p.qps());
        self.points.iter().filter(|p| !beaten(p)).map(|p| p.knob).collect()
    }
}

fn frontier(mut points: Vec<(f64, f64)>) -> Vec<(f64, f64)> {
    points.sort_by(|a, b| b.0.total_cmp(&a.0).then(b.1.total_cmp(&a.1)));
    let mut fastest = 0.0;
    points.retain(|&(_, qps)| {
        let faster = qps > fastest;
        fastest = qps.max(fastest);
        faster
    });
    points.reverse();
    points
}

fn speed(frontier: &[(f64, f64)], target: f64) -> Speed {
    let above = frontier.partition_point(|&(recall, _)| recall < target);
    match (above, frontier.get(above)) {
        (_, None) => Speed::Never(frontier.last().map_or(0.0, |p| p.0)),
        (0, Some(&(_, qps))) => Speed::AtLeast(qps),
        (_, Some(&(high, slow))) => {
            let (low, fast) = frontier[above - 1];
            // Full recall has no logarithm; it counts as one miss in a hundred thousand.
            let miss = |recall: f64| (1.0 - recall).max(1e-5).ln();
            let share = (miss(low) - miss(target)) / (miss(low) - miss(high));
            Speed::At((fast.ln() + share * (slow.ln() - fast.ln())).exp())
        }
    }
}

pub(crate) fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => values[n / 2],
        n => (values[n / 2 - 1] + values[n / 2]) / 2.0,
    }
}

/// The exponent b of the least-squares fit of `y = a x^b`.
pub(crate) fn exponent(points: &[(f64, f64)]) -> f64 {
    let logs: Vec<(f64, f64)> = points.iter().map(|&(x, y)| (x.ln(), y.ln())).collect();
    let n = logs.len() as f64;
    let (mean_x, mean_y) = (logs.iter().map(|p| p.0).sum::<f64>() / n, logs.iter().map(|p| p.1).sum::<f64>() / n);
    let (mut xy, mut xx) = (0.0, 0.0);
    for (x, y) in logs {
        xy += (x - mean_x) * (y - mean_y);
        xx += (x - mean_x) * (x - mean_x);
    }
    xy / xx
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speed_between_points_and_beyond_them() {
        let frontier = frontier(vec![(0.99, 100.0), (0.9, 1000.0), (0.89, 500.0)]);
        assert_eq!(frontier, [(0.9, 1000.0), (0.99, 100.0)]);
        assert_eq!(speed(&frontier, 0.8), Speed::AtLeast(1000.0));
        assert_eq!(speed(&frontier, 0.995), Speed::Never(0.99));
        // Half way in log(1 - recall) is half way in log(time).
        let Speed::At(qps) = speed(&frontier, 1.0 - 0.001f64.sqrt()) else { panic!("not between") };
        assert!((qps - 100_000f64.sqrt()).abs() < 1e-6, "{qps}");
    }

    #[test]
    fn an_exponent_is_found_again() {
        let points = [10.0, 100.0, 1000.0].map(|x: f64| (x, 3.0 * x.powf(1.2)));
        assert!((exponent(&points) - 1.2).abs() < 1e-12);
    }
}
