//! Crashes at every position of a recording: power cuts, killed processes, and crashes of the work
//! after a crash.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use strandline::vfs::simulated::{Cut, Dice, Image, Model, Op, SimulatedDisk};

use super::books::{Books, Event};
use super::driver::{Driver, Recording, background, step};
use super::judge::{check, check_as, check_thoroughly, judge_same_epochs};
use super::mutants::Mutant;
use super::replay;

/// Number of disks judged at once: an engine's threads mostly wait for each other.
const WORKERS: usize = 6;

/// How thoroughly to cut.
#[derive(Clone, Default)]
pub struct Plan {
    /// How many random cuts at each position.
    pub throws: u64,
    /// Recovery is cut at every call for one in this many positions; 0: never.
    pub recovery_every: usize,
    /// One in this many states is also continued.
    pub thorough_every: u64,
    pub mutant: Option<Mutant>,
}

impl Plan {
    fn is_thorough(&self, dice: &mut Dice) -> bool {
        self.thorough_every != 0 && dice.below(self.thorough_every) == 0
    }
}

/// How many states were judged, by their origin.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// A power cut at a position of the recording.
    pub cuts: u64,
    /// A power cut in the work after such a cut.
    pub nested: u64,
    /// A power cut in or after the open that followed a killed process.
    pub killed: u64,
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Counts) {
        self.cuts += other.cuts;
        self.nested += other.nested;
        self.killed += other.killed;
    }
}

impl Counts {
    pub fn all(&self) -> u64 {
        self.cuts + self.nested + self.killed
    }
}

/// The disks that were judged already with the same books: duplicates are neither judged nor
/// counted again.
#[derive(Default)]
struct Seen(BTreeSet<u64>);

impl Seen {
    fn is_new(&mut self, image: &Image) -> bool {
        let mut hasher = DefaultHasher::new();
        image.files.hash(&mut hasher);
        self.0.insert(hasher.finish())
    }
}

/// The action at each position at which a crash leaves something new: the position, the model and
/// the books there.
type AtPlace<'a> = dyn Fn(usize, &Op, &Model, &Books) -> Result<Counts, String> + Sync + 'a;

impl Recording {
    /// The log as the mutant would have written it.
    fn log_of(&self, mutant: Option<&Mutant>) -> Vec<Op> {
        mutant.map_or_else(
            || self.log.clone(),
            |mutant| mutant.apply(&self.base, &self.log, &self.events),
        )
    }

    /// Walks through the log, by several workers that each take their share of the positions, until
    /// one finds something.
    fn at_each_place(&self, log: &[Op], at_place: &AtPlace<'_>) -> Result<Counts, String> {
        let found = AtomicBool::new(false);
        let share = |worker: usize| {
            let (mut model, mut books) = (Model::from_image(&self.base), Books::default());
            let mut counts = Counts::default();
            let mut place = 0;
            for op in std::iter::once(&Op::Mark(u64::MAX)).chain(log) {
                model.apply(op, None);
                books.note(op, &self.events);
                let event =
                    if let Op::Mark(mark) = op { self.events.get(*mark as usize) } else { None };
                if event.is_some_and(|event| !event.binds()) {
                    continue;
                }
                place += 1;
                if found.load(Ordering::Relaxed) {
                    break;
                }
                if place % WORKERS == worker {
                    let described = |what| {
                        found.store(true, Ordering::Relaxed);
                        format!("{}, behind call {place} ({}): {what}", self.name, brief(op))
                    };
                    counts += at_place(place / WORKERS, op, &model, &books).map_err(described)?;
                }
            }
            Ok(counts)
        };
        let outcomes: Vec<Result<Counts, String>> = std::thread::scope(|scope| {
            let workers: Vec<_> =
                (0..WORKERS).map(|worker| scope.spawn(move || share(worker))).collect();
            workers.into_iter().map(|worker| worker.join().expect("no panic")).collect()
        });
        let mut counts = Counts::default();
        for outcome in outcomes {
            counts += outcome?;
        }
        Ok(counts)
    }

    /// Cuts the power at every position of the log, in every way, and again at every call of the
    /// recovery.
    pub fn cut_everywhere(&self, plan: &Plan) -> Result<Counts, String> {
        let log = self.log_of(plan.mutant.as_ref());
        let at_place = |place: usize, _: &Op, model: &Model, books: &Books| {
            let (mut counts, mut seen) = (Counts::default(), Seen::default());
            for cut in Cut::ALL {
                for throw in 0..if cut == Cut::Dice { plan.throws } else { 1 } {
                    let mut dice = Dice::new(throw + 1000 * place as u64);
                    let image = model.power_cut(cut, &mut dice);
                    if !seen.is_new(&image) {
                        continue;
                    }
                    let disk = SimulatedDisk::from_image(&image);
                    let thorough = plan.is_thorough(&mut dice);
                    let described = |what| format!("cut {cut:?} throw {throw}: {what}");
                    let recovery =
                        self.judged(&disk, &image, books, thorough, plan).map_err(described)?;
                    counts.cuts += 1;
                    if plan.recovery_every != 0 && place.is_multiple_of(plan.recovery_every) {
                        counts.nested += self
                            .cut_recovery(&image, &recovery, books, plan, &mut dice)
                            .map_err(described)?;
                    }
                }
            }
            Ok(counts)
        };
        self.at_each_place(&log, &at_place)
    }

    /// Judges one disk, and keeps it if it fails. Returns the log of its first opening.
    fn judged(
        &self,
        disk: &SimulatedDisk,
        image: &Image,
        books: &Books,
        thorough: bool,
        plan: &Plan,
    ) -> Result<Vec<Op>, String> {
        let judged = check(disk, &self.keys, books, true).and_then(|_| {
            let recovery = disk.log();
            let again = SimulatedDisk::from_image(image);
            if thorough {
                check_thoroughly(&again, &self.keys, books, true).map(|()| recovery)
            } else {
                Ok(recovery)
            }
        });
        judged.map_err(|what| match plan.mutant {
            Some(_) => what,
            None => replay::keep(&self.keys, image, books, true, &what),
        })
    }

    /// Cuts the power at every call of a recovery, given its log.
    fn cut_recovery(
        &self,
        image: &Image,
        recovery: &[Op],
        books: &Books,
        plan: &Plan,
        dice: &mut Dice,
    ) -> Result<u64, String> {
        let mut model = Model::from_image(image);
        let recovery = plan.mutant.as_ref().map_or_else(
            || recovery.to_vec(),
            |mutant| mutant.apply(image, recovery, &self.events),
        );
        let (mut seen, mut judged) = (Seen::default(), 0);
        for (place, op) in recovery.iter().enumerate() {
            model.apply(op, None);
            for cut in [Cut::Lost, Cut::NamesOnly, Cut::Dice] {
                let image = model.power_cut(cut, dice);
                if !seen.is_new(&image) {
                    continue;
                }
                let disk = SimulatedDisk::from_image(&image);
                let described = |what| {
                    format!("{cut:?} after call {place} of the recovery ({}): {what}", brief(op))
                };
                let thorough = plan.is_thorough(dice);
                self.judged(&disk, &image, books, thorough, plan).map_err(described)?;
                judged += 1;
            }
        }
        Ok(judged)
    }

    /// Every disk that a power cut could have left, at each position where there are no more than
    /// `limit`. Returns how many different ones were judged, and at how many of all positions all
    /// of them were.
    pub fn cut_in_all_ways(&self, limit: usize) -> Result<(u64, usize, usize), String> {
        let (whole, places) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let at_place = |_: usize, _: &Op, model: &Model, books: &Books| {
            let (mut seen, mut counts) = (Seen::default(), Counts::default());
            let mut judge = |dice: &mut Dice| -> Result<(), String> {
                let image = model.power_cut(Cut::Dice, dice);
                if seen.is_new(&image) {
                    counts.cuts += 1;
                    let disk = SimulatedDisk::from_image(&image);
                    self.judged(&disk, &image, books, true, &Plan::default())?;
                }
                Ok(())
            };
            let mut dice = Dice::walk();
            let mut left = limit;
            while left > 0 {
                judge(&mut dice)?;
                left -= 1;
                if !dice.advance() {
                    whole.fetch_add(1, Ordering::Relaxed);
                    break;
                }
            }
            if left == 0 {
                // The walk changes the last decisions first: random cuts change the others.
                (0..limit as u64).try_for_each(|throw| judge(&mut Dice::new(throw)))?;
            }
            places.fetch_add(1, Ordering::Relaxed);
            Ok(counts)
        };
        let counts = self.at_each_place(&self.log, &at_place)?;
        Ok((counts.cuts, whole.into_inner(), places.into_inner()))
    }

    /// Kills the process at each of one in `every` positions: nothing is lost from the page cache.
    /// Then it is opened, and the power is cut while it opens and afterwards.
    pub fn kill_everywhere(&self, every: usize) -> Result<Counts, String> {
        let at_place = |place: usize, _: &Op, model: &Model, books: &Books| {
            let mut counts = Counts::default();
            if !place.is_multiple_of(every) {
                return Ok(counts);
            }
            let disk = SimulatedDisk::from_model(model.clone());
            let judged = check(&disk, &self.keys, books, false);
            judged.and_then(|shown| judge_same_epochs(&shown, books)).map_err(|what| {
                // Kept as if all of the page cache had been written.
                let image = model.power_cut(Cut::Kept, &mut Dice::new(0));
                replay::keep(&self.keys, &image, books, false, &format!("killed: {what}"))
            })?;
            let recovery = disk.log();
            let (mut dice, mut seen) =
                (Dice::new(place as u64), [Seen::default(), Seen::default()]);
            let within = dice.below(recovery.len() as u64 + 1) as usize;
            for (calls, cut) in [
                (within, Cut::Lost),
                (within, Cut::Dice),
                (recovery.len(), Cut::Lost),
                (recovery.len(), Cut::Dice),
            ] {
                let mut later = model.clone();
                recovery[..calls].iter().for_each(|op| later.apply(op, None));
                let image = later.power_cut(cut, &mut dice);
                // Once it was open, even batches that were acknowledged for a process crash only
                // are durable.
                let power = calls < recovery.len();
                if !seen[usize::from(power)].is_new(&image) {
                    continue;
                }
                let disk = SimulatedDisk::from_image(&image);
                let described = |what| {
                    let what = format!("killed, opened, cut {cut:?} after {calls} calls: {what}");
                    replay::keep(&self.keys, &image, books, power, &what)
                };
                check_as(dice.below(8) == 0, &disk, &self.keys, books, power).map_err(described)?;
                counts.killed += 1;
            }
            Ok(counts)
        };
        self.at_each_place(&self.log, &at_place)
    }

    /// Chains of crashes three deep: the disk after a cut is opened, continues with appends,
    /// flushes, merges, changes, manifest switches and clean stops, and is cut at any call of that
    /// life, the opening included; and so on. `chains` of them, each from a random position.
    pub fn cut_three_deep(&self, chains: u64, seed: u64) -> Result<Counts, String> {
        let (next, judged_before) = (AtomicUsize::new(0), Mutex::new(Seen::default()));
        let share = || {
            let mut counts = Counts::default();
            loop {
                let chain = next.fetch_add(1, Ordering::Relaxed) as u64;
                if chain >= chains {
                    return Ok(counts);
                }
                let described =
                    |what| format!("{}, chain {chain} of seed {seed}: {what}", self.name);
                counts.nested += self
                    .chain(&mut Dice::new(seed << 32 | chain), &judged_before)
                    .map_err(described)?;
            }
        };
        let outcomes: Vec<Result<Counts, String>> = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..WORKERS).map(|_| scope.spawn(share)).collect();
            workers.into_iter().map(|worker| worker.join().expect("no panic")).collect()
        });
        let mut counts = Counts::default();
        for outcome in outcomes {
            counts += outcome?;
        }
        Ok(counts)
    }

    /// One chain. Returns how many new states were judged that more than one cut made.
    fn chain(&self, dice: &mut Dice, judged_before: &Mutex<Seen>) -> Result<u64, String> {
        let (mut model, mut books) = (Model::from_image(&self.base), Books::default());
        let place = dice.below(self.log.len() as u64 + 1) as usize;
        for op in &self.log[..place] {
            model.apply(op, None);
            books.note(op, &self.events);
        }
        let mut image = model.power_cut(any_cut(dice), dice);
        let mut described = format!("cut at {place}");
        let mut judged = 0;
        for depth in 0..=3 {
            let fail = |what: String| {
                replay::keep(&self.keys, &image, &books, true, &format!("{described}: {what}"))
            };
            let disk = SimulatedDisk::from_image(&image);
            let thorough = depth == 3 || dice.below(4) == 0;
            check_as(thorough, &disk, &self.keys, &books, true).map_err(fail)?;
            let is_new = judged_before.lock().expect("no panic inside").is_new(&image);
            judged += u64::from(depth > 0 && is_new);
            if depth == 3 {
                break;
            }
            let (log, events) = self.life(&image, &books, dice).map_err(fail)?;
            // Half of the cuts are in the opening, where the least is known and most happens.
            let opened = log.iter().position(|op| matches!(op, Op::Mark(0))).unwrap_or(log.len());
            let bound = if dice.below(2) == 0 { opened } else { log.len() };
            let place = dice.below(bound as u64 + 1) as usize;
            let mut model = Model::from_image(&image);
            for op in &log[..place] {
                model.apply(op, None);
                books.note(op, &events);
            }
            let cut = any_cut(dice);
            image = model.power_cut(cut, dice);
            described = format!("{described}, {cut:?} at {place} of {}", log.len());
        }
        Ok(judged)
    }

    /// Opens the disk after a crash, continues for a while, and returns the log of that.
    fn life(
        &self,
        image: &Image,
        books: &Books,
        dice: &mut Dice,
    ) -> Result<(Vec<Op>, Vec<Event>), String> {
        let disk = SimulatedDisk::from_image(image);
        let next_batch = books.batches.keys().next_back().map_or(0, |last| last + 1) + 1000;
        let mut driver =
            Driver::going_on(disk.clone(), self.keys.clone(), books.now_ms, next_batch);
        let engine = driver.open()?;
        let beside = (dice.below(4) == 0).then(|| background(&engine, 1));
        let stopped = (0..dice.below(5)).any(|_| step(&mut driver, &engine, dice));
        driver.drain();
        if let Some(beside) = beside {
            beside.join().map_err(|_| "a flush or a merge beside it panicked")?;
        }
        if stopped {
            engine.close().map_err(|error| format!("does not close: {error}"))?;
        }
        drop(engine);
        Ok((disk.log(), driver.notes.events()))
    }
}

/// A call, without the bytes that it writes.
fn brief(op: &Op) -> String {
    match op {
        Op::Write { file, offset, bytes } => {
            format!("write {} bytes at {offset} of file {file}", bytes.len())
        }
        Op::Sync { file, site } => format!("sync file {file} at {}:{}", site.file(), site.line()),
        Op::SyncDir { site } => format!("sync the directory at {}:{}", site.file(), site.line()),
        other => format!("{other:?}"),
    }
}

fn any_cut(dice: &mut Dice) -> Cut {
    match dice.below(8) {
        place @ 0..=3 => Cut::ALL[place as usize],
        _ => Cut::Dice,
    }
}
