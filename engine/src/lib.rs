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
//! [`metrics`](mod@metrics) lists what can be measured.
//!
//! ```
//! # let dir = tempfile::tempdir().unwrap();
//! use strandline::{Batch, Engine, Limit, Options};
//!
//! let engine = Engine::open(dir.path(), Options::default())?;
//! let messages = engine.create_store("messages", None)?;
//! let inboxes = engine.create_store("inboxes", None)?;
//! let batch = Batch::new()
//!     .append(&messages, "room", "hello")
//!     .fan_out("hello in room", [(&inboxes, "ann"), (&inboxes, "bob")]);
//! let receipt = engine.commit(batch)?;
//! assert_eq!(receipt.sequences, [1, 1, 1]);
//! assert_eq!(inboxes.read_after("bob", 0, Limit::entries(50))?.entries[0].body, "hello in room");
//! # Ok::<(), strandline::Error>(())
//! ```
//!
//! # Features
//!
//! No feature is on by default.
//!
//! * `simulation`: a simulated disk (`vfs::simulated`) and clock (`clock::ManualClock`), and the
//!   functions that take them (`Engine::open_in`, `Engine::backup_in`, `restore_in`,
//!   `salvage_in`), for the tests of embedders: power cuts, faults, full disks and lapse of time.
//! * `internals`: the file formats, the files and the clock, for tools. **This feature is outside
//!   semantic versioning:** its items may change in every version, as may the traits in `vfs` and
//!   `clock`.
//!
//! # Platforms
//!
//! 64-bit Unix systems. Other targets do not compile.
//!
//! # Source
//!
//! To read the code, start with `write/commit.rs` for the write path, `read/page.rs` for the read
//! path, and `recover/open.rs` for recovery, each from its heading down.
#![cfg_attr(test, allow(clippy::unwrap_used))]
#![cfg_attr(docsrs, feature(doc_cfg))]
#![warn(missing_debug_implementations)]

#[cfg(not(unix))]
compile_error!("Strandline supports Unix systems only: it uses their file permissions and `pread`");

#[cfg(not(target_pointer_width = "64"))]
compile_error!("Strandline supports 64-bit targets only: it converts lengths of files to `usize`");

mod care;
#[cfg(any(feature = "simulation", feature = "internals"))]
pub mod clock;
#[cfg(not(any(feature = "simulation", feature = "internals")))]
mod clock;
mod engine;
mod entry;
mod error;
#[cfg(feature = "internals")]
pub mod format;
#[cfg(not(feature = "internals"))]
mod format;
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
mod state;
mod stats;
mod store;
mod timeline;
mod upkeep;
#[cfg(any(feature = "simulation", feature = "internals"))]
pub mod vfs;
#[cfg(not(any(feature = "simulation", feature = "internals")))]
mod vfs;
mod wal;
#[cfg(any(test, feature = "simulation"))]
mod world;
mod write;

#[cfg(feature = "simulation")]
pub use care::backup::restore_in;
pub use care::backup::{Backup, restore};
pub use care::finding::Finding;
pub use care::repair::Repair;
#[cfg(feature = "simulation")]
pub use care::salvage::salvage_in;
pub use care::salvage::{Salvage, salvage};
#[cfg(feature = "internals")]
pub use care::target::is_empty_directory;
pub use care::verify::Verification;
pub use engine::Engine;
pub use entry::{Entry, Info, Limit, Lost, Page, Receipt, Sequences, Verdict};
pub use error::{Error, ErrorKind, IoOperation, Result};
pub use format::manifest::Copies;
#[cfg(any(feature = "simulation", feature = "internals"))]
pub use ids::BootId;
pub use ids::{
    BodyKey, Epoch, MAX_ID_BYTES, MAX_NAME_BYTES, MAX_SEQUENCE, MAX_STORES, ParseEpochError,
    Sequence, StoreKey, TimeMs,
};
#[cfg(feature = "internals")]
pub use ids::{Lsn, StoreId, TimelineRef};
pub use notify::watch::{WatchEvent, Watcher};
pub use options::{
    LEAST_OPEN_FILES, MAX_BATCH_BYTES, MAX_BATCH_OPERATIONS, MAX_BODY_BYTES, NewStore, Options,
    Wakers,
};
pub use recover::recovery::Recovery;
pub use state::figures::StoreFigures;
#[cfg(feature = "internals")]
pub use state::refusals::OnceAMinute;
pub use stats::Stats;
pub use store::{AppendOptions, Entries, Snapshot, Store, StoreInfo, StoreOptions};
#[cfg(feature = "simulation")]
pub use world::World;
pub use write::batch::{Batch, Durability, TargetList, Trim};
pub use write::queue::Submission;
pub use write::ticket::Ticket;
