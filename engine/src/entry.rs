//! The public types of reads and receipts: entries, pages, verdicts, limits.
//!
//! This file does not know how a timeline is stored or read.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Deref;

use bytes::Bytes;
use smallvec::SmallVec;

use crate::error::Error;
use crate::ids::{Sequence, TimeMs};

/// One entry of a timeline.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Entry {
    /// Its position in the timeline.
    pub sequence: Sequence,
    /// The time at which the engine committed it. Never decreases inside a timeline.
    pub time_ms: TimeMs,
    /// The start of its lifetime: `time_ms`, unless the wall clock had been ahead before the
    /// commit, or was behind then.
    pub start_ms: TimeMs,
    /// The caller's bytes. Cheap to clone. A body keeps little more than itself in memory: it
    /// shares at most 32 KiB with others of its page, or it is at least half of its allocation.
    pub body: Bytes,
}

impl Entry {
    /// An entry whose lifetime starts at its time, for tests of code that takes entries.
    pub fn new(sequence: Sequence, time_ms: TimeMs, body: impl Into<Bytes>) -> Entry {
        Entry { sequence, time_ms, start_ms: time_ms, body: body.into() }
    }
}

/// The limits of a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// The maximum number of entries.
    pub entries: usize,
    /// The maximum number of bytes of bodies.
    pub body_bytes: u64,
    /// Return the first entry even if its body alone exceeds `body_bytes`, so that a reader always
    /// advances.
    pub first_always: bool,
    /// Continue after damage, and report in [`Page::lost`] what cannot be read. Otherwise the read
    /// fails.
    pub around_damage: bool,
}

impl Limit {
    /// For a read that asks only for the start and the end of a timeline.
    pub const NOTHING: Limit =
        Limit { entries: 0, body_bytes: 0, first_always: false, around_damage: false };

    /// A limit of entries, whatever their size.
    pub fn entries(entries: usize) -> Limit {
        Limit { entries, body_bytes: u64::MAX, first_always: true, around_damage: false }
    }

    /// Also limits the bytes of bodies.
    #[must_use]
    pub fn body_bytes(self, body_bytes: u64) -> Limit {
        Limit { body_bytes, ..self }
    }

    /// Lets the read continue after damage.
    #[must_use]
    pub fn around_damage(self) -> Limit {
        Limit { around_damage: true, ..self }
    }
}

/// Entries that a read lost to damage: all entries from `first` to `last`, or the body of one.
///
/// If [`Page::entries`] has an entry with the sequence, only its body is lost: the entry has an
/// empty body and the best known time. Otherwise nothing is known of the entries in the range,
/// except that their sequences were given.
#[derive(Clone, Debug)]
#[non_exhaustive]
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

/// The state of the reader's cursor (P11). These are all the states: a reader must handle each, so
/// the list is exhaustive on purpose, and a further state would be a breaking change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Everything after the cursor is here or follows.
    Ok,
    /// Entries after the cursor are permanently gone; the page starts with the first remaining
    /// entry.
    ///
    /// A read-only open that skipped damage in the log also returns this at the end of a timeline,
    /// if no record after the damage shows that the timeline is complete: entries after the last
    /// one may be missing.
    Trimmed,
    /// The cursor is above the last sequence: it belongs to another history.
    Future,
}

/// The result of a read: some entries and the bounds of the timeline.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Page {
    /// The state of the reader's cursor. Range reads without a cursor always return `Ok`.
    pub verdict: Verdict,
    /// The entries, in the direction of the read.
    pub entries: Vec<Entry>,
    /// Entries and bodies lost to damage, in the direction of the read; empty unless the limit is
    /// [`around_damage`](Limit::around_damage). A range counts as one entry of the limit.
    pub lost: Vec<Lost>,
    /// The lowest readable sequence; `last + 1` if there is none.
    pub first: Sequence,
    /// The highest sequence ever given; 0 if the timeline was never written.
    pub last: Sequence,
    /// Where the read has come to: the sequence of the last entry or lost range, in the direction
    /// of the read. An empty page leaves it before the bounds of the read, in its direction. So the
    /// next page is that of `read_after(next)` or `range(next + 1..)`, and descending that of
    /// `range_back(..next)`. A read after a cursor that has reached the end sets it to the last
    /// sequence, also if the newest entries were removed.
    pub next: Sequence,
    /// Whether the limit excluded entries.
    pub more: bool,
}

impl Page {
    /// The loss at a sequence: the whole entry, or the body of the entry in the page.
    pub fn lost_at(&self, sequence: Sequence) -> Option<&Lost> {
        self.lost.iter().find(|lost| (lost.first..=lost.last).contains(&sequence))
    }

    /// The first and last sequence of each entry and each lost range of the page, ascending.
    pub(crate) fn spans(&self) -> Vec<(Sequence, Sequence)> {
        let entries = self.entries.iter().map(|entry| (entry.sequence, entry.sequence));
        let mut spans: BTreeMap<Sequence, Sequence> = entries.collect();
        for lost in &self.lost {
            spans.entry(lost.first).or_insert(lost.last);
        }
        spans.into_iter().collect()
    }
}

/// Properties of one timeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Info {
    /// The lowest readable sequence; `last + 1` if there is none.
    pub first: Sequence,
    /// The highest sequence ever given; 0 if the timeline was never written.
    pub last: Sequence,
    /// The number of readable entries.
    pub count: u64,
    /// The total length of their bodies in bytes.
    pub body_bytes: u64,
    /// The time of the first readable entry; 0 if there is none.
    pub first_time_ms: TimeMs,
    /// The time of the last readable entry; 0 if there is none.
    pub last_time_ms: TimeMs,
    /// The highest sequence that a trim or expiry removed; 0 if there was none.
    pub trimmed_to: Sequence,
}

/// The sequences that the appends of a batch were given: a slice. One or two need no memory of
/// their own.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Sequences(SmallVec<[Sequence; 2]>);

impl Sequences {
    /// The sequences.
    pub fn as_slice(&self) -> &[Sequence] {
        &self.0
    }

    pub(crate) fn with_capacity(count: usize) -> Sequences {
        Sequences(SmallVec::with_capacity(count))
    }

    pub(crate) fn push(&mut self, sequence: Sequence) {
        self.0.push(sequence);
    }

    pub(crate) fn truncate(&mut self, count: usize) {
        self.0.truncate(count);
    }
}

impl Deref for Sequences {
    type Target = [Sequence];

    fn deref(&self) -> &[Sequence] {
        &self.0
    }
}

impl fmt::Debug for Sequences {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(out)
    }
}

impl From<Sequences> for Vec<Sequence> {
    fn from(sequences: Sequences) -> Vec<Sequence> {
        sequences.0.into_vec()
    }
}

impl FromIterator<Sequence> for Sequences {
    fn from_iter<I: IntoIterator<Item = Sequence>>(sequences: I) -> Sequences {
        Sequences(sequences.into_iter().collect())
    }
}

impl From<Vec<Sequence>> for Sequences {
    fn from(sequences: Vec<Sequence>) -> Sequences {
        Sequences(sequences.into())
    }
}

impl IntoIterator for Sequences {
    type Item = Sequence;
    type IntoIter = std::vec::IntoIter<Sequence>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_vec().into_iter()
    }
}

impl<'a> IntoIterator for &'a Sequences {
    type Item = &'a Sequence;
    type IntoIter = std::slice::Iter<'a, Sequence>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<T: AsRef<[Sequence]>> PartialEq<T> for Sequences {
    fn eq(&self, other: &T) -> bool {
        **self == *other.as_ref()
    }
}

/// The result of a committed batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Receipt {
    /// The commit time, the same for every entry of the batch.
    pub time_ms: TimeMs,
    /// The sequence of each append, in the order in which the batch named them.
    pub sequences: Sequences,
    /// Whether this was a retry: the batch with this id was committed before, with this result.
    pub duplicate: bool,
    /// The number of entries that the batch's trims and deletes removed: those that were readable,
    /// and those lost to damage. 0 for a retry.
    pub removed: u64,
}
