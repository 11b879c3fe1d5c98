//! Tickets: the committer reports to all submitters of a group at once the outcome of their
//! batches.
//!
//! A `Fill` is the group that fills up; each ticket has an index in it. Resolving a fill takes one
//! lock and one wake-up of all its waiters, not one per writer. A ticket is a future that needs no
//! runtime; a plain thread can wait for it too.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use crate::entry::Receipt;
use crate::error::Result;
use crate::locks::{Condvar, Mutex};

/// The outcome of a group of batches, once it is known.
#[derive(Default)]
pub(crate) struct Fill {
    state: Mutex<FillState>,
    /// For threads in `Ticket::wait`.
    resolved: Condvar,
    /// For threads in `Ticket::wait_or_lead`: the fill is resolved, or one of them is offered the
    /// committer's role.
    resolved_or_offered: Condvar,
}

#[derive(Default)]
struct FillState {
    is_resolved: bool,
    /// One per batch, if it is resolved; a thread that waits takes its own.
    outcomes: Vec<Option<Result<Receipt>>>,
    wakers: Vec<Waker>,
    /// The threads that sleep in `Ticket::wait_or_lead`.
    would_lead: usize,
    /// Whether one of them is to try to lead.
    offered: bool,
}

impl Fill {
    /// The ticket of the batch that was added with index `place`.
    pub fn ticket(self: &Arc<Fill>, place: usize) -> Ticket {
        Ticket { fill: self.clone(), place, waker: None }
    }

    /// Resolves every ticket, and wakes the threads that wait. Returns the wakers, which the caller
    /// wakes outside the commit path. Called once.
    #[must_use = "wakers that are not woken are forgotten"]
    pub fn resolve(&self, outcomes: impl IntoIterator<Item = Result<Receipt>>) -> Vec<Waker> {
        let wakers = {
            let mut state = self.state.lock();
            assert!(!state.is_resolved, "a fill is resolved once");
            state.is_resolved = true;
            state.outcomes.extend(outcomes.into_iter().map(Some));
            std::mem::take(&mut state.wakers)
        };
        self.resolved.notify_all();
        self.resolved_or_offered.notify_all();
        wakers
    }

    /// Makes a resolved fill, whose tickets are gone, the fill of another group.
    pub fn reuse(&mut self) {
        let mut state = self.state.lock();
        state.outcomes.clear();
        (state.is_resolved, state.offered) = (false, false);
    }

    /// Offers the committer's role to a thread that waits and would lead. False if there is none.
    pub fn offer_role(&self) -> bool {
        let mut state = self.state.lock();
        if state.would_lead == 0 {
            return false;
        }
        state.offered = true;
        self.resolved_or_offered.notify_one();
        true
    }
}

/// Resolves when its batch is durable and visible to every reader, or has failed as a whole.
/// Dropping it does not undo the batch.
///
/// [`Ticket::wait`] blocks a plain thread, and [`Ticket::try_wait`] only looks. As a future, it
/// wakes its waker on the engine's wake thread, where a waker may do anything: append, wait, close
/// the engine, or drop its last handle. A waker that blocks delays other wakers and the stop of the
/// engine, but no append; a waker that panics affects nothing else. With
/// [`Wakers::Short`](crate::Wakers::Short), the thread that committed may wake it.
#[must_use = "a batch is committed only when its ticket says so"]
pub struct Ticket {
    fill: Arc<Fill>,
    place: usize,
    /// The index of this ticket's waker in the fill.
    waker: Option<usize>,
}

const TAKEN: &str = "a ticket that waits is gone afterwards";

impl Ticket {
    /// Blocks until the batch is committed or has failed.
    pub fn wait(self) -> Result<Receipt> {
        let mut state = self.fill.state.lock();
        while !state.is_resolved {
            self.fill.resolved.wait(&mut state);
        }
        state.outcomes[self.place].take().expect(TAKEN)
    }

    /// The outcome of the batch, if it is known yet. It may be asked for again.
    pub fn try_wait(&self) -> Option<Result<Receipt>> {
        self.fill.state.lock().outcome(self.place)
    }

    /// [`Ticket::wait`] for a thread that commits the group itself if nobody else does: `lead` is
    /// called with the group before each wait. After it has taken the role, the group is committed.
    pub(crate) fn wait_or_lead(self, lead: impl Fn(&Arc<Fill>)) -> Result<Receipt> {
        loop {
            lead(&self.fill);
            let mut state = self.fill.state.lock();
            state.would_lead += 1;
            while !state.is_resolved && !std::mem::take(&mut state.offered) {
                self.fill.resolved_or_offered.wait(&mut state);
            }
            state.would_lead -= 1;
            if state.is_resolved {
                return state.outcomes[self.place].take().expect(TAKEN);
            }
        }
    }
}

impl FillState {
    /// A copy of the outcome with an index, if it is resolved.
    fn outcome(&self, place: usize) -> Option<Result<Receipt>> {
        self.is_resolved.then(|| self.outcomes[place].clone().expect(TAKEN))
    }
}

/// A future that was ready may be polled again, and gives the same outcome.
impl Future for Ticket {
    type Output = Result<Receipt>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<Receipt>> {
        let ticket = &mut *self;
        // The waker is cloned before the lock is taken, and the replaced one is dropped after it is
        // released: both run code of the caller.
        let waker = context.waker().clone();
        let mut state = ticket.fill.state.lock();
        if let Some(outcome) = state.outcome(ticket.place) {
            return Poll::Ready(outcome);
        }
        let replaced = if let Some(place) = ticket.waker {
            Some(std::mem::replace(&mut state.wakers[place], waker))
        } else {
            ticket.waker = Some(state.wakers.len());
            state.wakers.push(waker);
            None
        };
        drop(state);
        drop(replaced);
        Poll::Pending
    }
}

impl std::fmt::Debug for Ticket {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "Ticket({})", self.place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn receipt(time_ms: u64) -> Receipt {
        Receipt { time_ms, sequences: vec![1].into(), ..Receipt::default() }
    }

    #[test]
    fn each_ticket_gets_the_outcome_of_its_place() {
        let fill = Arc::new(Fill::default());
        let (first, second) = (fill.ticket(0), fill.ticket(1));
        let waiting = std::thread::spawn(move || second.wait());
        assert!(fill.resolve(vec![Ok(receipt(7)), Err(Error::SequenceExhausted)]).is_empty());
        assert_eq!(first.wait().expect("committed").time_ms, 7);
        assert!(matches!(waiting.join().expect("no panic"), Err(Error::SequenceExhausted)));
    }

    #[test]
    fn a_ticket_polled_twice_wakes_once() {
        let fill = Arc::new(Fill::default());
        let mut ticket = fill.ticket(0);
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(woken.clone());
        let mut context = Context::from_waker(&waker);
        for _ in 0..2 {
            assert!(Pin::new(&mut ticket).poll(&mut context).is_pending());
        }
        assert!(ticket.try_wait().is_none());
        fill.resolve(vec![Ok(receipt(1))]).into_iter().for_each(Waker::wake);
        assert_eq!(woken.0.load(Ordering::SeqCst), 1);
        assert!(ticket.try_wait().is_some_and(|outcome| outcome.is_ok()));
        for _ in 0..2 {
            assert!(Pin::new(&mut ticket).poll(&mut context).is_ready());
        }
        assert_eq!(ticket.wait().expect("committed"), receipt(1));
    }
}

#[cfg(all(test, loom))]
mod modelled {
    use super::*;

    #[test]
    fn one_who_waits_and_one_who_polls_are_told_in_any_order() {
        loom::model(|| {
            let fill = Arc::new(Fill::default());
            let (waited, polled) = (fill.ticket(0), fill.ticket(1));
            let waiting = loom::thread::spawn(move || waited.wait());
            let polling = loom::thread::spawn(move || loom::future::block_on(polled));
            let receipt = |time_ms| Ok(Receipt { time_ms, ..Receipt::default() });
            fill.resolve(vec![receipt(1), receipt(2)]).into_iter().for_each(Waker::wake);
            assert_eq!(waiting.join().expect("no panic").expect("commits").time_ms, 1);
            assert_eq!(polling.join().expect("no panic").expect("commits").time_ms, 2);
        });
    }
}
