//! The parts of an open engine that its paths share, and the signals between its threads.
//!
//! ```text
//!  committer     ──sealed a memtable──> flush thread ──flushed──> compaction thread
//!        ^────────────── progress (or: the disk is full) ──────────────┘
//! ```
//!
//! This folder does not know how the engine writes, reads, flushes, merges or expires: those paths
//! use it, and it uses none of them.

mod current;
pub mod figures;
mod log_files;
mod merging;
pub mod moment;
pub mod refusals;
pub mod reserve;
mod signals;
mod times;
pub mod turns;
pub mod view;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use parking_lot::{Mutex, RwLock};

use crate::clock::Clock;
use crate::error::{Error, Failure, Result};
use crate::format::header::EngineId;
use crate::format::manifest::{Copies, Live, StoreRecord};
use crate::ids::{Epoch, Instance, Lsn, StoreId, TimeMs, TimelineRef};
use crate::manifest::Manifest;
use crate::memtable::SlotId;
use crate::metrics::Counters;
use crate::notify::wake::WakeQueue;
use crate::notify::watch::WatchTable;
use crate::options::Options;
use crate::segment::{BlockCache, Segment};
use crate::timeline::Key;
use crate::vfs::Dir;
use crate::wal::Preparer;
pub use current::CurrentView;
pub use log_files::LogFiles;
pub use merging::Merging;
use moment::HeldMoments;
use refusals::Refusals;
use reserve::Reserve;
pub use signals::{Closing, Poison, Progress};
pub use times::CommitTimes;
pub use turns::Turns;
use view::View;

/// The parts of an open engine.
pub struct State {
    pub dir: Dir,
    pub options: Options,
    /// The number of this open engine. Handles of other engines are refused.
    pub instance: Instance,
    pub clock: Arc<dyn Clock>,
    pub engine_id: EngineId,
    pub writer_epoch: u64,
    pub view: CurrentView,
    pub manifest: Mutex<Manifest>,
    /// The manifest's stores, readable without waiting for a manifest that is being written.
    pub stores: RwLock<Vec<StoreRecord>>,
    /// The history that cursors belong to.
    pub history: u64,
    /// The moments that callers hold.
    pub held: HeldMoments,
    /// The locks by which paths exclude each other.
    pub turns: Turns,
    /// The shared state of merging.
    pub merging: Merging,
    /// The log's files.
    pub log_files: LogFiles,
    pub watch: Arc<WatchTable>,
    /// The queue of the thread that calls wakers.
    pub wake: WakeQueue,
    pub cache: Arc<BlockCache>,
    pub hasher: hashbrown::DefaultHashBuilder,
    /// The times of commits and reads.
    pub times: CommitTimes,
    pub counters: Arc<Counters>,
    pub poison: Poison,
    /// Creates log files ahead of need. `None` if the engine is read-only or closed.
    pub preparer: Mutex<Option<Arc<Preparer>>>,
    /// Counts refusals, which are logged once a minute.
    pub refusals: Refusals,
    /// A reserve used to reclaim space.
    pub reserve: Reserve,
    /// The end of the log, if no later group confirms that its last group was durable; 0: one does,
    /// or there is no group.
    pub unvouched: AtomicU64,
    /// After damage to the log, which only a read-only open skips: the timelines for which a later
    /// record proves that none of their entries is missing. All others may lack entries. `None`:
    /// there was no such damage.
    pub whole: Option<HashSet<SlotId>>,
    pub progress: Progress,
    pub closing: Closing,
}

impl State {
    /// A timeline with its hash in the memtables.
    pub fn key<'a>(&self, timeline: TimelineRef<'a>) -> Key<'a> {
        Key::new(&self.hasher, timeline)
    }

    /// The time at which a lifetime starts, and by which a read judges it (`clock::SureTime`).
    pub fn now_ms(&self) -> TimeMs {
        self.times.now_ms()
    }

    /// The time that deletion, forgetting and refusal use (`clock::SureTime`).
    pub fn sure_now_ms(&self) -> TimeMs {
        self.times.sure_now_ms()
    }

    /// Whether an id whose window began at `start_ms` is still remembered.
    pub fn remembers(&self, start_ms: TimeMs) -> bool {
        start_ms >= self.remembered_from_ms()
    }

    /// Ids whose window began before this time are forgotten for good: sure time never decreases.
    pub fn remembered_from_ms(&self) -> TimeMs {
        self.sure_now_ms().saturating_add(1).saturating_sub(self.options.id_window_ms)
    }

    /// Whether the store exists.
    pub fn has_store(&self, store: StoreId) -> bool {
        self.stores.read().iter().any(|known| known.id == store)
    }

    /// An error if a store was dropped. A reader calls this after it has taken the view, so that it
    /// notices a view that lacks the store's segments.
    pub fn check_store(&self, store: StoreId) -> Result<()> {
        if self.has_store(store) { Ok(()) } else { Err(Error::StoreDropped) }
    }

    /// Adds segments to the view that is being changed. Segments of a store that was dropped while
    /// they were written are removed instead.
    pub fn add_segments(&self, view: &mut View, segments: Vec<Arc<Segment>>) {
        let (known, dropped): (Vec<_>, Vec<_>) =
            segments.into_iter().partition(|segment| self.has_store(segment.record().store));
        dropped.iter().for_each(|segment| segment.make_obsolete());
        view.segments.add(known);
    }

    /// The name of a store, for messages; if it was dropped, its number.
    pub fn store_name(&self, store: StoreId) -> String {
        let stores = self.stores.read();
        let known = stores.iter().find(|known| known.id == store);
        known.map_or_else(|| format!("store {}", store.0), |known| known.name.clone())
    }

    /// The number of copies of the files of a store's new segments.
    pub fn copies(&self, store: StoreId) -> Copies {
        self.stores
            .read()
            .iter()
            .find(|known| known.id == store)
            .map_or(Copies::Once, |known| known.copies)
    }

    /// The TTL of a store's entries; 0: no limit.
    pub fn ttl_ms(&self, store: StoreId) -> u64 {
        self.retention(store).0
    }

    /// The TTL of a store, and the time before which entries are expired whatever the TTL is now.
    pub fn retention(&self, store: StoreId) -> (u64, TimeMs) {
        let stores = self.stores.read();
        let known = stores.iter().find(|known| known.id == store);
        known.map_or((0, 0), |known| (known.ttl_ms, known.gone_before_ms))
    }

    /// Whether entries at the end of a timeline may be missing because of damage to the log.
    pub fn may_lack_entries(&self, view: &View, key: Key<'_>) -> bool {
        let is_whole = |whole: &HashSet<SlotId>| {
            view.active.find(key).is_some_and(|slot| whole.contains(&slot))
        };
        self.whole.as_ref().is_some_and(|whole| !is_whole(whole))
    }

    /// The epoch of a store: the history, and the store's generation if it ever began another
    /// epoch.
    pub fn epoch(&self, store: StoreId) -> Epoch {
        let stores = self.stores.read();
        let number =
            stores.iter().find(|known| known.id == store).map_or(0, |known| known.generation);
        Epoch { history: self.history, number }
    }

    /// The error to report for a write that failed. If the failure is one after which nothing can
    /// be trusted, the engine is poisoned here.
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

    /// The shortest TTL of the stores that have one.
    pub fn shortest_ttl_ms(&self) -> Option<u64> {
        let stores = self.stores.read();
        stores.iter().map(|store| store.ttl_ms).filter(|ttl_ms| *ttl_ms != 0).min()
    }

    /// Frees the log files before a checkpoint that the manifest has durably. One may be kept to be
    /// used again, unless its bytes will soon have to leave the disk.
    pub fn retire_log(&self, checkpoint: Lsn) {
        let since_ms = self
            .shortest_ttl_ms()
            .map_or(0, |ttl_ms| self.now_ms().saturating_sub(ttl_ms / 2).saturating_add(1));
        let preparer = self.preparer.lock().clone();
        let keep = |file| preparer.as_ref().is_some_and(|preparer| preparer.keep(file));
        self.log_files.retire_below(checkpoint, since_ms, keep);
    }

    /// Whether bytes in the active log file, or in the one that is kept, are so old that entries in
    /// them expire soon.
    pub fn is_log_due(&self) -> bool {
        let due = self.shortest_ttl_ms().zip(self.log_files.oldest_ms());
        let age_ms = |since_ms| self.now_ms().saturating_sub(since_ms);
        due.is_some_and(|(ttl_ms, since_ms)| age_ms(since_ms) >= (ttl_ms / 4 * 3).max(1000))
    }

    /// Sees to it that what the present log files hold leaves the disk when they are not needed.
    pub fn doom_log(&self) {
        self.log_files.doom(|| {
            self.make_space();
        });
    }

    /// Frees the space of a log file that was prepared ahead. True if there was one.
    pub fn make_space(&self) -> bool {
        self.preparer.lock().as_ref().is_some_and(|preparer| preparer.discard())
    }

    /// The number of bytes that a merge may write: the free space of the disk beyond what the log
    /// and the next flush need. While the reserve is out, all of the free space, since nothing is
    /// appended.
    pub fn room_bytes(&self) -> u64 {
        let free = self.dir.free_bytes().unwrap_or(u64::MAX);
        if self.reserve.is_out() {
            return free;
        }
        free.saturating_sub(2 * self.options.wal_file_bytes + self.options.memtable_bytes() as u64)
    }

    /// Whether the disk is full, or so nearly full that there may be no space for the log or for a
    /// flush.
    pub fn is_short_of_space(&self) -> bool {
        self.reserve.is_out() || self.room_bytes() == 0
    }

    /// The bytes of all segments' files.
    pub fn segment_bytes(&self) -> u64 {
        self.view.load().segments.all().map(|segment| segment.record().bytes()).sum()
    }

    /// Sets the budget of decoded blocks to the part of the memory budget that sealed memtables
    /// leave.
    pub fn share_memory(&self) {
        self.cache.set_budget(self.options.cache_bytes(self.view.load().sealed.len()));
    }

    /// Changes the stores: first in the manifest, then in memory.
    pub fn change_stores(&self, change: impl FnOnce(&mut Live)) -> Result<()> {
        self.change_live(change).map_err(|failure| self.failed(failure))
    }

    /// The same for callers that handle the failure themselves.
    pub fn change_live(&self, change: impl FnOnce(&mut Live)) -> Result<(), Failure> {
        let mut manifest = self.manifest.lock();
        manifest.commit(change)?;
        self.stores.write().clone_from(&manifest.live().stores);
        self.name_stores();
        Ok(())
    }

    /// Changes what is live so that space is freed. If the disk is too full even for that, the
    /// reserve is given back to it.
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

    /// Passes the stores' names on, for messages about damage.
    pub fn name_stores(&self) {
        let stores = self.stores.read();
        self.cache
            .damages()
            .name_stores(stores.iter().map(|store| (store.id, store.name.as_str())));
    }

    /// Whether the threads should end.
    pub fn is_closing(&self) -> bool {
        self.closing.is_set()
    }
}
