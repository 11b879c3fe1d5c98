//! The flush path: a sealed memtable becomes segments (P1, P3, P6).
//!
//! 1. count what the changes leave dead in older segments (`garbage`);
//! 2. for each store, and each time partition of a store with TTL: count how often each body is used, sort the names, write a
//!    segment and sync its files;
//! 3. sync the directory: the files have their names for good;
//! 4. commit the manifest: the segments are live, and replay starts behind the memtable's part of the log;
//! 5. change the view: the segments take the memtable's place in one step;
//! 6. remove the log files that nothing needs any more.
//!
//! Sealed memtables are flushed in order, so the checkpoint only moves forward. If the disk is full, the memtable stays, and the
//! flush is tried again when something changed or a moment has passed.
//!
//! It does not know: who sealed the memtable, or why.

use std::collections::{BTreeMap, HashMap};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::entry::Changes;
use crate::error::{Error, Failure, Result};
use crate::format::ids::IdEntry;
use crate::format::manifest::{Live, SegmentRecord};
use crate::ids::{FileNumber, Lsn, Sequence, StoreId, TimeMs};
use crate::memtable::{Memtable, Slot};
use crate::segment::{Segment, SegmentPlan, SegmentWriter, all_names};
use crate::state::State;
use crate::{garbage, wal};

/// How long a flush that failed on a full disk waits for space.
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
                // The reserve is for what gives space back: what was trimmed, and the log behind it.
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
                // What is on the disk is not known; the log still has everything, and the next open reads it.
                state.progress.flush_outcome(Some(state.failed(failure)));
                return;
            }
        }
    }
}

/// Flushes the oldest sealed memtable. False when there is none.
fn flush_oldest(state: &State) -> Result<bool, Failure> {
    let Some(memtable) = state.view.load().sealed.last().cloned() else { return Ok(false) };
    let dead = garbage::count(&state.view.load(), &memtable);
    let records = write_segments(state, &memtable).map_err(Failure::before)?;
    let segments = make_live(state, &records, |records, live| {
        garbage::note(&dead, &mut live.segments);
        live.segments.extend(records.iter().cloned());
        live.checkpoint = memtable.to();
        live.log_file = live.log_file.max(log_file_at(state, memtable.to()));
        let last_time_ms = records.iter().map(|record| record.last_time_ms).max().unwrap_or(0);
        live.last_time_ms = live.last_time_ms.max(last_time_ms);
        live.seen_ms = live.seen_ms.max(state.sure_now_ms());
    })?;
    state.counters.flushes.add(1);
    state.counters.flush_bytes.add(segments.iter().map(|segment| segment.record().bytes()).sum());
    state.view.change(|view| {
        view.sealed.retain(|sealed| !Arc::ptr_eq(sealed, &memtable));
        view.segments.add(segments);
    });
    state.share_memory();
    remove_log_files(state, memtable.to());
    state.progress.flush_outcome(None);
    Ok(true)
}

/// Steps 3 and 4 for written segments: makes their names durable, opens them, and commits the manifest. If it is refused, their
/// files go; if it is poisoned, they stay, since the manifest that names them may be there.
pub fn make_live(
    state: &State,
    records: &[SegmentRecord],
    edit: impl FnOnce(&[SegmentRecord], &mut Live),
) -> Result<Vec<Arc<Segment>>, Failure> {
    let numbers: Vec<FileNumber> = records.iter().map(|record| record.number).collect();
    let committed = state.dir.sync().map_err(Failure::Poisoned).and_then(|()| {
        let open = |record: &SegmentRecord| {
            let segment = Segment::open(&state.dir, state.engine_id, record.clone(), &state.cache);
            segment.check().map_err(Failure::before)?;
            Ok(Arc::new(segment))
        };
        let segments = records.iter().map(open).collect::<Result<Vec<_>, Failure>>()?;
        state.manifest.lock().commit(|live| edit(records, live))?;
        Ok(segments)
    });
    if let Err(Failure::Refused(_)) = &committed {
        remove_unfinished(state, numbers.into_iter());
    }
    committed
}

/// The log file in which a position lies.
fn log_file_at(state: &State, lsn: Lsn) -> u64 {
    let files = state.wal_files.lock();
    files.iter().rev().find(|file| file.start <= lsn).map_or(0, |file| file.number)
}

/// Removes the log files that end at or before the checkpoint. The manifest with the checkpoint is durable.
pub fn remove_log_files(state: &State, checkpoint: Lsn) {
    let mut files = state.wal_files.lock();
    while files.len() > 1 && files[1].start <= checkpoint {
        let file = files.remove(0);
        if let Err(error) = state.dir.remove(&wal::file_name(file.number)) {
            // Nothing needs it; the next open removes it.
            tracing::warn!(%error, "an old log file stays for now");
        }
    }
}

/// Writes the segments of each store that the memtable has something of. Leaves no file behind when it fails.
fn write_segments(state: &State, memtable: &Memtable) -> Result<Vec<SegmentRecord>> {
    let mut stores: Vec<StoreId> = Vec::new();
    memtable.for_each(|slot| {
        if !stores.contains(&slot.store) {
            stores.push(slot.store);
        }
    });
    stores.sort();
    let mut records = Vec::new();
    for store in stores {
        let partitions = partitions(state, memtable, store);
        for (place, partition) in partitions.iter().enumerate() {
            let is_last = place + 1 == partitions.len();
            let plan = SegmentPlan {
                number: state.manifest.lock().take_file_number(),
                store,
                partition: partition.number,
                ttl_ms: state.ttl_ms(store),
                tier: 0,
                dropped: false,
                compress: false,
                copies: state.copies(store),
                from: memtable.from(),
                to: memtable.to(),
            };
            let number = plan.number;
            match write_segment(state, memtable, plan, partition, is_last) {
                Ok(record) => records.push(record),
                Err(error) => {
                    remove_unfinished(state, records.iter().map(|record| record.number).chain([number]));
                    return Err(error);
                }
            }
        }
    }
    Ok(records)
}

/// A piece of time whose entries go into one segment and expire together.
struct Partition {
    /// What the manifest calls it: the time of its start. It never falls from one flush to the next.
    number: u64,
    /// The times in it.
    times: RangeInclusive<TimeMs>,
}

/// The partitions of a memtable's entries, ascending; at least one. A store without TTL has one for all times.
fn partitions(state: &State, memtable: &Memtable, store: StoreId) -> Vec<Partition> {
    let ttl_ms = state.ttl_ms(store);
    let view = state.view.load();
    // A number never falls, also when the TTL was changed: it orders the segments of a store.
    let highest = view.segments.of(store).first().map_or(0, |segment| segment.record().partition);
    if ttl_ms == 0 {
        return vec![Partition { number: highest, times: 0..=TimeMs::MAX }];
    }
    let len = partition_ms(ttl_ms);
    let uses = count_uses(memtable, store);
    let in_store = (0..uses.len()).filter(|body| uses[*body] > 0);
    let mut starts: Vec<u64> = in_store
        .map(|body| memtable.body(body as u32).time_ms)
        .map(|time_ms| time_ms - time_ms % len)
        .collect();
    starts.sort_unstable();
    starts.dedup();
    if starts.is_empty() {
        let now_ms = state.now_ms();
        starts.push(now_ms - now_ms % len);
    }
    let mut partitions: Vec<Partition> = Vec::new();
    for start in starts {
        let number = start.max(highest);
        let times = start..=start.saturating_add(len - 1);
        match partitions.last_mut().filter(|last| last.number == number) {
            Some(last) => last.times = *last.times.start()..=*times.end(),
            None => partitions.push(Partition { number, times }),
        }
    }
    partitions
}

/// The length of a store's partitions: short enough that what has expired is soon gone, long enough that there are few.
fn partition_ms(ttl_ms: u64) -> u64 {
    (ttl_ms / 64).clamp(1000, 24 * 3600 * 1000)
}

/// Removes the files of segments that will not become live.
pub fn remove_unfinished(state: &State, numbers: impl Iterator<Item = u64>) {
    for number in numbers {
        [false, true].into_iter().for_each(|is_index| state.cache.close(number, is_index));
        for name in all_names(number) {
            let _ = state.dir.remove(&name);
        }
    }
}

/// Writes the entries of one partition. The last one also holds what else is known of each timeline.
fn write_segment(
    state: &State,
    memtable: &Memtable,
    plan: SegmentPlan,
    partition: &Partition,
    is_last: bool,
) -> Result<SegmentRecord> {
    let store = plan.store;
    let mut writer = SegmentWriter::create(&state.dir, state.engine_id, state.writer_epoch, plan)?;
    let shared = write_shared(memtable, store, &partition.times, &mut writer)?;
    let edits = if is_last { write_edits(memtable, store, &mut writer)? } else { Edits::new() };
    for_each_by_name(memtable, store, |slot| {
        if !is_last && !slot.entries().any(|(_, body)| partition.times.contains(&memtable.body(body).time_ms))
        {
            return Ok(());
        }
        writer.begin(&slot.name);
        write_entries(memtable, slot, &partition.times, &shared, &mut writer)?;
        if is_last {
            write_changes_and_ids(state, slot, &edits, &mut writer)?;
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
    for (id, record) in
        ids.into_iter().filter(|(_, record)| state.remembers(record.time_ms, state.sure_now_ms()))
    {
        let entry = IdEntry {
            body_hash: record.body_hash,
            targets_hash: record.targets_hash,
            time_ms: record.time_ms,
            sequences: record.sequences.to_vec(),
        };
        writer.id(id, &entry)?;
    }
    Ok(())
}

/// Bodies that several timelines share stand once, in commit order. Gives their numbers in the segment.
fn write_shared(
    memtable: &Memtable,
    store: StoreId,
    times: &RangeInclusive<TimeMs>,
    writer: &mut SegmentWriter,
) -> Result<Vec<Option<u32>>> {
    let uses = count_uses(memtable, store);
    let mut shared = vec![None; uses.len()];
    for number in (0..uses.len()).filter(|number| uses[*number] > 1) {
        let body = memtable.body(number as u32);
        if !times.contains(&body.time_ms) {
            continue;
        }
        shared[number] = Some(writer.body(body.time_ms, body.expire_at_ms, &body.bytes)?);
    }
    Ok(shared)
}

/// Edits of entries in older segments, by timeline: the sequences and the numbers of the new bodies.
type Edits = HashMap<Bytes, Vec<(Sequence, u32)>>;

fn write_edits(memtable: &Memtable, store: StoreId, writer: &mut SegmentWriter) -> Result<Edits> {
    let mut edits = Edits::new();
    let mut outcome = Ok(());
    memtable.for_each(|slot| {
        let Some(changes) = slot.changes().filter(|_| slot.store == store && outcome.is_ok()) else { return };
        for (sequence, body) in changes.below(slot.first()).edited {
            match writer.body(0, 0, &body) {
                Ok(number) => edits.entry(slot.name.clone()).or_default().push((sequence, number)),
                Err(error) => outcome = Err(error),
            }
        }
    });
    outcome.map(|()| edits)
}

/// The entries of a slot in a piece of time that were not removed, with their newest bodies.
fn write_entries(
    memtable: &Memtable,
    slot: &Slot,
    times: &RangeInclusive<TimeMs>,
    shared: &[Option<u32>],
    writer: &mut SegmentWriter,
) -> Result<()> {
    let none = Changes::default();
    let changes = slot.changes().unwrap_or(&none);
    let lowest = slot.end().floor.lowest;
    for (sequence, number) in
        slot.entries().filter(|(sequence, _)| *sequence >= lowest && !changes.removes(*sequence))
    {
        let edited = changes.edited.get(&sequence);
        if let (Some(number), None) = (shared[number as usize], edited) {
            writer.shared(sequence, number)?;
            continue;
        }
        let body = memtable.body(number);
        if times.contains(&body.time_ms) {
            writer.inline(sequence, body.time_ms, body.expire_at_ms, edited.unwrap_or(&body.bytes))?;
        }
    }
    Ok(())
}

/// How many entries of a store's timelines use each body.
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
