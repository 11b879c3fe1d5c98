//! The known damage of segment files (P5): each damaged place is reported once, with the timeline
//! that it was read for, and is not read again for every reader.
//!
//! ```text
//!  a read fails ──> find: first time? ──> it is logged; the segment counts as damaged
//!  a read of a place that failed before ──> known: the same error, without the disk
//! ```
//!
//! Only certain damage (`Error::Corrupt`) is remembered as an error. If the disk returned no bytes,
//! the next reader reads again, because the failure may be transient. The number of remembered
//! places is bounded; a place that is evicted is read, and reported, again.
//!
//! This file does not know how to repair damage.

use std::collections::{BTreeSet, HashMap};
use std::fmt::Write as _;

use parking_lot::{Mutex, RwLock};
use quick_cache::sync::Cache;

use crate::error::Error;
use crate::ids::{FileNumber, Sequence, StoreId};

/// The number of damaged places that are remembered.
const REMEMBERED: usize = 4096;

/// A place that is read as one piece: the segment's number, whether it is in the index, the number
/// of the copy, the byte offset.
pub(super) type ReadPlace = (FileNumber, bool, u8, u64);

/// The purpose of a read, so that damage can be reported with it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct About<'a> {
    /// The timeline; `None` if the read is not for a single timeline.
    pub timeline: Option<&'a [u8]>,
    /// The sequences of the timeline that are affected, if they are known.
    pub sequences: Option<(Sequence, Sequence)>,
}

impl<'a> About<'a> {
    /// For no single timeline, as in walks through a whole segment.
    pub const ALL: About<'static> = About { timeline: None, sequences: None };

    /// For a timeline.
    pub fn timeline(name: &'a [u8]) -> About<'a> {
        About { timeline: Some(name), sequences: None }
    }

    /// For these sequences of the timeline.
    pub fn sequences(self, first: Sequence, last: Sequence) -> About<'a> {
        About { sequences: Some((first, last.max(first))), ..self }
    }
}

/// The damage that was found since the engine was opened.
#[derive(Debug)]
pub struct Damages {
    /// Whether the caller reports damage itself.
    is_quiet: bool,
    /// The error, if it is certain.
    places: Cache<ReadPlace, Option<Error>>,
    segments: Mutex<BTreeSet<FileNumber>>,
    stores: RwLock<HashMap<StoreId, String>>,
}

impl Default for Damages {
    fn default() -> Damages {
        Damages {
            is_quiet: false,
            places: Cache::new(REMEMBERED),
            segments: Mutex::default(),
            stores: RwLock::default(),
        }
    }
}

impl Damages {
    /// For a check that reports damage itself.
    pub fn quiet() -> Damages {
        Damages { is_quiet: true, ..Damages::default() }
    }

    /// Sets the names of stores, for messages.
    pub fn name_stores<'s>(&self, stores: impl Iterator<Item = (StoreId, &'s str)>) {
        *self.stores.write() = stores.map(|(id, name)| (id, name.to_string())).collect();
    }

    /// Whether damage was found in a segment.
    pub fn has(&self, number: FileNumber) -> bool {
        self.segments.lock().contains(&number)
    }

    /// Whether damage was found in any segment.
    pub fn any(&self) -> bool {
        !self.segments.lock().is_empty()
    }

    /// Marks a segment as damaged. True if it was not marked before.
    pub fn add(&self, number: FileNumber) -> bool {
        self.segments.lock().insert(number)
    }

    /// A segment was repaired: forgets its damage.
    pub fn forget(&self, number: FileNumber) {
        self.segments.lock().remove(&number);
        self.places.retain(|(of, ..), _| *of != number);
    }

    /// The damage at a place, if it is certain.
    pub(super) fn known(&self, place: ReadPlace) -> Option<Error> {
        self.places.get(&place).flatten()
    }

    /// Records damage at a place. True if it is new and should be reported.
    pub(super) fn find(&self, place: ReadPlace, error: &Error) -> bool {
        self.add(place.0);
        let is_new = self.places.get(&place).is_none();
        let is_certain = matches!(error, Error::Corrupt { .. });
        self.places.insert(place, is_certain.then(|| error.clone()));
        is_new && !self.is_quiet
    }

    /// Records damage that a check of the whole file found; logs it if it is new.
    pub fn report(&self, number: FileNumber, is_index: bool, copy: u8, error: &Error) {
        if self.keep(number, is_index, copy, error) {
            tracing::error!(%error, "damage was found");
        }
    }

    /// Records damage without logging it. True if it is new and should be reported.
    pub fn keep(&self, number: FileNumber, is_index: bool, copy: u8, error: &Error) -> bool {
        let Error::Corrupt { offset, .. } = error else { return false };
        self.find((number, is_index, copy, *offset), error)
    }

    /// The error, with the timeline and the sequences that were read added to its text.
    pub(super) fn located(&self, error: Error, store: StoreId, about: About<'_>) -> Error {
        if self.is_quiet {
            return error;
        }
        let (Error::Corrupt { path, offset, mut what }, Some(name)) =
            (error.clone(), about.timeline)
        else {
            return error;
        };
        let _ = write!(what, " (timeline {}:{}", self.store(store), name.escape_ascii());
        if let Some((first, last)) = about.sequences {
            let _ = write!(what, ", sequences {first} to {last}");
        }
        what.push(')');
        Error::Corrupt { path, offset, what }
    }

    fn store(&self, id: StoreId) -> String {
        self.stores.read().get(&id).cloned().unwrap_or_else(|| format!("store {}", id.0))
    }
}
