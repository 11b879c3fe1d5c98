//! Tickets: how the commit thread tells all submitters of a group at once what became of their
//! batches.
//!
//! A `Fill` is the group that is filling up; each ticket is a place in it. Resolving a fill takes
//! one lock and one wake-up of all its waiters, not one a writer. A ticket is a future that needs
//! no runtime, and can be waited for by a plain thread.

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
    resolved: Condvar,
}

#[derive(Default)]
struct FillState {
    /// One a batch; taken by its ticket.
    outcomes: Option<Vec<Option<Result<Receipt>>>>,
    wakers: Vec<Waker>,
}

impl Fill {
    /// The place of the batch that was added as number `place`.
    pub fn ticket(self: &Arc<Fill>, place: usize) -> Ticket {
        Ticket { fill: self.clone(), place, waker: None }
    }

    /// Resolves every ticket, and wakes the threads that wait. Gives the wakers to be woken,
    /// outside the commit path. Called once.
    #[must_use = "wakers that are not woken are forgotten"]
    pub fn resolve(&self, outcomes: Vec<Result<Receipt>>) -> Vec<Waker> {
        let wakers = {
            let mut state = self.state.lock();
            assert!(state.outcomes.is_none(), "a fill is resolved once");
            state.outcomes = Some(outcomes.into_iter().map(Some).collect());
            std::mem::take(&mut state.wakers)
        };
        self.resolved.notify_all();
        wakers
    }
}

/// Resolves when its batch is durable and visible to every reader, or failed as a whole. Dropping
/// it does not undo the batch.
///
/// [`Ticket::wait`] blocks a plain thread. As a future, it wakes its waker on the engine's wake
/// thread, where a waker may do anything: append, wait, close the engine, or drop its last handle.
/// One that blocks delays other wakers, and the engine's stop, but no append; one that panics
/// affects nobody else.
#[must_use = "a batch is committed only when its ticket says so"]
pub struct Ticket {
    fill: Arc<Fill>,
    place: usize,
    /// Where this ticket's waker stands in the fill.
    waker: Option<usize>,
}

const TAKEN: &str = "a ticket gives its outcome once";

impl Ticket {
    /// Blocks until the batch is committed.
    pub fn wait(self) -> Result<Receipt> {
        let mut state = self.fill.state.lock();
        loop {
            if let Some(outcomes) = &mut state.outcomes {
                return outcomes[self.place].take().expect(TAKEN);
            }
            self.fill.resolved.wait(&mut state);
        }
    }
}

impl Future for Ticket {
    type Output = Result<Receipt>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<Receipt>> {
        let ticket = &mut *self;
        // Cloned before the lock is taken, and what it replaces is dropped after: both are code of
        // the caller.
        let waker = context.waker().clone();
        let mut state = ticket.fill.state.lock();
        if let Some(outcomes) = &mut state.outcomes {
            let outcome = outcomes[ticket.place].take().expect(TAKEN);
            drop(state);
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
        Receipt { time_ms, sequences: vec![1], duplicate: false }
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
        fill.resolve(vec![Ok(receipt(1))]).into_iter().for_each(Waker::wake);
        assert_eq!(woken.0.load(Ordering::SeqCst), 1);
        assert!(Pin::new(&mut ticket).poll(&mut context).is_ready());
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
            let receipt =
                |time_ms| Ok(Receipt { time_ms, sequences: Vec::new(), duplicate: false });
            fill.resolve(vec![receipt(1), receipt(2)]).into_iter().for_each(Waker::wake);
            assert_eq!(waiting.join().expect("no panic").expect("commits").time_ms, 1);
            assert_eq!(polling.join().expect("no panic").expect("commits").time_ms, 2);
        });
    }
}
