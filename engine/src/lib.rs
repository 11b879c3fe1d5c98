//! Strandline: a log-structured storage engine made for timelines.
//!
//! A timeline is an append-only row of entries, numbered 1, 2, 3, …: a conversation's history, or a
//! receiver's inbox. A batch appends to any number of timelines at once, atomically. A body that
//! goes to many of them is stored once in each store: one body, one log record, one fsync, whatever
//! the number of receivers.
//!
//! * [`Engine`] opens a directory; [`Store`] reads a named set of timelines; [`Batch`] writes;
//!   [`Watcher`] tells what advanced.
//! * A success means: durable, and visible to every reader. What a reader saw is never lost, and no
//!   sequence is given twice.
//! * Any number of timelines: a cold one costs no memory and no file. Synchronous, and it needs no
//!   async runtime; a [`Ticket`] is a future all the same.
//!
//! Where to start reading the code: `append.rs` is the write path, `read.rs` the read path,
//! `open.rs` recovery, each from its heading down. The modules that are public beside the types are
//! seams: [`vfs`] and [`clock`] let a test simulate the disk and the time, [`format`](mod@format)
//! lets a tool read the files.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod append;
mod backup;
mod batch;
mod change;
pub mod clock;
mod compact;
mod engine;
mod entry;
mod error;
mod expire;
mod figures;
mod finding;
mod flush;
pub mod format;
mod garbage;
mod ids;
mod list;
mod locks;
mod manifest;
mod memtable;
mod open;
mod options;
mod queue;
mod read;
mod recovery;
mod refusals;
mod relaxed;
mod repair;
mod replay;
mod reserve;
mod running;
mod salvage;
mod segment;
mod sequence;
mod state;
mod stats;
mod store;
mod stores;
mod target;
mod ticket;
mod verify;
pub mod vfs;
mod view;
mod wake;
mod wal;
mod watch;

pub use backup::{Backup, restore, restore_in};
pub use batch::{Batch, Durability};
pub use change::Trim;
pub use engine::{Engine, StoreInfo, StoreOptions, World};
pub use entry::{Entry, Info, Limit, Lost, Page, Receipt, Verdict};
pub use error::{Error, Result};
pub use figures::StoreFigures;
pub use finding::Finding;
pub use format::manifest::Copies;
pub use ids::{
    BodyKey, BootId, Lsn, MAX_ID_BYTES, MAX_NAME_BYTES, MAX_SEQUENCE, MAX_STORES, PERMANENT_STORES,
    Sequence, StoreId, StoreKey, TimeMs, TimelineRef,
};
pub use options::{LEAST_OPEN_FILES, MAX_BATCH_BYTES, MAX_BODY_BYTES, Options, WEEK_MS};
pub use recovery::Recovery;
pub use refusals::OnceAMinute;
pub use repair::Repair;
pub use salvage::{Salvage, salvage, salvage_in};
pub use stats::Stats;
pub use store::Store;
pub use target::is_empty_directory;
pub use ticket::Ticket;
pub use verify::Verification;
pub use watch::Watcher;
