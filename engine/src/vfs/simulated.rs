//! A disk in memory that writes down every call, so that from one run the disks of a power cut at any point can be made.
//!
//! ```text
//!  run the engine once ──> log: create, write, sync, rename, … and the driver's marks
//!  for each place in the log: replay up to there ──> Model ──power_cut(dice)──> Image ──> a new disk to open
//! ```
//!
//! What a power cut takes, in this model:
//!  * of a file, each 512-byte sector written since its last sync comes out old, new, zero or garbage, and its length old or new,
//!    independently. A sector that was not written since then is never harmed: that is what is assumed of the medium.
//!  * of the directory, each create, rename and remove since its last sync happened or did not, independently.
//!  * after a failed sync, what was not durable before is lost though it can still be read (ghost pages): a later successful sync
//!    covers only what was written after the failure.
//!
//! Marks are the driver's own notes in the log ("batch 7 acknowledged"), in order with the calls. Faults are the driver's too.
//!
//! It does not know: the engine. It is part of the library, not of the tests, because embedders prove their own code with it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use super::space::Space;
use super::{RawDirectory, RawFile, Site};

/// What a disk writes in one piece.
pub const SECTOR_BYTES: usize = 512;

/// One call, as it stands in the log. Files are known by number, since a name may change.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "the fields are the arguments of the calls")]
pub enum Op {
    Create { name: String, file: u64 },
    Write { file: u64, offset: u64, bytes: Bytes },
    SetLen { file: u64, len: u64 },
    Sync { file: u64, site: Site },
    SyncFailed { file: u64 },
    Rename { from: String, to: String },
    Remove { name: String },
    SyncDir { site: Site },
    Mark(u64),
}

/// A source of decisions: the same for the same seed (xorshift64*), or all combinations in turn.
#[derive(Clone, Debug)]
pub struct Dice {
    random: u64,
    walk: Option<Walk>,
}

/// One combination of decisions: what was decided, of how many.
#[derive(Clone, Debug, Default)]
struct Walk {
    decided: Vec<(u64, u64)>,
    at: usize,
}

impl Dice {
    /// Dice that fall as the seed says.
    pub fn new(seed: u64) -> Dice {
        Dice { random: seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1, walk: None }
    }

    /// Dice that walk through all combinations of what a power cut decides, one a cut; see [`Dice::advance`].
    pub fn walk() -> Dice {
        Dice { walk: Some(Walk::default()), ..Dice::new(1) }
    }

    /// Goes on to the next combination. False when the one before was the last.
    pub fn advance(&mut self) -> bool {
        let Some(walk) = &mut self.walk else { return true };
        walk.at = 0;
        while let Some((decided, bound)) = walk.decided.pop() {
            if decided + 1 < bound {
                walk.decided.push((decided + 1, bound));
                return true;
            }
        }
        false
    }

    /// A number below `bound`, which must not be 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        self.random.wrapping_mul(0x2545_F491_4F6C_DD1D) % bound
    }

    /// One of `weights`, as often as it says; a walk takes each in turn.
    fn choose(&mut self, weights: &[u64]) -> usize {
        let Some(walk) = &mut self.walk else {
            let mut left = self.below(weights.iter().sum());
            return weights
                .iter()
                .position(|weight| {
                    left < *weight || {
                        left -= weight;
                        false
                    }
                })
                .unwrap_or(0);
        };
        if walk.at == walk.decided.len() {
            walk.decided.push((0, weights.len() as u64));
        }
        walk.at += 1;
        walk.decided[walk.at - 1].0 as usize
    }
}

/// How a power cut decides about what was not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// All of it is lost.
    Lost,
    /// All of it happened to reach the disk.
    Kept,
    /// Names happened to reach the disk, the bytes of files did not.
    NamesOnly,
    /// Bytes happened to reach the disk, the names did not.
    BytesOnly,
    /// Each sector, length and name by dice.
    Dice,
}

impl Cut {
    /// Every way.
    pub const ALL: [Cut; 5] = [Cut::Lost, Cut::Kept, Cut::NamesOnly, Cut::BytesOnly, Cut::Dice];
}

/// Files as a disk that was just powered on has them: all durable.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Image {
    /// The content of each file, by name.
    pub files: BTreeMap<String, Vec<u8>>,
}

#[derive(Clone, Debug, Default)]
struct FileState {
    durable: Vec<u8>,
    current: Vec<u8>,
    /// Sectors written since the last sync that worked.
    dirty: BTreeSet<usize>,
}

impl FileState {
    fn touch(&mut self, from: usize, to: usize) {
        self.dirty.extend(from / SECTOR_BYTES..to.div_ceil(SECTOR_BYTES));
    }

    fn write(&mut self, offset: usize, bytes: &[u8]) {
        let end = offset + bytes.len();
        if self.current.len() < end {
            self.resize(end);
        }
        self.current[offset..end].copy_from_slice(bytes);
        self.touch(offset, end);
    }

    fn resize(&mut self, len: usize) {
        let (low, high) = (self.current.len().min(len), self.current.len().max(len));
        self.current.resize(len, 0);
        self.touch(low, high);
    }

    fn sync(&mut self) {
        self.durable.resize(self.current.len(), 0);
        for sector in std::mem::take(&mut self.dirty) {
            let from = (sector * SECTOR_BYTES).min(self.current.len());
            let to = (from + SECTOR_BYTES).min(self.current.len());
            self.durable[from..to].copy_from_slice(&self.current[from..to]);
        }
    }

    fn cut(&self, cut: Cut, dice: &mut Dice) -> Vec<u8> {
        match cut {
            Cut::Lost | Cut::NamesOnly => return self.durable.clone(),
            Cut::Kept | Cut::BytesOnly => return self.current.clone(),
            Cut::Dice => {}
        }
        let (before, after) = (self.durable.len(), self.current.len());
        let len = if before == after || dice.choose(&[1, 1]) == 0 { before } else { after };
        let mut content = self.durable.clone();
        content.resize(len, 0);
        for &sector in &self.dirty {
            let from = (sector * SECTOR_BYTES).min(len);
            let to = (from + SECTOR_BYTES).min(len);
            match dice.choose(&[3, 3, 1, 1]) {
                0 => {}
                1 => {
                    let kept = to.min(self.current.len());
                    content[from.min(kept)..kept].copy_from_slice(&self.current[from.min(kept)..kept]);
                }
                2 => content[from..to].fill(0),
                _ => content[from..to].iter_mut().for_each(|byte| *byte = dice.below(256) as u8),
            }
        }
        content
    }
}

/// What a disk holds after some calls: what is durable, and what is merely there.
#[derive(Clone, Debug, Default)]
pub struct Model {
    files: BTreeMap<u64, FileState>,
    durable_names: BTreeMap<String, u64>,
    names: BTreeMap<String, u64>,
    /// Name changes since the directory's last sync: the name, and what it then stood for.
    pending: Vec<Vec<(String, Option<u64>)>>,
}

impl Model {
    /// A disk with these files, all durable.
    pub fn from_image(image: &Image) -> Model {
        let mut model = Model::default();
        for (number, (name, content)) in image.files.iter().enumerate() {
            let state =
                FileState { durable: content.clone(), current: content.clone(), dirty: BTreeSet::new() };
            model.files.insert(number as u64, state);
            model.names.insert(name.clone(), number as u64);
        }
        model.durable_names = model.names.clone();
        model
    }

    /// Carries one call out. A sync asked for at the site `without` does nothing: the code with that line removed.
    pub fn apply(&mut self, op: &Op, without: Option<Site>) {
        match op {
            Op::Create { name, file } => {
                self.files.insert(*file, FileState::default());
                self.rename_to(vec![(name.clone(), Some(*file))]);
            }
            Op::Write { file, offset, bytes } => self.file(*file).write(*offset as usize, bytes),
            Op::SetLen { file, len } => self.file(*file).resize(*len as usize),
            Op::Sync { site, .. } | Op::SyncDir { site } if Some(*site) == without => {}
            Op::Sync { file, .. } => self.file(*file).sync(),
            // Ghost pages: still readable, clean in the cache's eyes, and not on the disk.
            Op::SyncFailed { file } => self.file(*file).dirty.clear(),
            Op::Rename { from, to } => {
                if let Some(file) = self.names.get(from).copied() {
                    self.rename_to(vec![(from.clone(), None), (to.clone(), Some(file))]);
                }
            }
            Op::Remove { name } => self.rename_to(vec![(name.clone(), None)]),
            Op::SyncDir { .. } => {
                self.durable_names = self.names.clone();
                self.pending.clear();
            }
            Op::Mark(_) => {}
        }
    }

    fn file(&mut self, file: u64) -> &mut FileState {
        self.files.entry(file).or_default()
    }

    fn rename_to(&mut self, changes: Vec<(String, Option<u64>)>) {
        change_names(&mut self.names, &changes);
        self.pending.push(changes);
    }

    /// The disk as it comes back after the power went now.
    pub fn power_cut(&self, cut: Cut, dice: &mut Dice) -> Image {
        let mut names = self.durable_names.clone();
        for changes in &self.pending {
            let happened = match cut {
                Cut::Lost | Cut::BytesOnly => false,
                Cut::Kept | Cut::NamesOnly => true,
                Cut::Dice => dice.choose(&[1, 1]) == 0,
            };
            if happened {
                change_names(&mut names, changes);
            }
        }
        let files = names.into_iter().filter_map(|(name, file)| {
            let content = self.files.get(&file)?.cut(cut, dice);
            Some((name, content))
        });
        Image { files: files.collect() }
    }

    /// Whether a power cut now could take anything.
    pub fn is_settled(&self) -> bool {
        self.pending.is_empty() && self.files.values().all(|file| file.dirty.is_empty())
    }
}

fn change_names(names: &mut BTreeMap<String, u64>, changes: &[(String, Option<u64>)]) {
    for (name, file) in changes {
        match file {
            Some(file) => names.insert(name.clone(), *file),
            None => names.remove(name),
        };
    }
}

/// Decides about each call before it is made: `Some(kind)` makes it fail.
pub type Faults = Box<dyn FnMut(&Op) -> Option<io::ErrorKind> + Send>;

struct State {
    model: Model,
    log: Vec<Op>,
    next_file: u64,
    locked: bool,
    faults: Option<Faults>,
    space: Space,
}

impl State {
    fn named(&self) -> BTreeSet<u64> {
        self.model.names.values().copied().collect()
    }
}

/// The disk. Clones are the same disk.
#[derive(Clone)]
pub struct SimulatedDisk {
    state: Arc<Mutex<State>>,
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

    /// A disk that comes back with these files.
    pub fn from_image(image: &Image) -> SimulatedDisk {
        SimulatedDisk::from_model(Model::from_image(image))
    }

    /// A disk as a killed process left it: nothing is lost yet, and what was not synced still is not.
    pub fn from_model(model: Model) -> SimulatedDisk {
        let next_file = model.files.keys().next_back().map_or(0, |last| last + 1);
        let state =
            State { model, log: Vec::new(), next_file, locked: false, faults: None, space: Space::default() };
        SimulatedDisk { state: Arc::new(Mutex::new(state)) }
    }

    /// From now on the disk has so many bytes, in blocks of 4 KiB; `None`: there is always more.
    pub fn set_capacity(&self, capacity_bytes: Option<u64>) {
        let state = &mut *self.state.lock();
        let model = &state.model;
        let len =
            |file: &u64| (*file, model.files.get(file).map_or(0, |content| content.current.len() as u64));
        state.space.limit(capacity_bytes, model.names.values().map(len));
    }

    /// How many bytes are left.
    pub fn free_bytes(&self) -> u64 {
        let mut state = self.state.lock();
        let named = state.named();
        state.space.free_bytes(&named)
    }

    /// A note of the driver in the log.
    pub fn mark(&self, mark: u64) {
        self.state.lock().log.push(Op::Mark(mark));
    }

    /// Every call so far.
    pub fn log(&self) -> Vec<Op> {
        self.state.lock().log.clone()
    }

    /// How many calls so far.
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

    /// Lets `faults` decide about every call from now on.
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

    fn image_after(disk: &SimulatedDisk, cut: Cut) -> Image {
        let mut model = Model::default();
        disk.log().iter().for_each(|op| model.apply(op, None));
        model.power_cut(cut, &mut Dice::new(1))
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
    fn what_a_failed_sync_covered_is_lost_though_a_later_one_works() {
        let disk = SimulatedDisk::new();
        let dir = Dir::new(Arc::new(disk.clone()));
        let file = dir.create("a").expect("create");
        dir.sync().expect("sync");
        file.write(0, &[1; 512]).expect("write");
        disk.set_faults(Some(Box::new(|op| matches!(op, Op::Sync { .. }).then_some(io::ErrorKind::Other))));
        file.sync().expect_err("the fault");
        disk.set_faults(None);
        file.write(512, &[2; 512]).expect("write");
        file.sync().expect("sync");
        let content = image_after(&disk, Cut::Lost).files["a"].clone();
        assert_eq!((content[0], content[512]), (0, 2));
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
            let mut model = Model::default();
            disk.log().iter().for_each(|op| model.apply(op, None));
            let content = model.power_cut(Cut::Dice, &mut Dice::new(seed)).files["a"].clone();
            assert!(content[..512].iter().chain(&content[1024..]).all(|byte| *byte == 7));
        }
    }

    #[test]
    fn a_walk_meets_every_combination_once() {
        let disk = SimulatedDisk::new();
        let dir = Dir::new(Arc::new(disk.clone()));
        let file = dir.create("a").expect("create");
        file.write(0, &[7; 1024]).expect("write");
        file.sync().expect("sync");
        dir.sync().expect("sync");
        file.write(0, &[9; 1024]).expect("write");
        dir.create("b").expect("create");
        let mut model = Model::default();
        disk.log().iter().for_each(|op| model.apply(op, None));
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
