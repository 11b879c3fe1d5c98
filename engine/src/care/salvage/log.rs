//! The content of a damaged directory's log, by timeline: damage is skipped, and segments are not
//! consulted.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;

use super::bodies::ChangedBodies;
use crate::care::finding::Finding;
use crate::error::{Error, Result};
use crate::format::manifest::Live;
use crate::format::run::SharedBody;
use crate::format::wal::{Operation, Record, decode_tail, sequences_of, stamp};
use crate::ids::{BODIES, CommitPlace, EngineId, Lsn, Sequence, StoreId, TimeMs, TimelineRef};
use crate::segment::SegmentWriter;
use crate::timeline::{Changes, Edit, Floor, Times};
use crate::vfs::Dir;
use crate::wal;

/// The whole log after the checkpoint.
#[derive(Default)]
pub struct SalvagedLog {
    /// The bodies.
    bodies: Vec<LoggedBody>,
    /// The group that is read, and the number of bodies and edits in it so far.
    at: (Lsn, u64),
    /// Its content for each timeline.
    pub timelines: BTreeMap<(StoreId, Vec<u8>), TimelineLog>,
    /// The highest time in it.
    pub last_time_ms: TimeMs,
}

/// A body in the log.
pub struct LoggedBody {
    /// Its commit time, and the lifetime of its entries.
    pub times: Times,
    /// The place of its commit.
    pub place: CommitPlace,
    /// Its bytes.
    pub bytes: Bytes,
}

/// The log's content for one timeline.
#[derive(Default)]
pub struct TimelineLog {
    /// The number of each entry's body, and whether its sequence was chosen by the caller.
    pub entries: BTreeMap<Sequence, (u32, bool)>,
    /// Removals and edits; the last ones count.
    pub changes: Changes,
    /// The last trim.
    pub floor: Floor,
    /// The highest sequence of the timeline when it was changed.
    pub last: Sequence,
}

impl SalvagedLog {
    /// Reads the log from the checkpoint on; all of it if the checkpoint is unknown.
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
            log.record(lsn, record).ok_or_else(broken)
        });
        match replayed {
            Ok(tail) => damage.extend(tail.damage),
            Err(shortage) if shortage.is_shortage() => return Err(shortage),
            Err(error) => damage.push(error),
        }
        findings.extend(damage.iter().map(Finding::new));
        Ok(log)
    }

    fn record(&mut self, lsn: Lsn, record: &Record<'_>) -> Option<()> {
        if self.at.0 != lsn {
            self.at = (lsn, 0);
        }
        let tail = Bytes::copy_from_slice(record.tail);
        let operations = decode_tail(&tail)?;
        let (given, ends) = sequences_of(record, &operations)?;
        let (mut sequences, mut ends) = (given.iter().copied(), ends.iter().copied());
        self.last_time_ms = self.last_time_ms.max(record.time_ms);
        // As in the commit path, appends come first.
        let is_append = |operation: &Operation<'_>| matches!(operation, Operation::Append { .. });
        let (appends, changes): (Vec<_>, Vec<_>) = operations.into_iter().partition(is_append);
        for operation in appends.into_iter().chain(changes) {
            match operation {
                Operation::Append { targets, .. } if targets.is_empty() => {}
                Operation::Append { body, stamped, lifetime_ms, targets } => {
                    let number = self.bodies.len() as u32;
                    let mut body = tail.slice(body);
                    if stamped {
                        body = stamp(&body, given.first().copied().unwrap_or(0)).into();
                    }
                    let times = Times::new(record.time_ms, record.start_ms, lifetime_ms);
                    let place = self.place();
                    self.bodies.push(LoggedBody { times, place, bytes: body });
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
                    let end = ends.next()?;
                    // As in the commit path: an entry that gets this sequence later is another
                    // entry.
                    if sequence <= end {
                        let edit = Edit { at: self.place(), body: tail.slice(body) };
                        self.changed(timeline, end).changes.edited.insert(sequence, edit);
                    }
                }
                // An id is useful only to the client that retries, and that client starts over in
                // the new history.
                Operation::Id { .. } => {}
            }
        }
        Some(())
    }

    /// The place of the next body or edit, counted as in the commit path.
    fn place(&mut self) -> CommitPlace {
        self.at.1 += 1;
        let (lsn, number) = self.at;
        CommitPlace(lsn.0 + number)
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
        let of_store = from.take_while(move |((found, _), _)| *found == store);
        of_store.map(|((_, name), log)| (name.as_slice(), log)).filter(|(name, _)| *name != BODIES)
    }

    /// The changes of shared bodies of a store.
    pub fn changed_bodies(&self, store: StoreId) -> impl Iterator<Item = (&Sequence, &Edit)> {
        let found = self.timelines.get(&(store, BODIES.to_vec()));
        found.into_iter().flat_map(|timeline| &timeline.changes.edited)
    }

    /// A body.
    pub fn body(&self, number: u32) -> &LoggedBody {
        &self.bodies[number as usize]
    }

    /// Writes the bodies that several timelines of a store share, in their current form. Returns
    /// their numbers in the segment.
    pub fn write_shared(
        &self,
        store: StoreId,
        changed: &ChangedBodies,
        writer: &mut SegmentWriter,
    ) -> Result<HashMap<u32, u32>> {
        let mut uses: BTreeMap<u32, u32> = BTreeMap::new();
        for (number, _) in self.of(store).flat_map(|(_, timeline)| timeline.entries.values()) {
            *uses.entry(*number).or_default() += 1;
        }
        let mut shared = HashMap::new();
        for (number, _) in uses.into_iter().filter(|(_, uses)| *uses > 1) {
            let LoggedBody { times, place, bytes } = self.body(number);
            let Some(body) = changed.now(Some(*place), Lsn(0), bytes) else { continue };
            let known = SharedBody {
                time_ms: times.time_ms,
                expire_at_ms: times.expire_at_ms,
                place: None,
            };
            shared.insert(number, writer.body(known, body)?);
        }
        Ok(shared)
    }
}
