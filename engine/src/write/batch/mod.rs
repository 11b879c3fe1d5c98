//! A batch: appends and changes that a caller wants committed together (P3), encoded by the
//! caller's thread as far as possible.
//!
//! A batch copies each body once, into the tail of its record; the memtable later keeps slices of
//! the tail, or of a copy of a small one, except for a stamped body, of which it keeps a copy of
//! its own with the origin. The committer copies the tail into the group that it writes to the log,
//! and puts what only it knows, the sequences and the time, before the tail in the record.
//!
//! This folder does not know the log's files, or the content of any timeline.

mod checks;
mod identity;
mod list;
mod prepared;
mod removals;

use std::collections::BTreeMap;
use std::hash::BuildHasher;
use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;

use crate::error::{Error, Result};
use crate::format::checksum::{Seed, crc};
use crate::format::ids::IdHashes;
use crate::format::wal::{ORIGIN_BYTES, TailWriter};
use crate::ids::{
    BODIES, BodyKey, Instance, MAX_ID_BYTES, Sequence, StoreId, StoreKey, TimelineRef,
};
use crate::timeline::Floor;
use identity::Content;
pub(crate) use identity::{original, remembered, stands_for};
pub(crate) use list::Listed;
pub use list::TargetList;
pub(crate) use prepared::{
    AppendedBody, Basis, Change, ChangeKind, Conditions, Few, Prepared, Target,
};
pub use removals::Trim;
pub(crate) use removals::{Removal, Removed};

use crate::options::{MAX_BODY_BYTES, Options, limit_ms};

/// The meaning of a success.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
#[non_exhaustive]
pub enum Durability {
    /// The operating system has it: it survives a crash of the process, but not a power cut. After
    /// a power cut its sequence may be given again, under another epoch of the store: see
    /// [`Store::epoch`](crate::Store::epoch).
    Os,
    /// The disk has it (the default).
    #[default]
    Disk,
}

/// Appends, edits and removals that are committed together: all of them or none, after any crash.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let engine = strandline::Engine::open(dir.path(), strandline::Options::default())?;
/// let messages = engine.create_store("messages", None)?;
/// let sync = engine.create_store("sync", None)?;
/// let targets = [(&messages, b"c/room".as_slice()), (&sync, b"u/ann"), (&sync, b"u/bob")];
/// let receipt = engine.commit(strandline::Batch::new().fan_out(b"hello", targets))?;
/// assert_eq!(receipt.sequences, [1, 1, 1]);
/// # Ok::<(), strandline::Error>(())
/// ```
#[derive(Debug, Default)]
pub struct Batch {
    tail: TailWriter,
    targets: Few<Target>,
    changes: Vec<Change>,
    /// Those that are not found yet.
    removals: Vec<Removal>,
    /// Whether it had some.
    finds_removals: bool,
    /// The number of entries that the removals found.
    removed: u64,
    bodies: Few<AppendedBody>,
    list: Option<Listed>,
    lifetime_ms: u64,
    stamped: bool,
    durability: Durability,
    conditions: Conditions,
    bases: Vec<(StoreId, Vec<u8>, Sequence)>,
    id: Option<ClientId>,
    /// Its id in the tail.
    encoded_id: Option<(Range<u32>, IdHashes)>,
    /// The engine of its stores; `None` as long as it names no store.
    engine: Option<Instance>,
    /// The first error in it, reported when it is submitted.
    wrong: Option<Error>,
}

/// An id as its client gave it.
#[derive(Clone, Debug)]
struct ClientId {
    id: Vec<u8>,
    /// The hashes of the bytes that the id stands for, if that is not the whole batch.
    stands_for: Option<IdHashes>,
}

impl Batch {
    /// An empty batch.
    pub fn new() -> Batch {
        Batch::default()
    }

    /// Adds an append of a body to one timeline.
    #[must_use]
    pub fn append(
        mut self,
        store: impl Into<StoreKey>,
        timeline: impl AsRef<[u8]>,
        body: impl AsRef<[u8]>,
    ) -> Batch {
        let (timeline, body) = (timeline.as_ref(), body.as_ref());
        self.tail.reserve(body.len().min(MAX_BODY_BYTES), timeline.len());
        self.fan_out(body, [(store, timeline)])
    }

    /// Adds an append of one body to many timelines: the body is stored once in each store, and
    /// each target costs its name and a few bytes.
    #[must_use]
    pub fn fan_out<S: Into<StoreKey>, N: AsRef<[u8]>>(
        self,
        body: impl AsRef<[u8]>,
        targets: impl IntoIterator<Item = (S, N)>,
    ) -> Batch {
        self.append_to(body.as_ref(), targets.into_iter(), None)
    }

    /// The same, to these timelines, at least one, and then to those of a list, of which a batch
    /// has at most one. After its first use a list costs the log about a byte for each target.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let engine = strandline::Engine::open(dir.path(), strandline::Options::default())?;
    /// let messages = engine.create_store("chat", None)?;
    /// let sync = engine.create_store("sync", None)?;
    /// let members = engine.target_list([(&sync, b"u/ann".as_slice()), (&sync, b"u/bob")])?;
    /// for (number, body) in [(1, b"hello"), (2, b"again")] {
    ///     let room = [(&messages, b"c/room".as_slice())];
    ///     let batch = strandline::Batch::new().fan_out_to_list(body, room, &members);
    ///     assert_eq!(engine.commit(batch)?.sequences, [number; 3]);
    /// }
    /// # Ok::<(), strandline::Error>(())
    /// ```
    #[must_use]
    pub fn fan_out_to_list<S: Into<StoreKey>, N: AsRef<[u8]>>(
        mut self,
        body: impl AsRef<[u8]>,
        targets: impl IntoIterator<Item = (S, N)>,
        list: &TargetList,
    ) -> Batch {
        if self.list.is_some() {
            self.refuse(Error::invalid("a batch has at most one list of targets"));
        }
        if *self.engine.get_or_insert(list.engine()) != list.engine() {
            self.refuse(Error::foreign_store());
        }
        self.append_to(body.as_ref(), targets.into_iter(), Some(list))
    }

    /// An append of a body to timelines. Their number is written before them, so those of an
    /// iterator that does not know its length are collected first.
    fn append_to<S: Into<StoreKey>, N: AsRef<[u8]>>(
        self,
        body: &[u8],
        targets: impl Iterator<Item = (S, N)>,
        list: Option<&TargetList>,
    ) -> Batch {
        match targets.size_hint() {
            (least, Some(most)) if least == most => self.append_to_some(body, targets, least, list),
            _ => {
                let targets: Vec<(S, N)> = targets.collect();
                let count = targets.len();
                self.append_to_some(body, targets.into_iter(), count, list)
            }
        }
    }

    fn append_to_some<S: Into<StoreKey>, N: AsRef<[u8]>>(
        mut self,
        body: &[u8],
        targets: impl Iterator<Item = (S, N)>,
        count: usize,
        list: Option<&TargetList>,
    ) -> Batch {
        self.check_count(count + list.map_or(0, TargetList::len));
        if count == 0 && list.is_some() {
            self.refuse(Error::invalid("a fan-out to a list names at least one timeline"));
        }
        if self.stamped && body.len() < ORIGIN_BYTES {
            self.refuse(Error::invalid("a stamped body begins with eight bytes for its origin"));
        }
        let Some(place) = self.body(body) else { return self };
        self.bodies.push(AppendedBody {
            place,
            stamped: self.stamped,
            lifetime_ms: self.lifetime_ms,
        });
        self.tail.append((self.stamped, list.is_some()), self.lifetime_ms, count);
        let before = self.targets.len();
        for (store, name) in targets {
            let Some(timeline) = self.timeline(store, name.as_ref()) else { return self };
            let name = place_of(&self.tail.timeline(timeline));
            let body = (self.bodies.len() - 1) as u32;
            self.targets.push(Target { store: timeline.store, name, hash: 0, body });
        }
        if self.targets.len() - before != count {
            self.refuse(Error::invalid("an iterator of targets gave another number than it said"));
        }
        if let Some(list) = list {
            let (after, body) = (self.targets.len(), (self.bodies.len() - 1) as u32);
            self.list = Some(Listed { after, body, list: list.clone() });
        }
        self.check_size();
        self
    }

    /// Replaces the body of an entry; its sequence and time stay. If there is no such entry, the
    /// edit has no effect.
    #[must_use]
    pub fn edit(
        mut self,
        store: impl Into<StoreKey>,
        timeline: impl AsRef<[u8]>,
        sequence: Sequence,
        body: impl AsRef<[u8]>,
    ) -> Batch {
        match self.timeline(store, timeline.as_ref()) {
            Some(timeline) => self.edit_in(timeline, sequence, body.as_ref()),
            None => self,
        }
    }

    /// Replaces a body for all entries of these stores that were appended with it, with one record,
    /// whatever the number of entries. If an entry was also edited individually, the later commit
    /// counts. See [`Store::body_of`](crate::Store::body_of).
    #[must_use]
    pub fn edit_body<S: Into<StoreKey>>(
        mut self,
        of: BodyKey,
        stores: impl IntoIterator<Item = S>,
        body: impl AsRef<[u8]>,
    ) -> Batch {
        let Some(body) = self.body(body.as_ref()) else { return self };
        for store in stores {
            let StoreKey { instance, id: store } = store.into();
            if of.instance != instance || *self.engine.get_or_insert(instance) != instance {
                self.refuse(Error::foreign_store());
                return self;
            }
            let timeline = TimelineRef { store, name: BODIES };
            let name = self.tail.edit(timeline, of.place.0);
            self.change(timeline, &name, ChangeKind::Edit(of.place.0, body.clone()));
        }
        self.check_size();
        self
    }

    /// The same for a timeline that was checked.
    #[must_use]
    pub(crate) fn edit_in(
        mut self,
        timeline: TimelineRef<'_>,
        sequence: Sequence,
        body: &[u8],
    ) -> Batch {
        if let Some(body) = self.body(body) {
            let name = self.tail.edit(timeline, sequence);
            self.change(timeline, &name, ChangeKind::Edit(sequence, body));
            self.check_size();
        }
        self
    }

    /// Removes entries, as inclusive ranges of sequences. Sequences without an entry stay absent.
    #[must_use]
    pub(crate) fn remove(
        mut self,
        timeline: TimelineRef<'_>,
        ranges: &BTreeMap<Sequence, Sequence>,
    ) -> Batch {
        let name = self.tail.remove(timeline, ranges);
        let ranges = ranges.iter().map(|(first, last)| (*first, *last)).collect();
        self.change(timeline, &name, ChangeKind::Remove(ranges));
        self
    }

    /// Moves the floor of a timeline.
    #[must_use]
    pub(crate) fn move_floor(mut self, timeline: TimelineRef<'_>, floor: Floor) -> Batch {
        let name = self.tail.trim(timeline, floor);
        self.change(timeline, &name, ChangeKind::Trim(floor));
        self
    }

    fn change(&mut self, timeline: TimelineRef<'_>, name: &Range<usize>, kind: ChangeKind) {
        self.changes.push(Change { store: timeline.store, name: place_of(name), hash: 0, kind });
    }

    /// The number of appends, one for each timeline, and of changes. A trim or a delete counts
    /// twice.
    pub fn operations(&self) -> usize {
        let listed = self.list.as_ref().map_or(0, |listed| listed.list.len());
        self.targets.len() + listed + self.changes.len() + 2 * self.removals.len()
    }

    /// Sets a lifetime of their own for the entries appended from here on; `None`: only the store's
    /// TTL applies. It is counted in whole milliseconds: a fraction is rounded up, and more than
    /// `u64::MAX` milliseconds are that many. Zero is refused.
    #[must_use]
    pub fn lifetime(mut self, lifetime: Option<Duration>) -> Batch {
        match limit_ms(lifetime) {
            Ok(lifetime_ms) => self.lifetime_ms = lifetime_ms,
            Err(error) => self.refuse(error),
        }
        self
    }

    /// The bodies appended from here on begin with eight bytes for the *origin*: zeros when they
    /// are submitted, and for readers the sequence that the batch's first append was given,
    /// little-endian. So each copy of a fan-out contains the sequence of the original, which nobody
    /// knows before the batch is committed.
    #[must_use]
    pub fn stamp_origin(self) -> Batch {
        Batch { stamped: true, ..self }
    }

    /// Sets the meaning of a success for this batch. Among the batches of one fsync, the strictest
    /// durability applies.
    #[must_use]
    pub fn durability(self, durability: Durability) -> Batch {
        Batch { durability, ..self }
    }

    /// Commits only if the last sequence of the first append's timeline is this one; otherwise
    /// [`Error::LastSequence`].
    #[must_use]
    pub fn if_last(mut self, last: Sequence) -> Batch {
        self.conditions.if_last = Some(last);
        self
    }

    /// Commits only if the last sequence of this timeline, of any store, is this one; otherwise
    /// [`Error::LastSequence`]. It may be called for several timelines: those on which the caller's
    /// decision was based. The batch need not write to them.
    #[must_use]
    pub fn if_last_of(
        mut self,
        store: impl Into<StoreKey>,
        timeline: impl AsRef<[u8]>,
        last: Sequence,
    ) -> Batch {
        if let Some(timeline) = self.timeline(store, timeline.as_ref()) {
            self.bases.push((timeline.store, timeline.name.to_vec(), last));
        }
        self
    }

    /// Gives the first append this sequence instead of the next one, for an import. It must be
    /// above the last one, or the batch fails with [`Error::SequenceOrder`]. The skipped sequences
    /// stay absent.
    #[must_use]
    pub fn sequence(mut self, sequence: Sequence) -> Batch {
        self.conditions.sequence = Some(sequence);
        self
    }

    /// Sets a client's id of at most [`MAX_ID_BYTES`] bytes, in the timeline of the first append;
    /// the empty id is an id like any other. The same id with the same batch, within the window of
    /// [`Options::id_window`], commits nothing and returns the original receipt; with another batch
    /// it is an [`Error::IdConflict`]. The same batch has the same appends and changes in the same
    /// order; durability, conditions and lifetimes may differ. An id is remembered only if its
    /// batch is committed.
    #[must_use]
    pub fn id(self, id: impl AsRef<[u8]>) -> Batch {
        self.client_id(id.as_ref(), None)
    }

    /// The same for an id that stands for these bytes, whatever else is in the batch: a retry may
    /// append to other timelines, with other bodies. The original receipt then contains only the
    /// sequence of the first append.
    #[must_use]
    pub fn id_for(self, id: impl AsRef<[u8]>, what: impl AsRef<[u8]>) -> Batch {
        self.client_id(id.as_ref(), Some(stands_for(what.as_ref())))
    }

    fn client_id(mut self, id: &[u8], stands_for: Option<IdHashes>) -> Batch {
        if id.len() > MAX_ID_BYTES {
            self.refuse(Error::TooLarge { what: "an id", actual: id.len(), limit: MAX_ID_BYTES });
        }
        self.id = Some(ClientId { id: id.to_vec(), stands_for });
        self
    }

    /// The batch in the form that the committer of this engine uses: encoded, with a checksum,
    /// its names hashed.
    pub(crate) fn prepare(
        mut self,
        engine: Instance,
        options: &Options,
        hasher: &impl BuildHasher,
    ) -> Result<Prepared> {
        if self.engine.is_some_and(|own| own != engine) {
            self.refuse(Error::foreign_store());
        }
        let id = self.encoded_id.take().or_else(|| self.encode_id());
        let conditions = self.conditions;
        if self.targets.is_empty()
            && (conditions.if_last.is_some() || conditions.sequence.is_some())
        {
            self.refuse(Error::invalid(
                "a last sequence or a chosen one needs an append that it concerns",
            ));
        }
        let does_nothing = self.targets.is_empty() && self.changes.is_empty();
        if does_nothing && !self.finds_removals && !self.bases.is_empty() {
            self.refuse(Error::invalid("a condition needs an append or a change that it concerns"));
        }
        if let Some(wrong) = self.wrong {
            return Err(wrong);
        }
        let limit = options.max_body_bytes.min(MAX_BODY_BYTES);
        let edited = self.changes.iter().filter_map(|change| match &change.kind {
            ChangeKind::Edit(_, body) => Some(body.len()),
            _ => None,
        });
        let mut lengths = self.bodies.iter().map(|body| body.place.len()).chain(edited);
        if let Some(actual) = lengths.find(|len| *len > limit) {
            return Err(Error::TooLarge { what: "a body", actual, limit });
        }
        // A merge relies on the trims and removals that it finds in a memtable, so a power cut must
        // not undo them.
        let removes = |change: &Change| !matches!(change.kind, ChangeKind::Edit(..));
        if self.changes.iter().any(removes) {
            self.durability = Durability::Disk;
        }
        let (tail, names_at) = self.tail.finish();
        let mut prepared = Prepared {
            tail_crc: crc(Seed::NONE, &tail),
            tail: shared(tail),
            targets: self.targets,
            changes: self.changes,
            removed: self.removed,
            bodies: self.bodies,
            list: self.list,
            durability: self.durability,
            conditions: self.conditions,
            bases: Vec::new(),
            id,
        };
        prepared.bases = Basis::all(self.bases, hasher);
        prepared.place_names(names_at as u32, hasher);
        Ok(prepared)
    }

    /// Writes the id after the appends that it stands for.
    fn encode_id(&mut self) -> Option<(Range<u32>, IdHashes)> {
        let id = self.id.take()?;
        let Some(first) = self.targets.first() else {
            self.refuse(Error::invalid("an id needs an append that it stands for"));
            return None;
        };
        let content = Content {
            tail: &self.tail,
            bodies: &self.bodies,
            targets: &self.targets,
            list: self.list.as_ref(),
            changes: &self.changes,
            removals: &self.removals,
        };
        let hashes = id.stands_for.unwrap_or_else(|| content.hashes());
        let name = self.tail.name_at(&first.name).to_vec();
        let timeline = TimelineRef { store: first.store, name: &name };
        let (_, id) = self.tail.id(timeline, &id.id, hashes);
        Some((place_of(&id), hashes))
    }
}

/// The bytes in a form that the committer can share without allocating.
fn shared(bytes: Vec<u8>) -> Bytes {
    let bytes = Bytes::from(bytes);
    // The reference count is allocated by the first clone.
    drop(bytes.clone());
    bytes
}

fn place_of(range: &Range<usize>) -> Range<u32> {
    range.start as u32..range.end as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::wal::decode_tail;
    use crate::options::MAX_BATCH_OPERATIONS;

    const HERE: Instance = Instance(7);
    const STORE: StoreKey = StoreKey { instance: HERE, id: StoreId(1) };

    fn prepare(batch: Batch) -> Result<Prepared> {
        batch.prepare(HERE, &Options::default(), &hashbrown::DefaultHashBuilder::default())
    }

    #[test]
    fn targets_and_bodies_are_found_in_the_tail() {
        let batch = Batch::new()
            .append(STORE, b"a", b"one")
            .fan_out(b"two", [(STORE, b"b".as_slice()), (STORE, b"c")]);
        let prepared = prepare(batch).expect("a good batch");
        let seen: Vec<_> = prepared
            .targets
            .iter()
            .map(|target| {
                (
                    prepared.timeline(target.store, &target.name).name,
                    &prepared.tail[prepared.bodies[target.body as usize].place.clone()],
                )
            })
            .collect();
        assert_eq!(seen, [(&b"a"[..], &b"one"[..]), (b"b", b"two"), (b"c", b"two")]);
        assert_eq!(decode_tail(&prepared.tail).expect("decodes").len(), 2);
    }

    #[test]
    fn what_is_over_a_limit_is_refused_by_name() {
        let long_name =
            prepare(Batch::new().append(STORE, [b'n'; 256], b"x")).expect_err("too long");
        assert!(long_name.to_string().contains("256 bytes, over the limit of 255"), "{long_name}");
        let big = vec![0; 1024 * 1024 + 1];
        assert!(matches!(
            prepare(Batch::new().append(STORE, b"a", &big)),
            Err(Error::TooLarge { what: "a body", .. })
        ));
        let name: &[u8] = b"a";
        let fan_out = |count| {
            let targets = std::iter::repeat_n((STORE, name), count);
            prepare(Batch::new().append(STORE, name, b"x").fan_out(b"x", targets))
        };
        assert!(fan_out(MAX_BATCH_OPERATIONS - 1).is_ok());
        let refused = fan_out(MAX_BATCH_OPERATIONS).expect_err("too many").to_string();
        assert!(
            refused.contains("262145 appends and changes, over the limit of 262144"),
            "{refused}"
        );
        let edits = 0..=MAX_BATCH_OPERATIONS;
        let edits = edits.fold(Batch::new(), |batch, _| batch.edit(STORE, name, 1, b"x"));
        assert!(matches!(prepare(edits), Err(Error::TooManyOperations { .. })));
        assert!(matches!(
            prepare(Batch::new().append(STORE, b"", b"x")),
            Err(Error::Invalid { .. })
        ));
    }

    #[test]
    fn conditions_without_an_append_are_refused() {
        let edit = || Batch::new().edit(STORE, b"a", 1, b"x");
        for batch in [Batch::new().if_last(0), edit().if_last(0), edit().sequence(7)] {
            assert!(matches!(prepare(batch), Err(Error::Invalid { .. })));
        }
        assert!(prepare(edit()).is_ok() && prepare(Batch::new()).is_ok());
    }
}
