//! A clock that shows the time that a test sets.
//!
//! This file does not know what depends on the time.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::Clock;
use crate::ids::TimeMs;

/// A clock that a test sets.
#[derive(Debug)]
pub struct ManualClock {
    now_ms: AtomicU64,
    monotonic_ms: AtomicU64,
}

impl ManualClock {
    /// A clock that shows `now_ms`.
    pub fn at(now_ms: TimeMs) -> ManualClock {
        ManualClock { now_ms: AtomicU64::new(now_ms), monotonic_ms: AtomicU64::new(0) }
    }

    /// Lets time pass.
    pub fn pass(&self, ms: u64) {
        self.monotonic_ms.fetch_add(ms, Ordering::SeqCst);
        self.now_ms.fetch_add(ms, Ordering::SeqCst);
    }

    /// Sets the wall time, forwards or backwards: a jump, which the monotonic clock does not
    /// confirm.
    pub fn set(&self, now_ms: TimeMs) {
        self.now_ms.store(now_ms, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now_ms(&self) -> TimeMs {
        self.now_ms.load(Ordering::SeqCst)
    }

    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.monotonic_ms.load(Ordering::SeqCst))
    }
}
