//! The times of one timeline's entries in a segment, and the search for a time.
//!
//! The time of an entry with a shared body is kept with the body. If that cannot be read, the time
//! is between those of the neighbours.

use super::runs::{BlockAt, RunEntries, RunsOf};
use crate::error::Result;
use crate::format::run::EntryContent;
use crate::ids::{Sequence, TimeMs};
use crate::timeline::Times;

impl RunsOf<'_> {
    /// The times of an entry, if it is here.
    pub fn times_of(&mut self, sequence: Sequence) -> Result<Option<Times>> {
        let Some(block_at) = self.seek(|first, _| first > sequence)? else { return Ok(None) };
        let block = self.block(&block_at)?;
        let mut run = self.run_in(&block_at, &block)?;
        while let Some((found, content)) = run.next_entry() {
            if found >= sequence {
                return match content {
                    _ if found > sequence => Ok(None),
                    EntryContent::Inline { times, .. } => Ok(Some(times)),
                    EntryContent::Shared { number, own_start_ms } => {
                        let (shared, ..) = self.shared(&block_at, sequence, number)?;
                        Ok(Some(Times::stored(shared.time_ms, own_start_ms, shared.expire_at_ms)))
                    }
                };
            }
        }
        self.check_end(&block_at, &run).map(|()| None)
    }

    /// The time of the closest entry at or before `sequence` whose time can be read, and of the
    /// closest one at or after it.
    pub(super) fn times_around(
        &mut self,
        block_at: &BlockAt,
        sequence: Sequence,
    ) -> Result<(TimeMs, TimeMs)> {
        let RunEntries { found, .. } = self.entries(block_at)?;
        let at = found.partition_point(|(found, _)| *found < sequence);
        Ok((self.time_before(block_at, &found, at), self.time_behind(block_at, &found, at)?))
    }

    pub(super) fn time_before(
        &mut self,
        block_at: &BlockAt,
        found: &[(Sequence, EntryContent)],
        at: usize,
    ) -> TimeMs {
        // The time of the first entry is in the index.
        let known = (1..=at.min(found.len().saturating_sub(1)))
            .rev()
            .find_map(|at| self.time_of(block_at, &found[at]));
        known.unwrap_or(block_at.run.first_time_ms)
    }

    fn time_behind(
        &mut self,
        block_at: &BlockAt,
        found: &[(Sequence, EntryContent)],
        at: usize,
    ) -> Result<TimeMs> {
        if found.get(at).is_some_and(|(sequence, _)| *sequence == block_at.run.first) {
            return Ok(block_at.run.first_time_ms);
        }
        match found[at..].iter().find_map(|entry| self.time_of(block_at, entry)) {
            Some(time_ms) => Ok(time_ms),
            None => self.reach(block_at).map(|(_, time_ms)| time_ms),
        }
    }

    /// The time of an entry, if it can be read.
    fn time_of(
        &mut self,
        block_at: &BlockAt,
        (sequence, content): &(Sequence, EntryContent),
    ) -> Option<TimeMs> {
        match content {
            EntryContent::Inline { times, .. } => Some(times.time_ms),
            EntryContent::Shared { number, .. }
                if self.lost_bodies.as_ref().is_some_and(|lost| lost.contains(number)) =>
            {
                None
            }
            EntryContent::Shared { number, .. } => {
                let time_ms = self
                    .shared(block_at, *sequence, *number)
                    .ok()
                    .map(|(shared, ..)| shared.time_ms);
                if time_ms.is_none() {
                    self.lost_bodies = self.parts.numbers_with(*number).ok();
                }
                time_ms
            }
        }
    }

    /// The lowest sequence whose time is at least `time_ms`; with `around_damage`, the lowest whose
    /// time may be.
    pub fn sequence_at(
        &mut self,
        time_ms: TimeMs,
        around_damage: bool,
    ) -> Result<Option<Sequence>> {
        // Entries with an equal time may be in the block before the one that starts with that time.
        let start = self.seek(|_, first_time_ms| first_time_ms >= time_ms)?;
        let mut next = start.map_or_else(|| self.first(), |block_at| Ok(Some(block_at)))?;
        while let Some(block_at) = next {
            if block_at.run.first_time_ms >= time_ms {
                return Ok(Some(block_at.run.first));
            }
            let RunEntries { found, damage, .. } = self.entries(&block_at)?;
            if let Some((_, error)) = damage.as_ref().filter(|_| !around_damage) {
                return Err(error.clone());
            }
            // A binary search: the time of each shared body may be in a block of its own.
            let (mut low, mut high) = (0, found.len());
            while low < high {
                let middle = usize::midpoint(low, high);
                let time = if around_damage {
                    self.time_behind(&block_at, &found, middle)?
                } else {
                    self.time_at(&block_at, &found[middle])?
                };
                if time < time_ms { low = middle + 1 } else { high = middle }
            }
            if let Some((sequence, _)) = found.get(low) {
                return Ok(Some(*sequence));
            }
            if let Some((from, _)) = damage {
                // The first entry of the block has an earlier time.
                let from = from.max(block_at.run.first + 1);
                let (last, to_ms) = self.reach(&block_at)?;
                if from <= last && to_ms >= time_ms {
                    return Ok(Some(from));
                }
            }
            next = self.next(block_at)?;
        }
        Ok(None)
    }

    fn time_at(
        &mut self,
        block_at: &BlockAt,
        (sequence, content): &(Sequence, EntryContent),
    ) -> Result<TimeMs> {
        match content {
            EntryContent::Inline { times, .. } => Ok(times.time_ms),
            EntryContent::Shared { number, .. } => {
                self.shared(block_at, *sequence, *number).map(|(shared, ..)| shared.time_ms)
            }
        }
    }
}
