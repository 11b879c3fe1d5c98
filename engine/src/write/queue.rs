//! The queue before a commit: the group that fills up while the previous one is written to the
//! disk.
//!
//! Callers do as much of the work as they can here, on their own threads: they look up the ends of
//! timelines that the active memtable does not know, and the use of a client's id. Both results are
//! hints: they count only while the memtable that was active at the look-up is still the active
//! one, since every later commit to the timeline would have left an entry or a slot in it. A caller
//! that must not wait for the disk looks up what is in memory, and learns whether that is all.
//!
//! The size of the group that fills up is limited; while it is above the limit, submitters wait.
//!
//! This file does not know how a group is committed.

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::format::ids::IdRecord;
use crate::ids::{Instance, Lsn};
use crate::locks::{Condvar, Mutex};
use crate::read::reading::Reading;
use crate::state::State;
use crate::state::view::View;
use crate::timeline::Key;
use crate::write::batch::{Batch, Prepared};
use crate::write::sequence::EndHint;
use crate::write::ticket::{Fill, Ticket};

const CLOSED: Error = Error::Closed { what: "the engine is closed: no more batches are taken" };

/// A batch that is ready to be queued: encoded, with a checksum, and with the ends of its timelines
/// as far as they were looked up. See [`Engine::prepare`](crate::Engine::prepare).
#[derive(Debug, Default)]
pub struct Submission {
    pub(crate) batch: Prepared,
    /// The opening of the engine that it was prepared for.
    pub(crate) instance: Instance,
    /// For each timeline that had no slot in the active memtable: its end.
    pub(crate) hints: Vec<Option<EndHint>>,
    /// The same for each timeline that the batch was decided on.
    pub(crate) basis_hints: Vec<Option<EndHint>>,
    /// The earlier use of its id, as far as the active memtable does not know it.
    pub(crate) id: Option<IdHint>,
    is_cold: bool,
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

    /// Looks up what the active memtable does not know: the ends of timelines and the use of an id.
    /// If it may not read the disk, what would need this stays unknown.
    pub(crate) fn look_up(&mut self, state: &State, may_read: bool) -> Result<()> {
        let (batch, view) = (&self.batch, state.view.load());
        let memtable = view.active.from();
        let mut is_cold = false;
        let mut hint = |key| -> Result<Option<EndHint>> {
            if view.active.find(key).is_some() {
                return Ok(None);
            }
            let reading = Reading::for_commit(state, &view, key);
            if !may_read && !reading.is_end_near()? {
                is_cold = true;
                return Ok(None);
            }
            Ok(Some(EndHint { memtable, end: reading.end()? }))
        };
        let mut hints = Vec::new();
        for (place, key) in batch.timelines().enumerate() {
            if let Some(hint) = hint(key)? {
                hints.resize(place + 1, None);
                hints[place] = Some(hint);
            }
        }
        let bases = batch.bases.iter().map(|basis| hint(basis.key()));
        self.basis_hints = bases.collect::<Result<_>>()?;
        self.hints = hints;
        if let Some((id, _)) = &batch.id {
            let reading = Reading::for_commit(state, &view, first_of(batch));
            let id = batch.slice(id);
            let from_ms = state.remembered_from_ms();
            if may_read || reading.is_id_near(&id, from_ms) {
                self.id = Some(IdHint { memtable, found: reading.id(&id, from_ms)? });
            } else {
                is_cold = true;
            }
        }
        self.is_cold = is_cold;
        Ok(())
    }

    fn memory_bytes(&self) -> usize {
        let batch = &self.batch;
        size_of::<Submission>()
            + batch.tail.len()
            + size_of_val(batch.targets.as_slice())
            + size_of_val(batch.changes.as_slice())
            + size_of_val(batch.bodies.as_slice())
            + self.hints.len() * size_of::<Option<EndHint>>()
    }
}

/// The result of a look-up of an id, which counts only while the same memtable is active.
#[derive(Debug)]
pub struct IdHint {
    pub memtable: Lsn,
    pub found: Option<IdRecord>,
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
    /// Whether a caller wants the memtable sealed after this group.
    pub seal: bool,
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
    /// Whether the commit thread was called for the group.
    called: bool,
    closed: bool,
}

impl Queue {
    /// Adds batches in this order; a batch that was refused keeps its error. Waits while the group
    /// that fills up is above its limit. If `call` is false, the caller commits the group, or waits
    /// until somebody else does.
    pub fn push(
        &self,
        looked_up: impl IntoIterator<Item = Result<Submission>>,
        limit: usize,
        call: bool,
    ) -> Vec<Result<Ticket>> {
        let mut arrivals = self.arrivals.lock();
        let mut tickets = Vec::new();
        for submitted in looked_up {
            while arrivals.group.memory_bytes > limit && !arrivals.closed {
                self.call(&mut arrivals);
                self.taken.wait(&mut arrivals);
            }
            tickets.push(submitted.and_then(|submitted| arrivals.push(submitted)));
        }
        if call {
            self.call(&mut arrivals);
        }
        tickets
    }

    /// Asks for the active memtable to be sealed after everything submitted so far. The ticket
    /// resolves when this is done.
    pub fn seal(&self) -> Result<Ticket> {
        let mut arrivals = self.arrivals.lock();
        let ticket = arrivals.push(Submission::nothing())?;
        arrivals.group.seal = true;
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
        Some(std::mem::take(&mut arrivals.group))
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
    fn push(&mut self, submitted: Submission) -> Result<Ticket> {
        if self.closed { Err(CLOSED) } else { Ok(self.group.push(submitted)) }
    }
}

impl Filling {
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
    let batch = batch.prepare(state.instance, &state.options, &state.hasher)?;
    Ok(Submission { batch, instance: state.instance, ..Submission::default() })
}

/// The same with look-ups, for a caller that may wait for the disk.
pub fn prepare_and_look_up(state: &State, batch: Batch) -> Result<Submission> {
    let mut submission = prepare(state, batch)?;
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
    Reading::for_commit(state, view, first_of(batch)).id(id, state.remembered_from_ms())
}

/// The timeline in which the use of a batch's id is recorded.
fn first_of(batch: &Prepared) -> Key<'_> {
    let first = &batch.targets[0];
    Key { timeline: batch.timeline(first.store, &first.name), hash: first.hash }
}
