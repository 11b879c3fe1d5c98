//! The reserve: space that is kept in order to reclaim space on a full disk (P6, P8).
//!
//! ```text
//!  reserve        zeros, written and synced while there is space; they are never read
//!  reserve-last   the same, a sixteenth of the size of `reserve`
//! ```
//!
//! A full disk must still be opened, and expired or trimmed entries on it must still be removed.
//! All of that writes a little first: a log file, a manifest, the memtable that contains the trims.
//! Therefore the engine keeps a file of zeros. It is removed when such work finds the disk full,
//! and created again when the disk has twice its size, in addition to the bytes promised to a
//! merge.
//!
//! The second file is only for manifests that free space at once. The trims and flushes on a full
//! disk may use all the space that was given back, and the manifest that records what is gone must
//! have space all the same.
//!
//! While the reserve is out, appends are refused: they would use the space that the work needs. So
//! either the reserve is in place, or nothing is appended.
//!
//! This file does not know what the space is needed for.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::error::{Error, Result};
use crate::vfs::Dir;

/// The name of the file.
pub const NAME: &str = "reserve";

/// The name of the second file.
const LAST_NAME: &str = "reserve-last";

/// The names of both until all of each file is durable.
pub const TEMPORARY_NAMES: [&str; 2] = ["reserve.tmp", "reserve-last.tmp"];

/// The second file has this part of the first one's size, and at least `LEAST_LAST_BYTES`: a
/// manifest of a few hundred segments.
const LAST_PART: u64 = 16;
const LEAST_LAST_BYTES: u64 = 16 * 1024;

/// The files are written in pieces of this many bytes.
const PIECE_BYTES: u64 = 1024 * 1024;

/// The reserve of one directory.
#[derive(Debug)]
pub struct Reserve {
    dir: Dir,
    /// The size of the file; 0: it does not exist.
    bytes: AtomicU64,
    /// The size of the second file; 0: it does not exist.
    last_bytes: AtomicU64,
    /// Whether the reserve should exist and does not: then only work that frees space may write.
    out: AtomicBool,
    changing: Mutex<()>,
}

impl Reserve {
    /// The reserve of a directory, found or created if there is space for it, with at least
    /// `least_bytes`; 0: none is created.
    pub fn open(dir: Dir, least_bytes: u64) -> Reserve {
        let found = |name| dir.open(name).and_then(|file| file.len()).unwrap_or(0);
        let (found, last) = (found(NAME), found(LAST_NAME));
        let reserve = Reserve {
            dir,
            bytes: AtomicU64::new(found),
            last_bytes: AtomicU64::new(last),
            out: AtomicBool::new(false),
            changing: Mutex::default(),
        };
        if least_bytes > 0 && (found < least_bytes || last == 0) {
            reserve.make(least_bytes.max(found), 0);
        }
        reserve
    }

    /// The reserve of a directory in which nothing is changed.
    pub fn none(dir: Dir) -> Reserve {
        let (bytes, last_bytes) = (AtomicU64::new(0), AtomicU64::new(0));
        Reserve { dir, bytes, last_bytes, out: AtomicBool::new(false), changing: Mutex::default() }
    }

    /// Its size.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Whether it was given back and has not been created again yet.
    pub fn is_out(&self) -> bool {
        self.out.load(Ordering::Acquire)
    }

    /// An error if appends would use space that is needed to reclaim space.
    pub fn check(&self) -> Result<()> {
        if self.is_out() { Err(Error::DiskFull { path: self.dir.path_of(NAME) }) } else { Ok(()) }
    }

    /// Gives the space to a caller that found the disk full. True if there was any.
    pub fn give_back(&self) -> bool {
        let _alone = self.changing.lock();
        if self.bytes() == 0 {
            return false;
        }
        if let Err(error) = self.dir.remove(NAME) {
            tracing::warn!(%error, "the reserve cannot be released");
            return false;
        }
        tracing::warn!(
            bytes = self.bytes(),
            "the disk is full: the reserve is released, appends are refused"
        );
        self.bytes.store(0, Ordering::Relaxed);
        self.out.store(true, Ordering::Release);
        true
    }

    /// Gives the space of the second file to a manifest that frees space. True if there was any.
    pub fn give_last(&self) -> bool {
        let _alone = self.changing.lock();
        if self.last_bytes.load(Ordering::Relaxed) == 0 || self.dir.remove(LAST_NAME).is_err() {
            return false;
        }
        self.last_bytes.store(0, Ordering::Relaxed);
        self.out.store(true, Ordering::Release);
        true
    }

    /// Creates the reserve, or enlarges it, with `bytes`. Requires that the disk has twice the
    /// missing bytes free, in addition to `promised_bytes`, which others are to write.
    pub fn make(&self, bytes: u64, promised_bytes: u64) {
        let _alone = self.changing.lock();
        let last_bytes = (bytes / LAST_PART).max(LEAST_LAST_BYTES);
        let last_missing = self.last_bytes.load(Ordering::Relaxed) == 0;
        let missing =
            bytes.saturating_sub(self.bytes()) + if last_missing { last_bytes } else { 0 };
        if bytes == 0 || (missing == 0 && !self.is_out()) {
            return;
        }
        let has_space = self
            .dir
            .free_bytes()
            .map_or(true, |free| free >= (2 * missing).saturating_add(promised_bytes));
        let make = || {
            if !has_space {
                return Err(Error::DiskFull { path: self.dir.path_of(NAME) });
            }
            if last_missing {
                self.write(LAST_NAME, last_bytes)?;
                self.last_bytes.store(last_bytes, Ordering::Relaxed);
            }
            if bytes > self.bytes() { self.write(NAME, bytes) } else { Ok(()) }
        };
        match make() {
            Ok(()) => {
                self.bytes.fetch_max(bytes, Ordering::Relaxed);
                if self.out.swap(false, Ordering::AcqRel) {
                    tracing::info!(bytes, "the reserve is in place again, appends are accepted");
                }
            }
            Err(error) if self.bytes() > 0 => {
                tracing::debug!(%error, "the reserve could not be enlarged");
            }
            Err(error) => {
                // If the disk fails for a reason other than space, refusing appends does not help.
                self.out.store(matches!(error, Error::DiskFull { .. }), Ordering::Release);
                let _ = self.dir.remove(NAME);
            }
        }
    }

    fn write(&self, name: &str, bytes: u64) -> Result<()> {
        // A larger file is written beside the smaller one, so that there is always one.
        let temporary = format!("{name}.tmp");
        let _ = self.dir.remove(&temporary);
        let file = self.dir.create(&temporary)?;
        let zeros = vec![0; PIECE_BYTES.min(bytes) as usize];
        let written = (0..bytes.div_ceil(PIECE_BYTES)).try_for_each(|piece| {
            let at = piece * PIECE_BYTES;
            file.write(at, &zeros[..PIECE_BYTES.min(bytes - at) as usize])?;
            // Each piece is synced, so that the sync of a commit never waits for many megabytes of
            // zeros.
            file.sync()
        });
        let named = written.and_then(|()| self.dir.rename(&temporary, name));
        named.inspect_err(|_| {
            let _ = self.dir.remove(&temporary);
        })
    }
}

/// Gives back space of the reserve in a directory that no engine has open: removes the first file,
/// or, if there is none, the second. True if a file was removed.
pub fn remove(dir: &Dir) -> bool {
    dir.remove(NAME).is_ok() || dir.remove(LAST_NAME).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vfs::simulated::SimulatedDisk;
    use std::sync::Arc;

    #[test]
    fn the_reserve_is_released_once_and_made_again_when_twice_its_size_is_free() {
        let disk = SimulatedDisk::new();
        disk.set_capacity(Some(100 * 4096));
        let dir = Dir::new(Arc::new(disk.clone()));
        let reserve = Reserve::open(dir.clone(), 20 * 4096);
        // The second file has four blocks.
        assert_eq!((reserve.bytes(), disk.free_bytes()), (20 * 4096, 76 * 4096));
        let file = dir.create("other").expect("creates");
        file.write(0, &vec![1; 75 * 4096]).expect("writes");
        assert!(reserve.give_back() && !reserve.give_back() && reserve.is_out());
        reserve.make(20 * 4096, 0);
        assert!(reserve.is_out() && reserve.check().is_err(), "there is not twice its size");
        dir.remove("other").expect("removes");
        drop(file);
        reserve.make(20 * 4096, 0);
        assert!(!reserve.is_out() && reserve.check().is_ok());
        assert_eq!(Reserve::open(dir, 10 * 4096).bytes(), 20 * 4096, "it is found again");
    }

    #[test]
    fn the_last_part_is_left_when_the_rest_was_used_up() {
        let disk = SimulatedDisk::new();
        disk.set_capacity(Some(30 * 4096));
        let dir = Dir::new(Arc::new(disk.clone()));
        let reserve = Reserve::open(dir.clone(), 10 * 4096);
        assert!(reserve.give_back());
        let file = dir.create("other").expect("creates");
        file.write(0, &vec![1; 26 * 4096]).expect("writes");
        assert_eq!(disk.free_bytes(), 0);
        assert!(reserve.give_last() && !reserve.give_last() && reserve.is_out());
        assert_eq!(disk.free_bytes(), 4 * 4096);
        dir.remove("other").expect("removes");
        drop(file);
        reserve.make(10 * 4096, 0);
        assert!(!reserve.is_out());
        assert_eq!(disk.free_bytes(), 16 * 4096, "both are in place");
    }
}
