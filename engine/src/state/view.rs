//! What a reader holds: the memtables and segments of one moment, taken in one step.
//!
//! ```text
//!  View: active memtable · sealed memtables, newest first · segment set, by store, newest first
//! ```
//!
//! Sealing, flushing and merging replace the view; a reader goes on with the one that it took. A
//! flush exchanges a sealed memtable for its segments in one step, so an entry is in exactly one
//! place of a view. For each timeline, the places from the newest to the oldest hold falling ranges
//! of sequences.

use std::collections::HashMap;
use std::sync::Arc;

use crate::ids::{FileNumber, Lsn, StoreId};
use crate::memtable::{Memtable, Watermark};
use crate::segment::Segment;

/// The segments of all stores.
#[derive(Clone, Debug, Default)]
pub struct SegmentSet {
    by_store: HashMap<StoreId, Vec<Arc<Segment>>>,
}

impl SegmentSet {
    /// Those of a store, newest first.
    pub fn of(&self, store: StoreId) -> &[Arc<Segment>] {
        self.by_store.get(&store).map_or(&[], Vec::as_slice)
    }

    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Segment>> {
        self.by_store.values().flatten()
    }

    /// Adds segments at their places.
    pub fn add(&mut self, segments: impl IntoIterator<Item = Arc<Segment>>) {
        for segment in segments {
            let of_store = self.by_store.entry(segment.record().store).or_default();
            let place =
                of_store.partition_point(|other| other.record().place() > segment.record().place());
            of_store.insert(place, segment);
        }
    }

    /// Takes the segments of a store with these numbers out.
    pub fn take(&mut self, store: StoreId, numbers: &[FileNumber]) -> Vec<Arc<Segment>> {
        let Some(of_store) = self.by_store.get_mut(&store) else { return Vec::new() };
        let is_taken = |segment: &Arc<Segment>| numbers.contains(&segment.record().number);
        let (taken, kept) = of_store.drain(..).partition(is_taken);
        *of_store = kept;
        taken
    }

    /// Takes all segments of a store out.
    pub fn take_all(&mut self, store: StoreId) -> Vec<Arc<Segment>> {
        self.by_store.remove(&store).unwrap_or_default()
    }

    /// Puts a segment in the place of the one with its number, if that is still there.
    pub fn replace(&mut self, segment: Arc<Segment>) {
        let of_store = self.by_store.get_mut(&segment.record().store);
        let number = segment.record().number;
        if let Some(place) = of_store
            .and_then(|segments| segments.iter_mut().find(|other| other.record().number == number))
        {
            *place = segment;
        }
    }
}

/// Everything that can be read, at one moment.
#[derive(Clone, Debug)]
pub struct View {
    /// Takes new groups.
    pub active: Arc<Memtable>,
    /// Wait to be flushed, newest first.
    pub sealed: Vec<Arc<Memtable>>,
    /// On the disk.
    pub segments: SegmentSet,
}

impl View {
    /// Everything below this place of the log is in segments.
    pub fn flushed_to(&self) -> Lsn {
        self.memtables().last().expect("a view has an active memtable").from()
    }

    /// The memtables, newest first.
    pub fn memtables(&self) -> impl Iterator<Item = &Arc<Memtable>> {
        std::iter::once(&self.active).chain(&self.sealed)
    }

    /// The memtables, newest first, each with how much of it a reader sees.
    pub fn memtables_below(
        &self,
        watermark: Watermark,
    ) -> impl Iterator<Item = (&Arc<Memtable>, Watermark)> {
        let sealed = self.sealed.iter().map(|memtable| (memtable, Watermark::ALL));
        std::iter::once((&self.active, watermark)).chain(sealed)
    }
}
