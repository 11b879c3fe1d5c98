//! Random full disks (P2, P6, P8): a disk fills up, most of its content is removed, and the space
//! is reclaimed.
//!
//! Each story is drawn: the number of timelines, the size of the bodies and whether they were
//! edited, the other content of the disk, what is removed and how, and whether the process is
//! killed before or after. The oracle of each: without a call from outside and without a restart,
//! appends are accepted again, removed data leaves the disk, and each timeline continues its
//! sequences and shows the expected entries.

use std::fmt::Write as _;
use std::sync::Arc;

use strandline::vfs::Dir;
use strandline::vfs::simulated::Dice;
use strandline::{Engine, Error, Limit, Store, Trim};

use crate::gates::{FLUSH, Gates};
use crate::world::{House, soon};

const CAPACITY_BYTES: u64 = 1024 * 1024;

/// Upper limit for everything on the disk except segments: the reserve, the log, a manifest and its
/// successor, indexes.
const BESIDE_BYTES: usize = 200 * 1024;

/// The trims of a story are in memory for at most this long.
const PATIENCE_MS: u64 = 61_000;

/// A way to remove entries: all but the newest `keep`.
#[derive(Clone, Copy, Debug)]
enum Way {
    Trim,
    Drop,
    Delete,
}

struct Story {
    house: House,
    dice: Dice,
    /// The expected content of each timeline: sequence and body.
    kept: Vec<Vec<(u64, Vec<u8>)>>,
    lasts: Vec<u64>,
    description: String,
}

fn name(timeline: usize) -> Vec<u8> {
    format!("t/{timeline}").into_bytes()
}

impl Story {
    fn new(seed: u64) -> Story {
        let (house, mut dice) = (House::new(), Dice::new(seed));
        house.disk.set_capacity(Some(CAPACITY_BYTES));
        let timelines = [1, 3, 20][dice.below(3) as usize];
        let description = format!("seed {seed}: {timelines} timelines");
        Story {
            house,
            dice,
            kept: vec![Vec::new(); timelines],
            lasts: vec![0; timelines],
            description,
        }
    }

    /// The description of the story, for a failure.
    fn describe(&mut self, what: std::fmt::Arguments<'_>) {
        self.description.write_fmt(what).expect("a string takes all");
    }

    fn body(&mut self) -> Vec<u8> {
        let bytes = [300, 3000, 12_000][self.dice.below(3) as usize];
        vec![b'a' + self.dice.below(26) as u8; bytes]
    }

    /// Appends and edits until the disk is full.
    fn fill(&mut self, store: &Store) {
        let edits = self.dice.below(3);
        self.describe(format_args!(", {edits} of 4 are edits"));
        loop {
            let timeline = self.dice.below(self.kept.len() as u64) as usize;
            let body = self.body();
            let is_edit = self.dice.below(4) < edits && !self.kept[timeline].is_empty();
            let outcome = if is_edit {
                let place = self.dice.below(self.kept[timeline].len() as u64) as usize;
                let row = &mut self.kept[timeline][place];
                let edited = store.edit(name(timeline), row.0, &body);
                edited.map(|edited| {
                    assert!(edited, "it is there");
                    row.1 = body;
                })
            } else {
                store.append(name(timeline), &body).map(|sequence| {
                    self.lasts[timeline] += 1;
                    assert_eq!(sequence, self.lasts[timeline], "{}", self.description);
                    self.kept[timeline].push((sequence, body));
                })
            };
            match outcome {
                Ok(()) => {}
                Err(Error::DiskFull { .. }) => return,
                Err(error) => panic!("{}: {error}", self.description),
            }
        }
    }

    /// Removes most of it.
    fn remove(&mut self, store: &Store) {
        let way = [Way::Trim, Way::Drop, Way::Delete][self.dice.below(3) as usize];
        let keep = if matches!(way, Way::Drop) { 0 } else { self.dice.below(2) as usize };
        self.describe(format_args!(", {way:?} to {keep}"));
        for timeline in 0..self.kept.len() {
            let gone = self.kept[timeline].len().saturating_sub(keep);
            let gone: Vec<u64> =
                self.kept[timeline].drain(..gone).map(|(sequence, _)| sequence).collect();
            if gone.is_empty() {
                continue;
            }
            let name = name(timeline);
            let removed = match way {
                Way::Trim => store.trim(&name, Trim::Keep(keep as u64)),
                Way::Drop => store
                    .drop_timeline(&name)
                    .map(|dropped| if dropped { gone.len() as u64 } else { 0 }),
                Way::Delete => store.delete(&name, &gone),
            };
            assert_eq!(
                removed.unwrap_or_else(|error| panic!("{}: {error}", self.description)),
                gone.len() as u64
            );
        }
    }

    fn check(&self, store: &Store) {
        for (timeline, kept) in self.kept.iter().enumerate() {
            let page = store.range(name(timeline), .., Limit::entries(10_000)).expect("reads");
            let shown: Vec<(u64, Vec<u8>)> = page
                .entries
                .into_iter()
                .map(|entry| (entry.sequence, entry.body.to_vec()))
                .collect();
            assert!(shown == *kept, "{}: t/{timeline} shows something else", self.description);
        }
    }

    /// The oracle.
    fn space_comes_back(&mut self, engine: &Engine, store: &Store, others: usize) {
        self.house.clock.pass(PATIENCE_MS);
        let alive: usize = self.kept.iter().flatten().map(|(_, body)| body.len()).sum();
        let figures = || {
            let figure = |name| engine.stats().get(name).expect("a figure");
            let names = ["merges_wait_for_space", "reserve_is_out", "compaction_debt_bytes"];
            format!(
                "{:?} {} bytes, {alive} alive",
                names.map(|name| (name, figure(name))),
                self.house.bytes()
            )
        };
        let mut given = Err(Error::SequenceExhausted);
        soon(&format!("{}: appends are taken again: {}", self.description, figures()), || {
            given = store.append(name(0), b"probe");
            given.is_ok()
        });
        self.lasts[0] += 1;
        assert_eq!(given.expect("appends"), self.lasts[0], "{}", self.description);
        self.kept[0].push((self.lasts[0], b"probe".to_vec()));
        let most = 2 * alive + BESIDE_BYTES + others;
        soon(&format!("{}: {most} bytes at most", self.description), || self.house.bytes() <= most);
    }
}

fn play(seed: u64) {
    let mut drawn = Story::new(seed);
    let (mut engine, mut store) = drawn.house.open();
    drawn.fill(&store);
    let not_ours = (drawn.dice.below(2) == 0).then(|| {
        let file = drawn.house.dir().create("not ours").expect("creates");
        let left = [0, 8 * 1024, 40 * 1024][drawn.dice.below(3) as usize];
        while drawn.house.disk.free_bytes() > left {
            let end = file.len().expect("measures").next_multiple_of(4096);
            let _ = file.write(end, &vec![1; (drawn.house.disk.free_bytes() - left) as usize]);
        }
        drawn.describe(format_args!(", others leave {left} bytes"));
        file.len().expect("measures") as usize
    });
    let restart = drawn.dice.below(3);
    drawn.describe(format_args!(", restart {restart}"));
    if restart == 1 {
        drop((engine, store));
        (engine, store) = drawn.house.open();
    }
    drawn.check(&store);
    drawn.remove(&store);
    if restart == 2 {
        drop((engine, store));
        (engine, store) = drawn.house.open();
    }
    drawn.check(&store);
    drawn.space_comes_back(&engine, &store, not_ours.unwrap_or(0));
    drawn.check(&store);
    assert!(!engine.stats().poisoned, "{}", drawn.description);
    drop((engine, store));
    let (engine, store) = drawn.house.open();
    drawn.check(&store);
    let findings = engine.verify(|_, _| {}).expect("verifies").findings;
    assert!(findings.is_empty(), "{}: {findings:?}", drawn.description);
}

#[test]
fn space_is_reclaimed_whatever_was_on_a_full_disk_and_however_it_was_removed() {
    let count =
        if std::env::var("STRANDLINE_PROOF").is_ok_and(|size| size == "long") { 300 } else { 12 };
    (0..count).for_each(play);
}

#[test]
fn a_trim_on_a_full_disk_waits_for_the_flush_that_is_under_way() {
    let gates = Gates::new();
    gates.disk.set_capacity(Some(CAPACITY_BYTES));
    let (engine, store) = gates.open();
    gates.hold(FLUSH);
    soon("a memtable is sealed", || {
        store.append(b"t", [b'~'; 3000]).expect("appends");
        engine.stats().sealed_memtables == 1
    });
    let dir = Dir::new(Arc::new(gates.disk.clone()));
    let not_ours = dir.create("not ours").expect("creates");
    let fill_up = |not_ours: &strandline::vfs::File| {
        while gates.disk.free_bytes() > 0 {
            let end = not_ours.len().expect("measures").next_multiple_of(4096);
            let _ = not_ours.write(end, &vec![1; gates.disk.free_bytes() as usize]);
        }
    };
    fill_up(&not_ours);
    std::thread::scope(|scope| {
        let trims = scope.spawn(|| {
            (2..1000).try_for_each(|lowest| store.trim(b"t", Trim::Before(lowest)).map(drop))
        });
        soon("a trim waits", || {
            fill_up(&not_ours);
            engine.stats().write_stalls == 1 || trims.is_finished()
        });
        dir.remove("not ours").expect("removes");
        drop(not_ours);
        gates.release(FLUSH);
        trims.join().expect("no panic").expect("none is refused");
    });
}
