//! The flush path: a sealed memtable becomes segments (P1, P3, P6).
//!
//! 1. for each store: count how often each body is used, sort the names, write a segment and sync its files;
//! 2. sync the directory: the files have their names for good;
//! 3. commit the manifest: the segments are live, and replay starts behind the memtable's part of the log;
//! 4. change the view: the segments take the memtable's place in one step;
//! 5. remove the log files that nothing needs any more.
//!
//! Sealed memtables are flushed in order, so the checkpoint only moves forward. If the disk is full, the memtable stays, and the
//! flush is tried again when something changed or a moment has passed.
//!
//! It does not know: who sealed the memtable, or why.

use std::sync::Arc;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::format::manifest::SegmentRecord;
use crate::ids::{Lsn, StoreId};
use crate::memtable::{Memtable, Slot};
use crate::segment::{Segment, SegmentPlan, SegmentWriter, data_name, index_name};
use crate::state::State;
use crate::wal;

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
            Err(error @ Error::DiskFull { .. }) => {
                state.counters.disk_full.add(1);
                state.progress.flush_outcome(Some(error));
                if state.is_closing() {
                    return;
                }
                state.progress.wait(state.progress.changes(), RETRY);
            }
            Err(error) => {
                // What is on the disk is not known; the log still has everything, and the next open reads it.
                state.poison.set(&error);
                state.progress.flush_outcome(Some(error));
                return;
            }
        }
    }
}

/// Flushes the oldest sealed memtable. False when there is none.
fn flush_oldest(state: &State) -> Result<bool> {
    let Some(memtable) = state.view.load().sealed.last().cloned() else { return Ok(false) };
    let records = write_segments(state, &memtable)?;
    state.dir.sync()?;
    state.counters.flushes.add(1);
    state.counters.flush_bytes.add(records.iter().map(|record| record.data_bytes + record.index_bytes).sum());
    let log_file = log_file_at(state, memtable.to());
    let last_time_ms = records.iter().map(|record| record.last_time_ms).max().unwrap_or(0);
    state.manifest.lock().commit(|live| {
        live.segments.extend(records.iter().cloned());
        live.checkpoint = memtable.to();
        live.log_file = live.log_file.max(log_file);
        live.last_time_ms = live.last_time_ms.max(last_time_ms);
    })?;
    let open = |record| Arc::new(Segment::open(&state.dir, state.engine_id, record, state.cache.clone()));
    let segments: Vec<_> = records.into_iter().map(open).collect();
    state.view.change(|view| {
        view.sealed.retain(|sealed| !Arc::ptr_eq(sealed, &memtable));
        view.segments.add(segments);
    });
    remove_log_files(state, memtable.to());
    state.progress.flush_outcome(None);
    Ok(true)
}

/// The log file in which a position lies.
fn log_file_at(state: &State, lsn: Lsn) -> u64 {
    let files = state.wal_files.lock();
    files.iter().rev().find(|file| file.start <= lsn).map_or(0, |file| file.number)
}

/// Removes the log files that end at or before the checkpoint. The manifest with the checkpoint is durable.
fn remove_log_files(state: &State, checkpoint: Lsn) {
    let mut files = state.wal_files.lock();
    while files.len() > 1 && files[1].start <= checkpoint {
        let file = files.remove(0);
        if let Err(error) = state.dir.remove(&wal::file_name(file.number)) {
            // Nothing needs it; the next open removes it.
            tracing::warn!(%error, "an old log file stays for now");
        }
    }
}

/// Writes a segment for each store that the memtable has entries of. Leaves no file behind when it fails.
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
        let plan = SegmentPlan {
            number: state.manifest.lock().take_file_number(),
            store,
            partition: 0,
            tier: 0,
            compress: false,
            from: memtable.from(),
            to: memtable.to(),
        };
        let number = plan.number;
        match write_segment(state, memtable, plan) {
            Ok(record) => records.push(record),
            Err(error) => {
                remove_unfinished(state, records.iter().map(|record| record.number).chain([number]));
                return Err(error);
            }
        }
    }
    Ok(records)
}

/// Removes the files of segments that will not become live.
pub fn remove_unfinished(state: &State, numbers: impl Iterator<Item = u64>) {
    for number in numbers {
        let _ = state.dir.remove(&data_name(number));
        let _ = state.dir.remove(&index_name(number));
    }
}

fn write_segment(state: &State, memtable: &Memtable, plan: SegmentPlan) -> Result<SegmentRecord> {
    let store = plan.store;
    let uses = count_uses(memtable, store);
    let mut writer = SegmentWriter::create(&state.dir, state.engine_id, state.writer_epoch, plan)?;
    // Bodies that several timelines share stand once, in commit order; the number of each in the segment replaces its count.
    let mut shared = vec![None; uses.len()];
    for (number, count) in uses.iter().enumerate().filter(|(_, count)| **count > 1) {
        debug_assert!(*count > 1);
        let body = memtable.body(number as u32);
        shared[number] = Some(writer.body(body.time_ms, body.expire_at_ms, &body.bytes)?);
    }
    for_each_by_name(memtable, store, |slot| {
        let end = slot.end();
        writer.begin(&slot.name, end.lowest, end.trimmed_to);
        for (sequence, number) in slot.entries() {
            if let Some(number) = shared[number as usize] {
                writer.shared(sequence, number)?;
            } else {
                let body = memtable.body(number);
                writer.inline(sequence, body.time_ms, body.expire_at_ms, &body.bytes)?;
            }
        }
        writer.end(end.last)
    })?;
    writer.finish()
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
