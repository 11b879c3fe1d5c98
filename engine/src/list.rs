//! Listing: which timelines of a store have something to read, in the order of their names.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::error::Result;
use crate::ids::{StoreId, TimelineRef};
use crate::read::Reading;
use crate::segment::SegmentScan;
use crate::state::State;
use crate::view::View;

/// The names of a store's timelines that start with `prefix`, are above `after` and have a readable entry: the first `count`.
///
/// Costs a pass over the memtables' names and, of each segment, the index pages that the answer spans.
pub fn list(
    state: &State,
    view: &View,
    store: StoreId,
    prefix: &[u8],
    after: Option<&[u8]>,
    count: usize,
) -> Result<Vec<Vec<u8>>> {
    let mut listed = Vec::new();
    let mut after = after.map(<[u8]>::to_vec);
    while listed.len() < count {
        let names = names_above(view, store, prefix, after.as_deref(), count - listed.len())?;
        let Some(last) = names.last() else { break };
        after = Some(last.clone());
        for name in names {
            let timeline = TimelineRef { store, name: &name };
            let readable = Reading::new(state, view, timeline, state.hash(timeline)).has_readable()?;
            if readable {
                listed.push(name);
            }
        }
    }
    Ok(listed)
}

/// The first `count` known names, readable or not.
fn names_above(
    view: &View,
    store: StoreId,
    prefix: &[u8],
    after: Option<&[u8]>,
    count: usize,
) -> Result<BTreeSet<Vec<u8>>> {
    let mut names: BTreeSet<Vec<u8>> = BTreeSet::new();
    let wanted = |name: &[u8]| name.starts_with(prefix) && after.is_none_or(|after| name > after);
    for memtable in view.memtables() {
        memtable.for_each(|slot| {
            if slot.store == store && wanted(&slot.name) {
                keep_lowest(&mut names, &slot.name, count);
            }
        });
    }
    let start = after.map_or(prefix, |after| after.max(prefix));
    for segment in view.segments.of(store) {
        let mut scan = SegmentScan::from(Arc::clone(segment), start)?;
        let mut found = 0;
        while found < count
            && let Some((name, _)) = scan.next()?
        {
            if wanted(&name) {
                keep_lowest(&mut names, &name, count);
                found += 1;
            } else if !name.starts_with(prefix) && name.as_slice() > prefix {
                break;
            }
        }
    }
    Ok(names)
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
