//! Signals between the engine's threads: progress, the end, and poison.
//!
//! It does not know: what was sealed, flushed or merged.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::error::{Error, Result};

/// The first failure after which no write may be acknowledged any more.
#[derive(Debug, Default)]
pub struct Poison {
    why: OnceLock<String>,
}

impl Poison {
    /// Refuses all writes from now on. The first reason stays.
    pub fn set(&self, why: &Error) {
        if self.why.set(why.to_string()).is_ok() {
            tracing::error!(%why, "writes are refused from now on");
        }
    }

    /// An error if writes are refused.
    pub fn check(&self) -> Result<()> {
        match self.why.get() {
            Some(why) => Err(Error::Poisoned { why: why.clone() }),
            None => Ok(()),
        }
    }
}

/// How threads learn that there is something to do, or that something was done.
#[derive(Debug, Default)]
pub struct Progress {
    state: Mutex<ProgressState>,
    changed: Condvar,
    ended: Condvar,
}

#[derive(Debug, Default)]
struct ProgressState {
    changes: u64,
    ended: bool,
    flush_failure: Option<Error>,
}

impl Progress {
    /// Something was sealed, flushed or merged, or the engine is closing.
    pub fn announce(&self) {
        self.state.lock().changes += 1;
        self.changed.notify_all();
    }

    /// The last flush failed (and will be tried again), or worked.
    pub fn flush_outcome(&self, failure: Option<Error>) {
        let mut state = self.state.lock();
        state.changes += 1;
        state.flush_failure = failure;
        drop(state);
        self.changed.notify_all();
    }

    /// Why the last flush failed, if it did.
    pub fn flush_failure(&self) -> Option<Error> {
        self.state.lock().flush_failure.clone()
    }

    /// How often something changed so far: to pass to [`Progress::wait`], read before looking.
    pub fn changes(&self) -> u64 {
        self.state.lock().changes
    }

    /// The engine is closing: nobody rests any more.
    pub fn end(&self) {
        self.state.lock().ended = true;
        self.ended.notify_all();
        self.announce();
    }

    /// Waits for so long, whatever changes, unless the engine is closing.
    pub fn rest(&self, time: Duration) {
        let mut state = self.state.lock();
        if !state.ended && !time.is_zero() {
            self.ended.wait_for(&mut state, time);
        }
    }

    /// Waits until something changed since `seen`, or the time is over.
    pub fn wait(&self, seen: u64, timeout: Duration) {
        let mut state = self.state.lock();
        if state.changes == seen {
            self.changed.wait_for(&mut state, timeout);
        }
    }
}

/// Whether the threads should end.
#[derive(Debug, Default)]
pub struct Closing(AtomicBool);

impl Closing {
    /// The threads should end.
    pub fn set(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Whether they should.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}
