//! What a caller's thread looked up before its batch is committed. The results count only while the
//! memtable that was active at the look-up is still the active one (`queue`).
//!
//! This file does not know how anything is looked up.

use crate::format::ids::IdRecord;
use crate::memtable::SlotId;
use crate::timeline::End;
use crate::write::batch::Few;

/// What a caller knows of the timelines of a batch.
#[derive(Debug, Default)]
pub struct Hints {
    /// The slots in the memtable that was active.
    pub(super) slots: Few<Option<SlotId>>,
    /// The ends of those without a slot.
    ends: Vec<Option<End>>,
}

impl Hints {
    /// The slot of a timeline.
    pub fn slot(&self, number: usize) -> Option<SlotId> {
        self.slots.get(number).copied().flatten()
    }

    /// The end of a timeline that had no slot.
    pub fn end(&self, number: usize) -> Option<End> {
        self.ends.get(number).copied().flatten()
    }

    /// Adds the end of the timeline whose slot was added last, which has none.
    pub(super) fn add_end(&mut self, end: End) {
        let number = self.slots.len() - 1;
        self.ends.resize(number + 1, None);
        self.ends[number] = Some(end);
    }

    /// Hints for one timeline without a slot.
    #[cfg(test)]
    pub fn of_end(end: End) -> Hints {
        Hints { slots: Few::from_elem(None, 1), ends: vec![Some(end)] }
    }

    /// Its size in memory, in bytes.
    pub(super) fn memory_bytes(&self) -> usize {
        size_of_val(self.slots.as_slice()) + size_of_val(self.ends.as_slice())
    }
}

/// The result of a look-up of an id.
#[derive(Debug)]
pub struct IdHint {
    pub found: Option<IdRecord>,
}
