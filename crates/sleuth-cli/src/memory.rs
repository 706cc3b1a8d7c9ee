//! How much memory this process may still take.

use std::fs;
use std::path::Path;

/// Bytes that can be had without swapping: what the system has to spare, and no more than the
/// process's control group leaves. `None` where nothing tells.
pub(crate) fn available() -> Option<u64> {
    let read = |path: &str| fs::read_to_string(Path::new(path)).ok();
    let number = |path: &str| read(path).and_then(|text| text.trim().parse::<u64>().ok());
    let left = |limit: &str, used: &str| Some(number(limit)?.saturating_sub(number(used)?));
    let system = read("/proc/meminfo").and_then(|text| of_meminfo(&text));
    let group = left("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current");
    let older = left(
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
        "/sys/fs/cgroup/memory/memory.usage_in_bytes",
    );
    [system, group, older].into_iter().flatten().min()
}

fn of_meminfo(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_system_has_to_spare_is_read() {
        let text = "MemTotal:       24689764 kB\nMemAvailable:   22119444 kB\n";
        assert_eq!(of_meminfo(text), Some(22_119_444 * 1024));
        assert_eq!(of_meminfo("MemTotal: 5 kB\n"), None);
    }

    #[test]
    fn this_process_may_take_some() {
        assert!(available().is_some_and(|bytes| bytes > 0));
    }
}
