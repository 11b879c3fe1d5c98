//! The backup path, and back: a consistent copy of a directory while appends go on (P5, P6, P11).
//!
//! ```text
//!  backup    memory ──flush──> segments of a held view ──link or copy──> target, sync ──> manifest ──> whole
//!  restore   a backup's segments ──copy──> a new directory, sync ──> manifest with another history ──> whole
//! ```
//!
//! A backup is a directory of segments and one manifest, without a log: the flush before it put all that was committed into
//! segments. A memtable is sealed between groups and its segments become visible in one step, so the segments of a view are all
//! batches up to some place in the log, each as a whole. The view is held until the copy is done, so that merges and expiry remove
//! nothing under it.
//!
//! The manifest is written last, when the names of all files are durable: a backup that was cut has none, and neither an engine
//! nor a restore takes it.
//!
//! A restore changes the history, since the engine may have given sequences after the backup that clients have seen: their
//! cursors are refused, and they read again. It copies, so that no bytes are shared between a backup and what is in use.
//!
//! It does not know: which thread flushes, or what segments hold.

use std::path::Path;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::format::manifest::Live;
use crate::ids::EngineId;
use crate::manifest::Manifest;
use crate::open::{LOCK_NAME, random, told};
use crate::segment::{BlockCache, Segment, names};
use crate::state::State;
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

/// An error if a directory holds anything, so that nothing is ever mixed with a backup.
pub fn check_empty(dir: &Dir) -> Result<()> {
    match dir.list()?.first() {
        None => Ok(()),
        Some(name) => Err(Error::invalid(format!(
            "{} is there already: choose a new or empty directory",
            dir.path_of(name).display()
        ))),
    }
}

/// Copies what is in segments now, after a flush.
pub fn backup(state: &State, target: &Dir) -> Result<Backup> {
    let view = state.view.load();
    // Of now or later: stores of a later time are empty in the copy.
    let mut live = state.manifest.lock().live().clone();
    let oldest = view.memtables().last().expect("a view has an active memtable");
    live.checkpoint = oldest.from();
    live.log_file = 0;
    let mut segments: Vec<&Arc<Segment>> = view.segments.all().collect();
    for segment in &segments {
        segment.check()?;
    }
    segments.sort_by_key(|segment| segment.record().place());
    live.segments = segments.iter().map(|segment| segment.record().clone()).collect();
    fill(&state.dir, target, true, (state.engine_id, state.writer_epoch), live)
}

/// Makes a backup the content of a new or empty directory, with another history. An engine can then be opened there.
///
/// A directory of an engine that was closed is as good as a backup. One that has a log is refused: only an engine can read that.
pub fn restore(backup: impl AsRef<Path>, target: impl AsRef<Path>) -> Result<Backup> {
    let (backup, target) = (backup.as_ref(), target.as_ref());
    let source =
        DiskDirectory::open(backup).map_err(|error| Error::io("open the directory", backup, error))?;
    let source = Dir::new(Arc::new(source));
    // Looked at before the target is made, so that a wrong name leaves no empty directory behind.
    read_backup(&source)?;
    let raw =
        DiskDirectory::create(target).map_err(|error| Error::io("make the directory", target, error))?;
    restore_in(&source, &Dir::new(Arc::new(raw)))
}

/// The same with directories that may be simulated.
pub fn restore_in(source: &Dir, target: &Dir) -> Result<Backup> {
    let _lock = source.lock(LOCK_NAME, false)?;
    check_empty(target)?;
    let manifest = read_backup(source)?;
    let live = Live { history: random(), ..manifest.live().clone() };
    fill(source, target, false, (manifest.engine_id(), manifest.writer_epoch()), live)
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
            "{} is the log of an engine that was not closed: open the directory with it, or take a backup of it",
            source.path_of(log).display()
        );
        return Err(Error::invalid(what));
    }
    let cache = Arc::new(BlockCache::new(0));
    for record in &manifest.live().segments {
        Segment::open(source, manifest.engine_id(), record.clone(), &cache).check()?;
    }
    Ok(manifest)
}

/// Fills an empty directory; takes away again what it made when that fails.
fn fill(source: &Dir, target: &Dir, may_link: bool, of: (EngineId, u64), live: Live) -> Result<Backup> {
    let mut placed = Vec::new();
    let filled = place_all(source, target, may_link, of, live, &mut placed);
    if filled.is_err() {
        for name in &placed {
            // A left-over without a manifest is no backup.
            let _ = target.remove(name);
        }
    }
    filled
}

fn place_all(
    source: &Dir,
    target: &Dir,
    may_link: bool,
    (engine_id, writer_epoch): (EngineId, u64),
    live: Live,
    placed: &mut Vec<String>,
) -> Result<Backup> {
    let mut backup = Backup { files: 1, ..Backup::default() };
    for record in &live.segments {
        for name in names(record) {
            placed.push(name.clone());
            backup.bytes += target.place(source, &name, may_link)?;
            backup.files += 1;
        }
        backup.entries += if record.dropped { 0 } else { record.entries };
    }
    target.sync()?;
    let mut manifest = Manifest::new(target.clone(), engine_id, live).in_epoch(writer_epoch);
    manifest.commit(|_| ()).map_err(told)?;
    Ok(backup)
}
