//! The files of a segment and what of them stays in memory: opens them, finds timelines, ids and shared bodies.

use std::io;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use super::cache::{BlockCache, CachedFile};
use super::{data_name, index_name};
use crate::error::{Error, Result};
use crate::format::block::{BlockKind, BlockRef, block_header};
use crate::format::checksum::Seed;
use crate::format::filter::{PAGE_BYTES, may_contain, page_of};
use crate::format::header::{FileHeader, FileKind, file_header};
use crate::format::ids::{self, IdEntry};
use crate::format::index::{BodyBlock, Footer, TimelineEntry, decode_body_table, footer, page, slot_name};
use crate::format::manifest::SegmentRecord;
use crate::format::run::shared_body;
use crate::format::slots::Slots;
use crate::ids::{EngineId, FileNumber, TimeMs};
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
    pub page_table: Bytes,
    /// Empty slots when there are no ids.
    pub id_table: Bytes,
    pub bodies: Vec<BodyBlock>,
    pub cache: Arc<BlockCache>,
}

impl Parts {
    pub fn open(
        dir: &Dir,
        engine: EngineId,
        record: &SegmentRecord,
        cache: Arc<BlockCache>,
    ) -> Result<Parts> {
        let index = Parts::file(dir, &index_name(record.number), FileKind::Index, engine, record.number)?;
        if index.len != record.index_bytes {
            return Err(index.wrong_length(record.index_bytes));
        }
        let at = index.len.saturating_sub(footer::BYTES as u64);
        let bytes = index.file.read(at, footer::BYTES)?;
        let footer = Footer::decode(&bytes, index.seed, index.file.path(), at)?;
        if footer.data_bytes != record.data_bytes {
            return Err(index.damaged(at, "the footer belongs to another data file"));
        }
        let page_table = index.read(BlockKind::PageTable, footer.page_table)?;
        let body_table = BlockRef {
            at: footer.page_table.at.saturating_add(u64::from(footer.page_table.bytes)),
            bytes: footer.body_table_bytes,
        };
        let raw = index.read(BlockKind::BodyTable, body_table)?;
        let bodies = decode_body_table(&raw)
            .ok_or_else(|| index.damaged(body_table.at, "the body table is broken"))?;
        let id_table = match footer.id_table.at {
            0 => Bytes::from_static(&[0; 4]),
            _ => index.read(BlockKind::IdTable, footer.id_table)?,
        };
        let (data, dir, record) = (OnceLock::new(), dir.clone(), record.clone());
        let parts = Parts { data, dir, engine, record, index, footer, page_table, id_table, bodies, cache };
        if !parts.record.dropped
            && let Err(error) = parts.data()
        {
            tracing::error!(segment = parts.record.number, %error, "the blocks of a segment cannot be read");
        }
        Ok(parts)
    }

    /// The data file. One that was cut short is served as far as it goes.
    pub fn data_file(dir: &Dir, engine: EngineId, record: &SegmentRecord) -> Result<CachedFile> {
        let data = Parts::file(dir, &data_name(record.number), FileKind::Data, engine, record.number)?;
        if data.len != record.data_bytes {
            tracing::error!(error = %data.wrong_length(record.data_bytes), "some blocks of a segment are missing");
        }
        Ok(data)
    }

    pub fn file(
        dir: &Dir,
        name: &str,
        kind: FileKind,
        engine: EngineId,
        number: FileNumber,
    ) -> Result<CachedFile> {
        let file = dir.open(name).map_err(|error| match error {
            Error::Io { path, source, .. } if source.kind() == io::ErrorKind::NotFound => {
                Error::corrupt(path, 0, "the file is missing: the manifest says that it is live")
            }
            _ => error,
        })?;
        let header = FileHeader::decode(&file.read(0, file_header::BYTES)?, file.path())?;
        header.expect(kind, engine, number, file.path())?;
        let (len, seed) = (file.len()?, Seed::new(engine, number));
        Ok(CachedFile { file, number, is_index: kind == FileKind::Index, seed, len })
    }

    pub fn data_damage(&self, at: u64, what: &str) -> Error {
        Error::corrupt(self.dir.path_of(&data_name(self.record.number)), at, what)
    }

    pub fn data(&self) -> Result<&CachedFile> {
        if let Some(data) = self.data.get() {
            return Ok(data);
        }
        let data = Parts::data_file(&self.dir, self.engine, &self.record)?;
        Ok(self.data.get_or_init(|| data))
    }

    pub fn page_table_damage(&self) -> Error {
        self.index.damaged(self.footer.page_table.at, "the page table is broken")
    }

    pub fn find(&self, name: &[u8]) -> Result<Option<TimelineEntry>> {
        if !self.may_contain(name)? {
            return Ok(None);
        }
        let table = Slots::new(&self.page_table).ok_or_else(|| self.page_table_damage())?;
        let behind = table.partition(|slot| Some(slot_name(slot)? > name));
        let Some(number) = behind.ok_or_else(|| self.page_table_damage())?.checked_sub(1) else {
            return Ok(None);
        };
        let place = table.get(number).and_then(page).ok_or_else(|| self.page_table_damage())?;
        let raw = self.index.block(BlockKind::IndexPage, place, &self.cache)?;
        let look = || {
            let slots = Slots::new(&raw)?;
            let at = slots.partition(|slot| Some(slot_name(slot)? >= name))?;
            Some(slots.get(at).filter(|slot| slot_name(slot) == Some(name)).map(TimelineEntry::decode))
        };
        match look() {
            Some(None) => Ok(None),
            Some(Some(Some((_, entry)))) => Ok(Some(entry)),
            _ => Err(self.index.damaged(place.at, "the index page is broken")),
        }
    }

    pub fn may_contain(&self, name: &[u8]) -> Result<bool> {
        self.filter_says(self.footer.filter, self.footer.filter_pages, name)
    }

    pub fn filter_says(&self, filter: u64, pages: u32, name: &[u8]) -> Result<bool> {
        let pages = pages as usize;
        let block_bytes = block_header::BYTES + PAGE_BYTES;
        let at = filter.saturating_add((page_of(name, pages) * block_bytes) as u64);
        let place = BlockRef { at, bytes: block_bytes as u32 };
        Ok(may_contain(&self.index.block(BlockKind::FilterPage, place, &self.cache)?, name, pages))
    }

    pub fn find_id(&self, name: &[u8], id: &[u8]) -> Result<Option<IdEntry>> {
        let filter = (self.footer.id_filter, self.footer.id_filter_pages);
        if self.footer.ids == 0 || !self.filter_says(filter.0, filter.1, &ids::filter_key(name, id))? {
            return Ok(None);
        }
        let table = Slots::new(&self.id_table).ok_or_else(|| self.id_damage())?;
        let behind = table.partition(|slot| Some(ids::key(slot)? > (name, id)));
        let Some(number) = behind.ok_or_else(|| self.id_damage())?.checked_sub(1) else { return Ok(None) };
        let place = table.get(number).and_then(ids::page).ok_or_else(|| self.id_damage())?;
        let raw = self.index.block(BlockKind::IdPage, place, &self.cache)?;
        let look = || {
            let slots = Slots::new(&raw)?;
            let at = slots.partition(|slot| Some(ids::key(slot)? >= (name, id)))?;
            Some(slots.get(at).filter(|slot| ids::key(slot) == Some((name, id))).map(IdEntry::decode))
        };
        match look() {
            Some(None) => Ok(None),
            Some(Some(Some(entry))) => Ok(Some(entry)),
            _ => Err(self.index.damaged(place.at, "the id page is broken")),
        }
    }

    pub fn id_damage(&self) -> Error {
        self.index.damaged(self.footer.id_table.at, "the ids are broken")
    }

    /// Time, expiry and bytes of a shared body.
    pub fn shared_body(&self, number: u32) -> Result<(TimeMs, TimeMs, Bytes)> {
        let (first, _, block) = self.bodies_block(number)?;
        let found = shared_body(&block, (number - first) as usize);
        let (time_ms, expire_at_ms, body) =
            found.ok_or_else(|| self.data_damage(0, "a shared body is missing in its block"))?;
        Ok((time_ms, expire_at_ms, block.slice(body)))
    }

    /// The block of a shared body, and the number of its first body.
    pub fn bodies_block(&self, number: u32) -> Result<(u32, u32, Bytes)> {
        let place = self.bodies.partition_point(|block| block.first <= number);
        let block = place.checked_sub(1).and_then(|place| self.bodies.get(place));
        let block =
            block.ok_or_else(|| self.data_damage(0, "an entry refers to a shared body that is not there"))?;
        let next = self.bodies.get(place).map_or(u32::MAX, |next| next.first);
        Ok((block.first, next, self.data()?.block(BlockKind::Bodies, block.block, &self.cache)?))
    }
}
