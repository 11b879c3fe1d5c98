//! Lists the timelines of a store that have something to read, in the order of their names (P5).
//!
//! Damage hides only those names that no other place knows. The others are listed, including names
//! whose entries cannot be read because of damage. If damage leaves a page empty, the damage is
//! returned as an error: an empty page would mean that the list is complete.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::ids::{BODIES, StoreId, TimelineRef};
use crate::read::reading::Reading;
use crate::segment::{Segment, SegmentScan};
use crate::state::State;
use crate::state::moment::Moment;
use crate::state::view::View;

/// The least number of names that are checked in one pass.
const LEAST_LOOKED_AT: usize = 1024;

/// The names of a store's timelines that start with `prefix`, are above `after` and have a readable
/// entry: the first `count`.
///
/// The cost is a pass over the memtables' names, and over the index pages of each segment that the
/// answer spans.
pub fn list(
    state: &State,
    moment: &Moment,
    store: StoreId,
    prefix: &[u8],
    after: Option<&[u8]>,
    count: usize,
) -> Result<Vec<Vec<u8>>> {
    let view: &View = &moment.view;
    let mut listed = Vec::new();
    let mut after = after.map(<[u8]>::to_vec);
    while listed.len() < count {
        // Many timelines may have nothing to read, so each pass over the memtables collects more
        // names than are still wanted.
        let looked_at = (count - listed.len()).max(LEAST_LOOKED_AT);
        let names = names_above(view, store, prefix, after.as_deref(), looked_at)?;
        let Some(last) = names.last() else { break };
        after = Some(last.clone());
        for name in names {
            let timeline = TimelineRef { store, name: &name };
            match Reading::new(state, moment, state.key(timeline)).has_readable() {
                Ok(true) | Err(Error::Corrupt { .. }) => listed.push(name),
                Ok(false) => {}
                Err(error) => return Err(error),
            }
            if listed.len() == count {
                break;
            }
        }
    }
    if listed.is_empty() && count > 0 {
        // This includes damage that an earlier page of the same list skipped.
        let hides = |segment: &Arc<Segment>| {
            let record = segment.record();
            let concerns =
                record.last_name.as_slice() >= prefix && !is_above(&record.first_name, prefix);
            segment.hidden_names().filter(|_| concerns).cloned()
        };
        if let Some(damage) = view.segments.of(store).iter().find_map(hides) {
            return Err(damage);
        }
    }
    Ok(listed)
}

/// The first `count` known names, readable or not. A segment whose damage hides names remembers the
/// damage.
fn names_above(
    view: &View,
    store: StoreId,
    prefix: &[u8],
    after: Option<&[u8]>,
    count: usize,
) -> Result<BTreeSet<Vec<u8>>> {
    let mut names: BTreeSet<Vec<u8>> = BTreeSet::new();
    let is_above_after = |name: &[u8]| after.is_none_or(|after| name > after);
    let wanted = |name: &[u8]| name != BODIES && name.starts_with(prefix) && is_above_after(name);
    for memtable in view.memtables() {
        memtable.for_each(|slot| {
            if slot.store == store && wanted(&slot.name) {
                keep_lowest(&mut names, &slot.name, count);
            }
        });
    }
    let start = after.map_or(prefix, |after| after.max(prefix));
    for segment in view.segments.of(store) {
        let record = segment.record();
        if record.last_name.as_slice() < start || is_above(&record.first_name, prefix) {
            continue;
        }
        let Some(mut scan) = scan_from(segment, start)? else { continue };
        let mut found = 0;
        while found < count {
            match scan.next() {
                Ok(Some((name, _))) if wanted(&name) => {
                    keep_lowest(&mut names, &name, count);
                    found += 1;
                }
                Ok(Some((name, _))) if is_above(&name, prefix) => break,
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(error) => {
                    go_around(segment, error)?;
                    if let Err(error) = scan.pass_over() {
                        go_around(segment, error)?;
                    }
                }
            }
        }
    }
    Ok(names)
}

/// A scan of a segment's names from `start` on; `None` if damage hides all of them.
fn scan_from(segment: &Arc<Segment>, start: &[u8]) -> Result<Option<SegmentScan>> {
    match SegmentScan::from(Arc::clone(segment), start) {
        Ok(scan) => return Ok(Some(scan)),
        Err(error) => go_around(segment, error)?,
    }
    // The page with the start is damaged, but later pages may be intact.
    match SegmentScan::all(Arc::clone(segment)) {
        Ok(scan) => Ok(Some(scan)),
        Err(error) => go_around(segment, error).map(|()| None),
    }
}

/// Records in the segment that damage hides names; any other failure ends the list.
fn go_around(segment: &Segment, error: Error) -> Result<()> {
    if !matches!(error, Error::Corrupt { .. }) {
        return Err(error);
    }
    segment.hide_names(error);
    Ok(())
}

/// Whether a name is above all names that start with the prefix.
fn is_above(name: &[u8], prefix: &[u8]) -> bool {
    !name.starts_with(prefix) && name > prefix
}

fn keep_lowest(names: &mut BTreeSet<Vec<u8>>, name: &[u8], count: usize) {
    let full = names.len() >= count;
    let above_all = full && names.last().is_some_and(|last| name > last.as_slice());
    if above_all || names.contains(name) {
        return;
    }
    names.insert(name.to_vec());
    if full {
        names.pop_last();
    }
}
