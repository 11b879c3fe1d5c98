//! The part of one timeline in a memtable.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;

use super::Watermark;
use super::group::{Append, Body, Effect};
use super::history::{self, Before, Undone};
use crate::format::ids::IdRecord;
use crate::ids::{CommitPlace, Lsn, Sequence, StoreId, TimeMs};
use crate::timeline::{Changes, Edit, End, Floor, Span};

/// The entries of one timeline.
#[derive(Debug)]
pub struct Slot {
    /// The store of the timeline.
    pub store: StoreId,
    /// The timeline's name.
    pub name: Arc<[u8]>,
    pub(super) hash: u64,
    /// The end of the timeline.
    end: End,
    /// Body numbers, in sequence order.
    pub(super) bodies: Vec<u32>,
    /// The sequence of the first entry.
    first: Sequence,
    body_bytes: u64,
    first_time_ms: TimeMs,
    first_start_ms: TimeMs,
    last_start_ms: TimeMs,
    own_expiry: bool,
    /// The last sequence and its time when the slot was created.
    before: (Sequence, TimeMs),
    /// Whether anything was committed here: a refused batch may leave an empty slot.
    touched: bool,
    /// Data that few timelines have.
    extra: Option<Box<Extra>>,
}

#[derive(Debug, Default)]
struct Extra {
    /// The lowest sequence before the first trim in this memtable.
    floor_before: Option<Sequence>,
    /// The places where sequences were skipped: the index of an entry, and its sequence.
    jumps: Vec<(u32, Sequence)>,
    changes: Changes,
    /// The changes that readers of earlier moments undo, oldest first.
    history: Vec<Undone>,
    ids: Ids,
}

/// The ids of a timeline. Nearly all timelines have one or two ids between two flushes, for which a
/// table would be mostly empty space.
#[derive(Debug)]
enum Ids {
    Few(Vec<(Bytes, IdRecord)>),
    Many(HashMap<Bytes, IdRecord>),
}

/// The number of ids above which they are kept in a table.
const FEW_IDS: usize = 8;

impl Default for Ids {
    fn default() -> Ids {
        Ids::Few(Vec::new())
    }
}

impl Ids {
    fn get(&self, id: &[u8]) -> Option<&IdRecord> {
        match self {
            Ids::Few(few) => few.iter().find(|(known, _)| known == id).map(|(_, record)| record),
            Ids::Many(many) => many.get(id),
        }
    }

    fn insert(&mut self, id: Bytes, record: IdRecord) {
        match self {
            Ids::Few(few) => {
                few.retain(|(known, _)| *known != id);
                if few.len() < FEW_IDS {
                    few.reserve_exact(1);
                    few.push((id, record));
                } else {
                    *self = Ids::Many(few.drain(..).chain([(id, record)]).collect());
                }
            }
            Ids::Many(many) => {
                many.insert(id, record);
            }
        }
    }

    fn iter(&self) -> impl Iterator<Item = (&Bytes, &IdRecord)> {
        let (few, many) = match self {
            Ids::Few(few) => (Some(few), None),
            Ids::Many(many) => (None, Some(many)),
        };
        few.into_iter().flatten().map(|(id, record)| (id, record)).chain(many.into_iter().flatten())
    }

    /// Its size in memory, without the ids themselves.
    fn bytes(&self) -> usize {
        let place_bytes = size_of::<(Bytes, IdRecord)>();
        match self {
            Ids::Few(few) => few.capacity() * place_bytes,
            // A table keeps an eighth of its places free, and uses one more byte for each place.
            Ids::Many(many) => many.capacity() * 8 / 7 * (place_bytes + 1),
        }
    }
}

/// The memory that an allocation takes in addition to the requested size.
const ALLOCATION_BYTES: usize = 16;

/// The memory of a name in addition to its bytes.
pub(super) const NAME_BYTES: usize = 2 * size_of::<usize>() + ALLOCATION_BYTES;

/// The memory of the data that few timelines have, while it is empty.
const EXTRA_BYTES: usize = size_of::<Extra>() + ALLOCATION_BYTES;

impl Slot {
    /// A slot without entries, of a timeline that ends at `end`.
    pub fn new(store: StoreId, name: Arc<[u8]>, hash: u64, end: End) -> Slot {
        Slot {
            store,
            name,
            hash,
            end,
            bodies: Vec::new(),
            first: 0,
            body_bytes: 0,
            first_time_ms: 0,
            first_start_ms: 0,
            last_start_ms: 0,
            own_expiry: false,
            before: (end.last, end.last_time_ms),
            touched: false,
            extra: None,
        }
    }

    /// Whether anything was committed here.
    pub fn is_touched(&self) -> bool {
        self.touched
    }

    /// The use of an id.
    pub fn id(&self, id: &[u8]) -> Option<&IdRecord> {
        self.extra.as_ref()?.ids.get(id)
    }

    fn jumps(&self) -> &[(u32, Sequence)] {
        self.extra.as_ref().map_or(&[], |extra| &extra.jumps)
    }

    pub(super) fn sequence(&self, index: usize) -> Sequence {
        let jumps = self.jumps();
        let behind = jumps.partition_point(|(from, _)| *from as usize <= index);
        let jump = behind.checked_sub(1).map(|jump| jumps[jump]);
        let (from, sequence) =
            jump.map_or((0, self.first), |(from, sequence)| (from as usize, sequence));
        sequence + (index - from) as u64
    }

    /// The index of the first entry at or above a sequence.
    pub(super) fn index_of(&self, sequence: Sequence) -> usize {
        let (mut low, mut high) = (0, self.bodies.len());
        if self.jumps().is_empty() {
            return sequence.saturating_sub(self.first).min(high as u64) as usize;
        }
        while low < high {
            let middle = usize::midpoint(low, high);
            if self.sequence(middle) < sequence { low = middle + 1 } else { high = middle }
        }
        low
    }

    /// Adds an entry. Returns the number of bytes that it takes.
    pub(super) fn push(&mut self, sequence: Sequence, body: u32, append: &Append) -> usize {
        let (mut added, before) = (0, self.bodies.capacity());
        if self.bodies.is_empty() {
            (self.first, self.first_time_ms) = (sequence, append.times.time_ms);
            self.first_start_ms = append.times.start_ms;
        } else {
            let last = self.sequence(self.bodies.len() - 1);
            debug_assert!(sequence > last, "sequences of a timeline rise");
            if sequence != last + 1 {
                if self.extra.is_none() {
                    added += EXTRA_BYTES;
                }
                let jumps = &mut self.extra.get_or_insert_default().jumps;
                let places = jumps.capacity();
                jumps.push((self.bodies.len() as u32, sequence));
                added += (jumps.capacity() - places) * size_of::<(u32, Sequence)>();
            }
        }
        self.touched = true;
        self.bodies.push(body);
        self.body_bytes += u64::from(append.body_bytes);
        self.own_expiry |= append.times.expire_at_ms != 0;
        self.last_start_ms = append.times.start_ms;
        self.end.append(sequence, &append.times);
        added += if before == 0 { ALLOCATION_BYTES } else { 0 };
        added + (self.bodies.capacity() - before) * size_of::<u32>()
    }

    /// Applies a change or an id of a batch; `place` is the commit place of an edit. The group
    /// starts at `at`; no reader needs the state before a commit below `settled`. Returns the
    /// numbers of bytes that it added and freed.
    pub(super) fn take(
        &mut self,
        effect: Effect,
        place: CommitPlace,
        at: Lsn,
        settled: Lsn,
    ) -> (usize, usize) {
        self.touched = true;
        let freed = self.forget_below(settled);
        let mut bytes = if self.extra.is_none() { EXTRA_BYTES } else { 0 };
        // A place in a search tree that is two thirds full.
        let in_tree = |entry_bytes: usize| entry_bytes * 3 / 2 + ALLOCATION_BYTES;
        let extra = self.extra.get_or_insert_default();
        let before = match effect {
            Effect::Trim(floor) => {
                let before = self.end.floor;
                extra.floor_before.get_or_insert(before.lowest);
                let trimmed_to = floor.trimmed_to.max(before.trimmed_to);
                let higher = if floor.lowest > before.lowest { floor } else { before };
                self.end.floor = Floor { trimmed_to, ..higher };
                Before::Floor(before)
            }
            Effect::Remove(ranges) => {
                let changes = &mut extra.changes;
                bytes += ranges.len() * in_tree(size_of::<(Sequence, Sequence)>());
                let mut added = Vec::new();
                for (first, last) in ranges {
                    added.extend(changes.left_of(first, last));
                    changes.remove(first, last);
                }
                Before::NotRemoved(added)
            }
            Effect::Edit(sequence, body) => {
                bytes += in_tree(size_of::<(Sequence, Edit)>());
                let edit = Edit { at: place, body };
                Before::Edit(sequence, extra.changes.edited.insert(sequence, edit))
            }
            Effect::Id(id, record) => {
                let (before, sequences) = (extra.ids.bytes(), record.sequences.len());
                extra.ids.insert(id, record);
                let grown = extra.ids.bytes().saturating_sub(before);
                let record_bytes = sequences * size_of::<Sequence>() + 2 * ALLOCATION_BYTES;
                return (bytes + grown + record_bytes, freed);
            }
        };
        let undone = Undone { at, before };
        bytes += undone.bytes();
        extra.history.push(undone);
        (bytes, freed)
    }

    /// Forgets the history that no reader needs any more. Returns the number of bytes that it
    /// frees.
    fn forget_below(&mut self, settled: Lsn) -> usize {
        let Some(extra) = &mut self.extra else { return 0 };
        let settled = extra.history.partition_point(|undone| undone.at < settled);
        extra.history.drain(..settled).map(|undone| undone.bytes()).sum()
    }

    /// The changes above a watermark.
    pub(super) fn undone_above(&self, watermark: Watermark) -> &[Undone] {
        let history = self.extra.as_ref().map_or(&[][..], |extra| &extra.history);
        match history.last() {
            Some(last) if last.at >= watermark.lsn => {
                &history[history.partition_point(|undone| undone.at < watermark.lsn)..]
            }
            _ => &[],
        }
    }

    /// The number of entries below a watermark.
    pub(super) fn visible(&self, watermark: Watermark) -> usize {
        match self.bodies.last() {
            Some(last) if *last >= watermark.bodies => {
                self.bodies.partition_point(|body| *body < watermark.bodies)
            }
            _ => self.bodies.len(),
        }
    }

    /// The end of the timeline for a reader that sees all entries of the slot.
    pub(super) fn end_at(&self, watermark: Watermark) -> End {
        let floor = history::floor_before(self.end.floor, self.undone_above(watermark));
        End { floor, ..self.end }
    }

    /// The end of the timeline for a reader that sees the first `visible` entries, and the part of
    /// it that is here.
    pub(super) fn end_and_span<'b>(
        &self,
        visible: usize,
        watermark: Watermark,
        body: impl Fn(u32) -> &'b Body,
    ) -> (End, Option<Span>) {
        let floor = self.end_at(watermark).floor;
        let Some(span) = self.span().filter(|_| visible > 0) else {
            let (last, last_time_ms) = self.before;
            return (End { last, last_time_ms, floor }, None);
        };
        let unseen = self.bodies[visible..].iter().map(|number| body(*number).bytes.len() as u64);
        let times = body(self.bodies[visible - 1]).times;
        let span = Span {
            last: self.sequence(visible - 1),
            count: visible as u64,
            body_bytes: self.body_bytes - unseen.sum::<u64>(),
            last_time_ms: times.time_ms,
            last_start_ms: times.start_ms,
            ..span
        };
        (End { last: span.last, last_time_ms: span.last_time_ms, floor }, Some(span))
    }

    /// The current end of the timeline.
    pub fn end(&self) -> End {
        self.end
    }

    /// The changes since the last flush.
    pub fn changes(&self) -> Option<&Changes> {
        self.extra.as_ref().map(|extra| &extra.changes).filter(|changes| !changes.is_empty())
    }

    /// The lowest sequence that was not removed before the last flush, if there was a trim since.
    pub fn floor_before(&self) -> Option<Sequence> {
        self.extra.as_ref()?.floor_before
    }

    /// The ids that were used since the last flush.
    pub fn ids(&self) -> impl Iterator<Item = (&Bytes, &IdRecord)> {
        self.extra.iter().flat_map(|extra| extra.ids.iter())
    }

    /// The lowest sequence here; above the last one if there is no entry here.
    pub fn first(&self) -> Sequence {
        if self.bodies.is_empty() { self.end.last + 1 } else { self.first }
    }

    /// Whether an entry here has a lifetime of its own.
    pub fn has_own_expiries(&self) -> bool {
        self.own_expiry
    }

    pub(super) fn span(&self) -> Option<Span> {
        let last = self.bodies.len().checked_sub(1)?;
        Some(Span {
            first: self.first,
            last: self.sequence(last),
            count: self.bodies.len() as u64,
            body_bytes: self.body_bytes,
            first_time_ms: self.first_time_ms,
            last_time_ms: self.end.last_time_ms,
            first_start_ms: self.first_start_ms,
            last_start_ms: self.last_start_ms,
            own_expiry: self.own_expiry,
        })
    }

    /// The sequence and the body number of each entry.
    pub fn entries(&self) -> impl Iterator<Item = (Sequence, u32)> + '_ {
        self.bodies.iter().enumerate().map(|(index, body)| (self.sequence(index), *body))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::ids::IdHashes;

    #[test]
    fn few_and_many_ids_are_found_and_the_newer_record_counts() {
        let record = |time_ms| IdRecord {
            hashes: IdHashes { bodies: 1, targets: 2 },
            time_ms,
            start_ms: time_ms,
            sequences: [3].into(),
        };
        let id = |number: u64| Bytes::from(format!("id {number}"));
        let mut ids = Ids::default();
        for number in 0..50 {
            ids.insert(id(number), record(0));
            ids.insert(id(number), record(number));
            assert!((0..=number).all(|known| ids.get(&id(known)) == Some(&record(known))));
            assert_eq!((ids.get(b"id"), ids.iter().count() as u64), (None, number + 1));
        }
    }
}
