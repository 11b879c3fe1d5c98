//! Reads the valid part of a segment whose files may be damaged (P5), by walking both files, so
//! that neither needs the other.
//!
//! ```text
//!  index file ──valid pages──> ends of timelines, their changes of older segments  ┐ merged
//!  data file  ──valid runs───> entries                                             ├ by name
//!  body table, or counting from the start ──> numbers of shared bodies             ┘
//! ```
//!
//! Both files hold timelines in the order of their names, so that no more than one timeline is held
//! at a time; for shared bodies, one position per block.
//!
//! This file does not know other segments, or how the result is used.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use bytes::Bytes;

use super::walk::{BlockWalk, WalkedBlock};
use crate::error::{Error, Result};
use crate::format::block::{BlockKind, BlockRef, decode};
use crate::format::checksum::Seed;
use crate::format::header::FileKind;
use crate::format::index::{TimelineEntry, body_key};
use crate::format::run::{EntryContent, RunReader, Times, shared_body};
use crate::format::slots::Slots;
use crate::format::table::TablePage;
use crate::ids::{CommitPlace, EngineId, FileNumber, Sequence};
use crate::vfs::{Dir, File};

/// The files of a segment, as far as they were found.
#[derive(Clone, Debug, Default)]
pub struct SegmentFiles {
    /// The number that the seeds of its checksums contain.
    pub number: FileNumber,
    /// The names of the copies of the data file.
    pub data: Vec<String>,
    /// The names of the copies of the index file.
    pub index: Vec<String>,
}

/// One timeline's part of the segment.
#[derive(Debug, Default)]
pub struct ReadablePart {
    /// The index entry, if it can be read.
    pub entry: Option<TimelineEntry>,
    /// Its runs: the block, and the offset in it.
    runs: Vec<(BlockRef, usize)>,
    /// The first sequence in its runs.
    pub first: Option<Sequence>,
}

/// An entry that can be read.
pub struct Left {
    /// Its commit time and its lifetime.
    pub times: Times,
    /// Its body.
    pub body: Bytes,
    /// The number of its body, if that is a shared body.
    pub shared: Option<u32>,
    /// The place of its body's commit, if the body may have been changed for all its entries.
    pub place: Option<CommitPlace>,
    /// Its body is an edit in a younger segment.
    pub is_elsewhere: bool,
}

/// A segment that is walked.
pub struct Remains {
    /// The copies of the data file.
    data: Vec<File>,
    seed: Seed,
    /// Blocks of shared bodies, by the number of their first body.
    bodies: BTreeMap<u32, BlockRef>,
    index: Option<TimelineWalk>,
    runs: Option<TimelineWalk>,
    /// The block used last.
    held: Option<(BlockRef, Bytes)>,
    /// The damage of the files, as far as they were walked.
    pub damage: Vec<Error>,
}

/// A walk by name through blocks of one kind.
struct TimelineWalk {
    blocks: BlockWalk,
    kind: BlockKind,
    /// The content of the current block, lowest name last.
    waiting: Vec<(Vec<u8>, ReadablePart)>,
}

impl Remains {
    /// Starts the walk. A file that cannot be opened is damage, unless too many files are open: in
    /// that case its content is not lost.
    pub fn open(dir: &Dir, engine: EngineId, found: &SegmentFiles) -> Result<Remains> {
        let mut damage = Vec::new();
        let mut walk = |names: &Vec<String>, kind| {
            if names.is_empty() {
                return None;
            }
            let (walk, error) = BlockWalk::open(dir, names, engine, found.number, kind)
                .map_err(|error| damage.push(error))
                .ok()?;
            damage.extend(error);
            Some(walk)
        };
        let numbers = walk(&found.index, FileKind::Index);
        let (index, bodies) =
            (walk(&found.index, FileKind::Index), walk(&found.data, FileKind::Data));
        let runs = walk(&found.data, FileKind::Data);
        let opened: Vec<Result<File>> = found.data.iter().map(|name| dir.open(name)).collect();
        let failed = opened.iter().filter_map(|file| file.as_ref().err());
        if let Some(shortage) = damage.iter().chain(failed).find(|error| error.is_shortage()) {
            return Err(shortage.clone());
        }
        let mut remains = Remains {
            data: opened.into_iter().filter_map(Result::ok).collect(),
            seed: Seed::new(engine, found.number),
            bodies: BTreeMap::new(),
            index: index.map(|blocks| TimelineWalk {
                blocks,
                kind: BlockKind::IndexPage,
                waiting: Vec::new(),
            }),
            runs: runs.map(|blocks| TimelineWalk {
                blocks,
                kind: BlockKind::Runs,
                waiting: Vec::new(),
            }),
            held: None,
            damage,
        };
        // The header of each file was checked twice.
        remains.damage.dedup_by_key(|error| error.to_string());
        let numbers = numbers.map(|walk| remains.numbers(walk)).unwrap_or_default();
        if let Some(walk) = bodies {
            remains.number_bodies(walk, &numbers);
        }
        remains.step(false);
        remains.step(true);
        Ok(remains)
    }

    /// From the body table: the number of the first body of the block at each position.
    fn numbers(&mut self, mut walk: BlockWalk) -> BTreeMap<u64, u32> {
        let mut numbers = BTreeMap::new();
        while let Some(block) = walk.next() {
            let block = match block {
                Ok(block) if block.kind == BlockKind::BodyTable => block,
                Ok(_) => continue,
                Err(error) => {
                    self.damage.push(error);
                    continue;
                }
            };
            let Some(page) = TablePage::new(&block.raw).filter(|page| page.level == 0) else {
                continue;
            };
            for row in (0..page.count()).filter_map(|row| page.row(row)) {
                numbers.extend(body_key(row.key).map(|number| (row.block.at, number)));
            }
        }
        numbers
    }

    /// Numbers the blocks of shared bodies. All shared bodies are before the first run. After a
    /// block that is lost, only the body table has their numbers.
    fn number_bodies(&mut self, mut walk: BlockWalk, numbers: &BTreeMap<u64, u32>) {
        let mut next = Some(0);
        while let Some(block) = walk.next() {
            match block {
                Ok(block) if block.kind == BlockKind::Bodies => {
                    let first = numbers.get(&block.location.at).copied().or(next);
                    let count = Slots::new(&block.raw).map(|slots| slots.count() as u32);
                    next = first.zip(count).and_then(|(first, count)| first.checked_add(count));
                    self.bodies.extend(first.map(|first| (first, block.location)));
                }
                Ok(_) => return,
                Err(_) => next = None,
            }
        }
    }

    fn step(&mut self, is_index: bool) {
        let walk = if is_index { &mut self.index } else { &mut self.runs };
        let Some(walk) = walk else { return };
        while walk.waiting.is_empty() {
            match walk.blocks.next() {
                None => return,
                Some(Ok(block)) if block.kind == walk.kind => {
                    walk.waiting = if is_index { timelines(&block) } else { runs(&block) };
                    walk.waiting.reverse();
                }
                // Damage of the index was reported when it was walked for numbers.
                Some(Err(error)) if !is_index => self.damage.push(error),
                Some(_) => {}
            }
        }
    }

    /// The name of the next timeline.
    pub fn name(&self) -> Option<&[u8]> {
        let heads =
            [&self.index, &self.runs].into_iter().flatten().filter_map(|walk| walk.waiting.last());
        heads.map(|(name, _)| name.as_slice()).min()
    }

    /// The part of a timeline, if that is the next one.
    pub fn take(&mut self, name: &[u8]) -> Option<ReadablePart> {
        let mut part: Option<ReadablePart> = None;
        for is_index in [true, false] {
            loop {
                let walk = if is_index { &mut self.index } else { &mut self.runs };
                let head =
                    walk.as_mut().and_then(|walk| walk.waiting.pop_if(|(found, _)| found == name));
                let Some((_, found)) = head else { break };
                let part = part.get_or_insert_default();
                part.entry = part.entry.take().or(found.entry);
                part.first = part.first.or(found.first);
                part.runs.extend(found.runs);
                self.step(is_index);
            }
        }
        part
    }

    /// Calls `visit` for each entry of a part that can be read, ascending.
    pub fn for_each(
        &mut self,
        part: &ReadablePart,
        mut visit: impl FnMut(Sequence, Left) -> Result<()>,
    ) -> Result<()> {
        for (location, at) in &part.runs {
            let Ok(block) = self.block(BlockKind::Runs, *location) else { continue };
            let Some(mut run) = RunReader::at(&block, *at) else { continue };
            while let Some((sequence, content)) = run.next_entry() {
                let left = match content {
                    EntryContent::Inline { times, body, is_elsewhere, place } => {
                        let body = block.slice(body);
                        Some(Left { times, body, shared: None, place, is_elsewhere })
                    }
                    EntryContent::Shared { number, own_start_ms } => {
                        self.shared(number).map(|left| {
                            let Times { time_ms, expire_at_ms, .. } = left.times;
                            Left {
                                times: Times::stored(time_ms, own_start_ms, expire_at_ms),
                                ..left
                            }
                        })
                    }
                };
                if let Some(left) = left {
                    visit(sequence, left)?;
                }
            }
        }
        Ok(())
    }

    /// A shared body, if it can be read.
    pub fn shared(&mut self, number: u32) -> Option<Left> {
        let (first, location) = self
            .bodies
            .range(..=number)
            .next_back()
            .map(|(first, location)| (*first, *location))?;
        let block = match &self.held {
            Some((held, block)) if *held == location => block.clone(),
            _ => self.block(BlockKind::Bodies, location).ok()?,
        };
        let (shared, body) = shared_body(&block, (number - first) as usize)?;
        let body = block.slice(body);
        self.held = Some((location, block));
        let times = Times::stored(shared.time_ms, None, shared.expire_at_ms);
        Some(Left { times, body, shared: Some(number), place: shared.place, is_elsewhere: false })
    }

    /// The numbers of the shared bodies that can be read.
    pub fn shared_numbers(&mut self) -> Vec<u32> {
        let mut numbers = Vec::new();
        for (first, location) in self.bodies.clone() {
            let Ok(block) = self.block(BlockKind::Bodies, location) else { continue };
            numbers.extend(
                (0..Slots::new(&block).map_or(0, |slots| slots.count() as u32))
                    .map(|at| first + at),
            );
        }
        numbers
    }

    fn block(&self, kind: BlockKind, location: BlockRef) -> Result<Bytes> {
        let mut damage = Error::invalid("there is no data file");
        for file in &self.data {
            let read = file.read(location.at, location.bytes as usize);
            let decoded = read.and_then(|bytes| {
                decode(kind, &bytes, self.seed.at(location.at))
                    .map_err(|what| Error::corrupt(file.path(), location.at, what))
            });
            match decoded {
                Ok(raw) => return Ok(raw.into()),
                Err(error) => damage = error,
            }
        }
        Err(damage)
    }
}

/// The timelines in a page of an index.
fn timelines(page: &WalkedBlock) -> Vec<(Vec<u8>, ReadablePart)> {
    let Some(slots) = Slots::new(&page.raw) else { return Vec::new() };
    let decoded = (0..slots.count()).filter_map(|slot| TimelineEntry::decode(slots.get(slot)?));
    decoded
        .map(|(name, entry)| {
            (name.to_vec(), ReadablePart { entry: Some(entry), ..ReadablePart::default() })
        })
        .collect()
}

/// The runs in a block, by name.
fn runs(block: &WalkedBlock) -> Vec<(Vec<u8>, ReadablePart)> {
    let mut found: BTreeMap<Vec<u8>, ReadablePart> = BTreeMap::new();
    let mut at = 0;
    while at < block.raw.len()
        && let Some(run) = RunReader::at(&block.raw, at)
    {
        let part = match found.entry(run.name.to_vec()) {
            Entry::Occupied(part) => part.into_mut(),
            Entry::Vacant(vacant) => vacant.insert(ReadablePart {
                first: run.clone().next_entry().map(|(sequence, _)| sequence),
                ..ReadablePart::default()
            }),
        };
        part.runs.push((block.location, at));
        at = run.next_run_at();
    }
    found.into_iter().collect()
}
