//! Removing the data of segments of which nothing is shown any more (P2, P6, P8): by the manifest
//! alone, so that a disk without room for a rewrite gets its space back.
//!
//! The index stays, as that of a segment that has expired: it still knows how timelines ended,
//! which ids were used and what is removed in older segments. A later rewrite or merge, which takes
//! it as it takes any other, leaves out what younger segments know.
//!
//! Whether nothing is shown is found exactly, by what a merge would leave behind. The estimate of
//! garbage only says where to look.

use std::collections::HashMap;
use std::sync::Arc;

use super::changed::ChangedBodies;
use super::merge::Merge;
use super::pace::Pace;
use super::{is_garbage, records, set_aside, worth_it, younger};
use crate::error::{Error, Failure, Result};
use crate::format::manifest::{Live, SegmentRecord};
use crate::ids::{FileNumber, Lsn, TimeMs};
use crate::segment::Segment;
use crate::state::State;
use crate::state::view::View;

/// What it depends on whether a segment is dead: a segment is looked into once as long as nothing
/// of this changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    dead_weight: u64,
    /// Flushes so far: they may have brought changes that are counted too low.
    flushes: u64,
    /// The minute, if entries expire by themselves.
    minute: TimeMs,
}

/// The last look into each segment that is mostly dead.
pub type Looked = HashMap<FileNumber, Look>;

/// Removes the data of all segments of which nothing is shown any more.
pub fn remove_dead(state: &State, looked: &mut Looked) -> Result<(), Failure> {
    let _one_at_a_time = state.merging.turn.lock();
    if state.is_closing() {
        return Ok(());
    }
    let view = state.view.load();
    let found = find_dead(state, &view, looked)?;
    if found.is_empty() {
        return Ok(());
    }
    // No expiry meanwhile: it would take the same data.
    let _no_expiry = state.turns.expiring.lock();
    let numbers: Vec<FileNumber> = found.iter().map(|dead| dead.segment.record().number).collect();
    let changes_to = found.iter().map(|dead| dead.changes_to).max().unwrap_or(Lsn(0));
    let committed = state.free_space(|live: &mut Live| {
        live.changes_to = live.changes_to.max(changes_to);
        for record in live.segments.iter_mut().filter(|record| numbers.contains(&record.number)) {
            record.dead = true;
        }
    });
    // What was refused is found again.
    committed.inspect_err(|_| looked.clear())?;
    state.view.change(|view| {
        let now: Vec<Arc<Segment>> = view.segments.all().cloned().collect();
        let dead = now.into_iter().filter(|segment| numbers.contains(&segment.record().number));
        dead.for_each(|segment| view.segments.replace(Arc::new(segment.dead())));
    });
    for Dead { segment, expired, .. } in found {
        state.counters.rewrite_reclaimed_bytes.add(segment.record().data_bytes);
        state.counters.expired_entries.add(expired);
        segment.make_data_obsolete();
    }
    state.progress.announce();
    Ok(())
}

/// A segment of which nothing is shown any more.
struct Dead {
    segment: Arc<Segment>,
    /// How many of its entries had expired by themselves.
    expired: u64,
    /// Up to where the log is needed with it, for changes that are in memory only.
    changes_to: Lsn,
}

fn find_dead(state: &State, view: &View, looked: &mut Looked) -> Result<Vec<Dead>, Failure> {
    let (records, now_ms) = (records(state, view), state.sure_now_ms());
    looked.retain(|number, _| records.contains_key(number));
    let mut found = Vec::new();
    for segment in view.segments.all().filter(|segment| segment.record().has_data()) {
        let Some(known) = records.get(&segment.record().number) else { continue };
        if !is_garbage(known, now_ms, worth_it(state)) || !is_readable(state, segment) {
            continue;
        }
        let look = look(state, known, now_ms);
        if looked.insert(known.number, look) == Some(look) {
            continue;
        }
        let younger = younger(state, view, segment);
        let pace = Pace::start(state, 0);
        let inputs = [segment.clone()];
        let dead = ChangedBodies::find(state, view, &inputs).and_then(|changed| {
            Merge::new(state, &inputs, &younger, &changed)?.leaves_nothing(&pace)
        });
        match dead {
            Ok(Some(expired)) => {
                found.push(Dead {
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

fn look(state: &State, known: &SegmentRecord, now_ms: TimeMs) -> Look {
    Look {
        dead_weight: known.dead_weight,
        flushes: state.counters.flushes.get(),
        minute: if known.half_expired_ms == 0 { 0 } else { now_ms / 60_000 },
    }
}
