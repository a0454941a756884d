//! Recall against queries per second as SVG: image queries on the left, text queries on the right, up and to the right is better.

use std::fmt::Write;

use crate::curve::Curve;

const WIDTH: f64 = 470.0;
const HEIGHT: f64 = 420.0;
const MARGIN: f64 = 60.0;
const RECALLS: [f64; 7] = [0.7, 0.8, 0.9, 0.95, 0.99, 0.995, 0.999];
const COLOURS: [&str; 8] = ["#d62728", "#8c564b", "#1f77b4", "#2ca02c", "#98df8a", "#006400", "#9467bd", "#ff7f0e"];

/// Places of one panel: recall grows to the right by its misses' logarithm, speed upwards by its own.
struct Panel {
    left: f64,
    slowest: f64,
    fastest: f64,
}

impl Panel {
    fn x(&self, recall: f64) -> f64 {
        let miss = |recall: f64| (1.0 - recall).max(0.001).ln();
        let share = (miss(RECALLS[0]) - miss(recall)) / (miss(RECALLS[0]) - miss(RECALLS[6]));
        self.left + share * WIDTH
    }

    fn y(&self, qps: f64) -> f64 {
        let share = (qps / self.slowest).ln() / (self.fastest / self.slowest).ln();
        MARGIN + (1.0 - share) * HEIGHT
    }

    fn frame(&self, svg: &mut String, name: &str) {
        let (top, bottom) = (MARGIN, MARGIN + HEIGHT);
        let middle = self.left + WIDTH / 2.0;
        let _ = writeln!(
            svg,
            r#"<text x="{middle:.0}" y="{:.0}" text-anchor="middle" font-weight="bold">{name} queries</text>"#,
            top - 12.0
        );
        let _ =
            writeln!(svg, r#"<text x="{middle:.0}" y="{:.0}" text-anchor="middle">recall@10</text>"#, bottom + 36.0);
        for recall in RECALLS {
            let x = self.x(recall);
            let _ = writeln!(
                svg,
                r##"<path d="M{x:.1} {top}V{bottom}" stroke="#ddd"/><text x="{x:.1}" y="{:.0}" text-anchor="middle">{recall}</text>"##,
                bottom + 18.0
            );
        }
        let mut qps = self.slowest;
        while qps <= self.fastest * 1.01 {
            let y = self.y(qps);
            let right = self.left + WIDTH;
            let _ = writeln!(
                svg,
                r##"<path d="M{} {y:.1}H{right}" stroke="#ddd"/><text x="{:.0}" y="{:.1}" text-anchor="end">{qps}</text>"##,
                self.left,
                self.left - 6.0,
                y + 4.0
            );
            qps *= 10.0;
        }
    }
}

/// Draws every curve with at least one point in sight.
pub(crate) fn svg(curves: &[Curve]) -> String {
    let seen = |curve: &Curve| curve.frontier().into_iter().filter(|p| p.0 >= RECALLS[0]).collect::<Vec<_>>();
    let speeds: Vec<f64> = curves.iter().flat_map(seen).map(|p| p.1).collect();
    let decade = |x: f64, up: fn(f64) -> f64| 10f64.powf(up(x.log10()));
    let slowest = decade(speeds.iter().copied().fold(f64::MAX, f64::min).min(1e9), f64::floor);
    let fastest = decade(speeds.iter().copied().fold(1.0, f64::max), f64::ceil).max(10.0 * slowest);
    let mut names: Vec<&str> = Vec::new();
    curves.iter().for_each(|c| {
        if !names.contains(&c.engine.as_str()) {
            names.push(&c.engine)
        }
    });
    let (width, height) = (2.0 * WIDTH + 3.0 * MARGIN, HEIGHT + 2.0 * MARGIN + 20.0 * names.len().div_ceil(4) as f64);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    for (at, name) in ["image", "text"].into_iter().enumerate() {
        let panel = Panel { left: MARGIN + at as f64 * (WIDTH + MARGIN), slowest, fastest };
        panel.frame(&mut svg, name);
        for curve in curves.iter().filter(|c| c.queries == name) {
            let colour = COLOURS[names.iter().position(|n| *n == curve.engine).unwrap_or(0) % COLOURS.len()];
            let places: Vec<String> =
                seen(curve).iter().map(|&(r, q)| format!("{:.1},{:.1}", panel.x(r), panel.y(q))).collect();
            let _ = writeln!(
                svg,
                r#"<polyline points="{}" fill="none" stroke="{colour}" stroke-width="2"/>"#,
                places.join(" ")
            );
            for place in places {
                let (x, y) = place.split_once(',').unwrap_or_default();
                let _ = writeln!(svg, r#"<circle cx="{x}" cy="{y}" r="3" fill="{colour}"/>"#);
            }
        }
    }
    for (at, name) in names.iter().enumerate() {
        let (x, y) = (MARGIN + (at % 4) as f64 * 250.0, HEIGHT + MARGIN + 60.0 + 20.0 * (at / 4) as f64);
        let colour = COLOURS[at % COLOURS.len()];
        let _ = writeln!(
            svg,
            r#"<rect x="{x}" y="{}" width="12" height="12" fill="{colour}"/><text x="{}" y="{y}">{name}</text>"#,
            y - 10.0,
            x + 18.0
        );
    }
    svg + "</svg>\n"
}
