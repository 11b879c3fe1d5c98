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

use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::Arc;

use crate::entry::{Collector, End, Entry, Info, Limit, Page, Span, Verdict};
use crate::error::Result;
use crate::format::index::TimelineEntry;
use crate::ids::{MAX_SEQUENCE, Sequence, StoreId, TimeMs, TimelineRef};
use crate::memtable::Memtable;
use crate::segment::{Segment, SegmentScan};
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

/// How a timeline ends, and the places that were walked, newest first.
struct Walk<'v> {
    end: End,
    places: Vec<Place<'v>>,
}

impl<'v> Reading<'v> {
    /// Walks from the newest place to the oldest, until `enough` says so of one with entries, or nothing older can be readable.
    fn walk(&self, mut enough: impl FnMut(&Span) -> bool) -> Result<Walk<'v>> {
        let mut walk = Walk { end: End::NEVER, places: Vec::new() };
        let mut known = false;
        for memtable in self.view.memtables() {
            let Some((end, span)) = memtable.look(self.timeline, self.hash) else { continue };
            let source = || Source::Memtable(memtable);
            if walk.step(&mut known, end, span, source, &mut enough) {
                return Ok(walk);
            }
        }
        for segment in self.view.segments.of(self.timeline.store) {
            let Some(entry) = segment.find(self.timeline.name)? else { continue };
            let (end, span) = (entry.end(), entry.span());
            if walk.step(&mut known, end, span, || Source::Segment(segment, entry), &mut enough) {
                return Ok(walk);
            }
        }
        Ok(walk)
    }

    /// How the timeline ends, by the newest place that knows it.
    pub fn end(&self) -> Result<End> {
        for memtable in self.view.memtables() {
            if let Some((end, _)) = memtable.look(self.timeline, self.hash) {
                return Ok(end);
            }
        }
        for segment in self.view.segments.of(self.timeline.store) {
            if let Some(entry) = segment.find(self.timeline.name)? {
                return Ok(entry.end());
            }
        }
        Ok(End::NEVER)
    }

    /// The entries from `low` to `high`, in either direction.
    pub fn range(&self, low: Sequence, high: Sequence, limit: Limit, descending: bool) -> Result<Page> {
        let mut out = Collector::new(limit, descending);
        let end =
            if descending { self.descend(low, high, &mut out)? } else { self.ascend(low, high, &mut out)? };
        Ok(page(end, Verdict::Ok, out, end.last))
    }

    /// The entries from `low` to `high`, ascending: the oldest place that is needed comes first.
    fn ascend(&self, low: Sequence, high: Sequence, out: &mut Collector) -> Result<End> {
        let walk = self.walk(|span| span.first <= low)?;
        for place in walk.places.iter().rev() {
            place.read(self, low, high, out)?;
            if out.is_full() {
                break;
            }
        }
        Ok(walk.end)
    }

    /// The entries from `high` to `low`, descending: places are read as the walk finds them.
    fn descend(&self, low: Sequence, high: Sequence, out: &mut Collector) -> Result<End> {
        let mut missing = out.room() as u64 + 1;
        let walk = self.walk(|span| {
            if span.first <= high {
                missing = missing.saturating_sub(readable(span, high));
            }
            missing == 0 || span.first <= low
        })?;
        for place in &walk.places {
            place.read(self, low, high, out)?;
            if out.is_full() {
                break;
            }
        }
        Ok(walk.end)
    }

    /// What follows a reader's cursor.
    pub fn after(&self, cursor: Sequence, limit: Limit) -> Result<Page> {
        let mut out = Collector::new(limit, false);
        let end = self.ascend(cursor.saturating_add(1), MAX_SEQUENCE, &mut out)?;
        let verdict = if cursor > end.last {
            Verdict::Future
        } else if cursor < end.trimmed_to {
            Verdict::Trimmed
        } else {
            Verdict::Ok
        };
        let waiting = out.is_full();
        let unmoved = if waiting { cursor.max(end.trimmed_to) } else { end.last };
        Ok(page(end, verdict, out, unmoved))
    }

    /// The entry with a sequence.
    pub fn get(&self, sequence: Sequence) -> Result<Option<Entry>> {
        Ok(self.range(sequence, sequence, Limit::entries(1), true)?.entries.pop())
    }

    /// The newest readable entry.
    pub fn last(&self) -> Result<Option<Entry>> {
        Ok(self.range(0, MAX_SEQUENCE, Limit::entries(1), true)?.entries.pop())
    }

    /// Facts of the whole timeline. Walks every place that holds it.
    pub fn info(&self) -> Result<Info> {
        let walk = self.walk(|_| false)?;
        let (oldest, newest) = (walk.places.last(), walk.places.first());
        Ok(Info {
            first: first(walk.end),
            last: walk.end.last,
            count: walk.places.iter().map(|place| place.span.count).sum(),
            body_bytes: walk.places.iter().map(|place| place.span.body_bytes).sum(),
            first_time_ms: oldest.map_or(0, |place| place.span.first_time_ms),
            last_time_ms: newest.map_or(0, |place| place.span.last_time_ms),
            trimmed_to: walk.end.trimmed_to,
        })
    }

    /// The lowest readable sequence with this time or a later one; `last + 1` when there is none.
    pub fn sequence_at(&self, time_ms: TimeMs) -> Result<Sequence> {
        // Times do not fall inside a timeline: the oldest place that ends at the time or later has the answer.
        let walk = self.walk(|span| span.first_time_ms < time_ms)?;
        for place in walk.places.iter().rev().filter(|place| place.span.last_time_ms >= time_ms) {
            let found = match &place.source {
                Source::Memtable(memtable) => memtable.sequence_at(self.timeline, self.hash, time_ms),
                Source::Segment(segment, entry) => segment.sequence_at(self.timeline.name, entry, time_ms)?,
            };
            if let Some(sequence) = found {
                return Ok(sequence);
            }
        }
        Ok(walk.end.last + 1)
    }
}

impl<'v> Walk<'v> {
    /// Takes one place in. True when no older one is needed.
    fn step(
        &mut self,
        known: &mut bool,
        end: End,
        span: Option<Span>,
        source: impl FnOnce() -> Source<'v>,
        enough: &mut impl FnMut(&Span) -> bool,
    ) -> bool {
        if !std::mem::replace(known, true) {
            self.end = end;
        }
        let Some(span) = span else { return !self.end.has_readable() };
        let oldest = enough(&span) || span.first <= self.end.lowest;
        self.places.push(Place { span, source: source() });
        oldest
    }
}

impl Place<'_> {
    fn read(&self, reading: &Reading<'_>, low: Sequence, high: Sequence, out: &mut Collector) -> Result<()> {
        if self.span.last < low || self.span.first > high {
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
}

/// How many entries of a span are at or below `high`, at least: holes may make it fewer than the numbers say.
fn readable(span: &Span, high: Sequence) -> u64 {
    if span.last <= high {
        return span.count;
    }
    let holes = (span.last - span.first + 1) - span.count;
    (high - span.first + 1).saturating_sub(holes)
}

fn first(end: End) -> Sequence {
    if end.has_readable() { end.lowest } else { end.last + 1 }
}

fn page(end: End, verdict: Verdict, out: Collector, unmoved: Sequence) -> Page {
    let (entries, more) = out.finish();
    let next = entries.last().map_or(unmoved, |entry| entry.sequence);
    Page { verdict, entries, first: first(end), last: end.last, next, more }
}

/// The names of a store's timelines that start with `prefix`, are above `after` and have a readable entry: the first `count`.
///
/// Costs a pass over the memtables' names and, of each segment, the index pages that the answer spans.
pub fn list(
    view: &View,
    store: StoreId,
    prefix: &[u8],
    after: Option<&[u8]>,
    count: usize,
    hash: impl Fn(TimelineRef<'_>) -> u64,
) -> Result<Vec<Vec<u8>>> {
    let mut listed = Vec::new();
    let mut after = after.map(<[u8]>::to_vec);
    while listed.len() < count {
        let names = names_above(view, store, prefix, after.as_deref(), count - listed.len())?;
        let Some(last) = names.last() else { break };
        after = Some(last.clone());
        for name in names {
            let timeline = TimelineRef { store, name: &name };
            if (Reading { view, timeline, hash: hash(timeline) }).end()?.has_readable() {
                listed.push(name);
            }
        }
    }
    Ok(listed)
}

/// The first `count` known names, readable or not.
fn names_above(
    view: &View,
    store: StoreId,
    prefix: &[u8],
    after: Option<&[u8]>,
    count: usize,
) -> Result<BTreeSet<Vec<u8>>> {
    let mut names: BTreeSet<Vec<u8>> = BTreeSet::new();
    let wanted = |name: &[u8]| name.starts_with(prefix) && after.is_none_or(|after| name > after);
    for memtable in view.memtables() {
        memtable.for_each(|slot| {
            if slot.store == store && wanted(&slot.name) {
                keep_lowest(&mut names, &slot.name, count);
            }
        });
    }
    let start = after.map_or(prefix, |after| after.max(prefix));
    for segment in view.segments.of(store) {
        let mut scan = SegmentScan::from(Arc::clone(segment), start)?;
        let mut found = 0;
        while found < count
            && let Some((name, _)) = scan.next()?
        {
            if wanted(&name) {
                keep_lowest(&mut names, &name, count);
                found += 1;
            } else if !name.starts_with(prefix) && name.as_slice() > prefix {
                break;
            }
        }
    }
    Ok(names)
}

fn keep_lowest(names: &mut BTreeSet<Vec<u8>>, name: &[u8], count: usize) {
    let full = names.len() >= count;
    let above_all = full && names.last().is_some_and(|last| name > last.as_slice());
    if above_all || names.contains(name) {
        return;
    }
    names.insert(name.to_vec());
    if full {
        names.pop_last();
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
