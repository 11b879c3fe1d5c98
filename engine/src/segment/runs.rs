//! Reads one timeline's runs in a segment, in both directions.

use bytes::Bytes;

use super::parts::Parts;
use crate::entry::Collector;
use crate::error::{Error, Result};
use crate::format::block::BlockKind;
use crate::format::index::TimelineEntry;
use crate::format::run::{Content, RunReader, shared_body};
use crate::ids::{Sequence, TimeMs};

/// One timeline's runs in a segment.
pub(super) struct RunsOf<'a> {
    parts: &'a Parts,
    name: &'a [u8],
    entry: &'a TimelineEntry,
    /// The bodies block used last: first number, first number of the next, content. Neighbours often share it.
    bodies: Option<(u32, u32, Bytes)>,
}

impl<'a> RunsOf<'a> {
    /// The runs that an index entry refers to.
    pub fn new(parts: &'a Parts, name: &'a [u8], entry: &'a TimelineEntry) -> RunsOf<'a> {
        RunsOf { parts, name, entry, bodies: None }
    }

    /// The block at a place of the entry's list.
    pub fn block(&self, place: usize) -> Result<Bytes> {
        self.parts.data()?.block(BlockKind::Runs, self.entry.blocks[place].block, &self.parts.cache)
    }

    fn damaged(&self, place: usize, what: &str) -> Error {
        let what = format!("{what} (timeline {})", self.name.escape_ascii());
        self.parts.data_damage(self.entry.blocks[place].block.at, &what)
    }

    /// The run in the block at `place`.
    pub fn run_in<'b>(&self, place: usize, block: &'b [u8]) -> Result<RunReader<'b>> {
        let at = if place == 0 { self.entry.run_at as usize } else { 0 };
        RunReader::at(block, at)
            .filter(|run| run.name == self.name)
            .ok_or_else(|| self.damaged(place, "the index refers to a run that is not there"))
    }

    /// Whether a run was read to its end.
    pub fn check_end(&self, place: usize, run: &RunReader<'_>) -> Result<()> {
        if run.remaining() == 0 {
            Ok(())
        } else {
            Err(self.damaged(place, "a run breaks off before its end"))
        }
    }

    /// Offers the entries from `low` to `high`, ascending.
    pub fn ascending(&mut self, low: Sequence, high: Sequence, out: &mut Collector) -> Result<()> {
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

    /// Offers the entries from `high` to `low`.
    pub fn descending(&mut self, low: Sequence, high: Sequence, out: &mut Collector) -> Result<()> {
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

    /// The lowest sequence whose time is `time_ms` or later.
    pub fn sequence_at(&mut self, time_ms: TimeMs) -> Result<Option<Sequence>> {
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
