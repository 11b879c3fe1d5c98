//! One timeline's runs in a segment: finds their blocks, and reads the entries of a block.
//!
//! A block is found in the entry's list of blocks or in its run table; either way the cost of a
//! read depends on what it returns, not on the length of the timeline. Damage in a block hides
//! entries from a sequence on. `run_offers` passes entries and damage to a read.

use std::ops::{Range, RangeInclusive};

use bytes::Bytes;

use super::damage::About;
use super::parts::Parts;
use super::table::{Cursor, PageAccess, Table};
use crate::error::{Error, Result};
use crate::format::block::BlockKind;
use crate::format::index::{RunBlock, RunBlocks, TimelineEntry};
use crate::format::run::{EntryContent, PlainEntry, RunReader, SharedBody, shared_body};
use crate::ids::{Lsn, Sequence, TimeMs};

/// One timeline's runs in a segment.
pub(super) struct RunsOf<'a> {
    pub(super) parts: &'a Parts,
    about: About<'a>,
    name: &'a [u8],
    pub(super) entry: &'a TimelineEntry,
    source: BlockSource<'a>,
    /// The bodies block used last: its first number, the first number after it, its content.
    /// Consecutive entries often share it.
    bodies: Option<(u32, u32, Bytes)>,
    /// The numbers of the bodies in the unreadable block that was found last.
    pub(super) lost_bodies: Option<Range<u32>>,
}

/// The source of the blocks.
enum BlockSource<'a> {
    Listed(&'a [RunBlock]),
    /// The run table's root.
    Table(Bytes),
}

/// One of the timeline's blocks; if a page of the run table cannot be read, all blocks of that
/// page.
pub(super) struct BlockAt {
    pub(super) run: RunBlock,
    position: Position,
}

enum Position {
    Listed(usize),
    Table(Cursor),
}

/// The entries of a block, as far as they can be read.
#[derive(Default)]
pub(super) struct RunEntries {
    pub(super) block: Bytes,
    /// The entries before the first one that is not plain; empty unless plain ones are apart.
    pub(super) plain: Vec<PlainEntry>,
    /// The others.
    pub(super) found: Vec<(Sequence, EntryContent)>,
    /// The first hidden sequence, and the damage that hides it and the rest of the block.
    pub(super) damage: Option<(Sequence, Error)>,
}

impl<'a> RunsOf<'a> {
    /// The runs that an index entry refers to.
    pub fn new(parts: &'a Parts, name: &'a [u8], entry: &'a TimelineEntry) -> Result<RunsOf<'a>> {
        let about = About::timeline(name);
        let source = match &entry.blocks {
            RunBlocks::Listed(listed) => BlockSource::Listed(listed),
            RunBlocks::Table(root) => BlockSource::Table(
                parts.run_root(*root, about.sequences(entry.first, entry.end.last))?,
            ),
        };
        Ok(RunsOf { parts, about, name, entry, source, bodies: None, lost_bodies: None })
    }

    fn table<'t>(&'t self, root: &'t Bytes) -> Table<'t> {
        Table::new(&self.parts.index, BlockKind::RunTable, root, (PageAccess::Cached, self.about))
    }

    /// The last block for whose first sequence and time `is_after` is false, given that it is true
    /// for all blocks after that.
    pub(super) fn seek(
        &self,
        is_after: impl Fn(Sequence, TimeMs) -> bool,
    ) -> Result<Option<BlockAt>> {
        match &self.source {
            BlockSource::Listed(listed) => {
                let behind = listed.partition_point(|run| !is_after(run.first, run.first_time_ms));
                Ok(behind.checked_sub(1).and_then(|index| BlockAt::listed(listed, index)))
            }
            BlockSource::Table(root) => {
                let is_after = |key: &[u8]| {
                    RunBlock::decode_key(key).map(|(first, time)| is_after(first, time))
                };
                self.table(root).seek_around(is_after)?.map(|cursor| self.at(cursor)).transpose()
            }
        }
    }

    /// The first block.
    pub fn first(&self) -> Result<Option<BlockAt>> {
        match &self.source {
            BlockSource::Listed(listed) => Ok(BlockAt::listed(listed, 0)),
            BlockSource::Table(root) => {
                self.table(root).first_around()?.map(|cursor| self.at(cursor)).transpose()
            }
        }
    }

    /// The block that holds a sequence, or the first if all are above it.
    pub fn first_from(&self, low: Sequence) -> Result<Option<BlockAt>> {
        self.seek(|first, _| first > low)?
            .map_or_else(|| self.first(), |block_at| Ok(Some(block_at)))
    }

    /// The last sequence; if the last block is damaged, the last one in it that can be read, or its
    /// first.
    pub fn last(&self) -> Result<Option<Sequence>> {
        let Some(block_at) = self.seek(|_, _| false)? else { return Ok(None) };
        let RunEntries { found, .. } = self.entries(&block_at)?;
        Ok(found.last().map(|(sequence, _)| *sequence).or(Some(block_at.run.first)))
    }

    /// The block after `block_at`.
    pub fn next(&self, block_at: BlockAt) -> Result<Option<BlockAt>> {
        match (&self.source, block_at.position) {
            (BlockSource::Listed(listed), Position::Listed(index)) => {
                Ok(BlockAt::listed(listed, index + 1))
            }
            (BlockSource::Table(root), Position::Table(mut cursor)) => {
                self.table(root).next_around(&mut cursor)?.then(|| self.at(cursor)).transpose()
            }
            _ => Ok(None),
        }
    }

    /// The block before `block_at`.
    pub(super) fn previous(&self, block_at: BlockAt) -> Result<Option<BlockAt>> {
        match (&self.source, block_at.position) {
            (BlockSource::Listed(listed), Position::Listed(index)) => {
                Ok(index.checked_sub(1).and_then(|index| BlockAt::listed(listed, index)))
            }
            (BlockSource::Table(root), Position::Table(mut cursor)) => {
                self.table(root).previous_around(&mut cursor)?.then(|| self.at(cursor)).transpose()
            }
            _ => Ok(None),
        }
    }

    fn at(&self, cursor: Cursor) -> Result<BlockAt> {
        let row = cursor.row();
        let (first, first_time_ms) = RunBlock::decode_key(row.key).ok_or_else(|| {
            self.parts.index.damaged(0, "a row of a run table is broken", self.about)
        })?;
        let run = RunBlock { block: row.block, first, first_time_ms };
        Ok(BlockAt { run, position: Position::Table(cursor) })
    }

    /// The last sequence that can be in a block, and an upper bound of the times there: both follow
    /// from the start of the next block.
    pub(super) fn reach(&self, block_at: &BlockAt) -> Result<(Sequence, TimeMs)> {
        let next = match (&self.source, &block_at.position) {
            (BlockSource::Listed(listed), Position::Listed(at)) => {
                listed.get(at + 1).map(|run| (run.first, run.first_time_ms))
            }
            (BlockSource::Table(root), Position::Table(cursor)) => {
                if let Some(row) = cursor.row_behind() {
                    RunBlock::decode_key(row.key)
                } else {
                    let mut cursor = cursor.clone();
                    let is_there = self.table(root).next_around(&mut cursor)?;
                    is_there.then(|| RunBlock::decode_key(cursor.row().key)).flatten()
                }
            }
            _ => None,
        };
        let end = (self.entry.end.last, self.entry.end.last_time_ms);
        Ok(next.map_or(end, |(first, time_ms)| (first.saturating_sub(1), time_ms)))
    }

    /// The purpose of reading a block.
    fn about(&self, block_at: &BlockAt) -> Result<About<'a>> {
        Ok(self.about.sequences(block_at.run.first, self.reach(block_at)?.0))
    }

    /// The content of a block.
    pub fn block(&self, block_at: &BlockAt) -> Result<Bytes> {
        if let Some(error) = block_at.damage() {
            return Err(error.clone());
        }
        let about = self.about(block_at)?;
        self.parts.data_for(about)?.block(BlockKind::Runs, block_at.run.block, about)
    }

    /// Damage in a block of the timeline.
    pub fn damaged(&self, block_at: &BlockAt, what: &str) -> Error {
        let about = self.about.sequences(block_at.run.first, self.entry.end.last);
        self.parts.data_damage(block_at.run.block.at, what, about)
    }

    /// The run in a block.
    pub fn run_in<'b>(&self, block_at: &BlockAt, block: &'b [u8]) -> Result<RunReader<'b>> {
        let at =
            if block_at.run.first == self.entry.first { self.entry.run_at as usize } else { 0 };
        RunReader::at(block, at)
            .filter(|run| run.name == self.name)
            .ok_or_else(|| self.damaged(block_at, "the index refers to a run that is not there"))
    }

    /// The run in a block, without most of what is below the wanted entries, and the maximum number
    /// of these. `from` becomes the sequence after what was passed over.
    pub(super) fn run_from<'b>(
        &self,
        block_at: &BlockAt,
        block: &'b [u8],
        wanted: &RangeInclusive<Sequence>,
        from: &mut Sequence,
    ) -> Result<(RunReader<'b>, usize)> {
        let mut run = self.run_in(block_at, block)?;
        let all = run.remaining();
        run.skip_below(*wanted.start());
        if run.remaining() < all {
            *from = run.next_sequence();
        }
        let most = wanted.end().saturating_sub(*wanted.start()).saturating_add(1);
        // A broken run may claim any number of entries; each takes a byte.
        let most = run.remaining().min(most).min(block.len() as u64);
        Ok((run, most as usize))
    }

    /// Fails if a run was not read to its end.
    pub fn check_end(&self, block_at: &BlockAt, run: &RunReader<'_>) -> Result<()> {
        if run.remaining() == 0 {
            Ok(())
        } else {
            Err(self.damaged(block_at, "a run is cut short"))
        }
    }

    /// The entries of a block, and the damage that hides the rest of them.
    pub(super) fn entries(&self, block_at: &BlockAt) -> Result<RunEntries> {
        self.entries_within(block_at, 0..=Sequence::MAX, false)
    }

    /// The entries of a block inside bounds, and the damage that hides the rest of them. The first
    /// ones are apart if they are plain and `plain_apart`.
    pub(super) fn entries_within(
        &self,
        block_at: &BlockAt,
        wanted: RangeInclusive<Sequence>,
        plain_apart: bool,
    ) -> Result<RunEntries> {
        let mut entries = RunEntries::default();
        let mut from = block_at.run.first;
        if let Err(error) = self.fill(block_at, &wanted, plain_apart, &mut from, &mut entries) {
            if !error.is_damage() {
                return Err(error);
            }
            entries.damage = Some((from, error));
        }
        Ok(entries)
    }

    /// `from` becomes the sequence after the last one that was read.
    fn fill(
        &self,
        block_at: &BlockAt,
        wanted: &RangeInclusive<Sequence>,
        plain_apart: bool,
        from: &mut Sequence,
        entries: &mut RunEntries,
    ) -> Result<()> {
        entries.block = self.block(block_at)?;
        let (mut run, most) = self.run_from(block_at, &entries.block, wanted, from)?;
        if plain_apart {
            take_plain(&mut run, wanted, most, &mut entries.plain);
            *from = entries.plain.last().map_or(*from, |last| last.sequence + 1);
        }
        entries.found.reserve(most - entries.plain.len());
        while let Some((sequence, content)) = run.next_entry() {
            if sequence > *wanted.end() {
                return Ok(());
            }
            *from = sequence + 1;
            if sequence >= *wanted.start() {
                entries.found.push((sequence, content));
            }
        }
        self.check_end(block_at, &run)
    }

    /// Changes of bodies below this lsn are applied to this segment.
    pub(super) fn applied_to(&self) -> Lsn {
        self.parts.record.changed_to
    }

    /// An entry's shared body: its properties, its block, and its range there.
    pub fn shared(
        &mut self,
        block_at: &BlockAt,
        sequence: Sequence,
        number: u32,
    ) -> Result<(SharedBody, &Bytes, Range<usize>)> {
        let (parts, about) = (self.parts, self.about.sequences(sequence, sequence));
        let is_in = |(first, next, _): &(u32, u32, Bytes)| (*first..*next).contains(&number);
        if !self.bodies.as_ref().is_some_and(is_in) {
            self.bodies = Some(parts.bodies_block(number, about)?);
        }
        let (first, _, block) = self.bodies.as_ref().expect("it was just read");
        let missing = || {
            let what = "an entry refers to a shared body that is not there";
            parts.data_damage(block_at.run.block.at, what, about)
        };
        let (shared, body) = shared_body(block, (number - first) as usize).ok_or_else(missing)?;
        Ok((shared, block, body))
    }
}

/// Reads the entries inside bounds that come next in a run, as long as they are plain; at most
/// `most` are inside.
pub(super) fn take_plain(
    run: &mut RunReader<'_>,
    wanted: &RangeInclusive<Sequence>,
    most: usize,
    plain: &mut Vec<PlainEntry>,
) {
    run.plain_to(*wanted.end(), |entry| {
        if entry.sequence >= *wanted.start() {
            if plain.is_empty() {
                plain.reserve(most);
            }
            plain.push(entry);
        }
    });
}

impl BlockAt {
    fn listed(blocks: &[RunBlock], index: usize) -> Option<BlockAt> {
        Some(BlockAt { run: *blocks.get(index)?, position: Position::Listed(index) })
    }

    /// The damage of the run table's page that this block covers.
    fn damage(&self) -> Option<&Error> {
        match &self.position {
            Position::Listed(_) => None,
            Position::Table(cursor) => cursor.damage(),
        }
    }

    /// The first sequence and the first time of its run, from the index.
    pub fn start(&self) -> (Sequence, TimeMs) {
        (self.run.first, self.run.first_time_ms)
    }
}
