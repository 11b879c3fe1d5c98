//! raft-engine, with default options: a log shared by all regions, an index of every entry in
//! memory, lz4 for batches of 8 KiB and more.
//!
//! A timeline is a region, its sequences are the region's log indexes, numbered by the caller as
//! the engine requires (`sequences`); hence no two threads may write to one timeline at a time (the
//! workloads give each its own). Logged: `write(.., sync = false)` returns after write(2). Synced:
//! after fdatasync; concurrent callers share it in the engine's write group. It does not sort or
//! merge its data: flush is a sync, compaction only purges old files.

use std::cell::RefCell;
use std::ops::Range;
use std::path::Path;

use anyhow::{Context, Result};
use raft_engine::{Config, Engine, LogBatch, MessageExt};

use super::raft_entry::RaftEntry;
use super::sequences::Sequences;
use super::{Copies, Durability, Found, Peer, Pending, Work};
use crate::workload::sync_timeline;

/// Returns the index of an entry to the engine.
struct Format;

impl MessageExt for Format {
    type Entry = RaftEntry;

    fn index(entry: &RaftEntry) -> u64 {
        entry.index
    }
}

/// Buffers that a writing thread keeps from call to call, so that the engine is measured and not
/// the allocator.
#[derive(Default)]
struct Scratch {
    batch: LogBatch,
    entry: RaftEntry,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// An open engine and the last index of each region.
pub struct RaftEngine {
    engine: Engine,
    copies: Copies,
    sequences: Sequences,
}

impl RaftEngine {
    /// Opens one in an empty directory, or in one that it filled before.
    pub fn open(dir: &Path, copies: Copies) -> Result<RaftEngine> {
        let config = Config { dir: dir.to_string_lossy().into_owned(), ..Config::default() };
        Ok(RaftEngine { engine: Engine::open(config)?, copies, sequences: Sequences::new() })
    }

    /// Adds the scratch's entry to its batch, at the end of `region`; returns its position.
    fn push(&self, scratch: &mut Scratch, region: u32) -> Result<u64> {
        scratch.entry.index = self.sequences.next(region);
        scratch
            .batch
            .add_entries::<Format>(u64::from(region), std::slice::from_ref(&scratch.entry))?;
        Ok(scratch.entry.index)
    }

    /// Reads these entries of a region, which exist.
    fn fetch(&self, region: u32, indexes: Range<u64>) -> Result<Vec<RaftEntry>> {
        let mut entries = Vec::with_capacity((indexes.end - indexes.start) as usize);
        let (first, end) = (indexes.start, indexes.end);
        self.engine.fetch_entries_to::<Format>(
            u64::from(region),
            first,
            end,
            None,
            &mut entries,
        )?;
        Ok(entries)
    }

    /// The sum of these entries of a region, whose bodies references lead to.
    fn found<'e>(
        &self,
        region: u32,
        entries: impl Iterator<Item = &'e RaftEntry>,
    ) -> Result<Found> {
        let mut found = Found::default();
        for entry in entries {
            if self.copies.refers(region) {
                found.add(&self.follow(&entry.body)?.body);
            } else {
                found.add(&entry.body);
            }
        }
        Ok(found)
    }

    fn follow(&self, reference: &[u8]) -> Result<RaftEntry> {
        let (region, index) = reference.split_first_chunk().context("a reference of 12 bytes")?;
        let region = u64::from(u32::from_be_bytes(*region));
        let index = u64::from_be_bytes(index.try_into()?);
        self.engine.get_entry::<Format>(region, index)?.context("a reference without its body")
    }

    fn fill(&self, scratch: &mut Scratch, work: Work<'_>) -> Result<()> {
        match work {
            Work::Appends(appends) => {
                for append in appends {
                    replace(&mut scratch.entry.body, append.body);
                    self.push(scratch, append.timeline)?;
                }
            }
            Work::FanOut(fan_out) => {
                replace(&mut scratch.entry.body, fan_out.body);
                let index = self.push(scratch, fan_out.conversation)?;
                if self.copies == Copies::References {
                    replace(&mut scratch.entry.body, &fan_out.conversation.to_be_bytes());
                    scratch.entry.body.extend_from_slice(&index.to_be_bytes());
                }
                for &user in fan_out.members {
                    self.push(scratch, sync_timeline(user))?;
                }
            }
        }
        Ok(())
    }
}

fn replace(body: &mut Vec<u8>, by: &[u8]) {
    body.clear();
    body.extend_from_slice(by);
}

impl Peer for RaftEngine {
    fn submit(&self, work: Work<'_>, durability: Durability) -> Result<Pending> {
        SCRATCH.with_borrow_mut(|scratch| {
            self.fill(scratch, work)?;
            self.engine.write(&mut scratch.batch, durability == Durability::Synced)?;
            Ok(Pending::Done)
        })
    }

    fn resume(&self, timeline: u32, last_sequence: u64) {
        self.sequences.resume(timeline, last_sequence);
    }

    fn latest(&self, timeline: u32, count: usize) -> Result<Found> {
        let entries = self.fetch(timeline, self.sequences.newest(timeline, count))?;
        self.found(timeline, entries.iter().rev())
    }

    fn after(&self, timeline: u32, sequence: u64, count: usize) -> Result<Found> {
        let last = self.engine.last_index(u64::from(timeline)).unwrap_or(0);
        let first = sequence + 1;
        let end = (last + 1).min(first + count as u64);
        if first >= end {
            return Ok(Found::default());
        }
        self.found(timeline, self.fetch(timeline, first..end)?.iter())
    }

    fn get(&self, timeline: u32, sequence: u64) -> Result<Found> {
        let entry = self.engine.get_entry::<Format>(u64::from(timeline), sequence)?;
        self.found(timeline, entry.iter())
    }

    fn flush(&self) -> Result<()> {
        Ok(self.engine.sync()?)
    }

    fn compact(&self) -> Result<()> {
        Ok(self.engine.purge_expired_files().map(drop)?)
    }
}
