//! The ids of retries in a segment: pages in the index file, a table above them, a filter.

use super::blocks::Blocks;
use crate::error::Result;
use crate::format::block::BlockKind;
use crate::format::filter::FilterWriter;
use crate::format::ids::{IdEntry, filter_key, put_page};
use crate::format::index::{Footer, TARGET_PAGE_BYTES};
use crate::format::slots::SlotsWriter;
use crate::ids::TimeMs;

/// Writes the ids. Pages go between those of the timelines as they fill up; only the table and the filter's hashes wait.
#[derive(Default)]
pub(super) struct IdsWriter {
    page: SlotsWriter,
    page_first: (Vec<u8>, Vec<u8>),
    table: SlotsWriter,
    filter: FilterWriter,
    count: u64,
    until_ms: TimeMs,
}

impl IdsWriter {
    /// Adds an id. They come in the order of timelines and ids.
    pub fn add(&mut self, index: &mut Blocks, name: &[u8], id: &[u8], entry: &IdEntry) -> Result<()> {
        if self.page.count() == 0 {
            self.page_first = (name.to_vec(), id.to_vec());
        }
        self.page.add(|out| entry.encode(name, id, out));
        self.filter.add(&filter_key(name, id));
        self.count += 1;
        self.until_ms = self.until_ms.max(entry.time_ms);
        if self.page.raw_bytes() >= TARGET_PAGE_BYTES { self.close_page(index) } else { Ok(()) }
    }

    fn close_page(&mut self, index: &mut Blocks) -> Result<()> {
        let page = index.block(BlockKind::IdPage, &self.page.finish(), false)?;
        let (name, id) = &self.page_first;
        self.table.add(|out| put_page(name, id, page, out));
        Ok(())
    }

    /// Writes the rest, and tells the footer.
    pub fn finish(mut self, index: &mut Blocks, footer: &mut Footer) -> Result<()> {
        if self.count == 0 {
            return Ok(());
        }
        if self.page.count() > 0 {
            self.close_page(index)?;
        }
        footer.ids = self.count;
        footer.ids_until_ms = self.until_ms;
        footer.id_table = index.block(BlockKind::IdTable, &self.table.finish(), false)?;
        footer.id_filter = index.end();
        let pages = self.filter.finish();
        footer.id_filter_pages = pages.len() as u32;
        pages.iter().try_for_each(|page| index.block(BlockKind::FilterPage, page, false).map(|_| ()))
    }
}
