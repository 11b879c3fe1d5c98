//! Opening: from a directory in any state that a crash left it in, to a running state (P1, P2, P5,
//! P6).
//!
//! 1. take the lock; remove temporary files, which are not needed and may occupy the space that the
//!    next steps need;
//! 2. load the manifest; a directory without one must not contain a log file or a segment, and gets
//!    a first manifest, with the stores of the options;
//! 3. open the segments that it names: damage is recorded in the segment, and is not fatal;
//! 4. read the log from the checkpoint on into memtables; a torn tail is cut, damage refuses the
//!    open; meanwhile copy the groups that may be only in the page cache into a new file, and make
//!    it durable;
//! 5. begin a new writer epoch: give that file its name, record it in the manifest; if relaxed
//!    durability was recorded in another boot, the stores concerned begin another epoch of their
//!    own (`relaxed`);
//! 6. remove the files that are not needed: log files that end at or before the checkpoint or that
//!    the new one replaces completely, segments that the manifest does not name, older manifests.
//!
//! No read is answered and no sequence is given before step 5 is done. A crash during the open is
//! harmless: every step leaves a directory from which the next open reaches the same state. Apart
//! from temporary files and the reserve, nothing is removed before step 5 is durable. Only files
//! with names of the engine are removed.
//!
//! If the disk is full, the reserve is given back and the open starts again.
//!
//! A read-only open changes nothing in the directory: it removes no temporary files, writes no
//! first manifest, and leaves out steps 5 and 6. It shows the epochs of stores as an open for
//! writing would begin them. Step 4 continues after damage. Readers of a timeline that lacks
//! entries because of the damage, or may lack some at its end, get the verdict that it is trimmed.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};
use tracing::field::Empty;

use crate::clock::{Clock, SureTime};
use crate::error::{Error, Failure, Result};
use crate::format::header::{FileHeader, FileKind, VERSION};
use crate::format::manifest::{Live, StoreRecord};
use crate::format::wal::WAL_HEADER_BYTES;
use crate::ids::{Instance, Lsn, StoreId, TimeMs};
use crate::manifest::{self, Manifest};
use crate::memtable::Memtable;
use crate::metrics::{self, Counters};
use crate::notify::wake::WakeQueue;
use crate::notify::watch::WatchTable;
use crate::options::{NewStore, Options, limit_ms};
use crate::random::{new_engine_id, random};
use crate::recover::recovery::Recovery;
use crate::recover::replay::{self, Replay};
use crate::segment::{self, BlockCache, Segment};
use crate::state::moment::HeldMoments;
use crate::state::refusals::Refusals;
use crate::state::reserve::{self, Reserve};
use crate::state::view::{SegmentSet, View};
use crate::state::{
    Closing, CommitTimes, CurrentView, LogFiles, Merging, Poison, Progress, State, Turns,
};
use crate::vfs::{Dir, LOCK_NAME};
use crate::wal::{self, Tail, Unnamed, Wal, WalFile};
use crate::write::relaxed;

/// The size of the zeros in the first log file of an epoch: they are written at once, so that the
/// first syncs are as fast as later ones.
const FIRST_FILE_BYTES: u64 = 1024 * 1024;

/// The result of opening: the state, and the writer of the log unless the engine is read-only.
pub struct Opened {
    pub state: Arc<State>,
    pub wal: Option<Wal>,
    pub lock: Box<dyn Send + Sync>,
    /// The damage that a read-only open skipped.
    pub damage: Vec<Error>,
    pub recovery: Recovery,
}

/// Opens a directory. If the disk is full, the reserve is given back and the open starts again: the
/// attempt that failed left nothing.
pub fn open(dir: Dir, clock: Arc<dyn Clock>, options: Options) -> Result<Opened> {
    let span = tracing::info_span!(metrics::RECOVER, segments = Empty, entries = Empty);
    let _entered = span.enter();
    let opened = open_with_reserve(dir, clock, options)?;
    span.record("segments", opened.state.view.load().segments.all().count());
    span.record("entries", opened.recovery.entries);
    Ok(opened)
}

fn open_with_reserve(dir: Dir, clock: Arc<dyn Clock>, options: Options) -> Result<Opened> {
    if !options.create {
        // Checked before anything is created there.
        check_there(&dir, &dir.list()?)?;
    }
    match open_once(dir.clone(), clock.clone(), options.clone(), true) {
        Err(Error::DiskFull { path }) if !options.read_only => {
            let lock = dir.lock(LOCK_NAME, true)?;
            if !reserve::remove(&dir) {
                return Err(Error::DiskFull { path });
            }
            drop(lock);
            tracing::warn!(
                "the disk is full: the reserve is given back, appends are refused until there is \
                 space"
            );
            open_once(dir, clock, options, false)
        }
        opened => opened,
    }
}

/// One attempt to open. `has_space`: false if the disk is known to be full.
fn open_once(dir: Dir, clock: Arc<dyn Clock>, options: Options, has_space: bool) -> Result<Opened> {
    let (counters, cache) = counted_cache(&options);
    let open_files = cache.clone();
    let dir = dir.with_files_to_close(Box::new(move || open_files.close_some()));
    let lock = dir.lock(LOCK_NAME, !options.read_only)?;
    if !options.read_only {
        remove_temporary(&dir)?;
    }
    let names = dir.list()?;
    let mut manifest = load_manifest(&dir, &names, &options)?;
    let segments = open_segments(&dir, &manifest, &cache)?;
    let Log { mut files, mut replay, tail, copied, damage } =
        read_log(&dir, &names, &mut manifest, segments, Copy::of(&options, has_space))?;
    let last_time_ms = replay.last_time_ms.max(manifest.live().last_time_ms);
    let own_starts =
        replay.own_starts || manifest.live().segments.iter().any(|record| record.own_starts);

    let sure = SureTime::new(&*clock, manifest.live().seen_ms);
    // As step 5 records it; a read-only open only keeps it in memory.
    let mut settled = manifest.live().clone();
    let recovery =
        Recovery::new(replay.entries, settled.checkpoint, &tail, &mut settled, dir.boot_id());
    let mut wal = None;
    if let Some(copied) = copied {
        let (file_bytes, now_ms) = (options.wal_file_bytes, sure.now_ms(&*clock));
        let log = (&mut files, &tail);
        wal = Some(begin_epoch(&dir, &mut manifest, copied, log, file_bytes, now_ms)?);
        remove_leftovers(&dir, &manifest, &mut files)?;
    }
    let whole = replay.whole_since(tail.whole_from);
    let log_end = wal.as_ref().map_or(tail.end, Wal::end);
    let (reserve, instance) = (open_reserve(&dir, &options), Instance(random()));
    // What lies before the checkpoint in the same files is older, but not by much: a memtable is
    // sealed, and its log file left, long before its entries expire.
    let first_start_ms =
        replay.view.memtables().filter_map(|memtable| memtable.first_start_ms()).min();
    let log_since_ms = first_start_ms.unwrap_or_else(|| clock.now_ms());
    let state = State {
        times: CommitTimes::new(clock.clone(), sure, last_time_ms, own_starts),
        log_files: LogFiles::new(dir.clone(), files, log_since_ms),
        dir,
        instance,
        clock,
        engine_id: manifest.engine_id(),
        writer_epoch: manifest.writer_epoch(),
        view: CurrentView::new(replay.view, log_end),
        stores: RwLock::new(settled.stores),
        history: manifest.live().history,
        manifest: Mutex::new(manifest),
        held: HeldMoments::default(),
        turns: Turns::default(),
        merging: Merging::new(options.compact_bytes_per_second),
        watch: Arc::new(WatchTable::new(instance)),
        wake: WakeQueue::default(),
        cache,
        hasher: replay.hasher,
        counters,
        poison: Poison::default(),
        preparer: Mutex::new(wal.as_ref().map(Wal::preparer)),
        refusals: Refusals::default(),
        reserve,
        unvouched: AtomicU64::new(0),
        whole,
        progress: Progress::default(),
        closing: Closing::default(),
        options,
    };
    Ok(Opened { state: Arc::new(state), wal, lock, damage, recovery })
}

fn counted_cache(options: &Options) -> (Arc<Counters>, Arc<BlockCache>) {
    let counters = Arc::new(Counters::for_recorder());
    let cache = BlockCache::new(options.cache_bytes(0), options.max_open_files);
    (counters.clone(), Arc::new(cache.counted_in(counters)))
}

/// Called after step 5, which needs the space more.
fn open_reserve(dir: &Dir, options: &Options) -> Reserve {
    if options.read_only {
        Reserve::none(dir.clone())
    } else {
        Reserve::open(dir.clone(), options.reserve_target_bytes(0))
    }
}

/// Step 3. A shortage is an error, not damage: otherwise an intact segment would stay unreadable
/// until the next open.
fn open_segments(dir: &Dir, manifest: &Manifest, cache: &Arc<BlockCache>) -> Result<SegmentSet> {
    let stores = &manifest.live().stores;
    cache.damages().name_stores(stores.iter().map(|store| (store.id, store.name.as_str())));
    let mut segments = SegmentSet::default();
    for record in &manifest.live().segments {
        let segment = Segment::open(dir, manifest.engine_id(), record.clone(), cache);
        if let Some(shortage) = segment.damage().filter(|damage| damage.is_shortage()) {
            return Err(shortage.clone());
        }
        segments.add([Arc::new(segment)]);
    }
    Ok(segments)
}

/// Removes files of interrupted work, which nothing refers to. A file with any other name, whatever
/// its suffix, does not belong to the engine.
fn remove_temporary(dir: &Dir) -> Result<()> {
    let is_ours = |name: &&String| {
        wal::is_temporary(name)
            || name.strip_suffix(".tmp").is_some_and(|stem| segment::is_file(stem).is_some())
            || name.as_str() == manifest::TEMPORARY_NAME
            || reserve::TEMPORARY_NAMES.contains(&name.as_str())
    };
    dir.list()?.iter().filter(is_ours).try_for_each(|name| dir.remove(name))
}

/// Step 2.
fn load_manifest(dir: &Dir, names: &[String], options: &Options) -> Result<Manifest> {
    if let Some(manifest) = Manifest::load(dir, names)? {
        return Ok(manifest);
    }
    if let Some(orphan) = names.iter().find(|name| is_of_log_or_segment(name)) {
        let what = "there is no manifest, but this file belongs to one: restore the manifest";
        return Err(Error::corrupt(dir.path_of(orphan), 0, what));
    }
    if options.read_only {
        check_there(dir, names)?;
    }
    let live = Live { history: random(), stores: first_stores(options)?, ..Live::default() };
    let mut manifest = Manifest::new(dir.clone(), new_engine_id(), live);
    manifest.commit(|_| ()).map_err(Failure::into_error)?;
    Ok(manifest)
}

/// The stores of a new directory. Their ids are 1, 2, …; the ids of later stores are above them
/// (`Manifest::take_store_id`).
fn first_stores(options: &Options) -> Result<Vec<StoreRecord>> {
    let record = |(id, store): (u32, &NewStore)| {
        Ok(StoreRecord::new(StoreId(id), store.name.as_str(), limit_ms(store.ttl)?))
    };
    (1..).zip(&options.stores).map(record).collect()
}

fn is_of_log_or_segment(name: &str) -> bool {
    wal::is_file(name).is_some() || segment::is_file(name).is_some()
}

/// An error if a directory contains no files of an engine.
fn check_there(dir: &Dir, names: &[String]) -> Result<()> {
    if names.iter().any(|name| manifest::is_file(name).is_some() || is_of_log_or_segment(name)) {
        return Ok(());
    }
    Err(Error::invalid(format!("{} holds no engine", dir.path_of("").display())))
}

/// The log's files and content.
struct Log {
    files: Vec<WalFile>,
    replay: Replay,
    tail: Tail,
    /// The copy of what may not be durable, unless the open is read-only.
    copied: Option<Unnamed>,
    /// The damage, if the open is read-only.
    damage: Vec<Error>,
}

/// Step 4.
fn read_log(
    dir: &Dir,
    names: &[String],
    manifest: &mut Manifest,
    segments: SegmentSet,
    copy: Option<Copy>,
) -> Result<Log> {
    let (read_only, live) = (copy.is_none(), manifest.live());
    let (checkpoint, log_file) = (live.checkpoint, live.log_file);
    let view = View { active: Arc::new(Memtable::new(checkpoint)), sealed: Vec::new(), segments };
    let (log, mut damage) = wal::files(dir, names, manifest.engine_id(), read_only)?;
    damage.extend(told_if(read_only, wal::check_last(dir, log_file, &log))?);
    let mut replay = Replay::new(view, live, read_only);
    let files: Vec<WalFile> = log.iter().map(|(file, _)| *file).collect();
    let (mut tail, copied) = replay::replay(dir, &log, checkpoint, &mut replay, |tail| {
        let Some(copy) = copy else { return Ok(None) };
        // Before anything is written.
        manifest.check_changes(tail.end)?;
        copy.write(dir, manifest, &files, tail).map(Some)
    })?;
    if wal::is_end_missing(names, log_file, &log) {
        tail.whole_from = Lsn(u64::MAX);
    }
    damage.extend(tail.damage.iter().cloned());
    if read_only {
        damage.extend(manifest.check_changes(tail.end).err());
    }
    damage.iter().for_each(|error| tracing::error!(%error, "the log is damaged"));
    Ok(Log { files, replay, tail, copied, damage })
}

/// A failed check refuses an open for writing; a read-only open returns the error to be reported.
fn told_if(read_only: bool, checked: Result<()>) -> Result<Option<Error>> {
    match checked {
        Err(error) if !read_only => Err(error),
        checked => Ok(checked.err()),
    }
}

/// How the file is made that the log continues in.
struct Copy {
    /// The zeros that are written behind what is copied.
    first_bytes: u64,
    /// The space that the file has behind what is copied.
    spare_bytes: u64,
}

impl Copy {
    /// None for a read-only open. `has_space`: whether the disk has space for zeros.
    fn of(options: &Options, has_space: bool) -> Option<Copy> {
        let spare_bytes = FIRST_FILE_BYTES.min(options.wal_file_bytes);
        let first_bytes = if has_space { spare_bytes } else { 0 };
        (!options.read_only).then_some(Copy { first_bytes, spare_bytes })
    }

    /// The second half of step 4: copies what may not be durable into a new file of the log, which
    /// has no name yet.
    fn write(
        self,
        dir: &Dir,
        manifest: &mut Manifest,
        wal_files: &[WalFile],
        tail: &mut Tail,
    ) -> Result<Unnamed> {
        // A crash may have left a file with a number that no manifest knows.
        let highest = wal_files.last().map_or(0, |file| file.number);
        manifest.next_file().fetch_max(highest + 1, Ordering::Relaxed);
        manifest.begin_epoch();
        let needed = WAL_HEADER_BYTES + tail.unsynced.len() as u64;
        let header = FileHeader {
            version: VERSION,
            kind: FileKind::Wal,
            engine_id: manifest.engine_id(),
            writer_epoch: manifest.writer_epoch(),
            number: manifest.take_file_number(),
            first: tail.durable.0,
            second: needed.next_multiple_of(4096) + self.spare_bytes,
            third: 0,
        };
        // Taken, not copied: it may be as large as a memtable.
        let mut content = std::mem::take(&mut tail.unsynced);
        let unsynced = content.len();
        content.resize(unsynced + self.first_bytes as usize, 0);
        match Unnamed::write(dir, &header, &content) {
            // The zeros only make syncs faster.
            Err(Error::DiskFull { .. }) => Unnamed::write(dir, &header, &content[..unsynced]),
            written => written,
        }
    }
}

/// Step 5. The order matters: the new file gets its name first, so that the manifest never names
/// one that does not exist.
fn begin_epoch(
    dir: &Dir,
    manifest: &mut Manifest,
    copied: Unnamed,
    (wal_files, tail): (&mut Vec<WalFile>, &Tail),
    wal_file_bytes: u64,
    sure_now_ms: TimeMs,
) -> Result<Wal> {
    let header = *copied.header();
    let file = copied.name().map_err(Failure::into_error)?;
    let named = manifest.commit(|live| {
        live.log_file = header.number;
        live.seen_ms = live.seen_ms.max(sure_now_ms);
        relaxed::settle(live, dir.boot_id());
    });
    named.map_err(Failure::into_error)?;
    wal_files.push(WalFile { number: header.number, start: tail.durable });
    Ok(Wal::new(dir.clone(), &header, file, tail, manifest.next_file(), wal_file_bytes))
}

/// Step 6.
fn remove_leftovers(dir: &Dir, manifest: &Manifest, wal_files: &mut Vec<WalFile>) -> Result<()> {
    let live = manifest.live();
    let needed: HashSet<String> = live.segments.iter().flat_map(segment::names).collect();
    let is_unnamed = |name: &str| segment::is_file(name).is_some() && !needed.contains(name);
    // Listed again, since steps 2 and 5 have removed and renamed files.
    for name in dir.list()?.iter().filter(|name| is_unnamed(name) || manifest.is_older(name)) {
        dir.remove(name)?;
    }
    // A file contains the log up to the start of the next one. It is needed if that start is after
    // its own start and after the checkpoint.
    let needed = |at: usize, files: &[WalFile]| {
        let end = files.get(at + 1).map_or(Lsn(u64::MAX), |next| next.start);
        end > files[at].start.max(live.checkpoint)
    };
    let (kept, dead): (Vec<_>, Vec<_>) =
        (0..wal_files.len()).partition(|at| needed(*at, wal_files));
    for at in dead {
        dir.remove(&wal::file_name(wal_files[at].number))?;
    }
    *wal_files = kept.into_iter().map(|at| wal_files[at]).collect();
    Ok(())
}
