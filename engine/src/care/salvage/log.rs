//! The content of a damaged directory's log, by timeline: damage is skipped, and segments are not
//! consulted.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;

use super::bodies::ChangedBodies;
use crate::care::finding::Finding;
use crate::error::Result;
use crate::format::manifest::Live;
use crate::format::run::SharedBody;
use crate::format::wal::Record;
use crate::ids::{BODIES, CommitPlace, EngineId, Lsn, Sequence, StoreId, TimeMs, TimelineRef};
use crate::memtable::{Body, Effect};
use crate::segment::SegmentWriter;
use crate::timeline::{Changes, Edit, Floor};
use crate::vfs::Dir;
use crate::wal;
use crate::write::apply::{Flaw, Interpreter, Named, Sink};

/// The whole log after the checkpoint.
#[derive(Default)]
pub struct SalvagedLog {
    /// The bodies.
    bodies: Vec<Body>,
    interpreter: Interpreter,
    /// Its content for each timeline.
    pub timelines: BTreeMap<(StoreId, Vec<u8>), TimelineLog>,
    /// The highest time in it.
    pub last_time_ms: TimeMs,
}

/// The content of the log for one timeline.
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
            match log.record(lsn, record) {
                // Without a checkpoint, records are read that refer to files that were not needed
                // any more: their entries are in segments.
                Err(Flaw::ListLost(at)) if live.is_none() && at < start => Ok(()),
                Err(flaw) => Err(wal::damaged_record(source, &files, lsn, &flaw.to_string())),
                Ok(()) => Ok(()),
            }
        });
        match replayed {
            Ok(tail) => damage.extend(tail.damage),
            Err(shortage) if shortage.is_shortage() => return Err(shortage),
            Err(error) => damage.push(error),
        }
        findings.extend(damage.iter().map(Finding::new));
        Ok(log)
    }

    /// Takes a record. If its list is lost, it takes the timelines that the record names.
    fn record(&mut self, lsn: Lsn, record: &Record<'_>) -> Result<(), Flaw> {
        let tail = Bytes::copy_from_slice(record.tail);
        self.last_time_ms = self.last_time_ms.max(record.time_ms);
        let mut interpreter = std::mem::take(&mut self.interpreter);
        let applied = interpreter.apply(lsn, record, &tail, true, self);
        self.interpreter = interpreter;
        applied
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
    pub fn body(&self, number: u32) -> &Body {
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
            let Body { times, place, bytes, .. } = self.body(number);
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

impl Sink for SalvagedLog {
    fn body(&mut self, body: Body, _: bool) {
        self.bodies.push(body);
    }

    fn entry(&mut self, named: Named<'_>, sequence: Sequence, is_chosen: bool) {
        let number = self.bodies.len() as u32 - 1;
        self.of_timeline(named.timeline).entries.insert(sequence, (number, is_chosen));
    }

    fn change(&mut self, named: Named<'_>, end: Sequence, effect: Effect, place: CommitPlace) {
        match effect {
            Effect::Trim(floor) => {
                let of_timeline = self.changed(named.timeline, end);
                if floor.lowest >= of_timeline.floor.lowest {
                    of_timeline.floor = floor;
                }
            }
            Effect::Remove(ranges) => {
                let changes = &mut self.changed(named.timeline, end).changes;
                ranges.iter().for_each(|(first, last)| changes.remove(*first, *last));
            }
            Effect::Edit(sequence, body) => {
                let edited = &mut self.changed(named.timeline, end).changes.edited;
                edited.insert(sequence, Edit { at: place, body });
            }
            // An id is of use to the client that retries; in the new history it starts over.
            Effect::Id(..) => {}
        }
    }
}
