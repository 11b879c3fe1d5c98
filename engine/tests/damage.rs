//! Damaged files (P5, P6): what was written is shown right, or the damage is told by name; nothing is deleted; nothing hangs.
//!
//! Three small stores (many timelines, one long timeline, fan-outs), each with segments and a log that is not flushed, are
//! damaged in one place and opened: bytes get one bit flipped, become 0x00 or 0xFF; files are cut short, emptied, taken away, get
//! a header of zeros, or are exchanged with another of their kind. A sample of all places; `STRANDLINE_PROOF=long` takes all.
//!
//! Checked of each:
//!  * a read shows exactly what was acknowledged, or fails and names the damaged file; so do appends, which otherwise go on with
//!    the right sequence;
//!  * damage to the manifest or the log refuses the open, naming the file, and changes nothing on the disk; for the log,
//!    `read_only` opens, tells the damage, shows all that is in segments, and of the log what is intact;
//!  * damage to a segment hits names in its range only; damage to one block only the timelines in it;
//!  * no file that is live is removed, by the open or by a merge.
//!
//! What cannot be told: the group of the log that was written last looks, if damaged, like one that a power cut tore before it
//! was acknowledged; no later group says that it was durable. It is cut, the whole of it and nothing else, and the test accepts
//! that for damage inside this group. (The same holds for all groups behind the last sync, if some asked for no sync; here each
//! log ends with groups that did.)

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use strandline::clock::ManualClock;
use strandline::vfs::Dir;
use strandline::vfs::simulated::{Image, SimulatedDisk};
use strandline::{Batch, Durability, Engine, Error, Limit, Options, World};

/// A store and a timeline.
type Key = (&'static str, String);

/// The bodies of each timeline, in order.
type Timelines = BTreeMap<Key, Vec<Vec<u8>>>;

const HEADER_BYTES: usize = 80;

/// The body of what is appended to a damaged store.
const AFTER: &[u8] = b"batch 0 after";

/// A store to damage.
struct Shape {
    name: &'static str,
    image: Image,
    expected: Timelines,
    /// How many entries of each timeline are in segments.
    flushed: BTreeMap<Key, usize>,
    /// The log file that ends the log, and where in it the last group stands.
    last_group: (String, Range<usize>),
    last_batch: usize,
}

fn open(disk: &SimulatedDisk, read_only: bool) -> Result<Engine, Error> {
    let options =
        Options { memory_budget_bytes: 1, wal_file_bytes: 4 * 1024, read_only, ..Options::default() };
    let dir = Dir::new(Arc::new(disk.clone()));
    Engine::open_in(World { dir, clock: Arc::new(ManualClock::at(1_700_000_000_000)) }, options)
}

/// Builds a shape. Each batch has one body, which begins with the batch's number.
struct Builder {
    disk: SimulatedDisk,
    engine: Engine,
    expected: Timelines,
    flushed: BTreeMap<Key, usize>,
    batches: usize,
}

impl Builder {
    fn new() -> Builder {
        let disk = SimulatedDisk::new();
        let engine = open(&disk, false).expect("opens");
        Builder { disk, engine, expected: BTreeMap::new(), flushed: BTreeMap::new(), batches: 0 }
    }

    fn send(&mut self, targets: &[Key], bytes: usize, durability: Durability) {
        self.batches += 1;
        let mut body = format!("batch {} ", self.batches).into_bytes();
        body.extend((0..bytes).map(|at| b'a' + (at * self.batches % 26) as u8));
        let stores = ["messages", "sync"].map(|name| self.engine.store(name).expect("a store"));
        let named: Vec<_> = targets
            .iter()
            .map(|(store, timeline)| (&stores[usize::from(*store == "sync")], timeline.as_bytes()))
            .collect();
        let batch = Batch::new().fan_out(&body, named).durability(durability);
        self.engine.submit(batch).expect("queued").wait().expect("committed");
        for key in targets {
            self.expected.entry(key.clone()).or_default().push(body.clone());
        }
    }

    fn flush(&mut self) {
        self.engine.flush().expect("flushes");
        self.flushed = self.expected.iter().map(|(key, bodies)| (key.clone(), bodies.len())).collect();
    }

    /// A kill, and what follows it: the last group is copied into a new log file.
    fn kill(self) -> Builder {
        let Builder { disk, engine, expected, flushed, batches } = self;
        drop(engine);
        let engine = open(&disk, false).expect("opens");
        Builder { disk, engine, expected, flushed, batches }
    }

    fn finish(self, name: &'static str) -> Shape {
        drop(self.engine);
        let image = self.disk.contents();
        let mut logs = image.files.iter().filter(|(name, _)| name.starts_with("wal-"));
        let (log, bytes) = logs.next_back().expect("there is a log that is not flushed");
        let start = bytes.windows(4).rposition(|window| window == b"SLgr").expect("there is a group");
        Shape {
            name,
            last_group: (log.clone(), start..bytes.len()),
            expected: self.expected,
            flushed: self.flushed,
            last_batch: self.batches,
            image,
        }
    }
}

fn many_timelines() -> Shape {
    let mut builder = Builder::new();
    let key = |number: usize| ("messages", format!("t/{:03}", number % 160));
    for round in 0..2 {
        for number in 0..160 {
            builder.send(&[key(number + 40 * round)], 260, Durability::Os);
        }
        builder.flush();
    }
    for number in 0..8 {
        builder.send(&[key(number * 9), ("sync", format!("u/{number}"))], 500, Durability::Disk);
    }
    let mut builder = builder.kill();
    for number in 0..8 {
        builder.send(&[key(number * 17)], 500, Durability::Disk);
    }
    builder.finish("many timelines")
}

fn one_long_timeline() -> Shape {
    let mut builder = Builder::new();
    let key = [("messages", "c/long".to_string())];
    for round in 0..3 {
        for _ in 0..80 {
            builder.send(&key, 420, Durability::Os);
        }
        builder.flush();
        if round == 1 {
            builder.engine.compact().expect("merges");
        }
    }
    // Small groups that share a sector with others, between syncs.
    for number in 0..24 {
        builder.send(&key, 30, if number % 3 == 2 { Durability::Disk } else { Durability::Os });
    }
    builder.send(&key, 30, Durability::Disk);
    builder.send(&key, 700, Durability::Disk);
    builder.finish("one long timeline")
}

fn fan_outs() -> Shape {
    let mut builder = Builder::new();
    let send = |builder: &mut Builder, number: usize| {
        let users = (0..30).map(|user| ("sync", format!("u/{:02}", (user + 3 * number) % 45)));
        let targets: Vec<Key> = users.chain([("messages", format!("c/{}", number % 2))]).collect();
        builder.send(&targets, 600, Durability::Disk);
    };
    for number in 0..40 {
        send(&mut builder, number);
        if number == 20 {
            builder.flush();
        }
    }
    builder.flush();
    (0..7).for_each(|number| send(&mut builder, number));
    let mut builder = builder.kill();
    (0..3).for_each(|number| send(&mut builder, number));
    builder.finish("fan-outs")
}

/// What happens to a shape's files.
#[derive(Clone, Debug)]
enum Damage {
    Byte { file: String, at: usize, to: u8 },
    Cut { file: String, len: usize },
    Missing { file: String },
    ZeroHeader { file: String },
    Exchanged { file: String, with: String },
}

impl Damage {
    /// The damaged file, the first one if there are two.
    fn file(&self) -> &str {
        match self {
            Damage::Byte { file, .. }
            | Damage::Cut { file, .. }
            | Damage::Missing { file }
            | Damage::ZeroHeader { file }
            | Damage::Exchanged { file, .. } => file,
        }
    }

    fn is_log(&self) -> bool {
        self.file().starts_with("wal-")
    }

    fn is_segment(&self) -> bool {
        self.file().starts_with("segment-")
    }

    fn apply(&self, image: &Image) -> Image {
        let mut image = image.clone();
        let bytes = image.files.get_mut(self.file()).expect("a file of the shape");
        match self {
            Damage::Byte { at, to, .. } => bytes[*at] = *to,
            Damage::Cut { len, .. } => bytes.truncate(*len),
            Damage::Missing { file } => drop(image.files.remove(file)),
            Damage::ZeroHeader { .. } => bytes[..HEADER_BYTES].fill(0),
            Damage::Exchanged { file, with } => {
                let (one, other) = (image.files[file].clone(), image.files[with].clone());
                image.files.insert(file.clone(), other);
                image.files.insert(with.clone(), one);
            }
        }
        image
    }

    /// Whether the error names the damaged file, or one of the two.
    fn is_told_by(&self, error: &Error) -> bool {
        let told = error.to_string();
        let with = if let Damage::Exchanged { with, .. } = self { told.contains(with) } else { false };
        // Without its manifest a directory cannot say which name the manifest had.
        let manifest = self.file().starts_with("manifest") && told.contains("manifest");
        // Without one of its files the log breaks off in the one before, or begins in the one behind.
        let gap = matches!(self, Damage::Missing { .. }) && self.is_log() && told.contains("wal-");
        with || manifest || gap || told.contains(self.file())
    }
}

/// Every kind of damage to every file.
fn damages(image: &Image, every: usize) -> Vec<Damage> {
    let mut all = Vec::new();
    for (number, (file, bytes)) in image.files.iter().enumerate() {
        let file = || file.clone();
        for at in 0..bytes.len() {
            // Headers and ends hold what everything else depends on.
            let dense = at < HEADER_BYTES || at + HEADER_BYTES > bytes.len();
            let step = if dense { every.min(5) } else { every };
            for (kind, to) in [bytes[at] ^ (1 << (at % 8)), 0x00, 0xFF].into_iter().enumerate() {
                if (at + number + kind * step / 3).is_multiple_of(step) && to != bytes[at] {
                    all.push(Damage::Byte { file: file(), at, to });
                }
            }
        }
        let lengths = (1..bytes.len()).filter(|len| (len + number).is_multiple_of(every * 2));
        all.extend(lengths.chain([0, bytes.len() - 1]).map(|len| Damage::Cut { file: file(), len }));
        all.extend([Damage::Missing { file: file() }, Damage::ZeroHeader { file: file() }]);
        let kind = |name: &str| {
            (name.split('-').next().map(str::to_string), name.split('.').nth(1).map(str::to_string))
        };
        let others = image.files.keys().filter(|other| **other > file() && kind(other) == kind(&file()));
        all.extend(others.map(|other| Damage::Exchanged { file: file(), with: other.clone() }));
    }
    all
}

/// What is missing of a timeline, by batch; everything that is there is right.
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
    text.split(' ').nth(1).and_then(|number| number.parse().ok()).expect("a body begins with its batch")
}

/// One damaged shape.
struct Case<'a> {
    shape: &'a Shape,
    damage: &'a Damage,
    image: Image,
}

impl Case<'_> {
    fn check(&self) {
        let disk = SimulatedDisk::from_image(&self.image);
        match open(&disk, false) {
            Ok(engine) => self.check_open(&disk, engine),
            Err(error) => {
                assert!(!self.damage.is_segment(), "a damaged segment refuses the open: {error}");
                assert!(
                    self.damage.is_told_by(&error),
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
            // What can be read although the whole cannot is right too.
            for (sequence, body) in newest.iter().flatten() {
                let right = self.shape.expected[key].get(*sequence as usize - 1).map_or(AFTER, Vec::as_slice);
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
                    assert!(self.damage.is_segment(), "{key:?} fails, and no segment is damaged: {error}");
                    assert!(self.damage.is_told_by(&error), "{key:?} fails without naming the file: {error}");
                    failed += 1;
                }
            }
        }
        if self.hits_last_group() {
            assert!(
                lost.is_empty() || lost == BTreeSet::from([self.shape.last_batch]),
                "lost batches {lost:?}"
            );
        } else {
            assert!(lost.is_empty(), "lost in silence: batches {lost:?}");
        }
        self.check_local(failed);
        self.check_appends(&engine, !lost.is_empty());
        let merged = engine.compact();
        if let Err(error) = &merged {
            assert!(self.damage.is_segment() && self.damage.is_told_by(error), "the merge fails: {error}");
        }
        drop(engine);
        if self.damage.is_segment() && merged.is_err() {
            self.check_kept(disk);
        }
    }

    /// After a merge that met damage: the damaged segment stays as it is, and all others show what they did.
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
        let engine = open(disk, false).expect("opens again");
        for (key, expected) in &self.shape.expected {
            match self.read(&engine, key) {
                Ok(mut found) => {
                    found.truncate(expected.len());
                    assert_eq!(missing(key, expected, &found), BTreeSet::new(), "{key:?} after the merge");
                }
                Err(error) => assert!(self.damage.is_told_by(&error), "{key:?} after the merge: {error}"),
            }
        }
    }

    fn hits_last_group(&self) -> bool {
        let (file, place) = &self.shape.last_group;
        matches!(self.damage, Damage::Byte { file: hit, at, .. } if hit == file && place.contains(at))
    }

    /// One byte of a block of entries hits the timelines in that block.
    fn check_local(&self, failed: usize) {
        let Damage::Byte { file, at, .. } = self.damage else { return };
        if self.shape.name == "many timelines" && file.contains(".data") && *at >= HEADER_BYTES {
            let all = self.shape.expected.len();
            assert!(failed > 0 && failed < all / 2, "one byte takes {failed} of {all} timelines away");
        }
    }

    fn check_appends(&self, engine: &Engine, last_group_lost: bool) {
        for (key, expected) in self.shape.expected.iter().step_by(7) {
            let given = engine.store(key.0).and_then(|store| store.append(key.1.as_bytes(), AFTER));
            match given {
                Ok(given) if last_group_lost => assert!(given <= expected.len() as u64 + 1),
                Ok(given) => assert_eq!(given, expected.len() as u64 + 1, "{key:?}: the next sequence"),
                Err(error) => assert!(self.damage.is_told_by(&error), "{key:?} takes no append: {error}"),
            }
        }
    }

    /// Read-only, a damaged log is gone around.
    fn check_salvage(&self) {
        let disk = SimulatedDisk::from_image(&self.image);
        let engine = open(&disk, true).expect("a damaged log can be opened read-only");
        let told = engine.damage();
        assert!(told.iter().any(|error| self.damage.is_told_by(error)), "the damage is not told: {told:?}");
        let mut lost = BTreeSet::new();
        for (key, expected) in &self.shape.expected {
            let found =
                self.read(&engine, key).unwrap_or_else(|error| panic!("{key:?} cannot be read: {error}"));
            let gone = missing(key, expected, &found);
            let flushed = self.shape.flushed.get(key).copied().unwrap_or(0);
            let flushed: BTreeSet<usize> = expected[..flushed].iter().map(|body| batch_of(body)).collect();
            assert!(gone.is_disjoint(&flushed), "{key:?} lost batches {gone:?}, some from segments");
            lost.extend(gone);
        }
        if let Damage::Byte { at, .. } = self.damage
            && *at >= HEADER_BYTES
        {
            assert!(lost.len() <= 1, "one byte takes {} groups away: {lost:?}", lost.len());
        }
        let refused = engine.store("messages").and_then(|store| store.append(b"c", b"body"));
        assert!(matches!(refused, Err(Error::Closed { .. })), "read-only takes no append");
        drop(engine);
        assert!(disk.contents() == self.image, "a read-only open changes nothing");
    }
}

/// How many damaged shapes are checked at once.
const WORKERS: usize = 6;

const PATIENCE: Duration = Duration::from_mins(1);

fn check_all(shape: Shape) {
    let long = std::env::var("STRANDLINE_PROOF").is_ok_and(|size| size == "long");
    let damages = damages(&shape.image, if long { 1 } else { 131 });
    println!("{}: {} kinds of damage to {} files", shape.name, damages.len(), shape.image.files.len());
    let (shape, damages) = (Arc::new(shape), Arc::new(damages));
    let next = Arc::new(AtomicUsize::new(0));
    let (done, told) = channel();
    for _ in 0..WORKERS {
        let (shape, damages, next, done) = (shape.clone(), damages.clone(), next.clone(), done.clone());
        std::thread::spawn(move || {
            while let Some(damage) = damages.get(next.fetch_add(1, Ordering::Relaxed)) {
                let case = Case { shape: &shape, damage, image: damage.apply(&shape.image) };
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
        match told.recv_timeout(PATIENCE) {
            Ok((_, true)) => checked += 1,
            Ok((damage, false)) => failed.push(damage),
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => panic!("one of these hangs: {:?}", &damages[checked..]),
        }
    }
    let first: Vec<_> = failed.iter().take(10).collect();
    assert!(failed.is_empty(), "{} of {} fail, as {first:#?}", failed.len(), damages.len());
    assert!(checked > 500, "only {checked} kinds of damage");
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

#[test]
fn of_a_logged_batch_that_damage_keeps_from_being_known_nothing_is_shown() {
    let disk = SimulatedDisk::new();
    let engine = open(&disk, false).expect("opens");
    let messages = engine.store("messages").expect("a store");
    messages.append(b"old", b"in a segment").expect("appends");
    engine.flush().expect("flushes");
    let batch =
        Batch::new().append(&messages, b"new", b"with the edit").edit(&messages, b"old", 1, b"edited");
    engine.submit(batch).expect("queued").wait().expect("committed");
    messages.append(b"other", b"behind it").expect("appends");
    drop((messages, engine));
    let mut image = disk.contents();
    image.files.iter_mut().filter(|(name, _)| name.ends_with(".index")).for_each(|(_, bytes)| bytes.fill(0));

    let engine = open(&SimulatedDisk::from_image(&image), true).expect("opens around the damage");
    let messages = engine.store("messages").expect("a store");
    let last = |timeline: &[u8]| messages.last(timeline).map(|last| last.map(|entry| entry.body));
    assert_eq!(last(b"other").expect("read"), Some("behind it".into()));
    assert!(matches!(last(b"new"), Ok(None) | Err(Error::Corrupt { .. })), "{:?}", last(b"new"));
    assert!(!engine.damage().is_empty());
}
