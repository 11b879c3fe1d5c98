//! The stores that every directory of the server has from the start. The engine does not know them:
//! whoever opens one passes them in its options. The server refuses to drop them.

use std::time::Duration;

use strandline::NewStore;

/// The store of conversations' timelines, whose entries live for ever.
pub const MESSAGES_STORE: &str = "messages";

/// The store of users' timelines, whose entries live as long as the setting `sync_ttl_ms` says.
pub const SYNC_STORE: &str = "sync";

/// Their names, in the order in which a new directory gets them: a salvage without the manifest
/// knows a store only by its number in this list.
pub const FIRST_STORES: [&str; 2] = [MESSAGES_STORE, SYNC_STORE];

/// Seven days: the default TTL of `sync`, and the TTL of the log of pulled events.
pub const WEEK_MS: u64 = 7 * 24 * 3600 * 1000;

/// A TTL or a lifetime as the engine takes it, from milliseconds as the wire and events have them;
/// 0: none.
pub fn limit_of(limit_ms: u64) -> Option<Duration> {
    (limit_ms != 0).then(|| Duration::from_millis(limit_ms))
}

/// The inverse of [`limit_of`]: the engine counts whole milliseconds.
pub fn limit_ms(limit: Option<Duration>) -> u64 {
    limit.map_or(0, |limit| u64::try_from(limit.as_millis()).unwrap_or(u64::MAX))
}

/// The stores of a new directory, for the engine's options.
pub fn first_stores(sync_ttl_ms: u64) -> Vec<NewStore> {
    let ttl_ms = |name| if name == SYNC_STORE { sync_ttl_ms } else { 0 };
    FIRST_STORES.iter().map(|name| NewStore::new(*name, limit_of(ttl_ms(*name)))).collect()
}

/// The engine's default options, with the stores.
#[cfg(test)]
pub fn engine_options() -> strandline::Options {
    strandline::Options::default().stores(first_stores(WEEK_MS))
}
