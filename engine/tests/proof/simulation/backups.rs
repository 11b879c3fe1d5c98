//! Backups that are taken during a workload: each must be the state of one moment (P3, P5).
//!
//! A moment is a position in the driver's notes between the call of the backup and its return. The
//! content of the restored directory is judged by the books of each of these positions, as if the
//! process had been killed there; one of them must accept it. So a backup that lacks entries which
//! a trim removed also has everything that was committed before that trim.

use strandline::vfs::Dir;
use strandline::vfs::simulated::{Dice, SimulatedDisk};
use strandline::{Engine, restore_in};

use std::sync::Arc;

use strandline::clock::ManualClock;

use super::books::{Books, Event};
use super::driver::{Driver, some_keys, step};
use super::judge::{judge, read_all};
use super::{Key, open_at};

/// A backup, and how many events there were when it was requested and when it was done.
pub struct Taken {
    target: SimulatedDisk,
    from: usize,
    to: usize,
}

fn dir(disk: &SimulatedDisk) -> Dir {
    Dir::new(Arc::new(disk.clone()))
}

/// A workload of a seed with a backup beside every few steps. Returns the notes and the backups.
pub fn seeded_with_backups(seed: u64, rounds: u64) -> (Vec<Event>, Vec<Taken>) {
    let mut dice = Dice::new(seed ^ 0xBAC);
    let mut driver = Driver::new(SimulatedDisk::new(), some_keys());
    let mut taken = Vec::new();
    let mut engine = driver.open().expect("opens");
    for _ in 0..rounds {
        let (target, from) = (SimulatedDisk::new(), driver.notes.events().len());
        let stopped = std::thread::scope(|scope| {
            let backup = scope.spawn(|| engine.backup_in(&dir(&target)));
            let stopped = busy_steps(&mut driver, &engine, &mut dice);
            driver.drain();
            backup.join().expect("no panic").expect("is made");
            stopped
        });
        taken.push(Taken { target, from, to: driver.notes.events().len() });
        if stopped {
            drop(engine);
            engine = driver.open().expect("opens");
        }
    }
    (driver.notes.events(), taken)
}

/// Some random steps, and the operations of ledgers: an append and a trim below it, for a timeline
/// whose older entries a merge may have.
fn busy_steps(driver: &mut Driver, engine: &Engine, dice: &mut Dice) -> bool {
    let keys = some_keys();
    for _ in 0..2 + dice.below(4) {
        let key = keys[dice.below(3) as usize].clone();
        driver.send(engine, std::slice::from_ref(&key), 300, strandline::Durability::Disk);
        let last = driver.last(&key);
        driver.trim(engine, &key, last);
        if step(driver, engine, dice) {
            return true;
        }
    }
    false
}

/// Restores a backup and looks for the moment of which it is the state.
pub fn check_backup(keys: &[Key], events: &[Event], taken: &Taken) -> Result<(), String> {
    let restored = SimulatedDisk::new();
    restore_in(&dir(&taken.target), &dir(&restored))
        .map_err(|error| format!("is not restored: {error}"))?;
    let mut end = Books::default();
    events[..taken.to].iter().for_each(|event| end.event(event));
    let engine = open_at(&restored, Arc::new(ManualClock::at(end.now_ms)))
        .map_err(|error| format!("does not open: {error}"))?;
    let shown = read_all(&engine, keys.iter())?;
    let mut books = Books::default();
    let mut why = String::new();
    for (place, event) in events[..taken.to].iter().enumerate() {
        books.event(event);
        if place + 1 < taken.from {
            continue;
        }
        // Entries that expire by the end are not shown at the end, whichever moment it is.
        let now = Books { now_ms: end.now_ms, ..books.clone() };
        match judge(&shown, &now, false) {
            Ok(()) => return Ok(()),
            Err(what) => why = what,
        }
    }
    Err(format!(
        "it is the state of no moment between events {} and {}: {why}",
        taken.from, taken.to
    ))
}
