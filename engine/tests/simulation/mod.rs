//! The judge of simulated crashes: what a driver did is in the disk's log, with its marks; any disk that a power cut could have
//! left is opened and compared with it.
//!
//! Checked of each disk:
//!  * it opens (P5), twice, and shows the same both times;
//!  * every acknowledged entry is there, with its sequence and its bytes (P1);
//!  * nothing is there that was not submitted;
//!  * a batch is in all of its timelines or in none (P3);
//!  * sequences are dense from 1, and the next append continues them (P2, P4).
#![allow(dead_code, reason = "each test binary uses its part")]

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use strandline::clock::ManualClock;
use strandline::vfs::simulated::{Cut, Dice, Image, Model, Op, SimulatedDisk};
use strandline::vfs::{Dir, Site};
use strandline::{Batch, Durability, Engine, Limit, Options, Sequence, World};

/// A store and a timeline.
pub type Key = (&'static str, String);

/// One batch that a driver submitted: its number is in its body.
#[derive(Clone, Debug)]
pub struct Sent {
    pub targets: Vec<Key>,
    pub durability: Durability,
    pub body: Vec<u8>,
    /// What it was given, once it was acknowledged.
    pub sequences: Vec<Sequence>,
}

/// A run of the engine on a simulated disk, to be cut anywhere.
pub struct Recording {
    pub base: Image,
    pub log: Vec<Op>,
    pub sent: Vec<Sent>,
}

/// Small files and memtables, so that a few appends go through every part.
pub fn tiny() -> Options {
    Options { memory_budget_bytes: 1, wal_file_bytes: 8 * 1024, ..Options::default() }
}

pub fn open(disk: &SimulatedDisk) -> strandline::Result<Engine> {
    let clock = Arc::new(ManualClock::at(1_700_000_000_000));
    Engine::open_in(World { dir: Dir::new(Arc::new(disk.clone())), clock }, tiny())
}

/// Submits batches and marks in the log when each was submitted and acknowledged.
pub struct Driver {
    pub disk: SimulatedDisk,
    pub sent: Vec<Sent>,
}

const ACKNOWLEDGED: u64 = 1 << 32;

impl Driver {
    pub fn new(disk: SimulatedDisk) -> Driver {
        Driver { disk, sent: Vec::new() }
    }

    /// Sends one body to targets and waits for it.
    pub fn send(&mut self, engine: &Engine, targets: &[Key], filler: usize, durability: Durability) {
        let number = self.sent.len() as u64;
        let mut body = format!("batch {number} ").into_bytes();
        body.resize(body.len() + filler, b'.');
        self.disk.mark(number);
        let stores = [engine.store("messages").expect("store"), engine.store("sync").expect("store")];
        let store = |name: &str| if name == "messages" { &stores[0] } else { &stores[1] };
        let fan_out: Vec<_> =
            targets.iter().map(|(name, timeline)| (store(name), timeline.as_bytes())).collect();
        let batch = Batch::new().fan_out(&body, fan_out).durability(durability);
        let receipt = engine.submit(batch).expect("queued").wait().expect("committed");
        self.disk.mark(ACKNOWLEDGED + number);
        let targets = targets.to_vec();
        self.sent.push(Sent { targets, durability, body, sequences: receipt.sequences });
    }

    pub fn finish(self, base: Image) -> Recording {
        Recording { base, log: self.disk.log(), sent: self.sent }
    }
}

/// How many disks are judged at once.
const WORKERS: usize = 6;

/// What the log says up to some place.
#[derive(Clone, Default)]
pub struct Known {
    submitted: HashSet<u64>,
    acknowledged: HashSet<u64>,
}

impl Known {
    pub fn note(&mut self, op: &Op) {
        match op {
            Op::Mark(mark) if *mark >= ACKNOWLEDGED => self.acknowledged.insert(mark - ACKNOWLEDGED),
            Op::Mark(mark) => self.submitted.insert(*mark),
            _ => false,
        };
    }
}

type Timelines = BTreeMap<Key, Vec<(Sequence, Vec<u8>)>>;

fn read_all(engine: &Engine, keys: &[Key]) -> Result<Timelines, String> {
    let mut timelines = Timelines::new();
    for (store, timeline) in keys {
        let page = engine
            .store(store)
            .and_then(|store| store.range(timeline.as_bytes(), .., Limit::entries(100_000)))
            .map_err(|error| format!("{store}:{timeline} cannot be read: {error}"))?;
        let entries = page.entries.into_iter().map(|entry| (entry.sequence, entry.body.to_vec())).collect();
        timelines.insert((store, timeline.clone()), entries);
    }
    Ok(timelines)
}

impl Recording {
    pub fn keys(&self) -> Vec<Key> {
        let keys: HashSet<Key> = self.sent.iter().flat_map(|sent| sent.targets.iter().cloned()).collect();
        keys.into_iter().collect()
    }

    /// Whether the timelines may be what a crash left, given what was known before it.
    fn judge(&self, timelines: &Timelines, known: &Known, power: bool) -> Result<(), String> {
        let mut found: HashMap<u64, HashMap<&Key, Vec<Sequence>>> = HashMap::new();
        for (key, entries) in timelines {
            for (place, (sequence, body)) in entries.iter().enumerate() {
                if *sequence != place as u64 + 1 {
                    return Err(format!("{key:?} is not dense: {sequence} at place {place}"));
                }
                let number = self
                    .number_of(body)
                    .ok_or_else(|| format!("{key:?} {sequence}: not a body that was sent"))?;
                if !known.submitted.contains(&number) {
                    return Err(format!("{key:?} {sequence}: batch {number} was not submitted yet"));
                }
                found.entry(number).or_default().entry(key).or_default().push(*sequence);
            }
        }
        for number in &known.submitted {
            let Some(sent) = self.sent.get(*number as usize) else { continue };
            let there: usize = found.get(number).map_or(0, |there| there.values().map(Vec::len).sum());
            let must = known.acknowledged.contains(number) && (sent.durability == Durability::Disk || !power);
            if there == 0 && must {
                return Err(format!("batch {number} was acknowledged and is lost"));
            }
            if there != 0 && there != sent.targets.len() {
                return Err(format!("batch {number} is in {there} of {} places", sent.targets.len()));
            }
            let kept = |(key, sequence): (&Key, &Sequence)| {
                found[number].get(key).is_some_and(|all| all.contains(sequence))
            };
            if must && !sent.targets.iter().zip(&sent.sequences).all(kept) {
                return Err(format!("batch {number} has other sequences than it was acknowledged with"));
            }
        }
        Ok(())
    }

    fn number_of(&self, body: &[u8]) -> Option<u64> {
        let text = std::str::from_utf8(body).ok()?;
        let number: u64 = text.strip_prefix("batch ")?.split(' ').next()?.parse().ok()?;
        (self.sent.get(number as usize)?.body == body).then_some(number)
    }

    /// Opens what a crash left, judges it, goes on with it. Gives the log of that life.
    pub fn check(&self, disk: &SimulatedDisk, known: &Known, power: bool) -> Result<(), String> {
        let keys = self.keys();
        let engine = open(disk).map_err(|error| format!("does not open: {error}"))?;
        let timelines = read_all(&engine, &keys)?;
        self.judge(&timelines, known, power)?;
        drop(engine);
        let engine = open(disk).map_err(|error| format!("does not open again: {error}"))?;
        if read_all(&engine, &keys)? != timelines {
            return Err("opening again shows another state".into());
        }
        for (store, timeline) in &keys {
            let last = timelines[&(*store, timeline.clone())].len() as u64;
            let given = engine
                .store(store)
                .and_then(|store| store.append(timeline.as_bytes(), b"after"))
                .map_err(|error| format!("takes no append: {error}"))?;
            if given != last + 1 {
                return Err(format!(
                    "{store}:{timeline} has {last} entries, and the next append got {given}"
                ));
            }
        }
        Ok(())
    }

    /// Opens a disk only to judge it: for the many.
    fn check_quickly(&self, disk: &SimulatedDisk, known: &Known) -> Result<(), String> {
        let engine = open(disk).map_err(|error| format!("does not open: {error}"))?;
        self.judge(&read_all(&engine, &self.keys())?, known, true)
    }

    /// Cuts the power at every place of the log, in every way, and again at every place of the recovery.
    /// `without`: as if the sync at that site were not in the code. Gives how many states were judged.
    pub fn cut_everywhere(&self, plan: &Plan) -> Result<u64, String> {
        // An engine's threads mostly wait for each other: several disks at once keep the processors busy.
        let outcomes: Vec<Result<u64, String>> = std::thread::scope(|scope| {
            let workers: Vec<_> =
                (0..WORKERS).map(|worker| scope.spawn(move || self.cut_share(plan, worker))).collect();
            workers.into_iter().map(|worker| worker.join().expect("no panic")).collect()
        });
        outcomes.into_iter().sum()
    }

    /// One worker's share of the places.
    fn cut_share(&self, plan: &Plan, worker: usize) -> Result<u64, String> {
        let mut model = Model::from_image(&self.base);
        let mut known = Known::default();
        let mut states = 0;
        for (place, op) in std::iter::once(&Op::Mark(u64::MAX)).chain(&self.log).enumerate() {
            model.apply(op, plan.without);
            known.note(op);
            let changes_nothing = matches!(op, Op::Mark(mark) if *mark < ACKNOWLEDGED);
            if place % WORKERS == worker && !changes_nothing {
                states += self.cut_at(plan, place, op, &model, &known)?;
            }
        }
        Ok(states)
    }

    /// Every way of a power cut at one place.
    fn cut_at(
        &self,
        plan: &Plan,
        place: usize,
        op: &Op,
        model: &Model,
        known: &Known,
    ) -> Result<u64, String> {
        let mut states = 0;
        for cut in Cut::ALL {
            for seed in 0..if cut == Cut::Dice { plan.seeds } else { 1 } {
                let mut dice = Dice::new(seed + 1000 * place as u64);
                let image = model.power_cut(cut, &mut dice);
                let told = |what| format!("cut {cut:?} seed {seed} after call {place} ({op:?}): {what}");
                let disk = SimulatedDisk::from_image(&image);
                self.check(&disk, known, true).map_err(told)?;
                states += 1;
                if plan.nested && (place / WORKERS).is_multiple_of(plan.every) {
                    states += self.cut_recovery(&image, &disk.log(), known, plan, &mut dice).map_err(told)?;
                }
            }
        }
        Ok(states)
    }

    /// Cuts the power at every place of a recovery, given its log.
    fn cut_recovery(
        &self,
        image: &Image,
        log: &[Op],
        known: &Known,
        plan: &Plan,
        dice: &mut Dice,
    ) -> Result<u64, String> {
        let mut model = Model::from_image(image);
        // The checks' own appends come behind the second opening; they are not the recording's.
        let recovery: Vec<&Op> = log.iter().take_while(|op| !writes(op, b"after")).collect();
        for (place, op) in recovery.iter().enumerate() {
            model.apply(op, plan.without);
            for cut in [Cut::Lost, Cut::NamesOnly, Cut::Dice] {
                let disk = SimulatedDisk::from_image(&model.power_cut(cut, dice));
                let told = |what| format!("{cut:?} after call {place} of the recovery ({op:?}): {what}");
                self.check_quickly(&disk, known).map_err(told)?;
            }
        }
        Ok(3 * recovery.len() as u64)
    }
}

fn writes(op: &Op, body: &[u8]) -> bool {
    matches!(op, Op::Write { bytes, .. } if bytes.len() < 512 && bytes.windows(body.len()).any(|window| window == body))
}

/// How thoroughly to cut.
pub struct Plan {
    pub seeds: u64,
    pub nested: bool,
    /// Recovery is cut for one in so many places.
    pub every: usize,
    pub without: Option<Site>,
}
