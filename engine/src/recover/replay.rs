//! Replay: rebuilds memtables from the log's records, with the original sequences (P1, P5).
//!
//! A record is applied completely or not at all, except for its operations on stores that were
//! dropped since. A record that contradicts the state is damage: it refuses an open for writing. A
//! read-only open continues after damage: it applies a record whose list is lost to the timelines
//! that the record names, and it keeps the position of each timeline's last entry:
//! since sequences are dense, an entry after the damage shows whether entries before it are
//! missing. A replayed memtable may be larger than the limit: it takes what was in the active and
//! the sealed memtables before.
//!
//! A large log is read by a thread of its own, which also copies its end, while this thread applies
//! what was read. A small one is not worth a thread.
//!
//! ```text
//!  log reader   read and verify groups ──▶ copy what may not be durable
//!                         │ groups, a few at a time
//!  this thread            └──▶ apply their records
//! ```
//!
//! This file does not know files, or where the log ends (`wal/reader.rs`).

use std::collections::{HashMap, HashSet};
use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;

use bytes::Bytes;

use crate::error::{Error, IoOperation, Result};
use crate::format::manifest::Live;
use crate::format::wal::Record;
use crate::ids::{CommitPlace, Lsn, Sequence, StoreId, TimeMs, TimelineRef};
use crate::memtable::{Body, Effect, Group, Memtable, SlotId};
use crate::read::reading::Reading;
use crate::state::view::View;
use crate::timeline::{End, Floor, Key};
use crate::vfs::Dir;
use crate::wal::{self, Files, ReadGroup, RecordTaker, Tail};
use crate::write::apply::{Flaw, Interpreter, Named, Sink};
use crate::write::sequence::Allocator;

/// The length of a log from which on it has a reader of its own.
const LARGE_BYTES: u64 = 4 * 1024 * 1024;

/// The least bytes of groups that are handed over at once, and how often that may be done ahead: a
/// group keeps its file in memory.
const HAND_OVER_BYTES: usize = 256 * 1024;
const HANDED_AHEAD: usize = 1;

/// Reads the log from `from` on, applies it, and copies its end. A large log is copied while it is
/// applied: if a record turns out to be damaged, the copy is dropped.
pub fn replay<C: Send>(
    dir: &Dir,
    log: &Files,
    from: Lsn,
    replay: &mut Replay,
    copy: impl FnOnce(&mut Tail) -> Result<C> + Send,
) -> Result<(Tail, C)> {
    let go_on = replay.continue_after_damage;
    let mut taken = RecordTaker::new(go_on);
    let mut apply = |group: &ReadGroup| {
        taken.group(group, &mut |lsn, record| {
            replay.record(lsn, record).map_err(|what| damage(dir, log, lsn, what))
        })
    };
    let (mut tail, copied) = if length_from(log, from) < LARGE_BYTES {
        let mut tail = wal::read(dir, log, from, go_on, &mut |group| apply(&group))?;
        let copied = copy(&mut tail)?;
        (tail, copied)
    } else {
        let read = |sender: SyncSender<Vec<ReadGroup>>| {
            let mut tail = read_ahead(dir, log, from, go_on, &sender)?;
            drop(sender);
            let copied = copy(&mut tail)?;
            Ok((tail, copied))
        };
        thread::scope(|scope| {
            let (sender, groups) = sync_channel(HANDED_AHEAD);
            let reader = thread::Builder::new()
                .name("strandline-log-reader".into())
                .spawn_scoped(scope, || read(sender))
                .map_err(|error| Error::io(IoOperation::StartThread, &dir.path_of(""), error))?;
            // If it is refused, the reader's next hand-over fails, and it stops.
            let applied = groups.into_iter().flatten().try_for_each(|group| apply(&group));
            let read = reader.join().unwrap_or_else(|panic| resume_unwind(panic));
            applied.and(read)
        })?
    };
    taken.add_to(&mut tail);
    Ok((tail, copied))
}

/// The length of the part of the log's files that is to be read, as far as it is known.
fn length_from(log: &Files, from: Lsn) -> u64 {
    let ends = log.iter().map(|(file, header)| file.start.0.saturating_add(header.second));
    ends.max().unwrap_or(0).saturating_sub(from.0)
}

/// Reads the log, and hands its groups over.
fn read_ahead(
    dir: &Dir,
    log: &Files,
    from: Lsn,
    go_on: bool,
    sender: &SyncSender<Vec<ReadGroup>>,
) -> Result<Tail> {
    let (mut ready, mut bytes) = (Vec::new(), 0);
    let mut hand_over = |group: Option<ReadGroup>| {
        bytes += group.as_ref().map_or(HAND_OVER_BYTES, ReadGroup::bytes);
        ready.extend(group);
        if bytes < HAND_OVER_BYTES {
            return Ok(());
        }
        bytes = 0;
        // Only if the other thread has refused a record: its error is returned.
        sender.send(std::mem::take(&mut ready)).map_err(|_| Error::Closed { what: "not applied" })
    };
    let read = wal::read(dir, log, from, go_on, &mut |group| hand_over(Some(group)));
    // Also what is before a place that cannot be read: what is wrong there is reported first.
    hand_over(None)?;
    read
}

fn damage(dir: &Dir, log: &Files, lsn: Lsn, what: Wrong) -> Error {
    match what {
        Wrong::Failed(error) => error,
        Wrong::Record(what) => wal::damaged_record(dir, log, lsn, &what),
    }
}

/// The reason why a record cannot be replayed.
pub enum Wrong {
    Failed(Error),
    Record(String),
}

/// Applies records to a memtable.
pub struct Replay {
    pub view: View,
    /// The existing stores.
    stores: HashSet<StoreId>,
    /// No store with this id or a higher one was created: store ids come from the counter of file
    /// numbers.
    next_store: u64,
    pub hasher: hashbrown::DefaultHashBuilder,
    allocator: Allocator,
    group: Group,
    pub last_time_ms: TimeMs,
    pub own_starts: bool,
    pub entries: u64,
    /// Whether entries may be missing because of damage: then replay continues, and readers are
    /// informed.
    continue_after_damage: bool,
    /// The lsn of the group that is replayed.
    at: Lsn,
    /// Why the record that is applied cannot be kept.
    wrong: Option<Wrong>,
    interpreter: Interpreter,
    /// The position of each timeline's last entry, if entries may be missing. `None`: entries may
    /// be missing before a sequence that was chosen.
    last_entry_at: HashMap<SlotId, Option<Lsn>>,
}

impl Replay {
    pub fn new(view: View, live: &Live, continue_after_damage: bool) -> Replay {
        Replay {
            view,
            stores: live.stores.iter().map(|store| store.id).collect(),
            next_store: live.next_file,
            hasher: hashbrown::DefaultHashBuilder::default(),
            allocator: Allocator::default(),
            group: Group::default(),
            last_time_ms: 0,
            own_starts: false,
            entries: 0,
            continue_after_damage,
            at: Lsn(0),
            wrong: None,
            interpreter: Interpreter::default(),
            last_entry_at: HashMap::new(),
        }
    }

    /// The timelines whose last entry is in the part of the log from `whole_from` on, in which
    /// nothing is missing: since sequences are dense, these entries show what is missing before.
    /// `None` if nothing is missing. Slots are those of one memtable; if there are several
    /// memtables, the set is empty.
    pub fn whole_since(&mut self, whole_from: Lsn) -> Option<HashSet<SlotId>> {
        let is_one = self.view.sealed.is_empty();
        let whole = std::mem::take(&mut self.last_entry_at)
            .into_iter()
            .filter(|(_, at)| is_one && at.is_some_and(|at| at >= whole_from));
        (whole_from > Lsn(0)).then(|| whole.map(|(slot, _)| slot).collect())
    }

    /// Applies a record completely, or nothing of it.
    fn record(&mut self, lsn: Lsn, record: &Record<'_>) -> Result<(), Wrong> {
        self.at = lsn;
        self.apply(record).inspect_err(|_| {
            self.group.clear();
            self.allocator.fall_back(0);
        })
    }

    fn apply(&mut self, record: &Record<'_>) -> Result<(), Wrong> {
        if !self.view.active.may_start_at(record.start_ms) {
            self.seal();
        }
        let tail = self.group.keep(record.tail, || Bytes::copy_from_slice(record.tail));
        let mut interpreter = std::mem::take(&mut self.interpreter);
        let in_part = self.continue_after_damage;
        let applied = interpreter.apply(self.at, record, &tail, in_part, self);
        self.interpreter = interpreter;
        let lost = match applied {
            Err(flaw @ Flaw::ListLost(_)) if in_part => Some(flaw),
            applied => applied.map(|()| None).map_err(|flaw| Wrong::Record(flaw.to_string()))?,
        };
        self.wrong.take().map_or(Ok(()), Err)?;
        // The open makes replayed groups durable before it serves them. Nothing reads yet, so no
        // history is needed: all of it is settled.
        self.view.active.apply(&mut self.group, self.at, Lsn(u64::MAX));
        self.view.active.started_at(record.start_ms);
        self.own_starts |= record.start_ms != record.time_ms;
        self.allocator.settle();
        self.last_time_ms = self.last_time_ms.max(record.time_ms);
        lost.map_or(Ok(()), |flaw| Err(Wrong::Record(flaw.to_string())))
    }

    /// Seals the memtable, as the commit path does if lifetimes begin earlier than the previous
    /// ones.
    fn seal(&mut self) {
        self.view.active.seal(self.at);
        let sealed = std::mem::replace(&mut self.view.active, Arc::new(Memtable::new(self.at)));
        self.view.sealed.insert(0, sealed);
        self.allocator.begin(&self.view.active);
    }

    /// Whether a store was dropped since the record was written.
    fn is_dropped(&self, store: StoreId) -> Result<bool, Wrong> {
        let is_known = self.stores.contains(&store);
        if is_known || u64::from(store.0) < self.next_store {
            return Ok(!is_known);
        }
        Err(Wrong::Record(format!("it names store {}, which is not in the manifest", store.0)))
    }

    /// The timeline's slot, created if it has none. If a damaged segment hides the end of the
    /// timeline, its `last` sequence according to the record is used; readers get the damage when
    /// they need older entries.
    fn slot(&self, timeline: TimelineRef<'_>, last: Sequence) -> Result<SlotId, Wrong> {
        let key = Key::new(&self.hasher, timeline);
        let memtable = &self.view.active;
        if let Some(slot) = memtable.find(key) {
            return Ok(slot);
        }
        let end = match Reading::for_commit(&self.view, key).end() {
            Ok(end) => end,
            Err(error) if error.is_damage() => End { last, ..End::NEVER },
            Err(error) => return Err(Wrong::Failed(error)),
        };
        Ok(memtable.insert(key, end))
    }

    fn take_entry(
        &mut self,
        timeline: TimelineRef<'_>,
        sequence: Sequence,
        is_chosen: bool,
    ) -> Result<(), Wrong> {
        if self.is_dropped(timeline.store)? {
            return Ok(());
        }
        let slot = self.slot(timeline, sequence.saturating_sub(1))?;
        let last = self.allocator.last(slot, &self.view.active);
        if sequence > last + 1 && !is_chosen {
            if !self.continue_after_damage {
                return Err(Wrong::Record(format!(
                    "{timeline:?} jumps from sequence {last} to {sequence}"
                )));
            }
            let floor = self.view.active.end_of(slot).floor;
            let effect = Effect::Trim(Floor { trimmed_to: sequence - 1, ..floor });
            self.group.effect(slot, effect, CommitPlace::default());
        }
        if !self.allocator.take(slot, &self.view.active, sequence) {
            return Err(Wrong::Record(format!(
                "sequence {sequence} of {timeline:?} was assigned before"
            )));
        }
        self.group.entry(slot, sequence);
        if self.continue_after_damage {
            let at = self.last_entry_at.entry(slot).or_insert(Some(self.at));
            *at = at.and(Some(self.at).filter(|_| !is_chosen || sequence == last + 1));
        }
        self.entries += 1;
        Ok(())
    }

    fn take_change(
        &mut self,
        timeline: TimelineRef<'_>,
        end: Sequence,
        effect: Effect,
        place: CommitPlace,
    ) -> Result<(), Wrong> {
        if !self.is_dropped(timeline.store)? {
            let slot = self.slot(timeline, end)?;
            self.group.effect(slot, effect, place);
        }
        Ok(())
    }
}

impl Sink for Replay {
    fn body(&mut self, body: Body, is_copy: bool) {
        if is_copy {
            self.group.hold(body.bytes.len());
        }
        self.group.body(body);
    }

    fn entry(&mut self, named: Named<'_>, sequence: Sequence, is_chosen: bool) {
        if self.wrong.is_none() {
            self.wrong = self.take_entry(named.timeline, sequence, is_chosen).err();
        }
    }

    fn change(&mut self, named: Named<'_>, end: Sequence, effect: Effect, place: CommitPlace) {
        if self.wrong.is_none() {
            self.wrong = self.take_change(named.timeline, end, effect, place).err();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::manifest::StoreRecord;
    use crate::format::wal::TailWriter;
    use crate::state::view::SegmentSet;

    const A: TimelineRef<'_> = TimelineRef { store: StoreId(1), name: b"a" };
    const B: TimelineRef<'_> = TimelineRef { store: StoreId(1), name: b"b" };

    fn append(replay: &mut Replay, targets: &[TimelineRef<'_>], sequences: &[Sequence]) -> bool {
        let mut writer = TailWriter::default();
        writer.body(b"body");
        writer.append((false, false), 0, targets.len());
        for target in targets {
            writer.timeline(*target);
        }
        let (tail, _) = writer.finish();
        let record = Record {
            time_ms: 1,
            start_ms: 1,
            chosen: false,
            sequences: sequences.to_vec(),
            list: None,
            tail: &tail,
        };
        replay.record(Lsn(0), &record).is_ok()
    }

    #[test]
    fn a_record_that_fails_halfway_leaves_nothing() {
        let active = Arc::new(Memtable::new(Lsn(0)));
        let view = View { active, sealed: Vec::new(), segments: SegmentSet::default() };
        let stores = vec![StoreRecord::new(StoreId(1), "messages", 0)];
        let mut replay = Replay::new(view, &Live { stores, ..Live::default() }, true);
        assert!(append(&mut replay, &[B], &[1]));
        assert!(!append(&mut replay, &[A, B], &[1, 1]), "the sequence was given before");
        assert!(!append(&mut replay, &[A], &[1, 2]), "more sequences than it needs");
        assert!(append(&mut replay, &[A, B], &[1, 2]), "and none of it was given");
        let last = |timeline| {
            let slot = replay.view.active.find(Key::new(&replay.hasher, timeline));
            replay.view.active.end_of(slot.expect("it has a slot")).last
        };
        assert_eq!((last(A), last(B)), (1, 2));
        // In the commit the second record took the second place, whatever became of it here.
        let place = |body| replay.view.active.body(body).place;
        assert_eq!((place(0), place(1)), (CommitPlace(1), CommitPlace(3)));
    }
}
