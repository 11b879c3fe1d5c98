//! raft-engine, with default options: a log shared by all regions, an index of every entry in
//! memory, lz4 for batches of 8 KiB and more.
//!
//! A timeline is a region, its sequences are the region's log indexes, numbered by the caller as
//! the engine requires (`sequences`); hence no two threads may write to one timeline at a time (the
//! workloads give each its own). Logged: `write(.., sync = false)` returns after write(2). Synced:
//! after fdatasync; concurrent callers share it in the engine's write group. It does not sort or
//! merge its data: flush is a sync, compaction only purges old files.

use std::cell::RefCell;
use std::path::Path;

use anyhow::Result;
use raft_engine::{Config, Engine, LogBatch, MessageExt};

use super::raft_entry::RaftEntry;
use super::sequences::Sequences;
use super::{Copies, Durability, Found, Peer, Pending, Work};
use crate::workload::TIMELINES;

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
    /// Opens one in an empty directory.
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
                    self.push(scratch, TIMELINES + user)?;
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

    fn latest(&self, timeline: u32, count: usize) -> Result<Found> {
        let newest = self.sequences.newest(timeline, count);
        let mut entries = Vec::with_capacity(count);
        self.engine.fetch_entries_to::<Format>(
            u64::from(timeline),
            newest.start,
            newest.end,
            None,
            &mut entries,
        )?;
        let mut found = Found::default();
        entries.iter().rev().for_each(|entry| found.add(&entry.body));
        Ok(found)
    }

    fn flush(&self) -> Result<()> {
        Ok(self.engine.sync()?)
    }

    fn compact(&self) -> Result<()> {
        Ok(self.engine.purge_expired_files().map(drop)?)
    }
}
