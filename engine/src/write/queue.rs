//! The queue between submitters and the commit thread: the group that fills up while the previous
//! one is written to the disk.
//!
//! Callers do as much of the work as they can here, on their own threads: they look up the ends of
//! timelines that the active memtable does not know, and the use of a client's id. Both results are
//! hints: they count only while the memtable that was active at the look-up is still the active
//! one, since every later commit to the timeline would have left an entry or a slot in it.
//!
//! The size of the group that fills up is limited; while it is above the limit, submitters wait.

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::format::ids::IdRecord;
use crate::ids::Lsn;
use crate::locks::{Condvar, Mutex};
use crate::read::reading::Reading;
use crate::state::State;
use crate::state::view::View;
use crate::timeline::Key;
use crate::write::batch::Prepared;
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
    pub closed: bool,
}

/// The queue between submitters and the commit thread.
#[derive(Default)]
pub struct Queue {
    filling: Mutex<Filling>,
    arrived: Condvar,
    taken: Condvar,
}

impl Queue {
    /// Queues batches in this order; a batch that was refused keeps its error. Waits only while the
    /// group that fills up is above its limit.
    pub fn submit(&self, state: &State, batches: Vec<Result<Prepared>>) -> Vec<Result<Ticket>> {
        let looked_up: Vec<Result<Submitted>> = batches
            .into_iter()
            .map(|batch| batch.and_then(|batch| look_up(state, batch)))
            .collect();
        self.push(looked_up, state.options.group_bytes())
    }

    fn push(&self, looked_up: Vec<Result<Submitted>>, limit: usize) -> Vec<Result<Ticket>> {
        let mut filling = self.filling.lock();
        let mut tickets = Vec::with_capacity(looked_up.len());
        for submitted in looked_up {
            while filling.memory_bytes > limit && !filling.closed {
                self.arrived.notify_one();
                self.taken.wait(&mut filling);
            }
            tickets.push(submitted.and_then(|submitted| {
                if filling.closed { Err(CLOSED) } else { Ok(filling.push(submitted)) }
            }));
        }
        drop(filling);
        self.arrived.notify_one();
        tickets
    }

    /// Asks the commit thread to seal the active memtable after everything submitted so far. The
    /// ticket resolves when this is done.
    pub fn seal(&self) -> Result<Ticket> {
        let mut filling = self.filling.lock();
        if filling.closed {
            return Err(CLOSED);
        }
        filling.seal = true;
        let ticket = filling.push(Submitted::nothing());
        drop(filling);
        self.arrived.notify_one();
        Ok(ticket)
    }

    /// Asks for a group without records after the last one. Nobody waits for it.
    pub fn vouch(&self) {
        self.filling.lock().vouch = true;
        self.arrived.notify_one();
    }

    /// Takes no more batches: the commit thread ends when it has committed the queued ones.
    pub fn close(&self) {
        self.filling.lock().closed = true;
        self.arrived.notify_all();
        self.taken.notify_all();
    }

    /// The next group, as soon as there is one; `None` if the queue is closed and empty.
    pub fn take(&self) -> Option<Filling> {
        let mut filling = self.filling.lock();
        while filling.batches.is_empty() && !filling.vouch {
            if filling.closed {
                return None;
            }
            self.arrived.wait(&mut filling);
        }
        let next = Filling { closed: filling.closed, ..Filling::default() };
        let group = std::mem::replace(&mut *filling, next);
        self.taken.notify_all();
        Some(group)
    }
}

impl Filling {
    fn push(&mut self, submitted: Submitted) -> Ticket {
        self.bytes += submitted.batch.record_bytes_bound();
        self.memory_bytes += submitted.memory_bytes();
        self.batches.push(submitted);
        self.fill.ticket(self.batches.len() - 1)
    }
}

/// Looks up, on the caller's thread, what the active memtable does not know: the ends of timelines,
/// and the use of an id.
fn look_up(state: &State, batch: Prepared) -> Result<Submitted> {
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

#[cfg(all(test, loom))]
mod modelled {
    use std::task::Waker;

    use loom::thread::JoinHandle;

    use super::*;
    use crate::entry::Receipt;

    /// A commit thread that commits nothing and resolves each group. It returns the number of
    /// batches.
    fn commit_all(queue: &Arc<Queue>) -> JoinHandle<usize> {
        let queue = queue.clone();
        loom::thread::spawn(move || {
            let mut committed = 0;
            while let Some(group) = queue.take() {
                let receipt =
                    || Ok(Receipt { time_ms: 1, sequences: Vec::new(), duplicate: false });
                committed += group.batches.len();
                let wakers = group.fill.resolve(group.batches.iter().map(|_| receipt()).collect());
                wakers.into_iter().for_each(Waker::wake);
            }
            committed
        })
    }

    #[test]
    fn every_submitted_batch_is_answered_and_the_commit_thread_ends() {
        loom::model(|| {
            let queue = Arc::new(Queue::default());
            let committer = commit_all(&queue);
            let submitter = loom::thread::spawn({
                let queue = queue.clone();
                move || queue.seal().expect("is open").wait().is_ok()
            });
            assert!(queue.seal().expect("is open").wait().is_ok());
            assert!(submitter.join().expect("no panic"));
            queue.close();
            assert_eq!(committer.join().expect("no panic"), 2);
        });
    }

    /// Pushes two batches into a group that is above its limit with one.
    fn push_two(queue: &Queue) -> Vec<Ticket> {
        let tickets = queue.push((0..2).map(|_| Ok(Submitted::nothing())).collect(), 0);
        tickets.into_iter().flatten().collect()
    }

    #[test]
    fn who_waits_for_room_in_the_group_goes_on_when_it_is_taken() {
        loom::model(|| {
            let queue = Arc::new(Queue::default());
            let committer = commit_all(&queue);
            let tickets = push_two(&queue);
            assert_eq!(tickets.len(), 2);
            tickets.into_iter().for_each(|ticket| assert!(ticket.wait().is_ok()));
            queue.close();
            assert_eq!(committer.join().expect("no panic"), 2);
        });
    }

    #[test]
    fn who_waits_for_room_in_the_group_is_let_go_by_a_close_though_nobody_takes_it() {
        loom::model(|| {
            let queue = Arc::new(Queue::default());
            let submitter = loom::thread::spawn({
                let queue = queue.clone();
                move || push_two(&queue).len()
            });
            queue.close();
            assert!(submitter.join().expect("no panic") < 2);
        });
    }

    #[test]
    fn a_commit_thread_that_waits_is_woken_to_vouch() {
        loom::model(|| {
            let queue = Arc::new(Queue::default());
            let committer = loom::thread::spawn({
                let queue = queue.clone();
                move || queue.take().is_some_and(|group| group.vouch && group.batches.is_empty())
            });
            queue.vouch();
            assert!(committer.join().expect("no panic"));
        });
    }

    #[test]
    fn who_asks_to_vouch_beside_a_batch_and_a_close_keeps_nobody_waiting() {
        loom::model(|| {
            let queue = Arc::new(Queue::default());
            let committer = commit_all(&queue);
            let asker = loom::thread::spawn({
                let queue = queue.clone();
                move || queue.vouch()
            });
            assert!(queue.seal().expect("is open").wait().is_ok());
            queue.close();
            asker.join().expect("no panic");
            assert_eq!(committer.join().expect("no panic"), 1);
        });
    }

    #[test]
    fn a_batch_beside_a_close_is_refused_or_answered() {
        loom::model(|| {
            let queue = Arc::new(Queue::default());
            let committer = commit_all(&queue);
            let submitter = loom::thread::spawn({
                let queue = queue.clone();
                move || queue.seal().map(|ticket| ticket.wait().expect("commits")).is_ok()
            });
            queue.close();
            let taken = submitter.join().expect("no panic");
            assert_eq!(committer.join().expect("no panic"), usize::from(taken));
        });
    }
}
