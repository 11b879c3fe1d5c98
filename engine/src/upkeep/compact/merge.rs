//! One merge: neighbouring segments become one, without entries that are gone (P5, P6).
//!
//! 1. if there are shared bodies: walk through all timelines and mark the bodies that surviving
//!    entries refer to;
//! 2. copy the marked bodies, in commit order;
//! 3. walk through all timelines again and write the survivors.
//!
//! An entry is gone if it is trimmed or removed by the inputs or a younger segment, or if its own
//! lifetime has ended. An edit in the inputs replaces the body. If a younger segment has the edit,
//! only the entry's position is kept, since the body is there. Changes that the inputs make in
//! older segments are kept as far as they are still visible; changes of younger segments stay
//! there. A timeline with nothing left here, whose end a younger segment has, is omitted. Ids past
//! their window are dropped.
//!
//! A body that was changed for all its entries, in the inputs or in a younger segment, is written
//! in its current form. The change is kept as long as a segment other than these may hold the body.
//!
//! Both walks use the same time, and the second one sees what the first saw or more. Only trims and
//! removals are taken from memtables: a batch with one is always synced before it is applied
//! (`Batch`), so that no entry is left out that a power cut brings back. An edit in a memtable may
//! be one that a power cut takes back.
//!
//! This file does not know why these segments are merged, or what becomes of them.

use std::sync::Arc;

use super::bodies::Bodies;
use super::changed::BodyChanges;
use super::fate::{EditIn, Fate, Kept, Survivor};
use super::pace::Pace;
use super::younger::Younger;
use crate::error::Result;
use crate::format::ids::IdRecord;
use crate::format::index::TimelineEntry;
use crate::format::run::{EntryContent, SharedBody};
use crate::ids::{BODIES, CommitPlace, Lsn, Sequence, TimeMs, TimelineRef};
use crate::memtable::Watermark;
use crate::segment::{FoundId, IdScan, Segment, SegmentScan, SegmentWriter};
use crate::state::State;
use crate::timeline::{Changes, End, Floor, Times};

/// A merge in progress. Inputs are oldest first, so that each timeline's parts come in the order of
/// its sequences.
pub struct Merge<'a> {
    state: &'a State,
    inputs: Vec<Input>,
    /// The shared bodies of each input.
    bodies: Vec<Bodies>,
    younger: &'a Younger,
    changed: &'a BodyChanges,
    dropped: bool,
    /// The store's TTL; 0: no limit.
    ttl_ms: u64,
    /// The time by which entries with a lifetime of their own have expired.
    now_ms: TimeMs,
}

struct Input {
    scan: SegmentScan,
    /// The timeline at the scan's position.
    at: Option<(Vec<u8>, TimelineEntry)>,
    ids: IdScan,
    /// The id at the scan's position.
    id_at: Option<FoundId>,
}

impl<'a> Merge<'a> {
    /// A merge of these segments, newest first.
    pub fn new(
        state: &'a State,
        newest_first: &[Arc<Segment>],
        younger: &'a Younger,
        changed: &'a BodyChanges,
    ) -> Result<Merge<'a>> {
        let oldest_first = || newest_first.iter().rev();
        let input = |segment: &Arc<Segment>| -> Result<Input> {
            let (scan, ids) = (SegmentScan::all(segment.clone())?, IdScan::all(segment.clone())?);
            Ok(Input { scan, at: None, ids, id_at: None })
        };
        let record = newest_first[0].record();
        let bodies = oldest_first().map(|segment| Ok(Bodies::new(segment.body_count()?)));
        Ok(Merge {
            state,
            inputs: oldest_first().map(input).collect::<Result<_>>()?,
            bodies: bodies.collect::<Result<_>>()?,
            younger,
            changed,
            dropped: record.dropped,
            ttl_ms: state.ttl_ms(record.store),
            now_ms: state.sure_now_ms(),
        })
    }

    /// Writes the output. Returns the number of entries left out because their own lifetime had
    /// ended.
    pub fn write(mut self, writer: &mut SegmentWriter, pace: &mut Pace<'_>) -> Result<u64> {
        if !self.dropped && self.bodies.iter().any(|bodies| !bodies.is_empty()) {
            self.mark_bodies(pace)?;
            self.copy_bodies(writer, pace)?;
        }
        let mut expired = 0;
        self.rewind()?;
        while let Some(name) = self.name() {
            let ids = self.ids_of(&name)?;
            writer.begin(&name);
            ids.iter().try_for_each(|(id, entry)| writer.id(id, entry))?;
            // If starts of lifetimes may decrease, older entries may live longer: their removals
            // are kept.
            if name == BODIES && self.dropped {
                writer.leave_out();
            } else if self.dropped && !self.state.times.own_starts() {
                writer.end(self.end_of_dropped(&name))?;
            } else {
                let mut fate = self.fate(&name)?;
                fate.end.floor.trimmed_to = fate.end.floor.trimmed_to.max(self.dropped_to(&name));
                let (count, gone) = self.write_survivors(&name, &fate, writer, pace)?;
                expired += gone;
                let is_known = fate.known || name == BODIES;
                if is_known && count == 0 && fate.changes_nothing() && ids.is_empty() {
                    writer.leave_out();
                } else {
                    writer.end(fate.end)?;
                }
            }
            pace.written(writer.written_bytes())?;
            self.advance(&name)?;
        }
        Ok(expired)
    }

    /// If no entry and no edit of the inputs is visible any more: the number of entries whose own
    /// lifetime had ended. Decided by the indexes, or else by the data.
    pub fn leaves_nothing(mut self, pace: &Pace<'_>) -> Result<Option<u64>> {
        let mut expired = 0;
        self.rewind()?;
        while let Some(name) = self.name() {
            pace.check()?;
            let fate = self.fate(&name)?;
            match self.all_expired(&name, &fate)? {
                Some(count) if fate.older_edited.is_empty() && !fate.has_expired_edits => {
                    expired += count;
                }
                _ => return Ok(None),
            }
            self.advance(&name)?;
        }
        Ok(Some(expired))
    }

    /// If no entry of a timeline survives: the number whose own lifetime had ended.
    fn all_expired(&self, name: &[u8], fate: &Fate) -> Result<Option<u64>> {
        let mut is_open = false;
        for (_, entry) in self.parts(name).into_iter().filter(|(_, entry)| entry.count > 0) {
            let (low, last) = (entry.first.max(fate.lowest), entry.end.last);
            let left = (last + 1)
                .saturating_sub(low)
                .saturating_sub(fate.removed.removed_within(low, last));
            let holes = (last + 1 - entry.first).saturating_sub(entry.count);
            if left > holes && !entry.own_expiry {
                return Ok(None);
            }
            // The rest may be holes, or have expired.
            is_open |= left > 0;
        }
        if !is_open {
            return Ok(Some(0));
        }
        let mut survivors = 0;
        let expired = self.for_each_survivor(name, fate, |_| {
            survivors += 1;
            Ok(())
        })?;
        Ok((survivors == 0).then_some(expired))
    }

    /// The lowest name at which a scan is.
    fn name(&self) -> Option<Vec<u8>> {
        self.inputs.iter().filter_map(Input::name).min().map(<[u8]>::to_vec)
    }

    /// Moves all scans to the first timeline.
    fn rewind(&mut self) -> Result<()> {
        for input in &mut self.inputs {
            let segment = input.scan.segment().clone();
            (input.scan, input.ids) = (SegmentScan::all(segment.clone())?, IdScan::all(segment)?);
            (input.at, input.id_at) = (input.scan.next()?, input.ids.next()?);
        }
        Ok(())
    }

    /// Moves the scans that are at a timeline to their next one.
    fn advance(&mut self, name: &[u8]) -> Result<()> {
        for input in self.inputs.iter_mut().filter(|input| input.name() == Some(name)) {
            input.at = input.scan.next()?;
        }
        Ok(())
    }

    /// Step 1.
    fn mark_bodies(&mut self, pace: &Pace<'_>) -> Result<()> {
        let mut bodies = std::mem::take(&mut self.bodies);
        self.rewind()?;
        while let Some(name) = self.name() {
            pace.check()?;
            let fate = self.fate(&name)?;
            fate.older_edited.values().for_each(|edit| bodies[edit.input].mark(edit.number));
            self.for_each_survivor(&name, &fate, |survivor| {
                if let Kept::Shared { number, .. } = survivor.body {
                    bodies[survivor.input].mark(number);
                }
                Ok(())
            })?;
            self.advance(&name)?;
        }
        let mut first = 0;
        for bodies in &mut bodies {
            first = bodies.number_from(first);
        }
        self.bodies = bodies;
        Ok(())
    }

    /// Step 2, for all inputs in order, which is commit order.
    fn copy_bodies(&self, writer: &mut SegmentWriter, pace: &mut Pace<'_>) -> Result<()> {
        for (input, bodies) in self.inputs.iter().zip(&self.bodies) {
            let is_used = |number| bodies.is_used(number);
            let since = input.scan.segment().record().changed_to;
            input.scan.segment().for_each_body(is_used, |number, shared, body| {
                if is_used(number) {
                    match shared.place.filter(|origin| self.changed.later(*origin, since).is_some())
                    {
                        Some(origin) => writer.body(shared, &self.changed.body(origin)?)?,
                        None => writer.body(shared, body)?,
                    };
                }
                pace.written(writer.written_bytes())
            })?;
        }
        Ok(())
    }

    /// Step 3 for one timeline. Returns the number of survivors, and the number of entries whose
    /// own lifetime had ended.
    fn write_survivors(
        &self,
        name: &[u8],
        fate: &Fate,
        writer: &mut SegmentWriter,
        pace: &mut Pace<'_>,
    ) -> Result<(u64, u64)> {
        let mut count = 0;
        let expired =
            self.for_each_survivor(name, fate, |Survivor { input, sequence, body }| {
                count += 1;
                match body {
                    Kept::Own { times, place: origin, body } => {
                        writer.inline(sequence, times, origin, body)?;
                    }
                    Kept::Shared { number, own_start_ms } => {
                        writer.shared(sequence, self.number(input, number)?, own_start_ms)?;
                    }
                    Kept::Edited { times, place: origin, edit } => {
                        let body = self.segment(edit.input).shared_body(edit.number)?;
                        writer.inline(sequence, times, origin, &body)?;
                    }
                    Kept::Changed { times, place: origin } => {
                        let body = self.changed.body(origin)?;
                        writer.inline(sequence, times, Some(origin), &body)?;
                    }
                    Kept::Elsewhere(times, origin) => writer.elsewhere(sequence, times, origin)?,
                }
                pace.written(writer.written_bytes())
            })?;
        let edited = fate.older_edited.iter();
        let edited = edited.map(|(sequence, edit)| {
            Ok((*sequence, self.number(edit.input, edit.number)?, edit.at))
        });
        writer.changes(&fate.older_removed, edited.collect::<Result<_>>()?);
        Ok((count, expired))
    }

    /// The number of an input's shared body in the output.
    fn number(&self, input: usize, number: u32) -> Result<u32> {
        let missing = || self.inputs[input].scan.segment().missing_body();
        self.bodies[input].number(number).ok_or_else(missing)
    }

    /// The index entries of a timeline in the inputs, oldest first, with the inputs' indexes.
    fn parts(&self, name: &[u8]) -> Vec<(usize, &TimelineEntry)> {
        let inputs = self.inputs.iter().enumerate();
        inputs.filter_map(|(index, input)| Some((index, input.at_name(name)?))).collect()
    }

    fn segment(&self, input: usize) -> &Segment {
        self.inputs[input].scan.segment()
    }

    /// The end of a timeline whose entries here, and all older ones, have expired.
    fn end_of_dropped(&self, name: &[u8]) -> End {
        let parts = self.parts(name);
        let end = parts.last().expect("the name is some input's").1.end;
        let trimmed_to = self.dropped_to(name);
        let floor = Floor { lowest: end.last + 1, start_ms: 0, until_ms: 0, trimmed_to };
        End { floor, ..end }
    }

    /// The highest sequence that a trim or the TTL removed from inputs that have lost their data.
    fn dropped_to(&self, name: &[u8]) -> Sequence {
        let parts = self.parts(name);
        let lost = parts.iter().filter(|(input, _)| !self.segment(*input).record().has_data());
        lost.map(|(input, entry)| self.segment(*input).dropped_to(entry)).max().unwrap_or(0)
    }

    fn fate(&self, name: &[u8]) -> Result<Fate> {
        let parts = self.parts(name);
        let end = parts.last().expect("the name is some input's").1.end;
        let mut fate = Fate::of(end);
        let timeline = TimelineRef { store: self.segment(0).record().store, name };
        let key = self.state.key(timeline);
        // What is not published yet may still be seen by a reader of this merge's output.
        let published = Watermark { bodies: u32::MAX, ..self.state.view.published() };
        for memtable in &self.younger.memtables {
            if let Some(look) = memtable.look(key, published) {
                fate.lowest = fate.lowest.max(look.end.floor.lowest);
                let removed = look.changed.map(|slot| memtable.removed(slot, published));
                fate.removed.add_older(Changes {
                    removed: removed.unwrap_or_default(),
                    ..Changes::default()
                });
            }
        }
        for segment in &self.younger.segments {
            if let Some(entry) = segment.find_once(name)? {
                fate.lowest = fate.lowest.max(entry.end.floor.lowest);
                fate.known = true;
                entry.removed.iter().for_each(|(first, last)| fate.removed.remove(*first, *last));
                for edited in segment.edited(&entry) {
                    fate.elsewhere.entry(edited.sequence).or_insert(edited.at);
                }
            }
        }
        self.own_changes(&parts, &mut fate)?;
        if name == BODIES {
            fate.older_edited
                .retain(|place, edit| self.changed.is_needed(CommitPlace(*place), edit.at));
        }
        Ok(fate)
    }

    /// Adds the inputs' changes of a timeline, in each other and in older segments.
    fn own_changes(&self, parts: &[(usize, &TimelineEntry)], fate: &mut Fate) -> Result<()> {
        let mut own = Changes::default();
        for (input, entry) in parts.iter().rev() {
            entry.removed.iter().for_each(|(first, last)| own.remove(*first, *last));
            for edited in self.segment(*input).edited(entry) {
                let edit = EditIn { input: *input, number: edited.body, at: edited.at };
                fate.edited.entry(edited.sequence).or_insert(edit);
            }
        }
        let first =
            parts.iter().filter(|(_, entry)| entry.count > 0).map(|(_, entry)| entry.first).min();
        let bound = first.unwrap_or(fate.end.last + 1);
        let mut older = own.below(bound);
        fate.removed.add_older(own);
        for (sequence, edit) in fate.edited.range(fate.lowest.min(bound)..bound) {
            if fate.removed.removes(*sequence) || fate.elsewhere.contains_key(sequence) {
                continue;
            }
            let may_expire =
                parts.iter().any(|(part, entry)| *part == edit.input && entry.own_expiry);
            let shared = if may_expire {
                self.segment(edit.input).shared(edit.number)?
            } else {
                SharedBody::default()
            };
            if self.is_expired(shared.time_ms, shared.expire_at_ms) {
                // A clock that is set back must not make the old body visible again.
                older.remove(*sequence, *sequence);
                fate.has_expired_edits = true;
            } else {
                fate.older_edited.insert(*sequence, *edit);
            }
        }
        older.removed.retain(|_, last| *last >= fate.lowest);
        fate.older_removed = older.removed;
        Ok(())
    }

    /// Whether an entry's own lifetime has ended. An entry that the TTL removes leaves with its
    /// partition, which records the loss.
    fn is_expired(&self, start_ms: TimeMs, expire_at_ms: TimeMs) -> bool {
        let before_ttl = self.ttl_ms == 0 || expire_at_ms < start_ms.saturating_add(self.ttl_ms);
        expire_at_ms != 0 && expire_at_ms <= self.now_ms && before_ttl
    }

    /// Calls `visit` for every surviving entry of a timeline. Returns the number of entries whose
    /// own lifetime had ended.
    fn for_each_survivor(
        &self,
        name: &[u8],
        fate: &Fate,
        mut visit: impl FnMut(Survivor<'_>) -> Result<()>,
    ) -> Result<u64> {
        let mut expired = 0;
        for (input, entry) in self.parts(name) {
            let segment = self.segment(input);
            if !segment.record().has_data() {
                continue;
            }
            segment.for_each(name, entry, fate.lowest, |sequence, content, block| {
                if sequence < fate.lowest || fate.removed.removes(sequence) {
                    return Ok(());
                }
                let (edited, elsewhere) =
                    (fate.edited.get(&sequence), fate.elsewhere.get(&sequence));
                let (times, place) = match content {
                    EntryContent::Inline { times, place, .. } => (*times, *place),
                    EntryContent::Shared { number, own_start_ms }
                        if entry.own_expiry || edited.is_some() || elsewhere.is_some() =>
                    {
                        let SharedBody { time_ms, expire_at_ms, place } =
                            segment.shared(*number)?;
                        (Times::stored(time_ms, *own_start_ms, expire_at_ms), place)
                    }
                    EntryContent::Shared { .. } => (Times::default(), None),
                };
                if self.is_expired(times.start_ms, times.expire_at_ms) {
                    expired += 1;
                    return Ok(());
                }
                // An earlier change is applied to the input already, except an edit marked as
                // `is_elsewhere`. The last change counts.
                let is_marked = matches!(content, EntryContent::Inline { is_elsewhere: true, .. });
                let is_later = |at: CommitPlace| Lsn(at.0) >= segment.record().changed_to;
                let changed_at =
                    place.and_then(|place| self.changed.later(place, segment.record().changed_to));
                let counts = |at: CommitPlace| {
                    (place.is_none() || is_marked || is_later(at))
                        && changed_at.is_none_or(|later| later < at)
                };
                let is_unknown = is_marked && elsewhere.or(edited.map(|edit| &edit.at)).is_none();
                let (edited, elsewhere) =
                    (edited.filter(|edit| counts(edit.at)), elsewhere.filter(|at| counts(**at)));
                let body = match (content, edited, changed_at.and(place)) {
                    // Its edit is in a younger segment, which this merge may not have read.
                    _ if elsewhere.is_some() || is_unknown => Kept::Elsewhere(times, place),
                    (_, Some(edit), _) => Kept::Edited { times, place, edit: *edit },
                    (EntryContent::Inline { .. }, None, Some(place)) => {
                        Kept::Changed { times, place }
                    }
                    (EntryContent::Inline { body, .. }, None, None) => {
                        Kept::Own { times, place, body: &block[body.clone()] }
                    }
                    (EntryContent::Shared { number, own_start_ms }, None, _) => {
                        Kept::Shared { number: *number, own_start_ms: *own_start_ms }
                    }
                };
                visit(Survivor { input, sequence, body })
            })?;
        }
        Ok(expired)
    }

    /// The ids of a timeline that are still remembered. If an id was used again after it was
    /// forgotten, the youngest use counts.
    fn ids_of(&mut self, name: &[u8]) -> Result<Vec<(Vec<u8>, IdRecord)>> {
        let mut ids = Vec::new();
        while let Some(id) =
            self.inputs.iter().filter_map(|input| input.id_of(name)).min().map(<[u8]>::to_vec)
        {
            let mut youngest = None;
            for input in self.inputs.iter_mut().filter(|input| input.id_of(name) == Some(&id)) {
                youngest = input.id_at.take();
                input.id_at = input.ids.next()?;
            }
            let remembered = youngest.filter(|(_, _, entry)| self.state.remembers(entry.start_ms));
            ids.extend(remembered.map(|(_, id, entry)| (id, entry)));
        }
        Ok(ids)
    }
}

impl Input {
    fn name(&self) -> Option<&[u8]> {
        self.at.as_ref().map(|(name, _)| name.as_slice())
    }

    fn at_name(&self, name: &[u8]) -> Option<&TimelineEntry> {
        let (at, entry) = self.at.as_ref()?;
        (at == name).then_some(entry)
    }

    fn id_of(&self, timeline: &[u8]) -> Option<&[u8]> {
        let (name, id, _) = self.id_at.as_ref()?;
        (name == timeline).then_some(id)
    }
}
