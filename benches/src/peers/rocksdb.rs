//! RocksDB, Debian's library, with default options except its block cache: 256 MiB unless a
//! workload says otherwise, as much as Strandline's budget gives to blocks.
//!
//! Keys are numbered by the caller (`sequences`); stores are column families. Logged: the call
//! returns after write(2) of its log. Synced: after fdatasync (`sync` of the write options), which
//! concurrent callers share in the engine's write group. Flush writes the memtables out and waits
//! for compactions; compaction is of the whole range.

use std::ops::Range;
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use rocksdb::properties::{COMPACTION_PENDING, NUM_RUNNING_COMPACTIONS};
use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamily, ColumnFamilyDescriptor, DB, DBIterator, IteratorMode,
    Options, ReadOptions, WriteBatch, WriteOptions,
};

use super::sequences::{Key, Sequences, key, keys_after};
use super::{Copies, Durability, Found, Peer, Pending, Work};
use crate::workload::{TIMELINES, sync_timeline};

const MESSAGES: &str = "messages";
const SYNC: &str = "sync";

/// An open database.
pub struct RocksDb {
    database: DB,
    copies: Copies,
    sequences: Sequences,
}

impl RocksDb {
    /// Opens one in an empty directory, or in one that it filled before.
    pub fn open(dir: &Path, copies: Copies, cache_bytes: usize) -> Result<RocksDb> {
        let mut blocks = BlockBasedOptions::default();
        blocks.set_block_cache(&Cache::new_lru_cache(cache_bytes)?);
        let mut options = Options::default();
        options.create_if_missing(true);
        options.create_missing_column_families(true);
        options.set_block_based_table_factory(&blocks);
        let families =
            [MESSAGES, SYNC].map(|name| ColumnFamilyDescriptor::new(name, options.clone()));
        let database = DB::open_cf_descriptors(&options, dir, families)?;
        Ok(RocksDb { database, copies, sequences: Sequences::new() })
    }

    fn family(&self, name: &str) -> Result<&ColumnFamily> {
        self.database.cf_handle(name).context("a column family that was opened")
    }

    fn family_of(&self, timeline: u32) -> Result<&ColumnFamily> {
        self.family(if timeline < TIMELINES { MESSAGES } else { SYNC })
    }

    fn iterate(
        &self,
        timeline: u32,
        keys: Range<Key>,
        from: IteratorMode<'_>,
    ) -> Result<DBIterator<'_>> {
        let mut options = ReadOptions::default();
        options.set_iterate_lower_bound(keys.start);
        options.set_iterate_upper_bound(keys.end);
        Ok(self.database.iterator_cf_opt(self.family_of(timeline)?, options, from))
    }

    /// Adds the body of an entry of a timeline, which a reference leads to.
    fn add(&self, found: &mut Found, timeline: u32, value: &[u8]) -> Result<()> {
        if self.copies.refers(timeline) {
            let body = self.database.get_pinned_cf(self.family(MESSAGES)?, value)?;
            found.add(&body.context("a reference without its body")?);
        } else {
            found.add(value);
        }
        Ok(())
    }
}

impl Peer for RocksDb {
    fn submit(&self, work: Work<'_>, durability: Durability) -> Result<Pending> {
        let (messages, sync) = (self.family(MESSAGES)?, self.family(SYNC)?);
        let mut batch = WriteBatch::default();
        match work {
            Work::Appends(appends) => {
                for append in appends {
                    let key = self.sequences.next_key(append.timeline);
                    batch.put_cf(messages, key, append.body);
                }
            }
            Work::FanOut(fan_out) => {
                let first = self.sequences.next_key(fan_out.conversation);
                batch.put_cf(messages, first, fan_out.body);
                let value = match self.copies {
                    Copies::Inline => fan_out.body,
                    Copies::References => &first,
                };
                for &user in fan_out.members {
                    batch.put_cf(sync, self.sequences.next_key(sync_timeline(user)), value);
                }
            }
        }
        let mut options = WriteOptions::default();
        options.set_sync(durability == Durability::Synced);
        self.database.write_opt(batch, &options)?;
        Ok(Pending::Done)
    }

    fn resume(&self, timeline: u32, last_sequence: u64) {
        self.sequences.resume(timeline, last_sequence);
    }

    fn latest(&self, timeline: u32, count: usize) -> Result<Found> {
        let keys = self.sequences.newest_keys(timeline, count);
        let mut found = Found::default();
        for item in self.iterate(timeline, keys, IteratorMode::End)? {
            self.add(&mut found, timeline, &item?.1)?;
        }
        Ok(found)
    }

    fn after(&self, timeline: u32, sequence: u64, count: usize) -> Result<Found> {
        let keys = keys_after(timeline, sequence);
        let mut found = Found::default();
        for item in self.iterate(timeline, keys, IteratorMode::Start)?.take(count) {
            self.add(&mut found, timeline, &item?.1)?;
        }
        Ok(found)
    }

    fn get(&self, timeline: u32, sequence: u64) -> Result<Found> {
        let mut found = Found::default();
        let family = self.family_of(timeline)?;
        if let Some(value) = self.database.get_pinned_cf(family, key(timeline, sequence))? {
            self.add(&mut found, timeline, &value)?;
        }
        Ok(found)
    }

    fn flush(&self) -> Result<()> {
        for name in [MESSAGES, SYNC] {
            let family = self.family(name)?;
            self.database.flush_cf(family)?;
            for property in [COMPACTION_PENDING, NUM_RUNNING_COMPACTIONS] {
                while self.database.property_int_value_cf(family, property)? > Some(0) {
                    thread::sleep(Duration::from_millis(5));
                }
            }
        }
        Ok(())
    }

    fn compact(&self) -> Result<()> {
        for name in [MESSAGES, SYNC] {
            self.database.compact_range_cf(self.family(name)?, None::<&[u8]>, None::<&[u8]>);
        }
        Ok(())
    }
}
