//! The commits of one part of the log, in memory, until they are flushed (P7).
//!
//! ```text
//!  shard: hash of (store, name) → slot    slot: end, first sequence, [body number, body number, …]
//!  bodies: [(times, bytes), …] in commit order
//! ```
//!
//! A trim moves the floor of the timeline's end. Removals and edits of entries that were written
//! before are kept beside the array of body numbers; readers apply them, whether the entry is in
//! the memtable or in a segment. The ids of batches, by which retries are recognized, are kept
//! there too.
//!
//! Timelines only grow at the end, so a slot is an array in sequence order, not a search tree. An
//! entry is the number of its body, four bytes: a fan-out to 500 receivers costs one body and 500
//! numbers. Names are not kept in order; a flush sorts them once. A list of targets that a record
//! has in full is kept with the slots of its timelines, for the records that refer to it (`list`).
//! The bytes of small batches are copied into chunks (`group`).
//!
//! One thread at a time writes: the committer, or, during replay, the thread that opens the engine.
//! It first adds the bodies of a group, then the entries that name them, so that a reader that
//! finds an entry also finds its body. A group is applied after its write, and after its sync if
//! one was asked for, so its content is as durable as its batches asked.
//!
//! Readers ignore what is above their watermark: entries by the numbers of their bodies, changes by
//! undoing them (`history`).
//!
//! This folder does not know the log, segments, or how sequences are chosen.

mod group;
mod history;
mod list;
mod pieces;
mod slot;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use hashbrown::HashTable;
use parking_lot::RwLock;

pub use group::{Body, Effect, Group};
use history::Undone;
pub use history::{Watermark, edited_without, removed_without};
pub use list::KnownList;
use list::Lists;
use pieces::Pieces;
pub use slot::Slot;

use crate::format::ids::IdRecord;
use crate::ids::{BODIES, Lsn, Sequence, TimeMs};
use crate::timeline::{Changes, Collector, End, Key, Offered, Own, Span};

/// At most 6: a `Group` has one bit per shard.
const SHARD_BITS: u32 = 6;

/// The maximum number of entries that are read from a slot at a time, while it is locked.
const TAKEN: usize = 64;

/// Bodies are kept in pieces of this many.
const BODIES_PER_PIECE: usize = 4096;

/// The slots of a shard are kept in pieces of this many.
const SLOTS_PER_PIECE: usize = 16;

/// The memory of a slot beside itself, its name and its entries: its index in the table, and the
/// last sequence that the committer gave. Rounded up: (4 + 1) × 16/7 in a table that is at least
/// 7/16 full, and 8 × 4/3 in a list, are 22.
const SLOT_BYTES: usize = 24;

/// The position of a timeline in the memtable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SlotId {
    shard: u32,
    slot: u32,
}

impl SlotId {
    /// The number of its shard, and its index in that shard.
    pub fn place(self) -> (usize, usize) {
        (self.shard as usize, self.slot as usize)
    }
}

/// A memtable's knowledge of a timeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// The end of the timeline.
    pub end: End,
    /// The part of the timeline that is in the memtable.
    pub span: Option<Span>,
    /// The slot with its changes, if it has any.
    pub changed: Option<SlotId>,
}

#[derive(Debug, Default)]
struct Shard {
    table: HashTable<u32>,
    slots: Pieces<Slot, SLOTS_PER_PIECE>,
}

impl Shard {
    fn find(&self, Key { timeline, hash }: Key<'_>) -> Option<u32> {
        let is_it = |slot: &u32| {
            let slot = self.slots.at(*slot);
            slot.hash == hash && slot.store == timeline.store && *slot.name == *timeline.name
        };
        self.table.find(hash, is_it).copied()
    }
}

/// A memtable: active while groups are applied to it, sealed while it waits to be flushed.
#[derive(Debug)]
pub struct Memtable {
    shards: Vec<RwLock<Shard>>,
    bodies: RwLock<Pieces<Body, BODIES_PER_PIECE>>,
    lists: RwLock<Lists>,
    bytes: AtomicUsize,
    /// The start of the lifetimes of the first commit in it; 0: there was none.
    first_start_ms: AtomicU64,
    /// The start of the lifetimes of the last commit in it; 0: there was none.
    last_start_ms: AtomicU64,
    /// Whether something was trimmed or removed: the sooner it is flushed, the sooner older
    /// segments can be rewritten.
    frees: AtomicBool,
    /// The lsn of the last group that trimmed or removed something; edits do not count.
    freed_at: AtomicU64,
    /// Whether shared bodies were changed.
    changes_bodies: AtomicBool,
    /// The lsn at which its part of the log starts.
    from: Lsn,
    /// The lsn at which its part of the log ends, once it is sealed.
    to: OnceLock<Lsn>,
}

impl Memtable {
    /// An empty memtable for the part of the log that starts at `from`.
    pub fn new(from: Lsn) -> Memtable {
        Memtable {
            shards: (0..1 << SHARD_BITS).map(|_| RwLock::default()).collect(),
            bodies: RwLock::default(),
            lists: RwLock::default(),
            bytes: AtomicUsize::new(0),
            first_start_ms: AtomicU64::new(0),
            last_start_ms: AtomicU64::new(0),
            frees: AtomicBool::new(false),
            freed_at: AtomicU64::new(0),
            changes_bodies: AtomicBool::new(false),
            from,
            to: OnceLock::new(),
        }
    }

    /// The lsn at which its part of the log starts.
    pub fn from(&self) -> Lsn {
        self.from
    }

    /// The lsn at which its part of the log ends; only a sealed memtable has one.
    pub fn to(&self) -> Lsn {
        *self.to.get().expect("only a sealed memtable is flushed")
    }

    /// Seals the memtable: it takes no more groups, and its part of the log ends at `to`.
    pub fn seal(&self, to: Lsn) {
        self.to.set(to).expect("a memtable is sealed once");
        self.forget_lists();
    }

    /// Its approximate size in memory.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Whether nothing was ever added to it, not even a slot for a batch that was refused.
    pub fn is_empty(&self) -> bool {
        self.bytes() == 0
    }

    /// Records the start of the lifetimes of a commit. One that only frees space may begin lower:
    /// on a full disk no further memtable can be begun for it.
    pub fn started_at(&self, start_ms: TimeMs) {
        let _ =
            self.first_start_ms.compare_exchange(0, start_ms, Ordering::Relaxed, Ordering::Relaxed);
        self.last_start_ms.fetch_max(start_ms, Ordering::Relaxed);
    }

    /// The start of the lifetimes of the first commit in it; `None` if there was none.
    pub fn first_start_ms(&self) -> Option<TimeMs> {
        Some(self.first_start_ms.load(Ordering::Relaxed)).filter(|start_ms| *start_ms != 0)
    }

    /// Whether a commit whose lifetimes start at `start_ms` may be applied to it. Starts do not
    /// decrease inside a memtable, so that the entries of a time partition are consecutive in each
    /// timeline.
    pub fn may_start_at(&self, start_ms: TimeMs) -> bool {
        self.last_start_ms.load(Ordering::Relaxed) <= start_ms
    }

    /// Whether something was trimmed or removed.
    pub fn frees(&self) -> bool {
        self.frees.load(Ordering::Relaxed)
    }

    /// The lsn of the last group that trimmed or removed something, if there is one; edits do not
    /// count.
    pub fn freed_at(&self) -> Option<Lsn> {
        // It is stored before the changes become visible.
        self.frees.load(Ordering::Acquire).then(|| Lsn(self.freed_at.load(Ordering::Acquire)))
    }

    /// Whether shared bodies were changed.
    pub fn changes_bodies(&self) -> bool {
        self.changes_bodies.load(Ordering::Acquire)
    }

    fn shard_of(hash: u64) -> u32 {
        // The table inside a shard uses the low bits and the top seven.
        (hash >> 40) as u32 & ((1 << SHARD_BITS) - 1)
    }

    /// The slot of a timeline, if it has one.
    pub fn find(&self, key: Key<'_>) -> Option<SlotId> {
        let shard = Memtable::shard_of(key.hash);
        let slot = self.shards[shard as usize].read().find(key)?;
        Some(SlotId { shard, slot })
    }

    /// Forgets all lists: no later record refers to them.
    pub fn forget_lists(&self) {
        self.lists.write().clear();
    }

    /// The list of targets with these bytes, if a record in its part of the log has it in full.
    pub fn list(&self, hash: u64, bytes: &[u8]) -> Option<Arc<KnownList>> {
        self.lists.read().find(hash, bytes).cloned()
    }

    /// Creates a slot for a timeline that has none and ends at `end`.
    ///
    /// The name is copied: a slice of the batch would keep the whole batch in memory, even one that
    /// is refused.
    pub fn insert(&self, Key { timeline, hash }: Key<'_>, end: End) -> SlotId {
        let number = Memtable::shard_of(hash);
        let mut shard = self.shards[number as usize].write();
        let slot = shard.slots.len() as u32;
        let grown = shard.slots.push(Slot::new(timeline.store, timeline.name.into(), hash, end));
        let Shard { table, slots } = &mut *shard;
        table.insert_unique(hash, slot, |slot| slots.at(*slot).hash);
        let name_bytes = timeline.name.len() + slot::NAME_BYTES;
        self.bytes.fetch_add(grown + SLOT_BYTES + name_bytes, Ordering::Relaxed);
        SlotId { shard: number, slot }
    }

    /// The end of a slot's timeline, published or not.
    pub fn end_of(&self, slot: SlotId) -> End {
        self.shards[slot.shard as usize].read().slots.at(slot.slot).end()
    }

    /// Applies a group that starts at `at` in the log: first its bodies, then its entries, one
    /// shard at a time, then its changes. No reader needs the state before a commit below
    /// `settled`.
    ///
    /// Readers ignore the group until the watermark is above it. Returns the number of bodies in
    /// the memtable, for that watermark.
    pub fn apply(&self, group: &mut Group, at: Lsn, settled: Lsn) -> usize {
        let added_bodies = group.bodies.len();
        let (first, grown) = self.add_bodies(&mut group.bodies);
        let mut bytes = group.take_held_bytes() + grown;
        for number in group.take_touched() {
            let mut shard = self.shards[number].write();
            for append in group.appends[number].drain(..) {
                let slot = shard.slots.at_mut(append.slot);
                bytes += slot.push(append.sequence, first + append.body, &append);
            }
        }
        if group.frees() {
            self.freed_at.store(at.0, Ordering::Release);
            self.frees.store(true, Ordering::Release);
        }
        let mut freed_bytes = 0;
        for (slot, effect, place) in group.effects.drain(..) {
            let mut shard = self.shards[slot.shard as usize].write();
            let slot = shard.slots.at_mut(slot.slot);
            if *slot.name == *BODIES {
                self.changes_bodies.store(true, Ordering::Release);
            }
            let (added, freed) = slot.take(effect, place, at, settled);
            bytes += added;
            freed_bytes += freed;
        }
        if !group.lists.is_empty() {
            let mut lists = self.lists.write();
            bytes += group.lists.drain(..).map(|list| lists.add(list)).sum::<usize>();
        }
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.bytes.fetch_sub(freed_bytes, Ordering::Relaxed);
        first as usize + added_bodies
    }

    /// Returns the number of the first of the bodies, and the number of bytes that they take.
    fn add_bodies(&self, added: &mut Vec<Body>) -> (u32, usize) {
        let mut bodies = self.bodies.write();
        let first = bodies.len() as u32;
        let grown = added.drain(..).map(|body| bodies.push(body)).sum();
        (first, grown)
    }

    /// The end of a timeline, and its part in the memtable, up to the watermark; `None` if the
    /// memtable does not know the timeline.
    pub fn look(&self, key: Key<'_>, watermark: Watermark) -> Option<Look> {
        let number = Memtable::shard_of(key.hash);
        let shard = self.shards[number as usize].read();
        let index = shard.find(key)?;
        let slot = shard.slots.at(index);
        let (end, span) = match slot.visible(watermark) {
            visible if visible == slot.bodies.len() => (slot.end_at(watermark), slot.span()),
            visible => {
                let bodies = self.bodies.read();
                slot.end_and_span(visible, watermark, |number| bodies.at(number))
            }
        };
        let changed = slot.changes().is_some().then_some(SlotId { shard: number, slot: index });
        Some(Look { end, span, changed })
    }

    /// Passes the changes of a slot that has some to `look`, under the lock of the slot's shard:
    /// `look` must not ask for a slot.
    pub fn changes_in<T>(&self, slot: SlotId, look: impl FnOnce(&Changes) -> T) -> T {
        self.changes_for(slot, Watermark::ALL, |changes, _| look(changes))
    }

    /// The removed ranges of a slot that has changes, without those removed above the watermark.
    pub fn removed(&self, slot: SlotId, watermark: Watermark) -> BTreeMap<Sequence, Sequence> {
        self.changes_for(slot, watermark, |changes, undone| {
            // Undoing a removal may split ranges, so there may be more ranges than before.
            let all = (Sequence::MAX, usize::MAX / 2);
            removed_without(changes, undone, all).below.into_iter().collect()
        })
    }

    /// Passes all changes of a slot to `look`, with those above the watermark, which a reader must
    /// undo; under the lock of the slot's shard, so `look` must not ask for a slot.
    pub fn changes_for<T>(
        &self,
        slot: SlotId,
        watermark: Watermark,
        look: impl FnOnce(&Changes, &[Undone]) -> T,
    ) -> T {
        let shard = self.shards[slot.shard as usize].read();
        let slot = shard.slots.at(slot.slot);
        let changes = slot.changes().expect("changes stay until the memtable goes");
        look(changes, slot.undone_above(watermark))
    }

    /// The use of a client's id in the timeline of a slot.
    pub fn id_in(&self, slot: SlotId, id: &[u8]) -> Option<IdRecord> {
        self.with_slot(slot, |slot| slot.id(id).cloned())
    }

    /// The use of a client's id in a timeline, by a batch below the watermark.
    pub fn id(&self, key: Key<'_>, id: &[u8], watermark: Watermark) -> Option<IdRecord> {
        let shard = self.shards[Memtable::shard_of(key.hash) as usize].read();
        let slot = shard.slots.at(shard.find(key)?);
        let visible = slot.visible(watermark);
        // The batch with the id appended to this timeline, and its first sequence is remembered.
        let last = visible.checked_sub(1).map_or(0, |last| slot.sequence(last));
        let is_visible =
            |used: &&IdRecord| used.sequences.first().is_none_or(|first| *first <= last);
        slot.id(id).filter(is_visible).cloned()
    }

    /// Offers the entries of a timeline from `low` to `high` to the collector, until it is full.
    /// The collector looks up changes in this memtable meanwhile, so nothing is locked when an
    /// entry is offered.
    pub fn read(
        &self,
        key: Key<'_>,
        mut low: Sequence,
        mut high: Sequence,
        watermark: Watermark,
        out: &mut Collector<'_>,
    ) {
        let Some(slot) = self.find(key) else { return };
        let descending = out.is_descending();
        let mut taken = Vec::new();
        while low <= high {
            let most = out.wanted().clamp(1, TAKEN);
            self.take(slot, (low, high), (descending, most), watermark, &mut taken);
            let is_last = taken.len() < most;
            out.reserve(taken.len());
            for (sequence, body) in taken.drain(..) {
                let own = Own { place: body.shared_place(), ..Own::default() };
                if !out.offer(sequence, body.times, own, Offered::Slice(body.bytes)) {
                    return;
                }
                if descending { high = sequence.saturating_sub(1) } else { low = sequence + 1 }
            }
            if is_last {
                return;
            }
        }
    }

    /// Takes the next entries of a slot, at most `most`.
    fn take(
        &self,
        slot: SlotId,
        (low, high): (Sequence, Sequence),
        (descending, most): (bool, usize),
        watermark: Watermark,
        taken: &mut Vec<(Sequence, Body)>,
    ) {
        let shard = self.shards[slot.shard as usize].read();
        let slot = shard.slots.at(slot.slot);
        let end = slot.index_of(high.saturating_add(1)).min(slot.visible(watermark));
        let indexes = slot.index_of(low).min(end)..end;
        taken.reserve(indexes.len().min(most));
        let bodies = self.bodies.read();
        let mut take = |index: usize| {
            taken.push((slot.sequence(index), bodies.at(slot.bodies[index]).clone()));
        };
        if descending {
            indexes.rev().take(most).for_each(&mut take);
        } else {
            indexes.take(most).for_each(&mut take);
        }
    }

    /// The lowest sequence of a timeline in the memtable whose time is `time_ms` or later.
    pub fn sequence_at(
        &self,
        key: Key<'_>,
        time_ms: TimeMs,
        watermark: Watermark,
    ) -> Option<Sequence> {
        let shard = self.shards[Memtable::shard_of(key.hash) as usize].read();
        let slot = shard.slots.at(shard.find(key)?);
        let bodies = self.bodies.read();
        let time_of = |number: u32| bodies.at(number).times.time_ms;
        let visible = &slot.bodies[..slot.visible(watermark)];
        let index = visible.partition_point(|number| time_of(*number) < time_ms);
        (index < visible.len()).then(|| slot.sequence(index))
    }

    /// Calls `visit` for each slot that something was committed to, under the lock of its shard:
    /// `visit` must not ask for other slots.
    pub fn for_each(&self, mut visit: impl FnMut(&Slot)) {
        self.for_each_with_id(|_, slot| visit(slot));
    }

    /// The same, with the slot's id.
    pub fn for_each_with_id(&self, mut visit: impl FnMut(SlotId, &Slot)) {
        for (shard, locked) in self.shards.iter().enumerate() {
            for (slot, content) in
                locked.read().slots.iter().enumerate().filter(|(_, slot)| slot.is_touched())
            {
                visit(SlotId { shard: shard as u32, slot: slot as u32 }, content);
            }
        }
    }

    /// Calls `visit` for one slot, under the lock of its shard: `visit` must not ask for other
    /// slots.
    pub fn with_slot<T>(&self, slot: SlotId, visit: impl FnOnce(&Slot) -> T) -> T {
        visit(self.shards[slot.shard as usize].read().slots.at(slot.slot))
    }

    /// A body by its number.
    pub fn body(&self, number: u32) -> Body {
        self.bodies.read().at(number).clone()
    }

    /// The number of bodies.
    pub fn body_count(&self) -> usize {
        self.bodies.read().len()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::entry::Limit;
    use crate::ids::{CommitPlace, StoreId, TimelineRef};
    use crate::timeline::{Floor, Sight, Times};

    fn key(name: &[u8]) -> Key<'_> {
        Key { timeline: TimelineRef { store: StoreId(1), name }, hash: 0x1234_5678_9abc_def0 }
    }

    fn end_at(last: Sequence) -> End {
        End { last, floor: Floor { lowest: 1, ..Floor::default() }, ..End::default() }
    }

    fn filled(sequences: &[Sequence]) -> Memtable {
        let memtable = Memtable::new(Lsn(0));
        let before = end_at(sequences[0] - 1);
        let slot = memtable.insert(key(b"a"), before);
        let mut group = Group::default();
        for sequence in sequences {
            let bytes = Bytes::from(format!("body {sequence}"));
            group.body(Body {
                times: Times::new(1000 + sequence, 1000 + sequence, 0),
                bytes,
                place: CommitPlace(*sequence),
                is_shared: false,
            });
            group.entry(slot, *sequence);
        }
        memtable.apply(&mut group, Lsn(0), Lsn(0));
        memtable
    }

    #[test]
    fn a_lower_start_does_not_lower_the_bound_of_later_ones() {
        let memtable = filled(&[1]);
        memtable.started_at(1_000);
        // A trim on a full disk, with the clock set back.
        memtable.started_at(400);
        assert!(!memtable.may_start_at(900));
        assert!(memtable.may_start_at(1_000));
    }

    fn sequences(
        memtable: &Memtable,
        low: Sequence,
        high: Sequence,
        descending: bool,
    ) -> Vec<Sequence> {
        let mut out = Collector::new(Limit::entries(100), descending, Sight::default());
        memtable.read(key(b"a"), low, high, Watermark::ALL, &mut out);
        out.finish().expect("no damage").entries.into_iter().map(|entry| entry.sequence).collect()
    }

    #[test]
    fn entries_are_in_order_in_both_directions() {
        let memtable = filled(&[5, 6, 7, 8]);
        assert_eq!(sequences(&memtable, 6, 7, false), [6, 7]);
        assert_eq!(sequences(&memtable, 0, u64::MAX, true), [8, 7, 6, 5]);
        assert_eq!(sequences(&memtable, 9, u64::MAX, false), []);
        let Look { end, span, .. } = memtable.look(key(b"a"), Watermark::ALL).expect("known");
        assert_eq!((end.last, end.floor.lowest, span.map(|span| span.count)), (8, 1, Some(4)));
    }

    #[test]
    fn skipped_sequences_are_holes() {
        let memtable = filled(&[1, 2, 10, 11, 40]);
        assert_eq!(sequences(&memtable, 2, 11, false), [2, 10, 11]);
        assert_eq!(sequences(&memtable, 3, 9, false), []);
        assert_eq!(sequences(&memtable, 0, 39, true), [11, 10, 2, 1]);
        assert_eq!(memtable.sequence_at(key(b"a"), 1005, Watermark::ALL), Some(10));
    }

    #[test]
    fn a_slot_without_entries_knows_where_its_timeline_ended() {
        let memtable = Memtable::new(Lsn(0));
        let before = end_at(9);
        memtable.insert(key(b"a"), before);
        assert_eq!(
            memtable.look(key(b"a"), Watermark::ALL),
            Some(Look { end: before, span: None, changed: None })
        );
        assert_eq!(memtable.look(key(b"b"), Watermark::ALL), None);
    }

    /// A memtable, the slot of a timeline with the sequences 1 to 3, and the lsn of the next group.
    fn with_three() -> (Memtable, SlotId, Lsn) {
        let memtable = filled(&[1, 2, 3]);
        let slot = memtable.find(key(b"a")).expect("it has one");
        (memtable, slot, Lsn(1000))
    }

    fn append(group: &mut Group, slot: SlotId, sequence: Sequence) {
        let times = Times::new(1000 + sequence, 1000 + sequence, 0);
        let place = CommitPlace(1000 + sequence);
        group.body(Body { times, bytes: Bytes::from_static(b"x"), place, is_shared: false });
        group.entry(slot, sequence);
    }

    fn readable(memtable: &Memtable, watermark: Watermark) -> (Sequence, Vec<Sequence>) {
        let Look { end, changed, .. } = memtable.look(key(b"a"), watermark).expect("known");
        let mut out = Collector::new(Limit::entries(100), false, Sight::default());
        let low = end.floor.lowest;
        memtable.read(key(b"a"), low, end.last, watermark, &mut out);
        let removed = changed.map(|slot| memtable.removed(slot, watermark)).unwrap_or_default();
        let changes = Changes { removed, ..Changes::default() };
        let entries = out.finish().expect("no damage").entries.into_iter();
        let left = entries.map(|entry| entry.sequence).filter(|at| !changes.removes(*at));
        (end.last, left.collect())
    }

    #[test]
    fn a_reader_from_before_a_batch_sees_neither_its_entry_nor_its_trim() {
        let (memtable, slot, at) = with_three();
        let before = Watermark { lsn: at, bodies: memtable.body_count() as u32 };
        let mut group = Group::default();
        append(&mut group, slot, 4);
        let floor = Floor { lowest: 4, trimmed_to: 3, ..Floor::default() };
        group.effect(slot, Effect::Trim(floor), CommitPlace::default());
        memtable.apply(&mut group, at, at);
        let after = Watermark { lsn: Lsn(2000), bodies: memtable.body_count() as u32 };
        assert_eq!(readable(&memtable, before), (3, vec![1, 2, 3]));
        assert_eq!(readable(&memtable, after), (4, vec![4]));
        assert_eq!(readable(&memtable, Watermark::ALL), (4, vec![4]));
        let span = memtable.look(key(b"a"), before).and_then(|look| look.span).expect("entries");
        let whole = (span.last, span.count, span.body_bytes, span.last_time_ms);
        assert_eq!(whole, (3, 3, 3 * 6, 1003));
        assert_eq!(memtable.sequence_at(key(b"a"), 1004, before), None);
    }

    #[test]
    fn changes_above_the_watermark_are_hidden_and_kept_until_all_readers_see_them() {
        let (memtable, slot, _) = with_three();
        let bodies = memtable.body_count() as u32;
        let removals = [vec![(1, 1)], vec![(3, 3)], vec![(1, 3)]];
        for (number, ranges) in (1..).zip(removals) {
            let mut group = Group::default();
            group.effect(slot, Effect::Remove(ranges), CommitPlace::default());
            memtable.apply(&mut group, Lsn(number * 1000), Lsn(0));
        }
        let at = |lsn| readable(&memtable, Watermark { lsn: Lsn(lsn), bodies }).1;
        assert_eq!((at(1000), at(2000), at(3000)), (vec![1, 2, 3], vec![2, 3], vec![2]));
        assert_eq!(at(3001), Vec::<Sequence>::new());
        // The next change forgets what all readers see.
        let held = memtable.bytes();
        let mut group = Group::default();
        group.effect(slot, Effect::Edit(2, Bytes::from_static(b"new")), CommitPlace(4001));
        memtable.apply(&mut group, Lsn(4000), Lsn(3001));
        assert!(
            memtable
                .with_slot(slot, |slot| slot.undone_above(Watermark { lsn: Lsn(0), bodies }).len())
                == 1
        );
        assert!(memtable.bytes() <= held + 2 * size_of::<Undone>() + 100, "{held}");
        assert_eq!(at(4001), Vec::<Sequence>::new());
    }

    #[test]
    fn a_reader_from_before_an_edit_gets_the_previous_edit() {
        let (memtable, slot, _) = with_three();
        for number in 1..4 {
            let mut group = Group::default();
            let body = Bytes::from(format!("edit {number}"));
            group.effect(slot, Effect::Edit(2, body), CommitPlace(number * 1000 + 1));
            memtable.apply(&mut group, Lsn(number * 1000), Lsn(0));
        }
        let edited = |lsn| {
            let watermark = Watermark { lsn: Lsn(lsn), bodies: u32::MAX };
            let sides = memtable.changes_for(slot, watermark, |changes, undone| {
                edited_without(changes, undone, (2, 4))
            });
            sides.below.first().map(|(_, (at, _))| at.0)
        };
        let seen = [1000, 2000, 3000, 4000].map(edited);
        assert_eq!(seen, [None, Some(1001), Some(2001), Some(3001)]);
    }
}
