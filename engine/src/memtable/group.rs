//! A group to be applied to a memtable: bodies, entries and changes, in commit order.
//!
//! This file does not know the content of the memtable, or whether the group is durable.

use bytes::Bytes;

use super::{KnownList, SHARD_BITS, SlotId};
use crate::format::ids::IdRecord;
use crate::ids::{CommitPlace, Sequence};
use crate::timeline::{Floor, Times};

/// The memory that a batch takes in addition to its bytes: the header of the allocation, and its
/// reference count.
const HOLDING_BYTES: usize = 64;

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
    /// The bytes of batches, of which bodies, names and ids are slices.
    pub(super) held_bytes: usize,
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
        }
    }
}

impl Group {
    /// Counts a batch's bytes: as long as one of its bodies, names or ids is kept, all of them are.
    pub fn hold(&mut self, bytes: usize) {
        self.held_bytes += bytes + HOLDING_BYTES;
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
