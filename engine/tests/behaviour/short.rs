//! An engine with a store whose entries live for about a minute, and small memtables and log files.

use strandline::{Engine, Limit, Store};

use crate::two_stores;
use crate::world::House;

/// How long entries of the store live.
pub const TTL_MS: u64 = 64_000;

impl House {
    /// The engine, with this store.
    pub fn open_short(&self) -> (Engine, Store) {
        let engine = self.engine();
        let store = engine.create_store("short", two_stores::ttl(TTL_MS)).expect("is there");
        (engine, store)
    }
}

/// The readable entries of a timeline.
pub fn sequences(store: &Store, timeline: &[u8]) -> Vec<u64> {
    let page = store.range(timeline, .., Limit::entries(1000)).expect("reads");
    page.entries.iter().map(|entry| entry.sequence).collect()
}
