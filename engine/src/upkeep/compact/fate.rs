//! The result of a merge for one timeline: the part that is gone, the surviving entries and the
//! sources of their bodies, and the changes that are kept.
//!
//! This file does not know how this is computed, or written.

use std::collections::BTreeMap;

use crate::ids::{CommitPlace, Sequence, TimeMs};
use crate::timeline::{Changes, End, Times};

/// The part of a timeline that is gone, and the changes that are kept.
pub struct Fate {
    pub end: End,
    /// Everything below this sequence is gone.
    pub lowest: Sequence,
    /// The removals in the inputs and in younger places.
    pub removed: Changes,
    /// The newest edit of each entry in the inputs.
    pub edited: BTreeMap<Sequence, EditIn>,
    /// Entries whose body is in a younger segment, with the place of its commit.
    pub elsewhere: BTreeMap<Sequence, CommitPlace>,
    /// The inputs' removals in older segments.
    pub older_removed: BTreeMap<Sequence, Sequence>,
    /// The edits of entries in older segments that are still visible.
    pub older_edited: BTreeMap<Sequence, EditIn>,
    /// Whether other such edits have expired: they become removals, which must be written.
    pub has_expired_edits: bool,
    /// Whether a younger segment has the end of the timeline.
    pub known: bool,
}

/// An edit in an input.
#[derive(Clone, Copy)]
pub struct EditIn {
    pub input: usize,
    /// The number of the new body.
    pub number: u32,
    /// The place of its commit.
    pub at: CommitPlace,
}

/// A surviving entry.
pub struct Survivor<'b> {
    /// The index of its input.
    pub input: usize,
    pub sequence: Sequence,
    pub body: Kept<'b>,
}

/// The source of its body.
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
    /// The fate of a timeline with this end in the newest input.
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
