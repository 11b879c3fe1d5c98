//! The bytes written to the disk and read from it, by the operating system's own counters; and its
//! caches.
//!
//! Two figures of writes, because neither is enough. *Call bytes* are the bytes that this process
//! passed to write calls (`wchar` of `/proc/self/io`): exact and its own, but a small write that
//! costs a whole block counts as small, and writes to a terminal count too. *Device bytes* are the
//! bytes that the block device took (`/proc/diskstats`), including blocks, metadata, the file
//! system's own log, and the writes of all other processes meanwhile: on a shared machine the
//! lowest round is the most reliable.
//!
//! `write_bytes` of `/proc/self/io` seems to be the right figure and is not used: it counts a page
//! cache folio as a whole when a byte of it becomes dirty. A 300-byte record into a file that was
//! prewritten in large pieces counts up to 2 MiB, of which the file system then writes one block.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use rustix::fs::{Advice, fadvise};

/// A sector of `/proc/diskstats`, whatever the sector size of the device is.
const SECTOR_BYTES: u64 = 512;

/// Counters as of some moment.
#[derive(Clone, Copy, Debug, Default)]
pub struct Written {
    /// Bytes passed to write calls by this process.
    pub call_bytes: u64,
    /// Bytes that the device under a directory took; `None` when no device of that name is counted.
    pub device_bytes: Option<u64>,
}

impl Written {
    /// The current values, for the device that holds `dir`. Data that is still in memory is counted
    /// only after `settle`.
    pub fn now(dir: &Path) -> Result<Written> {
        let devices = fs::read_to_string("/proc/diskstats").unwrap_or_default();
        let number = fs::metadata(dir)?.dev();
        Ok(Written {
            call_bytes: call_bytes_of(std::process::id())?,
            device_bytes: written_sectors(&devices, number).map(|sectors| sectors * SECTOR_BYTES),
        })
    }

    /// The increase since `earlier`, per piece of work: call bytes and device bytes, the latter not
    /// a number when unknown.
    pub fn per_work_since(self, earlier: Written, works: u64) -> [f64; 2] {
        let each = |bytes: u64| bytes as f64 / works as f64;
        let device = self.device_bytes.zip(earlier.device_bytes);
        [
            each(self.call_bytes - earlier.call_bytes),
            device.map_or(f64::NAN, |(later, earlier)| each(later - earlier)),
        ]
    }
}

/// The bytes that a process has passed to write calls.
pub fn call_bytes_of(process: u32) -> Result<u64> {
    let path = format!("/proc/{process}/io");
    let text = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
    field(&text, "wchar").with_context(|| path)
}

/// The bytes that this process has made the disk read, by calls and by mapped files, including the
/// pages that the operating system read ahead.
pub fn read_bytes() -> Result<u64> {
    field(&fs::read_to_string("/proc/self/io").context("reading /proc/self/io")?, "read_bytes")
}

/// Makes the operating system drop its file caches: all of them if this process may request that,
/// or else those of the files below `dir`.
pub fn drop_caches(dir: &Path) -> Result<&'static str> {
    settle()?;
    if fs::write("/proc/sys/vm/drop_caches", "3").is_ok() {
        return Ok("all caches dropped");
    }
    drop_file_caches(dir)?;
    Ok("each file's cache dropped by posix_fadvise")
}

/// Makes the operating system drop its caches of the files below `dir`. Pages stay that wait to be
/// written (`settle` comes first) or that a process has mapped.
pub fn drop_file_caches(dir: &Path) -> Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            drop_file_caches(&path)?;
            continue;
        }
        let file = fs::File::open(path)?;
        if file.metadata()?.size() > 0 {
            fadvise(&file, 0, None, Advice::DontNeed).context("dropping a file's cache")?;
        }
    }
    Ok(())
}

/// Makes every file system write the data that it holds in memory, so that later counters and
/// fsyncs do not include it.
pub fn settle() -> Result<()> {
    let status = Command::new("sync").status().context("running sync")?;
    ensure!(status.success(), "sync failed");
    Ok(())
}

fn field(text: &str, name: &str) -> Result<u64> {
    text.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
        .with_context(|| format!("there is no {name}"))?
        .parse()
        .with_context(|| format!("{name} is no number"))
}

/// The sectors written to the device of this number: the seventh figure after the name.
fn written_sectors(diskstats: &str, device: u64) -> Option<u64> {
    // The layout of Linux device numbers as stat(2) returns them, for minors below 2^20.
    let (major, minor) = ((device >> 8) & 0xFFF, (device & 0xFF) | ((device >> 12) & 0xF_FF00));
    diskstats.lines().find_map(|line| {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let is_it = words.first()?.parse() == Ok(major) && words.get(1)?.parse() == Ok(minor);
        if is_it { words.get(9)?.parse().ok() } else { None }
    })
}

/// The blocks that the files below `dir` occupy, in bytes: for a sparse file, the allocated ones.
pub fn occupied_bytes(dir: &Path) -> Result<u64> {
    let mut sum = 0;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        // A file may be removed after it was listed.
        let Ok(facts) = entry.metadata() else { continue };
        sum += if facts.is_dir() { occupied_bytes(&entry.path())? } else { facts.blocks() * 512 };
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_call_is_counted() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let before = Written::now(dir.path()).expect("counters");
        fs::write(dir.path().join("file"), vec![7_u8; 1 << 20]).expect("a file");
        let [calls, _] = Written::now(dir.path()).expect("counters").per_work_since(before, 1);
        assert!(calls >= f64::from(1 << 20));
    }

    #[test]
    fn dropping_the_caches_of_files_goes_into_folders() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        fs::create_dir(dir.path().join("inner")).expect("a folder");
        fs::write(dir.path().join("inner/file"), vec![7_u8; 1 << 20]).expect("a file");
        drop_file_caches(dir.path()).expect("dropped caches");
        assert!(drop_file_caches(&dir.path().join("missing")).is_err());
        assert!(read_bytes().is_ok());
    }

    #[test]
    fn a_field_is_not_taken_for_its_suffix() {
        let text = "rchar: 5\ncancelled_write_bytes: 9\nwrite_bytes: 4096\n";
        assert_eq!(field(text, "write_bytes").expect("a field"), 4096);
    }

    #[test]
    fn a_device_is_found_by_its_number() {
        let text = " 254 0 vda 1 2 3 4 5 6 700 8 9 10 11\n 254 1 vda1 1 2 3 4 5 6 42 8 9 10 11\n";
        assert_eq!(written_sectors(text, (254 << 8) | 1), Some(42));
        assert_eq!(written_sectors(text, 254 << 8), Some(700));
        assert_eq!(written_sectors(text, 99 << 8), None);
    }

    #[test]
    fn unknown_device_bytes_are_no_number() {
        let earlier = Written { call_bytes: 10, device_bytes: None };
        let later = Written { call_bytes: 30, device_bytes: Some(512) };
        let [calls, device] = later.per_work_since(earlier, 10);
        assert!((calls - 2.0).abs() < f64::EPSILON && device.is_nan());
    }
}
