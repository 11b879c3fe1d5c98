//! What commits changed in a slot, kept as long as a reader may need the state before them (P3).
//!
//! A slot holds its newest state. A reader whose watermark is below a commit takes the changes of
//! that commit out of what it reads: a removal did not happen, an edited entry has the body of
//! before, and the floor is the one of before. Only a reader of an earlier moment pays for this;
//! the cost is that of the changes made since.

use std::collections::BTreeMap;

use crate::ids::{Lsn, Sequence};
use crate::timeline::{Changes, Edit, EditSides, Floor, RemovedSides, edit_sides, removed_sides};

/// One change, and how to take it out.
#[derive(Debug)]
pub struct Undone {
    /// Where the group of the commit starts.
    pub at: Lsn,
    /// What was before.
    pub before: Before,
}

/// What a change replaced.
#[derive(Debug)]
pub enum Before {
    /// The floor.
    Floor(Floor),
    /// These sequences were not removed.
    NotRemoved(Vec<(Sequence, Sequence)>),
    /// The edit of this entry, if it had one.
    Edit(Sequence, Option<Edit>),
}

impl Undone {
    /// How much memory it takes.
    pub fn bytes(&self) -> usize {
        let kept = match &self.before {
            Before::Floor(_) | Before::Edit(..) => 0,
            Before::NotRemoved(ranges) => ranges.capacity() * size_of::<(Sequence, Sequence)>(),
        };
        size_of::<Undone>() + kept
    }
}

/// The floor before the oldest of these changes, given the newest.
pub fn floor_before(floor: Floor, undone: &[Undone]) -> Floor {
    let oldest = undone.iter().find_map(|undone| match undone.before {
        Before::Floor(before) => Some(before),
        _ => None,
    });
    oldest.unwrap_or(floor)
}

/// Removed ranges on both sides of a sequence, without what these changes removed.
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
    // Each range that comes back lies in one removed range, and takes at most that one away.
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
