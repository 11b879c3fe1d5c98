//! Any bytes as calls to an engine, which must return the same results as a plain map.
//!
//! The engine is on a simulated disk: reopening, killing the process and cutting the power are
//! calls like others. Every append is waited for, so all of them must be there after each.
//!
//! Checked: sequences, times and bodies of ranges in both directions, single entries, cursors with
//! their verdicts, infos, and the list of names.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use strandline::clock::ManualClock;
use strandline::vfs::Dir;
use strandline::vfs::simulated::{Cut, Dice, Model, SimulatedDisk};
use strandline::{Batch, Engine, Limit, NewStore, Options, Store, Verdict, World};

/// Limit of calls per input, so that an input cannot run for ever.
const MOST_CALLS: usize = 60;
/// Limit of openings, which cost threads.
const MOST_OPENINGS: usize = 4;

/// The expected content of every timeline, by store and name: time and body, in sequence order.
type Expected = BTreeMap<(usize, Vec<u8>), Vec<(u64, Vec<u8>)>>;

/// The names of the stores and their TTLs in milliseconds. No call moves the clock that far.
const STORES: [(&str, Option<Duration>); 2] =
    [("messages", None), ("sync", Some(Duration::from_hours(7 * 24)))];

/// Bytes as small numbers; zeros after the end.
struct Input<'a> {
    bytes: &'a [u8],
}

impl Input<'_> {
    fn next(&mut self) -> u8 {
        let Some((first, rest)) = self.bytes.split_first() else { return 0 };
        self.bytes = rest;
        *first
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::from(self.next()) % bound
    }

    fn timeline(&mut self) -> (usize, Vec<u8>) {
        let byte = self.next();
        (usize::from(byte & 1), format!("t{}", byte >> 1 & 7).into_bytes())
    }

    fn body(&mut self) -> Vec<u8> {
        let byte = self.next();
        let len = match byte & 7 {
            0 => 0,
            1..=5 => usize::from(byte),
            6 => 1000,
            _ => 20_000,
        };
        vec![byte; len]
    }
}

struct Life {
    disk: SimulatedDisk,
    /// The content of the disk below the log of this life.
    base: Model,
    clock: Arc<ManualClock>,
    engine: Option<Engine>,
    openings: usize,
    expected: Expected,
}

/// Runs the calls that the bytes encode.
pub fn operations(bytes: &[u8]) {
    let mut input = Input { bytes };
    let disk = SimulatedDisk::new();
    let clock = Arc::new(ManualClock::at(1_700_000_000_000));
    let mut world = Life {
        disk,
        base: Model::default(),
        clock,
        engine: None,
        openings: 0,
        expected: Expected::new(),
    };
    world.open();
    for _ in 0..MOST_CALLS {
        if input.bytes.is_empty() {
            break;
        }
        world.call(&mut input);
    }
    world.check_all();
}

impl Life {
    fn open(&mut self) {
        let options = Options::default()
            .memory_budget_bytes(1)
            .wal_file_bytes(8 * 1024)
            .stores(STORES.map(|(name, ttl)| NewStore::new(name, ttl)));
        let world = World { dir: Dir::new(Arc::new(self.disk.clone())), clock: self.clock.clone() };
        self.engine = Some(Engine::open_in(world, options).expect("opens"));
        self.openings += 1;
    }

    fn engine(&self) -> &Engine {
        self.engine.as_ref().expect("an engine is open between calls")
    }

    fn store(&self, number: usize) -> Store {
        self.engine().store(STORES[number].0).expect("both stores are there from the start")
    }

    fn call(&mut self, input: &mut Input<'_>) {
        match input.below(16) {
            0..=3 => {
                let target = input.timeline();
                self.send(&input.body(), &[target]);
            }
            4..=6 => {
                let body = input.body();
                let targets: Vec<_> = (0..=input.below(12)).map(|_| input.timeline()).collect();
                self.send(&body, &targets);
            }
            7 => self.engine().flush().expect("flushes"),
            8 => self.engine().compact().expect("merges"),
            9 => self.clock.set(1_700_000_000_000 + 1000 * input.below(200) as u64),
            10 if self.openings < MOST_OPENINGS => self.end_of_life(input),
            11 => self.check_list(input),
            _ => self.check_one(input),
        }
    }

    fn send(&mut self, body: &[u8], targets: &[(usize, Vec<u8>)]) {
        let stores = [self.store(0), self.store(1)];
        let named: Vec<_> =
            targets.iter().map(|(store, name)| (&stores[*store], name.as_slice())).collect();
        let batch = match named.split_first() {
            // From the second one to the same targets on, the record refers to an earlier one.
            Some((first, rest)) if body.len().is_multiple_of(2) => {
                let list = self.engine().target_list(rest.iter().copied()).expect("a list");
                Batch::new().fan_out_to_list(body, [*first], &list)
            }
            _ => Batch::new().fan_out(body, named),
        };
        let receipt = self.engine().submit(batch).expect("queued").wait().expect("committed");
        assert_eq!(receipt.sequences.len(), targets.len());
        for (target, sequence) in targets.iter().zip(receipt.sequences) {
            let timeline = self.expected.entry(target.clone()).or_default();
            let before = timeline.last().map_or(0, |(time_ms, _)| *time_ms);
            assert!(receipt.time_ms >= before, "times do not fall");
            timeline.push((receipt.time_ms, body.to_vec()));
            assert_eq!(sequence, timeline.len() as u64, "sequences are dense");
        }
    }

    /// Close, kill or power cut, and the next life.
    fn end_of_life(&mut self, input: &mut Input<'_>) {
        let how = input.below(6);
        if how == 0 {
            self.engine().close().expect("closes");
        }
        self.engine = None;
        let log = self.disk.log();
        log.iter().for_each(|op| self.base.apply(op, None));
        if let Some(cut) = how.checked_sub(2).and_then(|cut| Cut::ALL.get(cut)) {
            let image = self.base.power_cut(*cut, &mut Dice::new(u64::from(input.next())));
            self.base = Model::from_image(&image);
        }
        self.disk = SimulatedDisk::from_model(self.base.clone());
        self.open();
        self.check_all();
    }

    fn check_all(&self) {
        for ((store, name), expected) in &self.expected {
            let page = self.store(*store).range(name, .., Limit::entries(100_000)).expect("reads");
            let found = page.entries.iter().map(|entry| (entry.time_ms, entry.body.to_vec()));
            assert!(found.eq(expected.iter().cloned()), "{store} {}", name.escape_ascii());
            assert!(
                page.entries.iter().zip(1..).all(|(entry, sequence)| entry.sequence == sequence)
            );
        }
    }

    fn check_list(&self, input: &mut Input<'_>) {
        let (store, after) = input.timeline();
        let count = 1 + input.below(6);
        let found = self.store(store).list(b"t", Some(&after), count).expect("lists");
        let names = self.expected.keys().filter(|(of, name)| *of == store && *name > after);
        assert!(found.iter().eq(names.map(|(_, name)| name).take(count)));
    }

    /// Reads one timeline in every way.
    fn check_one(&self, input: &mut Input<'_>) {
        let (number, name) = input.timeline();
        let store = self.store(number);
        let nothing = Vec::new();
        let expected = self.expected.get(&(number, name.clone())).unwrap_or(&nothing);
        let last = expected.len() as u64;
        let (low, high) = (input.below(40) as u64, input.below(40) as u64);
        let count = 1 + input.below(20);
        let is_there = |sequence: &u64| (1..=last).contains(sequence);
        let wanted: Vec<u64> = (low..high.max(low)).filter(is_there).collect();

        let bounds = (Bound::Included(low), Bound::Excluded(high.max(low)));
        let page = store.range(&name, bounds, Limit::entries(count)).expect("reads");
        assert!(
            page.entries.iter().map(|entry| entry.sequence).eq(wanted.iter().copied().take(count))
        );
        assert_eq!((page.last, page.more), (last, wanted.len() > count));
        let back = store.range_back(&name, bounds, Limit::entries(count)).expect("reads");
        assert!(
            back.entries.iter().map(|entry| entry.sequence).eq(wanted
                .iter()
                .rev()
                .copied()
                .take(count))
        );
        for entry in page.entries.iter().chain(&back.entries) {
            let (time_ms, body) = &expected[entry.sequence as usize - 1];
            assert_eq!((entry.time_ms, entry.body.as_ref()), (*time_ms, body.as_slice()));
        }

        let read = store.read_after(&name, low, Limit::entries(count)).expect("reads");
        assert_eq!(read.verdict, if low > last { Verdict::Future } else { Verdict::Ok });
        if low <= last {
            assert_eq!(read.entries.len() as u64, (last - low).min(count as u64));
            assert_eq!(read.next, low + read.entries.len() as u64);
        }
        assert_eq!(store.get(&name, high).expect("reads").is_some(), is_there(&high));
        assert_eq!(store.last(&name).expect("reads").map_or(0, |entry| entry.sequence), last);
        let info = store.info(&name).expect("reads");
        let bytes: usize = expected.iter().map(|(_, body)| body.len()).sum();
        assert_eq!((info.last, info.count, info.body_bytes), (last, last, bytes as u64));
        let time_ms = 1_700_000_000_000 + 1000 * input.below(200) as u64;
        let earlier = expected.iter().take_while(|(time, _)| *time < time_ms).count() as u64;
        assert_eq!(store.sequence_at(&name, time_ms).expect("reads"), earlier + 1);
    }
}
