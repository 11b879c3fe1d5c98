//! The places that contain a timeline, from the newest to the oldest: what each knows of the
//! timeline, and how one is read.
//!
//! A segment whose index is damaged may contain the timeline. The entries that it can hide are
//! between the end of the next older place and the start of the next newer one; if no sequence is
//! between them, it hides nothing. Sequences are dense except where an append chose its own; there
//! a gap may be reported that hides nothing (P4, P5).
//!
//! This file does not know what is read, or who reads.

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;

use super::reading::Reading;
use crate::entry::Limit;
use crate::error::{Error, Result};
use crate::format::index::{Edited, TimelineEntry};
use crate::ids::{BODIES, CommitPlace, Sequence, TimeMs, TimelineRef};
use crate::memtable::{Look, Memtable, SlotId, Watermark, edited_without, removed_without};
use crate::segment::Segment;
use crate::timeline::{
    Collected, Collector, End, Layer, NewBody, Overlay, Sides, Sight, Span, Times, sides,
};

/// If entries must be read one by one to be counted, a page of this size is in memory at a time,
/// without bodies.
const TALLIED: Limit =
    Limit { entries: 1024, body_bytes: u64::MAX, first_always: true, around_damage: false };

/// A place that contains entries of the timeline.
pub struct Place<'v> {
    pub span: Span,
    source: Source<'v>,
}

enum Source<'v> {
    Memtable(&'v Memtable, Watermark),
    Segment(&'v Segment, Arc<TimelineEntry>),
}

/// The readable entries of a place, counted. The times are 0 if there are none.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    pub count: u64,
    pub body_bytes: u64,
    pub first_time_ms: TimeMs,
    pub last_time_ms: TimeMs,
}

/// One step of a walk: the knowledge of one place.
pub struct Step<'v> {
    pub end: End,
    span: Option<Span>,
    source: Source<'v>,
    /// The changes that it makes in older places; a memtable's apply to its own entries, too.
    layer: Option<Rc<dyn Layer + 'v>>,
    /// The highest sequence that was here until the data was dropped.
    pub dropped_to: Sequence,
}

/// The result of one step of a walk.
#[allow(clippy::large_enum_variant, reason = "one at a time, and nearly all are of the large kind")]
pub enum Met<'v> {
    /// A place that knows the timeline.
    Step(Step<'v>),
    /// A segment that cannot report whether it knows the timeline, and the latest times in it.
    Hidden(Error, Times),
}

/// The range of a timeline that a segment with a damaged index may hide.
pub struct Gap {
    pub first: Sequence,
    pub last: Sequence,
    /// The latest times in it.
    pub latest: Times,
    pub error: Error,
}

/// Finds gaps during a walk from the newest place to the oldest.
#[derive(Default)]
pub struct Gaps {
    /// The lowest sequence of the newer places; `None` while none is known.
    newer_from: Option<Sequence>,
    hidden: Option<(Error, Times)>,
}

/// The changes of a timeline in a memtable.
struct InMemory<'v> {
    memtable: &'v Memtable,
    slot: SlotId,
    watermark: Watermark,
}

impl Layer for InMemory<'_> {
    fn bound(&self) -> Sequence {
        // They apply to the memtable's own entries, too.
        Sequence::MAX
    }

    fn removed(&self, around: Sequence, most: usize) -> Sides<(Sequence, Sequence)> {
        self.memtable.changes_for(self.slot, self.watermark, |changes, undone| {
            removed_without(changes, undone, (around, most))
        })
    }

    fn edited(&self, around: Sequence, most: usize) -> Sides<(Sequence, (CommitPlace, NewBody))> {
        self.memtable.changes_for(self.slot, self.watermark, |changes, undone| {
            edited_without(changes, undone, (around, most))
        })
    }

    fn body(&self, sequence: Sequence, _number: u32) -> Result<Bytes> {
        unreachable!("the body of {sequence} is in memory")
    }
}

/// The changes of a timeline in a segment, which apply to older segments.
struct InSegment<'v> {
    segment: &'v Segment,
    name: &'v [u8],
    bound: Sequence,
    removed: Arc<[(Sequence, Sequence)]>,
    edited: Arc<[Edited]>,
}

impl<'v> InSegment<'v> {
    fn of(
        segment: &'v Segment,
        name: &'v [u8],
        entry: &TimelineEntry,
    ) -> Option<Rc<dyn Layer + 'v>> {
        // New bodies go with the data: the entries have expired, or are not readable. A removed
        // sequence may still be in an older segment.
        if entry.removed.is_empty() && segment.edited(entry).is_empty() {
            return None;
        }
        let (bound, removed) = (entry.first, entry.removed.clone());
        let edited =
            if segment.record().has_data() { entry.edited.clone() } else { Arc::default() };
        Some(Rc::new(InSegment { segment, name, bound, removed, edited }))
    }
}

impl Layer for InSegment<'_> {
    fn bound(&self) -> Sequence {
        self.bound
    }

    fn removed(&self, around: Sequence, most: usize) -> Sides<(Sequence, Sequence)> {
        sides(&self.removed, around, most, |(first, _)| *first, |range| *range)
    }

    fn edited(&self, around: Sequence, most: usize) -> Sides<(Sequence, (CommitPlace, NewBody))> {
        sides(
            &self.edited,
            around,
            most,
            |edited| edited.sequence,
            |edited| (edited.sequence, (edited.at, NewBody::Stored(edited.body))),
        )
    }

    fn body(&self, sequence: Sequence, number: u32) -> Result<Bytes> {
        self.segment.new_body(self.name, sequence, number)
    }
}

impl<'v> Step<'v> {
    /// Takes the changes that the place makes in older ones, and a memtable in its own entries.
    pub fn take_layer(&mut self) -> Option<Rc<dyn Layer + 'v>> {
        self.layer.take()
    }

    /// The part of the timeline in this place.
    pub fn span(&self) -> Option<&Span> {
        self.span.as_ref()
    }

    /// The first sequence in this place, or, if it has none, the one after its end.
    fn from(&self) -> Sequence {
        match (&self.source, &self.span) {
            (Source::Segment(_, entry), _) if entry.count > 0 => entry.first,
            (_, Some(span)) => span.first,
            _ => self.end.last + 1,
        }
    }

    /// The last sequence in this place or in older ones; `None` if it is unknown. A segment of a
    /// time partition may know a later end of the timeline than it contains; in a store without
    /// partitions, all segments are in partition 0.
    fn held_to(&self, reading: &Reading<'_>) -> Result<Option<Sequence>> {
        match &self.source {
            Source::Memtable(..) => Ok(Some(self.end.last)),
            Source::Segment(segment, _) if segment.record().partition == 0 => {
                Ok(Some(self.end.last))
            }
            Source::Segment(_, entry) if entry.count == 0 => Ok(None),
            Source::Segment(segment, entry) => {
                segment.last_of(reading.key.timeline.name, entry).map(Some)
            }
        }
    }

    /// The place, if it contains entries.
    pub fn place(self) -> Option<Place<'v>> {
        let source = self.source;
        self.span.map(|span| Place { span, source })
    }
}

/// The places that know the timeline, newest first. A damaged index is an error, unless the read
/// continues after damage.
pub fn steps<'v>(reading: &Reading<'v>) -> impl Iterator<Item = Result<Met<'v>>> + use<'v> {
    let (view, key, around_damage) = (reading.view, reading.key, reading.around_damage);
    let timeline = key.timeline;
    let memtables = view.memtables_below(reading.watermark);
    let memtables = memtables.filter_map(move |(memtable, watermark)| {
        let Look { end, span, changed } = memtable.look(key, watermark)?;
        let layer = changed
            .map(|slot| Rc::new(InMemory { memtable, slot, watermark }) as Rc<dyn Layer + 'v>);
        Some(Ok(Met::Step(Step {
            end,
            span,
            source: Source::Memtable(memtable, watermark),
            layer,
            dropped_to: 0,
        })))
    });
    let segments = view.segments.of(timeline.store).iter().filter_map(move |segment| {
        let has_data = segment.record().has_data();
        let step = |entry: Arc<TimelineEntry>| {
            let (end, layer) = (entry.end, InSegment::of(segment, timeline.name, &entry));
            let span = entry.span().filter(|_| has_data);
            let dropped_to = if has_data { 0 } else { segment.dropped_to(&entry) };
            Met::Step(Step {
                end,
                span,
                source: Source::Segment(segment, entry),
                layer,
                dropped_to,
            })
        };
        match segment.find(timeline.name) {
            Err(error) if around_damage && error.is_damage() => {
                let record = segment.record();
                let latest = Times::stored(record.last_time_ms, Some(record.last_start_ms), 0);
                Some(Ok(Met::Hidden(error, latest)))
            }
            found => found.map(|found| found.map(step)).transpose(),
        }
    });
    memtables.chain(segments)
}

/// The changes of shared bodies that the places of a view make in the reading's store. If damage
/// hides some of these changes, also returns the damage and the bodies concerned: those that were
/// committed below a place and do not have the changes applied.
pub fn changed_bodies<'v>(
    reading: &Reading<'v>,
) -> Result<(Overlay<'v>, Option<(CommitPlace, Error)>)> {
    let timeline = TimelineRef { store: reading.key.timeline.store, name: BODIES };
    let (mut overlay, mut hidden) = (Overlay::default(), None);
    if let Some(bodies) = reading.bodies {
        for (memtable, watermark) in reading.view.memtables_below(reading.watermark) {
            let slot = memtable.look(bodies, watermark).and_then(|look| look.changed);
            overlay.add_older(
                slot.map(|slot| {
                    Rc::new(InMemory { memtable, slot, watermark }) as Rc<dyn Layer + 'v>
                }),
            );
        }
    }
    let segments = reading.view.segments.of(timeline.store).iter();
    for segment in segments.filter(|segment| segment.changes_bodies()) {
        match segment.find(BODIES) {
            Ok(Some(entry)) => overlay.add_older(InSegment::of(segment, BODIES, &entry)),
            Ok(None) => {}
            Err(error) if error.is_damage() => {
                hidden.get_or_insert((CommitPlace(segment.record().to.0), error));
            }
            Err(error) => return Err(error),
        }
    }
    Ok((overlay, hidden))
}

impl Gaps {
    /// A place that knows the timeline, with the gap between it and the newer ones; `None` for a
    /// segment that cannot be asked.
    pub fn meet<'v>(
        &mut self,
        met: Met<'v>,
        reading: &Reading<'_>,
    ) -> Result<Option<(Step<'v>, Option<Gap>)>> {
        match met {
            Met::Step(step) => self.step(&step, reading).map(|gap| Some((step, gap))),
            Met::Hidden(error, latest) => self.hide(error, latest).map(|()| None),
        }
    }

    /// Records a segment that cannot be asked. That is an error if no newer place reports the end
    /// of the timeline.
    fn hide(&mut self, error: Error, latest: Times) -> Result<()> {
        if self.newer_from.is_none() {
            return Err(error);
        }
        // Neighbouring hidden segments make one gap, with the newest one's error.
        let (_, known) = self.hidden.get_or_insert((error, latest));
        known.time_ms = known.time_ms.max(latest.time_ms);
        known.start_ms = known.start_ms.max(latest.start_ms);
        Ok(())
    }

    /// The gap between the newer places and a place that is known.
    fn step(&mut self, step: &Step<'_>, reading: &Reading<'_>) -> Result<Option<Gap>> {
        let mut gap = None;
        if self.hidden.is_some() {
            // A place without entries that does not know leaves the gap open, for an older place
            // to close.
            let Some(held_to) = step.held_to(reading)? else { return Ok(None) };
            gap = self.close(held_to);
        }
        let from = step.from();
        self.newer_from = Some(self.newer_from.map_or(from, |newer| newer.min(from)));
        Ok(gap)
    }

    /// The gap between the newer places and `older_to`, the sequence up to which older ones are
    /// complete.
    pub fn close(&mut self, older_to: Sequence) -> Option<Gap> {
        let (error, latest) = self.hidden.take()?;
        let (first, last) = (older_to + 1, self.newer_from?.checked_sub(1)?);
        (first <= last).then_some(Gap { first, last, latest, error })
    }
}

impl Gap {
    /// Offers the part of it that is wanted.
    pub fn read(&self, low: Sequence, high: Sequence, out: &mut Collector<'_>) {
        out.offer_lost(
            (self.first.max(low), self.last.min(high)),
            self.latest.start_ms,
            &self.error,
        );
    }
}

impl Place<'_> {
    /// Offers the readable entries from `low` to `high` to the collector, in its direction.
    pub fn read(
        &self,
        reading: &Reading<'_>,
        low: Sequence,
        high: Sequence,
        out: &mut Collector<'_>,
    ) -> Result<()> {
        let low = low.max(out.sight.lowest);
        // With the latest start, all lifetimes here are past the TTL.
        if self.span.last < low
            || self.span.first > high
            || reading.is_expired(self.span.last_start_ms)
        {
            return Ok(());
        }
        match &self.source {
            Source::Memtable(memtable, watermark) => {
                memtable.read(reading.key, low, high, *watermark, out);
                Ok(())
            }
            Source::Segment(segment, entry) => {
                segment.read(reading.key.timeline.name, entry, low, high, out)
            }
        }
    }

    /// The lowest sequence here that was given at this time or later.
    pub fn sequence_at(&self, reading: &Reading<'_>, time_ms: TimeMs) -> Result<Option<Sequence>> {
        match &self.source {
            Source::Memtable(memtable, watermark) => {
                Ok(memtable.sequence_at(reading.key, time_ms, *watermark))
            }
            Source::Segment(segment, entry) => segment.sequence_at(
                reading.key.timeline.name,
                entry,
                (time_ms, reading.around_damage),
            ),
        }
    }

    /// Counts the readable entries.
    pub fn tally(&self, reading: &Reading<'_>, sight: &Sight<'_>) -> Result<Tally> {
        let span = &self.span;
        let changed = sight.overlay.touches(span.first, span.last);
        // Whether every entry here is readable, with the body that the span counts.
        let whole = sight.bodies.is_empty()
            && span.first >= sight.lowest
            && !sight.is_expired(span.first_start_ms)
            && !span.own_expiry
            && !changed;
        if whole {
            // A span ends at the last sequence that was given, whose entry is not here if it was
            // removed before a flush or a merge. If none is missing, it is here.
            let dense = span.count == span.last - span.first + 1;
            let last_time_ms =
                if dense { span.last_time_ms } else { self.newest_time_ms(reading, sight)? };
            let Span { count, body_bytes, first_time_ms, .. } = *span;
            return Ok(Tally { count, body_bytes, first_time_ms, last_time_ms });
        }
        let (mut tally, mut from) = (Tally::default(), span.first);
        loop {
            let mut out = Collector::new(TALLIED, false, sight.clone()).measuring();
            self.read(reading, from, span.last, &mut out)?;
            let Collected { entries, more, body_bytes: page_bytes, .. } = out.finish()?;
            let (Some(first), Some(last)) = (entries.first(), entries.last()) else { break };
            if tally.count == 0 {
                tally.first_time_ms = first.time_ms;
            }
            tally.last_time_ms = last.time_ms;
            tally.count += entries.len() as u64;
            tally.body_bytes += page_bytes;
            if !more {
                break;
            }
            from = last.sequence + 1;
        }
        Ok(tally)
    }

    /// The time of the newest readable entry here; 0 if there is none.
    fn newest_time_ms(&self, reading: &Reading<'_>, sight: &Sight<'_>) -> Result<TimeMs> {
        let mut out =
            Collector::new(Limit::entries(1), true, sight.clone()).sufficient().without_bodies();
        self.read(reading, self.span.first, self.span.last, &mut out)?;
        Ok(out.finish()?.entries.first().map_or(0, |entry| entry.time_ms))
    }
}
