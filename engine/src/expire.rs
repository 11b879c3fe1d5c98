//! Expiry (P2, P6, P8): what a store's TTL has passed leaves the disk by an unlink, without being read or rewritten.
//!
//! ```text
//!  partition  1 │ 2 │ 3 │ 4 …      each segment of a store with TTL lies in one partition of time
//!             ▼
//!  data file unlinked, index kept: every timeline's last sequence is still known
//!  eight neighbours without data ──merge──> one, with the end of each timeline
//! ```
//!
//! 1. a segment whose newest entry is past its TTL, by a time that is sure (`clock::SureTime`), is dropped;
//! 2. the manifest says so, durably;
//! 3. the view has it without its data; the data file goes when the last reader lets go.
//!
//! Readers never see an expired entry, whatever the disk holds: this room only gives the space back. What is in memory and in the
//! log is sealed early enough (`is_seal_due`), so that idle timelines leave too.

use std::sync::Arc;

use crate::error::Failure;
use crate::ids::FileNumber;
use crate::segment::Segment;
use crate::state::State;

/// Drops what has expired. True when there was something.
pub fn expire(state: &State) -> Result<bool, Failure> {
    let _no_merge = state.merging.lock();
    let now_ms = state.sure_now_ms();
    let view = state.view.load();
    let is_over = |segment: &&Arc<Segment>| {
        let record = segment.record();
        let ttl_ms = state.ttl_ms(record.store);
        !record.dropped && ttl_ms != 0 && record.last_time_ms.saturating_add(ttl_ms) <= now_ms
    };
    let expired: Vec<Arc<Segment>> = view.segments.all().filter(is_over).cloned().collect();
    if expired.is_empty() {
        return Ok(false);
    }
    let numbers: Vec<FileNumber> = expired.iter().map(|segment| segment.record().number).collect();
    let mut manifest = state.manifest.lock();
    manifest.commit(|live| {
        live.segments
            .iter_mut()
            .filter(|record| numbers.contains(&record.number))
            .for_each(|record| record.dropped = true);
        live.seen_ms = live.seen_ms.max(now_ms);
    })?;
    drop(manifest);
    let without_data = expired.iter().map(|segment| Arc::new(segment.without_data())).collect::<Vec<_>>();
    state.view.change(|view| {
        view.segments.remove(&expired);
        view.segments.add(without_data);
    });
    for segment in &expired {
        state.counters.expired_segments.add(1);
        state.counters.expired_bytes.add(segment.record().data_bytes);
        segment.make_data_obsolete();
    }
    Ok(true)
}

/// Whether the active memtable is so old that its entries could expire before they are flushed.
pub fn is_seal_due(state: &State) -> bool {
    let shortest = state.stores.read().iter().map(|store| store.ttl_ms).filter(|ttl_ms| *ttl_ms != 0).min();
    let (Some(ttl_ms), Some(first_ms)) = (shortest, state.view.load().active.first_time_ms()) else {
        return false;
    };
    state.now_ms().saturating_sub(first_ms) >= (ttl_ms / 8).max(1000)
}
