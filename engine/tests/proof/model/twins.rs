//! The engine and the plain map side by side: every operation is applied to both, and the outcomes
//! of batches are compared.
//!
//! It does not know: the results of reads (`reads.rs`), or how operations are drawn.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use strandline::clock::ManualClock;
use strandline::vfs::Dir;
use strandline::vfs::simulated::{self, Dice, Image, Model, SimulatedDisk};
use strandline::{
    Batch, Durability, Engine, Error, MAX_SEQUENCE, Receipt, Snapshot, Store, Trim, World,
};

use super::map::{Now, Row, Timeline, Used};
use super::operations::{
    Cut, Key, Kind, NAMES, Operation, Place, SNAPSHOTS, STORES, Sending, Time,
};
use crate::simulation::fan_out;
use crate::two_stores;

const START_MS: u64 = 1_700_000_000_000;
const BRIEF_TTL_MS: u64 = 90;
const DAY_MS: u64 = 24 * 3600 * 1000;

/// The engine and the map side by side.
pub struct Twins {
    pub kind: Kind,
    base: Image,
    disk: SimulatedDisk,
    clock: Arc<ManualClock>,
    pub now_ms: u64,
    engine: Option<Engine>,
    ttl_ms: [u64; 3],
    gone_before_ms: [u64; 3],
    pub timelines: BTreeMap<Key, Timeline>,
    used: BTreeMap<(Key, u8), Used>,
    /// Snapshots, each with what the map had then.
    snapshots: [Option<(Snapshot, BTreeMap<Key, Timeline>)>; SNAPSHOTS],
    /// What is read now, if not the newest state.
    at: Option<Snapshot>,
    /// The highest time that the engine gave.
    floor_ms: u64,
    bodies: u64,
}

/// The expected outcome of a batch.
#[derive(Debug, PartialEq)]
enum Outcome {
    Receipt(Receipt),
    LastSequence(u64),
    SequenceOrder(u64),
    IdConflict(u64),
    Exhausted,
    Invalid,
}

impl Outcome {
    fn of(result: strandline::Result<Receipt>) -> Outcome {
        match result {
            Ok(receipt) => Outcome::Receipt(receipt),
            Err(Error::LastSequence { last, .. }) => Outcome::LastSequence(last),
            Err(Error::SequenceOrder { last }) => Outcome::SequenceOrder(last),
            Err(Error::IdConflict { sequence }) => Outcome::IdConflict(sequence),
            Err(Error::SequenceExhausted) => Outcome::Exhausted,
            Err(Error::Invalid { .. }) => Outcome::Invalid,
            Err(error) => panic!("no batch here should fail: {error}"),
        }
    }
}

impl Twins {
    pub fn new(kind: Kind) -> Twins {
        let brief = if kind.time == Time::GoesBack { 0 } else { BRIEF_TTL_MS };
        let mut twins = Twins {
            kind,
            base: Image::default(),
            disk: SimulatedDisk::new(),
            clock: Arc::new(ManualClock::at(START_MS)),
            now_ms: START_MS,
            engine: None,
            ttl_ms: [0, two_stores::WEEK_MS, brief],
            gone_before_ms: [0; 3],
            timelines: BTreeMap::new(),
            used: BTreeMap::new(),
            snapshots: [const { None }; SNAPSHOTS],
            at: None,
            floor_ms: 0,
            bodies: 0,
        };
        twins.open();
        twins.engine().create_store(STORES[2], two_stores::ttl(brief)).expect("creates");
        twins
    }

    fn id_window_ms(&self) -> u64 {
        if self.kind.time == Time::GoesBack { DAY_MS } else { 70 }
    }

    fn open(&mut self) {
        self.snapshots = [const { None }; SNAPSHOTS];
        let options = two_stores::options()
            .memory_budget_bytes(1)
            .wal_file_bytes(16 * 1024)
            .id_window(Duration::from_millis(self.id_window_ms()));
        let world = World { dir: Dir::new(Arc::new(self.disk.clone())), clock: self.clock.clone() };
        self.engine = Some(
            Engine::open_in(world, options).expect("what a stop or a crash left can be opened"),
        );
        // A time that no entry has may or may not be forgotten: then the clock continues from
        // there, and a change without an effect reveals it.
        let rows = self.timelines.values().flat_map(|timeline| &timeline.rows);
        let kept_ms = rows.map(|row| row.time_ms).max().unwrap_or(0);
        if kept_ms < self.floor_ms {
            self.set_clock(self.now_ms.max(self.floor_ms));
            let nothing = Batch::new().edit(&self.store((0, 0)), NAMES[0], 0, b"");
            self.engine().submit(nothing).and_then(strandline::Ticket::wait).expect("commits");
            self.floor_ms = self.now_ms;
        }
    }

    fn set_clock(&mut self, now_ms: u64) {
        self.now_ms = now_ms;
        self.clock.set(now_ms);
    }

    pub fn engine(&self) -> &Engine {
        self.engine.as_ref().expect("it is open between operations")
    }

    pub fn store(&self, key: Key) -> Store {
        let store = self.engine().store(STORES[key.0]);
        let store = store.expect("stores are there from the first open");
        self.at.as_ref().map_or_else(|| store.clone(), |snapshot| store.at(snapshot))
    }

    pub fn now(&self, key: Key) -> Now {
        Now {
            now_ms: self.now_ms.max(self.floor_ms),
            ttl_ms: self.ttl_ms[key.0],
            gone_before_ms: self.gone_before_ms[key.0],
        }
    }

    pub fn timeline(&self, key: Key) -> Timeline {
        self.timelines.get(&key).cloned().unwrap_or_default()
    }

    fn timeline_mut(&mut self, key: Key) -> &mut Timeline {
        self.timelines.entry(key).or_default()
    }

    pub fn sequence(&self, key: Key, place: Place) -> u64 {
        let timeline = self.timeline(key);
        match place {
            Place::At(sequence) => sequence,
            Place::FromLast(distance) => timeline.last.saturating_add_signed(distance),
            Place::FromFirst(distance) => timeline.first(self.now(key)).saturating_add(distance),
            Place::Half => timeline.last / 2,
            Place::Highest => MAX_SEQUENCE,
            Place::BehindAll => u64::MAX,
        }
    }

    pub fn carry_out(&mut self, operation: &Operation) -> Result<(), TestCaseError> {
        match operation {
            Operation::Send(sendings) => return self.send(sendings),
            Operation::Trim(key, cut) => return self.trim(*key, *cut),
            Operation::Delete(key, places) => return self.delete(*key, places),
            Operation::TrimWith(key, cut, bytes) => {
                let (trim, store) = (self.cut(*key, *cut), self.store(*key));
                let batch = Batch::new().trim(&store, NAMES[key.1], trim);
                return self
                    .append_with(batch, *key, *bytes, |timeline, now| timeline.trim(trim, now));
            }
            Operation::DeleteWith(key, places, bytes) => {
                let (sequences, store) = (self.places(*key, places), self.store(*key));
                let batch = Batch::new().delete(&store, NAMES[key.1], sequences.clone());
                return self.append_with(batch, *key, *bytes, |timeline, now| {
                    timeline.delete(&sequences, now)
                });
            }
            Operation::Edit(key, place, bytes) => return self.edit(*key, *place, *bytes),
            Operation::Drop(key) => {
                let dropped = self.store(*key).drop_timeline(NAMES[key.1]).expect("drops");
                let now = self.now(*key);
                let removed = self.timeline_mut(*key).trim(Trim::Keep(0), now);
                self.changed(removed > 0);
                prop_assert_eq!(dropped, removed > 0);
            }
            Operation::MoveClock(distance) => {
                let back = self.kind.time == Time::GoesBack;
                let distance = if back { *distance } else { distance.abs() };
                self.set_clock(self.now_ms.saturating_add_signed(distance));
            }
            Operation::SetTtl(store, ttl_ms) => {
                if self.kind.time == Time::TtlChanges {
                    self.engine()
                        .set_store_ttl(STORES[*store], two_stores::ttl(*ttl_ms))
                        .expect("changes");
                    let old_ms = std::mem::replace(&mut self.ttl_ms[*store], *ttl_ms);
                    if old_ms != 0 {
                        let gone_ms = (self.now_ms.max(self.floor_ms) + 1).saturating_sub(old_ms);
                        self.gone_before_ms[*store] = self.gone_before_ms[*store].max(gone_ms);
                    }
                }
            }
            Operation::Snapshot(number) => {
                let snapshot = self.engine().snapshot();
                self.snapshots[*number] = Some((snapshot, self.timelines.clone()));
            }
            Operation::At(number, reading) => return self.read_at(*number, reading),
            Operation::Flush => {
                self.engine().flush().expect("flushes");
                return self.compare_facts();
            }
            Operation::Compact => {
                self.engine().compact().expect("merges");
                return self.compare_facts();
            }
            Operation::Close => {
                self.engine.take().expect("it is open").close().expect("closes");
                self.open();
            }
            Operation::Kill => {
                self.engine = None;
                self.open();
            }
            Operation::PowerCut(seed) => self.cut_power(*seed),
            reading => return self.read(reading),
        }
        Ok(())
    }

    /// A read at a snapshot, unless that was revoked.
    fn read_at(&mut self, number: usize, reading: &Operation) -> Result<(), TestCaseError> {
        let Some((snapshot, timelines)) = self.snapshots[number].take() else { return Ok(()) };
        let probe = self.store((0, 0)).at(&snapshot).end(NAMES[0]);
        if matches!(probe, Err(Error::SnapshotTooOld)) {
            return Ok(());
        }
        let newest = std::mem::replace(&mut self.timelines, timelines);
        self.at = Some(snapshot);
        let read = self.read(reading);
        let timelines = std::mem::replace(&mut self.timelines, newest);
        self.snapshots[number] = self.at.take().map(|snapshot| (snapshot, timelines));
        read
    }

    fn cut_power(&mut self, seed: u64) {
        if self.kind.power {
            let mut model = Model::from_image(&self.base);
            self.disk.log().iter().for_each(|op| model.apply(op, None));
            let cut = simulated::Cut::ALL[seed as usize % simulated::Cut::ALL.len()];
            self.base = model.power_cut(cut, &mut Dice::new(seed));
            self.disk = SimulatedDisk::from_image(&self.base);
        }
        self.engine = None;
        self.open();
    }

    /// Records whether something was committed now.
    fn changed(&mut self, changed: bool) {
        if changed {
            self.floor_ms = self.floor_ms.max(self.now_ms);
        }
    }

    fn send(&mut self, sendings: &[Sending]) -> Result<(), TestCaseError> {
        let time_ms = self.floor_ms.max(self.now_ms);
        let (mut batches, mut expected) = (Vec::new(), Vec::new());
        for sending in sendings {
            let bodies: Vec<Vec<u8>> = sending
                .parts
                .iter()
                .map(|(bytes, _)| self.body(*bytes, sending.id.is_some()))
                .collect();
            let edits: Vec<(Key, u64, Vec<u8>)> = sending
                .edits
                .iter()
                .map(|(key, place, bytes)| {
                    (*key, self.sequence(*key, *place), self.body(*bytes, false))
                })
                .collect();
            let head = sending.parts.iter().flat_map(|(_, targets)| targets).next().copied();
            // They apply to the first append; without one they have no effect.
            let at_head = |place: Option<Place>| {
                head.zip(place).map(|(head, place)| self.sequence(head, place))
            };
            let (if_last, chosen) = (at_head(sending.if_last), at_head(sending.sequence));
            batches.push(self.batch(sending, &bodies, &edits, (if_last, chosen)));
            expected.push(self.expect(sending, &bodies, edits, (if_last, chosen), time_ms));
        }
        let tickets = self.engine().submit_all(batches);
        for (ticket, expected) in tickets.into_iter().zip(expected) {
            prop_assert_eq!(Outcome::of(ticket.and_then(strandline::Ticket::wait)), expected);
        }
        Ok(())
    }

    fn lifetime_ms(&self, sending: &Sending) -> u64 {
        if self.kind.time == Time::OwnExpiry { sending.lifetime_ms } else { 0 }
    }

    fn batch(
        &self,
        sending: &Sending,
        bodies: &[Vec<u8>],
        edits: &[(Key, u64, Vec<u8>)],
        (if_last, chosen): (Option<u64>, Option<u64>),
    ) -> Batch {
        let durability = if self.kind.power { Durability::Disk } else { sending.durability };
        let mut batch = Batch::new()
            .durability(durability)
            .lifetime(two_stores::ttl(self.lifetime_ms(sending)));
        let mut has_list = false;
        for ((_, targets), body) in sending.parts.iter().zip(bodies) {
            let stores: Vec<Store> = targets.iter().map(|key| self.store(*key)).collect();
            let named: Vec<_> =
                targets.iter().zip(&stores).map(|(key, store)| (store, NAMES[key.1])).collect();
            // A batch has one list.
            let by_list = !has_list && named.len() > 1 && body.len() % 2 == 0;
            has_list |= by_list;
            batch = fan_out(batch, self.engine(), body, &named, by_list);
        }
        for (key, sequence, body) in edits {
            batch = batch.edit(&self.store(*key), NAMES[key.1], *sequence, body);
        }
        batch = if_last.into_iter().fold(batch, Batch::if_last);
        batch = chosen.into_iter().fold(batch, Batch::sequence);
        sending.id.into_iter().fold(batch, |batch, id| batch.id([id]))
    }

    /// The map's outcome of a batch, and the batch's effect on the map.
    fn expect(
        &mut self,
        sending: &Sending,
        bodies: &[Vec<u8>],
        edits: Vec<(Key, u64, Vec<u8>)>,
        (if_last, chosen): (Option<u64>, Option<u64>),
        time_ms: u64,
    ) -> Outcome {
        let all =
            sending.parts.iter().zip(bodies).flat_map(|((_, targets), body)| {
                targets.iter().map(move |key| (*key, body.clone()))
            });
        let appends: Vec<(Key, Vec<u8>)> = all.collect();
        let head = appends.first().map(|(key, _)| *key);
        let targets: Vec<Key> = appends.iter().map(|(key, _)| *key).collect();
        let receipt = |sequences, time_ms, duplicate| {
            let mut receipt = Receipt::default();
            (receipt.time_ms, receipt.sequences, receipt.duplicate) =
                (time_ms, sequences, duplicate);
            Outcome::Receipt(receipt)
        };
        if let Some(id) = sending.id
            && let Some(used) = head.and_then(|head| self.used.get(&(head, id)))
            && used.time_ms + self.id_window_ms() > time_ms
        {
            if used.body != bodies[0] || used.targets != targets {
                return Outcome::IdConflict(used.sequences[0]);
            }
            return receipt(used.sequences.clone().into(), used.time_ms, true);
        }
        let last = head.map(|head| self.timeline(head).last);
        if let Some(last) = last.filter(|last| if_last.is_some_and(|wanted| wanted != *last)) {
            return Outcome::LastSequence(last);
        }
        if let Some(last) = last.filter(|last| chosen.is_some_and(|chosen| chosen <= *last)) {
            return Outcome::SequenceOrder(last);
        }
        let Some(sequences) = self.next_sequences(&targets, chosen) else {
            return Outcome::Exhausted;
        };
        let lifetime_ms = self.lifetime_ms(sending);
        let until_ms = if lifetime_ms == 0 { 0 } else { time_ms + lifetime_ms };
        for ((key, body), sequence) in appends.into_iter().zip(&sequences) {
            self.timeline_mut(key).push(Row { sequence: *sequence, time_ms, until_ms, body });
        }
        self.changed(!sequences.is_empty() || !edits.is_empty());
        for (key, sequence, body) in edits {
            self.timeline_mut(key).edit(sequence, &body);
        }
        if let Some((head, id)) = head.zip(sending.id) {
            let used =
                Used { time_ms, body: bodies[0].clone(), targets, sequences: sequences.clone() };
            self.used.insert((head, id), used);
        }
        receipt(sequences.into(), time_ms, false)
    }

    fn next_sequences(&self, targets: &[Key], chosen: Option<u64>) -> Option<Vec<u64>> {
        let mut given: BTreeMap<Key, u64> = BTreeMap::new();
        let mut sequences = Vec::new();
        for key in targets {
            let last = given.get(key).copied().unwrap_or_else(|| self.timeline(*key).last);
            let sequence = chosen.filter(|_| sequences.is_empty()).unwrap_or(last + 1);
            if sequence > MAX_SEQUENCE {
                return None;
            }
            given.insert(*key, sequence);
            sequences.push(sequence);
        }
        Some(sequences)
    }

    /// A body different from any other of its length, as far as its length allows; or one equal to
    /// all others.
    fn body(&mut self, bytes: usize, alike: bool) -> Vec<u8> {
        self.bodies += u64::from(!alike);
        let number = if alike { [7; 8] } else { self.bodies.to_le_bytes() };
        (0..bytes).map(|at| number[at % 8] ^ (at / 64) as u8).collect()
    }

    fn cut(&self, key: Key, cut: Cut) -> Trim {
        match cut {
            Cut::Before(place) => Trim::Before(self.sequence(key, place)),
            Cut::Older(distance) => {
                Trim::Older(self.now(key).now_ms.saturating_add_signed(distance))
            }
            Cut::Keep(count) => Trim::Keep(count),
        }
    }

    fn places(&self, key: Key, places: &[Place]) -> Vec<u64> {
        places.iter().map(|place| self.sequence(key, *place)).collect()
    }

    /// An append to a timeline in the same batch as a removal from it: of both or neither.
    fn append_with(
        &mut self,
        removing: Batch,
        key: Key,
        bytes: usize,
        remove: impl FnOnce(&mut Timeline, Now) -> u64,
    ) -> Result<(), TestCaseError> {
        let (now, body) = (self.now(key), self.body(bytes, false));
        let time_ms = self.floor_ms.max(self.now_ms);
        let batch = removing.append(&self.store(key), NAMES[key.1], &body);
        let outcome = Outcome::of(self.engine().commit(batch));
        let Some(sequences) = self.next_sequences(&[key], None) else {
            prop_assert_eq!(outcome, Outcome::Exhausted);
            return Ok(());
        };
        let timeline = self.timeline_mut(key);
        let removed = remove(timeline, now);
        timeline.push(Row { sequence: sequences[0], time_ms, until_ms: 0, body });
        self.changed(true);
        let sequences = sequences.into();
        let mut receipt = Receipt::default();
        (receipt.time_ms, receipt.sequences, receipt.removed) = (time_ms, sequences, removed);
        prop_assert_eq!(outcome, Outcome::Receipt(receipt));
        Ok(())
    }

    fn trim(&mut self, key: Key, cut: Cut) -> Result<(), TestCaseError> {
        let (now, trim) = (self.now(key), self.cut(key, cut));
        let removed = self.store(key).trim(NAMES[key.1], trim).expect("trims");
        let expected = self.timeline_mut(key).trim(trim, now);
        self.changed(expected > 0);
        prop_assert_eq!(removed, expected);
        Ok(())
    }

    fn delete(&mut self, key: Key, places: &[Place]) -> Result<(), TestCaseError> {
        let now = self.now(key);
        let sequences = self.places(key, places);
        let removed = self.store(key).delete(NAMES[key.1], &sequences).expect("deletes");
        let expected = self.timeline_mut(key).delete(&sequences, now);
        self.changed(expected > 0);
        prop_assert_eq!(removed, expected);
        Ok(())
    }

    fn edit(&mut self, key: Key, place: Place, bytes: usize) -> Result<(), TestCaseError> {
        let (now, sequence, body) =
            (self.now(key), self.sequence(key, place), self.body(bytes, false));
        let edited = self.store(key).edit(NAMES[key.1], sequence, &body).expect("edits");
        let expected = self.timeline(key).readable(now).any(|row| row.sequence == sequence);
        if expected {
            self.timeline_mut(key).edit(sequence, &body);
        }
        self.changed(expected);
        prop_assert_eq!(edited, expected);
        Ok(())
    }
}
