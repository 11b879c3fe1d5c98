//! The edit of one entry that was written before.
//!
//! An edit replaces a body. It is one log record; readers apply it to the entry in older memtables
//! and segments, and merging applies it to the entries that it writes. Whether there is such an
//! entry needs a read. So an edit reads first, then commits, and no other change of the timeline
//! comes in between. Damaged entries can be edited too (P5).

use crate::entry::Receipt;
use crate::error::Result;
use crate::ids::{Sequence, TimelineRef};
use crate::read::reading::Reading;
use crate::state::State;
use crate::write::active::CommitPipeline;
use crate::write::batch::Batch;
use crate::write::queue::prepare_and_look_up;

/// Replaces a body. False if there is no such readable entry.
pub fn edit(
    state: &State,
    pipeline: &CommitPipeline,
    timeline: TimelineRef<'_>,
    sequence: Sequence,
    body: &[u8],
) -> Result<bool> {
    let key = state.key(timeline);
    let _turn = state.turns.change([key]);
    let moment = state.view.moment();
    if !Reading::new(state, &moment, key).around_damage(true).has(sequence)? {
        return Ok(false);
    }
    commit(state, pipeline, Batch::new().edit_in(timeline, sequence, body))?;
    Ok(true)
}

/// Commits a batch and waits for it.
pub fn commit(state: &State, pipeline: &CommitPipeline, batch: Batch) -> Result<Receipt> {
    pipeline.commit(prepare_and_look_up(state, batch)?)
}
