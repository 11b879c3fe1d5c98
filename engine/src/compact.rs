//! Merging segments (P5, P6): so that a read meets few of them, and cold history lies together, compressed.
//!
//! ```text
//!  oldest                                                              newest
//!  tier 3 │ tier 2 │ tier 2 │ tier 1 │ tier 0 tier 0 tier 0 … (8 of them) ──> one of tier 1
//! ```
//!
//! Size tiers: when eight neighbours of one tier stand in a row, they become one of the next tier, so that an entry is written
//! about log₈(segments) times. Neighbours only: a merged segment holds one piece of the log as any other. From tier 2 on,
//! blocks are compressed: recent data is read most, and decompressing costs more than it saves there.
//!
//! What trims, removals and edits in the inputs concern is applied; what of them concerns older segments goes along. Ids that are
//! past their window are left behind.
//!
//! Inputs are removed when the manifest that names the output instead of them is durable, and the last reader has let go.
//!
//! It does not know: memtables or the log.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use crate::entry::{Changes, End, Floor};
use crate::error::{Error, Failure, Result};
use crate::expire::{expire, is_seal_due};
use crate::flush::{make_live, remove_unfinished};
use crate::format::ids::IdEntry;
use crate::format::index::TimelineEntry;
use crate::format::manifest::SegmentRecord;
use crate::format::run::Content;
use crate::ids::{FileNumber, StoreId, TimeMs};
use crate::queue::Queue;
use crate::segment::{self, FoundId, IdScan, Segment, SegmentPlan, SegmentScan, SegmentWriter};
use crate::state::State;
use crate::ticket::Ticket;
use crate::view::View;

/// How many segments of one tier become one of the next.
const FAN_IN: usize = 8;

/// From this tier on, blocks are compressed.
const COOL_TIER: u8 = 2;

/// How often expiry is looked at when nothing else happens.
const TICK: Duration = Duration::from_secs(1);

/// How long the thread waits after a merge failed.
const RETRY: Duration = Duration::from_secs(5);

/// The compaction thread: drops what has expired and merges whatever is due, until the engine closes.
pub fn run(state: &State, queue: &Queue) {
    loop {
        // Read before looking at anything, so that no change falls between the look and the wait.
        let seen = state.progress.changes();
        if state.is_closing() {
            return;
        }
        let worked = expire(state).and_then(|_| {
            if is_seal_due(state) {
                // The flush thread goes on from there; a queue that is closed has nothing left to seal.
                let _sealed = queue.seal().and_then(Ticket::wait);
            }
            let inputs = due(state);
            inputs.as_deref().map_or(Ok(()), |inputs| merge(state, inputs)).map(|()| inputs.is_some())
        });
        match worked {
            Ok(true) => {}
            Ok(false) => state.progress.wait(seen, TICK),
            Err(Failure::Refused(error)) => {
                tracing::warn!(%error, "segments could not be merged");
                // Not from before the merge, or what it announced itself would end the wait; so the closing may be behind us.
                let seen = state.progress.changes();
                if state.is_closing() {
                    return;
                }
                state.progress.wait(seen, RETRY);
            }
            Err(failure) => {
                state.failed(failure);
                return;
            }
        }
    }
}

/// The oldest row of neighbours that is due, in any store.
fn due(state: &State) -> Option<Vec<Arc<Segment>>> {
    let view = state.view.load();
    let unmergeable = state.unmergeable.lock();
    stores(&view).into_iter().find_map(|store| due_in(view.segments.of(store), &unmergeable))
}

fn stores(view: &View) -> Vec<StoreId> {
    let mut stores: Vec<StoreId> = view.segments.all().map(|segment| segment.record().store).collect();
    stores.sort();
    stores.dedup();
    stores
}

fn due_in(newest_first: &[Arc<Segment>], unmergeable: &HashSet<FileNumber>) -> Option<Vec<Arc<Segment>>> {
    let is_whole =
        |segment: &Segment| segment.damage().is_none() && !unmergeable.contains(&segment.record().number);
    let alike = |one: &Arc<Segment>, other: &Arc<Segment>| {
        // Segments without data are alike wherever they are: what is left of them is small.
        let kind = |segment: &Segment| match segment.record() {
            record if record.dropped => (true, 0, 0, is_whole(segment)),
            record => (false, record.tier, record.partition, is_whole(segment)),
        };
        kind(one) == kind(other)
    };
    let is_due = |row: &[Arc<Segment>]| row.len() >= FAN_IN && is_whole(&row[0]);
    let row = newest_first.chunk_by(alike).rfind(|row| is_due(row))?;
    Some(row[row.len() - FAN_IN..].to_vec())
}

/// Merges all segments of each store, and in a store with TTL of each partition, into one.
pub fn merge_all(state: &State) -> Result<()> {
    let view = state.view.load();
    for store in stores(&view) {
        let segments = view.segments.of(store);
        if let Some(damage) = segments.iter().find_map(|segment| segment.damage()) {
            return Err(damage.clone());
        }
        let kind = |segment: &Segment| match segment.record() {
            record if record.dropped => (true, 0),
            record => (false, record.partition),
        };
        for row in segments.chunk_by(|one, other| kind(one) == kind(other)).filter(|row| row.len() > 1) {
            merge(state, row).map_err(|failure| state.failed(failure))?;
        }
    }
    Ok(())
}

/// Replaces neighbours, newest first, by one segment.
fn merge(state: &State, inputs: &[Arc<Segment>]) -> Result<(), Failure> {
    let _one_at_a_time = state.merging.lock();
    let live = state.view.load();
    let store = inputs[0].record().store;
    if !inputs.iter().all(|input| live.segments.of(store).iter().any(|segment| Arc::ptr_eq(segment, input))) {
        return Ok(());
    }
    let record = write_merged(state, inputs).map_err(|error| set_aside(state, inputs, error))?;
    let gone: Vec<FileNumber> = inputs.iter().map(|input| input.record().number).collect();
    let output = make_live(state, &[record], |records, live| {
        live.segments.retain(|segment| !gone.contains(&segment.number));
        for record in records {
            let place = live.segments.partition_point(|segment| segment.place() < record.place());
            live.segments.insert(place, record.clone());
        }
    })?;
    state.counters.merges.add(1);
    state.counters.merge_bytes.add(output.iter().map(|segment| segment.record().bytes()).sum());
    state.view.change(|view| {
        view.segments.remove(inputs);
        view.segments.add(output);
    });
    inputs.iter().for_each(|input| input.make_obsolete());
    state.progress.announce();
    Ok(())
}

/// Inputs of a merge that met damage are not merged any more, so that one bad block does not keep all others from being merged.
fn set_aside(state: &State, inputs: &[Arc<Segment>], error: Error) -> Failure {
    match &error {
        Error::Corrupt { path, .. } | Error::Io { path, doing: "read" | "open" | "measure", .. } => {
            let number = path.file_name().and_then(|name| name.to_str()).and_then(segment::is_file);
            let of_input =
                number.filter(|number| inputs.iter().any(|input| input.record().number == *number));
            let damaged = inputs
                .iter()
                .map(|input| input.record().number)
                .filter(|input| of_input.is_none_or(|it| it == *input));
            state.unmergeable.lock().extend(damaged);
            Failure::Refused(error)
        }
        Error::Closed { .. } => Failure::Refused(error),
        _ => Failure::before(error),
    }
}

fn write_merged(state: &State, inputs: &[Arc<Segment>]) -> Result<SegmentRecord> {
    let (newest, oldest) = (inputs[0].record(), inputs[inputs.len() - 1].record());
    let tier = inputs.iter().map(|input| input.record().tier).max().unwrap_or(0).saturating_add(1);
    let plan = SegmentPlan {
        number: state.manifest.lock().take_file_number(),
        store: newest.store,
        partition: newest.partition,
        ttl_ms: state.ttl_ms(newest.store),
        tier,
        dropped: newest.dropped,
        compress: tier >= COOL_TIER,
        from: oldest.from,
        to: newest.to,
    };
    let number = plan.number;
    let written = || {
        let mut writer = SegmentWriter::create(&state.dir, state.engine_id, state.writer_epoch, plan)?;
        Merge::new(state, inputs, &mut writer)?.run(&mut writer)?;
        writer.finish()
    };
    written().inspect_err(|_| remove_unfinished(state, [number].into_iter()))
}

/// A merge under way. Inputs are oldest first, so that each timeline's parts come in the order of its sequences.
struct Merge<'a> {
    state: &'a State,
    inputs: Vec<Input>,
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
    /// The number that its first shared body has in the output.
    bodies_from: u32,
}

impl<'a> Merge<'a> {
    /// Copies the shared bodies: of all inputs in order, which is commit order.
    fn new(state: &'a State, newest_first: &[Arc<Segment>], writer: &mut SegmentWriter) -> Result<Merge<'a>> {
        let dropped = newest_first[0].record().dropped;
        let mut inputs = Vec::new();
        let mut bodies_from = 0;
        for segment in newest_first.iter().rev() {
            if !dropped {
                segment.for_each_body(|time_ms, expire_at_ms, body| {
                    writer.body(time_ms, expire_at_ms, body).map(|_| ())
                })?;
            }
            let (mut scan, mut ids) = (SegmentScan::all(segment.clone())?, IdScan::all(segment.clone())?);
            inputs.push(Input { at: scan.next()?, scan, id_at: ids.next()?, ids, bodies_from });
            bodies_from += segment.body_count()? as u32;
        }
        Ok(Merge {
            state,
            inputs,
            dropped,
            ttl_ms: state.ttl_ms(newest_first[0].record().store),
            now_ms: state.sure_now_ms(),
        })
    }

    fn run(&mut self, writer: &mut SegmentWriter) -> Result<()> {
        while let Some(name) = self.inputs.iter().filter_map(Input::name).min().map(<[u8]>::to_vec) {
            if self.state.is_closing() {
                return Err(Error::Closed { what: "the engine is closing: the merge is given up" });
            }
            let ids = self.ids_of(&name)?;
            writer.begin(&name);
            let end = if self.dropped { self.end_of_dropped(&name) } else { self.timeline(&name, writer)? };
            ids.iter().try_for_each(|(id, entry)| writer.id(id, entry))?;
            writer.end(end)?;
            for input in self.inputs.iter_mut().filter(|input| input.name() == Some(&name)) {
                input.at = input.scan.next()?;
            }
        }
        Ok(())
    }

    /// How a timeline ends of which all entries here have expired, and older ones too.
    fn end_of_dropped(&self, name: &[u8]) -> End {
        let parts = || self.inputs.iter().filter_map(|input| input.at_name(name)).map(|(_, entry)| entry);
        let end = parts().next_back().expect("the name is some input's").end;
        let trimmed_to = parts().map(TimelineEntry::dropped_to).max().unwrap_or(0);
        let floor = Floor { lowest: end.last + 1, time_ms: 0, until_ms: 0, trimmed_to };
        End { floor, ..end }
    }

    /// The entries of a timeline with all changes that the inputs know applied, and the changes that concern older segments.
    fn timeline(&self, name: &[u8], writer: &mut SegmentWriter) -> Result<End> {
        let parts: Vec<(&Input, &TimelineEntry)> =
            self.inputs.iter().filter_map(|input| input.at_name(name)).collect();
        let end = parts.last().expect("the name is some input's").1.end;
        let mut changes = Changes::default();
        for (input, entry) in parts.iter().rev() {
            changes.add_older(input.scan.segment().changes(entry)?);
        }
        let shows = |sequence| sequence >= end.floor.lowest && !changes.removes(sequence);
        for (input, entry) in &parts {
            input.scan.segment().for_each(name, entry, |sequence, content, block| {
                if !shows(sequence) {
                    return Ok(());
                }
                let (time_ms, expire_at_ms) = match content {
                    Content::Inline { time_ms, expire_at_ms, .. } => (*time_ms, *expire_at_ms),
                    Content::Shared(number) if entry.own_expiry => {
                        input.scan.segment().shared_times(*number)?
                    }
                    Content::Shared(_) => (0, 0),
                };
                // What the TTL takes goes with its partition, which remembers that it was lost.
                let before_ttl = self.ttl_ms == 0 || expire_at_ms < time_ms.saturating_add(self.ttl_ms);
                if expire_at_ms != 0 && expire_at_ms <= self.now_ms && before_ttl {
                    return Ok(());
                }
                match (content, changes.edited.get(&sequence)) {
                    (Content::Inline { time_ms, expire_at_ms, body }, edited) => {
                        let body = edited.map_or(&block[body.clone()], |edited| edited);
                        writer.inline(sequence, *time_ms, *expire_at_ms, body)
                    }
                    (Content::Shared(number), None) => writer.shared(sequence, input.bodies_from + number),
                    (Content::Shared(number), Some(edited)) => {
                        let (time_ms, expire_at_ms) = input.scan.segment().shared_times(*number)?;
                        writer.inline(sequence, time_ms, expire_at_ms, edited)
                    }
                }
            })?;
        }
        let first = parts.iter().filter(|(_, entry)| entry.count > 0).map(|(_, entry)| entry.first).min();
        let older = changes.below(first.unwrap_or(end.last + 1));
        let numbers = parts.iter().rev().flat_map(|(input, entry)| {
            entry.edited.iter().map(|(sequence, number)| (*sequence, input.bodies_from + number))
        });
        let mut edited = BTreeMap::new();
        for (sequence, number) in numbers.filter(|(sequence, _)| older.edited.contains_key(sequence)) {
            edited.entry(sequence).or_insert(number);
        }
        writer.changes(&older.removed, edited.into_iter().collect());
        Ok(end)
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

impl Input {
    fn name(&self) -> Option<&[u8]> {
        self.at.as_ref().map(|(name, _)| name.as_slice())
    }

    fn at_name(&self, name: &[u8]) -> Option<(&Input, &TimelineEntry)> {
        let (at, entry) = self.at.as_ref()?;
        (at == name).then_some((self, entry))
    }

    fn id_of(&self, timeline: &[u8]) -> Option<&[u8]> {
        let (name, id, _) = self.id_at.as_ref()?;
        (name == timeline).then_some(id)
    }
}
