//! What the verbs share: the parts of an open engine, and the signals between its threads.
//!
//! ```text
//!  commit thread ──sealed a memtable──> flush thread ──flushed──> compaction thread
//!        ^────────────── progress (or: the disk is full) ──────────────┘
//! ```
//!
//! It does not know: what any verb does.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex, RwLock};

use crate::batch::timeline_hash;
use crate::clock::{Clock, SureTime};
use crate::error::{Error, Failure, Result};
use crate::format::header::EngineId;
use crate::format::manifest::{Copies, Live, StoreRecord};
use crate::ids::{FileNumber, Instance, StoreId, TimeMs, TimelineRef};
use crate::manifest::Manifest;
use crate::memtable::SlotId;
use crate::options::Options;
use crate::refusals::Refusals;
use crate::reserve::Reserve;
use crate::segment::{BlockCache, Segment};
use crate::stats::Counters;
use crate::vfs::Dir;
use crate::view::{CurrentView, View};
use crate::wake::WakeQueue;
use crate::wal::{Preparer, WalFile};
use crate::watch::WatchTable;

/// So many timelines can be changed at once, at most.
pub const CHANGE_LOCKS: usize = 64;

/// The parts of an open engine.
pub struct State {
    pub dir: Dir,
    pub options: Options,
    /// Which open engine this is. Handles of others are refused.
    pub instance: Instance,
    pub clock: Arc<dyn Clock>,
    pub engine_id: EngineId,
    pub writer_epoch: u64,
    pub view: CurrentView,
    pub manifest: Mutex<Manifest>,
    /// The manifest's stores, to look at without waiting for a manifest that is being written.
    pub stores: RwLock<Vec<StoreRecord>>,
    /// The history that cursors belong to.
    pub history: u64,
    /// Held while a group becomes visible, timeline by timeline.
    pub applying: RwLock<()>,
    /// Held for reading while a group is committed, for writing while a store is dropped: a group
    /// finds a store whole or not at all.
    pub dropping: RwLock<()>,
    /// Held while a timeline is changed, by its hash: a change reads before it writes.
    pub changing: [Mutex<()>; CHANGE_LOCKS],
    /// Held while segments are merged: one merge at a time, so that no segment is in two.
    pub merging: Mutex<()>,
    /// The log's files, oldest first.
    pub wal_files: Mutex<Vec<WalFile>>,
    pub watch: Arc<WatchTable>,
    /// What calls wakers.
    pub wake: WakeQueue,
    pub cache: Arc<BlockCache>,
    pub hasher: hashbrown::DefaultHashBuilder,
    /// The highest timestamp given so far.
    pub last_time_ms: AtomicU64,
    /// The time that deletion goes by, and, with the wall clock, lifetimes.
    pub sure: SureTime,
    /// Whether some lifetimes began at another time than their entries' timestamps: then starts may
    /// fall inside a timeline.
    pub own_starts: AtomicBool,
    pub counters: Counters,
    pub poison: Poison,
    /// Makes log files ahead of need. Gone when the engine is read-only or closed.
    pub preparer: Mutex<Option<Arc<Preparer>>>,
    /// Segments with a block that could not be read: they are not merged.
    pub unmergeable: Mutex<HashSet<FileNumber>>,
    /// The bytes that waited to be merged when the compaction thread last looked.
    pub debt_bytes: AtomicU64,
    /// Something is due to be merged, and the disk has no room for it.
    pub merge_waits: AtomicBool,
    /// How far merging is behind, and what it needs.
    pub lag: Lag,
    /// What was refused, to be told once a minute.
    pub refusals: Refusals,
    /// Held while expired segments, or a store, are dropped.
    pub expiring: Mutex<()>,
    /// Space kept back for getting space back.
    pub reserve: Reserve,
    /// Where the log ends, if its last group has nothing behind it that says that it was durable;
    /// 0: it has, or there is none.
    pub unvouched: AtomicU64,
    /// Behind damage to the log, which only a read-only open goes around: the timelines of which a
    /// later record shows that none of their entries is missing. Of all others some may be. `None`:
    /// there was no such damage.
    pub whole: Option<HashSet<SlotId>>,
    pub progress: Progress,
    pub closing: AtomicBool,
}

impl State {
    /// The memtables' hash of a timeline.
    pub fn hash(&self, timeline: TimelineRef<'_>) -> u64 {
        timeline_hash(&self.hasher, timeline)
    }

    /// The lock that changes of a timeline take.
    pub fn changing(&self, hash: u64) -> &Mutex<()> {
        &self.changing[(hash >> 32) as usize % CHANGE_LOCKS]
    }

    /// The timestamp of a commit, and what its lifetimes start at, by one look at the clock. A
    /// timestamp is never below one that was committed, so that a wall clock that goes back changes
    /// no order.
    pub fn moment(&self) -> (TimeMs, TimeMs) {
        // In this order: where the clocks agree, sure time is not the later one.
        let sure_ms = self.sure_now_ms();
        let wall_ms = self.clock.now_ms();
        (wall_ms.max(self.last_time_ms.load(Ordering::Relaxed)), wall_ms.max(sure_ms))
    }

    /// What a lifetime starts at, and a read goes by (`clock::SureTime`).
    pub fn now_ms(&self) -> TimeMs {
        self.sure.at_latest_ms(&*self.clock)
    }

    /// The time that may destroy, forget and refuse (`clock::SureTime`).
    pub fn sure_now_ms(&self) -> TimeMs {
        self.sure.now_ms(&*self.clock)
    }

    /// Something was committed at a time, with lifetimes that began at another.
    pub fn committed_at(&self, time_ms: TimeMs, start_ms: TimeMs) {
        self.last_time_ms.fetch_max(time_ms, Ordering::Relaxed);
        if start_ms != time_ms {
            self.own_starts.store(true, Ordering::Release);
        }
    }

    /// Whether an id whose window began at a time is still remembered.
    pub fn remembers(&self, start_ms: TimeMs) -> bool {
        start_ms >= self.remembered_from_ms()
    }

    /// Ids whose window began before this are forgotten, from now on: sure time never falls.
    pub fn remembered_from_ms(&self) -> TimeMs {
        self.sure_now_ms().saturating_add(1).saturating_sub(self.options.id_window_ms)
    }

    /// Whether there is such a store.
    pub fn has_store(&self, store: StoreId) -> bool {
        self.stores.read().iter().any(|known| known.id == store)
    }

    /// An error if a store was dropped. Who reads takes the view first: a view that lacks the
    /// store's segments is then noticed.
    pub fn check_store(&self, store: StoreId) -> Result<()> {
        if self.has_store(store) { Ok(()) } else { Err(Error::StoreDropped) }
    }

    /// Adds segments to the view that is being changed. Those of a store that was dropped while
    /// they were written go instead.
    pub fn add_segments(&self, view: &mut View, segments: Vec<Arc<Segment>>) {
        let (known, dropped): (Vec<_>, Vec<_>) =
            segments.into_iter().partition(|segment| self.has_store(segment.record().store));
        dropped.iter().for_each(|segment| segment.make_obsolete());
        view.segments.add(known);
    }

    /// How often files of a store's new segments are kept.
    pub fn copies(&self, store: StoreId) -> Copies {
        self.stores
            .read()
            .iter()
            .find(|known| known.id == store)
            .map_or(Copies::Once, |known| known.copies)
    }

    /// How long entries of a store live; 0: for ever.
    pub fn ttl_ms(&self, store: StoreId) -> u64 {
        self.retention(store).0
    }

    /// The TTL of a store, and the time before which entries are gone whatever it is now.
    pub fn retention(&self, store: StoreId) -> (u64, TimeMs) {
        let stores = self.stores.read();
        let known = stores.iter().find(|known| known.id == store);
        known.map_or((0, 0), |known| (known.ttl_ms, known.gone_before_ms))
    }

    /// Whether entries at the end of a timeline may be missing because of damage to the log.
    pub fn may_lack_entries(&self, view: &View, timeline: TimelineRef<'_>, hash: u64) -> bool {
        let is_whole = |whole: &HashSet<SlotId>| {
            view.active.find(timeline, hash).is_some_and(|slot| whole.contains(&slot))
        };
        self.whole.as_ref().is_some_and(|whole| !is_whole(whole))
    }

    /// The epoch of a store: the history, and the store's generation if it ever began another
    /// epoch.
    pub fn epoch(&self, store: StoreId) -> String {
        let stores = self.stores.read();
        let generation =
            stores.iter().find(|known| known.id == store).map_or(0, |known| known.generation);
        match generation {
            0 => format!("{:016x}", self.history),
            later => format!("{:016x}-{later}", self.history),
        }
    }

    /// What to tell those who asked for a write that failed. What cannot be trusted any more is
    /// poisoned here.
    pub fn failed(&self, failure: Failure) -> Error {
        match failure {
            Failure::Refused(error) => {
                if matches!(error, Error::DiskFull { .. }) {
                    self.counters.disk_full.add(1);
                }
                error
            }
            Failure::Poisoned(error) => {
                self.poison.set(&error);
                Error::Poisoned { why: error.to_string() }
            }
        }
    }

    /// Gives the space of a log file that was prepared ahead back. True when there was one.
    pub fn make_space(&self) -> bool {
        self.preparer.lock().as_ref().is_some_and(|preparer| preparer.discard())
    }

    /// How much a merge may write: what the disk has left beyond what the log and the next flush
    /// need. While the reserve is out, all of it, since nothing is appended.
    pub fn room_bytes(&self) -> u64 {
        let free = self.dir.free_bytes().unwrap_or(u64::MAX);
        if self.reserve.is_out() {
            return free;
        }
        free.saturating_sub(2 * self.options.wal_file_bytes + self.options.memtable_bytes() as u64)
    }

    /// Whether the disk is full, or so nearly that there may be no space for the log or for a
    /// flush.
    pub fn is_short_of_space(&self) -> bool {
        self.reserve.is_out() || self.room_bytes() == 0
    }

    /// The bytes of all segments' files.
    pub fn segment_bytes(&self) -> u64 {
        self.view.load().segments.all().map(|segment| segment.record().bytes()).sum()
    }

    /// Gives decoded blocks what the sealed memtables leave of the budget.
    pub fn share_memory(&self) {
        self.cache.set_budget(self.options.cache_bytes(self.view.load().sealed.len()));
    }

    /// Changes the stores: in the manifest first, then for everyone.
    pub fn change_stores(&self, change: impl FnOnce(&mut Live)) -> Result<()> {
        self.change_live(change).map_err(|failure| self.failed(failure))
    }

    /// The same for who knows what a failure means.
    pub fn change_live(&self, change: impl FnOnce(&mut Live)) -> Result<(), Failure> {
        let mut manifest = self.manifest.lock();
        manifest.commit(change)?;
        self.stores.write().clone_from(&manifest.live().stores);
        self.name_stores();
        Ok(())
    }

    /// Changes what is live so that space is given back: if the disk is too full even for that, the
    /// reserve is for it.
    pub fn free_space(&self, change: impl Fn(&mut Live)) -> Result<(), Failure> {
        let mut changed = self.change_live(&change);
        for give in [Reserve::give_back, Reserve::give_last] {
            if matches!(changed, Err(Failure::Refused(Error::DiskFull { .. })))
                && give(&self.reserve)
            {
                changed = self.change_live(&change);
            }
        }
        changed
    }

    /// Tells what stores are called, for messages about damage.
    pub fn name_stores(&self) {
        let stores = self.stores.read();
        self.cache
            .damages()
            .name_stores(stores.iter().map(|store| (store.id, store.name.as_str())));
    }

    /// Whether the threads should end.
    pub fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }
}

/// How far merging is behind, and what it needs.
#[derive(Debug, Default)]
pub struct Lag {
    /// Commits wait for it: it does not rest.
    hurries: AtomicBool,
    /// The last merge failed, and is tried again after a while.
    failing: AtomicBool,
    /// What the merge under way will write, about.
    reserved_bytes: AtomicU64,
}

impl Lag {
    /// Merging goes as fast as it can, or at its rate.
    pub fn hurry(&self, hurries: bool) {
        self.hurries.store(hurries, Ordering::Relaxed);
    }

    /// Whether merging goes as fast as it can.
    pub fn hurries(&self) -> bool {
        self.hurries.load(Ordering::Relaxed)
    }

    /// The last merge failed, or did not.
    pub fn merging_failed(&self, failed: bool) {
        self.failing.store(failed, Ordering::Relaxed);
    }

    /// Whether the last merge failed: then nobody waits for it.
    pub fn is_failing(&self) -> bool {
        self.failing.load(Ordering::Relaxed)
    }

    /// Keeps so many bytes for a merge, until it is done.
    pub fn reserve(&self, bytes: u64) -> ReservedBytes<'_> {
        self.reserved_bytes.store(bytes, Ordering::Relaxed);
        ReservedBytes(self)
    }

    /// What the merge under way will write, about; 0: there is none.
    pub fn reserved_bytes(&self) -> u64 {
        self.reserved_bytes.load(Ordering::Relaxed)
    }
}

/// What is kept for a merge under way.
pub struct ReservedBytes<'a>(&'a Lag);

impl Drop for ReservedBytes<'_> {
    fn drop(&mut self) {
        self.0.reserved_bytes.store(0, Ordering::Relaxed);
    }
}

/// The first failure after which no write may be acknowledged any more.
#[derive(Debug, Default)]
pub struct Poison {
    why: OnceLock<String>,
}

impl Poison {
    /// Refuses all writes from now on. The first reason stays.
    pub fn set(&self, why: &Error) {
        if self.why.set(why.to_string()).is_ok() {
            tracing::error!(%why, "writes are refused from now on");
        }
    }

    /// An error if writes are refused.
    pub fn check(&self) -> Result<()> {
        match self.why.get() {
            Some(why) => Err(Error::Poisoned { why: why.clone() }),
            None => Ok(()),
        }
    }
}

/// How threads learn that there is something to do, or that something was done.
#[derive(Debug, Default)]
pub struct Progress {
    state: Mutex<ProgressState>,
    changed: Condvar,
    ended: Condvar,
}

#[derive(Debug, Default)]
struct ProgressState {
    changes: u64,
    ended: bool,
    flush_failure: Option<Error>,
}

impl Progress {
    /// Something was sealed, flushed or merged, or the engine is closing.
    pub fn announce(&self) {
        self.state.lock().changes += 1;
        self.changed.notify_all();
    }

    /// The last flush failed (and will be tried again), or worked.
    pub fn flush_outcome(&self, failure: Option<Error>) {
        let mut state = self.state.lock();
        state.changes += 1;
        state.flush_failure = failure;
        drop(state);
        self.changed.notify_all();
    }

    /// Why the last flush failed, if it did.
    pub fn flush_failure(&self) -> Option<Error> {
        self.state.lock().flush_failure.clone()
    }

    /// How often something changed so far: to pass to [`Progress::wait`], read before looking.
    pub fn changes(&self) -> u64 {
        self.state.lock().changes
    }

    /// The engine is closing: nobody rests any more.
    pub fn end(&self) {
        self.state.lock().ended = true;
        self.ended.notify_all();
        self.announce();
    }

    /// Waits for so long, whatever changes, unless the engine is closing.
    pub fn rest(&self, time: Duration) {
        let mut state = self.state.lock();
        if !state.ended && !time.is_zero() {
            self.ended.wait_for(&mut state, time);
        }
    }

    /// Waits until something changed since `seen`, or the time is over.
    pub fn wait(&self, seen: u64, timeout: Duration) {
        let mut state = self.state.lock();
        if state.changes == seen {
            self.changed.wait_for(&mut state, timeout);
        }
    }
}
