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
    fn memory_bytes(&self) -> usize {
        size_of::<KnownList>()
            + self.bytes.len()
            + size_of_val(self.slots.as_slice())
            + size_of_val(self.sequences.as_slice())
    }
}

/// The lists of a memtable, by hash.
#[derive(Debug, Default)]
pub(super) struct Lists(HashMap<u64, Arc<KnownList>>);

impl Lists {
    /// Adds a list, unless one with its hash is known: of several in a group, the first counts.
    /// Returns the memory that it takes.
    pub fn add(&mut self, list: KnownList) -> usize {
        match self.0.entry(list.hash) {
            Entry::Occupied(_) => 0,
            Entry::Vacant(place) => {
                let bytes = list.memory_bytes();
                place.insert(Arc::new(list));
                bytes
            }
        }
    }

    /// The list with these bytes.
    pub fn find(&self, hash: u64, bytes: &[u8]) -> Option<&Arc<KnownList>> {
        let is_it = |known: &&Arc<KnownList>| {
            std::ptr::eq(known.bytes.as_ptr(), bytes.as_ptr()) || known.bytes == bytes
        };
        self.0.get(&hash).filter(is_it)
    }
}
