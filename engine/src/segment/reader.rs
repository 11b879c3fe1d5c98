//! Reads a segment: finds a timeline, gives its entries.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;

use super::cache::{BlockCache, CachedFile};
use super::{data_name, index_name};
use crate::entry::{Changes, Collector, Span};
use crate::error::{Error, Result};
use crate::format::block::{BlockKind, BlockRef, block_header};
use crate::format::checksum::Seed;
use crate::format::filter::{PAGE_BYTES, may_contain, page_of};
use crate::format::header::{EngineId, FileHeader, FileKind, file_header};
use crate::format::ids::{self, IdEntry};
use crate::format::index::{BodyBlock, Footer, TimelineEntry, decode_body_table, footer, page, slot_name};
use crate::format::manifest::SegmentRecord;
use crate::format::run::{Content, RunReader, shared_body};
use crate::format::slots::Slots;
use crate::ids::{FileNumber, Sequence, TimeMs};
use crate::vfs::Dir;

/// An open segment.
#[derive(Debug)]
pub struct Segment {
    record: SegmentRecord,
    dir: Dir,
    /// What is needed to read it, or why it cannot be.
    parts: Result<Parts>,
    obsolete: AtomicBool,
}

#[derive(Debug)]
struct Parts {
    /// The blocks, or why they cannot be read: the index alone still tells how timelines end.
    data: Result<CachedFile>,
    index: CachedFile,
    footer: Footer,
    page_table: Bytes,
    /// Empty slots when there are no ids.
    id_table: Bytes,
    bodies: Vec<BodyBlock>,
    cache: Arc<BlockCache>,
}

impl TimelineEntry {
    /// What is here, if there are entries here.
    pub(crate) fn span(&self) -> Option<Span> {
        (self.count > 0).then_some(Span {
            first: self.first,
            last: self.end.last,
            count: self.count,
            body_bytes: self.body_bytes,
            first_time_ms: self.first_time_ms,
            last_time_ms: self.end.last_time_ms,
            own_expiry: self.own_expiry,
        })
    }
}

impl Segment {
    /// Opens the segment of a record. If it cannot be opened, look-ups in its range will say why.
    pub fn open(dir: &Dir, engine: EngineId, record: SegmentRecord, cache: Arc<BlockCache>) -> Segment {
        let parts = Parts::open(dir, engine, &record, cache);
        if let Err(error) = &parts {
            tracing::error!(segment = record.number, %error, "a segment cannot be read; its range is not served");
        }
        Segment { record, dir: dir.clone(), parts, obsolete: AtomicBool::new(false) }
    }

    /// What the manifest says of it.
    pub fn record(&self) -> &SegmentRecord {
        &self.record
    }

    /// Why it cannot be read, if so.
    pub fn damage(&self) -> Option<&Error> {
        self.parts.as_ref().err()
    }

    /// Its files go when the last reader lets go. The manifest without it must be durable.
    pub fn make_obsolete(&self) {
        self.obsolete.store(true, Ordering::Release);
    }

    fn parts(&self) -> Result<&Parts> {
        self.parts.as_ref().map_err(Clone::clone)
    }

    /// What it knows of a timeline; `None` when it does not know it.
    pub fn find(&self, name: &[u8]) -> Result<Option<TimelineEntry>> {
        if name < self.record.first_name.as_slice() || name > self.record.last_name.as_slice() {
            return Ok(None);
        }
        self.parts()?.find(name)
    }

    /// What the timeline changes in older segments.
    pub fn changes(&self, entry: &TimelineEntry) -> Result<Changes> {
        let mut changes = Changes::default();
        entry.removed.iter().for_each(|(first, last)| changes.remove(*first, *last));
        for (sequence, number) in &entry.edited {
            changes.edited.insert(*sequence, self.parts()?.shared_body(*number)?.2);
        }
        Ok(changes)
    }

    /// What a client's id was used for in a timeline, as far as this segment knows.
    pub fn find_id(&self, name: &[u8], id: &[u8]) -> Result<Option<IdEntry>> {
        if name < self.record.first_name.as_slice() || name > self.record.last_name.as_slice() {
            return Ok(None);
        }
        self.parts()?.find_id(name, id)
    }

    /// How many pages of ids it has.
    pub(super) fn id_page_count(&self) -> Result<usize> {
        Ok(Slots::new(&self.parts()?.id_table).map_or(0, |table| table.count()))
    }

    /// A page of ids, read past the cache.
    pub(super) fn id_page(&self, number: usize) -> Result<Bytes> {
        let parts = self.parts()?;
        let place = Slots::new(&parts.id_table).and_then(|table| ids::page(table.get(number)?));
        parts.index.read(BlockKind::IdPage, place.ok_or_else(|| parts.id_damage())?)
    }

    /// Gives the collector the entries of a timeline from `low` to `high`, until it is full.
    pub fn read(
        &self,
        name: &[u8],
        entry: &TimelineEntry,
        low: Sequence,
        high: Sequence,
        out: &mut Collector,
    ) -> Result<()> {
        let mut read = RunsOf { parts: self.parts()?, name, entry, bodies: None };
        if out.is_descending() { read.descending(low, high, out) } else { read.ascending(low, high, out) }
    }

    /// The lowest sequence of a timeline here whose time is `time_ms` or later.
    pub fn sequence_at(
        &self,
        name: &[u8],
        entry: &TimelineEntry,
        time_ms: TimeMs,
    ) -> Result<Option<Sequence>> {
        RunsOf { parts: self.parts()?, name, entry, bodies: None }.sequence_at(time_ms)
    }

    /// Calls `visit` for every entry of a timeline, ascending, with its content and the block that inline bodies are in.
    pub fn for_each(
        &self,
        name: &[u8],
        entry: &TimelineEntry,
        mut visit: impl FnMut(Sequence, &Content, &[u8]) -> Result<()>,
    ) -> Result<()> {
        let runs = RunsOf { parts: self.parts()?, name, entry, bodies: None };
        for place in 0..entry.blocks.len() {
            let block = runs.block(place)?;
            let mut run = runs.run_in(place, &block)?;
            while let Some((sequence, content)) = run.next_entry() {
                visit(sequence, &content, &block)?;
            }
            runs.check_end(place, &run)?;
        }
        Ok(())
    }

    /// Calls `visit` for every shared body, in order: time, expiry, bytes.
    pub fn for_each_body(&self, mut visit: impl FnMut(TimeMs, TimeMs, &[u8]) -> Result<()>) -> Result<()> {
        let parts = self.parts()?;
        for (place, block) in parts.bodies.iter().enumerate() {
            let next = parts.bodies.get(place + 1).map_or(parts.footer.bodies, |next| u64::from(next.first));
            let raw = parts.data()?.read(BlockKind::Bodies, block.block)?;
            for number in 0..next.saturating_sub(u64::from(block.first)) as usize {
                let found = shared_body(&raw, number);
                let (time_ms, expire_at_ms, body) = found.ok_or_else(|| {
                    parts.data_damage(block.block.at, "a shared body is missing in its block")
                })?;
                visit(time_ms, expire_at_ms, &raw[body])?;
            }
        }
        Ok(())
    }

    /// Time and expiry of a shared body.
    pub fn shared_times(&self, number: u32) -> Result<(TimeMs, TimeMs)> {
        let (time_ms, expire_at_ms, _) = self.parts()?.shared_body(number)?;
        Ok((time_ms, expire_at_ms))
    }

    /// How many shared bodies it holds.
    pub fn body_count(&self) -> Result<u64> {
        Ok(self.parts()?.footer.bodies)
    }

    /// How many index pages it has.
    pub(super) fn page_count(&self) -> Result<usize> {
        let parts = self.parts()?;
        Ok(Slots::new(&parts.page_table).map_or(0, |table| table.count()))
    }

    /// An index page, read past the cache.
    pub(super) fn page(&self, number: usize) -> Result<Bytes> {
        let parts = self.parts()?;
        let place = Slots::new(&parts.page_table).and_then(|table| page(table.get(number)?));
        parts.index.read(BlockKind::IndexPage, place.ok_or_else(|| parts.page_table_damage())?)
    }

    /// The number of the page in which a name would stand.
    pub(super) fn page_for(&self, name: &[u8]) -> Result<usize> {
        let parts = self.parts()?;
        let behind = Slots::new(&parts.page_table)
            .and_then(|table| table.partition(|slot| Some(slot_name(slot)? > name)));
        Ok(behind.ok_or_else(|| parts.page_table_damage())?.saturating_sub(1))
    }

    /// Damage in an index page.
    pub(super) fn page_damage(&self, number: usize) -> Error {
        Error::corrupt(
            self.dir.path_of(&index_name(self.record.number)),
            0,
            format!("index page {number} is broken"),
        )
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        if !self.obsolete.load(Ordering::Acquire) {
            return;
        }
        for name in [data_name(self.record.number), index_name(self.record.number)] {
            if let Err(error) = self.dir.remove(&name) {
                // The manifest does not name it any more: the next open removes it.
                tracing::warn!(%error, "an obsolete file stays for now");
            }
        }
    }
}

impl Parts {
    fn open(dir: &Dir, engine: EngineId, record: &SegmentRecord, cache: Arc<BlockCache>) -> Result<Parts> {
        let data = Parts::data_file(dir, engine, record);
        if let Err(error) = &data {
            tracing::error!(segment = record.number, %error, "the blocks of a segment cannot be read");
        }
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
        Ok(Parts { data, index, footer, page_table, id_table, bodies, cache })
    }

    /// The data file. One that was cut short is served as far as it goes.
    fn data_file(dir: &Dir, engine: EngineId, record: &SegmentRecord) -> Result<CachedFile> {
        let data = Parts::file(dir, &data_name(record.number), FileKind::Data, engine, record.number)?;
        if data.len != record.data_bytes {
            tracing::error!(error = %data.wrong_length(record.data_bytes), "some blocks of a segment are missing");
        }
        Ok(data)
    }

    fn file(
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

    fn data_damage(&self, at: u64, what: &str) -> Error {
        match &self.data {
            Ok(data) => data.damaged(at, what),
            Err(error) => error.clone(),
        }
    }

    fn data(&self) -> Result<&CachedFile> {
        self.data.as_ref().map_err(Clone::clone)
    }

    fn page_table_damage(&self) -> Error {
        self.index.damaged(self.footer.page_table.at, "the page table is broken")
    }

    fn find(&self, name: &[u8]) -> Result<Option<TimelineEntry>> {
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

    fn may_contain(&self, name: &[u8]) -> Result<bool> {
        self.filter_says(self.footer.filter, self.footer.filter_pages, name)
    }

    fn filter_says(&self, filter: u64, pages: u32, name: &[u8]) -> Result<bool> {
        let pages = pages as usize;
        let block_bytes = block_header::BYTES + PAGE_BYTES;
        let at = filter.saturating_add((page_of(name, pages) * block_bytes) as u64);
        let place = BlockRef { at, bytes: block_bytes as u32 };
        Ok(may_contain(&self.index.block(BlockKind::FilterPage, place, &self.cache)?, name, pages))
    }

    fn find_id(&self, name: &[u8], id: &[u8]) -> Result<Option<IdEntry>> {
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

    fn id_damage(&self) -> Error {
        self.index.damaged(self.footer.id_table.at, "the ids are broken")
    }

    /// Time, expiry and bytes of a shared body.
    fn shared_body(&self, number: u32) -> Result<(TimeMs, TimeMs, Bytes)> {
        let (first, _, block) = self.bodies_block(number)?;
        let found = shared_body(&block, (number - first) as usize);
        let (time_ms, expire_at_ms, body) =
            found.ok_or_else(|| self.data_damage(0, "a shared body is missing in its block"))?;
        Ok((time_ms, expire_at_ms, block.slice(body)))
    }

    /// The block of a shared body, and the number of its first body.
    fn bodies_block(&self, number: u32) -> Result<(u32, u32, Bytes)> {
        let place = self.bodies.partition_point(|block| block.first <= number);
        let block = place.checked_sub(1).and_then(|place| self.bodies.get(place));
        let block =
            block.ok_or_else(|| self.data_damage(0, "an entry refers to a shared body that is not there"))?;
        let next = self.bodies.get(place).map_or(u32::MAX, |next| next.first);
        Ok((block.first, next, self.data()?.block(BlockKind::Bodies, block.block, &self.cache)?))
    }
}

/// One timeline's runs in a segment.
struct RunsOf<'a> {
    parts: &'a Parts,
    name: &'a [u8],
    entry: &'a TimelineEntry,
    /// The bodies block used last: first number, first number of the next, content. Neighbours often share it.
    bodies: Option<(u32, u32, Bytes)>,
}

impl RunsOf<'_> {
    fn block(&self, place: usize) -> Result<Bytes> {
        self.parts.data()?.block(BlockKind::Runs, self.entry.blocks[place].block, &self.parts.cache)
    }

    fn damaged(&self, place: usize, what: &str) -> Error {
        let what = format!("{what} (timeline {})", self.name.escape_ascii());
        self.parts.data_damage(self.entry.blocks[place].block.at, &what)
    }

    /// The run in the block at `place`.
    fn run_in<'b>(&self, place: usize, block: &'b [u8]) -> Result<RunReader<'b>> {
        let at = if place == 0 { self.entry.run_at as usize } else { 0 };
        RunReader::at(block, at)
            .filter(|run| run.name == self.name)
            .ok_or_else(|| self.damaged(place, "the index refers to a run that is not there"))
    }

    fn check_end(&self, place: usize, run: &RunReader<'_>) -> Result<()> {
        if run.remaining() == 0 {
            Ok(())
        } else {
            Err(self.damaged(place, "a run breaks off before its end"))
        }
    }

    fn ascending(&mut self, low: Sequence, high: Sequence, out: &mut Collector) -> Result<()> {
        let start = self.entry.blocks.partition_point(|run| run.first <= low).saturating_sub(1);
        for place in start..self.entry.blocks.len() {
            let block = self.block(place)?;
            let mut run = self.run_in(place, &block)?;
            while let Some((sequence, content)) = run.next_entry() {
                if sequence > high {
                    return Ok(());
                }
                if sequence >= low && !self.offer(place, sequence, &content, &block, out)? {
                    return Ok(());
                }
            }
            self.check_end(place, &run)?;
        }
        Ok(())
    }

    fn descending(&mut self, low: Sequence, high: Sequence, out: &mut Collector) -> Result<()> {
        let end = self.entry.blocks.partition_point(|run| run.first <= high);
        for place in (0..end).rev() {
            let block = self.block(place)?;
            let mut run = self.run_in(place, &block)?;
            let mut found = Vec::with_capacity((run.remaining() as usize).min(block.len()));
            while let Some((sequence, content)) = run.next_entry() {
                if (low..=high).contains(&sequence) {
                    found.push((sequence, content));
                }
            }
            self.check_end(place, &run)?;
            for (sequence, content) in found.iter().rev() {
                if !self.offer(place, *sequence, content, &block, out)? {
                    return Ok(());
                }
            }
            if self.entry.blocks[place].first <= low {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Offers an entry to the collector. Its body is a slice of its block.
    fn offer(
        &mut self,
        place: usize,
        sequence: Sequence,
        content: &Content,
        block: &Bytes,
        out: &mut Collector,
    ) -> Result<bool> {
        let (time_ms, expire_at_ms, body) = match content {
            Content::Inline { time_ms, expire_at_ms, body } => {
                (*time_ms, *expire_at_ms, block.slice(body.clone()))
            }
            Content::Shared(number) => self.shared(place, *number)?,
        };
        Ok(out.offer((sequence, time_ms, expire_at_ms), || body))
    }

    fn shared(&mut self, place: usize, number: u32) -> Result<(TimeMs, TimeMs, Bytes)> {
        let (first, block) = match &self.bodies {
            Some((first, next, block)) if (*first..*next).contains(&number) => (*first, block.clone()),
            _ => {
                let (first, next, block) = self.parts.bodies_block(number)?;
                self.bodies = Some((first, next, block.clone()));
                (first, block)
            }
        };
        let found = shared_body(&block, (number - first) as usize);
        let (time_ms, expire_at_ms, body) =
            found.ok_or_else(|| self.damaged(place, "an entry refers to a shared body that is not there"))?;
        Ok((time_ms, expire_at_ms, block.slice(body)))
    }

    fn sequence_at(&mut self, time_ms: TimeMs) -> Result<Option<Sequence>> {
        // Equal times may stand in the block before the one that starts with them.
        let start = self.entry.blocks.partition_point(|run| run.first_time_ms < time_ms).saturating_sub(1);
        for place in start..self.entry.blocks.len() {
            let block = self.block(place)?;
            let mut run = self.run_in(place, &block)?;
            while let Some((sequence, content)) = run.next_entry() {
                let found = match content {
                    Content::Inline { time_ms, .. } => time_ms,
                    Content::Shared(number) => self.shared(place, number)?.0,
                };
                if found >= time_ms {
                    return Ok(Some(sequence));
                }
            }
            self.check_end(place, &run)?;
        }
        Ok(None)
    }
}
