//! The content of a segment's index file: one sorted entry per timeline, in pages; tables that find
//! pages, blocks and bodies; and, at the very end, the footer.
//!
//! ```text
//!  index file := header, (page | id page | table page) × n, footer
//!  page       := block of slots of timeline entries, sorted by name
//!  page table := table of pages; key: name, the page's first;
//!                filters over the names with their lengths
//!  body table := table of the data file's bodies blocks;
//!                key: number of the block's first body: u32
//!  run table  := table of one timeline's runs blocks; key: first, first time
//!  timeline   := name, flags, first, last + 1 − first, last − last lost, count, body bytes,
//!                first time, last time − first time, floor, run's position in its first block,
//!                blocks, removed count, (first, last − first) × removed,
//!                edited count, edited × n,
//!                [first start, last start, start of the lowest]     ; with flag 4
//!  floor      := lowest, first time − its start, its expiry, trimmed to
//!  edited     := sequence, body number,
//!                [length of the body],                              ; with flag 8
//!                [place of the edit's commit]                       ; with flag 16
//!  blocks     := block count, (at, bytes, first, first time) × blocks
//!                                 ; each number except bytes minus the one of the block before
//!              | at, bytes        ; with flag 2: the root of a run table
//!  flags      := 1: some entries have an expiry of their own,
//!                2: the blocks are in a run table,
//!                4: some lifetimes began at another time than the entry's,
//!                8: edited bodies have their lengths,
//!                16: edited bodies have the places of their commits
//! ```
//!
//! The entry under the empty name, which no timeline has, holds the changes of shared bodies in
//! older segments of the store: its sequences are the places where these bodies were committed. It
//! has no entries, and ends at the highest sequence.
//!
//! The first and last sequence make a missing head or tail of a timeline detectable. The last
//! sequence is kept here after the entries are gone, so that it is never given again. The data file
//! holds the runs; only this file lists the timelines that the segment knows (P2, P5).

use std::path::Path;
use std::sync::Arc;

use super::block::BlockRef;
use super::checksum::{Seed, crc};
use super::codec::{Reader, put_name, put_varint};
use super::layout::{get_u32, get_u64, layout, put};
use crate::error::{Error, Result};
use crate::ids::{CommitPlace, MAX_SEQUENCE, Sequence, TimeMs};
pub use crate::timeline::{End, Floor};

/// The size at which an index page is closed: about a hundred timelines, one read of the disk.
pub const TARGET_PAGE_BYTES: usize = 8 * 1024;

/// The last bytes of an index file.
pub const FOOTER_MAGIC: &[u8; 8] = b"slfooter";

layout! {
    /// The byte ranges of a footer's fields.
    footer {
        CRC: 4, "over the rest of the footer; seed: engine id, file number";
        PAGE_TABLE_BYTES: 4, "length of the page table's root";
        TIMELINES: 8, "number of timelines with an entry in this index";
        ENTRIES: 8, "number of entries in the data file";
        BODIES: 8, "number of shared bodies in the data file";
        DATA_BYTES: 8, "length of the data file";
        FIRST_TIME: 8, "the lowest time of an entry";
        LAST_TIME: 8, "the highest time of an entry, also of timelines without entries in the data \
                       file";
        PAGE_TABLE: 8, "position of the page table's root";
        BODY_TABLE: 8, "position of the body table's root";
        BODY_TABLE_BYTES: 4, "its length";
        ID_TABLE_BYTES: 4, "length of the id table's root";
        ID_TABLE: 8, "position of that root";
        IDS: 8, "number of ids of retries";
        IDS_UNTIL: 8, "the latest start of an id's window";
        MAGIC: 8, "`slfooter`";
    }
}

/// A decoded footer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the layout table says what they mean")]
pub struct Footer {
    pub timelines: u64,
    pub entries: u64,
    pub bodies: u64,
    pub data_bytes: u64,
    pub first_time_ms: TimeMs,
    pub last_time_ms: TimeMs,
    pub page_table: BlockRef,
    pub body_table: BlockRef,
    pub ids: u64,
    pub ids_until_ms: TimeMs,
    pub id_table: BlockRef,
}

impl Footer {
    /// The footer's bytes.
    pub fn encode(&self, seed: Seed) -> [u8; footer::BYTES] {
        let mut bytes = [0; footer::BYTES];
        put(&mut bytes, footer::TIMELINES, &self.timelines.to_le_bytes());
        put(&mut bytes, footer::ENTRIES, &self.entries.to_le_bytes());
        put(&mut bytes, footer::BODIES, &self.bodies.to_le_bytes());
        put(&mut bytes, footer::DATA_BYTES, &self.data_bytes.to_le_bytes());
        put(&mut bytes, footer::FIRST_TIME, &self.first_time_ms.to_le_bytes());
        put(&mut bytes, footer::LAST_TIME, &self.last_time_ms.to_le_bytes());
        put(&mut bytes, footer::PAGE_TABLE, &self.page_table.at.to_le_bytes());
        put(&mut bytes, footer::PAGE_TABLE_BYTES, &self.page_table.bytes.to_le_bytes());
        put(&mut bytes, footer::BODY_TABLE, &self.body_table.at.to_le_bytes());
        put(&mut bytes, footer::BODY_TABLE_BYTES, &self.body_table.bytes.to_le_bytes());
        put(&mut bytes, footer::IDS, &self.ids.to_le_bytes());
        put(&mut bytes, footer::IDS_UNTIL, &self.ids_until_ms.to_le_bytes());
        put(&mut bytes, footer::ID_TABLE, &self.id_table.at.to_le_bytes());
        put(&mut bytes, footer::ID_TABLE_BYTES, &self.id_table.bytes.to_le_bytes());
        put(&mut bytes, footer::MAGIC, FOOTER_MAGIC);
        let sum = crc(seed, bytes.get(footer::CRC.end..).unwrap_or_default());
        put(&mut bytes, footer::CRC, &sum.to_le_bytes());
        bytes
    }

    /// The footer in `bytes`, which are at byte `at` of `path`; otherwise the check that failed.
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
                body_table: BlockRef {
                    at: get_u64(bytes, footer::BODY_TABLE)?,
                    bytes: get_u32(bytes, footer::BODY_TABLE_BYTES)?,
                },
                ids: get_u64(bytes, footer::IDS)?,
                ids_until_ms: get_u64(bytes, footer::IDS_UNTIL)?,
                id_table: BlockRef {
                    at: get_u64(bytes, footer::ID_TABLE)?,
                    bytes: get_u32(bytes, footer::ID_TABLE_BYTES)?,
                },
            })
        };
        read().ok_or_else(|| Error::corrupt(path, at, "the footer is too short"))
    }
}

/// A block of a timeline's runs, with the start of the timeline's run in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct RunBlock {
    /// Where the block is.
    pub block: BlockRef,
    /// The first sequence of the run.
    pub first: Sequence,
    /// The time of the run's first entry.
    pub first_time_ms: TimeMs,
}

impl RunBlock {
    /// Its key in a run table.
    pub fn key(&self) -> Vec<u8> {
        let mut key = Vec::with_capacity(12);
        put_varint(&mut key, self.first);
        put_varint(&mut key, self.first_time_ms);
        key
    }

    /// The first sequence and the first time, from a key.
    pub fn decode_key(key: &[u8]) -> Option<(Sequence, TimeMs)> {
        let mut reader = Reader::new(key);
        let decoded = (reader.varint()?, reader.varint()?);
        reader.is_empty().then_some(decoded)
    }
}

/// The blocks that hold a timeline's runs, ascending.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RunBlocks {
    /// A list of at most [`MAX_LISTED_BLOCKS`] blocks.
    Listed(Vec<RunBlock>),
    /// The root of a run table: a look-up of the timeline costs the same whatever the number of its
    /// blocks.
    Table(BlockRef),
}

impl RunBlocks {
    /// The size of the list in memory, in bytes.
    pub fn memory_bytes(&self) -> usize {
        match self {
            RunBlocks::Listed(blocks) => size_of_val(blocks.as_slice()),
            RunBlocks::Table(_) => 0,
        }
    }
}

impl Default for RunBlocks {
    fn default() -> RunBlocks {
        RunBlocks::Listed(Vec::new())
    }
}

/// A timeline with more blocks than this gets a table: a list takes about ten bytes a block in a
/// page that is read for other timelines too.
pub const MAX_LISTED_BLOCKS: usize = 16;

const OWN_EXPIRY: u8 = 1;
const RUN_TABLE: u8 = 2;
const OWN_START: u8 = 4;
const EDITED_BYTES: u8 = 8;
const EDITED_AT: u8 = 16;
const ALL_FLAGS: u8 = OWN_EXPIRY | RUN_TABLE | OWN_START | EDITED_BYTES | EDITED_AT;

/// An entry of an older segment that has another body now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edited {
    /// Its sequence.
    pub sequence: Sequence,
    /// The number of the new body among the shared ones.
    pub body: u32,
    /// The new body's length; unknown in a segment of an earlier format version.
    pub body_bytes: Option<u32>,
    /// The place of the edit's commit; 0 in a segment of an earlier format version.
    pub at: CommitPlace,
}

/// A segment's record of one timeline.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct TimelineEntry {
    /// The lowest sequence here; above the last if there are no entries here.
    pub first: Sequence,
    /// The end of the timeline when the segment was written.
    pub end: End,
    /// The highest sequence here that the store's TTL will remove, not an expiry of its own; 0 if
    /// there is none.
    pub last_lost: Sequence,
    /// The number of entries here.
    pub count: u64,
    /// The total length of their bodies in bytes.
    pub body_bytes: u64,
    /// The time of the first entry.
    pub first_time_ms: TimeMs,
    /// The earliest start of a lifetime here.
    pub first_start_ms: TimeMs,
    /// The latest start of a lifetime here.
    pub last_start_ms: TimeMs,
    /// Whether some entries have an expiry of their own, those that are edited here included.
    pub own_expiry: bool,
    /// The offset of the run in the first block; in every other block the run is the first one.
    pub run_at: u32,
    /// The blocks that hold its runs.
    pub blocks: RunBlocks,
    /// Sequences removed from older segments.
    pub removed: Arc<[(Sequence, Sequence)]>,
    /// Entries of older segments that have another body, by sequence.
    pub edited: Arc<[Edited]>,
}

impl TimelineEntry {
    /// The highest sequence, here or below, that a trim or the TTL removed, given that the TTL
    /// removed everything that was here.
    pub fn dropped_to(&self) -> Sequence {
        let lost = if self.count > 0 { self.last_lost } else { 0 };
        lost.max(self.end.floor.trimmed_to)
    }

    /// Appends the entry to a page.
    pub fn encode(&self, name: &[u8], out: &mut Vec<u8>) {
        let floor = &self.end.floor;
        put_name(out, name);
        let has_table = matches!(self.blocks, RunBlocks::Table(_));
        let has_lengths = self.edited.iter().any(|edited| edited.body_bytes.is_some());
        let has_places = self.edited.iter().any(|edited| edited.at.0 != 0);
        let flags = [
            (self.own_expiry, OWN_EXPIRY),
            (has_table, RUN_TABLE),
            (self.has_own_start(), OWN_START),
            (has_lengths, EDITED_BYTES),
            (has_places, EDITED_AT),
        ];
        out.push(flags.iter().map(|(is_set, flag)| u8::from(*is_set) * flag).sum());
        let numbers = [
            self.first,
            (self.end.last + 1).saturating_sub(self.first),
            self.end.last.saturating_sub(self.last_lost),
            self.count,
            self.body_bytes,
            self.first_time_ms,
            self.end.last_time_ms.saturating_sub(self.first_time_ms),
            floor.lowest,
            self.first_time_ms.saturating_sub(floor.start_ms),
            floor.until_ms,
            floor.trimmed_to,
            u64::from(self.run_at),
        ];
        numbers.into_iter().for_each(|number| put_varint(out, number));
        self.encode_blocks(out);
        put_varint(out, self.removed.len() as u64);
        for (first, last) in self.removed.iter() {
            put_varint(out, *first);
            put_varint(out, last - first);
        }
        put_varint(out, self.edited.len() as u64);
        for Edited { sequence, body, body_bytes, at } in self.edited.iter() {
            put_varint(out, *sequence);
            put_varint(out, u64::from(*body));
            if has_lengths {
                put_varint(out, u64::from(body_bytes.unwrap_or(0)));
            }
            if has_places {
                put_varint(out, at.0);
            }
        }
        if self.has_own_start() {
            [self.first_start_ms, self.last_start_ms, floor.start_ms]
                .into_iter()
                .for_each(|start_ms| put_varint(out, start_ms));
        }
    }

    /// The latest start of the lifetimes of entries whose time is at most `to_ms`.
    pub fn latest_start(&self, to_ms: TimeMs) -> TimeMs {
        if self.has_own_start() { self.last_start_ms } else { to_ms }
    }

    /// Whether a lifetime, here or at the floor, began at another time than the entry's.
    fn has_own_start(&self) -> bool {
        let is_own = (self.first_start_ms, self.last_start_ms)
            != (self.first_time_ms, self.end.last_time_ms);
        is_own || self.end.floor.start_ms > self.first_time_ms
    }

    fn encode_blocks(&self, out: &mut Vec<u8>) {
        let listed = match &self.blocks {
            RunBlocks::Listed(listed) => listed,
            RunBlocks::Table(root) => {
                put_varint(out, root.at);
                return put_varint(out, u64::from(root.bytes));
            }
        };
        put_varint(out, listed.len() as u64);
        let (mut at, mut first, mut time_ms) = (0, self.first, self.first_time_ms);
        for run in listed {
            put_varint(out, run.block.at - at);
            put_varint(out, u64::from(run.block.bytes));
            put_varint(out, run.first - first);
            put_varint(out, run.first_time_ms.saturating_sub(time_ms));
            (at, first, time_ms) = (run.block.at, run.first, run.first_time_ms);
        }
    }

    /// The name and the entry in a page's slot; `None` if the bytes are not an entry.
    pub fn decode(slot: &[u8]) -> Option<(&[u8], TimelineEntry)> {
        let mut reader = Reader::new(slot);
        let name = reader.name()?;
        let flags = reader.u8().filter(|flags| flags & !ALL_FLAGS == 0)?;
        let mut entry =
            TimelineEntry { own_expiry: flags & OWN_EXPIRY != 0, ..TimelineEntry::default() };
        entry.first = reader.varint()?;
        entry.end.last = entry
            .first
            .checked_add(reader.varint()?)?
            .checked_sub(1)
            .filter(|last| *last <= MAX_SEQUENCE)?;
        entry.last_lost = entry.end.last.checked_sub(reader.varint()?)?;
        entry.count = reader.varint()?;
        entry.body_bytes = reader.varint()?;
        entry.first_time_ms = reader.varint()?;
        entry.end.last_time_ms = entry.first_time_ms.checked_add(reader.varint()?)?;
        entry.end.floor = Floor {
            lowest: reader.varint()?,
            start_ms: entry.first_time_ms.checked_sub(reader.varint()?)?,
            until_ms: reader.varint()?,
            trimmed_to: reader.varint()?,
        };
        entry.run_at = reader.varint_u32()?;
        entry.blocks = match flags & RUN_TABLE {
            0 => entry.decode_listed(&mut reader)?,
            _ => RunBlocks::Table(BlockRef { at: reader.varint()?, bytes: reader.varint_u32()? }),
        };
        let count = reader.varint()?;
        let removed = (0..count).map(|_| {
            let first = reader.varint()?;
            Some((first, first.checked_add(reader.varint()?)?))
        });
        entry.removed = removed.collect::<Option<_>>()?;
        let count = reader.varint()?;
        let edited = (0..count).map(|_| {
            let (sequence, body) = (reader.varint()?, reader.varint_u32()?);
            let body_bytes =
                if flags & EDITED_BYTES == 0 { None } else { Some(reader.varint_u32()?) };
            let at = if flags & EDITED_AT == 0 { 0 } else { reader.varint()? };
            Some(Edited { sequence, body, body_bytes, at: CommitPlace(at) })
        });
        entry.edited = edited.collect::<Option<_>>()?;
        (entry.first_start_ms, entry.last_start_ms) = (entry.first_time_ms, entry.end.last_time_ms);
        if flags & OWN_START != 0 {
            (entry.first_start_ms, entry.last_start_ms) = (reader.varint()?, reader.varint()?);
            entry.end.floor.start_ms = reader.varint()?;
        }
        reader.is_empty().then_some((name, entry))
    }

    fn decode_listed(&self, reader: &mut Reader<'_>) -> Option<RunBlocks> {
        let count = reader.length()?;
        // A block takes at least four bytes: the count cannot reserve more than the bytes justify.
        let mut listed = Vec::with_capacity(count.min(reader.rest().len() / 4));
        let (mut at, mut first, mut time_ms) = (0u64, self.first, self.first_time_ms);
        for _ in 0..count {
            at = at.checked_add(reader.varint()?)?;
            let bytes = reader.varint_u32()?;
            first = first.checked_add(reader.varint()?)?;
            time_ms = time_ms.checked_add(reader.varint()?)?;
            listed.push(RunBlock { block: BlockRef { at, bytes }, first, first_time_ms: time_ms });
        }
        Some(RunBlocks::Listed(listed))
    }
}

/// The name in a page's slot or in a key of the page table.
pub fn slot_name(slot: &[u8]) -> Option<&[u8]> {
    Reader::new(slot).name()
}

/// The key that a page's slot begins with: a name with its length.
pub fn name_prefix(slot: &[u8]) -> Option<&[u8]> {
    slot.get(..1 + slot_name(slot)?.len())
}

/// A name's bytes as the page table stores them and filters hash them.
pub fn name_key(name: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(name.len() + 1);
    put_name(&mut key, name);
    key
}

/// The number of a block's first body, from a key of the body table.
pub fn body_key(key: &[u8]) -> Option<u32> {
    Some(u32::from_le_bytes(key.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn entry() -> TimelineEntry {
        let run = |at, first, first_time_ms| RunBlock {
            block: BlockRef { at, bytes: 900 },
            first,
            first_time_ms,
        };
        TimelineEntry {
            first: 10,
            end: End {
                last: 500,
                last_time_ms: 1_000_900,
                floor: Floor { lowest: 3, start_ms: 999_000, until_ms: 2_000_000, trimmed_to: 2 },
            },
            last_lost: 499,
            count: 491,
            body_bytes: 98_200,
            first_time_ms: 1_000_000,
            first_start_ms: 1_000_000,
            last_start_ms: 1_000_900,
            own_expiry: true,
            run_at: 77,
            blocks: RunBlocks::Listed(vec![run(4096, 10, 1_000_000), run(9999, 200, 1_000_400)]),
            removed: [(4, 6), (9, 9)].into(),
            edited: [Edited { sequence: 3, body: 12, body_bytes: Some(70), at: CommitPlace(9) }]
                .into(),
        }
    }

    #[test]
    fn a_timeline_entry_reads_back_as_written() {
        let end =
            End { last: 500, last_time_ms: 7, floor: Floor { lowest: 501, ..Floor::default() } };
        let without_entries =
            TimelineEntry { first: 501, end, last_lost: 500, ..TimelineEntry::default() };
        let long = TimelineEntry {
            blocks: RunBlocks::Table(BlockRef { at: 1 << 40, bytes: 99 }),
            ..entry()
        };
        let own = TimelineEntry { first_start_ms: 5, last_start_ms: 2_000_000, ..entry() };
        let mut floor_ahead = entry();
        floor_ahead.end.floor.start_ms = 1_000_001;
        let earlier =
            [Edited { sequence: 3, body: 12, body_bytes: None, at: CommitPlace(0) }].into();
        let of_earlier_version = TimelineEntry { edited: earlier, ..entry() };
        for entry in [entry(), without_entries, long, own, floor_ahead, of_earlier_version] {
            let mut slot = Vec::new();
            entry.encode(b"c/1", &mut slot);
            assert_eq!(TimelineEntry::decode(&slot), Some((b"c/1".as_slice(), entry)));
        }
    }

    #[test]
    fn an_entry_with_an_unknown_flag_is_refused() {
        let mut slot = Vec::new();
        entry().encode(b"c/1", &mut slot);
        slot[4] |= 32;
        assert_eq!(TimelineEntry::decode(&slot), None);
    }

    #[test]
    fn a_footer_reads_back_and_every_changed_byte_is_detected() {
        let good = Footer { timelines: 3, entries: 9, ids: 1, ..Footer::default() };
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
        fn any_bytes_are_decoded_or_refused(bytes: Vec<u8>) {
            let _ = TimelineEntry::decode(&bytes);
            let _ = (body_key(&bytes), RunBlock::decode_key(&bytes));
            let _ = Footer::decode(&bytes, Seed::NONE, Path::new("i"), 0);
        }
    }
}
