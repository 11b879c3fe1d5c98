//! Reads one timeline's runs in a segment, in both directions.
//!
//! Where to start is found in the entry's list of blocks or in its run table; either way a read costs what it gives, not what the
//! timeline holds.

use bytes::Bytes;

use super::parts::Parts;
use super::table::{Cursor, Reading, Table};
use crate::entry::{Collector, Times};
use crate::error::{Error, Result};
use crate::format::block::BlockKind;
use crate::format::index::{RunBlock, RunBlocks, TimelineEntry};
use crate::format::run::{Content, RunReader, shared_body};
use crate::ids::{Sequence, TimeMs};

/// One timeline's runs in a segment.
pub(super) struct RunsOf<'a> {
    parts: &'a Parts,
    name: &'a [u8],
    entry: &'a TimelineEntry,
    places: Places<'a>,
    /// The bodies block used last: first number, first number of the next, content. Neighbours often share it.
    bodies: Option<(u32, u32, Bytes)>,
}

/// Where the blocks are found.
enum Places<'a> {
    Listed(&'a [RunBlock]),
    /// The run table's root.
    Table(Bytes),
}

/// One of the timeline's blocks.
pub(super) struct Place {
    run: RunBlock,
    position: Position,
}

enum Position {
    Listed(usize),
    Table(Cursor),
}

impl<'a> RunsOf<'a> {
    /// The runs that an index entry refers to.
    pub fn new(parts: &'a Parts, name: &'a [u8], entry: &'a TimelineEntry) -> Result<RunsOf<'a>> {
        let places = match &entry.blocks {
            RunBlocks::Listed(listed) => Places::Listed(listed),
            RunBlocks::Table(root) => Places::Table(parts.run_root(*root)?),
        };
        Ok(RunsOf { parts, name, entry, places, bodies: None })
    }

    fn table<'t>(&'t self, root: &'t Bytes) -> Table<'t> {
        Table::new(&self.parts.index, BlockKind::RunTable, root, Reading::Cached)
    }

    /// The last block of whose first sequence and time `is_after` says false, given that all behind it say true.
    fn seek(&self, is_after: impl Fn(Sequence, TimeMs) -> bool) -> Result<Option<Place>> {
        match &self.places {
            Places::Listed(listed) => {
                let behind = listed.partition_point(|run| !is_after(run.first, run.first_time_ms));
                Ok(behind.checked_sub(1).and_then(|place| Place::listed(listed, place)))
            }
            Places::Table(root) => {
                let is_after =
                    |key: &[u8]| RunBlock::decode_key(key).map(|(first, time)| is_after(first, time));
                self.table(root).seek(is_after)?.map(|cursor| self.at(cursor)).transpose()
            }
        }
    }

    /// The first block.
    pub fn first(&self) -> Result<Option<Place>> {
        match &self.places {
            Places::Listed(listed) => Ok(Place::listed(listed, 0)),
            Places::Table(root) => self.table(root).first()?.map(|cursor| self.at(cursor)).transpose(),
        }
    }

    /// The block behind one.
    pub fn next(&self, place: Place) -> Result<Option<Place>> {
        match (&self.places, place.position) {
            (Places::Listed(listed), Position::Listed(place)) => Ok(Place::listed(listed, place + 1)),
            (Places::Table(root), Position::Table(mut cursor)) => {
                self.table(root).next(&mut cursor)?.then(|| self.at(cursor)).transpose()
            }
            _ => Ok(None),
        }
    }

    /// The block before one.
    fn previous(&self, place: Place) -> Result<Option<Place>> {
        match (&self.places, place.position) {
            (Places::Listed(listed), Position::Listed(place)) => {
                Ok(place.checked_sub(1).and_then(|place| Place::listed(listed, place)))
            }
            (Places::Table(root), Position::Table(mut cursor)) => {
                self.table(root).previous(&mut cursor)?.then(|| self.at(cursor)).transpose()
            }
            _ => Ok(None),
        }
    }

    fn at(&self, cursor: Cursor) -> Result<Place> {
        let row = cursor.row();
        let (first, first_time_ms) = RunBlock::decode_key(row.key)
            .ok_or_else(|| self.parts.index.damaged(0, "a row of a run table is broken"))?;
        let run = RunBlock { block: row.block, first, first_time_ms };
        Ok(Place { run, position: Position::Table(cursor) })
    }

    /// The content of a block.
    pub fn block(&self, place: &Place) -> Result<Bytes> {
        self.parts.data()?.block(BlockKind::Runs, place.run.block)
    }

    /// Damage in a block of the timeline.
    pub fn damaged(&self, place: &Place, what: &str) -> Error {
        let what = format!("{what} (timeline {})", self.name.escape_ascii());
        self.parts.data_damage(place.run.block.at, &what)
    }

    /// The run in a block.
    pub fn run_in<'b>(&self, place: &Place, block: &'b [u8]) -> Result<RunReader<'b>> {
        let at = if place.run.first == self.entry.first { self.entry.run_at as usize } else { 0 };
        RunReader::at(block, at)
            .filter(|run| run.name == self.name)
            .ok_or_else(|| self.damaged(place, "the index refers to a run that is not there"))
    }

    /// Whether a run was read to its end.
    pub fn check_end(&self, place: &Place, run: &RunReader<'_>) -> Result<()> {
        if run.remaining() == 0 {
            Ok(())
        } else {
            Err(self.damaged(place, "a run breaks off before its end"))
        }
    }

    /// Offers the entries from `low` to `high`, ascending.
    pub fn ascending(&mut self, low: Sequence, high: Sequence, out: &mut Collector) -> Result<()> {
        let mut next =
            self.seek(|first, _| first > low)?.map_or_else(|| self.first(), |place| Ok(Some(place)))?;
        while let Some(place) = next {
            let block = self.block(&place)?;
            let mut run = self.run_in(&place, &block)?;
            while let Some((sequence, content)) = run.next_entry() {
                if sequence > high {
                    return Ok(());
                }
                if sequence >= low && !self.offer(&place, sequence, &content, &block, out)? {
                    return Ok(());
                }
            }
            self.check_end(&place, &run)?;
            next = self.next(place)?;
        }
        Ok(())
    }

    /// Offers the entries from `high` to `low`.
    pub fn descending(&mut self, low: Sequence, high: Sequence, out: &mut Collector) -> Result<()> {
        let mut next = self.seek(|first, _| first > high)?;
        while let Some(place) = next {
            let block = self.block(&place)?;
            let mut run = self.run_in(&place, &block)?;
            let mut found = Vec::with_capacity((run.remaining() as usize).min(block.len()));
            while let Some((sequence, content)) = run.next_entry() {
                if (low..=high).contains(&sequence) {
                    found.push((sequence, content));
                }
            }
            self.check_end(&place, &run)?;
            for (sequence, content) in found.iter().rev() {
                if !self.offer(&place, *sequence, content, &block, out)? {
                    return Ok(());
                }
            }
            if place.run.first <= low {
                return Ok(());
            }
            next = self.previous(place)?;
        }
        Ok(())
    }

    /// Offers an entry to the collector. Its body is a slice of its block.
    fn offer(
        &mut self,
        place: &Place,
        sequence: Sequence,
        content: &Content,
        block: &Bytes,
        out: &mut Collector,
    ) -> Result<bool> {
        let (times, body) = match content {
            Content::Inline { times, is_elsewhere: true, .. } if out.needs_body(sequence, times) => {
                return Err(self.damaged(place, "the edit of an entry is in no younger segment"));
            }
            Content::Inline { times, body, .. } => (*times, block.slice(body.clone())),
            Content::Shared { number, own_start_ms } => {
                let (time_ms, expire_at_ms, body) = self.shared(place, *number)?;
                (Times::stored(time_ms, *own_start_ms, expire_at_ms), body)
            }
        };
        Ok(out.offer(sequence, times, || body))
    }

    /// Time, expiry and bytes of a shared body.
    pub fn shared(&mut self, place: &Place, number: u32) -> Result<(TimeMs, TimeMs, Bytes)> {
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

    /// The times of an entry, if it is here.
    pub fn times_of(&mut self, sequence: Sequence) -> Result<Option<Times>> {
        let Some(place) = self.seek(|first, _| first > sequence)? else { return Ok(None) };
        let block = self.block(&place)?;
        let mut run = self.run_in(&place, &block)?;
        while let Some((found, content)) = run.next_entry() {
            if found >= sequence {
                return match content {
                    _ if found > sequence => Ok(None),
                    Content::Inline { times, .. } => Ok(Some(times)),
                    Content::Shared { number, own_start_ms } => {
                        let (time_ms, expire_at_ms, _) = self.shared(&place, number)?;
                        Ok(Some(Times::stored(time_ms, own_start_ms, expire_at_ms)))
                    }
                };
            }
        }
        self.check_end(&place, &run).map(|()| None)
    }

    /// The lowest sequence whose time is `time_ms` or later.
    pub fn sequence_at(&mut self, time_ms: TimeMs) -> Result<Option<Sequence>> {
        // Equal times may stand in the block before the one that starts with them.
        let start = self.seek(|_, first_time_ms| first_time_ms >= time_ms)?;
        let mut next = start.map_or_else(|| self.first(), |place| Ok(Some(place)))?;
        while let Some(place) = next {
            let block = self.block(&place)?;
            let mut run = self.run_in(&place, &block)?;
            let mut entries = Vec::with_capacity((run.remaining() as usize).min(block.len()));
            while let Some(entry) = run.next_entry() {
                entries.push(entry);
            }
            self.check_end(&place, &run)?;
            // By halves: the time of each shared body may stand in a block of its own.
            let (mut low, mut high) = (0, entries.len());
            while low < high {
                let middle = usize::midpoint(low, high);
                let found = match &entries[middle].1 {
                    Content::Inline { times, .. } => times.time_ms,
                    Content::Shared { number, .. } => self.shared(&place, *number)?.0,
                };
                if found < time_ms { low = middle + 1 } else { high = middle }
            }
            if let Some((sequence, _)) = entries.get(low) {
                return Ok(Some(*sequence));
            }
            next = self.next(place)?;
        }
        Ok(None)
    }
}

impl Place {
    fn listed(blocks: &[RunBlock], place: usize) -> Option<Place> {
        Some(Place { run: *blocks.get(place)?, position: Position::Listed(place) })
    }

    /// The sequence and the time that its run starts with, as the index says.
    pub fn start(&self) -> (Sequence, TimeMs) {
        (self.run.first, self.run.first_time_ms)
    }
}
