//! The disk, as a parameter of the engine: one flat directory of named files.
//!
//! ```text
//!  the engine ──> Dir, File ──> RawDirectory, RawFile ──┬── disk       the operating system
//!                 (this file)                           └── simulated  memory, with a log of
//!                                                                      every call
//! ```
//!
//! An implementation guarantees this, and nothing more:
//! * `File::sync` returned: the file's bytes and length survive a power cut, if its name does.
//! * `Dir::sync` returned: every create, rename and remove before it survives a power cut.
//! * `rename` replaces its target atomically for every observer; it is durable only after
//!   `Dir::sync`.
//! * A power cut may lose, tear at 512-byte sectors, or reorder everything else.
//!
//! If a call needs a file descriptor and the process has none left, files of the same engine are
//! closed and the call is repeated (`descriptors`).
//!
//! `Dir` and `File` add to each error the operation and the file, and to each sync the source
//! location that requested it, so that a test can disable one sync and see whether the tests
//! notice.
//!
//! This folder does not know any file format, or which files belong together.

mod descriptors;
pub mod disk;
#[cfg(any(test, feature = "simulation"))]
pub mod simulated;
#[cfg(any(test, feature = "simulation"))]
mod space;

use std::fmt;
use std::io;
use std::panic::Location;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::error::{Error, IoOperation, Result};
use crate::ids::BootId;
use descriptors::{CloseSome, Descriptors};

/// The file of an engine's lock in its directory.
pub const LOCK_NAME: &str = "LOCK";

/// The number of bytes of a file that are copied at once.
const COPY_BYTES: u64 = 1024 * 1024;

/// The source location that requested a sync.
pub type Site = &'static Location<'static>;

/// The operations of a directory's implementation. The engine uses [`Dir`].
pub trait RawDirectory: Send + Sync {
    /// Its path, for messages.
    fn path(&self) -> PathBuf;
    /// Takes the lock of the directory until the guard is dropped: exclusively if `alone`,
    /// otherwise shared with other readers and without changing anything. `WouldBlock`: another
    /// process holds it.
    fn lock(&self, name: &str, alone: bool) -> io::Result<Box<dyn Send + Sync>>;
    /// The names of all files.
    fn list(&self) -> io::Result<Vec<String>>;
    /// A new, empty, writable file. The name must not be in use.
    fn create(&self, name: &str) -> io::Result<Arc<dyn RawFile>>;
    /// An existing file, to read from.
    fn open(&self, name: &str) -> io::Result<Arc<dyn RawFile>>;
    /// An existing file, to write to. Without it, log files are not reused.
    fn open_to_write(&self, _name: &str) -> io::Result<Arc<dyn RawFile>> {
        Err(io::ErrorKind::Unsupported.into())
    }
    /// Renames a file, replacing the target.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a name. Readers that have the file open keep it.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Makes names durable.
    fn sync(&self, site: Site) -> io::Result<()>;
    /// The number of free bytes; `u64::MAX` if unknown.
    fn free_bytes(&self) -> io::Result<u64> {
        Ok(u64::MAX)
    }
    /// A spare descriptor: when it is dropped, a file can be opened. An implementation without
    /// descriptors holds nothing.
    fn spare_descriptor(&self) -> io::Result<Box<dyn Send + Sync>> {
        Ok(Box::new(()))
    }
    /// The id of the machine's current boot: unsynced writes can be read as long as the boot lasts.
    /// `None`: unknown.
    fn boot_id(&self) -> Option<BootId> {
        None
    }
    /// Gives a file, whose bytes are durable, a second name in another directory. An implementation
    /// without hard links returns `Unsupported`.
    fn hard_link(&self, _name: &str, _target: &Path) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

#[allow(clippy::len_without_is_empty, reason = "a length, not a container")]
/// The operations of a file's implementation. The engine uses [`File`].
pub trait RawFile: Send + Sync {
    /// Its length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Reads exactly `buffer.len()` bytes at `offset`; `UnexpectedEof` if the file ends before.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;
    /// Writes all of `bytes` at `offset`, growing the file as needed.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Sets the length; new bytes read as zeros.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Makes bytes and length durable.
    fn sync(&self, site: Site) -> io::Result<()>;
}

/// A directory with named errors.
#[derive(Clone)]
pub struct Dir {
    raw: Arc<dyn RawDirectory>,
    /// The names that were created through this value and its clones, oldest first, if they are
    /// recorded.
    made: Option<Arc<Mutex<Vec<String>>>>,
    /// The descriptors that its engine can release; `None` for a directory without an engine.
    descriptors: Option<Arc<Descriptors>>,
}

impl fmt::Debug for Dir {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Dir({})", self.raw.path().display())
    }
}

impl Dir {
    /// A directory over one of the implementations.
    pub fn new(raw: Arc<dyn RawDirectory>) -> Dir {
        Dir { raw, made: None, descriptors: None }
    }

    /// The same directory, which records the names that are created through it and its clones,
    /// starting with none.
    pub fn recording(&self) -> Dir {
        Dir { made: Some(Arc::default()), ..self.clone() }
    }

    fn record(&self, gone: Option<&str>, made: Option<&str>) {
        let Some(names) = &self.made else { return };
        let mut names = names.lock();
        names.retain(|name| Some(name.as_str()) != gone && Some(name.as_str()) != made);
        names.extend(made.map(String::from));
    }

    /// Removes the recorded files, the newest first, as far as possible.
    pub fn remove_recorded(&self) {
        let names = self.made.as_ref().map(|names| std::mem::take(&mut *names.lock()));
        for name in names.into_iter().flatten().rev() {
            if let Err(error) = self.remove(&name) {
                tracing::warn!(%error, "a file of failed work could not be removed");
            }
        }
    }

    /// The same directory for an engine that keeps files open for speed: they are closed when there
    /// is no descriptor left.
    pub(crate) fn with_files_to_close(self, close_some: CloseSome) -> Dir {
        let descriptors = Some(Arc::new(Descriptors::new(close_some, &*self.raw)));
        Dir { descriptors, ..self }
    }

    /// Another directory that the same engine uses.
    pub(crate) fn of_same_engine(&self, other: &Dir) -> Dir {
        Dir { descriptors: self.descriptors.clone(), ..other.clone() }
    }

    /// Makes a call that needs a descriptor. If there is none left, releases what can be released
    /// and repeats the call.
    pub(crate) fn with_descriptor<T>(
        &self,
        mut call: impl FnMut() -> io::Result<T>,
    ) -> io::Result<T> {
        match &self.descriptors {
            Some(descriptors) => descriptors.call(&*self.raw, &mut call),
            None => call(),
        }
    }

    /// The path of a file in it, for messages.
    pub fn path_of(&self, name: &str) -> PathBuf {
        self.raw.path().join(name)
    }

    /// Takes the directory's lock, exclusively or shared with other readers; the guard releases it.
    pub fn lock(&self, name: &str, alone: bool) -> Result<Box<dyn Send + Sync>> {
        self.with_descriptor(|| self.raw.lock(name, alone)).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => {
                Error::Locked { path: self.path_of(name), pid: self.holder(name) }
            }
            _ => Error::io(IoOperation::Lock, &self.path_of(name), error),
        })
    }

    /// The process that holds the lock, if the lock file names it.
    fn holder(&self, name: &str) -> Option<u32> {
        let file = self.open(name).ok()?;
        let text = file.len().and_then(|len| file.read(0, len.min(32) as usize)).ok()?;
        std::str::from_utf8(&text).ok()?.trim().parse().ok()
    }

    /// The names of all files, sorted.
    pub fn list(&self) -> Result<Vec<String>> {
        let names = self.with_descriptor(|| self.raw.list());
        let mut names =
            names.map_err(|error| Error::io(IoOperation::List, &self.raw.path(), error))?;
        names.sort();
        Ok(names)
    }

    /// A new file. The caller removes leftovers of an earlier attempt first.
    pub fn create(&self, name: &str) -> Result<File> {
        let path = self.path_of(name);
        let raw = self
            .with_descriptor(|| self.raw.create(name))
            .map_err(|error| Error::io(IoOperation::Create, &path, error))?;
        self.record(None, Some(name));
        Ok(File { raw, path: path.into() })
    }

    /// A file to read.
    pub fn open(&self, name: &str) -> Result<File> {
        self.open_by(name, |raw| raw.open(name))
    }

    /// A file to write to.
    pub fn open_to_write(&self, name: &str) -> Result<File> {
        self.open_by(name, |raw| raw.open_to_write(name))
    }

    fn open_by(
        &self,
        name: &str,
        open: impl Fn(&dyn RawDirectory) -> io::Result<Arc<dyn RawFile>>,
    ) -> Result<File> {
        let path = self.path_of(name);
        let raw = self
            .with_descriptor(|| open(&*self.raw))
            .map_err(|error| Error::io(IoOperation::Open, &path, error))?;
        Ok(File { raw, path: path.into() })
    }

    /// Renames, replacing the target.
    pub fn rename(&self, from: &str, to: &str) -> Result<()> {
        self.raw
            .rename(from, to)
            .map_err(|error| Error::io(IoOperation::Rename, &self.path_of(from), error))?;
        self.record(Some(from), Some(to));
        Ok(())
    }

    /// Removes a name.
    pub fn remove(&self, name: &str) -> Result<()> {
        self.raw
            .remove(name)
            .map_err(|error| Error::io(IoOperation::Remove, &self.path_of(name), error))?;
        self.record(Some(name), None);
        Ok(())
    }

    /// The number of free bytes.
    pub fn free_bytes(&self) -> Result<u64> {
        self.raw
            .free_bytes()
            .map_err(|error| Error::io(IoOperation::Measure, &self.raw.path(), error))
    }

    /// The id of the machine's current boot; zeros if unknown.
    pub fn boot_id(&self) -> BootId {
        self.raw.boot_id().unwrap_or_default()
    }

    /// Puts a file of another directory here, under the same name, which must not be in use: by a
    /// hard link if that is possible and `may_link`, otherwise by a copy, which is durable when
    /// this returns. The name is durable after [`Dir::sync`]. Returns the file's length.
    pub fn place(&self, from: &Dir, name: &str, may_link: bool) -> Result<u64> {
        let source = from.open(name)?;
        let len = source.len()?;
        // Whatever prevents the link (another disk, a file system without links), a copy works or
        // returns the error.
        if may_link && from.raw.hard_link(name, &self.path_of(name)).is_ok() {
            self.record(None, Some(name));
            return Ok(len);
        }
        let file = self.create(name)?;
        let mut at = 0;
        while at < len {
            let piece = source.read(at, COPY_BYTES.min(len - at) as usize)?;
            file.write(at, &piece)?;
            at += piece.len() as u64;
        }
        file.sync()?;
        Ok(len)
    }

    /// Makes all names durable.
    #[track_caller]
    pub fn sync(&self) -> Result<()> {
        let site = Location::caller();
        self.raw.sync(site).map_err(|error| Error::io(IoOperation::Sync, &self.raw.path(), error))
    }
}

/// A file with named errors. Clones are the same open file.
#[derive(Clone)]
pub struct File {
    raw: Arc<dyn RawFile>,
    path: Arc<Path>,
}

impl fmt::Debug for File {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "File({})", self.path.display())
    }
}

#[allow(clippy::len_without_is_empty, reason = "a length, not a container")]
impl File {
    /// The same open file under the name that it has now.
    pub fn renamed(self, dir: &Dir, name: &str) -> File {
        File { path: dir.path_of(name).into(), ..self }
    }

    /// Its path, for messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its length in bytes.
    pub fn len(&self) -> Result<u64> {
        self.raw.len().map_err(|error| Error::io(IoOperation::Measure, &self.path, error))
    }

    /// Exactly `len` bytes at `offset`. A file that ends before is damaged: callers read only what
    /// a verified header, footer or manifest says exists.
    pub fn read(&self, offset: u64, len: usize) -> Result<Vec<u8>> {
        let mut buffer = vec![0; len];
        self.read_into(offset, &mut buffer)?;
        Ok(buffer)
    }

    /// Fills `buffer` from `offset`, as [`File::read`].
    pub fn read_into(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        self.raw.read_at(offset, buffer).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => {
                let wanted = buffer.len();
                Error::corrupt(
                    &*self.path,
                    offset,
                    format!("the file ends before the {wanted} bytes that must be here"),
                )
            }
            _ => Error::io(IoOperation::Read, &self.path, error),
        })
    }

    /// Writes all of `bytes` at `offset`.
    pub fn write(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.raw
            .write_at(offset, bytes)
            .map_err(|error| Error::io(IoOperation::Write, &self.path, error))
    }

    /// Sets the length.
    pub fn set_len(&self, len: u64) -> Result<()> {
        self.raw.set_len(len).map_err(|error| Error::io(IoOperation::Resize, &self.path, error))
    }

    /// Makes bytes and length durable. After a failure the page cache may differ from the disk: the
    /// caller must neither retry nor trust the file.
    #[track_caller]
    pub fn sync(&self) -> Result<()> {
        let site = Location::caller();
        self.raw.sync(site).map_err(|error| Error::io(IoOperation::Sync, &self.path, error))
    }
}
