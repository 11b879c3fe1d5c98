//! Counting garbage (P8): what trims, removals and edits leave dead in older segments, so that a mostly dead one is rewritten.
//!
//! It is counted once, when the changes are flushed, and goes into the manifest that makes the flush live: so the count survives, and
//! nothing is counted twice or looked for in the background. A timeline that was not changed costs nothing, one that was
//! costs a look into the index of each segment that holds it.
//!
//! It is an estimate: entries of a timeline in one segment count as equally large. That decides when to rewrite, never what.

use crate::entry::Changes;
use crate::format::index::TimelineEntry;
use crate::format::manifest::{ENTRY_WEIGHT, SegmentRecord};
use crate::ids::{Lsn, Sequence, StoreId};
use crate::memtable::{Memtable, Slot};
use crate::segment::Segment;
use crate::view::View;

/// So much died in the segment that holds this place of the log.
#[derive(Clone, Copy, Debug)]
pub struct Dead {
    store: StoreId,
    partition: u64,
    from: Lsn,
    weight: u64,
}

/// What a memtable's changes leave dead in the segments of now, which are all older.
pub fn count(view: &View, memtable: &Memtable) -> Vec<Dead> {
    let mut dead: Vec<Dead> = Vec::new();
    memtable.for_each(|slot| {
        let none = Changes::default();
        let changes = slot.changes().map_or(none, |changes| changes.below(slot.first()));
        let Some(floor_before) =
            slot.floor_before().or((!changes.is_empty()).then(|| slot.end().floor.lowest))
        else {
            return;
        };
        for segment in view.segments.of(slot.store).iter().filter(|segment| !segment.record().dropped) {
            // One that cannot be read is not rewritten either.
            let Ok(Some(entry)) = segment.find(&slot.name) else { continue };
            let weight = dead_weight(&entry, floor_before, slot, &changes);
            add(&mut dead, segment, weight);
            if entry.count > 0 && entry.first <= floor_before {
                break;
            }
        }
    });
    dead
}

fn add(dead: &mut Vec<Dead>, segment: &Segment, weight: u64) {
    if weight == 0 {
        return;
    }
    let record = segment.record();
    if let Some(found) = dead
        .iter_mut()
        .find(|dead| (dead.store, dead.partition, dead.from) == (record.store, record.partition, record.from))
    {
        found.weight += weight;
    } else {
        let (store, partition, from) = (record.store, record.partition, record.from);
        dead.push(Dead { store, partition, from, weight });
    }
}

/// What of a timeline's entry in a segment is dead now and was not before.
fn dead_weight(entry: &TimelineEntry, floor_before: Sequence, slot: &Slot, changes: &Changes) -> u64 {
    if entry.count == 0 {
        return 0;
    }
    let lowest = slot.end().floor.lowest;
    let (first, last) = (entry.first, entry.end.last);
    let overlap = |from: Sequence, to: Sequence| (to.min(last) + 1).saturating_sub(from.max(first));
    let below_floor = lowest.checked_sub(1).map_or(0, |high| overlap(floor_before, high));
    let removed = changes.removed.iter().map(|(from, to)| overlap((*from).max(lowest), *to)).sum::<u64>();
    let edited =
        changes.edited.range(lowest.max(first)..).take_while(|(sequence, _)| **sequence <= last).count();
    let sequences = u128::from(below_floor + removed + edited as u64);
    let weight = u128::from(entry.body_bytes + ENTRY_WEIGHT * entry.count);
    (weight * sequences / u128::from(last - first + 1)) as u64
}

/// Notes it. A merge may have put another segment in the place of one that was counted for.
pub fn note(dead: &[Dead], records: &mut [SegmentRecord]) {
    for Dead { store, partition, from, weight } in dead {
        let holder = records.iter_mut().find(|record| {
            (record.store, record.partition) == (*store, *partition)
                && (record.from..record.to).contains(from)
        });
        if let Some(record) = holder {
            record.dead_weight = record.dead_weight.saturating_add(*weight).min(record.weight);
        }
    }
}
