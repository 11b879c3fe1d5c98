//! The error type of the engine. Its variants are arranged by what the caller can do next; each one
//! describes what happened, and to which file or key.
//!
//! Errors are cloned for every waiter of a failed group, hence the `Arc` around the operating
//! system's error.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::ids::whole_ms;

/// The result of all functions that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of the engine.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The call itself is wrong: change it. Nothing was written.
    #[error("{what}")]
    Invalid {
        /// What is wrong, and what is allowed.
        what: String,
    },
    /// Something exceeds a limit: make it smaller. Nothing was written.
    #[error("{what} has {actual} bytes, over the limit of {limit}")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// Its size.
        actual: usize,
        /// The limit that it exceeds.
        limit: usize,
    },
    /// A batch has too many appends and changes: split it. All other commits wait for one commit.
    #[error("a batch has {actual} appends and changes, over the limit of {limit}: split it")]
    TooManyOperations {
        /// The number of its appends, one per timeline, and changes.
        actual: usize,
        /// [`MAX_BATCH_OPERATIONS`](crate::MAX_BATCH_OPERATIONS).
        limit: usize,
    },
    /// There is no store of that name: create it.
    #[error("there is no store {name:?}: create it first")]
    NoStore {
        /// The requested name.
        name: String,
    },
    /// The store was dropped after the handle was taken: it can no longer be read or written.
    /// Create it again if it is needed.
    #[error("the store was dropped")]
    StoreDropped,
    /// The snapshot is too old: the memtables that it keeps exceed their share of the memory
    /// budget. Take a new snapshot and begin again; hold it for a shorter time.
    #[error("the snapshot is too old: take a new one")]
    SnapshotTooOld,
    /// The maximum number of stores exists: drop one that is not needed. Nothing was written.
    #[error("there are {limit} stores already: drop one that is not needed")]
    TooManyStores {
        /// The maximum number.
        limit: usize,
    },
    /// The store exists with another TTL: use it as it is, or change its TTL.
    #[error("the store {name:?} exists with a TTL of {} ms", ttl.map_or(0, whole_ms))]
    StoreExists {
        /// The store's name.
        name: String,
        /// Its TTL; `None`: its entries live for ever, in the text 0 ms.
        ttl: Option<Duration>,
    },
    /// The last sequence of a timeline is not the one that the batch expected: read, then decide.
    /// Nothing was written.
    #[error("the last sequence of {store}:{} is {last}", timeline.escape_ascii())]
    LastSequence {
        /// The store's name.
        store: String,
        /// The timeline's name.
        timeline: Vec<u8>,
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
        /// The sequence that its first append was given.
        sequence: u64,
    },
    /// The timeline has used its highest sequence: write to another one.
    #[error("the timeline has used its highest sequence, {}", crate::ids::MAX_SEQUENCE)]
    SequenceExhausted,
    /// The disk is full: reads continue; free space and try again, without a restart.
    #[error("the disk is full (writing {path}): nothing was done; make room and try again")]
    DiskFull {
        /// The file that could not grow.
        path: PathBuf,
    },
    /// The process has no file descriptor left, and the engine has none that it can close: raise
    /// the limit, or close other files. Nothing was changed; calls succeed again when there are
    /// descriptors, without a restart.
    #[error(
        "too many open files (to {operation} {path}): raise the limit of the process (ulimit -n), \
         or lower max_open_files"
    )]
    TooManyFiles {
        /// What failed.
        operation: IoOperation,
        /// The file.
        path: PathBuf,
    },
    /// An earlier write or fsync failed, so the engine accepts no more writes: restart it.
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
        /// The byte offset in the file.
        offset: u64,
        /// A description of the damage.
        what: String,
    },
    /// Another engine, backup, restore or salvage, probably in another process, holds the
    /// directory: wait until it ends, or use another directory.
    #[error(
        "{path} is locked{}: another engine, backup, restore or salvage is using it; let it \
         finish, or use another directory",
        pid.map_or_else(String::new, |pid| format!(" (pid {pid})"))
    )]
    Locked {
        /// The lock file.
        path: PathBuf,
        /// The id of the process that holds it, if the lock file contains it.
        pid: Option<u32>,
    },
    /// The engine was opened read-only: open it to be written.
    #[error("the engine is open read-only: nothing can be written")]
    ReadOnly,
    /// The engine is closed or closing: open the directory again.
    #[error("{what}")]
    Closed {
        /// What is not done.
        what: &'static str,
    },
    /// The operating system returned an error.
    #[error("cannot {operation} {path}: {source}")]
    Io {
        /// What failed.
        operation: IoOperation,
        /// The file.
        path: PathBuf,
        /// The operating system's error.
        #[source]
        source: Arc<io::Error>,
    },
}

/// An operation of the operating system that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum IoOperation {
    /// Open the directory, before anything in it.
    OpenDirectory,
    /// Create the directory.
    CreateDirectory,
    /// Lock the directory.
    Lock,
    /// List the directory's files.
    List,
    /// Create a file.
    Create,
    /// Open a file.
    Open,
    /// Find the length of a file, or the free space.
    Measure,
    /// Read from a file.
    Read,
    /// Write to a file.
    Write,
    /// Set the length of a file.
    Resize,
    /// Make a file or the directory durable.
    Sync,
    /// Rename a file.
    Rename,
    /// Remove a file.
    Remove,
    /// Start one of the engine's threads.
    StartThread,
}

impl IoOperation {
    /// Whether it only gets what a file contains.
    pub(crate) fn is_read(self) -> bool {
        matches!(self, IoOperation::Read | IoOperation::Open | IoOperation::Measure)
    }
}

/// A verb that the path follows.
impl fmt::Display for IoOperation {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            IoOperation::OpenDirectory => "open the directory",
            IoOperation::CreateDirectory => "make the directory",
            IoOperation::Lock => "lock",
            IoOperation::List => "list",
            IoOperation::Create => "create",
            IoOperation::Open => "open",
            IoOperation::Measure => "measure",
            IoOperation::Read => "read",
            IoOperation::Write => "write",
            IoOperation::Resize => "resize",
            IoOperation::Sync => "sync",
            IoOperation::Rename => "rename",
            IoOperation::Remove => "remove",
            IoOperation::StartThread => "start a thread for",
        })
    }
}

/// The state after a failed write to the disk.
#[derive(Clone, Debug)]
pub enum Failure {
    /// Nothing changed: the operation is refused, and may succeed later.
    Refused(Error),
    /// The content of the disk is unknown: no further write may be acknowledged.
    Poisoned(Error),
}

impl Failure {
    /// A failure before anything that matters was changed: a shortage is temporary, other failures
    /// mean that the disk is faulty.
    pub fn before(error: Error) -> Failure {
        if error.is_shortage() { Failure::Refused(error) } else { Failure::Poisoned(error) }
    }

    /// The error, for callers that treat both kinds alike.
    pub fn into_error(self) -> Error {
        match self {
            Failure::Refused(error) | Failure::Poisoned(error) => error,
        }
    }
}

/// What a caller can do about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Change the call: it is wrong, or exceeds a limit.
    Invalid,
    /// Read, then decide again: the data is not in the state that the call assumed.
    Conflict,
    /// Try again later, when something else has made room: disk space, file descriptors, or the
    /// lock of the directory.
    Busy,
    /// Open the engine again: this one is closed, read-only, or accepts no more writes since an
    /// earlier write failed.
    Ended,
    /// Repair or restore the file: what is on the disk is not what was written.
    Damaged,
    /// See the operating system's error.
    Io,
}

impl Error {
    /// What the caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Error::Invalid { .. }
            | Error::TooLarge { .. }
            | Error::TooManyOperations { .. }
            | Error::TooManyStores { .. }
            | Error::SequenceExhausted => ErrorKind::Invalid,
            Error::NoStore { .. }
            | Error::StoreDropped
            | Error::StoreExists { .. }
            | Error::SnapshotTooOld
            | Error::LastSequence { .. }
            | Error::SequenceOrder { .. }
            | Error::IdConflict { .. } => ErrorKind::Conflict,
            Error::DiskFull { .. } | Error::TooManyFiles { .. } | Error::Locked { .. } => {
                ErrorKind::Busy
            }
            Error::Poisoned { .. } | Error::ReadOnly | Error::Closed { .. } => ErrorKind::Ended,
            Error::Corrupt { .. } => ErrorKind::Damaged,
            Error::Io { .. } if self.is_damage() => ErrorKind::Damaged,
            Error::Io { .. } => ErrorKind::Io,
        }
    }

    /// Whether the same call may succeed later without any change: nothing was written, and what it
    /// lacked may be there then.
    pub fn is_retryable(&self) -> bool {
        self.kind() == ErrorKind::Busy
    }

    /// Whether a file does not exist.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Error::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }

    /// Whether the data to be read is damaged: not as it was written, or not returned by the disk.
    /// A shortage is no damage.
    pub fn is_damage(&self) -> bool {
        match self {
            Error::Corrupt { .. } => true,
            Error::Io { operation, .. } => operation.is_read() && !self.is_shortage(),
            _ => false,
        }
    }

    /// Whether it is a shortage of space or descriptors, which may be temporary.
    pub fn is_shortage(&self) -> bool {
        matches!(self, Error::DiskFull { .. } | Error::TooManyFiles { .. })
    }

    /// An [`Error::Invalid`].
    pub fn invalid(what: impl Into<String>) -> Error {
        Error::Invalid { what: what.into() }
    }

    /// The refusal of a store handle by an engine that did not issue it.
    pub(crate) fn foreign_store() -> Error {
        Error::invalid(
            "the store belongs to another engine, or to an earlier opening of this directory: get \
             it from this engine by Engine::store",
        )
    }

    /// An [`Error::Corrupt`].
    pub fn corrupt(path: impl Into<PathBuf>, offset: u64, what: impl Into<String>) -> Error {
        Error::Corrupt { path: path.into(), offset, what: what.into() }
    }

    /// The operating system's error with the operation and the file. A full disk becomes
    /// [`Error::DiskFull`], a lack of descriptors [`Error::TooManyFiles`].
    pub fn io(operation: IoOperation, path: &Path, source: io::Error) -> Error {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Error::DiskFull { path: path.to_path_buf() }
            }
            _ if is_out_of_descriptors(&source) => {
                Error::TooManyFiles { operation, path: path.to_path_buf() }
            }
            _ => Error::Io { operation, path: path.to_path_buf(), source: Arc::new(source) },
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
