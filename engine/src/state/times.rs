//! The times of commits and reads (design: three clocks, one rule each; see `clock`).
//!
//! It does not know: what is committed or read.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::clock::{Clock, SureTime};
use crate::ids::TimeMs;

/// The clock, and what the engine has to remember of it.
pub struct CommitTimes {
    clock: Arc<dyn Clock>,
    /// The highest timestamp given so far.
    last_ms: AtomicU64,
    /// The time that deletion goes by, and, with the wall clock, lifetimes.
    sure: SureTime,
    /// Whether some lifetimes began at another time than their entries' timestamps: then starts may
    /// fall inside a timeline.
    own_starts: AtomicBool,
}

impl CommitTimes {
    /// Goes on after the last timestamp that an open found.
    pub fn new(
        clock: Arc<dyn Clock>,
        sure: SureTime,
        last_ms: TimeMs,
        own_starts: bool,
    ) -> CommitTimes {
        let (last_ms, own_starts) = (AtomicU64::new(last_ms), AtomicBool::new(own_starts));
        CommitTimes { clock, last_ms, sure, own_starts }
    }

    /// The timestamp of a commit, and what its lifetimes start at, by one look at the clock. A
    /// timestamp is never below one that was committed, so that a wall clock that goes back changes
    /// no order.
    pub fn moment(&self) -> (TimeMs, TimeMs) {
        // In this order: where the clocks agree, sure time is not the later one.
        let sure_ms = self.sure_now_ms();
        let wall_ms = self.clock.now_ms();
        (wall_ms.max(self.last_ms()), wall_ms.max(sure_ms))
    }

    /// What a lifetime starts at, and a read goes by (`clock::SureTime`).
    pub fn now_ms(&self) -> TimeMs {
        self.sure.at_latest_ms(&*self.clock)
    }

    /// The time that may destroy, forget and refuse (`clock::SureTime`).
    pub fn sure_now_ms(&self) -> TimeMs {
        self.sure.now_ms(&*self.clock)
    }

    /// Whether sure time is held because the clocks disagree.
    pub fn is_held(&self) -> bool {
        self.sure.is_held()
    }

    /// The highest timestamp given so far.
    pub fn last_ms(&self) -> TimeMs {
        self.last_ms.load(Ordering::Relaxed)
    }

    /// Something was committed at a time, with lifetimes that began at another.
    pub fn committed_at(&self, time_ms: TimeMs, start_ms: TimeMs) {
        self.last_ms.fetch_max(time_ms, Ordering::Relaxed);
        if start_ms != time_ms {
            self.own_starts.store(true, Ordering::Release);
        }
    }

    /// Whether lifetimes may have begun earlier in younger entries.
    pub fn own_starts(&self) -> bool {
        self.own_starts.load(Ordering::Acquire)
    }
}
