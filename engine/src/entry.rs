//! What a timeline holds, and what a reader gets: entries, pages, verdicts and limits.

use bytes::Bytes;

use crate::ids::{Sequence, TimeMs};

/// One entry of a timeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its position in the timeline.
    pub sequence: Sequence,
    /// When the engine committed it. Never decreases inside a timeline.
    pub time_ms: TimeMs,
    /// The caller's bytes. Cheap to clone; a clone keeps at most one block (16 KiB or one body) alive.
    pub body: Bytes,
}

/// How much a read may return.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// At most so many entries.
    pub entries: usize,
    /// At most so many bytes of bodies.
    pub body_bytes: u64,
    /// Let the first entry through even if its body alone is over `body_bytes`, so that a reader always advances.
    pub first_always: bool,
}

impl Limit {
    /// So many entries, whatever their size.
    pub fn entries(entries: usize) -> Limit {
        Limit { entries, body_bytes: u64::MAX, first_always: true }
    }

    /// The same limit with a budget of body bytes.
    #[must_use]
    pub fn body_bytes(self, body_bytes: u64) -> Limit {
        Limit { body_bytes, ..self }
    }
}

/// Collects what a read gives, in the direction of the read, until the limit keeps something back.
#[derive(Debug)]
pub(crate) struct Collector {
    limit: Limit,
    descending: bool,
    entries: Vec<Entry>,
    body_bytes: u64,
    more: bool,
}

impl Collector {
    pub fn new(limit: Limit, descending: bool) -> Collector {
        Collector { limit, descending, entries: Vec::new(), body_bytes: 0, more: false }
    }

    pub fn is_descending(&self) -> bool {
        self.descending
    }

    /// Whether something was kept back already, so that there is no use in offering more.
    pub fn is_full(&self) -> bool {
        self.more
    }

    /// Takes the entry if it fits. False when it, or one before it, did not: then none behind it may come.
    pub fn offer(&mut self, body_bytes: usize, entry: impl FnOnce() -> Entry) -> bool {
        let sum = self.body_bytes + body_bytes as u64;
        let first = self.limit.first_always && self.entries.is_empty();
        let fits = self.entries.len() < self.limit.entries && (first || sum <= self.limit.body_bytes);
        if self.more || !fits {
            self.more = true;
            return false;
        }
        self.body_bytes = sum;
        self.entries.push(entry());
        true
    }

    /// How many more entries could be taken, as far as their number goes.
    pub fn room(&self) -> usize {
        self.limit.entries - self.entries.len()
    }

    /// The entries, and whether the limit kept any back.
    pub fn finish(self) -> (Vec<Entry>, bool) {
        (self.entries, self.more)
    }
}

/// How a timeline ends: what outlives all of its entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct End {
    /// The highest sequence ever given; 0 when it was never written.
    pub last: Sequence,
    /// The lowest readable sequence; above `last` when there is none.
    pub lowest: Sequence,
    /// The highest sequence that trimming or expiry removed.
    pub trimmed_to: Sequence,
}

impl End {
    /// The end of a timeline that was never written.
    pub const NEVER: End = End { last: 0, lowest: 1, trimmed_to: 0 };

    /// Whether there is a readable entry.
    pub fn has_readable(&self) -> bool {
        self.lowest <= self.last
    }
}

/// What one place, a memtable or a segment, holds of a timeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub first: Sequence,
    pub last: Sequence,
    pub count: u64,
    pub body_bytes: u64,
    pub first_time_ms: TimeMs,
    pub last_time_ms: TimeMs,
}

/// What an answer says about the reader's cursor (P11).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Everything after the cursor is here or follows.
    Ok,
    /// Entries after the cursor are gone for good; the page starts with what is left.
    Trimmed,
    /// The cursor is above the last sequence: it belongs to another history.
    Future,
}

/// What a read returns: some entries and where the timeline stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// What the reader should know of its cursor. Range reads without a cursor are always `Ok`.
    pub verdict: Verdict,
    /// The entries, in the direction of the read.
    pub entries: Vec<Entry>,
    /// The lowest readable sequence; `last + 1` when there is none.
    pub first: Sequence,
    /// The highest sequence ever given; 0 when the timeline was never written.
    pub last: Sequence,
    /// The cursor to pass next time.
    pub next: Sequence,
    /// Whether the limit kept entries back.
    pub more: bool,
}

/// Facts of one timeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Info {
    /// The lowest readable sequence; `last + 1` when there is none.
    pub first: Sequence,
    /// The highest sequence ever given; 0 when the timeline was never written.
    pub last: Sequence,
    /// Readable entries.
    pub count: u64,
    /// The sum of their bodies' bytes.
    pub body_bytes: u64,
    /// The time of the first readable entry; 0 when there is none.
    pub first_time_ms: TimeMs,
    /// The time of the last readable entry; 0 when there is none.
    pub last_time_ms: TimeMs,
    /// The highest sequence that trimming or expiry removed; 0 when nothing was.
    pub trimmed_to: Sequence,
}

/// What a committed batch was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The commit time, the same for every entry of the batch.
    pub time_ms: TimeMs,
    /// The sequence of each append, in the order in which the batch named them.
    pub sequences: Vec<Sequence>,
}
