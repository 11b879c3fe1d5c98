//! A simulated disk on which one call fails, once or from then on.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::ThreadId;

use strandline::BootId;
use strandline::vfs::simulated::{Op, SimulatedDisk};
use strandline::vfs::{RawDirectory, RawFile, Site};

use crate::disks::as_the_disk;

/// The calls that fail, and the error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// EIO from a call that changes something.
    Broken,
    /// EIO from a write, after half of its bytes.
    Short,
    /// EIO from a call that only reads.
    Unreadable,
    /// ENOSPC from a call that needs space.
    Full,
    /// As full, but a write finds space for half of its bytes.
    HalfFull,
    /// EMFILE from a call that needs a file descriptor.
    NoDescriptor,
    /// A sync of a file that fails and reports success: no engine survives that, and the judge must
    /// detect it.
    Lying,
}

impl Kind {
    pub fn is_full(self) -> bool {
        matches!(self, Kind::Full | Kind::HalfFull)
    }

    /// Whether it is temporary: a call that was refused meanwhile works afterwards.
    pub fn is_shortage(self) -> bool {
        self.is_full() || self == Kind::NoDescriptor
    }

    pub fn leaves_half(self) -> bool {
        matches!(self, Kind::Short | Kind::HalfFull)
    }
}

#[derive(Clone, Copy, Debug)]
pub struct Fault {
    pub kind: Kind,
    /// The number of the call, among those that the kind can affect.
    pub at: u64,
    pub for_ever: bool,
}

/// Decides for every call.
pub struct Injector {
    pub fault: Fault,
    /// Off while the test itself reads, and when the disk is repaired.
    pub on: bool,
    calls: u64,
    pub fired: u64,
    /// A thread that wrote half of its bytes: its calls are let through.
    through: Option<ThreadId>,
    names: HashMap<u64, String>,
    /// A write or sync of the log failed: from here on nothing may be acknowledged until the next
    /// open.
    pub log_failed: bool,
    /// Some sync failed.
    pub sync_failed: bool,
}

impl Injector {
    fn fires(&mut self) -> bool {
        if !self.on {
            return false;
        }
        self.calls += 1;
        let call = self.calls - 1;
        let fires = call == self.fault.at || (self.fault.for_ever && call > self.fault.at);
        self.fired += u64::from(fires);
        fires
    }

    fn looking(&mut self) -> io::Result<()> {
        if self.fault.kind == Kind::Unreadable && self.fires() { Err(eio()) } else { Ok(()) }
    }

    fn opening(&mut self) -> io::Result<()> {
        if self.fault.kind == Kind::NoDescriptor && self.fires() {
            Err(io::Error::from_raw_os_error(24))
        } else {
            Ok(())
        }
    }

    fn changing(&mut self, op: &Op) -> Option<io::ErrorKind> {
        let met = match (self.fault.kind, op) {
            _ if self.through == Some(std::thread::current().id()) => false,
            (Kind::Unreadable | Kind::NoDescriptor, _)
            | (Kind::Full | Kind::HalfFull, Op::Remove { .. }) => false,
            (Kind::Short, op) => matches!(op, Op::Write { .. }) && self.fires(),
            (Kind::Lying, op) => matches!(op, Op::Sync { .. }) && self.fires(),
            (Kind::Broken | Kind::Full | Kind::HalfFull, _) => self.fires(),
        };
        let is_log = |file| {
            self.names
                .get(file)
                .is_some_and(|name| name.starts_with("wal-") && !name.contains("tmp"))
        };
        if met && self.fault.kind == Kind::Lying {
            return Some(eio().kind());
        }
        if met {
            self.sync_failed |= matches!(op, Op::Sync { .. } | Op::SyncDir { .. });
            self.log_failed |= match op {
                Op::Sync { file, .. } => is_log(file),
                Op::Write { file, .. } => !self.fault.kind.is_full() && is_log(file),
                Op::SyncDir { site } => site.file().ends_with("wal/writer.rs"),
                _ => false,
            };
            return Some(if self.fault.kind.is_full() {
                io::ErrorKind::StorageFull
            } else {
                eio().kind()
            });
        }
        match op {
            Op::Create { name, file } => drop(self.names.insert(*file, name.clone())),
            Op::Rename { from, to } => {
                self.names
                    .values_mut()
                    .filter(|name| *name == from)
                    .for_each(|name| name.clone_from(to));
            }
            _ => {}
        }
        None
    }
}

fn eio() -> io::Error {
    io::Error::from_raw_os_error(5)
}

/// The simulated disk with an injector before the calls that only read; the others ask it through
/// `set_faults`.
#[derive(Clone)]
pub struct Faulty {
    pub disk: SimulatedDisk,
    injector: Arc<Mutex<Injector>>,
}

impl Faulty {
    pub fn new(fault: Fault) -> Faulty {
        let injector = Injector {
            fault,
            on: true,
            calls: 0,
            fired: 0,
            through: None,
            names: HashMap::new(),
            log_failed: false,
            sync_failed: false,
        };
        let (disk, injector) = (SimulatedDisk::new(), Arc::new(Mutex::new(injector)));
        let asked = injector.clone();
        disk.set_faults(Some(Box::new(move |op| {
            asked.lock().expect("no panic inside").changing(op)
        })));
        Faulty { disk, injector }
    }

    pub fn injector(&self) -> MutexGuard<'_, Injector> {
        self.injector.lock().expect("no panic inside")
    }

    fn file(&self, file: Arc<dyn RawFile>) -> Arc<dyn RawFile> {
        Arc::new(FaultyFile { file, disk: self.clone() })
    }
}

impl RawDirectory for Faulty {
    as_the_disk!(path, rename, remove, sync);

    fn lock(&self, name: &str, alone: bool) -> io::Result<Box<dyn Send + Sync>> {
        self.injector().opening()?;
        self.injector().looking()?;
        self.disk.lock(name, alone)
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.injector().opening()?;
        self.injector().looking()?;
        self.disk.list()
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn RawFile>> {
        self.injector().opening()?;
        self.disk.create(name).map(|file| self.file(file))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn RawFile>> {
        self.injector().opening()?;
        self.injector().looking()?;
        self.disk.open(name).map(|file| self.file(file))
    }

    fn open_to_write(&self, name: &str) -> io::Result<Arc<dyn RawFile>> {
        self.injector().opening()?;
        self.disk.open_to_write(name).map(|file| self.file(file))
    }

    fn free_bytes(&self) -> io::Result<u64> {
        self.injector().looking()?;
        RawDirectory::free_bytes(&self.disk)
    }

    fn boot_id(&self) -> Option<BootId> {
        self.disk.boot_id()
    }
}

struct FaultyFile {
    file: Arc<dyn RawFile>,
    disk: Faulty,
}

impl RawFile for FaultyFile {
    fn len(&self) -> io::Result<u64> {
        self.disk.injector().looking()?;
        self.file.len()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.disk.injector().looking()?;
        self.file.read_at(offset, buffer)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let written = self.file.write_at(offset, bytes);
        if written.is_err() && self.disk.injector().fault.kind.leaves_half() {
            self.disk.injector().through = Some(std::thread::current().id());
            // Another thread that breaks off at the same time may replace it: then nothing is left.
            let _ = self.file.write_at(offset, &bytes[..bytes.len() / 2]);
            self.disk.injector().through = None;
        }
        written
    }

    as_the_disk!(file set_len);

    fn sync(&self, site: Site) -> io::Result<()> {
        let synced = self.file.sync(site);
        if self.disk.injector().fault.kind == Kind::Lying { Ok(()) } else { synced }
    }
}
