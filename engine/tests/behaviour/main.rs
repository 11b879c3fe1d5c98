//! What the engine does for its callers, one theme a file, on real and on simulated disks.
//!
//! Nothing here looks at the process as a whole, since the tests of a binary run beside each other:
//! such tests are in `engine/tests/alone`. The process has one logger, and
//! `around::a_damaged_block_is_counted_and_logged_once_and_read_once` installs it; it keeps what
//! its own thread logs, and drops the rest.

mod around;
mod basics;
mod bounds;
mod care;
mod cases;
mod clocks;
mod copies;
mod decided;
#[path = "../disks/mod.rs"]
mod disks;
mod durations;
mod entries;
mod examples;
mod expire;
mod first_stores;
mod full_disk;
mod garbage;
mod gates;
mod handles;
mod lists;
mod log_files;
mod long;
mod measures;
mod relaxed;
mod removals;
mod replay;
mod retries;
mod shared;
mod short;
mod snapshots;
mod space;
mod stores;
#[path = "../two_stores/mod.rs"]
mod two_stores;
mod waiting;
mod wakers;
mod world;
