//! A group on its way into a memtable: bodies, entries and changes, in the order of the commit.
//!
//! It does not know: what is in the memtable, or whether the group is durable.

use std::sync::Arc;

use bytes::Bytes;

use super::{SHARD_BITS, SlotId};
use crate::entry::Receipt;
use crate::error::{Error, Result};
use crate::ids::{CommitPlace, Sequence, TimeMs};
use crate::timeline::{Floor, Times};

/// What a batch's bytes cost beside themselves: the allocation's head and the count of those who
/// hold it.
const HOLDING_BYTES: usize = 64;

/// A body with what all its entries have in common.
#[derive(Clone, Debug)]
pub struct Body {
    /// When it was committed, and how long its entries live.
    pub times: Times,
    /// The caller's bytes.
    pub bytes: Bytes,
    /// Where it was committed.
    pub place: CommitPlace,
    /// Whether several entries have it.
    pub is_shared: bool,
}

impl Body {
    /// Which it is, if entries share it.
    pub fn shared_place(&self) -> Option<CommitPlace> {
        self.is_shared.then_some(self.place)
    }
}

/// What the commit thread applies at once. It is reused, so that a group allocates nothing but what
/// it keeps.
#[derive(Debug)]
pub struct Group {
    pub(super) bodies: Vec<Body>,
    /// By shard, so that each shard is locked once.
    pub(super) appends: Vec<Vec<Append>>,
    pub(super) effects: Vec<(SlotId, Effect, CommitPlace)>,
    /// Bytes of batches, of which bodies, names and ids are slices.
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
            effects: Vec::new(),
            held_bytes: 0,
        }
    }
}

impl Group {
    /// Counts a batch's bytes: as long as one of its bodies, names or ids is kept, all of them are.
    pub fn hold(&mut self, bytes: usize) {
        self.held_bytes += bytes + HOLDING_BYTES;
    }

    /// Adds a body; the entries added next belong to it.
    pub fn body(&mut self, body: Body) {
        self.bodies.push(body);
    }

    /// Adds an entry of the body added last.
    pub fn entry(&mut self, slot: SlotId, sequence: Sequence) {
        let number = self.bodies.len() - 1;
        let body = &self.bodies[number];
        self.appends[slot.shard as usize].push(Append {
            slot: slot.slot,
            sequence,
            body: number as u32,
            times: body.times,
            body_bytes: body.bytes.len() as u32,
        });
    }

    /// Adds what else the batch does to a timeline, and where an edit was committed.
    pub fn effect(&mut self, slot: SlotId, effect: Effect, place: CommitPlace) {
        self.effects.push((slot, effect, place));
    }

    /// Forgets all, when the group was not committed.
    pub fn clear(&mut self) {
        self.bodies.clear();
        self.appends.iter_mut().for_each(Vec::clear);
        self.effects.clear();
        self.held_bytes = 0;
    }
}

/// What a batch with a client's id did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdRecord {
    /// A hash of its bodies.
    pub body_hash: u64,
    /// A hash of its targets and changes.
    pub targets_hash: u64,
    /// When it was committed.
    pub time_ms: TimeMs,
    /// When its window began.
    pub start_ms: TimeMs,
    /// The sequences that it was given.
    pub sequences: Arc<[Sequence]>,
}

impl IdRecord {
    /// What to tell a retry with these hashes of its body and its targets.
    pub fn receipt(&self, hashes: (u64, u64)) -> Result<Receipt> {
        if (self.body_hash, self.targets_hash) != hashes {
            return Err(Error::IdConflict {
                sequence: self.sequences.first().copied().unwrap_or(0),
            });
        }
        Ok(Receipt { time_ms: self.time_ms, sequences: self.sequences.to_vec(), duplicate: true })
    }
}

/// What a batch does beside appending.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The timeline can be read from here on only.
    Trim(Floor),
    /// These are removed.
    Remove(Vec<(Sequence, Sequence)>),
    /// This one has another body.
    Edit(Sequence, Bytes),
    /// A retry with this id is answered by the record.
    Id(Bytes, IdRecord),
}
