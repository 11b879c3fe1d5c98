//! Changes of entries that were written before, in memory: removed ranges and edits.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::ids::{CommitPlace, Sequence};

/// Changes of entries that were written before: removed sequences and new bodies. The younger
/// change counts.
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
    /// The place of its commit: of two edits, the later one counts.
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

    /// The number of removed sequences from `low` to `high`.
    pub fn removed_within(&self, low: Sequence, high: Sequence) -> u64 {
        let ranges = self.removed.range(..=high);
        ranges.map(|(first, last)| ((*last).min(high) + 1).saturating_sub((*first).max(low))).sum()
    }

    /// The parts of a range that are not removed, ascending.
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

    /// Removes a range and joins it with adjacent ones.
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

    /// The changes of sequences below `bound`: those of entries in places that are older than the
    /// one that begins with `bound`.
    pub fn below(&self, bound: Sequence) -> Changes {
        let clipped =
            self.removed.range(..bound).map(|(first, last)| (*first, (*last).min(bound - 1)));
        let edited = self.edited.range(..bound).filter(|(sequence, _)| !self.removes(**sequence));
        Changes {
            removed: clipped.collect(),
            edited: edited.map(|(at, body)| (*at, body.clone())).collect(),
        }
    }

    /// Adds changes that are older than these.
    pub fn add_older(&mut self, older: Changes) {
        for (first, last) in older.removed {
            self.remove(first, last);
        }
        for (sequence, body) in older.edited {
            self.edited.entry(sequence).or_insert(body);
        }
    }
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
    fn the_newer_edit_counts() {
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
