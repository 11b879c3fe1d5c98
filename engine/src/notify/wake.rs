//! Runs wakers: on a thread of their own, outside the commit path and without a lock of the engine
//! (P9).
//!
//! ```text
//!  committer     ──wakers of a group──> queue ──all at once──> wake thread: wakes each,
//!                                                              drops what it owned
//! ```
//!
//! A waker is code of the caller. It may sleep, panic, append, close the engine, or own its last
//! handle, so it must not run where an append waits for it. A waker that sleeps delays other wakers
//! and the engine's stop, but no append; meanwhile the queue grows without a limit of its own. A
//! panic in a waker is logged and has no other effect.
//!
//! The wake thread is the last of the engine's threads to end, because a waker may close the
//! engine, which waits for all other threads. Wakers that are queued when the queue is closed are
//! woken before the thread ends.
//!
//! If the wakers of tickets are short (`Options::wakers`), the thread that committed calls them
//! when it is not the committer any more, and the wake thread has those of watchers.
//!
//! This file does not know tickets, watchers, or what a waker does.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::Waker;

use crate::locks::{Condvar, Mutex};

/// Wakers that are queued for the wake thread.
#[derive(Default)]
pub(crate) struct WakeQueue {
    waiting: Mutex<Waiting>,
    arrived: Condvar,
}

#[derive(Default)]
struct Waiting {
    wakers: Vec<Waker>,
    closed: bool,
}

impl WakeQueue {
    /// Queues wakers for the wake thread. Does not wait for it; does nothing if there are none.
    pub fn hand_over(&self, wakers: Vec<Waker>) {
        if wakers.is_empty() {
            return;
        }
        let mut waiting = self.waiting.lock();
        assert!(!waiting.closed, "whoever hands wakers over ends before the wake thread");
        waiting.wakers.extend(wakers);
        drop(waiting);
        self.arrived.notify_one();
    }

    /// Closes the queue: the wake thread ends when it has woken what is queued.
    pub fn close(&self) {
        self.waiting.lock().closed = true;
        self.arrived.notify_all();
    }

    /// The wake thread: wakes whatever is queued until the queue is closed.
    pub fn run(&self) {
        while let Some(wakers) = self.take() {
            wakers.into_iter().for_each(wake);
        }
    }

    /// All queued wakers, as soon as there are any; `None` when the queue is closed and empty.
    fn take(&self) -> Option<Vec<Waker>> {
        let mut waiting = self.waiting.lock();
        while waiting.wakers.is_empty() {
            if waiting.closed {
                return None;
            }
            self.arrived.wait(&mut waiting);
        }
        Some(std::mem::take(&mut waiting.wakers))
    }
}

/// Calls a waker. `Waker::wake` consumes it, so its data is dropped here, inside `catch_unwind`.
pub(crate) fn wake(waker: Waker) {
    let Err(panic) = catch_unwind(AssertUnwindSafe(|| waker.wake())) else { return };
    tracing::error!("a waker panicked: only its own task is affected");
    // The panic's payload is also the caller's, and its drop may panic in turn.
    if let Err(again) = catch_unwind(AssertUnwindSafe(|| drop(panic))) {
        std::mem::forget(again);
    }
}

#[cfg(all(test, loom))]
mod modelled {
    use std::sync::Arc;
    use std::task::Wake;

    use super::*;
    use crate::locks::AtomicUsize;
    use std::sync::atomic::Ordering;

    struct Counts(AtomicUsize);

    impl Wake for Counts {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::AcqRel);
        }
    }

    #[test]
    fn every_waker_is_woken_before_the_wake_thread_ends() {
        loom::model(|| {
            let (queue, counts) =
                (Arc::new(WakeQueue::default()), Arc::new(Counts(AtomicUsize::new(0))));
            let waking = loom::thread::spawn({
                let queue = queue.clone();
                move || queue.run()
            });
            let committer = loom::thread::spawn({
                let (queue, waker) = (queue.clone(), Waker::from(counts.clone()));
                move || (0..2).for_each(|_| queue.hand_over(vec![waker.clone()]))
            });
            queue.hand_over(vec![Waker::from(counts.clone())]);
            committer.join().expect("no panic");
            queue.close();
            waking.join().expect("no panic");
            assert_eq!(counts.0.load(Ordering::Acquire), 3);
        });
    }
}
