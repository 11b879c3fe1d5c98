//! Tables: find one of any number of blocks by its key, in few reads and without holding the table
//! in memory.
//!
//! ```text
//!  table      := root: a table page; the other pages are before it, anywhere in the file
//!  table page := block of level: u8, slots of rows, sorted by key
//!  row        := length, key, at: u64, bytes: u32, filter
//!                ; level 0: leads to a block of the table; above: to a page of the level below
//!  filter     := the rest of the row                ; over the keys in that block; empty: none
//! ```
//!
//! A row's key is the first key of the block or page that the row leads to, so that a key can only
//! be below the last row whose key is not above it. A page is written when it is full, so that a
//! writer holds one open page a level. The level falls by one with every step, so that a walk
//! through any bytes ends.
//!
//! This file does not know the meaning of the keys, and where pages are written.

use super::block::BlockRef;
use super::codec::{Reader, put_varint};
use super::slots::{Slots, SlotsWriter};

/// The raw size at which a page of level 0 is closed: such a page is read for each look-up, and
/// filters are most of its content.
pub const TARGET_LEAF_BYTES: usize = 16 * 1024;

/// The raw size at which a page above level 0 is closed. There are few such pages and they are held
/// or cached; a full one that leads to full leaves covers ten million timelines.
pub const TARGET_INNER_BYTES: usize = 64 * 1024;

/// A row of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row<'a> {
    /// The first key of the block.
    pub key: &'a [u8],
    /// The position of the block.
    pub block: BlockRef,
    /// The filter over its keys.
    pub filter: &'a [u8],
}

impl<'a> Row<'a> {
    /// The row in a slot.
    pub fn decode(slot: &'a [u8]) -> Option<Row<'a>> {
        let mut reader = Reader::new(slot);
        let key = reader.piece()?;
        let block = BlockRef { at: reader.u64()?, bytes: reader.u32()? };
        Some(Row { key, block, filter: reader.rest() })
    }

    fn encode(&self, out: &mut Vec<u8>) {
        put_varint(out, self.key.len() as u64);
        out.extend_from_slice(self.key);
        out.extend_from_slice(&self.block.at.to_le_bytes());
        out.extend_from_slice(&self.block.bytes.to_le_bytes());
        out.extend_from_slice(self.filter);
    }
}

/// A decoded page.
#[derive(Clone, Copy, Debug)]
pub struct TablePage<'a> {
    /// The number of levels below.
    pub level: u8,
    slots: Slots<'a>,
}

impl<'a> TablePage<'a> {
    /// The page that fills `raw`; `None` if the bytes cannot be a page.
    pub fn new(raw: &'a [u8]) -> Option<TablePage<'a>> {
        let (level, slots) = raw.split_first()?;
        Some(TablePage { level: *level, slots: Slots::new(slots)? })
    }

    /// The number of rows.
    pub fn count(&self) -> usize {
        self.slots.count()
    }

    /// A row.
    pub fn row(&self, number: usize) -> Option<Row<'a>> {
        Row::decode(self.slots.get(number)?)
    }

    /// The number of the first row for whose key `is_after` is true, given that it is true for all
    /// rows after that.
    pub fn partition(&self, mut is_after: impl FnMut(&'a [u8]) -> Option<bool>) -> Option<usize> {
        self.slots.partition(|slot| is_after(Row::decode(slot)?.key))
    }
}

/// Builds a table, row by row in the order of their keys.
#[derive(Debug)]
pub struct TableWriter {
    /// The open page of each level, lowest first.
    levels: Vec<OpenPage>,
    leaf_bytes: usize,
    inner_bytes: usize,
}

#[derive(Debug, Default)]
struct OpenPage {
    first_key: Vec<u8>,
    rows: SlotsWriter,
}

impl Default for TableWriter {
    fn default() -> TableWriter {
        TableWriter::with_targets(TARGET_LEAF_BYTES, TARGET_INNER_BYTES)
    }
}

impl TableWriter {
    /// A table whose pages are closed at other sizes: small sizes give a test a table of many
    /// levels.
    pub fn with_targets(leaf_bytes: usize, inner_bytes: usize) -> TableWriter {
        TableWriter { levels: vec![OpenPage::default()], leaf_bytes, inner_bytes }
    }

    /// Adds a row. `write` is called with each page that is full and returns its position.
    pub fn add<E>(
        &mut self,
        row: Row<'_>,
        write: &mut impl FnMut(&[u8]) -> Result<BlockRef, E>,
    ) -> Result<(), E> {
        self.add_at(0, row, write)
    }

    fn add_at<E>(
        &mut self,
        level: usize,
        row: Row<'_>,
        write: &mut impl FnMut(&[u8]) -> Result<BlockRef, E>,
    ) -> Result<(), E> {
        if level == self.levels.len() {
            self.levels.push(OpenPage::default());
        }
        let target = if level == 0 { self.leaf_bytes } else { self.inner_bytes };
        let page = self.levels.get_mut(level).expect("the level is there or was just made");
        if page.rows.count() == 0 {
            page.first_key = row.key.to_vec();
        }
        page.rows.add(|out| row.encode(out));
        if page.rows.raw_bytes() >= target { self.close(level, write) } else { Ok(()) }
    }

    /// Writes the open page of a level and adds its row to the level above.
    fn close<E>(
        &mut self,
        level: usize,
        write: &mut impl FnMut(&[u8]) -> Result<BlockRef, E>,
    ) -> Result<(), E> {
        let open = self.levels.get_mut(level).expect("only a level that is there is closed");
        let mut page = std::mem::take(open);
        let block = write(&page.content(level))?;
        self.add_at(level + 1, Row { key: &page.first_key, block, filter: &[] }, write)
    }

    /// Writes the remaining pages, the root last, and returns the root's position.
    pub fn finish<E>(
        mut self,
        write: &mut impl FnMut(&[u8]) -> Result<BlockRef, E>,
    ) -> Result<BlockRef, E> {
        let mut level = 0;
        loop {
            let is_root = level + 1 == self.levels.len();
            let page = self.levels.get_mut(level).expect("the loop ends at the last level");
            if is_root {
                return write(&page.content(level));
            }
            if page.rows.count() > 0 {
                self.close(level, write)?;
            }
            level += 1;
        }
    }
}

impl OpenPage {
    fn content(&mut self, level: usize) -> Vec<u8> {
        let slots = self.rows.finish();
        let mut raw = Vec::with_capacity(1 + slots.len());
        raw.push(
            u8::try_from(level).expect("each level has many times fewer pages than the one below"),
        );
        raw.extend_from_slice(&slots);
        raw
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The pages of a table of `count` rows, in the order of their positions, and its root.
    fn table(count: u64, target: usize) -> (Vec<Vec<u8>>, BlockRef) {
        let mut pages = Vec::new();
        let mut write = |page: &[u8]| {
            pages.push(page.to_vec());
            Ok::<_, ()>(BlockRef { at: pages.len() as u64 - 1, bytes: page.len() as u32 })
        };
        let mut writer = TableWriter::with_targets(target, target);
        for number in 0..count {
            let block = BlockRef { at: number, bytes: 7 };
            writer
                .add(Row { key: &(2 * number).to_be_bytes(), block, filter: b"f" }, &mut write)
                .unwrap();
        }
        let root = writer.finish(&mut write).unwrap();
        (pages, root)
    }

    /// The block to which a key leads, and the number of pages read on the way.
    fn look_up(pages: &[Vec<u8>], root: BlockRef, key: u64) -> (Option<u64>, usize) {
        let (mut at, mut seen) = (root.at, 1);
        loop {
            let page = TablePage::new(&pages[at as usize]).expect("a page");
            let behind =
                page.partition(|found| Some(found > key.to_be_bytes().as_slice())).expect("rows");
            let Some(row) = behind.checked_sub(1).and_then(|row| page.row(row)) else {
                return (None, seen);
            };
            if page.level == 0 {
                assert_eq!(row.filter, b"f");
                return (Some(row.block.at), seen);
            }
            (at, seen) = (row.block.at, seen + 1);
        }
    }

    #[test]
    fn every_key_leads_to_its_block_through_one_page_per_level() {
        for (count, target, levels) in
            [(0, 400, 1), (1, 400, 1), (12, 400, 1), (300, 400, 3), (6000, 400, 4)]
        {
            let (pages, root) = table(count, target);
            assert_eq!(look_up(&pages, root, u64::MAX).1, levels, "{count} rows");
            for number in 0..count {
                assert_eq!(look_up(&pages, root, 2 * number).0, Some(number));
                assert_eq!(look_up(&pages, root, 2 * number + 1).0, Some(number));
            }
        }
    }

    #[test]
    fn a_key_before_all_others_leads_nowhere() {
        let (pages, root) = table(0, 400);
        assert_eq!(look_up(&pages, root, 0).0, None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_page_or_refused(raw: Vec<u8>, number in 0usize..40) {
            if let Some(page) = TablePage::new(&raw) {
                let _ = page.row(number);
                let _ = page.partition(|key| Some(key > b"m".as_slice()));
            }
        }
    }
}
