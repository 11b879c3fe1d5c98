//! Strandline: a log-structured storage engine made for timelines.
//!
//! A timeline is an append-only list of entries, numbered 1, 2, 3, …: the history of a
//! conversation, or the inbox of a receiver. A batch appends to any number of timelines at once,
//! atomically. A body that is appended to many of them is stored once in each store: one body, one
//! log record, one fsync, whatever the number of receivers.
//!
//! * [`Engine`] opens a directory; [`Store`] reads a named set of timelines; [`Batch`] writes;
//!   [`Watcher`] reports the timelines that advanced.
//! * A success means: durable, and visible to every reader. Entries that a reader has seen are
//!   never lost, and no sequence is given twice.
//! * The number of timelines is not limited: a cold one costs no memory and no file. The engine is
//!   synchronous and needs no async runtime; still, a [`Ticket`] is a future.
//!
//! To read the code, start with `write/commit.rs` for the write path, `read/page.rs` for the read
//! path, and `recover/open.rs` for recovery, each from its heading down. The public modules are
//! interfaces: [`vfs`] and [`clock`] let a test simulate the disk and the time,
//! [`format`](mod@format) lets a tool read the files, and [`metrics`](mod@metrics) lists what can
//! be measured.
#![cfg_attr(test, allow(clippy::unwrap_used))]
#![warn(missing_debug_implementations)]

mod care;
pub mod clock;
mod engine;
mod entry;
mod error;
pub mod format;
mod ids;
mod locks;
mod manifest;
mod memtable;
pub mod metrics;
mod notify;
mod options;
mod random;
mod read;
mod recover;
mod running;
mod segment;
mod snapshot;
mod state;
mod stats;
mod store;
mod timeline;
mod upkeep;
pub mod vfs;
mod wal;
mod write;

pub use care::backup::{Backup, restore, restore_in};
pub use care::finding::Finding;
pub use care::repair::Repair;
pub use care::salvage::{Salvage, salvage, salvage_in};
pub use care::target::is_empty_directory;
pub use care::verify::Verification;
pub use engine::{Engine, World};
pub use entry::{Entry, Info, Limit, Lost, Page, Receipt, Sequences, Verdict};
pub use error::{Error, ErrorKind, IoOperation, Result};
pub use format::manifest::Copies;
pub use ids::{
    BodyKey, BootId, Epoch, Lsn, MAX_ID_BYTES, MAX_NAME_BYTES, MAX_SEQUENCE, MAX_STORES,
    ParseEpochError, Sequence, StoreId, StoreKey, TimeMs, TimelineRef,
};
pub use notify::watch::Watcher;
pub use options::{
    LEAST_OPEN_FILES, MAX_BATCH_BYTES, MAX_BATCH_OPERATIONS, MAX_BODY_BYTES, NewStore, Options,
    Wakers,
};
pub use recover::recovery::Recovery;
pub use snapshot::Snapshot;
pub use state::figures::StoreFigures;
pub use state::refusals::OnceAMinute;
pub use stats::Stats;
pub use store::{AppendOptions, Entries, Store, StoreInfo, StoreOptions};
pub use write::batch::{Batch, Durability, TargetList, Trim};
pub use write::queue::Submission;
pub use write::ticket::Ticket;
