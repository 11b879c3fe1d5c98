//! Random operations on the engine and on a plain map, which must answer alike (P1–P4, P11).
//!
//! The map knows for each timeline its entries in order; everything that the engine has beside that (memtables, segments, log
//! files, caches, threads) must not be seen in any answer. Among the operations are a clock that moves either way, flushes,
//! merges, clean stops, kills and power cuts of the simulated disk.
//!
//! A case draws once whether its power may be cut. If so, all its batches are durable on the disk and the map simply keeps
//! everything; if not, batches ask for either durability, and a kill must lose neither.
//!
//! About 20,000 operations; `STRANDLINE_PROOF=long` makes it a million. A failing case is shrunk to the few operations that matter.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::*;
use strandline::clock::ManualClock;
use strandline::vfs::Dir;
use strandline::vfs::simulated::{Cut, Dice, Image, Model, SimulatedDisk};
use strandline::{
    Batch, Durability, Engine, Entry, Limit, MAX_SEQUENCE, Options, Page, Store, Verdict, World,
};

const OPERATIONS_PER_CASE: usize = 250;
const STORES: [&str; 2] = ["messages", "sync"];
const START_MS: u64 = 1_700_000_000_000;

/// Names that sort and share prefixes in odd ways.
const NAMES: [&[u8]; 10] =
    [b"a", b"a\0", b"ab", b"a/1", b"a/10", b"a/2", b"b", b"\xff", b"\xff\xff", &[b'n'; 255]];

/// A timeline: the number of its store and of its name.
type Key = (usize, usize);

/// A sequence, told by where it lies, so that shrinking keeps its meaning.
#[derive(Clone, Copy, Debug)]
enum Place {
    At(u64),
    FromLast(i64),
    Half,
    Highest,
    BehindAll,
}

/// Some bodies, each for some timelines.
#[derive(Clone, Debug)]
struct Sending {
    parts: Vec<(usize, Vec<Key>)>,
    durability: Durability,
}

#[derive(Clone, Debug)]
enum Operation {
    /// Batches submitted at once: one group.
    Send(Vec<Sending>),
    Get(Key, Place),
    Range(Key, Bound<Place>, Bound<Place>, Limit, Direction),
    ReadAfter(Key, Place, Limit),
    Last(Key),
    Info(Key),
    SequenceAt(Key, i64),
    List {
        store: usize,
        prefix: Vec<u8>,
        after: Option<usize>,
        count: usize,
    },
    MoveClock(i64),
    Flush,
    Compact,
    Close,
    Kill,
    /// Only in cases whose power may be cut; elsewhere it is a kill.
    PowerCut(u64),
}

/// A case, which prints an operation a line: what a failure shrinks to is for reading.
#[derive(Clone)]
struct Case(Vec<Operation>);

impl std::fmt::Debug for Case {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|operation| out.write_fmt(format_args!("\n    {operation:?}")))
    }
}

#[derive(Clone, Copy, Debug)]
enum Direction {
    Up,
    Down,
}

fn key() -> impl Strategy<Value = Key> {
    (0..STORES.len(), 0..NAMES.len())
}

fn place() -> impl Strategy<Value = Place> {
    prop_oneof![
        3 => (0..30_u64).prop_map(Place::At),
        3 => (-12..=3_i64).prop_map(Place::FromLast),
        2 => Just(Place::Half),
        1 => Just(Place::Highest),
        1 => Just(Place::BehindAll),
    ]
}

fn bound() -> impl Strategy<Value = Bound<Place>> {
    prop_oneof![place().prop_map(Bound::Included), place().prop_map(Bound::Excluded), Just(Bound::Unbounded)]
}

fn limit() -> impl Strategy<Value = Limit> {
    let entries = prop_oneof![6 => 0..12_usize, 1 => Just(1000), 1 => Just(usize::MAX)];
    let body_bytes = prop_oneof![2 => Just(u64::MAX), 1 => 0..3000_u64];
    (entries, body_bytes, any::<bool>()).prop_map(|(entries, body_bytes, first_always)| Limit {
        entries,
        body_bytes,
        first_always,
    })
}

fn sending() -> impl Strategy<Value = Sending> {
    let body_bytes = prop_oneof![12 => 0..80_usize, 3 => 80..1500_usize, 1 => 1500..20_000_usize];
    let targets = prop_oneof![3 => vec(key(), 1), 1 => vec(key(), 0..8)];
    let durability = prop_oneof![Just(Durability::Disk), Just(Durability::Os)];
    (vec((body_bytes, targets), 0..4), durability)
        .prop_map(|(parts, durability)| Sending { parts, durability })
}

fn operation() -> impl Strategy<Value = Operation> {
    let direction = prop_oneof![Just(Direction::Up), Just(Direction::Down)];
    let prefix = prop_oneof![
        Just(Vec::new()),
        (0..NAMES.len(), 0..4_usize)
            .prop_map(|(name, len)| { NAMES[name].iter().copied().take(len).collect() })
    ];
    prop_oneof![
        40 => vec(sending(), 1..4).prop_map(Operation::Send),
        6 => (key(), place()).prop_map(|(key, place)| Operation::Get(key, place)),
        16 => (key(), bound(), bound(), limit(), direction)
            .prop_map(|(key, low, high, limit, to)| Operation::Range(key, low, high, limit, to)),
        12 => (key(), place(), limit()).prop_map(|(key, place, limit)| Operation::ReadAfter(key, place, limit)),
        3 => key().prop_map(Operation::Last),
        4 => key().prop_map(Operation::Info),
        6 => (key(), -60..60_i64).prop_map(|(key, time)| Operation::SequenceAt(key, time)),
        4 => (0..STORES.len(), prefix, proptest::option::of(0..NAMES.len()), 0..8_usize)
            .prop_map(|(store, prefix, after, count)| Operation::List { store, prefix, after, count }),
        5 => (-20..40_i64).prop_map(Operation::MoveClock),
        3 => Just(Operation::Flush),
        1 => Just(Operation::Compact),
        1 => Just(Operation::Close),
        1 => Just(Operation::Kill),
        1 => (0..1000_u64).prop_map(Operation::PowerCut),
    ]
}

/// An entry as the map has it.
type Row = (u64, Vec<u8>);

/// The engine and the map side by side.
struct Twins {
    power: bool,
    base: Image,
    disk: SimulatedDisk,
    clock: Arc<ManualClock>,
    now_ms: u64,
    engine: Option<Engine>,
    timelines: BTreeMap<Key, Vec<Row>>,
    /// The highest time that the engine gave.
    floor_ms: u64,
    bodies: u64,
}

impl Twins {
    fn new(power: bool) -> Twins {
        let mut twins = Twins {
            power,
            base: Image::default(),
            disk: SimulatedDisk::new(),
            clock: Arc::new(ManualClock::at(START_MS)),
            now_ms: START_MS,
            engine: None,
            timelines: BTreeMap::new(),
            floor_ms: 0,
            bodies: 0,
        };
        twins.open();
        twins
    }

    fn open(&mut self) {
        let options = Options { memory_budget_bytes: 1, wal_file_bytes: 16 * 1024, ..Options::default() };
        let world = World { dir: Dir::new(Arc::new(self.disk.clone())), clock: self.clock.clone() };
        self.engine =
            Some(Engine::open_in(world, options).expect("what a stop or a crash left can be opened"));
        // A time that no entry has is forgotten.
        let times = self.timelines.values().filter_map(|rows| rows.last()).map(|(time_ms, _)| *time_ms);
        self.floor_ms = times.max().unwrap_or(0);
    }

    fn engine(&self) -> &Engine {
        self.engine.as_ref().expect("it is open between operations")
    }

    fn store(&self, key: Key) -> Store {
        self.engine().store(STORES[key.0]).expect("stores are there from the first open")
    }

    fn rows(&self, key: Key) -> &[Row] {
        self.timelines.get(&key).map_or(&[], Vec::as_slice)
    }

    fn last(&self, key: Key) -> u64 {
        self.rows(key).len() as u64
    }

    fn sequence(&self, key: Key, place: Place) -> u64 {
        let last = self.last(key);
        match place {
            Place::At(sequence) => sequence,
            Place::FromLast(distance) => last.saturating_add_signed(distance),
            Place::Half => last / 2,
            Place::Highest => MAX_SEQUENCE,
            Place::BehindAll => u64::MAX,
        }
    }

    fn bound(&self, key: Key, bound: Bound<Place>) -> Bound<u64> {
        bound.map(|place| self.sequence(key, place))
    }

    /// The time of a commit; it counts only if something is committed.
    fn commit_time(&mut self, commits: bool) -> u64 {
        let time_ms = self.floor_ms.max(self.now_ms);
        if commits {
            self.floor_ms = time_ms;
        }
        time_ms
    }

    fn entry(&self, key: Key, sequence: u64) -> Option<Entry> {
        let (time_ms, body) = self.rows(key).get(sequence.checked_sub(1)? as usize)?;
        Some(Entry { sequence, time_ms: *time_ms, body: body.clone().into() })
    }

    fn carry_out(&mut self, operation: &Operation) -> Result<(), TestCaseError> {
        match operation {
            Operation::Send(sendings) => return self.send(sendings),
            Operation::Get(key, place) => {
                let sequence = self.sequence(*key, *place);
                let found = self.store(*key).get(NAMES[key.1], sequence).expect("reads");
                prop_assert_eq!(found, self.entry(*key, sequence));
            }
            Operation::Range(key, low, high, limit, direction) => {
                return self.range(*key, (*low, *high), *limit, *direction);
            }
            Operation::ReadAfter(key, place, limit) => return self.read_after(*key, *place, *limit),
            Operation::Last(key) => {
                let found = self.store(*key).last(NAMES[key.1]).expect("reads");
                prop_assert_eq!(found, self.entry(*key, self.last(*key)));
            }
            Operation::Info(key) => return self.info(*key),
            Operation::SequenceAt(key, distance) => {
                let time_ms = self.now_ms.saturating_add_signed(*distance);
                let found = self.store(*key).sequence_at(NAMES[key.1], time_ms).expect("reads");
                let expected = self.rows(*key).iter().position(|(row_ms, _)| *row_ms >= time_ms);
                prop_assert_eq!(found, expected.map_or(self.last(*key), |place| place as u64) + 1);
            }
            Operation::List { store, prefix, after, count } => {
                return self.list(*store, prefix, after.map(|after| NAMES[after]), *count);
            }
            Operation::MoveClock(distance) => {
                self.now_ms = self.now_ms.saturating_add_signed(*distance);
                self.clock.set(self.now_ms);
            }
            Operation::Flush => {
                self.engine().flush().expect("flushes");
            }
            Operation::Compact => {
                self.engine().compact().expect("merges");
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
        }
        Ok(())
    }

    fn cut_power(&mut self, seed: u64) {
        if self.power {
            let mut model = Model::from_image(&self.base);
            self.disk.log().iter().for_each(|op| model.apply(op, None));
            let cut = Cut::ALL[seed as usize % Cut::ALL.len()];
            self.base = model.power_cut(cut, &mut Dice::new(seed));
            self.disk = SimulatedDisk::from_image(&self.base);
        }
        self.engine = None;
        self.open();
    }

    fn send(&mut self, sendings: &[Sending]) -> Result<(), TestCaseError> {
        let commits = |sending: &Sending| sending.parts.iter().any(|(_, targets)| !targets.is_empty());
        let time_ms = self.commit_time(sendings.iter().any(commits));
        let (mut batches, mut expected) = (Vec::new(), Vec::new());
        for sending in sendings {
            let mut batch =
                Batch::new().durability(if self.power { Durability::Disk } else { sending.durability });
            let mut sequences = Vec::new();
            for (body_bytes, targets) in &sending.parts {
                let body = self.body(*body_bytes);
                let stores: Vec<Store> = targets.iter().map(|key| self.store(*key)).collect();
                let named: Vec<_> =
                    targets.iter().zip(&stores).map(|(key, store)| (store, NAMES[key.1])).collect();
                batch = batch.fan_out(&body, named);
                for key in targets {
                    let rows = self.timelines.entry(*key).or_default();
                    rows.push((time_ms, body.clone()));
                    sequences.push(rows.len() as u64);
                }
            }
            batches.push(batch);
            expected.push(sequences);
        }
        let tickets = self.engine().submit_all(batches);
        for (ticket, sequences) in tickets.into_iter().zip(expected) {
            let receipt = ticket.expect("queued").wait().expect("committed");
            prop_assert_eq!((receipt.time_ms, receipt.sequences), (time_ms, sequences));
        }
        Ok(())
    }

    /// A body unlike any other of its length, as far as its length allows.
    fn body(&mut self, bytes: usize) -> Vec<u8> {
        self.bodies += 1;
        let number = self.bodies.to_le_bytes();
        (0..bytes).map(|at| number[at % 8] ^ (at / 64) as u8).collect()
    }

    fn range(
        &self,
        key: Key,
        bounds: (Bound<Place>, Bound<Place>),
        limit: Limit,
        direction: Direction,
    ) -> Result<(), TestCaseError> {
        let bounds = (self.bound(key, bounds.0), self.bound(key, bounds.1));
        let inside = |sequence: &u64| {
            let above = match bounds.0 {
                Bound::Included(low) => *sequence >= low,
                Bound::Excluded(low) => *sequence > low,
                Bound::Unbounded => true,
            };
            let below = match bounds.1 {
                Bound::Included(high) => *sequence <= high,
                Bound::Excluded(high) => *sequence < high,
                Bound::Unbounded => true,
            };
            above && below
        };
        let mut sequences: Vec<u64> = (1..=self.last(key)).filter(inside).collect();
        let store = self.store(key);
        let page = match direction {
            Direction::Up => store.range(NAMES[key.1], bounds, limit),
            Direction::Down => {
                sequences.reverse();
                store.range_back(NAMES[key.1], bounds, limit)
            }
        };
        let (entries, more) = self.within(key, &sequences, limit);
        let page = page.expect("reads");
        prop_assert_eq!((page.entries, page.more, page.verdict), (entries, more, Verdict::Ok));
        prop_assert_eq!((page.first, page.last), (1, self.last(key)));
        Ok(())
    }

    /// The entries with these sequences that a limit lets through, and whether it kept any back.
    fn within(&self, key: Key, sequences: &[u64], limit: Limit) -> (Vec<Entry>, bool) {
        let (mut entries, mut body_bytes) = (Vec::new(), 0);
        for sequence in sequences {
            let entry = self.entry(key, *sequence).expect("it is in the map");
            body_bytes += entry.body.len() as u64;
            let fits = body_bytes <= limit.body_bytes || (limit.first_always && entries.is_empty());
            if entries.len() >= limit.entries || !fits {
                return (entries, true);
            }
            entries.push(entry);
        }
        (entries, false)
    }

    fn read_after(&self, key: Key, place: Place, limit: Limit) -> Result<(), TestCaseError> {
        let (cursor, last) = (self.sequence(key, place), self.last(key));
        let page = self.store(key).read_after(NAMES[key.1], cursor, limit).expect("reads");
        let sequences: Vec<u64> = (cursor.saturating_add(1)..=last).collect();
        let (entries, more) = self.within(key, &sequences, limit);
        // What was kept back is not passed over; a cursor of another history is brought back to this one.
        let unmoved = if more { cursor } else { last };
        let next = entries.last().map_or(unmoved, |entry| entry.sequence);
        let verdict = if cursor > last { Verdict::Future } else { Verdict::Ok };
        prop_assert_eq!(page, Page { verdict, entries, first: 1, last, next, more });
        Ok(())
    }

    fn info(&self, key: Key) -> Result<(), TestCaseError> {
        let info = self.store(key).info(NAMES[key.1]).expect("reads");
        let rows = self.rows(key);
        let last = self.last(key);
        prop_assert_eq!((info.first, info.last, info.count, info.trimmed_to), (1, last, last, 0));
        prop_assert_eq!(info.body_bytes, rows.iter().map(|(_, body)| body.len() as u64).sum::<u64>());
        let time = |row: Option<&Row>| row.map_or(0, |(time_ms, _)| *time_ms);
        prop_assert_eq!((info.first_time_ms, info.last_time_ms), (time(rows.first()), time(rows.last())));
        Ok(())
    }

    fn list(
        &self,
        store: usize,
        prefix: &[u8],
        after: Option<&[u8]>,
        count: usize,
    ) -> Result<(), TestCaseError> {
        let mut names: Vec<Vec<u8>> = self
            .timelines
            .iter()
            .filter(|(key, rows)| key.0 == store && !rows.is_empty())
            .map(|(key, _)| NAMES[key.1].to_vec())
            .filter(|name| name.starts_with(prefix) && after.is_none_or(|after| name.as_slice() > after))
            .collect();
        names.sort();
        names.truncate(count);
        let listed = self.store((store, 0)).list(prefix, after, count).expect("lists");
        prop_assert_eq!(listed, names);
        Ok(())
    }

    /// Everything, after a clean stop.
    fn compare_all(&mut self) -> Result<(), TestCaseError> {
        self.carry_out(&Operation::Close)?;
        for key in (0..STORES.len()).flat_map(|store| (0..NAMES.len()).map(move |name| (store, name))) {
            let all = Limit::entries(usize::MAX);
            self.range(key, (Bound::Unbounded, Bound::Unbounded), all, Direction::Up)?;
            self.range(key, (Bound::Unbounded, Bound::Unbounded), all, Direction::Down)?;
            self.info(key)?;
        }
        (0..STORES.len()).try_for_each(|store| self.list(store, b"", None, 100))
    }
}

fn cases() -> u32 {
    let long = std::env::var("STRANDLINE_PROOF").is_ok_and(|size| size == "long");
    let operations = if long { 1_000_000 } else { 20_000 };
    (operations / OPERATIONS_PER_CASE) as u32
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: cases(),
        failure_persistence: None,
        max_shrink_iters: 3000,
        ..ProptestConfig::default()
    })]

    #[test]
    fn the_engine_answers_like_a_plain_map(
        power in any::<bool>(),
        // Short cases too, so that stops and cuts meet an engine that has just begun, and so that failures can shrink.
        operations in vec(operation(), 1..2 * OPERATIONS_PER_CASE).prop_map(Case),
    ) {
        let mut twins = Twins::new(power);
        for operation in &operations.0 {
            twins.carry_out(operation)?;
        }
        twins.compare_all()?;
    }
}
