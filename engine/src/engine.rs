//! The public interface: an engine and its stores.
//!
//! ```text
//!  Engine ─┬─ commit thread      write/pipeline.rs   commits what callers do not commit
//!          ├─ flush thread       upkeep/flush.rs     memtables to segments
//!          ├─ compaction thread  upkeep/compact/     segments to larger segments
//!          ├─ expiry thread      upkeep/expire.rs    all work that depends on time
//!          ├─ prepare thread     wal/prepare.rs      the next log file; started when first needed
//!          └─ wake thread        notify/wake.rs      wakers, which are code of the caller
//! ```
//!
//! A caller that waits for its batch commits it on its own thread (`write/pipeline.rs`).
//! `running.rs` starts and stops the threads. A read-only engine has only the wake thread.
//!
//! Clones are handles of the same engine; dropping the last handle stops the threads. Only
//! [`Engine::close`] flushes before it stops them.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::care::backup::{self, Backup};
use crate::care::repair;
use crate::care::repair::Repair;
use crate::care::target;
use crate::care::verify::{self, Verification};
use crate::clock::{Clock, SystemClock};
use crate::entry::Receipt;
use crate::error::{Error, IoOperation, Result};
use crate::format::manifest::{Copies, StoreRecord};
use crate::ids::{Epoch, StoreKey, TimeMs, limit_of};
use crate::notify::watch::Watcher;
use crate::options::{Options, check_store_name, limit_ms};
use crate::recover::open;
use crate::recover::recovery::Recovery;
use crate::running::Running;
use crate::state::State;
use crate::state::figures::{self, StoreFigures};
use crate::stats::Stats;
use crate::store::{Snapshot, Store, StoreInfo, StoreOptions};
use crate::upkeep::{compact, expire, stores};
use crate::vfs::{Dir, disk::DiskDirectory};
use crate::write::batch::{Batch, TargetList};
use crate::write::queue::{Seal, Submission};
use crate::write::ticket::Ticket;

/// An open directory of timelines. It is cheap to clone; all methods may be called from any thread,
/// and from wakers.
///
/// The engine stops when its last handle is dropped: an engine, a [`Store`] or a [`Snapshot`].
/// Submitted batches are committed, the threads end, and the directory's lock is released last. The
/// drop waits for this, except in a waker: there the lock is released after the waker has returned.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// use strandline::{Engine, Limit, Options};
/// let engine = Engine::open(dir.path(), Options::default())?;
/// let messages = engine.create_store("messages", None)?;
/// assert_eq!(messages.append(b"c/room", b"hello")?, 1);
/// assert_eq!(messages.append(b"c/room", b"world")?, 2);
/// let page = messages.read_after(b"c/room", 1, Limit::entries(50))?;
/// assert_eq!(page.entries[0].body, "world");
/// engine.close()?;
/// # Ok::<(), strandline::Error>(())
/// ```
#[derive(Clone)]
pub struct Engine {
    running: Arc<Running>,
}

impl fmt::Debug for Engine {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Engine")
            .field("dir", &self.state().dir.path_of(""))
            .finish_non_exhaustive()
    }
}

impl Engine {
    /// Opens a directory, and creates it if it does not exist, with the stores in
    /// [`Options::stores`]. It is locked for this process until the engine is closed or dropped.
    ///
    /// After a crash the engine is recovered: everything that was acknowledged is there. Fails with
    /// [`Error::Locked`] if another process has the directory open, and with [`Error::Corrupt`] if
    /// the manifest or the log is damaged; a read-only open skips damage of the log and reports it
    /// ([`Engine::damage`]). A damaged segment is reported only when a timeline that it may contain
    /// is read, or when the log contains a record for such a timeline.
    pub fn open(dir: impl AsRef<Path>, options: Options) -> Result<Engine> {
        // Before the directory is created.
        options.check()?;
        let path = dir.as_ref();
        let makes = options.create && !options.read_only;
        let raw = if makes { DiskDirectory::create(path) } else { DiskDirectory::open(path) };
        let raw = raw.map_err(|error| Error::io(IoOperation::OpenDirectory, path, error))?;
        Engine::open_with(Dir::new(Arc::new(raw)), Arc::new(SystemClock::new()), options)
    }

    /// Opens an engine in an environment that may be simulated.
    #[cfg(any(test, feature = "simulation"))]
    pub fn open_in(world: crate::world::World, options: Options) -> Result<Engine> {
        Engine::open_with(world.dir, world.clock, options)
    }

    fn open_with(dir: Dir, clock: Arc<dyn Clock>, options: Options) -> Result<Engine> {
        options.check()?;
        let opened = open::open(dir, clock, options)?;
        Ok(Engine { running: Arc::new(Running::start(opened)?) })
    }

    fn state(&self) -> &State {
        &self.running.state
    }

    /// The store with this name.
    pub fn store(&self, name: &str) -> Result<Store> {
        let found = self.find_store(name).ok_or_else(|| Error::NoStore { name: name.into() })?;
        Ok(Store { running: self.running.clone(), id: found.id, name: name.into(), at: None })
    }

    fn find_store(&self, name: &str) -> Option<StoreRecord> {
        self.state().stores.read().iter().find(|store| store.name == name).cloned()
    }

    /// Creates a store with this TTL, as for [`StoreOptions::ttl`]; `None`: entries live for ever.
    /// If it exists with the same TTL, it is returned unchanged; with another one, it is an
    /// [`Error::StoreExists`].
    pub fn create_store(&self, name: &str, ttl: Option<Duration>) -> Result<Store> {
        self.create_store_with(name, StoreOptions::default().ttl(ttl))
    }

    /// Creates a store. If it exists with the same TTL, it is returned unchanged; to change the
    /// number of its copies, use [`Engine::set_store_copies`].
    pub fn create_store_with(&self, name: &str, options: StoreOptions) -> Result<Store> {
        let StoreOptions { ttl, copies } = options;
        let ttl_ms = limit_ms(ttl)?;
        let store = self.found_or_created(name, ttl_ms, copies)?;
        if store.ttl_ms != ttl_ms {
            return Err(Error::StoreExists { name: name.into(), ttl: limit_of(store.ttl_ms) });
        }
        self.store(name)
    }

    /// The store with this name, which is created with these settings if there is none.
    fn found_or_created(&self, name: &str, ttl_ms: u64, copies: Copies) -> Result<StoreRecord> {
        check_store_name(name)?;
        self.running.check_writable()?;
        let _one_at_a_time = self.running.creating.lock();
        if let Some(store) = self.find_store(name) {
            return Ok(store);
        }
        stores::create(self.state(), name, ttl_ms, copies)?;
        self.find_store(name).ok_or_else(|| Error::NoStore { name: name.into() })
    }

    /// The store with this name, whatever its TTL. If there is none, it is created with this TTL,
    /// as for [`StoreOptions::ttl`].
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # use strandline::{Engine, Options};
    /// # use std::time::Duration;
    /// # let engine = Engine::open(dir.path(), Options::default())?;
    /// let hour = Some(Duration::from_hours(1));
    /// assert_eq!(engine.open_or_create_store("inbox", hour)?.ttl(), hour);
    /// assert_eq!(engine.open_or_create_store("inbox", None)?.ttl(), hour);
    /// # Ok::<(), strandline::Error>(())
    /// ```
    pub fn open_or_create_store(&self, name: &str, ttl: Option<Duration>) -> Result<Store> {
        let ttl_ms = limit_ms(ttl)?;
        if let Ok(store) = self.store(name) {
            return Ok(store);
        }
        self.found_or_created(name, ttl_ms, Copies::default())?;
        self.store(name)
    }

    /// Drops a store with everything in it. A store that has a readable entry is dropped only with
    /// `force`. When the call returns, the drop is durable, and every read and write of the store
    /// returns [`Error::StoreDropped`]; watchers of its timelines become ready, so that they
    /// notice. A store that is created later with the same name is a different store: it starts
    /// empty, with another epoch.
    ///
    /// A batch that waits for its commit meanwhile is either committed before the drop or refused.
    /// Without `force`, commits wait while the call looks for readable entries a second time; this
    /// takes long only if a great number of timelines are empty.
    pub fn drop_store(&self, name: &str, force: bool) -> Result<()> {
        self.running.check_writable()?;
        let _one_at_a_time = self.running.creating.lock();
        let store = self.find_store(name).ok_or_else(|| Error::NoStore { name: name.into() })?;
        stores::drop(self.state(), &store, force)
    }

    /// Changes the TTL of a store, as for [`StoreOptions::ttl`]. The new TTL also applies to
    /// existing entries. Entries that had expired stay expired, as far as sure time goes
    /// ([`Engine::sure_now_ms`]): a wall clock that jumped ahead removes nothing for good.
    pub fn set_store_ttl(&self, name: &str, ttl: Option<Duration>) -> Result<()> {
        let ttl_ms = limit_ms(ttl)?;
        self.running.check_writable()?;
        let id = self.store(name)?.id;
        let now_ms = self.state().sure_now_ms();
        self.state().change_stores(|live| {
            for store in
                live.stores.iter_mut().filter(|store| store.id == id && store.ttl_ms != ttl_ms)
            {
                if store.ttl_ms != 0 {
                    let gone_before_ms = now_ms.saturating_add(1).saturating_sub(store.ttl_ms);
                    store.gone_before_ms = store.gone_before_ms.max(gone_before_ms);
                }
                store.ttl_ms = ttl_ms;
            }
        })
    }

    /// Changes the number of copies of a store's files. Existing segments get their copies now. If
    /// there is no space for that, they get them from [`Engine::repair`], or when they are merged.
    /// Copies that are no longer required stay until the segments are merged.
    pub fn set_store_copies(&self, name: &str, copies: Copies) -> Result<()> {
        self.running.check_writable()?;
        let store = self.find_store(name).ok_or_else(|| Error::NoStore { name: name.into() })?;
        let view = self.state().view.load();
        let is_done =
            view.segments.of(store.id).iter().all(|segment| segment.record().copies >= copies);
        if store.copies == copies && is_done {
            return Ok(());
        }
        drop(view);
        let of_store = |known: &&mut StoreRecord| known.id == store.id;
        self.state().change_stores(|live| {
            live.stores.iter_mut().filter(of_store).for_each(|known| known.copies = copies);
        })?;
        match repair::repair(self.state(), Some(store.id)) {
            Err(error) if error.is_shortage() => {
                tracing::warn!(
                    store = name,
                    %error,
                    "second copies of segments could not be made: repair makes them later"
                );
                Ok(())
            }
            repaired => repaired.map(|_| ()),
        }
    }

    /// All stores, sorted by name.
    pub fn stores(&self) -> Vec<StoreInfo> {
        let info = |store: &StoreRecord| StoreInfo {
            name: store.name.clone(),
            ttl: limit_of(store.ttl_ms),
            copies: store.copies,
        };
        let mut stores: Vec<StoreInfo> = self.state().stores.read().iter().map(info).collect();
        stores.sort_by(|one, other| one.name.cmp(&other.name));
        stores
    }

    /// The current state of all stores, for reads that must be consistent with each other: see
    /// [`Store::at`].
    pub fn snapshot(&self) -> Snapshot {
        let held = self.state().held.hold(self.state().view.moment());
        Snapshot { running: self.running.clone(), held }
    }

    /// Queues a batch. The ticket resolves when the batch is committed: durable as the batch asked,
    /// and visible to every reader.
    ///
    /// The call does not wait for the disk, except to find the ends of timelines that were not
    /// written to for a long time. It waits while the queue is full.
    pub fn submit(&self, batch: Batch) -> Result<Ticket> {
        self.running.submit(batch)
    }

    /// Commits a batch and waits until it is durable as the batch asked, and visible to every
    /// reader.
    ///
    /// The calling thread commits it, and whatever else is queued, unless another thread is
    /// committing. So this is much faster than `submit` followed by `wait`.
    pub fn commit(&self, batch: Batch) -> Result<Receipt> {
        self.running.commit(batch)
    }

    /// Queues batches in this order, each atomic by itself. Each is refused or gets its ticket.
    pub fn submit_all(&self, batches: Vec<Batch>) -> Vec<Result<Ticket>> {
        self.running.submit_all(batches)
    }

    /// A list of timelines for [`Batch::fan_out_to_list`]: made once, it serves all fan-outs to the
    /// same timelines, such as those to the members of a conversation.
    pub fn target_list<S: Into<StoreKey>, N: AsRef<[u8]>>(
        &self,
        targets: impl IntoIterator<Item = (S, N)>,
    ) -> Result<TargetList> {
        TargetList::new(self.state().instance, &self.state().hasher, targets)
    }

    /// Prepares a batch for [`Engine::submit_prepared`], as far as this does not wait for the disk.
    ///
    /// This is for a thread that must not wait, such as one that serves many connections:
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # use strandline::{Batch, Engine, Options};
    /// # let engine = Engine::open(dir.path(), Options::default())?;
    /// # let messages = engine.create_store("messages", None)?;
    /// let mut submission = engine.prepare(Batch::new().append(&messages, b"c/room", b"hello"))?;
    /// if submission.is_cold() {
    ///     // On a thread that may wait.
    ///     engine.look_up(&mut submission)?;
    /// }
    /// if !engine.has_room() {
    ///     // Likewise.
    ///     engine.wait_for_room();
    /// }
    /// for ticket in engine.submit_prepared([Ok(submission)]) {
    ///     assert_eq!(ticket?.wait()?.sequences, [1]);
    /// }
    /// # Ok::<(), strandline::Error>(())
    /// ```
    pub fn prepare(&self, batch: Batch) -> Result<Submission> {
        self.running.prepare(batch)
    }

    /// Reads from the disk what the commit of a [cold](Submission::is_cold) submission needs.
    pub fn look_up(&self, submission: &mut Submission) -> Result<()> {
        submission.look_up(self.state(), true)
    }

    /// Queues prepared batches in this order, without waiting. A batch that was refused before
    /// keeps its error, if the engine can be written to.
    ///
    /// The queue takes them even if it is full, so a caller first asks [`Engine::has_room`].
    pub fn submit_prepared(
        &self,
        submissions: impl IntoIterator<Item = Result<Submission>>,
    ) -> Vec<Result<Ticket>> {
        self.running.submit_prepared(submissions.into_iter().collect())
    }

    /// Whether the queue has room.
    pub fn has_room(&self) -> bool {
        self.running.pipeline.has_room()
    }

    /// Waits until the queue has room.
    pub fn wait_for_room(&self) {
        self.running.pipeline.wait_for_room();
    }

    /// A watcher without timelines.
    pub fn watcher(&self) -> Watcher {
        self.state().watch.watcher()
    }

    /// Writes everything that is in memory to segments, and returns when it is durable there.
    pub fn flush(&self) -> Result<()> {
        self.running.check_writable()?;
        self.running.pipeline.seal(Seal::Log)?.wait()?;
        let state = self.state();
        // Other threads may seal more memtables meanwhile. The data of this call was sealed before
        // the memtable that is active now.
        let sealed_to = state.view.load().active.from();
        loop {
            let seen = state.progress.changes();
            if state.view.load().sealed.iter().all(|memtable| memtable.from() >= sealed_to) {
                return Ok(());
            }
            if let Some(failure) = state.progress.flush_failure() {
                return Err(failure);
            }
            state.progress.wait(seen, Duration::from_secs(1));
        }
    }

    /// Drops expired data and merges all segments of each store into one (in a store with TTL, one
    /// per partition). Removed entries leave the log, too. Returns when this is done;
    /// reads and appends continue meanwhile.
    pub fn compact(&self) -> Result<()> {
        // Removed and expired entries must leave the log, too.
        self.state().doom_log();
        self.flush()?;
        expire::expire(self.state()).map_err(|failure| self.state().failed(failure))?;
        compact::merge_all(self.state())
    }

    /// Changes [`Options::compact_bytes_per_second`] of the open engine. A merge that is in
    /// progress continues at the new rate.
    pub fn set_compact_bytes_per_second(&self, bytes: u64) {
        self.state().merging.set_bytes_per_second(bytes);
    }

    /// Reads and checks everything in files: every checksum, and every index against its data.
    /// Damage is a finding, not an error. Damage in one of two copies is repaired, unless the
    /// engine is read-only. Appends continue meanwhile. `on_progress` is called with the number of
    /// bytes of segments that were read, and their total.
    pub fn verify(&self, mut on_progress: impl FnMut(u64, u64)) -> Result<Verification> {
        verify::verify(self.state(), &mut on_progress)
    }

    /// Repairs damage in one copy of a file from the other copy, in stores that are [kept
    /// twice](StoreOptions::copies), and creates missing copies. Reads and appends continue
    /// meanwhile. [`Engine::verify`] repairs damaged copies too, and checks everything else.
    pub fn repair(&self) -> Result<Repair> {
        self.running.check_writable()?;
        repair::repair(self.state(), None)
    }

    /// Writes a backup of everything that is committed now to a new or empty directory, for
    /// [`restore`](crate::restore). Appends continue meanwhile; each later batch is in the backup
    /// either completely or not at all. Files are hard-linked if the file system supports it.
    ///
    /// The directory is locked meanwhile: of several callers that fill it at the same time, one
    /// succeeds, and the others get [`Error::Locked`] or [`Error::Invalid`]. A directory that
    /// contains only `lost+found` and a `LOCK` that nobody holds counts as empty.
    pub fn backup(&self, target: impl AsRef<Path>) -> Result<Backup> {
        let path = target.as_ref();
        let make = || self.state().dir.with_descriptor(|| DiskDirectory::create_noting(path));
        target::make(path, make, |target| self.back_up(target))
    }

    /// The same into a directory that may be simulated.
    #[cfg(feature = "simulation")]
    pub fn backup_in(&self, target: &Dir) -> Result<Backup> {
        self.back_up(target)
    }

    fn back_up(&self, target: &Dir) -> Result<Backup> {
        let target = self.state().dir.of_same_engine(target);
        let made =
            target::claim(&target, |target| backup::backup(self.state(), target, || self.flush()))?;
        self.state().counters.last_backup_ms.raise_to(self.state().clock.now_ms());
        Ok(made)
    }

    /// The time that lifetimes and reads use, Unix ms: the wall clock or sure time, whichever is
    /// later.
    pub fn now_ms(&self) -> TimeMs {
        self.state().now_ms()
    }

    /// The time that deletion, forgetting and refusal use, Unix ms: it never decreases, and a clock
    /// that jumps ahead does not move it.
    pub fn sure_now_ms(&self) -> TimeMs {
        self.state().sure_now_ms()
    }

    /// The history that the cursors of all stores belong to, with the number 0. It changes only
    /// when an older state is restored; see [`Store::epoch`] for the other events that end an
    /// epoch.
    pub fn epoch(&self) -> Epoch {
        Epoch { history: self.state().history, number: 0 }
    }

    /// The results of opening the engine.
    pub fn recovery(&self) -> &Recovery {
        &self.running.recovery
    }

    /// The damage in the log that a read-only open found and skipped.
    pub fn damage(&self) -> &[Error] {
        &self.running.damage
    }

    /// Whether damage was found in a segment and not repaired since. The call costs nothing, so
    /// that a caller can check this before it looks for details.
    pub fn has_damage(&self) -> bool {
        self.state().cache.damages().any()
    }

    /// Figures: counters since the engine was opened, and current sizes.
    pub fn stats(&self) -> Stats {
        let (recovery, damage) = (&self.running.recovery, self.running.damage.len() as u64);
        figures::figures(self.state(), recovery.torn_tail_bytes, damage)
    }

    /// The data of each store on the disk, sorted by name.
    pub fn store_figures(&self) -> Vec<StoreFigures> {
        figures::store_figures(self.state())
    }

    /// Flushes, and stops the engine: the next open has no log to read. Other clones cannot write
    /// from now on, and watchers are closed. When the call returns, the directory is free; if it is
    /// called in a waker, the directory is free after that waker has returned.
    pub fn close(&self) -> Result<()> {
        let flushed = if self.state().options.read_only { Ok(()) } else { self.flush() };
        self.running.close(flushed)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;
    use crate::vfs::simulated::{Op, SimulatedDisk};
    use crate::world::World;

    #[test]
    fn a_panic_while_sealing_does_not_report_a_committed_batch_as_failed() {
        let disk = SimulatedDisk::new();
        let world =
            World { dir: Dir::new(Arc::new(disk.clone())), clock: Arc::new(SystemClock::new()) };
        let engine = Engine::open_in(world, Options::default()).expect("opens");
        let store = engine.create_store("messages", None).expect("is created");
        let append = || engine.submit(Batch::new().append(&store, b"t", b"x")).expect("is queued");
        let ((on_its_way, held), (go_on, goes_on)) = (channel(), channel());
        let mut is_held = true;
        disk.set_faults(Some(Box::new(move |op| {
            if std::thread::current().name() == Some("strandline-commit") {
                if std::mem::take(&mut is_held) {
                    on_its_way.send(()).expect("the test waits");
                    goes_on.recv().expect("the test goes on");
                }
                assert!(
                    !matches!(op, Op::Create { .. } | Op::Rename { .. }),
                    "planted in the next log file"
                );
            }
            None
        })));
        let first = append();
        held.recv().expect("the first group is on its way");
        // The next group contains a batch, and a request to seal the memtable after it.
        let (second, sealed) =
            (append(), engine.running.pipeline.seal(Seal::Log).expect("is queued"));
        go_on.send(()).expect("the disk waits");
        assert_eq!(first.wait().expect("commits").sequences, [1]);
        assert_eq!(second.wait().expect("it is committed, and reported so").sequences, [2]);
        assert!(matches!(sealed.wait(), Err(Error::Poisoned { .. })));
        assert!(matches!(store.append(b"t", b"x"), Err(Error::Poisoned { .. })));
    }
}
