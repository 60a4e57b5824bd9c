//! What the kernel knows of this process, from `/proc` (Linux; elsewhere 0).

use std::fs;

/// Resident memory in bytes.
pub(super) fn resident_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    field(&status, "VmRSS:").unwrap_or(0) * 1024
}

/// When the process started, in seconds since 1970.
pub(super) fn start_seconds() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let system = fs::read_to_string("/proc/stat").unwrap_or_default();
    // The name of the program stands in brackets and may hold anything.
    let after = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks = after.split_whitespace().nth(START_FIELD);
    let ticks: f64 = ticks.and_then(|text| text.parse().ok()).unwrap_or(0.0);
    let booted = field(&system, "btime").unwrap_or(0);
    f64::from(u32::try_from(booted).unwrap_or(0)) + ticks / TICKS_PER_SECOND
}

/// `starttime` is the 22nd field of `stat`, the 20th after the name (`proc(5)`).
const START_FIELD: usize = 19;
/// `USER_HZ`: 100 on every architecture that this runs on.
const TICKS_PER_SECOND: f64 = 100.0;

/// The number behind `name` at the start of a line.
fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    #[test]
    fn this_process_takes_memory_and_started_in_the_past() {
        let memory = super::resident_bytes();
        assert!((1 << 20..1 << 33).contains(&memory), "{memory}");
        let now = crate::clock::Clock::system().now().as_second();
        let age = f64::from(u32::try_from(now).unwrap()) - super::start_seconds();
        assert!((-2.0..3_600.0).contains(&age), "{age}");
    }
}
