//! Crashes everywhere (P1–P4, P8), and the proof that the judge detects errors: mutants of the
//! engine, each of which it must catch.
//!
//! `STRANDLINE_PROOF=long` judges some millions of states. A state that fails is kept, and the
//! failure message shows how to judge it again.

use std::path::Path;

use strandline::Durability::{Disk, Os};
use strandline::vfs::Site;
use strandline::vfs::simulated::{Cut, Dice, Model, Op, SimulatedDisk};

use crate::simulation::backups::{check_backup, seeded_with_backups};
use crate::simulation::books::{Books, Event};
use crate::simulation::cuts::{Counts, Plan};
use crate::simulation::driver::{Driver, Observer, Recording, seeded, some_keys};
use crate::simulation::mutants::{Mutant, moves};
use crate::simulation::{Key, TTL_MS, is_long, replay};

fn key(store: &'static str, timeline: impl std::fmt::Display) -> Key {
    (store, timeline.to_string())
}

/// Appends to three timelines, through several log files, with a clean stop in the middle.
fn appends() -> Recording {
    let keys: Vec<Key> = (0..3).map(|number| key("messages", number)).collect();
    let mut driver = Driver::new(SimulatedDisk::new(), keys.clone());
    for _life in 0..2 {
        let engine = driver.open().expect("opens");
        for number in 0..14 {
            let durability = if number % 5 == 3 { Os } else { Disk };
            driver.send(&engine, &keys[number % 3..][..1], 700 * (number % 4), durability);
            if number == 8 {
                driver.repeat(&engine);
            }
        }
        engine.close().expect("closes");
    }
    driver.finish("appends")
}

/// Fan-outs of 50, and the kill of a process without a clean stop.
fn fan_outs() -> Recording {
    let users = (0..60).map(|user| key("sync", user));
    let mut driver =
        Driver::new(SimulatedDisk::new(), users.chain([key("messages", "room")]).collect());
    for life in 0..2 {
        let engine = driver.open().expect("opens");
        for number in 0..6 {
            let targets: Vec<Key> = std::iter::once(key("messages", "room"))
                .chain((0..50).map(|user| key("sync", (user + 7 * life) % 60)))
                .collect();
            driver.submit(&engine, &targets, 100, if number == 2 { Os } else { Disk });
            if number % 2 == 1 {
                driver.drain();
            }
        }
        driver.drain();
    }
    driver.finish("fan-outs")
}

/// Appends while one thread flushes and merges, and another reads when it is notified.
fn flushes() -> Recording {
    let keys: Vec<Key> = [key("messages", 0), key("messages", 1), key("sync", "all")]
        .into_iter()
        .chain((0..5).map(|user| key("sync", user)))
        .collect();
    let mut driver = Driver::new(SimulatedDisk::new(), keys);
    let engine = driver.open().expect("opens");
    let observer = Observer::start(&driver, &engine);
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let flusher = std::thread::spawn({
        let engine = engine.clone();
        move || {
            let mut flushes = 0;
            while stopped.try_recv().is_err() && flushes < 9 {
                engine.flush().expect("flushes");
                flushes += 1;
            }
            engine.compact().expect("merges");
        }
    });
    for number in 0..24 {
        let targets = [key("messages", number % 2), key("sync", number % 5), key("sync", "all")];
        driver.send(&engine, &targets, 50, Disk);
    }
    drop(stop);
    flusher.join().expect("no panic");
    driver.pass(TTL_MS);
    driver.send(&engine, &[key("sync", "all")], 50, Disk);
    engine.compact().expect("drops what has expired");
    drop(observer);
    driver.finish("flushes")
}

/// Appends into log files that were used before, in two lives.
fn reused_files() -> Recording {
    let keys = [key("messages", 0), key("sync", 0)];
    let mut driver = Driver::new(SimulatedDisk::new(), keys.to_vec());
    for _life in 0..2 {
        let engine = driver.open().expect("opens");
        for number in 0..10 {
            // Two of them fill a file.
            let durability = if number % 5 == 3 { Os } else { Disk };
            driver.send(&engine, &keys[number % 2..], 3000, durability);
            if number % 2 == 1 {
                engine.flush().expect("flushes");
            }
        }
    }
    let recording = driver.finish("reused files");
    let again = recording.log.iter().filter(|op| is_kept(op)).count();
    assert!(again >= 4, "only {again} files were used again");
    recording
}

/// Whether a log file is kept to be used again.
fn is_kept(op: &Op) -> bool {
    matches!(op, Op::Rename { from, to } if from.starts_with("wal-") && to == "wal-next.tmp")
}

fn fixed() -> [Recording; 4] {
    [appends(), fan_outs(), flushes(), reused_files()]
}

/// How many workloads by seed are run, and how many steps each has.
fn seeds() -> u64 {
    if is_long() { 1140 } else { 116 }
}

const STEPS: u64 = 25;

/// The factor for a long proof.
fn times(long: u64) -> u64 {
    if is_long() { long } else { 1 }
}

fn proved(name: &str, outcome: Result<Counts, String>) -> Counts {
    let counts = outcome.unwrap_or_else(|what| panic!("{what}"));
    println!(
        "{name}: {} states of one power cut, {} of several, {} of a kill, an open and a power cut",
        counts.cuts, counts.nested, counts.killed
    );
    counts
}

/// Guards against a harness that has become smaller: a proof that judged fewer states than it
/// claims is a failure.
fn at_least(what: &str, judged: u64, least: u64) {
    println!("{what}: {judged}, at least {least}");
    assert!(judged >= least, "{what}: only {judged} were judged, {least} are promised");
}

#[test]
fn a_power_cut_anywhere_in_small_workloads_and_in_each_recovery_loses_nothing() {
    let throws = if is_long() { 96 } else { 12 };
    let plan = Plan { throws, recovery_every: 3, thorough_every: 8, mutant: None };
    let mut all = Counts::default();
    for recording in fixed() {
        all += proved(&recording.name, recording.cut_everywhere(&plan));
    }
    at_least("small workloads: crash states", all.all(), 24_000);
}

#[test]
fn a_power_cut_anywhere_in_workloads_of_many_seeds_loses_nothing() {
    let plan = Plan {
        throws: if is_long() { 60 } else { 10 },
        recovery_every: 0,
        thorough_every: 16,
        mutant: None,
    };
    let mut all = Counts::default();
    for seed in 0..seeds() {
        let recording = seeded(seed, STEPS);
        all += recording.cut_everywhere(&plan).unwrap_or_else(|what| panic!("{what}"));
    }
    let all = proved(&format!("{} seeds", seeds()), Ok(all));
    at_least("seeds: crash states", all.all(), if is_long() { 4_600_000 } else { 180_000 });
}

#[test]
fn every_disk_that_a_power_cut_can_leave_of_tiny_workloads_loses_nothing() {
    let limit = if is_long() { 1 << 14 } else { 1 << 9 };
    let (mut states, mut whole, mut places) = (0, 0, 0);
    for recording in tiny() {
        let counts = recording.cut_in_all_ways(limit).unwrap_or_else(|what| panic!("{what}"));
        println!(
            "{}: {} states, all there are at {} of {} places",
            recording.name, counts.0, counts.1, counts.2
        );
        states += counts.0;
        whole += counts.1;
        places += counts.2;
    }
    at_least("tiny workloads: different states", states, 5000);
    assert!(4 * whole > 3 * places, "only at {whole} of {places} places all states were judged");
}

/// One feature each, so that all combinations of unsynced data can be judged.
fn tiny() -> Vec<Recording> {
    let keys = || vec![key("messages", "a"), key("sync", "b")];
    let one = |name: &str, work: &dyn Fn(&mut Driver)| {
        let mut driver = Driver::new(SimulatedDisk::new(), keys());
        work(&mut driver);
        driver.finish(name)
    };
    vec![
        one("one append", &|driver| {
            let engine = driver.open().expect("opens");
            driver.send(&engine, &keys(), 900, Disk);
        }),
        one("two batches in flight", &|driver| {
            let engine = driver.open().expect("opens");
            driver.submit(&engine, &keys()[..1], 0, Disk);
            driver.submit(&engine, &keys(), 600, Disk);
            driver.drain();
        }),
        one("a flush", &|driver| {
            let engine = driver.open().expect("opens");
            driver.send(&engine, &keys(), 0, Disk);
            engine.flush().expect("flushes");
        }),
        one("a merge", &|driver| {
            let engine = driver.open().expect("opens");
            for _ in 0..2 {
                driver.send(&engine, &keys()[..1], 0, Disk);
                engine.flush().expect("flushes");
            }
            engine.compact().expect("merges");
        }),
        one("two edits and a flush", &|driver| {
            let engine = driver.open().expect("opens");
            driver.send(&engine, &keys(), 0, Disk);
            driver.edit(&engine, &keys()[0], 1);
            engine.flush().expect("flushes");
            driver.edit(&engine, &keys()[0], 1);
        }),
        one("a trim and a clean stop", &|driver| {
            let engine = driver.open().expect("opens");
            driver.send(&engine, &keys(), 0, Disk);
            driver.trim(&engine, &keys()[0], 2);
            engine.close().expect("closes");
            driver.open().expect("opens");
        }),
    ]
}

#[test]
fn a_killed_process_loses_nothing_and_a_power_cut_after_its_recovery_neither() {
    let mut all = Counts::default();
    for recording in fixed() {
        all += proved(&recording.name, recording.kill_everywhere(if is_long() { 1 } else { 3 }));
    }
    for seed in 0..if is_long() { 240 } else { 66 } {
        let recording = seeded(10_000 + seed, STEPS);
        let every = if is_long() { 1 } else { 2 };
        all += recording.kill_everywhere(every).unwrap_or_else(|what| panic!("{what}"));
    }
    at_least("kill, open, power cut: states", all.killed, if is_long() { 200_000 } else { 25_000 });
}

#[test]
fn crashes_three_deep_in_recovery_flush_merge_and_manifest_switch_lose_nothing() {
    let mut all = Counts::default();
    for seed in 0..if is_long() { 500 } else { 48 } {
        let recording = seeded(20_000 + seed, STEPS);
        let chains = if is_long() { 500 } else { 200 };
        all += recording.cut_three_deep(chains, seed).unwrap_or_else(|what| panic!("{what}"));
    }
    at_least("three deep: states of more than one crash", all.nested, 20_000 * times(25));
}

#[test]
fn a_backup_during_trims_edits_merges_and_expiry_is_the_state_of_one_moment() {
    let (seeds, rounds) = if is_long() { (600, 20) } else { (40, 10) };
    let mut judged = 0;
    for seed in 0..seeds {
        let (events, taken) = seeded_with_backups(seed, rounds);
        for backup in &taken {
            check_backup(&some_keys(), &events, backup)
                .unwrap_or_else(|what| panic!("seed {seed}: {what}"));
            judged += 1;
        }
    }
    at_least("backups", judged, if is_long() { 12_000 } else { 400 });
}

/// Every source position in the engine that requests a sync, as far as the workloads reach it.
fn sites(recordings: &[Recording]) -> Vec<Site> {
    let mut sites: Vec<Site> = Vec::new();
    for op in recordings.iter().flat_map(|recording| &recording.log) {
        if let Op::Sync { site, .. } | Op::SyncDir { site } = op
            && !sites.contains(site)
        {
            sites.push(site);
        }
    }
    sites.sort_by_key(|site| (site.file(), site.line()));
    sites
}

/// Syncs that are there for speed: without them the disk writes zeros later, at a worse moment.
fn is_for_speed(site: Site) -> bool {
    site.file().ends_with("prepare.rs") || site.file().ends_with("reserve.rs")
}

fn mutants(recordings: &[Recording]) -> Vec<Mutant> {
    let sites = sites(recordings);
    let removals = sites.into_iter().filter(|site| !is_for_speed(site));
    let removals = removals.flat_map(|site| {
        // The same line makes data and index durable.
        let both: &[&str] =
            if site.file().contains("/segment/") { &[".data", ".index"] } else { &[""] };
        both.iter().map(move |suffix| Mutant::without(site, suffix))
    });
    removals.chain(moves()).collect()
}

#[test]
fn every_mutant_of_what_makes_the_engine_durable_is_caught() {
    let recordings: Vec<Recording> =
        fixed().into_iter().chain((0..6).map(|seed| seeded(2 * seed, STEPS))).collect();
    let mutants = mutants(&recordings);
    let mut missed = Vec::new();
    for mutant in &mutants {
        let plan = |throws, recovery_every| {
            let mutant = Some(mutant.clone());
            Plan { throws, recovery_every, thorough_every: 3, mutant }
        };
        // Most are caught without cutting recoveries, which is expensive.
        let plans = [(plan(2, 0), &recordings[..3]), (plan(8, 5), &recordings[..])];
        let caught = plans.iter().find_map(|(plan, recordings)| {
            recordings.iter().find_map(|recording| recording.cut_everywhere(plan).err())
        });
        println!("{}\n    {}", mutant.name, caught.as_deref().unwrap_or("NOT CAUGHT"));
        if caught.is_none() {
            missed.push(&mutant.name);
        }
    }
    println!("{} mutants", mutants.len());
    assert!(missed.is_empty(), "not caught: {missed:#?}");
    at_least("mutants", mutants.len() as u64, 26);
}

#[test]
fn syncs_for_speed_can_be_removed_and_nothing_is_lost() {
    let recordings = fixed();
    for site in sites(&recordings).into_iter().filter(|site| is_for_speed(site)) {
        let plan = Plan { throws: 1, mutant: Some(Mutant::without(site, "")), ..Plan::default() };
        for recording in &recordings {
            recording.cut_everywhere(&plan).unwrap_or_else(|what| panic!("{what}"));
        }
    }
}

#[test]
fn a_saved_state_is_judged_as_before() {
    if let Ok(folder) = std::env::var("STRANDLINE_REPLAY") {
        let judged = replay::judge_again(Path::new(&folder));
        println!("{}", judged.as_ref().err().map_or("it passes now", String::as_str));
        return assert!(judged.is_ok(), "the kept state fails still");
    }
    // A disk that lost an acknowledged batch: cut when it was submitted, judged as if it was
    // acknowledged.
    let recording = appends();
    let (mut model, mut books) = (Model::default(), Books::default());
    let is_submitted = |op: &&Op| {
        let Op::Mark(mark) = op else { return false };
        matches!(recording.events[*mark as usize], Event::Submitted(_))
    };
    let before = recording.log.iter().take_while(|op| !is_submitted(op));
    before.for_each(|op| model.apply(op, None));
    let mut log = recording.log.iter();
    while books.promises() == 0 {
        books.note(log.next().expect("something is acknowledged"), &recording.events);
    }
    let image = model.power_cut(Cut::Lost, &mut Dice::new(1));
    let kept = replay::keep(&recording.keys, &image, &books, true, "a test of the harness");
    let folder = kept.split("STRANDLINE_REPLAY=").nth(1).and_then(|rest| rest.split(' ').next());
    let folder = Path::new(folder.expect("it says where")).to_path_buf();
    let judged = replay::judge_again(&folder);
    assert!(
        judged.as_ref().is_err_and(|what| what.contains("acknowledged and is lost")),
        "{judged:?}"
    );
    #[allow(clippy::disallowed_methods, reason = "a kept state is files on the disk")]
    std::fs::remove_dir_all(folder).expect("it can be removed");
}
