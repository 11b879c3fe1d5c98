//! New bodies in a salvage (P5), of entries and of shared bodies: the change with the last commit
//! counts, whichever file it is in. The numbers of files do not give this order: a merge that began
//! before a flush may take its number after it. If the last change cannot be read, what it changed
//! is lost, since older bytes must not come back.
//!
//! The salvaged directory starts a log of its own, so no body keeps the place of its commit: it can
//! no longer be changed for all its entries at once.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use bytes::Bytes;

use crate::ids::{BODIES, CommitPlace, Lsn};
use crate::segment::Remains;

/// The last change of each entry of a timeline, or of each shared body of a store.
#[derive(Default)]
pub struct LastChanges<K>(BTreeMap<K, LastChange>);

/// A new body.
pub struct LastChange {
    /// The place of its commit; 0 in a segment of an earlier format version.
    pub at: CommitPlace,
    /// Its bytes; `None` if they cannot be read.
    pub body: Option<Bytes>,
}

impl<K: Ord> LastChanges<K> {
    /// Adds a change. Files are added in the order of their numbers: of changes without a place,
    /// the one added last counts.
    pub fn add(&mut self, changed: K, at: CommitPlace, body: Option<Bytes>) {
        let counts = self.0.get(&changed).is_none_or(|known| match known.at.cmp(&at) {
            Ordering::Less => true,
            // The same change in two files: one that can be read is enough.
            Ordering::Equal => at == CommitPlace(0) || known.body.is_none(),
            Ordering::Greater => false,
        });
        if counts {
            self.0.insert(changed, LastChange { at, body });
        }
    }

    pub fn get(&self, changed: &K) -> Option<&LastChange> {
        self.0.get(changed)
    }
}

/// The changes of the shared bodies of a store.
#[derive(Default)]
pub struct ChangedBodies(LastChanges<CommitPlace>);

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
        self.0.add(place, at, body);
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
            Some(change) => change.body.as_ref(),
            None => Some(own),
        }
    }

    /// The place of a body's last change, if that is not below `applied_to`.
    pub fn changed_at(&self, place: Option<CommitPlace>, applied_to: Lsn) -> Option<CommitPlace> {
        self.change(place, applied_to).map(|change| change.at)
    }

    fn change(&self, place: Option<CommitPlace>, applied_to: Lsn) -> Option<&LastChange> {
        place.and_then(|place| self.0.get(&place)).filter(|change| Lsn(change.at.0) >= applied_to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The body of an entry after changes with these places, in this order; an empty one cannot be
    /// read.
    fn last(changes: &[(u64, &'static str)]) -> Option<Bytes> {
        let mut of_entry = LastChanges::default();
        for (at, body) in changes {
            let body = Some(Bytes::from_static(body.as_bytes())).filter(|body| !body.is_empty());
            of_entry.add(7, CommitPlace(*at), body);
        }
        of_entry.get(&7).expect("it was changed").body.clone()
    }

    #[test]
    fn the_last_commit_counts_in_whatever_order_files_are() {
        assert_eq!(last(&[(19, "old"), (70, "new")]), Some("new".into()));
        assert_eq!(last(&[(70, "new"), (19, "old")]), Some("new".into()));
    }

    #[test]
    fn an_older_change_does_not_replace_one_that_cannot_be_read_or_make_another_unreadable() {
        assert_eq!(last(&[(70, ""), (19, "old")]), None);
        assert_eq!(last(&[(19, "old"), (70, "")]), None);
        assert_eq!(last(&[(70, "new"), (19, "")]), Some("new".into()));
    }

    #[test]
    fn a_change_in_two_files_is_read_in_either() {
        assert_eq!(last(&[(70, "new"), (70, "")]), Some("new".into()));
        assert_eq!(last(&[(70, ""), (70, "new")]), Some("new".into()));
    }

    #[test]
    fn changes_without_a_place_count_in_the_order_of_files() {
        assert_eq!(last(&[(0, "old"), (0, "new")]), Some("new".into()));
        assert_eq!(last(&[(0, "old"), (0, "")]), None);
        assert_eq!(last(&[(70, "new"), (0, "old")]), Some("new".into()));
    }
}
