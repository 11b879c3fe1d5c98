//! The trims and deletes of a batch, as its caller asked for them. When the batch is queued,
//! `write/removal.rs` finds the entries that they remove.
//!
//! This file does not know the content of any timeline.

use super::Batch;
use crate::error::Error;
use crate::format::checksum::name_hash;
use crate::ids::{Sequence, StoreId, StoreKey, TimeMs, TimelineRef};

/// The entries that a trim removes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Trim {
    /// Entries with sequences below this one.
    Before(Sequence),
    /// Entries with an earlier time, Unix ms.
    Older(TimeMs),
    /// All entries except this number of the newest readable ones.
    Keep(u64),
}

/// A removal in one timeline.
#[derive(Clone, Debug)]
pub(crate) struct Removal {
    pub store: StoreId,
    pub name: Vec<u8>,
    pub what: Removed,
}

/// The entries that a removal asks for.
#[derive(Clone, Debug)]
pub(crate) enum Removed {
    Start(Trim),
    /// Sorted, each once.
    Entries(Vec<Sequence>),
}

impl Removal {
    /// The timeline.
    pub fn timeline(&self) -> TimelineRef<'_> {
        TimelineRef { store: self.store, name: &self.name }
    }

    /// The numbers that tell it from another removal, for an id.
    pub(super) fn numbers(&self) -> Vec<u64> {
        let mut numbers = vec![u64::from(self.store.0), name_hash(&self.name)];
        match &self.what {
            Removed::Start(Trim::Before(sequence)) => numbers.extend([4, *sequence]),
            Removed::Start(Trim::Older(time_ms)) => numbers.extend([5, *time_ms]),
            Removed::Start(Trim::Keep(count)) => numbers.extend([6, *count]),
            Removed::Entries(sequences) => {
                numbers.extend([7, sequences.len() as u64]);
                numbers.extend(sequences);
            }
        }
        numbers
    }
}

impl Batch {
    /// Removes the start of a timeline, as it is when the call that queues the batch reads it:
    /// entries that this batch appends stay, as do those of batches that are still on their way,
    /// and [`Trim::Keep`] does not count them. Readers with a cursor below that get the
    /// verdict [`Verdict::Trimmed`](crate::Verdict::Trimmed). Such a batch is durable on the disk
    /// whatever [`Batch::durability`] says.
    ///
    /// The number of readable entries that a batch removed is in [`Receipt::removed`]. A batch
    /// removes from a timeline once. The call that queues it may read the disk, and waits while
    /// another change of the same timeline is on its way; so [`Engine::prepare`] refuses it.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # use strandline::{Batch, Engine, Options, Trim};
    /// # let engine = Engine::open(dir.path(), Options::default())?;
    /// # let feed = engine.create_store("feed", None)?;
    /// for body in ["one", "two", "three"] {
    ///     // The newest two entries stay: the one that is appended, and one before it.
    ///     let batch = Batch::new().append(&feed, b"f", body).trim(&feed, b"f", Trim::Keep(1));
    ///     engine.commit(batch)?;
    /// }
    /// assert_eq!(feed.info(b"f")?.count, 2);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// [`Receipt::removed`]: crate::Receipt::removed
    /// [`Engine::prepare`]: crate::Engine::prepare
    #[must_use]
    pub fn trim(self, store: impl Into<StoreKey>, timeline: impl AsRef<[u8]>, trim: Trim) -> Batch {
        self.removal(store, timeline.as_ref(), Removed::Start(trim))
    }

    /// Removes single entries, as [`Batch::trim`] removes the start: those that were readable, and
    /// those lost to damage, are counted. A removed entry leaves a hole, not a loss.
    #[must_use]
    pub fn delete(
        self,
        store: impl Into<StoreKey>,
        timeline: impl AsRef<[u8]>,
        sequences: impl IntoIterator<Item = Sequence>,
    ) -> Batch {
        let mut sequences: Vec<Sequence> = sequences.into_iter().collect();
        sequences.sort_unstable();
        sequences.dedup();
        self.removal(store, timeline.as_ref(), Removed::Entries(sequences))
    }

    fn removal(mut self, store: impl Into<StoreKey>, name: &[u8], what: Removed) -> Batch {
        let Some(timeline) = self.timeline(store, name) else { return self };
        self.removals.push(Removal { store: timeline.store, name: name.to_vec(), what });
        self.check_count(0);
        self
    }

    /// Whether it removes entries: what they are must be found before it is prepared.
    pub(crate) fn has_removals(&self) -> bool {
        !self.removals.is_empty()
    }

    /// Takes the removals, to be found. An id stands for them as they were asked for.
    pub(crate) fn take_removals(&mut self) -> Vec<Removal> {
        self.encoded_id = self.encode_id();
        self.finds_removals = true;
        let removals = std::mem::take(&mut self.removals);
        let mut timelines: Vec<_> = removals.iter().map(Removal::timeline).collect();
        timelines.sort_unstable();
        if timelines.windows(2).any(|pair| pair[0] == pair[1]) {
            self.refuse(Error::invalid(
                "a batch removes from a timeline once: commit a second batch for the other removal",
            ));
        }
        removals
    }

    /// Counts entries that were found, and are removed with the batch.
    pub(crate) fn count_removed(&mut self, count: u64) {
        self.removed += count;
        self.check_size();
    }

    /// Fills the batch in a loop.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # use strandline::{Batch, Engine, Options};
    /// # let engine = Engine::open(dir.path(), Options::default())?;
    /// # let rooms = engine.create_store("rooms", None)?;
    /// let mut batch = Batch::new();
    /// for (room, body) in [("a", "one"), ("b", "two")] {
    ///     batch.add(|batch| batch.append(&rooms, room, body));
    /// }
    /// assert_eq!(engine.commit(batch)?.sequences, [1, 1]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// If `fill` panics, the batch is empty.
    pub fn add(&mut self, fill: impl FnOnce(Batch) -> Batch) {
        *self = fill(std::mem::take(self));
    }
}
