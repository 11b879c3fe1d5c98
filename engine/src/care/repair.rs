//! The repair path (P5, P6): rewrites damaged parts of one copy of a segment's file from the other
//! copy.
//!
//! 1. compare the two copies of each file, piece by piece (`segment/mend.rs`);
//! 2. write the repaired file under a temporary name, sync it, rename it over the damaged one; sync
//!    the directory;
//! 3. close the open descriptors of the file, and forget its known damage: the next read uses the
//!    new file.
//!
//! Segments that have one copy, in a store that requires two, get their second copy in the same
//! way; then the manifest records this. Merges and expiry wait for one segment at a time. After a
//! power cut each file is either unchanged or repaired.
//!
//! This file does not know the cause of the damage, or the content of the log.

use std::sync::Arc;

use crate::care::finding::Finding;
use crate::error::{Error, Failure, Result};
use crate::format::header::FileKind;
use crate::format::manifest::{Copies, SegmentRecord};
use crate::ids::{FileNumber, StoreId};
use crate::segment::{CopyDamage, Segment, Twins};
use crate::state::State;

/// The result of [`Engine::repair`](crate::Engine::repair).
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Repair {
    /// The damage, repaired or not, in files with two copies.
    pub findings: Vec<Finding>,
    /// The number of findings that could not be repaired, because both copies are damaged.
    pub left: u64,
    /// The names of the files that were rewritten, missing ones included.
    pub mended: Vec<String>,
}

/// Repairs all segments that have two copies or should have them; of one store, or of all.
pub fn repair(state: &State, store: Option<StoreId>) -> Result<Repair> {
    let mut out = Repair::default();
    let view = state.view.load();
    let wanted =
        |segment: &&Arc<Segment>| store.is_none_or(|store| segment.record().store == store);
    let numbers: Vec<(StoreId, FileNumber)> = view
        .segments
        .all()
        .filter(wanted)
        .map(|segment| (segment.record().store, segment.record().number))
        .collect();
    drop(view);
    for (store, number) in numbers {
        repair_segment(state, store, number, &mut out)?;
    }
    Ok(out)
}

/// Repairs a segment, if it still exists.
pub fn repair_segment(
    state: &State,
    store: StoreId,
    number: FileNumber,
    out: &mut Repair,
) -> Result<()> {
    let _no_merge = state.merging.turn.lock();
    let _no_expiry = state.turns.expiring.lock();
    if state.is_closing() {
        return Err(Error::Closed { what: "the engine is closing: nothing is repaired" });
    }
    let view = state.view.load();
    let Some(segment) =
        view.segments.of(store).iter().find(|segment| segment.record().number == number)
    else {
        return Ok(());
    };
    let copies = segment.record().copies.max(state.copies(store));
    if copies == Copies::Once {
        return Ok(());
    }
    let record = SegmentRecord { copies, ..segment.record().clone() };
    let before = segment.record().copies;
    let (mended, damages) = (out.mended.len(), state.cache.damages());
    let mut left = Vec::new();
    for kind in kinds(&record).iter().filter(|kind| copies.of(**kind) > 1) {
        let is_new = before.of(*kind) < 2;
        let twins = Twins::new(&state.dir, state.engine_id, &record, *kind);
        let compared = twins.compare();
        // A second copy that never existed is no damage.
        for damage in compared.damage().into_iter().filter(|damage| !is_new || damage.copy == 0) {
            damages.report(number, *kind == FileKind::Index, damage.copy, &damage.error);
            out.findings.push(finding(&damage));
            if !damage.is_mendable {
                left.push((*kind == FileKind::Index, damage.copy, damage.error));
            }
        }
        out.mended.extend(twins.mend(&compared)?);
    }
    out.left += left.len() as u64;
    if out.mended.len() > mended {
        state.dir.sync().map_err(|error| state.failed(Failure::Poisoned(error)))?;
    }
    if copies != before {
        make_known(state, segment, copies)?;
    }
    [false, true].into_iter().for_each(|is_index| state.cache.close(number, is_index));
    damages.forget(number);
    for (is_index, copy, error) in &left {
        damages.keep(number, *is_index, *copy, error);
    }
    if left.is_empty() {
        state.merging.unmergeable.lock().remove(&number);
    }
    Ok(())
}

/// The files that a segment has.
pub fn kinds(record: &SegmentRecord) -> &'static [FileKind] {
    if record.has_data() { &[FileKind::Index, FileKind::Data] } else { &[FileKind::Index] }
}

/// Damage of a copy, as a finding.
pub fn finding(damage: &CopyDamage) -> Finding {
    let mut finding = Finding { is_mendable: damage.is_mendable, ..Finding::new(&damage.error) };
    finding.what.push_str(if damage.is_mendable {
        "; its other copy is good"
    } else {
        "; its other copy is damaged there, too"
    });
    finding
}

/// The second copies are durable: records this in the manifest, then in the view.
fn make_known(state: &State, segment: &Segment, copies: Copies) -> Result<()> {
    let number = segment.record().number;
    let changed = state.change_live(|live| {
        live.segments
            .iter_mut()
            .filter(|record| record.number == number)
            .for_each(|record| record.copies = copies);
    });
    changed.map_err(|failure| state.failed(failure))?;
    let known = segment.with_copies(&state.dir, state.engine_id, copies);
    state.view.change(|view| view.segments.replace(Arc::new(known)));
    Ok(())
}
