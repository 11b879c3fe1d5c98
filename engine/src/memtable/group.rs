//! A group to be applied to a memtable: bodies, entries and changes, in commit order, and the bytes
//! of batches that they are slices of.
//!
//! This file does not know the content of the memtable, or whether the group is durable.

use bytes::{Bytes, BytesMut};

use super::{KnownList, SHARD_BITS, SlotId};
use crate::format::ids::IdRecord;
use crate::ids::{CommitPlace, Sequence};
use crate::timeline::{Floor, Times};

/// The memory that bytes of their own take in addition: the header of the allocation, and its
/// reference count.
const HOLDING_BYTES: usize = 64;

/// The size of the chunks that the tails of small batches are copied into. Readers copy the bodies
/// that are in chunks, so only memtables keep them.
const CHUNK_BYTES: usize = 8 * 1024;

/// The size of a tail above which it is kept as it is.
const SMALL_TAIL_BYTES: usize = CHUNK_BYTES / 8;

/// A body, with everything that all its entries share.
#[derive(Clone, Debug)]
pub struct Body {
    /// The commit time, and the lifetime of its entries.
    pub times: Times,
    /// The caller's bytes.
    pub bytes: Bytes,
    /// The place of its commit.
    pub place: CommitPlace,
    /// Whether several entries share it.
    pub is_shared: bool,
}

impl Body {
    /// Its place, if entries share it.
    pub fn shared_place(&self) -> Option<CommitPlace> {
        self.is_shared.then_some(self.place)
    }
}

/// The part that the committer applies at once. It is reused, so that a group allocates only
/// what it keeps.
#[derive(Debug)]
pub struct Group {
    pub(super) bodies: Vec<Body>,
    /// By shard, so that each shard is locked once.
    pub(super) appends: Vec<Vec<Append>>,
    /// The shards that have appends, one bit each: most groups touch few.
    touched: u64,
    pub(super) effects: Vec<(SlotId, Effect, CommitPlace)>,
    /// The lists that its records have in full.
    pub(super) lists: Vec<KnownList>,
    /// The bytes of large batches, of chunks that it began, and of bodies of their own.
    held_bytes: usize,
    /// The free part of the last chunk. If the memtable is sealed, the next one goes on in it, and
    /// keeps a chunk that only the first counts.
    chunk: BytesMut,
}

#[derive(Debug)]
pub(super) struct Append {
    pub(super) slot: u32,
    pub(super) sequence: Sequence,
    /// The body's number in the group.
    pub(super) body: u32,
    pub(super) times: Times,
    pub(super) body_bytes: u32,
}

impl Default for Group {
    fn default() -> Group {
        Group {
            bodies: Vec::new(),
            appends: (0..1 << SHARD_BITS).map(|_| Vec::new()).collect(),
            touched: 0,
            effects: Vec::new(),
            lists: Vec::new(),
            held_bytes: 0,
            chunk: BytesMut::new(),
        }
    }
}

impl Group {
    /// A batch's tail, to be kept: as long as one of its bodies or ids is kept, all of it is.
    ///
    /// A small one is copied, so that its caller can use the same memory for its next batch. If
    /// the memtable kept it, each batch would be written to memory that is not in the processor's
    /// caches.
    pub fn keep(&mut self, tail: &[u8], whole: impl FnOnce() -> Bytes) -> Bytes {
        if tail.len() > SMALL_TAIL_BYTES {
            self.hold(tail.len());
            return whole();
        }
        if self.chunk.capacity() < tail.len() {
            self.chunk = BytesMut::with_capacity(CHUNK_BYTES);
            self.hold(CHUNK_BYTES);
        }
        self.chunk.extend_from_slice(tail);
        self.chunk.split().freeze()
    }

    /// Counts bytes of their own that are kept.
    pub fn hold(&mut self, bytes: usize) {
        self.held_bytes += bytes + HOLDING_BYTES;
    }

    /// The bytes that the memtable has to count for the group.
    pub(super) fn take_held_bytes(&mut self) -> usize {
        std::mem::take(&mut self.held_bytes)
    }

    /// Adds a body; the entries that are added next have this body.
    pub fn body(&mut self, body: Body) {
        self.bodies.push(body);
    }

    /// Adds an entry of the body added last.
    pub fn entry(&mut self, slot: SlotId, sequence: Sequence) {
        let number = self.bodies.len() - 1;
        let body = &self.bodies[number];
        self.touched |= 1 << slot.shard;
        self.appends[slot.shard as usize].push(Append {
            slot: slot.slot,
            sequence,
            body: number as u32,
            times: body.times,
            body_bytes: body.bytes.len() as u32,
        });
    }

    /// Adds a change or an id of a timeline, with the commit place of an edit.
    pub fn effect(&mut self, slot: SlotId, effect: Effect, place: CommitPlace) {
        self.effects.push((slot, effect, place));
    }

    /// Adds a list that a record of the group has in full.
    pub fn list(&mut self, list: KnownList) {
        self.lists.push(list);
    }

    /// Whether it trims or removes something.
    pub(super) fn frees(&self) -> bool {
        let frees = |effect: &Effect| matches!(effect, Effect::Trim(_) | Effect::Remove(_));
        self.effects.iter().any(|(_, effect, _)| frees(effect))
    }

    /// Whether it replaces something that readers of an earlier moment may need: an id does not.
    pub fn leaves_history(&self) -> bool {
        self.effects.iter().any(|(_, effect, _)| !matches!(effect, Effect::Id(..)))
    }

    /// The numbers of the shards that have appends; the caller empties them.
    pub(super) fn take_touched(&mut self) -> impl Iterator<Item = usize> + use<> {
        let mut left = std::mem::take(&mut self.touched);
        std::iter::from_fn(move || {
            let shard = (left != 0).then(|| left.trailing_zeros())?;
            left &= left - 1;
            Some(shard as usize)
        })
    }

    /// Empties the group, if it was not committed.
    pub fn clear(&mut self) {
        self.bodies.clear();
        self.take_touched().for_each(|shard| self.appends[shard].clear());
        self.effects.clear();
        self.lists.clear();
        self.held_bytes = 0;
        // What it has left may be of a chunk that nobody counts now.
        self.chunk = BytesMut::new();
    }
}

/// An operation of a batch other than an append.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The timeline is readable only from this floor on.
    Trim(Floor),
    /// These ranges are removed.
    Remove(Vec<(Sequence, Sequence)>),
    /// This entry has a new body.
    Edit(Sequence, Bytes),
    /// A retry with this id is answered by the record.
    Id(Bytes, IdRecord),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(group: &mut Group, tail: &Bytes) -> Bytes {
        group.keep(tail, || tail.clone())
    }

    #[test]
    fn small_tails_share_chunks_which_are_counted_once_and_a_large_one_is_kept_as_it_is() {
        let mut group = Group::default();
        let tail = Bytes::from(vec![7; SMALL_TAIL_BYTES]);
        let all: Vec<Bytes> = (0..16).map(|_| kept(&mut group, &tail)).collect();
        assert!(all.iter().all(|one| *one == tail && one.as_ptr() != tail.as_ptr()));
        assert_eq!(group.take_held_bytes(), 2 * (CHUNK_BYTES + HOLDING_BYTES));
        assert_eq!(group.take_held_bytes(), 0);
        let large = Bytes::from(vec![7; SMALL_TAIL_BYTES + 1]);
        assert_eq!(kept(&mut group, &large).as_ptr(), large.as_ptr());
        assert_eq!(group.take_held_bytes(), large.len() + HOLDING_BYTES);
    }

    #[test]
    fn a_group_that_was_not_committed_leaves_no_bytes_and_no_chunk() {
        let mut group = Group::default();
        kept(&mut group, &Bytes::from_static(b"failed"));
        kept(&mut group, &Bytes::from(vec![7; SMALL_TAIL_BYTES + 1]));
        group.clear();
        assert_eq!(group.take_held_bytes(), 0);
        let kept = kept(&mut group, &Bytes::from_static(b"accepted"));
        assert_eq!(
            (&kept[..], group.take_held_bytes()),
            (&b"accepted"[..], CHUNK_BYTES + HOLDING_BYTES)
        );
    }
}
