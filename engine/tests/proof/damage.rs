//! Damaged files (P5, P6): either the original data is shown, or the damage is reported by name;
//! nothing is deleted; nothing hangs.
//!
//! Three small stores (many timelines, one long timeline, fan-outs), each with segments and a log
//! that is not flushed, are damaged in one position and opened. Bytes get one bit flipped, become
//! 0x00 or 0xFF. Sectors become zeros, get the content of another sector or their earlier content,
//! or change positions with another. Files are truncated, emptied, removed, get a header of zeros,
//! are exchanged with another of their kind, or become an older copy of themselves or of a removed
//! file. A sample of all positions is tested; `STRANDLINE_PROOF=long` takes all, and merges after
//! each sector and file and after one in eight bytes and lengths.
//!
//! Checked for each:
//!
//! * a read shows exactly what was acknowledged, or fails and names the damaged file; so do
//!   appends, which otherwise continue with the right sequence;
//! * damage to the manifest or the log refuses the open, naming the file, and changes nothing on
//!   the disk; for the log, `read_only` opens, reports the damage, shows everything in segments,
//!   and the intact part of the log;
//! * damage to one block of entries affects only the timelines in it;
//! * no damaged file is removed by a merge that meets it, and data that could be read before a
//!   merge can be read after it.
//!
//! Damage that cannot be detected: the group of the log that was written last looks, if damaged,
//! like one that a power cut tore before it was acknowledged; no later group confirms that it was
//! durable. It is cut, the whole of it and nothing else, and the test accepts that for damage
//! inside this group. (The same holds for all groups after the last sync, if some asked for no
//! sync; here each log ends with groups that did.) When it changes positions with the group before
//! it, both are cut. An older copy of the file that ends the log has the state of its time: all
//! batches from some one on are missing.

mod changes;
mod kinds;
mod shapes;

use std::collections::BTreeSet;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use strandline::clock::ManualClock;
use strandline::vfs::Dir;
use strandline::vfs::simulated::{Image, SimulatedDisk};
use strandline::{Engine, Error, Limit, World};

use crate::two_stores;

use kinds::{Damage, damages};
use shapes::{Key, Shape, fan_outs, many_timelines, one_long_timeline};

const HEADER_BYTES: usize = 80;

/// The body that is appended to a damaged store.
const AFTER: &[u8] = b"batch 0 after";

fn open(disk: &SimulatedDisk, read_only: bool) -> Result<Engine, Error> {
    let options =
        two_stores::options().memory_budget_bytes(1).wal_file_bytes(4 * 1024).read_only(read_only);
    let dir = Dir::new(Arc::new(disk.clone()));
    Engine::open_in(World { dir, clock: Arc::new(ManualClock::at(1_700_000_000_000)) }, options)
}

/// The missing entries of a timeline, by batch; everything present is right.
fn missing(key: &Key, expected: &[Vec<u8>], found: &[(u64, Vec<u8>)]) -> BTreeSet<usize> {
    let mut found = found.iter().peekable();
    let mut missing = BTreeSet::new();
    for (sequence, body) in (1..).zip(expected) {
        match found.next_if(|(there, _)| *there == sequence) {
            Some((_, there)) => assert!(there == body, "{key:?} {sequence}: a wrong body"),
            None => drop(missing.insert(batch_of(body))),
        }
    }
    assert_eq!(found.next(), None, "{key:?}: an entry that was never there, or out of order");
    missing
}

fn batch_of(body: &[u8]) -> usize {
    let text = std::str::from_utf8(body).expect("bodies are text");
    text.split(' ')
        .nth(1)
        .and_then(|number| number.parse().ok())
        .expect("a body begins with its batch")
}

/// One damaged shape.
struct Case<'a> {
    shape: &'a Shape,
    damage: &'a Damage,
    image: Image,
    /// Whether a merge is tried, too.
    merges: bool,
}

impl Case<'_> {
    fn check(&self) {
        let disk = SimulatedDisk::from_image(&self.image);
        match open(&disk, false) {
            Ok(engine) => self.check_open(&disk, engine),
            Err(error) => {
                assert!(!self.damage.is_segment(), "a damaged segment refuses the open: {error}");
                assert!(
                    self.damage.is_named_by(&error),
                    "the open is refused, but the file not named: {error}"
                );
                assert!(disk.contents() == self.image, "a refused open changes nothing");
                if self.damage.is_log() {
                    self.check_salvage();
                }
            }
        }
    }

    /// Reads a timeline in several ways, which must agree: its entries, or the error.
    fn read(&self, engine: &Engine, key: &Key) -> Result<Vec<(u64, Vec<u8>)>, Error> {
        let (store, name) = (engine.store(key.0)?, key.1.as_bytes());
        let rows = |page: strandline::Page| -> Vec<(u64, Vec<u8>)> {
            page.entries.into_iter().map(|entry| (entry.sequence, entry.body.to_vec())).collect()
        };
        let newest = store.range_back(name, .., Limit::entries(2)).map(rows);
        let all = store.range(name, .., Limit::entries(10_000)).map(rows).inspect_err(|_| {
            // A part that can be read although the whole cannot is right too.
            for (sequence, body) in newest.iter().flatten() {
                let right = self.shape.expected[key]
                    .get(*sequence as usize - 1)
                    .map_or(AFTER, Vec::as_slice);
                assert!(right == body, "{key:?} {sequence}: a wrong body");
            }
        })?;
        let tail: Vec<_> = all.iter().rev().take(2).cloned().collect();
        assert_eq!(newest?, tail, "{key:?}: back and forth differ");
        assert_eq!(store.info(name)?.count, all.len() as u64, "{key:?}: the count");
        Ok(all)
    }

    fn check_open(&self, disk: &SimulatedDisk, engine: Engine) {
        let mut lost = BTreeSet::new();
        let mut failed = 0;
        for (key, expected) in &self.shape.expected {
            match self.read(&engine, key) {
                Ok(found) => lost.extend(missing(key, expected, &found)),
                Err(error) => {
                    assert!(
                        self.damage.is_segment(),
                        "{key:?} fails, and no segment is damaged: {error}"
                    );
                    assert!(
                        self.damage.is_named_by(&error),
                        "{key:?} fails without naming the file: {error}"
                    );
                    failed += 1;
                }
            }
        }
        let lost: Vec<usize> = lost.into_iter().collect();
        let most = self.most_lost_at_end();
        let first = lost.first().copied().unwrap_or(self.shape.last_batch + 1);
        let end: Vec<usize> = (first..=self.shape.last_batch).collect();
        assert!(
            lost.len() <= most && lost == end,
            "lost in silence: batches {lost:?}, {most} at most"
        );
        self.check_local(failed);
        self.check_appends(&engine, !lost.is_empty());
        let merged = if self.merges { engine.compact() } else { Ok(()) };
        if let Err(error) = &merged {
            assert!(
                self.damage.is_segment() && self.damage.is_named_by(error),
                "the merge fails: {error}"
            );
        }
        drop(engine);
        if self.damage.is_segment() && self.merges {
            if merged.is_err() {
                self.check_kept(disk);
            }
            self.check_after_merge(disk, failed);
        }
    }

    /// After a merge that met damage: the damaged segment stays as it is.
    fn check_kept(&self, disk: &SimulatedDisk) {
        let (before, after) = (&self.image.files, disk.contents().files);
        let stem = |name: &str| name.split('.').next().unwrap_or_default().to_string();
        let damaged: Vec<String> = match self.damage {
            Damage::Exchanged { file, with } => vec![stem(file), stem(with)],
            one => vec![stem(one.file())],
        };
        for (name, bytes) in before.iter().filter(|(name, _)| damaged.contains(&stem(name))) {
            assert!(after.get(name) == Some(bytes), "{name} was removed or changed");
        }
    }

    /// After a merge, whether it met the damage or not: data that could be read before can be read,
    /// and is right.
    fn check_after_merge(&self, disk: &SimulatedDisk, failed_before: usize) {
        let engine = open(disk, false).expect("opens again");
        let mut failed = 0;
        for (key, expected) in &self.shape.expected {
            match self.read(&engine, key) {
                Ok(mut found) => {
                    found.truncate(expected.len());
                    assert_eq!(
                        missing(key, expected, &found),
                        BTreeSet::new(),
                        "{key:?} after the merge"
                    );
                }
                Err(error) => {
                    assert!(self.damage.is_named_by(&error), "{key:?} after the merge: {error}");
                    failed += 1;
                }
            }
        }
        assert!(
            failed <= failed_before,
            "{failed} timelines fail after the merge, {failed_before} before"
        );
    }

    /// How many of the last batches can be lost undetected: see the heading of the file.
    fn most_lost_at_end(&self) -> usize {
        let (file, place) = &self.shape.last_group;
        if self.damage.file() != file {
            return 0;
        }
        if matches!(self.damage, Damage::Older { .. }) {
            return self.shape.last_batch;
        }
        let (before, after) = (&self.shape.image.files[file], self.image.files.get(file));
        let Some(after) = after.filter(|_| self.damage.sectors().is_some()) else { return 0 };
        let changed = |range: Range<usize>| after[range.clone()] != before[range];
        match (changed(0..place.start), changed(place.clone())) {
            (_, false) => 0,
            (false, true) => 1,
            (true, true) => 2,
        }
    }

    /// One byte of a block of entries affects the timelines in that block, a sector those in the
    /// two blocks that may share it.
    fn check_local(&self, failed: usize) {
        let is_block = self.shape.name == "many timelines" && self.damage.file().contains(".data");
        if let Some(sectors) = self.damage.sectors().filter(|_| is_block) {
            let all = self.shape.expected.len();
            let blocks = if matches!(self.damage, Damage::Byte { .. }) { 1 } else { 2 * sectors };
            let few = 0 < failed && failed < all && failed < all * blocks / 2;
            assert!(few, "{failed} of {all} timelines are away");
        }
    }

    fn check_appends(&self, engine: &Engine, last_group_lost: bool) {
        for (key, expected) in self.shape.expected.iter().step_by(7) {
            let given = engine.store(key.0).and_then(|store| store.append(key.1.as_bytes(), AFTER));
            match given {
                Ok(given) if last_group_lost => assert!(given <= expected.len() as u64 + 1),
                Ok(given) => {
                    assert_eq!(given, expected.len() as u64 + 1, "{key:?}: the next sequence");
                }
                Err(error) => {
                    assert!(self.damage.is_named_by(&error), "{key:?} takes no append: {error}");
                }
            }
        }
    }

    /// Read-only, the damaged part of a log is skipped.
    fn check_salvage(&self) {
        let disk = SimulatedDisk::from_image(&self.image);
        let engine = open(&disk, true).expect("a damaged log can be opened read-only");
        let reported = engine.damage();
        assert!(
            reported.iter().any(|error| self.damage.is_named_by(error)),
            "the damage is not reported: {reported:?}"
        );
        let mut lost = BTreeSet::new();
        for (key, expected) in &self.shape.expected {
            let found = self
                .read(&engine, key)
                .unwrap_or_else(|error| panic!("{key:?} cannot be read: {error}"));
            let gone = missing(key, expected, &found);
            let flushed = self.shape.flushed.get(key).copied().unwrap_or(0);
            let flushed: BTreeSet<usize> =
                expected[..flushed].iter().map(|body| batch_of(body)).collect();
            assert!(
                gone.is_disjoint(&flushed),
                "{key:?} lost batches {gone:?}, some from segments"
            );
            lost.extend(gone);
        }
        if let Some(sectors) = self.damage.sectors() {
            assert!(
                lost.len() <= sectors,
                "{sectors} sectors take {} groups away: {lost:?}",
                lost.len()
            );
        }
        let refused = engine.store("messages").and_then(|store| store.append(b"c", b"body"));
        assert!(matches!(refused, Err(Error::ReadOnly)), "read-only takes no append");
        drop(engine);
        assert!(disk.contents() == self.image, "a read-only open changes nothing");
    }
}

/// How many damaged shapes are checked at once.
const WORKERS: usize = 6;

const PATIENCE: Duration = Duration::from_mins(1);

fn check_all(shape: Shape) {
    let long = std::env::var("STRANDLINE_PROOF").is_ok_and(|size| size == "long");
    let damages = damages(&shape, if long { 1 } else { 131 });
    let bytes: usize = shape.image.files.values().map(Vec::len).sum();
    println!(
        "{}: {} kinds of damage to {} files, {bytes} bytes",
        shape.name,
        damages.len(),
        shape.image.files.len()
    );
    let name = shape.name;
    let (shape, damages) = (Arc::new(shape), Arc::new(damages));
    let next = Arc::new(AtomicUsize::new(0));
    let (done, result) = channel();
    for _ in 0..WORKERS {
        let (shape, damages, next, done) =
            (shape.clone(), damages.clone(), next.clone(), done.clone());
        std::thread::spawn(move || {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                let Some(damage) = damages.get(number) else { return };
                // There are a million bytes and lengths: a merge takes longer than all the rest.
                let merges = !long || number.is_multiple_of(8) || !damage.is_of_many();
                let case =
                    Case { shape: &shape, damage, image: damage.apply(&shape.image), merges };
                let fine = catch_unwind(AssertUnwindSafe(|| case.check())).is_ok();
                if done.send((damage.clone(), fine)).is_err() {
                    return;
                }
            }
        });
    }
    drop(done);
    let mut failed = Vec::new();
    let mut checked = 0;
    loop {
        match result.recv_timeout(PATIENCE) {
            Ok((_, true)) => {
                checked += 1;
                if checked % 100_000 == 0 {
                    println!("{name}: {checked} checked");
                }
            }
            Ok((damage, false)) => failed.push(damage),
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                panic!("one of these hangs: {:?}", &damages[checked..])
            }
        }
    }
    let first: Vec<_> = failed.iter().take(10).collect();
    assert!(failed.is_empty(), "{} of {} fail, as {first:#?}", failed.len(), damages.len());
    assert!(checked > 3000, "only {checked} kinds of damage");
}

#[test]
fn damage_to_many_timelines_is_named_and_local() {
    check_all(many_timelines());
}

#[test]
fn damage_to_one_long_timeline_is_named_and_shortens_nothing() {
    check_all(one_long_timeline());
}

#[test]
fn damage_to_fan_outs_is_named_and_leaves_the_rest() {
    check_all(fan_outs());
}
