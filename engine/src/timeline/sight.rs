//! What a reader may see of a timeline: not what is below its floor, removed or expired.

use super::end::Times;
use super::overlay::Overlay;
use crate::error::Error;
use crate::ids::{CommitPlace, Sequence, TimeMs};

/// Which lifetimes have passed at the time of a read.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Lifetimes {
    /// The time of the read.
    pub now_ms: TimeMs,
    /// How long entries of the store live; 0: for ever.
    pub ttl_ms: u64,
    /// Lifetimes that began earlier are past the TTL, or were when it was changed; 0: none is.
    pub alive_from_ms: TimeMs,
}

impl Lifetimes {
    /// Those of a store at a time. Entries that began before `gone_before_ms` stay expired whatever
    /// the TTL is now.
    pub fn at(now_ms: TimeMs, ttl_ms: u64, gone_before_ms: TimeMs) -> Lifetimes {
        let past_ttl_ms =
            if ttl_ms == 0 { 0 } else { now_ms.saturating_add(1).saturating_sub(ttl_ms) };
        Lifetimes { now_ms, ttl_ms, alive_from_ms: past_ttl_ms.max(gone_before_ms) }
    }

    /// Whether the TTL has passed for a lifetime that began at a time.
    pub fn is_expired(&self, start_ms: TimeMs) -> bool {
        start_ms < self.alive_from_ms
    }
}

/// What a read looks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// The readable entries.
    #[default]
    Readable,
    /// The entries that the store's TTL removed, not the readable ones.
    TakenByTtl,
}

/// What a reader may see of a timeline, and how.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sight<'v> {
    /// Which lifetimes have passed.
    pub lifetimes: Lifetimes,
    /// Everything below is gone.
    pub lowest: Sequence,
    /// Changes of the places that were met so far.
    pub overlay: Overlay<'v>,
    /// Changes of shared bodies, by place of the body.
    pub bodies: Overlay<'v>,
    /// Why changes of bodies that were committed below a place cannot be told, if so.
    pub hidden_bodies: Option<(CommitPlace, Error)>,
    /// Which entries are looked for.
    pub wanted: Wanted,
}

impl Sight<'_> {
    /// Whether the store's TTL has passed for a lifetime that began at a time.
    pub fn is_expired(&self, start_ms: TimeMs) -> bool {
        self.lifetimes.is_expired(start_ms)
    }

    /// Whether entries whose lifetime began at a time are not looked for.
    pub fn passes_over(&self, start_ms: TimeMs) -> bool {
        self.is_expired(start_ms) == (self.wanted == Wanted::Readable)
    }

    /// Whether an entry is looked for.
    pub fn shows(&self, sequence: Sequence, times: &Times) -> bool {
        let Times { start_ms, expire_at_ms, .. } = *times;
        let alive_at_ms = match self.wanted {
            Wanted::Readable => self.lifetimes.now_ms,
            // What its own expiry removed before the TTL did is a hole, not a loss.
            Wanted::TakenByTtl => start_ms.saturating_add(self.lifetimes.ttl_ms).saturating_sub(1),
        };
        sequence >= self.lowest
            && (expire_at_ms == 0 || expire_at_ms > alive_at_ms)
            && !self.passes_over(start_ms)
            && !self.overlay.removes(sequence)
    }
}
