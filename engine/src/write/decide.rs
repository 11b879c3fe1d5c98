//! Step 2 of a commit: decides which batches of a group are committed, gives them their sequences,
//! and encodes their records.
//!
//! A batch is decided on what the active memtable knows, on what earlier batches of its group were
//! given, and on what [`Known`] finds for timelines without a slot. A refused batch takes no
//! sequence and leaves no record. Nothing here is durable or visible: after a group that could not
//! be written, [`Decisions::take_back`] gives its sequences back.
//!
//! This file does not know the disk, or how a group becomes visible.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;

use crate::entry::{Receipt, Sequences};
use crate::error::{Error, Result};
use crate::format::ids::IdRecord;
use crate::format::list::NewList;
use crate::format::wal::{GroupWriter, NewRecord};
use crate::ids::{CommitPlace, Lsn, Sequence, StoreId, TimeMs};
use crate::memtable::{Body, Effect, Group, KnownList, Memtable, SlotId};
use crate::read::reading::Reading;
use crate::state::State;
use crate::timeline::{End, Key, Times};
use crate::write::apply::{CommitPlaces, Named, RecordFacts, Sink, apply};
use crate::write::batch::{Basis, Listed, Prepared, original};
use crate::write::hints::Hints;
use crate::write::queue::{Filling, Submission, find_id};
use crate::write::sequence::Allocator;

/// What a decision needs in addition to the active memtable.
pub trait Known {
    /// An error if the store was dropped.
    fn check_store(&self, store: StoreId) -> Result<()>;

    /// The name of a store, for messages.
    fn store_name(&self, store: StoreId) -> String;

    /// The end of a timeline without a slot.
    fn end_of(&self, key: Key<'_>) -> Result<End>;

    /// The earlier use of a batch's id outside the active memtable.
    fn use_of_id(&self, batch: &Prepared, id: &[u8]) -> Result<Option<IdRecord>>;

    /// Whether an id whose window began at `start_ms` is still remembered.
    fn remembers(&self, start_ms: TimeMs) -> bool;
}

impl Known for State {
    fn check_store(&self, store: StoreId) -> Result<()> {
        State::check_store(self, store)
    }

    fn store_name(&self, store: StoreId) -> String {
        State::store_name(self, store)
    }

    fn end_of(&self, key: Key<'_>) -> Result<End> {
        Reading::for_commit(&self.view.load(), key).end()
    }

    fn use_of_id(&self, batch: &Prepared, id: &[u8]) -> Result<Option<IdRecord>> {
        find_id(self, &self.view.load(), batch, id)
    }

    fn remembers(&self, start_ms: TimeMs) -> bool {
        State::remembers(self, start_ms)
    }
}

/// The inputs of the decisions on a group, and the buffer for its records.
pub struct Ground<'a, K> {
    pub known: &'a K,
    pub memtable: &'a Arc<Memtable>,
    pub records: &'a mut GroupWriter,
    /// The position of the group in the log.
    pub at: Lsn,
}

/// The decisions on one group after another.
#[derive(Debug, Default)]
pub struct Decisions {
    allocator: Allocator,
    /// The changes that step 4 applies.
    group: Group,
    /// The places of the group's bodies and edits.
    places: CommitPlaces,
    /// The ids of the group.
    ids: HashMap<(SlotId, Bytes), IdRecord>,
    /// Memory for the slots of a batch.
    slots: Vec<SlotId>,
}

impl Decisions {
    /// Decides on every batch of a group, which replaces the outcomes. `may_add`: an error that is
    /// the answer to each batch that adds data.
    pub fn on_group<K: Known>(
        &mut self,
        group: &Filling,
        times: Times,
        may_add: &Result<()>,
        mut ground: Ground<'_, K>,
        outcomes: &mut Vec<Result<Receipt>>,
    ) {
        self.allocator.begin(ground.memtable);
        self.places = CommitPlaces::new(ground.at);
        self.ids.clear();
        let mut slots = std::mem::take(&mut self.slots);
        let mut decision = Decision { made: self, times, may_add, ground: &mut ground };
        outcomes.clear();
        for submitted in &group.batches {
            outcomes.push(decision.on_batch(submitted, &mut slots));
        }
        slots.clear();
        self.slots = slots;
    }

    /// The changes of the committed batches, to be applied to the memtable.
    pub fn group(&mut self) -> &mut Group {
        &mut self.group
    }

    /// The group was written: its sequences are final.
    pub fn settle(&mut self) {
        self.allocator.settle();
    }

    /// The group could not be written: it is as if it had never been decided on.
    pub fn take_back(&mut self) {
        self.allocator.fall_back(0);
        self.group.clear();
    }
}

/// The decision on the batches of one group.
struct Decision<'d, 'g, K> {
    /// The decisions so far.
    made: &'d mut Decisions,
    times: Times,
    may_add: &'d Result<()>,
    ground: &'d mut Ground<'g, K>,
}

impl<K: Known> Decision<'_, '_, K> {
    /// Commits or refuses one batch.
    fn on_batch(&mut self, submitted: &Submission, slots: &mut Vec<SlotId>) -> Result<Receipt> {
        let (batch, time_ms) = (&submitted.batch, self.times.time_ms);
        if batch.is_nothing() && batch.bases.is_empty() {
            return Ok(Receipt { time_ms, ..Receipt::default() });
        }
        if !batch.frees_only() {
            // This check is first: batches that are refused again and again must not leave slots in
            // a memtable that cannot be flushed.
            self.may_add.clone()?;
        }
        self.check_stores(batch)?;
        let known = self.find_slots(submitted, slots)?;
        if let Some(receipt) = self.retry(submitted, slots)? {
            return Ok(receipt);
        }
        self.check(submitted, slots.first())?;
        if batch.is_nothing() {
            return Ok(Receipt { time_ms, ..Receipt::default() });
        }
        let mut sequences = self.sequences(batch, slots)?;
        let (given, chosen) = (sequences.len(), batch.conditions.sequence.is_some());
        // The ends of the timelines that the batch changes follow, for a recovery that cannot look
        // them up.
        for slot in &slots[given..] {
            sequences.push(self.last(*slot));
        }
        self.ground.records.record(&NewRecord {
            time_ms,
            start_ms: self.times.start_ms,
            sequences: &sequences,
            chosen,
            list: batch.list.as_ref().map(|listed| list_of_record(listed, known.as_deref())),
            tail: &batch.tail,
            tail_crc: batch.tail_crc,
        });
        if let Some(listed) = batch.list.as_ref().filter(|_| known.is_none()) {
            self.stage_list(listed, slots, &sequences);
        }
        self.stage(batch, slots, &sequences);
        sequences.truncate(given);
        Ok(Receipt { time_ms, sequences, duplicate: false, removed: batch.removed })
    }

    /// An error if a store that the batch concerns was dropped since it was queued.
    fn check_stores(&self, batch: &Prepared) -> Result<()> {
        let mut checked = None;
        for store in batch.stores().chain(batch.bases.iter().map(|basis| basis.store)) {
            // The targets of a fan-out in one store are adjacent: one check covers all of them.
            if checked.replace(store) != Some(store) {
                self.ground.known.check_store(store)?;
            }
        }
        Ok(())
    }

    /// Finds the slots of all timelines of a batch in the active memtable, and creates those that
    /// are missing. Returns the batch's list, if the memtable knows it: then its slots are known.
    fn find_slots(
        &self,
        submitted: &Submission,
        slots: &mut Vec<SlotId>,
    ) -> Result<Option<Arc<KnownList>>> {
        let (batch, memtable) = (&submitted.batch, self.ground.memtable);
        slots.clear();
        self.add_slots(batch.named(), self.hints(submitted, &submitted.hints), slots)?;
        let Some(Listed { after, list, .. }) = &batch.list else { return Ok(None) };
        let of_changes = slots.split_off(*after);
        let known = memtable.list(list.hash(), list.bytes());
        if let Some(known) = &known {
            slots.extend_from_slice(&known.slots);
        } else {
            let hints = self.hints(submitted, &submitted.list_hints);
            self.add_slots(list.keys(), hints, slots)?;
        }
        slots.extend_from_slice(&of_changes);
        Ok(known)
    }

    fn add_slots<'k>(
        &self,
        keys: impl Iterator<Item = Key<'k>>,
        hints: Option<&Hints>,
        slots: &mut Vec<SlotId>,
    ) -> Result<()> {
        for (number, key) in keys.enumerate() {
            slots.push(match self.slot_of(key, hints, number) {
                Some(slot) => slot,
                None => self.ground.memtable.insert(key, self.end_of(key, hints, number)?),
            });
        }
        Ok(())
    }

    /// The original receipt, if the batch's id was used within the window.
    fn retry(&self, submitted: &Submission, slots: &[SlotId]) -> Result<Option<Receipt>> {
        let (batch, memtable) = (&submitted.batch, self.ground.memtable);
        let Some((id, hashes)) = &batch.id else { return Ok(None) };
        let id = batch.slice(id);
        let here = self.made.ids.get(&(slots[0], id.clone())).cloned();
        let found = match here.or_else(|| memtable.id_in(slots[0], &id)) {
            Some(found) => Some(found),
            None => match &submitted.id {
                Some(hint) if submitted.is_under(memtable) => hint.found.clone(),
                _ => self.ground.known.use_of_id(batch, &id)?,
            },
        };
        let Some(found) = found.filter(|found| self.ground.known.remembers(found.start_ms)) else {
            return Ok(None);
        };
        original(&found, *hashes).map(Some)
    }

    /// An error if a condition of the batch does not hold. `first`: the slot of its first timeline.
    fn check(&mut self, submitted: &Submission, first: Option<&SlotId>) -> Result<()> {
        let hints = self.hints(submitted, &submitted.basis_hints);
        for (number, basis) in submitted.batch.bases.iter().enumerate() {
            let last = self.last_of(basis, hints, number)?;
            if last != basis.last {
                return Err(self.other_last(basis.key(), last));
            }
        }
        let conditions = &submitted.batch.conditions;
        let Some(slot) = first else { return Ok(()) };
        if conditions.if_last.is_none() && conditions.sequence.is_none() {
            return Ok(());
        }
        let last = self.last(*slot);
        if conditions.if_last.is_some_and(|wanted| wanted != last) {
            let first = submitted.batch.named().next().expect("it has a slot");
            return Err(self.other_last(first, last));
        }
        if conditions.sequence.is_some_and(|chosen| chosen <= last) {
            return Err(Error::SequenceOrder { last });
        }
        Ok(())
    }

    fn other_last(&self, Key { timeline, .. }: Key<'_>, last: Sequence) -> Error {
        let store = self.ground.known.store_name(timeline.store);
        Error::LastSequence { store, timeline: timeline.name.to_vec(), last }
    }

    /// The last sequence given to a slot.
    fn last(&mut self, slot: SlotId) -> Sequence {
        self.made.allocator.last(slot, self.ground.memtable)
    }

    /// The end of a timeline that a batch was decided on. The timeline gets no slot for this.
    fn last_of(&mut self, basis: &Basis, hints: Option<&Hints>, number: usize) -> Result<Sequence> {
        let key = basis.key();
        match self.slot_of(key, hints, number) {
            Some(slot) => Ok(self.last(slot)),
            None => Ok(self.end_of(key, hints, number)?.last),
        }
    }

    /// The results of a caller's look-ups, unless the memtable was sealed since then.
    fn hints<'h>(&self, submitted: &Submission, hints: &'h Hints) -> Option<&'h Hints> {
        submitted.is_under(self.ground.memtable).then_some(hints)
    }

    /// The slot of a timeline, if it has one.
    fn slot_of(&self, key: Key<'_>, hints: Option<&Hints>, number: usize) -> Option<SlotId> {
        let slot = hints.and_then(|hints| hints.slot(number));
        // It may have got one since its caller looked.
        slot.or_else(|| self.ground.memtable.find(key))
    }

    /// The end of a timeline without a slot.
    fn end_of(&self, key: Key<'_>, hints: Option<&Hints>, number: usize) -> Result<End> {
        match hints.and_then(|hints| hints.end(number)) {
            Some(end) => Ok(end),
            None => self.ground.known.end_of(key),
        }
    }

    /// A sequence for each append: the chosen one for the first, if one was chosen, otherwise the
    /// next.
    fn sequences(&mut self, batch: &Prepared, slots: &[SlotId]) -> Result<Sequences> {
        let (allocator, memtable) = (&mut self.made.allocator, self.ground.memtable);
        let mark = allocator.mark();
        let mut sequences = Sequences::with_capacity(slots.len());
        for slot in &slots[..batch.appends()] {
            let given = match batch.conditions.sequence.filter(|_| sequences.is_empty()) {
                Some(chosen) => allocator.take(*slot, memtable, chosen).then_some(chosen),
                None => allocator.next(*slot, memtable),
            };
            let Some(sequence) = given else {
                allocator.fall_back(mark);
                return Err(Error::SequenceExhausted);
            };
            sequences.push(sequence);
        }
        Ok(sequences)
    }

    /// Collects a list that the batch's record has in full, for later records.
    fn stage_list(&mut self, listed: &Listed, slots: &[SlotId], sequences: &[Sequence]) {
        let Listed { after, list, .. } = listed;
        let part = *after..after + list.len();
        self.made.group.list(KnownList {
            at: self.ground.at,
            hash: list.hash(),
            bytes: list.bytes().clone(),
            slots: slots[part.clone()].to_vec(),
            sequences: sequences[part].to_vec(),
        });
    }

    /// Collects the data that step 4 applies.
    fn stage(&mut self, batch: &Prepared, slots: &[SlotId], sequences: &[Sequence]) {
        let (given, ends) = sequences.split_at(batch.appends());
        let Decisions { group, places, ids, .. } = &mut *self.made;
        let tail = group.keep(&batch.tail, || batch.tail.clone());
        let facts = RecordFacts {
            time_ms: self.times.time_ms,
            start_ms: self.times.start_ms,
            chosen: batch.conditions.sequence.is_some(),
            given,
            ends,
            tail: &tail,
        };
        apply(batch.operations(&tail), facts, places, &mut Staging { group, ids, slots });
    }
}

/// A batch's list as its record has it.
fn list_of_record<'a>(listed: &'a Listed, known: Option<&'a KnownList>) -> NewList<'a> {
    let Listed { after, list, .. } = listed;
    match known {
        Some(KnownList { at, hash, sequences, .. }) => {
            NewList::Earlier { at: *at, hash: *hash, after: *after, base: sequences }
        }
        None => NewList::Full(list.bytes(), list.crc()),
    }
}

/// Collects the data that a group applies to the memtable, by slot.
struct Staging<'a> {
    group: &'a mut Group,
    /// The ids of the group.
    ids: &'a mut HashMap<(SlotId, Bytes), IdRecord>,
    /// The slots of the record's timelines, by number.
    slots: &'a [SlotId],
}

impl Sink for Staging<'_> {
    fn body(&mut self, body: Body, is_copy: bool) {
        if is_copy {
            self.group.hold(body.bytes.len());
        }
        self.group.body(body);
    }

    fn entry(&mut self, named: Named<'_>, sequence: Sequence, _: bool) {
        self.group.entry(self.slots[named.number], sequence);
    }

    fn change(&mut self, named: Named<'_>, _: Sequence, effect: Effect, place: CommitPlace) {
        let slot = self.slots[named.number];
        if let Effect::Id(id, record) = &effect {
            self.ids.insert((slot, id.clone()), record.clone());
        }
        self.group.effect(slot, effect, place);
    }
}
