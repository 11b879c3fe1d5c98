//! The driver of recordings: submits, waits, changes, reads and reopens, and notes each in the log
//! before or after it.
//!
//! Each timeline has one driver as its only writer, so that the driver knows which sequence each
//! append gets.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use strandline::clock::ManualClock;
use strandline::vfs::simulated::{Dice, Image, Op, SimulatedDisk};
use strandline::{Durability, Engine, Limit, Ticket, Trim};

use super::books::{Change, Event, Sent, edited_body};
use super::judge::read_all;
use super::{Key, START_MS, open_at};

/// A run of the engine on a simulated disk, to be cut anywhere.
pub struct Recording {
    pub name: String,
    pub base: Image,
    pub log: Vec<Op>,
    pub events: Vec<Event>,
    pub keys: Vec<Key>,
}

/// Notes events in the log, in order with the calls.
#[derive(Clone)]
pub struct Notes {
    pub disk: SimulatedDisk,
    events: Arc<Mutex<Vec<Event>>>,
}

impl Notes {
    pub fn note(&self, event: Event) {
        let mut events = self.events.lock().expect("no panic inside");
        self.disk.mark(events.len() as u64);
        events.push(event);
    }

    pub fn events(&self) -> Vec<Event> {
        self.events.lock().expect("no panic inside").clone()
    }
}

pub struct Driver {
    pub notes: Notes,
    pub clock: Arc<ManualClock>,
    now_ms: u64,
    next_batch: u64,
    keys: Vec<Key>,
    lasts: BTreeMap<Key, u64>,
    /// The last batch that asked for the operating system only and can be sent again, with its
    /// sequences.
    repeatable: Option<(Arc<Sent>, Vec<u64>)>,
    in_flight: Vec<(Arc<Sent>, Vec<u64>, Ticket)>,
}

impl Driver {
    pub fn new(disk: SimulatedDisk, keys: Vec<Key>) -> Driver {
        Driver::going_on(disk, keys, START_MS, 0)
    }

    /// A driver of a later life.
    pub fn going_on(disk: SimulatedDisk, keys: Vec<Key>, now_ms: u64, next_batch: u64) -> Driver {
        Driver {
            notes: Notes { disk, events: Arc::default() },
            clock: Arc::new(ManualClock::at(now_ms)),
            now_ms,
            next_batch,
            keys,
            lasts: BTreeMap::new(),
            repeatable: None,
            in_flight: Vec::new(),
        }
    }

    /// Opens, and notes the current content.
    pub fn open(&mut self) -> Result<Engine, String> {
        let engine = open_at(&self.notes.disk, self.clock.clone())
            .map_err(|error| format!("does not open: {error}"))?;
        let shown = read_all(&engine, self.keys.iter())?;
        self.lasts = shown.iter().map(|(key, shown)| (key.clone(), shown.last)).collect();
        self.notes.note(Event::Opened(shown));
        Ok(engine)
    }

    /// Submits one body to targets.
    pub fn submit(
        &mut self,
        engine: &Engine,
        targets: &[Key],
        filler: usize,
        durability: Durability,
    ) {
        let number = self.next_batch;
        self.next_batch += 1;
        let sent =
            Arc::new(Sent { number, writer: 0, durability, filler, targets: targets.to_vec() });
        let mut sequences = Vec::new();
        for key in targets {
            let last = self.lasts.entry(key.clone()).or_default();
            *last += 1;
            sequences.push(*last);
        }
        self.notes.note(Event::Submitted(sent.clone()));
        let batch = sent.batch(engine);
        self.in_flight.push((sent, sequences, engine.submit(batch).expect("queued")));
    }

    /// Waits for all submitted batches.
    pub fn drain(&mut self) {
        for (sent, sequences, ticket) in std::mem::take(&mut self.in_flight) {
            let receipt = ticket.wait().expect("committed");
            assert_eq!(receipt.sequences, sequences, "each append gets the next sequence");
            self.notes.note(Event::Acknowledged(sent.number));
            if sent.durability == Durability::Os && sent.id().is_some() {
                self.repeatable = Some((sent, sequences));
            }
        }
    }

    /// Sends the last batch that asked for the operating system only again, and asks for the disk.
    pub fn repeat(&mut self, engine: &Engine) {
        self.drain();
        let Some((sent, sequences)) = self.repeatable.take() else { return };
        let batch = sent.batch(engine).durability(Durability::Disk);
        let receipt = engine.submit(batch).expect("queued").wait().expect("is known");
        assert_eq!(
            (receipt.duplicate, receipt.sequences),
            (true, sequences.into()),
            "it is the same entry"
        );
        self.notes.note(Event::Repeated(sent.number));
    }

    pub fn send(
        &mut self,
        engine: &Engine,
        targets: &[Key],
        filler: usize,
        durability: Durability,
    ) {
        self.submit(engine, targets, filler, durability);
        self.drain();
    }

    /// Reads a timeline and notes the result.
    pub fn look(&self, engine: &Engine, key: &Key) {
        observe(&self.notes, engine, key, &mut 0);
    }

    pub fn trim(&mut self, engine: &Engine, key: &Key, below: u64) {
        self.drain();
        let below = below.min(self.last(key) + 1);
        let change = Change::Trim(key.clone(), below);
        self.notes.note(Event::Asked(change.clone()));
        let store = engine.store(key.0).expect("store");
        store.trim(key.1.as_bytes(), Trim::Before(below)).expect("trims");
        self.notes.note(Event::Done(change));
    }

    pub fn delete(&mut self, engine: &Engine, key: &Key, sequence: u64) {
        self.drain();
        let change = Change::Delete(key.clone(), sequence);
        self.notes.note(Event::Asked(change.clone()));
        engine.store(key.0).expect("store").delete(key.1.as_bytes(), &[sequence]).expect("deletes");
        self.notes.note(Event::Done(change));
    }

    pub fn edit(&mut self, engine: &Engine, key: &Key, sequence: u64) {
        self.drain();
        let change = Change::Edit(key.clone(), sequence, self.next_batch);
        let body = edited_body(self.next_batch);
        self.next_batch += 1;
        let store = engine.store(key.0).expect("store");
        let shared = store.body_of(key.1.as_bytes(), sequence).expect("reads");
        if let Some(of) = shared.filter(|_| self.next_batch.is_multiple_of(2)) {
            let change = Change::EditAll(key.clone(), sequence, self.next_batch - 1);
            let all =
                engine.stores().into_iter().map(|store| engine.store(&store.name).expect("store"));
            let stores: Vec<_> = all.collect();
            self.notes.note(Event::Asked(change.clone()));
            let batch = strandline::Batch::new().edit_body(of, &stores, &body);
            engine.submit(batch).expect("queued").wait().expect("committed");
            return self.notes.note(Event::Done(change));
        }
        self.notes.note(Event::Asked(change.clone()));
        // Removed entries are not edited.
        if engine
            .store(key.0)
            .expect("store")
            .edit(key.1.as_bytes(), sequence, &body)
            .expect("edits")
        {
            self.notes.note(Event::Done(change));
        }
    }

    pub fn last(&self, key: &Key) -> u64 {
        self.lasts.get(key).copied().unwrap_or(0)
    }

    /// Time passes: entries that have expired by then are not shown any more.
    pub fn pass(&mut self, ms: u64) {
        self.drain();
        self.now_ms += ms;
        // First: a concurrent merge may expire something as soon as the clock says so.
        self.notes.note(Event::Clock(self.now_ms));
        self.clock.pass(ms);
    }

    pub fn finish(mut self, name: impl Into<String>) -> Recording {
        self.drain();
        let (log, events) = (self.notes.disk.log(), self.notes.events());
        Recording { name: name.into(), base: Image::default(), log, events, keys: self.keys }
    }
}

fn observe(notes: &Notes, engine: &Engine, key: &Key, cursor: &mut u64) {
    let store = engine.store(key.0).expect("store");
    let page = store.read_after(key.1.as_bytes(), *cursor, Limit::entries(1000)).expect("reads");
    for entry in page.entries {
        *cursor = entry.sequence;
        notes.note(Event::Observed(key.clone(), entry.sequence));
    }
}

/// A reader on its own thread, which is woken by watches and reads new entries.
pub struct Observer {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Observer {
    pub fn start(driver: &Driver, engine: &Engine) -> Observer {
        let (notes, engine, keys) = (driver.notes.clone(), engine.clone(), driver.keys.clone());
        let mut cursors: Vec<u64> = keys.iter().map(|key| driver.last(key)).collect();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let watcher = engine.watcher();
        for (token, key) in (0..).zip(&keys) {
            let store = engine.store(key.0).expect("store");
            watcher.watch(&store, key.1.as_bytes(), token).expect("its own store");
        }
        let work = move || {
            while !stopped.load(Ordering::Acquire) {
                watcher.wait(Duration::from_millis(5));
                for token in watcher.ready() {
                    let place = token as usize;
                    observe(&notes, &engine, &keys[place], &mut cursors[place]);
                }
            }
        };
        Observer { stop, thread: Some(std::thread::spawn(work)) }
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(ended.is_ok() || std::thread::panicking(), "the observer panicked");
        }
    }
}

/// Flushes and merges on a thread of its own, a few times.
pub fn background(engine: &Engine, flushes: u64) -> JoinHandle<()> {
    let engine = engine.clone();
    std::thread::spawn(move || {
        for _ in 0..flushes {
            engine.flush().expect("flushes");
        }
        engine.compact().expect("merges");
    })
}

/// The timelines of the workloads by seed.
pub fn some_keys() -> Vec<Key> {
    let key = |store, name: &str| (store, name.to_string());
    [
        ("messages", "a"),
        ("messages", "b"),
        ("messages", "c"),
        ("sync", "x"),
        ("sync", "y"),
        ("sync", "z"),
    ]
    .map(|(store, name)| key(store, name))
    .to_vec()
}

/// One random step of a workload. True when the engine was stopped by it.
pub fn step(driver: &mut Driver, engine: &Engine, dice: &mut Dice) -> bool {
    let keys = some_keys();
    let pick = |dice: &mut Dice| keys[dice.below(keys.len() as u64) as usize].clone();
    match dice.below(23) {
        0..=9 => {
            let first = dice.below(6) as usize;
            let count = 1 + dice.below(5) as usize;
            let targets: Vec<Key> = keys.iter().cycle().skip(first).take(count).cloned().collect();
            let durability = if dice.below(4) == 0 { Durability::Os } else { Durability::Disk };
            let filler = [0, 40, 300, 900, 2500][dice.below(5) as usize];
            driver.submit(engine, &targets, filler, durability);
            if dice.below(2) == 0 {
                driver.drain();
            }
        }
        10..=11 => engine.flush().expect("flushes"),
        12 => engine.compact().expect("merges"),
        13 => {
            let key = pick(dice);
            driver.drain();
            let below = 1 + dice.below(driver.last(&key) + 1);
            driver.trim(engine, &key, below);
        }
        14 => {
            let key = pick(dice);
            driver.drain();
            // Mostly a dropped timeline; one that was never written stays as it is.
            let end = driver.last(&key) + 1;
            driver.trim(engine, &key, end);
        }
        15 => {
            let key = pick(dice);
            driver.drain();
            if driver.last(&key) > 0 {
                let sequence = 1 + dice.below(driver.last(&key));
                driver.delete(engine, &key, sequence);
            }
        }
        16..=17 => driver.pass([1000, 9000, 40_000][dice.below(3) as usize]),
        18 => {
            let key = pick(dice);
            driver.look(engine, &key);
        }
        19..=20 => {
            let key = pick(dice);
            driver.drain();
            if driver.last(&key) > 0 {
                let sequence = 1 + dice.below(driver.last(&key));
                driver.edit(engine, &key, sequence);
            }
        }
        21 => driver.repeat(engine),
        _ => return true,
    }
    false
}

/// A workload of a seed: every kind of step, an observer in half of them, concurrent flushes in a
/// third.
pub fn seeded(seed: u64, steps: u64) -> Recording {
    let mut dice = Dice::new(seed ^ 0x5EED);
    let mut driver = Driver::new(SimulatedDisk::new(), some_keys());
    let mut left = steps;
    while left > 0 {
        let engine = driver.open().expect("opens");
        let observer = seed.is_multiple_of(2).then(|| Observer::start(&driver, &engine));
        let beside = seed.is_multiple_of(3).then(|| background(&engine, 2));
        while left > 0 {
            left -= 1;
            if step(&mut driver, &engine, &mut dice) {
                break;
            }
        }
        driver.drain();
        if let Some(beside) = beside {
            beside.join().expect("no panic");
        }
        drop(observer);
        if dice.below(2) == 0 {
            engine.close().expect("closes");
        }
    }
    driver.finish(format!("seed {seed}"))
}
