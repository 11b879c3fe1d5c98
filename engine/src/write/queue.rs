//! The queue before a commit: the group that fills up while the previous one is written to the
//! disk.
//!
//! Callers do as much of the work as they can here, on their own threads: they look up the ends of
//! timelines that the active memtable does not know, and the use of a client's id. Both results are
//! hints: they count only while the memtable that was active at the look-up is still the active
//! one, since every later commit to the timeline would have left an entry or a slot in it.
//!
//! The size of the group that fills up is limited; while it is above the limit, submitters wait.
//!
//! This file does not know how a group is committed.

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::format::ids::IdRecord;
use crate::ids::Lsn;
use crate::locks::{Condvar, Mutex};
use crate::read::reading::Reading;
use crate::state::State;
use crate::state::view::View;
use crate::timeline::Key;
use crate::write::batch::{Batch, Prepared};
use crate::write::sequence::EndHint;
use crate::write::ticket::{Fill, Ticket};

const CLOSED: Error = Error::Closed { what: "the engine is closed: no more batches are taken" };

/// A submitted batch, with the results of its submitter's look-ups.
pub struct Submitted {
    pub batch: Prepared,
    /// For each timeline that had no slot in the active memtable: its end.
    pub hints: Vec<Option<EndHint>>,
    /// The same for each timeline that the batch was decided on.
    pub basis_hints: Vec<Option<EndHint>>,
    /// The earlier use of its id, as far as the active memtable does not know it.
    pub id: Option<IdHint>,
}

impl Submitted {
    pub fn nothing() -> Submitted {
        let batch = Prepared::nothing();
        Submitted { batch, hints: Vec::new(), basis_hints: Vec::new(), id: None }
    }

    fn memory_bytes(&self) -> usize {
        let batch = &self.batch;
        size_of::<Submitted>()
            + batch.tail.len()
            + size_of_val(batch.targets.as_slice())
            + size_of_val(batch.changes.as_slice())
            + size_of_val(batch.bodies.as_slice())
            + self.hints.len() * size_of::<Option<EndHint>>()
    }
}

/// The result of a look-up of an id, which counts only while the same memtable is active.
pub struct IdHint {
    pub memtable: Lsn,
    pub found: Option<IdRecord>,
}

/// The group that fills up.
#[derive(Default)]
pub struct Filling {
    pub batches: Vec<Submitted>,
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
        looked_up: impl IntoIterator<Item = Result<Submitted>>,
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
        let ticket = arrivals.push(Submitted::nothing())?;
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
    fn push(&mut self, submitted: Submitted) -> Result<Ticket> {
        if self.closed { Err(CLOSED) } else { Ok(self.group.push(submitted)) }
    }
}

impl Filling {
    /// Whether there is nothing to do for it.
    fn is_empty(&self) -> bool {
        self.batches.is_empty() && !self.vouch
    }

    fn push(&mut self, submitted: Submitted) -> Ticket {
        self.bytes += submitted.batch.record_bytes_bound();
        self.memory_bytes += submitted.memory_bytes();
        self.batches.push(submitted);
        self.fill.ticket(self.batches.len() - 1)
    }
}

/// Does the caller's part of a commit: prepares a batch, and looks up what the active memtable does
/// not know, the ends of timelines and the use of an id.
pub fn prepare(state: &State, batch: Batch) -> Result<Submitted> {
    let batch = batch.prepare(state.instance, &state.options, &state.hasher)?;
    let view = state.view.load();
    let memtable = view.active.from();
    let hint = |key| -> Result<Option<EndHint>> {
        if view.active.find(key).is_some() {
            return Ok(None);
        }
        let end = Reading::for_commit(state, &view, key).end()?;
        Ok(Some(EndHint { memtable, end }))
    };
    let mut hints = Vec::new();
    for (place, key) in batch.timelines().enumerate() {
        if let Some(hint) = hint(key)? {
            hints.resize(place + 1, None);
            hints[place] = Some(hint);
        }
    }
    let basis_hints = batch.bases.iter().map(|basis| hint(basis.key())).collect::<Result<_>>()?;
    let id = match &batch.id {
        Some((id, _)) => {
            Some(IdHint { memtable, found: find_id(state, &view, &batch, &batch.slice(id))? })
        }
        None => None,
    };
    Ok(Submitted { batch, hints, basis_hints, id })
}

/// The earlier use of a batch's id, as far as the view knows.
pub fn find_id(
    state: &State,
    view: &View,
    batch: &Prepared,
    id: &[u8],
) -> Result<Option<IdRecord>> {
    let first = &batch.targets[0];
    let key = Key { timeline: batch.timeline(first.store, &first.name), hash: first.hash };
    Reading::for_commit(state, view, key).id(id, state.remembered_from_ms())
}
