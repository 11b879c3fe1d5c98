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
    let (view, options, counters) = (state.view.load(), &state.options, &state.counters);
    let records = || view.segments.all().map(|segment| segment.record());
    let (wal_sync_us_total, wal_sync_us_max, wal_sync_us_p99) =
        counters.sync_times.sum_most_and_p99_us(state.clock.monotonic());
    Stats {
        batches: counters.batches.get(),
        groups: counters.groups.get(),
        entries: counters.entries.get(),
        body_bytes: counters.body_bytes.get(),
        wal_bytes: counters.wal_bytes.get(),
        wal_prepared_bytes: prepared_bytes(state),
        wal_syncs: counters.wal_syncs.get(),
        wal_sync_us_total,
        wal_sync_us_max,
        wal_sync_us_p99,
        wal_files: state.log_files.count() as u64,
        wal_vouching_groups: counters.vouching_groups.get(),
        torn_tail_bytes,
        memory_budget_bytes: options.memory_budget_bytes as u64,
        memtable_bytes: view.memtables().map(|memtable| memtable.bytes() as u64).sum(),
        memtable_limit_bytes: ((1 + MAX_SEALED) * options.memtable_bytes()) as u64,
        sealed_memtables: view.sealed.len() as u64,
        cache_bytes: state.cache.bytes(),
        cache_limit_bytes: options.cache_bytes(view.sealed.len()) as u64,
        cache_hits: counters.cache_hits.get(),
        cache_misses: counters.cache_misses.get(),
        flushes: counters.flushes.get(),
        flush_bytes: counters.flush_bytes.get(),
        segments: records().count() as u64,
        segment_bytes: records().map(segment_bytes).sum(),
        segment_timelines: records().map(|record| record.timelines).sum(),
        segment_entries: records().map(|record| record.entries).sum(),
        damaged_segments: view.segments.all().filter(|one| one.has_damage()).count() as u64,
        block_reads: counters.block_reads.get(),
        open_segment_files: state.cache.open_files(),
        damaged_reads: counters.damaged_reads.get(),
        merges: counters.merges.get(),
        merge_bytes: counters.merge_bytes.get(),
        merge_reclaimed_bytes: counters.merge_reclaimed_bytes.get(),
        rewrite_reclaimed_bytes: counters.rewrite_reclaimed_bytes.get(),
        write_amplification_percent: write_amplification_percent(state),
        compaction_debt_bytes: state.merging.debt_bytes(),
        merges_wait_for_space: state.merging.waits_for_space(),
        expired_segments: counters.expired_segments.get(),
        expired_bytes: counters.expired_bytes.get(),
        expired_total: counters.expired_entries.get(),
        trimmed_total: counters.trimmed_entries.get(),
        expiry_held_by_clock: state.times.is_held(),
        damaged_log_places,
        write_stalls: counters.stalls.get(),
        disk_full_refusals: counters.disk_full.get(),
        reserve_bytes: state.reserve.bytes(),
        reserve_is_out: state.reserve.is_out(),
        last_backup_ms: counters.last_backup_ms.get(),
        poisoned: state.poison.check().is_err(),
        // Unknown free space is not the same as none.
        disk_free_bytes: state.dir.free_bytes().ok(),
    }
}

fn segment_bytes(record: &SegmentRecord) -> u64 {
    record.copies.bytes(record.data_bytes, record.index_bytes)
}

fn prepared_bytes(state: &State) -> u64 {
    state.preparer.lock().as_ref().map_or(0, |preparer| preparer.written_bytes())
}

fn write_amplification_percent(state: &State) -> u64 {
    let counters = &state.counters;
    let written_bytes = counters.wal_bytes.get()
        + prepared_bytes(state)
        + counters.flush_bytes.get()
        + counters.merge_bytes.get();
    written_bytes.saturating_mul(100) / counters.body_bytes.get().max(1)
}
