//! The view of a reader: the memtables and segments of one moment, taken in one step.
//!
//! ```text
//!  View: active memtable · sealed memtables, newest first · segment set, by store, newest first
//! ```
//!
//! Sealing, flushing and merging replace the view; a reader continues with the view that it took. A
//! flush replaces a sealed memtable by its segments in one step, so an entry is in exactly one
//! place of a view. For each timeline, the sequence ranges of the places fall from the newest to
//! the oldest.

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
    /// The segments of a store, newest first.
    pub fn of(&self, store: StoreId) -> &[Arc<Segment>] {
        self.by_store.get(&store).map_or(&[], Vec::as_slice)
    }

    /// All segments.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Segment>> {
        self.by_store.values().flatten()
    }

    /// Adds segments at their positions.
    pub fn add(&mut self, segments: impl IntoIterator<Item = Arc<Segment>>) {
        for segment in segments {
            let of_store = self.by_store.entry(segment.record().store).or_default();
            let index =
                of_store.partition_point(|other| other.record().place() > segment.record().place());
            of_store.insert(index, segment);
        }
    }

    /// Removes the segments of a store with these numbers, and returns them.
    pub fn take(&mut self, store: StoreId, numbers: &[FileNumber]) -> Vec<Arc<Segment>> {
        let Some(of_store) = self.by_store.get_mut(&store) else { return Vec::new() };
        let is_taken = |segment: &Arc<Segment>| numbers.contains(&segment.record().number);
        let (taken, kept) = of_store.drain(..).partition(is_taken);
        *of_store = kept;
        taken
    }

    /// Removes all segments of a store, and returns them.
    pub fn take_all(&mut self, store: StoreId) -> Vec<Arc<Segment>> {
        self.by_store.remove(&store).unwrap_or_default()
    }

    /// Replaces the segment with the same number, if it is still in the set.
    pub fn replace(&mut self, segment: Arc<Segment>) {
        let of_store = self.by_store.get_mut(&segment.record().store);
        let number = segment.record().number;
        if let Some(known) = of_store
            .and_then(|segments| segments.iter_mut().find(|other| other.record().number == number))
        {
            *known = segment;
        }
    }
}

/// Everything that can be read at one moment.
#[derive(Clone, Debug)]
pub struct View {
    /// The memtable to which new groups are applied.
    pub active: Arc<Memtable>,
    /// The memtables that wait to be flushed, newest first.
    pub sealed: Vec<Arc<Memtable>>,
    /// The segments on the disk.
    pub segments: SegmentSet,
}

impl View {
    /// The lsn below which everything is in segments.
    pub fn flushed_to(&self) -> Lsn {
        self.memtables().last().expect("a view has an active memtable").from()
    }

    /// The memtables, newest first.
    pub fn memtables(&self) -> impl Iterator<Item = &Arc<Memtable>> {
        std::iter::once(&self.active).chain(&self.sealed)
    }

    /// The memtables, newest first, each with its part that a reader sees.
    pub fn memtables_below(
        &self,
        watermark: Watermark,
    ) -> impl Iterator<Item = (&Arc<Memtable>, Watermark)> {
        let sealed = self.sealed.iter().map(|memtable| (memtable, Watermark::ALL));
        std::iter::once((&self.active, watermark)).chain(sealed)
    }
}
