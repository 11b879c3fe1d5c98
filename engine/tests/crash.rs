//! Power cuts and kills at every call of small workloads (P1–P4), and the proof that the judge sees: each sync taken away in turn.
//!
//! Each recovery is cut at every call, too. `STRANDLINE_PROOF=long` throws the dice eight times as often.

mod simulation;

use simulation::{Driver, Key, Known, Plan, Recording, open};
use strandline::Durability::{Disk, Os};
use strandline::vfs::Site;
use strandline::vfs::simulated::{Cut, Dice, Image, Model, Op, SimulatedDisk};

fn key(store: &'static str, timeline: impl std::fmt::Display) -> Key {
    (store, timeline.to_string())
}

/// Appends to three timelines, through several log files, with a clean stop in the middle.
fn appends() -> Recording {
    let mut driver = Driver::new(SimulatedDisk::new());
    for _life in 0..2 {
        let engine = open(&driver.disk).expect("opens");
        for number in 0..14 {
            let durability = if number % 5 == 3 { Os } else { Disk };
            driver.send(&engine, &[key("messages", number % 3)], 700 * (number % 4), durability);
        }
        engine.close().expect("closes");
    }
    driver.finish(Image::default())
}

/// Fan-outs of 50, and the kill of a process without a clean stop.
fn fan_outs() -> Recording {
    let mut driver = Driver::new(SimulatedDisk::new());
    for life in 0..2 {
        let engine = open(&driver.disk).expect("opens");
        for number in 0..6 {
            let targets: Vec<Key> = std::iter::once(key("messages", "room"))
                .chain((0..50).map(|user| key("sync", (user + 7 * life) % 60)))
                .collect();
            driver.send(&engine, &targets, 100, if number == 2 { Os } else { Disk });
        }
    }
    driver.finish(Image::default())
}

/// Appends while another thread flushes and merges.
fn flushes() -> Recording {
    let mut driver = Driver::new(SimulatedDisk::new());
    let engine = open(&driver.disk).expect("opens");
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
    driver.finish(Image::default())
}

fn plan() -> Plan {
    let long = std::env::var("STRANDLINE_PROOF").is_ok_and(|size| size == "long");
    Plan { seeds: if long { 8 } else { 1 }, nested: true, every: 1, without: None }
}

fn prove(name: &str, recording: &Recording) {
    match recording.cut_everywhere(&plan()) {
        Ok(states) => println!("{name}: {states} crash states of {} calls", recording.log.len()),
        Err(what) => panic!("{name}: {what}"),
    }
}

#[test]
fn a_power_cut_anywhere_in_appends_loses_nothing_acknowledged() {
    prove("appends", &appends());
}

#[test]
fn a_power_cut_anywhere_in_fan_outs_leaves_all_or_none() {
    prove("fan-outs", &fan_outs());
}

#[test]
fn a_power_cut_anywhere_in_flushes_and_merges_loses_nothing() {
    prove("flushes", &flushes());
}

#[test]
fn a_killed_process_loses_nothing_and_a_power_cut_after_its_recovery_neither() {
    for recording in [appends(), fan_outs(), flushes()] {
        let mut model = Model::from_image(&recording.base);
        let mut known = Known::default();
        for (place, op) in recording.log.iter().enumerate() {
            model.apply(op, None);
            known.note(op);
            if place % 3 != 0 {
                continue;
            }
            let disk = SimulatedDisk::from_model(model.clone());
            recording
                .check(&disk, &known, false)
                .unwrap_or_else(|what| panic!("killed after call {place}: {what}"));
            // Once it is open again, even what was acknowledged for a process crash only is durable.
            let disk = SimulatedDisk::from_model(model.clone());
            drop(open(&disk).expect("opens"));
            let mut later = model.clone();
            disk.log().iter().for_each(|op| later.apply(op, None));
            let disk = SimulatedDisk::from_image(&later.power_cut(Cut::Lost, &mut Dice::new(1)));
            let told = |what| panic!("killed after call {place}, opened, then the power was cut: {what}");
            recording.check(&disk, &known, false).unwrap_or_else(told);
        }
    }
}

/// Every place in the engine that asks for a sync, as far as the workloads come by.
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

#[test]
fn each_sync_taken_away_is_noticed() {
    let recordings = [appends(), fan_outs(), flushes()];
    let mut unnoticed = Vec::new();
    for site in sites(&recordings) {
        let thorough = Plan { seeds: 8, nested: true, every: 5, without: Some(site) };
        let plan = if is_for_speed(site) { Plan { seeds: 1, nested: false, ..thorough } } else { thorough };
        let noticed = recordings.iter().find_map(|recording| recording.cut_everywhere(&plan).err());
        let told =
            noticed.as_deref().unwrap_or(if is_for_speed(site) { "for speed only" } else { "NOT NOTICED" });
        println!("{}:{} {told}", site.file(), site.line());
        if noticed.is_none() != is_for_speed(site) {
            unnoticed.push(site.to_string());
        }
    }
    assert!(unnoticed.is_empty(), "no test would notice the loss of {unnoticed:?}");
}
