//! The operating system's figures for this process and a directory.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

/// A figure of `/proc/self/status` in MB (10^6 bytes), as `RssAnon` or `VmHWM`.
pub fn memory_mb(name: &str) -> Result<f64> {
    let status = fs::read_to_string("/proc/self/status").context("reading /proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let kib: f64 = line
        .and_then(|value| value.trim().strip_suffix("kB"))
        .with_context(|| format!("/proc/self/status has no {name}"))?
        .trim()
        .parse()?;
    Ok(kib * 1024.0 / 1e6)
}

/// The processor time of this thread in milliseconds: the cost of a call on a shared machine.
pub fn processor_ms() -> Result<f64> {
    let text = fs::read_to_string("/proc/thread-self/schedstat")
        .context("reading the scheduler's figures")?;
    let nanos: f64 =
        text.split_ascii_whitespace().next().context("no figures of the scheduler")?.parse()?;
    Ok(nanos / 1e6)
}

/// The number of files in a directory, and their size in bytes.
pub fn files(dir: &Path) -> Result<(u64, u64)> {
    let (mut count, mut bytes) = (0, 0);
    for entry in fs::read_dir(dir)? {
        count += 1;
        bytes += entry?.metadata()?.len();
    }
    Ok((count, bytes))
}

/// The number of files that this process has open.
pub fn descriptors() -> Result<usize> {
    Ok(fs::read_dir("/proc/self/fd")?.count())
}
