//! Merges segments (P5, P6), so that a read visits few of them, cold history is stored together,
//! compressed, and removed entries take no space.
//!
//! 1. remove the data of segments without visible entries: only the manifest is written (`dead`);
//! 2. choose neighbours of a store that are due, or a segment that is mostly garbage (`choose`);
//! 3. write the surviving entries into a new segment, at a bounded rate (`merge`, `bodies`,
//!    `pace`);
//! 4. commit the manifest that names it instead of the inputs, with the lsn up to which the log is
//!    needed if entries were left out because of changes that are in memory only; change the view;
//!    the inputs' files are removed when their last reader has released them.
//!
//! If the disk has no space for what is due, merging waits, reports it in the statistics and once
//! in the diagnostic log, and continues when there is space. A failed merge is tried again after a
//! delay that grows.
//!
//! This folder does not know the log.

mod bodies;
mod changed;
mod choose;
mod count;
mod dead;
mod fate;
mod merge;
mod pace;
mod younger;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use changed::BodyChanges;
use choose::{Candidate, Choice, Kind, Room, choose, debt_bytes};
use dead::{Examined, remove_dead};
use merge::Merge;
use pace::Pace;

use crate::error::{Error, Failure, Result};
use crate::format::manifest::SegmentRecord;
use crate::ids::{FileNumber, StoreId, TimeMs};
use crate::segment::{self, Segment, SegmentPlan, SegmentWriter};
use crate::state::State;
use crate::state::view::View;
use crate::upkeep::garbage;
use crate::upkeep::install::{make_live, remove_unfinished};
use younger::{Younger, younger};

/// Rewrite a segment when `1/WORTH_IT` of it is dead, on a full disk when `1/WORTH_MUCH` is: with
/// 2, each removed entry costs the rewrite of one other entry.
const WORTH_IT: u64 = 2;
const WORTH_MUCH: u64 = 8;

/// Commits wait if the dead bytes exceed the living bytes plus this many memtables: in a small
/// store a few flushes are not urgent.
const MEMTABLES_OF_GARBAGE: u64 = 8;

/// The interval of checks of the free space and the time when nothing else happens.
const TICK: Duration = Duration::from_secs(1);

/// The delay after a failed merge; it doubles each time, up to the longest.
const FIRST_REST: Duration = Duration::from_secs(5);
const LONGEST_REST: Duration = Duration::from_mins(5);

/// The compaction thread: merges whatever is due, until the engine closes.
pub fn run(state: &State) {
    let (mut rest, mut examined) = (FIRST_REST, Examined::default());
    loop {
        // Read before the state is examined, so that no change is missed between examination and
        // wait.
        let seen = state.progress.changes();
        if state.is_closing() {
            return;
        }
        if state.merging.lag.hurries() && !is_behind(state) {
            state.merging.lag.hurry(false);
        }
        let done = match remove_dead(state, &mut examined) {
            Ok(()) => merge_next(state),
            Err(Failure::Refused(Error::DiskFull { .. })) => {
                log_waiting(state, true);
                Ok(false)
            }
            Err(failure) => Err(failure),
        };
        state.merging.lag.merging_failed(done.is_err());
        match done {
            Ok(true) => rest = FIRST_REST,
            Ok(false) => state.progress.wait(seen, TICK),
            // The engine closes.
            Err(Failure::Refused(Error::Closed { .. })) => return,
            Err(Failure::Refused(error)) => {
                tracing::warn!(%error, "segments could not be merged");
                state.progress.rest(rest);
                rest = (2 * rest).min(LONGEST_REST);
            }
            Err(failure) => {
                state.failed(failure);
                return;
            }
        }
    }
}

/// Merges what is due next. False if nothing is, or there is no space for it.
fn merge_next(state: &State) -> Result<bool, Failure> {
    let due = next(state);
    log_waiting(state, matches!(due, Due::Wait));
    match due {
        Due::Merge(inputs, urgent) => merge(state, &inputs, urgent).map(|_| true),
        Due::Nothing | Due::Wait => Ok(false),
    }
}

/// The action that is due, in any store.
enum Due {
    Nothing,
    Wait,
    Merge(Vec<Arc<Segment>>, bool),
}

fn log_waiting(state: &State, waits: bool) {
    if state.merging.set_waits_for_space(waits) != waits {
        if waits {
            tracing::warn!("merging of segments waits: the disk has no room for it");
        } else {
            tracing::info!("merging of segments continues");
        }
    }
}

fn next(state: &State) -> Due {
    let view = state.view.load();
    let room = room(state);
    let records = records(state, &view);
    let (mut due, mut debt) = (Due::Nothing, 0);
    for store in stores(&view) {
        let candidates = candidates(state, &view, store, &records);
        debt += debt_bytes(&candidates);
        match (choose(&candidates, room), &due) {
            (Choice::Merge(numbers, urgent), Due::Nothing | Due::Wait) => {
                let segments = view.segments.of(store).iter();
                let inputs = segments.filter(|segment| numbers.contains(&segment.record().number));
                due = Due::Merge(inputs.cloned().collect(), urgent);
            }
            (Choice::Wait, Due::Nothing) => due = Due::Wait,
            _ => {}
        }
    }
    state.merging.set_debt_bytes(debt);
    due
}

fn room(state: &State) -> Room {
    let merge_bytes = state.room_bytes();
    // A rewrite frees at least as much: the log can do without half of the free space for that
    // time.
    let half = state.dir.free_bytes().unwrap_or(u64::MAX) / 2;
    Room { merge_bytes, rewrite_bytes: merge_bytes.max(half) }
}

/// Whether commits should wait until more is merged: too much is due, and merging makes progress.
pub fn is_behind(state: &State) -> bool {
    if state.merging.waits_for_space()
        || state.merging.lag.is_failing()
        || state.poison.check().is_err()
    {
        return false;
    }
    let view = state.view.load();
    let records = records(state, &view);
    let least_bytes = MEMTABLES_OF_GARBAGE * state.options.memtable_bytes() as u64;
    stores(&view)
        .into_iter()
        .any(|store| choose::is_behind(&candidates(state, &view, store, &records), least_bytes))
}

/// The manifest's records of segments: their dead weight grows after the segments were opened.
type Records = HashMap<FileNumber, SegmentRecord>;

fn records(state: &State, view: &View) -> Records {
    let mut records = state.manifest.lock().live().segments.clone();
    if state.is_short_of_space() {
        // There may be no space for the flush that counts these changes until the removed data is
        // freed.
        view.memtables()
            .for_each(|memtable| garbage::note(&garbage::count(view, memtable), &mut records));
    }
    records.into_iter().map(|record| (record.number, record)).collect()
}

fn stores(view: &View) -> Vec<StoreId> {
    let mut stores: Vec<StoreId> =
        view.segments.all().map(|segment| segment.record().store).collect();
    stores.sort();
    stores.dedup();
    stores
}

fn candidates(state: &State, view: &View, store: StoreId, records: &Records) -> Vec<Candidate> {
    let (unmergeable, now_ms) = (state.merging.unmergeable.lock().clone(), state.sure_now_ms());
    let (is_short, worth_it) = (state.is_short_of_space(), worth_it(state));
    let candidate = |segment: &Arc<Segment>| {
        let record = segment.record();
        let known = records.get(&record.number).unwrap_or(record);
        let needless = changed::needless_weight(view, segment);
        let known = &SegmentRecord {
            dead_weight: known.dead_weight.saturating_add(needless),
            ..known.clone()
        };
        let is_garbage = match record {
            record if record.dropped => false,
            // Its index may also become smaller without what younger segments know.
            record if record.dead => !is_short,
            _ => is_garbage(known, now_ms, worth_it),
        };
        Candidate {
            number: record.number,
            kind: if record.dropped {
                Kind::Dropped
            } else {
                Kind::Data(record.tier, record.partition)
            },
            is_whole: segment.damage().is_none() && !unmergeable.contains(&record.number),
            bytes: record.bytes(),
            alive_bytes: alive_bytes(record, known, now_ms),
            is_garbage,
        }
    };
    view.segments.of(store).iter().map(candidate).collect()
}

/// A segment is garbage if 1/`worth_it` of it is dead.
fn worth_it(state: &State) -> u64 {
    if state.is_short_of_space() { WORTH_MUCH } else { WORTH_IT }
}

/// The dead part of a segment's weight.
fn dead_weight(known: &SegmentRecord, now_ms: TimeMs) -> u64 {
    let expired = known.half_expired_ms != 0 && known.half_expired_ms <= now_ms;
    known.dead_weight.max(if expired { known.weight.div_ceil(2) } else { 0 }).min(known.weight)
}

/// Whether enough of a segment is dead for a rewrite.
fn is_garbage(known: &SegmentRecord, now_ms: TimeMs, worth_it: u64) -> bool {
    let dead = dead_weight(known, now_ms);
    dead > 0 && dead.saturating_mul(worth_it) >= known.weight
}

/// About the number of bytes that a merge would write for a segment.
fn alive_bytes(record: &SegmentRecord, known: &SegmentRecord, now_ms: TimeMs) -> u64 {
    let data_bytes = if record.has_data() { record.data_bytes } else { 0 };
    let alive = u128::from(data_bytes) * u128::from(known.weight - dead_weight(known, now_ms));
    let alive_bytes = alive.checked_div(u128::from(known.weight)).unwrap_or(u128::from(data_bytes));
    record.copies.bytes(alive_bytes as u64, record.index_bytes)
}

/// Merges all segments of each store, and in a store with TTL of each partition, into one. Refused
/// if the disk has no space for it.
pub fn merge_all(state: &State) -> Result<()> {
    remove_dead(state, &mut Examined::default()).map_err(|failure| state.failed(failure))?;
    for store in stores(&state.view.load()) {
        // The compaction thread may have merged or removed some of them meanwhile.
        while !merge_store(state, store)? {}
    }
    Ok(())
}

/// Merges all segments of a store, as far as they are those of the view at the start. False if some
/// were not.
fn merge_store(state: &State, store: StoreId) -> Result<bool> {
    let view = state.view.load();
    let segments = view.segments.of(store);
    if let Some(damage) = segments.iter().find_map(|segment| segment.damage()) {
        return Err(damage.clone());
    }
    let kind = |segment: &Segment| match segment.record() {
        record if record.dropped => (true, 0),
        record => (false, record.partition),
    };
    for row in segments.chunk_by(|one, other| kind(one) == kind(other)) {
        let records = records(state, &view);
        let is_clean = |segment: &Arc<Segment>| {
            let known = records.get(&segment.record().number);
            let is_whole = |known: &SegmentRecord| {
                known.dead_weight == 0
                    && known.half_expired_ms == 0
                    && (!known.dead || known.dropped)
            };
            known.is_none_or(is_whole)
        };
        if row.len() == 1 && is_clean(&row[0]) {
            continue;
        }
        let room = room(state);
        let room_bytes = if row.len() == 1 { room.rewrite_bytes } else { room.merge_bytes };
        if output_bytes(state, row, &records) > room_bytes {
            let path = state.dir.path_of(&segment::data_name(row[0].record().number));
            return Err(Error::DiskFull { path });
        }
        if !merge(state, row, false).map_err(|failure| state.failed(failure))? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// About the number of bytes that a merge of segments will write.
fn output_bytes(state: &State, inputs: &[Arc<Segment>], records: &Records) -> u64 {
    let now_ms = state.sure_now_ms();
    let alive = |input: &Arc<Segment>| {
        let record = input.record();
        alive_bytes(record, records.get(&record.number).unwrap_or(record), now_ms)
    };
    inputs.iter().map(alive).sum()
}

/// Replaces neighbours, newest first, by one segment. False if some of them do not exist any more.
fn merge(state: &State, inputs: &[Arc<Segment>], is_urgent: bool) -> Result<bool, Failure> {
    let _one_at_a_time = state.merging.turn.lock();
    if state.is_closing() {
        // A caller may have waited here until the directory belonged to another engine.
        return Err(Failure::Refused(Error::Closed {
            what: "the engine is closing: nothing is merged",
        }));
    }
    let view = state.view.load();
    let segments = view.segments.of(inputs[0].record().store);
    if !inputs.iter().all(|input| segments.iter().any(|segment| Arc::ptr_eq(segment, input))) {
        return Ok(false);
    }
    let span = count::span(inputs);
    let _entered = span.enter();
    let start = state.clock.monotonic();
    let record = replace(state, &view, inputs, is_urgent)?;
    state.counters.merge_times.add_time(start, state.clock.monotonic());
    count::record(&span, &record);
    Ok(true)
}

/// Merges neighbours of a view into one segment, and replaces them. Returns the record of the
/// segment; if no timeline is left, it does not exist.
fn replace(
    state: &State,
    view: &View,
    inputs: &[Arc<Segment>],
    is_urgent: bool,
) -> Result<SegmentRecord, Failure> {
    let segments = view.segments.of(inputs[0].record().store);
    let numbers: Vec<FileNumber> = inputs.iter().map(|input| input.record().number).collect();
    let before = records(state, view);
    let dead_before: u64 =
        numbers.iter().filter_map(|number| Some(before.get(number)?.dead_weight)).sum();
    let changes_bodies = segments.iter().any(|segment| segment.changes_bodies());
    let is_own = |record: &SegmentRecord| !record.dead && record.changed_to <= record.to;
    let is_clean =
        dead_before == 0 && !changes_bodies && inputs.iter().all(|input| is_own(input.record()));
    let younger = if is_clean { Younger::default() } else { younger(state, view, &inputs[0]) };
    let reserved = state.merging.lag.reserve(output_bytes(state, inputs, &before));
    let changed = if is_clean {
        Ok(BodyChanges::unknown(view, inputs))
    } else {
        BodyChanges::find(state, view, inputs)
    };
    let written =
        changed.and_then(|changed| write_merged(state, inputs, (&younger, &changed), is_urgent));
    drop(reserved);
    let written = written.map_err(|error| set_aside(state, inputs, error))?;
    let Written { record, expired } = written;
    // Read after the merge: it may have seen changes that came meanwhile.
    let changes_to = younger.changes_to();
    // If no timeline is left, no segment is.
    let records = if record.timelines == 0 { Vec::new() } else { vec![record.clone()] };
    let output = make_live(state, &records, |records, live| {
        // The weight that died meanwhile was added to the inputs, and is still in the output.
        let gone = |segment: &&SegmentRecord| numbers.contains(&segment.number);
        let dead_now: u64 =
            live.segments.iter().filter(gone).map(|segment| segment.dead_weight).sum();
        live.segments.retain(|segment| !numbers.contains(&segment.number));
        live.changes_to = live.changes_to.max(changes_to);
        for record in records {
            let dead_weight = record.dead_weight + dead_now.saturating_sub(dead_before);
            live.segments.push(SegmentRecord { dead_weight, ..record.clone() });
        }
    })?;
    if records.is_empty() {
        remove_unfinished(state, [record.number].into_iter());
    }
    count::count(state, inputs, &output, &record, expired);
    state.view.change(|view| {
        // By number: one of them may have lost its data meanwhile.
        let gone = view.segments.take(record.store, &numbers);
        state.add_segments(view, output);
        gone.iter().for_each(|segment| segment.make_obsolete());
    });
    inputs.iter().for_each(|input| input.make_obsolete());
    // Their damaged parts do not exist any more.
    numbers.iter().for_each(|number| state.cache.damages().forget(*number));
    state.progress.announce();
    Ok(record)
}

/// Excludes segments in which a merge found damage from merging, so that one bad block does not
/// keep all others from being merged.
fn set_aside(state: &State, inputs: &[Arc<Segment>], error: Error) -> Failure {
    match &error {
        _ if error.is_shortage() => Failure::before(error),
        Error::Corrupt { path, .. } | Error::Io { path, .. } if error.is_damage() => {
            let number = path.file_name().and_then(|name| name.to_str()).and_then(segment::is_file);
            let view = state.view.load();
            // Replacing bodies may have been read from any segment of the store.
            let read = view
                .segments
                .of(inputs[0].record().store)
                .iter()
                .map(|segment| segment.record().number);
            let mut damaged: Vec<FileNumber> = read.filter(|read| Some(*read) == number).collect();
            if damaged.is_empty() {
                damaged = inputs.iter().map(|input| input.record().number).collect();
            }
            state.merging.unmergeable.lock().extend(damaged);
            Failure::Refused(error)
        }
        Error::Closed { .. } => Failure::Refused(error),
        _ => Failure::before(error),
    }
}

struct Written {
    record: SegmentRecord,
    /// The number of entries left out because their own lifetime had ended.
    expired: u64,
}

fn write_merged(
    state: &State,
    inputs: &[Arc<Segment>],
    (younger, changed): (&Younger, &BodyChanges),
    is_urgent: bool,
) -> Result<Written> {
    let (newest, oldest) = (inputs[0].record(), inputs[inputs.len() - 1].record());
    let highest = inputs.iter().map(|input| input.record().tier).max().unwrap_or(0);
    // A rewrite does not bring segments together.
    let tier = if inputs.len() == 1 { highest } else { highest.saturating_add(1) };
    let plan = SegmentPlan {
        number: state.manifest.lock().take_file_number(),
        store: newest.store,
        partition: newest.partition,
        ttl_ms: state.ttl_ms(newest.store),
        tier,
        dropped: newest.dropped,
        compression: segment::compression(tier, state.options.compress_recent),
        copies: state.copies(newest.store),
        from: oldest.from,
        to: newest.to,
        changed_to: changed.applied_to(),
        now_ms: state.now_ms(),
    };
    let number = plan.number;
    let written = || {
        let mut writer =
            SegmentWriter::create(&state.dir, state.engine_id, state.writer_epoch, plan)?;
        let mut pace = Pace::start(state, is_urgent);
        let expired = Merge::new(state, inputs, younger, changed)?.write(&mut writer, &mut pace)?;
        Ok(Written { record: writer.finish()?, expired })
    };
    written().inspect_err(|_| remove_unfinished(state, [number].into_iter()))
}
