//! Assembles one timeline from the readable parts of segments and the log.

use std::collections::HashMap;
use std::path::PathBuf;

use super::bodies::{ChangedBodies, LastChanges};
use super::log::{SalvagedLog, TimelineLog};
use crate::care::finding::Finding;
use crate::error::{Error, Result};
use crate::format::index::Edited;
use crate::ids::{CommitPlace, Lsn, Sequence};
use crate::memtable::Body;
use crate::segment::{Left, ReadablePart, Remains, SegmentWriter};
use crate::timeline::{Changes, End, Floor, Times};

/// The state of a segment's data according to the manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Data {
    There,
    /// All of it has expired, so nothing is missing.
    Expired,
    /// None of it was visible any more, so nothing is missing.
    Dead,
}

/// A segment that entries are taken from.
pub struct SalvagedSegment {
    /// Its readable content.
    pub remains: Remains,
    /// Its data file.
    pub path: PathBuf,
    /// The state of its data according to the manifest.
    pub data: Data,
    /// Changes of bodies below this lsn are applied to its content.
    pub changed_to: Lsn,
    /// The numbers of its shared bodies in the new segment.
    pub numbers: HashMap<u32, u32>,
}

const IN_NO_FILE: &str = "these entries are in no file that can be read";

/// A timeline that is written to the new segment.
pub struct SalvagedTimeline<'a> {
    store: &'a str,
    name: &'a [u8],
    writer: &'a mut SegmentWriter,
    findings: &'a mut Vec<Finding>,
    bodies: &'a ChangedBodies,
    /// All removed sequences.
    removed: Changes,
    edits: LastChanges<Sequence>,
    end: End,
    /// The first entry that was written.
    first: Option<(Sequence, Times)>,
    written: Sequence,
    /// The number of the last shared body: numbers must not decrease.
    shared: u32,
    has_lost: bool,
}

impl<'a> SalvagedTimeline<'a> {
    /// A timeline without content so far.
    pub fn new(
        (store, name): (&'a str, &'a [u8]),
        bodies: &'a ChangedBodies,
        writer: &'a mut SegmentWriter,
        findings: &'a mut Vec<Finding>,
    ) -> SalvagedTimeline<'a> {
        SalvagedTimeline {
            store,
            name,
            writer,
            findings,
            bodies,
            removed: Changes::default(),
            edits: LastChanges::default(),
            end: End::NEVER,
            first: None,
            written: 0,
            shared: 0,
            has_lost: false,
        }
    }

    /// Writes the content of the parts, given in the order of `sources`, and of the log.
    pub fn save(
        mut self,
        sources: &mut [SalvagedSegment],
        mut parts: Vec<(usize, ReadablePart)>,
        log: Option<(&TimelineLog, &SalvagedLog, &HashMap<u32, u32>)>,
    ) -> Result<()> {
        for (at, part) in &parts {
            self.take_in(&mut sources[*at], part);
        }
        if let Some((TimelineLog { changes, floor, .. }, ..)) = log {
            changes.removed.iter().for_each(|(first, last)| self.removed.remove(*first, *last));
            for (sequence, edit) in &changes.edited {
                self.edits.add(*sequence, edit.at, Some(edit.body.clone()));
            }
            self.floor(*floor);
        }
        self.writer.begin(self.name);
        let first =
            |part: &ReadablePart| part.entry.as_ref().map(|entry| entry.first).or(part.first);
        // After an interrupted merge its inputs may exist beside its output: the output, which is
        // the younger file, goes first.
        parts.sort_by_key(|(at, part)| (first(part), usize::MAX - at));
        for (at, part) in &parts {
            self.part(&mut sources[*at], part)?;
        }
        if let Some((timeline, log, shared)) = log {
            self.log(timeline, log, shared)?;
        }
        let trimmed_to = self.end.floor.trimmed_to;
        let lost_to =
            |bound: Sequence| if self.has_lost { trimmed_to.max(bound) } else { trimmed_to };
        self.end.floor = match self.first {
            Some((lowest, Times { start_ms, expire_at_ms: until_ms, .. })) => {
                Floor { lowest, start_ms, until_ms, trimmed_to: lost_to(lowest - 1) }
            }
            None => Floor {
                lowest: self.end.last + 1,
                start_ms: 0,
                until_ms: 0,
                trimmed_to: lost_to(self.end.last),
            },
        };
        self.writer.end(self.end)
    }

    fn floor(&mut self, floor: Floor) {
        self.end.floor.lowest = self.end.floor.lowest.max(floor.lowest);
        self.end.floor.trimmed_to = self.end.floor.trimmed_to.max(floor.trimmed_to);
    }

    /// Adds the timeline's end in a part, and the part's changes of older ones.
    fn take_in(&mut self, source: &mut SalvagedSegment, part: &ReadablePart) {
        let Some(entry) = &part.entry else { return };
        self.floor(entry.end.floor);
        if source.data == Data::Expired {
            self.end.floor.trimmed_to = self.end.floor.trimmed_to.max(entry.dropped_to());
        }
        self.end.last = self.end.last.max(entry.end.last);
        self.end.last_time_ms = self.end.last_time_ms.max(entry.end.last_time_ms);
        entry.removed.iter().for_each(|(first, last)| self.removed.remove(*first, *last));
        for Edited { sequence, body: number, at, .. } in entry.edited.iter() {
            let body = source.remains.shared(*number).map(|left| left.body);
            // If the data is gone because it expired or was dead, no entry needs the body.
            if body.is_some() || source.data == Data::There {
                self.edits.add(*sequence, *at, body);
            }
        }
    }

    fn part(&mut self, source: &mut SalvagedSegment, part: &ReadablePart) -> Result<()> {
        let mut count = 0;
        let SalvagedSegment { remains, numbers, changed_to, .. } = source;
        let changed_to = *changed_to;
        remains.for_each(part, |sequence, left| {
            count += 1;
            let number = left.shared.and_then(|number| numbers.get(&number).copied());
            self.entry(sequence, &left, number, changed_to)
        })?;
        if let Some(entry) =
            part.entry.as_ref().filter(|entry| source.data == Data::There && count < entry.count)
        {
            let what = format!("{} of {} entries cannot be read", entry.count - count, entry.count);
            self.lost(source.path.clone(), &what, (entry.first, entry.end.last));
        }
        Ok(())
    }

    fn log(
        &mut self,
        timeline: &TimelineLog,
        log: &SalvagedLog,
        shared: &HashMap<u32, u32>,
    ) -> Result<()> {
        for (sequence, (number, chosen)) in &timeline.entries {
            let next = self.end.last + 1;
            if *sequence > next && !chosen {
                self.lost(PathBuf::new(), IN_NO_FILE, (next, sequence - 1));
            }
            let Body { times, place, bytes, .. } = log.body(*number);
            let (times, place, body) = (*times, Some(*place), bytes.clone());
            let left = Left { times, body, shared: None, place, is_elsewhere: false };
            self.entry(*sequence, &left, shared.get(number).copied(), Lsn(0))?;
            self.end.last = self.end.last.max(*sequence);
            self.end.last_time_ms = self.end.last_time_ms.max(times.time_ms);
        }
        let next = self.end.floor.lowest.max(self.end.last + 1);
        if timeline.last >= next {
            self.lost(PathBuf::new(), IN_NO_FILE, (next, timeline.last));
        }
        self.end.last = self.end.last.max(timeline.last);
        Ok(())
    }

    /// Writes an entry, unless it was written already or removed.
    fn entry(
        &mut self,
        sequence: Sequence,
        left: &Left,
        number: Option<u32>,
        changed_to: Lsn,
    ) -> Result<()> {
        let is_gone = sequence < self.end.floor.lowest || self.removed.removes(sequence);
        if sequence <= self.written || is_gone {
            return Ok(());
        }
        self.written = sequence;
        let changed_at = self.bodies.changed_at(left.place, changed_to);
        let is_open =
            |at: CommitPlace| left.place.is_none() || left.is_elsewhere || Lsn(at.0) >= changed_to;
        let edited = self.edits.get(&sequence).filter(|edit| is_open(edit.at));
        let edited = edited.filter(|edit| changed_at.is_none_or(|at| at < edit.at));
        let own = self
            .bodies
            .now(left.place, changed_to, &left.body)
            .filter(|_| !left.is_elsewhere || changed_at.is_some());
        let is_edited = edited.is_some();
        let Some(body) = edited.map_or(own, |edit| edit.body.as_ref()) else {
            self.end.last = self.end.last.max(sequence);
            let what = "the new body of an edited entry is in no file that can be read";
            self.lost(PathBuf::new(), what, (sequence, sequence));
            return Ok(());
        };
        self.first.get_or_insert((sequence, left.times));
        // If the index is lost, the end is known from the entries only.
        self.end.last = self.end.last.max(sequence);
        self.end.last_time_ms = self.end.last_time_ms.max(left.times.time_ms);
        match number {
            Some(number) if !is_edited && number >= self.shared => {
                self.shared = number;
                self.writer.shared(sequence, number, left.times.own_start_ms())
            }
            _ => self.writer.inline(sequence, left.times, None, body),
        }
    }

    fn lost(&mut self, path: PathBuf, what: &str, sequences: (Sequence, Sequence)) {
        self.has_lost = true;
        let timeline = Some((self.store.to_string(), self.name.to_vec()));
        let error = Error::corrupt(path, 0, what);
        self.findings.push(Finding {
            timeline,
            sequences: Some(sequences),
            ..Finding::new(&error)
        });
    }
}
