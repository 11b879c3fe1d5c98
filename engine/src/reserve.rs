//! The reserve: space that is kept for getting space back (P6, P8).
//!
//! ```text
//!  reserve      zeros, written and synced while there is space; nothing ever reads them
//! ```
//!
//! A full disk must still be opened, and what expires or is trimmed on it must still leave; all of that writes a little first: a log
//! file, a manifest, the memtable that holds the trims. So a file of zeros is held. It is removed when such work meets a full disk,
//! and made again when there is twice its size.
//!
//! While it is out, appends are refused: they would take the space that the work needs. So the reserve is in place, or nothing is
//! appended.
//!
//! It does not know: what the space is needed for.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::error::{Error, Result};
use crate::vfs::Dir;

/// The file's name.
pub const NAME: &str = "reserve";

/// Its name until all of it is durable.
pub const TEMPORARY_NAME: &str = "reserve.tmp";

/// It is written in pieces of this many bytes.
const PIECE_BYTES: u64 = 1024 * 1024;

/// The reserve of one directory.
#[derive(Debug)]
pub struct Reserve {
    dir: Dir,
    /// How large the file is; 0: it is not there.
    bytes: AtomicU64,
    /// It should be there and is not: only what gives space back is written.
    out: AtomicBool,
    changing: Mutex<()>,
}

impl Reserve {
    /// The reserve of a directory: found, or made if there is space for it, with at least so many bytes; 0: none is kept.
    pub fn open(dir: Dir, least_bytes: u64) -> Reserve {
        let found = dir.open(NAME).and_then(|file| file.len()).unwrap_or(0);
        let reserve = Reserve {
            dir,
            bytes: AtomicU64::new(found),
            out: AtomicBool::new(false),
            changing: Mutex::default(),
        };
        if found < least_bytes {
            reserve.make(least_bytes);
        }
        reserve
    }

    /// The reserve of a directory in which nothing is changed.
    pub fn none(dir: Dir) -> Reserve {
        Reserve { dir, bytes: AtomicU64::new(0), out: AtomicBool::new(false), changing: Mutex::default() }
    }

    /// How large it is.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Whether it was given back and is not there again yet.
    pub fn is_out(&self) -> bool {
        self.out.load(Ordering::Acquire)
    }

    /// An error if appends would take space that is needed to get space back.
    pub fn check(&self) -> Result<()> {
        if self.is_out() { Err(Error::DiskFull { path: self.dir.path_of(NAME) }) } else { Ok(()) }
    }

    /// Gives the space to whoever met a full disk. True when there was any.
    pub fn give_back(&self) -> bool {
        let _alone = self.changing.lock();
        if self.bytes() == 0 {
            return false;
        }
        if let Err(error) = self.dir.remove(NAME) {
            tracing::warn!(%error, "the reserve cannot be given back");
            return false;
        }
        tracing::warn!(
            bytes = self.bytes(),
            "the disk is full: the reserve is given back, appends are refused"
        );
        self.bytes.store(0, Ordering::Relaxed);
        self.out.store(true, Ordering::Release);
        true
    }

    /// Makes it, or makes it larger, with so many bytes, if the disk has twice that beyond what it holds now.
    pub fn make(&self, bytes: u64) {
        let _alone = self.changing.lock();
        let missing = bytes.saturating_sub(self.bytes());
        if missing == 0 && !self.is_out() {
            return;
        }
        let has_space = self.dir.free_bytes().map_or(true, |free| free >= 2 * missing);
        let made =
            if has_space { self.write(bytes) } else { Err(Error::DiskFull { path: self.dir.path_of(NAME) }) };
        match made {
            Ok(()) => {
                self.bytes.store(bytes, Ordering::Relaxed);
                if self.out.swap(false, Ordering::AcqRel) {
                    tracing::info!(bytes, "the reserve is in place again, appends are taken");
                }
            }
            Err(error) if self.bytes() > 0 => {
                tracing::debug!(%error, "the reserve stays as small as it is");
            }
            Err(error) => {
                // A disk that refuses for another reason than space is not made better by refusing appends.
                self.out.store(matches!(error, Error::DiskFull { .. }), Ordering::Release);
                let _ = self.dir.remove(NAME);
            }
        }
    }

    fn write(&self, bytes: u64) -> Result<()> {
        // A larger one is written beside the smaller, so that there is always one.
        let _ = self.dir.remove(TEMPORARY_NAME);
        let file = self.dir.create(TEMPORARY_NAME)?;
        let zeros = vec![0; PIECE_BYTES.min(bytes) as usize];
        let written = (0..bytes.div_ceil(PIECE_BYTES)).try_for_each(|piece| {
            let at = piece * PIECE_BYTES;
            file.write(at, &zeros[..PIECE_BYTES.min(bytes - at) as usize])?;
            // Each piece, so that a commit's own sync never waits for many megabytes of zeros.
            file.sync()
        });
        let named = written.and_then(|()| self.dir.rename(TEMPORARY_NAME, NAME));
        named.inspect_err(|_| {
            let _ = self.dir.remove(TEMPORARY_NAME);
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vfs::simulated::SimulatedDisk;
    use std::sync::Arc;

    #[test]
    fn it_is_given_back_once_and_made_again_when_there_is_twice_its_size() {
        let disk = SimulatedDisk::new();
        disk.set_capacity(Some(100 * 4096));
        let dir = Dir::new(Arc::new(disk.clone()));
        let reserve = Reserve::open(dir.clone(), 20 * 4096);
        assert_eq!((reserve.bytes(), disk.free_bytes()), (20 * 4096, 80 * 4096));
        let file = dir.create("other").expect("creates");
        file.write(0, &vec![1; 79 * 4096]).expect("writes");
        assert!(reserve.give_back() && !reserve.give_back() && reserve.is_out());
        reserve.make(20 * 4096);
        assert!(reserve.is_out() && reserve.check().is_err(), "there is not twice its size");
        dir.remove("other").expect("removes");
        drop(file);
        reserve.make(20 * 4096);
        assert!(!reserve.is_out() && reserve.check().is_ok());
        assert_eq!(Reserve::open(dir, 10 * 4096).bytes(), 20 * 4096, "it is found again");
    }
}
