//! The read path: one timeline, across the places of a view (P4, P5, P11).
//!
//! A timeline's entries lie in memtables and segments, each of which holds one range of its
//! sequences; from the newest place to the oldest the ranges fall. So a read walks from the newest
//! to the oldest and stops as soon as it cannot need an older one: a reader who is up to date is
//! answered by the first place that knows the timeline, which is memory as a rule.
//!
//! 1. take the view;
//! 2. walk: each place tells how the timeline ends (the newest that knows it counts) and which
//!    range it holds;
//! 3. read the places that were needed, in the direction of the read, until the limit keeps
//!    something back.
//!
//! It does not know: names of stores, or who is asking.

mod places;
mod walk;

use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::atomic::Ordering;

use self::places::{Gaps, Met, changed_bodies, steps};
use self::walk::Part;
use crate::entry::{
    Collector, End, Entry, Info, Limit, Overlay, Page, Sight, Span, Taken, Times, Verdict,
    alive_from_ms,
};
use crate::error::Result;
use crate::format::ids::IdEntry;
use crate::ids::{BODIES, CommitPlace, MAX_SEQUENCE, Sequence, TimeMs, TimelineRef};
use crate::memtable::IdRecord;
use crate::state::State;
use crate::view::View;

/// A timeline in a view.
#[derive(Clone, Copy)]
pub struct Reading<'v> {
    /// What can be read.
    pub view: &'v View,
    /// Which timeline.
    pub timeline: TimelineRef<'v>,
    /// Its hash in the memtables.
    pub hash: u64,
    /// The time of the read.
    pub now_ms: TimeMs,
    /// How long the store's entries live; 0: for ever.
    pub ttl_ms: u64,
    /// Lifetimes that began earlier are past it, or were when it was changed: they are not shown;
    /// 0: all are.
    pub alive_from_ms: TimeMs,
    /// Whether lifetimes may have begun earlier in younger entries: then what has expired says
    /// nothing of what is older.
    pub own_starts: bool,
    /// Entries at its end may be missing because of damage to the log.
    pub may_lack_entries: bool,
    /// Whether it goes on where something is damaged.
    pub around_damage: bool,
    /// The hash of what changes shared bodies of the store, if a memtable does.
    pub bodies_hash: Option<u64>,
}

impl<'v> Reading<'v> {
    /// A timeline as it can be read now.
    pub fn new(state: &State, view: &'v View, timeline: TimelineRef<'v>, hash: u64) -> Reading<'v> {
        Reading::at(state, view, (timeline, hash), state.now_ms())
    }

    /// A timeline as it is to be read for a decision that cannot be taken back.
    pub fn sure(
        state: &State,
        view: &'v View,
        timeline: TimelineRef<'v>,
        hash: u64,
    ) -> Reading<'v> {
        Reading::at(state, view, (timeline, hash), state.sure_now_ms())
    }

    fn at(
        state: &State,
        view: &'v View,
        (timeline, hash): (TimelineRef<'v>, u64),
        now_ms: TimeMs,
    ) -> Reading<'v> {
        let (ttl_ms, gone_before_ms) = state.retention(timeline.store);
        Reading {
            now_ms,
            ttl_ms,
            alive_from_ms: alive_from_ms(now_ms, ttl_ms, gone_before_ms),
            own_starts: state.own_starts.load(Ordering::Acquire),
            may_lack_entries: state.may_lack_entries(view, timeline, hash),
            bodies_hash: view
                .memtables()
                .any(|memtable| memtable.changes_bodies())
                .then(|| state.hash(TimelineRef { store: timeline.store, name: BODIES })),
            ..Reading::of_end(view, timeline, hash)
        }
    }

    /// A timeline of which only the end is looked for.
    pub fn of_end(view: &'v View, timeline: TimelineRef<'v>, hash: u64) -> Reading<'v> {
        Reading {
            view,
            timeline,
            hash,
            now_ms: 0,
            ttl_ms: 0,
            alive_from_ms: 0,
            own_starts: false,
            may_lack_entries: false,
            around_damage: false,
            bodies_hash: None,
        }
    }

    /// The same for a reader who goes around damage, or does not.
    #[must_use]
    pub fn around_damage(self, around_damage: bool) -> Reading<'v> {
        Reading { around_damage, ..self }
    }

    /// How the timeline ends, by the newest place that knows it.
    pub fn end(&self) -> Result<End> {
        if self.timeline.name == BODIES {
            return Ok(End::BODIES);
        }
        match steps(self).next() {
            None => Ok(End::NEVER),
            Some(Ok(Met::Step(step))) => Ok(step.end),
            Some(Ok(Met::Hidden(error, _)) | Err(error)) => Err(error),
        }
    }

    /// What a client's id was used for in this timeline. Of what was used before some time nothing
    /// need be found.
    pub fn id(&self, id: &[u8], from_ms: TimeMs) -> Result<Option<IdRecord>> {
        for memtable in self.view.memtables() {
            if let Some(found) = memtable.id(self.timeline, self.hash, id) {
                return Ok(Some(found));
            }
        }
        for segment in self.view.segments.of(self.timeline.store) {
            if let Some(found) = segment.find_id(self.timeline.name, id, from_ms)? {
                let IdEntry { body_hash, targets_hash, time_ms, start_ms, sequences } = found;
                let sequences = sequences.into();
                return Ok(Some(IdRecord {
                    body_hash,
                    targets_hash,
                    time_ms,
                    start_ms,
                    sequences,
                }));
            }
        }
        Ok(None)
    }

    fn sight(&self, end: &End, overlay: Overlay<'v>) -> Result<Sight<'v>> {
        let (bodies, hidden_bodies) = changed_bodies(self)?;
        Ok(Sight {
            now_ms: self.now_ms,
            alive_from_ms: self.alive_from_ms,
            lowest: end.floor.lowest,
            overlay,
            bodies,
            hidden_bodies,
            lost: None,
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

    /// The same without bodies, for who counts.
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
        let (end, taken) = if out.is_descending() {
            reading.descend(low, high, out)?
        } else {
            reading.ascend(low, high, out)?
        };
        reading.page(&end, Verdict::Ok, taken, end.last)
    }

    /// The entries from `low` to `high`, ascending: the oldest place that is needed comes first.
    fn ascend(
        &self,
        low: Sequence,
        high: Sequence,
        mut out: Collector<'v>,
    ) -> Result<(End, Taken)> {
        let mut walk = self.walk(|span| span.first <= low || self.ends_with(span))?;
        out.sight = self.sight(&walk.end, std::mem::take(&mut walk.overlay))?;
        // The active memtable may have grown since it told its end: what is shown goes with the end
        // that is told.
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

    /// What takes one entry, and does not ask whether there is more.
    fn one(&self, descending: bool, sight: Sight<'v>) -> Collector<'v> {
        let limit = Limit { around_damage: self.around_damage, ..Limit::entries(1) };
        Collector::new(limit, descending, sight).sufficient()
    }

    /// What there is first at or above a sequence, readable or lost.
    fn lowest_from(&self, low: Sequence) -> Result<(End, Taken)> {
        self.ascend(low, MAX_SEQUENCE, self.one(false, Sight::default()).without_bodies())
    }

    /// The first readable entry at or above a sequence. Of one that damage takes, the sequence
    /// only.
    pub fn first_from(&self, low: Sequence) -> Result<Option<(Sequence, Times)>> {
        let (_, taken) = self.lowest_from(low)?;
        let lost = taken.lost.first().map(|lost| (lost.first, Times::default()));
        let entry = taken.entries.first().map(|entry| (entry.sequence, taken.last_times));
        Ok(lost.or(entry))
    }

    /// The newest entry from `low` to `high`.
    fn newest(&self, low: Sequence, high: Sequence) -> Result<Option<Entry>> {
        Ok(self.descend(low, high, self.one(true, Sight::default()))?.1.entries.pop())
    }

    /// The entries from `high` to `low`, descending: each place is read as soon as the changes of
    /// all younger ones are known.
    fn descend(
        &self,
        low: Sequence,
        high: Sequence,
        mut out: Collector<'v>,
    ) -> Result<(End, Taken)> {
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

    fn is_expired(&self, start_ms: TimeMs) -> bool {
        start_ms < self.alive_from_ms
    }

    /// Whether everything older than a place has expired.
    fn ends_with(&self, span: &Span) -> bool {
        !self.own_starts && self.is_expired(span.first_start_ms)
    }

    /// What follows a reader's cursor.
    pub fn after(&self, cursor: Sequence, limit: Limit) -> Result<Page> {
        let reading = self.around_damage(limit.around_damage);
        let out = Collector::new(limit, false, Sight::default());
        let (end, taken) = reading.ascend(cursor.saturating_add(1), MAX_SEQUENCE, out)?;
        let trimmed_to = reading.trimmed_to(&end)?;
        // What may be missing stands behind all that is here.
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
            // The reader may have seen what is missing.
            (false, true) => cursor.max(end.last),
            (false, false) => end.last,
        };
        reading.page(&end, verdict, taken, unmoved)
    }

    fn page(&self, end: &End, verdict: Verdict, taken: Taken, unmoved: Sequence) -> Result<Page> {
        let Taken { entries, lost, more, reached, .. } = taken;
        let next = reached.unwrap_or(unmoved);
        Ok(Page { verdict, first: self.first(end)?, last: end.last, next, more, entries, lost })
    }

    /// The lowest readable sequence; `last + 1` when there is none. Costs a read only when the
    /// floor's entry has expired.
    fn first(&self, end: &End) -> Result<Sequence> {
        let floor = &end.floor;
        if !end.has_entries() {
            return Ok(end.last + 1);
        }
        let certain =
            self.alive_from_ms == 0 || (floor.start_ms != 0 && !self.is_expired(floor.start_ms));
        if certain && (floor.until_ms == 0 || floor.until_ms > self.now_ms) {
            return Ok(floor.lowest);
        }
        Ok(self.lowest_from(floor.lowest)?.1.lowest().unwrap_or(end.last + 1))
    }

    /// Whether there is a readable entry.
    pub fn has_readable(&self) -> Result<bool> {
        let end = self.end()?;
        Ok(self.first(&end)? <= end.last)
    }

    /// The highest sequence that trimming or the store's TTL removed. Costs a walk only when the
    /// floor's entry has expired.
    fn trimmed_to(&self, end: &End) -> Result<Sequence> {
        let floor = &end.floor;
        let is_first_alive =
            floor.start_ms != 0 && !self.is_expired(floor.start_ms) && !self.own_starts;
        if self.alive_from_ms == 0 || !end.has_entries() || is_first_alive {
            return Ok(floor.trimmed_to);
        }
        // A hole below the first living entry was not lost: only what the TTL took counts.
        let sight = Sight { lost: Some(self.ttl_ms), ..self.sight(end, Overlay::default())? };
        let whole = Reading { alive_from_ms: 0, ..*self };
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
                place.sequence_at(self, self.alive_from_ms)?
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

    /// The entry with a sequence.
    pub fn get(&self, sequence: Sequence) -> Result<Option<Entry>> {
        self.newest(sequence, sequence)
    }

    /// Which body the entry with a sequence was written with, if others may share it.
    pub fn body_of(&self, sequence: Sequence) -> Result<Option<CommitPlace>> {
        let (_, taken) =
            self.descend(sequence, sequence, self.one(true, Sight::default()).without_bodies())?;
        Ok(taken.entries.first().and(taken.last_body))
    }

    /// Whether there is an entry with a sequence, readable or lost.
    pub fn has(&self, sequence: Sequence) -> Result<bool> {
        Ok(!self.present(&[sequence])?.is_empty())
    }

    /// At which of these sequences, ascending, there is an entry, readable or lost. In one walk,
    /// however many they are.
    pub fn present(&self, sequences: &[Sequence]) -> Result<BTreeSet<Sequence>> {
        let Some(lowest) = sequences.first() else { return Ok(BTreeSet::new()) };
        let mut walk = self.walk(|span| span.first <= *lowest || self.ends_with(span))?;
        let sight = self.sight(&walk.end, std::mem::take(&mut walk.overlay))?;
        let mut out = self.one(false, sight).without_bodies();
        let mut present = BTreeSet::new();
        for sequence in sequences.iter().filter(|sequence| **sequence <= walk.end.last) {
            let Some(part) = walk.parts.iter().find(|part| part.first() <= *sequence) else {
                continue;
            };
            match part {
                Part::Place(place) => place.read(self, *sequence, *sequence, &mut out)?,
                Part::Gap(gap) => gap.read(*sequence, *sequence, &mut out),
            }
            if out.take()?.reached.is_some() {
                present.insert(*sequence);
            }
        }
        Ok(present)
    }

    /// The newest readable entry.
    pub fn last(&self) -> Result<Option<Entry>> {
        self.newest(0, MAX_SEQUENCE)
    }

    /// Facts of the whole timeline. Walks every place that holds it, and reads those of which
    /// something is gone or changed.
    pub fn info(&self) -> Result<Info> {
        let mut walk = self.walk(|_| false)?;
        let sight = self.sight(&walk.end, std::mem::take(&mut walk.overlay))?;
        let mut info = Info {
            first: self.first(&walk.end)?,
            last: walk.end.last,
            count: 0,
            body_bytes: 0,
            first_time_ms: 0,
            last_time_ms: 0,
            trimmed_to: self.trimmed_to(&walk.end)?,
        };
        for place in walk.places() {
            let (count, body_bytes, first_time_ms, last_time_ms) = place.tally(self, &sight)?;
            if count > 0 {
                if info.count == 0 {
                    info.first_time_ms = first_time_ms;
                }
                info.last_time_ms = last_time_ms;
                info.count += count;
                info.body_bytes += body_bytes;
            }
        }
        Ok(info)
    }

    /// The lowest readable sequence with this time or a later one; `last + 1` when there is none.
    pub fn sequence_at(&self, time_ms: TimeMs) -> Result<Sequence> {
        let end = self.end()?;
        let Some(sequence) = self.sequence_at_raw(time_ms)? else { return Ok(end.last + 1) };
        Ok(self.lowest_from(sequence)?.1.lowest().unwrap_or(end.last + 1))
    }

    /// The lowest sequence that was given at this time or later, readable or not.
    fn sequence_at_raw(&self, time_ms: TimeMs) -> Result<Option<Sequence>> {
        // Times do not fall inside a timeline: the oldest place that ends at the time or later has
        // the answer.
        let walk = self.walk(|span| span.first_time_ms < time_ms)?;
        for part in walk.parts.iter().rev() {
            let found = match part {
                Part::Place(place) if place.span.last_time_ms >= time_ms => {
                    place.sequence_at(self, time_ms)?
                }
                // What cannot be told may be of that time.
                Part::Gap(gap) if gap.latest.time_ms >= time_ms => Some(gap.first),
                _ => None,
            };
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }
}

/// The lowest and the highest sequence inside bounds; `None` when there is none.
pub fn bounds(low: Bound<&Sequence>, high: Bound<&Sequence>) -> Option<(Sequence, Sequence)> {
    let low = match low {
        Bound::Included(low) => *low,
        Bound::Excluded(low) => low.checked_add(1)?,
        Bound::Unbounded => 0,
    };
    let high = match high {
        Bound::Included(high) => *high,
        Bound::Excluded(high) => high.checked_sub(1)?,
        Bound::Unbounded => MAX_SEQUENCE,
    };
    Some((low, high.min(MAX_SEQUENCE)))
}
