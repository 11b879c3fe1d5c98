//! The two stores that most tests use: `messages`, whose entries live for ever, and `sync`, whose
//! entries live for a week. Their ids are 1 and 2.

use strandline::{NewStore, Options};

/// Their names, in the order of their ids.
pub const NAMES: [&str; 2] = ["messages", "sync"];

/// Seven days.
pub const WEEK_MS: u64 = 7 * 24 * 3600 * 1000;

/// The stores, with this TTL of `sync`.
pub fn stores(sync_ttl_ms: u64) -> Vec<NewStore> {
    NAMES.into_iter().zip([0, sync_ttl_ms]).map(|(name, ttl)| NewStore::new(name, ttl)).collect()
}

/// The default options, with the stores. Recent data is not compressed: tests look for bodies in
/// files, and count the bytes of files.
pub fn options() -> Options {
    Options { stores: stores(WEEK_MS), compress_recent: false, ..Options::default() }
}
