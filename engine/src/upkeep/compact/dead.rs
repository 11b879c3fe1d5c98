//! Removes the data of segments without visible entries (P2, P6, P8): by the manifest alone, so
//! that a disk without space for a rewrite gets its space back.
//!
//! The index stays, as that of an expired segment: it still has the ends of the timelines, the used
//! ids and the removals in older segments. A later rewrite or merge treats it as any other index,
//! and leaves out what younger segments know.
//!
//! Whether no entry is visible is determined exactly, by computing what a merge would keep. The
//! estimate of garbage only selects the segments to examine.

use std::collections::HashMap;
use std::sync::Arc;

use super::changed::BodyChanges;
use super::merge::Merge;
use super::pace::Pace;
use super::younger::younger;
use super::{is_garbage, records, set_aside, worth_it};
use crate::error::{Error, Failure, Result};
use crate::format::manifest::{Live, SegmentRecord};
use crate::ids::{FileNumber, Lsn, TimeMs};
use crate::segment::Segment;
use crate::state::State;
use crate::state::view::View;

/// The state on which it depends whether a segment is dead: a segment is examined once as long as
/// this does not change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExaminedState {
    dead_weight: u64,
    /// Flushes so far: they may have brought changes whose weight is underestimated.
    flushes: u64,
    /// The minute, if entries have lifetimes of their own.
    minute: TimeMs,
}

/// The state at the last examination of each segment that is mostly dead.
pub type Examined = HashMap<FileNumber, ExaminedState>;

/// Removes the data of all segments without visible entries.
pub fn remove_dead(state: &State, examined: &mut Examined) -> Result<(), Failure> {
    let _one_at_a_time = state.merging.turn.lock();
    if state.is_closing() {
        return Ok(());
    }
    let view = state.view.load();
    let found = find_dead(state, &view, examined)?;
    if found.is_empty() {
        return Ok(());
    }
    // No expiry meanwhile: it would remove the same data.
    let _no_expiry = state.turns.expiring.lock();
    let numbers: Vec<FileNumber> = found.iter().map(|dead| dead.segment.record().number).collect();
    let changes_to = found.iter().map(|dead| dead.changes_to).max().unwrap_or(Lsn(0));
    let committed = state.free_space(|live: &mut Live| {
        live.changes_to = live.changes_to.max(changes_to);
        for record in live.segments.iter_mut().filter(|record| numbers.contains(&record.number)) {
            record.dead = true;
        }
    });
    // A refused removal is attempted again.
    committed.inspect_err(|_| examined.clear())?;
    state.view.change(|view| {
        let now: Vec<Arc<Segment>> = view.segments.all().cloned().collect();
        let dead = now.into_iter().filter(|segment| numbers.contains(&segment.record().number));
        dead.for_each(|segment| view.segments.replace(Arc::new(segment.dead())));
    });
    for DeadSegment { segment, expired, .. } in found {
        state.counters.rewrite_reclaimed_bytes.add(segment.record().data_bytes);
        state.counters.expired_entries.add(expired);
        segment.make_data_obsolete();
    }
    state.progress.announce();
    Ok(())
}

/// A segment without visible entries.
struct DeadSegment {
    segment: Arc<Segment>,
    /// The number of its entries whose own lifetime had ended.
    expired: u64,
    /// The lsn up to which the log is needed with it, for changes that are in memory only.
    changes_to: Lsn,
}

fn find_dead(
    state: &State,
    view: &View,
    examined: &mut Examined,
) -> Result<Vec<DeadSegment>, Failure> {
    let (records, now_ms) = (records(state, view), state.sure_now_ms());
    examined.retain(|number, _| records.contains_key(number));
    let mut found = Vec::new();
    for segment in view.segments.all().filter(|segment| segment.record().has_data()) {
        let Some(known) = records.get(&segment.record().number) else { continue };
        if !is_garbage(known, now_ms, worth_it(state)) || !is_readable(state, segment) {
            continue;
        }
        let now = examined_state(state, known, now_ms);
        if examined.insert(known.number, now) == Some(now) {
            continue;
        }
        let younger = younger(state, view, segment);
        let pace = Pace::start(state, true);
        let inputs = [segment.clone()];
        let dead = BodyChanges::find(state, view, &inputs).and_then(|changed| {
            Merge::new(state, &inputs, &younger, &changed)?.leaves_nothing(&pace)
        });
        match dead {
            Ok(Some(expired)) => {
                found.push(DeadSegment {
                    segment: segment.clone(),
                    expired,
                    changes_to: younger.changes_to(),
                });
            }
            Ok(None) => {}
            Err(Error::Closed { .. }) => return Ok(Vec::new()),
            Err(error) => return Err(set_aside(state, &inputs, error)),
        }
    }
    Ok(found)
}

fn is_readable(state: &State, segment: &Segment) -> bool {
    segment.damage().is_none()
        && !state.merging.unmergeable.lock().contains(&segment.record().number)
}

fn examined_state(state: &State, known: &SegmentRecord, now_ms: TimeMs) -> ExaminedState {
    ExaminedState {
        dead_weight: known.dead_weight,
        flushes: state.counters.flushes.get(),
        minute: if known.half_expired_ms == 0 { 0 } else { now_ms / 60_000 },
    }
}
