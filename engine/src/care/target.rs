//! The target of a backup, a restore or a salvage: a new or empty directory, claimed before
//! anything is written there (P6).
//!
//! 1. check that it is empty, so that nothing is written into a directory with other content;
//! 2. take the lock that an engine takes: of several callers that get this far, one continues, and
//!    no engine opens the directory meanwhile;
//! 3. check again: another caller may have filled the directory between 1 and 2;
//! 4. fill it; the lock file stays, for the engine that opens the directory later.
//!
//! If a step fails, everything created is removed: first the files, the newest first, so that the
//! manifest is removed before the segments that it names; then the lock file, while it is still
//! locked; then the directories created for it, as long as they are empty. Nothing else is removed.
//!
//! An engine that imports does not need this: it holds the same lock from its open on.
//!
//! This file does not know what the directory is filled with.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Error, IoOperation, Result};
use crate::vfs::Dir;
use crate::vfs::LOCK_NAME;
use crate::vfs::disk::{DiskDirectory, remove_empty};

/// Names that an empty directory may have: the lock, and the directory that `mkfs` creates in the
/// root of a file system.
const IN_EMPTY: [&str; 2] = [LOCK_NAME, "lost+found"];

/// Calls `fill` for the directory at `path`, created by `create` if there is none. If `fill` fails,
/// the created directories are removed, unless the reason is a shortage: then a retry uses them.
pub fn make<T>(
    path: &Path,
    create: impl FnOnce() -> io::Result<(DiskDirectory, Vec<PathBuf>)>,
    fill: impl FnOnce(&Dir) -> Result<T>,
) -> Result<T> {
    let (raw, made) =
        create().map_err(|error| Error::io(IoOperation::CreateDirectory, path, error))?;
    fill(&Dir::new(Arc::new(raw))).inspect_err(|error| {
        if !error.is_shortage() {
            remove_empty(&made);
        }
    })
}

/// Fills an empty directory by `fill`, which gets the directory with a record of the files created
/// in it.
pub fn claim<T>(target: &Dir, fill: impl FnOnce(&Dir) -> Result<T>) -> Result<T> {
    check_empty(target)?;
    let target = target.recording();
    // Created here and not by the lock, so that it is recorded. If it exists already, or cannot be
    // created, the lock finds that as well.
    let _ = target.create(LOCK_NAME);
    let _lock = target.lock(LOCK_NAME, true).inspect_err(|error| {
        // If another process has the lock, it needs the file, whoever created it.
        if !matches!(error, Error::Locked { .. }) {
            target.remove_recorded();
        }
    })?;
    check_empty(&target).and_then(|()| fill(&target)).inspect_err(|_| target.remove_recorded())
}

/// Whether a directory can be filled without losing anything: it does not exist, or it is empty
/// except for a lock file and the directory that `mkfs` creates.
#[cfg(feature = "internals")]
pub fn is_empty_directory(path: impl AsRef<Path>) -> bool {
    match DiskDirectory::open(path.as_ref()) {
        Ok(raw) => check_empty(&Dir::new(Arc::new(raw))).is_ok(),
        Err(_) => !path.as_ref().exists(),
    }
}

/// Fails if a directory is not empty, so that nothing is ever mixed with a copy.
fn check_empty(dir: &Dir) -> Result<()> {
    match dir.list()?.iter().find(|name| !IN_EMPTY.contains(&name.as_str())) {
        None => Ok(()),
        Some(name) => Err(Error::invalid(format!(
            "{} exists already: choose a new or empty directory",
            dir.path_of(name).display()
        ))),
    }
}
