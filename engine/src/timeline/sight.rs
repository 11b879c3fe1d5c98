//! The visible part of a timeline: entries at or above its floor that are neither removed nor
//! expired.

use super::end::Times;
use super::overlay::Overlay;
use crate::error::Error;
use crate::ids::{CommitPlace, Sequence, TimeMs};

/// The lifetimes that have passed at the time of a read.
#[derive(Clone, Copy, Debug, Default)]
#[allow(clippy::struct_field_names, reason = "times end in their unit")]
pub(crate) struct Lifetimes {
    /// The time of the read.
    pub now_ms: TimeMs,
    /// The store's TTL; 0: no limit.
    pub ttl_ms: u64,
    /// Lifetimes that began before this time are past the TTL, or were when it was changed; 0: none
    /// is.
    pub alive_from_ms: TimeMs,
}

impl Lifetimes {
    /// The lifetimes of a store at a time. Entries whose lifetime began before `gone_before_ms`
    /// stay expired whatever the TTL is now.
    pub fn at(now_ms: TimeMs, ttl_ms: u64, gone_before_ms: TimeMs) -> Lifetimes {
        let past_ttl_ms =
            if ttl_ms == 0 { 0 } else { now_ms.saturating_add(1).saturating_sub(ttl_ms) };
        Lifetimes { now_ms, ttl_ms, alive_from_ms: past_ttl_ms.max(gone_before_ms) }
    }

    /// Whether the TTL has passed for a lifetime that began at `start_ms`.
    pub fn is_expired(&self, start_ms: TimeMs) -> bool {
        start_ms < self.alive_from_ms
    }
}

/// The entries that a read looks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// The readable entries.
    #[default]
    Readable,
    /// The entries that the store's TTL removed, not the readable ones.
    TakenByTtl,
}

/// The entries of a timeline that a read may see, and their changes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sight<'v> {
    /// The lifetimes that have passed.
    pub lifetimes: Lifetimes,
    /// Everything below this sequence is gone.
    pub lowest: Sequence,
    /// The changes of the places visited so far.
    pub overlay: Overlay<'v>,
    /// The changes of shared bodies, by the place of the body.
    pub bodies: Overlay<'v>,
    /// The damage that hides changes of bodies committed below a place, if there is any.
    pub hidden_bodies: Option<(CommitPlace, Error)>,
    /// The entries that the read looks for.
    pub wanted: Wanted,
}

impl Sight<'_> {
    /// Whether the store's TTL has passed for a lifetime that began at `start_ms`.
    pub fn is_expired(&self, start_ms: TimeMs) -> bool {
        self.lifetimes.is_expired(start_ms)
    }

    /// Whether the read skips entries whose lifetime began at `start_ms`.
    pub fn passes_over(&self, start_ms: TimeMs) -> bool {
        self.is_expired(start_ms) == (self.wanted == Wanted::Readable)
    }

    /// Whether all entries have the bodies that they were written with.
    #[inline]
    pub fn is_unchanged(&self) -> bool {
        self.overlay.is_empty() && self.bodies.is_empty() && self.hidden_bodies.is_none()
    }

    /// Whether the read looks for an entry.
    #[inline]
    pub fn shows(&self, sequence: Sequence, times: &Times) -> bool {
        let Times { start_ms, expire_at_ms, .. } = *times;
        let alive_at_ms = match self.wanted {
            Wanted::Readable => self.lifetimes.now_ms,
            // An entry that its own expiry removed before the TTL did is a hole, not a loss.
            Wanted::TakenByTtl => start_ms.saturating_add(self.lifetimes.ttl_ms).saturating_sub(1),
        };
        sequence >= self.lowest
            && (expire_at_ms == 0 || expire_at_ms > alive_at_ms)
            && !self.passes_over(start_ms)
            && !self.overlay.removes(sequence)
    }
}
