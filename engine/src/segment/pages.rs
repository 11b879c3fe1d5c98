//! Writes sorted records (a segment's timelines, or its retry ids) in pages, with a table above
//! them. The table finds a page by its first key, and its filters exclude keys that are in no page.
//! The memory is one open page and one open page per level of the table.

use super::blocks::Blocks;
use crate::error::Result;
use crate::format::block::{BlockKind, BlockRef, Compression};
use crate::format::filter::filter;
use crate::format::index::TARGET_PAGE_BYTES;
use crate::format::slots::{Slots, SlotsWriter};
use crate::format::table::{Row, TableWriter};

/// Pages under construction.
pub(super) struct PagesWriter {
    page_kind: BlockKind,
    table_kind: BlockKind,
    /// The key that a record begins with.
    key_of: fn(&[u8]) -> Option<&[u8]>,
    page: SlotsWriter,
    table: TableWriter,
}

impl PagesWriter {
    /// Pages of records that begin with a key.
    pub fn new(
        page_kind: BlockKind,
        table_kind: BlockKind,
        key_of: fn(&[u8]) -> Option<&[u8]>,
    ) -> PagesWriter {
        let (page, table) = (SlotsWriter::default(), TableWriter::default());
        PagesWriter { page_kind, table_kind, key_of, page, table }
    }

    /// Adds the record that `write` appends to the buffer. Records come in the order of their keys.
    pub fn add(&mut self, index: &mut Blocks, write: impl FnOnce(&mut Vec<u8>)) -> Result<()> {
        self.page.add(write);
        if self.page.raw_bytes() >= TARGET_PAGE_BYTES { self.close(index) } else { Ok(()) }
    }

    fn close(&mut self, index: &mut Blocks) -> Result<()> {
        let raw = self.page.finish();
        let block = index.block(self.page_kind, &raw, Compression::Lz4)?;
        let slots = Slots::new(&raw).expect("the writer made them");
        let key = |number| {
            slots.get(number).and_then(self.key_of).expect("the encoder begins with the key")
        };
        let filter = filter((0..slots.count()).map(key));
        let kind = self.table_kind;
        self.table.add(Row { key: key(0), block, filter: &filter }, &mut |page| {
            index.block(kind, page, Compression::None)
        })
    }

    /// Writes the remaining pages and returns the position of the table's root.
    pub fn finish(mut self, index: &mut Blocks) -> Result<BlockRef> {
        if self.page.count() > 0 {
            self.close(index)?;
        }
        let kind = self.table_kind;
        self.table.finish(&mut |page| index.block(kind, page, Compression::None))
    }
}
