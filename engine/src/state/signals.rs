//! Signals between the engine's threads: progress, closing, and poison.
//!
//! This file does not know what was sealed, flushed or merged.

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
    /// Refuses all writes from now on. The first reason is kept.
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

/// Notifies threads that there is work to do, or that work was done.
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
    flush_attempts: u64,
    flush_failure: Option<Error>,
}

impl Progress {
    /// Announces that something was sealed, flushed or merged, or that the engine is closing.
    pub fn announce(&self) {
        self.state.lock().changes += 1;
        self.changed.notify_all();
    }

    /// Records that the last flush failed (it will be tried again), or that it succeeded.
    pub fn flush_outcome(&self, failure: Option<Error>) {
        let mut state = self.state.lock();
        state.changes += 1;
        state.flush_attempts += 1;
        state.flush_failure = failure;
        drop(state);
        self.changed.notify_all();
    }

    /// The number of flushes that succeeded or failed so far.
    pub fn flush_attempts(&self) -> u64 {
        self.state.lock().flush_attempts
    }

    /// The failure of the last flush, if it failed.
    pub fn flush_failure(&self) -> Option<Error> {
        self.state.lock().flush_failure.clone()
    }

    /// The number of changes so far, to pass to [`Progress::wait`]. A caller reads it before it
    /// checks the state that it waits for.
    pub fn changes(&self) -> u64 {
        self.state.lock().changes
    }

    /// Announces that the engine is closing: no thread rests any more.
    pub fn end(&self) {
        self.state.lock().ended = true;
        self.ended.notify_all();
        self.announce();
    }

    /// Waits for `time`, whatever changes, unless the engine is closing.
    pub fn rest(&self, time: Duration) {
        let mut state = self.state.lock();
        if !state.ended && !time.is_zero() {
            self.ended.wait_for(&mut state, time);
        }
    }

    /// Waits until something has changed since `seen`, or until the timeout.
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
    /// Asks the threads to end.
    pub fn set(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Whether the threads should end.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}
