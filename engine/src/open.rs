//! Opening: from a directory, in whatever state a crash left it, to an engine that serves (P1, P2, P5, P6).
//!
//! 1. take the lock; remove temporary files, which nobody needs and which may hold the space that the next steps need;
//! 2. load the manifest; without one the directory must be empty of our files, and gets a first manifest;
//! 3. open the segments that it names: damage is kept by the segment, not fatal;
//! 4. read the log from the checkpoint on into a memtable; a torn tail is cut, damage refuses the open;
//! 5. begin a new epoch: copy what may be in the page cache only into a new log file, make it durable, say so in the manifest;
//! 6. remove what no manifest names: log files behind the checkpoint, segments of unfinished work, older manifests.
//!
//! Nothing is served and no sequence is given before 5 is done. A crash inside is harmless: every step leaves a directory from
//! which the next open comes to the same state. Nothing but temporary files is removed before 5 is durable, and only names that
//! are ours.
//!
//! If the disk is full, the reserve is given back and all is done again.
//!
//! Read-only: nothing in the directory is changed, so 5 and 6 are left out; 4 goes on behind damage, and readers of a timeline
//! that misses entries because of it are told that it is trimmed.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};

use crate::batch::{remembered, timeline_hash};
use crate::clock::{Clock, SureTime};
use crate::entry::{End, Floor};
use crate::error::{Error, Failure, Result};
use crate::format::header::{FileHeader, FileKind, VERSION};
use crate::format::manifest::{Live, StoreRecord};
use crate::format::wal::{Operation, Record, WAL_HEADER_BYTES, decode_tail, sequences_of, stamp};
use crate::ids::{EngineId, FileNumber, Lsn, Sequence, StoreId, TimeMs, TimelineRef};
use crate::manifest::Manifest;
use crate::memtable::{Body, Effect, Group, IdRecord, Memtable, SlotId};
use crate::options::Options;
use crate::read::Reading;
use crate::reserve::{self, Reserve};
use crate::segment::{self, BlockCache, Segment};
use crate::sequence::Allocator;
use crate::state::{Poison, Progress, State};
use crate::stats::Counters;
use crate::vfs::Dir;
use crate::view::{CurrentView, SegmentSet, View};
use crate::wal::{self, Files, Tail, Wal, WalFile};

pub const LOCK_NAME: &str = "LOCK";

/// The first log file of an epoch: written through with zeros at once, so that the first syncs are as fast as the later ones.
const FIRST_FILE_BYTES: u64 = 1024 * 1024;

/// What opening gives: the state, and the log's writing end unless the engine is read-only.
pub struct Opened {
    pub state: Arc<State>,
    pub wal: Option<Wal>,
    pub lock: Box<dyn Send + Sync>,
    /// What a read-only open went around.
    pub damage: Vec<Error>,
}

/// Opens a directory. On a full disk the reserve is given back and all is done again: a try that was cut left nothing behind.
pub fn open(dir: Dir, clock: Arc<dyn Clock>, options: Options) -> Result<Opened> {
    match open_once(dir.clone(), clock.clone(), options.clone(), true) {
        Err(Error::DiskFull { path }) if !options.read_only => {
            let lock = dir.lock(LOCK_NAME, true)?;
            dir.remove(reserve::NAME).map_err(|_| Error::DiskFull { path })?;
            drop(lock);
            tracing::warn!(
                "the disk is full: the reserve is given back, appends are refused until there is space"
            );
            open_once(dir, clock, options, false)
        }
        opened => opened,
    }
}

/// `has_space`: as far as is known.
fn open_once(dir: Dir, clock: Arc<dyn Clock>, options: Options, has_space: bool) -> Result<Opened> {
    let lock = dir.lock(LOCK_NAME, !options.read_only)?;
    if !options.read_only {
        remove_temporary(&dir)?;
    }
    let names = dir.list()?;
    let mut manifest = load_manifest(&dir, &names, &options)?;
    let engine_id = manifest.engine_id();
    let cache = Arc::new(BlockCache::new(options.cache_bytes(0)));
    let stores = &manifest.live().stores;
    cache.damages().name_stores(stores.iter().map(|store| (store.id, store.name.as_str())));
    let mut segments = SegmentSet::default();
    for record in &manifest.live().segments {
        segments.add([Arc::new(Segment::open(&dir, engine_id, record.clone(), &cache))]);
    }
    let (log, mut damage) = find_log(&dir, &names, &manifest, options.read_only)?;
    let checkpoint = manifest.live().checkpoint;
    let view = View { active: Arc::new(Memtable::new(checkpoint)), sealed: Vec::new(), segments };
    let mut replay = Replay::new(view, options.read_only);
    let mut tail = wal::replay(&dir, &log, checkpoint, options.read_only, &mut |lsn, record| {
        replay.record(record).map_err(|what| replay_damage(&dir, &log, lsn, what))
    })?;
    damage.extend(tail.damage.iter().cloned());
    damage.iter().for_each(|error| tracing::error!(%error, "the log is damaged"));
    let last_time_ms = replay.last_time_ms.max(manifest.live().last_time_ms);
    tracing::info!(entries = replay.entries, from = %checkpoint, to = %tail.end, "the log was replayed");

    let sure = SureTime::new(&*clock, manifest.live().seen_ms);
    let sure_now_ms = sure.now_ms(&*clock);
    let mut wal_files: Vec<WalFile> = log.iter().map(|(file, _)| *file).collect();
    let mut wal = None;
    if !options.read_only {
        let first_bytes = if has_space { FIRST_FILE_BYTES.min(options.wal_file_bytes) } else { 0 };
        let file_bytes = (first_bytes, options.wal_file_bytes);
        wal = Some(begin_epoch(&dir, &mut manifest, &mut wal_files, &mut tail, file_bytes, sure_now_ms)?);
        remove_leftovers(&dir, &manifest, &mut wal_files)?;
    }
    let reserve = open_reserve(&dir, &options);
    let state = State {
        dir,
        clock,
        sure,
        engine_id,
        writer_epoch: manifest.writer_epoch(),
        view: CurrentView::new(replay.view),
        stores: RwLock::new(manifest.live().stores.clone()),
        history: manifest.live().history,
        manifest: Mutex::new(manifest),
        applying: RwLock::default(),
        changing: std::array::from_fn(|_| Mutex::new(())),
        merging: Mutex::new(()),
        wal_files: Mutex::new(wal_files),
        watch: Arc::default(),
        cache,
        hasher: replay.hasher,
        last_time_ms: AtomicU64::new(last_time_ms),
        counters: Counters::default(),
        poison: Poison::default(),
        preparer: Mutex::new(wal.as_ref().map(Wal::preparer)),
        unmergeable: Mutex::default(),
        debt_bytes: AtomicU64::new(0),
        merge_waits: AtomicBool::new(false),
        expiring: Mutex::new(()),
        reserve,
        progress: Progress::default(),
        closing: AtomicBool::new(false),
        options,
    };
    Ok(Opened { state: Arc::new(state), wal, lock, damage })
}

/// After step 5, which needs the space more.
fn open_reserve(dir: &Dir, options: &Options) -> Reserve {
    if options.read_only {
        Reserve::none(dir.clone())
    } else {
        Reserve::open(dir.clone(), options.reserve_bytes(0))
    }
}

/// Files of work that was cut. Nothing refers to them.
fn remove_temporary(dir: &Dir) -> Result<()> {
    let ours = |stem: &str| {
        stem.starts_with("wal-")
            || stem == "manifest"
            || stem == reserve::NAME
            || segment::is_file(stem).is_some()
    };
    for name in dir.list()?.iter().filter(|name| name.strip_suffix(".tmp").is_some_and(ours)) {
        dir.remove(name)?;
    }
    Ok(())
}

/// Step 2.
fn load_manifest(dir: &Dir, names: &[String], options: &Options) -> Result<Manifest> {
    if let Some(manifest) = Manifest::load(dir, names)? {
        return Ok(manifest);
    }
    let orphan = names.iter().find(|name| wal::is_file(name).is_some() || segment::is_file(name).is_some());
    if let Some(orphan) = orphan {
        let what = "there is no manifest, but this file belongs to one: restore the manifest";
        return Err(Error::corrupt(dir.path_of(orphan), 0, what));
    }
    if options.read_only {
        return Err(Error::invalid(format!("{} holds no engine to read", dir.path_of("").display())));
    }
    let live = Live {
        history: random(),
        stores: vec![
            StoreRecord::new(StoreId(1), "messages", 0),
            StoreRecord::new(StoreId(2), "sync", options.sync_ttl_ms),
        ],
        ..Live::default()
    };
    let mut manifest = Manifest::new(dir.clone(), new_engine_id(), live);
    manifest.commit(|_| ()).map_err(told)?;
    Ok(manifest)
}

/// While an engine opens, a failure is told to its opener, whatever it left behind.
pub fn told(failure: Failure) -> Error {
    match failure {
        Failure::Refused(error) | Failure::Poisoned(error) => error,
    }
}

/// The id of a new engine.
pub fn new_engine_id() -> EngineId {
    EngineId((u128::from(random()) << 64 | u128::from(random())).to_le_bytes())
}

/// A number that nobody has seen before: the standard library seeds its hashers from the operating system's random source.
pub fn random() -> u64 {
    RandomState::new().hash_one(0)
}

/// The log's files, and what is wrong with them when only reading.
fn find_log(
    dir: &Dir,
    names: &[String],
    manifest: &Manifest,
    read_only: bool,
) -> Result<(Files, Vec<Error>)> {
    let (log, mut damage) = wal::files(dir, names, manifest.engine_id(), read_only)?;
    match check_log_file(dir, manifest.live().log_file, &log) {
        Err(missing) if !read_only => return Err(missing),
        checked => damage.extend(checked.err()),
    }
    Ok((log, damage))
}

/// The log file that the manifest counts on, if any, must be there.
pub fn check_log_file(dir: &Dir, wanted: FileNumber, log: &Files) -> Result<()> {
    if wanted == 0 || log.iter().any(|(file, _)| file.number >= wanted) {
        return Ok(());
    }
    let path = dir.path_of(&wal::file_name(wanted));
    Err(Error::corrupt(path, 0, "the manifest counts on this log file, but it is not there: restore it"))
}

fn replay_damage(dir: &Dir, log: &Files, lsn: Lsn, what: Wrong) -> Error {
    let file = log.iter().rev().find(|(file, _)| file.start <= lsn).map(|(file, _)| *file);
    match (what, file) {
        (Wrong::Failed(error), _) => error,
        (Wrong::Record(what), Some(file)) => {
            let path = dir.path_of(&wal::file_name(file.number));
            Error::corrupt(path, WAL_HEADER_BYTES + (lsn.0 - file.start.0), what)
        }
        (Wrong::Record(what), None) => Error::invalid(what),
    }
}

/// Why a record cannot be replayed.
enum Wrong {
    Failed(Error),
    Record(String),
}

/// Step 4: records into a memtable.
struct Replay {
    view: View,
    hasher: hashbrown::DefaultHashBuilder,
    allocator: Allocator,
    group: Group,
    last_time_ms: TimeMs,
    entries: u64,
    /// Entries may be missing because of damage: go on, and let readers know.
    go_on: bool,
}

impl Replay {
    fn new(view: View, go_on: bool) -> Replay {
        Replay {
            view,
            hasher: hashbrown::DefaultHashBuilder::default(),
            allocator: Allocator::default(),
            group: Group::default(),
            last_time_ms: 0,
            entries: 0,
            go_on,
        }
    }

    /// All of a record, or nothing of it.
    fn record(&mut self, record: &Record<'_>) -> Result<(), Wrong> {
        self.all_of(record).inspect_err(|_| {
            self.group.clear();
            self.allocator.fall_back(0);
        })
    }

    fn all_of(&mut self, record: &Record<'_>) -> Result<(), Wrong> {
        let tail = Bytes::copy_from_slice(record.tail);
        self.group.hold(tail.len());
        let operations =
            decode_tail(&tail).ok_or_else(|| Wrong::Record("its operations cannot be read".into()))?;
        let (given, _) = sequences_of(record, &operations)
            .ok_or_else(|| Wrong::Record("it has more or fewer sequences than its operations need".into()))?;
        // As when they were committed, changes come after the batch's own appends, and so do their sequences.
        let mut sequences = record.sequences.iter().copied();
        let is_append = |operation: &Operation<'_>| matches!(operation, Operation::Append { .. });
        let (appends, changes): (Vec<_>, Vec<_>) = operations.into_iter().partition(is_append);
        for operation in appends.into_iter().chain(changes) {
            self.operation(operation, (record, given), &mut sequences, &tail)?;
        }
        self.view.active.apply(&mut self.group);
        self.view.active.committed_at(record.time_ms);
        self.allocator.settle();
        self.last_time_ms = self.last_time_ms.max(record.time_ms);
        Ok(())
    }

    fn operation(
        &mut self,
        operation: Operation<'_>,
        (record, given): (&Record<'_>, &[Sequence]),
        sequences: &mut impl Iterator<Item = Sequence>,
        tail: &Bytes,
    ) -> Result<(), Wrong> {
        let mut next = || sequences.next().expect("they were counted");
        match operation {
            Operation::Append { body, stamped, lifetime_ms, targets } => {
                let time_ms = record.time_ms;
                let expire_at_ms = if lifetime_ms == 0 { 0 } else { time_ms.saturating_add(lifetime_ms) };
                let mut bytes = tail.slice(body);
                if stamped {
                    let origin = given.first().copied().unwrap_or(0);
                    bytes = stamp(&bytes, origin).into();
                    self.group.hold(bytes.len());
                }
                self.group.body(Body { time_ms, expire_at_ms, bytes });
                for (place, timeline) in targets.into_iter().enumerate() {
                    self.entry(timeline, next(), record.chosen && place == 0)?;
                }
                Ok(())
            }
            Operation::Trim { timeline, floor } => self.effect(timeline, next(), Effect::Trim(floor)),
            Operation::Remove { timeline, ranges } => self.effect(timeline, next(), Effect::Remove(ranges)),
            Operation::Edit { timeline, sequence, body } => {
                self.effect(timeline, next(), Effect::Edit(sequence, tail.slice(body)))
            }
            Operation::Id { timeline, id, hashes: (body_hash, targets_hash) } => {
                let sequences = remembered(targets_hash, given).into();
                let used = IdRecord { body_hash, targets_hash, time_ms: record.time_ms, sequences };
                // Its timeline has a slot already: it is that of the first append.
                self.effect(timeline, 0, Effect::Id(tail.slice_ref(id), used))
            }
        }
    }

    fn entry(&mut self, timeline: TimelineRef<'_>, sequence: Sequence, chosen: bool) -> Result<(), Wrong> {
        let slot = self.slot(timeline, sequence.saturating_sub(1))?;
        let last = self.allocator.last(slot, &self.view.active);
        if sequence > last + 1 && !chosen {
            if !self.go_on {
                return Err(Wrong::Record(format!("{timeline:?} goes from sequence {last} to {sequence}")));
            }
            let floor = self.view.active.end_of(slot).floor;
            self.group.effect(slot, Effect::Trim(Floor { trimmed_to: sequence - 1, ..floor }));
        }
        if !self.allocator.take(slot, &self.view.active, sequence) {
            return Err(Wrong::Record(format!("sequence {sequence} of {timeline:?} was given before")));
        }
        self.group.entry(slot, sequence);
        self.entries += 1;
        Ok(())
    }

    fn effect(&mut self, timeline: TimelineRef<'_>, end: Sequence, effect: Effect) -> Result<(), Wrong> {
        let slot = self.slot(timeline, end)?;
        let last = self.allocator.last(slot, &self.view.active);
        if !matches!(effect, Effect::Edit(sequence, _) if sequence > last) {
            self.group.effect(slot, effect);
        }
        Ok(())
    }

    /// The timeline's slot, made if it has none. If a damaged segment hides where the timeline ended, the record tells: it is
    /// `end`; readers meet the damage when they need what is older.
    fn slot(&self, timeline: TimelineRef<'_>, end: Sequence) -> Result<SlotId, Wrong> {
        let hash = timeline_hash(&self.hasher, timeline);
        let memtable = &self.view.active;
        if let Some(slot) = memtable.find(timeline, hash) {
            return Ok(slot);
        }
        let reading = Reading {
            view: &self.view,
            timeline,
            hash,
            now_ms: 0,
            ttl_ms: 0,
            alive_from_ms: 0,
            around_damage: false,
        };
        let end = match reading.end() {
            Ok(end) => end,
            Err(Error::Corrupt { .. }) => End { last: end, ..End::NEVER },
            Err(error) => return Err(Wrong::Failed(error)),
        };
        Ok(memtable.insert(timeline, hash, end))
    }
}

/// Step 5. The order matters: the new file first, so that the manifest never counts on one that is not there.
fn begin_epoch(
    dir: &Dir,
    manifest: &mut Manifest,
    wal_files: &mut Vec<WalFile>,
    tail: &mut Tail,
    (first_bytes, wal_file_bytes): (u64, u64),
    sure_now_ms: TimeMs,
) -> Result<Wal> {
    // A crash may have left a file behind that has a number which no manifest knows of.
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
        second: needed.next_multiple_of(4096) + FIRST_FILE_BYTES.min(wal_file_bytes),
    };
    // Not a copy: it may be as large as a memtable.
    let mut content = std::mem::take(&mut tail.unsynced);
    let unsynced = content.len();
    content.resize(unsynced + first_bytes as usize, 0);
    let file = match wal::create(dir, &header, &content) {
        // The zeros are for speed only.
        Err(Failure::Refused(Error::DiskFull { .. })) => wal::create(dir, &header, &content[..unsynced]),
        made => made,
    };
    let file = file.map_err(told)?;
    let named = manifest.commit(|live| {
        live.log_file = header.number;
        live.seen_ms = live.seen_ms.max(sure_now_ms);
    });
    named.map_err(told)?;
    wal_files.push(WalFile { number: header.number, start: tail.durable });
    Ok(Wal::new(dir.clone(), &header, file, tail, manifest.next_file(), wal_file_bytes))
}

/// Step 6.
fn remove_leftovers(dir: &Dir, manifest: &Manifest, wal_files: &mut Vec<WalFile>) -> Result<()> {
    let live = manifest.live();
    let needed: HashSet<String> = live.segments.iter().flat_map(segment::names).collect();
    let is_unnamed = |name: &str| segment::is_file(name).is_some() && !needed.contains(name);
    // Listed again: steps 2 and 5 have removed and renamed files of their own.
    for name in dir.list()?.iter().filter(|name| is_unnamed(name) || manifest.is_older(name)) {
        dir.remove(name)?;
    }
    // A file is needed up to where the next one starts, if that is behind the checkpoint.
    let needed = |at: usize, files: &[WalFile]| {
        let end = files.get(at + 1).map_or(Lsn(u64::MAX), |next| next.start);
        end > files[at].start.max(live.checkpoint)
    };
    let (kept, dead): (Vec<_>, Vec<_>) = (0..wal_files.len()).partition(|at| needed(*at, wal_files));
    for at in dead {
        dir.remove(&wal::file_name(wal_files[at].number))?;
    }
    *wal_files = kept.into_iter().map(|at| wal_files[at]).collect();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::wal::TailWriter;
    use crate::ids::StoreId;

    const A: TimelineRef<'_> = TimelineRef { store: StoreId(1), name: b"a" };
    const B: TimelineRef<'_> = TimelineRef { store: StoreId(1), name: b"b" };

    fn append(replay: &mut Replay, targets: &[TimelineRef<'_>], sequences: &[Sequence]) -> bool {
        let mut writer = TailWriter::default();
        writer.body(b"body");
        writer.append(false, 0, targets.len());
        for target in targets {
            writer.timeline(*target);
        }
        let (tail, _) = writer.finish();
        let record = Record { time_ms: 1, chosen: false, sequences: sequences.to_vec(), tail: &tail };
        replay.record(&record).is_ok()
    }

    #[test]
    fn of_a_record_that_fails_halfway_nothing_is_kept() {
        let active = Arc::new(Memtable::new(Lsn(0)));
        let view = View { active, sealed: Vec::new(), segments: SegmentSet::default() };
        let mut replay = Replay::new(view, true);
        assert!(append(&mut replay, &[B], &[1]));
        assert!(!append(&mut replay, &[A, B], &[1, 1]), "the sequence was given before");
        assert!(!append(&mut replay, &[A], &[1, 2]), "more sequences than it needs");
        assert!(append(&mut replay, &[A, B], &[1, 2]), "and none of it was given");
        let last = |timeline| {
            let slot = replay.view.active.find(timeline, timeline_hash(&replay.hasher, timeline));
            replay.view.active.end_of(slot.expect("it has a slot")).last
        };
        assert_eq!((last(A), last(B)), (1, 2));
    }
}
