//! Record once, crash everywhere: one run of the real engine, with its real threads, on a simulated
//! disk that logs every call. From the log, the disks that a crash could have left are built,
//! opened and judged (P1–P4, P8).
//!
//! ```text
//!  driver ──calls──> engine ──calls──> simulated disk ──> one log: create, write, sync, rename, …,
//!                                                         and the driver's marks
//!  cuts   ──replays the log up to a position, cuts, opens──> judge
//!  judge  ──compares with what was known at that position──> books
//! ```
//!
//! The checks for each disk: see `judge.rs`. The facts at a position: see `books.rs`.

pub mod backups;
pub mod books;
pub mod cuts;
pub mod driver;
pub mod judge;
pub mod mutants;
pub mod replay;

use std::sync::Arc;

use strandline::clock::ManualClock;
use strandline::vfs::Dir;
use strandline::vfs::simulated::SimulatedDisk;
use strandline::{Batch, Engine, Options, Store, World};

use crate::two_stores;

/// A store and a timeline.
pub type Key = (&'static str, String);

/// The initial time of every recording.
pub const START_MS: u64 = 1_700_000_000_000;

/// The lifetime of entries of the store `sync`; those of `messages` live for ever.
pub const TTL_MS: u64 = 64_000;

/// Small files and memtables, so that a few appends reach every part.
pub fn tiny() -> Options {
    Options::default()
        .memory_budget_bytes(1)
        .wal_file_bytes(8 * 1024)
        .stores(two_stores::stores(TTL_MS))
}

/// Opens a disk at a time.
pub fn open_at(disk: &SimulatedDisk, clock: Arc<ManualClock>) -> strandline::Result<Engine> {
    Engine::open_in(World { dir: Dir::new(Arc::new(disk.clone())), clock }, tiny())
}

/// Whether the long form of the proofs was requested.
pub fn is_long() -> bool {
    std::env::var("STRANDLINE_PROOF").is_ok_and(|size| size == "long")
}

/// A fan-out to these timelines. With `by_list`, those after the first are a list, so that from the
/// second one to them on its record refers to an earlier record.
pub fn fan_out(
    batch: Batch,
    engine: &Engine,
    body: &[u8],
    targets: &[(&Store, &[u8])],
    by_list: bool,
) -> Batch {
    let Some((first, rest)) = targets.split_first().filter(|_| by_list) else {
        return batch.fan_out(body, targets.iter().copied());
    };
    let list = engine.target_list(rest.iter().copied()).expect("a list");
    batch.fan_out_to_list(body, [*first], &list)
}
