//! A list of timelines that many fan-outs have as targets: encoded, checksummed and hashed once.
//!
//! The first fan-out to a list after each seal of the memtable writes it to the log in full, and
//! the memtable remembers its slots; the records of later ones refer to it. So a commit neither
//! writes the names nor looks them up again. Only a batch with an id of its own content hashes them
//! (`identity`).
//!
//! This file does not know which memtable remembers a list.

use std::hash::BuildHasher;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use crate::error::{Error, Result};
use crate::format::list::EncodedList;
use crate::ids::{Instance, StoreId, StoreKey, TimelineRef};
use crate::options::{MAX_BATCH_BYTES, MAX_BATCH_OPERATIONS};
use crate::timeline::{Key, check_name};

/// A list of timelines that many fan-outs have as targets, such as the inboxes of a conversation's
/// members; from [`Engine::target_list`](crate::Engine::target_list). It is cheap to clone, and
/// belongs to the engine that made it.
#[derive(Clone, Debug)]
pub struct TargetList {
    content: Arc<ListContent>,
}

#[derive(Debug)]
struct ListContent {
    engine: Instance,
    bytes: Bytes,
    crc: u32,
    hash: u64,
    targets: Vec<ListedTarget>,
    /// The stores, each once as long as the targets of a store are adjacent.
    stores: Vec<StoreId>,
}

#[derive(Debug)]
struct ListedTarget {
    store: StoreId,
    /// The byte range of its name in the list.
    name: Range<u32>,
    /// The memtable's hash of store and name.
    hash: u64,
}

impl TargetList {
    /// The number of targets from which on a list is smaller than the names, if it is used more
    /// than once between two flushes. A reference takes about ten bytes.
    pub const PAYS_FROM: usize = 8;

    pub(crate) fn new<S: Into<StoreKey>, N: AsRef<[u8]>>(
        engine: Instance,
        hasher: &impl BuildHasher,
        targets: impl IntoIterator<Item = (S, N)>,
    ) -> Result<TargetList> {
        let mut named = Vec::new();
        for (store, name) in targets {
            let StoreKey { instance, id: store } = store.into();
            if instance != engine {
                return Err(Error::foreign_store());
            }
            check_name(name.as_ref())?;
            named.push((store, name));
        }
        let mut timelines = Vec::with_capacity(named.len());
        for (store, name) in &named {
            timelines.push(TimelineRef { store: *store, name: name.as_ref() });
        }
        if timelines.len() > MAX_BATCH_OPERATIONS {
            let (actual, limit) = (timelines.len(), MAX_BATCH_OPERATIONS);
            return Err(Error::TooManyOperations { actual, limit });
        }
        let EncodedList { bytes, crc, hash, names } = EncodedList::new(&timelines);
        if bytes.len() > MAX_BATCH_BYTES {
            let (what, actual, limit) = ("a list of targets", bytes.len(), MAX_BATCH_BYTES);
            return Err(Error::TooLarge { what, actual, limit });
        }
        let mut stores: Vec<StoreId> = timelines.iter().map(|timeline| timeline.store).collect();
        stores.dedup();
        let targets = timelines.iter().zip(names).map(|(timeline, name)| ListedTarget {
            store: timeline.store,
            name,
            hash: Key::new(hasher, *timeline).hash,
        });
        let targets = targets.collect();
        let bytes = Bytes::from(bytes);
        Ok(TargetList {
            content: Arc::new(ListContent { engine, bytes, crc, hash, targets, stores }),
        })
    }

    /// The number of its timelines.
    pub fn len(&self) -> usize {
        self.content.targets.len()
    }

    /// Whether it has no timeline.
    pub fn is_empty(&self) -> bool {
        self.content.targets.is_empty()
    }

    /// Its size in memory, in bytes, roughly.
    pub fn memory_bytes(&self) -> usize {
        size_of::<ListContent>()
            + self.content.bytes.len()
            + size_of_val(self.content.targets.as_slice())
    }

    /// The engine that it belongs to.
    pub(crate) fn engine(&self) -> Instance {
        self.content.engine
    }

    /// Its bytes in a record.
    pub(crate) fn bytes(&self) -> &Bytes {
        &self.content.bytes
    }

    /// The checksum of its bytes.
    pub(crate) fn crc(&self) -> u32 {
        self.content.crc
    }

    /// The hash by which records refer to it.
    pub(crate) fn hash(&self) -> u64 {
        self.content.hash
    }

    /// Its stores.
    pub(crate) fn stores(&self) -> &[StoreId] {
        &self.content.stores
    }

    /// Its timelines, with their hashes.
    pub(crate) fn keys(&self) -> impl ExactSizeIterator<Item = Key<'_>> {
        self.content.targets.iter().map(|ListedTarget { store, name, hash }| {
            let name = &self.content.bytes[name.start as usize..name.end as usize];
            Key { timeline: TimelineRef { store: *store, name }, hash: *hash }
        })
    }
}

/// The list of a batch.
#[derive(Clone, Debug)]
pub(crate) struct Listed {
    /// The number of the batch's named targets before the targets of the list.
    pub after: usize,
    /// The number of the body that the list's timelines get.
    pub body: u32,
    pub list: TargetList,
}
