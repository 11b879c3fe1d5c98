//! The files of a segment and what of them stays in memory: opens them, finds timelines, ids and shared bodies.

use std::cmp::Ordering;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use super::cache::{BlockCache, CachedFile};
use super::data_name;
use super::table::{Reading, Table};
use crate::error::{Error, Result};
use crate::format::block::{BlockKind, BlockRef};
use crate::format::filter::may_contain;
use crate::format::header::FileKind;
use crate::format::ids::{self, IdEntry};
use crate::format::index::{Footer, TimelineEntry, body_key, footer, name_key, slot_name};
use crate::format::manifest::SegmentRecord;
use crate::format::run::shared_body;
use crate::format::slots::Slots;
use crate::ids::{EngineId, TimeMs};
use crate::vfs::Dir;

#[derive(Debug)]
pub(super) struct Parts {
    /// The blocks, once they could be opened. Without them the index still tells how timelines end, and the next read tries again.
    data: OnceLock<CachedFile>,
    pub dir: Dir,
    pub engine: EngineId,
    pub record: SegmentRecord,
    pub index: CachedFile,
    pub footer: Footer,
    /// The roots of the tables; what is below goes through the cache.
    page_table: Bytes,
    id_table: Bytes,
    body_table: Bytes,
    pub cache: Arc<BlockCache>,
}

impl Parts {
    pub fn open(
        dir: &Dir,
        engine: EngineId,
        record: &SegmentRecord,
        cache: Arc<BlockCache>,
    ) -> Result<Parts> {
        let index = CachedFile::open(dir, engine, record.number, FileKind::Index, cache.clone())?;
        if index.len != record.index_bytes {
            return Err(index.wrong_length(record.index_bytes));
        }
        let at = index.len.saturating_sub(footer::BYTES as u64);
        let bytes = index.bytes(BlockRef { at, bytes: footer::BYTES as u32 })?;
        let footer = Footer::decode(&bytes, index.seed, &index.path(), at)?;
        if footer.data_bytes != record.data_bytes {
            return Err(index.damaged(at, "the footer belongs to another data file"));
        }
        let page_table = index.read(BlockKind::PageTable, footer.page_table)?;
        let id_table = index.read(BlockKind::IdTable, footer.id_table)?;
        let body_table = index.read(BlockKind::BodyTable, footer.body_table)?;
        let (data, dir, record) = (OnceLock::new(), dir.clone(), record.clone());
        let parts =
            Parts { data, dir, engine, record, index, footer, page_table, id_table, body_table, cache };
        if parts.record.has_data()
            && let Err(error) = parts.data()
        {
            tracing::error!(segment = parts.record.number, %error, "the blocks of a segment cannot be read");
        }
        Ok(parts)
    }

    /// The data file. One that was cut short is served as far as it goes.
    fn data_file(&self) -> Result<CachedFile> {
        let (number, cache) = (self.record.number, self.cache.clone());
        let data = CachedFile::open(&self.dir, self.engine, number, FileKind::Data, cache)?;
        if data.len != self.record.data_bytes {
            tracing::error!(error = %data.wrong_length(self.record.data_bytes), "some blocks of a segment are missing");
        }
        Ok(data)
    }

    pub fn data_damage(&self, at: u64, what: &str) -> Error {
        Error::corrupt(self.dir.path_of(&data_name(self.record.number)), at, what)
    }

    /// The damage of an entry whose shared body is not there.
    pub fn missing_body(&self) -> Error {
        self.data_damage(0, "an entry refers to a shared body that is not there")
    }

    pub fn data(&self) -> Result<&CachedFile> {
        if let Some(data) = self.data.get() {
            return Ok(data);
        }
        let data = self.data_file()?;
        Ok(self.data.get_or_init(|| data))
    }

    /// The tables above the pages of timelines or of ids.
    pub fn pages(&self, of: Pages, reading: Reading) -> Table<'_> {
        let (kind, root) = match of {
            Pages::Timelines => (BlockKind::PageTable, &self.page_table),
            Pages::Ids => (BlockKind::IdTable, &self.id_table),
        };
        Table::new(&self.index, kind, root, reading)
    }

    /// The table of the shared bodies' blocks.
    pub fn body_table(&self, reading: Reading) -> Table<'_> {
        Table::new(&self.index, BlockKind::BodyTable, &self.body_table, reading)
    }

    pub fn find(&self, name: &[u8]) -> Result<Option<TimelineEntry>> {
        let order = |bytes: &[u8]| Some(slot_name(bytes)?.cmp(name));
        let Some((at, slot)) = self.find_slot(Pages::Timelines, &name_key(name), order)? else {
            return Ok(None);
        };
        let (_, entry) = TimelineEntry::decode(&slot).ok_or_else(|| self.page_damage(at))?;
        Ok(Some(entry))
    }

    pub fn find_id(&self, name: &[u8], id: &[u8]) -> Result<Option<IdEntry>> {
        if self.footer.ids == 0 {
            return Ok(None);
        }
        let order = |bytes: &[u8]| Some(ids::key(bytes)?.cmp(&(name, id)));
        let Some((at, slot)) = self.find_slot(Pages::Ids, &ids::key_bytes(name, id), order)? else {
            return Ok(None);
        };
        IdEntry::decode(&slot).map(Some).ok_or_else(|| self.page_damage(at))
    }

    /// The slot with a key, and where its page is. `order` compares a key, or the key that a slot begins with, to the one that is
    /// looked for.
    fn find_slot(
        &self,
        of: Pages,
        key: &[u8],
        order: impl Fn(&[u8]) -> Option<Ordering>,
    ) -> Result<Option<(u64, Bytes)>> {
        let is_after = |bytes: &[u8]| order(bytes).map(Ordering::is_gt);
        let Some(cursor) = self.pages(of, Reading::Cached).seek(is_after)? else { return Ok(None) };
        let row = cursor.row();
        if !may_contain(row.filter, key) {
            return Ok(None);
        }
        let raw = self.index.block(of.kind(), row.block)?;
        let look = || {
            let slots = Slots::new(&raw)?;
            let at = slots.partition(|slot| order(slot).map(Ordering::is_ge))?;
            let slot = slots.get(at).filter(|slot| order(slot) == Some(Ordering::Equal));
            Some(slot.map(|slot| (row.block.at, raw.slice_ref(slot))))
        };
        look().ok_or_else(|| self.page_damage(row.block.at))
    }

    /// Damage in a page of the index.
    pub fn page_damage(&self, at: u64) -> Error {
        self.index.damaged(at, "a page of the index is broken")
    }

    /// The root of a timeline's run table.
    pub fn run_root(&self, root: BlockRef) -> Result<Bytes> {
        self.index.block(BlockKind::RunTable, root)
    }

    /// Time, expiry and bytes of a shared body.
    pub fn shared_body(&self, number: u32) -> Result<(TimeMs, TimeMs, Bytes)> {
        let (first, _, block) = self.bodies_block(number)?;
        let found = shared_body(&block, (number - first) as usize);
        let (time_ms, expire_at_ms, body) =
            found.ok_or_else(|| self.data_damage(0, "a shared body is missing in its block"))?;
        Ok((time_ms, expire_at_ms, block.slice(body)))
    }

    /// The block of a shared body, the number of its first body, and that of the first behind it.
    pub fn bodies_block(&self, number: u32) -> Result<(u32, u32, Bytes)> {
        let cursor = self.body_table(Reading::Cached).seek(|key| Some(body_key(key)? > number))?;
        let missing = || self.missing_body();
        let cursor = cursor.ok_or_else(missing)?;
        let (row, first) = (cursor.row(), body_key(cursor.row().key).ok_or_else(missing)?);
        let block = self.data()?.block(BlockKind::Bodies, row.block)?;
        let count = Slots::new(&block).map_or(0, |slots| slots.count());
        Ok((first, first.saturating_add(count as u32), block))
    }
}

/// What stands in the pages of an index file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pages {
    Timelines,
    Ids,
}

impl Pages {
    pub fn kind(self) -> BlockKind {
        match self {
            Pages::Timelines => BlockKind::IndexPage,
            Pages::Ids => BlockKind::IdPage,
        }
    }
}
