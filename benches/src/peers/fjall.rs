//! fjall, with default options except its block cache: 256 MiB, as much as Strandline's default
//! budget gives to blocks.
//!
//! A key is a timeline and a sequence, both big-endian, numbered by the caller from a table; stores
//! are keyspaces. Logged: the call returns after write(2) (`PersistMode::Buffer`). Synced: after
//! fdatasync (`PersistMode::SyncData`), made under the lock of its log: concurrent callers queue
//! for one fdatasync each, so the workloads also measure one caller that gathers appends into a
//! batch. Flush rotates the memtables and waits; compaction is a major one.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::Result;
use fjall::{Database, Keyspace, KeyspaceCreateOptions, OwnedWriteBatch, PersistMode};

use super::{Copies, Durability, Found, Peer, Pending, Work};
use crate::workload::TIMELINES;

const CACHE_BYTES: u64 = 256 * 1024 * 1024;

/// An open database and the last sequence of each timeline.
pub struct Fjall {
    database: Database,
    messages: Keyspace,
    sync: Keyspace,
    copies: Copies,
    lasts: Vec<AtomicU64>,
}

impl Fjall {
    /// Opens one in an empty directory.
    pub fn open(dir: &Path, copies: Copies) -> Result<Fjall> {
        let database = Database::builder(dir).cache_size(CACHE_BYTES).open()?;
        let messages = database.keyspace("messages", KeyspaceCreateOptions::default)?;
        let sync = database.keyspace("sync", KeyspaceCreateOptions::default)?;
        let lasts = (0..TIMELINES * 2).map(|_| AtomicU64::new(0)).collect();
        Ok(Fjall { database, messages, sync, copies, lasts })
    }

    /// The next key of a timeline; those of users are above `TIMELINES`.
    fn next_key(&self, timeline: u32) -> [u8; 12] {
        key(timeline, self.lasts[timeline as usize].fetch_add(1, Ordering::Relaxed) + 1)
    }

    fn fill(&self, batch: &mut OwnedWriteBatch, work: Work<'_>) {
        match work {
            Work::Appends(appends) => {
                for append in appends {
                    batch.insert(&self.messages, self.next_key(append.timeline), append.body);
                }
            }
            Work::FanOut(fan_out) => {
                let first = self.next_key(fan_out.conversation);
                batch.insert(&self.messages, first, fan_out.body);
                let value = match self.copies {
                    Copies::Inline => fan_out.body,
                    Copies::References => &first,
                };
                for &user in fan_out.members {
                    batch.insert(&self.sync, self.next_key(TIMELINES + user), value);
                }
            }
        }
    }
}

fn key(timeline: u32, sequence: u64) -> [u8; 12] {
    let mut key = [0; 12];
    key[..4].copy_from_slice(&timeline.to_be_bytes());
    key[4..].copy_from_slice(&sequence.to_be_bytes());
    key
}

impl Peer for Fjall {
    fn submit(&self, work: Work<'_>, durability: Durability) -> Result<Pending> {
        // One append without fsync needs no batch, and is faster without one.
        if let (Work::Appends([append]), Durability::Logged) = (work, durability) {
            self.messages.insert(self.next_key(append.timeline), append.body)?;
            return Ok(Pending::Done);
        }
        let mode = match durability {
            Durability::Logged => PersistMode::Buffer,
            Durability::Synced => PersistMode::SyncData,
        };
        let capacity = work.timeline_writes() as usize;
        let mut batch =
            OwnedWriteBatch::with_capacity(self.database.clone(), capacity).durability(Some(mode));
        self.fill(&mut batch, work);
        batch.commit()?;
        Ok(Pending::Done)
    }

    fn latest(&self, timeline: u32, count: usize) -> Result<Found> {
        // The bounds come from the table, which saves the engine a search for the end of the
        // timeline.
        let end = self.lasts[timeline as usize].load(Ordering::Relaxed);
        let begin = (end + 1).saturating_sub(count as u64).max(1);
        let mut found = Found::default();
        for item in self.messages.range(key(timeline, begin)..=key(timeline, end)).rev() {
            found.add(&item.value()?);
        }
        Ok(found)
    }

    fn flush(&self) -> Result<()> {
        self.messages.rotate_memtable_and_wait()?;
        self.sync.rotate_memtable_and_wait()?;
        while self.database.outstanding_flushes() > 0 || self.database.active_compactions() > 0 {
            thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    fn compact(&self) -> Result<()> {
        self.messages.major_compact()?;
        self.sync.major_compact()?;
        Ok(())
    }
}
