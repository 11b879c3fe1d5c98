//! A simulated disk on which threads of the engine are held, so that a test decides what happens
//! first.

use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, Condvar, Mutex};

use strandline::clock::ManualClock;
use strandline::vfs::simulated::SimulatedDisk;
use strandline::vfs::{Dir, RawDirectory, RawFile, Site};
use strandline::{Engine, Options, Store, World};

use crate::disks::as_the_disk;
use crate::two_stores;

/// A disk on which threads of the engine are held, by their names.
#[derive(Clone)]
pub struct Gates {
    pub disk: SimulatedDisk,
    held: Arc<(Mutex<BTreeSet<&'static str>>, Condvar)>,
    /// The held threads that wait.
    waiting: Arc<Mutex<BTreeSet<String>>>,
}

impl Gates {
    pub fn new() -> Gates {
        Gates { disk: SimulatedDisk::new(), held: Arc::default(), waiting: Arc::default() }
    }

    /// An engine on this disk, with small memtables, and its store `messages`.
    pub fn open(&self) -> (Engine, Store) {
        self.open_with(two_stores::options().memory_budget_bytes(1))
    }

    pub fn open_with(&self, options: Options) -> (Engine, Store) {
        let world = World {
            dir: Dir::new(Arc::new(self.clone())),
            clock: Arc::new(ManualClock::at(1_700_000_000_000)),
        };
        let options = options.wal_file_bytes(64 * 1024);
        let engine = Engine::open_in(world, options).expect("opens");
        let store = engine.store("messages").expect("is there");
        (engine, store)
    }

    pub fn hold(&self, thread: &'static str) {
        self.held.0.lock().expect("no panic inside").insert(thread);
    }

    pub fn release(&self, thread: &'static str) {
        self.held.0.lock().expect("no panic inside").remove(thread);
        self.held.1.notify_all();
    }

    /// Whether a thread waits because it is held.
    pub fn waits(&self, thread: &'static str) -> bool {
        self.waiting.lock().expect("no panic inside").contains(thread)
    }

    /// Waits while the calling thread is held.
    fn pass(&self) {
        let thread = std::thread::current();
        let name = thread.name().unwrap_or_default();
        self.waiting.lock().expect("no panic inside").insert(name.into());
        let is_held =
            |held: &mut BTreeSet<&'static str>| held.iter().any(|name| thread.name() == Some(name));
        drop(self.held.1.wait_while(self.held.0.lock().expect("no panic inside"), is_held));
        self.waiting.lock().expect("no panic inside").remove(name);
    }
}

impl RawDirectory for Gates {
    as_the_disk!(path, lock, list, open, rename, remove, sync);

    fn create(&self, name: &str) -> io::Result<Arc<dyn RawFile>> {
        self.pass();
        Ok(Arc::new(GatedFile { gates: self.clone(), file: self.disk.create(name)? }))
    }

    fn free_bytes(&self) -> io::Result<u64> {
        self.pass();
        RawDirectory::free_bytes(&self.disk)
    }
}

/// A file that was created on such a disk: threads are held before its syncs, too.
struct GatedFile {
    gates: Gates,
    file: Arc<dyn RawFile>,
}

impl RawFile for GatedFile {
    as_the_disk!(file len, read_at, write_at, set_len);

    fn sync(&self, site: Site) -> io::Result<()> {
        self.gates.pass();
        self.file.sync(site)
    }
}

pub const COMMIT: &str = "strandline-commit";
pub const EXPIRE: &str = "strandline-expire";
pub const FLUSH: &str = "strandline-flush";
pub const COMPACT: &str = "strandline-compact";
