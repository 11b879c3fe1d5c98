//! Backup and restore: a consistent copy of a directory while appends continue (P5, P6, P11).
//!
//! ```text
//!  backup    memory ──flush──> segments of a held view ──link or copy──> target, sync
//!                  ──> manifest ──> complete
//!  restore   a backup's segments ──copy──> a new directory, sync
//!                  ──> manifest with another history ──> complete
//! ```
//!
//! A backup is a directory of segments and one manifest, without a log: the flush before it put
//! everything committed into segments. A memtable is sealed between groups and its segments become
//! visible in one step, so the segments of a view are all batches up to one position of the log,
//! each complete. The view is held until the copy is done, so that merges and expiry remove nothing
//! that is being copied.
//!
//! A merge may leave entries out because of a trim that is still in memory. A view with the output
//! of the merge but without the trim would be a state that never existed: the entries are missing,
//! and nothing records that they were trimmed. So a view is taken after a flush, and if merges used
//! changes above what is flushed, it flushes again and takes another view.
//!
//! The target is claimed first (see `target.rs`). The manifest is written last, when the names of
//! all files are durable: an interrupted backup has no manifest, and neither an engine nor a
//! restore accepts it.
//!
//! A restore changes the history, since after the backup the engine may have given sequences that
//! clients have seen: their cursors are refused, and they read again. A restore copies, so that no
//! bytes are shared between a backup and a directory in use.
//!
//! This file does not know which thread flushes, or what segments hold.

use std::path::Path;
use std::sync::Arc;

use tracing::field::Empty;

use crate::care::target;
use crate::error::{Error, Failure, IoOperation, Result};
use crate::format::manifest::{Live, Relaxed};
use crate::ids::EngineId;
use crate::manifest::Manifest;
use crate::metrics::BACKUP;
use crate::options::LEAST_OPEN_FILES;
use crate::random::random;
use crate::segment::{BlockCache, Segment, names};
use crate::state::State;
use crate::state::view::View;
use crate::vfs::LOCK_NAME;
use crate::vfs::{Dir, disk::DiskDirectory};
use crate::wal;

/// The size of a backup.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Backup {
    /// The number of files, the manifest included.
    pub files: u64,
    /// The number of bytes of segments.
    pub bytes: u64,
    /// The number of entries in them.
    pub entries: u64,
}

/// Copies all segments after `flush`. The target must be claimed.
pub fn backup(state: &State, target: &Dir, flush: impl Fn() -> Result<()>) -> Result<Backup> {
    let span = tracing::info_span!(BACKUP, files = Empty, entries = Empty, bytes = Empty);
    let _entered = span.enter();
    let (view, mut live) = consistent_view(state, flush)?;
    live.checkpoint = view.flushed_to();
    live.log_file = 0;
    // Everything is durable when the backup is complete.
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
    let made = fill(&state.dir, target, true, (state.engine_id, state.writer_epoch), live)?;
    span.record("files", made.files);
    span.record("entries", made.entries);
    span.record("bytes", made.bytes);
    Ok(made)
}

/// A view whose segments do not need the log, and the manifest's content after that: stores that
/// are in the manifest but not in the view are empty in the copy.
fn consistent_view(state: &State, flush: impl Fn() -> Result<()>) -> Result<(Arc<View>, Live)> {
    loop {
        flush()?;
        let view = state.view.load();
        // After the view: no merge that is in the view is missing here.
        let live = state.manifest.lock().live().clone();
        if live.changes_to <= view.flushed_to() {
            return Ok((view, live));
        }
    }
}

/// Copies a backup into a new or empty directory, with another history. An engine can then be
/// opened there.
///
/// The directory of an engine that was closed can be used like a backup. A directory with a log is
/// refused: only an engine can read the log.
pub fn restore(backup: impl AsRef<Path>, target: impl AsRef<Path>) -> Result<Backup> {
    let (backup, target) = (backup.as_ref(), target.as_ref());
    let source = DiskDirectory::open(backup)
        .map_err(|error| Error::io(IoOperation::OpenDirectory, backup, error))?;
    let source = Dir::new(Arc::new(source));
    target::make(
        target,
        || DiskDirectory::create_noting(target),
        |target| restore_in(&source, target),
    )
}

/// As [`restore`], with directories that may be simulated.
pub fn restore_in(source: &Dir, target: &Dir) -> Result<Backup> {
    target::claim(target, |target| {
        let _lock = source.lock(LOCK_NAME, false)?;
        let manifest = read_backup(source)?;
        let live = Live { history: random(), ..manifest.live().clone() };
        fill(source, target, false, (manifest.engine_id(), manifest.writer_epoch()), live)
    })
}

/// The manifest of a backup; fails if a file is missing.
fn read_backup(source: &Dir) -> Result<Manifest> {
    let listed = source.list()?;
    let Some(manifest) = Manifest::load(source, &listed)? else {
        let what = format!(
            "{} is not a backup, or was not completed: a complete backup has a manifest",
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

/// Fills a claimed directory: the segments, a sync of their names, then the manifest.
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
