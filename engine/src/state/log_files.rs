//! The log files that this engine still has, oldest first.
//!
//! This file does not know their content, or the position at which the log is written (`wal`).

use parking_lot::Mutex;

use crate::error::Result;
use crate::ids::{FileNumber, Lsn};
use crate::vfs::Dir;
use crate::wal::{self, WalFile};

/// The log's files.
pub struct LogFiles {
    dir: Dir,
    files: Mutex<Vec<WalFile>>,
}

impl LogFiles {
    /// The files that an open found or created, oldest first.
    pub fn new(dir: Dir, files: Vec<WalFile>) -> LogFiles {
        LogFiles { dir, files: Mutex::new(files) }
    }

    /// Adds the file to which the log is written from now on.
    pub fn add(&self, file: WalFile) {
        self.files.lock().push(file);
    }

    /// The number of files.
    pub fn count(&self) -> usize {
        self.files.lock().len()
    }

    /// The number of the file that contains a position; 0: there is none.
    pub fn number_at(&self, lsn: Lsn) -> FileNumber {
        let files = self.files.lock();
        files.iter().rev().find(|file| file.start <= lsn).map_or(0, |file| file.number)
    }

    /// Removes the files that end at or before the checkpoint. The caller has made the manifest
    /// with the checkpoint durable.
    pub fn remove_below(&self, checkpoint: Lsn) {
        let mut files = self.files.lock();
        while files.len() > 1 && files[1].start <= checkpoint {
            let file = files.remove(0);
            if let Err(error) = self.dir.remove(&wal::file_name(file.number)) {
                // The file is not needed; the next open removes it.
                tracing::warn!(%error, "an old log file stays until the next open");
            }
        }
    }

    /// Removes all files. The caller has recorded in the manifest that none is needed.
    pub fn remove_all(&self) -> Result<()> {
        let mut files = self.files.lock();
        files.drain(..).try_for_each(|file| self.dir.remove(&wal::file_name(file.number)))
    }
}
