//! Counts garbage (P8): the weight that trims, removals and edits make dead in older segments, so
//! that a segment that is mostly dead is rewritten.
//!
//! It is counted once, when the changes are flushed, and stored in the manifest that makes the
//! flush live: so the count survives, and nothing is counted twice or searched for in the
//! background. An unchanged timeline costs nothing; a changed one costs a look-up in the index of
//! each segment that holds it.
//!
//! The weight of entries is an estimate: the entries of a timeline in one segment count as equally
//! large. Bodies of edits count with their lengths, in the segments that hold them. An entry that
//! was edited before and is removed now counts a second time, since it is unknown whether its
//! segment was rewritten in between: the sum may exceed the weight, and is never below it when all
//! is dead. The sum decides when to rewrite, never what.

use std::collections::BTreeSet;

use crate::error::Result;
use crate::format::index::TimelineEntry;
use crate::format::manifest::{ENTRY_WEIGHT, SegmentRecord};
use crate::ids::{BODIES, Lsn, Sequence, StoreId};
use crate::memtable::{Memtable, Slot};
use crate::segment::Segment;
use crate::state::view::View;
use crate::timeline::Changes;

/// The weight that died in the segment that holds this part of the log.
#[derive(Clone, Copy, Debug)]
pub struct DeadWeight {
    store: StoreId,
    partition: u64,
    from: Lsn,
    weight: u64,
}

/// The weight that a memtable's changes make dead in the current segments, which are all older.
pub fn count(view: &View, memtable: &Memtable) -> Vec<DeadWeight> {
    let mut dead: Vec<DeadWeight> = Vec::new();
    memtable.for_each(|slot| {
        if *slot.name == *BODIES {
            bodies(view, slot, &mut dead);
        }
        let Some(mut died) = Died::of(slot) else { return };
        for segment in
            view.segments.of(slot.store).iter().filter(|segment| segment.record().has_data())
        {
            // A segment that cannot be read is not rewritten either.
            let Ok(Some(entry)) = segment.find_once(&slot.name) else { continue };
            let weight = died.entries(&entry) + died.edits(segment, &entry).unwrap_or(0);
            add(&mut dead, segment, weight);
            if entry.count > 0 && entry.first <= died.floor_before {
                break;
            }
        }
    });
    dead
}

/// Adds bodies that were changed for all their entries: each counts as an average one of the bodies
/// of its segment that may be changed.
fn bodies(view: &View, slot: &Slot, dead: &mut Vec<DeadWeight>) {
    let changed = || slot.changes().into_iter().flat_map(|changes| &changes.edited);
    for segment in view.segments.of(slot.store).iter().filter(|segment| segment.record().has_data())
    {
        let record = segment.record();
        let here = changed().filter(|(place, _)| (record.from..record.to).contains(&Lsn(**place)));
        // Until the segment has applied a change, both bodies are kept: the larger one counts.
        let weight = here
            .map(|(_, edit)| record.body_weight.max(edit.body.len() as u64 + ENTRY_WEIGHT))
            .sum();
        add(dead, segment, weight);
    }
}

fn add(dead: &mut Vec<DeadWeight>, segment: &Segment, weight: u64) {
    if weight == 0 {
        return;
    }
    let record = segment.record();
    if let Some(found) = dead.iter_mut().find(|dead| {
        (dead.store, dead.partition, dead.from) == (record.store, record.partition, record.from)
    }) {
        found.weight += weight;
    } else {
        let (store, partition, from) = (record.store, record.partition, record.from);
        dead.push(DeadWeight { store, partition, from, weight });
    }
}

/// The part of one timeline that died with the changes of a memtable, computed from the newest
/// segment to the oldest.
struct Died {
    floor_before: Sequence,
    lowest: Sequence,
    changes: Changes,
    /// Entries for which a segment visited so far has another body: the older bodies died when that
    /// segment was flushed.
    edited_before: BTreeSet<Sequence>,
}

impl Died {
    /// `None` if nothing died.
    fn of(slot: &Slot) -> Option<Died> {
        let changes = slot.changes().map(|changes| changes.below(slot.first())).unwrap_or_default();
        let lowest = slot.end().floor.lowest;
        let floor_before = slot.floor_before().or((!changes.is_empty()).then_some(lowest))?;
        Some(Died { floor_before, lowest, changes, edited_before: BTreeSet::new() })
    }

    /// The weight of its entries in a segment that are dead now.
    fn entries(&self, entry: &TimelineEntry) -> u64 {
        if entry.count == 0 {
            return 0;
        }
        let (first, last) = (entry.first, entry.end.last);
        let overlap =
            |from: Sequence, to: Sequence| (to.min(last) + 1).saturating_sub(from.max(first));
        let weight = entry.body_bytes + ENTRY_WEIGHT * entry.count;
        let share = |sequences: u64| {
            (u128::from(weight) * u128::from(sequences) / u128::from(last - first + 1)) as u64
        };
        let below_floor =
            self.lowest.checked_sub(1).map_or(0, |high| overlap(self.floor_before, high));
        let removed = self.changes.removed.iter();
        let removed = removed.map(|(from, to)| overlap((*from).max(self.lowest), *to));
        // In a timeline with skipped sequences, a removed or edited sequence is an entry
        // nevertheless.
        let removed =
            removed.filter(|count| *count > 0).map(|count| share(count).max(weight / entry.count));
        let edited = self.changes.edited.range(self.lowest.max(first)..);
        let edited = edited.take_while(|(sequence, _)| **sequence <= last);
        let edited =
            edited.filter(|(sequence, _)| !self.edited_before.contains(sequence)).count() as u64;
        share(below_floor) + removed.sum::<u64>() + weight * edited / entry.count
    }

    /// The weight of its edits in a segment that are dead now.
    fn edits(&mut self, segment: &Segment, entry: &TimelineEntry) -> Result<u64> {
        let mut weight = 0;
        for edited in segment.edited(entry) {
            let sequence = edited.sequence;
            let is_gone = (self.floor_before..self.lowest).contains(&sequence)
                || self.changes.removes(sequence)
                || self.changes.edited.contains_key(&sequence);
            // Of several edits of an entry, the newest was alive.
            if self.edited_before.insert(sequence) && is_gone {
                weight += segment.edited_bytes(edited)? + ENTRY_WEIGHT;
            }
        }
        Ok(weight)
    }
}

/// Adds the dead weight to the segments' records. A merge may have replaced a segment by another
/// since the count.
pub fn note(dead: &[DeadWeight], records: &mut [SegmentRecord]) {
    for DeadWeight { store, partition, from, weight } in dead {
        let holder = records.iter_mut().find(|record| {
            (record.store, record.partition) == (*store, *partition)
                && (record.from..record.to).contains(from)
        });
        if let Some(record) = holder {
            // The sum may exceed the weight: a merge in progress takes over what was added since it
            // began.
            record.dead_weight = record.dead_weight.saturating_add(*weight);
        }
    }
}
