//! The open files of a segment and the parts of them that stay in memory: opens the files, finds
//! timelines, ids and shared bodies.

use std::cmp::Ordering;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use super::cache::{BlockCache, CachedFile, FoundEntry};
use super::damage::About;
use super::data_name;
use super::table::{PageAccess, Table};
use crate::error::{Error, Result};
use crate::format::block::{BlockKind, BlockRef};
use crate::format::filter::may_contain;
use crate::format::header::FileKind;
use crate::format::ids::{self, IdRecord};
use crate::format::index::{Footer, TimelineEntry, body_key, footer, name_key, slot_name};
use crate::format::manifest::SegmentRecord;
use crate::format::run::{SharedBody, shared_body};
use crate::format::slots::Slots;
use crate::ids::EngineId;
use crate::vfs::Dir;

#[derive(Debug)]
pub(super) struct Parts {
    /// The data file, once it could be opened. Without it the index still has the ends of the
    /// timelines, and the next read tries again.
    data: OnceLock<CachedFile>,
    pub dir: Dir,
    pub engine: EngineId,
    pub record: SegmentRecord,
    pub index: CachedFile,
    pub footer: Footer,
    /// The roots of the tables; pages below them are read through the cache.
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
        let index = CachedFile::open(dir, engine, record, FileKind::Index, cache.clone())?;
        index.check_any_len()?;
        let at = index.len.saturating_sub(footer::BYTES as u64);
        let block = BlockRef { at, bytes: footer::BYTES as u32 };
        let footer =
            index.piece(block, |bytes, path| Footer::decode(bytes, index.seed, path, at))?;
        if footer.data_bytes != record.data_bytes {
            return Err(index.damaged(at, "the footer belongs to another data file", About::ALL));
        }
        let page_table = index.read(BlockKind::PageTable, footer.page_table, About::ALL)?;
        let id_table = index.read(BlockKind::IdTable, footer.id_table, About::ALL)?;
        let body_table = index.read(BlockKind::BodyTable, footer.body_table, About::ALL)?;
        let (data, dir, record) = (OnceLock::new(), dir.clone(), record.clone());
        let parts = Parts {
            data,
            dir,
            engine,
            record,
            index,
            footer,
            page_table,
            id_table,
            body_table,
            cache,
        };
        if parts.record.has_data()
            && let Err(error) = parts.data()
        {
            tracing::error!(
                segment = parts.record.number,
                %error,
                "the blocks of a segment cannot be read"
            );
        }
        Ok(parts)
    }

    /// Opens the data file. A truncated file is served as far as it can be read.
    fn data_file(&self) -> Result<CachedFile> {
        let cache = self.cache.clone();
        let data = CachedFile::open(&self.dir, self.engine, &self.record, FileKind::Data, cache)?;
        match data.check_any_len() {
            Err(error) if !error.is_damage() => Err(error),
            // The damage was logged when it was found.
            _ => Ok(data),
        }
    }

    /// Damage in the data file.
    pub fn data_damage(&self, at: u64, what: &str, about: About<'_>) -> Error {
        self.located(
            Error::corrupt(self.dir.path_of(&data_name(self.record.number)), at, what),
            about,
        )
    }

    /// The error for an entry whose shared body is missing.
    pub fn missing_body(&self, about: About<'_>) -> Error {
        self.data_damage(0, "an entry refers to a shared body that is not there", about)
    }

    pub fn data(&self) -> Result<&CachedFile> {
        if let Some(data) = self.data.get() {
            return Ok(data);
        }
        let data = self.data_file()?;
        Ok(self.data.get_or_init(|| data))
    }

    /// As [`Parts::data`], with the purpose of the read added to an error.
    pub fn data_for(&self, about: About<'_>) -> Result<&CachedFile> {
        self.data().map_err(|error| self.located(error, about))
    }

    /// Damage of the whole segment, with the purpose of the read.
    pub fn located(&self, error: Error, about: About<'_>) -> Error {
        self.cache.damages().located(error, self.record.store, about)
    }

    /// The table above the pages of timelines or of ids.
    pub fn pages<'p>(&'p self, of: Pages, access: PageAccess, about: About<'p>) -> Table<'p> {
        let (kind, root) = match of {
            Pages::Timelines => (BlockKind::PageTable, &self.page_table),
            Pages::Ids => (BlockKind::IdTable, &self.id_table),
        };
        Table::new(&self.index, kind, root, (access, about))
    }

    /// The table of the shared bodies' blocks.
    pub fn body_table<'p>(&'p self, access: PageAccess, about: About<'p>) -> Table<'p> {
        Table::new(&self.index, BlockKind::BodyTable, &self.body_table, (access, about))
    }

    /// A timeline's entry, from the cache of entries or from its page.
    pub fn find(&self, name: &[u8]) -> Result<FoundEntry> {
        self.cache.entry(self.record.number, name, || self.find_in_page(name))
    }

    /// A timeline's entry, from its page.
    pub fn find_in_page(&self, name: &[u8]) -> Result<Option<TimelineEntry>> {
        let about = About::timeline(name);
        let found = self.find_slot((Pages::Timelines, about), &name_key(name), by_name(name))?;
        let Some((at, slot)) = found else { return Ok(None) };
        let decoded = TimelineEntry::decode(&slot).ok_or_else(|| self.page_damage(at, about))?;
        Ok(Some(decoded.1))
    }

    /// Whether `find` needs no file.
    pub fn is_near(&self, name: &[u8]) -> bool {
        self.cache.has_entry(self.record.number, name)
            || self.is_slot_near(Pages::Timelines, &name_key(name), by_name(name))
    }

    /// Whether `find_id` needs no file.
    pub fn is_id_near(&self, name: &[u8], id: &[u8]) -> bool {
        self.footer.ids == 0
            || self.is_slot_near(Pages::Ids, &ids::key_bytes(name, id), by_id(name, id))
    }

    /// Whether `find_slot` needs no page that is not in the cache.
    fn is_slot_near(
        &self,
        of: Pages,
        key: &[u8],
        order: impl Fn(&[u8]) -> Option<Ordering>,
    ) -> bool {
        let table = self.pages(of, PageAccess::Cached, About::ALL);
        table.is_near(
            |bytes| order(bytes).map(Ordering::is_gt),
            |row| !may_contain(row.filter, key) || self.index.cached(row.block).is_some(),
        )
    }

    pub fn find_id(&self, name: &[u8], id: &[u8]) -> Result<Option<IdRecord>> {
        if self.footer.ids == 0 {
            return Ok(None);
        }
        let about = About::timeline(name);
        let found =
            self.find_slot((Pages::Ids, about), &ids::key_bytes(name, id), by_id(name, id))?;
        let Some((at, slot)) = found else { return Ok(None) };
        IdRecord::decode(&slot).map(Some).ok_or_else(|| self.page_damage(at, about))
    }

    /// The slot with a key, and the position of its page. `order` compares a key, or the key that a
    /// slot begins with, to the wanted key.
    fn find_slot(
        &self,
        (of, about): (Pages, About<'_>),
        key: &[u8],
        order: impl Fn(&[u8]) -> Option<Ordering>,
    ) -> Result<Option<(u64, Bytes)>> {
        let is_after = |bytes: &[u8]| order(bytes).map(Ordering::is_gt);
        let Some(cursor) = self.pages(of, PageAccess::Cached, about).seek(is_after)? else {
            return Ok(None);
        };
        let row = cursor.row();
        if !may_contain(row.filter, key) {
            return Ok(None);
        }
        let raw = self.index.block(of.kind(), row.block, about)?;
        let look = || {
            let slots = Slots::new(&raw)?;
            let at = slots.partition(|slot| order(slot).map(Ordering::is_ge))?;
            let slot = slots.get(at).filter(|slot| order(slot) == Some(Ordering::Equal));
            Some(slot.map(|slot| (row.block.at, raw.slice_ref(slot))))
        };
        look().ok_or_else(|| self.page_damage(row.block.at, about))
    }

    /// Damage in a page of the index.
    pub fn page_damage(&self, at: u64, about: About<'_>) -> Error {
        self.index.damaged(at, "a page of the index is broken", about)
    }

    /// The root of a timeline's run table.
    pub fn run_root(&self, root: BlockRef, about: About<'_>) -> Result<Bytes> {
        self.index.block(BlockKind::RunTable, root, about)
    }

    /// A shared body: its properties and its bytes.
    pub fn shared_body(&self, number: u32, about: About<'_>) -> Result<(SharedBody, Bytes)> {
        let (shared, body, block) = self.body_in_block(number, about)?;
        Ok((shared, block.slice(body)))
    }

    /// A shared body: its properties, its byte range in its block, and the block.
    pub fn body_in_block(
        &self,
        number: u32,
        about: About<'_>,
    ) -> Result<(SharedBody, Range<usize>, Bytes)> {
        let (first, _, block) = self.bodies_block(number, about)?;
        let found = shared_body(&block, (number - first) as usize);
        let (shared, body) = found
            .ok_or_else(|| self.data_damage(0, "a shared body is missing in its block", about))?;
        Ok((shared, body, block))
    }

    /// The numbers of all bodies in the block of a shared body.
    pub fn numbers_with(&self, number: u32) -> Result<Range<u32>> {
        let table = self.body_table(PageAccess::Cached, About::ALL);
        let cursor = table.seek(|key| Some(body_key(key)? > number))?;
        let missing = || self.missing_body(About::ALL);
        let mut cursor = cursor.ok_or_else(missing)?;
        let first = body_key(cursor.row().key).ok_or_else(missing)?;
        let is_last = !table.next(&mut cursor)?;
        let next =
            if is_last { Some(self.footer.bodies as u32) } else { body_key(cursor.row().key) };
        Ok(first..next.ok_or_else(missing)?)
    }

    /// The number of the first body in a shared body's block, the number of the first body after
    /// the block, and the block.
    pub fn bodies_block(&self, number: u32, about: About<'_>) -> Result<(u32, u32, Bytes)> {
        let table = self.body_table(PageAccess::Cached, about);
        let cursor = table.seek(|key| Some(body_key(key)? > number))?;
        let missing = || self.missing_body(about);
        let cursor = cursor.ok_or_else(missing)?;
        let (row, first) = (cursor.row(), body_key(cursor.row().key).ok_or_else(missing)?);
        let block = self.data_for(about)?.block(BlockKind::Bodies, row.block, about)?;
        let count = Slots::new(&block).map_or(0, |slots| slots.count());
        Ok((first, first.saturating_add(count as u32), block))
    }
}

/// Compares the name of a timeline's slot to a name.
fn by_name(name: &[u8]) -> impl Fn(&[u8]) -> Option<Ordering> {
    move |slot| Some(slot_name(slot)?.cmp(name))
}

/// Compares the key of an id's slot to the key of an id.
fn by_id(name: &[u8], id: &[u8]) -> impl Fn(&[u8]) -> Option<Ordering> {
    move |slot| Some(ids::key(slot)?.cmp(&(name, id)))
}

/// The content of the pages of an index file.
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
