//! The stores to damage, and the earlier content of their files.

use std::collections::BTreeMap;
use std::ops::Range;

use strandline::vfs::simulated::{Image, Op, SECTOR_BYTES, SimulatedDisk};
use strandline::{Batch, Durability, Engine};

use super::open;
use crate::simulation::fan_out;

/// A store and a timeline.
pub type Key = (&'static str, String);

/// The bodies of each timeline, in order.
pub type Timelines = BTreeMap<Key, Vec<Vec<u8>>>;

/// A store to damage.
pub struct Shape {
    pub name: &'static str,
    pub image: Image,
    pub expected: Timelines,
    /// How many entries of each timeline are in segments.
    pub flushed: BTreeMap<Key, usize>,
    /// The log file that ends the log, and the position of the last group in it.
    pub last_group: (String, Range<usize>),
    pub last_batch: usize,
    pub past: Past,
}

/// The kind of file of a name: its prefix and suffix.
pub fn kind(name: &str) -> (&str, &str) {
    (name.split('-').next().unwrap_or_default(), name.split('.').nth(1).unwrap_or_default())
}

/// The content of files at earlier times.
#[derive(Default)]
pub struct Past {
    /// For each existing file, other contents of its sectors.
    sectors: BTreeMap<String, Vec<(usize, Vec<u8>)>>,
    /// For each existing file, its contents at each of its syncs; for removed files, their last
    /// contents, each with its name.
    copies: Vec<(String, bool, Vec<u8>)>,
}

impl Past {
    /// Goes through the calls of a disk.
    fn of(log: &[Op], image: &Image) -> Past {
        let mut past = Past::default();
        let mut names: BTreeMap<&str, u64> = BTreeMap::new();
        let mut files: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
        let mut sectors: BTreeMap<u64, Vec<(usize, Vec<u8>)>> = BTreeMap::new();
        let mut synced: BTreeMap<u64, Vec<Vec<u8>>> = BTreeMap::new();
        for op in log {
            match op {
                Op::Create { name, file } => drop(names.insert(name, *file)),
                Op::Rename { from, to } => {
                    let file = names.remove(from.as_str()).expect("it was there");
                    names.insert(to, file);
                }
                Op::Remove { name } => {
                    let content =
                        names.remove(name.as_str()).and_then(|file| files.get(&file)).cloned();
                    past.copies.push((name.clone(), false, content.unwrap_or_default()));
                }
                Op::SetLen { file, len } => {
                    files.entry(*file).or_default().resize(*len as usize, 0);
                }
                Op::Write { file, offset, bytes } => {
                    let content = files.entry(*file).or_default();
                    let range = *offset as usize..*offset as usize + bytes.len();
                    content.resize(content.len().max(range.end), 0);
                    let of = sectors.entry(*file).or_default();
                    for at in range.start / SECTOR_BYTES..range.end.div_ceil(SECTOR_BYTES) {
                        let held = &content[at * SECTOR_BYTES..];
                        of.push((at, held[..held.len().min(SECTOR_BYTES)].to_vec()));
                    }
                    content[range].copy_from_slice(bytes);
                }
                Op::Sync { file, .. } => synced.entry(*file).or_default().push(files[file].clone()),
                Op::SyncFailed { .. } | Op::SyncDir { .. } | Op::Mark(_) => {}
            }
        }
        for (name, file) in names.into_iter().filter(|(name, _)| image.files.contains_key(*name)) {
            let mut of = sectors.remove(&file).unwrap_or_default();
            of.sort();
            of.dedup();
            past.sectors.insert(name.into(), of);
            let copies = synced.remove(&file).unwrap_or_default().into_iter();
            past.copies.extend(copies.map(|content| (name.into(), true, content)));
        }
        past
    }

    pub fn sectors(&self, file: &str) -> &[(usize, Vec<u8>)] {
        self.sectors.get(file).map_or(&[], Vec::as_slice)
    }

    /// Older copies of a file: of itself, and of removed files of its kind.
    pub fn copies(&self, file: &str) -> impl Iterator<Item = &Vec<u8>> {
        let is_one =
            move |of: &str, there: bool| if there { of == file } else { kind(of) == kind(file) };
        self.copies
            .iter()
            .filter(move |(of, there, _)| is_one(of, *there))
            .map(|(_, _, content)| content)
    }
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
        let batch = Batch::new().durability(durability);
        let by_list = targets.len() > 1 && !self.batches.is_multiple_of(4);
        let batch = fan_out(batch, &self.engine, &body, &named, by_list);
        self.engine.submit(batch).expect("queued").wait().expect("committed");
        for key in targets {
            self.expected.entry(key.clone()).or_default().push(body.clone());
        }
    }

    fn flush(&mut self) {
        self.engine.flush().expect("flushes");
        self.flushed =
            self.expected.iter().map(|(key, bodies)| (key.clone(), bodies.len())).collect();
    }

    /// A kill and its consequence: the last group is copied into a new log file.
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
        let start =
            bytes.windows(4).rposition(|window| window == b"SLgr").expect("there is a group");
        Shape {
            name,
            last_group: (log.clone(), start..bytes.len()),
            expected: self.expected,
            flushed: self.flushed,
            last_batch: self.batches,
            past: Past::of(&self.disk.log(), &image),
            image,
        }
    }
}

pub fn many_timelines() -> Shape {
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

pub fn one_long_timeline() -> Shape {
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

pub fn fan_outs() -> Shape {
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
