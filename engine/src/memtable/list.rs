//! The lists of targets that a memtable knows, resolved to its slots.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use bytes::Bytes;

use super::SlotId;
use crate::ids::{Lsn, Sequence};

/// A list that a record of the memtable's part of the log has in full.
#[derive(Debug)]
pub struct KnownList {
    /// The lsn of the group with that record.
    pub at: Lsn,
    /// The hash by which records refer to it.
    pub hash: u64,
    /// The bytes of the list: another list may have the same hash.
    pub bytes: Bytes,
    /// The slots of its timelines.
    pub slots: Vec<SlotId>,
    /// The sequences that the record gave to them.
    pub sequences: Vec<Sequence>,
}

impl KnownList {
    /// Its memory, with its place in the table.
    fn memory_bytes(&self) -> usize {
        2 * size_of::<KnownList>()
            + self.bytes.len()
            + size_of_val(self.slots.as_slice())
            + size_of_val(self.sequences.as_slice())
    }
}

/// The lists of a memtable, by hash.
#[derive(Debug, Default)]
pub(super) struct Lists(HashMap<u64, Arc<KnownList>>);

impl Lists {
    /// Adds a list. Of several with the same hash in a group, the first counts; one of a later
    /// group replaces it. Returns the memory that it takes.
    pub fn add(&mut self, list: KnownList) -> usize {
        let bytes = list.memory_bytes();
        match self.0.entry(list.hash) {
            Entry::Occupied(known) if known.get().at == list.at => return 0,
            Entry::Occupied(mut known) => drop(known.insert(Arc::new(list))),
            Entry::Vacant(place) => drop(place.insert(Arc::new(list))),
        }
        bytes
    }

    /// Forgets all lists.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// The list with these bytes.
    pub fn find(&self, hash: u64, bytes: &[u8]) -> Option<&Arc<KnownList>> {
        let is_it = |known: &&Arc<KnownList>| {
            std::ptr::eq(known.bytes.as_ptr(), bytes.as_ptr()) || known.bytes == bytes
        };
        self.0.get(&hash).filter(is_it)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(at: u64, bytes: &'static [u8]) -> KnownList {
        let (slots, sequences) = (Vec::new(), Vec::new());
        KnownList { at: Lsn(at), hash: 7, bytes: Bytes::from_static(bytes), slots, sequences }
    }

    #[test]
    fn of_lists_with_one_hash_the_first_of_a_group_and_the_last_group_count() {
        let mut lists = Lists::default();
        assert!(lists.add(list(512, b"one")) > 0);
        assert_eq!(lists.add(list(512, b"two")), 0);
        assert!(lists.find(7, b"one").is_some() && lists.find(7, b"two").is_none());
        lists.add(list(1024, b"two"));
        assert!(lists.find(7, b"two").is_some_and(|known| known.at == Lsn(1024)));
        assert!(lists.find(7, b"one").is_none() && lists.find(8, b"two").is_none());
        lists.clear();
        assert!(lists.find(7, b"two").is_none());
    }
}
