//! What all segments share (P7): decoded, checked blocks within one budget, and open files, at most so many
//! as the options say.
//!
//! A file is opened when a block of it must be read, and closed when others were needed more
//! or the process has no descriptor left. Its name is there as long as its
//! segment has readers, so opening it again finds the same bytes; if not, no block's checksum matches.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use quick_cache::Weighter;
use quick_cache::sync::Cache;

use super::{data_name, index_name};
use crate::error::{Error, Result};
use crate::format::block::{BlockKind, BlockRef, decode};
use crate::format::checksum::Seed;
use crate::format::header::{FileHeader, FileKind, file_header};
use crate::ids::{EngineId, FileNumber};
use crate::vfs::{Dir, File};

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
    /// By number and whether it is an index.
    files: Cache<(FileNumber, bool), File>,
    reads: AtomicU64,
    damaged: AtomicU64,
}

impl std::fmt::Debug for BlockCache {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "BlockCache({} bytes)", self.bytes())
    }
}

impl BlockCache {
    /// A cache that keeps about so many bytes, and at most so many files open.
    pub fn new(budget_bytes: usize, max_open_files: usize) -> BlockCache {
        let blocks = (budget_bytes / (16 * 1024)).max(16);
        let blocks = Cache::with_weighter(blocks, budget_bytes as u64, ByBytes);
        let files = Cache::new(max_open_files);
        BlockCache { blocks, files, reads: AtomicU64::new(0), damaged: AtomicU64::new(0) }
    }

    /// Keeps about so many bytes from now on; what is over them goes.
    pub fn set_budget(&self, budget_bytes: usize) {
        if self.blocks.capacity() != budget_bytes as u64 {
            self.blocks.set_capacity(budget_bytes as u64);
        }
    }

    /// How many bytes are kept.
    pub fn bytes(&self) -> u64 {
        self.blocks.weight()
    }

    /// Closes a file that is to be removed: an open one would keep its space.
    pub fn close(&self, number: FileNumber, is_index: bool) {
        self.files.remove(&(number, is_index));
    }

    /// Closes half of the open files, any of them, because a descriptor is needed; later reads open what they need. False when none
    /// was open.
    pub fn close_some(&self) -> bool {
        let half = self.files.len().div_ceil(2);
        let closed: Vec<_> = self.files.iter().map(|(key, _)| key).take(half).collect();
        closed.iter().filter(|key| self.files.remove_if(*key, |_| true).is_some()).count() > 0
    }

    /// How many files are open.
    pub fn open_files(&self) -> u64 {
        self.files.len() as u64
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
    dir: Dir,
    number: FileNumber,
    is_index: bool,
    cache: Arc<BlockCache>,
    pub seed: Seed,
    pub len: u64,
}

impl CachedFile {
    /// The file of a segment, after a look at its header.
    pub fn open(
        dir: &Dir,
        engine: EngineId,
        number: FileNumber,
        kind: FileKind,
        cache: Arc<BlockCache>,
    ) -> Result<CachedFile> {
        let (is_index, seed) = (kind == FileKind::Index, Seed::new(engine, number));
        let mut opened = CachedFile { dir: dir.clone(), number, is_index, cache, seed, len: 0 };
        let file = opened.file().map_err(|error| match error {
            Error::Io { path, source, .. } if source.kind() == io::ErrorKind::NotFound => {
                Error::corrupt(path, 0, "the file is missing: the manifest says that it is live")
            }
            _ => error,
        })?;
        let header = FileHeader::decode(&file.read(0, file_header::BYTES)?, file.path())?;
        header.expect(kind, engine, number, file.path())?;
        opened.len = file.len()?;
        Ok(opened)
    }

    fn file(&self) -> Result<File> {
        let open = || self.dir.open(&self.name());
        self.cache.files.get_or_insert_with(&(self.number, self.is_index), open)
    }

    fn name(&self) -> String {
        if self.is_index { index_name(self.number) } else { data_name(self.number) }
    }

    /// Its path, for messages.
    pub fn path(&self) -> PathBuf {
        self.dir.path_of(&self.name())
    }

    /// The content of a block, from the cache or the disk.
    pub fn block(&self, kind: BlockKind, block: BlockRef) -> Result<Bytes> {
        let key = (self.number, self.is_index, block.at);
        self.cache.blocks.get_or_insert_with(&key, || {
            self.cache.reads.fetch_add(1, Ordering::Relaxed);
            self.read(kind, block).inspect_err(|error| {
                if !error.is_shortage() {
                    self.cache.damaged.fetch_add(1, Ordering::Relaxed);
                }
                tracing::error!(%error, "a block cannot be read");
            })
        })
    }

    /// The content of a block, from the disk.
    pub fn read(&self, kind: BlockKind, block: BlockRef) -> Result<Bytes> {
        let bytes = self.bytes(block)?;
        let raw =
            decode(kind, &bytes, self.seed.at(block.at)).map_err(|what| self.damaged(block.at, what))?;
        Ok(Bytes::from(raw))
    }

    /// The bytes at a place, unchecked.
    pub fn bytes(&self, place: BlockRef) -> Result<Vec<u8>> {
        let end = place.at.checked_add(u64::from(place.bytes));
        if end.is_none_or(|end| end > self.len) {
            let what = format!("a block of {} bytes does not fit the file's {}", place.bytes, self.len);
            return Err(self.damaged(place.at, &what));
        }
        self.file()?.read(place.at, place.bytes as usize)
    }

    /// The damage of a file that has not the length that the manifest tells.
    pub fn wrong_length(&self, expected: u64) -> Error {
        let what = format!("the file has {} bytes, the manifest says {expected}", self.len);
        self.damaged(self.len.min(expected), &what)
    }

    /// Damage in this file.
    pub fn damaged(&self, at: u64, what: &str) -> Error {
        Error::corrupt(self.path(), at, what)
    }
}
