//! The public types of reads and receipts: entries, pages, verdicts, limits.
//!
//! It does not know: how a timeline is stored or read.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::error::Error;
use crate::ids::{Sequence, TimeMs};

/// One entry of a timeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its position in the timeline.
    pub sequence: Sequence,
    /// When the engine committed it. Never decreases inside a timeline.
    pub time_ms: TimeMs,
    /// When its lifetime began: `time_ms`, unless the wall clock had been ahead before it was
    /// committed, or was behind then.
    pub start_ms: TimeMs,
    /// The caller's bytes. Cheap to clone. It keeps little more than itself in memory: a small one
    /// shares 16 KiB at most with others of its page, a large one is at least half of what it is a
    /// part of.
    pub body: Bytes,
}

/// How much a read may return.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// At most so many entries.
    pub entries: usize,
    /// At most so many bytes of bodies.
    pub body_bytes: u64,
    /// Let the first entry through even if its body alone is over `body_bytes`, so that a reader
    /// always advances.
    pub first_always: bool,
    /// Go on where something is damaged, and report in [`Page::lost`] what cannot be read.
    /// Otherwise the read fails.
    pub around_damage: bool,
}

impl Limit {
    /// Of a read that asks only where a timeline starts and ends.
    pub const NOTHING: Limit =
        Limit { entries: 0, body_bytes: 0, first_always: false, around_damage: false };

    /// So many entries, whatever their size.
    pub fn entries(entries: usize) -> Limit {
        Limit { entries, body_bytes: u64::MAX, first_always: true, around_damage: false }
    }

    /// The same limit with a budget of body bytes.
    #[must_use]
    pub fn body_bytes(self, body_bytes: u64) -> Limit {
        Limit { body_bytes, ..self }
    }

    /// The same limit for a read that goes on where something is damaged.
    #[must_use]
    pub fn around_damage(self) -> Limit {
        Limit { around_damage: true, ..self }
    }
}

/// What damage takes from a read: the entries from `first` to `last`, or the body of one.
///
/// If [`Page::entries`] has an entry with the sequence, its body is lost, and it stands there with
/// an empty body and the best time known. Otherwise nothing is known of the entries in the range
/// but that they were given.
#[derive(Clone, Debug)]
pub struct Lost {
    /// The lowest sequence.
    pub first: Sequence,
    /// The highest sequence.
    pub last: Sequence,
    /// The damage: file, byte, timeline.
    pub error: Error,
}

impl PartialEq for Lost {
    fn eq(&self, other: &Lost) -> bool {
        let text = |lost: &Lost| (lost.first, lost.last, lost.error.to_string());
        text(self) == text(other)
    }
}

impl Eq for Lost {}

/// What an answer says about the reader's cursor (P11).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Everything after the cursor is here or follows.
    Ok,
    /// Entries after the cursor are gone for good; the page starts with what is left.
    ///
    /// A read-only open that went around damage in the log says so, too, where it reaches the end
    /// of a timeline and no record behind the damage shows that the timeline is whole: entries
    /// after the last one may be missing.
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
    /// What damage takes from the entries, in the direction of the read; empty unless the limit is
    /// [`around_damage`](Limit::around_damage). A range counts as one entry of the limit.
    pub lost: Vec<Lost>,
    /// The lowest readable sequence; `last + 1` when there is none.
    pub first: Sequence,
    /// The highest sequence ever given; 0 when the timeline was never written.
    pub last: Sequence,
    /// The cursor to pass next time.
    pub next: Sequence,
    /// Whether the limit kept entries back.
    pub more: bool,
}

impl Page {
    /// What is lost at a sequence: all of it, or the body of the entry that stands there.
    pub fn lost_at(&self, sequence: Sequence) -> Option<&Lost> {
        self.lost.iter().find(|lost| (lost.first..=lost.last).contains(&sequence))
    }

    /// What the page holds, entry by entry and range by range, ascending: first and last sequence
    /// of each.
    pub(crate) fn spans(&self) -> Vec<(Sequence, Sequence)> {
        let entries = self.entries.iter().map(|entry| (entry.sequence, entry.sequence));
        let mut spans: BTreeMap<Sequence, Sequence> = entries.collect();
        for lost in &self.lost {
            spans.entry(lost.first).or_insert(lost.last);
        }
        spans.into_iter().collect()
    }
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
    /// Whether this was a retry: the batch with this id was committed before, as this says.
    pub duplicate: bool,
}
