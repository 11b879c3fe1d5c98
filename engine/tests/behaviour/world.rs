//! A simulated disk, a clock that is moved by hand, and the settings of the engine that is opened
//! on them repeatedly.

use std::sync::Arc;
use std::time::Duration;

use strandline::clock::ManualClock;
use strandline::vfs::Dir;
use strandline::vfs::simulated::SimulatedDisk;
use strandline::{Engine, Options, Store, World};

use crate::two_stores;

/// The initial time.
pub const START_MS: u64 = 1_700_000_000_000;

/// Waits for the engine's background work. Files that are no longer needed are removed with their
/// last reader, which may be one of the engine's threads that is reading at this moment.
pub fn soon(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..10_000 {
        if holds() {
            return;
        }
        std::thread::park_timeout(Duration::from_millis(1));
    }
    panic!("{what}");
}

/// A figure of the statistics.
pub fn figure(engine: &Engine, name: &str) -> u64 {
    engine.stats().get(name).unwrap_or_else(|| panic!("a figure {name}"))
}

/// The environment of an engine, while it runs and afterwards.
pub struct House {
    pub disk: SimulatedDisk,
    pub clock: Arc<ManualClock>,
    pub options: Options,
}

impl House {
    /// An empty disk, with small memtables and log files.
    pub fn new() -> House {
        House::with(two_stores::options().memory_budget_bytes(1).wal_file_bytes(16 * 1024))
    }

    /// An empty disk.
    pub fn with(options: Options) -> House {
        House { disk: SimulatedDisk::new(), clock: Arc::new(ManualClock::at(START_MS)), options }
    }

    pub fn dir(&self) -> Dir {
        Dir::new(Arc::new(self.disk.clone()))
    }

    pub fn try_engine(&self) -> strandline::Result<Engine> {
        Engine::open_in(World { dir: self.dir(), clock: self.clock.clone() }, self.options.clone())
    }

    pub fn engine(&self) -> Engine {
        self.try_engine().expect("opens")
    }

    /// The engine, with the store whose entries live for ever.
    pub fn open(&self) -> (Engine, Store) {
        let engine = self.engine();
        let store = engine.store("messages").expect("is there");
        (engine, store)
    }

    /// The names of the files that begin so.
    pub fn files(&self, prefix: &str) -> Vec<String> {
        let names = self.disk.contents().files.into_keys();
        names.filter(|name| name.starts_with(prefix)).collect()
    }

    /// How many bytes all files have, but for what is kept for a full disk.
    pub fn bytes(&self) -> usize {
        let contents = self.disk.contents();
        contents
            .files
            .iter()
            .filter(|(name, _)| !name.starts_with("reserve"))
            .map(|(_, bytes)| bytes.len())
            .sum()
    }
}
