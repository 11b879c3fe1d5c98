//! The stores that every directory of the server has from the start. The server refuses to drop them.

/// The store of conversations' timelines, whose entries live for ever.
pub const MESSAGES_STORE: &str = "messages";

/// The store of users' timelines, whose entries live as long as the setting `sync_ttl_ms` says.
pub const SYNC_STORE: &str = "sync";

/// Their names, in the order in which a new directory gets them: a salvage without the manifest
/// knows a store only by its number in this list.
pub const FIRST_STORES: [&str; 2] = [MESSAGES_STORE, SYNC_STORE];
