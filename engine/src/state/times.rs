//! The times of commits and reads (design: three clocks, one rule each; see `clock`).
//!
//! This file does not know what is committed or read.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::clock::{Clock, SureTime};
use crate::ids::TimeMs;

/// The clock, and the engine's state that depends on it.
pub struct CommitTimes {
    clock: Arc<dyn Clock>,
    /// The highest timestamp given so far.
    last_ms: AtomicU64,
    /// The time that deletion uses, and, together with the wall clock, lifetimes.
    sure: SureTime,
    /// Whether some lifetimes began at another time than their entries' timestamps: then starts may
    /// decrease inside a timeline.
    own_starts: AtomicBool,
}

impl CommitTimes {
    /// Continues after the last timestamp that the open found.
    pub fn new(
        clock: Arc<dyn Clock>,
        sure: SureTime,
        last_ms: TimeMs,
        own_starts: bool,
    ) -> CommitTimes {
        let (last_ms, own_starts) = (AtomicU64::new(last_ms), AtomicBool::new(own_starts));
        CommitTimes { clock, last_ms, sure, own_starts }
    }

    /// The timestamp of a commit, and the start of its lifetimes, from one reading of the clocks. A
    /// timestamp is never below one that was committed, so that a wall clock that is set back does
    /// not change the order.
    pub fn moment(&self) -> (TimeMs, TimeMs) {
        let (wall_ms, sure_ms) = self.sure.moment(&*self.clock);
        (wall_ms.max(self.last_ms()), wall_ms.max(sure_ms))
    }

    /// The time at which a lifetime starts, and by which a read judges it (`clock::SureTime`).
    pub fn now_ms(&self) -> TimeMs {
        self.sure.at_latest_ms(&*self.clock)
    }

    /// The time that deletion, forgetting and refusal use (`clock::SureTime`).
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

    /// Records a commit with the timestamp `time_ms`, whose lifetimes began at `start_ms`.
    pub fn committed_at(&self, time_ms: TimeMs, start_ms: TimeMs) {
        self.last_ms.fetch_max(time_ms, Ordering::Relaxed);
        if start_ms != time_ms {
            self.own_starts.store(true, Ordering::Release);
        }
    }

    /// Whether the lifetimes of younger entries may have begun earlier than those of older ones.
    pub fn own_starts(&self) -> bool {
        self.own_starts.load(Ordering::Acquire)
    }
}
