//! Facts of one timeline: its end, single entries, counts, ids of retries, sequences by time.

use std::collections::BTreeSet;

use super::places::{Met, steps};
use super::reading::Reading;
use super::walk::Part;
use crate::entry::{Entry, Info};
use crate::error::Result;
use crate::format::ids::IdRecord;
use crate::ids::{BODIES, CommitPlace, MAX_SEQUENCE, Sequence, TimeMs};
use crate::timeline::{End, Sight, Times};

impl Reading<'_> {
    /// The end of the timeline, according to the newest place that knows it.
    pub fn end(&self) -> Result<End> {
        if self.key.timeline.name == BODIES {
            return Ok(End::BODIES);
        }
        match steps(self).next() {
            None => Ok(End::NEVER),
            Some(Ok(Met::Step(step))) => Ok(step.end),
            Some(Ok(Met::Hidden(error, _)) | Err(error)) => Err(error),
        }
    }

    /// The end of the timeline, if no file must be read for it.
    pub fn end_near(&self) -> Result<Option<End>> {
        if self.key.timeline.name == BODIES {
            return Ok(Some(End::BODIES));
        }
        let mut memtables = self.view.memtables_below(self.watermark);
        if let Some(look) =
            memtables.find_map(|(memtable, watermark)| memtable.look(self.key, watermark))
        {
            return Ok(Some(look.end));
        }
        let name = self.key.timeline.name;
        for segment in self.view.segments.of(self.key.timeline.store) {
            if !segment.is_near(name) {
                return Ok(None);
            }
            if let Some(entry) = segment.find(name)? {
                return Ok(Some(entry.end));
            }
        }
        Ok(Some(End::NEVER))
    }

    /// Whether [`Reading::id`] needs no file.
    pub fn is_id_near(&self, id: &[u8], from_ms: TimeMs) -> bool {
        let mut segments = self.view.segments.of(self.key.timeline.store).iter();
        segments.all(|segment| segment.is_id_near(self.key.timeline.name, id, from_ms))
    }

    /// The use of a client's id in this timeline. A use before `from_ms` may be missing from the
    /// result.
    pub fn id(&self, id: &[u8], from_ms: TimeMs) -> Result<Option<IdRecord>> {
        for (memtable, watermark) in self.view.memtables_below(self.watermark) {
            if let Some(found) = memtable.id(self.key, id, watermark) {
                return Ok(Some(found));
            }
        }
        for segment in self.view.segments.of(self.key.timeline.store) {
            if let Some(found) = segment.find_id(self.key.timeline.name, id, from_ms)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// The first readable entry at or above a sequence. If that entry is lost to damage, only its
    /// sequence is known.
    pub fn first_from(&self, low: Sequence) -> Result<Option<(Sequence, Times)>> {
        let (_, taken) = self.lowest_from(low)?;
        let lost = taken.lost.first().map(|lost| (lost.first, Times::default()));
        let entry = taken.entries.first().map(|entry| (entry.sequence, taken.last_times));
        Ok(lost.or(entry))
    }

    /// Whether there is a readable entry.
    pub fn has_readable(&self) -> Result<bool> {
        let end = self.end()?;
        Ok(self.first(&end)? <= end.last)
    }

    /// The entry with a sequence.
    pub fn get(&self, sequence: Sequence) -> Result<Option<Entry>> {
        self.newest(sequence, sequence)
    }

    /// The place of the body that the entry with a sequence was written with, if other entries may
    /// share it.
    pub fn body_of(&self, sequence: Sequence) -> Result<Option<CommitPlace>> {
        let (_, taken) =
            self.descend(sequence, sequence, self.one(true, Sight::default()).without_bodies())?;
        Ok(taken.entries.first().and(taken.last_body))
    }

    /// Whether there is an entry with a sequence, readable or lost.
    pub fn has(&self, sequence: Sequence) -> Result<bool> {
        Ok(!self.present(&[sequence])?.is_empty())
    }

    /// The sequences of an ascending list at which there is an entry, readable or lost. It needs
    /// one walk, whatever their number.
    pub fn present(&self, sequences: &[Sequence]) -> Result<BTreeSet<Sequence>> {
        let Some(lowest) = sequences.first() else { return Ok(BTreeSet::new()) };
        let mut walk = self.walk(|span| span.first <= *lowest || self.ends_with(span))?;
        let sight = self.sight(&walk.end, std::mem::take(&mut walk.overlay))?;
        let mut out = self.one(false, sight).without_bodies();
        let mut present = BTreeSet::new();
        for sequence in sequences.iter().filter(|sequence| **sequence <= walk.end.last) {
            let Some(part) = walk.parts.iter().find(|part| part.first() <= *sequence) else {
                continue;
            };
            match part {
                Part::Place(place) => place.read(self, *sequence, *sequence, &mut out)?,
                Part::Gap(gap) => gap.read(*sequence, *sequence, &mut out),
            }
            if out.take()?.reached.is_some() {
                present.insert(*sequence);
            }
        }
        Ok(present)
    }

    /// The newest readable entry.
    pub fn last(&self) -> Result<Option<Entry>> {
        self.newest(0, MAX_SEQUENCE)
    }

    /// Facts of the whole timeline. Walks every place that contains it, and reads those in which
    /// entries are gone or changed.
    pub fn info(&self) -> Result<Info> {
        let mut walk = self.walk(|_| false)?;
        let sight = self.sight(&walk.end, std::mem::take(&mut walk.overlay))?;
        let mut info = Info {
            first: self.first(&walk.end)?,
            last: walk.end.last,
            count: 0,
            body_bytes: 0,
            first_time_ms: 0,
            last_time_ms: 0,
            trimmed_to: self.trimmed_to(&walk.end)?,
        };
        for place in walk.places_ascending() {
            let tally = place.tally(self, &sight)?;
            if tally.count > 0 {
                if info.count == 0 {
                    info.first_time_ms = tally.first_time_ms;
                }
                info.last_time_ms = tally.last_time_ms;
                info.count += tally.count;
                info.body_bytes += tally.body_bytes;
            }
        }
        Ok(info)
    }

    /// The lowest readable sequence with this time or a later one; `last + 1` if there is none.
    pub fn sequence_at(&self, time_ms: TimeMs) -> Result<Sequence> {
        let end = self.end()?;
        let Some(sequence) = self.sequence_at_raw(time_ms)? else { return Ok(end.last + 1) };
        Ok(self.lowest_from(sequence)?.1.lowest().unwrap_or(end.last + 1))
    }

    /// The lowest sequence that was given at this time or later, readable or not.
    fn sequence_at_raw(&self, time_ms: TimeMs) -> Result<Option<Sequence>> {
        // Times do not decrease inside a timeline, so the oldest place whose last time is `time_ms`
        // or later has the answer.
        let walk = self.walk(|span| span.first_time_ms < time_ms)?;
        for part in walk.parts.iter().rev() {
            let found = match part {
                Part::Place(place) if place.span.last_time_ms >= time_ms => {
                    place.sequence_at(self, time_ms)?
                }
                // The times in a gap are unknown: its first sequence may have this time.
                Part::Gap(gap) if gap.latest.time_ms >= time_ms => Some(gap.first),
                _ => None,
            };
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }
}
