//! The start and the end of a timeline, which outlive its entries; the times of its entries; and
//! the summary of its part in one place.

use crate::ids::{MAX_SEQUENCE, Sequence, TimeMs};

/// The commit time of an entry, and its lifetime.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(clippy::struct_field_names, reason = "all have the unit")]
pub struct Times {
    /// Its timestamp. Never decreases inside a timeline.
    pub time_ms: TimeMs,
    /// The start of its lifetime.
    pub start_ms: TimeMs,
    /// The time at which its own lifetime ends; 0: never.
    pub expire_at_ms: TimeMs,
}

impl Times {
    /// The times of an append with a lifetime of its own; `lifetime_ms` is 0 if it has none.
    pub fn new(time_ms: TimeMs, start_ms: TimeMs, lifetime_ms: u64) -> Times {
        let expire_at_ms = if lifetime_ms == 0 { 0 } else { start_ms.saturating_add(lifetime_ms) };
        Times { time_ms, start_ms, expire_at_ms }
    }

    /// The times of an entry whose start is stored only if it differs from its timestamp.
    pub fn stored(time_ms: TimeMs, own_start_ms: Option<TimeMs>, expire_at_ms: TimeMs) -> Times {
        Times { time_ms, start_ms: own_start_ms.unwrap_or(time_ms), expire_at_ms }
    }

    /// The start, if it differs from the timestamp.
    pub fn own_start_ms(&self) -> Option<TimeMs> {
        Some(self.start_ms).filter(|start_ms| *start_ms != self.time_ms)
    }
}

/// The start of the readable part of a timeline. A trim moves it; it outlives the entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Floor {
    /// The lowest sequence that was not removed; above the last one if there is none. Expired
    /// entries may be above it.
    pub lowest: Sequence,
    /// The start of that entry's lifetime; 0: unknown.
    pub start_ms: TimeMs,
    /// The end of that entry's own lifetime; 0: never.
    pub until_ms: TimeMs,
    /// The highest sequence that a trim or expiry removed, as far as was known when this was
    /// written.
    pub trimmed_to: Sequence,
}

/// The end of a timeline, which outlives all of its entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct End {
    /// The highest sequence ever given; 0 if the timeline was never written.
    pub last: Sequence,
    /// The time of that sequence.
    pub last_time_ms: TimeMs,
    /// The start of the readable part.
    pub floor: Floor,
}

impl End {
    /// The end of a timeline that was never written.
    pub const NEVER: End = End {
        last: 0,
        last_time_ms: 0,
        floor: Floor { lowest: 1, start_ms: 0, until_ms: 0, trimmed_to: 0 },
    };

    /// The end of the pseudo-timeline of body changes: it accepts a change of any body, and has no
    /// entries.
    pub const BODIES: End = End { last: MAX_SEQUENCE, ..End::NEVER };

    /// Whether there is an entry that was not removed. It may have expired.
    pub fn has_entries(&self) -> bool {
        self.floor.lowest <= self.last
    }

    /// Applies an append.
    pub fn append(&mut self, sequence: Sequence, times: &Times) {
        if !self.has_entries() {
            let trimmed_to = self.floor.trimmed_to;
            let (start_ms, until_ms) = (times.start_ms, times.expire_at_ms);
            self.floor = Floor { lowest: sequence, start_ms, until_ms, trimmed_to };
        }
        (self.last, self.last_time_ms) = (sequence, times.time_ms);
    }
}

/// The part of a timeline in one place, a memtable or a segment.
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
    /// The latest start of a lifetime.
    pub last_start_ms: TimeMs,
    /// Whether some entries have a lifetime of their own.
    pub own_expiry: bool,
}
