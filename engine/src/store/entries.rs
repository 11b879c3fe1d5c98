//! The entries of a timeline one by one, from both ends (P4, P5), on pages.
//!
//! ```text
//!  low side:  read, not yet returned │ not yet read │ read, not yet returned  :high side
//!             next ──>                                             <── next_back
//! ```
//!
//! Each side reads a page when it has none, and the sides share what one of them has read, once
//! nothing is left between them.
//!
//! This file does not know how a page is read.

use std::collections::VecDeque;
use std::iter::FusedIterator;

use super::Store;
use crate::entry::{Entry, Limit};
use crate::error::Result;
use crate::ids::Sequence;

/// The number of entries that a side reads first: many callers need few. Each page has four times
/// as many as the one before, up to the maximum.
const FIRST_ENTRIES: usize = 16;

/// The number of entries that are read at a time, at most.
const PAGE_ENTRIES: usize = 256;

/// The bytes of bodies that are read at a time, unless the first body is longer.
const PAGE_BYTES: u64 = 256 * 1024;

/// The entries of a timeline inside bounds, ascending; with [`rev`](Iterator::rev) descending. Made
/// by [`Store::entries`].
///
/// Entries are read when they are needed, in pages of 16 entries at first and at most 256, and of
/// 256 KiB of bodies, so an iterator that is dropped early has read little. It ends at the entry
/// that was the newest at its first read; entries that are trimmed, deleted or expire before they
/// are read are left out, and an edited one is shown as it is when it is read. To see one moment,
/// iterate over a [store as of a snapshot](Store::at).
///
/// After an error it returns `None`.
#[derive(Debug)]
pub struct Entries {
    store: Store,
    timeline: Vec<u8>,
    /// The lowest sequence that may be unread.
    low: Sequence,
    /// The highest sequence that may be unread; below `low` if none is.
    high: Sequence,
    /// Entries below `low`, ascending.
    ahead: VecDeque<Entry>,
    /// Entries above `high`, ascending.
    behind: VecDeque<Entry>,
    /// The bytes of bodies that may still be returned.
    left_bytes: u64,
    /// Whether an entry was returned.
    is_begun: bool,
    /// The number of entries of the next page.
    wanted: usize,
}

impl Entries {
    pub(super) fn new(store: Store, timeline: &[u8], (low, high): (Sequence, Sequence)) -> Entries {
        Entries {
            store,
            timeline: timeline.to_vec(),
            low,
            high,
            ahead: VecDeque::new(),
            behind: VecDeque::new(),
            left_bytes: u64::MAX,
            is_begun: false,
            wanted: FIRST_ENTRIES,
        }
    }

    /// Ends before the entry with which the bodies that were returned, from both ends together,
    /// would have more than this many bytes. The first entry is returned in any case, so that a
    /// caller always advances. For a number of entries use [`take`](Iterator::take).
    #[must_use]
    pub fn limit_bytes(self, body_bytes: u64) -> Entries {
        Entries { left_bytes: body_bytes, ..self }
    }

    /// Reads the next page of one side.
    fn read(&mut self, descending: bool) -> Result<()> {
        let limit = Limit::entries(self.wanted).body_bytes(PAGE_BYTES.min(self.left_bytes));
        self.wanted = (4 * self.wanted).min(PAGE_ENTRIES);
        let page = if descending {
            self.store.range_back(&self.timeline, self.low..=self.high, limit)?
        } else {
            self.store.range(&self.timeline, self.low..=self.high, limit)?
        };
        // Entries that are appended later do not belong to this iteration.
        self.high = self.high.min(page.last);
        if descending {
            self.high = page.next.saturating_sub(1).min(self.high);
            page.entries.into_iter().for_each(|entry| self.behind.push_front(entry));
        } else {
            self.low = page.next.saturating_add(1);
            self.ahead.extend(page.entries);
        }
        if !page.more {
            self.end_reading();
        }
        Ok(())
    }

    fn end_reading(&mut self) {
        (self.low, self.high) = (1, 0);
    }

    /// Whether a side has nothing that is read.
    fn has_none(&self, descending: bool) -> bool {
        if descending { self.behind.is_empty() } else { self.ahead.is_empty() }
    }

    /// The next entry of a side.
    fn step(&mut self, descending: bool) -> Option<Result<Entry>> {
        while self.has_none(descending) && self.low <= self.high {
            if let Err(error) = self.read(descending) {
                self.stop();
                return Some(Err(error));
            }
        }
        let entry = if descending {
            self.behind.pop_back().or_else(|| self.ahead.pop_back())
        } else {
            self.ahead.pop_front().or_else(|| self.behind.pop_front())
        }?;
        let bytes = entry.body.len() as u64;
        if self.is_begun && bytes > self.left_bytes {
            self.stop();
            return None;
        }
        self.left_bytes = self.left_bytes.saturating_sub(bytes);
        self.is_begun = true;
        Some(Ok(entry))
    }

    /// Returns nothing from now on.
    fn stop(&mut self) {
        self.end_reading();
        self.ahead.clear();
        self.behind.clear();
    }
}

impl Iterator for Entries {
    type Item = Result<Entry>;

    fn next(&mut self) -> Option<Result<Entry>> {
        self.step(false)
    }
}

impl DoubleEndedIterator for Entries {
    fn next_back(&mut self) -> Option<Result<Entry>> {
        self.step(true)
    }
}

impl FusedIterator for Entries {}
