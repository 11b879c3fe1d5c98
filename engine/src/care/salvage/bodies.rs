//! Changes of shared bodies in a salvage (P5): each body is written in its current form. A body
//! whose change cannot be read is lost, since its old bytes must not come back.
//!
//! The salvaged directory starts a log of its own, so no body keeps the place of its commit: it can
//! no longer be changed for all its entries at once.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::ids::{BODIES, CommitPlace, Lsn};
use crate::segment::Remains;

/// The current bytes of the changed shared bodies of a store; `None` if they cannot be read.
#[derive(Default)]
pub struct ChangedBodies(BTreeMap<CommitPlace, (CommitPlace, Option<Bytes>)>);

impl ChangedBodies {
    /// Adds the changes in a segment, before any timeline is taken from it. If its data is gone
    /// because it expired or was dead, no entry needs them.
    pub fn take(&mut self, remains: &mut Remains, has_data: bool) {
        let Some(entry) = remains.take(BODIES).and_then(|part| part.entry).filter(|_| has_data)
        else {
            return;
        };
        for edited in entry.edited.iter() {
            let body = remains.shared(edited.body).map(|left| left.body);
            self.add(CommitPlace(edited.sequence), edited.at, body);
        }
    }

    /// Adds a change of a body; `None` if the new body cannot be read.
    pub fn add(&mut self, place: CommitPlace, at: CommitPlace, body: Option<Bytes>) {
        let known = self.0.entry(place).or_insert((at, body.clone()));
        if known.0 <= at {
            *known = (at, body);
        }
    }

    /// The current bytes of a body; `None` if they are lost. Changes below `applied_to` are applied
    /// to `own` already.
    pub fn now<'b>(
        &'b self,
        place: Option<CommitPlace>,
        applied_to: Lsn,
        own: &'b Bytes,
    ) -> Option<&'b Bytes> {
        match self.change(place, applied_to) {
            Some((_, body)) => body.as_ref(),
            None => Some(own),
        }
    }

    /// The place of a body's last change, if that is not below `applied_to`.
    pub fn changed_at(&self, place: Option<CommitPlace>, applied_to: Lsn) -> Option<CommitPlace> {
        self.change(place, applied_to).map(|(at, _)| *at)
    }

    fn change(
        &self,
        place: Option<CommitPlace>,
        applied_to: Lsn,
    ) -> Option<&(CommitPlace, Option<Bytes>)> {
        place.and_then(|place| self.0.get(&place)).filter(|(at, _)| Lsn(at.0) >= applied_to)
    }
}
