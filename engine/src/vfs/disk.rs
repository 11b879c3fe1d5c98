//! The operating system's files. Reads use `pread`, so that a bad sector or a truncated file is an
//! error of that read and never a signal (docs/decisions/0001-reads-by-pread.md).
//!
//! Entries are private messages: directories and files that are created here are accessible by
//! their owner only, whatever the umask. Existing files keep their mode.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "this is the room that asks"
)]

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{RawDirectory, RawFile, Site};
use crate::ids::BootId;

/// The file with Linux's boot id: 32 hex digits with hyphens.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Modes of created directories and files; a umask can only remove bits.
const DIRECTORY_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;

/// A directory of the operating system.
#[derive(Debug)]
pub struct DiskDirectory {
    path: PathBuf,
    /// Kept open, so that a sync of the directory needs no descriptor when there is none left.
    handle: File,
}

impl DiskDirectory {
    /// The directory at `path`.
    pub fn open(path: &Path) -> io::Result<DiskDirectory> {
        Ok(DiskDirectory { path: path.to_path_buf(), handle: File::open(path)? })
    }

    /// The directory at `path`; created, with its parents, if there is none. All names on the path
    /// are durable afterwards, those of existing directories too: they may have been created by a
    /// process that was killed before it could sync them.
    pub fn create(path: &Path) -> io::Result<DiskDirectory> {
        DiskDirectory::create_noting(path).map(|(directory, _)| directory)
    }

    /// As [`DiskDirectory::create`], also returning the directories that were created, the
    /// outermost first: for [`remove_empty`].
    pub fn create_noting(path: &Path) -> io::Result<(DiskDirectory, Vec<PathBuf>)> {
        let made = make_durable(path, &mut |parent| File::open(parent)?.sync_all())?;
        Ok((DiskDirectory::open(path)?, made))
    }

    /// Opens the lock file; creates it if there is none.
    fn lock_file(path: &Path) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.create(true).truncate(false).read(true).write(true).mode(FILE_MODE).open(path)
    }
}

/// Removes directories that were created, the innermost first, up to the first one that is not
/// empty: another process may have begun to use it.
pub fn remove_empty(made: &[PathBuf]) {
    // A directory that remains is empty and harmless.
    let _ = made.iter().rev().try_for_each(fs::remove_dir);
}

/// Creates a directory and its missing ancestors, then syncs all ancestors, the nearest first.
/// Returns the created directories.
fn make_durable(
    path: &Path,
    sync: &mut dyn FnMut(&Path) -> io::Result<()>,
) -> io::Result<Vec<PathBuf>> {
    let path = std::path::absolute(path)?;
    let mut made = Vec::new();
    let missing: Vec<&Path> = path.ancestors().take_while(|above| !above.is_dir()).collect();
    for directory in missing.into_iter().rev() {
        match DirBuilder::new().mode(DIRECTORY_MODE).create(directory) {
            Ok(()) => made.push(directory.to_path_buf()),
            // Another process created it meanwhile, or its name ends in `..`.
            Err(_) if directory.is_dir() => {}
            Err(error) => return Err(error),
        }
    }
    for parent in path.ancestors().skip(1) {
        match sync(parent) {
            // Another user created a name in a directory that this user may not read.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => break,
            synced => synced?,
        }
    }
    Ok(made)
}

/// Whether a path names the file that is open.
fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let open = file.metadata()?;
    match fs::metadata(path) {
        Ok(named) => Ok((named.dev(), named.ino()) == (open.dev(), open.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// A lock file that is locked.
struct Locked(File);

impl Drop for Locked {
    fn drop(&mut self) {
        // Closing is not enough: a process that was just forked also has the file open, until it
        // executes another program.
        let _ = self.0.unlock();
    }
}

fn lock_result(locked: Result<(), TryLockError>) -> io::Result<()> {
    locked.map_err(|error| match error {
        TryLockError::WouldBlock => io::ErrorKind::WouldBlock.into(),
        TryLockError::Error(error) => error,
    })
}

impl RawDirectory for DiskDirectory {
    fn path(&self) -> PathBuf {
        self.path.clone()
    }

    fn lock(&self, name: &str, alone: bool) -> io::Result<Box<dyn Send + Sync>> {
        let path = self.path.join(name);
        let mut locked = loop {
            let opened = if alone { DiskDirectory::lock_file(&path) } else { File::open(&path) };
            let file = match opened {
                // A directory that never had a writer, or was copied without the lock file, needs
                // no exclusion.
                Err(error) if !alone && error.kind() == io::ErrorKind::NotFound => {
                    return Ok(Box::new(()));
                }
                opened => opened?,
            };
            lock_result(if alone { file.try_lock() } else { file.try_lock_shared() })?;
            let locked = Locked(file);
            // A failed claim may have removed the file before it was locked here. The lock of a
            // file without a name excludes nobody.
            if is_at(&locked.0, &path)? {
                break locked;
            }
        };
        if !is_at(&self.handle, &self.path)? {
            // A sync would apply to the directory that was opened, files to the one that has its
            // name.
            let what = "the directory was removed or replaced while it was opened: try again";
            return Err(io::Error::new(io::ErrorKind::NotFound, what));
        }
        if alone {
            // The process id only informs a person; a full disk must not prevent an engine from
            // opening.
            let file = &mut locked.0;
            let _ = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
        }
        Ok(Box::new(locked))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            // A name that is not UTF-8 is not a file of the engine, and neither is its lossy form.
            // It is listed nevertheless: a directory that holds it is not empty.
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
        Ok(names)
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn RawFile>> {
        let mut options = OpenOptions::new();
        let file = options
            .create_new(true)
            .read(true)
            .write(true)
            .mode(FILE_MODE)
            .open(self.path.join(name))?;
        Ok(Arc::new(DiskFile { file }))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn RawFile>> {
        Ok(Arc::new(DiskFile { file: File::open(self.path.join(name))? }))
    }

    fn open_to_write(&self, name: &str) -> io::Result<Arc<dyn RawFile>> {
        let file = File::options().read(true).write(true).open(self.path.join(name))?;
        Ok(Arc::new(DiskFile { file }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path.join(from), self.path.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path.join(name))
    }

    fn spare_descriptor(&self) -> io::Result<Box<dyn Send + Sync>> {
        Ok(Box::new(self.handle.try_clone()?))
    }

    fn hard_link(&self, name: &str, target: &Path) -> io::Result<()> {
        fs::hard_link(self.path.join(name), target)
    }

    fn sync(&self, _site: Site) -> io::Result<()> {
        self.handle.sync_all()
    }

    fn free_bytes(&self) -> io::Result<u64> {
        // The space for an ordinary user, without the file system's reserve for root.
        let space = rustix::fs::fstatvfs(&self.handle)?;
        Ok(space.f_bavail.saturating_mul(space.f_frsize))
    }

    fn boot_id(&self) -> Option<BootId> {
        parse_boot_id(&fs::read_to_string(BOOT_ID).ok()?)
    }
}

fn parse_boot_id(text: &str) -> Option<BootId> {
    let digits = text.trim().replace('-', "");
    let number = u128::from_str_radix(&digits, 16).ok().filter(|_| digits.len() == 32)?;
    (number != 0).then(|| BootId(number.to_be_bytes()))
}

struct DiskFile {
    file: File,
}

impl RawFile for DiskFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn sync(&self, _site: Site) -> io::Result<()> {
        // fdatasync, which also makes a grown length durable, since the bytes could not be read
        // back without it.
        self.file.sync_data()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_boot_id_is_32_hex_digits_and_anything_else_is_unknown() {
        let known = parse_boot_id("01020304-0506-0708-090a-0b0c0d0e0f10\n");
        assert_eq!(known, Some(BootId([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16])));
        for text in [
            "",
            "0102",
            "00000000-0000-0000-0000-000000000000",
            "x1020304-0506-0708-090a-0b0c0d0e0f10",
        ] {
            assert_eq!(parse_boot_id(text), None, "{text}");
        }
    }

    #[test]
    fn a_released_lock_is_free_even_if_a_forked_process_has_its_file_open() {
        let folder = tempfile::tempdir().expect("a folder");
        let dir = DiskDirectory::open(folder.path()).expect("opens");
        dir.lock("LOCK", true).map(drop).expect("is free");
        for alone in [true, false] {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .open(folder.path().join("LOCK"))
                .expect("opens");
            let forked = file.try_clone().expect("is open twice");
            lock_result(if alone { file.try_lock() } else { file.try_lock_shared() })
                .expect("is free");
            let locked = Locked(file);
            assert!(dir.lock("LOCK", true).is_err());
            drop(locked);
            dir.lock("LOCK", true).map(drop).expect("is free again");
            drop(forked);
        }
    }

    #[test]
    fn a_lock_whose_file_was_removed_does_not_block_a_new_one() {
        let folder = tempfile::tempdir().expect("a folder");
        let dir = DiskDirectory::open(folder.path()).expect("opens");
        let lost = dir.lock("LOCK", true).expect("is free");
        dir.remove("LOCK").expect("removes");
        let kept = dir.lock("LOCK", true).expect("the one that has the name is free");
        drop(lost);
        for alone in [true, false] {
            assert!(dir.lock("LOCK", alone).is_err(), "it is held");
        }
        drop(kept);
        // Many threads lock, remove and unlock: never do two have the lock at the same time.
        let holders = std::sync::atomic::AtomicUsize::new(0);
        let contend = || {
            for _ in 0..2000 {
                let Ok(lock) = dir.lock("LOCK", true) else { continue };
                assert_eq!(
                    holders.fetch_add(1, std::sync::atomic::Ordering::SeqCst),
                    0,
                    "two hold it"
                );
                std::thread::yield_now();
                holders.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
                // Without its name the file is no lock any more.
                dir.remove("LOCK").expect("it is there while it is locked");
                drop(lock);
            }
        };
        std::thread::scope(|scope| {
            (0..4).for_each(|_| drop(scope.spawn(contend)));
        });
    }

    #[test]
    fn a_directory_that_was_replaced_while_it_was_open_is_not_locked() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("one/two");
        let dir = DiskDirectory::create(&path).expect("makes it");
        fs::remove_dir(&path).expect("removes");
        assert!(dir.lock("LOCK", true).is_err(), "it is gone");
        let again = DiskDirectory::create(&path).expect("makes it");
        assert!(dir.lock("LOCK", true).is_err(), "another has its name");
        again.lock("LOCK", true).map(drop).expect("and can be locked");
    }

    #[test]
    fn each_directory_above_a_new_one_is_synced_after_the_name_in_it_was_made() {
        let folder = tempfile::tempdir().expect("a folder");
        let target = folder.path().join("one/two/three");
        for round in 0..2 {
            let mut synced = Vec::new();
            make_durable(&target, &mut |parent| {
                assert!(target.is_dir(), "all names are there before the first sync");
                synced.push(parent.to_path_buf());
                Ok(())
            })
            .expect("makes it");
            let above: Vec<PathBuf> = target.ancestors().skip(1).map(Path::to_path_buf).collect();
            // Existing directories may have been created by a process that was killed: they are
            // synced too.
            assert_eq!(synced, above, "round {round}");
        }
    }
}
