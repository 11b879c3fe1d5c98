//! Sequences (P2, P4): the next one of each timeline, given where the record is built and never
//! from a cache ahead of the log.
//!
//! Per slot of the active memtable there is one number, the last sequence given, which only the
//! commit thread knows. It is ahead of the memtable only while a group is on its way to the disk;
//! if the group is refused, the numbers fall back.
//!
//! Where a timeline without a slot ends is looked up by the caller, before the batch is queued: an
//! `EndHint`. A hint counts only for the memtable it was looked up under: every later append of the
//! timeline would have left a slot in it.
//!
//! It does not know: how an end is looked up, or records.

use crate::ids::{Lsn, MAX_SEQUENCE, Sequence};
use crate::memtable::{Memtable, SlotId};
use crate::timeline::End;

/// Where a timeline ended, as far as was known when the memtable that starts at `memtable` was the
/// active one.
#[derive(Clone, Copy, Debug)]
pub struct EndHint {
    /// Which memtable was active.
    pub memtable: Lsn,
    /// What was known.
    pub end: End,
}

impl EndHint {
    /// The end, if it still counts.
    pub fn under(&self, active: &Memtable) -> Option<End> {
        (self.memtable == active.from()).then_some(self.end)
    }
}

/// Gives sequences to the appends of one group after another.
#[derive(Debug, Default)]
pub struct Allocator {
    /// By slot number inside each shard: the last sequence given; 0 when not looked at yet.
    given: Vec<Vec<Sequence>>,
    /// What was given since the last settlement, to fall back.
    unsettled: Vec<(SlotId, Sequence)>,
}

impl Allocator {
    /// A new memtable: nothing is known of its slots.
    pub fn restart(&mut self) {
        self.given.clear();
        self.unsettled.clear();
    }

    /// The next sequence of a slot; `None` when the highest was given.
    pub fn next(&mut self, slot: SlotId, memtable: &Memtable) -> Option<Sequence> {
        let next = self.given(slot, memtable) + 1;
        self.take(slot, memtable, next).then_some(next)
    }

    /// Gives a slot this sequence, which must be above the last one and not above the highest.
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

    /// How much was given since the last settlement.
    pub fn mark(&self) -> usize {
        self.unsettled.len()
    }

    /// Takes back what was given since the mark.
    pub fn fall_back(&mut self, mark: usize) {
        for (slot, before) in self.unsettled.drain(mark..).rev() {
            let (shard, place) = slot.place();
            self.given[shard][place] = before;
        }
    }

    /// What was given is in the memtable now.
    pub fn settle(&mut self) {
        self.unsettled.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{StoreId, TimelineRef};
    use crate::timeline::Key;
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

    #[test]
    fn a_hint_counts_only_under_its_memtable() {
        let hint = EndHint { memtable: Lsn(7), end: End { last: 3, ..End::NEVER } };
        assert_eq!(hint.under(&Memtable::new(Lsn(7))).map(|end| end.last), Some(3));
        assert_eq!(hint.under(&Memtable::new(Lsn(8))), None);
    }
}
