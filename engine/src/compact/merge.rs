//! One merge: segments that are neighbours become one, without what is gone (P5, P6).
//!
//! 1. if there are shared bodies: walk through all timelines and mark those that surviving entries refer to;
//! 2. copy the marked bodies, in commit order;
//! 3. walk through all timelines again and write what survives.
//!
//! Gone is what a trim, a removal or an edit in the inputs or in a younger segment says, and what has expired by itself. What the
//! inputs change in older segments goes along; what younger segments change stays with them. A timeline of which nothing is left
//! here, and of which a younger segment knows the end, is left out. Ids that are past their window are left behind.
//!
//! Both walks see the same time, and the second what the first saw or more. Of memtables only trims and removals are taken, which
//! are durable before they are applied; an edit there may be one that a power cut takes back.
//!
//! It does not know: why these segments are merged, or what becomes of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::bodies::Bodies;
use super::pace::Pace;
use crate::entry::{Changes, End, Floor};
use crate::error::Result;
use crate::format::ids::IdEntry;
use crate::format::index::TimelineEntry;
use crate::format::run::Content;
use crate::ids::{Sequence, TimeMs, TimelineRef};
use crate::memtable::Memtable;
use crate::segment::{FoundId, IdScan, Segment, SegmentScan, SegmentWriter};
use crate::state::State;

/// What tells that something in the inputs is gone. Empty when nothing is.
#[derive(Default)]
pub struct Younger {
    pub memtables: Vec<Arc<Memtable>>,
    /// Newest first.
    pub segments: Vec<Arc<Segment>>,
}

/// A merge under way. Inputs are oldest first, so that each timeline's parts come in the order of its sequences.
pub struct Merge<'a> {
    state: &'a State,
    inputs: Vec<Input>,
    /// The shared bodies of each input.
    bodies: Vec<Bodies>,
    younger: &'a Younger,
    dropped: bool,
    /// How long the store's entries live; 0: for ever.
    ttl_ms: u64,
    /// The time by which entries that expire by themselves are left behind.
    now_ms: TimeMs,
}

struct Input {
    scan: SegmentScan,
    /// The timeline that the scan stands at.
    at: Option<(Vec<u8>, TimelineEntry)>,
    ids: IdScan,
    /// The id that its scan stands at.
    id_at: Option<FoundId>,
}

/// What of a timeline is gone, and what goes along with it.
struct Fate {
    end: End,
    /// Everything below is gone.
    lowest: Sequence,
    /// What the inputs and younger segments change.
    changes: Changes,
    /// What the inputs change in older segments.
    older: Changes,
    /// For each edit in `older`: which input holds the body, and its number there.
    edited: BTreeMap<Sequence, (usize, u32)>,
    /// Whether a younger segment knows how the timeline ends.
    known: bool,
}

/// An entry that survives.
struct Survivor<'b> {
    /// Which input it is in.
    input: usize,
    sequence: Sequence,
    body: Kept<'b>,
}

/// Where its body comes from.
enum Kept<'b> {
    Own { time_ms: TimeMs, expire_at_ms: TimeMs, body: &'b [u8] },
    Shared(u32),
}

impl<'a> Merge<'a> {
    /// A merge of these segments, newest first.
    pub fn new(state: &'a State, newest_first: &[Arc<Segment>], younger: &'a Younger) -> Result<Merge<'a>> {
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
            dropped: record.dropped,
            ttl_ms: state.ttl_ms(record.store),
            now_ms: state.sure_now_ms(),
        })
    }

    /// Writes the output. Gives how many entries were left behind because they had expired by themselves.
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
            if self.dropped {
                writer.end(self.end_of_dropped(&name))?;
            } else {
                let fate = self.fate(&name)?;
                let (count, gone) = self.write_survivors(&name, &fate, writer, pace)?;
                expired += gone;
                if fate.known && count == 0 && fate.older.is_empty() && ids.is_empty() {
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

    /// The lowest name that a scan stands at.
    fn name(&self) -> Option<Vec<u8>> {
        self.inputs.iter().filter_map(Input::name).min().map(<[u8]>::to_vec)
    }

    /// All scans go to the first timeline.
    fn rewind(&mut self) -> Result<()> {
        for input in &mut self.inputs {
            let segment = input.scan.segment().clone();
            (input.scan, input.ids) = (SegmentScan::all(segment.clone())?, IdScan::all(segment)?);
            (input.at, input.id_at) = (input.scan.next()?, input.ids.next()?);
        }
        Ok(())
    }

    /// Scans that stand at a timeline go to their next one.
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
            fate.edited.values().for_each(|(input, number)| bodies[*input].mark(*number));
            self.for_each_survivor(&name, &fate, |survivor| {
                if let Kept::Shared(number) = survivor.body {
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

    /// Step 2: of all inputs in order, which is commit order.
    fn copy_bodies(&self, writer: &mut SegmentWriter, pace: &mut Pace<'_>) -> Result<()> {
        for (input, bodies) in self.inputs.iter().zip(&self.bodies) {
            let is_used = |number| bodies.is_used(number);
            input.scan.segment().for_each_body(is_used, |number, time_ms, expire_at_ms, body| {
                if is_used(number) {
                    writer.body(time_ms, expire_at_ms, body)?;
                }
                pace.written(writer.written_bytes())
            })?;
        }
        Ok(())
    }

    /// Step 3 for one timeline. Gives how many entries survived, and how many had expired by themselves.
    fn write_survivors(
        &self,
        name: &[u8],
        fate: &Fate,
        writer: &mut SegmentWriter,
        pace: &mut Pace<'_>,
    ) -> Result<(u64, u64)> {
        let mut count = 0;
        let expired = self.for_each_survivor(name, fate, |Survivor { input, sequence, body }| {
            count += 1;
            match body {
                Kept::Own { time_ms, expire_at_ms, body } => {
                    writer.inline(sequence, time_ms, expire_at_ms, body)?;
                }
                Kept::Shared(number) => writer.shared(sequence, self.number(input, number)?)?,
            }
            pace.written(writer.written_bytes())
        })?;
        let edited = fate.edited.iter();
        let edited = edited.map(|(sequence, (input, number))| Ok((*sequence, self.number(*input, *number)?)));
        writer.changes(&fate.older.removed, edited.collect::<Result<_>>()?);
        Ok((count, expired))
    }

    /// What a shared body of an input is called in the output.
    fn number(&self, input: usize, number: u32) -> Result<u32> {
        let missing = || self.inputs[input].scan.segment().missing_body();
        self.bodies[input].number(number).ok_or_else(missing)
    }

    /// What the inputs know of a timeline, oldest first: which input, and its entry.
    fn parts(&self, name: &[u8]) -> Vec<(usize, &TimelineEntry)> {
        let places = self.inputs.iter().enumerate();
        places.filter_map(|(place, input)| Some((place, input.at_name(name)?))).collect()
    }

    fn segment(&self, input: usize) -> &Segment {
        self.inputs[input].scan.segment()
    }

    /// How a timeline ends of which all entries here have expired, and older ones too.
    fn end_of_dropped(&self, name: &[u8]) -> End {
        let parts = self.parts(name);
        let end = parts.last().expect("the name is some input's").1.end;
        let trimmed_to = parts.iter().map(|(_, entry)| entry.dropped_to()).max().unwrap_or(0);
        let floor = Floor { lowest: end.last + 1, time_ms: 0, until_ms: 0, trimmed_to };
        End { floor, ..end }
    }

    fn fate(&self, name: &[u8]) -> Result<Fate> {
        let parts = self.parts(name);
        let end = parts.last().expect("the name is some input's").1.end;
        let (mut lowest, mut known, mut changes) = (end.floor.lowest, false, Changes::default());
        let timeline = TimelineRef { store: self.segment(0).record().store, name };
        let hash = if self.younger.memtables.is_empty() { 0 } else { self.state.hash(timeline) };
        for memtable in &self.younger.memtables {
            if let Some((end, _, changed)) = memtable.look(timeline, hash) {
                lowest = lowest.max(end.floor.lowest);
                let removed = changed.map(|changed| changed.removed).unwrap_or_default();
                changes.add_older(Changes { removed, ..Changes::default() });
            }
        }
        for segment in &self.younger.segments {
            if let Some(entry) = segment.find(name)? {
                (lowest, known) = (lowest.max(entry.end.floor.lowest), true);
                changes.add_older(whole(segment.changes(name, &entry)?)?);
            }
        }
        let mut own = Changes::default();
        for (input, entry) in parts.iter().rev() {
            own.add_older(whole(self.segment(*input).changes(name, entry)?)?);
        }
        let first = parts.iter().filter(|(_, entry)| entry.count > 0).map(|(_, entry)| entry.first).min();
        let older = own.below(first.unwrap_or(end.last + 1));
        let mut edited = BTreeMap::new();
        for (input, entry) in parts.iter().rev() {
            for (sequence, number) in &entry.edited {
                if older.edited.contains_key(sequence) {
                    edited.entry(*sequence).or_insert((*input, *number));
                }
            }
        }
        changes.add_older(own);
        Ok(Fate { end, lowest, changes, older, edited, known })
    }

    /// Calls `visit` for every entry of a timeline that survives. Gives how many had expired by themselves.
    fn for_each_survivor(
        &self,
        name: &[u8],
        fate: &Fate,
        mut visit: impl FnMut(Survivor<'_>) -> Result<()>,
    ) -> Result<u64> {
        let mut expired = 0;
        for (input, entry) in self.parts(name) {
            let segment = self.segment(input);
            segment.for_each(name, entry, fate.lowest, |sequence, content, block| {
                if sequence < fate.lowest || fate.changes.removes(sequence) {
                    return Ok(());
                }
                let edited = fate.changes.edited.get(&sequence);
                let (time_ms, expire_at_ms) = match content {
                    Content::Inline { time_ms, expire_at_ms, .. } => (*time_ms, *expire_at_ms),
                    Content::Shared(number) if entry.own_expiry || edited.is_some() => {
                        segment.shared_times(*number)?
                    }
                    Content::Shared(_) => (0, 0),
                };
                // What the TTL takes goes with its partition, which remembers that it was lost.
                let before_ttl = self.ttl_ms == 0 || expire_at_ms < time_ms.saturating_add(self.ttl_ms);
                if expire_at_ms != 0 && expire_at_ms <= self.now_ms && before_ttl {
                    expired += 1;
                    return Ok(());
                }
                let body = match (content, edited) {
                    (_, Some(edited)) => Kept::Own { time_ms, expire_at_ms, body: edited },
                    (Content::Inline { body, .. }, None) => {
                        Kept::Own { time_ms, expire_at_ms, body: &block[body.clone()] }
                    }
                    (Content::Shared(number), None) => Kept::Shared(*number),
                };
                visit(Survivor { input, sequence, body })
            })?;
        }
        Ok(expired)
    }

    /// The ids of a timeline that are still remembered. Of one that was used again after it was forgotten, the youngest counts.
    fn ids_of(&mut self, name: &[u8]) -> Result<Vec<(Vec<u8>, IdEntry)>> {
        let now_ms = self.now_ms;
        let mut ids = Vec::new();
        while let Some(id) =
            self.inputs.iter().filter_map(|input| input.id_of(name)).min().map(<[u8]>::to_vec)
        {
            let mut youngest = None;
            for input in self.inputs.iter_mut().filter(|input| input.id_of(name) == Some(&id)) {
                youngest = input.id_at.take();
                input.id_at = input.ids.next()?;
            }
            let remembered = youngest.filter(|(_, _, entry)| self.state.remembers(entry.time_ms, now_ms));
            ids.extend(remembered.map(|(_, id, entry)| (id, entry)));
        }
        Ok(ids)
    }
}

/// The changes, if all of them can be read.
fn whole(mut changes: Changes) -> Result<Changes> {
    match changes.unreadable.pop_first() {
        Some((_, lost)) => Err(lost.error),
        None => Ok(changes),
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
