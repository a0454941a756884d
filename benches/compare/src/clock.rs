//! What a process measures of itself.
//!
//! Process CPU time, not wall time: these machines are shared. It does not hide contention for caches and memory bandwidth,
//! therefore engines take turns and ratios are what counts.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::thread::{CpuSet, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};

fn cpu() -> Duration {
    let now = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

/// CPU seconds of the busiest thread that this process still has. The kernel counts in ticks, usually of 10 ms.
pub(crate) fn busiest() -> Result<f64> {
    let ticks = rustix::param::clock_ticks_per_second() as f64;
    let mut most: f64 = 0.0;
    for task in fs::read_dir("/proc/self/task").context("/proc/self/task")? {
        // A thread may end meanwhile.
        let Ok(stat) = fs::read_to_string(task?.path().join("stat")) else { continue };
        let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
        let used: f64 = fields.split_whitespace().skip(11).take(2).filter_map(|f| f.parse::<f64>().ok()).sum();
        most = most.max(used / ticks);
    }
    Ok(most)
}

/// Sums the time of the parts that are to be counted.
#[derive(Default)]
pub(crate) struct Stopwatch {
    pub(crate) cpu: Duration,
    pub(crate) wall: Duration,
}

impl Stopwatch {
    pub(crate) fn time<T>(&mut self, work: impl FnOnce() -> T) -> T {
        let (wall_before, cpu_before) = (Instant::now(), cpu());
        let result = work();
        self.cpu += cpu() - cpu_before;
        self.wall += wall_before.elapsed();
        result
    }
}

/// Resident memory in MB: anonymous, and mapped from files.
pub(crate) fn memory() -> Result<(f64, f64)> {
    let status = fs::read_to_string("/proc/self/status").context("/proc/self/status")?;
    let megabytes = |field: &str| {
        let line = status.lines().find(|l| l.starts_with(field));
        let kib = line.and_then(|l| l.split_whitespace().nth(1)).and_then(|n| n.parse::<f64>().ok());
        kib.map(|kib| kib * 1024.0 / 1e6).with_context(|| format!("no {field} in /proc/self/status"))
    };
    Ok((megabytes("RssAnon")?, megabytes("RssFile")?))
}

/// Pins this process, and the threads that it will start, to processors such as `0,1`.
pub(crate) fn pin(cpus: &str) -> Result<()> {
    let mut set = CpuSet::new();
    for cpu in cpus.split(',') {
        set.set(cpu.parse().with_context(|| format!("processor {cpu:?}"))?);
    }
    sched_setaffinity(None, &set).with_context(|| format!("pin to processors {cpus}"))
}
