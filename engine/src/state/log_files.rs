//! The log files that this engine still has, oldest first, and the age of what they hold (P8).
//!
//! ```text
//!  kept for reuse │ before the checkpoint │ between │ active
//!  wal-next.tmp   │ removed, or kept      │         │ may have bytes of its former use
//! ```
//!
//! What is in a log file and in no live entry any more is still on the disk: older groups in a file
//! that is used again, and all groups before the checkpoint. So each file has the time of its
//! oldest bytes, through all its uses, and is removed for good in time.
//!
//! This file does not know the content of log files, or the position at which the log is written
//! (`wal`).

use parking_lot::Mutex;

use crate::error::Result;
use crate::ids::{FileNumber, Lsn, TimeMs};
use crate::vfs::Dir;
use crate::wal::{self, WalFile};

/// The log's files.
pub struct LogFiles {
    dir: Dir,
    known: Mutex<KnownFiles>,
    /// Held while files are removed or kept.
    retiring: Mutex<()>,
}

struct KnownFiles {
    files: Vec<LogFile>,
    /// The time of the oldest bytes in the file that is kept for reuse, if there may be one.
    kept_since_ms: Option<TimeMs>,
}

#[derive(Clone, Copy)]
struct LogFile {
    file: WalFile,
    /// The time of its oldest bytes.
    since_ms: TimeMs,
    /// Its bytes must leave the disk: it is not used again.
    is_doomed: bool,
}

impl LogFiles {
    /// The files that an open found or created, oldest first, and the time of their oldest bytes.
    pub fn new(dir: Dir, files: Vec<WalFile>, since_ms: TimeMs) -> LogFiles {
        let known = |file| LogFile { file, since_ms, is_doomed: false };
        let files = files.into_iter().map(known).collect();
        let known = Mutex::new(KnownFiles { files, kept_since_ms: None });
        LogFiles { dir, known, retiring: Mutex::default() }
    }

    /// Adds the file to which the log is written from now on. It may be the one that was kept.
    pub fn add(&self, file: WalFile, now_ms: TimeMs) {
        let mut known = self.known.lock();
        let since_ms = known.kept_since_ms.take().map_or(now_ms, |kept_ms| kept_ms.min(now_ms));
        known.files.push(LogFile { file, since_ms, is_doomed: false });
    }

    /// The number of files.
    pub fn count(&self) -> usize {
        self.known.lock().files.len()
    }

    /// The number of the file that contains a position; 0: there is none.
    pub fn number_at(&self, lsn: Lsn) -> FileNumber {
        let known = self.known.lock();
        let mut files = known.files.iter().rev().map(|known| known.file);
        files.find(|file| file.start <= lsn).map_or(0, |file| file.number)
    }

    /// The time of the oldest bytes in the active file, or in the one that is kept.
    pub fn oldest_ms(&self) -> Option<TimeMs> {
        let known = self.known.lock();
        let active_ms = known.files.last().map(|active| active.since_ms);
        active_ms.into_iter().chain(known.kept_since_ms).min()
    }

    /// Records that the active file holds nothing.
    pub fn active_is_clean(&self, now_ms: TimeMs) {
        if let Some(active) = self.known.lock().files.last_mut() {
            (active.since_ms, active.is_doomed) = (now_ms, false);
        }
    }

    /// Whether what the active file holds must leave the disk.
    pub fn is_active_doomed(&self) -> bool {
        self.known.lock().files.last().is_some_and(|active| active.is_doomed)
    }

    /// From here on none of the present files is used again; `discard` removes the one that is
    /// kept.
    pub fn doom(&self, discard: impl FnOnce()) {
        let _nothing_is_kept_now = self.retiring.lock();
        let mut known = self.known.lock();
        known.files.iter_mut().for_each(|known| known.is_doomed = true);
        known.kept_since_ms = None;
        drop(known);
        discard();
    }

    /// The same for the files that begin below a position.
    pub fn doom_below(&self, lsn: Lsn) {
        let mut known = self.known.lock();
        let below = known.files.iter_mut().filter(|known| known.file.start < lsn);
        below.for_each(|known| known.is_doomed = true);
    }

    /// Removes the files that end at or before the checkpoint. The caller has made the manifest
    /// with the checkpoint durable. A file whose oldest bytes are of `since_ms` or later is removed
    /// only if `keep` does not take it over for reuse.
    pub fn retire_below(&self, checkpoint: Lsn, since_ms: TimeMs, keep: impl Fn(WalFile) -> bool) {
        let _one_at_a_time = self.retiring.lock();
        while let Some((dead, received)) = self.next_below(checkpoint) {
            // At the places of a file that received nothing, a later use would have the same lsns.
            if !dead.is_doomed && dead.since_ms >= since_ms && received && self.keep(dead, &keep) {
                continue;
            }
            if let Err(error) = self.dir.remove(&wal::file_name(dead.file.number)) {
                // The file is not needed; the next open removes it.
                tracing::warn!(%error, "an old log file stays until the next open");
            }
        }
    }

    fn keep(&self, dead: LogFile, keep: impl Fn(WalFile) -> bool) -> bool {
        // Noted before it is kept, since it may be in use at once.
        let mut known = self.known.lock();
        let before = known.kept_since_ms;
        let oldest_ms = before.map_or(dead.since_ms, |kept_ms| kept_ms.min(dead.since_ms));
        known.kept_since_ms = Some(oldest_ms);
        drop(known);
        let is_kept = keep(dead.file);
        if !is_kept {
            self.known.lock().kept_since_ms = before;
        }
        is_kept
    }

    /// Takes the oldest file, if it ends at or before the checkpoint, and whether it received
    /// anything.
    fn next_below(&self, checkpoint: Lsn) -> Option<(LogFile, bool)> {
        let mut known = self.known.lock();
        let end = known.files.get(1).map(|next| next.file.start)?;
        if end > checkpoint {
            return None;
        }
        let dead = known.files.remove(0);
        Some((dead, dead.file.start < end))
    }

    /// Removes all files. The caller has recorded in the manifest that none is needed.
    pub fn remove_all(&self) -> Result<()> {
        let mut known = self.known.lock();
        let mut files = known.files.drain(..).map(|known| known.file);
        files.try_for_each(|file| self.dir.remove(&wal::file_name(file.number)))
    }
}
