//! What a timeline holds, and what a reader gets: entries, pages, verdicts and limits.

mod collect;
mod overlay;

use std::collections::BTreeMap;

use bytes::Bytes;

pub(crate) use self::collect::{Collector, Own, Taken};
pub(crate) use self::overlay::{Layer, NewBody, Overlay, Sides, sides};
use crate::error::Error;
use crate::ids::{CommitPlace, MAX_SEQUENCE, Sequence, TimeMs};

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

/// Changes to entries that were written before: which are removed, and which have another body. The
/// younger change counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    /// Removed sequences, as inclusive ranges.
    pub removed: BTreeMap<Sequence, Sequence>,
    /// Bodies that replace those that were appended.
    pub edited: BTreeMap<Sequence, Edit>,
}

/// A body that replaces one that was appended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Edit {
    /// Where it was committed: of two, the later one counts.
    pub at: CommitPlace,
    pub body: Bytes,
}

impl Changes {
    pub fn is_empty(&self) -> bool {
        self.removed.is_empty() && self.edited.is_empty()
    }

    pub fn removes(&self, sequence: Sequence) -> bool {
        self.removed.range(..=sequence).next_back().is_some_and(|(_, last)| *last >= sequence)
    }

    /// How many sequences from `low` to `high` are removed.
    pub fn removed_within(&self, low: Sequence, high: Sequence) -> u64 {
        let ranges = self.removed.range(..=high);
        ranges.map(|(first, last)| ((*last).min(high) + 1).saturating_sub((*first).max(low))).sum()
    }

    /// What of a range is not removed, ascending.
    pub fn left_of(&self, first: Sequence, last: Sequence) -> Vec<(Sequence, Sequence)> {
        let mut left = Vec::new();
        let mut from = first;
        let around = self.removed.range(..first).next_back().into_iter();
        for (start, end) in around.chain(self.removed.range(first..=last.max(first))) {
            if from < *start {
                left.push((from, start - 1));
            }
            from = from.max(end.saturating_add(1));
        }
        if from <= last {
            left.push((from, last));
        }
        left
    }

    /// Removes a range, joined with its neighbours.
    pub fn remove(&mut self, mut first: Sequence, mut last: Sequence) {
        let touching = self.removed.range(..=last.saturating_add(1)).rev();
        let joined: Vec<Sequence> = touching
            .take_while(|(_, end)| **end >= first.saturating_sub(1))
            .map(|(start, _)| *start)
            .collect();
        for start in joined {
            let end = self.removed.remove(&start).expect("it was just found");
            (first, last) = (first.min(start), last.max(end));
        }
        self.removed.insert(first, last);
    }

    /// The changes to sequences below one: those that are not in the place that begins with it.
    pub fn below(&self, bound: Sequence) -> Changes {
        let clipped =
            self.removed.range(..bound).map(|(first, last)| (*first, (*last).min(bound - 1)));
        let edited = self.edited.range(..bound).filter(|(sequence, _)| !self.removes(**sequence));
        Changes {
            removed: clipped.collect(),
            edited: edited.map(|(at, body)| (*at, body.clone())).collect(),
        }
    }

    /// Takes in changes that are older than these.
    pub fn add_older(&mut self, older: Changes) {
        for (first, last) in older.removed {
            self.remove(first, last);
        }
        for (sequence, body) in older.edited {
            self.edited.entry(sequence).or_insert(body);
        }
    }
}

/// When an entry was committed, and how long it lives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Times {
    /// Its timestamp. Never decreases inside a timeline.
    pub time_ms: TimeMs,
    /// When its lifetime began.
    pub start_ms: TimeMs,
    /// When it expires by itself; 0: never.
    pub expire_at_ms: TimeMs,
}

impl Times {
    /// Those of an append with a lifetime of its own; 0: it has none.
    pub fn new(time_ms: TimeMs, start_ms: TimeMs, lifetime_ms: u64) -> Times {
        let expire_at_ms = if lifetime_ms == 0 { 0 } else { start_ms.saturating_add(lifetime_ms) };
        Times { time_ms, start_ms, expire_at_ms }
    }

    /// Those of an entry whose start is stored only if it differs from its timestamp.
    pub fn stored(time_ms: TimeMs, own_start_ms: Option<TimeMs>, expire_at_ms: TimeMs) -> Times {
        Times { time_ms, start_ms: own_start_ms.unwrap_or(time_ms), expire_at_ms }
    }

    /// The start, if it differs from the timestamp.
    pub fn own_start_ms(&self) -> Option<TimeMs> {
        Some(self.start_ms).filter(|start_ms| *start_ms != self.time_ms)
    }
}

/// Lifetimes that began before this are past a store's TTL, or were when it was changed; 0: none
/// is.
pub(crate) fn alive_from_ms(now_ms: TimeMs, ttl_ms: u64, gone_before_ms: TimeMs) -> TimeMs {
    let past_ttl_ms = if ttl_ms == 0 { 0 } else { now_ms.saturating_add(1).saturating_sub(ttl_ms) };
    past_ttl_ms.max(gone_before_ms)
}

/// What a reader may see of a timeline, and how.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sight<'v> {
    /// The time of the read.
    pub now_ms: TimeMs,
    /// Lifetimes that began earlier are past the store's TTL; 0: none is.
    pub alive_from_ms: TimeMs,
    /// Everything below is gone.
    pub lowest: Sequence,
    /// Changes of the places that were met so far.
    pub overlay: Overlay<'v>,
    /// Changes of shared bodies, by place of the body.
    pub bodies: Overlay<'v>,
    /// Why changes of bodies that were committed below a place cannot be told, if so.
    pub hidden_bodies: Option<(CommitPlace, Error)>,
    /// Look for what the store's TTL, which is this, took instead of what can be read.
    pub lost: Option<u64>,
}

impl Sight<'_> {
    /// Whether the store's TTL has passed for a lifetime that began at a time.
    pub fn is_expired(&self, start_ms: TimeMs) -> bool {
        start_ms < self.alive_from_ms
    }

    /// Whether entries whose lifetime began at a time are not what is looked for.
    pub fn passes_over(&self, start_ms: TimeMs) -> bool {
        self.is_expired(start_ms) == self.lost.is_none()
    }

    /// Whether an entry is what is looked for.
    pub fn shows(&self, sequence: Sequence, times: &Times) -> bool {
        let Times { start_ms, expire_at_ms, .. } = *times;
        // What its own expiry took before the TTL is a hole, not a loss.
        let alive_at_ms = match self.lost {
            Some(ttl_ms) => start_ms.saturating_add(ttl_ms).saturating_sub(1),
            None => self.now_ms,
        };
        sequence >= self.lowest
            && (expire_at_ms == 0 || expire_at_ms > alive_at_ms)
            && !self.passes_over(start_ms)
            && !self.overlay.removes(sequence)
    }
}

/// From where on a timeline can be read. A trim moves it; it outlives the entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Floor {
    /// The lowest sequence that was not removed; above the last one when there is none. What
    /// expired may be above it.
    pub lowest: Sequence,
    /// When the lifetime of that entry began; 0: not known.
    pub start_ms: TimeMs,
    /// When it expires by itself; 0: never.
    pub until_ms: TimeMs,
    /// The highest sequence that trimming or expiry removed, as far as was known when this was
    /// written.
    pub trimmed_to: Sequence,
}

/// How a timeline ends: what outlives all of its entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct End {
    /// The highest sequence ever given; 0 when it was never written.
    pub last: Sequence,
    /// The time that went with it.
    pub last_time_ms: TimeMs,
    /// From where on it can be read.
    pub floor: Floor,
}

impl End {
    /// The end of a timeline that was never written.
    pub const NEVER: End = End {
        last: 0,
        last_time_ms: 0,
        floor: Floor { lowest: 1, start_ms: 0, until_ms: 0, trimmed_to: 0 },
    };

    /// The end of what changes shared bodies: it takes a change of any of them, and has no entries.
    pub const BODIES: End = End { last: MAX_SEQUENCE, ..End::NEVER };

    /// Whether there is an entry that was not removed. It may have expired.
    pub fn has_entries(&self) -> bool {
        self.floor.lowest <= self.last
    }

    /// Takes an append in.
    pub fn append(&mut self, sequence: Sequence, times: &Times) {
        if !self.has_entries() {
            let trimmed_to = self.floor.trimmed_to;
            let (start_ms, until_ms) = (times.start_ms, times.expire_at_ms);
            self.floor = Floor { lowest: sequence, start_ms, until_ms, trimmed_to };
        }
        (self.last, self.last_time_ms) = (sequence, times.time_ms);
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
    /// The earliest start of a lifetime.
    pub first_start_ms: TimeMs,
    /// The latest.
    pub last_start_ms: TimeMs,
    /// Whether some of them expire by themselves.
    pub own_expiry: bool,
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn removed_ranges_join_and_are_found() {
        let mut changes = Changes::default();
        for sequence in [5, 9, 7, 6, 1, 8] {
            changes.remove(sequence, sequence);
        }
        assert_eq!(changes.removed.iter().collect::<Vec<_>>(), [(&1, &1), (&5, &9)]);
        changes.remove(2, 20);
        assert_eq!(changes.removed.iter().collect::<Vec<_>>(), [(&1, &20)]);
        assert!(
            changes.removes(1)
                && changes.removes(20)
                && !changes.removes(21)
                && !changes.removes(0)
        );
    }

    #[test]
    fn the_younger_edit_counts() {
        let one = |body: &'static [u8]| Changes {
            edited: BTreeMap::from([(
                3,
                Edit { at: CommitPlace(1), body: Bytes::from_static(body) },
            )]),
            ..Changes::default()
        };
        let mut changes = one(b"new");
        changes.add_older(one(b"old"));
        assert_eq!(changes.edited[&3].body, "new");
    }
}
