//! The last sequence of each timeline, for engines whose callers number the entries.
//!
//! The table is not part of the engine: it is in memory only, and is allocated before a clock
//! starts. It also gives readers of the newest entries the end of a timeline, which saves the
//! engine a search.
//!
//! In key-value engines a key is a timeline and a sequence, both big-endian, so that keys are in
//! the order of their sequences.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::workload::TIMELINES;

/// A timeline and a sequence.
pub type Key = [u8; 12];

/// The last sequence of each conversation, and after them of each user.
pub struct Sequences {
    lasts: Vec<AtomicU64>,
}

impl Sequences {
    /// Those of empty timelines.
    pub fn new() -> Sequences {
        Sequences { lasts: (0..TIMELINES * 2).map(|_| AtomicU64::new(0)).collect() }
    }

    /// The next sequence of a timeline; those of users are above `TIMELINES`.
    pub fn next(&self, timeline: u32) -> u64 {
        self.lasts[timeline as usize].fetch_add(1, Ordering::Relaxed) + 1
    }

    /// The key of the next entry of a timeline.
    pub fn next_key(&self, timeline: u32) -> Key {
        key(timeline, self.next(timeline))
    }

    /// Sets the last sequence of a timeline.
    pub fn resume(&self, timeline: u32, last: u64) {
        self.lasts[timeline as usize].store(last, Ordering::Relaxed);
    }

    /// The newest `count` sequences of a timeline, or as many as it has.
    pub fn newest(&self, timeline: u32, count: usize) -> Range<u64> {
        let end = self.lasts[timeline as usize].load(Ordering::Relaxed) + 1;
        end.saturating_sub(count as u64).max(1)..end
    }

    /// Their keys: the end is excluded.
    pub fn newest_keys(&self, timeline: u32, count: usize) -> Range<Key> {
        let newest = self.newest(timeline, count);
        key(timeline, newest.start)..key(timeline, newest.end)
    }
}

/// The keys of all entries of a timeline after a sequence, without use of the table: the end is
/// excluded.
pub fn keys_after(timeline: u32, sequence: u64) -> Range<Key> {
    key(timeline, sequence + 1)..key(timeline, u64::MAX)
}

/// The key of an entry.
pub fn key(timeline: u32, sequence: u64) -> Key {
    let mut key = [0; 12];
    key[..4].copy_from_slice(&timeline.to_be_bytes());
    key[4..].copy_from_slice(&sequence.to_be_bytes());
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences_count_up_in_each_timeline() {
        let sequences = Sequences::new();
        assert_eq!([3, 3, 4, 3].map(|timeline| sequences.next(timeline)), [1, 2, 1, 3]);
        assert_eq!(sequences.newest(3, 2), 2..4);
        assert_eq!(sequences.newest(3, 9), 1..4);
        assert!(sequences.newest(5, 9).is_empty());
    }

    #[test]
    fn keys_are_in_the_order_of_sequences() {
        let after = keys_after(1, 255);
        assert!(after.contains(&key(1, 256)) && !after.contains(&key(1, 255)));
        assert!(key(1, 255) < key(1, 256) && key(1, u64::MAX) < key(2, 1));
    }
}
