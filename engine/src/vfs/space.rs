//! The space of a simulated disk: the blocks that its files occupy.
//!
//! As in real file systems, a block is allocated when something is written into it, not when a
//! file's length grows; a file that has lost its name keeps its blocks until the last user that has
//! it open closes it; names take no space.

use std::collections::{BTreeMap, BTreeSet};

const BLOCK_BYTES: u64 = 4096;

/// The space of a disk. Files are identified by number.
#[derive(Debug, Default)]
pub(super) struct Space {
    /// `None`: unlimited.
    capacity_bytes: Option<u64>,
    blocks: BTreeMap<u64, BTreeSet<u64>>,
    /// The number of times that each file is open.
    open: BTreeMap<u64, usize>,
}

impl Space {
    /// Limits the disk to `capacity_bytes`, of which these files, by number and length, occupy
    /// theirs.
    pub fn limit(&mut self, capacity_bytes: Option<u64>, files: impl Iterator<Item = (u64, u64)>) {
        self.capacity_bytes = capacity_bytes;
        self.blocks =
            files.map(|(file, len)| (file, (0..len.div_ceil(BLOCK_BYTES)).collect())).collect();
    }

    pub fn is_limited(&self) -> bool {
        self.capacity_bytes.is_some()
    }

    pub fn opened(&mut self, file: u64) {
        *self.open.entry(file).or_insert(0) += 1;
    }

    pub fn closed(&mut self, file: u64) {
        let count = self.open.entry(file).or_insert(1);
        *count -= 1;
        if *count == 0 {
            self.open.remove(&file);
        }
    }

    /// The free bytes, given the files that have names.
    pub fn free_bytes(&mut self, named: &BTreeSet<u64>) -> u64 {
        let Some(capacity_bytes) = self.capacity_bytes else { return u64::MAX };
        let open = &self.open;
        self.blocks.retain(|file, _| named.contains(file) || open.contains_key(file));
        let used: usize = self.blocks.values().map(BTreeSet::len).sum();
        capacity_bytes.saturating_sub(used as u64 * BLOCK_BYTES)
    }

    /// Allocates the blocks of a piece of a file. False if there are not enough.
    pub fn take(&mut self, named: &BTreeSet<u64>, file: u64, offset: u64, len: usize) -> bool {
        if !self.is_limited() || len == 0 {
            return true;
        }
        let free = self.free_bytes(named) / BLOCK_BYTES;
        let wanted = offset / BLOCK_BYTES..(offset + len as u64).div_ceil(BLOCK_BYTES);
        let taken = self.blocks.entry(file).or_default();
        let new: Vec<u64> = wanted.filter(|block| !taken.contains(block)).collect();
        let fits = new.len() as u64 <= free;
        if fits {
            taken.extend(new);
        }
        fits
    }

    /// A file got the length `len`: frees the blocks beyond it.
    pub fn cut(&mut self, file: u64, len: u64) {
        if let Some(taken) = self.blocks.get_mut(&file) {
            taken.retain(|block| *block < len.div_ceil(BLOCK_BYTES));
        }
    }
}
