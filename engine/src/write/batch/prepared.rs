//! A batch in the form that the committer uses: encoded, with a checksum, its names hashed.
//!
//! This file does not know how a caller built it, or the content of any timeline.

use std::hash::BuildHasher;
use std::ops::Range;

use bytes::Bytes;
use smallvec::SmallVec;

use super::{Durability, Listed};
use crate::format::ids::IdHashes;
use crate::format::wal::Operation;
use crate::ids::{Sequence, StoreId, TimelineRef};
use crate::timeline::{Floor, Key};

/// A list that needs no memory of its own for one element.
pub type Few<T> = SmallVec<[T; 1]>;

/// A body that is appended.
#[derive(Clone, Debug)]
pub struct AppendedBody {
    /// Its byte range in the tail.
    pub place: Range<usize>,
    /// Whether it begins with the sequence of its origin.
    pub stamped: bool,
    /// The lifetime of its entries in milliseconds; 0: only the store's TTL applies.
    pub lifetime_ms: u64,
}

/// A timeline that a batch was decided on: its last sequence must not have changed since then.
#[derive(Clone, Debug)]
pub struct Basis {
    pub store: StoreId,
    pub name: Vec<u8>,
    /// The memtable's hash of store and name.
    pub hash: u64,
    pub last: Sequence,
}

impl Basis {
    /// Those of a batch: store, name, and last sequence.
    pub fn all(bases: Vec<(StoreId, Vec<u8>, Sequence)>, hasher: &impl BuildHasher) -> Vec<Basis> {
        let make = |(store, name, last): (StoreId, Vec<u8>, Sequence)| {
            let hash = Key::new(hasher, TimelineRef { store, name: &name }).hash;
            Basis { store, name, hash, last }
        };
        bases.into_iter().map(make).collect()
    }

    pub fn key(&self) -> Key<'_> {
        Key { timeline: TimelineRef { store: self.store, name: &self.name }, hash: self.hash }
    }
}

/// A timeline that gets an entry.
#[derive(Clone, Debug)]
pub struct Target {
    pub store: StoreId,
    /// The byte range of its name in the tail.
    pub name: Range<u32>,
    /// The memtable's hash of store and name.
    pub hash: u64,
    /// The number of its body in the batch.
    pub body: u32,
}

/// A timeline to which a change other than an append applies.
#[derive(Clone, Debug)]
pub struct Change {
    pub store: StoreId,
    /// The byte range of its name in the tail.
    pub name: Range<u32>,
    /// The memtable's hash of store and name.
    pub hash: u64,
    pub kind: ChangeKind,
}

impl Change {
    /// Its size in memory, in bytes.
    pub fn memory_bytes(&self) -> usize {
        let ranges = match &self.kind {
            ChangeKind::Remove(ranges) => size_of_val(ranges.as_slice()),
            ChangeKind::Trim(_) | ChangeKind::Edit(..) => 0,
        };
        size_of::<Change>() + ranges
    }
}

/// The kind of a change.
#[derive(Clone, Debug)]
pub enum ChangeKind {
    Trim(Floor),
    Remove(Vec<(Sequence, Sequence)>),
    /// The sequence, and the byte range of the new body in the tail.
    Edit(Sequence, Range<usize>),
}

/// Conditions that must hold when the batch is committed; they concern the timeline of the first
/// append.
#[derive(Clone, Copy, Debug, Default)]
pub struct Conditions {
    /// Its last sequence must be this one.
    pub if_last: Option<Sequence>,
    /// The append gets this sequence, which must be above the last one.
    pub sequence: Option<Sequence>,
}

/// A batch ready for the committer.
#[derive(Debug, Default)]
pub struct Prepared {
    /// The record's tail: bodies, stores and names.
    pub tail: Bytes,
    /// The checksum of the tail.
    pub tail_crc: u32,
    /// The timelines that get an entry, in the caller's order.
    pub targets: Few<Target>,
    /// The timelines to which other changes apply.
    pub changes: Vec<Change>,
    /// The number of entries that the changes remove.
    pub removed: u64,
    /// The appended bodies.
    pub bodies: Few<AppendedBody>,
    /// The list of further timelines that get an entry.
    pub list: Option<Listed>,
    /// The meaning of a success.
    pub durability: Durability,
    pub conditions: Conditions,
    /// The timelines that it was decided on.
    pub bases: Vec<Basis>,
    /// The byte range of the client's id in the tail, and the hashes of the batch.
    pub id: Option<(Range<u32>, IdHashes)>,
}

impl Prepared {
    /// An empty batch, for callers that only need to know that all earlier batches were committed.
    pub fn nothing() -> Prepared {
        Prepared { durability: Durability::Os, ..Prepared::default() }
    }

    /// Whether it would leave no record.
    pub fn is_nothing(&self) -> bool {
        self.targets.is_empty() && self.changes.is_empty()
    }

    /// Whether everything that it does frees space, sooner or later.
    pub fn frees_only(&self) -> bool {
        let frees = |change: &Change| !matches!(change.kind, ChangeKind::Edit(..));
        self.targets.is_empty() && self.changes.iter().all(frees)
    }

    /// The number of bytes of its bodies, including those of edits.
    pub fn body_bytes(&self) -> u64 {
        let edited = self.changes.iter().filter_map(|change| match &change.kind {
            ChangeKind::Edit(_, body) => Some(body.len()),
            _ => None,
        });
        self.bodies.iter().map(|body| body.place.len()).chain(edited).map(|len| len as u64).sum()
    }

    /// Sets the final byte ranges of names, and their hashes; both are known once the tail is
    /// finished.
    pub fn place_names(&mut self, names_at: u32, hasher: &impl BuildHasher) {
        let tail = &self.tail;
        let finish = |store: StoreId, name: &mut Range<u32>| {
            *name = name.start + names_at..name.end + names_at;
            let name = &tail[name.start as usize..name.end as usize];
            Key::new(hasher, TimelineRef { store, name }).hash
        };
        for target in &mut self.targets {
            target.hash = finish(target.store, &mut target.name);
        }
        for change in &mut self.changes {
            change.hash = finish(change.store, &mut change.name);
        }
        if let Some((id, _)) = &mut self.id {
            *id = id.start + names_at..id.end + names_at;
        }
    }

    /// Bytes of the tail.
    pub fn slice(&self, range: &Range<u32>) -> Bytes {
        self.tail.slice(range.start as usize..range.end as usize)
    }

    /// A timeline by the byte range of its name.
    pub fn timeline(&self, store: StoreId, name: &Range<u32>) -> TimelineRef<'_> {
        TimelineRef { store, name: &self.tail[name.start as usize..name.end as usize] }
    }

    /// The timelines that it names, with their hashes: those of the appends, without those of the
    /// list, then those of the changes.
    pub fn named(&self) -> impl Iterator<Item = Key<'_>> {
        let targets = self.targets.iter().map(|target| (target.store, &target.name, target.hash));
        let changes = self.changes.iter().map(|change| (change.store, &change.name, change.hash));
        targets
            .chain(changes)
            .map(|(store, name, hash)| Key { timeline: self.timeline(store, name), hash })
    }

    /// The timelines of the list, with their hashes.
    pub fn listed(&self) -> impl Iterator<Item = Key<'_>> {
        self.list.iter().flat_map(|listed| listed.list.keys())
    }

    /// The number of its appends, one for each timeline.
    pub fn appends(&self) -> usize {
        self.targets.len() + self.list.as_ref().map_or(0, |listed| listed.list.len())
    }

    /// Its operations in the order of a record: appends, then changes, then the id. `tail` is its
    /// tail or a copy of it, the one that [`apply`](crate::write::apply::apply) gets: the id is a
    /// slice of it.
    pub fn operations<'a>(
        &'a self,
        tail: &'a [u8],
    ) -> impl Iterator<Item = Operation<'a, impl ExactSizeIterator<Item = TimelineRef<'a>>>> {
        let appends = self.targets.chunk_by(|one, other| one.body == other.body).map(|targets| {
            let AppendedBody { place, stamped, lifetime_ms } =
                &self.bodies[targets[0].body as usize];
            let named = targets.iter().map(|target| self.timeline(target.store, &target.name));
            let list = self.list.as_ref().filter(|listed| listed.body == targets[0].body);
            let listed = list.map(|listed| listed.list.keys().map(|key| key.timeline));
            let (body, lifetime_ms) = (place.clone(), *lifetime_ms);
            let (stamped, is_listed) = (*stamped, list.is_some());
            let targets = Targets { named, listed };
            Operation::Append { body, stamped, listed: is_listed, lifetime_ms, targets }
        });
        let changes = self.changes.iter().map(|change| {
            let timeline = self.timeline(change.store, &change.name);
            match &change.kind {
                ChangeKind::Trim(floor) => Operation::Trim { timeline, floor: *floor },
                ChangeKind::Remove(ranges) => {
                    Operation::Remove { timeline, ranges: ranges.clone() }
                }
                ChangeKind::Edit(sequence, body) => {
                    Operation::Edit { timeline, sequence: *sequence, body: body.clone() }
                }
            }
        });
        let id = self.id.iter().map(move |(id, hashes)| {
            let first = &self.targets[0];
            Operation::Id {
                timeline: self.timeline(first.store, &first.name),
                id: &tail[id.start as usize..id.end as usize],
                hashes: *hashes,
            }
        });
        appends.chain(changes).chain(id)
    }

    /// The stores that it touches, one per timeline.
    pub fn stores(&self) -> impl Iterator<Item = StoreId> {
        let changes = self.changes.iter().map(|change| change.store);
        let listed = self.list.iter().flat_map(|listed| listed.list.stores().iter().copied());
        self.targets.iter().map(|target| target.store).chain(listed).chain(changes)
    }

    /// The maximum size of its record in the log: header, padding and sequences of ten bytes each.
    pub fn record_bytes_bound(&self) -> usize {
        let list = self.list.as_ref().map_or(0, |listed| 32 + listed.list.bytes().len());
        64 + self.tail.len() + list + 10 * (self.appends() + self.changes.len())
    }
}

/// The targets of an append: those that it names, then those of the list. Their number is known.
struct Targets<N, L> {
    named: N,
    listed: Option<L>,
}

impl<N: ExactSizeIterator, L: ExactSizeIterator<Item = N::Item>> Iterator for Targets<N, L> {
    type Item = N::Item;

    fn next(&mut self) -> Option<N::Item> {
        self.named.next().or_else(|| self.listed.as_mut()?.next())
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let count = self.named.len() + self.listed.as_ref().map_or(0, L::len);
        (count, Some(count))
    }
}

impl<N: ExactSizeIterator, L: ExactSizeIterator<Item = N::Item>> ExactSizeIterator
    for Targets<N, L>
{
}
