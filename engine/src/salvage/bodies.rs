//! Changes of shared bodies in what is salvaged (P5): each body is written as it became. One whose change cannot be read is lost,
//! since its old bytes must not come back.
//!
//! What is salvaged begins a log of its own, so no body keeps the place where it was committed: it cannot be changed for all its
//! entries at once any more.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::log::SalvagedLog;
use super::timeline::Data;
use crate::entry::Edit;
use crate::ids::{BODIES, CommitPlace, StoreId};
use crate::segment::Remains;

/// What became of the shared bodies of a store; `None` where that cannot be read.
#[derive(Default)]
pub struct ChangedBodies(BTreeMap<CommitPlace, (CommitPlace, Option<Bytes>)>);

impl ChangedBodies {
    /// Takes them from the segments, each before any timeline is taken from it, and from the log.
    pub fn take<'r>(
        sources: impl Iterator<Item = (&'r mut Remains, Data)>,
        log: &SalvagedLog,
        store: StoreId,
    ) -> ChangedBodies {
        let mut changed = ChangedBodies::default();
        for (remains, data) in sources {
            let Some(entry) = remains.take(BODIES).and_then(|part| part.entry) else { continue };
            for edited in entry.edited.iter().filter(|_| data == Data::There) {
                let body = remains.shared(edited.body).map(|left| left.body);
                changed.add(CommitPlace(edited.sequence), edited.at, body);
            }
        }
        for (place, Edit { at, body }) in log.changed_bodies(store) {
            changed.add(CommitPlace(*place), *at, Some(body.clone()));
        }
        changed
    }

    fn add(&mut self, place: CommitPlace, at: CommitPlace, body: Option<Bytes>) {
        let known = self.0.entry(place).or_insert((at, body.clone()));
        if known.0 <= at {
            *known = (at, body);
        }
    }

    /// A body as it is now; `None` if that is lost.
    pub fn now<'b>(&'b self, place: Option<CommitPlace>, own: &'b Bytes) -> Option<&'b Bytes> {
        match place.and_then(|place| self.0.get(&place)) {
            Some((_, body)) => body.as_ref(),
            None => Some(own),
        }
    }

    /// When a body was changed last, if it was.
    pub fn changed_at(&self, place: Option<CommitPlace>) -> Option<CommitPlace> {
        place.and_then(|place| self.0.get(&place)).map(|(at, _)| *at)
    }
}
