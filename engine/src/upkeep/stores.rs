//! Creates and drops stores (P2, P3, P6, P11).
//!
//! ```text
//!  create   1. take id and generation from the counter of the manifest
//!           2. commit the manifest with the store
//!  drop     1. block commits
//!           2. commit the manifest without the store and its segments
//!           3. change the view: without its segments
//!           4. mark its segment files: they are removed when their last reader has released them
//!           5. notify the watchers of its timelines
//! ```
//!
//! Ids are never reused, so everything of a dropped store that is still in memory, in the log or
//! about to become a segment is recognized by its id: readers and the commit path refuse it, replay
//! and flush skip it, and a merge of it leaves nothing. The log therefore needs no record of a
//! drop: the manifest is authoritative.
//!
//! A store that is created again has another id, and another generation: cursors from before belong
//! to another epoch.
//!
//! This file does not know who holds handles.

use crate::error::{Error, Result};
use crate::format::manifest::{Copies, Live, StoreRecord};
use crate::ids::MAX_STORES;
use crate::read::list::list;
use crate::state::State;

/// Creates a store whose name is not in use. Callers must not run this concurrently.
pub fn create(state: &State, name: &str, ttl_ms: u64, copies: Copies) -> Result<()> {
    if state.stores.read().len() >= MAX_STORES {
        return Err(Error::TooManyStores { limit: MAX_STORES });
    }
    let id = state.manifest.lock().take_store_id();
    let id =
        id.ok_or_else(|| Error::invalid("there are no more ids for stores: restore a backup"))?;
    let record =
        StoreRecord { generation: u64::from(id.0), copies, ..StoreRecord::new(id, name, ttl_ms) };
    state.change_stores(|live| live.stores.push(record))
}

/// Drops an existing store. Callers must not run this concurrently.
pub fn drop(state: &State, store: &StoreRecord, force: bool) -> Result<()> {
    // The engine's stop waits for this lock: nothing below happens after it.
    let _no_stop = state.turns.expiring.lock();
    if !force {
        // Most of what this reads is cached when it is read again below.
        check_empty(state, store)?;
    }
    let no_commit = state.turns.dropping.write();
    if !force {
        check_empty(state, store)?;
    }
    state.manifest.lock().keep_above(store);
    let id = store.id;
    let dropped = state.free_space(|live: &mut Live| {
        live.stores.retain(|known| known.id != id);
        live.segments.retain(|segment| segment.store != id);
        live.relaxed.stores.retain(|known| *known != id);
    });
    dropped.map_err(|failure| state.failed(failure))?;
    let mut gone = Vec::new();
    state.view.change(|view| gone = view.segments.take_all(id));
    std::mem::drop(no_commit);
    for segment in gone {
        segment.make_obsolete();
        state.cache.damages().forget(segment.record().number);
    }
    state.wake.hand_over(state.watch.publish_store(id));
    state.progress.announce();
    Ok(())
}

fn check_empty(state: &State, store: &StoreRecord) -> Result<()> {
    let StoreRecord { id, name, .. } = store;
    if list(state, &state.view.moment(), *id, b"", None, 1)?.is_empty() {
        return Ok(());
    }
    Err(Error::invalid(format!("the store {name:?} is not empty: force drops it with its entries")))
}
