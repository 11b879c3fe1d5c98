//! Relaxed durability (P2): sequences that were visible and may be lost in a power cut belong to an
//! epoch of their own.
//!
//! ```text
//!  event                             manifest
//!  the first batch for a store       names this boot and the store, before the batch is visible
//!    with durability `Os`
//!  a clean stop                      names no store
//!  an open in the same boot          names no store: the page cache has all entries, and replay
//!                                    makes them durable
//!  an open in another boot           names no store; the store's generation rises: the end of its
//!                                    timelines may be lost
//! ```
//!
//! The epoch of a store consists of the history and the store's generation. So a reader whose
//! cursor is at a lost sequence is answered with EPOCH, and does not mistake the entry that has the
//! sequence now for the one that it has seen. No sequence is skipped, so sequences stay dense (P4).
//! The generation rises even if nothing was lost: only a sync could find that out, and the purpose
//! of relaxed durability is to save that sync.
//!
//! An unknown boot counts as another boot.
//!
//! This file does not know what was lost, or how an epoch is shown.

use crate::error::{Failure, Result};
use crate::format::manifest::{Live, Relaxed};
use crate::ids::{BootId, StoreId};
use crate::state::State;

/// The stores for which the manifest records, since this open, that a power cut may lose visible
/// entries.
#[derive(Debug, Default)]
pub struct Noted {
    stores: Vec<StoreId>,
}

impl Noted {
    /// Records the stores durably. Each store costs one write of the manifest, once.
    pub fn add(
        &mut self,
        state: &State,
        stores: impl Iterator<Item = StoreId>,
    ) -> Result<bool, Failure> {
        let mut added: Vec<StoreId> = Vec::new();
        for store in stores {
            if !self.stores.contains(&store) && !added.contains(&store) {
                added.push(store);
            }
        }
        if added.is_empty() {
            return Ok(false);
        }
        state.manifest.lock().commit(|live| {
            live.relaxed.boot = state.dir.boot_id();
            live.relaxed.stores.extend_from_slice(&added);
        })?;
        self.stores.append(&mut added);
        Ok(true)
    }
}

/// Applies the stores recorded by an earlier run to an open in `boot`. Returns the stores that
/// begin another epoch.
pub fn settle(live: &mut Live, boot: BootId) -> Vec<StoreId> {
    let Relaxed { boot: noted, stores } = std::mem::take(&mut live.relaxed);
    if noted == boot && boot != BootId::default() {
        return Vec::new();
    }
    for store in live.stores.iter_mut().filter(|store| stores.contains(&store.id)) {
        store.generation += 1;
    }
    stores
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::manifest::StoreRecord;

    /// The generations of two stores, the second of which was recorded in the boot `noted`, after
    /// an open in `boot`.
    fn settled(noted: u8, boot: u8) -> [u64; 2] {
        let relaxed = Relaxed { boot: BootId([noted; 16]), stores: vec![StoreId(2)] };
        let stores = [1, 2].map(|id| StoreRecord::new(StoreId(id), "store", 0)).to_vec();
        let mut live = Live { relaxed, stores, ..Live::default() };
        settle(&mut live, BootId([boot; 16]));
        assert_eq!(live.relaxed, Relaxed::default());
        [live.stores[0].generation, live.stores[1].generation]
    }

    #[test]
    fn only_another_or_an_unknown_boot_begins_another_epoch_and_only_of_what_was_noted() {
        assert_eq!(settled(1, 1), [0, 0]);
        assert_eq!(settled(1, 2), [0, 1]);
        assert_eq!(settled(0, 1), [0, 1], "the boot that noted it is not known");
        assert_eq!(settled(1, 0), [0, 1], "this boot is not known");
        assert_eq!(settled(0, 0), [0, 1], "neither is known");
    }
}
