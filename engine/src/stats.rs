//! Counters that rooms raise as they work, and the figures that a caller gets.

use std::sync::atomic::{AtomicU64, Ordering};

/// One counter.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds to it.
    pub fn add(&self, amount: u64) {
        self.0.fetch_add(amount, Ordering::Relaxed);
    }

    /// Its value.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What was done since the engine was opened.
#[derive(Debug, Default)]
#[allow(missing_docs, reason = "the names are those that stats show")]
pub struct Counters {
    pub batches: Counter,
    pub groups: Counter,
    pub entries: Counter,
    pub wal_bytes: Counter,
    pub wal_syncs: Counter,
    pub wal_files: Counter,
    pub vouching_groups: Counter,
    pub flushes: Counter,
    pub flush_bytes: Counter,
    pub merges: Counter,
    pub merge_bytes: Counter,
    pub merge_reclaimed_bytes: Counter,
    pub rewrite_reclaimed_bytes: Counter,
    pub expired_segments: Counter,
    pub expired_bytes: Counter,
    pub expired_entries: Counter,
    pub trimmed_entries: Counter,
    pub body_bytes: Counter,
    pub disk_full: Counter,
    pub stalls: Counter,
}

/// Figures of an engine: since it was opened, and of now. More may come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Names and values; units stand in the names.
    pub fields: Vec<(&'static str, u64)>,
}

impl Stats {
    /// A figure by its name.
    pub fn get(&self, name: &str) -> Option<u64> {
        self.fields.iter().find(|(found, _)| *found == name).map(|(_, value)| *value)
    }
}
