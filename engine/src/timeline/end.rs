//! Where a timeline begins and ends, and the times of its entries: what outlives the entries, and
//! what one place holds of them.

use crate::ids::{MAX_SEQUENCE, Sequence, TimeMs};

/// When an entry was committed, and how long it lives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Times {
    /// Its timestamp. Never decreases inside a timeline.
    pub time_ms: TimeMs,
    /// When its lifetime began.
    pub start_ms: TimeMs,
    /// When it expires by itself; 0: never.
    pub expire_at_ms: TimeMs,
}

impl Times {
    /// Those of an append with a lifetime of its own; 0: it has none.
    pub fn new(time_ms: TimeMs, start_ms: TimeMs, lifetime_ms: u64) -> Times {
        let expire_at_ms = if lifetime_ms == 0 { 0 } else { start_ms.saturating_add(lifetime_ms) };
        Times { time_ms, start_ms, expire_at_ms }
    }

    /// Those of an entry whose start is stored only if it differs from its timestamp.
    pub fn stored(time_ms: TimeMs, own_start_ms: Option<TimeMs>, expire_at_ms: TimeMs) -> Times {
        Times { time_ms, start_ms: own_start_ms.unwrap_or(time_ms), expire_at_ms }
    }

    /// The start, if it differs from the timestamp.
    pub fn own_start_ms(&self) -> Option<TimeMs> {
        Some(self.start_ms).filter(|start_ms| *start_ms != self.time_ms)
    }
}

/// From where on a timeline can be read. A trim moves it; it outlives the entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Floor {
    /// The lowest sequence that was not removed; above the last one when there is none. What
    /// expired may be above it.
    pub lowest: Sequence,
    /// When the lifetime of that entry began; 0: not known.
    pub start_ms: TimeMs,
    /// When it expires by itself; 0: never.
    pub until_ms: TimeMs,
    /// The highest sequence that trimming or expiry removed, as far as was known when this was
    /// written.
    pub trimmed_to: Sequence,
}

/// How a timeline ends: what outlives all of its entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct End {
    /// The highest sequence ever given; 0 when it was never written.
    pub last: Sequence,
    /// The time that went with it.
    pub last_time_ms: TimeMs,
    /// From where on it can be read.
    pub floor: Floor,
}

impl End {
    /// The end of a timeline that was never written.
    pub const NEVER: End = End {
        last: 0,
        last_time_ms: 0,
        floor: Floor { lowest: 1, start_ms: 0, until_ms: 0, trimmed_to: 0 },
    };

    /// The end of what changes shared bodies: it takes a change of any of them, and has no entries.
    pub const BODIES: End = End { last: MAX_SEQUENCE, ..End::NEVER };

    /// Whether there is an entry that was not removed. It may have expired.
    pub fn has_entries(&self) -> bool {
        self.floor.lowest <= self.last
    }

    /// Takes an append in.
    pub fn append(&mut self, sequence: Sequence, times: &Times) {
        if !self.has_entries() {
            let trimmed_to = self.floor.trimmed_to;
            let (start_ms, until_ms) = (times.start_ms, times.expire_at_ms);
            self.floor = Floor { lowest: sequence, start_ms, until_ms, trimmed_to };
        }
        (self.last, self.last_time_ms) = (sequence, times.time_ms);
    }
}

/// What one place, a memtable or a segment, holds of a timeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub first: Sequence,
    pub last: Sequence,
    pub count: u64,
    pub body_bytes: u64,
    pub first_time_ms: TimeMs,
    pub last_time_ms: TimeMs,
    /// The earliest start of a lifetime.
    pub first_start_ms: TimeMs,
    /// The latest.
    pub last_start_ms: TimeMs,
    /// Whether some of them expire by themselves.
    pub own_expiry: bool,
}
