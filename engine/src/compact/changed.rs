//! What became of shared bodies that a merge meets: by changes in its inputs and in younger segments.
//!
//! It does not know: which entries have these bodies.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use crate::error::Result;
use crate::ids::{BODIES, CommitPlace, Lsn};
use crate::segment::Segment;
use crate::state::State;

/// The newest change of each body.
pub struct ChangedBodies {
    changed: BTreeMap<CommitPlace, Change>,
    /// What of the log other segments of the store hold.
    beside: Vec<Range<Lsn>>,
}

struct Change {
    /// Where it was committed.
    at: CommitPlace,
    /// Which segment has the body, and its number there.
    segment: Arc<Segment>,
    number: u32,
}

impl ChangedBodies {
    /// Finds them in the inputs of a merge and in what is younger, each newest first.
    pub fn find(state: &State, inputs: &[Arc<Segment>], younger: &[Arc<Segment>]) -> Result<ChangedBodies> {
        let mut changed = BTreeMap::new();
        for segment in younger.iter().chain(inputs).filter(|segment| segment.changes_bodies()) {
            let Some(entry) = segment.find(BODIES)? else { continue };
            for edited in segment.edited(&entry) {
                let change = || Change { at: edited.at, segment: segment.clone(), number: edited.body };
                changed.entry(CommitPlace(edited.sequence)).or_insert_with(change);
            }
        }
        let view = state.view.load();
        let is_input = |number| inputs.iter().any(|input| input.record().number == number);
        let records = view.segments.of(inputs[0].record().store).iter().map(|segment| segment.record());
        let others = records.filter(|record| record.has_data() && !is_input(record.number));
        Ok(ChangedBodies { changed, beside: others.map(|record| record.from..record.to).collect() })
    }

    /// Whether a body was changed.
    pub fn has(&self, place: CommitPlace) -> bool {
        self.changed.contains_key(&place)
    }

    /// Where it was changed last.
    pub fn at(&self, place: CommitPlace) -> Option<CommitPlace> {
        self.changed.get(&place).map(|change| change.at)
    }

    /// What became of a body that was changed.
    pub fn body(&self, place: CommitPlace) -> Result<Bytes> {
        let Change { segment, number, .. } = &self.changed[&place];
        segment.shared_body(*number)
    }

    /// Whether a segment that is no input may hold a body.
    pub fn is_beside(&self, place: CommitPlace) -> bool {
        self.beside.iter().any(|held| held.contains(&Lsn(place.0)))
    }
}
