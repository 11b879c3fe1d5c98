//! The target of a backup, a restore or a salvage: a new or empty directory, claimed before
//! anything is put there (P6).
//!
//! 1. check that it is empty, so that nothing is written into a directory that holds something
//!    else;
//! 2. take the lock that an engine takes: of several that get this far, one goes on, and no engine
//!    opens the directory meanwhile;
//! 3. check again: another may have filled the directory between 1 and 2;
//! 4. fill it; the lock file stays, for the engine that opens the directory later.
//!
//! If a step fails, what was made is removed: first the files, the newest first, so that the
//! manifest goes before the segments that it names; then the lock file, while it is still locked;
//! then the directories that were made for it, as long as they are empty. Nothing else is removed.
//!
//! An engine that imports needs none of this: it holds the same lock from its open on.
//!
//! It does not know: what the directory is filled with.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::vfs::Dir;
use crate::vfs::LOCK_NAME;
use crate::vfs::disk::{DiskDirectory, remove_empty};

/// Names that an empty directory may have: the lock, and what `mkfs` puts into the root of a file
/// system.
const IN_EMPTY: [&str; 2] = [LOCK_NAME, "lost+found"];

/// Does something with the directory at `path`, made by `create` if there is none. If it fails, the
/// directories that were made go again, unless it was for want of space: then it is tried again
/// there.
pub fn make<T>(
    path: &Path,
    create: impl FnOnce() -> io::Result<(DiskDirectory, Vec<PathBuf>)>,
    fill: impl FnOnce(&Dir) -> Result<T>,
) -> Result<T> {
    let (raw, made) = create().map_err(|error| Error::io("make the directory", path, error))?;
    fill(&Dir::new(Arc::new(raw))).inspect_err(|error| {
        if !error.is_shortage() {
            remove_empty(&made);
        }
    })
}

/// Fills an empty directory by `fill`, which gets the directory with a record of what is made in
/// it.
pub fn claim<T>(target: &Dir, fill: impl FnOnce(&Dir) -> Result<T>) -> Result<T> {
    check_empty(target)?;
    let target = target.recording();
    // Made here and not by the lock, so that it is recorded. If it is there already, or cannot be
    // made, the lock finds that as well.
    let _ = target.create(LOCK_NAME);
    let _lock = target.lock(LOCK_NAME, true).inspect_err(|error| {
        // If another has the lock, it needs the file, whoever made it.
        if !matches!(error, Error::Locked { .. }) {
            target.remove_recorded();
        }
    })?;
    check_empty(&target).and_then(|()| fill(&target)).inspect_err(|_| target.remove_recorded())
}

/// Whether nothing is lost by filling a directory: there is none, or it is empty but for a lock and
/// what `mkfs` makes.
pub fn is_empty_directory(path: impl AsRef<Path>) -> bool {
    match DiskDirectory::open(path.as_ref()) {
        Ok(raw) => check_empty(&Dir::new(Arc::new(raw))).is_ok(),
        Err(_) => !path.as_ref().exists(),
    }
}

/// An error if a directory holds anything, so that nothing is ever mixed with a copy.
fn check_empty(dir: &Dir) -> Result<()> {
    match dir.list()?.iter().find(|name| !IN_EMPTY.contains(&name.as_str())) {
        None => Ok(()),
        Some(name) => Err(Error::invalid(format!(
            "{} is there already: choose a new or empty directory",
            dir.path_of(name).display()
        ))),
    }
}
