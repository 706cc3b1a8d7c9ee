use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::encoding::DescriptorEncoder;

use super::{Collector, Family};

/// The program, and what the system says of its process; the latter on Linux only.
#[derive(Clone, Copy, Debug)]
pub struct Process {
    started: f64,
}

/// Figures of one moment.
struct Usage {
    resident_bytes: u64,
    cpu_seconds: f64,
    threads: u64,
    open_files: u64,
    max_files: f64,
}

// === impl Process ===

impl Process {
    /// To be made when the process starts.
    pub fn new() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { started: since.as_secs_f64() }
    }
}

impl Default for Process {
    fn default() -> Self {
        Self::new()
    }
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let encoder = &mut encoder;
        let build = [
            ("version", env!("CARGO_PKG_VERSION")),
            ("os", std::env::consts::OS),
            ("arch", std::env::consts::ARCH),
        ];
        Family::new(encoder, "build_info", "The program; always 1.").gauges([(build, 1_u64)])?;
        Family::new(encoder, "process_start_time_seconds", "When the process started.")
            .gauge(self.started)?;
        let Some(usage) = usage() else { return Ok(()) };
        let Usage { resident_bytes, cpu_seconds, threads, open_files, max_files } = usage;
        Family::new(encoder, "process_resident_memory_bytes", "Memory that is resident.")
            .gauge(resident_bytes)?;
        Family::new(encoder, "process_cpu_seconds", "Time on CPUs, in user and system mode.")
            .counter(cpu_seconds)?;
        Family::new(encoder, "process_threads", "Threads.").gauge(threads)?;
        Family::new(encoder, "process_open_fds", "Open file descriptors.").gauge(open_files)?;
        Family::new(encoder, "process_max_fds", "File descriptors that may be open.")
            .gauge(max_files)
    }
}

#[cfg(target_os = "linux")]
fn usage() -> Option<Usage> {
    use procfs::process::LimitValue;

    // A process that has no file descriptor left cannot read this; then nothing is told.
    let process = procfs::process::Process::myself().ok()?;
    let stat = process.stat().ok()?;
    let limit = process.limits().ok()?.max_open_files.soft_limit;
    Some(Usage {
        resident_bytes: stat.rss * procfs::page_size(),
        cpu_seconds: (stat.utime + stat.stime) as f64 / procfs::ticks_per_second() as f64,
        threads: u64::try_from(stat.num_threads).unwrap_or(0),
        open_files: process.fd_count().ok()? as u64,
        max_files: match limit {
            LimitValue::Value(limit) => limit as f64,
            LimitValue::Unlimited => f64::INFINITY,
        },
    })
}

#[cfg(not(target_os = "linux"))]
fn usage() -> Option<Usage> {
    None
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn the_system_tells_of_this_process() {
        let usage = usage().unwrap();
        assert!(usage.resident_bytes > 1 << 20 && usage.threads >= 1);
        assert!(usage.open_files >= 3 && usage.max_files >= usage.open_files as f64);
    }
}
