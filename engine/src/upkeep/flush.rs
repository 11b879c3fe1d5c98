//! The flush path: a sealed memtable becomes segments (P1, P3, P6).
//!
//! 1. count the garbage that the changes create in older segments (`garbage`);
//! 2. for each store that was not dropped, and each time partition of a store with TTL: count the
//!    uses of each body, sort the names, write a segment and sync its files;
//! 3. sync the directory: the files' names are durable;
//! 4. commit the manifest: the segments are live, and replay starts after the memtable's part of
//!    the log;
//! 5. change the view: the segments replace the memtable in one step;
//! 6. free the log files that are not needed any more.
//!
//! Sealed memtables are flushed in order, so the checkpoint only moves forward. If the disk is
//! full, the memtable stays, and the flush is tried again when something changed or after a short
//! delay (`RETRY`).
//!
//! This file does not know who sealed the memtable, or why.

use std::collections::{BTreeMap, HashMap};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use tracing::Span;
use tracing::field::Empty;

use crate::error::{Error, Failure, Result};
use crate::format::index::TimelineEntry;
use crate::format::manifest::SegmentRecord;
use crate::format::run::SharedBody;
use crate::ids::{BODIES, CommitPlace, Sequence, StoreId, TimeMs, TimelineRef};
use crate::memtable::{Memtable, Slot, Watermark};
use crate::metrics::FLUSH;
use crate::segment::{self, Segment, SegmentPlan, SegmentWriter};
use crate::state::State;
use crate::state::view::View;
use crate::timeline::{Changes, Edit, End, Times};
use crate::upkeep::garbage;
use crate::upkeep::install::{make_live, remove_unfinished};

/// The time that a flush that failed on a full disk waits for space.
const RETRY: Duration = Duration::from_millis(100);

/// The flush thread: flushes whatever is sealed until the engine closes.
pub fn run(state: &State) {
    loop {
        let seen = state.progress.changes();
        match flush_oldest(state) {
            Ok(true) => {}
            Ok(false) if state.is_closing() => return,
            Ok(false) => state.progress.wait(seen, Duration::from_hours(1)),
            Err(Failure::Refused(error)) => {
                // The reserve is for work that frees space: trimmed entries, and the log before the
                // checkpoint.
                let frees = || state.view.load().memtables().any(|memtable| memtable.frees());
                let is_full = matches!(error, Error::DiskFull { .. });
                if is_full && (state.make_space() || (frees() && state.reserve.give_back())) {
                    continue;
                }
                state.progress.flush_outcome(Some(state.failed(Failure::Refused(error))));
                let seen = state.progress.changes();
                if state.is_closing() {
                    return;
                }
                state.progress.wait(seen, RETRY);
            }
            Err(failure) => {
                // The content of the disk is unknown; the log still has everything, and the next
                // open reads it.
                state.progress.flush_outcome(Some(state.failed(failure)));
                return;
            }
        }
    }
}

/// Flushes the oldest sealed memtable. False if there is none.
fn flush_oldest(state: &State) -> Result<bool, Failure> {
    let Some(memtable) = state.view.load().sealed.last().cloned() else { return Ok(false) };
    let span = tracing::info_span!(FLUSH, segments = Empty, entries = Empty, bytes = Empty);
    let _entered = span.enter();
    let start = state.clock.monotonic();
    let dead = garbage::count(&state.view.load(), &memtable);
    let records = write_segments(state, &memtable).map_err(Failure::before)?;
    let segments = make_live(state, &records, |records, live| {
        garbage::note(&dead, &mut live.segments);
        live.segments.extend(records.iter().cloned());
        live.checkpoint = memtable.to();
        live.log_file = live.log_file.max(state.log_files.number_at(memtable.to()));
        let last_time_ms = records.iter().map(|record| record.last_time_ms).max().unwrap_or(0);
        live.last_time_ms = live.last_time_ms.max(last_time_ms);
        live.seen_ms = live.seen_ms.max(state.sure_now_ms());
    })?;
    count(state, &segments, &span);
    state.view.change(|view| {
        view.sealed.retain(|sealed| !Arc::ptr_eq(sealed, &memtable));
        state.add_segments(view, segments);
    });
    state.share_memory();
    state.held.flushed(&memtable, state.options.memtable_bytes());
    if has_own_expiries(&memtable) {
        state.log_files.doom_below(memtable.to());
    }
    state.retire_log(memtable.to());
    state.counters.flush_times.add_time(start, state.clock.monotonic());
    state.progress.flush_outcome(None);
    Ok(true)
}

fn count(state: &State, segments: &[Arc<Segment>], span: &Span) {
    let bytes: u64 = segments.iter().map(|segment| segment.record().bytes()).sum();
    state.counters.flushes.add(1);
    state.counters.flush_bytes.add(bytes);
    span.record("segments", segments.len());
    span.record("entries", segments.iter().map(|segment| segment.record().entries).sum::<u64>());
    span.record("bytes", bytes);
}

/// Whether entries have a lifetime of their own: it may be shorter than that of any store.
fn has_own_expiries(memtable: &Memtable) -> bool {
    let mut has = false;
    memtable.for_each(|slot| has |= slot.has_own_expiries());
    has
}

/// Writes the segments of each store in the memtable. Leaves no file if it fails.
fn write_segments(state: &State, memtable: &Memtable) -> Result<Vec<SegmentRecord>> {
    let mut stores: Vec<StoreId> = Vec::new();
    memtable.for_each(|slot| {
        if !stores.contains(&slot.store) {
            stores.push(slot.store);
        }
    });
    stores.retain(|store| state.has_store(*store));
    stores.sort();
    let mut records = Vec::new();
    for store in stores {
        let partitions = partitions(state, memtable, store);
        for (index, partition) in partitions.iter().enumerate() {
            let is_last = index + 1 == partitions.len();
            let plan = SegmentPlan {
                number: state.manifest.lock().take_file_number(),
                store,
                partition: partition.number,
                ttl_ms: state.ttl_ms(store),
                tier: 0,
                dropped: false,
                compression: segment::compression(0, state.options.compress_recent),
                copies: state.copies(store),
                from: memtable.from(),
                to: memtable.to(),
                changed_to: memtable.to(),
                now_ms: state.now_ms(),
            };
            let number = plan.number;
            match write_segment(state, memtable, plan, partition, is_last) {
                Ok(record) => records.push(record),
                Err(error) => {
                    remove_unfinished(
                        state,
                        records.iter().map(|record| record.number).chain([number]),
                    );
                    return Err(error);
                }
            }
        }
    }
    Ok(records)
}

/// A time range whose entries go into one segment and expire together.
struct Partition {
    /// Its number in the manifest: the time at which it begins.
    number: u64,
    /// The range of the starts of lifetimes in it.
    starts: RangeInclusive<TimeMs>,
}

/// The partitions of a memtable's entries, ascending; at least one. A store without TTL has one
/// partition for all times.
fn partitions(state: &State, memtable: &Memtable, store: StoreId) -> Vec<Partition> {
    let ttl_ms = state.ttl_ms(store);
    if ttl_ms == 0 {
        return vec![Partition { number: 0, starts: 0..=TimeMs::MAX }];
    }
    let len = partition_ms(ttl_ms);
    let uses = count_uses(memtable, store);
    let in_store = (0..uses.len()).filter(|body| uses[*body] > 0);
    let mut numbers: Vec<u64> = in_store
        .map(|body| memtable.body(body as u32).times.start_ms)
        .map(|start_ms| start_ms - start_ms % len)
        .collect();
    numbers.sort_unstable();
    numbers.dedup();
    if numbers.is_empty() {
        let now_ms = state.now_ms();
        numbers.push(now_ms - now_ms % len);
    }
    let partition =
        |number: u64| Partition { number, starts: number..=number.saturating_add(len - 1) };
    numbers.into_iter().map(partition).collect()
}

/// The length of a store's partitions: short enough that expired data is removed soon, long enough
/// that there are few partitions.
fn partition_ms(ttl_ms: u64) -> u64 {
    (ttl_ms / 64).clamp(1000, 24 * 3600 * 1000)
}

/// Writes the entries of one partition. The last one also contains everything else that is known of
/// each timeline.
fn write_segment(
    state: &State,
    memtable: &Memtable,
    plan: SegmentPlan,
    partition: &Partition,
    is_last: bool,
) -> Result<SegmentRecord> {
    let store = plan.store;
    let mut writer = SegmentWriter::create(&state.dir, state.engine_id, state.writer_epoch, plan)?;
    let changed = changed_bodies(state, memtable, store);
    let shared = write_shared(memtable, store, (&partition.starts, &changed), &mut writer)?;
    let edits = if is_last {
        write_edits(&state.view.load(), memtable, store, &mut writer)?
    } else {
        Edits::new()
    };
    for_each_by_name(memtable, store, |slot| {
        if !is_last
            && !slot
                .entries()
                .any(|(_, body)| partition.starts.contains(&memtable.body(body).times.start_ms))
        {
            return Ok(());
        }
        writer.begin(&slot.name);
        write_entries(memtable, slot, (&partition.starts, &changed), &shared, &mut writer)?;
        if is_last {
            write_changes_and_ids(state, slot, &edits, &mut writer)?;
        }
        if *slot.name == *BODIES {
            // The entries that it changes may have any time up to now.
            return writer.end(End { last_time_ms: state.times.last_ms(), ..slot.end() });
        }
        writer.end(slot.end())
    })?;
    writer.finish()
}

fn write_changes_and_ids(
    state: &State,
    slot: &Slot,
    edits: &Edits,
    writer: &mut SegmentWriter,
) -> Result<()> {
    if let Some(changes) = slot.changes() {
        let edited = edits.get(&slot.name).cloned().unwrap_or_default();
        writer.changes(&changes.below(slot.first()).removed, edited);
    }
    let ids: BTreeMap<_, _> = slot.ids().collect();
    for (id, record) in ids.into_iter().filter(|(_, record)| state.remembers(record.start_ms)) {
        writer.id(id, record)?;
    }
    Ok(())
}

/// The bodies of this memtable that were changed in it for all their entries in a store, by place.
fn changed_bodies(state: &State, memtable: &Memtable, store: StoreId) -> BTreeMap<Sequence, Edit> {
    let timeline = TimelineRef { store, name: BODIES };
    let look = memtable.look(state.key(timeline), Watermark::ALL).and_then(|look| look.changed);
    let own = |changes: &Changes| changes.edited.clone().split_off(&memtable.from().0);
    look.map(|slot| memtable.changes_in(slot, own)).unwrap_or_default()
}

/// Writes the bodies that several timelines share, each once, in commit order. Returns their
/// numbers in the segment.
fn write_shared(
    memtable: &Memtable,
    store: StoreId,
    (starts, changed): (&RangeInclusive<TimeMs>, &BTreeMap<Sequence, Edit>),
    writer: &mut SegmentWriter,
) -> Result<Vec<Option<u32>>> {
    let uses = count_uses(memtable, store);
    let mut shared = vec![None; uses.len()];
    for number in (0..uses.len()).filter(|number| uses[*number] > 1) {
        let body = memtable.body(number as u32);
        if !starts.contains(&body.times.start_ms) {
            continue;
        }
        let Times { time_ms, expire_at_ms, .. } = body.times;
        let shared_body = SharedBody { time_ms, expire_at_ms, place: body.shared_place() };
        let bytes = changed.get(&body.place.0).map_or(&body.bytes, |edit| &edit.body);
        shared[number] = Some(writer.body(shared_body, bytes)?);
    }
    Ok(shared)
}

/// Edits of entries in older segments, by timeline: the sequences, the numbers of the new bodies,
/// and the places of the commits.
type Edits = HashMap<Arc<[u8]>, Vec<(Sequence, u32, CommitPlace)>>;

fn write_edits(
    view: &View,
    memtable: &Memtable,
    store: StoreId,
    writer: &mut SegmentWriter,
) -> Result<Edits> {
    let mut edits = Edits::new();
    let mut outcome = Ok(());
    memtable.for_each(|slot| {
        let Some(changes) = slot.changes().filter(|_| slot.store == store && outcome.is_ok())
        else {
            return;
        };
        let mut edited = changes.below(slot.first()).edited;
        if *slot.name == *BODIES {
            // The bodies in this memtable are written with their changes applied.
            edited.retain(|place, _| *place < memtable.from().0);
        }
        if edited.is_empty() {
            return;
        }
        let brief = brief_parts(view, slot);
        let mut write = |sequence, edit: &Edit| {
            let (time_ms, expire_at_ms) = own_expiry(&brief, slot, sequence);
            let number =
                writer.body(SharedBody { time_ms, expire_at_ms, place: None }, &edit.body)?;
            edits.entry(slot.name.clone()).or_default().push((sequence, number, edit.at));
            Ok(())
        };
        // An entry that was trimmed after it was edited is not visible.
        let lowest = slot.end().floor.lowest;
        outcome = edited.range(lowest..).try_for_each(|(sequence, edit)| write(*sequence, edit));
    });
    outcome.map(|()| edits)
}

/// The segments that hold entries of a timeline with a lifetime of their own, and their index
/// entries for it.
fn brief_parts<'v>(view: &'v View, slot: &Slot) -> Vec<(&'v Segment, TimelineEntry)> {
    let segments = view.segments.of(slot.store).iter();
    let part =
        |segment: &'v Arc<Segment>| Some((segment.as_ref(), segment.find_once(&slot.name).ok()??));
    let parts = segments.filter_map(part);
    parts.filter(|(_, entry)| entry.own_expiry).collect()
}

/// The start and the end of an entry's own lifetime, according to these segments; zeros if it has
/// none. An entry that cannot be read may live for ever.
fn own_expiry(
    brief: &[(&Segment, TimelineEntry)],
    slot: &Slot,
    sequence: Sequence,
) -> (TimeMs, TimeMs) {
    let times = |(segment, entry): &(&Segment, TimelineEntry)| {
        segment.times_of(&slot.name, entry, sequence).ok().flatten()
    };
    let times =
        brief.iter().find_map(times).filter(|times| times.expire_at_ms != 0).unwrap_or_default();
    (times.start_ms, times.expire_at_ms)
}

/// Writes the entries of a slot in a time range that were not removed, with their newest bodies.
fn write_entries(
    memtable: &Memtable,
    slot: &Slot,
    (starts, bodies): (&RangeInclusive<TimeMs>, &BTreeMap<Sequence, Edit>),
    shared: &[Option<u32>],
    writer: &mut SegmentWriter,
) -> Result<()> {
    let none = Changes::default();
    let changes = slot.changes().unwrap_or(&none);
    let lowest = slot.end().floor.lowest;
    for (sequence, body) in
        slot.entries().filter(|(sequence, _)| *sequence >= lowest && !changes.removes(*sequence))
    {
        let number = shared[body as usize];
        let body = memtable.body(body);
        let of_body = bodies.get(&body.place.0);
        // The later change counts.
        let edited = changes
            .edited
            .get(&sequence)
            .filter(|edit| of_body.is_none_or(|other| other.at < edit.at));
        if let (Some(number), None) = (number, edited) {
            writer.shared(sequence, number, body.times.own_start_ms())?;
            continue;
        }
        if starts.contains(&body.times.start_ms) {
            let bytes = edited.or(of_body).map_or(&body.bytes, |edit| &edit.body);
            writer.inline(sequence, body.times, body.shared_place(), bytes)?;
        }
    }
    Ok(())
}

/// The number of entries of a store's timelines that use each body.
fn count_uses(memtable: &Memtable, store: StoreId) -> Vec<u32> {
    let mut uses = vec![0u32; memtable.body_count()];
    memtable.for_each(|slot| {
        if slot.store == store {
            slot.entries().for_each(|(_, body)| uses[body as usize] += 1);
        }
    });
    uses
}

/// Calls `visit` for each slot of a store, in the order of names.
fn for_each_by_name(
    memtable: &Memtable,
    store: StoreId,
    mut visit: impl FnMut(&Slot) -> Result<()>,
) -> Result<()> {
    let mut names = Vec::new();
    memtable.for_each_with_id(|id, slot| {
        if slot.store == store {
            names.push((slot.name.clone(), id));
        }
    });
    names.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
    names.into_iter().try_for_each(|(_, id)| memtable.with_slot(id, &mut visit))
}
