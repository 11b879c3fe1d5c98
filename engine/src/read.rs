//! The read path: one timeline, across the places of a view (P4, P5, P11).
//!
//! A timeline's entries lie in memtables and segments, each of which holds one range of its sequences; from the newest place to
//! the oldest the ranges fall. So a read walks from the newest to the oldest and stops as soon as it cannot need an older one:
//! a reader who is up to date is answered by the first place that knows the timeline, which is memory as a rule.
//!
//! 1. take the view;
//! 2. walk: each place tells how the timeline ends (the newest that knows it counts) and which range it holds;
//! 3. read the places that were needed, in the direction of the read, until the limit keeps something back.
//!
//! It does not know: names of stores, or who is asking.

use std::ops::Bound;
use std::sync::atomic::Ordering;

use crate::entry::{
    Changes, Collector, End, Entry, Info, Limit, Page, Sight, Span, Times, Verdict, alive_from_ms,
};
use crate::error::Result;
use crate::format::ids::IdEntry;
use crate::format::index::TimelineEntry;
use crate::ids::{MAX_SEQUENCE, Sequence, TimeMs, TimelineRef};
use crate::memtable::{IdRecord, Memtable};
use crate::segment::Segment;
use crate::state::State;
use crate::view::View;

/// Entries that must be looked at one by one to count them are held so many at a time.
const TALLIED: Limit = Limit { entries: 1024, body_bytes: 1024 * 1024, first_always: true };

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
    /// Lifetimes that began earlier are past it, or were when it was changed: they are not shown; 0: all are.
    pub alive_from_ms: TimeMs,
    /// Whether lifetimes may have begun earlier in younger entries: then what has expired says nothing of what is older.
    pub own_starts: bool,
    /// Entries at its end may be missing because of damage to the log.
    pub may_lack_entries: bool,
}

/// A place that holds entries of the timeline.
struct Place<'v> {
    span: Span,
    source: Source<'v>,
}

enum Source<'v> {
    Memtable(&'v Memtable),
    Segment(&'v Segment, TimelineEntry),
}

/// One step of the walk: what a place knows.
struct Step<'v> {
    end: End,
    changes: Changes,
    place: Option<Place<'v>>,
    /// The highest sequence that was here until the data was dropped.
    dropped_to: Sequence,
}

/// How a timeline ends, and the places that were walked, newest first.
struct Walk<'v> {
    end: End,
    /// What the walked places change in older ones.
    changes: Changes,
    places: Vec<Place<'v>>,
}

impl<'v> Reading<'v> {
    /// A timeline as it can be read now.
    pub fn new(state: &State, view: &'v View, timeline: TimelineRef<'v>, hash: u64) -> Reading<'v> {
        Reading::at(state, view, (timeline, hash), state.now_ms())
    }

    /// A timeline as it is to be read for a decision that cannot be taken back.
    pub fn sure(state: &State, view: &'v View, timeline: TimelineRef<'v>, hash: u64) -> Reading<'v> {
        Reading::at(state, view, (timeline, hash), state.sure_now_ms())
    }

    fn at(
        state: &State,
        view: &'v View,
        (timeline, hash): (TimelineRef<'v>, u64),
        now_ms: TimeMs,
    ) -> Reading<'v> {
        let (ttl_ms, gone_before_ms) = state.retention(timeline.store);
        let alive_from_ms = alive_from_ms(now_ms, ttl_ms, gone_before_ms);
        let own_starts = state.own_starts.load(Ordering::Acquire);
        let may_lack_entries = state.may_lack_entries(view, timeline, hash);
        Reading { view, timeline, hash, now_ms, ttl_ms, alive_from_ms, own_starts, may_lack_entries }
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
        }
    }

    /// The places that know the timeline, newest first.
    fn steps(&self) -> impl Iterator<Item = Result<Step<'v>>> {
        let (view, timeline, hash) = (self.view, self.timeline, self.hash);
        let memtables = view.memtables().filter_map(move |memtable| {
            let (end, span, changes) = memtable.look(timeline, hash)?;
            let place = span.map(|span| Place { span, source: Source::Memtable(memtable) });
            Some(Ok(Step { end, changes: changes.unwrap_or_default(), place, dropped_to: 0 }))
        });
        let segments = view.segments.of(timeline.store).iter().filter_map(move |segment| {
            let step = |entry: TimelineEntry| {
                let (end, changes) = (entry.end, segment.changes(&entry)?);
                if !segment.record().has_data() {
                    return Ok(Step { end, changes, place: None, dropped_to: segment.dropped_to(&entry) });
                }
                let place = entry.span().map(|span| Place { span, source: Source::Segment(segment, entry) });
                Ok(Step { end, changes, place, dropped_to: 0 })
            };
            segment.find(timeline.name).transpose().map(|found| found.and_then(step))
        });
        memtables.chain(segments)
    }

    /// Walks from the newest place to the oldest, until `enough` says so of one with entries, or nothing older can be readable.
    fn walk(&self, mut enough: impl FnMut(&Span) -> bool) -> Result<Walk<'v>> {
        let mut walk = Walk { end: End::NEVER, changes: Changes::default(), places: Vec::new() };
        let mut known = false;
        for step in self.steps() {
            let step = step?;
            if !std::mem::replace(&mut known, true) {
                walk.end = step.end;
            }
            walk.changes.add_older(step.changes);
            let done = match &step.place {
                Some(place) => enough(&place.span) || place.span.first <= walk.end.floor.lowest,
                None => !walk.end.has_entries(),
            };
            walk.places.extend(step.place);
            if done {
                break;
            }
        }
        Ok(walk)
    }

    /// How the timeline ends, by the newest place that knows it.
    pub fn end(&self) -> Result<End> {
        self.steps().next().map_or(Ok(End::NEVER), |step| step.map(|step| step.end))
    }

    /// What a client's id was used for in this timeline. Of what was used before some time nothing need be found.
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
                return Ok(Some(IdRecord { body_hash, targets_hash, time_ms, start_ms, sequences }));
            }
        }
        Ok(None)
    }

    fn sight(&self, end: &End, changes: Changes) -> Sight {
        Sight {
            now_ms: self.now_ms,
            alive_from_ms: self.alive_from_ms,
            lowest: end.floor.lowest,
            changes,
            lost: None,
        }
    }

    /// The entries from `low` to `high`, in either direction.
    pub fn range(&self, low: Sequence, high: Sequence, limit: Limit, descending: bool) -> Result<Page> {
        let (end, entries, more) =
            if descending { self.descend(low, high, limit)? } else { self.ascend(low, high, limit)? };
        self.page(&end, Verdict::Ok, entries, more, end.last)
    }

    /// The entries from `low` to `high`, ascending: the oldest place that is needed comes first.
    fn ascend(&self, low: Sequence, high: Sequence, limit: Limit) -> Result<(End, Vec<Entry>, bool)> {
        let (end, out) = self.collect_ascending(low, high, limit)?;
        let (entries, more) = out.finish();
        Ok((end, entries, more))
    }

    fn collect_ascending(&self, low: Sequence, high: Sequence, limit: Limit) -> Result<(End, Collector)> {
        let walk = self.walk(|span| span.first <= low || self.ends_with(span))?;
        let mut out = Collector::new(limit, false, self.sight(&walk.end, walk.changes));
        // The active memtable may have grown since it told its end: what is shown goes with the end that is told.
        let high = high.min(walk.end.last);
        for place in walk.places.iter().rev() {
            place.read(self, low, high, &mut out)?;
            if out.is_full() {
                break;
            }
        }
        Ok((walk.end, out))
    }

    /// The first readable entry at or above a sequence.
    pub fn first_from(&self, low: Sequence) -> Result<Option<(Sequence, Times)>> {
        let (_, out) = self.collect_ascending(low, MAX_SEQUENCE, Limit::entries(1))?;
        let times = out.last_times();
        Ok(out.finish().0.first().map(|entry| (entry.sequence, times)))
    }

    /// The entries from `high` to `low`, descending: each place is read as soon as the changes of all younger ones are known.
    fn descend(&self, low: Sequence, high: Sequence, limit: Limit) -> Result<(End, Vec<Entry>, bool)> {
        let sight = self.sight(&End::NEVER, Changes::default());
        self.descend_into(Collector::new(limit, true, sight), low, high)
    }

    /// The newest entry from `low` to `high`.
    fn newest(&self, low: Sequence, high: Sequence) -> Result<Option<Entry>> {
        let sight = self.sight(&End::NEVER, Changes::default());
        let out = Collector::new(Limit::entries(1), true, sight).sufficient();
        Ok(self.descend_into(out, low, high)?.1.pop())
    }

    /// Descending: each place is read as soon as the changes of all younger ones are known.
    fn descend_into(
        &self,
        mut out: Collector,
        low: Sequence,
        high: Sequence,
    ) -> Result<(End, Vec<Entry>, bool)> {
        let mut found = None;
        for step in self.steps() {
            let step = step?;
            if found.is_none() {
                out.sight.lowest = step.end.floor.lowest;
                found = Some(step.end);
            }
            out.sight.changes.add_older(step.changes);
            let Some(place) = step.place else { continue };
            let high = high.min(found.map_or(0, |end: End| end.last));
            place.read(self, low, high, &mut out)?;
            let oldest = place.span.first <= low.max(out.sight.lowest) || self.ends_with(&place.span);
            if out.is_full() || oldest {
                break;
            }
        }
        let (entries, more) = out.finish();
        Ok((found.unwrap_or(End::NEVER), entries, more))
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
        let (end, entries, more) = self.ascend(cursor.saturating_add(1), MAX_SEQUENCE, limit)?;
        let trimmed_to = self.trimmed_to(&end)?;
        // What may be missing stands behind all that is here.
        let lacks = self.may_lack_entries && !more;
        let verdict = if cursor > end.last && !lacks {
            Verdict::Future
        } else if lacks || cursor < trimmed_to {
            Verdict::Trimmed
        } else {
            Verdict::Ok
        };
        let unmoved = match (more, lacks) {
            (true, _) => cursor.max(trimmed_to),
            // The reader may have seen what is missing.
            (false, true) => cursor.max(end.last),
            (false, false) => end.last,
        };
        self.page(&end, verdict, entries, more, unmoved)
    }

    fn page(
        &self,
        end: &End,
        verdict: Verdict,
        entries: Vec<Entry>,
        more: bool,
        unmoved: Sequence,
    ) -> Result<Page> {
        let next = entries.last().map_or(unmoved, |entry| entry.sequence);
        Ok(Page { verdict, first: self.first(end)?, last: end.last, next, more, entries })
    }

    /// The lowest readable sequence; `last + 1` when there is none. Costs a read only when the floor's entry has expired.
    fn first(&self, end: &End) -> Result<Sequence> {
        let floor = &end.floor;
        if !end.has_entries() {
            return Ok(end.last + 1);
        }
        let certain = self.alive_from_ms == 0 || (floor.start_ms != 0 && !self.is_expired(floor.start_ms));
        if certain && (floor.until_ms == 0 || floor.until_ms > self.now_ms) {
            return Ok(floor.lowest);
        }
        let (_, entries, _) = self.ascend(floor.lowest, MAX_SEQUENCE, Limit::entries(1))?;
        Ok(entries.first().map_or(end.last + 1, |entry| entry.sequence))
    }

    /// Whether there is a readable entry.
    pub fn has_readable(&self) -> Result<bool> {
        let end = self.end()?;
        Ok(self.first(&end)? <= end.last)
    }

    /// The highest sequence that trimming or the store's TTL removed. Costs a walk only when the floor's entry has expired.
    fn trimmed_to(&self, end: &End) -> Result<Sequence> {
        let floor = &end.floor;
        let is_first_alive = floor.start_ms != 0 && !self.is_expired(floor.start_ms) && !self.own_starts;
        if self.alive_from_ms == 0 || !end.has_entries() || is_first_alive {
            return Ok(floor.trimmed_to);
        }
        // A hole below the first living entry was not lost: only what the TTL took counts.
        let sight = Sight { lost: Some(self.ttl_ms), ..self.sight(end, Changes::default()) };
        let whole = Reading { alive_from_ms: 0, ..*self };
        let mut out = Collector::new(Limit::entries(1), true, sight);
        let mut dropped_to = 0;
        for step in self.steps() {
            let step = step?;
            dropped_to = dropped_to.max(step.dropped_to);
            out.sight.changes.add_older(step.changes);
            let Some(place) = step.place.filter(|place| self.is_expired(place.span.first_start_ms)) else {
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
        let lost = out.finish().0.first().map_or(0, |entry| entry.sequence);
        Ok(floor.trimmed_to.max(lost).max(dropped_to))
    }

    /// The entry with a sequence.
    pub fn get(&self, sequence: Sequence) -> Result<Option<Entry>> {
        self.newest(sequence, sequence)
    }

    /// The newest readable entry.
    pub fn last(&self) -> Result<Option<Entry>> {
        self.newest(0, MAX_SEQUENCE)
    }

    /// Facts of the whole timeline. Walks every place that holds it, and reads those of which something is gone or changed.
    pub fn info(&self) -> Result<Info> {
        let walk = self.walk(|_| false)?;
        let sight = self.sight(&walk.end, walk.changes);
        let mut info = Info {
            first: self.first(&walk.end)?,
            last: walk.end.last,
            count: 0,
            body_bytes: 0,
            first_time_ms: 0,
            last_time_ms: 0,
            trimmed_to: self.trimmed_to(&walk.end)?,
        };
        for place in walk.places.iter().rev() {
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
        let (_, entries, _) = self.ascend(sequence, MAX_SEQUENCE, Limit::entries(1))?;
        Ok(entries.first().map_or(end.last + 1, |entry| entry.sequence))
    }

    /// The lowest sequence that was given at this time or later, readable or not.
    fn sequence_at_raw(&self, time_ms: TimeMs) -> Result<Option<Sequence>> {
        // Times do not fall inside a timeline: the oldest place that ends at the time or later has the answer.
        let walk = self.walk(|span| span.first_time_ms < time_ms)?;
        for place in walk.places.iter().rev().filter(|place| place.span.last_time_ms >= time_ms) {
            let found = place.sequence_at(self, time_ms)?;
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }
}

impl Place<'_> {
    fn read(&self, reading: &Reading<'_>, low: Sequence, high: Sequence, out: &mut Collector) -> Result<()> {
        let low = low.max(out.sight.lowest);
        if self.span.last < low || self.span.first > high || reading.is_expired(self.span.last_start_ms) {
            return Ok(());
        }
        match &self.source {
            Source::Memtable(memtable) => {
                memtable.read(reading.timeline, reading.hash, low, high, out);
                Ok(())
            }
            Source::Segment(segment, entry) => segment.read(reading.timeline.name, entry, low, high, out),
        }
    }

    /// The lowest sequence here that was given at this time or later.
    fn sequence_at(&self, reading: &Reading<'_>, time_ms: TimeMs) -> Result<Option<Sequence>> {
        match &self.source {
            Source::Memtable(memtable) => Ok(memtable.sequence_at(reading.timeline, reading.hash, time_ms)),
            Source::Segment(segment, entry) => segment.sequence_at(reading.timeline.name, entry, time_ms),
        }
    }

    /// Count, bytes, first and last time of the readable entries.
    fn tally(&self, reading: &Reading<'_>, sight: &Sight) -> Result<(u64, u64, TimeMs, TimeMs)> {
        let span = &self.span;
        let changed = sight
            .changes
            .removed
            .range(..=span.last)
            .next_back()
            .is_some_and(|(_, last)| *last >= span.first)
            || sight.changes.edited.range(span.first..=span.last).next().is_some();
        let whole = span.first >= sight.lowest
            && !sight.is_expired(span.first_start_ms)
            && !span.own_expiry
            && !changed;
        if whole {
            // The last sequence of a span was given, but what was removed before a flush or a merge is not there any more.
            let dense = span.count == span.last - span.first + 1;
            let last_time_ms = if dense { span.last_time_ms } else { self.newest_time_ms(reading, sight)? };
            return Ok((span.count, span.body_bytes, span.first_time_ms, last_time_ms));
        }
        let (mut count, mut body_bytes, mut times, mut from) = (0, 0, None, span.first);
        loop {
            let mut out = Collector::new(TALLIED, false, sight.clone());
            self.read(reading, from, span.last, &mut out)?;
            let (entries, more) = out.finish();
            count += entries.len() as u64;
            body_bytes += entries.iter().map(|entry| entry.body.len() as u64).sum::<u64>();
            let (Some(first), Some(last)) = (entries.first(), entries.last()) else { break };
            times = Some((times.map_or(first.time_ms, |(first_ms, _)| first_ms), last.time_ms));
            if !more {
                break;
            }
            from = last.sequence + 1;
        }
        let (first_ms, last_ms) = times.unwrap_or_default();
        Ok((count, body_bytes, first_ms, last_ms))
    }

    /// The time of the newest readable entry here; 0 when there is none.
    fn newest_time_ms(&self, reading: &Reading<'_>, sight: &Sight) -> Result<TimeMs> {
        let mut out = Collector::new(Limit::entries(1), true, sight.clone());
        self.read(reading, self.span.first, self.span.last, &mut out)?;
        Ok(out.finish().0.first().map_or(0, |entry| entry.time_ms))
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
