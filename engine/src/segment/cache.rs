//! Decoded, checked blocks of all segments, within one budget (P7).

use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use quick_cache::Weighter;
use quick_cache::sync::Cache;

use crate::error::{Error, Result};
use crate::format::block::{BlockKind, BlockRef, decode};
use crate::format::checksum::Seed;
use crate::ids::FileNumber;
use crate::vfs::File;

/// Which block: the segment's number, whether it is of the index file, the place.
type Key = (FileNumber, bool, u64);

#[derive(Clone)]
struct ByBytes;

impl Weighter<Key, Bytes> for ByBytes {
    fn weight(&self, _key: &Key, block: &Bytes) -> u64 {
        // What the map and the handle take beside the bytes.
        block.len() as u64 + 128
    }
}

/// The cache. One an engine, shared by all its segments.
pub struct BlockCache {
    blocks: Cache<Key, Bytes, ByBytes>,
    reads: AtomicU64,
    damaged: AtomicU64,
}

impl std::fmt::Debug for BlockCache {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "BlockCache({} bytes)", self.bytes())
    }
}

impl BlockCache {
    /// A cache that keeps about so many bytes.
    pub fn new(budget_bytes: usize) -> BlockCache {
        let blocks = (budget_bytes / (16 * 1024)).max(16);
        let blocks = Cache::with_weighter(blocks, budget_bytes as u64, ByBytes);
        BlockCache { blocks, reads: AtomicU64::new(0), damaged: AtomicU64::new(0) }
    }

    /// How many bytes are kept.
    pub fn bytes(&self) -> u64 {
        self.blocks.weight()
    }

    /// How many blocks were read from files because they were not here.
    pub fn block_reads(&self) -> u64 {
        self.reads.load(Ordering::Relaxed)
    }

    /// How often something that was read was damaged.
    pub fn damaged_reads(&self) -> u64 {
        self.damaged.load(Ordering::Relaxed)
    }

    /// How often a block was here, and how often it had to be read.
    pub fn hits_and_misses(&self) -> (u64, u64) {
        (self.blocks.hits(), self.blocks.misses())
    }
}

/// One of a segment's files, read through the cache.
#[derive(Debug)]
pub(super) struct CachedFile {
    pub file: File,
    pub number: FileNumber,
    pub is_index: bool,
    pub seed: Seed,
    pub len: u64,
}

impl CachedFile {
    /// The content of a block, from the cache or the disk.
    pub fn block(&self, kind: BlockKind, block: BlockRef, cache: &BlockCache) -> Result<Bytes> {
        let key = (self.number, self.is_index, block.at);
        cache.blocks.get_or_insert_with(&key, || {
            cache.reads.fetch_add(1, Ordering::Relaxed);
            self.read(kind, block).inspect_err(|error| {
                cache.damaged.fetch_add(1, Ordering::Relaxed);
                tracing::error!(%error, "a block cannot be read");
            })
        })
    }

    /// The content of a block, from the disk.
    pub fn read(&self, kind: BlockKind, block: BlockRef) -> Result<Bytes> {
        let end = block.at.checked_add(u64::from(block.bytes));
        if end.is_none_or(|end| end > self.len) {
            let what = format!("a block of {} bytes does not fit the file's {}", block.bytes, self.len);
            return Err(self.damaged(block.at, &what));
        }
        let bytes = self.file.read(block.at, block.bytes as usize)?;
        let raw =
            decode(kind, &bytes, self.seed.at(block.at)).map_err(|what| self.damaged(block.at, what))?;
        Ok(Bytes::from(raw))
    }

    /// The damage of a file that has not the length that the manifest tells.
    pub fn wrong_length(&self, expected: u64) -> Error {
        let what = format!("the file has {} bytes, the manifest says {expected}", self.len);
        self.damaged(self.len.min(expected), &what)
    }

    /// Damage in this file.
    pub fn damaged(&self, at: u64, what: &str) -> Error {
        Error::corrupt(self.file.path(), at, what)
    }
}
