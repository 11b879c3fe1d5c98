//! The queue before a commit: the group that fills up while the previous one is written to the
//! disk.
//!
//! Callers do as much of the work as they can here, on their own threads: they look up the slots of
//! timelines in the active memtable, the ends of those that it does not know, and the use of a
//! client's id. The results are hints: they count only while the memtable that was active at the
//! look-up is still the active one, since every later commit to the timeline would have left an
//! entry or a slot in it. A caller that must not wait for the disk looks up what is in memory, and
//! learns whether that is all.
//!
//! The size of the group that fills up is limited; while it is above the limit, submitters wait.
//!
//! This file does not know how a group is committed.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use crate::error::{Error, Result};
use crate::format::ids::IdRecord;
use crate::ids::Instance;
use crate::locks::{Condvar, Guard, Mutex};
use crate::memtable::Memtable;
use crate::read::reading::Reading;
use crate::state::State;
use crate::state::turns::Turn;
use crate::state::view::View;
use crate::timeline::Key;
use crate::write::batch::{Batch, Change, Listed, Prepared};
use crate::write::hints::{Hints, IdHint};
use crate::write::removal;
use crate::write::ticket::{Fill, Ticket};

const CLOSED: Error = Error::Closed { what: "the engine is closed: no more batches are taken" };

/// The number of committed groups whose memory is kept: their tickets are gone soon.
const SPARE_GROUPS: usize = 4;

/// The memory that an entry of a list's target takes while its group is committed: its place in the
/// changes of the memtable, its slot, and its sequence, three times.
const LISTED_ENTRY_BYTES: usize = 80;

/// The number of batches for which a spare group keeps memory.
const SPARE_BATCHES: usize = 1024;

/// A batch that is ready to be queued: encoded, with a checksum, and with the ends of its timelines
/// as far as they were looked up. See [`Engine::prepare`](crate::Engine::prepare).
#[derive(Debug, Default)]
pub struct Submission {
    pub(crate) batch: Prepared,
    /// The opening of the engine that it was prepared for.
    pub(crate) instance: Instance,
    /// The memtable that was active at the look-ups.
    pub(crate) memtable: Weak<Memtable>,
    /// The timelines that it names, in their order.
    pub(crate) hints: Hints,
    /// The timelines of its list, unless the memtable knows the list.
    pub(crate) list_hints: Hints,
    /// The timelines that it was decided on.
    pub(crate) basis_hints: Hints,
    /// The earlier use of its id, as far as the active memtable does not know it.
    pub(crate) id: Option<IdHint>,
    pub(crate) is_cold: bool,
    /// Its turn to change the timelines that it removes from, until the commit is visible.
    #[expect(dead_code, reason = "it is held, not read")]
    pub(crate) turn: Option<Turn>,
}

impl Submission {
    /// Whether something that the commit needs must be read from the disk: the end of a timeline,
    /// or the use of an id. [`Engine::look_up`](crate::Engine::look_up) does this. Without it, the
    /// commit does it, while all other commits wait.
    pub fn is_cold(&self) -> bool {
        self.is_cold
    }

    /// Refuses a batch that was prepared for another opening of an engine.
    pub(crate) fn of(self, instance: Instance) -> Result<Submission> {
        if self.instance == instance { Ok(self) } else { Err(Error::foreign_store()) }
    }

    pub(crate) fn nothing() -> Submission {
        Submission { batch: Prepared::nothing(), ..Submission::default() }
    }

    /// Whether the results of the look-ups count: the memtable that was active then still is. As
    /// long as this exists, no other memtable gets its address.
    pub(crate) fn is_under(&self, active: &Arc<Memtable>) -> bool {
        std::ptr::eq(self.memtable.as_ptr(), Arc::as_ptr(active))
    }

    /// Looks up the slots of timelines. If the active memtable does not know them, also looks up
    /// their ends, and the use of an id; those that need the disk stay unknown if it may not be
    /// read.
    pub(crate) fn look_up(&mut self, state: &State, may_read: bool) -> Result<()> {
        let (batch, view) = (&self.batch, state.view.load());
        let mut is_cold = false;
        let mut add = |hints: &mut Hints, key| -> Result<()> {
            let slot = view.active.find(key);
            hints.slots.push(slot);
            if slot.is_some() {
                return Ok(());
            }
            let reading = Reading::for_commit(&view, key);
            match if may_read { Some(reading.end()?) } else { reading.end_near()? } {
                Some(end) => hints.add_end(end),
                None => is_cold = true,
            }
            Ok(())
        };
        let [mut hints, mut list_hints, mut basis_hints] = <[Hints; 3]>::default();
        hints.slots.reserve(batch.targets.len() + batch.changes.len());
        batch.named().try_for_each(|key| add(&mut hints, key))?;
        if let Some(Listed { list, .. }) = &batch.list
            && view.active.list(list.hash(), list.bytes()).is_none()
        {
            list_hints.slots.reserve(list.len());
            list.keys().try_for_each(|key| add(&mut list_hints, key))?;
        }
        batch.bases.iter().try_for_each(|basis| add(&mut basis_hints, basis.key()))?;
        (self.hints, self.list_hints, self.basis_hints) = (hints, list_hints, basis_hints);
        self.memtable = Arc::downgrade(&view.active);
        if let Some((id, _)) = &batch.id {
            let reading = Reading::for_commit(&view, first_of(batch));
            let id = batch.slice(id);
            let from_ms = state.remembered_from_ms();
            if may_read || reading.is_id_near(&id, from_ms) {
                self.id = Some(IdHint { found: reading.id(&id, from_ms)? });
            } else {
                is_cold = true;
            }
        }
        self.is_cold = is_cold;
        Ok(())
    }

    fn memory_bytes(&self) -> usize {
        let batch = &self.batch;
        // The record may have the list in full, and all records of a group have less than 4 GiB.
        let list_bytes = batch
            .list
            .as_ref()
            .map_or(0, |Listed { list, .. }| list.bytes().len() + list.len() * LISTED_ENTRY_BYTES);
        size_of::<Submission>()
            + batch.tail.len()
            + list_bytes
            + size_of_val(batch.targets.as_slice())
            + batch.changes.iter().map(Change::memory_bytes).sum::<usize>()
            + size_of_val(batch.bodies.as_slice())
            + self.hints.memory_bytes()
            + self.list_hints.memory_bytes()
    }
}

/// What is sealed after a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Seal {
    /// The active memtable.
    Memtable,
    /// The active memtable, and the log file is left, so that after the flush no log is needed.
    Log,
}

/// The group that fills up.
#[derive(Default)]
pub struct Filling {
    pub batches: Vec<Submission>,
    pub fill: Arc<Fill>,
    /// The maximum size of its records in the log.
    pub bytes: usize,
    /// Its size in memory.
    memory_bytes: usize,
    /// What a caller wants sealed after this group.
    pub seal: Option<Seal>,
    /// Whether an empty group is to be written after the last one, to confirm that it was durable.
    pub vouch: bool,
}

/// The queue before a commit.
#[derive(Default)]
pub struct Queue {
    arrivals: Mutex<Arrivals>,
    /// For the commit thread: it is called, or the queue is closed.
    called: Condvar,
    /// For threads that wait for room in the group.
    taken: Condvar,
}

#[derive(Default)]
struct Arrivals {
    group: Filling,
    /// Groups that were committed, whose memory the next ones use.
    spare: VecDeque<Filling>,
    /// Whether the commit thread was called for the group.
    called: bool,
    closed: bool,
}

impl Queue {
    /// Adds batches in this order, and calls the commit thread; a batch that was refused keeps its
    /// error. Waits while the group that fills up is above its limit, if there is one.
    pub fn push_all(
        &self,
        submissions: impl IntoIterator<Item = Result<Submission>>,
        limit: Option<usize>,
    ) -> Vec<Result<Ticket>> {
        let mut tickets = Vec::new();
        let mut arrivals = self.arrivals.lock();
        for submission in submissions {
            tickets.push(submission.and_then(|batch| {
                if let Some(limit) = limit {
                    self.wait_in(&mut arrivals, limit);
                }
                arrivals.push(batch)
            }));
        }
        self.call(&mut arrivals);
        tickets
    }

    /// Adds a batch. If `call` is false, the caller commits the group, or waits until somebody else
    /// does.
    pub fn push(&self, submission: Submission, limit: usize, call: bool) -> Result<Ticket> {
        let mut arrivals = self.arrivals.lock();
        self.wait_in(&mut arrivals, limit);
        let ticket = arrivals.push(submission);
        if call {
            self.call(&mut arrivals);
        }
        ticket
    }

    /// Waits until the group that fills up is not above its limit, or the queue is closed.
    pub fn wait_for_room(&self, limit: usize) {
        self.wait_in(&mut self.arrivals.lock(), limit);
    }

    fn wait_in(&self, arrivals: &mut Guard<'_, Arrivals>, limit: usize) {
        while arrivals.group.memory_bytes > limit && !arrivals.closed {
            self.call(arrivals);
            self.taken.wait(arrivals);
        }
    }

    /// Asks for a seal after everything submitted so far. The ticket resolves when it is done.
    pub fn seal(&self, seal: Seal) -> Result<Ticket> {
        let mut arrivals = self.arrivals.lock();
        let ticket = arrivals.push(Submission::nothing())?;
        arrivals.group.seal = arrivals.group.seal.max(Some(seal));
        self.call(&mut arrivals);
        Ok(ticket)
    }

    /// Asks for a group without records after the last one. Nobody waits for it.
    pub fn vouch(&self) {
        let mut arrivals = self.arrivals.lock();
        arrivals.group.vouch = true;
        self.call(&mut arrivals);
    }

    /// Takes no more batches: the commit thread ends when the queued ones are committed.
    pub fn close(&self) {
        let mut arrivals = self.arrivals.lock();
        arrivals.closed = true;
        self.call(&mut arrivals);
        self.called.notify_one();
        self.taken.notify_all();
    }

    /// Whether the group that fills up is not above its limit.
    pub fn has_room(&self, limit: usize) -> bool {
        self.arrivals.lock().group.memory_bytes <= limit
    }

    /// Calls the commit thread for the group that fills up, once. An empty group is not called for:
    /// the call would be forgotten by the time that it has a batch.
    fn call(&self, arrivals: &mut Arrivals) {
        if !arrivals.group.is_empty() && !std::mem::replace(&mut arrivals.called, true) {
            self.called.notify_one();
        }
    }

    /// Waits until the commit thread is called for a group. False: the queue is closed and empty.
    pub fn wait_for_call(&self) -> bool {
        let mut arrivals = self.arrivals.lock();
        while !arrivals.called {
            if arrivals.closed && arrivals.group.is_empty() {
                return false;
            }
            self.called.wait(&mut arrivals);
        }
        true
    }

    /// The group that fills up, if there is one. With `only`, if it is that one.
    pub fn take(&self, only: Option<&Arc<Fill>>) -> Option<Filling> {
        let mut arrivals = self.arrivals.lock();
        let is_other = |fill| !Arc::ptr_eq(&arrivals.group.fill, fill);
        if arrivals.group.is_empty() || only.is_some_and(is_other) {
            return None;
        }
        arrivals.called = false;
        self.taken.notify_all();
        let next = arrivals.next_group();
        Some(std::mem::replace(&mut arrivals.group, next))
    }

    /// Keeps the memory of a group that was committed for one of the next groups.
    pub fn give_back(&self, mut group: Filling) {
        group.empty();
        let mut arrivals = self.arrivals.lock();
        arrivals.spare.push_back(group);
        let surplus = (arrivals.spare.len() > SPARE_GROUPS).then(|| arrivals.spare.pop_front());
        drop(arrivals);
        drop(surplus);
    }

    /// Finds a thread that commits the group that fills up, if there is one: a thread that waits
    /// for it, otherwise the commit thread.
    pub fn hand_over(&self) {
        let mut arrivals = self.arrivals.lock();
        let is_waiting = !arrivals.group.is_empty() && !arrivals.called;
        if is_waiting && !arrivals.group.fill.offer_role() {
            self.call(&mut arrivals);
        }
    }
}

impl Arrivals {
    /// An empty group, in the memory of an earlier one whose tickets are gone, if there is one.
    fn next_group(&mut self) -> Filling {
        for place in 0..self.spare.len() {
            if let Some(fill) = Arc::get_mut(&mut self.spare[place].fill) {
                fill.reuse();
                return self.spare.remove(place).expect("the place is in the list");
            }
        }
        Filling::default()
    }

    fn push(&mut self, submitted: Submission) -> Result<Ticket> {
        if self.closed { Err(CLOSED) } else { Ok(self.group.push(submitted)) }
    }
}

impl Filling {
    /// Forgets everything but its fill, and keeps its memory.
    fn empty(&mut self) {
        self.batches.clear();
        self.batches.shrink_to(SPARE_BATCHES);
        (self.bytes, self.memory_bytes, self.seal, self.vouch) = (0, 0, None, false);
    }

    /// Whether there is nothing to do for it.
    fn is_empty(&self) -> bool {
        self.batches.is_empty() && !self.vouch
    }

    fn push(&mut self, submitted: Submission) -> Ticket {
        self.bytes += submitted.batch.record_bytes_bound();
        self.memory_bytes += submitted.memory_bytes();
        self.batches.push(submitted);
        self.fill.ticket(self.batches.len() - 1)
    }
}

/// Does the caller's part of a commit for a batch, except look-ups.
pub fn prepare(state: &State, batch: Batch) -> Result<Submission> {
    if batch.has_removals() {
        // Its turn must not wait for another call.
        return Err(Error::invalid(
            "what a trim or a delete removes is found when the batch is queued: use commit, submit \
             or submit_all",
        ));
    }
    let batch = batch.prepare(state.instance, &state.options, &state.hasher)?;
    Ok(Submission { batch, instance: state.instance, ..Submission::default() })
}

/// The same with look-ups, for a caller that may wait for the disk and queues the batch next.
pub fn prepare_and_look_up(state: &State, batch: Batch) -> Result<Submission> {
    let (batch, turn) = if batch.has_removals() {
        let (batch, turn) = removal::find(state, batch)?;
        (batch, Some(turn))
    } else {
        (batch, None)
    };
    let mut submission = Submission { turn, ..prepare(state, batch)? };
    submission.look_up(state, true)?;
    Ok(submission)
}

/// The earlier use of a batch's id, as far as the view knows.
pub fn find_id(
    state: &State,
    view: &View,
    batch: &Prepared,
    id: &[u8],
) -> Result<Option<IdRecord>> {
    Reading::for_commit(view, first_of(batch)).id(id, state.remembered_from_ms())
}

/// The timeline in which the use of a batch's id is recorded.
fn first_of(batch: &Prepared) -> Key<'_> {
    let first = &batch.targets[0];
    Key { timeline: batch.timeline(first.store, &first.name), hash: first.hash }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::ids::{StoreId, StoreKey};
    use crate::options::Options;
    use crate::write::batch::TargetList;

    #[test]
    fn the_room_that_a_batch_takes_in_a_group_includes_its_list() {
        let (instance, id) = (Instance(0), StoreId(1));
        let (store, hasher) = (StoreKey { instance, id }, hashbrown::DefaultHashBuilder::default());
        let names: Vec<String> = (0..10_000).map(|number| format!("user {number:06}")).collect();
        let targets = names.iter().map(|name| (store, name.as_bytes()));
        let list = TargetList::new(instance, &hasher, targets).expect("a list");
        let queue = Queue::default();
        let batch = || Batch::new().fan_out_to_list(b"x", [(store, b"a".as_slice())], &list);
        for _ in 0..3 {
            let batch = batch().prepare(instance, &Options::default(), &hasher).expect("is good");
            let submission = Submission { batch, ..Submission::default() };
            drop(queue.push(submission, usize::MAX, false).expect("is queued"));
        }
        let bytes = list.bytes().len() + list.len() * LISTED_ENTRY_BYTES;
        assert!(!queue.has_room(3 * bytes) && queue.has_room(4 * bytes));
    }

    #[test]
    fn batches_that_must_not_wait_are_taken_above_the_limit_and_others_wait_for_room() {
        const LIMIT: usize = 0;
        let queue = Queue::default();
        assert!(queue.has_room(LIMIT));
        let tickets = queue.push_all((0..3).map(|_| Ok(Submission::nothing())), None);
        assert!(tickets.iter().all(Result::is_ok));
        assert!(!queue.has_room(LIMIT));
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| queue.wait_for_room(LIMIT));
            let group = queue.take(None).expect("it has batches");
            assert_eq!(group.batches.len(), 3);
            waiting.join().expect("there is room");
        });
        assert!(queue.has_room(LIMIT));
    }
}
