//! What the verbs share: the parts of an open engine, and the signals between its threads.
//!
//! ```text
//!  commit thread ──sealed a memtable──> flush thread ──flushed──> compaction thread
//!        ^────────────── progress (or: the disk is full) ──────────────┘
//! ```
//!
//! It does not know: what any verb does.

mod current;
pub mod figures;
mod log_files;
mod merging;
pub mod moment;
pub mod refusals;
pub mod reserve;
mod signals;
mod times;
mod turns;
pub mod view;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use parking_lot::{Mutex, RwLock};

use crate::clock::Clock;
use crate::error::{Error, Failure, Result};
use crate::format::header::EngineId;
use crate::format::manifest::{Copies, Live, StoreRecord};
use crate::ids::{Instance, StoreId, TimeMs, TimelineRef};
use crate::manifest::Manifest;
use crate::memtable::SlotId;
use crate::notify::wake::WakeQueue;
use crate::notify::watch::WatchTable;
use crate::options::Options;
use crate::segment::{BlockCache, Segment};
use crate::stats::Counters;
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
    /// The moments that callers hold.
    pub held: HeldMoments,
    /// Which paths exclude each other.
    pub turns: Turns,
    /// What merging shares.
    pub merging: Merging,
    /// The log's files.
    pub log_files: LogFiles,
    pub watch: Arc<WatchTable>,
    /// What calls wakers.
    pub wake: WakeQueue,
    pub cache: Arc<BlockCache>,
    pub hasher: hashbrown::DefaultHashBuilder,
    /// The times of commits and reads.
    pub times: CommitTimes,
    pub counters: Counters,
    pub poison: Poison,
    /// Makes log files ahead of need. Gone when the engine is read-only or closed.
    pub preparer: Mutex<Option<Arc<Preparer>>>,
    /// What was refused, to be told once a minute.
    pub refusals: Refusals,
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
    pub closing: Closing,
}

impl State {
    /// A timeline with its hash in the memtables.
    pub fn key<'a>(&self, timeline: TimelineRef<'a>) -> Key<'a> {
        Key::new(&self.hasher, timeline)
    }

    /// What a lifetime starts at, and a read goes by (`clock::SureTime`).
    pub fn now_ms(&self) -> TimeMs {
        self.times.now_ms()
    }

    /// The time that may destroy, forget and refuse (`clock::SureTime`).
    pub fn sure_now_ms(&self) -> TimeMs {
        self.times.sure_now_ms()
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
    pub fn may_lack_entries(&self, view: &View, key: Key<'_>) -> bool {
        let is_whole = |whole: &HashSet<SlotId>| {
            view.active.find(key).is_some_and(|slot| whole.contains(&slot))
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
        self.closing.is_set()
    }
}
