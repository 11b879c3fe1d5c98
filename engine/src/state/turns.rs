//! Locks by which paths exclude each other. A path that takes several takes them in this order:
//! merging (`merging`), expiring, dropping.

use parking_lot::{Mutex, RwLock};

use crate::timeline::Key;

/// The maximum number of timelines that can be changed at the same time.
const CHANGE_LOCKS: usize = 64;

/// The locks.
pub struct Turns {
    /// Held while expired segments, or a store, are dropped.
    pub expiring: Mutex<()>,
    /// Held for reading while a group is committed, for writing while a store is dropped: a group
    /// finds either the whole store or none of it.
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
