//! The content of a disk after some calls, and after a power cut: see the heading of `simulated`.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use bytes::Bytes;

use crate::ids::BootId;
use crate::vfs::Site;

/// The number of bytes that a disk writes atomically.
pub const SECTOR_BYTES: usize = 512;

/// One call, as recorded in the log. Files are identified by number, since a name may change.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "the fields are the arguments of the calls")]
pub enum Op {
    /// A new, empty file.
    Create { name: String, file: u64 },
    /// Bytes at an offset.
    Write { file: u64, offset: u64, bytes: Bytes },
    /// Another length.
    SetLen { file: u64, len: u64 },
    /// A sync of a file that succeeded.
    Sync { file: u64, site: Site },
    /// A sync of a file that failed.
    SyncFailed { file: u64 },
    /// Another name for a file, which replaces the file that had it.
    Rename { from: String, to: String },
    /// A name that was removed.
    Remove { name: String },
    /// A sync of the directory that succeeded.
    SyncDir { site: Site },
    /// A mark of the driver.
    Mark(u64),
}

/// A source of decisions: a sequence determined by a seed (xorshift64*), or all combinations in
/// turn.
#[derive(Clone, Debug)]
pub struct Dice {
    random: u64,
    walk: Option<Combination>,
}

/// One combination of decisions: each decision, and its number of alternatives.
#[derive(Clone, Debug, Default)]
struct Combination {
    decided: Vec<(u64, u64)>,
    at: usize,
}

impl Dice {
    /// Dice determined by the seed.
    pub fn new(seed: u64) -> Dice {
        Dice { random: seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1, walk: None }
    }

    /// Dice that go through all combinations of a power cut's decisions, one per cut; see
    /// [`Dice::advance`].
    pub fn walk() -> Dice {
        Dice { walk: Some(Combination::default()), ..Dice::new(1) }
    }

    /// Moves to the next combination. False if the previous one was the last.
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

    /// An index into `weights`, with a probability proportional to its weight; a walk takes each in
    /// turn.
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

/// The fate of unsynced changes in a power cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// All are lost.
    Lost,
    /// All reached the disk.
    Kept,
    /// Names reached the disk, the bytes of files did not.
    NamesOnly,
    /// Bytes reached the disk, the names did not.
    BytesOnly,
    /// Each sector, length and name is decided by dice.
    Dice,
}

impl Cut {
    /// All variants.
    pub const ALL: [Cut; 5] = [Cut::Lost, Cut::Kept, Cut::NamesOnly, Cut::BytesOnly, Cut::Dice];
}

/// The files of a disk that was just powered on: all are durable.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Image {
    /// The content of each file, by name.
    pub files: BTreeMap<String, Vec<u8>>,
}

impl Image {
    /// The boot of a machine that starts with this disk. It is derived from the files alone, so
    /// that a run can be repeated. A boot id that was written to the disk never equals that of the
    /// boot after a power cut, since the disk that starts that boot contains it.
    fn boot(&self) -> BootId {
        let mut hasher = DefaultHasher::new();
        self.files.hash(&mut hasher);
        BootId((u128::from(hasher.finish()) << 64 | 1).to_be_bytes())
    }
}

#[derive(Clone, Debug, Default)]
pub(super) struct FileState {
    durable: Vec<u8>,
    pub(super) current: Vec<u8>,
    /// Sectors written since the last successful sync.
    dirty: BTreeSet<usize>,
    /// Lengths that it had since then, except the current one.
    lens: BTreeSet<usize>,
    /// Sectors that a failed sync covered, and that were not written since: they are not written to
    /// the disk any more, and some may be there.
    ghosts: BTreeSet<usize>,
}

impl FileState {
    fn touch(&mut self, from: usize, to: usize) {
        for sector in from / SECTOR_BYTES..to.div_ceil(SECTOR_BYTES) {
            self.dirty.insert(sector);
            self.ghosts.remove(&sector);
        }
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
        self.lens.insert(self.current.len());
        self.current.resize(len, 0);
        // A part that only grew reads as zeros, whether its length is durable or not. A part that
        // was cut off may come back.
        self.touch(low, high.min(self.durable.len()));
    }

    fn sync(&mut self) {
        self.durable.resize(self.current.len(), 0);
        self.lens.clear();
        for sector in std::mem::take(&mut self.dirty) {
            copy_sector(sector, &self.current, &mut self.durable);
        }
    }

    fn sync_failed(&mut self) {
        self.ghosts.append(&mut self.dirty);
    }

    fn cut(&self, cut: Cut, dice: &mut Dice) -> Vec<u8> {
        match cut {
            Cut::Lost | Cut::NamesOnly => return self.durable.clone(),
            Cut::Kept | Cut::BytesOnly => return self.current.clone(),
            Cut::Dice => {}
        }
        let len = self.cut_len(dice);
        let mut content = self.durable.clone();
        content.resize(len, 0);
        for &sector in &self.ghosts {
            if dice.choose(&[1, 1]) == 1 {
                copy_sector(sector, &self.current, &mut content);
            }
        }
        for &sector in &self.dirty {
            let from = (sector * SECTOR_BYTES).min(len);
            let to = (from + SECTOR_BYTES).min(len);
            match dice.choose(&[3, 3, 1, 1]) {
                0 => {}
                1 => copy_sector(sector, &self.current, &mut content),
                2 => content[from..to].fill(0),
                _ => content[from..to].iter_mut().for_each(|byte| *byte = dice.below(256) as u8),
            }
        }
        content
    }

    /// The length on the disk, any that the file had since the last sync: metadata reaches the disk
    /// in any order.
    fn cut_len(&self, dice: &mut Dice) -> usize {
        let ends = [self.durable.len(), self.current.len()];
        let lens: BTreeSet<usize> = self.lens.iter().copied().chain(ends).collect();
        let lens: Vec<usize> = lens.into_iter().collect();
        if let [only] = lens[..] {
            return only;
        }
        let weight = |len: &usize| if ends.contains(len) { lens.len() as u64 } else { 1 };
        lens[dice.choose(&lens.iter().map(weight).collect::<Vec<_>>())]
    }
}

/// Copies a sector, as far as both files contain it.
fn copy_sector(sector: usize, from: &[u8], to: &mut [u8]) {
    let end = (sector * SECTOR_BYTES + SECTOR_BYTES).min(from.len()).min(to.len());
    let start = (sector * SECTOR_BYTES).min(end);
    to[start..end].copy_from_slice(&from[start..end]);
}

/// The content of a disk after some calls: the durable part, and the part that is merely visible.
#[derive(Clone, Debug)]
pub struct Model {
    /// It lasts until the power is cut: a killed process does not end it.
    pub(super) boot: BootId,
    pub(super) files: BTreeMap<u64, FileState>,
    durable_names: BTreeMap<String, u64>,
    pub(super) names: BTreeMap<String, u64>,
    /// Name changes since the directory's last sync: the name, and the file that it then referred
    /// to.
    pending: Vec<Vec<(String, Option<u64>)>>,
}

impl Default for Model {
    fn default() -> Model {
        Model::from_image(&Image::default())
    }
}

impl Model {
    /// A disk with these files, all durable, of a machine that was just started.
    pub fn from_image(image: &Image) -> Model {
        let mut model = Model {
            boot: image.boot(),
            files: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            names: BTreeMap::new(),
            pending: Vec::new(),
        };
        for (number, (name, content)) in image.files.iter().enumerate() {
            let state = FileState {
                durable: content.clone(),
                current: content.clone(),
                ..FileState::default()
            };
            model.files.insert(number as u64, state);
            model.names.insert(name.clone(), number as u64);
        }
        model.durable_names = model.names.clone();
        model
    }

    /// Applies one call. A sync requested at the site `without` does nothing, as if that line were
    /// removed from the code.
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
            Op::SyncFailed { file } => self.file(*file).sync_failed(),
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

    pub(super) fn file(&mut self, file: u64) -> &mut FileState {
        self.files.entry(file).or_default()
    }

    fn rename_to(&mut self, changes: Vec<(String, Option<u64>)>) {
        change_names(&mut self.names, &changes);
        self.pending.push(changes);
    }

    /// The disk after a power cut at this moment.
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

    /// Whether a power cut at this moment could not change anything.
    pub fn is_settled(&self) -> bool {
        self.pending.is_empty()
            && self
                .files
                .values()
                .all(|file| file.dirty.is_empty() && file.durable.len() == file.current.len())
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
