//! Checks that the index and the data of a segment agree (P5): counts a timeline's runs and
//! compares the count with the index entry. The checksum of each block was verified before; an
//! error found here was written wrong, or the block belongs to another file.

use super::damage::About;
use super::reader::Segment;
use super::runs::RunsOf;
use crate::error::{Error, Result};
use crate::format::index::{Footer, TimelineEntry};
use crate::format::run::EntryContent;
use crate::ids::{Sequence, TimeMs};

/// The content of a timeline's runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// The number of entries.
    pub count: u64,
    /// The total length of their bodies in bytes.
    pub body_bytes: u64,
    /// The first sequence.
    pub first: Sequence,
    /// The last sequence.
    pub last: Sequence,
    /// The time of the first entry.
    pub first_time_ms: TimeMs,
    /// The time of the last entry.
    pub last_time_ms: TimeMs,
}

impl Counted {
    /// Counts an entry. Returns an error if its sequence or time is wrong after the entries before
    /// it.
    fn entry(
        &mut self,
        sequence: Sequence,
        time_ms: TimeMs,
        body_bytes: usize,
    ) -> Result<(), &'static str> {
        if self.count == 0 {
            (self.first, self.first_time_ms) = (sequence, time_ms);
        } else if sequence <= self.last {
            return Err("sequences are not in ascending order");
        } else if time_ms < self.last_time_ms {
            return Err("times decrease");
        }
        (self.last, self.last_time_ms) = (sequence, time_ms);
        self.count += 1;
        self.body_bytes += body_bytes as u64;
        Ok(())
    }

    /// The first difference between the count and the index entry, if there is one.
    pub fn contradiction(&self, entry: &TimelineEntry) -> Option<String> {
        let (end, floor) = (&entry.end, &entry.end.floor);
        if self.count != entry.count {
            return Some(format!(
                "the index says {} entries, the data has {}",
                entry.count, self.count
            ));
        }
        if self.count == 0 {
            return None;
        }
        let head = (entry.first, entry.first_time_ms);
        let is_end = self.last == end.last;
        let checks = [
            (
                head == (self.first, self.first_time_ms),
                "the timeline does not start as the index says",
            ),
            (
                self.body_bytes == entry.body_bytes,
                "the bodies have other lengths than the index says",
            ),
            (self.last <= end.last, "the data continues after the last sequence of the index"),
            (
                self.last_time_ms <= end.last_time_ms,
                "the data continues after the last time of the index",
            ),
            (
                !is_end || self.last_time_ms == end.last_time_ms,
                "the timeline does not end when the index says",
            ),
            (self.first >= floor.lowest, "the data holds what the index says was removed"),
        ];
        checks.into_iter().find(|(holds, _)| !holds).map(|(_, what)| what.to_string())
    }
}

impl Segment {
    /// The footer.
    pub fn footer(&self) -> Result<&Footer> {
        Ok(&self.parts()?.footer)
    }

    /// Damage in its index, reported at the end of the file because no more exact position is
    /// known.
    pub fn contradicted(&self, what: &str) -> Error {
        match self.parts() {
            Ok(parts) => parts.index.damaged(self.record().index_bytes, what, About::ALL),
            Err(error) => error,
        }
    }

    /// Reads and counts everything that the segment holds of a timeline. Every shared body must
    /// exist, bodies of edits included.
    pub fn count(&self, name: &[u8], entry: &TimelineEntry) -> Result<Counted> {
        let mut counted = Counted::default();
        for edited in self.edited(entry) {
            self.new_body(name, edited.sequence, edited.body)?;
        }
        let mut runs = RunsOf::new(self.parts()?, name, entry)?;
        let mut place = runs.first()?;
        while let Some(at) = place {
            let block = runs.block(&at)?;
            let mut run = runs.run_in(&at, &block)?;
            let before = counted.count;
            while let Some((sequence, content)) = run.next_entry() {
                let (time_ms, bytes) = match content {
                    EntryContent::Inline { times, body, .. } => (times.time_ms, body.len()),
                    EntryContent::Shared { number, .. } => {
                        let (shared, _, body) = runs.shared(&at, sequence, number)?;
                        (shared.time_ms, body.len())
                    }
                };
                if counted.count == before && at.start() != (sequence, time_ms) {
                    return Err(runs.damaged(&at, "the run does not start as the index says"));
                }
                counted.entry(sequence, time_ms, bytes).map_err(|what| runs.damaged(&at, what))?;
            }
            runs.check_end(&at, &run)?;
            place = runs.next(at)?;
        }
        Ok(counted)
    }
}
