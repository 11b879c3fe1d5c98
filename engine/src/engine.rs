//! The front door: an engine and its stores, and the wiring of its threads.
//!
//! ```text
//!  Engine ─┬─ commit thread      append.rs     the only writer
//!          ├─ flush thread       flush.rs      memtable to segments
//!          ├─ compaction thread  compact.rs    segments to larger segments
//!          └─ prepare thread     wal/prepare   the next log file
//! ```
//!
//! Clones are the same engine; the last one that goes stops the threads. Only [`Engine::close`] flushes before.

use std::ops::RangeBounds;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;

use crate::append::{Committer, Queue};
use crate::batch::{Batch, name_too_long};
use crate::change::{self, Trim};
use crate::clock::{Clock, SystemClock};
use crate::entry::{Entry, Info, Limit, Page};
use crate::error::{Error, Result};
use crate::format::manifest::StoreRecord;
use crate::ids::{MAX_NAME_BYTES, Sequence, StoreId, TimeMs, TimelineRef};
use crate::options::{MAX_BODY_BYTES, Options};
use crate::read::{self, Reading};
use crate::state::State;
use crate::stats::Stats;
use crate::ticket::Ticket;
use crate::vfs::{Dir, disk::DiskDirectory};
use crate::view::View;
use crate::watch::Watcher;
use crate::{compact, flush, open, wal};

/// The world that an engine lives in: for tests, which simulate it.
#[derive(Clone)]
pub struct World {
    /// Its files.
    pub dir: Dir,
    /// Its time.
    pub clock: Arc<dyn Clock>,
}

/// An open directory of timelines. Cheap to clone; all methods may be called from any thread.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// use strandline::{Engine, Limit, Options};
/// let engine = Engine::open(dir.path(), Options::default())?;
/// let messages = engine.store("messages")?;
/// assert_eq!(messages.append(b"c/room", b"hello")?, 1);
/// assert_eq!(messages.append(b"c/room", b"world")?, 2);
/// let page = messages.read_after(b"c/room", 1, Limit::entries(50))?;
/// assert_eq!(page.entries[0].body, "world");
/// engine.close()?;
/// # Ok::<(), strandline::Error>(())
/// ```
#[derive(Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

struct Inner {
    state: Arc<State>,
    queue: Arc<Queue>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    damage: Vec<Error>,
    creating: Mutex<()>,
    /// Released when the threads have ended.
    lock: Mutex<Option<Box<dyn Send + Sync>>>,
}

/// A store's name and settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreInfo {
    /// Its name.
    pub name: String,
    /// How long entries live, in milliseconds; 0: for ever.
    pub ttl_ms: u64,
}

const CLOSED: Error = Error::Closed { what: "the engine is closed: nothing is written any more" };
const READ_ONLY: Error = Error::Closed { what: "the engine is open for reading only: nothing is written" };

impl Engine {
    /// Opens a directory, made if there is none. It is locked for this process until the engine is closed or dropped.
    ///
    /// What a crash left is recovered: everything acknowledged is there. Fails with [`Error::Locked`] when another process has
    /// the directory, and with [`Error::Corrupt`] when the manifest or the log is damaged; a damaged segment is only told when
    /// a timeline that it may hold is read.
    pub fn open(dir: impl AsRef<Path>, options: Options) -> Result<Engine> {
        let path = dir.as_ref();
        let raw = if options.read_only { DiskDirectory::open(path) } else { DiskDirectory::create(path) };
        let raw = raw.map_err(|error| Error::io("open the directory", path, error))?;
        let world = World { dir: Dir::new(Arc::new(raw)), clock: Arc::new(SystemClock::new()) };
        Engine::open_in(world, options)
    }

    /// Opens an engine in a world that may be simulated.
    pub fn open_in(world: World, options: Options) -> Result<Engine> {
        if options.max_body_bytes > MAX_BODY_BYTES {
            let what =
                format!("max_body_bytes is {}, over the cap of {MAX_BODY_BYTES}", options.max_body_bytes);
            return Err(Error::invalid(what));
        }
        let opened = open::open(world.dir, world.clock, options)?;
        let (state, queue) = (opened.state, Arc::new(Queue::default()));
        let mut threads = Vec::new();
        match opened.wal {
            Some(wal) => {
                let committer = Committer::new(state.clone(), queue.clone(), wal);
                threads.push(start("commit", &state, move |_| committer.run()));
                threads.push(start("flush", &state, flush::run));
                threads.push(start("compact", &state, compact::run));
            }
            None => queue.close(),
        }
        let lock = Mutex::new(Some(opened.lock));
        let inner = Inner {
            state,
            queue,
            threads: Mutex::new(threads),
            damage: opened.damage,
            creating: Mutex::default(),
            lock,
        };
        Ok(Engine { inner: Arc::new(inner) })
    }

    fn state(&self) -> &State {
        &self.inner.state
    }

    /// The store of that name.
    pub fn store(&self, name: &str) -> Result<Store> {
        let found = self.find_store(name).ok_or_else(|| Error::NoStore { name: name.into() })?;
        Ok(Store { engine: self.clone(), id: found.id, name: name.into() })
    }

    fn find_store(&self, name: &str) -> Option<StoreRecord> {
        self.state().stores.read().iter().find(|store| store.name == name).cloned()
    }

    /// Creates a store; one that exists with the same TTL is given as it is. `ttl_ms` 0: entries live for ever.
    pub fn create_store(&self, name: &str, ttl_ms: u64) -> Result<Store> {
        check_store_name(name)?;
        self.check_writable()?;
        let _one_at_a_time = self.inner.creating.lock();
        match self.find_store(name) {
            Some(store) if store.ttl_ms == ttl_ms => {}
            Some(store) => return Err(Error::StoreExists { name: name.into(), ttl_ms: store.ttl_ms }),
            None => self.state().change_stores(|live| {
                let highest = live.stores.iter().map(|store| store.id.0).max().unwrap_or(0);
                live.stores.push(StoreRecord { id: StoreId(highest + 1), name: name.into(), ttl_ms });
            })?,
        }
        self.store(name)
    }

    /// Changes the TTL of a store.
    pub fn set_store_ttl(&self, name: &str, ttl_ms: u64) -> Result<()> {
        self.check_writable()?;
        let id = self.store(name)?.id;
        self.state().change_stores(|live| {
            live.stores.iter_mut().filter(|store| store.id == id).for_each(|store| store.ttl_ms = ttl_ms);
        })
    }

    /// All stores, by name.
    pub fn stores(&self) -> Vec<StoreInfo> {
        let info = |store: &StoreRecord| StoreInfo { name: store.name.clone(), ttl_ms: store.ttl_ms };
        let mut stores: Vec<StoreInfo> = self.state().stores.read().iter().map(info).collect();
        stores.sort_by(|one, other| one.name.cmp(&other.name));
        stores
    }

    fn check_writable(&self) -> Result<()> {
        match (self.state().options.read_only, self.state().is_closing()) {
            (true, _) => Err(READ_ONLY),
            (false, true) => Err(CLOSED),
            (false, false) => self.state().poison.check(),
        }
    }

    /// Queues a batch. The ticket resolves when it is committed: durable as the batch asked, and visible to every reader.
    ///
    /// Does not wait for the disk, except to find where timelines end that were not written to for long.
    pub fn submit(&self, batch: Batch) -> Result<Ticket> {
        self.submit_all(vec![batch]).pop().expect("one batch, one ticket")
    }

    /// Queues batches in this order, each atomic by itself. Each is refused or gets its ticket.
    pub fn submit_all(&self, batches: Vec<Batch>) -> Vec<Result<Ticket>> {
        let state = self.state();
        if let Err(error) = self.check_writable() {
            return batches.iter().map(|_| Err(error.clone())).collect();
        }
        let prepared =
            batches.into_iter().map(|batch| batch.prepare(&state.options, &state.hasher)).collect();
        self.inner.queue.submit(state, prepared)
    }

    /// A watcher of no timelines yet.
    pub fn watcher(&self) -> Watcher {
        self.state().watch.watcher()
    }

    /// Writes everything that is in memory to segments, and returns when it is durable there.
    pub fn flush(&self) -> Result<()> {
        self.check_writable()?;
        self.inner.queue.seal()?.wait()?;
        let state = self.state();
        // Others may seal more meanwhile: what this call is about was sealed before the memtable that is active now.
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

    /// Merges all segments of each store into one, and returns when it is done. Reads and appends go on.
    pub fn compact(&self) -> Result<()> {
        self.flush()?;
        compact::merge_all(self.state())
    }

    /// The history that cursors belong to, as 16 hex digits. It changes only when an older state was restored.
    pub fn epoch(&self) -> String {
        format!("{:016x}", self.state().history)
    }

    /// What a read-only open found damaged in the log and went around.
    pub fn damage(&self) -> &[Error] {
        &self.inner.damage
    }

    /// Figures: counters since the engine was opened, and sizes of now.
    pub fn stats(&self) -> Stats {
        let state = self.state();
        let view = state.view.load();
        let counters = &state.counters;
        let (cache_hits, cache_misses) = state.cache.hits_and_misses();
        let records = || view.segments.all().map(|segment| segment.record());
        Stats {
            fields: vec![
                ("batches", counters.batches.get()),
                ("groups", counters.groups.get()),
                ("entries", counters.entries.get()),
                ("wal_bytes", counters.wal_bytes.get()),
                ("wal_syncs", counters.wal_syncs.get()),
                ("wal_files", state.wal_files.lock().len() as u64),
                ("memtable_bytes", view.memtables().map(|memtable| memtable.bytes() as u64).sum()),
                ("sealed_memtables", view.sealed.len() as u64),
                ("flushes", counters.flushes.get()),
                ("flush_bytes", counters.flush_bytes.get()),
                ("segments", records().count() as u64),
                ("segment_bytes", records().map(|record| record.data_bytes + record.index_bytes).sum()),
                ("segment_timelines", records().map(|record| record.timelines).sum()),
                ("segment_entries", records().map(|record| record.entries).sum()),
                (
                    "damaged_segments",
                    view.segments.all().filter(|segment| segment.damage().is_some()).count() as u64,
                ),
                ("merges", counters.merges.get()),
                ("merge_bytes", counters.merge_bytes.get()),
                ("cache_bytes", state.cache.bytes()),
                ("cache_hits", cache_hits),
                ("cache_misses", cache_misses),
                ("damaged_reads", state.cache.damaged_reads()),
                ("damaged_log_places", self.inner.damage.len() as u64),
                ("write_stalls", counters.stalls.get()),
                ("disk_full_refusals", counters.disk_full.get()),
                ("poisoned", u64::from(state.poison.check().is_err())),
            ],
        }
    }

    /// Flushes, and stops: the next open has no log to read. Other clones cannot write from now on.
    pub fn close(&self) -> Result<()> {
        let flushed = if self.state().options.read_only { Ok(()) } else { self.flush() };
        self.inner.stop_threads();
        let closed = flushed.and_then(|()| self.inner.nothing_to_replay());
        self.inner.unlock();
        closed
    }
}

impl Inner {
    /// Ends the threads: the commit thread first, when all that is queued is committed, since it may wait for a flush.
    fn stop_threads(&self) {
        self.queue.close();
        let mut threads = self.threads.lock();
        for thread in threads.drain(..) {
            // A panic was told when it happened; what is durable is durable.
            let _ = thread.join();
            self.state.closing.store(true, Ordering::Release);
            self.state.progress.announce();
        }
        self.state.preparer.lock().take();
    }

    /// Lets another engine have the directory. Nothing here touches it from now on.
    fn unlock(&self) {
        self.state.closing.store(true, Ordering::Release);
        self.state.manifest.lock().close();
        self.lock.lock().take();
    }

    /// If nothing was committed since the flush, says in the manifest that no log file is needed, and removes them all.
    fn nothing_to_replay(&self) -> Result<()> {
        let view = self.state.view.load();
        if !self.state.options.read_only && view.active.is_empty() && view.sealed.is_empty() {
            let committed = self.state.manifest.lock().commit(|live| live.log_file = 0);
            committed.map_err(|failure| self.state.failed(failure))?;
            for file in self.state.wal_files.lock().drain(..) {
                self.state.dir.remove(&wal::file_name(file.number))?;
            }
        }
        Ok(())
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.stop_threads();
        self.unlock();
    }
}

/// Starts a thread. If it panics, which is a broken invariant, no more writes are acknowledged and nobody waits for it in vain.
fn start(
    name: &'static str,
    state: &Arc<State>,
    work: impl FnOnce(&State) + Send + 'static,
) -> JoinHandle<()> {
    let thread = std::thread::Builder::new().name(format!("strandline-{name}"));
    let state = state.clone();
    let guarded = move || {
        if catch_unwind(AssertUnwindSafe(|| work(&state))).is_err() {
            let error = Error::Poisoned { why: format!("the {name} thread panicked") };
            state.poison.set(&error);
            state.progress.flush_outcome(Some(error));
        }
    };
    thread.spawn(guarded).expect("a thread can be started while the engine opens")
}

fn check_store_name(name: &str) -> Result<()> {
    let allowed =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_' || byte == b'-';
    if name.is_empty() || name.len() > 32 || !name.bytes().all(allowed) {
        return Err(Error::invalid("a store's name is 1 to 32 of a-z, 0-9, _ and -"));
    }
    if name == "im" {
        return Err(Error::invalid("the store name \"im\" is reserved"));
    }
    Ok(())
}

/// A named set of timelines. A timeline exists when it is first appended to; one that was never written reads as empty.
#[derive(Clone)]
pub struct Store {
    engine: Engine,
    id: StoreId,
    name: Arc<str>,
}

impl From<&Store> for StoreId {
    fn from(store: &Store) -> StoreId {
        store.id
    }
}

impl Store {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How long entries live, in milliseconds; 0: for ever.
    pub fn ttl_ms(&self) -> u64 {
        let stores = self.engine.state().stores.read();
        stores.iter().find(|store| store.id == self.id).map_or(0, |store| store.ttl_ms)
    }

    /// Appends one body and waits until it is durable. For many, use [`Engine::submit`].
    pub fn append(&self, timeline: &[u8], body: &[u8]) -> Result<Sequence> {
        let receipt = self.engine.submit(Batch::new().append(self, timeline, body))?.wait()?;
        Ok(receipt.sequences[0])
    }

    fn timeline<'a>(&self, name: &'a [u8]) -> Result<TimelineRef<'a>> {
        if name.is_empty() {
            return Err(Error::invalid("a timeline's name must not be empty"));
        }
        if name.len() > MAX_NAME_BYTES {
            return Err(name_too_long(name));
        }
        Ok(TimelineRef { store: self.id, name })
    }

    fn read<T>(&self, timeline: &[u8], read: impl FnOnce(Reading<'_>) -> Result<T>) -> Result<T> {
        let timeline = self.timeline(timeline)?;
        let state = self.engine.state();
        let view: &View = &state.view.load();
        read(Reading::new(state, view, timeline, state.hash(timeline)))
    }

    /// Removes the start of a timeline. Gives how many readable entries that were. Readers below are told
    /// [`Verdict::Trimmed`](crate::Verdict::Trimmed).
    pub fn trim(&self, timeline: &[u8], trim: Trim) -> Result<u64> {
        self.engine.check_writable()?;
        change::trim(self.engine.state(), &self.engine.inner.queue, self.timeline(timeline)?, trim)
    }

    /// Removes single entries. Gives how many of them could be read. What they leave is a hole, not a loss.
    pub fn delete(&self, timeline: &[u8], sequences: &[Sequence]) -> Result<u64> {
        self.engine.check_writable()?;
        change::delete(self.engine.state(), &self.engine.inner.queue, self.timeline(timeline)?, sequences)
    }

    /// Replaces the body of an entry; its sequence and time stay. False when there is no such readable entry.
    pub fn edit(&self, timeline: &[u8], sequence: Sequence, body: &[u8]) -> Result<bool> {
        self.engine.check_writable()?;
        change::edit(self.engine.state(), &self.engine.inner.queue, self.timeline(timeline)?, sequence, body)
    }

    /// Removes all entries. False when there was none to read. The timeline goes on counting.
    pub fn drop_timeline(&self, timeline: &[u8]) -> Result<bool> {
        Ok(self.trim(timeline, Trim::Keep(0))? > 0)
    }

    /// The entry with a sequence, if it can be read.
    pub fn get(&self, timeline: &[u8], sequence: Sequence) -> Result<Option<Entry>> {
        self.read(timeline, |reading| reading.get(sequence))
    }

    /// The entries inside the bounds, ascending, as far as the limit lets through.
    pub fn range(&self, timeline: &[u8], bounds: impl RangeBounds<Sequence>, limit: Limit) -> Result<Page> {
        self.range_in(timeline, bounds, limit, false)
    }

    /// The entries inside the bounds, descending: the newest first.
    pub fn range_back(
        &self,
        timeline: &[u8],
        bounds: impl RangeBounds<Sequence>,
        limit: Limit,
    ) -> Result<Page> {
        self.range_in(timeline, bounds, limit, true)
    }

    fn range_in(
        &self,
        timeline: &[u8],
        bounds: impl RangeBounds<Sequence>,
        limit: Limit,
        descending: bool,
    ) -> Result<Page> {
        let bounds = read::bounds(bounds.start_bound(), bounds.end_bound());
        // Bounds that hold no sequence read like bounds above the last one.
        let (low, high) = bounds.unwrap_or((Sequence::MAX, 0));
        self.read(timeline, |reading| reading.range(low, high, limit, descending))
    }

    /// What follows a reader's cursor, and what the reader should know of it. The page's `next` is the cursor for next time.
    pub fn read_after(&self, timeline: &[u8], cursor: Sequence, limit: Limit) -> Result<Page> {
        self.read(timeline, |reading| reading.after(cursor, limit))
    }

    /// The newest readable entry.
    pub fn last(&self, timeline: &[u8]) -> Result<Option<Entry>> {
        self.read(timeline, |reading| reading.last())
    }

    /// Facts of the whole timeline.
    pub fn info(&self, timeline: &[u8]) -> Result<Info> {
        self.read(timeline, |reading| reading.info())
    }

    /// The lowest readable sequence with this time (Unix ms) or a later one; `last + 1` when there is none.
    pub fn sequence_at(&self, timeline: &[u8], time_ms: TimeMs) -> Result<Sequence> {
        self.read(timeline, |reading| reading.sequence_at(time_ms))
    }

    /// The names of timelines with readable entries that start with `prefix` and are above `after`, in byte order.
    pub fn list(&self, prefix: &[u8], after: Option<&[u8]>, count: usize) -> Result<Vec<Vec<u8>>> {
        let state = self.engine.state();
        read::list(state, &state.view.load(), self.id, prefix, after, count)
    }
}
