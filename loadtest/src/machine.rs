//! What the figures have to be read with: when, how loaded the machine was, how busy the generator itself.
use std::time::Duration;

use chrono::{DateTime, Utc};

/// Of `/proc/PID/stat` on Linux.
const TICKS_PER_S: f64 = 100.0;

/// The time of day.
#[expect(clippy::disallowed_methods, reason = "names a report; nothing is decided by it")]
pub fn now() -> DateTime<Utc> {
    Utc::now()
}

/// The load average of the last minute, as the kernel tells it; empty where it does not.
pub fn load_average() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or_default().to_owned()
}

/// How many cores there are.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The CPU time that this process has used; zero where it cannot be read.
pub fn cpu_used() -> Duration {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = text.rsplit(')').next().unwrap_or_default();
    let ticks: f64 = after_name.split(' ').skip(12).take(2).filter_map(|n| n.parse::<f64>().ok()).sum();
    Duration::from_secs_f64(ticks / TICKS_PER_S)
}
