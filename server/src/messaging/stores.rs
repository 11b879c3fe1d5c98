//! The stores that every directory of the server has from the start. The engine does not know them:
//! whoever opens one passes them in its options. The server refuses to drop them.

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

/// The stores of a new directory, for the engine's options.
pub fn first_stores(sync_ttl_ms: u64) -> Vec<NewStore> {
    let ttl_ms = |name| if name == SYNC_STORE { sync_ttl_ms } else { 0 };
    FIRST_STORES.iter().map(|name| NewStore::new(*name, ttl_ms(*name))).collect()
}

/// The engine's default options, with the stores.
#[cfg(test)]
pub fn engine_options() -> strandline::Options {
    strandline::Options { stores: first_stores(WEEK_MS), ..strandline::Options::default() }
}
