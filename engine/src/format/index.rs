//! What a segment's index file holds: a sorted entry a timeline, in pages; above them tables that find pages and shared bodies;
//! a filter; and, at the very end, the footer.
//!
//! ```text
//!  index file  := header, page × n, page table, body table, filter page × m, [id page × k, id table, filter page × l], footer
//!  page        := block of slots of timeline entries, sorted by name
//!  page table  := block of slots of (name: the page's first, at, bytes)
//!  body table  := block of (first body: u32, bytes: u32, at: u64) × the data file's bodies blocks
//!  timeline    := name, flags, first, last + 1 − first, last − last lost, count, body bytes, first time, last time − first time,
//!                 lowest, first time − its time, its expiry, trimmed to, run's place in its first block,
//!                 block count, (at, bytes, first, first time, each but bytes minus the one before) × blocks,
//!                 removed count, (first, last − first) × removed, edited count, (sequence, body number) × edited
//!  flags       := 1: some entries expire by themselves
//! ```
//!
//! The first and last sequence make a missing head or tail of a timeline visible. A timeline's last sequence here is also its
//! floor: it outlives the entries. The data file holds the runs; this file alone tells which timelines are known (P2, P5).

use std::path::Path;

use super::block::BlockRef;
use super::checksum::{Seed, crc};
use super::codec::{Reader, put_name, put_varint};
use super::layout::{get_u32, get_u64, layout, put};
pub use crate::entry::{End, Floor};
use crate::error::{Error, Result};
use crate::ids::{MAX_SEQUENCE, Sequence, TimeMs};

/// At what size an index page is closed: about a hundred timelines, one read of the disk.
pub const TARGET_PAGE_BYTES: usize = 8 * 1024;

/// The last bytes of an index file.
pub const FOOTER_MAGIC: &[u8; 8] = b"slfooter";

layout! {
    /// Where the fields of a footer are.
    footer {
        CRC: 4, "over the rest of the footer; seed: engine id, file number";
        FILTER_PAGES: 4, "how many pages the filter has";
        TIMELINES: 8, "how many timelines have an entry here";
        ENTRIES: 8, "how many entries the data file holds";
        BODIES: 8, "how many shared bodies the data file holds";
        DATA_BYTES: 8, "length of the data file";
        FIRST_TIME: 8, "the lowest time of an entry";
        LAST_TIME: 8, "the highest time of an entry, here or of a timeline that has none here";
        PAGE_TABLE: 8, "where the page table is";
        PAGE_TABLE_BYTES: 4, "its length";
        BODY_TABLE_BYTES: 4, "length of the body table, which follows the page table";
        FILTER: 8, "where the filter's first page is";
        IDS: 8, "how many ids of retries there are";
        IDS_UNTIL: 8, "the highest time of an id";
        ID_TABLE: 8, "where the id table is; 0: there are no ids";
        ID_TABLE_BYTES: 4, "its length";
        ID_FILTER_PAGES: 4, "how many pages the ids' filter has";
        ID_FILTER: 8, "where its first page is";
        MAGIC: 8, "`slfooter`";
    }
}

/// A decoded footer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the layout table says what they mean")]
pub struct Footer {
    pub filter_pages: u32,
    pub timelines: u64,
    pub entries: u64,
    pub bodies: u64,
    pub data_bytes: u64,
    pub first_time_ms: TimeMs,
    pub last_time_ms: TimeMs,
    pub page_table: BlockRef,
    pub body_table_bytes: u32,
    pub filter: u64,
    pub ids: u64,
    pub ids_until_ms: TimeMs,
    pub id_table: BlockRef,
    pub id_filter_pages: u32,
    pub id_filter: u64,
}

impl Footer {
    /// The footer's bytes.
    pub fn encode(&self, seed: Seed) -> [u8; footer::BYTES] {
        let mut bytes = [0; footer::BYTES];
        put(&mut bytes, footer::FILTER_PAGES, &self.filter_pages.to_le_bytes());
        put(&mut bytes, footer::TIMELINES, &self.timelines.to_le_bytes());
        put(&mut bytes, footer::ENTRIES, &self.entries.to_le_bytes());
        put(&mut bytes, footer::BODIES, &self.bodies.to_le_bytes());
        put(&mut bytes, footer::DATA_BYTES, &self.data_bytes.to_le_bytes());
        put(&mut bytes, footer::FIRST_TIME, &self.first_time_ms.to_le_bytes());
        put(&mut bytes, footer::LAST_TIME, &self.last_time_ms.to_le_bytes());
        put(&mut bytes, footer::PAGE_TABLE, &self.page_table.at.to_le_bytes());
        put(&mut bytes, footer::PAGE_TABLE_BYTES, &self.page_table.bytes.to_le_bytes());
        put(&mut bytes, footer::BODY_TABLE_BYTES, &self.body_table_bytes.to_le_bytes());
        put(&mut bytes, footer::FILTER, &self.filter.to_le_bytes());
        put(&mut bytes, footer::IDS, &self.ids.to_le_bytes());
        put(&mut bytes, footer::IDS_UNTIL, &self.ids_until_ms.to_le_bytes());
        put(&mut bytes, footer::ID_TABLE, &self.id_table.at.to_le_bytes());
        put(&mut bytes, footer::ID_TABLE_BYTES, &self.id_table.bytes.to_le_bytes());
        put(&mut bytes, footer::ID_FILTER_PAGES, &self.id_filter_pages.to_le_bytes());
        put(&mut bytes, footer::ID_FILTER, &self.id_filter.to_le_bytes());
        put(&mut bytes, footer::MAGIC, FOOTER_MAGIC);
        let sum = crc(seed, bytes.get(footer::CRC.end..).unwrap_or_default());
        put(&mut bytes, footer::CRC, &sum.to_le_bytes());
        bytes
    }

    /// The footer in `bytes`, which stand at `at` in `path`; otherwise what is wrong.
    pub fn decode(bytes: &[u8], seed: Seed, path: &Path, at: u64) -> Result<Footer> {
        let covered = bytes.get(footer::CRC.end..footer::BYTES).unwrap_or_default();
        if bytes.get(footer::MAGIC) != Some(FOOTER_MAGIC.as_slice()) {
            return Err(Error::corrupt(path, at, "the file does not end with a footer"));
        }
        if get_u32(bytes, footer::CRC) != Some(crc(seed, covered)) {
            return Err(Error::corrupt(path, at, "the checksum of the footer does not match"));
        }
        let read = || {
            Some(Footer {
                filter_pages: get_u32(bytes, footer::FILTER_PAGES)?,
                timelines: get_u64(bytes, footer::TIMELINES)?,
                entries: get_u64(bytes, footer::ENTRIES)?,
                bodies: get_u64(bytes, footer::BODIES)?,
                data_bytes: get_u64(bytes, footer::DATA_BYTES)?,
                first_time_ms: get_u64(bytes, footer::FIRST_TIME)?,
                last_time_ms: get_u64(bytes, footer::LAST_TIME)?,
                page_table: BlockRef {
                    at: get_u64(bytes, footer::PAGE_TABLE)?,
                    bytes: get_u32(bytes, footer::PAGE_TABLE_BYTES)?,
                },
                body_table_bytes: get_u32(bytes, footer::BODY_TABLE_BYTES)?,
                filter: get_u64(bytes, footer::FILTER)?,
                ids: get_u64(bytes, footer::IDS)?,
                ids_until_ms: get_u64(bytes, footer::IDS_UNTIL)?,
                id_table: BlockRef {
                    at: get_u64(bytes, footer::ID_TABLE)?,
                    bytes: get_u32(bytes, footer::ID_TABLE_BYTES)?,
                },
                id_filter_pages: get_u32(bytes, footer::ID_FILTER_PAGES)?,
                id_filter: get_u64(bytes, footer::ID_FILTER)?,
            })
        };
        read().ok_or_else(|| Error::corrupt(path, at, "the footer is too short"))
    }
}

/// A block of a timeline's runs, and what its run there starts with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct RunBlock {
    /// Where the block is.
    pub block: BlockRef,
    /// The first sequence of the run.
    pub first: Sequence,
    /// The time of the run's first entry.
    pub first_time_ms: TimeMs,
}

/// What a segment knows of one timeline.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct TimelineEntry {
    /// The lowest sequence here; above the last when there are no entries here.
    pub first: Sequence,
    /// How the timeline ended when the segment was written.
    pub end: End,
    /// The highest sequence here that the store's TTL will take, not an expiry of its own; 0 when there is none.
    pub last_lost: Sequence,
    /// How many entries are here.
    pub count: u64,
    /// The sum of their bodies' bytes.
    pub body_bytes: u64,
    /// The time of the first.
    pub first_time_ms: TimeMs,
    /// Whether some entries expire by themselves.
    pub own_expiry: bool,
    /// Where the run starts in the first block; in the others it is the first run.
    pub run_at: u32,
    /// The blocks that hold its runs, ascending.
    pub blocks: Vec<RunBlock>,
    /// Sequences removed from older segments.
    pub removed: Vec<(Sequence, Sequence)>,
    /// Entries of older segments that have another body: the number of a shared one.
    pub edited: Vec<(Sequence, u32)>,
}

impl TimelineEntry {
    /// The highest sequence here or below that a trim or the TTL took, when the TTL took all that was here.
    pub fn dropped_to(&self) -> Sequence {
        let lost = if self.count > 0 { self.last_lost } else { 0 };
        lost.max(self.end.floor.trimmed_to)
    }

    /// Appends the entry to a page.
    pub fn encode(&self, name: &[u8], out: &mut Vec<u8>) {
        let floor = &self.end.floor;
        put_name(out, name);
        out.push(u8::from(self.own_expiry));
        let numbers = [
            self.first,
            (self.end.last + 1).saturating_sub(self.first),
            self.end.last.saturating_sub(self.last_lost),
            self.count,
            self.body_bytes,
            self.first_time_ms,
            self.end.last_time_ms.saturating_sub(self.first_time_ms),
            floor.lowest,
            self.first_time_ms.saturating_sub(floor.time_ms),
            floor.until_ms,
            floor.trimmed_to,
            u64::from(self.run_at),
            self.blocks.len() as u64,
        ];
        numbers.into_iter().for_each(|number| put_varint(out, number));
        let (mut at, mut first, mut time_ms) = (0, self.first, self.first_time_ms);
        for run in &self.blocks {
            put_varint(out, run.block.at - at);
            put_varint(out, u64::from(run.block.bytes));
            put_varint(out, run.first - first);
            put_varint(out, run.first_time_ms.saturating_sub(time_ms));
            (at, first, time_ms) = (run.block.at, run.first, run.first_time_ms);
        }
        put_varint(out, self.removed.len() as u64);
        for (first, last) in &self.removed {
            put_varint(out, *first);
            put_varint(out, last - first);
        }
        put_varint(out, self.edited.len() as u64);
        for (sequence, body) in &self.edited {
            put_varint(out, *sequence);
            put_varint(out, u64::from(*body));
        }
    }

    /// The name and the entry in a page's slot; `None` when the bytes are not one.
    pub fn decode(slot: &[u8]) -> Option<(&[u8], TimelineEntry)> {
        let mut reader = Reader::new(slot);
        let name = reader.name()?;
        let mut entry = TimelineEntry { own_expiry: reader.u8()? & 1 != 0, ..TimelineEntry::default() };
        entry.first = reader.varint()?;
        entry.end.last =
            entry.first.checked_add(reader.varint()?)?.checked_sub(1).filter(|last| *last <= MAX_SEQUENCE)?;
        entry.last_lost = entry.end.last.checked_sub(reader.varint()?)?;
        entry.count = reader.varint()?;
        entry.body_bytes = reader.varint()?;
        entry.first_time_ms = reader.varint()?;
        entry.end.last_time_ms = entry.first_time_ms.checked_add(reader.varint()?)?;
        entry.end.floor = Floor {
            lowest: reader.varint()?,
            time_ms: entry.first_time_ms.checked_sub(reader.varint()?)?,
            until_ms: reader.varint()?,
            trimmed_to: reader.varint()?,
        };
        entry.run_at = reader.varint_u32()?;
        entry.decode_blocks(&mut reader)?;
        for _ in 0..reader.varint()? {
            let first = reader.varint()?;
            entry.removed.push((first, first.checked_add(reader.varint()?)?));
        }
        for _ in 0..reader.varint()? {
            entry.edited.push((reader.varint()?, reader.varint_u32()?));
        }
        reader.is_empty().then_some((name, entry))
    }

    fn decode_blocks(&mut self, reader: &mut Reader<'_>) -> Option<()> {
        let count = reader.length()?;
        // Four bytes at least a block: the count cannot make us reserve more than is there.
        self.blocks.reserve_exact(count.min(reader.rest().len() / 4));
        let (mut at, mut first, mut time_ms) = (0u64, self.first, self.first_time_ms);
        for _ in 0..count {
            at = at.checked_add(reader.varint()?)?;
            let bytes = reader.varint_u32()?;
            first = first.checked_add(reader.varint()?)?;
            time_ms = time_ms.checked_add(reader.varint()?)?;
            self.blocks.push(RunBlock { block: BlockRef { at, bytes }, first, first_time_ms: time_ms });
        }
        Some(())
    }
}

/// The name in a page's slot or a page table's slot.
pub fn slot_name(slot: &[u8]) -> Option<&[u8]> {
    Reader::new(slot).name()
}

/// Appends a page's place to the page table.
pub fn put_page(first_name: &[u8], page: BlockRef, out: &mut Vec<u8>) {
    put_name(out, first_name);
    out.extend_from_slice(&page.at.to_le_bytes());
    out.extend_from_slice(&page.bytes.to_le_bytes());
}

/// A page's place, from the page table.
pub fn page(slot: &[u8]) -> Option<BlockRef> {
    let mut reader = Reader::new(slot);
    reader.name()?;
    let page = BlockRef { at: reader.u64()?, bytes: reader.u32()? };
    reader.is_empty().then_some(page)
}

/// Where the bodies from `first` on are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BodyBlock {
    /// The number of the block's first body in the segment.
    pub first: u32,
    /// Where the block is.
    pub block: BlockRef,
}

/// Appends a bodies block's place to the body table.
pub fn put_body_block(block: BodyBlock, out: &mut Vec<u8>) {
    out.extend_from_slice(&block.first.to_le_bytes());
    out.extend_from_slice(&block.block.bytes.to_le_bytes());
    out.extend_from_slice(&block.block.at.to_le_bytes());
}

/// The body table; `None` when the bytes are not one.
pub fn decode_body_table(raw: &[u8]) -> Option<Vec<BodyBlock>> {
    let mut reader = Reader::new(raw);
    let mut table = Vec::with_capacity(raw.len() / 16);
    while !reader.is_empty() {
        let (first, bytes) = (reader.u32()?, reader.u32()?);
        table.push(BodyBlock { first, block: BlockRef { at: reader.u64()?, bytes } });
    }
    table.is_sorted_by_key(|block| block.first).then_some(table)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn entry() -> TimelineEntry {
        let run =
            |at, first, first_time_ms| RunBlock { block: BlockRef { at, bytes: 900 }, first, first_time_ms };
        TimelineEntry {
            first: 10,
            end: End {
                last: 500,
                last_time_ms: 1_000_900,
                floor: Floor { lowest: 3, time_ms: 999_000, until_ms: 2_000_000, trimmed_to: 2 },
            },
            last_lost: 499,
            count: 491,
            body_bytes: 98_200,
            first_time_ms: 1_000_000,
            own_expiry: true,
            run_at: 77,
            blocks: vec![run(4096, 10, 1_000_000), run(9999, 200, 1_000_400)],
            removed: vec![(4, 6), (9, 9)],
            edited: vec![(3, 12)],
        }
    }

    #[test]
    fn a_timeline_entry_reads_back_as_written() {
        let end = End { last: 500, last_time_ms: 7, floor: Floor { lowest: 501, ..Floor::default() } };
        let without_entries = TimelineEntry { first: 501, end, last_lost: 500, ..TimelineEntry::default() };
        for entry in [entry(), without_entries] {
            let mut slot = Vec::new();
            entry.encode(b"c/1", &mut slot);
            assert_eq!(TimelineEntry::decode(&slot), Some((b"c/1".as_slice(), entry)));
        }
    }

    #[test]
    fn a_footer_reads_back_and_every_changed_byte_is_noticed() {
        let good = Footer { timelines: 3, entries: 9, filter_pages: 1, ..Footer::default() };
        let bytes = good.encode(Seed::NONE);
        assert_eq!(Footer::decode(&bytes, Seed::NONE, Path::new("i"), 0).expect("decodes"), good);
        for at in 0..bytes.len() {
            let mut bad = bytes;
            bad[at] ^= 2;
            assert!(Footer::decode(&bad, Seed::NONE, Path::new("i"), 0).is_err(), "byte {at}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_decode_or_do_not(bytes: Vec<u8>) {
            let _ = TimelineEntry::decode(&bytes);
            let _ = page(&bytes);
            let _ = decode_body_table(&bytes);
            let _ = Footer::decode(&bytes, Seed::NONE, Path::new("i"), 0);
        }
    }
}
