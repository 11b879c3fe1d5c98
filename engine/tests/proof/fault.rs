//! Each call to the disk fails once, or from then on (P1–P4, P6).
//!
//! One workload of sixty operations (appends, fan-outs, flushes, merges, small log files, clean
//! stops and kills) runs on a simulated disk repeatedly; in run n the n-th call fails. The kinds of
//! failure:
//!
//! * any call, reads included, with EIO; a sync that fails leaves ghost pages: readable, and never
//!   on the disk;
//! * any call that needs space with ENOSPC: creating, writing, resizing, renaming, syncing;
//! * with either of them a write may break off: half of its bytes are there;
//! * any call that needs a file descriptor with EMFILE: creating, opening, listing, locking.
//!
//! Checked while it runs:
//!
//! * a read shows exactly what was acknowledged, or fails by name; it is never wrong;
//! * after a failed write or sync of the log, or a failed sync of the directory under it, nothing
//!   is acknowledged: `Poisoned`;
//! * a full disk refuses writes with `DiskFull`, unless a sync failed; reads continue; and when
//!   there is space again, writes resume without reopening, and no left-over file keeps the space;
//! * without descriptors it is the same, with `TooManyFiles`; a single lack of one is not noticed
//!   at all, since the engine closes another one;
//! * nothing hangs: a watchdog ends the run.
//!
//! Checked afterwards, on the disk in its current state and as power cuts leave it: it opens, every
//! acknowledged entry is there with its sequence, nothing is there that was not sent, and sequences
//! continue without a hole. An open that meets the fault works or fails by name, and the next one
//! works.
//! works.

mod disk;

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use disk::{Fault, Faulty, Kind};
use strandline::clock::ManualClock;
use strandline::vfs::simulated::{Cut, Dice, Image, Model, SimulatedDisk};
use strandline::vfs::{Dir, RawDirectory};
use strandline::{Batch, Engine, Error, Limit, Store, World};

use crate::simulation::fan_out;
use crate::two_stores;

/// A store and a timeline.
type Key = (&'static str, String);

enum Step {
    /// A body of this many bytes to these timelines.
    Send(Vec<Key>, usize),
    Flush,
    Compact,
    Close,
    Kill,
}

fn workload() -> Vec<Step> {
    let mut steps = Vec::new();
    for number in 0..51_usize {
        let room = ("messages", format!("c/{}", number % 3));
        let users = (0..6).map(|user| ("sync", format!("u/{}", (user + number) % 8)));
        let targets = if number % 4 == 1 { users.chain([room]).collect() } else { vec![room] };
        steps.push(Step::Send(targets, [30, 1100, 400][number % 3]));
        steps.extend(match number {
            5 | 12 | 24 | 28 | 38 => Some(Step::Flush),
            15 | 40 => Some(Step::Compact),
            20 => Some(Step::Close),
            33 => Some(Step::Kill),
            _ => None,
        });
    }
    assert_eq!(steps.len(), 60);
    steps
}

fn keys() -> Vec<Key> {
    let rooms = (0..3).map(|room| ("messages", format!("c/{room}")));
    rooms.chain((0..8).map(|user| ("sync", format!("u/{user}")))).collect()
}

fn open(dir: Dir) -> strandline::Result<Engine> {
    // Small, so that the log changes files every few appends and nothing is answered from the
    // cache.
    let options = two_stores::options().memory_budget_bytes(1).wal_file_bytes(8 * 1024);
    Engine::open_in(World { dir, clock: Arc::new(ManualClock::at(1_700_000_000_000)) }, options)
}

fn is_shortage(error: &Error) -> bool {
    matches!(error, Error::DiskFull { .. } | Error::TooManyFiles { .. })
}

/// Gives other threads a moment.
fn pause() {
    let (_open, never) = channel::<()>();
    let _ = never.recv_timeout(Duration::from_millis(10));
}

/// The outcome of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// It was acknowledged, or seen after an open: it stays.
    Kept,
    /// It failed, and whether it is on the disk is not known.
    Open,
    /// It was refused without a trace.
    Refused,
}

type Timelines = BTreeMap<Key, Vec<Vec<u8>>>;

/// The batches that were sent, and those that must be there.
#[derive(Clone, Default)]
struct Books {
    sent: Vec<(Vec<Key>, Vec<u8>, Fate)>,
    /// In order: index 0 is sequence 1.
    kept: Timelines,
}

impl Books {
    fn body(&mut self, targets: &[Key], bytes: usize) -> Vec<u8> {
        let mut body = format!("batch {} ", self.sent.len()).into_bytes();
        body.resize(body.len() + bytes, b'.');
        self.sent.push((targets.to_vec(), body.clone(), Fate::Open));
        body
    }

    fn keep(&mut self, number: usize, sequences: &[u64]) {
        let (targets, body, fate) = &mut self.sent[number];
        *fate = Fate::Kept;
        for (key, sequence) in targets.iter().zip(sequences) {
            let rows = self.kept.entry(key.clone()).or_default();
            assert_eq!(*sequence, rows.len() as u64 + 1, "{key:?}: the next sequence is given");
            rows.push(body.clone());
        }
    }

    /// An engine must show exactly the kept batches.
    fn compare(&self, store: &Store, timeline: &str) -> Result<(), Error> {
        let page = store.range(timeline.as_bytes(), .., Limit::entries(1000))?;
        let found: Vec<(u64, Vec<u8>)> =
            page.entries.into_iter().map(|entry| (entry.sequence, entry.body.to_vec())).collect();
        let name = STORES.iter().find(|name| **name == store.name()).expect("one of the two");
        let kept = self.kept.get(&(*name, timeline.to_string())).cloned().unwrap_or_default();
        let kept: Vec<(u64, Vec<u8>)> = (1..).zip(kept).collect();
        assert_eq!(
            found, kept,
            "{name}:{timeline} shows something else than what was acknowledged"
        );
        Ok(())
    }

    /// Takes the content that an open shows: all kept batches, possibly batches of unknown outcome,
    /// each complete, and nothing else. These are kept from now on.
    fn adopt(&mut self, engine: &Engine) {
        let mut more: BTreeMap<usize, BTreeSet<Key>> = BTreeMap::new();
        for (name, timeline) in keys() {
            let store = engine.store(name).expect("a store");
            let page = store
                .range(timeline.as_bytes(), .., Limit::entries(1000))
                .expect("reads without fault");
            let key = (name, timeline);
            let rows = self.kept.entry(key.clone()).or_default();
            assert!(
                page.entries.len() >= rows.len(),
                "{key:?} lost some of {} entries",
                rows.len()
            );
            for (place, entry) in page.entries.iter().enumerate() {
                assert_eq!(entry.sequence, place as u64 + 1, "{key:?} is dense");
                if let Some(row) = rows.get(place) {
                    assert!(*row == entry.body, "{key:?} {} has another body", entry.sequence);
                    continue;
                }
                let number = self.sent.iter().position(|(_, body, _)| *body == entry.body);
                let number =
                    number.unwrap_or_else(|| panic!("{key:?} {}: was not sent", entry.sequence));
                let fate = self.sent[number].2;
                assert_eq!(fate, Fate::Open, "{key:?} {}: batch {number} again", entry.sequence);
                more.entry(number).or_default().insert(key.clone());
                rows.push(entry.body.to_vec());
            }
        }
        for (number, there) in more {
            let (targets, _, fate) = &mut self.sent[number];
            assert_eq!(there, targets.iter().cloned().collect(), "batch {number} is whole");
            *fate = Fate::Kept;
        }
    }
}

const STORES: [&str; 2] = ["messages", "sync"];

/// One run of the workload.
struct Run {
    disk: Faulty,
    engine: Option<Engine>,
    books: Books,
}

impl Run {
    fn new(fault: Fault) -> Run {
        let mut run = Run { disk: Faulty::new(fault), engine: None, books: Books::default() };
        run.open();
        run
    }

    /// Opens, if necessary a second time without the fault.
    fn open(&mut self) {
        let dir = Dir::new(Arc::new(self.disk.clone()));
        let fired = self.disk.injector().fired;
        let engine = open(dir.clone()).unwrap_or_else(|error| {
            assert!(self.disk.injector().fired > fired, "an open fails without a fault: {error}");
            self.check_named(&error);
            if self.disk.injector().fault.for_ever {
                self.disk.injector().on = false;
            }
            open(dir.clone()).expect("the next open works")
        });
        self.engine = Some(engine);
        let on = std::mem::replace(&mut self.disk.injector().on, false);
        let damaged = self.figure("damaged_segments");
        assert!(
            damaged == 0 || self.disk.injector().fault.kind != Kind::NoDescriptor,
            "a shortage is no damage"
        );
        if damaged > 0 {
            // The fault hit a single segment only, which is not served until the next open.
            self.engine = None;
            self.engine = Some(open(dir).expect("the next open works"));
        }
        let engine = self.engine().clone();
        self.books.adopt(&engine);
        let mut injector = self.disk.injector();
        (injector.on, injector.log_failed, injector.sync_failed) = (on, false, false);
    }

    /// An error names its location: a file, or the reason why writes are refused.
    fn check_named(&self, error: &Error) {
        let text = error.to_string();
        assert!(text.contains("simulated"), "the error names no file: {text}");
        let full = self.disk.injector().fault.kind.is_full();
        assert!(full || !matches!(error, Error::DiskFull { .. }), "the disk is not full: {text}");
        let short = self.disk.injector().fault.kind == Kind::NoDescriptor;
        assert_eq!(
            short,
            matches!(error, Error::TooManyFiles { .. }),
            "no descriptor, and nothing else: {text}"
        );
        let stays = self.disk.injector().fault.for_ever;
        assert!(!short || stays, "a descriptor was given up for it: {text}");
    }

    fn engine(&self) -> &Engine {
        self.engine.as_ref().expect("it is open")
    }

    fn figure(&self, wanted: &str) -> u64 {
        self.engine().stats().get(wanted).expect("a figure of that name")
    }

    fn step(&mut self, step: &Step) {
        let fired = self.disk.injector().fired;
        let outcome = match step {
            Step::Send(targets, bytes) => self.send(targets, *bytes),
            Step::Flush => self.engine().flush(),
            Step::Compact => self.engine().compact(),
            Step::Close => self.engine.take().expect("it is open").close(),
            Step::Kill => {
                self.engine = None;
                Ok(())
            }
        };
        if let Err(error) = &outcome {
            assert!(self.disk.injector().fired > 0, "an error without a fault: {error}");
            self.check_named(error);
            let out = self.engine.is_some() && self.figure("damaged_segments") > 0;
            let excused = out || matches!(error, Error::Poisoned { .. }) || is_shortage(error);
            assert!(excused || self.disk.injector().fired > fired, "a fault that is over: {error}");
        }
        if self.engine.is_none() {
            self.open();
        }
    }

    fn send(&mut self, targets: &[Key], bytes: usize) -> Result<(), Error> {
        let failed_before = self.disk.injector().log_failed;
        let number = self.books.sent.len();
        let body = self.books.body(targets, bytes);
        let stores = STORES.map(|name| self.engine().store(name).expect("a store"));
        let named: Vec<_> = targets
            .iter()
            .map(|(name, timeline)| (&stores[usize::from(*name == "sync")], timeline.as_bytes()))
            .collect();
        let by_list = targets.len() > 1 && !number.is_multiple_of(4);
        let batch = fan_out(Batch::new(), self.engine(), &body, &named, by_list);
        let outcome = self.engine().submit(batch).and_then(strandline::Ticket::wait);
        match outcome {
            Ok(receipt) => {
                assert!(!self.disk.injector().log_failed, "acknowledged after the log failed");
                self.books.keep(number, &receipt.sequences);
                Ok(())
            }
            Err(error) => {
                if is_shortage(&error) {
                    self.books.sent[number].2 = Fate::Refused;
                    let poisoned = self.figure("poisoned") != 0;
                    let injector = self.disk.injector();
                    assert!(
                        !injector.log_failed,
                        "a sync of the log that failed is not reported as that: {error}"
                    );
                    // A concurrent flush may have met a sync that failed.
                    assert!(!poisoned || injector.sync_failed, "a full disk poisons: {error}");
                }
                let is_other = failed_before && !matches!(error, Error::Poisoned { .. });
                assert!(!is_other, "the log failed, and the answer is another: {error}");
                Err(error)
            }
        }
    }

    /// Reads some timelines, which must be right, or fail by name if a call failed.
    fn look(&self, keys: &[Key]) {
        for (name, timeline) in keys {
            let fired = self.disk.injector().fired;
            let store = self.engine().store(name).expect("a store");
            if let Err(error) = self.books.compare(&store, timeline) {
                self.check_named(&error);
                let now = self.disk.injector().fired > fired;
                let kind = self.disk.injector().fault.kind;
                let excused = matches!(kind, Kind::Unreadable | Kind::NoDescriptor);
                // A segment that could not be read when the engine opened is not served until the
                // next open.
                assert!(
                    excused && (now || self.figure("damaged_segments") > 0),
                    "{name}:{timeline}: {error}"
                );
            }
        }
    }

    /// There is space again: writes resume without reopening, unless a sync failed, and no unused
    /// file keeps space.
    fn check_recovered(&mut self) {
        self.disk.injector().on = false;
        let mut tries = 0;
        let target = [("messages", "c/0".to_string())];
        while let Err(error) = self.send(&target, 10).and_then(|()| self.engine().flush()) {
            if self.disk.injector().sync_failed && matches!(error, Error::Poisoned { .. }) {
                return;
            }
            assert!(is_shortage(&error), "a shortage does more than refuse: {error}");
            tries += 1;
            assert!(tries < 300, "there is space again, and writes do not resume: {error}");
            pause();
        }
        // After a failed sync of the directory it is not known which manifest is current: the files
        // that either names must stay.
        tries = 0;
        while !self.disk.injector().sync_failed {
            let live = self.figure("segments");
            let names = self.disk.list().expect("lists");
            let there = names.iter().filter(|name| name.starts_with("segment-")).count() as u64;
            // The next log file is prepared under such a name; all others are left over.
            let left = names
                .iter()
                .filter(|name| name.contains(".tmp") && *name != "wal-next.tmp")
                .count();
            if 2 * live == there && left == 0 {
                return;
            }
            tries += 1;
            assert!(
                tries < 300,
                "{there} segment files, {live} live segments, {left} left over: {names:?}"
            );
            pause();
        }
    }

    /// The disk in its current state, and as power cuts leave it.
    fn check_afterwards(mut self) {
        self.engine = None;
        self.disk.disk.set_faults(None);
        let mut model = Model::from_image(&Image::default());
        self.disk.disk.log().iter().for_each(|op| model.apply(op, None));
        let stands = SimulatedDisk::from_model(model.clone());
        let mut books = self.books.clone();
        check_disk(&stands, &mut books);
        let mut later = model.clone();
        stands.log().iter().for_each(|op| later.apply(op, None));
        let lost = SimulatedDisk::from_image(&later.power_cut(Cut::Lost, &mut Dice::new(1)));
        check_disk(&lost, &mut books);
        for (cut, seed) in [(Cut::Lost, 0), (Cut::Kept, 0), (Cut::Dice, 1), (Cut::Dice, 2)] {
            let seed = seed + 10 * self.disk.injector().fault.at;
            let disk = SimulatedDisk::from_image(&model.power_cut(cut, &mut Dice::new(seed)));
            check_disk(&disk, &mut self.books.clone());
        }
    }
}

/// It opens, shows the kept batches, and continues.
fn check_disk(disk: &SimulatedDisk, books: &mut Books) {
    let engine = open(Dir::new(Arc::new(disk.clone()))).expect("it opens without faults");
    books.adopt(&engine);
    for (name, timeline) in keys() {
        let number = books.sent.len();
        let body = books.body(&[(name, timeline.clone())], 0);
        let sequence =
            engine.store(name).and_then(|store| store.append(timeline.as_bytes(), &body));
        books.keep(number, &[sequence.expect("it takes appends")]);
    }
}

/// Runs the workload with a fault. Returns false when the fault was not met.
fn run(fault: Fault) -> bool {
    let mut run = Run::new(fault);
    let all = keys();
    let mut since = 0;
    for (place, step) in workload().iter().enumerate() {
        run.step(step);
        let fired = run.disk.injector().fired > 0;
        let some = if fired && since < 2 { &all[..] } else { &all[place % all.len()..][..1] };
        run.look(some);
        since += usize::from(fired);
        if fired && since == 4 && fault.kind.is_shortage() {
            run.check_recovered();
        }
    }
    run.look(&all);
    let met = run.disk.injector().fired > 0;
    run.check_afterwards();
    met
}

/// Number of concurrent runs: their threads mostly wait for each other.
const WORKERS: u64 = 6;

const PATIENCE: Duration = Duration::from_mins(1);

/// Starts runs, each with a watchdog, until the workload ends before the fault.
fn run_share(kind: Kind, for_ever: bool, worker: u64) -> u64 {
    for place in 0.. {
        let fault = Fault { kind, at: worker + place * WORKERS, for_ever };
        let (done, result) = channel();
        let thread = std::thread::spawn(move || {
            let _ = done.send(run(fault));
        });
        match result.recv_timeout(PATIENCE) {
            Ok(true) => {}
            Ok(false) => return place,
            Err(RecvTimeoutError::Timeout) => panic!("{fault:?} hangs"),
            Err(RecvTimeoutError::Disconnected) => {
                let _ = thread.join();
                panic!("{fault:?}: see the panic above");
            }
        }
    }
    0
}

fn fail_everywhere(kind: Kind) {
    for for_ever in [false, true] {
        let runs: u64 = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..WORKERS)
                .map(|worker| scope.spawn(move || run_share(kind, for_ever, worker)))
                .collect();
            workers.into_iter().map(|worker| worker.join().expect("a run failed: see above")).sum()
        });
        println!("{kind:?}, for ever {for_ever}: {runs} places");
        let least = match kind {
            Kind::Short => 130,
            Kind::NoDescriptor => 100,
            _ => 430,
        };
        assert!(runs > least, "the workload has more calls than {runs}");
    }
}

#[test]
fn a_disk_that_fails_at_any_call_is_never_trusted_again() {
    fail_everywhere(Kind::Broken);
}

#[test]
fn a_disk_that_fails_in_the_middle_of_a_write_is_never_trusted_again() {
    fail_everywhere(Kind::Short);
}

#[test]
fn a_call_that_cannot_read_fails_by_name_and_nothing_is_wrong_after_it() {
    fail_everywhere(Kind::Unreadable);
}

#[test]
fn a_full_disk_refuses_writes_and_accepts_them_again_when_there_is_space() {
    fail_everywhere(Kind::Full);
}

#[test]
fn a_disk_that_fills_up_during_a_write_refuses_writes_and_accepts_them_again() {
    fail_everywhere(Kind::HalfFull);
}

#[test]
fn without_descriptors_writes_are_refused_and_accepted_again_and_one_is_always_found() {
    fail_everywhere(Kind::NoDescriptor);
}

#[test]
fn a_disk_that_lies_about_its_syncs_is_detected() {
    let noticed = (0..12).filter(|at| {
        let fault = Fault { kind: Kind::Lying, at: *at, for_ever: true };
        catch_unwind(AssertUnwindSafe(|| run(fault))).is_err()
    });
    assert_eq!(noticed.count(), 12, "what a lost sync takes is not missed");
}
