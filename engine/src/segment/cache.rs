//! The state that all segments share (P7): decoded, verified blocks and decoded index entries of
//! timelines within one budget, and open files, at most as many as the options allow.
//!
//! A file is opened when a block of it must be read. It is closed when other files are used more,
//! or when the process has no descriptor left. The file's name exists as long as its segment has
//! readers, so opening it again finds the same bytes; otherwise no block's checksum matches.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use quick_cache::sync::Cache;
use quick_cache::{Equivalent, Weighter};

use super::damage::{About, Damages};
use super::{data_name, index_name, twin_of};
use crate::error::{Error, Result};
use crate::format::block::{BlockKind, BlockRef, decode};
use crate::format::checksum::Seed;
use crate::format::header::{FileHeader, FileKind, file_header};
use crate::format::index::TimelineEntry;
use crate::format::manifest::SegmentRecord;
use crate::ids::{EngineId, FileNumber, StoreId};
use crate::metrics::Counters;
use crate::vfs::{Dir, File};

/// The key of a block: the segment's number, whether the block is in the index file, its position.
type BlockKey = (FileNumber, bool, u64);

/// The maximum number of copies of a file.
const MOST_COPIES: u8 = 2;

#[derive(Clone)]
struct ByBytes;

impl Weighter<BlockKey, Bytes> for ByBytes {
    fn weight(&self, _key: &BlockKey, block: &Bytes) -> u64 {
        // The overhead of the map and the handle.
        block.len() as u64 + 128
    }
}

/// The key of a timeline's entry: the segment's number, and the timeline's name.
type EntryKey = (FileNumber, Box<[u8]>);

/// The same, borrowed: a look-up copies no name.
#[derive(Hash)]
struct EntryOf<'a>(FileNumber, &'a [u8]);

impl Equivalent<EntryKey> for EntryOf<'_> {
    fn equivalent(&self, (number, name): &EntryKey) -> bool {
        self.0 == *number && *self.1 == **name
    }
}

/// A timeline's entry; `None`: the segment has none.
pub(super) type FoundEntry = Option<Arc<TimelineEntry>>;

impl Weighter<EntryKey, FoundEntry> for ByBytes {
    fn weight(&self, (_, name): &EntryKey, entry: &FoundEntry) -> u64 {
        let bytes = entry.as_ref().map_or(0, |entry| {
            size_of::<TimelineEntry>()
                + entry.blocks.memory_bytes()
                + size_of_val(&*entry.removed)
                + size_of_val(&*entry.edited)
        });
        // The overhead of the map and the allocations.
        (name.len() + bytes) as u64 + 128
    }
}

/// `1/ENTRIES_PART` of the budget is for decoded entries.
const ENTRIES_PART: usize = 8;

/// The cache. An engine has one, shared by all its segments.
pub struct BlockCache {
    blocks: Cache<BlockKey, Bytes, ByBytes>,
    /// The decoded index entries of timelines that were read. A reader that has nothing new to get
    /// is answered by one.
    entries: Cache<EntryKey, FoundEntry, ByBytes>,
    /// By segment number, whether it is the index, and the number of the copy.
    files: Cache<(FileNumber, bool, u8), File>,
    counters: Arc<Counters>,
    damages: Damages,
}

impl std::fmt::Debug for BlockCache {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "BlockCache({} bytes)", self.bytes())
    }
}

impl BlockCache {
    /// A cache that keeps about `budget_bytes`, and at most `max_open_files` open files.
    pub fn new(budget_bytes: usize, max_open_files: usize) -> BlockCache {
        let count = (budget_bytes / (16 * 1024)).max(16);
        let for_entries = budget_bytes / ENTRIES_PART;
        let blocks = Cache::with_weighter(count, (budget_bytes - for_entries) as u64, ByBytes);
        let entries =
            Cache::with_weighter((for_entries / 2048).max(64), for_entries as u64, ByBytes);
        let files = Cache::new(max_open_files);
        let (counters, damages) = (Arc::default(), Damages::default());
        BlockCache { blocks, entries, files, counters, damages }
    }

    /// The same cache, whose uses are counted here.
    pub fn counted_in(self, counters: Arc<Counters>) -> BlockCache {
        BlockCache { counters, ..self }
    }

    /// A cache for a check that reports damage itself.
    pub fn for_check(budget_bytes: usize, max_open_files: usize) -> BlockCache {
        BlockCache { damages: Damages::quiet(), ..BlockCache::new(budget_bytes, max_open_files) }
    }

    /// Sets the budget; content beyond it is evicted.
    pub fn set_budget(&self, budget_bytes: usize) {
        let for_entries = budget_bytes / ENTRIES_PART;
        let for_blocks = (budget_bytes - for_entries) as u64;
        if self.blocks.capacity() != for_blocks {
            self.blocks.set_capacity(for_blocks);
            self.entries.set_capacity(for_entries as u64);
        }
    }

    /// The number of bytes in the cache.
    pub fn bytes(&self) -> u64 {
        self.blocks.weight() + self.entries.weight()
    }

    /// A timeline's entry in a segment, from the cache or read now.
    pub(super) fn entry(
        &self,
        number: FileNumber,
        name: &[u8],
        read: impl FnOnce() -> Result<Option<TimelineEntry>>,
    ) -> Result<FoundEntry> {
        if let Some(found) = self.entries.get(&EntryOf(number, name)) {
            return Ok(found);
        }
        let found = read()?.map(Arc::new);
        self.entries.insert((number, name.into()), found.clone());
        Ok(found)
    }

    /// Whether a timeline's entry in a segment is known without a read.
    pub(super) fn has_entry(&self, number: FileNumber, name: &[u8]) -> bool {
        self.entries.contains_key(&EntryOf(number, name))
    }

    /// Closes a file that is to be removed: an open file would keep its space.
    pub fn close(&self, number: FileNumber, is_index: bool) {
        for copy in 0..MOST_COPIES {
            self.files.remove(&(number, is_index, copy));
        }
    }

    /// The known damage.
    pub fn damages(&self) -> &Damages {
        &self.damages
    }

    /// Closes half of the open files, in no particular order, because a descriptor is needed; later
    /// reads open the files that they need. False if no file was open.
    pub fn close_some(&self) -> bool {
        let half = self.files.len().div_ceil(2);
        let closed: Vec<_> = self.files.iter().map(|(key, _)| key).take(half).collect();
        closed.iter().filter(|key| self.files.remove_if(*key, |_| true).is_some()).count() > 0
    }

    /// The number of open files.
    pub fn open_files(&self) -> u64 {
        self.files.len() as u64
    }
}

/// One of a segment's files, read through the cache. If the file has two copies, each read uses a
/// copy in which the bytes are valid.
#[derive(Debug)]
pub(super) struct CachedFile {
    dir: Dir,
    number: FileNumber,
    store: StoreId,
    is_index: bool,
    copies: u8,
    cache: Arc<BlockCache>,
    pub seed: Seed,
    /// The length according to the manifest.
    pub len: u64,
}

impl CachedFile {
    /// Opens the file of a segment and checks its header.
    pub fn open(
        dir: &Dir,
        engine: EngineId,
        record: &SegmentRecord,
        kind: FileKind,
        cache: Arc<BlockCache>,
    ) -> Result<CachedFile> {
        let is_index = kind == FileKind::Index;
        let opened = CachedFile {
            dir: dir.clone(),
            number: record.number,
            store: record.store,
            is_index,
            copies: record.copies.of(kind),
            cache,
            seed: Seed::new(engine, record.number),
            len: if is_index { record.index_bytes } else { record.data_bytes },
        };
        opened.first_good(0, About::ALL, |copy| opened.header(copy, engine, kind))?;
        Ok(opened)
    }

    fn header(&self, copy: u8, engine: EngineId, kind: FileKind) -> Result<()> {
        let file = self.file(copy).map_err(|error| match error {
            Error::Io { path, source, .. } if source.kind() == io::ErrorKind::NotFound => {
                Error::corrupt(path, 0, "the file is missing: the manifest says that it is live")
            }
            _ => error,
        })?;
        let header = FileHeader::decode(&file.read(0, file_header::BYTES)?, file.path())?;
        header.expect(kind, engine, self.number, file.path()).map(|_| ())
    }

    /// Fails if a copy of the file is missing, is another file, or does not have the length
    /// according to the manifest.
    pub fn check(&self, engine: EngineId) -> Result<()> {
        let kind = if self.is_index { FileKind::Index } else { FileKind::Data };
        (0..self.copies).try_for_each(|copy| {
            self.header(copy, engine, kind)?;
            self.check_len(copy)
        })
    }

    /// Fails if no copy of the file has the length according to the manifest.
    pub fn check_any_len(&self) -> Result<()> {
        // No block is after the last byte.
        self.first_good(self.len, About::ALL, |copy| self.check_len(copy))
    }

    fn check_len(&self, copy: u8) -> Result<()> {
        let len = self.file(copy)?.len()?;
        if len == self.len {
            return Ok(());
        }
        let what = format!("the file has {len} bytes, the manifest says {}", self.len);
        Err(Error::corrupt(self.path_of(copy), len.min(self.len), what))
    }

    fn file(&self, copy: u8) -> Result<File> {
        let open = || self.dir.open(&self.name(copy));
        self.cache.files.get_or_insert_with(&(self.number, self.is_index, copy), open)
    }

    fn name(&self, copy: u8) -> String {
        let name = if self.is_index { index_name(self.number) } else { data_name(self.number) };
        if copy == 0 { name } else { twin_of(&name) }
    }

    fn path_of(&self, copy: u8) -> PathBuf {
        self.dir.path_of(&self.name(copy))
    }

    /// Its path, for messages.
    pub fn path(&self) -> PathBuf {
        self.path_of(0)
    }

    /// The content of a block, from the cache or the disk.
    pub fn block(&self, kind: BlockKind, block: BlockRef, about: About<'_>) -> Result<Bytes> {
        let key = (self.number, self.is_index, block.at);
        let counters = &self.cache.counters;
        let mut is_hit = true;
        let found = self.cache.blocks.get_or_insert_with(&key, || {
            is_hit = false;
            self.first_good(block.at, about, |copy| {
                counters.block_reads.add(1);
                self.decoded(copy, kind, block)
            })
        });
        if is_hit { &counters.cache_hits } else { &counters.cache_misses }.add(1);
        found
    }

    /// The content of a block, if it is in the cache. This does not count as a use.
    pub fn cached(&self, block: BlockRef) -> Option<Bytes> {
        self.cache.blocks.peek(&(self.number, self.is_index, block.at))
    }

    /// The content of a block, from the disk.
    pub fn read(&self, kind: BlockKind, block: BlockRef, about: About<'_>) -> Result<Bytes> {
        self.first_good(block.at, about, |copy| self.decoded(copy, kind, block))
    }

    fn decoded(&self, copy: u8, kind: BlockKind, block: BlockRef) -> Result<Bytes> {
        let bytes = self.bytes(copy, block)?;
        decode(kind, &bytes, self.seed.at(block.at))
            .map(Bytes::from)
            .map_err(|what| Error::corrupt(self.path_of(copy), block.at, what))
    }

    /// The result of `decode` for the bytes at `block`.
    pub fn piece<T>(
        &self,
        block: BlockRef,
        decode: impl Fn(&[u8], &std::path::Path) -> Result<T>,
    ) -> Result<T> {
        self.first_good(block.at, About::ALL, |copy| {
            decode(&self.bytes(copy, block)?, &self.path_of(copy))
        })
    }

    /// The bytes at `block` in a copy, not verified.
    fn bytes(&self, copy: u8, block: BlockRef) -> Result<Vec<u8>> {
        let end = block.at.checked_add(u64::from(block.bytes));
        if end.is_none_or(|end| end > self.len) {
            let what =
                format!("a block of {} bytes does not fit the file's {}", block.bytes, self.len);
            return Err(Error::corrupt(self.path_of(copy), block.at, what));
        }
        self.file(copy)?.read(block.at, block.bytes as usize)
    }

    /// The result of `read` for the first copy that is valid at `at`; otherwise the damage of the
    /// first copy. Damage is reported once, when it is found.
    fn first_good<T>(
        &self,
        at: u64,
        about: About<'_>,
        read: impl Fn(u8) -> Result<T>,
    ) -> Result<T> {
        let damages = &self.cache.damages;
        let mut damage = None;
        let mut found = Vec::new();
        let mut given = None;
        for copy in 0..self.copies {
            let place = (self.number, self.is_index, copy, at);
            let error = match damages.known(place) {
                Some(error) => error,
                None => match read(copy) {
                    Ok(value) => {
                        given = Some(value);
                        break;
                    }
                    Err(error) if error.is_damage() => {
                        if damages.find(place, &error) {
                            found.push(error.clone());
                        }
                        error
                    }
                    Err(error) => return Err(error),
                },
            };
            damage.get_or_insert(error);
        }
        for error in found {
            let error = damages.located(error, self.store, about);
            if given.is_some() {
                tracing::warn!(%error, "damage was found; the other copy is good: run repair");
            } else {
                tracing::error!(%error, "damage was found");
            }
        }
        if damage.is_some() {
            self.cache.counters.damaged_reads.add(1);
        }
        match (given, damage) {
            (Some(given), _) => Ok(given),
            (None, Some(error)) => Err(damages.located(error, self.store, about)),
            (None, None) => Err(self.damaged(at, "the file has no copies", about)),
        }
    }

    /// Damage in this file.
    pub fn damaged(&self, at: u64, what: &str, about: About<'_>) -> Error {
        self.cache.damages.located(Error::corrupt(self.path(), at, what), self.store, about)
    }
}
