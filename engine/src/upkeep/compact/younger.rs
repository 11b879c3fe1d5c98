//! The places that are younger than the inputs of a merge: what they remove is left out of its
//! output.

use std::sync::Arc;

use crate::ids::Lsn;
use crate::memtable::Memtable;
use crate::segment::Segment;
use crate::state::State;
use crate::state::view::View;

/// The places whose changes remove entries from the inputs. Empty if there are none.
#[derive(Default)]
pub struct Younger {
    pub memtables: Vec<Arc<Memtable>>,
    /// Newest first.
    pub segments: Vec<Arc<Segment>>,
}

impl Younger {
    /// The lsn up to which the log is needed for entries that were left out because of changes that
    /// are in memory only.
    pub fn changes_to(&self) -> Lsn {
        let at = self.memtables.iter().filter_map(|memtable| memtable.freed_at()).max();
        at.map_or(Lsn(0), |at| at.plus(1))
    }
}

/// The readable places that are younger than the newest input, newest first.
pub fn younger(state: &State, view: &View, input: &Arc<Segment>) -> Younger {
    let unmergeable = state.merging.unmergeable.lock();
    let whole = |segment: &&Arc<Segment>| {
        segment.damage().is_none() && !unmergeable.contains(&segment.record().number)
    };
    let newest_first = view.segments.of(input.record().store).iter();
    let segments = newest_first.take_while(|segment| !Arc::ptr_eq(segment, input)).filter(whole);
    Younger {
        memtables: view.memtables().cloned().collect(),
        segments: segments.cloned().collect(),
    }
}
