//! The read path: pages of one timeline, across the places of a view (P4, P5, P11).
//!
//! The entries of a timeline are in memtables and segments, each of which contains one range of its
//! sequences. From the newest place to the oldest, these ranges fall. So a read walks from the
//! newest place to the oldest, and stops as soon as it cannot need an older one. A reader that is
//! up to date is answered by the first place that knows the timeline, usually a memtable.
//!
//! 1. take the view and its watermark;
//! 2. walk: each place reports the end of the timeline (the newest place that knows it counts) and
//!    the range that it contains;
//! 3. read the places that are needed, in the direction of the read, until the limit is reached.
//!
//! An ascending read walks first and then reads the places from the oldest to the newest; a
//! descending read reads each place during the walk.
//!
//! This file does not know the names of stores, or who reads.

use std::ops::Bound;

use super::places::{Gaps, changed_bodies, steps};
use super::reading::Reading;
use super::walk::Part;
use crate::entry::{Entry, Limit, Page, Verdict};
use crate::error::Result;
use crate::ids::{MAX_SEQUENCE, Sequence};
use crate::timeline::{Collected, Collector, End, Lifetimes, Overlay, Sight, Wanted};

impl<'v> Reading<'v> {
    pub(super) fn sight(&self, end: &End, overlay: Overlay<'v>) -> Result<Sight<'v>> {
        let (bodies, hidden_bodies) = changed_bodies(self)?;
        Ok(Sight {
            lifetimes: self.lifetimes,
            lowest: end.floor.lowest,
            overlay,
            bodies,
            hidden_bodies,
            wanted: Wanted::Readable,
        })
    }

    /// The entries from `low` to `high`, in either direction.
    pub fn range(
        &self,
        low: Sequence,
        high: Sequence,
        limit: Limit,
        descending: bool,
    ) -> Result<Page> {
        self.range_into(Collector::new(limit, descending, Sight::default()), low, high, limit)
    }

    /// The same without bodies, for callers that only count.
    pub fn range_without_bodies(
        &self,
        low: Sequence,
        high: Sequence,
        limit: Limit,
        descending: bool,
    ) -> Result<Page> {
        let out = Collector::new(limit, descending, Sight::default()).without_bodies();
        self.range_into(out, low, high, limit)
    }

    fn range_into(
        &self,
        out: Collector<'v>,
        low: Sequence,
        high: Sequence,
        limit: Limit,
    ) -> Result<Page> {
        let reading = self.around_damage(limit.around_damage);
        // An empty page leaves the cursor where it was: before the bounds, in the direction of the
        // read.
        let ((end, taken), unmoved) = if out.is_descending() {
            (reading.descend(low, high, out)?, high.saturating_add(1))
        } else {
            (reading.ascend(low, high, out)?, low.saturating_sub(1))
        };
        reading.page(&end, Verdict::Ok, taken, unmoved)
    }

    /// The entries from `low` to `high`, ascending: the oldest place that is needed is read first.
    pub(super) fn ascend(
        &self,
        low: Sequence,
        high: Sequence,
        mut out: Collector<'v>,
    ) -> Result<(End, Collected)> {
        let mut walk = self.walk(|span| span.first <= low || self.ends_with(span))?;
        out.sight = self.sight(&walk.end, std::mem::take(&mut walk.overlay))?;
        // The active memtable may have grown since it reported its end. The page must agree with
        // the end that it returns, so nothing above that end is read.
        let high = high.min(walk.end.last);
        for (at, part) in walk.parts.iter().enumerate().rev() {
            let newer = at.checked_sub(1).map(|newer| walk.parts[newer].first());
            let high = newer.map_or(high, |newer| high.min(newer.saturating_sub(1)));
            match part {
                Part::Place(place) => place.read(self, low, high, &mut out)?,
                Part::Gap(gap) => gap.read(low, high, &mut out),
            }
            if out.is_full() {
                break;
            }
        }
        Ok((walk.end, out.finish()?))
    }

    /// A collector of one entry, which stops there and does not learn whether more exists.
    pub(super) fn one(&self, descending: bool, sight: Sight<'v>) -> Collector<'v> {
        let limit = Limit { around_damage: self.around_damage, ..Limit::entries(1) };
        Collector::new(limit, descending, sight).sufficient()
    }

    /// The first entry or lost range at or above a sequence.
    pub(super) fn lowest_from(&self, low: Sequence) -> Result<(End, Collected)> {
        self.ascend(low, MAX_SEQUENCE, self.one(false, Sight::default()).without_bodies())
    }

    /// The newest entry from `low` to `high`.
    pub(super) fn newest(&self, low: Sequence, high: Sequence) -> Result<Option<Entry>> {
        Ok(self.descend(low, high, self.one(true, Sight::default()))?.1.entries.pop())
    }

    /// The entries from `high` to `low`, descending: each place is read as soon as the changes of
    /// all younger places are known.
    pub(super) fn descend(
        &self,
        low: Sequence,
        high: Sequence,
        mut out: Collector<'v>,
    ) -> Result<(End, Collected)> {
        out.sight = self.sight(&End::NEVER, Overlay::default())?;
        let (mut found, mut gaps) = (None, Gaps::default());
        let mut high = high;
        for met in steps(self) {
            let Some((mut step, gap)) = gaps.meet(met?, self)? else { continue };
            if found.is_none() {
                out.sight.lowest = step.end.floor.lowest;
                found = Some(step.end);
                high = high.min(step.end.last);
            }
            if let Some(gap) = gap {
                gap.read(low, high, &mut out);
                high = high.min(gap.first.saturating_sub(1));
                if out.is_full() {
                    return Ok((found.unwrap_or(End::NEVER), out.finish()?));
                }
            }
            out.sight.overlay.add_older(step.take_layer());
            let Some(place) = step.place() else { continue };
            place.read(self, low, high, &mut out)?;
            high = high.min(place.span.first.saturating_sub(1));
            let oldest =
                place.span.first <= low.max(out.sight.lowest) || self.ends_with(&place.span);
            if out.is_full() || oldest {
                return Ok((found.unwrap_or(End::NEVER), out.finish()?));
            }
        }
        if let Some(gap) = gaps.close(out.sight.lowest.saturating_sub(1)) {
            gap.read(low, high, &mut out);
        }
        Ok((found.unwrap_or(End::NEVER), out.finish()?))
    }

    /// The entries after a reader's cursor.
    pub fn after(&self, cursor: Sequence, limit: Limit) -> Result<Page> {
        let reading = self.around_damage(limit.around_damage);
        let out = Collector::new(limit, false, Sight::default());
        let (end, taken) = reading.ascend(cursor.saturating_add(1), MAX_SEQUENCE, out)?;
        let trimmed_to = reading.trimmed_to(&end)?;
        // Entries that may be missing are above all that are here.
        let lacks = self.may_lack_entries && !taken.more;
        let verdict = if cursor > end.last && !lacks {
            Verdict::Future
        } else if lacks || cursor < trimmed_to {
            Verdict::Trimmed
        } else {
            Verdict::Ok
        };
        let unmoved = match (taken.more, lacks) {
            (true, _) => cursor.max(trimmed_to),
            // The reader may have seen the missing entries.
            (false, true) => cursor.max(end.last),
            (false, false) => end.last,
        };
        reading.page(&end, verdict, taken, unmoved)
    }

    fn page(
        &self,
        end: &End,
        verdict: Verdict,
        taken: Collected,
        unmoved: Sequence,
    ) -> Result<Page> {
        let Collected { entries, lost, more, reached, .. } = taken;
        let next = reached.unwrap_or(unmoved);
        Ok(Page { verdict, first: self.first(end)?, last: end.last, next, more, entries, lost })
    }

    /// The lowest readable sequence; `last + 1` if there is none. It needs a read only if the entry
    /// at the floor has expired, or may have.
    pub(super) fn first(&self, end: &End) -> Result<Sequence> {
        let floor = &end.floor;
        if !end.has_entries() {
            return Ok(end.last + 1);
        }
        let certain = self.lifetimes.alive_from_ms == 0
            || (floor.start_ms != 0 && !self.is_expired(floor.start_ms));
        if certain && (floor.until_ms == 0 || floor.until_ms > self.lifetimes.now_ms) {
            return Ok(floor.lowest);
        }
        Ok(self.lowest_from(floor.lowest)?.1.lowest().unwrap_or(end.last + 1))
    }

    /// The highest sequence that a trim or the store's TTL removed. It needs a walk only if the
    /// entry at the floor has expired, or may have.
    pub(super) fn trimmed_to(&self, end: &End) -> Result<Sequence> {
        let floor = &end.floor;
        let is_first_alive =
            floor.start_ms != 0 && !self.is_expired(floor.start_ms) && !self.own_starts;
        if self.lifetimes.alive_from_ms == 0 || !end.has_entries() || is_first_alive {
            return Ok(floor.trimmed_to);
        }
        // A hole below the first living entry is not a loss: only entries that the TTL removed
        // count.
        let sight = Sight { wanted: Wanted::TakenByTtl, ..self.sight(end, Overlay::default())? };
        let whole =
            Reading { lifetimes: Lifetimes { alive_from_ms: 0, ..self.lifetimes }, ..*self };
        let mut out = self.one(true, sight).without_bodies();
        let (mut dropped_to, mut gaps) = (0, Gaps::default());
        for met in steps(self) {
            let Some((mut step, gap)) = gaps.meet(met?, self)? else { continue };
            if let Some(gap) = gap {
                gap.read(floor.lowest, MAX_SEQUENCE, &mut out);
            }
            dropped_to = dropped_to.max(step.dropped_to);
            out.sight.overlay.add_older(step.take_layer());
            let Some(place) =
                step.place().filter(|place| self.is_expired(place.span.first_start_ms))
            else {
                continue;
            };
            let alive = if self.own_starts || self.is_expired(place.span.last_start_ms) {
                None
            } else {
                place.sequence_at(self, self.lifetimes.alive_from_ms)?
            };
            let high = alive.map_or(place.span.last, |alive| alive - 1);
            place.read(&whole, floor.lowest, high, &mut out)?;
            if !out.is_empty() {
                break;
            }
        }
        let taken = out.finish()?;
        let entry = taken.entries.first().map(|entry| entry.sequence);
        let lost =
            entry.into_iter().chain(taken.lost.first().map(|lost| lost.last)).max().unwrap_or(0);
        Ok(floor.trimmed_to.max(lost).max(dropped_to))
    }
}

/// The lowest and the highest sequence inside bounds; the highest is below the lowest if there is
/// none.
pub fn bounds(low: Bound<&Sequence>, high: Bound<&Sequence>) -> (Sequence, Sequence) {
    let low = match low {
        Bound::Included(low) => *low,
        Bound::Excluded(low) => low.saturating_add(1),
        Bound::Unbounded => 1,
    };
    let high = match high {
        Bound::Included(high) => *high,
        Bound::Excluded(high) => high.saturating_sub(1),
        Bound::Unbounded => MAX_SEQUENCE,
    };
    // No entry has the sequence 0, and none is above the maximum.
    (low.max(1), high.min(MAX_SEQUENCE))
}
