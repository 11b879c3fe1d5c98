//! The operating system's files. Reads are `pread`, so that a bad sector or a file cut short under us is an error of that read
//! and never a signal (docs/decisions/0001-reads-by-pread.md).
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "this is the room that asks")]

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{RawDirectory, RawFile, Site};
use crate::ids::BootId;

/// Where Linux tells which boot this is: 32 hex digits with hyphens.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// A directory of the operating system.
pub struct DiskDirectory {
    path: PathBuf,
    /// Kept open, so that its sync needs no descriptor when there is none left.
    handle: File,
}

impl DiskDirectory {
    /// The directory at `path`.
    pub fn open(path: &Path) -> io::Result<DiskDirectory> {
        Ok(DiskDirectory { path: path.to_path_buf(), handle: File::open(path)? })
    }

    /// The directory at `path`, made with its parents when there is none. All names on the way are durable then: those that are
    /// there already may have been made by a process that was killed before it could see to it.
    pub fn create(path: &Path) -> io::Result<DiskDirectory> {
        fs::create_dir_all(path)?;
        for parent in std::path::absolute(path)?.ancestors().skip(1) {
            match File::open(parent) {
                Ok(parent) => parent.sync_all()?,
                // Where this user may not even look, somebody else made the name.
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => break,
                Err(error) => return Err(error),
            }
        }
        DiskDirectory::open(path)
    }
}

/// A lock file that is locked.
struct Locked(File);

impl Drop for Locked {
    fn drop(&mut self) {
        // Closing is not enough: a process that was just forked has the file open, too, until it is another program.
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
        if !alone {
            // A directory that never had a writer, or was copied without the file, has nobody to keep out.
            return match File::open(path) {
                Ok(file) => {
                    lock_result(file.try_lock_shared())?;
                    Ok(Box::new(Locked(file)))
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Box::new(())),
                Err(error) => Err(error),
            };
        }
        let mut file = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(path)?;
        lock_result(file.try_lock())?;
        // The number only helps a person; a disk without room for it must not keep an engine from opening.
        let _ = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
        Ok(Box::new(Locked(file)))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            // A name that is not UTF-8 is not ours; whatever it is, it stays.
            names.extend(entry?.file_name().into_string());
        }
        Ok(names)
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn RawFile>> {
        let file = OpenOptions::new().create_new(true).read(true).write(true).open(self.path.join(name))?;
        Ok(Arc::new(DiskFile { file }))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn RawFile>> {
        Ok(Arc::new(DiskFile { file: File::open(self.path.join(name))? }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path.join(from), self.path.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path.join(name))
    }

    fn hard_link(&self, name: &str, target: &Path) -> io::Result<()> {
        fs::hard_link(self.path.join(name), target)
    }

    fn sync(&self, _site: Site) -> io::Result<()> {
        self.handle.sync_all()
    }

    fn free_bytes(&self) -> io::Result<u64> {
        // What an ordinary user may still take, not what the file system keeps for root.
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
        // fdatasync, which also makes a grown length durable, since the bytes could not be read back without it.
        self.file.sync_data()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_boot_id_is_32_hex_digits_and_anything_else_is_not_known() {
        let known = parse_boot_id("01020304-0506-0708-090a-0b0c0d0e0f10\n");
        assert_eq!(known, Some(BootId([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16])));
        for text in
            ["", "0102", "00000000-0000-0000-0000-000000000000", "x1020304-0506-0708-090a-0b0c0d0e0f10"]
        {
            assert_eq!(parse_boot_id(text), None, "{text}");
        }
    }

    #[test]
    fn a_lock_that_was_given_up_is_free_though_a_forked_process_has_its_file_open() {
        let folder = tempfile::tempdir().expect("a folder");
        let dir = DiskDirectory::open(folder.path()).expect("opens");
        dir.lock("LOCK", true).map(drop).expect("is free");
        for alone in [true, false] {
            let file =
                OpenOptions::new().read(true).write(true).open(folder.path().join("LOCK")).expect("opens");
            let forked = file.try_clone().expect("is open twice");
            lock_result(if alone { file.try_lock() } else { file.try_lock_shared() }).expect("is free");
            let locked = Locked(file);
            assert!(dir.lock("LOCK", true).is_err());
            drop(locked);
            dir.lock("LOCK", true).map(drop).expect("is free again");
            drop(forked);
        }
    }
}
