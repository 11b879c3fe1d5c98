//! The backup path, and back: a consistent copy of a directory while appends go on (P5, P6, P11).
//!
//! ```text
//!  backup    memory ──flush──> segments of a held view ──link or copy──> target, sync ──> manifest ──> whole
//!  restore   a backup's segments ──copy──> a new directory, sync ──> manifest with another history ──> whole
//! ```
//!
//! A backup is a directory of segments and one manifest, without a log: the flush before it put all
//! that was committed into segments. A memtable is sealed between groups and its segments become
//! visible in one step, so the segments of a view are all batches up to some place in the log, each
//! as a whole. The view is held until the copy is done, so that merges and expiry remove nothing
//! under it.
//!
//! A merge may leave entries out because of a trim that is still in memory. A view that has its
//! output but not the trim would be the state of no moment: the entries are missing, and nothing
//! says that they were trimmed. So a view is taken after a flush, and if merges used changes above
//! what is flushed, it is flushed again and another view is taken.
//!
//! The target is claimed first (see `target.rs`). The manifest is written last, when the names of
//! all files are durable: a backup that was cut has none, and neither an engine nor a restore takes
//! it.
//!
//! A restore changes the history, since the engine may have given sequences after the backup that
//! clients have seen: their cursors are refused, and they read again. It copies, so that no bytes
//! are shared between a backup and what is in use.
//!
//! It does not know: which thread flushes, or what segments hold.

use std::path::Path;
use std::sync::Arc;

use crate::care::target;
use crate::error::{Error, Failure, Result};
use crate::format::manifest::{Live, Relaxed};
use crate::ids::EngineId;
use crate::manifest::Manifest;
use crate::options::LEAST_OPEN_FILES;
use crate::random::random;
use crate::segment::{BlockCache, Segment, names};
use crate::state::State;
use crate::state::view::View;
use crate::vfs::LOCK_NAME;
use crate::vfs::{Dir, disk::DiskDirectory};
use crate::wal;

/// What was copied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backup {
    /// How many files, the manifest included.
    pub files: u64,
    /// The bytes of segments.
    pub bytes: u64,
    /// How many entries they hold.
    pub entries: u64,
}

/// Copies what is in segments after `flush`. The target is claimed.
pub fn backup(state: &State, target: &Dir, flush: impl Fn() -> Result<()>) -> Result<Backup> {
    let (view, mut live) = consistent_view(state, flush)?;
    live.checkpoint = view.flushed_to();
    live.log_file = 0;
    // All of it is durable when the backup is whole.
    live.relaxed = Relaxed::default();
    // A store may have been dropped since the view was taken.
    let is_known = |segment: &&Arc<Segment>| {
        live.stores.iter().any(|store| store.id == segment.record().store)
    };
    let mut segments: Vec<&Arc<Segment>> = view.segments.all().filter(is_known).collect();
    for segment in &segments {
        segment.check()?;
    }
    segments.sort_by_key(|segment| segment.record().place());
    live.segments = segments.iter().map(|segment| segment.record().clone()).collect();
    fill(&state.dir, target, true, (state.engine_id, state.writer_epoch), live)
}

/// A view whose segments need nothing of the log, and what the manifest said afterwards: stores
/// that it names and the view does not know are empty in the copy.
fn consistent_view(state: &State, flush: impl Fn() -> Result<()>) -> Result<(Arc<View>, Live)> {
    loop {
        flush()?;
        let view = state.view.load();
        // After the view: no merge that is in it is missing here.
        let live = state.manifest.lock().live().clone();
        if live.changes_to <= view.flushed_to() {
            return Ok((view, live));
        }
    }
}

/// Makes a backup the content of a new or empty directory, with another history. An engine can then
/// be opened there.
///
/// A directory of an engine that was closed is as good as a backup. One that has a log is refused:
/// only an engine can read that.
pub fn restore(backup: impl AsRef<Path>, target: impl AsRef<Path>) -> Result<Backup> {
    let (backup, target) = (backup.as_ref(), target.as_ref());
    let source = DiskDirectory::open(backup)
        .map_err(|error| Error::io("open the directory", backup, error))?;
    let source = Dir::new(Arc::new(source));
    target::make(
        target,
        || DiskDirectory::create_noting(target),
        |target| restore_in(&source, target),
    )
}

/// The same with directories that may be simulated.
pub fn restore_in(source: &Dir, target: &Dir) -> Result<Backup> {
    target::claim(target, |target| {
        let _lock = source.lock(LOCK_NAME, false)?;
        let manifest = read_backup(source)?;
        let live = Live { history: random(), ..manifest.live().clone() };
        fill(source, target, false, (manifest.engine_id(), manifest.writer_epoch()), live)
    })
}

/// The manifest of a backup of which all files are there.
fn read_backup(source: &Dir) -> Result<Manifest> {
    let listed = source.list()?;
    let Some(manifest) = Manifest::load(source, &listed)? else {
        let what = format!(
            "{} is no backup, or one that was cut: a whole one has a manifest",
            source.path_of("").display()
        );
        return Err(Error::invalid(what));
    };
    if let Some(log) = listed.iter().find(|name| wal::is_file(name).is_some()) {
        let what = format!(
            "{} is the log of an engine that was not closed: open the directory with it, or take \
             a backup of it",
            source.path_of(log).display()
        );
        return Err(Error::invalid(what));
    }
    let cache = Arc::new(BlockCache::new(0, LEAST_OPEN_FILES));
    for record in &manifest.live().segments {
        Segment::open(source, manifest.engine_id(), record.clone(), &cache).check()?;
    }
    Ok(manifest)
}

/// Fills a claimed directory: the segments, then their names for good, then the manifest.
fn fill(
    source: &Dir,
    target: &Dir,
    may_link: bool,
    (engine_id, writer_epoch): (EngineId, u64),
    live: Live,
) -> Result<Backup> {
    let mut backup = Backup { files: 1, ..Backup::default() };
    for record in &live.segments {
        for name in names(record) {
            backup.bytes += target.place(source, &name, may_link)?;
            backup.files += 1;
        }
        backup.entries += if record.has_data() { record.entries } else { 0 };
    }
    target.sync()?;
    let mut manifest = Manifest::new(target.clone(), engine_id, live).in_epoch(writer_epoch);
    manifest.commit(|_| ()).map_err(Failure::into_error)?;
    Ok(backup)
}
