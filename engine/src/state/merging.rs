//! What merging shares with the rest of the engine: whose turn it is, and how far it is behind.
//!
//! It does not know: what is merged.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::ids::FileNumber;

/// The shared state of merging.
#[derive(Debug, Default)]
pub struct Merging {
    /// Held while segments are merged: one merge at a time, so that no segment is in two.
    pub turn: Mutex<()>,
    /// Segments with a block that could not be read: they are not merged.
    pub unmergeable: Mutex<HashSet<FileNumber>>,
    /// How far merging is behind, and what it needs.
    pub lag: Lag,
    debt_bytes: AtomicU64,
    waits: AtomicBool,
}

impl Merging {
    /// The bytes that waited to be merged when the compaction thread last looked.
    pub fn debt_bytes(&self) -> u64 {
        self.debt_bytes.load(Ordering::Relaxed)
    }

    /// Notes the bytes that wait to be merged.
    pub fn set_debt_bytes(&self, bytes: u64) {
        self.debt_bytes.store(bytes, Ordering::Relaxed);
    }

    /// Whether something is due to be merged and the disk has no room for it.
    pub fn waits_for_space(&self) -> bool {
        self.waits.load(Ordering::Relaxed)
    }

    /// Notes that; the answer is what was noted before.
    pub fn set_waits_for_space(&self, waits: bool) -> bool {
        self.waits.swap(waits, Ordering::Relaxed)
    }
}

/// How far merging is behind, and what it needs.
#[derive(Debug, Default)]
pub struct Lag {
    /// Commits wait for it: it does not rest.
    hurries: AtomicBool,
    /// The last merge failed, and is tried again after a while.
    failing: AtomicBool,
    /// What the merge under way will write, about.
    reserved_bytes: AtomicU64,
}

impl Lag {
    /// Merging goes as fast as it can, or at its rate.
    pub fn hurry(&self, hurries: bool) {
        self.hurries.store(hurries, Ordering::Relaxed);
    }

    /// Whether merging goes as fast as it can.
    pub fn hurries(&self) -> bool {
        self.hurries.load(Ordering::Relaxed)
    }

    /// The last merge failed, or did not.
    pub fn merging_failed(&self, failed: bool) {
        self.failing.store(failed, Ordering::Relaxed);
    }

    /// Whether the last merge failed: then nobody waits for it.
    pub fn is_failing(&self) -> bool {
        self.failing.load(Ordering::Relaxed)
    }

    /// Keeps so many bytes for a merge, until it is done.
    pub fn reserve(&self, bytes: u64) -> ReservedBytes<'_> {
        self.reserved_bytes.store(bytes, Ordering::Relaxed);
        ReservedBytes(self)
    }

    /// What the merge under way will write, about; 0: there is none.
    pub fn reserved_bytes(&self) -> u64 {
        self.reserved_bytes.load(Ordering::Relaxed)
    }
}

/// What is kept for a merge under way.
pub struct ReservedBytes<'a>(&'a Lag);

impl Drop for ReservedBytes<'_> {
    fn drop(&mut self) {
        self.0.reserved_bytes.store(0, Ordering::Relaxed);
    }
}
