//! The state of merging that the rest of the engine shares: its lock, and how far merging is
//! behind.
//!
//! This file does not know what is merged.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::ids::FileNumber;

/// The shared state of merging.
#[derive(Debug, Default)]
pub struct Merging {
    /// Held while segments are merged: one merge at a time, so that no segment is in two merges.
    pub turn: Mutex<()>,
    /// Segments with a block that could not be read: they are not merged.
    pub unmergeable: Mutex<HashSet<FileNumber>>,
    /// How far merging is behind, and the space that it needs.
    pub lag: Lag,
    /// What merging writes at most; 0: no limit.
    bytes_per_second: AtomicU64,
    debt_bytes: AtomicU64,
    waits: AtomicBool,
}

impl Merging {
    /// The state of an engine that opens.
    pub fn new(bytes_per_second: u64) -> Merging {
        Merging { bytes_per_second: AtomicU64::new(bytes_per_second), ..Merging::default() }
    }

    /// The number of bytes per second that merging writes at most; 0: no limit.
    pub fn bytes_per_second(&self) -> u64 {
        self.bytes_per_second.load(Ordering::Relaxed)
    }

    /// Changes this number. A merge that rests notices it.
    pub fn set_bytes_per_second(&self, bytes: u64) {
        self.bytes_per_second.store(bytes, Ordering::Relaxed);
    }

    /// The number of bytes that were due to be merged when the compaction thread last checked.
    pub fn debt_bytes(&self) -> u64 {
        self.debt_bytes.load(Ordering::Relaxed)
    }

    /// Sets the number of bytes that are due to be merged.
    pub fn set_debt_bytes(&self, bytes: u64) {
        self.debt_bytes.store(bytes, Ordering::Relaxed);
    }

    /// Whether a merge is due and the disk has no space for it.
    pub fn waits_for_space(&self) -> bool {
        self.waits.load(Ordering::Relaxed)
    }

    /// Sets whether a due merge waits for space. Returns the previous value.
    pub fn set_waits_for_space(&self, waits: bool) -> bool {
        self.waits.swap(waits, Ordering::Relaxed)
    }
}

/// How far merging is behind, and the space that it needs.
#[derive(Debug, Default)]
pub struct Lag {
    /// Whether commits wait for merging, which then does not rest.
    hurries: AtomicBool,
    /// Whether the last merge failed; it is tried again after a delay.
    failing: AtomicBool,
    /// The approximate number of bytes that the current merge will write.
    reserved_bytes: AtomicU64,
}

impl Lag {
    /// Sets whether merging runs as fast as it can, or at its configured rate.
    pub fn hurry(&self, hurries: bool) {
        self.hurries.store(hurries, Ordering::Relaxed);
    }

    /// Whether merging runs as fast as it can.
    pub fn hurries(&self) -> bool {
        self.hurries.load(Ordering::Relaxed)
    }

    /// Records whether the last merge failed.
    pub fn merging_failed(&self, failed: bool) {
        self.failing.store(failed, Ordering::Relaxed);
    }

    /// Whether the last merge failed: then no commit waits for merging.
    pub fn is_failing(&self) -> bool {
        self.failing.load(Ordering::Relaxed)
    }

    /// Reserves this many bytes for a merge, until the returned value is dropped.
    pub fn reserve(&self, bytes: u64) -> ReservedBytes<'_> {
        self.reserved_bytes.store(bytes, Ordering::Relaxed);
        ReservedBytes(self)
    }

    /// The approximate number of bytes that the current merge will write; 0: there is no merge.
    pub fn reserved_bytes(&self) -> u64 {
        self.reserved_bytes.load(Ordering::Relaxed)
    }
}

/// The bytes that are reserved for the current merge.
pub struct ReservedBytes<'a>(&'a Lag);

impl Drop for ReservedBytes<'_> {
    fn drop(&mut self) {
        self.0.reserved_bytes.store(0, Ordering::Relaxed);
    }
}
