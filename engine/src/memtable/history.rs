//! The changes of commits in a slot, kept as long as a reader may need the state before them (P3).
//!
//! A slot contains its newest state. A reader whose watermark is below a commit undoes the changes
//! of that commit in what it reads: a removal did not happen, an edited entry has its earlier body,
//! and the floor is the earlier one. Only readers of an earlier moment pay for this; the cost
//! depends on the number of changes made since that moment.

use std::collections::BTreeMap;

use crate::ids::{Lsn, Sequence};
use crate::timeline::{Changes, Edit, EditSides, Floor, RemovedSides, edit_sides, removed_sides};

/// The published part of a memtable: a reader ignores everything above the watermark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watermark {
    /// The lsn below which groups are visible: those that start below it.
    pub lsn: Lsn,
    /// The body number below which bodies are visible: those of the visible groups.
    pub bodies: u32,
}

impl Watermark {
    /// Everything in a memtable: for readers of a sealed one, and for the threads that change or
    /// flush it.
    pub const ALL: Watermark = Watermark { lsn: Lsn(u64::MAX), bodies: u32::MAX };
}

/// One change, and the data to undo it.
#[derive(Debug)]
pub struct Undone {
    /// The lsn at which the commit's group starts.
    pub at: Lsn,
    /// The state that the change replaced.
    pub before: Before,
}

/// The state that a change replaced.
#[derive(Debug)]
pub enum Before {
    /// The floor.
    Floor(Floor),
    /// The sequences of a removal that were not removed before.
    NotRemoved(Vec<(Sequence, Sequence)>),
    /// The earlier edit of this entry, if it had one.
    Edit(Sequence, Option<Edit>),
}

impl Undone {
    /// Its size in memory.
    pub fn bytes(&self) -> usize {
        let kept = match &self.before {
            Before::Floor(_) | Before::Edit(..) => 0,
            Before::NotRemoved(ranges) => ranges.capacity() * size_of::<(Sequence, Sequence)>(),
        };
        size_of::<Undone>() + kept
    }
}

/// The floor before the oldest of these changes; `floor` is the newest.
pub fn floor_before(floor: Floor, undone: &[Undone]) -> Floor {
    let oldest = undone.iter().find_map(|undone| match undone.before {
        Before::Floor(before) => Some(before),
        _ => None,
    });
    oldest.unwrap_or(floor)
}

/// Removed ranges on both sides of a sequence, without those that these changes removed.
pub fn removed_without(
    changes: &Changes,
    undone: &[Undone],
    (around, most): (Sequence, usize),
) -> RemovedSides {
    let ranges = undone.iter().filter_map(|undone| match &undone.before {
        Before::NotRemoved(ranges) => Some(ranges),
        _ => None,
    });
    let mut back = Changes::default();
    ranges.flatten().for_each(|(first, last)| back.remove(*first, *last));
    // Each range to be undone is inside one removed range, and removes at most that one.
    let found = changes.removed_around(around, most + back.removed.len());
    if back.removed.is_empty() {
        return found;
    }
    let left = found.below.iter().chain(&found.above);
    let mut left: Vec<_> = left.flat_map(|(first, last)| back.left_of(*first, *last)).collect();
    left.sort_unstable();
    removed_sides(&left, around, most)
}

/// Edits on both sides of a sequence, without these changes.
pub fn edited_without(
    changes: &Changes,
    undone: &[Undone],
    (around, most): (Sequence, usize),
) -> EditSides {
    let mut before: BTreeMap<Sequence, Option<&Edit>> = BTreeMap::new();
    for undone in undone {
        if let Before::Edit(sequence, edit) = &undone.before {
            // The oldest of them counts.
            before.entry(*sequence).or_insert(edit.as_ref());
        }
    }
    if before.is_empty() {
        return changes.edited_around(around, most);
    }
    let found = changes.edits_around(around, most + before.len());
    let edits = found.below.into_iter().chain(found.above).filter_map(|(sequence, edit)| {
        let edit = before.get(&sequence).map_or(Some(edit), |edit| *edit)?;
        Some((sequence, edit))
    });
    let mut edits: Vec<(Sequence, &Edit)> = edits.collect();
    edits.sort_unstable_by_key(|(sequence, _)| *sequence);
    edit_sides(&edits, around, most)
}
