//! The steps that a flush and a merge share: make new segments live, or remove their files.

use std::sync::Arc;

use crate::error::{Failure, Result};
use crate::format::manifest::{Live, SegmentRecord};
use crate::ids::FileNumber;
use crate::segment::{Segment, all_names};
use crate::state::State;

/// Makes the names of written segments durable, opens the segments, and commits the manifest
/// without those whose store was dropped meanwhile. If the commit is refused, their files are
/// removed; if it is poisoned, they stay, since the manifest that names them may be durable.
pub fn make_live(
    state: &State,
    records: &[SegmentRecord],
    edit: impl FnOnce(&[SegmentRecord], &mut Live),
) -> Result<Vec<Arc<Segment>>, Failure> {
    let numbers: Vec<FileNumber> = records.iter().map(|record| record.number).collect();
    let committed = state.dir.sync().map_err(Failure::Poisoned).and_then(|()| {
        let open = |record: &SegmentRecord| {
            let segment = Segment::open(&state.dir, state.engine_id, record.clone(), &state.cache);
            segment.check().map_err(Failure::before)?;
            Ok(Arc::new(segment))
        };
        let segments = records.iter().map(open).collect::<Result<Vec<_>, Failure>>()?;
        state.manifest.lock().commit(|live| {
            let is_known =
                |record: &&SegmentRecord| live.stores.iter().any(|store| store.id == record.store);
            let known: Vec<SegmentRecord> = records.iter().filter(is_known).cloned().collect();
            edit(&known, live);
        })?;
        Ok(segments)
    });
    if let Err(Failure::Refused(_)) = &committed {
        remove_unfinished(state, numbers.into_iter());
    }
    committed
}

/// Removes the files of segments that will not become live.
pub fn remove_unfinished(state: &State, numbers: impl Iterator<Item = u64>) {
    for number in numbers {
        [false, true].into_iter().for_each(|is_index| state.cache.close(number, is_index));
        for name in all_names(number) {
            let _ = state.dir.remove(&name);
        }
    }
}
