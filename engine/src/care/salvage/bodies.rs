//! Changes of shared bodies in what is salvaged (P5): each body is written as it became. One whose
//! change cannot be read is lost, since its old bytes must not come back.
//!
//! What is salvaged begins a log of its own, so no body keeps the place where it was committed: it
//! cannot be changed for all its entries at once any more.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::ids::{BODIES, CommitPlace, Lsn};
use crate::segment::Remains;

/// What became of the shared bodies of a store; `None` where that cannot be read.
#[derive(Default)]
pub struct ChangedBodies(BTreeMap<CommitPlace, (CommitPlace, Option<Bytes>)>);

impl ChangedBodies {
    /// Takes those of a segment, before any timeline is taken from it. If its data went with what
    /// had expired, nobody needs them.
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

    /// Takes in what became of a body; `None` if that cannot be read.
    pub fn add(&mut self, place: CommitPlace, at: CommitPlace, body: Option<Bytes>) {
        let known = self.0.entry(place).or_insert((at, body.clone()));
        if known.0 <= at {
            *known = (at, body);
        }
    }

    /// A body as it is now; `None` if that is lost. Changes before `applied_to` are in it already.
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

    /// When a body was changed last, if it was later than that.
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
