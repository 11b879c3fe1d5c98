//! The write path: from a batch to a durable, visible entry (P1, P2, P3, P4).
//!
//! ```text
//!  callers ──submit──> queue: the group that fills up ──take──> commit thread ──resolve──> tickets
//!
//!  1. make room: seal the memtable if it is full, or if its lifetimes began later
//!     than these; change to the next log file
//!  2. give each append its sequence, encode one record per batch    nothing visible or durable
//!  3. write the group; sync it if one of its batches asked for it   durable
//!  4. apply it to the memtable, and publish it                      visible
//!  5. mark watches, resolve tickets, hand over their wakers         known to callers
//! ```
//!
//! While one group is written to the disk, the next one fills up: this is group commit, and there
//! is no timer. Callers do as much of the work as they can: they copy, checksum and hash when they
//! build and prepare a batch, and look up the end of a cold timeline when they submit it. Only the
//! commit thread gives sequences and writes to the log and the memtable, so none of these needs a
//! lock against another writer.
//!
//! A group that could not be written because the disk is full is refused as a whole: its sequences
//! are taken back, and at most empty slots remain. If it contains batches that only trim or remove,
//! the reserve is given back to them and the group is committed again; batches that add data are
//! refused until the reserve is in place. After any other failure of a write or a sync, the state
//! of the disk is unknown, and the engine is poisoned.
//!
//! This file does not know sockets, the names of stores, or how segments are read.

use std::collections::HashMap;
use std::convert::Infallible;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::Waker;

use bytes::Bytes;

use crate::clock::SLACK_MS;
use crate::entry::Receipt;
use crate::error::{Error, Failure, Result};
use crate::ids::{CommitPlace, FileNumber, Lsn, Sequence, TimeMs};
use crate::memtable::{Body, Effect, Group, IdRecord, Memtable, SlotId};
use crate::read::reading::Reading;
use crate::state::State;
use crate::timeline::{End, Key, Times};
use crate::wal::Wal;
use crate::write::apply::{CommitPlaces, Named, RecordFacts, Sink, apply};
use crate::write::batch::{Basis, Durability, Prepared};
use crate::write::queue::{Filling, Queue, Submitted, find_id};
use crate::write::relaxed;
use crate::write::sequence::{Allocator, EndHint};

/// The data of the commit thread.
pub struct Committer {
    pub(super) state: Arc<State>,
    queue: Arc<Queue>,
    pub(super) wal: Wal,
    pub(super) memtable: Arc<Memtable>,
    pub(super) allocator: Allocator,
    /// The part that is applied when the group is durable.
    group: Group,
    /// The places of the group's bodies and edits.
    places: CommitPlaces,
    /// A log file that is in use and that the manifest does not name yet.
    pub(super) unnamed_file: Option<FileNumber>,
    /// The start of the lifetimes of the last group.
    last_start_ms: TimeMs,
    /// The ids of the group under construction.
    ids: HashMap<(SlotId, Bytes), IdRecord>,
    /// Whether merging is so far behind that commits wait for it.
    pub(super) is_merge_behind: fn(&State) -> bool,
    /// The stores that a power cut may set back.
    pub(super) relaxed: relaxed::Noted,
}

impl Committer {
    /// A committer that continues after the end of the log that recovery found.
    pub fn new(
        state: Arc<State>,
        queue: Arc<Queue>,
        wal: Wal,
        is_merge_behind: fn(&State) -> bool,
    ) -> Committer {
        let last_start_ms = state.now_ms();
        let memtable = state.view.load().active.clone();
        let committer = Committer {
            state,
            queue,
            wal,
            memtable,
            allocator: Allocator::default(),
            group: Group::default(),
            places: CommitPlaces::default(),
            unnamed_file: None,
            last_start_ms,
            ids: HashMap::new(),
            is_merge_behind,
            relaxed: relaxed::Noted::default(),
        };
        committer.tell_unvouched();
        committer
    }

    /// Commits one group after another until the queue is closed.
    pub fn run(mut self) {
        let state = self.state.clone();
        while let Some(group) = self.queue.take() {
            let outcomes = guarded(&state, || self.commit_and_seal(&group))
                .unwrap_or_else(|error| refuse_all(&group, &error));
            state.wake.hand_over(group.fill.resolve(outcomes));
        }
    }

    /// Commits a group, and counts its refusals. If the disk is full and a batch only frees space,
    /// the reserve is used for it.
    fn commit(&mut self, group: &Filling) -> Vec<Result<Receipt>> {
        let outcomes = self.commit_or_free(group);
        for error in outcomes.iter().filter_map(|outcome| outcome.as_ref().err()) {
            self.state.refusals.note(error, self.state.clock.monotonic());
        }
        outcomes
    }

    fn commit_or_free(&mut self, group: &Filling) -> Vec<Result<Receipt>> {
        let had_reserve = self.state.reserve.bytes() > 0;
        let outcomes = self.commit_once(group);
        let refused = |(submitted, outcome): (&Submitted, &Result<Receipt>)| {
            submitted.batch.frees_only()
                && !submitted.batch.is_nothing()
                && matches!(outcome, Err(Error::DiskFull { .. }))
        };
        // A group that found the disk full was refused as a whole and changed nothing. Another path
        // may have given the reserve back meanwhile.
        let reserve = &self.state.reserve;
        if group.batches.iter().zip(&outcomes).any(refused) && (reserve.give_back() || had_reserve)
        {
            return self.commit_once(group);
        }
        outcomes
    }

    /// Steps 1 to 5 of the heading, without the tickets.
    fn commit_once(&mut self, group: &Filling) -> Vec<Result<Receipt>> {
        // Checked once, so that the stores noted below are those of the batches that are recorded.
        let may_add = self.state.reserve.check();
        let mut moment = self.state.times.moment();
        let room_ms = self.start_ms(moment.1);
        match self.prepare(group, room_ms, may_add.is_ok()) {
            // A lifetime begins at the commit.
            Ok(true) => moment = self.state.times.moment(),
            Ok(false) => {}
            Err(error) => return refuse_all(group, &error),
        }
        let state = self.state.clone();
        let _no_drop = state.turns.dropping.read();
        self.ids.clear();
        let at = self.wal.end();
        self.places = CommitPlaces::new(at);
        // The memtable accepts no start below the one that room was made for.
        let (time_ms, now_ms) = moment;
        let start_ms = self.start_ms(now_ms).max(room_ms);
        let times = Times::new(time_ms, start_ms, 0);
        let outcomes: Vec<_> =
            group.batches.iter().map(|submitted| self.record(submitted, times, &may_add)).collect();
        if let Err(failure) = self.log(group) {
            self.allocator.fall_back(0);
            self.group.clear();
            return refuse_all(group, &self.state.failed(failure));
        }
        if !self.wal.group().is_empty() {
            self.state.times.committed_at(times.time_ms, start_ms);
            self.memtable.started_at(start_ms);
            self.last_start_ms = start_ms;
        }
        let leaves_history = self.group.leaves_history();
        let settled = if leaves_history { self.state.view.settled() } else { Lsn(0) };
        let bodies = self.memtable.apply(&mut self.group, at, settled);
        self.state.view.publish(self.wal.end(), bodies);
        self.allocator.settle();
        // The group is committed: a failure from here on changes no outcome.
        let mut woken = Vec::new();
        let _poisoned = guarded(&self.state, || self.publish(group, &outcomes, &mut woken));
        self.state.wake.hand_over(woken);
        outcomes
    }

    /// Step 1. Whether it took long: it waited, or wrote to the disk.
    fn prepare(&mut self, group: &Filling, start_ms: TimeMs, may_add: bool) -> Result<bool> {
        self.state.poison.check()?;
        let made_room = self.make_room(group.bytes, start_ms)?;
        Ok(self.note_relaxed(group, may_add)? || made_room)
    }

    /// The start of a group's lifetimes. If the clock is set back by at most `SLACK_MS`, it is not
    /// below that of the previous group.
    fn start_ms(&self, now_ms: TimeMs) -> TimeMs {
        if self.last_start_ms.saturating_sub(now_ms) <= SLACK_MS {
            now_ms.max(self.last_start_ms)
        } else {
            now_ms
        }
    }

    /// Commits a group, and then seals or vouches if a caller asked for it. A seal that failed is
    /// reported only to the callers that asked for it: the batches are committed.
    fn commit_and_seal(&mut self, group: &Filling) -> Vec<Result<Receipt>> {
        let mut outcomes = if group.batches.is_empty() { Vec::new() } else { self.commit(group) };
        // If the group has batches, the vouching is left out: the next group vouches for them, or
        // the expiry thread asks again.
        if group.vouch && group.batches.is_empty() {
            match self.vouch() {
                Ok(()) | Err(Failure::Refused(_)) => {}
                Err(failure) => drop(self.state.failed(failure)),
            }
        }
        if group.seal {
            let state = self.state.clone();
            let sealed = state.poison.check().and_then(|()| {
                let is_done = self.is_all_flushed();
                if is_done { Ok(()) } else { guarded(&state, || self.seal_and_leave()).flatten() }
            });
            if let Err(error) = sealed {
                let askers = group
                    .batches
                    .iter()
                    .zip(&mut outcomes)
                    .filter(|(submitted, _)| submitted.batch.is_nothing());
                askers.for_each(|(_, outcome)| *outcome = Err(error.clone()));
            }
        }
        self.tell_unvouched();
        outcomes
    }

    /// Step 2, for one batch. A refused batch takes no sequence and writes nothing.
    fn record(
        &mut self,
        submitted: &Submitted,
        times: Times,
        may_add: &Result<()>,
    ) -> Result<Receipt> {
        let (batch, time_ms) = (&submitted.batch, times.time_ms);
        if batch.is_nothing() {
            return Ok(Receipt { time_ms, sequences: Vec::new(), duplicate: false });
        }
        if !batch.frees_only() {
            // This check is first: batches that are refused again and again must not leave slots in
            // a memtable that cannot be flushed.
            may_add.clone()?;
        }
        self.check_stores(batch)?;
        let slots = self.slots(submitted)?;
        if let Some(receipt) = self.retry(submitted, &slots)? {
            return Ok(receipt);
        }
        self.check(submitted, slots.first())?;
        let mut sequences = self.sequences(batch, &slots)?;
        let (given, chosen) = (sequences.len(), batch.conditions.sequence.is_some());
        // The ends of the timelines that the batch changes follow, for a recovery that cannot look
        // them up.
        sequences
            .extend(slots[given..].iter().map(|slot| self.allocator.last(*slot, &self.memtable)));
        self.wal.group().record(
            (time_ms, times.start_ms),
            &sequences,
            chosen,
            &batch.tail,
            batch.tail_crc,
        );
        self.stage(batch, times, &slots, &sequences);
        sequences.truncate(given);
        Ok(Receipt { time_ms, sequences, duplicate: false })
    }

    /// An error if a store that the batch concerns was dropped since it was queued.
    fn check_stores(&self, batch: &Prepared) -> Result<()> {
        let mut known = None;
        for store in batch.stores().chain(batch.bases.iter().map(|basis| basis.store)) {
            // The targets of a fan-out in one store are adjacent: one check covers all of them.
            if known.replace(store) != Some(store) {
                self.state.check_store(store)?;
            }
        }
        Ok(())
    }

    /// The slots of all timelines of a batch in the active memtable, created where there are none.
    fn slots(&self, submitted: &Submitted) -> Result<Vec<SlotId>> {
        let batch = &submitted.batch;
        let slot = |(place, key): (usize, Key<'_>)| {
            if let Some(slot) = self.memtable.find(key) {
                return Ok(slot);
            }
            let end = self.end_of(key, submitted.hints.get(place).copied().flatten())?;
            Ok(self.memtable.insert(key, end))
        };
        batch.timelines().enumerate().map(slot).collect()
    }

    /// The original receipt, if the batch's id was used within the window.
    fn retry(&self, submitted: &Submitted, slots: &[SlotId]) -> Result<Option<Receipt>> {
        let batch = &submitted.batch;
        let Some(id) = &batch.id else { return Ok(None) };
        let bytes = batch.slice(&id.id);
        let here = self.ids.get(&(slots[0], bytes.clone())).cloned();
        let found = match here.or_else(|| self.memtable.id_in(slots[0], &bytes)) {
            Some(found) => Some(found),
            None => match &submitted.id {
                Some(hint) if hint.memtable == self.memtable.from() => hint.found.clone(),
                _ => find_id(&self.state, &self.state.view.load(), batch, id)?,
            },
        };
        let Some(found) = found.filter(|found| self.state.remembers(found.start_ms)) else {
            return Ok(None);
        };
        found.receipt((id.body_hash, id.targets_hash)).map(Some)
    }

    fn check(&mut self, submitted: &Submitted, first: Option<&SlotId>) -> Result<()> {
        for (basis, hint) in submitted.batch.bases.iter().zip(&submitted.basis_hints) {
            let last = self.last_of(basis, *hint)?;
            if last != basis.last {
                return Err(Error::LastSequence { last });
            }
        }
        let conditions = &submitted.batch.conditions;
        let Some(slot) = first else { return Ok(()) };
        if conditions.if_last.is_none() && conditions.sequence.is_none() {
            return Ok(());
        }
        let last = self.allocator.last(*slot, &self.memtable);
        if conditions.if_last.is_some_and(|wanted| wanted != last) {
            return Err(Error::LastSequence { last });
        }
        if conditions.sequence.is_some_and(|chosen| chosen <= last) {
            return Err(Error::SequenceOrder { last });
        }
        Ok(())
    }

    /// The end of a timeline that a batch was decided on. The timeline gets no slot for this.
    fn last_of(&mut self, basis: &Basis, hint: Option<EndHint>) -> Result<Sequence> {
        let key = basis.key();
        if let Some(slot) = self.memtable.find(key) {
            return Ok(self.allocator.last(slot, &self.memtable));
        }
        Ok(self.end_of(key, hint)?.last)
    }

    /// The end of a timeline without a slot: the one that its caller found, unless the memtable was
    /// sealed since then.
    fn end_of(&self, key: Key<'_>, hint: Option<EndHint>) -> Result<End> {
        match hint.and_then(|hint| hint.under(&self.memtable)) {
            Some(end) => Ok(end),
            None => Reading::for_commit(&self.state, &self.state.view.load(), key).end(),
        }
    }

    /// A sequence for each append: the chosen one for the first, if one was chosen, otherwise the
    /// next.
    fn sequences(&mut self, batch: &Prepared, slots: &[SlotId]) -> Result<Vec<Sequence>> {
        let mark = self.allocator.mark();
        let mut sequences = Vec::with_capacity(batch.targets.len());
        for slot in &slots[..batch.targets.len()] {
            let given = match batch.conditions.sequence.filter(|_| sequences.is_empty()) {
                Some(chosen) => {
                    self.allocator.take(*slot, &self.memtable, chosen).then_some(chosen)
                }
                None => self.allocator.next(*slot, &self.memtable),
            };
            let Some(sequence) = given else {
                self.allocator.fall_back(mark);
                return Err(Error::SequenceExhausted);
            };
            sequences.push(sequence);
        }
        Ok(sequences)
    }

    /// Collects the data that step 4 applies.
    fn stage(&mut self, batch: &Prepared, times: Times, slots: &[SlotId], sequences: &[Sequence]) {
        let (given, ends) = sequences.split_at(batch.targets.len());
        let facts = RecordFacts {
            time_ms: times.time_ms,
            start_ms: times.start_ms,
            chosen: batch.conditions.sequence.is_some(),
            given,
            ends,
            tail: &batch.tail,
        };
        self.group.hold(batch.tail.len());
        let mut staging = Staging { group: &mut self.group, ids: &mut self.ids, slots };
        let Ok(()) = apply(batch.operations(), facts, &mut self.places, &mut staging);
    }

    /// Step 3. A group without a record may still have to make earlier ones durable: a retry is
    /// answered that its append is durable.
    fn log(&mut self, group: &Filling) -> Result<(), Failure> {
        let counters = &self.state.counters;
        if !self.wal.group().is_empty() {
            counters.groups.add(1);
            counters.wal_bytes.add(self.wal.group().len() as u64);
            self.wal.write_group()?;
        }
        let is_asked =
            group.batches.iter().any(|submitted| submitted.batch.durability == Durability::Disk);
        if is_asked && self.wal.is_unsynced() {
            counters.wal_syncs.add(1);
            let start = self.state.clock.monotonic();
            self.wal.sync()?;
            let end = self.state.clock.monotonic();
            counters.sync_times.add(end, end.saturating_sub(start));
        }
        Ok(())
    }

    /// Step 5, without the tickets: everything is visible now.
    fn publish(&self, group: &Filling, outcomes: &[Result<Receipt>], woken: &mut Vec<Waker>) {
        let committed = group.batches.iter().zip(outcomes).filter(|(_, outcome)| outcome.is_ok());
        let (mut entries, mut body_bytes) = (0, 0);
        let idle = self.state.watch.is_idle();
        for (submitted, _) in committed {
            entries += submitted.batch.targets.len() as u64;
            body_bytes += submitted.batch.body_bytes();
            if !idle {
                let batch = &submitted.batch;
                batch.timelines().for_each(|key| self.state.watch.publish(key.timeline, woken));
            }
        }
        self.state.counters.batches.add(group.batches.len() as u64);
        self.state.counters.entries.add(entries);
        self.state.counters.body_bytes.add(body_bytes);
    }
}

/// The data that a group applies to the memtable, by slot.
struct Staging<'a> {
    group: &'a mut Group,
    /// The ids of the group under construction.
    ids: &'a mut HashMap<(SlotId, Bytes), IdRecord>,
    /// The slots of the record's timelines, by number.
    slots: &'a [SlotId],
}

impl Sink for Staging<'_> {
    type Error = Infallible;

    fn body(&mut self, body: Body, is_copy: bool) {
        if is_copy {
            self.group.hold(body.bytes.len());
        }
        self.group.body(body);
    }

    fn entry(&mut self, named: Named<'_>, sequence: Sequence, _: bool) -> Result<(), Infallible> {
        self.group.entry(self.slots[named.number], sequence);
        Ok(())
    }

    fn change(
        &mut self,
        named: Named<'_>,
        _: Sequence,
        effect: Effect,
        place: CommitPlace,
    ) -> Result<(), Infallible> {
        let slot = self.slots[named.number];
        if let Effect::Id(id, record) = &effect {
            self.ids.insert((slot, id.clone()), record.clone());
        }
        self.group.effect(slot, effect, place);
        Ok(())
    }
}

/// Runs a step. A panic in it is a broken invariant: this and all later groups are refused, so that
/// nobody waits for them in vain.
fn guarded<T>(state: &State, step: impl FnOnce() -> T) -> Result<T> {
    catch_unwind(AssertUnwindSafe(step)).map_err(|_| {
        let error = Error::Poisoned { why: "the commit thread panicked".into() };
        state.poison.set(&error);
        error
    })
}

fn refuse_all(group: &Filling, error: &Error) -> Vec<Result<Receipt>> {
    group.batches.iter().map(|_| Err(error.clone())).collect()
}
