//! A disk in memory that records every call, so that from one run the disk after a power cut at any
//! point can be derived.
//!
//! ```text
//!  run the engine once ──> log: create, write, sync, rename, … and the driver's marks
//!  for each position in the log:
//!    replay up to there ──> Model ──power_cut(dice)──> Image ──> a new disk to open
//! ```
//!
//! The effects of a power cut in this model:
//! * File: each 512-byte sector written since the last sync comes out old, new, zero or garbage,
//!   independently, and the length is any that the file had since then. A sector that was not
//!   written since then is never harmed: this is what is assumed of the medium.
//! * Directory: each create, rename and remove since the last sync happened or did not,
//!   independently.
//! * Failed sync: bytes that were not durable before can still be read (ghost pages), and each
//!   sector of them is on the disk or not: a later successful sync covers only what was written
//!   after the failure.
//!
//! Each power cut starts another boot; a killed process does not.
//!
//! Marks are the driver's own notes in the log ("batch 7 acknowledged"), ordered with the calls.
//! The driver also decides which calls fail.
//!
//! ```
//! use std::sync::Arc;
//! use strandline::clock::ManualClock;
//! use strandline::vfs::Dir;
//! use strandline::vfs::simulated::{Cut, Dice, Image, Model, SimulatedDisk};
//! use strandline::{Engine, Options, World};
//!
//! let open = |disk: &SimulatedDisk| {
//!     let clock = Arc::new(ManualClock::at(1_800_000_000_000));
//!     let world = World { dir: Dir::new(Arc::new(disk.clone())), clock };
//!     Engine::open_in(world, Options::default())
//! };
//! let disk = SimulatedDisk::new();
//! let engine = open(&disk)?;
//! engine.create_store("rooms", None)?.append("lobby", "hello")?;
//!
//! // The power fails now, and all that was not synced is lost.
//! let mut model = Model::from_image(&Image::default());
//! disk.log().iter().for_each(|op| model.apply(op, None));
//! let image = model.power_cut(Cut::Lost, &mut Dice::new(1));
//! let engine = open(&SimulatedDisk::from_image(&image))?;
//! assert_eq!(engine.store("rooms")?.end("lobby")?.0, 1, "what was acknowledged is there");
//! # Ok::<(), strandline::Error>(())
//! ```
//!
//! This folder does not know the engine. It is part of the library, not of the tests, because
//! embedders test their own code with it.

mod model;

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

pub use model::{Cut, Dice, Image, Model, Op, SECTOR_BYTES};

use super::space::Space;
use super::{RawDirectory, RawFile, Site};
use crate::ids::BootId;

/// Decides each call before it is made: `Some(kind)` makes it fail.
pub type Faults = Box<dyn FnMut(&Op) -> Option<io::ErrorKind> + Send>;

struct DiskState {
    model: Model,
    log: Vec<Op>,
    next_file: u64,
    locked: bool,
    faults: Option<Faults>,
    space: Space,
}

impl DiskState {
    fn named(&self) -> BTreeSet<u64> {
        self.model.names.values().copied().collect()
    }
}

/// The disk. Clones are the same disk.
#[derive(Clone)]
pub struct SimulatedDisk {
    state: Arc<Mutex<DiskState>>,
}

impl fmt::Debug for SimulatedDisk {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("SimulatedDisk").finish_non_exhaustive()
    }
}

impl Default for SimulatedDisk {
    fn default() -> SimulatedDisk {
        SimulatedDisk::from_image(&Image::default())
    }
}

impl SimulatedDisk {
    /// An empty disk.
    pub fn new() -> SimulatedDisk {
        SimulatedDisk::default()
    }

    /// A disk that starts with these files.
    pub fn from_image(image: &Image) -> SimulatedDisk {
        SimulatedDisk::from_model(Model::from_image(image))
    }

    /// A disk as a killed process left it: nothing is lost yet, and unsynced writes are still
    /// unsynced.
    pub fn from_model(model: Model) -> SimulatedDisk {
        let next_file = model.files.keys().next_back().map_or(0, |last| last + 1);
        let state = DiskState {
            model,
            log: Vec::new(),
            next_file,
            locked: false,
            faults: None,
            space: Space::default(),
        };
        SimulatedDisk { state: Arc::new(Mutex::new(state)) }
    }

    /// Sets the disk's size, in blocks of 4 KiB; `None`: unlimited.
    pub fn set_capacity(&self, capacity_bytes: Option<u64>) {
        let state = &mut *self.state.lock();
        let model = &state.model;
        let len = |file: &u64| {
            (*file, model.files.get(file).map_or(0, |content| content.current.len() as u64))
        };
        state.space.limit(capacity_bytes, model.names.values().map(len));
    }

    /// The number of free bytes.
    pub fn free_bytes(&self) -> u64 {
        let mut state = self.state.lock();
        let named = state.named();
        state.space.free_bytes(&named)
    }

    /// Adds a note of the driver to the log.
    pub fn mark(&self, mark: u64) {
        self.state.lock().log.push(Op::Mark(mark));
    }

    /// Every call so far.
    pub fn log(&self) -> Vec<Op> {
        self.state.lock().log.clone()
    }

    /// The number of calls so far.
    pub fn log_len(&self) -> usize {
        self.state.lock().log.len()
    }

    /// The files as a reader sees them now.
    pub fn contents(&self) -> Image {
        let state = self.state.lock();
        let files = state.model.names.iter();
        Image {
            files: files
                .map(|(name, file)| (name.clone(), state.model.files[file].current.clone()))
                .collect(),
        }
    }

    /// Lets `faults` decide every call from now on.
    pub fn set_faults(&self, faults: Option<Faults>) {
        self.state.lock().faults = faults;
    }

    fn must_exist(&self, name: &str) -> io::Result<()> {
        if self.state.lock().model.names.contains_key(name) {
            Ok(())
        } else {
            Err(io::ErrorKind::NotFound.into())
        }
    }

    fn call(&self, op: Op) -> io::Result<()> {
        let mut state = self.state.lock();
        if let Some(kind) = state.faults.as_mut().and_then(|faults| faults(&op)) {
            if let Op::Sync { file, .. } = op {
                let failed = Op::SyncFailed { file };
                state.model.apply(&failed, None);
                state.log.push(failed);
            }
            return Err(kind.into());
        }
        if let Op::Write { file, offset, bytes } = &op
            && state.space.is_limited()
        {
            let named = state.named();
            if !state.space.take(&named, *file, *offset, bytes.len()) {
                return Err(io::ErrorKind::StorageFull.into());
            }
        }
        if let Op::SetLen { file, len } = &op {
            state.space.cut(*file, *len);
        }
        state.model.apply(&op, None);
        state.log.push(op);
        Ok(())
    }
}

impl RawDirectory for SimulatedDisk {
    fn path(&self) -> PathBuf {
        PathBuf::from("simulated")
    }

    fn lock(&self, _name: &str, _alone: bool) -> io::Result<Box<dyn Send + Sync>> {
        let mut state = self.state.lock();
        if state.locked {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        state.locked = true;
        Ok(Box::new(Unlock(self.clone())))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.state.lock().model.names.keys().cloned().collect())
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn RawFile>> {
        let file = {
            let mut state = self.state.lock();
            if state.model.names.contains_key(name) {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            state.next_file += 1;
            state.next_file - 1
        };
        self.call(Op::Create { name: name.to_string(), file })?;
        Ok(SimulatedFile::open(self, file))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn RawFile>> {
        let file = self.state.lock().model.names.get(name).copied();
        let file = file.ok_or(io::ErrorKind::NotFound)?;
        Ok(SimulatedFile::open(self, file))
    }

    fn open_to_write(&self, name: &str) -> io::Result<Arc<dyn RawFile>> {
        RawDirectory::open(self, name)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.must_exist(from)?;
        self.call(Op::Rename { from: from.to_string(), to: to.to_string() })
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.must_exist(name)?;
        self.call(Op::Remove { name: name.to_string() })
    }

    fn sync(&self, site: Site) -> io::Result<()> {
        self.call(Op::SyncDir { site })
    }

    fn free_bytes(&self) -> io::Result<u64> {
        Ok(SimulatedDisk::free_bytes(self))
    }

    fn boot_id(&self) -> Option<BootId> {
        Some(self.state.lock().model.boot)
    }
}

struct Unlock(SimulatedDisk);

impl Drop for Unlock {
    fn drop(&mut self) {
        self.0.state.lock().locked = false;
    }
}

struct SimulatedFile {
    disk: SimulatedDisk,
    file: u64,
}

impl SimulatedFile {
    fn open(disk: &SimulatedDisk, file: u64) -> Arc<dyn RawFile> {
        disk.state.lock().space.opened(file);
        Arc::new(SimulatedFile { disk: disk.clone(), file })
    }
}

impl Drop for SimulatedFile {
    fn drop(&mut self) {
        self.disk.state.lock().space.closed(self.file);
    }
}

impl RawFile for SimulatedFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.state.lock().model.file(self.file).current.len() as u64)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let mut state = self.disk.state.lock();
        let content = &state.model.file(self.file).current;
        let end = (offset as usize).checked_add(buffer.len()).filter(|end| *end <= content.len());
        let end = end.ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(&content[offset as usize..end]);
        Ok(())
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.disk.call(Op::Write { file: self.file, offset, bytes: Bytes::copy_from_slice(bytes) })
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.disk.call(Op::SetLen { file: self.file, len })
    }

    fn sync(&self, site: Site) -> io::Result<()> {
        self.disk.call(Op::Sync { file: self.file, site })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vfs::Dir;

    fn model_of(disk: &SimulatedDisk) -> Model {
        let mut model = Model::default();
        disk.log().iter().for_each(|op| model.apply(op, None));
        model
    }

    fn image_after(disk: &SimulatedDisk, cut: Cut) -> Image {
        model_of(disk).power_cut(cut, &mut Dice::new(1))
    }

    #[test]
    fn a_name_is_lost_until_its_directory_is_synced() {
        let disk = SimulatedDisk::new();
        let dir = Dir::new(Arc::new(disk.clone()));
        let file = dir.create("a").expect("create");
        file.write(0, b"bytes").expect("write");
        file.sync().expect("sync");
        assert!(image_after(&disk, Cut::Lost).files.is_empty());
        assert!(image_after(&disk, Cut::BytesOnly).files.is_empty());
        dir.sync().expect("sync");
        assert_eq!(image_after(&disk, Cut::Lost).files["a"], b"bytes");
    }

    #[test]
    fn bytes_are_lost_until_their_file_is_synced() {
        let disk = SimulatedDisk::new();
        let dir = Dir::new(Arc::new(disk.clone()));
        let file = dir.create("a").expect("create");
        dir.sync().expect("sync");
        file.write(0, b"bytes").expect("write");
        assert_eq!(image_after(&disk, Cut::Lost).files["a"], b"");
        assert_eq!(image_after(&disk, Cut::Kept).files["a"], b"bytes");
        file.sync().expect("sync");
        assert_eq!(image_after(&disk, Cut::Lost).files["a"], b"bytes");
    }

    #[test]
    fn a_length_may_be_any_since_the_last_sync() {
        let disk = SimulatedDisk::new();
        let dir = Dir::new(Arc::new(disk.clone()));
        let file = dir.create("a").expect("create");
        file.write(0, &[1; 100]).expect("write");
        file.sync().expect("sync");
        dir.sync().expect("sync");
        file.write(100, &[2; 200]).expect("write");
        file.write(300, &[3; 400]).expect("write");
        file.set_len(500).expect("set");
        let model = model_of(&disk);
        let mut lens = BTreeSet::new();
        (0..200).for_each(|seed| {
            lens.insert(model.power_cut(Cut::Dice, &mut Dice::new(seed)).files["a"].len());
        });
        assert_eq!(lens, BTreeSet::from([100, 300, 500, 700]));
    }

    #[test]
    fn writes_of_a_failed_sync_are_lost_even_if_a_later_sync_succeeds() {
        let disk = SimulatedDisk::new();
        let dir = Dir::new(Arc::new(disk.clone()));
        let file = dir.create("a").expect("create");
        dir.sync().expect("sync");
        file.write(0, &[1; 512]).expect("write");
        disk.set_faults(Some(Box::new(|op| {
            matches!(op, Op::Sync { .. }).then_some(io::ErrorKind::Other)
        })));
        file.sync().expect_err("the fault");
        disk.set_faults(None);
        file.write(512, &[2; 512]).expect("write");
        file.sync().expect("sync");
        let content = image_after(&disk, Cut::Lost).files["a"].clone();
        assert_eq!((content[0], content[512]), (0, 2));
        let model = model_of(&disk);
        let landed =
            (0..50).map(|seed| model.power_cut(Cut::Dice, &mut Dice::new(seed)).files["a"][0]);
        assert_eq!(
            landed.collect::<BTreeSet<_>>(),
            BTreeSet::from([0, 1]),
            "or some of it was written all the same"
        );
        assert_eq!(disk.contents().files["a"][0], 1, "the ghost page is still readable");
    }

    #[test]
    fn dice_harm_only_sectors_that_were_written() {
        let disk = SimulatedDisk::new();
        let dir = Dir::new(Arc::new(disk.clone()));
        let file = dir.create("a").expect("create");
        file.write(0, &[7; 2048]).expect("write");
        file.sync().expect("sync");
        dir.sync().expect("sync");
        file.write(600, &[9; 10]).expect("write");
        for seed in 0..50 {
            let model = model_of(&disk);
            let content = model.power_cut(Cut::Dice, &mut Dice::new(seed)).files["a"].clone();
            assert!(content[..512].iter().chain(&content[1024..]).all(|byte| *byte == 7));
        }
    }

    #[test]
    fn a_power_cut_begins_another_boot_and_a_kill_does_not() {
        let disk = SimulatedDisk::new();
        Dir::new(Arc::new(disk.clone())).create("a").expect("create");
        let killed = SimulatedDisk::from_model(model_of(&disk));
        let started = SimulatedDisk::from_image(&image_after(&disk, Cut::Kept));
        assert_eq!(killed.boot_id(), disk.boot_id());
        assert_ne!(started.boot_id(), disk.boot_id());
    }

    #[test]
    fn a_walk_visits_every_combination_once() {
        let disk = SimulatedDisk::new();
        let dir = Dir::new(Arc::new(disk.clone()));
        let file = dir.create("a").expect("create");
        file.write(0, &[7; 1024]).expect("write");
        file.sync().expect("sync");
        dir.sync().expect("sync");
        file.write(0, &[9; 1024]).expect("write");
        dir.create("b").expect("create");
        let model = model_of(&disk);
        let mut dice = Dice::walk();
        let mut states = BTreeSet::new();
        let mut cuts = 0;
        loop {
            let image = model.power_cut(Cut::Dice, &mut dice);
            let outcome = |at: usize| match image.files["a"][at..at + 512] {
                ref sector if sector.iter().all(|byte| *byte == sector[0]) => i32::from(sector[0]),
                _ => -1,
            };
            states.insert((image.files.contains_key("b"), outcome(0), outcome(512)));
            cuts += 1;
            if !dice.advance() {
                break;
            }
        }
        assert_eq!((cuts, states.len()), (32, 32), "a name, and two sectors of four outcomes");
    }
}
