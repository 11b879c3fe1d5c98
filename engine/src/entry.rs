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
