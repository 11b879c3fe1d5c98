//! What the log of a damaged directory says, by timeline: read around the damage, without asking segments for anything.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;

use crate::entry::{Changes, Floor, Times};
use crate::error::{Error, Result};
use crate::finding::Finding;
use crate::format::manifest::Live;
use crate::format::wal::{Operation, Record, decode_tail, sequences_of, stamp};
use crate::ids::{EngineId, Lsn, Sequence, StoreId, TimeMs, TimelineRef};
use crate::segment::SegmentWriter;
use crate::vfs::Dir;
use crate::wal;

/// The whole log behind the checkpoint.
#[derive(Default)]
pub struct SalvagedLog {
    /// Times and bytes of each body.
    bodies: Vec<(Times, Bytes)>,
    /// What it says of each timeline.
    pub timelines: BTreeMap<(StoreId, Vec<u8>), TimelineLog>,
    /// The highest time in it.
    pub last_time_ms: TimeMs,
}

/// What the log says of a timeline.
#[derive(Default)]
pub struct TimelineLog {
    /// The number of each entry's body, and whether its sequence was chosen by the caller.
    pub entries: BTreeMap<Sequence, (u32, bool)>,
    /// Removals and edits; the last ones count.
    pub changes: Changes,
    /// The last trim.
    pub floor: Floor,
    /// Where it ended when it was changed.
    pub last: Sequence,
}

impl SalvagedLog {
    /// Reads the log from the checkpoint on; all of it when nothing tells the checkpoint.
    pub fn read(
        source: &Dir,
        engine: EngineId,
        live: Option<&Live>,
        findings: &mut Vec<Finding>,
    ) -> Result<SalvagedLog> {
        let (files, mut damage) = wal::files(source, &source.list()?, engine, true)?;
        if let Some(live) = live {
            damage.extend(wal::check_last(source, live.log_file, &files).err());
        }
        let start = files.first().map_or(Lsn(0), |(file, _)| file.start);
        let checkpoint = live.map_or(start, |live| live.checkpoint);
        let mut log = SalvagedLog::default();
        let replayed = wal::replay(source, &files, checkpoint, true, &mut |lsn, record| {
            let broken = || Error::invalid(format!("a record of the log at {lsn} cannot be read"));
            log.record(record).ok_or_else(broken)
        });
        match replayed {
            Ok(tail) => damage.extend(tail.damage),
            Err(shortage) if shortage.is_shortage() => return Err(shortage),
            Err(error) => damage.push(error),
        }
        findings.extend(damage.iter().map(Finding::new));
        Ok(log)
    }

    fn record(&mut self, record: &Record<'_>) -> Option<()> {
        let tail = Bytes::copy_from_slice(record.tail);
        let operations = decode_tail(&tail)?;
        let (given, ends) = sequences_of(record, &operations)?;
        let (mut sequences, mut ends) = (given.iter().copied(), ends.iter().copied());
        self.last_time_ms = self.last_time_ms.max(record.time_ms);
        for operation in operations {
            match operation {
                Operation::Append { body, stamped, lifetime_ms, targets } => {
                    let number = self.bodies.len() as u32;
                    let mut body = tail.slice(body);
                    if stamped {
                        body = stamp(&body, given.first().copied().unwrap_or(0)).into();
                    }
                    self.bodies.push((Times::new(record.time_ms, record.start_ms, lifetime_ms), body));
                    for (place, timeline) in targets.into_iter().enumerate() {
                        let sequence = sequences.next()?;
                        self.of_timeline(timeline)
                            .entries
                            .insert(sequence, (number, record.chosen && place == 0));
                    }
                }
                Operation::Trim { timeline, floor } => {
                    let of_timeline = self.changed(timeline, ends.next()?);
                    if floor.lowest >= of_timeline.floor.lowest {
                        of_timeline.floor = floor;
                    }
                }
                Operation::Remove { timeline, ranges } => {
                    let changes = &mut self.changed(timeline, ends.next()?).changes;
                    ranges.iter().for_each(|(first, last)| changes.remove(*first, *last));
                }
                Operation::Edit { timeline, sequence, body } => {
                    let changes = &mut self.changed(timeline, ends.next()?).changes;
                    changes.edited.insert(sequence, tail.slice(body));
                }
                // An id is of use to the client that retries, and that one starts over in the new history.
                Operation::Id { .. } => {}
            }
        }
        Some(())
    }

    fn of_timeline(&mut self, timeline: TimelineRef<'_>) -> &mut TimelineLog {
        self.timelines.entry((timeline.store, timeline.name.to_vec())).or_default()
    }

    fn changed(&mut self, timeline: TimelineRef<'_>, last: Sequence) -> &mut TimelineLog {
        let of_timeline = self.of_timeline(timeline);
        of_timeline.last = of_timeline.last.max(last);
        of_timeline
    }

    /// The timelines of a store, by name.
    pub fn of(&self, store: StoreId) -> impl Iterator<Item = (&[u8], &TimelineLog)> {
        let from = self.timelines.range((store, Vec::new())..);
        from.take_while(move |((found, _), _)| *found == store).map(|((_, name), log)| (name.as_slice(), log))
    }

    /// Times and bytes of a body.
    pub fn body(&self, number: u32) -> &(Times, Bytes) {
        &self.bodies[number as usize]
    }

    /// Writes the bodies that several timelines of a store share. Gives their numbers in the segment.
    pub fn write_shared(&self, store: StoreId, writer: &mut SegmentWriter) -> Result<HashMap<u32, u32>> {
        let mut uses: BTreeMap<u32, u32> = BTreeMap::new();
        for (number, _) in self.of(store).flat_map(|(_, timeline)| timeline.entries.values()) {
            *uses.entry(*number).or_default() += 1;
        }
        let mut shared = HashMap::new();
        for (number, _) in uses.into_iter().filter(|(_, uses)| *uses > 1) {
            let (times, body) = self.body(number);
            shared.insert(number, writer.body(times.time_ms, times.expire_at_ms, body)?);
        }
        Ok(shared)
    }
}
