//! A store: a named set of timelines, with the methods by which a caller reads and changes it.
//!
//! This folder does not know how any of this is done; each method calls a function of the read or
//! write path.

mod append;
mod entries;
mod settings;
mod snapshot;

use std::fmt;
use std::ops::RangeBounds;
use std::sync::Arc;
use std::time::Duration;

pub use append::AppendOptions;
pub use entries::Entries;
pub use settings::{StoreInfo, StoreOptions};
pub use snapshot::Snapshot;

use crate::entry::{Entry, Info, Limit, Page, Receipt};
use crate::error::{Error, Result};
use crate::ids::{BodyKey, Epoch, Sequence, StoreId, StoreKey, TimeMs, TimelineRef, limit_of};
use crate::read::list;
use crate::read::{Reading, page};
use crate::running::Running;
use crate::state::moment::{HeldMoment, Moment};
use crate::timeline::check_name;
use crate::write::batch::{Batch, Trim, original, stands_for};
use crate::write::change;

/// A named set of timelines. A timeline exists once it was appended to; one that was never written
/// reads as empty.
///
/// After a store was [dropped](crate::Engine::drop_store), each of its reads and writes returns
/// [`Error::StoreDropped`], even if a store with the same name was created again: that is a
/// different store. After the engine was closed, each returns [`Error::Closed`]: another engine may
/// have written to the directory since.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let engine = strandline::Engine::open(dir.path(), strandline::Options::default())?;
/// use strandline::Limit;
/// let inboxes = engine.create_store("inboxes", None)?;
/// for body in ["one", "two", "three"] {
///     inboxes.append("ann", body)?;
/// }
/// let page = inboxes.read_after("ann", 1, Limit::entries(50))?;
/// let unread: Vec<_> = page.entries.iter().map(|entry| &entry.body[..]).collect();
/// assert_eq!(unread, [&b"two"[..], b"three"]);
/// assert_eq!((page.first, page.last, page.next), (1, 3, 3));
/// assert_eq!(inboxes.latest("ann", 1)?.entries[0].sequence, 3);
/// # Ok::<(), strandline::Error>(())
/// ```
#[derive(Clone)]
pub struct Store {
    pub(crate) running: Arc<Running>,
    pub(crate) id: StoreId,
    pub(crate) name: Arc<str>,
    /// The moment that reads show; `None`: the current state.
    pub(crate) at: Option<Arc<HeldMoment>>,
}

impl fmt::Debug for Store {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Store").field("name", &self.name).finish_non_exhaustive()
    }
}

impl From<&Store> for StoreKey {
    fn from(store: &Store) -> StoreKey {
        StoreKey { instance: store.running.state.instance, id: store.id }
    }
}

impl Store {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The TTL of entries; `None`: they live for ever.
    pub fn ttl(&self) -> Option<Duration> {
        limit_of(self.running.state.ttl_ms(self.id))
    }

    /// The epoch that the sequences of its timelines belong to. A cursor of another epoch says
    /// nothing about these timelines.
    ///
    /// A store that was created has an epoch of its own, which no other store of its name ever had.
    /// The epoch changes when an older state is restored. It also changes when the engine is opened
    /// after a power cut that may have lost entries of this store that were committed with
    /// [`Durability::Os`](crate::Durability::Os): their sequences are given again. It does not
    /// change while an engine is open.
    pub fn epoch(&self) -> Epoch {
        self.running.state.epoch(self.id)
    }

    /// Appends one body and waits until it is durable. [`Store::append_with`] takes options. For
    /// many, use [`Engine::submit`](crate::Engine::submit).
    pub fn append(&self, timeline: impl AsRef<[u8]>, body: impl AsRef<[u8]>) -> Result<Sequence> {
        let batch = Batch::new().append(self, timeline, body);
        Ok(self.running.commit(batch)?.sequences[0])
    }

    /// The same store as of a snapshot: its reads show that moment, and nothing that was committed
    /// later. Entries still expire meanwhile. Writes are not affected.
    ///
    /// # Panics
    /// If the snapshot is of another engine.
    #[must_use]
    pub fn at(&self, snapshot: &Snapshot) -> Store {
        let is_same = Arc::ptr_eq(&self.running, &snapshot.running);
        assert!(is_same, "the snapshot belongs to another engine");
        Store { at: Some(snapshot.held.clone()), ..self.clone() }
    }

    /// The moment that reads show.
    fn moment(&self) -> Result<Moment> {
        if self.running.state.is_closing() {
            return Err(Error::Closed { what: "the engine is closed: nothing can be read" });
        }
        let moment = match &self.at {
            Some(held) => held.moment()?,
            None => self.running.state.view.moment(),
        };
        self.running.state.check_store(self.id)?;
        Ok(moment)
    }

    fn timeline<'a>(&self, name: &'a [u8]) -> Result<TimelineRef<'a>> {
        check_name(name)?;
        Ok(TimelineRef { store: self.id, name })
    }

    fn read<T>(
        &self,
        timeline: impl AsRef<[u8]>,
        read: impl FnOnce(Reading<'_>) -> Result<T>,
    ) -> Result<T> {
        let timeline = self.timeline(timeline.as_ref())?;
        let state = &self.running.state;
        let moment = self.moment()?;
        read(Reading::new(state, &moment, state.key(timeline)))
    }

    /// Removes the start of a timeline. Returns the number of readable entries removed. Readers
    /// with a cursor below that get the verdict [`Verdict::Trimmed`](crate::Verdict::Trimmed).
    pub fn trim(&self, timeline: impl AsRef<[u8]>, trim: Trim) -> Result<u64> {
        Ok(self.running.commit(Batch::new().trim(self, timeline, trim))?.removed)
    }

    /// Removes single entries. Returns the number of entries removed: those that were readable, and
    /// those lost to damage. A removed entry leaves a hole, not a loss.
    pub fn delete(&self, timeline: impl AsRef<[u8]>, sequences: &[Sequence]) -> Result<u64> {
        let batch = Batch::new().delete(self, timeline, sequences.iter().copied());
        Ok(self.running.commit(batch)?.removed)
    }

    /// Replaces the body of an entry; its sequence and time stay. False if there is no such
    /// readable entry.
    pub fn edit(
        &self,
        timeline: impl AsRef<[u8]>,
        sequence: Sequence,
        body: impl AsRef<[u8]>,
    ) -> Result<bool> {
        self.running.check_writable()?;
        let (state, pipeline) = (&self.running.state, &self.running.pipeline);
        let timeline = self.timeline(timeline.as_ref())?;
        let is_there = change::edit(state, pipeline, timeline, sequence, body.as_ref())?;
        // What was read of a store that was dropped meanwhile means nothing.
        state.check_store(self.id)?;
        Ok(is_there)
    }

    /// Removes all entries. False if there was no readable entry. The sequences of the timeline
    /// continue.
    pub fn drop_timeline(&self, timeline: impl AsRef<[u8]>) -> Result<bool> {
        Ok(self.trim(timeline, Trim::Keep(0))? > 0)
    }

    /// The entry with a sequence, if it is readable.
    pub fn get(&self, timeline: impl AsRef<[u8]>, sequence: Sequence) -> Result<Option<Entry>> {
        self.read(timeline, |reading| reading.get(sequence))
    }

    /// The key for changing the body of an entry in all entries that were appended with it in one
    /// batch ([`Batch::edit_body`](crate::Batch::edit_body)). `None` if there is no such readable
    /// entry, or if it was appended alone, before version 3 of the format, or by a salvage: then
    /// each entry is edited individually.
    pub fn body_of(
        &self,
        timeline: impl AsRef<[u8]>,
        sequence: Sequence,
    ) -> Result<Option<BodyKey>> {
        let place = self.read(timeline, |reading| reading.around_damage(true).body_of(sequence))?;
        let instance = self.running.state.instance;
        Ok(place.map(|place| BodyKey { instance, place }))
    }

    /// The entries inside the bounds, one by one, from either end.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// use strandline::{Engine, Options};
    /// let engine = Engine::open(dir.path(), Options::default())?;
    /// let rooms = engine.create_store("rooms", None)?;
    /// for body in ["one", "two", "three"] {
    ///     rooms.append(b"r", body.as_bytes())?;
    /// }
    /// let newest = rooms.entries(b"r", ..).rev().take(2).collect::<Result<Vec<_>, _>>()?;
    /// assert_eq!(newest.iter().map(|entry| entry.sequence).collect::<Vec<_>>(), [3, 2]);
    /// let first = rooms.entries(b"r", 1..).next().expect("an entry")?;
    /// assert_eq!(&first.body[..], b"one");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn entries(
        &self,
        timeline: impl AsRef<[u8]>,
        bounds: impl RangeBounds<Sequence>,
    ) -> Entries {
        let bounds = page::bounds(bounds.start_bound(), bounds.end_bound());
        Entries::new(self.clone(), timeline.as_ref(), bounds)
    }

    /// The newest `count` entries, the newest first.
    pub fn latest(&self, timeline: impl AsRef<[u8]>, count: usize) -> Result<Page> {
        self.range_back(timeline, .., Limit::entries(count))
    }

    /// The entries inside the bounds, ascending, up to the limit.
    pub fn range(
        &self,
        timeline: impl AsRef<[u8]>,
        bounds: impl RangeBounds<Sequence>,
        limit: Limit,
    ) -> Result<Page> {
        self.range_in(timeline, bounds, limit, false)
    }

    /// The entries inside the bounds, descending: the newest first.
    pub fn range_back(
        &self,
        timeline: impl AsRef<[u8]>,
        bounds: impl RangeBounds<Sequence>,
        limit: Limit,
    ) -> Result<Page> {
        self.range_in(timeline, bounds, limit, true)
    }

    fn range_in(
        &self,
        timeline: impl AsRef<[u8]>,
        bounds: impl RangeBounds<Sequence>,
        limit: Limit,
        descending: bool,
    ) -> Result<Page> {
        let (low, high) = page::bounds(bounds.start_bound(), bounds.end_bound());
        self.read(timeline, |reading| reading.range(low, high, limit, descending))
    }

    /// Whether a read of a timeline from a sequence on is answered from memory, so that it does not
    /// wait for the disk.
    pub fn is_in_memory(&self, timeline: impl AsRef<[u8]>, from: Sequence) -> Result<bool> {
        self.read(timeline, |reading| {
            for memtable in reading.view.memtables() {
                let Some(slot) = memtable.find(reading.key) else { continue };
                let (first, floor) =
                    memtable.with_slot(slot, |slot| (slot.first(), slot.end().floor));
                // If the first entry has expired, older places must be asked which other entries
                // have.
                let is_alive = reading.lifetimes.alive_from_ms == 0
                    || floor.lowest >= first
                    || (floor.start_ms != 0 && floor.start_ms >= reading.lifetimes.alive_from_ms);
                if first <= from.max(floor.lowest) && is_alive {
                    return Ok(true);
                }
            }
            Ok(reading.view.segments.of(reading.key.timeline.store).is_empty())
        })
    }

    /// The entries after a reader's cursor, and the verdict on the cursor. The page's `next` is the
    /// cursor for the next call.
    pub fn read_after(
        &self,
        timeline: impl AsRef<[u8]>,
        cursor: Sequence,
        limit: Limit,
    ) -> Result<Page> {
        self.read(timeline, |reading| reading.after(cursor, limit))
    }

    /// The newest readable entry.
    pub fn last(&self, timeline: impl AsRef<[u8]>) -> Result<Option<Entry>> {
        self.read(timeline, |reading| reading.last())
    }

    /// The highest sequence ever given and its time; zeros if the timeline was never written.
    pub fn end(&self, timeline: impl AsRef<[u8]>) -> Result<(Sequence, TimeMs)> {
        let end = self.read(timeline, |reading| reading.end())?;
        Ok((end.last, end.last_time_ms))
    }

    /// Whether [`Store::end`] does not wait for the disk.
    pub fn is_end_in_memory(&self, timeline: impl AsRef<[u8]>) -> Result<bool> {
        self.read(timeline, |reading| Ok(reading.end_near()?.is_some()))
    }

    /// The receipt of a batch with this id for these bytes, if one was committed within the window;
    /// see [`Batch::id_for`]. If the id stands for other bytes, it is an [`Error::IdConflict`].
    pub fn committed(
        &self,
        timeline: impl AsRef<[u8]>,
        id: impl AsRef<[u8]>,
        what: impl AsRef<[u8]>,
    ) -> Result<Option<Receipt>> {
        let state = &self.running.state;
        let found =
            self.read(timeline, |reading| reading.id(id.as_ref(), state.remembered_from_ms()))?;
        match found.filter(|found| state.remembers(found.start_ms)) {
            Some(found) => original(&found, stands_for(what.as_ref())).map(Some),
            None => Ok(None),
        }
    }

    /// Facts of the whole timeline.
    pub fn info(&self, timeline: impl AsRef<[u8]>) -> Result<Info> {
        self.read(timeline, |reading| reading.info())
    }

    /// The lowest readable sequence with this time (Unix ms) or a later one; `last + 1` if there is
    /// none.
    pub fn sequence_at(&self, timeline: impl AsRef<[u8]>, time_ms: TimeMs) -> Result<Sequence> {
        self.read(timeline, |reading| reading.sequence_at(time_ms))
    }

    /// The names of timelines with readable entries that start with `prefix` and are above `after`,
    /// in byte order; at most `count`.
    pub fn list(
        &self,
        prefix: impl AsRef<[u8]>,
        after: Option<&[u8]>,
        count: usize,
    ) -> Result<Vec<Vec<u8>>> {
        let state = &self.running.state;
        let moment = self.moment()?;
        list::list(state, &moment, self.id, prefix.as_ref(), after, count)
    }
}
