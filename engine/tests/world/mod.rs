//! A simulated disk, a clock that is moved by hand, and the settings of the engine that is opened
//! on them repeatedly.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::sync::Arc;
use std::time::Duration;

use strandline::clock::ManualClock;
use strandline::vfs::Dir;
use strandline::vfs::simulated::SimulatedDisk;
use strandline::{Engine, Options, World};

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

/// The environment of an engine, while it runs and afterwards.
pub struct House {
    pub disk: SimulatedDisk,
    pub clock: Arc<ManualClock>,
    pub options: Options,
}

impl House {
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

    /// The size of all files in bytes, except the reserve for a full disk.
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
