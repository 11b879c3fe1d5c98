//! fjall, with default options except its block cache: 256 MiB unless a workload says otherwise, as
//! much as Strandline's budget gives to blocks.
//!
//! Keys are numbered by the caller (`sequences`); stores are keyspaces. Logged: the call returns
//! after write(2) (`PersistMode::Buffer`). Synced: after fdatasync (`PersistMode::SyncData`), made
//! under the lock of its log: concurrent callers queue for one fdatasync each, so the workloads
//! also measure one caller that gathers appends into a batch. Flush rotates the memtables and
//! waits; compaction is a major one.

use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use fjall::{Database, Keyspace, KeyspaceCreateOptions, OwnedWriteBatch, PersistMode};

use super::sequences::{Sequences, key, keys_after};
use super::{Copies, Durability, Found, Peer, Pending, Work};
use crate::workload::{TIMELINES, sync_timeline};

/// An open database and the last sequence of each timeline.
pub struct Fjall {
    database: Database,
    messages: Keyspace,
    sync: Keyspace,
    copies: Copies,
    sequences: Sequences,
}

impl Fjall {
    /// Opens one in an empty directory, or in one that it filled before.
    pub fn open(dir: &Path, copies: Copies, cache_bytes: usize) -> Result<Fjall> {
        let database = Database::builder(dir).cache_size(cache_bytes as u64).open()?;
        let messages = database.keyspace("messages", KeyspaceCreateOptions::default)?;
        let sync = database.keyspace("sync", KeyspaceCreateOptions::default)?;
        Ok(Fjall { database, messages, sync, copies, sequences: Sequences::new() })
    }

    fn keyspace(&self, timeline: u32) -> &Keyspace {
        if timeline < TIMELINES { &self.messages } else { &self.sync }
    }

    /// Adds the body of an entry of a timeline, which a reference leads to.
    fn add(&self, found: &mut Found, timeline: u32, value: &[u8]) -> Result<()> {
        if self.copies.refers(timeline) {
            found.add(&self.messages.get(value)?.context("a reference without its body")?);
        } else {
            found.add(value);
        }
        Ok(())
    }

    fn fill(&self, batch: &mut OwnedWriteBatch, work: Work<'_>) {
        match work {
            Work::Appends(appends) => {
                for append in appends {
                    batch.insert(
                        &self.messages,
                        self.sequences.next_key(append.timeline),
                        append.body,
                    );
                }
            }
            Work::FanOut(fan_out) => {
                let first = self.sequences.next_key(fan_out.conversation);
                batch.insert(&self.messages, first, fan_out.body);
                let value = match self.copies {
                    Copies::Inline => fan_out.body,
                    Copies::References => &first,
                };
                for &user in fan_out.members {
                    batch.insert(&self.sync, self.sequences.next_key(sync_timeline(user)), value);
                }
            }
        }
    }
}

impl Peer for Fjall {
    fn submit(&self, work: Work<'_>, durability: Durability) -> Result<Pending> {
        // One append without fsync needs no batch, and is faster without one.
        if let (Work::Appends([append]), Durability::Logged) = (work, durability) {
            self.messages.insert(self.sequences.next_key(append.timeline), append.body)?;
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

    fn resume(&self, timeline: u32, last_sequence: u64) {
        self.sequences.resume(timeline, last_sequence);
    }

    fn latest(&self, timeline: u32, count: usize) -> Result<Found> {
        let mut found = Found::default();
        let keys = self.sequences.newest_keys(timeline, count);
        for item in self.keyspace(timeline).range(keys).rev() {
            self.add(&mut found, timeline, &item.value()?)?;
        }
        Ok(found)
    }

    fn after(&self, timeline: u32, sequence: u64, count: usize) -> Result<Found> {
        let mut found = Found::default();
        for item in self.keyspace(timeline).range(keys_after(timeline, sequence)).take(count) {
            self.add(&mut found, timeline, &item.value()?)?;
        }
        Ok(found)
    }

    fn get(&self, timeline: u32, sequence: u64) -> Result<Found> {
        let mut found = Found::default();
        if let Some(value) = self.keyspace(timeline).get(key(timeline, sequence))? {
            self.add(&mut found, timeline, &value)?;
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
