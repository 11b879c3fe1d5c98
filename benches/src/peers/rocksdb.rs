//! RocksDB, Debian's library, with default options except its block cache: 256 MiB, as much as
//! Strandline's default budget gives to blocks.
//!
//! Keys are numbered by the caller (`sequences`); stores are column families. Logged: the call
//! returns after write(2) of its log. Synced: after fdatasync (`sync` of the write options), which
//! concurrent callers share in the engine's write group. Flush writes the memtables out and waits
//! for compactions; compaction is of the whole range.

use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use rocksdb::properties::{COMPACTION_PENDING, NUM_RUNNING_COMPACTIONS};
use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamily, ColumnFamilyDescriptor, DB, IteratorMode, Options,
    ReadOptions, WriteBatch, WriteOptions,
};

use super::sequences::Sequences;
use super::{Copies, Durability, Found, Peer, Pending, Work};
use crate::workload::TIMELINES;

const CACHE_BYTES: usize = 256 * 1024 * 1024;

const MESSAGES: &str = "messages";
const SYNC: &str = "sync";

/// An open database.
pub struct RocksDb {
    database: DB,
    copies: Copies,
    sequences: Sequences,
}

impl RocksDb {
    /// Opens one in an empty directory.
    pub fn open(dir: &Path, copies: Copies) -> Result<RocksDb> {
        let mut blocks = BlockBasedOptions::default();
        blocks.set_block_cache(&Cache::new_lru_cache(CACHE_BYTES)?);
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
                    batch.put_cf(sync, self.sequences.next_key(TIMELINES + user), value);
                }
            }
        }
        let mut options = WriteOptions::default();
        options.set_sync(durability == Durability::Synced);
        self.database.write_opt(batch, &options)?;
        Ok(Pending::Done)
    }

    fn latest(&self, timeline: u32, count: usize) -> Result<Found> {
        let keys = self.sequences.newest_keys(timeline, count);
        let mut options = ReadOptions::default();
        options.set_iterate_lower_bound(keys.start);
        options.set_iterate_upper_bound(keys.end);
        let messages = self.family(MESSAGES)?;
        let mut found = Found::default();
        for item in self.database.iterator_cf_opt(messages, options, IteratorMode::End) {
            found.add(&item?.1);
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
