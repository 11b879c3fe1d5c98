//! Expiry (P2, P6, P8): removes data that is past its store's TTL from the disk by an unlink,
//! without reading or rewriting it. This file also contains the thread for all work that depends on
//! time.
//!
//! ```text
//!  partition  1 │ 2 │ 3 │ 4 …   each segment of a store with TTL is in one time partition
//!             ▼
//!  data file unlinked, index kept: every timeline's last sequence is still known
//!  eight neighbours without data ──merge──> one, with the end of each timeline
//! ```
//!
//! 1. a segment whose newest entry is past its TTL, by sure time (`clock::SureTime`), is dropped;
//! 2. the manifest records this durably;
//! 3. the view has the segment without its data; the data file is removed when the last reader has
//!    released it.
//!
//! Readers never see an expired entry, whatever is on the disk: this file only frees space. Entries
//! in memory are sealed early enough (`seal_due`), and log files are left early enough
//! (`State::is_log_due`), so that idle timelines are removed too. The thread also recreates the
//! reserve, and vouches for the last group of an idle log.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tracing::Span;
use tracing::field::Empty;

use crate::error::Failure;
use crate::format::manifest::Live;
use crate::ids::FileNumber;
use crate::metrics::EXPIRE;
use crate::segment::Segment;
use crate::state::State;
use crate::write::active::CommitPipeline;
use crate::write::queue::Seal;
use crate::write::ticket::Ticket;

/// The interval between checks of the time.
const TICK: Duration = Duration::from_secs(1);

/// The time that trims wait in memory until they are flushed, so that the segments that they
/// emptied are rewritten.
const TRIM_WAIT_MS: u64 = 60_000;

/// The thread for work that depends on time, until the engine closes. Merging, which may take long,
/// has another thread.
pub fn run(state: &State, pipeline: &CommitPipeline) {
    let mut unvouched_before = 0;
    while !state.is_closing() {
        match expire(state) {
            Ok(()) => {}
            Err(Failure::Refused(error)) => {
                tracing::warn!(%error, "expired segments could not be dropped");
            }
            Err(failure) => {
                state.failed(failure);
                return;
            }
        }
        let is_log_due = state.is_log_due();
        if is_log_due {
            state.doom_log();
        }
        if let Some(seal) = seal_due(state, is_log_due) {
            // The flush thread does the rest; a queue that is closed has nothing left to seal.
            let _sealed = pipeline.seal(seal).and_then(Ticket::wait);
        }
        // The reserve at least doubles each time, so that a growing directory does not rewrite it
        // again and again.
        let wanted = state.options.reserve_target_bytes(state.segment_bytes());
        if state.reserve.is_out() || wanted >= (2 * state.reserve.bytes()).max(1) {
            state.reserve.make(wanted, state.merging.lag.reserved_bytes());
        }
        // The unvouched end of the log has been the same for a tick: no group will vouch for it
        // soon.
        let unvouched = state.unvouched.load(Ordering::Relaxed);
        if unvouched != 0 && unvouched == unvouched_before {
            pipeline.vouch();
        }
        unvouched_before = unvouched;
        state.progress.rest(TICK);
    }
}

/// Drops all expired segments.
pub fn expire(state: &State) -> Result<(), Failure> {
    let _one_at_a_time = state.turns.expiring.lock();
    let now_ms = state.sure_now_ms();
    let view = state.view.load();
    let is_over = |segment: &&Arc<Segment>| {
        let record = segment.record();
        let ttl_ms = state.ttl_ms(record.store);
        !record.dropped && ttl_ms != 0 && record.last_start_ms.saturating_add(ttl_ms) <= now_ms
    };
    let expired: Vec<Arc<Segment>> = view.segments.all().filter(is_over).cloned().collect();
    if expired.is_empty() {
        return Ok(());
    }
    let segments = expired.len();
    let span = tracing::info_span!(EXPIRE, segments, entries = Empty, bytes = Empty);
    let _entered = span.enter();
    let numbers: Vec<FileNumber> = expired.iter().map(|segment| segment.record().number).collect();
    state.free_space(|live: &mut Live| {
        for record in live.segments.iter_mut().filter(|record| numbers.contains(&record.number)) {
            record.dropped = true;
            // A clock that is set back must not make dropped entries appear to exist.
            if let Some(store) = live.stores.iter_mut().find(|store| store.id == record.store) {
                store.gone_before_ms =
                    store.gone_before_ms.max(record.last_start_ms.saturating_add(1));
            }
        }
        live.seen_ms = live.seen_ms.max(now_ms);
    })?;
    state.view.change(|view| {
        // A merge may have replaced some of them meanwhile: its output is dropped next time.
        expired.iter().for_each(|segment| view.segments.replace(Arc::new(segment.expired())));
    });
    count(state, &expired, &span);
    expired.iter().for_each(|segment| segment.make_data_obsolete());
    state.progress.announce();
    Ok(())
}

fn count(state: &State, expired: &[Arc<Segment>], span: &Span) {
    let records = || expired.iter().map(|segment| segment.record());
    let with_data = || records().filter(|record| record.has_data());
    let entries = with_data().map(|record| record.entries).sum();
    let bytes = with_data().map(|record| record.data_bytes).sum();
    state.counters.expired_segments.add(expired.len() as u64);
    state.counters.expired_entries.add(entries);
    state.counters.expired_bytes.add(bytes);
    span.record("entries", entries);
    span.record("bytes", bytes);
}

/// The time that trims wait if space is short.
const SHORT_TRIM_WAIT_MS: u64 = 5_000;

/// What must be sealed now: the memtable if it is so old that its entries could expire before they
/// are flushed; the log too if what it holds must leave the disk, because entries in it expire soon
/// (`is_log_due`) or trims have waited long enough. On a full disk trims do not wait.
fn seal_due(state: &State, is_log_due: bool) -> Option<Seal> {
    let active = state.view.load().active.clone();
    let age_ms = active.first_start_ms().map(|first_ms| state.now_ms().saturating_sub(first_ms));
    let is_short = state.is_short_of_space();
    let trim_wait_ms = if is_short { SHORT_TRIM_WAIT_MS } else { TRIM_WAIT_MS };
    let have_trims_waited =
        state.reserve.is_out() || age_ms.is_some_and(|age_ms| age_ms >= trim_wait_ms);
    if is_log_due || (active.frees() && have_trims_waited) {
        return Some(Seal::Log);
    }
    let ages = state.shortest_ttl_ms().zip(age_ms);
    let is_old = ages.is_some_and(|(ttl_ms, age_ms)| age_ms >= (ttl_ms / 8).max(1000));
    is_old.then_some(if is_short { Seal::Log } else { Seal::Memtable })
}
