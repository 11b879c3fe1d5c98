//! Locks by which paths exclude each other. A path that takes several takes them in this order:
//! merging (`merging`), expiring, dropping.

use std::sync::Arc;

use parking_lot::{Condvar, Mutex, RwLock};

use crate::timeline::Key;

/// The locks.
#[derive(Default)]
pub struct Turns {
    /// Held while expired segments, or a store, are dropped.
    pub expiring: Mutex<()>,
    /// Held for reading while a group is committed, for writing while a store is dropped: a group
    /// finds either the whole store or none of it.
    pub dropping: RwLock<()>,
    changing: Arc<Changing>,
}

/// The timelines that are changed now. Each has one of 64 bits.
#[derive(Debug, Default)]
struct Changing {
    bits: Mutex<u64>,
    ended: Condvar,
}

/// The right to change some timelines, until it is dropped: a change reads before it writes.
#[derive(Debug)]
pub struct Turn {
    changing: Arc<Changing>,
    bits: u64,
}

impl Turns {
    /// Waits until nobody else changes one of these timelines. The bits are taken in one order, and
    /// who has all of them waits for no other turn: so no two callers wait for each other.
    pub fn change<'k>(&self, keys: impl IntoIterator<Item = Key<'k>>) -> Turn {
        let bits = keys.into_iter().fold(0, |bits, key| bits | 1 << ((key.hash >> 32) % 64));
        let mut taken = self.changing.bits.lock();
        for bit in (0..64).map(|place| 1 << place).filter(|bit| bits & bit != 0) {
            while *taken & bit != 0 {
                self.changing.ended.wait(&mut taken);
            }
            *taken |= bit;
        }
        Turn { changing: self.changing.clone(), bits }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        *self.changing.bits.lock() &= !self.bits;
        self.changing.ended.notify_all();
    }
}
