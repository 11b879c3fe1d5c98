//! The current content of shared bodies in a merge, after changes in any segment of the store, its
//! inputs included.
//!
//! A merge applies all of these changes to its output, and records the lsn up to which it did. A
//! change is needed as long as a segment to which it was not applied may hold the body.
//!
//! This file does not know which entries have these bodies.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use crate::error::{Error, Result};
use crate::format::manifest::{ENTRY_WEIGHT, SegmentRecord};
use crate::ids::{BODIES, CommitPlace, Lsn};
use crate::segment::{Segment, data_name};
use crate::state::State;
use crate::state::view::View;

/// The newest change of each body.
pub struct BodyChanges {
    changed: BTreeMap<CommitPlace, BodyChange>,
    /// The lsn up to which all changes are applied.
    applied_to: Lsn,
    /// The part of the log that is merged.
    merged: Range<Lsn>,
    others: Others,
}

struct BodyChange {
    /// The place of its commit.
    at: CommitPlace,
    /// The segment that has the body, and the body's number there.
    segment: Arc<Segment>,
    number: u32,
}

/// The segments that may hold bodies which other segments change: the part of the log in each, and
/// the lsn up to which changes are applied to it.
struct Others(Vec<(Range<Lsn>, Lsn)>);

impl Others {
    fn of(view: &View, inputs: &[Arc<Segment>]) -> Others {
        let is_input = |record: &SegmentRecord| {
            inputs.iter().any(|input| input.record().number == record.number)
        };
        let records =
            view.segments.of(inputs[0].record().store).iter().map(|segment| segment.record());
        let others = records.filter(|record| record.has_data() && !is_input(record));
        Others(others.map(|record| (record.from..record.to, record.changed_to)).collect())
    }

    fn need(&self, place: CommitPlace, at: CommitPlace) -> bool {
        self.0
            .iter()
            .any(|(held, changed_to)| held.contains(&Lsn(place.0)) && Lsn(at.0) >= *changed_to)
    }
}

impl BodyChanges {
    /// Finds no changes, for a merge that uses nothing but its inputs.
    pub fn unknown(view: &View, inputs: &[Arc<Segment>]) -> BodyChanges {
        let applied_to =
            inputs.iter().map(|input| input.record().changed_to).min().unwrap_or(Lsn(0));
        BodyChanges {
            changed: BTreeMap::new(),
            applied_to,
            merged: span(inputs),
            others: Others::of(view, inputs),
        }
    }

    /// Finds the changes for a merge of these inputs. Changes in a damaged segment are left to
    /// readers.
    pub fn find(state: &State, view: &View, inputs: &[Arc<Segment>]) -> Result<BodyChanges> {
        let mut changed: BTreeMap<CommitPlace, BodyChange> = BTreeMap::new();
        let segments = view.segments.of(inputs[0].record().store);
        let mut damage = None;
        let applied = inputs.iter().map(|input| input.record().changed_to).max().unwrap_or(Lsn(0));
        // A segment that is gone had no change that another one needed.
        let mut applied_to =
            segments.iter().map(|segment| segment.record().to).max().unwrap_or(Lsn(0)).max(applied);
        for segment in segments.iter().filter(|segment| segment.record().has_data()) {
            let is_whole = segment.damage().is_none()
                && !state.merging.unmergeable.lock().contains(&segment.record().number);
            let entry = match segment.find_once(BODIES) {
                Ok(entry) if is_whole => entry,
                Err(error) if !error.is_damage() => return Err(error),
                found => {
                    // Its changes were committed after its start.
                    applied_to = applied_to.min(segment.record().from);
                    damage = found.err().or(segment.damage().cloned()).or(damage);
                    continue;
                }
            };
            let Some(entry) = entry else { continue };
            for edited in segment.edited(&entry) {
                let (place, at) = (CommitPlace(edited.sequence), edited.at);
                if changed.get(&place).is_none_or(|known| known.at < at) {
                    changed.insert(
                        place,
                        BodyChange { at, segment: segment.clone(), number: edited.body },
                    );
                }
            }
        }
        // Changes that an input has applied stay applied. If several inputs applied changes which
        // are hidden now, the output would need several different values of `applied_to`.
        if applied_to < applied && inputs.len() > 1 {
            let what = "damage hides changes of bodies: the segments beside it are merged once it \
                        is repaired";
            let path = state.dir.path_of(&data_name(inputs[0].record().number));
            return Err(damage.unwrap_or_else(|| Error::corrupt(path, 0, what)));
        }
        let applied_to = applied_to.max(applied);
        changed.retain(|_, change| Lsn(change.at.0) < applied_to);
        Ok(BodyChanges {
            changed,
            applied_to,
            merged: span(inputs),
            others: Others::of(view, inputs),
        })
    }

    /// The lsn up to which all changes are applied to the output.
    pub fn applied_to(&self) -> Lsn {
        self.applied_to
    }

    /// The place of a body's last change, if that is not applied to a segment with this
    /// `applied_to`.
    pub fn later(&self, place: CommitPlace, applied_to: Lsn) -> Option<CommitPlace> {
        self.changed.get(&place).map(|change| change.at).filter(|at| Lsn(at.0) >= applied_to)
    }

    /// The current bytes of a changed body.
    pub fn body(&self, place: CommitPlace) -> Result<Bytes> {
        let BodyChange { segment, number, .. } = &self.changed[&place];
        segment.shared_body(*number)
    }

    /// Whether a segment, the output or another one, may hold a body to which a change is not
    /// applied.
    pub fn is_needed(&self, place: CommitPlace, at: CommitPlace) -> bool {
        let is_open = self.merged.contains(&Lsn(place.0)) && Lsn(at.0) >= self.applied_to;
        is_open || self.others.need(place, at)
    }
}

/// The part of the log in neighbours, which are given newest first.
fn span(inputs: &[Arc<Segment>]) -> Range<Lsn> {
    inputs[inputs.len() - 1].record().from..inputs[0].record().to
}

/// The weight of a segment's changes of shared bodies that no other segment needs.
pub fn needless_weight(view: &View, segment: &Arc<Segment>) -> u64 {
    // A segment that cannot be read is not rewritten either.
    let changes = segment.changes_bodies().then(|| segment.find_once(BODIES).ok().flatten());
    let Some(entry) = changes.flatten() else { return 0 };
    let others = Others::of(view, std::slice::from_ref(segment));
    let edited = segment.edited(&entry).iter();
    let needless = edited.filter(|edited| !others.need(CommitPlace(edited.sequence), edited.at));
    needless.map(|edited| u64::from(edited.body_bytes.unwrap_or(0)) + ENTRY_WEIGHT).sum()
}
