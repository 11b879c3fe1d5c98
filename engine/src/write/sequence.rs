//! Sequences (P2, P4): the next one of each timeline, given when the record is built and never from
//! a cache ahead of the log.
//!
//! For each slot of the active memtable there is one number, the last sequence given, which only
//! the committer knows. It is ahead of the memtable only while a group is written to the disk;
//! if the group is refused, the numbers are taken back.
//!
//! This file does not know how an end is looked up, or what records are.

use std::sync::{Arc, Weak};

use crate::ids::{MAX_SEQUENCE, Sequence};
use crate::memtable::{Memtable, SlotId};

/// Gives sequences to the appends of one group after another.
#[derive(Debug, Default)]
pub struct Allocator {
    /// The memtable that the slots belong to. Its start would not do: a memtable that has nothing
    /// but slots is followed by one with the same start. A `Weak` keeps the address from being used
    /// again.
    memtable: Weak<Memtable>,
    /// By slot number inside each shard: the last sequence given; 0 if it was not looked up yet.
    given: Vec<Vec<Sequence>>,
    /// The sequences given since the last settlement, to be taken back if the group is refused.
    unsettled: Vec<(SlotId, Sequence)>,
}

impl Allocator {
    /// Starts a group. Nothing is known of the slots of another memtable.
    pub fn begin(&mut self, memtable: &Arc<Memtable>) {
        if self.memtable.as_ptr() != Arc::as_ptr(memtable) {
            self.memtable = Arc::downgrade(memtable);
            self.given.clear();
            self.unsettled.clear();
        }
    }

    /// The next sequence of a slot; `None` if the highest one was given.
    pub fn next(&mut self, slot: SlotId, memtable: &Memtable) -> Option<Sequence> {
        let next = self.given(slot, memtable) + 1;
        self.take(slot, memtable, next).then_some(next)
    }

    /// Gives this sequence to a slot. False if it is not above the last one, or is above the
    /// highest.
    pub fn take(&mut self, slot: SlotId, memtable: &Memtable, sequence: Sequence) -> bool {
        let before = self.given(slot, memtable);
        if sequence <= before || sequence > MAX_SEQUENCE {
            return false;
        }
        let (shard, place) = slot.place();
        self.given[shard][place] = sequence;
        self.unsettled.push((slot, before));
        true
    }

    /// The last sequence given to a slot.
    pub fn last(&mut self, slot: SlotId, memtable: &Memtable) -> Sequence {
        self.given(slot, memtable)
    }

    fn given(&mut self, slot: SlotId, memtable: &Memtable) -> Sequence {
        let (shard, place) = slot.place();
        if self.given.len() <= shard {
            self.given.resize_with(shard + 1, Vec::new);
        }
        let shard = &mut self.given[shard];
        if shard.len() <= place {
            shard.resize(place + 1, 0);
        }
        if shard[place] == 0 {
            shard[place] = memtable.end_of(slot).last;
        }
        shard[place]
    }

    /// The number of sequences given since the last settlement.
    pub fn mark(&self) -> usize {
        self.unsettled.len()
    }

    /// Takes back the sequences given since the mark.
    pub fn fall_back(&mut self, mark: usize) {
        for (slot, before) in self.unsettled.drain(mark..).rev() {
            let (shard, place) = slot.place();
            self.given[shard][place] = before;
        }
    }

    /// The sequences given are in the memtable now, and are final.
    pub fn settle(&mut self) {
        self.unsettled.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{Lsn, StoreId, TimelineRef};
    use crate::timeline::{End, Key};

    fn memtable_with_slot(last: Sequence) -> (Memtable, SlotId) {
        let memtable = Memtable::new(Lsn(7));
        let end = End { last, ..End::NEVER };
        let slot = memtable
            .insert(Key { timeline: TimelineRef { store: StoreId(1), name: b"a" }, hash: 1 }, end);
        (memtable, slot)
    }

    #[test]
    fn sequences_are_dense_and_fall_back_as_if_never_given() {
        let (memtable, slot) = memtable_with_slot(41);
        let mut allocator = Allocator::default();
        assert_eq!(allocator.next(slot, &memtable), Some(42));
        let mark = allocator.mark();
        assert_eq!(
            (allocator.next(slot, &memtable), allocator.next(slot, &memtable)),
            (Some(43), Some(44))
        );
        allocator.fall_back(mark);
        assert_eq!(allocator.next(slot, &memtable), Some(43));
    }

    #[test]
    fn the_highest_sequence_is_the_last() {
        let (memtable, slot) = memtable_with_slot(MAX_SEQUENCE - 1);
        let mut allocator = Allocator::default();
        assert_eq!(allocator.next(slot, &memtable), Some(MAX_SEQUENCE));
        assert_eq!(allocator.next(slot, &memtable), None);
    }
}
