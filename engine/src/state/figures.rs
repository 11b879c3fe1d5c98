//! The figures of an engine: its counters, its memory against the limits of its budget, and the
//! data on the disk.
//!
//! Promises: collecting the figures takes no lock that a commit holds for long. The cost is one
//! step per segment, and none per timeline or entry.
//!
//! This file does not know who reads the figures, or how they are shown. The names are documented
//! in docs/operations.md; a test of the server compares them.

use std::time::Duration;

use crate::format::manifest::SegmentRecord;
use crate::ids::{TimeMs, limit_of};
use crate::options::MAX_SEALED;
use crate::state::State;
use crate::stats::Stats;

/// The data of one store on the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoreFigures {
    /// The store's name.
    pub name: String,
    /// The TTL of entries; `None`: they live for ever.
    pub ttl: Option<Duration>,
    /// The time of the oldest entry in its segments, Unix ms; 0: they contain none. Entries that
    /// are only in memory are newer.
    pub oldest_ms: TimeMs,
    /// The number of entries in its segments.
    pub entries: u64,
    /// The bytes of its segments, second copies included.
    pub bytes: u64,
}

/// The figures of each store, sorted by name.
pub fn store_figures(state: &State) -> Vec<StoreFigures> {
    let view = state.view.load();
    let stores = state.stores.read();
    let mut found: Vec<StoreFigures> = stores
        .iter()
        .map(|store| {
            let records = || view.segments.of(store.id).iter().map(|segment| segment.record());
            let with_data =
                || records().filter(|record| record.entries > 0 && !record.dropped && !record.dead);
            StoreFigures {
                name: store.name.clone(),
                ttl: limit_of(store.ttl_ms),
                oldest_ms: with_data().map(|record| record.first_time_ms).min().unwrap_or(0),
                entries: with_data().map(|record| record.entries).sum(),
                bytes: records().map(SegmentRecord::bytes).sum(),
            }
        })
        .collect();
    found.sort_by(|one, other| one.name.cmp(&other.name));
    found
}

/// All figures of an engine. The results of opening it are passed in.
pub fn figures(state: &State, torn_tail_bytes: u64, damaged_log_places: u64) -> Stats {
    let mut fields = written(state);
    fields.push(("torn_tail_bytes", torn_tail_bytes));
    fields.extend(memory(state));
    fields.extend(segments(state));
    fields.extend(merging(state));
    fields.push(("damaged_log_places", damaged_log_places));
    fields.extend(trouble(state));
    Stats { fields }
}

type Fields = Vec<(&'static str, u64)>;

/// The commits, and the writes and syncs of the log.
fn written(state: &State) -> Fields {
    let counters = &state.counters;
    let (sum_us, most_us, p99_us) =
        counters.sync_times.sum_most_and_p99_us(state.clock.monotonic());
    vec![
        ("batches", counters.batches.get()),
        ("groups", counters.groups.get()),
        ("entries", counters.entries.get()),
        ("body_bytes", counters.body_bytes.get()),
        ("wal_bytes", counters.wal_bytes.get()),
        ("wal_prepared_bytes", prepared_bytes(state)),
        ("wal_syncs", counters.wal_syncs.get()),
        ("wal_sync_us_total", sum_us),
        ("wal_sync_us_max", most_us),
        ("wal_sync_us_p99", p99_us),
        ("wal_files", state.log_files.count() as u64),
        ("wal_vouching_groups", counters.vouching_groups.get()),
    ]
}

fn prepared_bytes(state: &State) -> u64 {
    state.preparer.lock().as_ref().map_or(0, |preparer| preparer.written_bytes())
}

/// The parts of the budget that are measured, each with its limit.
fn memory(state: &State) -> Fields {
    let (view, options) = (state.view.load(), &state.options);
    let counters = &state.counters;
    vec![
        ("memory_budget_bytes", options.memory_budget_bytes as u64),
        ("memtable_bytes", view.memtables().map(|memtable| memtable.bytes() as u64).sum()),
        ("memtable_limit_bytes", ((1 + MAX_SEALED) * options.memtable_bytes()) as u64),
        ("sealed_memtables", view.sealed.len() as u64),
        ("cache_bytes", state.cache.bytes()),
        ("cache_limit_bytes", options.cache_bytes(view.sealed.len()) as u64),
        ("cache_hits", counters.cache_hits.get()),
        ("cache_misses", counters.cache_misses.get()),
    ]
}

fn segments(state: &State) -> Fields {
    let (view, counters) = (state.view.load(), &state.counters);
    let records = || view.segments.all().map(|segment| segment.record());
    let bytes =
        records().map(|record| record.copies.bytes(record.data_bytes, record.index_bytes)).sum();
    let damaged = view.segments.all().filter(|segment| segment.has_damage()).count() as u64;
    vec![
        ("flushes", counters.flushes.get()),
        ("flush_bytes", counters.flush_bytes.get()),
        ("segments", records().count() as u64),
        ("segment_bytes", bytes),
        ("segment_timelines", records().map(|record| record.timelines).sum()),
        ("segment_entries", records().map(|record| record.entries).sum()),
        ("damaged_segments", damaged),
        ("block_reads", counters.block_reads.get()),
        ("open_segment_files", state.cache.open_files()),
        ("damaged_reads", counters.damaged_reads.get()),
    ]
}

/// The work of merging, expiry and trims, and what they wait for.
fn merging(state: &State) -> Fields {
    let counters = &state.counters;
    let body_bytes = counters.body_bytes.get();
    let written_bytes = counters.wal_bytes.get()
        + prepared_bytes(state)
        + counters.flush_bytes.get()
        + counters.merge_bytes.get();
    vec![
        ("merges", counters.merges.get()),
        ("merge_bytes", counters.merge_bytes.get()),
        ("merge_reclaimed_bytes", counters.merge_reclaimed_bytes.get()),
        ("rewrite_reclaimed_bytes", counters.rewrite_reclaimed_bytes.get()),
        ("write_amplification_percent", written_bytes.saturating_mul(100) / body_bytes.max(1)),
        ("compaction_debt_bytes", state.merging.debt_bytes()),
        ("merges_wait_for_space", u64::from(state.merging.waits_for_space())),
        ("expired_segments", counters.expired_segments.get()),
        ("expired_bytes", counters.expired_bytes.get()),
        ("expired_total", counters.expired_entries.get()),
        ("trimmed_total", counters.trimmed_entries.get()),
        ("expiry_held_by_clock", u64::from(state.times.is_held())),
    ]
}

/// The figures that an operator checks first.
fn trouble(state: &State) -> Fields {
    let counters = &state.counters;
    let mut fields = vec![
        ("write_stalls", counters.stalls.get()),
        ("disk_full_refusals", counters.disk_full.get()),
        ("reserve_bytes", state.reserve.bytes()),
        ("reserve_is_out", u64::from(state.reserve.is_out())),
        ("last_backup_ms", counters.last_backup_ms.get()),
        ("poisoned", u64::from(state.poison.check().is_err())),
    ];
    // If the file system does not report its free space, the figure is left out: that is not the
    // same as no free space.
    if let Ok(free_bytes) = state.dir.free_bytes() {
        fields.push(("disk_free_bytes", free_bytes));
    }
    fields
}
