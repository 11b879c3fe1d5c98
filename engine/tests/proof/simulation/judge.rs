//! The judge of a disk after a crash.
//!
//! Checked for each:
//!
//! * it opens (P5);
//! * every batch that was acknowledged, or that a reader observed, is there, with its sequences and
//!   its bytes (P1);
//! * nothing is there that was not submitted, and everything is only in its own position (P2);
//! * a batch is in all of its timelines or in none (P3), and with it everything that its writer
//!   committed before;
//! * a sequence that was seen still belongs to the same batch, or to another epoch of its store
//!   (P2);
//! * sequences are dense; missing entries were trimmed, deleted or have expired, and those do not
//!   come back (P4, P8); nor does a body that was edited.
//!
//! A thorough check also requires: opening twice shows the same; a batch with an id that is there
//! is not committed again; each timeline takes an append, with the next sequence (P2); after a
//! clean stop all of it is still there.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use strandline::clock::ManualClock;
use strandline::vfs::simulated::SimulatedDisk;
use strandline::{Engine, Limit};

use super::books::{Batch, Books, Shown, Timelines};
use super::{Key, open_at};

/// The body of the appends that a thorough check makes.
const AFTER: &[u8] = b"after";

pub fn read_all<'a>(
    engine: &Engine,
    keys: impl Iterator<Item = &'a Key>,
) -> Result<Timelines, String> {
    let mut timelines = Timelines::new();
    for key in keys {
        let name = key.1.as_bytes();
        let read = |store: strandline::Store| {
            Ok((store.epoch(), store.range(name, .., Limit::entries(100_000))?, store.info(name)?))
        };
        let (epoch, page, info) = engine
            .store(key.0)
            .and_then(read)
            .map_err(|error| format!("{key:?} cannot be read: {error}"))?;
        let entries: Vec<_> =
            page.entries.into_iter().map(|entry| (entry.sequence, entry.body.to_vec())).collect();
        if info.count != entries.len() as u64 {
            return Err(format!(
                "{key:?} is said to have {} entries, and shows {}",
                info.count,
                entries.len()
            ));
        }
        timelines.insert(key.clone(), Shown { epoch, last: info.last, entries });
    }
    nothing_else(engine, &timelines)?;
    Ok(timelines)
}

/// No other timeline exists, and the engine reports no damage.
fn nothing_else(engine: &Engine, timelines: &Timelines) -> Result<(), String> {
    for info in engine.stores() {
        let names = engine.store(&info.name).and_then(|store| store.list(b"", None, usize::MAX));
        for name in names.map_err(|error| format!("{} cannot be listed: {error}", info.name))? {
            let known = |key: &Key| key.0 == info.name && key.1.as_bytes() == name;
            if !timelines.keys().any(known) {
                return Err(format!("{} has {name:?}, which was never written", info.name));
            }
        }
    }
    let stats = engine.stats();
    for figure in ["damaged_segments", "damaged_reads", "damaged_log_places", "poisoned"] {
        if stats.get(figure) != Some(0) {
            return Err(format!("{figure}: {:?}", stats.get(figure)));
        }
    }
    Ok(())
}

/// A panic is a finding like any other.
fn caught<T>(work: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| Err("a panic, see above".into()))
}

/// Whether the timelines may be the result of a crash, given what was known before it. `power`: the
/// page cache is lost too.
pub fn judge(timelines: &Timelines, books: &Books, power: bool) -> Result<(), String> {
    timelines.iter().try_for_each(|(key, shown)| judge_timeline(key, shown, books))?;
    let last = |key: &Key| timelines.get(key).map_or(0, |shown| shown.last);
    // From here on a writer's batches are missing.
    let mut ended: BTreeSet<u64> = BTreeSet::new();
    for (number, batch) in &books.batches {
        let places = batch.sent.targets.iter().zip(&batch.sequences);
        let there = places.filter(|(key, sequence)| **sequence <= last(key)).count();
        if there != 0 && there != batch.sent.targets.len() {
            return Err(format!(
                "batch {number} is in {there} of {} places",
                batch.sent.targets.len()
            ));
        }
        if there == 0 {
            if batch.must_stay(power) {
                let how = if batch.acknowledged { "acknowledged" } else { "observed" };
                return Err(format!("batch {number} was {how} and is lost"));
            }
            ended.insert(batch.sent.writer);
        } else if ended.contains(&batch.sent.writer) {
            return Err(format!(
                "batch {number} is there, and one that was committed before it is not"
            ));
        }
    }
    judge_epochs(timelines, books)
}

/// A sequence that was seen and lost is assigned again, and one that was assigned again has another
/// entry: under another epoch.
fn judge_epochs(timelines: &Timelines, books: &Books) -> Result<(), String> {
    for sighting in &books.sightings {
        let Some(shown) =
            timelines.get(&sighting.key).filter(|shown| shown.epoch == sighting.epoch)
        else {
            continue;
        };
        let known =
            books.timelines.get(&sighting.key).map_or(&[][..], |timeline| &timeline.batches);
        let is_same = known.get(sighting.sequence as usize - 1) == Some(&sighting.number);
        if !is_same || sighting.sequence > shown.last {
            return Err(format!("the sequence is given again under the same epoch: {sighting:?}"));
        }
    }
    Ok(())
}

/// A killed process changes no epoch.
pub fn judge_same_epochs(timelines: &Timelines, books: &Books) -> Result<(), String> {
    let other = timelines
        .iter()
        .find(|(key, shown)| books.epochs.get(key.0).is_some_and(|known| *known != shown.epoch));
    match other {
        Some((key, shown)) => {
            Err(format!("{key:?} was of {:?}, and is of {:?}", books.epochs[key.0], shown.epoch))
        }
        None => Ok(()),
    }
}

fn judge_timeline(key: &Key, shown: &Shown, books: &Books) -> Result<(), String> {
    let known = books.timelines.get(key).map_or(&[][..], |timeline| &timeline.batches);
    if shown.last > known.len() as u64 {
        return Err(format!("{key:?} ends at {}, and {} were submitted", shown.last, known.len()));
    }
    let mut entries = shown.entries.iter().peekable();
    for sequence in 1..=shown.last {
        let (gone, may_be_gone) = books.is_gone(key, sequence);
        match entries.next_if(|(found, _)| *found == sequence) {
            Some(_) if gone => {
                return Err(format!("{key:?} {sequence} was taken away and came back"));
            }
            Some((_, body)) if !books.may_have(key, sequence, body) => {
                return Err(format!(
                    "{key:?} {sequence} is not the entry that was given this sequence"
                ));
            }
            None if !may_be_gone => {
                return Err(format!("{key:?} is not dense: {sequence} is missing"));
            }
            _ => {}
        }
    }
    match entries.next() {
        None => Ok(()),
        Some((sequence, _)) => Err(format!(
            "{key:?} shows {sequence} out of order, or above its end at {}",
            shown.last
        )),
    }
}

/// Opens the disk after a crash and judges it. Returns its content.
pub fn check(
    disk: &SimulatedDisk,
    keys: &[Key],
    books: &Books,
    power: bool,
) -> Result<Timelines, String> {
    caught(|| {
        let clock = Arc::new(ManualClock::at(books.now_ms));
        let engine = open_at(disk, clock).map_err(|error| format!("does not open: {error}"))?;
        let timelines = read_all(&engine, keys.iter())?;
        judge(&timelines, books, power)?;
        Ok(timelines)
    })
}

/// Sends each batch again that has an id and is there: it gets the sequences that it has.
fn retry_all(engine: &Engine, timelines: &Timelines, books: &Books) -> Result<(), String> {
    let is_there = |batch: &&Batch| {
        let mut places = batch.sent.targets.iter().zip(&batch.sequences);
        places
            .all(|(key, sequence)| timelines.get(key).is_some_and(|shown| *sequence <= shown.last))
    };
    for batch in books.batches.values().filter(|batch| batch.sent.id().is_some()).filter(is_there) {
        let number = batch.sent.number;
        let receipt = engine
            .submit(batch.sent.batch(engine))
            .and_then(strandline::Ticket::wait)
            .map_err(|error| format!("batch {number}, sent again: {error}"))?;
        if !receipt.duplicate || receipt.sequences != batch.sequences {
            return Err(format!(
                "batch {number} had {:?}, sent again {receipt:?}",
                batch.sequences
            ));
        }
    }
    Ok(())
}

/// As [`check`], then continues with it.
pub fn check_thoroughly(
    disk: &SimulatedDisk,
    keys: &[Key],
    books: &Books,
    power: bool,
) -> Result<(), String> {
    let timelines = check(disk, keys, books, power)?;
    caught(|| go_on(disk, keys, books, timelines))
}

/// The one or the other.
pub fn check_as(
    thorough: bool,
    disk: &SimulatedDisk,
    keys: &[Key],
    books: &Books,
    power: bool,
) -> Result<(), String> {
    if thorough {
        check_thoroughly(disk, keys, books, power)
    } else {
        check(disk, keys, books, power).map(drop)
    }
}

/// Opens it again, and continues as a user would.
fn go_on(
    disk: &SimulatedDisk,
    keys: &[Key],
    books: &Books,
    mut timelines: Timelines,
) -> Result<(), String> {
    let clock = Arc::new(ManualClock::at(books.now_ms));
    let open =
        || open_at(disk, clock.clone()).map_err(|error| format!("does not open again: {error}"));
    let engine = open()?;
    if read_all(&engine, keys.iter())? != timelines {
        return Err("opening again shows another state".into());
    }
    retry_all(&engine, &timelines, books)?;
    for (key, shown) in &mut timelines {
        let given = engine
            .store(key.0)
            .and_then(|store| store.append(key.1.as_bytes(), AFTER))
            .map_err(|error| format!("{key:?} takes no append: {error}"))?;
        if given != shown.last + 1 {
            return Err(format!("{key:?} ends at {}, and the next append got {given}", shown.last));
        }
        shown.last = given;
        shown.entries.push((given, AFTER.to_vec()));
    }
    engine.close().map_err(|error| format!("does not close: {error}"))?;
    drop(engine);
    let engine = open()?;
    if read_all(&engine, keys.iter())? != timelines {
        return Err("after appends and a clean stop it shows another state".into());
    }
    Ok(())
}
