//! What becomes of a timeline in a merge: what of it is gone, what survives and where its body
//! comes from, and what goes along.
//!
//! It does not know: how that is found, or written.

use std::collections::BTreeMap;

use crate::ids::{CommitPlace, Sequence, TimeMs};
use crate::timeline::{Changes, End, Times};

/// What of a timeline is gone, and what goes along with it.
pub struct Fate {
    pub end: End,
    /// Everything below is gone.
    pub lowest: Sequence,
    /// What the inputs and younger places remove.
    pub removed: Changes,
    /// The newest edit of each entry in the inputs.
    pub edited: BTreeMap<Sequence, EditIn>,
    /// Entries of which a younger segment has the body, and where that was committed.
    pub elsewhere: BTreeMap<Sequence, CommitPlace>,
    /// What the inputs remove in older segments.
    pub older_removed: BTreeMap<Sequence, Sequence>,
    /// Which of the edits are of entries in older segments, and still show.
    pub older_edited: BTreeMap<Sequence, EditIn>,
    /// Whether others of them have expired: they become removals, which must be written.
    pub has_expired_edits: bool,
    /// Whether a younger segment knows how the timeline ends.
    pub known: bool,
}

/// An edit in an input.
#[derive(Clone, Copy)]
pub struct EditIn {
    pub input: usize,
    /// The number of the new body.
    pub number: u32,
    /// Where it was committed.
    pub at: CommitPlace,
}

/// An entry that survives.
pub struct Survivor<'b> {
    /// Which input it is in.
    pub input: usize,
    pub sequence: Sequence,
    pub body: Kept<'b>,
}

/// Where its body comes from.
pub enum Kept<'b> {
    Own {
        times: Times,
        place: Option<CommitPlace>,
        body: &'b [u8],
    },
    Shared {
        number: u32,
        own_start_ms: Option<TimeMs>,
    },
    /// A shared body of some input, which was written as an edit.
    Edited {
        times: Times,
        place: Option<CommitPlace>,
        edit: EditIn,
    },
    /// A change of the body that it shares.
    Changed {
        times: Times,
        place: CommitPlace,
    },
    /// A younger segment.
    Elsewhere(Times, Option<CommitPlace>),
}

impl Fate {
    /// Of a timeline that ends so in the newest input.
    pub fn of(end: End) -> Fate {
        Fate {
            end,
            lowest: end.floor.lowest,
            removed: Changes::default(),
            edited: BTreeMap::new(),
            elsewhere: BTreeMap::new(),
            older_removed: BTreeMap::new(),
            older_edited: BTreeMap::new(),
            has_expired_edits: false,
            known: false,
        }
    }

    /// Whether nothing in older segments is removed or edited here.
    pub fn changes_nothing(&self) -> bool {
        self.older_removed.is_empty() && self.older_edited.is_empty()
    }
}
