//! The two stores that most tests use: `messages`, whose entries live for ever, and `sync`, whose
//! entries live for a week. Their ids are 1 and 2.

use std::time::Duration;

use strandline::{NewStore, Options};

/// Their names, in the order of their ids.
pub const NAMES: [&str; 2] = ["messages", "sync"];

/// Seven days.
pub const WEEK_MS: u64 = 7 * 24 * 3600 * 1000;

/// The stores, with this TTL of `sync`.
pub fn stores(sync_ttl_ms: u64) -> Vec<NewStore> {
    let new = |(name, ttl_ms)| NewStore::new(name, ttl(ttl_ms));
    NAMES.into_iter().zip([0, sync_ttl_ms]).map(new).collect()
}

/// A TTL or a lifetime of this many milliseconds; 0: none.
pub fn ttl(ttl_ms: u64) -> Option<Duration> {
    (ttl_ms != 0).then(|| Duration::from_millis(ttl_ms))
}

/// The default options, with the stores. Recent data is not compressed: tests look for bodies in
/// files, and count the bytes of files.
pub fn options() -> Options {
    Options::default().stores(stores(WEEK_MS)).compress_recent(false)
}
