//! How much memory a run may take for its indexes, so that an import larger than memory ends well.
//!
//! Rows go to the disk as they come; what needs memory is a graph while it is built, about a kilobyte per vector. A run that took as
//! much as the collection asks for would be killed at a few dozen gigabytes of it, hours in. So graphs are bounded: unless a request
//! says otherwise, by half of what is free when it begins. A collection for which that is too little has several graphs, each of
//! which is searched.

use std::path::Path;

/// Least that is shared out: below it, graphs would be too small to be worth having.
const LEAST: u64 = 64 << 20;

/// Bytes that may be held for indexes. None: as many as it takes, where the system does not say what is free.
#[derive(Clone, Copy, Debug)]
pub(super) struct Memory(Option<u64>);

impl Memory {
    /// What a request says, or else half of what is free.
    pub(super) fn new(said: Option<u64>) -> Memory {
        Memory(said.or_else(|| available().map(|bytes| bytes / 2)))
    }

    /// Bounds one of `sharing` indexes that are written at the same time.
    pub(super) fn bound(self, index: &mut tintype_index::Writer, sharing: u64) {
        let Some(bytes) = self.0 else { return };
        let bytes = bytes.max(LEAST) / sharing;
        // What is held until it goes to a file, while a graph is built.
        let held = (bytes / 8).min(64 << 20);
        index.hold(usize::try_from(held).unwrap_or(usize::MAX));
        index.graph_memory(bytes - held);
    }
}

/// Bytes that this process may still take: what is free, or what is left of the limit of a container or a job.
fn available() -> Option<u64> {
    let read = |path: &str| std::fs::read_to_string(Path::new(path)).ok();
    let free = field(&read("/proc/meminfo")?, "MemAvailable:")?;
    let own = read("/proc/self/status").and_then(|status| field(&status, "RssAnon:")).unwrap_or(0);
    let groups = read("/proc/self/cgroup").unwrap_or_default();
    let limits = groups.lines().filter_map(|line| {
        let (controllers, group) = line.split_once(':')?.1.split_once(':')?;
        let (root, file) = match controllers {
            "" => ("/sys/fs/cgroup", "memory.max"),
            _ if controllers.split(',').any(|name| name == "memory") => {
                ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
            }
            _ => return None,
        };
        // A container sees its own group as the root; any group above may be the one with the limit.
        let above = Path::new(group.trim_start_matches('/')).ancestors();
        above.filter_map(|group| read(Path::new(root).join(group).join(file).to_str()?)?.trim().parse().ok()).min()
    });
    let data = read("/proc/self/limits").and_then(|limits| field(&limits, "Max data size"));
    let left = limits.chain(data).map(|limit: u64| limit.saturating_sub(own));
    Some(left.fold(free, u64::min))
}

/// The number after a name, in bytes.
fn field(text: &str, name: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    let mut words = rest.split_whitespace();
    let number: u64 = words.next()?.parse().ok()?;
    Some(if words.next() == Some("kB") { number * 1024 } else { number })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_with_their_unit() {
        let text = "MemTotal:       24000 kB\nMemAvailable:    2048 kB\nMax data size   4096    unlimited   bytes\n";
        assert_eq!(field(text, "MemAvailable:"), Some(2048 * 1024));
        assert_eq!(field(text, "Max data size"), Some(4096));
        assert_eq!(field("Max data size   unlimited  unlimited  bytes\n", "Max data size"), None);
        assert_eq!(field(text, "Nothing:"), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_system_says_what_is_free() {
        let free = available().unwrap();
        assert!(free > 1 << 20, "{free}");
    }
}
