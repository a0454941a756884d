//! Speed of the built-in model: `cargo bench --bench builtin [-- SECONDS]`.
//!
//! Rates are per second of processor time where the system tells it (Linux), which a busy machine disturbs least, and the
//! variants take turns. Pin it to one core (`taskset -c 0`, `RAYON_NUM_THREADS=1`) for figures per core.

#![allow(clippy::print_stdout)] // The figures are the answer.

use std::time::{Duration, Instant};

use tintype::model::{EncoderOptions, Precision};
use tintype::{Encode, Encoder, PixelBatch};

/// Seconds of processor time of all threads of this process, in steps of 10 ms.
fn processor_time() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // Behind the name, which may hold anything: state is field 3, user and system time are fields 14 and 15.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    Some((fields[11].parse::<f64>().ok()? + fields[12].parse::<f64>().ok()?) / 100.0)
}

/// Calls per second.
fn rate(length: Duration, mut call: impl FnMut()) -> f64 {
    call();
    let (begin, before, mut calls) = (Instant::now(), processor_time(), 0);
    while begin.elapsed() < length {
        call();
        calls += 1;
    }
    let spent = match (before, processor_time()) {
        (Some(before), Some(after)) if after > before => after - before,
        _ => begin.elapsed().as_secs_f64(),
    };
    f64::from(calls) / spent
}

fn pictures(count: usize) -> PixelBatch {
    let mut batch = PixelBatch::new(224, 224);
    for p in 0..count {
        let picture: Vec<u8> = (0..224 * 224 * 3).map(|i| ((i * 7 + i / 672 * 13 + p * 31) % 256) as u8).collect();
        batch.push(&picture);
    }
    batch
}

fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}

fn main() {
    let seconds: f64 = std::env::args().skip(1).find_map(|arg| arg.parse().ok()).unwrap_or(2.0);
    let length = Duration::from_secs_f64(seconds / 5.0);
    let start = Instant::now();
    let encoder = Encoder::builtin().expect("it is compiled in");
    encoder.encode_texts(&["a dog"]).expect("a text");
    println!("first text           {:8.2} ms after the start", start.elapsed().as_secs_f64() * 1e3);
    let (one, start) = (pictures(1), Instant::now());
    encoder.encode_images(&one).expect("a picture");
    println!("first picture        {:8.2} ms", start.elapsed().as_secs_f64() * 1e3);

    let options = |precision| EncoderOptions::default().precision(precision);
    let encoders: Vec<(&str, Encoder)> = [("f32", Precision::F32), ("int8", Precision::Int8)]
        .map(|(name, precision)| (name, Encoder::builtin_with(&options(precision)).expect("it is compiled in")))
        .into();
    for count in [1, 8] {
        let batch = pictures(count);
        let mut rates = vec![Vec::new(); encoders.len()];
        for _ in 0..5 {
            for ((_, encoder), rates) in encoders.iter().zip(&mut rates) {
                rates.push(count as f64 * rate(length, || drop(encoder.encode_images(&batch).expect("pictures"))));
            }
        }
        for ((name, _), rates) in encoders.iter().zip(rates) {
            println!("pictures, {name:4} by {count}  {:8.1} per second", median(rates));
        }
    }
    let text = ["two dogs running on the beach at sunset"];
    let rates = (0..5).map(|_| rate(length, || drop(encoder.encode_texts(&text).expect("a text")))).collect();
    println!("text of 8 words      {:8.3} ms", 1e3 / median(rates));
}
