//! Counts reads, so that tests can check that the cost depends only on what is new.

use std::sync::atomic::{AtomicU64, Ordering};

/// The reads since the start.
#[derive(Debug, Default)]
pub struct Effort {
    lines: AtomicU64,
    looks: AtomicU64,
}

impl Effort {
    /// Counts lines that were read from the ledger of pulled events.
    pub fn add_lines(&self, count: usize) {
        self.lines.fetch_add(count as u64, Ordering::Relaxed);
    }

    /// Counts a lookup of the end of a conversation's timeline.
    pub fn add_look(&self) {
        self.looks.fetch_add(1, Ordering::Relaxed);
    }

    /// The lines read, and the lookups of the ends of timelines.
    #[cfg(test)]
    pub fn so_far(&self) -> (u64, u64) {
        (self.lines.load(Ordering::Relaxed), self.looks.load(Ordering::Relaxed))
    }
}
