//! What is known to be damaged (P5): each place is reported once, with what it was read for, and
//! not read again for every reader.
//!
//! ```text
//!  a read that fails ──> find: first time? ──> one line in the log, its segment counts as damaged
//!  a read of a place that failed before ──> known: the same error, without the disk
//! ```
//!
//! Only what does not match its checksum is taken as given: what the disk did not give at all is
//! asked for again, since that may pass. The memory is bounded; a place that falls out of it is
//! read, and reported, again.
//!
//! It does not know: how to mend anything.

use std::collections::{BTreeSet, HashMap};
use std::fmt::Write as _;

use parking_lot::{Mutex, RwLock};
use quick_cache::sync::Cache;

use crate::error::Error;
use crate::ids::{FileNumber, Sequence, StoreId};

/// So many damaged places are remembered.
const REMEMBERED: usize = 4096;

/// A place that is read at once: the segment's number, whether it is of the index, which copy, the
/// byte.
pub(super) type ReadPlace = (FileNumber, bool, u8, u64);

/// For whom something is read, so that damage can be reported with it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct About<'a> {
    /// The timeline; `None`: for none alone.
    pub timeline: Option<&'a [u8]>,
    /// Its sequences that are concerned, if they are known.
    pub sequences: Option<(Sequence, Sequence)>,
}

impl<'a> About<'a> {
    /// For no timeline alone, as walks through all of a segment read.
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

/// All that was found damaged since the engine was opened.
#[derive(Debug)]
pub struct Damages {
    /// Whether someone else reports what is found.
    is_quiet: bool,
    /// The error, where it is certain.
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

    /// What to call stores.
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

    /// Something in a segment is damaged. True when nothing was known of it.
    pub fn add(&self, number: FileNumber) -> bool {
        self.segments.lock().insert(number)
    }

    /// A segment was mended: what was known of it holds no more.
    pub fn forget(&self, number: FileNumber) {
        self.segments.lock().remove(&number);
        self.places.retain(|(of, ..), _| *of != number);
    }

    /// The damage at a place, if it is certain.
    pub(super) fn known(&self, place: ReadPlace) -> Option<Error> {
        self.places.get(&place).flatten()
    }

    /// A place was found damaged. True when that was not known.
    pub(super) fn find(&self, place: ReadPlace, error: &Error) -> bool {
        self.add(place.0);
        let is_new = self.places.get(&place).is_none();
        let is_certain = matches!(error, Error::Corrupt { .. });
        self.places.insert(place, is_certain.then(|| error.clone()));
        is_new && !self.is_quiet
    }

    /// Damage was found in a file by checking all of it: it is reported, unless it was.
    pub fn report(&self, number: FileNumber, is_index: bool, copy: u8, error: &Error) {
        if self.keep(number, is_index, copy, error) {
            tracing::error!(%error, "damage was found");
        }
    }

    /// Damage that was reported is still there. True when nothing was known of it.
    pub fn keep(&self, number: FileNumber, is_index: bool, copy: u8, error: &Error) -> bool {
        let Error::Corrupt { offset, .. } = error else { return false };
        self.find((number, is_index, copy, *offset), error)
    }

    /// The damage, with what was read.
    pub(super) fn told(&self, error: Error, store: StoreId, about: About<'_>) -> Error {
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
