//! The one error. Its variants are arranged by what the caller can do next; each says what
//! happened, to which file or key.
//!
//! Errors are cloned to every waiter of a failed group, hence the `Arc` around the operating
//! system's error.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The result of everything here that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The call itself is wrong: change it. Nothing was written.
    #[error("{what}")]
    Invalid {
        /// What is wrong, and what is allowed.
        what: String,
    },
    /// Something is over a limit: make it smaller. Nothing was written.
    #[error("{what} has {actual} bytes, over the limit of {limit}")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// Its size.
        actual: usize,
        /// The limit that it broke.
        limit: usize,
    },
    /// There is no store of that name: create it.
    #[error("there is no store {name:?}: create it first")]
    NoStore {
        /// The name that was asked for.
        name: String,
    },
    /// The store was dropped after the handle was taken: nothing of it can be read or written any
    /// more. Create it again, or let it be.
    #[error("the store was dropped")]
    StoreDropped,
    /// The snapshot is too old: the memtables that it keeps take more than their share of the memory
    /// budget. Take a new snapshot and begin again; hold it for a shorter time.
    #[error("the snapshot is too old: take a new one")]
    SnapshotTooOld,
    /// There are as many stores as there may be: drop one that is not needed. Nothing was written.
    #[error("there are {limit} stores already: drop one that is not needed")]
    TooManyStores {
        /// How many there may be.
        limit: usize,
    },
    /// The store exists with another TTL: use it as it is, or change its TTL.
    #[error("the store {name:?} exists with a TTL of {ttl_ms} ms")]
    StoreExists {
        /// The store's name.
        name: String,
        /// The TTL that it has, 0 for none.
        ttl_ms: u64,
    },
    /// The last sequence is another than the batch asked for: read, then decide. Nothing was
    /// written.
    #[error("the last sequence of the timeline is {last}")]
    LastSequence {
        /// The last sequence.
        last: u64,
    },
    /// The chosen sequence is not above the last: choose a higher one. Nothing was written.
    #[error("the sequence must be above the last one, {last}")]
    SequenceOrder {
        /// The last sequence.
        last: u64,
    },
    /// The id was used for another batch: use a new id. Nothing was written.
    #[error(
        "this id was used with another body, other timelines or other changes; its first append \
         was given sequence \
         {sequence}: use a new id"
    )]
    IdConflict {
        /// What its first append was given.
        sequence: u64,
    },
    /// The timeline has used its highest sequence: write to another one.
    #[error("the timeline has used its highest sequence, {}", crate::ids::MAX_SEQUENCE)]
    SequenceExhausted,
    /// The disk is full: reads go on; make room and try again, without a restart.
    #[error("the disk is full (writing {path}): nothing was done; make room, and it works again")]
    DiskFull {
        /// The file that could not grow.
        path: PathBuf,
    },
    /// The process has no file descriptor left, and the engine none to give up: raise the limit, or
    /// let something else close files. Nothing was changed, and it works again when there are
    /// descriptors, without a restart.
    #[error(
        "too many open files (to {doing} {path}): raise the limit of the process (ulimit -n), or \
         lower max_open_files"
    )]
    TooManyFiles {
        /// What was tried.
        doing: &'static str,
        /// On which file.
        path: PathBuf,
    },
    /// An earlier write or fsync failed, so the engine takes no more writes: restart it.
    #[error("writes are refused since {why}: restart to recover what is durable")]
    Poisoned {
        /// The first failure.
        why: String,
    },
    /// Bytes on the disk are not what was written: restore the file, or open read-only.
    #[error("{path} is damaged at byte {offset}: {what}")]
    Corrupt {
        /// The damaged file.
        path: PathBuf,
        /// Where in the file.
        offset: u64,
        /// What does not hold there.
        what: String,
    },
    /// Another engine, backup, restore or salvage, likely in another process, has the directory:
    /// let it end, or use another directory.
    #[error(
        "{path} is locked{holder}: another engine, backup, restore or salvage is at work there; \
         let it end, or use \
         another directory"
    )]
    Locked {
        /// The lock file.
        path: PathBuf,
        /// ` (pid …)`, when the lock file tells.
        holder: String,
    },
    /// The engine was opened read-only, or is closing.
    #[error("{what}")]
    Closed {
        /// Which of the two, and what to do.
        what: &'static str,
    },
    /// The operating system refused: see its reason.
    #[error("cannot {doing} {path}: {source}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// On which file.
        path: PathBuf,
        /// The operating system's answer.
        #[source]
        source: Arc<io::Error>,
    },
}

/// What a failed write to the disk leaves behind.
#[derive(Clone, Debug)]
pub enum Failure {
    /// Nothing changed: what was asked for is refused, and may work later.
    Refused(Error),
    /// What is on the disk is not known any more: no further write may be acknowledged.
    Poisoned(Error),
}

impl Failure {
    /// A failure before anything that counts was touched: a shortage passes, other failures mean
    /// that the disk is not well.
    pub fn before(error: Error) -> Failure {
        if error.is_shortage() { Failure::Refused(error) } else { Failure::Poisoned(error) }
    }

    /// The error, where both kinds end what was begun.
    pub fn into_error(self) -> Error {
        match self {
            Failure::Refused(error) | Failure::Poisoned(error) => error,
        }
    }
}

impl Error {
    /// Whether a file was not there.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Error::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }

    /// Whether what was to be read is damaged: not as it was written, or not given by the disk. A
    /// lack of descriptors is no damage.
    pub fn is_damage(&self) -> bool {
        match self {
            Error::Corrupt { .. } => true,
            Error::Io { doing, .. } => {
                matches!(*doing, "read" | "open" | "measure") && !self.is_shortage()
            }
            _ => false,
        }
    }

    /// Whether it is a lack of something, space or descriptors, that may pass by itself.
    pub fn is_shortage(&self) -> bool {
        matches!(self, Error::DiskFull { .. } | Error::TooManyFiles { .. })
    }

    /// An [`Error::Invalid`].
    pub fn invalid(what: impl Into<String>) -> Error {
        Error::Invalid { what: what.into() }
    }

    /// The refusal of a store handle by an engine that did not give it.
    pub(crate) fn foreign_store() -> Error {
        Error::invalid(
            "the store belongs to another engine, or to an earlier opening of this directory: \
             take it from this engine by Engine::store",
        )
    }

    /// An [`Error::Corrupt`].
    pub fn corrupt(path: impl Into<PathBuf>, offset: u64, what: impl Into<String>) -> Error {
        Error::Corrupt { path: path.into(), offset, what: what.into() }
    }

    /// The operating system's error with its circumstances. A full disk becomes
    /// [`Error::DiskFull`], a lack of descriptors [`Error::TooManyFiles`].
    pub fn io(doing: &'static str, path: &Path, source: io::Error) -> Error {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Error::DiskFull { path: path.to_path_buf() }
            }
            _ if is_out_of_descriptors(&source) => {
                Error::TooManyFiles { doing, path: path.to_path_buf() }
            }
            _ => Error::Io { doing, path: path.to_path_buf(), source: Arc::new(source) },
        }
    }
}

/// Whether there was no file descriptor left: of the process (EMFILE) or of the machine (ENFILE).
/// The standard library has no kind for it.
pub fn is_out_of_descriptors(error: &io::Error) -> bool {
    const ENFILE: i32 = 23;
    const EMFILE: i32 = 24;
    matches!(error.raw_os_error(), Some(ENFILE | EMFILE))
}
