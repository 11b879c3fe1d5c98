//! Locks by which paths exclude each other. Whoever takes several takes them in this order: merging
//! (`merging`), expiring, dropping.

use parking_lot::{Mutex, RwLock};

use crate::timeline::Key;

/// So many timelines can be changed at once, at most.
const CHANGE_LOCKS: usize = 64;

/// The locks.
pub struct Turns {
    /// Held while expired segments, or a store, are dropped.
    pub expiring: Mutex<()>,
    /// Held for reading while a group is committed, for writing while a store is dropped: a group
    /// finds a store whole or not at all.
    pub dropping: RwLock<()>,
    changing: [Mutex<()>; CHANGE_LOCKS],
}

impl Default for Turns {
    fn default() -> Turns {
        let changing = std::array::from_fn(|_| Mutex::new(()));
        Turns { expiring: Mutex::default(), dropping: RwLock::default(), changing }
    }
}

impl Turns {
    /// Held while a timeline is changed: a change reads before it writes.
    pub fn changing(&self, key: Key<'_>) -> &Mutex<()> {
        &self.changing[(key.hash >> 32) as usize % CHANGE_LOCKS]
    }
}
