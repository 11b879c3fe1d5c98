//! How much is looked at: so that tests can say that the work is that of what is new.

use std::sync::atomic::{AtomicU64, Ordering};

/// What was looked at since the start.
#[derive(Debug, Default)]
pub struct Effort {
    lines: AtomicU64,
    looks: AtomicU64,
}

impl Effort {
    /// Lines of the ledger of pulled events were read.
    pub fn add_lines(&self, count: usize) {
        self.lines.fetch_add(count as u64, Ordering::Relaxed);
    }

    /// It was looked where a conversation's timeline ends.
    pub fn add_look(&self) {
        self.looks.fetch_add(1, Ordering::Relaxed);
    }

    /// Lines read, and looks at the ends of timelines.
    #[cfg(test)]
    pub fn so_far(&self) -> (u64, u64) {
        (self.lines.load(Ordering::Relaxed), self.looks.load(Ordering::Relaxed))
    }
}
