//! Relaxed durability (P2): sequences that a power cut takes although they were seen belong to an
//! epoch of their own.
//!
//! ```text
//!  the first batch for a store that asks for the operating system only    manifest: this boot, the store    before it is visible
//!  a clean stop                                                           manifest: no store
//!  an open in the same boot    the page cache has all of it, and replay makes it durable      manifest: no store
//!  an open in another boot     the end of its timelines may be gone: its generation rises     manifest: no store
//! ```
//!
//! The epoch of a store is the history and the store's generation. A reader whose cursor is at a
//! sequence that was lost is therefore answered with EPOCH, and does not take the entry that has
//! the sequence now for the one that it has seen. Nothing is skipped, so sequences stay dense (P4).
//! The generation rises also when nothing was lost after all: only a sync could tell, and relaxed
//! durability is there to save it.
//!
//! A boot that is not known counts as another one.
//!
//! It does not know: what was lost, or how an epoch is shown.

use crate::error::{Failure, Result};
use crate::format::manifest::{Live, Relaxed};
use crate::ids::{BootId, StoreId};
use crate::state::State;

/// The stores of which the manifest says, since this open, that a power cut may take entries that
/// were seen.
#[derive(Debug, Default)]
pub struct Noted {
    stores: Vec<StoreId>,
}

impl Noted {
    /// Notes the stores durably. Each costs a manifest once.
    pub fn add(
        &mut self,
        state: &State,
        stores: impl Iterator<Item = StoreId>,
    ) -> Result<(), Failure> {
        let mut added: Vec<StoreId> = Vec::new();
        for store in stores {
            if !self.stores.contains(&store) && !added.contains(&store) {
                added.push(store);
            }
        }
        if added.is_empty() {
            return Ok(());
        }
        state.manifest.lock().commit(|live| {
            live.relaxed.boot = state.dir.boot_id();
            live.relaxed.stores.extend_from_slice(&added);
        })?;
        self.stores.append(&mut added);
        Ok(())
    }
}

/// What an open in a boot makes of what an earlier life noted. Gives the stores that begin another
/// epoch.
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

    /// The generations of two stores, of which the second was noted in a boot, after an open in
    /// another.
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
